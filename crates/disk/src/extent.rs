//! The extent list: what a disk holds, sorted by offset.

use std::fmt;
use std::io;
use std::sync::Arc;

use amiforge_types::{BlobId, BlobTable, ReadAt};

/// Bytes that are made when they are read: metadata that would take too much memory.
pub trait Make: Send + Sync + fmt::Debug {
    /// Fills `buf` with what is at `offset`: always the same bytes, from any thread.
    fn make(&self, buf: &mut [u8], offset: u64, blobs: &BlobTable) -> io::Result<()>;
}

/// Where the bytes of an extent are.
#[derive(Clone, Debug)]
pub enum ExtentData {
    /// In memory: metadata and small files.
    Bytes(Arc<[u8]>),
    /// In a blob of the operation's [`BlobTable`](amiforge_types::BlobTable) at `offset`.
    Blob {
        /// The blob.
        id: BlobId,
        /// Byte offset inside the blob.
        offset: u64,
    },
    /// Made when they are read, from the `offset` of the maker on.
    Made {
        /// The maker.
        maker: Arc<dyn Make>,
        /// Where the first byte is.
        offset: u64,
    },
}

/// What is made is the same only when one maker makes it: makers are not asked for their bytes.
impl PartialEq for ExtentData {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Blob { id: a, offset: x }, Self::Blob { id: b, offset: y }) => (a, x) == (b, y),
            (
                Self::Made {
                    maker: a,
                    offset: x,
                },
                Self::Made {
                    maker: b,
                    offset: y,
                },
            ) => Arc::ptr_eq(a, b) && x == y,
            _ => false,
        }
    }
}

impl Eq for ExtentData {}

/// A run of a disk that is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Byte offset on the disk.
    pub offset: u64,
    /// Length in bytes, above zero. For `ExtentData::Bytes` it equals the slice's length.
    pub len: u64,
    /// The bytes.
    pub data: ExtentData,
}

impl Extent {
    /// Just past the last byte.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Fills `buf` with the bytes from `skip` bytes after the start on.
    pub fn read_exact(&self, blobs: &BlobTable, buf: &mut [u8], skip: u64) -> io::Result<()> {
        match &self.data {
            ExtentData::Bytes(bytes) => bytes.read_exact_at(buf, skip),
            ExtentData::Blob { id, offset } => blobs.get(*id)?.read_exact_at(buf, offset + skip),
            ExtentData::Made { maker, offset } => maker.make(buf, offset + skip, blobs),
        }
    }
}

/// An extent list that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtentError {
    /// Two extents claim the same bytes: a bug of the layout.
    #[error("two extents overlap at byte {0}")]
    Overlap(u64),
    /// An extent reaches past the end of the disk.
    #[error("an extent at byte {offset} ends at {end}, past the disk's {size} bytes")]
    PastEnd {
        /// Start of the extent.
        offset: u64,
        /// End of the extent.
        end: u64,
        /// Size of the disk.
        size: u64,
    },
}

/// A whole disk or partition: its size and its extents, sorted, not overlapping. Everything that no
/// extent covers is zero (a hole).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    size: u64,
    list: Vec<Extent>,
}

impl Extents {
    /// Sorts and checks a list. Empty extents are dropped.
    pub fn new(size: u64, mut list: Vec<Extent>) -> Result<Self, ExtentError> {
        list.retain(|e| e.len > 0);
        list.sort_by_key(|e| e.offset);
        let mut end = 0;
        for e in &list {
            if e.offset < end {
                return Err(ExtentError::Overlap(e.offset));
            }
            end = e.offset.saturating_add(e.len);
            if end > size {
                return Err(ExtentError::PastEnd {
                    offset: e.offset,
                    end,
                    size,
                });
            }
        }
        Ok(Self { size, list })
    }

    /// The extents of a disk that can be read as blob `id`: what it says may be data. Holes are kept
    /// as they are, but for the smallest of a disk with more than a million.
    pub fn of_disk(disk: &dyn ReadAt, id: BlobId) -> io::Result<Self> {
        let size = disk.size();
        let mut list: Vec<Extent> = Vec::new();
        let (mut at, mut min_gap) = (0, 0);
        while let Some(range) = disk.next_data(at)? {
            let (start, end) = (range.start.max(at), range.end.min(size));
            if start >= end {
                break;
            }
            join(&mut list, start, end, min_gap, id);
            at = end;
            if list.len() > MAX_HOLES {
                min_gap = (min_gap * 4).max(64 << 10);
                for e in std::mem::take(&mut list) {
                    join(&mut list, e.offset, e.end(), min_gap, id);
                }
            }
        }
        Ok(Self { size, list })
    }

    /// Size of the disk in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The extents in order.
    #[must_use]
    pub fn list(&self) -> &[Extent] {
        &self.list
    }

    /// The extents, moved by `offset` bytes: a file system's extents on its disk.
    pub fn shifted(self, offset: u64) -> impl Iterator<Item = Extent> {
        self.list.into_iter().map(move |e| Extent {
            offset: e.offset + offset,
            ..e
        })
    }

    /// Bytes that are not hole.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.list.iter().map(|e| e.len).sum()
    }
}

/// Holes of a disk that are kept apart: their list takes some 50 MB.
const MAX_HOLES: usize = 1 << 20;

/// Adds a range of blob `id`, at the same place on the disk, to a list in order.
fn join(list: &mut Vec<Extent>, start: u64, end: u64, min_gap: u64, id: BlobId) {
    match list.last_mut() {
        Some(last) if start - last.end() <= min_gap => last.len = end - last.offset,
        _ => list.push(Extent {
            offset: start,
            len: end - start,
            data: ExtentData::Blob { id, offset: start },
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use amiforge_types::BlobTable;

    use super::*;

    /// Every other page is a hole.
    struct Comb(u64);

    impl ReadAt for Comb {
        fn size(&self) -> u64 {
            self.0
        }
        fn read_exact_at(&self, buf: &mut [u8], _offset: u64) -> io::Result<()> {
            buf.fill(1);
            Ok(())
        }
        fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
            let start = if (offset / 4096).is_multiple_of(2) {
                offset
            } else {
                offset.next_multiple_of(8192)
            };
            Ok((start < self.0).then(|| start..(start / 8192 * 8192 + 4096).min(self.0)))
        }
    }

    #[test]
    fn the_holes_of_a_disk_are_kept_while_their_list_is_short() {
        let id = BlobTable::new().add(Arc::new(Vec::new()));
        let few = Extents::of_disk(&Comb(1 << 20), id).unwrap();
        assert_eq!((few.list().len(), few.data_len()), (128, 512 << 10));
        assert_eq!(few.list()[1].offset, 8192);
        // 16 GiB of it would be two million.
        let many = Extents::of_disk(&Comb(16 << 30), id).unwrap();
        assert!(many.list().len() <= MAX_HOLES, "{}", many.list().len());
        assert_eq!(many.list().last().map(Extent::end), Some((16 << 30) - 4096));
    }
}
