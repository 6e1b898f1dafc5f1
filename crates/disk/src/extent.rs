//! The extent list: what a disk holds, sorted by offset.

use std::sync::Arc;

use amiforge_types::BlobId;

/// Where the bytes of an extent are.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

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
