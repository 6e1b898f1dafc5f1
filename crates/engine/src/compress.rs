//! A stream of bytes into one compressed file, on several threads.
//!
//! The stream is cut into blocks of a fixed size, which are compressed apart and put one after the other, so
//! the bytes do not depend on the number of threads, and no more than a few blocks are in memory. In gzip
//! the blocks are parts of one deflate stream, each ended by a flush to a whole byte (RFC 1951, 3.2.4), between
//! a header without a time and the usual trailer (RFC 1952). In zstd each is a frame (RFC 8878, 3.1).

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use amiforge_tree::tar::TarWriteError;
use amiforge_types::{Compression, Digest, Hasher};
use flate2::{Compress, Crc, FlushCompress};

/// Bytes of a block.
const BLOCK: usize = 1 << 20;

/// RFC 1952, 2.3: deflate, no flags, no time, nothing said of the compressor and the system.
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty last block of deflate with fixed codes.
const DEFLATE_END: [u8; 2] = [3, 0];

/// An archive that could not be compressed, from either side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error(transparent)]
    Tar(#[from] TarWriteError),
    #[error("writing the blob failed")]
    Io(#[from] std::io::Error),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Of the bytes that went in.
    pub(crate) plain: Digest,
    /// Of the file.
    pub(crate) digest: Digest,
    /// Length of the file.
    pub(crate) bytes: u64,
}

type Block = io::Result<Vec<u8>>;

/// Hands `produce` a sink, and compresses what it writes into `file`.
///
/// # Errors
/// The first of: an error of the file, of the compressor, of `produce`.
pub(crate) fn compressed<E: From<io::Error>>(
    file: &mut File,
    compression: Compression,
    jobs: usize,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Written, E> {
    let jobs = jobs.max(1);
    std::thread::scope(|scope| {
        let (work, waiting) = sync_channel::<(Vec<u8>, SyncSender<Block>)>(jobs);
        let (ordered, in_order) = sync_channel::<Receiver<Block>>(2 * jobs);
        let waiting = std::sync::Arc::new(Mutex::new(waiting));
        for _ in 0..jobs {
            let waiting = std::sync::Arc::clone(&waiting);
            scope.spawn(move || {
                loop {
                    let next = waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv();
                    let Ok((block, reply)) = next else { return };
                    // Nobody waits for it any more when the file could not be written.
                    let _ = reply.send(compress(&block, compression));
                }
            });
        }
        // Of the threads alone: when they are gone, nobody takes work.
        drop(waiting);
        let writer = scope.spawn(move || write_blocks(file, compression, in_order));
        let mut sink = Sink {
            block: Vec::with_capacity(BLOCK),
            work,
            ordered,
            hasher: Hasher::new(),
            crc: Crc::new(),
        };
        let produced = produce(&mut sink).and_then(|()| Ok(sink.hand_out()?));
        let Sink {
            work,
            ordered,
            hasher,
            crc,
            ..
        } = sink;
        drop((work, ordered));
        let (file, mut hasher_of_file, mut bytes) = writer
            .join()
            .map_err(|_| io::Error::other("a thread ended early"))??;
        produced?;
        let end = match compression {
            Compression::Zlib(_) => {
                let mut end = DEFLATE_END.to_vec();
                end.extend_from_slice(&crc.sum().to_le_bytes());
                // Modulo 2^32, as is its length.
                end.extend_from_slice(&crc.amount().to_le_bytes());
                end
            }
            // Nothing at all is no frame.
            Compression::Zstd(_) if bytes == 0 => compress(&[], compression)?,
            Compression::None | Compression::Zstd(_) => Vec::new(),
        };
        file.write_all(&end)?;
        hasher_of_file.update(&end);
        bytes += end.len() as u64;
        file.flush()?;
        Ok(Written {
            plain: hasher.finish(),
            digest: hasher_of_file.finish(),
            bytes,
        })
    })
}

fn write_blocks(
    file: &mut File,
    compression: Compression,
    in_order: Receiver<Receiver<Block>>,
) -> io::Result<(&mut File, Hasher, u64)> {
    let mut hasher = Hasher::new();
    let mut bytes = 0;
    let mut put = |file: &mut File, block: &[u8]| {
        hasher.update(block);
        bytes += block.len() as u64;
        file.write_all(block)
    };
    if let Compression::Zlib(_) = compression {
        put(file, &GZIP_HEADER)?;
    }
    for block in in_order {
        let block = block
            .recv()
            .map_err(|_| io::Error::other("a thread ended early"))??;
        put(file, &block)?;
    }
    Ok((file, hasher, bytes))
}

fn compress(block: &[u8], compression: Compression) -> Block {
    match compression {
        Compression::None => Ok(block.to_vec()),
        Compression::Zlib(level) => {
            let mut codec = Compress::new(flate2::Compression::new(u32::from(level)), false);
            // Deflate adds five bytes for every 16 KiB that it cannot make smaller.
            let mut out = Vec::with_capacity(block.len() + block.len() / 1000 + 1024);
            codec
                .compress_vec(block, &mut out, FlushCompress::Sync)
                .map_err(io::Error::other)?;
            let taken = usize::try_from(codec.total_in()).map_err(io::Error::other)?;
            // Room left over says that all of it came out.
            if taken != block.len() || out.len() == out.capacity() {
                return Err(io::Error::other(
                    "the compressor did not take a whole block",
                ));
            }
            Ok(out)
        }
        Compression::Zstd(level) => zstd::bulk::compress(block, i32::from(level)),
    }
}

/// Cuts what is written into blocks.
struct Sink {
    block: Vec<u8>,
    work: SyncSender<(Vec<u8>, SyncSender<Block>)>,
    ordered: SyncSender<Receiver<Block>>,
    hasher: Hasher,
    crc: Crc,
}

impl Sink {
    fn hand_out(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.hasher.update(&block);
        self.crc.update(&block);
        let (reply, result) = sync_channel(1);
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.ordered.send(result).map_err(|_| gone())?;
        self.work.send((block, reply)).map_err(|_| gone())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..n]);
        if self.block.len() == BLOCK {
            self.hand_out()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
