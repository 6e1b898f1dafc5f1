//! Group descriptors. Kernel documentation, `filesystems/ext4/group_descr.rst`.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout};

use super::checksum::Crc;
use super::extent_tree::{low_u16, low_u32};
use super::geometry::{DESCRIPTOR_SIZE, GroupPlace};

/// No inode of the group is in use; its bitmap is not read.
pub(super) const INODE_UNINIT: u16 = 1;
/// Only a superblock copy is in the group; its bitmap is not read.
pub(super) const BLOCK_UNINIT: u16 = 2;
/// The inode table reads as zeros where it holds nothing, so the kernel need not write it.
pub(super) const INODE_ZEROED: u16 = 4;

/// The descriptor as it lies on the disk (64-bit form).
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawDescriptor {
    bg_block_bitmap_lo: U32,
    bg_inode_bitmap_lo: U32,
    bg_inode_table_lo: U32,
    bg_free_blocks_count_lo: U16,
    bg_free_inodes_count_lo: U16,
    bg_used_dirs_count_lo: U16,
    bg_flags: U16,
    bg_exclude_bitmap_lo: U32,
    bg_block_bitmap_csum_lo: U16,
    bg_inode_bitmap_csum_lo: U16,
    bg_itable_unused_lo: U16,
    bg_checksum: U16,
    bg_block_bitmap_hi: U32,
    bg_inode_bitmap_hi: U32,
    bg_inode_table_hi: U32,
    bg_free_blocks_count_hi: U16,
    bg_free_inodes_count_hi: U16,
    bg_used_dirs_count_hi: U16,
    bg_itable_unused_hi: U16,
    bg_exclude_bitmap_hi: U32,
    bg_block_bitmap_csum_hi: U16,
    bg_inode_bitmap_csum_hi: U16,
    bg_reserved: U32,
}

const _: () = assert!(size_of::<RawDescriptor>() as u64 == DESCRIPTOR_SIZE);
const _: () = assert!(std::mem::offset_of!(RawDescriptor, bg_checksum) == 0x1E);
const _: () = assert!(std::mem::offset_of!(RawDescriptor, bg_block_bitmap_csum_hi) == 0x38);

/// What a group holds.
#[derive(Clone, Debug)]
pub(super) struct GroupUse {
    pub(super) free_blocks: u64,
    pub(super) free_inodes: u64,
    pub(super) directories: u64,
    /// Inodes after the last one in use.
    pub(super) unused_inodes: u64,
    pub(super) flags: u16,
    /// Checksums of the bitmaps, `None` where they are not initialised.
    pub(super) block_bitmap: Option<Crc>,
    pub(super) inode_bitmap: Option<Crc>,
}

/// The 64 bytes of a descriptor.
pub(super) fn encode(
    group: u64,
    place: &GroupPlace,
    used: &GroupUse,
    file_system: Crc,
) -> [u8; 64] {
    let mut raw = RawDescriptor::new_zeroed();
    let high = |value: u64| low_u16(value >> 16);
    raw.bg_block_bitmap_lo.set(low_u32(place.block_bitmap));
    raw.bg_block_bitmap_hi
        .set(low_u32(place.block_bitmap >> 32));
    raw.bg_inode_bitmap_lo.set(low_u32(place.inode_bitmap));
    raw.bg_inode_bitmap_hi
        .set(low_u32(place.inode_bitmap >> 32));
    raw.bg_inode_table_lo.set(low_u32(place.inode_table));
    raw.bg_inode_table_hi.set(low_u32(place.inode_table >> 32));
    raw.bg_free_blocks_count_lo.set(low_u16(used.free_blocks));
    raw.bg_free_blocks_count_hi.set(high(used.free_blocks));
    raw.bg_free_inodes_count_lo.set(low_u16(used.free_inodes));
    raw.bg_free_inodes_count_hi.set(high(used.free_inodes));
    raw.bg_used_dirs_count_lo.set(low_u16(used.directories));
    raw.bg_used_dirs_count_hi.set(high(used.directories));
    raw.bg_itable_unused_lo.set(low_u16(used.unused_inodes));
    raw.bg_itable_unused_hi.set(high(used.unused_inodes));
    raw.bg_flags.set(used.flags);
    if let Some(crc) = used.block_bitmap {
        raw.bg_block_bitmap_csum_lo.set(crc.low());
        raw.bg_block_bitmap_csum_hi.set(crc.high());
    }
    if let Some(crc) = used.inode_bitmap {
        raw.bg_inode_bitmap_csum_lo.set(crc.low());
        raw.bg_inode_bitmap_csum_hi.set(crc.high());
    }
    let sum = file_system
        .with(&low_u32(group).to_le_bytes())
        .with(raw.as_bytes())
        .low();
    raw.bg_checksum.set(sum);
    let mut out = [0; 64];
    out.copy_from_slice(raw.as_bytes());
    out
}
