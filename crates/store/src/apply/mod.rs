//! What a run in the sandbox changed, brought to the folder that it was run on.
//!
//! The run sees a copy: the folder is read into a tree, the tree becomes a lower directory, and what the run
//! leaves in the upper one becomes a layer. Here the two trees, before and after, are compared, and the folder is
//! changed from the one to the other, with handles of its directories alone: no path is resolved twice, no link
//! of the folder is followed, no mount in it is entered.
//!
//! Before anything is written, all that is to be changed is compared with what was read, so that a change that
//! somebody else made meanwhile is found and nothing is lost. Files are written beside their place and renamed;
//! names go last, and times of directories are set when nothing else is left to do.

mod check;
mod owners;
mod plan;
mod probe;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;

use amiforge_tree::Tree;
use amiforge_types::BlobTable;

pub use owners::{HostTrees, Owners};

/// What was changed in a folder, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FolderReport {
    /// Names that were written, linked or removed, and files and folders whose attributes were set.
    pub changed: u64,
    /// Files that had several names, of which one was written: the others keep what they had.
    pub split: u64,
    /// What the caller may not set, and of how many files: `owner`, `mode`, `time`, `attribute`, `flags`.
    pub refused: BTreeMap<&'static str, u64>,
}

/// Changes that could not be brought to a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// Somebody else changed the folder.
    #[error("{:?} is not what it was when the run began: somebody else changed it", String::from_utf8_lossy(.0))]
    Changed(Vec<u8>),
    /// The caller may not write to a directory, or remove what is in it.
    #[error("the caller may not write to {:?}", String::from_utf8_lossy(.0))]
    NotWritable(Vec<u8>),
    /// A flag forbids the change.
    #[error("{:?} is immutable or append-only (chattr)", String::from_utf8_lossy(.0))]
    Flagged(Vec<u8>),
    /// The file system cannot do what keeps others' files from being lost.
    #[error(
        "the file system of the folder (NFS, 9p and the like) cannot rename files without replacing others: copy the folder to a local one"
    )]
    NoSafeRename,
    /// Something failed while the changes were written: a part of them is in the folder.
    #[error(transparent)]
    Partly(Box<FolderError>),
    /// A system call failed.
    #[error("cannot {action} {:?}", String::from_utf8_lossy(path))]
    Io {
        /// What was tried.
        action: &'static str,
        /// Path in the folder.
        path: Vec<u8>,
        /// Why it failed.
        source: io::Error,
    },
    /// Something could not be removed.
    #[error(transparent)]
    Remove(#[from] crate::RemoveError),
}

impl FolderError {
    /// Whether the folder is certainly as it was.
    #[must_use]
    pub fn nothing_written(&self) -> bool {
        !matches!(self, Self::Partly(_))
    }

    fn io(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_vec();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Makes `old`, which `dir` holds, to `new`; both by [`Owners::outside`], with data in `blobs`. `spare` is a name
/// that neither tree has anywhere; a process that is killed leaves at most one file or folder of it behind.
///
/// # Errors
/// After [`FolderError::Partly`] a part of the changes is in the folder, after any other error none.
pub fn apply_changes(
    dir: impl AsFd,
    old: &Tree,
    new: &Tree,
    blobs: &BlobTable,
    spare: &str,
) -> Result<FolderReport, FolderError> {
    let dir = dir.as_fd();
    let plan = plan::plan(old, new);
    let mut report = FolderReport {
        split: plan.split,
        ..FolderReport::default()
    };
    if plan.is_empty() {
        return Ok(report);
    }
    check::check(dir, old, &plan)?;
    probe::renames(dir, old, &plan, spare)?;
    write::write(dir, (old, new), blobs, &plan, spare, &mut report)
        .map_err(|error| FolderError::Partly(Box::new(error)))?;
    Ok(report)
}

/// Removes what is at `path` below `dir`, with everything in it; no link is followed.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_below(dir: impl AsFd, path: &[u8]) -> Result<(), FolderError> {
    let (parent, name) = crate::dirfd::split(path);
    let parent = crate::dirfd::open_dir_here(dir.as_fd(), parent)
        .map_err(FolderError::io("open", parent))?;
    Ok(crate::remove_tree_at(parent.as_fd(), name)?)
}
