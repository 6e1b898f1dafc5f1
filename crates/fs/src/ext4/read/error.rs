//! What can be wrong with an image, and where.

use std::fmt;
use std::io;

use super::FileKind;

/// The structure that is wrong, with its number. Blocks are those of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The superblock.
    Superblock,
    /// The descriptor of a group.
    Descriptor {
        /// The group.
        group: u64,
        /// The block it is in.
        block: u64,
    },
    /// An inode.
    Inode(u32),
    /// A block of an extent tree.
    ExtentBlock {
        /// The inode that has it.
        inode: u32,
        /// Its number.
        block: u64,
    },
    /// A block of the old block map.
    IndirectBlock {
        /// The inode that has it.
        inode: u32,
        /// Its number.
        block: u64,
    },
    /// A block of a directory.
    DirectoryBlock {
        /// The inode that has it.
        inode: u32,
        /// Its number; 0 when it is inside the inode.
        block: u64,
    },
    /// A block of a directory's hash tree.
    HashTreeBlock {
        /// The inode that has it.
        inode: u32,
        /// Its number.
        block: u64,
    },
    /// A block of extended attributes.
    XattrBlock {
        /// The inode that has it.
        inode: u32,
        /// Its number; 0 when it is inside the inode.
        block: u64,
    },
    /// Data of a file, or the target of a link.
    Data {
        /// The inode that has it.
        inode: u32,
    },
    /// A block of the journal.
    Journal {
        /// Its number inside the journal.
        block: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, inode, block) = match *self {
            Self::Superblock => return f.write_str("superblock"),
            Self::Descriptor { group, block } => {
                return write!(f, "descriptor of group {group} in block {block}");
            }
            Self::Inode(inode) => return write!(f, "inode {inode}"),
            Self::Data { inode } => return write!(f, "data of inode {inode}"),
            Self::Journal { block } => return write!(f, "journal block {block}"),
            Self::ExtentBlock { inode, block } => ("extent", inode, block),
            Self::IndirectBlock { inode, block } => ("indirect", inode, block),
            Self::DirectoryBlock { inode, block } => ("directory", inode, block),
            Self::HashTreeBlock { inode, block } => ("hash tree", inode, block),
            Self::XattrBlock { inode, block } => ("attribute", inode, block),
        };
        match block {
            0 => write!(f, "{what} area of inode {inode}"),
            _ => write!(f, "{what} block {block} of inode {inode}"),
        }
    }
}

/// What is wrong with a file system.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A structure contradicts itself or the others.
    #[error("{place}: {problem}")]
    Damaged {
        /// Which.
        place: Place,
        /// How.
        problem: &'static str,
    },
    /// A structure is not what it was when its checksum was made.
    #[error("{place}: the checksum says {stored:#x}, the content {computed:#x}")]
    Checksum {
        /// Which.
        place: Place,
        /// The checksum in the image.
        stored: u32,
        /// That of the content.
        computed: u32,
    },
    /// Something that this reader does not know, by its name.
    #[error("{0}: not supported")]
    Unsupported(String),
    /// More than a sane image has.
    #[error("more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        limit: u64,
    },
    /// The source of the image failed.
    #[error("{place}: cannot be read")]
    Io {
        /// What was wanted.
        place: Place,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Fault {
    pub(super) fn damaged(place: Place, problem: &'static str) -> Self {
        Self::Damaged { place, problem }
    }

    /// Nothing when both are the same.
    pub(super) fn unless_equal(place: Place, stored: u32, computed: u32) -> Result<(), Self> {
        if stored == computed {
            return Ok(());
        }
        Err(Self::Checksum {
            place,
            stored,
            computed,
        })
    }

    /// The error for whoever asked for `path`.
    pub(super) fn at(self, path: &[u8]) -> ReadError {
        let path = path.to_vec();
        match self {
            Self::Io { .. } => ReadError::Io { path, source: self },
            Self::Unsupported(_) => ReadError::Unsupported { path, source: self },
            Self::Limit { .. } => ReadError::TooMuch { path, source: self },
            Self::Damaged { .. } | Self::Checksum { .. } => {
                ReadError::Corrupt { path, source: self }
            }
        }
    }
}

/// An image that cannot be read, or a path in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Not ext2, ext3 or ext4, cut off, or one that this reader does not know.
    #[error("not a readable ext4 file system")]
    Open(#[source] Fault),
    /// The file system is damaged where the path leads.
    #[error("{}: the file system is damaged", String::from_utf8_lossy(.path))]
    Corrupt {
        /// Path in the image.
        path: Vec<u8>,
        /// What is wrong.
        #[source]
        source: Fault,
    },
    /// The path leads to nothing.
    #[error("{}: no such file or directory", String::from_utf8_lossy(.0))]
    NotFound(Vec<u8>),
    /// Something on the way, or the target of a listing, is not a directory.
    #[error("{}: not a directory", String::from_utf8_lossy(.0))]
    NotADirectory(Vec<u8>),
    /// A file's data was asked for, and the path leads to something else.
    #[error("{}: a {}, not a regular file", String::from_utf8_lossy(.path), kind.name())]
    NotAFile {
        /// Path in the image.
        path: Vec<u8>,
        /// What it leads to.
        kind: FileKind,
    },
    /// The target of a link was asked for, and the path leads to something else.
    #[error("{}: not a symbolic link", String::from_utf8_lossy(.0))]
    NotASymlink(Vec<u8>),
    /// The path has a NUL or a name that is too long.
    #[error("{}: not a path", String::from_utf8_lossy(.0))]
    BadPath(Vec<u8>),
    /// The path leads through more symbolic links than Linux follows.
    #[error("{}: too many levels of symbolic links", String::from_utf8_lossy(.0))]
    TooManyLinks(Vec<u8>),
    /// The file is larger than what is read at once.
    #[error("{}: {size} bytes are too many to read at once", String::from_utf8_lossy(.path))]
    TooLarge {
        /// Path in the image.
        path: Vec<u8>,
        /// Its size.
        size: u64,
    },
    /// There is more of something than is taken.
    #[error("{}: too much to read", String::from_utf8_lossy(.path))]
    TooMuch {
        /// Path in the image.
        path: Vec<u8>,
        /// Of what.
        #[source]
        source: Fault,
    },
    /// The image could not be read.
    #[error("{}: cannot be read", String::from_utf8_lossy(.path))]
    Io {
        /// Path in the image.
        path: Vec<u8>,
        /// Why.
        #[source]
        source: Fault,
    },
    /// The image uses something the reader does not know.
    #[error("{}: the file uses a feature that is not supported", String::from_utf8_lossy(.path))]
    Unsupported {
        /// Path in the image.
        path: Vec<u8>,
        /// Which.
        #[source]
        source: Fault,
    },
}
