//! Group descriptors, read. Their bytes are drawn in [`group`](crate::ext4::group); where they lie
//! with `meta_bg` is in `filesystems/ext4/blockgroup.rst` of the kernel documentation.

use super::bytes::{index, le16, le32, wide};
use super::error::{Fault, Place};
use super::superblock::{Superblock, incompat, ro_compat};
use super::volume::Volume;
use crate::ext4::superblock::OFFSET;

/// Where the checksum is.
const CHECKSUM: usize = 0x1E;

/// What is wanted of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// First block of the inode table.
    pub(super) inode_table: u64,
    /// Clusters.
    pub(super) free_clusters: u64,
    pub(super) free_inodes: u64,
}

/// The checked descriptor of a group that exists.
pub(super) fn read(volume: &Volume, sb: &Superblock, group: u64) -> Result<Group, Fault> {
    let per_block = volume.block_size / sb.descriptor_size as u64;
    let block = table_block(sb, group / per_block, per_block);
    let place = Place::Descriptor { group, block };
    let bytes = volume.block(block, place)?;
    let at = index(group % per_block) * sb.descriptor_size;
    let raw = bytes
        .get(at..at + sb.descriptor_size)
        .ok_or_else(|| Fault::damaged(place, "is cut off"))?;
    check(sb, group, raw, place)?;
    let large = sb.descriptor_size >= 64;
    let high32 = |at| if large { le32(raw, at) } else { 0 };
    let high16 = |at| {
        if large {
            u64::from(le16(raw, at)) << 16
        } else {
            0
        }
    };
    let inode_table = wide(high32(0x28), le32(raw, 0x08));
    let table_blocks =
        (u64::from(sb.inodes_per_group) * sb.inode_size as u64).div_ceil(volume.block_size);
    let fits = inode_table
        .checked_add(table_blocks)
        .is_some_and(|end| end <= volume.blocks);
    if !fits || !volume.holds(inode_table) {
        return Err(Fault::damaged(
            place,
            "puts the inode table outside of the file system",
        ));
    }
    Ok(Group {
        inode_table,
        free_clusters: u64::from(le16(raw, 0x0C)) | high16(0x2C),
        free_inodes: u64::from(le16(raw, 0x0E)) | high16(0x2E),
    })
}

/// The block that holds a part of the descriptors.
fn table_block(sb: &Superblock, part: u64, per_block: u64) -> u64 {
    if !sb.has_incompat(incompat::META_BG) || part < sb.first_meta_group {
        // Behind the superblock, wherever the first block that counts is: with bigalloc that is block 0 of any size.
        return OFFSET as u64 / sb.block_size + 1 + part;
    }
    let group = part * per_block;
    let first = sb.first_block + group * sb.blocks_per_group;
    // With blocks of 1024 bytes that begin at 0, block 0 of the group is the boot sector.
    let boot = sb.block_size == 1024 && sb.first_block == 0 && group == 0;
    first + u64::from(sb.has_copy(group)) + u64::from(boot)
}

fn check(sb: &Superblock, group: u64, raw: &[u8], place: Place) -> Result<(), Fault> {
    let number = u32::try_from(group).unwrap_or(u32::MAX).to_le_bytes();
    let (before, after) = (&raw[..CHECKSUM], &raw[CHECKSUM + 2..]);
    let computed = if sb.has_checksums() {
        let crc = sb.crc.with(&number).with(before).with(&[0; 2]).with(after);
        crc.low()
    } else if sb.has_ro_compat(ro_compat::GDT_CSUM) {
        let crc = crc16(u16::MAX, sb.uuid.as_bytes());
        crc16(crc16(crc16(crc, &number), before), after)
    } else {
        return Ok(());
    };
    Fault::unless_equal(place, le16(raw, CHECKSUM).into(), computed.into())
}

/// CRC-16 with the polynomial 0x8005, reflected, as `uninit_bg` uses it.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xA001 * (crc & 1))
        })
    })
}
