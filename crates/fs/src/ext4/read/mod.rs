//! Looking into ext2, ext3 and ext4 images of any maker.
//!
//! Every byte is foreign. Structures are checked against their checksums where they have some, numbers
//! against the volume, work against a budget of the file system's own size; an error names the
//! structure and its number. A journal that has to be replayed is replayed in memory.
//!
//! Opening reads the superblock (and the journal when it is needed); all else is read when asked for,
//! through a cache of limited size. What is refused by name: compression, encrypted files and folders,
//! folders that ignore case, files with verity trees, external journals, fast commits.

mod blockmap;
mod bytes;
mod dir;
mod error;
mod extents;
mod fs;
mod group;
mod hash;
mod htree;
mod inode;
mod journal;
mod map;
mod node;
mod runs;
mod stat;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;
mod volume;
mod walk;
mod xattr;

use std::collections::BTreeMap;
use std::sync::Arc;

use amiforge_tree::XattrName;
use amiforge_types::{BlobId, ReadAt, Timestamp, Uuid};

use fs::Fs;
use superblock::incompat;

pub use error::{Fault, Place, ReadError};
pub use node::Node;
pub use runs::{DataPlace, DataRun};
pub use stat::{DirEntry, FileKind, FileStat, Usage};
pub use tree::{TreeImport, TreeLimits};

/// An ext2, ext3 or ext4 image, opened for reading.
///
/// Paths are bytes, absolute or relative to the root. Symbolic links *on the way* are followed
/// inside the image (it has its own root, so nothing leads out); one at the *end* of a path never
/// is: take [`Reader::resolve`] first where that is wanted.
pub struct Reader {
    fs: Fs,
}

impl Reader {
    /// Opens the file system in `len` bytes of `source` from `offset` on.
    pub fn open(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Result<Self, ReadError> {
        let fs = Fs::open(source, offset, len).map_err(ReadError::Open)?;
        Ok(Self { fs })
    }

    /// File system UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.fs.sb.uuid
    }

    /// Volume label.
    #[must_use]
    pub fn label(&self) -> Vec<u8> {
        let bytes = &self.fs.sb.label;
        bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())].to_vec()
    }

    /// Seed of the directory hash.
    #[must_use]
    pub fn hash_seed(&self) -> Uuid {
        self.fs.sb.hash_seed
    }

    /// When the file system was made.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.fs.sb.created
    }

    /// True when the image was not unmounted in order, and its journal has been replayed in memory.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.fs.volume.has_overlay() || self.fs.sb.has_incompat(incompat::RECOVER)
    }

    /// How full the file system is, from all its groups.
    pub fn usage(&self) -> Result<Usage, ReadError> {
        stat::usage(&self.fs).map_err(|fault| fault.at(b"/"))
    }

    /// What a path leads to; a link at its end is not followed.
    pub fn node(&self, path: &[u8]) -> Result<Node<'_>, ReadError> {
        let found = walk::walk(&self.fs, path, false)?;
        Ok(Node::new(&self.fs, found.inode, path.to_vec()))
    }

    /// The inode of a number, as [`FileStat::ino`] gives it.
    pub fn by_number(&self, number: u32) -> Result<Node<'_>, ReadError> {
        let path = format!("<inode {number}>").into_bytes();
        let inode = self
            .fs
            .named_inode(number)
            .map_err(|fault| fault.at(&path))?;
        Ok(Node::new(&self.fs, inode, path))
    }

    /// What a path leads to; a link at its end is not followed.
    pub fn stat(&self, path: &[u8]) -> Result<FileStat, ReadError> {
        Ok(self.node(path)?.stat())
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&self, path: &[u8]) -> Result<Vec<DirEntry>, ReadError> {
        self.node(path)?.list()
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        self.node(path)?.read_link()
    }

    /// The path without links and `..`, as the image's own system would find it.
    pub fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        Ok(walk::walk(&self.fs, path, true)?.path())
    }

    /// Reads a part of a regular file. Fewer bytes than `buf` has are returned only at the file's end.
    pub fn read_at(&self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        self.node(path)?.read_at(offset, buf)
    }

    /// Reads a whole regular file of at most 1 GiB.
    pub fn read(&self, path: &[u8]) -> Result<Vec<u8>, ReadError> {
        self.node(path)?.read()
    }

    /// The extended attributes by full name, with the values that `getxattr` gives.
    pub fn xattrs(&self, path: &[u8]) -> Result<BTreeMap<XattrName, Vec<u8>>, ReadError> {
        self.node(path)?.xattrs()
    }

    /// Where the data of a regular file is; what the runs leave out is a hole.
    pub fn data_runs(&self, path: &[u8]) -> Result<Vec<DataRun>, ReadError> {
        self.node(path)?.data_runs()
    }

    /// The whole file system as a tree. File data is not read: it points into `blob`, in which the
    /// file system begins at `base_offset`. Files with several names stay one inode.
    pub fn tree(&self, blob: BlobId, base_offset: u64) -> Result<TreeImport, ReadError> {
        self.tree_within(blob, base_offset, &TreeLimits::default())
    }

    /// The same with other limits.
    pub fn tree_within(
        &self,
        blob: BlobId,
        base_offset: u64,
        limits: &TreeLimits,
    ) -> Result<TreeImport, ReadError> {
        tree::read(&self.fs, blob, base_offset, limits)
    }
}
