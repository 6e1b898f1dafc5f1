//! What is told about files and file systems.

use amiforge_types::Timestamp;

use super::error::Fault;
use super::fs::Fs;
use super::group;

/// The type of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDev,
    /// Block device.
    BlockDev,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

impl FileKind {
    /// A word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "regular file",
            Self::Dir => "directory",
            Self::Symlink => "symbolic link",
            Self::CharDev => "character device",
            Self::BlockDev => "block device",
            Self::Fifo => "named pipe",
            Self::Socket => "socket",
        }
    }
}

/// What is known of an inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// Number of the inode; names with the same one lead to the same file.
    pub ino: u32,
    /// Type.
    pub kind: FileKind,
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names of a file; sub-directories and two of a directory, which has 1 when there are more than
    /// 64998 of them.
    pub nlink: u32,
    /// Major and minor number of a device.
    pub rdev: Option<(u32, u32)>,
    /// Units of 512 bytes that the file takes, with its metadata.
    pub blocks: u64,
    /// Flags as `lsattr` and `chattr` know them: 0x10 immutable, 0x20 append-only, ...
    pub flags: u32,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Last access.
    pub atime: Timestamp,
    /// Creation, where the inode is large enough to tell.
    pub crtime: Option<Timestamp>,
}

/// Flags with the letters of `lsattr`, in its order.
const FLAG_LETTERS: [(u32, char); 22] = [
    (0x1, 's'),
    (0x2, 'u'),
    (0x8, 'S'),
    (0x1_0000, 'D'),
    (0x10, 'i'),
    (0x20, 'a'),
    (0x40, 'd'),
    (0x80, 'A'),
    (0x4, 'c'),
    (0x800, 'E'),
    (0x4000, 'j'),
    (0x1000, 'I'),
    (0x8000, 't'),
    (0x2_0000, 'T'),
    (0x8_0000, 'e'),
    (0x80_0000, 'C'),
    (0x200_0000, 'x'),
    (0x4000_0000, 'F'),
    (0x1000_0000, 'N'),
    (0x2000_0000, 'P'),
    (0x10_0000, 'V'),
    (0x400, 'm'),
];

impl FileStat {
    /// The flags that are set, in the letters of `lsattr`.
    #[must_use]
    pub fn flag_letters(&self) -> String {
        FLAG_LETTERS
            .into_iter()
            .filter(|(bit, _)| self.flags & bit != 0)
            .map(|(_, letter)| letter)
            .collect()
    }
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name; any bytes but `/` and NUL.
    pub name: Vec<u8>,
    /// What it leads to; a link is not followed.
    pub stat: FileStat,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in a block.
    pub block_size: u64,
    /// All blocks.
    pub blocks: u64,
    /// Blocks that hold nothing.
    pub free_blocks: u64,
    /// All inodes.
    pub inodes: u64,
    /// Inodes that hold nothing.
    pub free_inodes: u64,
}

/// Adds up the groups, as Linux does: the superblock's own counts are only right after an unmount.
pub(super) fn usage(fs: &Fs) -> Result<Usage, Fault> {
    let sb = &fs.sb;
    let (mut free_blocks, mut free_inodes) = (0_u64, 0_u64);
    for group in 0..sb.groups() {
        let group = group::read(&fs.volume, sb, group)?;
        free_blocks = free_blocks.saturating_add(group.free_clusters.saturating_mul(sb.cluster));
        free_inodes = free_inodes.saturating_add(group.free_inodes);
    }
    Ok(Usage {
        block_size: sb.block_size,
        blocks: sb.blocks,
        free_blocks: free_blocks.min(sb.blocks),
        inodes: sb.inodes.into(),
        free_inodes: free_inodes.min(sb.inodes.into()),
    })
}
