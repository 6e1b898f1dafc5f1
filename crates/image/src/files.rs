//! Reading from and writing to the tree on behalf of a boot loader.

use std::sync::Arc;

use amiforge_tree::{Content, Ino, Inode, Kind, Stat, Tree};
use amiforge_types::{BlobTable, Timestamp};

use crate::ImageError;

/// Files that are read whole: boot loaders and configuration.
const MAX_FILE: u64 = 64 << 20;
/// As the kernel has it.
const MAX_SYMLINKS: u32 = 40;

/// The tree with what is needed to read its files.
pub(crate) struct Files<'a> {
    pub tree: Tree,
    pub blobs: &'a BlobTable,
    pub clock: Timestamp,
}

impl Files<'_> {
    /// The path that `path` leads to, symbolic links followed inside the tree.
    pub(crate) fn resolve(&self, path: &str) -> Option<(Vec<u8>, Ino)> {
        let mut todo: Vec<Vec<u8>> = split(path.as_bytes()).map(<[u8]>::to_vec).rev().collect();
        let (mut at, mut links) = (Vec::<(Vec<u8>, Ino)>::new(), 0);
        while let Some(name) = todo.pop() {
            if name == b".." {
                at.pop();
                continue;
            }
            let dir = at.last().map_or(Ino::ROOT, |(_, ino)| *ino);
            let ino = self.tree.children(dir)?.get(&name)?;
            if let Some(target) = self.tree.target(ino) {
                links += 1;
                if links > MAX_SYMLINKS {
                    return None;
                }
                if target.starts_with(b"/") {
                    at.clear();
                }
                todo.extend(split(target).map(<[u8]>::to_vec).rev());
            } else {
                at.push((name, ino));
            }
        }
        let ino = at.last().map_or(Ino::ROOT, |(_, ino)| *ino);
        let names: Vec<&[u8]> = at.iter().map(|(name, _)| name.as_slice()).collect();
        Some((names.join(&b'/'), ino))
    }

    /// True when something is there.
    pub(crate) fn exists(&self, path: &str) -> bool {
        self.resolve(path).is_some()
    }

    /// The bytes of a file; `None` when there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Arc<[u8]>>, ImageError> {
        match self.content(path) {
            None => Ok(None),
            Some(content) => match content.read_to_vec(self.blobs, MAX_FILE) {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(source) => Err(ImageError::Read {
                    path: path.to_owned(),
                    source,
                }),
            },
        }
    }

    /// The bytes of a file that `package` brings.
    pub(crate) fn require(
        &self,
        path: &str,
        package: &'static str,
    ) -> Result<Arc<[u8]>, ImageError> {
        self.read(path)?.ok_or_else(|| ImageError::MissingLoader {
            path: path.to_owned(),
            package,
        })
    }

    /// The content of a regular file.
    pub(crate) fn content(&self, path: &str) -> Option<Content> {
        match self.tree.inode(self.resolve(path)?.1).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }

    /// Names in a directory, in byte order; those that are no UTF-8 are left out.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let children = self
            .resolve(path)
            .and_then(|(_, ino)| self.tree.children(ino));
        children
            .into_iter()
            .flat_map(|children| children.names())
            .filter_map(|name| String::from_utf8(name.to_vec()).ok())
            .collect()
    }

    /// Makes a directory (0755, root) and its parents where they are missing; gives its real path.
    pub(crate) fn make_dir(&mut self, path: &str) -> Result<Vec<u8>, ImageError> {
        let (mut real, mut ino) = (Vec::new(), Ino::ROOT);
        let mut so_far = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            so_far.push('/');
            so_far.push_str(name);
            let next = match self.resolve(&so_far) {
                Some(found) => found,
                None => {
                    let mut new = real.clone();
                    if !new.is_empty() {
                        new.push(b'/');
                    }
                    new.extend_from_slice(name.as_bytes());
                    let inode = Inode::new(self.stat(0o755), Kind::Dir);
                    let ino = self.insert(&new, inode)?;
                    (new, ino)
                }
            };
            (real, ino) = next;
        }
        let _ = ino;
        Ok(real)
    }

    /// Writes a file (0644, root), its directories with it. A file that is there keeps its owner and
    /// mode.
    pub(crate) fn write(&mut self, path: &str, content: Content) -> Result<(), ImageError> {
        if let Some((real, ino)) = self.resolve(path)
            && matches!(self.tree.inode(ino).kind, Kind::File(_))
        {
            // A new inode: the old one may have other names, which must keep their content.
            let mut inode = Inode::new(self.tree.inode(ino).stat, Kind::File(content));
            inode.stat.mtime = self.clock;
            return self.insert(&real, inode).map(|_| ());
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut real = self.make_dir(dir)?;
        real.push(b'/');
        real.extend_from_slice(name.as_bytes());
        let inode = Inode::new(self.stat(0o644), Kind::File(content));
        self.insert(&real, inode).map(|_| ())
    }

    /// Writes text.
    pub(crate) fn write_text(&mut self, path: &str, text: String) -> Result<(), ImageError> {
        self.write(path, Content::bytes(text.into_bytes()))
    }

    /// Copies a file inside the tree; the data is not read.
    pub(crate) fn copy(&mut self, from: &str, to: &str) -> Result<bool, ImageError> {
        match self.content(from) {
            Some(content) => self.write(to, content).map(|()| true),
            None => Ok(false),
        }
    }

    fn insert(&mut self, path: &[u8], inode: Inode) -> Result<Ino, ImageError> {
        let failed = |source| ImageError::Tree {
            path: String::from_utf8_lossy(path).into_owned(),
            source,
        };
        self.tree.insert(path, inode).map_err(failed)
    }

    fn stat(&self, mode: u16) -> Stat {
        Stat {
            mode,
            uid: 0,
            gid: 0,
            mtime: self.clock,
        }
    }
}

fn split(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}
