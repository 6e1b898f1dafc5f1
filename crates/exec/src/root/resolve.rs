//! Paths of a tree, resolved as the kernel does (path_resolution(7)): links are followed inside the tree, and nothing
//! leads out of it.

use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use amiforge_tree::{Ino, MAX_NAME, Tree};
use rustix::io::Errno;

use crate::spec::MAX_LINKS;

/// Bytes of a path with the NUL that ends it (`PATH_MAX`).
pub(super) const MAX_PATH: usize = 4096;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// The directories on the way with their names, the root first with none. Empty for the root itself.
    above: Vec<(Vec<u8>, Ino)>,
    /// The name in the last of them.
    name: Vec<u8>,
    /// What has that name.
    pub(super) ino: Option<Ino>,
    /// The path ends in `/`, so only a directory can be meant.
    pub(super) slash: bool,
    /// What is there is none.
    not_a_directory: bool,
    /// The path ends in `.` or `..`, so it does not say a name: the directory that it says this of.
    pub(super) dots: Option<Ino>,
}

impl Place {
    /// The directory that has the name, with the name; none for the root.
    pub(super) fn entry(&self) -> Option<(Ino, &[u8])> {
        let (_, dir) = self.above.last()?;
        Some((*dir, &self.name))
    }

    /// What is there.
    pub(super) fn found(&self) -> io::Result<Ino> {
        match self.ino {
            Some(_) if self.not_a_directory => Err(Errno::NOTDIR.into()),
            Some(ino) => Ok(ino),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Whether the path goes through this directory, or leads to it.
    pub(super) fn is_at_or_below(&self, dir: Ino) -> bool {
        self.ino == Some(dir) || self.above.iter().any(|(_, above)| *above == dir)
    }

    /// The path without links and dots, without a slash at its start.
    pub(super) fn path(&self) -> Vec<u8> {
        let names = self.above.iter().map(|(name, _)| name).chain([&self.name]);
        let names: Vec<&[u8]> = names.map(Vec::as_slice).filter(|n| !n.is_empty()).collect();
        names.join(&b'/')
    }

    /// The same from the root.
    pub(super) fn full_path(&self) -> PathBuf {
        let mut path = vec![b'/'];
        path.extend(self.path());
        std::ffi::OsString::from_vec(path).into()
    }
}

/// Finds the place of `path`, and follows a link in its last part if that is asked for. `enter` is asked before a
/// directory is searched.
pub(super) fn resolve(
    tree: &Tree,
    path: &Path,
    follow: bool,
    enter: &dyn Fn(Ino) -> io::Result<()>,
) -> io::Result<Place> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if bytes.contains(&0) {
        return Err(Errno::INVAL.into());
    }
    if bytes.len() >= MAX_PATH {
        return Err(Errno::NAMETOOLONG.into());
    }
    let mut slash = bytes.ends_with(b"/");
    let mut dots = None;
    let mut todo = parts(bytes);
    let mut dirs = vec![(Vec::new(), Ino::ROOT)];
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let last = todo.is_empty();
        if name == b"." || name == b".." {
            dots = dirs.last().map(|(_, ino)| *ino).filter(|_| last);
            if name == b".." && dirs.len() > 1 {
                dirs.pop();
            }
            continue;
        }
        if name.len() > MAX_NAME {
            return Err(Errno::NAMETOOLONG.into());
        }
        let top = dirs.last().map_or(Ino::ROOT, |(_, ino)| *ino);
        enter(top)?;
        let found = tree.children(top).and_then(|names| names.get(&name));
        let Some(ino) = found else {
            if !last {
                return Err(Errno::NOENT.into());
            }
            return Ok(Place {
                above: dirs,
                name,
                ino: None,
                slash,
                not_a_directory: false,
                dots: None,
            });
        };
        if let Some(target) = tree.target(ino)
            && (!last || follow || slash)
        {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            if target.is_empty() {
                return Err(Errno::NOENT.into());
            }
            if target.starts_with(b"/") {
                dirs.truncate(1);
            }
            slash |= last && target.ends_with(b"/");
            todo.extend(parts(target));
            continue;
        }
        if tree.is_dir(ino) {
            dirs.push((name, ino));
            continue;
        }
        if !last {
            return Err(Errno::NOTDIR.into());
        }
        return Ok(Place {
            above: dirs,
            name,
            ino: Some(ino),
            slash,
            not_a_directory: slash,
            dots: None,
        });
    }
    let (name, ino) = dirs.pop().unwrap_or((Vec::new(), Ino::ROOT));
    Ok(Place {
        above: dirs,
        name,
        ino: Some(ino),
        slash,
        not_a_directory: false,
        dots,
    })
}

/// The names of a path, the last first.
fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|b| *b == b'/').filter(|name| !name.is_empty());
    names.rev().map(<[u8]>::to_vec).collect()
}
