//! The block map of ext2 and ext3.
//!
//! ```text
//! i_block: 12 block numbers | single indirect | double indirect | triple indirect
//! indirect block: as many numbers as fit, of data or of indirect blocks one level lower; 0 is a hole
//! ```
//! Kernel documentation, `filesystems/ext4/ifork.rst`, "Direct/Indirect Block Addressing".

use super::bytes::le32;
use super::error::{Fault, Place};
use super::map::{Run, Search};

const DIRECT: u64 = 12;

/// Finds all blocks in the range of the search.
pub(super) fn search(search: &mut Search<'_>) -> Result<(), Fault> {
    let inode = search.inode;
    let numbers = inode.i_block();
    let per_block = search.volume.block_size / 4;
    let mut first = 0;
    for (slot, raw) in (0..).zip(numbers.chunks_exact(4)) {
        let level = if slot < DIRECT { 0 } else { slot - DIRECT + 1 };
        let span = (0..level).fold(1, |span, _| span * per_block);
        entry(search, le32(raw, 0), level, first, span)?;
        first += span;
    }
    Ok(())
}

/// Looks at a block number that stands for `span` blocks of the file from `first` on.
fn entry(
    search: &mut Search<'_>,
    number: u32,
    level: u64,
    first: u64,
    span: u64,
) -> Result<(), Fault> {
    if number == 0 || !search.wants(first, span) {
        return Ok(());
    }
    let block = u64::from(number);
    if level == 0 {
        return search.found(Run {
            logical: first,
            physical: block,
            len: 1,
        });
    }
    let place = Place::IndirectBlock {
        inode: search.inode.number,
        block,
    };
    if !search.volume.holds(block) {
        return Err(Fault::damaged(place, "is outside of the file system"));
    }
    search.budget.take(1, place)?;
    let bytes = search.volume.block(block, place)?;
    let below = span / (search.volume.block_size / 4);
    let mut first = first;
    for raw in bytes.chunks_exact(4) {
        entry(search, le32(raw, 0), level - 1, first, below)?;
        first += below;
    }
    Ok(())
}
