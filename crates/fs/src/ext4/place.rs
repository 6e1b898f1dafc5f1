//! Second pass: gives every block of content its place.
//!
//! Content fills the free blocks from the start of the volume on, so that everything below one
//! point is in use and everything above it is free but for the fixed parts:
//! resize inode, file data, symbolic links and attributes, directories, journal.
//!
//! File data is first, layer by layer, so that it stays in its place when a later layer changes, as directories do
//! that get a name more.

use std::ops::Range;

use super::extent_tree::{self, MAX_RUN, Run, low_u32};
use super::geometry::Geometry;
use super::scan::{Scan, ranges_of};

/// Where everything is.
#[derive(Debug)]
pub(super) struct Placement {
    /// For each place of the scan the first block that was free when its content was placed. All of it
    /// follows from there, see [`map`].
    starts: Vec<u32>,
    /// Blocks of attributes, one for each item of [`Scan::others`]; 0 where it has none.
    attributes: Vec<u32>,
    pub(super) journal_start: u64,
    pub(super) journal_blocks: u64,
    /// The double-indirect block of the resize inode.
    pub(super) resize_block: u64,
    /// Everything below is in use.
    pub(super) end: u64,
}

impl Placement {
    /// The block from which on the content of an inode lies.
    pub(super) fn start(&self, place: usize) -> u64 {
        self.starts.get(place).copied().unwrap_or(0).into()
    }

    /// Block of the attributes at a place, 0 without one.
    pub(super) fn attributes(&self, scan: &Scan, place: usize) -> u64 {
        let found = scan
            .others
            .binary_search_by_key(&place, |other| other.place as usize);
        found.map_or(0, |index| self.attributes[index].into())
    }
}

/// Places the content. When it does not fit, the error is the number of blocks that are missing.
/// `free` blocks are to be left.
pub(super) fn place(
    scan: &Scan,
    geometry: &Geometry,
    journal: u64,
    free: u64,
) -> Result<Placement, u64> {
    let mut to = Cursor {
        fixed: &geometry.fixed,
        at: 0,
    };
    let mut starts = vec![0; scan.len()];
    let mut attributes = vec![0; scan.others.len()];
    let resize_block = to.take_one();
    for (place, start) in starts.iter_mut().enumerate() {
        if let Some(file) = scan.file(place) {
            *start = low_u32(to.at);
            to.pass(ranges_of(file.extents()));
        }
    }
    for (other, attributes) in scan.others.iter().zip(&mut attributes) {
        if other.link {
            starts[other.place as usize] = low_u32(to.at);
            to.pass(std::iter::once(0..1));
        }
        if other.attributes {
            *attributes = low_u32(to.take_one());
        }
    }
    for folder in &scan.folders {
        starts[folder.place as usize] = low_u32(to.at);
        to.pass(std::iter::once(0..folder.blocks.into()));
    }
    let journal_start = to.at;
    to.pass(std::iter::once(0..journal));
    let end = to.at;
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
        starts,
        attributes,
        journal_start,
        journal_blocks: journal,
        resize_block,
        end,
    })
}

/// Where the content of one inode is.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    pub(super) runs: Vec<Run>,
    /// Blocks of the extent tree.
    pub(super) tree: Vec<u64>,
}

/// Where content of these logical blocks is that was placed from `start` on.
pub(super) fn map(
    geometry: &Geometry,
    start: u64,
    ranges: impl Iterator<Item = Range<u64>>,
) -> Mapping {
    let behind = geometry.fixed.partition_point(|range| range.end <= start);
    let mut from = Cursor {
        fixed: &geometry.fixed[behind..],
        at: start,
    };
    let mut runs = Vec::new();
    from.runs(ranges, |run| runs.push(run));
    let tree = (0..extent_tree::node_count(runs.len()))
        .map(|_| from.take_one())
        .collect();
    Mapping { runs, tree }
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

    /// Takes the blocks of content, and says where they are.
    fn runs(&mut self, ranges: impl Iterator<Item = Range<u64>>, mut put: impl FnMut(Run)) {
        for range in ranges {
            let mut logical = range.start;
            while logical < range.end {
                let (physical, len) = self.take((range.end - logical).min(MAX_RUN));
                put(Run {
                    logical,
                    physical,
                    len,
                });
                logical += len;
            }
        }
    }

    /// Takes the blocks of content and those of its extent tree.
    fn pass(&mut self, ranges: impl Iterator<Item = Range<u64>>) {
        let mut count = 0;
        self.runs(ranges, |_| count += 1);
        for _ in 0..extent_tree::node_count(count) {
            self.take_one();
        }
    }
}
