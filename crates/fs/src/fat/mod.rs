//! FAT volumes for the EFI system partition: written through the `fatfs` crate into memory, read by
//! ourselves.

mod build;
mod dots;
mod entry;
mod medium;
mod reader;

use std::sync::Arc;

use amiforge_disk::ExtentError;
use amiforge_types::{ByteSize, Timestamp};

pub use build::build;
pub use reader::{DirEntry, Reader, Stat};

/// One file of a new volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatFile {
    /// Path below the root with `/` between names, for example `EFI/BOOT/BOOTX64.EFI`. Directories
    /// on the way are made. Case is kept; two names that differ only in case, or only in how Unicode
    /// composes them, cannot both be there.
    pub path: String,
    /// Its bytes.
    pub content: Arc<[u8]>,
}

impl FatFile {
    /// A file from its path and bytes.
    pub fn new(path: impl Into<String>, content: impl Into<Arc<[u8]>>) -> Self {
        Self {
            path: path.into(),
            content: content.into(),
        }
    }
}

/// What the files do not say about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of the volume, a multiple of 512. From 33 MiB on the volume is FAT32, below that FAT16
    /// or FAT12, as the specification's cluster counts have it.
    pub size: u64,
    /// Volume serial number, the `XXXX-XXXX` of udev and fstab.
    pub volume_id: u32,
    /// Volume label, at most 11 bytes of printable ASCII; stored in upper case.
    pub label: String,
    /// Time stamp of all files and directories; times before 1980 become 1980, after 2107, 2107.
    pub clock: Timestamp,
    /// Sectors before the volume on its disk, that is the partition's first LBA; 0 for a bare volume.
    pub hidden_sectors: u32,
}

/// A FAT volume that cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatError {
    /// The size is not a multiple of 512, below 64 KiB, or above 2 TiB.
    #[error("a FAT volume cannot have {0} bytes")]
    Size(u64),
    /// The label is too long or has characters FAT labels cannot have.
    #[error("{0:?} is not a FAT label (at most 11 characters of ASCII)")]
    Label(String),
    /// A path is empty, or a name in it is not one FAT can hold.
    #[error("{0:?} is not a path for FAT")]
    BadPath(String),
    /// Two paths are one on FAT: up to case and Unicode form, as the short name of the other, or as a
    /// file and a directory.
    #[error("{second:?} and {first:?} cannot both be on a FAT volume")]
    Duplicate {
        /// The one that was there.
        first: String,
        /// The one that was to come.
        second: String,
    },
    /// The files do not fit.
    #[error("the FAT volume has {}, the files need at least {}", ByteSize(*.size), ByteSize(*.needed))]
    TooSmall {
        /// Bytes of the volume.
        size: u64,
        /// Bytes that files and directories take, without the tables.
        needed: u64,
    },
    /// The volume could not be formatted.
    #[error("could not format the FAT volume")]
    Format(#[source] std::io::Error),
    /// A file or directory could not be written.
    #[error("could not write {path:?} to the FAT volume")]
    Write {
        /// Path in the volume.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was to be opened is not a FAT volume, or is damaged.
    #[error("not a readable FAT volume")]
    Open(#[source] std::io::Error),
    /// The path leads to nothing.
    #[error("{0:?}: no such file or directory on the FAT volume")]
    NotFound(String),
    /// The path leads to a directory where a file is wanted.
    #[error("{0:?} is a directory")]
    IsADirectory(String),
    /// The path leads to a file where a directory is wanted.
    #[error("{0:?} is not a directory")]
    NotADirectory(String),
    /// Reading failed on the way.
    #[error("could not read {path:?} on the FAT volume")]
    Read {
        /// Path in the volume.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The volume contradicts itself.
    #[error("internal error: the FAT layout is inconsistent")]
    Layout(#[source] ExtentError),
}
