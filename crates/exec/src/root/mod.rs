//! The file system that the actions on files work on: the live root of the process, or a tree in memory.
//!
//! The methods are the system calls that the actions need, with their errors. Paths are of the image; one that is not
//! absolute starts at the root.

mod live;
mod resolve;
mod state;
mod tree;

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub(crate) use live::Live;
pub use tree::{TreeRoot, TreeRootError};

/// Type of a file (inode(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    File,
    Folder,
    Link,
    Pipe,
    Socket,
    BlockDevice,
    CharacterDevice,
}

/// What stat(2) says of a file, as far as actions ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) kind: FileKind,
    /// Permission bits with set-uid, set-gid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) len: u64,
    /// Number of names.
    pub(crate) links: u64,
    /// Which file it is, whatever its name.
    pub(crate) identity: (u64, u64),
    /// Of a device: its number.
    pub(crate) device: u64,
    /// Last modification and last access: seconds since 1970 and nanoseconds.
    pub(crate) times: [(i64, i64); 2],
}

impl Metadata {
    pub(crate) fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind == FileKind::Folder
    }

    pub(crate) fn is_link(&self) -> bool {
        self.kind == FileKind::Link
    }
}

/// How a file is opened to be written to, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Open {
    /// At the end of a file that is there.
    Append,
    /// Emptied first; a file that is not there is made, with this mode.
    Replace(u32),
    /// Made, with this mode; what is there, a link too, is an error.
    New(u32),
}

/// A root file system.
pub(crate) trait Root {
    /// Name of the machine that it is the root of.
    fn host_name(&self) -> String;

    /// What is at the path, links followed.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// What is at the path itself, be it a link.
    fn symlink_metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// The same file's path without links, `.` and `..`.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Where a link leads.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;

    /// The names in a folder, in no order.
    fn read_dir(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// The content of a regular file, links followed. Never waits for a pipe.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + '_>>;

    /// Writes bytes to a file.
    fn write(&self, path: &Path, how: Open, bytes: &[u8]) -> io::Result<()>;

    /// Writes the content of the regular file `from` to the file `to`.
    fn copy(&self, from: &Path, to: &Path, how: Open) -> io::Result<()>;

    /// Makes a folder with exactly this mode less the mask.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()>;

    fn hard_link(&self, original: &Path, path: &Path) -> io::Result<()>;

    /// Makes a pipe, socket or device like that one, with this mode.
    fn make_node(&self, path: &Path, like: &Metadata, mode: u32) -> io::Result<()>;

    /// Removes what is no folder.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// rename(2).
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Changes the owner, the group, or both.
    fn chown(
        &self,
        path: &Path,
        follow: bool,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> io::Result<()>;

    /// Sets the mode of what is at the path, links followed.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;

    /// Gives `to` the extended attributes of `from`, but those that the kernel or a policy sets; links not followed.
    fn copy_attributes(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Sets the times of what is at the path itself to those of `like`.
    fn set_times(&self, path: &Path, like: &Metadata) -> io::Result<()>;
}

/// Reads a file of at most `limit` bytes; `FileTooLarge` for others.
pub(crate) fn read(root: &dyn Root, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    root.open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Extended attributes that the kernel or a policy sets, and that cannot be given.
const NOT_OURS: &[&str] = &["security.selinux", "security.ima", "security.evm"];

fn is_ours(attribute: &[u8]) -> bool {
    !NOT_OURS.iter().any(|other| other.as_bytes() == attribute)
}
