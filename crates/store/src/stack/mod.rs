//! What overlayfs does, without it: directories in the form of its layers put over one another into an ordinary
//! one, and what was changed there taken off again, as its upper directory would have it.
//!
//! ```text
//! lower, …, upper  ── put_over ──▶  root  ── a job works in it ──▶  root  ── take_off ──▶  upper
//!                                     └─ Seen: which inode each name had, and when it changed last
//! ```
//!
//! The root is an ordinary directory on the file system of the upper one. What is new or changed is *renamed* out of it,
//! so that nothing is copied twice; whoever takes off does not need the root any more.
//!
//! Where it differs from overlayfs: names of one file see each other's changes while the job runs, although
//! only those that were used keep them; and a further name given to a file that had several is a file of its own
//! afterwards, since nothing tells which of them was named.

mod off;
mod over;
mod seen;

use std::io;
use std::os::fd::BorrowedFd;

use amiforge_tree::InodeFlags;
use rustix::io::Errno;

pub use off::take_off;
pub use over::put_over;
pub use seen::Seen;

use crate::harvest::HarvestError;
use crate::materialise::MaterialiseError;

/// Directories that could not be put over one another, or taken off.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {:?}", String::from_utf8_lossy(path))]
pub struct StackError {
    /// What was tried.
    pub action: &'static str,
    /// Path in the image.
    pub path: Vec<u8>,
    /// Why it failed.
    pub source: io::Error,
}

impl StackError {
    fn io<E: Into<io::Error>>(action: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        let path = path.to_vec();
        move |source| Self {
            action,
            path,
            source: source.into(),
        }
    }
}

impl From<MaterialiseError> for StackError {
    fn from(error: MaterialiseError) -> Self {
        Self {
            action: error.action,
            path: error.path,
            source: error.source,
        }
    }
}

impl From<HarvestError> for StackError {
    fn from(error: HarvestError) -> Self {
        match error {
            HarvestError::Io {
                action,
                path,
                source,
            } => Self {
                action,
                path,
                source,
            },
            other => Self {
                action: "read",
                path: Vec::new(),
                source: io::Error::other(other),
            },
        }
    }
}

type Result<T> = std::result::Result<T, StackError>;

/// Flags that a job without privileges can set, and that a copy keeps.
const FLAGS: InodeFlags = InodeFlags::NO_DUMP
    .union(InodeFlags::NO_ATIME)
    .union(InodeFlags::SYNC)
    .union(InodeFlags::DIR_SYNC);

/// Gives `to` the flags of `from`, where their file system has any.
fn copy_flags(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let read = |fd| {
        let flags = rustix::fs::ioctl_getflags(fd).ok()?;
        Some(InodeFlags::from_bits_truncate(flags.bits()))
    };
    let (Some(from), Some(own)) = (read(from), read(to)) else {
        return;
    };
    let wanted = from.intersection(FLAGS);
    if wanted != own.intersection(FLAGS) {
        // All that the target had is kept but for these.
        let kept = rustix::fs::ioctl_getflags(to).map_or(0, |flags| flags.bits());
        let bits = (kept & !FLAGS.bits()) | wanted.bits();
        let bits = rustix::fs::IFlags::from_bits_retain(bits);
        // A setting of no consequence for what the file holds.
        let _ = rustix::fs::ioctl_setflags(to, bits);
    }
}

/// Takes from a directory the access list that is handed down to what is made in it.
fn hand_nothing_down(dir: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match rustix::fs::fremovexattr(dir, "system.posix_acl_default") {
        // It has none, or its file system has none at all.
        Err(Errno::NODATA | Errno::OPNOTSUPP) | Ok(()) => Ok(()),
        Err(e) => Err(e),
    }
}

/// The names in a directory, sorted.
fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests;
