//! A byte range of a source, the way readers of foreign bytes see a partition.

use std::io;
use std::sync::Arc;

use amiforge_types::ReadAt;

/// `len` bytes of `source` from `offset` on. Nothing outside the range can be read.
#[derive(Clone)]
pub(crate) struct Window {
    source: Arc<dyn ReadAt>,
    offset: u64,
    len: u64,
}

impl Window {
    /// A window that lies inside the source, or `UnexpectedEof`.
    pub(crate) fn new(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> io::Result<Self> {
        match offset.checked_add(len) {
            Some(end) if end <= source.size() => Ok(Self {
                source,
                offset,
                len,
            }),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn read_exact_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        match at.checked_add(buf.len() as u64) {
            Some(end) if end <= self.len => self.source.read_exact_at(buf, self.offset + at),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
