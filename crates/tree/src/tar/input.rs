//! Where an archive is read from: in place, or from a stream into a spool.

use std::io::{self, Read, Write};

use amiforge_types::{BlobId, ReadAt};

use super::TarErrorKind;
use crate::layer::ALIGN;

/// An archive, read front to back.
pub(super) trait Input {
    /// Bytes of the archive read or passed so far.
    fn position(&self) -> u64;

    /// Fills `buf`. `Ok(false)` when the archive ends before the first byte.
    fn read(&mut self, buf: &mut [u8]) -> Result<bool, TarErrorKind>;

    /// Passes over `len` bytes.
    fn skip(&mut self, len: u64) -> Result<(), TarErrorKind>;

    /// Passes over `len` bytes of file data and says where they can be read.
    fn data(&mut self, len: u64) -> Result<(BlobId, u64), TarErrorKind>;

    /// [`Input::data`], and a copy of the bytes.
    fn data_kept(&mut self, len: usize) -> Result<((BlobId, u64), Vec<u8>), TarErrorKind>;

    /// Called after the end mark: checks what follows as far as it says anything.
    fn finish(&mut self) -> Result<(), TarErrorKind>;
}

/// In place: only the headers are read, through a window that grows while files are small (headers
/// lie close together) and shrinks while they are large.
pub(super) struct AtInput<'a> {
    archive: &'a dyn ReadAt,
    id: BlobId,
    size: u64,
    at: u64,
    window_at: u64,
    window: Vec<u8>,
    window_len: usize,
}

const MIN_WINDOW: usize = 2 << 10;
const MAX_WINDOW: usize = 64 << 10;

impl<'a> AtInput<'a> {
    pub(super) fn new(archive: &'a dyn ReadAt, id: BlobId) -> Self {
        Self {
            size: archive.size(),
            archive,
            id,
            at: 0,
            window_at: 0,
            window: Vec::new(),
            window_len: MIN_WINDOW,
        }
    }

    fn advance(&mut self, len: u64) -> Result<(), TarErrorKind> {
        self.at = self
            .at
            .checked_add(len)
            .filter(|at| *at <= self.size)
            .ok_or(TarErrorKind::Truncated)?;
        Ok(())
    }

    /// The part of the window from the current position on.
    fn windowed(&self) -> &[u8] {
        let skip = self
            .at
            .checked_sub(self.window_at)
            .and_then(|n| usize::try_from(n).ok());
        skip.and_then(|n| self.window.get(n..)).unwrap_or(&[])
    }
}

impl Input for AtInput<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<bool, TarErrorKind> {
        let left = self.size - self.at;
        if left < buf.len() as u64 {
            return if left == 0 {
                Ok(false)
            } else {
                Err(TarErrorKind::Truncated)
            };
        }
        if self.windowed().len() < buf.len() {
            // Near the end of the last window: sequential, ask for more; far away: for less.
            let near = self.at <= self.window_at + self.window.len() as u64;
            self.window_len = if near {
                (self.window_len * 2).min(MAX_WINDOW)
            } else {
                (self.window_len / 2).max(MIN_WINDOW)
            };
            let len = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.window_len.max(buf.len()));
            self.window.resize(len, 0);
            self.window_at = self.at;
            self.archive
                .read_exact_at(&mut self.window, self.at)
                .map_err(TarErrorKind::Read)?;
        }
        buf.copy_from_slice(&self.windowed()[..buf.len()]);
        self.at += buf.len() as u64;
        Ok(true)
    }

    fn skip(&mut self, len: u64) -> Result<(), TarErrorKind> {
        self.advance(len)
    }

    fn data(&mut self, len: u64) -> Result<(BlobId, u64), TarErrorKind> {
        let at = self.at;
        self.advance(len)?;
        Ok((self.id, at))
    }

    fn data_kept(&mut self, len: usize) -> Result<((BlobId, u64), Vec<u8>), TarErrorKind> {
        let place = self.data(len as u64)?;
        let mut bytes = vec![0; len];
        self.archive
            .read_exact_at(&mut bytes, place.1)
            .map_err(TarErrorKind::Read)?;
        Ok((place, bytes))
    }

    fn finish(&mut self) -> Result<(), TarErrorKind> {
        Ok(())
    }
}

/// From a stream; file data goes to the spool, each file's at a multiple of [`ALIGN`].
pub(super) struct StreamInput<'a> {
    archive: &'a mut dyn Read,
    spool: &'a mut dyn Write,
    at: u64,
    spooled: u64,
    buf: Vec<u8>,
}

/// Bytes after the end mark that are read so that a compressed stream gets to check itself: far more
/// than the padding that any writer adds.
const MAX_TRAILER: u64 = 64 << 20;

impl<'a> StreamInput<'a> {
    pub(super) fn new(archive: &'a mut dyn Read, spool: &'a mut dyn Write) -> Self {
        Self::appending(archive, spool, 0)
    }

    /// With a spool that holds `spooled` bytes already.
    pub(super) fn appending(
        archive: &'a mut dyn Read,
        spool: &'a mut dyn Write,
        spooled: u64,
    ) -> Self {
        Self {
            archive,
            spool,
            at: 0,
            spooled,
            buf: vec![0; crate::DATA_CHUNK],
        }
    }

    /// Bytes that the spool holds.
    pub(super) fn spooled(&self) -> u64 {
        self.spooled
    }

    /// Pads the spool to the place of the next file.
    fn align(&mut self) -> Result<u64, TarErrorKind> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let start = self.spooled.next_multiple_of(ALIGN);
        let padding = usize::try_from(start - self.spooled).unwrap_or(0);
        self.spool
            .write_all(&ZEROS[..padding])
            .map_err(TarErrorKind::Spool)?;
        self.spooled = start;
        Ok(start)
    }

    /// Reads up to `len` bytes into the buffer; 0 at the end of the stream.
    fn fill(&mut self, len: u64) -> Result<usize, TarErrorKind> {
        let want = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(self.buf.len());
        loop {
            match self.archive.read(&mut self.buf[..want]) {
                Ok(n) => {
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(e)),
            }
        }
    }
}

/// A compressed stream that is cut short reports it as an error.
fn read_error(e: io::Error) -> TarErrorKind {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        TarErrorKind::Truncated
    } else {
        TarErrorKind::Read(e)
    }
}

impl Input for StreamInput<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<bool, TarErrorKind> {
        let mut done = 0;
        while done < buf.len() {
            match self.archive.read(&mut buf[done..]) {
                Ok(0) if done == 0 => return Ok(false),
                Ok(0) => return Err(TarErrorKind::Truncated),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(e)),
            }
        }
        self.at += done as u64;
        Ok(true)
    }

    fn skip(&mut self, mut len: u64) -> Result<(), TarErrorKind> {
        while len > 0 {
            match self.fill(len)? {
                0 => return Err(TarErrorKind::Truncated),
                n => len -= n as u64,
            }
        }
        Ok(())
    }

    fn data(&mut self, mut len: u64) -> Result<(BlobId, u64), TarErrorKind> {
        let start = self.align()?;
        while len > 0 {
            let n = self.fill(len)?;
            if n == 0 {
                return Err(TarErrorKind::Truncated);
            }
            self.spool
                .write_all(&self.buf[..n])
                .map_err(TarErrorKind::Spool)?;
            self.spooled += n as u64;
            len -= n as u64;
        }
        Ok((BlobId::UNASSIGNED, start))
    }

    fn data_kept(&mut self, len: usize) -> Result<((BlobId, u64), Vec<u8>), TarErrorKind> {
        let start = self.align()?;
        let mut bytes = vec![0; len];
        if !self.read(&mut bytes)? {
            return Err(TarErrorKind::Truncated);
        }
        self.spool.write_all(&bytes).map_err(TarErrorKind::Spool)?;
        self.spooled += len as u64;
        Ok(((BlobId::UNASSIGNED, start), bytes))
    }

    fn finish(&mut self) -> Result<(), TarErrorKind> {
        let mut left = MAX_TRAILER;
        while left > 0 {
            match self.fill(left)? {
                0 => break,
                n => left -= n as u64,
            }
        }
        self.spool.flush().map_err(TarErrorKind::Spool)
    }
}
