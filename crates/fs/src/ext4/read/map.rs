//! Where the blocks of a file are: what extent trees and block maps have in common.

use std::ops::Range;

use super::error::{Fault, Place};
use super::inode::Inode;
use super::volume::Volume;
use super::{blockmap, extents};

/// Most runs of one request.
const MAX_RUNS: usize = 1 << 22;

/// Blocks of a file that lie next to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block in the file.
    pub(super) logical: u64,
    /// First block on the volume.
    pub(super) physical: u64,
    /// Blocks.
    pub(super) len: u64,
}

/// How many blocks may still be visited or mapped. A sound file system has each of its blocks in one
/// place, so what needs more than all of them is damaged, and cannot make work without end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    pub(super) fn of(volume: &Volume) -> Self {
        Self {
            left: volume.blocks,
        }
    }

    pub(super) fn unlimited() -> Self {
        Self { left: u64::MAX }
    }

    pub(super) fn take(&mut self, blocks: u64, place: Place) -> Result<(), Fault> {
        self.left = self
            .left
            .checked_sub(blocks)
            .ok_or_else(|| Fault::damaged(place, "maps more blocks than the file system has"))?;
        Ok(())
    }
}

/// A search for the blocks of a file inside a range.
pub(super) struct Search<'a> {
    pub(super) volume: &'a Volume,
    pub(super) inode: &'a Inode,
    /// Extent blocks carry checksums.
    pub(super) checksums: bool,
    /// Wanted blocks of the file.
    pub(super) range: Range<u64>,
    pub(super) budget: &'a mut Budget,
    pub(super) runs: Vec<Run>,
}

impl Search<'_> {
    /// All runs in the range, in order. What they leave out reads as zero.
    pub(super) fn run(mut self) -> Result<Vec<Run>, Fault> {
        if self.inode.has_extents() {
            extents::search(&mut self)?;
        } else {
            blockmap::search(&mut self)?;
        }
        Ok(self.runs)
    }

    /// True when something of so many blocks from `first` on is wanted.
    pub(super) fn wants(&self, first: u64, len: u64) -> bool {
        first < self.range.end && first.saturating_add(len) > self.range.start
    }

    /// Takes what is wanted of a run.
    pub(super) fn found(&mut self, run: Run) -> Result<(), Fault> {
        let place = Place::Inode(self.inode.number);
        let end = run.physical.checked_add(run.len);
        if !self.volume.holds(run.physical) || end.is_none_or(|end| end > self.volume.blocks) {
            return Err(Fault::damaged(place, "has data outside of the file system"));
        }
        let start = run.logical.max(self.range.start);
        let end = (run.logical + run.len).min(self.range.end);
        if start >= end {
            return Ok(());
        }
        let run = Run {
            logical: start,
            physical: run.physical + (start - run.logical),
            len: end - start,
        };
        self.budget.take(run.len, place)?;
        let full = self.runs.len() >= MAX_RUNS;
        match self.runs.last_mut() {
            Some(last)
                if last.logical + last.len == run.logical
                    && last.physical + last.len == run.physical =>
            {
                last.len += run.len;
            }
            _ if full => {
                return Err(Fault::Limit {
                    what: "pieces of one file",
                    limit: MAX_RUNS as u64,
                });
            }
            _ => self.runs.push(run),
        }
        Ok(())
    }
}
