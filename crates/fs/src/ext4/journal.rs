//! The superblock of an empty journal; big-endian. Kernel documentation, `filesystems/ext4/journal.rst`.

use amiforge_types::Uuid;

use super::extent_tree::low_u32;

const MAGIC: u32 = 0xC03B_3998;
const SUPERBLOCK_V2: u32 = 4;
const BLOCK_SIZE: u32 = 4096;

/// The first bytes of a journal of so many blocks; the rest of it is zero.
pub(super) fn superblock(blocks: u64, uuid: &Uuid) -> [u8; 0x44] {
    let mut out = [0; 0x44];
    let fields = [
        (0x00, MAGIC),
        (0x04, SUPERBLOCK_V2),
        (0x0C, BLOCK_SIZE),
        (0x10, low_u32(blocks)),
        // First block of the log, and the sequence number expected there.
        (0x14, 1),
        (0x18, 1),
        // Users of the journal.
        (0x40, 1),
    ];
    for (at, value) in fields {
        out[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    out[0x30..0x40].copy_from_slice(uuid.as_bytes());
    out
}
