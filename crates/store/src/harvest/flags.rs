//! Inode flags of a host folder, and which of them belong to the image.

use std::os::fd::BorrowedFd;

use amiforge_tree::InodeFlags;

use crate::dirfd::retry;

/// Flags whose meaning does not depend on the host's file system.
const KEPT: InodeFlags = InodeFlags::IMMUTABLE
    .union(InodeFlags::APPEND_ONLY)
    .union(InodeFlags::NO_DUMP)
    .union(InodeFlags::NO_ATIME)
    .union(InodeFlags::SYNC)
    .union(InodeFlags::DIR_SYNC);

/// Of them, those that file systems pass on from a directory to what is made in it.
const INHERITED: InodeFlags = InodeFlags::NO_DUMP
    .union(InodeFlags::NO_ATIME)
    .union(InodeFlags::SYNC)
    .union(InodeFlags::DIR_SYNC);

/// Reads flags of files below one root folder.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlagReader {
    /// What the root folder has and its content may have from it: a setting of the host's, not of
    /// the image's.
    inherited: u32,
}

impl FlagReader {
    pub(super) fn below(root: BorrowedFd<'_>) -> Self {
        Self {
            inherited: raw(root).intersection(INHERITED).bits(),
        }
    }

    /// The flags of an open file or directory; none where its file system has none.
    pub(super) fn of(self, fd: BorrowedFd<'_>) -> InodeFlags {
        InodeFlags::from_bits_truncate(raw(fd).intersection(KEPT).bits() & !self.inherited)
    }
}

fn raw(fd: BorrowedFd<'_>) -> InodeFlags {
    retry(|| rustix::fs::ioctl_getflags(fd)).map_or(InodeFlags::NONE, |flags| {
        InodeFlags::from_bits_truncate(flags.bits())
    })
}

/// What overlayfs keeps in `overlay.protattr`: it cannot set these two on the upper file itself, or
/// it could not work on it any more.
pub(super) fn from_protattr(value: &[u8]) -> InodeFlags {
    let mut flags = InodeFlags::NONE;
    for letter in value {
        flags = match letter {
            b'i' => flags | InodeFlags::IMMUTABLE,
            b'a' => flags | InodeFlags::APPEND_ONLY,
            _ => flags,
        };
    }
    flags
}
