//! The extent tree: which logical block is where.
//!
//! ```text
//! node:  header {0xF30A, entries, max, depth, generation} | entries of 12 bytes | checksum (not in the inode)
//! leaf:  {logical block u32, length u16, physical high u16, physical low u32}
//! index: {logical block u32, child low u32, child high u16, 0}
//! ```
//! Kernel documentation, `filesystems/ext4/ifork.rst`, "Extent Tree".

use super::BLOCK_SIZE;
use super::checksum::Crc;

const MAGIC: u16 = 0xF30A;
const BLOCK: usize = 4096;
const HEADER: usize = 12;
const ENTRY: usize = 12;
/// Entries in the inode and in a block, which keeps its last four bytes for the checksum.
const IN_INODE: usize = 4;
const IN_BLOCK: usize = (BLOCK - HEADER - 4) / ENTRY;
/// Most blocks of an initialised extent.
pub(super) const MAX_RUN: u64 = 32_768;

const _: () = assert!(IN_BLOCK == 340 && BLOCK as u64 == BLOCK_SIZE);

/// Blocks of a file that lie next to each other on the volume, at most [`MAX_RUN`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// First block on the volume.
    pub(super) physical: u64,
    /// Blocks.
    pub(super) len: u64,
}

/// Blocks that the tree over so many runs takes outside of the inode.
pub(super) fn node_count(runs: usize) -> usize {
    let mut total = 0;
    let mut width = runs;
    while width > IN_INODE {
        width = width.div_ceil(IN_BLOCK);
        total += width;
    }
    total
}

/// Builds the tree over `runs`. Its blocks go to `blocks`, leaves first; the result is what goes
/// into the inode.
pub(super) fn build(
    runs: &[Run],
    blocks: impl IntoIterator<Item = u64>,
    inode: Crc,
    mut put: impl FnMut(u64, &[u8; BLOCK]),
) -> [u8; 60] {
    let mut blocks = blocks.into_iter();
    let mut depth: u16 = 0;
    let mut level: Vec<(u32, [u8; ENTRY])> = runs.iter().map(leaf_entry).collect();
    while level.len() > IN_INODE {
        let mut next = Vec::new();
        for chunk in level.chunks(IN_BLOCK) {
            let Some(number) = blocks.next() else { break };
            let mut block = [0; BLOCK];
            put_node(&mut block, chunk, IN_BLOCK, depth);
            let sum = inode.with(&block[..BLOCK - 4]).value();
            block[BLOCK - 4..].copy_from_slice(&sum.to_le_bytes());
            put(number, &block);
            next.push((chunk[0].0, index_entry(chunk[0].0, number)));
        }
        level = next;
        depth += 1;
    }
    let mut out = [0; 60];
    put_node(&mut out, &level, IN_INODE, depth);
    out
}

fn leaf_entry(run: &Run) -> (u32, [u8; ENTRY]) {
    let logical = low_u32(run.logical);
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..6].copy_from_slice(&low_u16(run.len).to_le_bytes());
    entry[6..8].copy_from_slice(&low_u16(run.physical >> 32).to_le_bytes());
    entry[8..].copy_from_slice(&low_u32(run.physical).to_le_bytes());
    (logical, entry)
}

fn index_entry(logical: u32, child: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..8].copy_from_slice(&low_u32(child).to_le_bytes());
    entry[8..10].copy_from_slice(&low_u16(child >> 32).to_le_bytes());
    entry
}

fn put_node(out: &mut [u8], entries: &[(u32, [u8; ENTRY])], max: usize, depth: u16) {
    let header = [
        MAGIC,
        low_u16(entries.len() as u64),
        low_u16(max as u64),
        depth,
    ];
    for (at, field) in header.into_iter().enumerate() {
        out[2 * at..2 * at + 2].copy_from_slice(&field.to_le_bytes());
    }
    for (slot, (_, entry)) in entries.iter().enumerate() {
        out[HEADER + ENTRY * slot..HEADER + ENTRY * (slot + 1)].copy_from_slice(entry);
    }
}

/// The low 32 bits.
pub(super) fn low_u32(value: u64) -> u32 {
    u32::try_from(value & 0xFFFF_FFFF).unwrap_or(0)
}

/// The low 16 bits.
pub(super) fn low_u16(value: u64) -> u16 {
    u16::try_from(value & 0xFFFF).unwrap_or(0)
}
