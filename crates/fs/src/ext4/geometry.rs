//! Where everything that is not content goes: groups, bitmaps, inode tables, backups.
//!
//! ```text
//! group 0: superblock | descriptors | reserved descriptors | 16 block bitmaps | 16 inode bitmaps | 16 inode tables | free
//! group 1, 3^n, 5^n, 7^n: superblock | descriptors | reserved descriptors | free
//! group 16, 32, ...: the bitmaps and tables of the next 16 groups | free
//! ```
//! Kernel documentation, `filesystems/ext4/blockgroup.rst` and `overview.rst`.

use super::{BLOCK_SIZE, Inodes};
use std::ops::Range;

/// Blocks in a group: one bitmap block full of bits.
pub(super) const BLOCKS_PER_GROUP: u64 = 8 * BLOCK_SIZE;
/// Bytes in an inode.
pub(super) const INODE_SIZE: u64 = 256;
/// Inodes in a block of an inode table.
pub(super) const INODES_PER_BLOCK: u64 = BLOCK_SIZE / INODE_SIZE;
/// Most inodes in a group: one bitmap block full of bits.
const MAX_INODES_PER_GROUP: u64 = 8 * BLOCK_SIZE;
/// Bytes in a group descriptor (64-bit layout).
pub(super) const DESCRIPTOR_SIZE: u64 = 64;
const DESCRIPTORS_PER_BLOCK: u64 = BLOCK_SIZE / DESCRIPTOR_SIZE;
/// Block numbers in an indirect block, the limit of the reserved descriptor blocks.
pub(super) const ADDRESSES_PER_BLOCK: u64 = BLOCK_SIZE / 4;
/// Groups whose bitmaps and tables lie together, and its logarithm for the superblock.
pub(super) const GROUPS_PER_FLEX: u64 = 1 << LOG_GROUPS_PER_FLEX;
pub(super) const LOG_GROUPS_PER_FLEX: u8 = 4;
/// A last group with less room than this beside its own metadata is not worth having.
const SMALLEST_TAIL: u64 = 50;
/// First inode that is not reserved; numbers below belong to the file system.
pub(super) const FIRST_INODE: u32 = 11;

/// A volume that cannot hold its own metadata or the inodes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unfit;

/// Bitmaps and inode table of one group, as block numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupPlace {
    pub(super) block_bitmap: u64,
    pub(super) inode_bitmap: u64,
    pub(super) inode_table: u64,
}

/// The fixed parts of a file system. All counts are in blocks unless they say otherwise.
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    /// Blocks of the file system, at most those of the volume.
    pub(super) blocks: u64,
    /// Descriptor blocks after each superblock.
    pub(super) descriptor_blocks: u64,
    /// Blocks after them, kept free for more descriptors.
    pub(super) reserved_descriptor_blocks: u64,
    /// Inodes in each group.
    pub(super) inodes_per_group: u64,
    /// Blocks of each inode table.
    pub(super) table_blocks: u64,
    /// One for each group.
    pub(super) groups: Vec<GroupPlace>,
    /// Everything above as ranges of blocks: sorted, not overlapping.
    pub(super) fixed: Vec<Range<u64>>,
}

impl Geometry {
    /// Lays out `volume_blocks` for `used` inodes (reserved ones included) and those that `inodes` adds.
    pub(super) fn new(volume_blocks: u64, used: u64, inodes: Inodes) -> Result<Self, Unfit> {
        let mut blocks = volume_blocks;
        loop {
            let shape = Shape::new(blocks, used, inodes)?;
            match shape.groups - 1 {
                0 => return shape.place(),
                before_last => {
                    let tail = blocks - before_last * BLOCKS_PER_GROUP;
                    if tail >= shape.group_overhead(before_last) + SMALLEST_TAIL {
                        return shape.place();
                    }
                    blocks = before_last * BLOCKS_PER_GROUP;
                }
            }
        }
    }

    /// Blocks a volume must have to use one more group than this one does.
    pub(super) fn next_group_from(&self) -> u64 {
        let full = self.group_count() * BLOCKS_PER_GROUP;
        let super_blocks = self.super_blocks() + 2;
        full + super_blocks + 2 + self.table_blocks + INODES_PER_BLOCK + SMALLEST_TAIL
    }

    pub(super) fn group_count(&self) -> u64 {
        self.groups.len() as u64
    }

    /// Inodes of the file system.
    pub(super) fn inodes(&self) -> u64 {
        self.inodes_per_group * self.group_count()
    }

    /// Blocks of a superblock with all descriptors, used and reserved.
    pub(super) fn super_blocks(&self) -> u64 {
        1 + self.descriptor_blocks + self.reserved_descriptor_blocks
    }

    /// Groups with a copy of the superblock, without group 0.
    pub(super) fn backups(&self) -> impl Iterator<Item = u64> {
        (1..self.group_count()).filter(|group| has_superblock(*group))
    }

    /// The blocks of a group.
    pub(super) fn group_range(&self, group: u64) -> Range<u64> {
        group * BLOCKS_PER_GROUP..((group + 1) * BLOCKS_PER_GROUP).min(self.blocks)
    }
}

/// True for the groups that carry a superblock under `sparse_super`.
pub(super) fn has_superblock(group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power *= base;
        }
        power == group
    };
    group <= 1 || power_of(3) || power_of(5) || power_of(7)
}

/// The counts, before anything has a place.
struct Shape {
    blocks: u64,
    groups: u64,
    descriptor_blocks: u64,
    reserved_descriptor_blocks: u64,
    inodes_per_group: u64,
}

impl Shape {
    fn new(blocks: u64, used: u64, inodes: Inodes) -> Result<Self, Unfit> {
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP).max(1);
        let descriptor_blocks = groups.div_ceil(DESCRIPTORS_PER_BLOCK);
        // Room to grow a thousandfold, as mke2fs leaves it, within what one indirect block names.
        let most_blocks = (blocks * 1024).min(1 << 32);
        let most_descriptors = most_blocks
            .div_ceil(BLOCKS_PER_GROUP)
            .div_ceil(DESCRIPTORS_PER_BLOCK);
        let reserved = most_descriptors
            .saturating_sub(descriptor_blocks)
            .min(ADDRESSES_PER_BLOCK);
        let with_spare = used + used / 16;
        let total = match inodes {
            Inodes::PerBytes(bytes) => (blocks * BLOCK_SIZE / bytes).max(with_spare),
            Inodes::Content => with_spare,
            Inodes::Count(count) => count,
        };
        let per_group = total
            .div_ceil(groups)
            .next_multiple_of(INODES_PER_BLOCK)
            .min(MAX_INODES_PER_GROUP);
        let wanted = match inodes {
            Inodes::Count(count) => count,
            Inodes::PerBytes(_) | Inodes::Content => used,
        };
        if per_group * groups < wanted || per_group * groups > u64::from(u32::MAX) {
            return Err(Unfit);
        }
        Ok(Self {
            blocks,
            groups,
            descriptor_blocks,
            reserved_descriptor_blocks: reserved,
            inodes_per_group: per_group,
        })
    }

    fn table_blocks(&self) -> u64 {
        self.inodes_per_group / INODES_PER_BLOCK
    }

    fn super_blocks(&self) -> u64 {
        1 + self.descriptor_blocks + self.reserved_descriptor_blocks
    }

    /// Blocks that a group needs for itself, did it hold its own bitmaps and table.
    fn group_overhead(&self, group: u64) -> u64 {
        let copy = if has_superblock(group) {
            self.super_blocks()
        } else {
            0
        };
        copy + 2 + self.table_blocks()
    }

    fn place(self) -> Result<Geometry, Unfit> {
        let super_blocks = self.super_blocks();
        let table_blocks = self.table_blocks();
        let mut fixed: Vec<Range<u64>> = (0..self.groups)
            .filter(|group| has_superblock(*group))
            .map(|group| group * BLOCKS_PER_GROUP..group * BLOCKS_PER_GROUP + super_blocks)
            .collect();
        if fixed.iter().any(|range| range.end > self.blocks) {
            return Err(Unfit);
        }
        let mut groups = Vec::new();
        for first in (0..self.groups).step_by(16) {
            let count = GROUPS_PER_FLEX.min(self.groups - first);
            let mut at = first * BLOCKS_PER_GROUP;
            let mut take = |len: u64| {
                let start = self.first_gap(at, len);
                at = start + len;
                if at > self.blocks {
                    return Err(Unfit);
                }
                fixed.push(start..at);
                Ok(start)
            };
            let block_bitmaps = take(count)?;
            let inode_bitmaps = take(count)?;
            for index in 0..count {
                groups.push(GroupPlace {
                    block_bitmap: block_bitmaps + index,
                    inode_bitmap: inode_bitmaps + index,
                    inode_table: take(table_blocks)?,
                });
            }
        }
        fixed.sort_by_key(|range| range.start);
        fixed.dedup_by(|next, last| {
            let joins = next.start == last.end;
            if joins {
                last.end = next.end;
            }
            joins
        });
        Ok(Geometry {
            blocks: self.blocks,
            descriptor_blocks: self.descriptor_blocks,
            reserved_descriptor_blocks: self.reserved_descriptor_blocks,
            inodes_per_group: self.inodes_per_group,
            table_blocks,
            groups,
            fixed,
        })
    }

    /// The first block from `at` on where `len` blocks clear all superblock copies.
    fn first_gap(&self, mut at: u64, len: u64) -> u64 {
        loop {
            let groups = at / BLOCKS_PER_GROUP..=(at + len - 1) / BLOCKS_PER_GROUP;
            let hit = groups
                .filter(|group| has_superblock(*group))
                .map(|group| group * BLOCKS_PER_GROUP + self.super_blocks())
                .find(|end| at < *end && at + len > *end - self.super_blocks());
            match hit {
                Some(end) => at = end,
                None => return at,
            }
        }
    }
}

/// Blocks of the journal in a file system of that many blocks, as mke2fs chooses them.
pub(super) fn journal_blocks(blocks: u64) -> u64 {
    JOURNALS
        .iter()
        .rev()
        .find(|(from, _)| blocks >= *from)
        .map_or(JOURNALS[0].1, |(_, size)| *size)
}

/// The next smaller journal.
pub(super) fn smaller_journal(journal: u64) -> Option<u64> {
    JOURNALS
        .iter()
        .rev()
        .map(|(_, size)| *size)
        .find(|size| *size < journal)
}

/// File system blocks from which on a journal has so many blocks.
const JOURNALS: [(u64, u64); 8] = [
    (0, 1024),
    (32_768, 4096),
    (262_144, 8192),
    (524_288, 16_384),
    (4_194_304, 32_768),
    (8_388_608, 65_536),
    (16_777_216, 131_072),
    (33_554_432, 262_144),
];
