//! Looking into the file systems of finished disks, without mounting anything: `inspect`.

mod entry;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use amiforge_fs::ext4::{self, FileKind};
use amiforge_fs::fat;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::look::{FileSystem, open_file_system};
use crate::settings::Engine;
use crate::shown::shown;

pub use entry::{InspectEntry, InspectXattr};

/// Bytes read at a time when a file is printed.
const CHUNK: usize = 1 << 20;
/// Deepest folder that a drawn tree goes into, and most names in it: a damaged image may seem to have
/// more than any real one.
const MAX_DEPTH: u32 = 4096;
const MAX_NAMES: u64 = 1 << 24;

/// One line of a drawn tree.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeLine {
    /// Path below the one that was asked for.
    pub path: String,
    /// The branches before the name.
    #[serde(skip)]
    pub branches: String,
    /// An earlier path of the same file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard_link_to: Option<String>,
    /// The file.
    #[serde(flatten)]
    pub entry: InspectEntry,
}

impl TreeLine {
    /// The line for people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = format!("{}{}", self.branches, self.entry.name);
        if self.entry.kind == FileKind::Dir.name() && !text.ends_with('/') {
            text.push('/');
        }
        if let Some(target) = &self.entry.target {
            text.push_str(" -> ");
            text.push_str(target);
        }
        if let Some(first) = &self.hard_link_to {
            text.push_str(" = ");
            text.push_str(first);
        }
        text
    }
}

/// Takes lines as they come; an error of it ends the walk.
type TreeSink<'a> = dyn FnMut(TreeLine) -> io::Result<()> + 'a;

fn at(image: &Path, path: &[u8]) -> String {
    format!("{}: {}", image.display(), shown(path))
}

impl Engine {
    /// Lists a directory of an image.
    pub fn inspect_ls(
        &self,
        image: &Path,
        partition: Option<u32>,
        path: &[u8],
    ) -> Result<Vec<InspectEntry>, EngineError> {
        let context = || at(image, path);
        match open_file_system(image, partition)? {
            FileSystem::Ext4(reader) => {
                let resolved = reader.resolve(path).or_fail(ErrorKind::Failed, context)?;
                let entries = reader.list(&resolved).or_fail(ErrorKind::Failed, context)?;
                entries
                    .iter()
                    .map(|e| entry::of_ext4(&reader, &e.name, &e.stat))
                    .collect::<Result<_, _>>()
                    .or_fail(ErrorKind::Failed, context)
            }
            FileSystem::Fat(reader) => {
                let entries = reader
                    .list(&String::from_utf8_lossy(path))
                    .or_fail(ErrorKind::Failed, context)?;
                Ok(entries
                    .into_iter()
                    .map(|e| entry::of_fat(&e.name, &e.stat))
                    .collect())
            }
        }
    }

    /// Copies a file of an image to `out`.
    pub fn inspect_cat(
        &self,
        image: &Path,
        partition: Option<u32>,
        path: &[u8],
        out: &mut dyn Write,
    ) -> Result<(), EngineError> {
        let context = || at(image, path);
        let mut buf = vec![0; CHUNK];
        match open_file_system(image, partition)? {
            FileSystem::Ext4(reader) => {
                let resolved = reader.resolve(path).or_fail(ErrorKind::Failed, context)?;
                let node = reader.node(&resolved).or_fail(ErrorKind::Failed, context)?;
                copy(out, &mut buf, |offset, buf| {
                    node.read_at(offset, buf)
                        .or_fail(ErrorKind::Failed, context)
                })
            }
            FileSystem::Fat(reader) => {
                let text = String::from_utf8_lossy(path);
                copy(out, &mut buf, |offset, buf| {
                    reader
                        .read_at(&text, offset, buf)
                        .or_fail(ErrorKind::Failed, context)
                })
            }
        }
    }

    /// Describes one file of an image, not following a final symbolic link.
    pub fn inspect_stat(
        &self,
        image: &Path,
        partition: Option<u32>,
        path: &[u8],
    ) -> Result<InspectEntry, EngineError> {
        let context = || at(image, path);
        match open_file_system(image, partition)? {
            FileSystem::Ext4(reader) => {
                let stat = reader.stat(path).or_fail(ErrorKind::Failed, context)?;
                entry::of_ext4(&reader, path, &stat).or_fail(ErrorKind::Failed, context)
            }
            FileSystem::Fat(reader) => {
                let text = String::from_utf8_lossy(path);
                let stat = reader.stat(&text).or_fail(ErrorKind::Failed, context)?;
                Ok(entry::of_fat(&text, &stat))
            }
        }
    }

    /// Draws everything below a path, `depth` folders deep.
    pub fn inspect_tree(
        &self,
        image: &Path,
        partition: Option<u32>,
        path: &[u8],
        depth: Option<u32>,
        sink: &mut TreeSink<'_>,
    ) -> Result<(), EngineError> {
        let file_system = open_file_system(image, partition)?;
        let start = match &file_system {
            FileSystem::Ext4(reader) => reader
                .resolve(path)
                .or_fail(ErrorKind::Failed, || at(image, path))?,
            FileSystem::Fat(_) => path.to_vec(),
        };
        let mut walk = Walk {
            image,
            file_system: &file_system,
            depth: depth.unwrap_or(MAX_DEPTH).min(MAX_DEPTH),
            names: 0,
            seen: HashMap::new(),
            folders: HashSet::new(),
        };
        let found = walk.below(&start)?;
        walk.draw(&start, found, sink)
    }
}

/// Copies until `read` gives nothing more. A reader that went away is no error.
fn copy(
    out: &mut dyn Write,
    buf: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> Result<usize, EngineError>,
) -> Result<(), EngineError> {
    let mut offset = 0;
    loop {
        let n = read(offset, buf)?;
        if n == 0 {
            return Ok(());
        }
        match out.write_all(&buf[..n]) {
            Ok(()) => offset += n as u64,
            Err(error) => return written(Err(error)),
        }
    }
}

fn written(result: io::Result<()>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error)
            .or_fail(ErrorKind::Failed, || {
                "cannot write to standard output".to_owned()
            }),
        _ => Ok(()),
    }
}

struct Walk<'a> {
    image: &'a Path,
    file_system: &'a FileSystem,
    depth: u32,
    names: u64,
    /// First path of files with several names.
    seen: HashMap<u32, String>,
    /// Folders that were gone into.
    folders: HashSet<u32>,
}

/// A folder that is being drawn: what is left of it, last name first.
struct Open {
    path: Vec<u8>,
    branches: String,
    entries: Vec<(Vec<u8>, InspectEntry)>,
}

impl Walk<'_> {
    fn below(&mut self, path: &[u8]) -> Result<Vec<(Vec<u8>, InspectEntry)>, EngineError> {
        let context = || at(self.image, path);
        let mut found: Vec<(Vec<u8>, InspectEntry)> = match self.file_system {
            FileSystem::Ext4(reader) => {
                let list = reader.list(path).or_fail(ErrorKind::Failed, context)?;
                list.into_iter()
                    .map(|e: ext4::DirEntry| {
                        let made = entry::of_ext4(reader, &e.name, &e.stat)?;
                        Ok((e.name, made))
                    })
                    .collect::<Result<_, ext4::ReadError>>()
                    .or_fail(ErrorKind::Failed, context)?
            }
            FileSystem::Fat(reader) => {
                let text = String::from_utf8_lossy(path);
                let list = reader.list(&text).or_fail(ErrorKind::Failed, context)?;
                list.into_iter()
                    .map(|e: fat::DirEntry| {
                        let made = entry::of_fat(&e.name, &e.stat);
                        (e.name.into_bytes(), made)
                    })
                    .collect()
            }
        };
        self.names += found.len() as u64;
        if self.names > MAX_NAMES {
            return Err(EngineError::new(
                ErrorKind::Failed,
                format!("{}: more than {MAX_NAMES} names", self.image.display()),
            ));
        }
        found.reverse();
        Ok(found)
    }

    fn draw(
        &mut self,
        start: &[u8],
        entries: Vec<(Vec<u8>, InspectEntry)>,
        sink: &mut TreeSink<'_>,
    ) -> Result<(), EngineError> {
        let mut stack = vec![Open {
            path: Vec::new(),
            branches: String::new(),
            entries,
        }];
        while let Some(open) = stack.last_mut() {
            let Some((name, entry)) = open.entries.pop() else {
                stack.pop();
                continue;
            };
            let (branch, below) = if open.entries.is_empty() {
                ("└── ", "    ")
            } else {
                ("├── ", "│   ")
            };
            let branches = format!("{}{branch}", open.branches);
            let below = format!("{}{below}", open.branches);
            let mut path = open.path.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            let text = shown(&path);
            let hard_link_to = match (entry.inode, entry.nlink) {
                (Some(number), Some(links)) if links > 1 && !entry.is_folder() => {
                    let first = self.seen.entry(number).or_insert_with(|| text.clone());
                    (*first != text).then(|| first.clone())
                }
                _ => None,
            };
            let folder = entry.is_folder().then_some(entry.inode);
            let line = TreeLine {
                path: text,
                branches,
                hard_link_to,
                entry,
            };
            if let Err(error) = sink(line) {
                return written(Err(error));
            }
            let deep = stack.len() as u64 >= u64::from(self.depth);
            // A damaged image may have a folder inside itself.
            let again = |number: Option<u32>| number.is_some_and(|n| !self.folders.insert(n));
            if deep || folder.is_none_or(again) {
                continue;
            }
            let full = [start, b"/", &path[..]].concat();
            let entries = self.below(&full)?;
            stack.push(Open {
                path,
                branches: below,
                entries,
            });
        }
        Ok(())
    }
}
