//! Second pass: gives every block of content its place.
//!
//! Content fills the free blocks from the start of the volume on, so that everything below one
//! point is in use and everything above it is free but for the fixed parts:
//! resize inode, directories, symbolic links and attributes, file data, journal.

use std::ops::Range;

use super::extent_tree::{self, MAX_RUN, Run};
use super::geometry::Geometry;
use super::scan::{Class, Scan};

/// Where the content of one inode is, as ranges of the lists in [`Placement`].
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    pub(super) runs: Range<usize>,
    /// Blocks of the extent tree.
    pub(super) tree: Range<usize>,
    /// Block of the attributes, 0 without one.
    pub(super) xattr_block: u64,
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) runs: Vec<Run>,
    pub(super) tree_blocks: Vec<u64>,
    /// One for each node of the scan.
    pub(super) nodes: Vec<Mapping>,
    pub(super) journal: Mapping,
    pub(super) journal_blocks: u64,
    /// The double-indirect block of the resize inode.
    pub(super) resize_block: u64,
    /// Everything below is in use.
    pub(super) end: u64,
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
                mapping.xattr_block = to.cursor.take_one();
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
            runs: first..self.runs.len(),
            tree: first_tree..self.tree_blocks.len(),
            xattr_block: 0,
        }
    }
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
