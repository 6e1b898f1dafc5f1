//! How full a file system is, from its own counters.
//!
//! ext2, ext3 and ext4 count free blocks and inodes in the superblock, whose copy a mounted kernel
//! brings up to date when it unmounts. FAT has no counter to trust, so its table is counted.

use std::io;

use amiforge_types::ReadAt;

use crate::info::FileSystemKind;

/// Space and inodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes in use, the file system's own structures included where it counts them as used.
    pub used_bytes: u64,
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Inodes in use; `None` where the file system has none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub used_inodes: Option<u64>,
    /// Inodes that are free.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub free_inodes: Option<u64>,
}

/// Bytes of an allocation table that are counted at most: more than FAT32 of 500 GB has.
const MAX_TABLE: u64 = 64 << 20;

/// The usage of the file system in `len` bytes at `offset`, whose first bytes are `head`; `None` when
/// the kind is not known that well, or the numbers contradict each other.
pub(crate) fn of(
    kind: FileSystemKind,
    disk: &dyn ReadAt,
    offset: u64,
    len: u64,
    head: &[u8],
) -> io::Result<Option<Usage>> {
    match kind {
        FileSystemKind::Ext2 | FileSystemKind::Ext3 | FileSystemKind::Ext4 => {
            Ok(ext(&head[1024..2048]))
        }
        FileSystemKind::Vfat => fat(disk, offset, len, head),
        _ => Ok(None),
    }
}

fn le16(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn le32(bytes: &[u8], at: usize) -> u64 {
    le16(bytes, at) | le16(bytes, at + 2) << 16
}

/// From a superblock.
fn ext(sb: &[u8]) -> Option<Usage> {
    let wide = le32(sb, 0x60) & 0x80 != 0; // the feature 64bit
    let high = |at| if wide { le32(sb, at) << 32 } else { 0 };
    let block = 1024u64.checked_shl(u32::try_from(le32(sb, 0x18)).ok().filter(|n| *n <= 6)?)?;
    let blocks = le32(sb, 0x04) | high(0x150);
    let free = le32(sb, 0x0C) | high(0x158);
    let (inodes, free_inodes) = (le32(sb, 0x00), le32(sb, 0x10));
    Some(Usage {
        used_bytes: blocks.checked_sub(free)?.checked_mul(block)?,
        free_bytes: free.checked_mul(block)?,
        used_inodes: Some(inodes.checked_sub(free_inodes)?),
        free_inodes: Some(free_inodes),
    })
}

/// By counting the zero entries of the first allocation table.
fn fat(disk: &dyn ReadAt, offset: u64, len: u64, boot: &[u8]) -> io::Result<Option<Usage>> {
    let sector = le16(boot, 11);
    let cluster = sector * u64::from(boot[13]);
    let reserved = le16(boot, 14);
    let or_wide = |small: u64, at| if small == 0 { le32(boot, at) } else { small };
    let total = or_wide(le16(boot, 19), 32);
    let table = or_wide(le16(boot, 22), 36);
    let root = (le16(boot, 17) * 32).div_ceil(sector.max(1));
    let data = total.checked_sub(reserved + u64::from(boot[16]) * table + root);
    let (Some(data), true) = (data, cluster > 0) else {
        return Ok(None);
    };
    let clusters = data * sector / cluster;
    let bits: u64 = match clusters {
        0..4085 => 12,
        4085..65_525 => 16,
        _ => 32,
    };
    // Two entries stand before the first cluster's.
    let bytes = ((clusters + 2) * bits).div_ceil(8);
    if bytes > MAX_TABLE || bytes > table * sector || (reserved + table) * sector > len {
        return Ok(None);
    }
    let mut entries = vec![0; usize::try_from(bytes).unwrap_or(0)];
    disk.read_exact_at(&mut entries, offset + reserved * sector)?;
    let free = (2..clusters + 2)
        .filter(|n| {
            let at = usize::try_from(n * bits / 8).unwrap_or(0);
            let value = match bits {
                12 => le16(&entries, at) >> (n % 2 * 4) & 0xFFF,
                16 => le16(&entries, at),
                _ => le32(&entries, at) & 0x0FFF_FFFF,
            };
            value == 0
        })
        .count() as u64;
    Ok(Some(Usage {
        used_bytes: (clusters - free) * cluster,
        free_bytes: free * cluster,
        used_inodes: None,
        free_inodes: None,
    }))
}
