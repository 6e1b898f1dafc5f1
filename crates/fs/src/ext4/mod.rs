//! ext4: a write-once writer and a reader.
//!
//! The writer makes what Debian 12's mke2fs makes by default (metadata checksums, 64-bit, flex
//! groups, resize inode, journal), always with 4096-byte blocks, from a [`Tree`] and [`Options`]
//! alone; for old guests a [`Profile`] without the checksums. The layout is drawn in `docs/formats/ext4.md`; on-disk facts follow the kernel's
//! `Documentation/filesystems/ext4`.
//!
//! The same tree, data lengths and options give the same bytes, wherever the file data comes from.

mod checksum;
mod dir;
mod emit;
mod extent_tree;
mod geometry;
mod group;
mod hash;
mod inode;
mod journal;
mod layout;
mod made;
mod place;
mod read;
mod scan;
mod superblock;
#[cfg(test)]
mod tests;
mod write;
mod xattr;

use std::collections::BTreeSet;
use std::sync::Arc;

use amiforge_disk::{ExtentError, Extents};
use amiforge_tree::{Inode, Kind, Stat, Tree};
use amiforge_types::{BlobId, ByteSize, Timestamp, Uuid};

use checksum::Crc;
use dir::Form;
use geometry::Geometry;
use hash::HashSeed;
use layout::Layout;
use place::Placement;
use scan::Scan;
use write::Writer;

pub use read::{
    DataPlace, DataRun, DirEntry, Fault, FileKind, FileStat, Node, Place, ReadError, Reader,
    TreeImport, TreeLimits, Usage,
};

/// Bytes in a block; the only block size we write.
pub const BLOCK_SIZE: u64 = 4096;

/// The smallest file system we make: room for a journal and a resize inode.
pub const SMALLEST: u64 = 16 << 20;

/// The largest volume. Of one that large the last group stays unused.
const LARGEST: u64 = 16 << 40;

/// Most blocks: 32 bits count them, and the last numbers stay unused.
const MAX_BLOCKS: u64 = (1 << 32) - (1 << 15);

/// Most inodes: 32 bits count them, rounding to whole groups included.
const MAX_INODES: u64 = u32::MAX as u64 - (4 << 20);

/// How large the file system is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As large as a volume of this many bytes allows.
    Volume(u64),
    /// As small as the tree allows with at least this many bytes free for more data.
    Minimum {
        /// Free bytes, rounded up to blocks.
        free: u64,
    },
}

/// How many inodes the file system gets; rounded up to whole blocks of each group's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inodes {
    /// One for each so many bytes of the volume, at 1024 to 67,108,864. A tree with more of them gets as
    /// many as it needs and a sixteenth more.
    PerBytes(u64),
    /// As many as the tree needs and a sixteenth more, whatever the volume.
    Content,
    /// This many.
    Count(u64),
}

impl Inodes {
    /// One for each 16 KiB, as mke2fs has it.
    pub const DEFAULT: Self = Self::PerBytes(16384);
}

/// Which features the file system has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Those of Debian 12's mke2fs.
    #[default]
    Standard,
    /// The same without `metadata_csum`: for guests whose e2fsck is older than 1.43 (CentOS 7,
    /// Amazon Linux 2).
    Legacy,
}

/// What the tree does not say about a file system.
#[derive(Clone, Debug)]
pub struct Options {
    /// Volume size.
    pub size: Size,
    /// File system UUID; also in the journal.
    pub uuid: Uuid,
    /// Seed of the directory hash (half-MD4, signed).
    pub hash_seed: Uuid,
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Time stamp of everything that no file of the tree carries (superblock, journal, lost+found).
    pub clock: Timestamp,
    /// How many inodes, normally [`Inodes::DEFAULT`].
    pub inodes: Inodes,
    /// Features, normally [`Profile::Standard`].
    pub profile: Profile,
    /// Percentage of blocks that only root may use; mke2fs takes 5.
    pub reserved_percent: u8,
    /// Blobs in which every run starts on a 4096-byte boundary and is followed by zeros up to the
    /// next one. Runs of such a blob that stay neighbours become one extent.
    pub padded_blobs: BTreeSet<BlobId>,
}

impl Options {
    /// The usual options for a volume.
    #[must_use]
    pub fn new(size: Size, uuid: Uuid, hash_seed: Uuid, clock: Timestamp) -> Self {
        Self {
            size,
            uuid,
            hash_seed,
            label: String::new(),
            clock,
            inodes: Inodes::DEFAULT,
            profile: Profile::Standard,
            reserved_percent: 5,
            padded_blobs: BTreeSet::new(),
        }
    }
}

/// A finished layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every byte that is not zero. Its size is the volume's, which may be larger than the file
    /// system by a tail too short to use.
    pub extents: Extents,
    /// Bytes of the file system.
    pub size: u64,
    /// As given in the options.
    pub uuid: Uuid,
    /// As given in the options.
    pub label: String,
    /// Blocks of the file system.
    pub blocks: u64,
    /// Blocks neither data nor metadata takes.
    pub free_blocks: u64,
    /// Inodes of the file system.
    pub inodes: u64,
    /// Inodes that hold nothing.
    pub free_inodes: u64,
    /// Blocks of the journal.
    pub journal_blocks: u64,
}

/// A tree or options that cannot become an ext4 file system.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ext4Error {
    /// The volume does not hold the tree.
    #[error("the volume has {}, the files need at least {} ({needed} bytes)", ByteSize(*.size), ByteSize(*.needed))]
    TooSmall {
        /// Bytes asked for.
        size: u64,
        /// Bytes that would do.
        needed: u64,
    },
    /// The volume has more blocks than 32 bits count.
    #[error("{} is more than an ext4 volume of ours can have (16 TiB)", ByteSize(*.0))]
    TooLarge(u64),
    /// The label is longer than 16 bytes.
    #[error("the label {0:?} is longer than 16 bytes")]
    Label(String),
    /// The inode ratio is outside 1 KiB to 64 MiB.
    #[error("{0} bytes for each inode is outside 1024 to 67108864")]
    InodeRatio(u64),
    /// The tree has more inodes than were asked for.
    #[error("the files need {needed} inodes, {given} were asked for")]
    TooFewInodes {
        /// Asked for.
        given: u64,
        /// Reserved ones included.
        needed: u64,
    },
    /// More than half of the blocks are reserved.
    #[error("{0} % of the blocks cannot be reserved, at most 50")]
    Reserved(u8),
    /// A file is larger than ext4 can map.
    #[error("{}: {size} bytes are more than a file can have", lossy(.path))]
    FileTooLarge {
        /// Path in the image.
        path: Vec<u8>,
        /// Its size.
        size: u64,
    },
    /// The runs of a file are unsorted, overlap, are empty, or lie outside of it.
    #[error("{}: the list of data runs is not in order at byte {offset}", lossy(.path))]
    BadContent {
        /// Path in the image.
        path: Vec<u8>,
        /// Offset of the run.
        offset: u64,
    },
    /// A symbolic link is empty or longer than 4095 bytes.
    #[error("{}: a symbolic link of {len} bytes", lossy(.path))]
    BadSymlink {
        /// Path in the image.
        path: Vec<u8>,
        /// Length of the target.
        len: usize,
    },
    /// A name that no directory can hold.
    #[error("{}: not a file name", lossy(.path))]
    BadName {
        /// Path in the image.
        path: Vec<u8>,
    },
    /// A directory with two names, or one inside itself.
    #[error("{}: a directory with more than one name", lossy(.path))]
    DirectoryLink {
        /// Path of the further name.
        path: Vec<u8>,
    },
    /// A file with more than 65,000 names.
    #[error("{}: {links} hard links are more than 65000", lossy(.path))]
    TooManyLinks {
        /// One of its paths.
        path: Vec<u8>,
        /// Its names.
        links: u32,
    },
    /// A directory with more names than two index levels hold.
    #[error("{}: too many entries for one directory", lossy(.path))]
    DirectoryTooLarge {
        /// Path in the image.
        path: Vec<u8>,
    },
    /// A device number that Linux cannot hold.
    #[error("{}: device {major}:{minor} is out of range", lossy(.path))]
    BadDevice {
        /// Path in the image.
        path: Vec<u8>,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// An extended attribute outside the name spaces of Linux, or with a name too long.
    #[error("{}: ext4 cannot hold the extended attribute {:?}", lossy(.path), lossy(.name))]
    XattrName {
        /// Path in the image.
        path: Vec<u8>,
        /// Full name of the attribute.
        name: Vec<u8>,
    },
    /// An access control list or capability that is not one.
    #[error("{}: the value of {} is malformed", lossy(.path), lossy(.name))]
    XattrValue {
        /// Path in the image.
        path: Vec<u8>,
        /// Full name of the attribute.
        name: Vec<u8>,
    },
    /// The attributes of one inode need more than the inode and one block.
    #[error(
        "{}: the extended attributes take {size} bytes, ext4 has room for {limit} beside the inode",
        lossy(.path)
    )]
    XattrSpace {
        /// Path in the image.
        path: Vec<u8>,
        /// Bytes of names, values and their headers that do not fit into the inode.
        size: usize,
        /// Bytes that one block has for them.
        limit: usize,
    },
    /// More inodes than 32 bits count.
    #[error("{0} inodes are more than ext4 can hold")]
    TooManyInodes(u64),
    /// The layout contradicts itself.
    #[error("internal error: the ext4 layout is inconsistent")]
    Layout(#[source] ExtentError),
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// A tree that has been looked through: what takes most of the time, and does not depend on the size.
#[derive(Debug)]
pub struct Measured {
    scan: Arc<Scan>,
    options: Options,
}

impl Measured {
    /// Looks `tree` through, which every plan keeps hold of: of large metadata it says how to make it.
    /// Of the options the size does not count.
    pub fn new(tree: Arc<Tree>, options: &Options) -> Result<Self, Ext4Error> {
        check(options)?;
        let scan = scan::scan(tree, form(options))?;
        check_inodes(&scan, options)?;
        Ok(Self {
            scan: Arc::new(scan),
            options: options.clone(),
        })
    }

    /// Lays out a file system of that size.
    pub fn plan(&self, size: Size) -> Result<Plan, Ext4Error> {
        let (scan, options) = (&self.scan, &self.options);
        let (volume, geometry, placement) = match size {
            Size::Volume(bytes) => {
                let (geometry, placement) = fit_volume(scan, options, bytes)?;
                (bytes, geometry, placement)
            }
            Size::Minimum { free } => {
                let (geometry, placement) = smallest(scan, options, free.div_ceil(BLOCK_SIZE), 0)?;
                (geometry.blocks * BLOCK_SIZE, geometry, placement)
            }
        };
        let layout = Layout {
            scan: Arc::clone(scan),
            geometry,
            placement,
            crc: match options.profile {
                Profile::Standard => Crc::of_file_system(&options.uuid),
                Profile::Legacy => Crc::OFF,
            },
            lost_found: lost_found(options),
        };
        Writer {
            options,
            layout: Arc::new(layout),
            volume,
        }
        .write()
    }

    /// The smallest volume that holds the tree and leaves `free` bytes, in bytes.
    pub fn minimum_size(&self, free: u64) -> Result<u64, Ext4Error> {
        let free = free.div_ceil(BLOCK_SIZE);
        let (geometry, _) = smallest(&self.scan, &self.options, free, 0)?;
        Ok(geometry.blocks * BLOCK_SIZE)
    }
}

/// Lays out a file system that holds `tree`, of which a copy is made; [`Measured::new`] takes one as it is.
pub fn plan(tree: &Tree, options: &Options) -> Result<Plan, Ext4Error> {
    Measured::new(Arc::new(tree.clone()), options)?.plan(options.size)
}

/// The smallest volume that holds `tree` with these options, in bytes. Of `options.size` only the
/// free space that [`Size::Minimum`] asks for counts.
pub fn minimum_size(tree: &Tree, options: &Options) -> Result<u64, Ext4Error> {
    let free = match options.size {
        Size::Minimum { free } => free,
        Size::Volume(_) => 0,
    };
    Measured::new(Arc::new(tree.clone()), options)?.minimum_size(free)
}

fn check(options: &Options) -> Result<(), Ext4Error> {
    if options.label.len() > 16 {
        return Err(Ext4Error::Label(options.label.clone()));
    }
    if let Inodes::PerBytes(bytes) = options.inodes
        && !(1024..=64 << 20).contains(&bytes)
    {
        return Err(Ext4Error::InodeRatio(bytes));
    }
    if options.reserved_percent > 50 {
        return Err(Ext4Error::Reserved(options.reserved_percent));
    }
    Ok(())
}

/// A number of inodes that was given must do, and must be one that ext4 can count.
fn check_inodes(scan: &Scan, options: &Options) -> Result<(), Ext4Error> {
    let needed = scan.used_inodes();
    match options.inodes {
        Inodes::Count(given) if given < needed => Err(Ext4Error::TooFewInodes { given, needed }),
        Inodes::Count(given) if given > MAX_INODES => Err(Ext4Error::TooManyInodes(given)),
        _ if needed > MAX_INODES => Err(Ext4Error::TooManyInodes(needed)),
        _ => Ok(()),
    }
}

fn form(options: &Options) -> Form {
    Form {
        seed: HashSeed::new(&options.hash_seed),
        checksums: options.profile == Profile::Standard,
    }
}

fn lost_found(options: &Options) -> Inode {
    let stat = Stat {
        mode: 0o700,
        uid: 0,
        gid: 0,
        mtime: options.clock,
    };
    Inode::new(stat, Kind::Dir)
}

/// Lays out a given volume. Where the usual journal is what makes it too small, a smaller one serves.
fn fit_volume(
    scan: &Scan,
    options: &Options,
    bytes: u64,
) -> Result<(Geometry, Placement), Ext4Error> {
    if bytes > LARGEST {
        return Err(Ext4Error::TooLarge(bytes));
    }
    let blocks = (bytes / BLOCK_SIZE).min(MAX_BLOCKS);
    if bytes >= SMALLEST
        && let Ok(geometry) = Geometry::new(blocks, scan.used_inodes(), options.inodes)
    {
        let mut journal = Some(geometry::journal_blocks(geometry.blocks));
        while let Some(size) = journal {
            if let Ok(placement) = place::place(scan, &geometry, size, 0) {
                return Ok((geometry, placement));
            }
            journal = geometry::smaller_journal(size);
        }
    }
    let needed = smallest(scan, options, 0, blocks + 1)?.0.blocks * BLOCK_SIZE;
    Err(Ext4Error::TooSmall {
        size: bytes,
        needed,
    })
}

/// The first volume of at least `from` blocks that holds everything, leaves `free` blocks, and has
/// the usual journal.
fn smallest(
    scan: &Scan,
    options: &Options,
    free: u64,
    from: u64,
) -> Result<(Geometry, Placement), Ext4Error> {
    let mut blocks = from
        .max(SMALLEST / BLOCK_SIZE)
        .max(scan.blocks.saturating_add(free));
    while blocks <= MAX_BLOCKS {
        let Ok(geometry) = Geometry::new(blocks, scan.used_inodes(), options.inodes) else {
            // Only more groups make room for more inodes.
            blocks = (blocks + 1).next_multiple_of(geometry::BLOCKS_PER_GROUP);
            continue;
        };
        let journal = geometry::journal_blocks(geometry.blocks);
        match place::place(scan, &geometry, journal, free) {
            Ok(placement) if geometry.blocks >= from => return Ok((geometry, placement)),
            Ok(_) => blocks = geometry.next_group_from().max(blocks + 1),
            Err(missing) if geometry.blocks == blocks => blocks += missing,
            Err(missing) => {
                blocks = (geometry.blocks + missing)
                    .max(geometry.next_group_from())
                    .max(blocks + 1)
            }
        }
    }
    Err(Ext4Error::TooLarge(blocks.saturating_mul(BLOCK_SIZE)))
}
