//! Windows: aligned stretches of a disk that hold data, small enough to stay in a core's cache.

use std::io;
use std::ops::Range;

use amiforge_types::BlobTable;

use super::EmitError;
use crate::{Extent, Extents};

/// Bytes of a window: a whole number of digest blocks and of clusters. At 1 MiB the buffer stays in
/// the second-level cache between reading, hashing and writing.
pub(crate) const WINDOW: u64 = 1 << 20;

/// A gap of a run must hold a whole page of this size, aligned, to be worth a hole.
const PAGE: u64 = 4096;

/// The windows of a disk that hold data, in order.
pub(crate) struct WindowPlan<'a> {
    extents: &'a Extents,
    /// Window number and the index of the first extent that reaches into it.
    windows: Vec<(u64, usize)>,
    data_len: u64,
}

impl<'a> WindowPlan<'a> {
    pub(crate) fn new(extents: &'a Extents) -> Self {
        let mut windows: Vec<(u64, usize)> = Vec::new();
        for (index, e) in extents.list().iter().enumerate() {
            let first = e.offset / WINDOW;
            let next = windows.last().map_or(0, |(last, _)| last + 1);
            windows
                .extend((first.max(next)..e.end().div_ceil(WINDOW)).map(|number| (number, index)));
        }
        Self {
            extents,
            windows,
            data_len: extents.data_len(),
        }
    }

    /// Bytes that are not hole.
    pub(crate) fn data_len(&self) -> u64 {
        self.data_len
    }

    pub(crate) fn disk_size(&self) -> u64 {
        self.extents.size()
    }

    pub(crate) fn extents(&self) -> &'a Extents {
        self.extents
    }

    /// Number of windows.
    pub(crate) fn len(&self) -> usize {
        self.windows.len()
    }

    /// Reads the window at `index` into `buffer`.
    pub(crate) fn read(
        &self,
        index: usize,
        mut buffer: Vec<u8>,
        blobs: &BlobTable,
    ) -> Result<Window, EmitError> {
        let (number, first_extent) = self.windows[index];
        let offset = number * WINDOW;
        let end = (offset + WINDOW).min(self.extents.size());
        buffer.resize(to_usize(end - offset), 0);
        let mut runs: Vec<Range<usize>> = Vec::new();
        let (mut filled, mut data_len) = (0, 0);
        for e in self.extents.list()[first_extent..]
            .iter()
            .take_while(|e| e.offset < end)
        {
            let part = part_of(e, offset, end);
            let range = to_usize(part.start - offset)..to_usize(part.end - offset);
            buffer[filled..range.start].fill(0);
            filled = range.end;
            data_len += part.end - part.start;
            e.read_exact(blobs, &mut buffer[range.clone()], part.start - e.offset)
                .map_err(|source| EmitError::Read {
                    offset: part.start,
                    end: part.end,
                    source,
                })?;
            match runs.last_mut() {
                Some(last) if !has_page(last.end, range.start) => last.end = range.end,
                _ => runs.push(range),
            }
        }
        buffer[filled..].fill(0);
        Ok(Window {
            offset,
            bytes: buffer,
            runs,
            data_len,
        })
    }
}

/// The part of an extent within `start..end` of the disk.
pub(crate) fn part_of(e: &Extent, start: u64, end: u64) -> Range<u64> {
    e.offset.max(start)..e.end().min(end)
}

fn has_page(start: usize, end: usize) -> bool {
    (start as u64).next_multiple_of(PAGE) + PAGE <= end as u64
}

fn to_usize(n: u64) -> usize {
    // Only lengths within a window come here.
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// A window with its bytes.
pub(crate) struct Window {
    offset: u64,
    bytes: Vec<u8>,
    runs: Vec<Range<usize>>,
    data_len: u64,
}

impl Window {
    /// Byte offset on the disk, a multiple of [`WINDOW`].
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// All bytes, holes as zeros; shorter than [`WINDOW`] only at the end of the disk.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The stretches that are not holes, with gaps too small for a hole closed.
    pub(crate) fn runs(&self) -> &[Range<usize>] {
        &self.runs
    }

    /// Bytes that extents cover.
    pub(crate) fn data_len(&self) -> u64 {
        self.data_len
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

/// A buffer of the right size for any window.
pub(crate) fn buffer() -> io::Result<Vec<u8>> {
    let mut buffer = Vec::new();
    buffer
        .try_reserve_exact(to_usize(WINDOW))
        .map_err(io::Error::other)?;
    Ok(buffer)
}
