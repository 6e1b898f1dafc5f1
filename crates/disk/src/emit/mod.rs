//! Writing a disk in several formats at once.
//!
//! ```text
//!            workers (any order)                      one thread per hashed or packed output (in order)
//! extents ─▶ read a window once ─┬▶ positioned writes ─┐
//!                                ├▶ compression        ├▶ SHA-256, packing ─▶ artefact
//!                                └▶ block digests      ┘
//! ```
//!
//! Windows that hold no data do not exist, so empty space costs nothing but its SHA-256. When nobody
//! needs to see the bytes (raw without any digest) the workers let the target copy instead.

mod pipeline;
#[cfg(test)]
mod tests;
mod window;

use std::io;

use amiforge_types::{BlobTable, Digest, Hasher, ReadAt, WriteAt};

use crate::{Compression, ExtentData, Extents, Format};

pub(crate) use window::{Window, WindowPlan};

/// One file to be written.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Its format.
    pub format: Format,
    /// Where to; its length is set by [`emit`], and it must read as zero where it was never written.
    pub target: &'a dyn WriteAt,
    /// The same bytes to read. Only a *compressed* output with `sha256` needs it: its first bytes are
    /// known last, so it is read back once.
    pub readback: Option<&'a dyn ReadAt>,
    /// Compute the SHA-256 of the file.
    pub sha256: bool,
    /// For formats that can.
    pub compression: Compression,
}

/// What all outputs share.
#[derive(Clone, Copy, Debug)]
pub struct EmitOptions {
    /// Workers; hashed and compressed outputs add a thread each. No output byte depends on it.
    pub threads: usize,
    /// Compute the content digest.
    pub content_digest: bool,
}

/// One file as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Its format.
    pub format: Format,
    /// Length of the file.
    pub bytes: u64,
    /// Size of the disk inside.
    pub virtual_bytes: u64,
    /// SHA-256 of the file, when asked for.
    pub sha256: Option<Digest>,
}

/// What [`emit`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Identity of the disk's content (see [`content_digest`](crate::content_digest)), when asked for.
    pub content_digest: Option<Digest>,
    /// One for each output, in their order.
    pub artifacts: Vec<Artifact>,
}

/// Why a disk could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// A source of an extent could not be read.
    #[error("cannot read the data of bytes {offset} to {end} of the disk")]
    Read {
        /// First byte on the disk.
        offset: u64,
        /// Just past the last byte.
        end: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An output could not be written.
    #[error("cannot write output {output} ({format})")]
    Write {
        /// Its index.
        output: usize,
        /// Its format.
        format: Format,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A compressed output is to be hashed, but cannot be read back.
    #[error(
        "output {output} is compressed and to be hashed, but was given without a way to read it back"
    )]
    NoReadback {
        /// Its index.
        output: usize,
    },
}

/// Sinks of one output.
pub(crate) struct Sinks<'a> {
    /// Called for every window from any thread.
    pub parallel: Box<dyn Parallel + 'a>,
    /// Called for every window in order, on a thread of its own.
    pub ordered: Option<Box<dyn Ordered + 'a>>,
    /// Length of the file when there is no `ordered`.
    pub fixed_bytes: u64,
}

/// The half of a sink that any thread may run for any window.
pub(crate) trait Parallel: Sync {
    fn accept(&self, window: &Window) -> io::Result<Encoded>;
}

/// The half of a sink that sees the windows in order.
pub(crate) trait Ordered: Send {
    fn accept(&mut self, window: &Window, encoded: Encoded) -> io::Result<()>;
    fn finish(self: Box<Self>) -> io::Result<Finished>;
}

/// What the parallel half hands to the ordered one.
#[derive(Default)]
pub(crate) struct Encoded {
    /// Encoded clusters of the window, by the format's own meaning.
    pub clusters: Vec<(u64, Vec<u8>)>,
}

/// What the ordered half knows at the end.
pub(crate) struct Finished {
    pub bytes: u64,
    pub sha256: Option<Digest>,
}

/// Writes `extents` to every output.
///
/// The outputs' bytes and the digests depend on the extents and the outputs' options alone, not on
/// `options.threads`. Buffers take at most 64 MiB.
pub fn emit(
    extents: &Extents,
    blobs: &BlobTable,
    outputs: &[Output<'_>],
    options: EmitOptions,
) -> Result<Emitted, EmitError> {
    for (output, o) in outputs.iter().enumerate() {
        if o.sha256
            && o.readback.is_none()
            && o.format != Format::Raw
            && o.compression != Compression::None
        {
            return Err(EmitError::NoReadback { output });
        }
    }
    let plan = WindowPlan::new(extents);
    let mut sinks = Vec::with_capacity(outputs.len());
    for (output, o) in outputs.iter().enumerate() {
        let wrote = |source| EmitError::Write {
            output,
            format: o.format,
            source,
        };
        sinks.push(o.format.driver().sinks(&plan, o).map_err(wrote)?);
    }
    let unseen =
        !options.content_digest && outputs.iter().all(|o| o.format == Format::Raw && !o.sha256);
    let run = if unseen {
        pipeline::copy(extents, blobs, outputs, options.threads)?;
        pipeline::Run {
            blocks: Vec::new(),
            finished: outputs.iter().map(|_| None).collect(),
        }
    } else {
        pipeline::run(&plan, blobs, outputs, &mut sinks, options)?
    };
    let artifacts = outputs
        .iter()
        .zip(&sinks)
        .zip(run.finished)
        .map(|((output, sinks), finished)| Artifact {
            format: output.format,
            bytes: finished.as_ref().map_or(sinks.fixed_bytes, |f| f.bytes),
            virtual_bytes: extents.size(),
            sha256: finished.and_then(|f| f.sha256),
        })
        .collect();
    let content_digest = options
        .content_digest
        .then(|| crate::digest::combine(extents.size(), &run.blocks));
    Ok(Emitted {
        content_digest,
        artifacts,
    })
}

/// Feeds `len` zeros to a hasher.
pub(crate) fn feed_zeros(hasher: &mut Hasher, mut len: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while len > 0 {
        let n = usize::try_from(len).unwrap_or(ZEROS.len()).min(ZEROS.len());
        hasher.update(&ZEROS[..n]);
        len -= n as u64;
    }
}

/// Reads part of an extent.
pub(crate) fn read_extent(
    data: &ExtentData,
    skip: u64,
    buf: &mut [u8],
    blobs: &BlobTable,
) -> io::Result<()> {
    match data {
        ExtentData::Bytes(bytes) => bytes.read_exact_at(buf, skip),
        ExtentData::Blob { id, offset } => blobs.get(*id)?.read_exact_at(buf, offset + skip),
    }
}
