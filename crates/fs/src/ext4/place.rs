//! Second pass: gives every block of content its place.
//!
//! Content fills the free blocks from the start of the volume on, so that everything below one
//! point is in use and everything above it is free but for the fixed parts:
//! resize inode, directories, symbolic links and attributes, file data, journal.

use std::ops::Range;

use super::extent_tree::{self, MAX_RUN, Run, low_u32};
use super::geometry::Geometry;
use super::scan::{Class, Scan};

/// Where the content of one inode is, as ranges of the lists in [`Placement`]. There is one for each
/// inode, so it is small; the blocks that the lists name number less than 2^32, and so do their items.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    runs: Range<u32>,
    tree: Range<u32>,
    xattr_block: u32,
}

impl Mapping {
    /// Blocks of the extent tree.
    pub(super) fn tree_len(&self) -> u64 {
        self.tree.len() as u64
    }

    /// Block of the attributes, 0 without one.
    pub(super) fn xattr_block(&self) -> u64 {
        self.xattr_block.into()
    }
}

fn items(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Placement {
    runs: Vec<Run>,
    tree_blocks: Vec<u64>,
    /// One for each node of the scan.
    pub(super) nodes: Vec<Mapping>,
    pub(super) journal: Mapping,
    pub(super) journal_blocks: u64,
    /// The double-indirect block of the resize inode.
    pub(super) resize_block: u64,
    /// Everything below is in use.
    pub(super) end: u64,
}

impl Placement {
    /// The runs of an inode.
    pub(super) fn runs(&self, mapping: &Mapping) -> &[Run] {
        &self.runs[items(&mapping.runs)]
    }

    /// The blocks of its extent tree.
    pub(super) fn tree_blocks(&self, mapping: &Mapping) -> &[u64] {
        &self.tree_blocks[items(&mapping.tree)]
    }
}

/// Places the content. When it does not fit, the error is the number of blocks that are missing.
/// `free` blocks are to be left.
pub(super) fn place(
    scan: &Scan<'_>,
    geometry: &Geometry,
    journal: u64,
    free: u64,
) -> Result<Placement, u64> {
    let mut to = Placer {
        cursor: Cursor {
            fixed: &geometry.fixed,
            at: 0,
        },
        runs: Vec::with_capacity(scan.nodes.len()),
        tree_blocks: Vec::new(),
    };
    let mut nodes = vec![Mapping::default(); scan.nodes.len()];
    let resize_block = to.cursor.take_one();
    for class in [Class::Dir, Class::Other, Class::File] {
        for (node, mapping) in scan.nodes.iter().zip(&mut nodes) {
            if node.class() == class {
                *mapping = Mapping {
                    xattr_block: mapping.xattr_block,
                    ..to.map(node.ranges())
                };
            }
            if class == Class::Other && node.has_xattr_block() {
                mapping.xattr_block = low_u32(to.cursor.take_one());
            }
        }
    }
    let journal_mapping = to.map(std::iter::once(0..journal));
    let end = to.cursor.at;
    let fixed_above: u64 = geometry
        .fixed
        .iter()
        .map(|r| r.end.saturating_sub(r.start.max(end)))
        .sum();
    let needed = end + fixed_above + free;
    if needed > geometry.blocks {
        return Err(needed - geometry.blocks);
    }
    Ok(Placement {
        runs: to.runs,
        tree_blocks: to.tree_blocks,
        nodes,
        journal: journal_mapping,
        journal_blocks: journal,
        resize_block,
        end,
    })
}

struct Placer<'g> {
    cursor: Cursor<'g>,
    runs: Vec<Run>,
    tree_blocks: Vec<u64>,
}

impl Placer<'_> {
    fn map(&mut self, ranges: impl Iterator<Item = Range<u64>>) -> Mapping {
        let first = self.runs.len();
        for range in ranges {
            let mut logical = range.start;
            while logical < range.end {
                let (physical, len) = self.cursor.take((range.end - logical).min(MAX_RUN));
                self.runs.push(Run {
                    logical,
                    physical,
                    len,
                });
                logical += len;
            }
        }
        let first_tree = self.tree_blocks.len();
        for _ in 0..extent_tree::node_count(self.runs.len() - first) {
            let block = self.cursor.take_one();
            self.tree_blocks.push(block);
        }
        Mapping {
            runs: index(first)..index(self.runs.len()),
            tree: index(first_tree)..index(self.tree_blocks.len()),
            xattr_block: 0,
        }
    }
}

/// Past 2^32 the volume is too small anyway, which [`place`] says.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Hands out free blocks in order. It goes on past the end of the volume, so that the caller learns
/// how much is missing.
struct Cursor<'g> {
    /// Fixed ranges that are not behind `at` yet.
    fixed: &'g [Range<u64>],
    at: u64,
}

impl Cursor<'_> {
    /// Up to `want` blocks in a row: first block and how many.
    fn take(&mut self, want: u64) -> (u64, u64) {
        while let Some(range) = self.fixed.first() {
            if self.at < range.start {
                break;
            }
            self.at = self.at.max(range.end);
            self.fixed = &self.fixed[1..];
        }
        let gap = self
            .fixed
            .first()
            .map_or(u64::MAX, |range| range.start - self.at);
        let start = self.at;
        let len = want.min(gap);
        self.at += len;
        (start, len)
    }

    fn take_one(&mut self) -> u64 {
        self.take(1).0
    }
}
