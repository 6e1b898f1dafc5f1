//! Compressing one cluster at a time, the same way in every format.

use std::io;
use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::Compression;

/// Bytes of a cluster of every format that compresses.
pub(super) const CLUSTER_LEN: usize = 1 << 16;

/// Changes whenever the compressed bytes of the same cluster do, other than through zstd's own
/// version: another release of the deflate library, another setting. The digests that tests pin
/// show when.
const ENCODER_VERSION: u32 = 1;

/// What compressed data is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    /// A raw deflate stream with a window of 4 KiB (what QEMU writes, so what readers of qcow2 are
    /// made for), or a zstd frame.
    Qcow2,
    /// A zlib stream (RFC 1950) with the usual window.
    Zlib,
}

/// A compressor.
enum Codec {
    Store,
    Deflate(Box<Compress>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    fn new(compression: Compression, wrapping: Wrapping) -> io::Result<Self> {
        Ok(match (compression, wrapping) {
            (Compression::None, _) => Self::Store,
            (Compression::Zstd(level), _) => {
                let mut codec = zstd::bulk::Compressor::new(i32::from(level.clamp(1, 19)))?;
                codec.include_checksum(false)?;
                Self::Zstd(codec)
            }
            (Compression::Zlib(level), wrapping) => {
                let level = flate2::Compression::new(u32::from(level.min(9)));
                let (header, window) = match wrapping {
                    Wrapping::Qcow2 => (false, 12),
                    Wrapping::Zlib => (true, 15),
                };
                Self::Deflate(Box::new(Compress::new_with_window_bits(
                    level, header, window,
                )))
            }
        })
    }

    /// Compresses one cluster to the end of `out`; `false`, with `out` unchanged, when that takes
    /// more than `limit` bytes.
    fn compress(&mut self, cluster: &[u8], out: &mut Vec<u8>, limit: usize) -> io::Result<bool> {
        let start = out.len();
        out.resize(start + limit, 0);
        let room = &mut out[start..];
        let len = match self {
            Self::Store => None,
            Self::Deflate(codec) => {
                codec.reset();
                match codec.compress(cluster, room, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => {
                        Some(usize::try_from(codec.total_out()).map_err(io::Error::other)?)
                    }
                    Ok(_) => None,
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
            // The only error of this call into a buffer that can be short is that it was.
            Self::Zstd(codec) => codec.compress_to_buffer(cluster, room).ok(),
        };
        out.truncate(start + len.unwrap_or(0));
        Ok(len.is_some())
    }
}

/// Compressors for any number of threads.
pub(super) struct Codecs {
    compression: Compression,
    wrapping: Wrapping,
    idle: Mutex<Vec<Codec>>,
}

/// A compressor on loan.
pub(super) struct Lent<'a> {
    codecs: &'a Codecs,
    codec: Option<Codec>,
}

impl Codecs {
    pub(super) fn new(compression: Compression, wrapping: Wrapping) -> Self {
        Self {
            compression,
            wrapping,
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn lend(&self) -> io::Result<Lent<'_>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let codec = match idle {
            Some(codec) => codec,
            None => Codec::new(self.compression, self.wrapping)?,
        };
        Ok(Lent {
            codecs: self,
            codec: Some(codec),
        })
    }

    /// What decides the compressed bytes of a cluster; `None` when nothing is compressed.
    pub(super) fn name(&self) -> Option<String> {
        match self.compression {
            Compression::None => None,
            Compression::Zlib(_) => {
                Some(format!("amiforge {ENCODER_VERSION} {}", self.compression))
            }
            Compression::Zstd(_) => Some(format!(
                "amiforge {ENCODER_VERSION} {} libzstd {}",
                self.compression,
                zstd::zstd_safe::version_number()
            )),
        }
    }
}

impl Lent<'_> {
    /// See [`Codec::compress`].
    pub(super) fn compress(
        &mut self,
        cluster: &[u8],
        out: &mut Vec<u8>,
        limit: usize,
    ) -> io::Result<bool> {
        match &mut self.codec {
            Some(codec) => codec.compress(cluster, out, limit),
            None => Ok(false),
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(codec) = self.codec.take() {
            self.codecs
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(codec);
        }
    }
}

/// A decompressor.
enum Expander {
    Deflate(Box<Decompress>),
    Zstd(zstd::bulk::Decompressor<'static>),
}

/// What a stream was compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Deflate without a header. A larger window than the stream was made with does no harm.
    Raw,
    /// Deflate in a zlib stream.
    Zlib,
    /// One zstd frame.
    Zstd,
}

/// Decompressors for any number of threads.
pub(super) struct Expanders {
    stream: Stream,
    idle: Mutex<Vec<Expander>>,
}

impl Expanders {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Fills `out` from the stream at the start of `input`, and gives the stream's length; `None`
    /// when it is damaged or does not fill `out`. What follows the stream is not looked at.
    pub(super) fn expand(&self, input: &[u8], out: &mut [u8]) -> io::Result<Option<usize>> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut expander = match (idle, self.stream) {
            (Some(expander), _) => expander,
            (None, Stream::Zstd) => Expander::Zstd(zstd::bulk::Decompressor::new()?),
            (None, stream) => Expander::Deflate(Box::new(Decompress::new(stream == Stream::Zlib))),
        };
        let used = match &mut expander {
            Expander::Deflate(codec) => {
                codec.reset(self.stream == Stream::Zlib);
                let done = codec.decompress(input, out, FlushDecompress::Finish);
                let full = codec.total_out() == out.len() as u64;
                (done.is_ok() && full)
                    .then(|| usize::try_from(codec.total_in()).unwrap_or(input.len()))
            }
            Expander::Zstd(codec) => zstd::zstd_safe::find_frame_compressed_size(input)
                .ok()
                .filter(|len| *len <= input.len())
                .filter(|len| {
                    codec.decompress_to_buffer(&input[..*len], out).ok() == Some(out.len())
                }),
        };
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(expander);
        Ok(used)
    }
}
