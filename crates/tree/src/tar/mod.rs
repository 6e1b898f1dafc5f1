//! Tar archives: read without copying file data, write deterministically.
//!
//! - [`read_at`] reads an uncompressed archive that can be addressed. Only headers are read; the
//!   data of every file stays where it is, and the tree points into the archive.
//! - [`read_stream`] reads any archive front to back, plain or compressed with gzip, zstd or xz, and
//!   writes file data once to a spool; the tree points into the spool.
//! - [`read_changes`] reads a layer of an OCI image over the layers below it.
//! - [`write()`] writes a tree as a PAX archive whose bytes depend on the tree alone.
//! - [`write_changes`] writes a layer the way OCI images have theirs.
//!
//! What is read: v7, ustar, GNU (long names, old sparse headers) and PAX (`path`, `linkpath`,
//! `size`, `mtime`, `uid`, `gid`, `SCHILY.xattr.*`, `SCHILY.acl.*`,
//! `SCHILY.fflags`, `GNU.sparse.*` 0.0, 0.1 and 1.0), POSIX.1-2017 "pax" and
//! the GNU tar manual, "Basic Tar Format" and "Sparse Formats".
//!
//! Names are relative to the root of the tree: leading slashes and `./` go. A `..` component, an
//! entry whose parent is not a directory of the tree, a hard link to something that has not
//! been seen and a truncated archive are errors that name the member. A parent that is a symbolic
//! link of the archive is followed inside the tree, as an extraction into an empty root would do.
//! Parents that the archive leaves out are made: mode 0755, root, build clock. The whole policy, class
//! by class: `docs/formats/archives.md`; its tests: `tests/hostile.rs`.

use std::io;

use amiforge_types::{BlobId, ReadAt, Timestamp};

mod acl;
mod compression;
mod header;
mod input;
mod oci;
mod pax;
mod read;
mod sparse;
#[cfg(test)]
mod tests;
mod whiteout;
mod write;

pub use compression::Compression;
pub use oci::{ChangesSummary, write_changes};
pub use write::{TarWriteError, WriteSummary, write};

use crate::Tree;

/// Bounds on what an archive may make us hold or produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Members, extension headers not counted.
    pub entries: u64,
    /// Bytes of file data, in all (holes not counted).
    pub data_bytes: u64,
    /// Logical size of one file, holes counted.
    pub file_bytes: u64,
    /// Bytes of a whole member name or link target, also of a path after its links were followed.
    pub name_bytes: u64,
    /// Directories below one another.
    pub depth: usize,
    /// Bytes of the extension records of one member: long names, PAX records, sparse maps.
    pub extension_bytes: u64,
    /// Bytes of names, link targets, attributes and runs of sparse files that the tree holds, in all.
    pub metadata_bytes: u64,
}

impl Limits {
    /// More than any image that we can make a disk of, and little enough not to fill one by accident.
    pub const DEFAULT: Self = Self {
        entries: 8 << 20,
        data_bytes: 1 << 40,
        file_bytes: 16 << 40,
        name_bytes: 4096,
        depth: 2048,
        extension_bytes: 16 << 20,
        metadata_bytes: 256 << 20,
    };
}

/// How to read an archive.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// The time of directories that the archive does not have.
    pub build_clock: Timestamp,
    /// Bounds.
    pub limits: Limits,
}

/// An archive that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("tar archive, entry {entry} at byte {offset}{}", member.as_ref().map(|m| format!(", {:?}", String::from_utf8_lossy(m))).unwrap_or_default())]
pub struct TarError {
    /// Number of the member, the first is 1. Headers that only say more about a member count as part of
    /// it; the end mark has the number after the last.
    pub entry: u64,
    /// Byte offset of the header in the (decompressed) archive.
    pub offset: u64,
    /// Name of the member, where it was known.
    pub member: Option<Vec<u8>>,
    /// What is wrong.
    #[source]
    pub kind: TarErrorKind,
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarErrorKind {
    /// The archive ends inside a member.
    #[error("the archive is cut short")]
    Truncated,
    /// A header's checksum does not match: damage, or not a tar archive.
    #[error("the header's checksum does not match; damaged, or not a tar archive")]
    Checksum,
    /// A field is not what the format says.
    #[error("the field {0} is malformed")]
    Field(&'static str),
    /// A name has a `..` component or a zero byte, or a component is too long.
    #[error("the name {:?} is not allowed", String::from_utf8_lossy(.0))]
    Name(Vec<u8>),
    /// Following symbolic links, a parent of the member is too far down or round in a circle.
    #[error("{:?} leads through more links than are followed", String::from_utf8_lossy(.0))]
    LinkChain(Vec<u8>),
    /// A hard link's target is not an earlier, non-directory member.
    #[error("the hard link's target {:?} is not an earlier file", String::from_utf8_lossy(.0))]
    LinkTarget(Vec<u8>),
    /// A parent of the member is not a directory, or a link that leads nowhere.
    #[error("{:?} is not a directory", String::from_utf8_lossy(.0))]
    Parent(Vec<u8>),
    /// The member would replace a directory that is not empty by something else.
    #[error("it would replace a directory that is not empty")]
    ReplacesDirectory,
    /// A type or extension that we do not read.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A limit was passed.
    #[error("more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Reading the archive failed (also: the compressed stream is damaged).
    #[error("reading failed")]
    Read(#[source] io::Error),
    /// Writing the spool failed.
    #[error("writing the spool failed")]
    Spool(#[source] io::Error),
}

/// A tree whose file data lies in a spool that has no id yet.
#[derive(Debug)]
pub struct SpooledTree {
    tree: Tree,
    /// Bytes written to the spool.
    pub spool_bytes: u64,
}

impl SpooledTree {
    /// The tree, its data in `spool` (whose byte 0 is the first byte that was written).
    #[must_use]
    pub fn into_tree(mut self, spool: BlobId) -> Tree {
        self.tree.assign_blob(spool);
        self.tree
    }
}

/// Reads an uncompressed archive in place. `id` is the id of `archive` in the operation's blob
/// table; the tree's file data points there. File data is not read.
pub fn read_at(archive: &dyn ReadAt, id: BlobId, options: &ReadOptions) -> Result<Tree, TarError> {
    read_at_over(read::empty(options), archive, id, options)
}

/// [`read_at`] over what `tree` holds, as extracting into a folder that is not empty: an earlier file is replaced,
/// an earlier directory keeps what it holds, and links among the directories are followed.
/// What the archive brings is of the tree's current [layer](Tree::layer).
pub fn read_at_over(
    tree: Tree,
    archive: &dyn ReadAt,
    id: BlobId,
    options: &ReadOptions,
) -> Result<Tree, TarError> {
    read::read(&mut input::AtInput::new(archive, id), tree, options)
}

/// Reads an archive front to back, plain or compressed (told by its first bytes), and writes file
/// data to `spool`: each file's data at a multiple of 4 KiB, in the archive's order.
///
/// ```
/// # use amiforge_tree::{Tree, tar, Stat, Inode, Kind, Content};
/// # use amiforge_types::{BlobTable, Timestamp};
/// # let stat = Stat { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::from_secs(1) };
/// # let mut tree = Tree::new(stat);
/// # tree.insert(b"hello", Inode::new(stat, Kind::File(Content::bytes(*b"hi")))).unwrap();
/// # let mut archive = Vec::new();
/// # tar::write(&tree, &BlobTable::new(), &mut archive).unwrap();
/// let options = tar::ReadOptions { build_clock: Timestamp::from_secs(1), limits: tar::Limits::DEFAULT };
/// let mut spool = Vec::new();
/// let spooled = tar::read_stream(&mut archive.as_slice(), &mut spool, &options)?;
/// let mut blobs = BlobTable::new();
/// let tree = spooled.into_tree(blobs.add(std::sync::Arc::new(spool)));
/// assert!(tree.lookup(b"/hello").is_some());
/// # Ok::<(), tar::TarError>(())
/// ```
pub fn read_stream(
    archive: &mut dyn io::Read,
    spool: &mut dyn io::Write,
    options: &ReadOptions,
) -> Result<SpooledTree, TarError> {
    read_stream_over(read::empty(options), archive, spool, options)
}

/// [`read_stream`] over what `tree` holds; see [`read_at_over`].
pub fn read_stream_over(
    tree: Tree,
    archive: &mut dyn io::Read,
    spool: &mut dyn io::Write,
    options: &ReadOptions,
) -> Result<SpooledTree, TarError> {
    let at_start = |kind| TarError {
        entry: 1,
        offset: 0,
        member: None,
        kind,
    };
    let mut decoder = compression::decoder(archive).map_err(at_start)?;
    let mut input = input::StreamInput::new(&mut *decoder, spool);
    let tree = read::read(&mut input, tree, options)?;
    Ok(SpooledTree {
        tree,
        spool_bytes: input.spooled(),
    })
}

/// What an archive took of its [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// See [`Limits::entries`].
    pub entries: u64,
    /// See [`Limits::data_bytes`].
    pub data_bytes: u64,
    /// See [`Limits::metadata_bytes`].
    pub metadata_bytes: u64,
}

/// The layers below and an archive of changes over them.
#[derive(Debug)]
pub struct Changed {
    /// The tree. The new data is in [`BlobId::UNASSIGNED`], at offsets in the whole spool.
    pub tree: Tree,
    /// Bytes that the spool holds now.
    pub spool_bytes: u64,
    /// What the archive took of the limits.
    pub used: Used,
}

/// Reads an uncompressed archive of changes, a layer of an OCI image (image-spec 1.1, layer.md), front to back over
/// what the layers below made. File data is appended to `spool`, which holds `spool_bytes` already.
///
/// The caller compares the digest of the archive: an end mark that is missing is no error here.
///
/// As [`read_stream_over`], except that whiteouts hide what is below, that anything may replace a directory which
/// only the layers below have, and that what is brought is of a new [layer](Tree::layer).
pub fn read_changes(
    mut tree: Tree,
    archive: &mut dyn io::Read,
    spool: &mut dyn io::Write,
    spool_bytes: u64,
    options: &ReadOptions,
) -> Result<Changed, TarError> {
    tree.next_layer();
    let lower = whiteout::Lower::new(tree.current_layer());
    let mut input = input::StreamInput::appending(archive, spool, spool_bytes);
    let (tree, used) = read::read_over(&mut input, tree, Some(lower), options)?;
    Ok(Changed {
        tree,
        spool_bytes: input.spooled(),
        used,
    })
}
