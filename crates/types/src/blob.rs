//! Byte sources and targets.
//!
//! A tree or a disk layout never holds file data; it holds a [`BlobId`] and an offset. The id is a
//! handle into a [`BlobTable`] that lives as long as the operation, so it is *not* stable between
//! runs and must never be written to disk or hashed; persistent formats use a
//! [`Digest`](crate::Digest) instead.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Handle of a byte source in a [`BlobTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(u32);

impl BlobId {
    /// Stands for a source that has no handle yet; no table gives it.
    pub const UNASSIGNED: Self = Self(u32::MAX);
}

/// A source of bytes of known length that can be read at any offset, from any thread.
pub trait ReadAt: Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset`; reading past the end is [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The first range at or after `offset` that may hold anything but zeros; `None` when the rest
    /// reads as zero. A source that knows its holes overrides this, so that empty space costs
    /// nothing to whoever reads all of it.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Ok((offset < self.size()).then(|| offset..self.size()))
    }

    /// The file descriptor behind this source, when the bytes are exactly those of a file at the
    /// same offsets. Targets use it to copy inside the kernel.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A target that can be written at any offset, from any thread. Ranges never written read as zero.
pub trait WriteAt: Send + Sync {
    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Sets the length in bytes; a longer target reads as zero, and stays a hole where it can.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Copies `len` bytes from `src` at `src_offset` to `offset`.
    fn copy_from(
        &self,
        src: &dyn ReadAt,
        src_offset: u64,
        len: u64,
        offset: u64,
    ) -> io::Result<()> {
        const CHUNK: u64 = 1 << 20;
        let mut buf = vec![0; usize::try_from(len.min(CHUNK)).unwrap_or(1 << 20)];
        let mut done = 0;
        while done < len {
            let n = usize::try_from((len - done).min(CHUNK)).unwrap_or(buf.len());
            src.read_exact_at(&mut buf[..n], src_offset + done)?;
            self.write_all_at(&buf[..n], offset + done)?;
            done += n as u64;
        }
        Ok(())
    }
}

fn slice_read(data: &[u8], buf: &mut [u8], offset: u64) -> io::Result<()> {
    let range = usize::try_from(offset)
        .ok()
        .and_then(|start| Some(start..start.checked_add(buf.len())?))
        .and_then(|range| data.get(range))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    buf.copy_from_slice(range);
    Ok(())
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        slice_read(self, buf, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        slice_read(self, buf, offset)
    }
}

impl ReadAt for Arc<[u8]> {
    fn size(&self) -> u64 {
        self.len() as u64
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        slice_read(self, buf, offset)
    }
}

/// The byte sources of one operation, addressed by [`BlobId`].
#[derive(Default, Clone)]
pub struct BlobTable {
    blobs: Vec<Arc<dyn ReadAt>>,
}

impl BlobTable {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source and returns its handle.
    pub fn add(&mut self, blob: Arc<dyn ReadAt>) -> BlobId {
        let id = BlobId(u32::try_from(self.blobs.len()).unwrap_or(u32::MAX));
        self.blobs.push(blob);
        id
    }

    /// The source behind `id`; an error when the id belongs to another table.
    pub fn get(&self, id: BlobId) -> io::Result<&dyn ReadAt> {
        self.blobs
            .get(id.0 as usize)
            .map(AsRef::as_ref)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no blob {}", id.0)))
    }
}

impl std::fmt::Debug for BlobTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobTable({} blobs)", self.blobs.len())
    }
}
