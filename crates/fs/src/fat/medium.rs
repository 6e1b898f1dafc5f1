//! A volume in memory that costs nothing where it is zero.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use amiforge_disk::{Extent, ExtentData, ExtentError, Extents};

/// Bytes in a chunk, the grain of what is allocated and of the extents.
const CHUNK: usize = 4096;

/// A seekable volume of fixed size. Chunks that were never given a byte other than zero do not exist.
pub(super) struct Medium {
    chunks: Vec<Option<Box<[u8; CHUNK]>>>,
    size: u64,
    position: u64,
}

impl Medium {
    pub(super) fn new(size: u64) -> Self {
        let count = usize::try_from(size.div_ceil(CHUNK as u64)).unwrap_or(0);
        Self {
            chunks: vec![None; count],
            size,
            position: 0,
        }
    }

    /// Where the position is: chunk, offset in it, and bytes up to the chunk's or the volume's end.
    fn here(&self) -> (usize, usize, usize) {
        let chunk = usize::try_from(self.position / CHUNK as u64).unwrap_or(usize::MAX);
        let offset = usize::try_from(self.position % CHUNK as u64).unwrap_or(0);
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        (chunk, offset, left.min(CHUNK - offset))
    }

    /// Copies `len` bytes at `offset`.
    pub(super) fn get(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut buf = vec![0; len];
        self.seek(SeekFrom::Start(offset))?;
        self.read_exact(&mut buf)?;
        Ok(buf)
    }

    /// Overwrites bytes at `offset`.
    pub(super) fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(offset))?;
        self.write_all(bytes)
    }

    /// Everything that is not zero.
    pub(super) fn into_extents(self) -> Result<Extents, ExtentError> {
        let mut list = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        let mut flush = |run: &mut Vec<u8>, start: u64| {
            if !run.is_empty() {
                let data: Arc<[u8]> = std::mem::take(run).into();
                list.push(Extent {
                    offset: start,
                    len: data.len() as u64,
                    data: ExtentData::Bytes(data),
                });
            }
        };
        for (index, chunk) in self.chunks.iter().enumerate() {
            let offset = index as u64 * CHUNK as u64;
            match chunk {
                Some(bytes) if bytes.iter().any(|b| *b != 0) => {
                    if run.is_empty() {
                        start = offset;
                    }
                    let len = usize::try_from(self.size - offset)
                        .unwrap_or(CHUNK)
                        .min(CHUNK);
                    run.extend_from_slice(&bytes[..len]);
                }
                _ => flush(&mut run, start),
            }
        }
        flush(&mut run, start);
        Extents::new(self.size, list)
    }
}

impl Read for Medium {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (chunk, offset, left) = self.here();
        let len = left.min(buf.len());
        match self.chunks.get(chunk) {
            Some(Some(bytes)) => buf[..len].copy_from_slice(&bytes[offset..offset + len]),
            _ => buf[..len].fill(0),
        }
        self.position += len as u64;
        Ok(len)
    }
}

impl Write for Medium {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (chunk, offset, left) = self.here();
        let len = left.min(buf.len());
        let source = &buf[..len];
        if let Some(slot) = self.chunks.get_mut(chunk)
            && (slot.is_some() || source.iter().any(|b| *b != 0))
        {
            slot.get_or_insert_with(|| Box::new([0; CHUNK]))[offset..offset + len]
                .copy_from_slice(source);
        }
        self.position += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Medium {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
