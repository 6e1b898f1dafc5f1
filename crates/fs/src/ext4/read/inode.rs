//! The inode, read. Its bytes are drawn in [`inode`](crate::ext4::inode); kernel documentation,
//! `filesystems/ext4/inodes.rst`.

use amiforge_types::Timestamp;

use super::bytes::{index, le16, le32, wide};
use super::error::{Fault, Place};
use super::group;
use super::superblock::{Superblock, incompat, ro_compat};
use super::volume::Volume;
use super::{FileKind, FileStat};
use crate::ext4::checksum::Crc;
use crate::ext4::inode::{EXTENTS_FL, INDEX_FL, mode};

const ENCRYPT_FL: u32 = 0x800;
const HUGE_FILE_FL: u32 = 0x4_0000;
const VERITY_FL: u32 = 0x10_0000;
const EA_INODE_FL: u32 = 0x20_0000;
const INLINE_DATA_FL: u32 = 0x1000_0000;
const CASEFOLD_FL: u32 = 0x4000_0000;
/// The root directory.
pub(super) const ROOT: u32 = 2;
/// Bytes of an inode of ext2, and of `i_block` in it.
const OLD_SIZE: usize = 128;
const I_BLOCK: usize = 0x28;
pub(super) const I_BLOCK_LEN: usize = 60;
const CHECKSUM_LOW: usize = 0x7C;
const CHECKSUM_HIGH: usize = 0x82;

/// A checked inode.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) number: u32,
    pub(super) kind: FileKind,
    pub(super) size: u64,
    pub(super) flags: u32,
    pub(super) links: u32,
    /// Block of extended attributes, 0 without.
    pub(super) xattr_block: u64,
    /// In units of 512 bytes.
    pub(super) sectors: u64,
    /// Register for the checksums of the blocks that belong to it.
    pub(super) crc: Crc,
    /// All its bytes.
    pub(super) raw: Box<[u8]>,
}

/// Reads and checks an inode. `name_led` is true when a name led to it, which must not lead to one
/// that is reserved or free.
pub(super) fn read(
    volume: &Volume,
    sb: &Superblock,
    number: u32,
    name_led: bool,
) -> Result<Inode, Fault> {
    let place = Place::Inode(number);
    let damaged = |problem| Err(Fault::damaged(place, problem));
    if number == 0 || number > sb.inodes {
        return damaged("does not exist");
    }
    if name_led && number != ROOT && number < sb.first_inode {
        return damaged("is reserved, but has a name");
    }
    let (group, slot) = (
        (number - 1) / sb.inodes_per_group,
        (number - 1) % sb.inodes_per_group,
    );
    let group = group::read(volume, sb, group.into())?;
    let at = u64::from(slot) * sb.inode_size as u64;
    let block = volume.block(group.inode_table + at / volume.block_size, place)?;
    let at = index(at % volume.block_size);
    let raw: Box<[u8]> = block
        .get(at..at + sb.inode_size)
        .ok_or_else(|| Fault::damaged(place, "is cut off"))?
        .into();
    let inode_crc = sb
        .crc
        .with(&number.to_le_bytes())
        .with(&le32(&raw, 0x64).to_le_bytes());
    if sb.has_checksums() {
        check(&raw, inode_crc, place)?;
    }
    let extra = extra_len(&raw);
    if raw.len() > OLD_SIZE && (OLD_SIZE + extra > raw.len() || !extra.is_multiple_of(4)) {
        return damaged("has more extra fields than room");
    }
    let kind = match le16(&raw, 0) & 0o170_000 {
        mode::FILE => FileKind::File,
        mode::DIR => FileKind::Dir,
        mode::SYMLINK => FileKind::Symlink,
        mode::CHAR => FileKind::CharDev,
        mode::BLOCK => FileKind::BlockDev,
        mode::FIFO => FileKind::Fifo,
        mode::SOCKET => FileKind::Socket,
        0 if name_led => return damaged("is not in use, but has a name"),
        _ => return damaged("has no valid type"),
    };
    let links = u32::from(le16(&raw, 0x1A));
    if name_led && links == 0 {
        return damaged("has no links, but a name");
    }
    let flags = le32(&raw, 0x20);
    // Of old, the high half was something else in a directory.
    let has_high = kind == FileKind::File || sb.has_incompat(incompat::LARGEDIR);
    let size = wide(if has_high { le32(&raw, 0x6C) } else { 0 }, le32(&raw, 4));
    if size > volume.block_size << 32 {
        return damaged("is larger than a file can be");
    }
    let blocks = wide(le16(&raw, 0x74).into(), le32(&raw, 0x1C));
    let sectors = match sb.has_ro_compat(ro_compat::HUGE_FILE) {
        true if flags & HUGE_FILE_FL != 0 => blocks * (volume.block_size / 512),
        true => blocks,
        false => blocks & u64::from(u32::MAX),
    };
    Ok(Inode {
        number,
        kind,
        size,
        flags,
        links,
        xattr_block: wide(le16(&raw, 0x76).into(), le32(&raw, 0x68)),
        sectors,
        crc: inode_crc,
        raw,
    })
}

fn extra_len(raw: &[u8]) -> usize {
    if raw.len() > OLD_SIZE {
        le16(raw, OLD_SIZE).into()
    } else {
        0
    }
}

fn check(raw: &[u8], crc: Crc, place: Place) -> Result<(), Fault> {
    let (old, new) = raw.split_at(OLD_SIZE.min(raw.len()));
    let mut crc = crc
        .with(&old[..CHECKSUM_LOW])
        .with(&[0; 2])
        .with(&old[CHECKSUM_LOW + 2..]);
    let wide_sum = extra_len(raw) >= CHECKSUM_HIGH + 2 - OLD_SIZE;
    if wide_sum {
        let high = CHECKSUM_HIGH - OLD_SIZE;
        crc = crc.with(&new[..high]).with(&[0; 2]).with(&new[high + 2..]);
    } else {
        crc = crc.with(new);
    }
    let low = u32::from(le16(raw, CHECKSUM_LOW));
    if wide_sum {
        let stored = u32::from(le16(raw, CHECKSUM_HIGH)) << 16 | low;
        Fault::unless_equal(place, stored, crc.value())
    } else {
        Fault::unless_equal(place, low, crc.low().into())
    }
}

impl Inode {
    /// The sixty bytes of the block map, the extent tree, a short link, or data.
    pub(super) fn i_block(&self) -> &[u8] {
        self.raw
            .get(I_BLOCK..I_BLOCK + I_BLOCK_LEN)
            .unwrap_or_default()
    }

    /// What follows the fields: room for attributes.
    pub(super) fn tail(&self) -> &[u8] {
        let start = OLD_SIZE + extra_len(&self.raw);
        self.raw.get(start..).unwrap_or_default()
    }

    pub(super) fn has_extents(&self) -> bool {
        self.flags & EXTENTS_FL != 0
    }

    pub(super) fn has_index(&self) -> bool {
        self.flags & INDEX_FL != 0
    }

    pub(super) fn has_inline_data(&self) -> bool {
        self.flags & INLINE_DATA_FL != 0
    }

    pub(super) fn holds_xattr(&self) -> bool {
        self.flags & EA_INODE_FL != 0
    }

    /// Refuses content that cannot be given as it was written.
    pub(super) fn refuse_transformed(&self) -> Result<(), Fault> {
        let what = match self.flags {
            flags if flags & ENCRYPT_FL != 0 => "an encrypted file (feature encrypt)",
            flags if flags & VERITY_FL != 0 => "a file with a verity tree (feature verity)",
            flags if flags & CASEFOLD_FL != 0 => "a directory that ignores case (feature casefold)",
            _ => return Ok(()),
        };
        Err(Fault::Unsupported(what.to_owned()))
    }

    /// True for a link whose target is in the inode.
    pub(super) fn is_fast_symlink(&self, block_size: u64, cluster: u64) -> bool {
        let of_xattrs = match self.xattr_block {
            0 => 0,
            _ => block_size * cluster / 512,
        };
        !self.has_inline_data() && self.sectors <= of_xattrs && self.size < I_BLOCK_LEN as u64
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Option<(u32, u32)> {
        if !matches!(self.kind, FileKind::CharDev | FileKind::BlockDev) {
            return None;
        }
        let (old, new) = (le32(self.i_block(), 0), le32(self.i_block(), 4));
        Some(if old != 0 {
            (old >> 8 & 0xFF, old & 0xFF)
        } else {
            (new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xF_FF00)
        })
    }

    /// A time whose seconds are at one place, and whose extension is at another.
    fn time(&self, at: usize, extra_at: usize) -> Timestamp {
        // Fields that the inode does not reach are not zero but something else.
        let extra = match extra_at + 4 <= OLD_SIZE + extra_len(&self.raw) {
            true => le32(&self.raw, extra_at),
            false => 0,
        };
        let secs = i64::from(le32(&self.raw, at).cast_signed()) + (i64::from(extra & 3) << 32);
        Timestamp {
            secs,
            nanos: (extra >> 2).min(999_999_999),
        }
    }

    /// Everything that a caller wants to know.
    pub(super) fn stat(&self) -> FileStat {
        let raw = &self.raw;
        let id = |low, high| u32::from(le16(raw, low)) | u32::from(le16(raw, high)) << 16;
        let has_crtime = 0x94 <= OLD_SIZE + extra_len(raw);
        FileStat {
            ino: self.number,
            kind: self.kind,
            mode: le16(raw, 0) & 0o7777,
            uid: id(0x02, 0x78),
            gid: id(0x18, 0x7A),
            size: self.size,
            nlink: self.links,
            rdev: self.device(),
            blocks: self.sectors,
            flags: self.flags,
            mtime: self.time(0x10, 0x88),
            ctime: self.time(0x0C, 0x84),
            atime: self.time(0x08, 0x8C),
            crtime: has_crtime.then(|| self.time(0x90, 0x94)),
        }
    }
}
