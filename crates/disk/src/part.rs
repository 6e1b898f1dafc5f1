//! A stretch of a disk as a disk of its own.

use std::io;
use std::ops::Range;

use amiforge_types::ReadAt;

/// `len` bytes at `offset` of another source, cut where that ends.
pub struct Part<'a> {
    disk: &'a dyn ReadAt,
    offset: u64,
    len: u64,
}

impl<'a> Part<'a> {
    /// The stretch, or as much of it as there is.
    #[must_use]
    pub fn new(disk: &'a dyn ReadAt, offset: u64, len: u64) -> Self {
        Self {
            disk,
            offset,
            len: len.min(disk.size().saturating_sub(offset)),
        }
    }
}

impl ReadAt for Part<'_> {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.disk.read_exact_at(buf, self.offset + offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if offset >= self.len {
            return Ok(None);
        }
        let found = self.disk.next_data(self.offset + offset)?;
        let end = self.offset + self.len;
        Ok(found
            .filter(|range| range.start < end)
            .map(|range| range.start - self.offset..range.end.min(end) - self.offset))
    }
}
