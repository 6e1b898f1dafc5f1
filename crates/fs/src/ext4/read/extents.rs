//! Extent trees, read. Their bytes are drawn in [`extent_tree`](crate::ext4::extent_tree); kernel
//! documentation, `filesystems/ext4/ifork.rst`.

use std::ops::Range;

use super::bytes::{le16, le32, wide};
use super::error::{Fault, Place};
use super::map::{Run, Search};

const MAGIC: u16 = 0xF30A;
const HEADER: usize = 12;
const ENTRY: usize = 12;
const MAX_DEPTH: u16 = 5;
/// Lengths above this are those of blocks that are reserved but not written: they read as zero.
const MAX_WRITTEN: u64 = 32_768;
const END: u64 = 1 << 32;

/// Finds all extents in the range of the search.
pub(super) fn search(search: &mut Search<'_>) -> Result<(), Fault> {
    let inode = search.inode;
    let place = Place::Inode(inode.number);
    node(search, inode.i_block(), place, None, 0..END)
}

/// Looks into a node that covers `bounds`. Its depth follows from the one above.
fn node(
    search: &mut Search<'_>,
    bytes: &[u8],
    place: Place,
    depth: Option<u16>,
    bounds: Range<u64>,
) -> Result<(), Fault> {
    let damaged = |problem| Err(Fault::damaged(place, problem));
    let (entries, max) = (usize::from(le16(bytes, 2)), usize::from(le16(bytes, 4)));
    let own_depth = le16(bytes, 6);
    if le16(bytes, 0) != MAGIC {
        return damaged("is not a part of an extent tree");
    }
    if entries > max || max > bytes.len().saturating_sub(HEADER) / ENTRY {
        return damaged("has more extents than room");
    }
    if own_depth > MAX_DEPTH || depth.is_some_and(|depth| depth != own_depth) {
        return damaged("has the wrong depth in an extent tree");
    }
    if own_depth > 0 && entries == 0 {
        return damaged("is an index without entries");
    }
    if depth.is_some() && search.checksums {
        let tail = HEADER + ENTRY * max;
        match bytes.get(..tail) {
            Some(covered) if tail + 4 <= bytes.len() => {
                let computed = search.inode.crc.with(covered).value();
                Fault::unless_equal(place, le32(bytes, tail), computed)?;
            }
            _ => return damaged("has no room for its checksum"),
        }
    }
    let at = |slot: usize| HEADER + ENTRY * slot;
    let mut free_from = bounds.start;
    for slot in 0..entries {
        let first = u64::from(le32(bytes, at(slot)));
        if first < free_from || first >= bounds.end {
            return damaged("has extents that are out of order");
        }
        if own_depth == 0 {
            let raw_len = u64::from(le16(bytes, at(slot) + 4));
            let (len, written) = match raw_len {
                0 => return damaged("has an extent of no length"),
                len if len <= MAX_WRITTEN => (len, true),
                len => (len - MAX_WRITTEN, false),
            };
            free_from = first + len;
            if free_from > bounds.end {
                return damaged("has extents that overlap");
            }
            if written && search.wants(first, len) {
                let high = le16(bytes, at(slot) + 6).into();
                search.found(Run {
                    logical: first,
                    physical: wide(high, le32(bytes, at(slot) + 8)),
                    len,
                })?;
            }
        } else {
            let next = match slot + 1 < entries {
                true => le32(bytes, at(slot + 1)).into(),
                false => bounds.end,
            };
            if next <= first || next > bounds.end {
                return damaged("has extents that are out of order");
            }
            free_from = next;
            if search.wants(first, next - first) {
                let high = le16(bytes, at(slot) + 8).into();
                let block = wide(high, le32(bytes, at(slot) + 4));
                let place = Place::ExtentBlock {
                    inode: search.inode.number,
                    block,
                };
                search.budget.take(1, place)?;
                let child = search.volume.block(block, place)?;
                node(search, &child, place, Some(own_depth - 1), first..next)?;
            }
        }
    }
    Ok(())
}
