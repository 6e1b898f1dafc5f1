//! The inode. Kernel documentation, `filesystems/ext4/inodes.rst`.

use amiforge_types::Timestamp;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

use super::checksum::Crc;
use super::extent_tree::{low_u16, low_u32};
use super::xattr::INLINE_SPACE;

/// `EXT4_EXTENTS_FL`: `i_block` holds an extent tree.
pub(super) const EXTENTS_FL: u32 = 0x8_0000;
/// `EXT4_INDEX_FL`: the directory has a hash tree.
pub(super) const INDEX_FL: u32 = 0x1000;
/// Bytes of the fields after the first 128, up to the attributes.
const EXTRA_SIZE: u16 = 32;

/// File types in `i_mode`.
pub(super) mod mode {
    pub(in crate::ext4) const FIFO: u16 = 0o010_000;
    pub(in crate::ext4) const CHAR: u16 = 0o020_000;
    pub(in crate::ext4) const DIR: u16 = 0o040_000;
    pub(in crate::ext4) const BLOCK: u16 = 0o060_000;
    pub(in crate::ext4) const FILE: u16 = 0o100_000;
    pub(in crate::ext4) const SYMLINK: u16 = 0o120_000;
    pub(in crate::ext4) const SOCKET: u16 = 0o140_000;
}

/// The inode as it lies on the disk.
#[derive(Debug, Clone, FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawInode {
    i_mode: U16,
    i_uid: U16,
    i_size_lo: U32,
    i_atime: U32,
    i_ctime: U32,
    i_mtime: U32,
    i_dtime: U32,
    i_gid: U16,
    i_links_count: U16,
    i_blocks_lo: U32,
    i_flags: U32,
    osd1: U32,
    i_block: [u8; 60],
    i_generation: U32,
    i_file_acl_lo: U32,
    i_size_high: U32,
    i_obso_faddr: U32,
    l_i_blocks_high: U16,
    l_i_file_acl_high: U16,
    l_i_uid_high: U16,
    l_i_gid_high: U16,
    l_i_checksum_lo: U16,
    l_i_reserved: U16,
    i_extra_isize: U16,
    i_checksum_hi: U16,
    i_ctime_extra: U32,
    i_mtime_extra: U32,
    i_atime_extra: U32,
    i_crtime: U32,
    i_crtime_extra: U32,
    i_version_hi: U32,
    i_projid: U32,
    xattrs: [u8; INLINE_SPACE],
}

const _: () = assert!(size_of::<RawInode>() == 256);
const _: () = assert!(std::mem::offset_of!(RawInode, i_block) == 0x28);
const _: () = assert!(std::mem::offset_of!(RawInode, i_extra_isize) == 0x80);
const _: () = assert!(std::mem::offset_of!(RawInode, xattrs) == 0xA0);

/// An inode in our words.
#[derive(Clone, Debug)]
pub(super) struct InodeFields {
    /// Type and permissions.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    /// Bytes.
    pub(super) size: u64,
    /// Blocks of 4096 bytes, data and all metadata of the inode.
    pub(super) blocks: u64,
    pub(super) flags: u32,
    pub(super) i_block: [u8; 60],
    /// All four times.
    pub(super) time: Timestamp,
    /// Block of attributes, 0 without.
    pub(super) xattr_block: u64,
    pub(super) xattrs: Option<[u8; INLINE_SPACE]>,
}

/// The 256 bytes of inode `number`.
pub(super) fn encode(number: u32, fields: &InodeFields, file_system: Crc) -> RawInode {
    let mut raw = RawInode::new_zeroed();
    let (secs, extra) = time(fields.time);
    let sectors = fields.blocks * 8;
    raw.i_mode.set(fields.mode);
    raw.i_uid.set(low_u16(fields.uid.into()));
    raw.l_i_uid_high.set(low_u16(u64::from(fields.uid) >> 16));
    raw.i_gid.set(low_u16(fields.gid.into()));
    raw.l_i_gid_high.set(low_u16(u64::from(fields.gid) >> 16));
    raw.i_size_lo.set(low_u32(fields.size));
    raw.i_size_high.set(low_u32(fields.size >> 32));
    raw.i_links_count.set(low_u16(fields.links.into()));
    raw.i_blocks_lo.set(low_u32(sectors));
    raw.l_i_blocks_high.set(low_u16(sectors >> 32));
    raw.i_flags.set(fields.flags);
    raw.i_block = fields.i_block;
    raw.i_file_acl_lo.set(low_u32(fields.xattr_block));
    raw.l_i_file_acl_high.set(low_u16(fields.xattr_block >> 32));
    raw.i_extra_isize.set(EXTRA_SIZE);
    for field in [
        &mut raw.i_atime,
        &mut raw.i_ctime,
        &mut raw.i_mtime,
        &mut raw.i_crtime,
    ] {
        field.set(secs);
    }
    for field in [
        &mut raw.i_atime_extra,
        &mut raw.i_ctime_extra,
        &mut raw.i_mtime_extra,
        &mut raw.i_crtime_extra,
    ] {
        field.set(extra);
    }
    if let Some(xattrs) = fields.xattrs {
        raw.xattrs = xattrs;
    }
    seal(&mut raw, number, file_system);
    raw
}

/// A reserved inode that holds nothing.
pub(super) fn empty(number: u32, file_system: Crc) -> RawInode {
    let mut raw = RawInode::new_zeroed();
    let crc = file_system.of_inode(number).with(raw.as_bytes());
    // Without the extra fields there is room for the low half only.
    raw.l_i_checksum_lo.set(crc.low());
    raw
}

fn seal(raw: &mut RawInode, number: u32, file_system: Crc) {
    let crc = file_system.of_inode(number).with(raw.as_bytes());
    raw.l_i_checksum_lo.set(crc.low());
    raw.i_checksum_hi.set(crc.high());
}

/// Seconds and the extra word of a time: nanoseconds above two bits that extend the seconds to the
/// year 2446. Times out of range become the nearest one.
fn time(time: Timestamp) -> (u32, u32) {
    const RANGE: (i64, i64) = (i32::MIN as i64, i32::MIN as i64 + (1 << 34) - 1);
    let secs = time.secs.clamp(RANGE.0, RANGE.1);
    let nanos = match secs == time.secs {
        true => time.nanos.min(999_999_999),
        false => 0,
    };
    let low = low_u32(secs.cast_unsigned());
    let epoch = (secs - i64::from(low.cast_signed())) >> 32;
    (low, nanos << 2 | low_u32(epoch.cast_unsigned()) & 3)
}

/// `i_block` of a device: the old 8:8 form where it fits, else the new one in the second word.
pub(super) fn device_block(major: u32, minor: u32) -> [u8; 60] {
    let mut out = [0; 60];
    if major < 256 && minor < 256 {
        out[..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
    } else {
        let new = (minor & 0xFF) | (major << 8) | ((minor & !0xFF) << 12);
        out[4..8].copy_from_slice(&new.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038() {
        let at = |secs, nanos| time(Timestamp { secs, nanos });
        assert_eq!(at(0, 1), (0, 4));
        assert_eq!(at(-1, 999_999_999), (u32::MAX, 999_999_999 << 2));
        assert_eq!(at(1 << 31, 0), (1 << 31, 1));
        assert_eq!(at((1 << 32) + 5, 7), (5, 7 << 2 | 1));
        assert_eq!(at(i64::MAX, 5), (i32::MAX.cast_unsigned(), 3));
        assert_eq!(at(i64::MIN, 5), (1 << 31, 0));
    }
}
