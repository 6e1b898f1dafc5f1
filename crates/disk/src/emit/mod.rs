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
//! needs to see the bytes (raw without any digest) the workers let the target copy instead. What a
//! format writes last (headers with an id drawn from the content) is written when all windows are
//! through and the content digest is known.

mod pipeline;
#[cfg(test)]
mod tests;
mod window;

use std::io;

use amiforge_types::{BlobTable, Digest, Hasher, ReadAt, WriteAt};

use crate::format::{Previous, Subformat};
use crate::{Compression, Extents, Format};

pub(crate) use window::{Window, WindowPlan};

/// One file to be written.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// Its format.
    pub format: Format,
    /// The kind of file within the format.
    pub subformat: Subformat,
    /// Where to; its length is set by [`emit`], and it must read as zero where it was never written.
    pub target: &'a dyn WriteAt,
    /// The same bytes to read. Only an output with `sha256` whose first bytes are known last (see
    /// [`needs_readback`](Self::needs_readback)) needs it: it is read back once.
    pub readback: Option<&'a dyn ReadAt>,
    /// Compute the SHA-256 of the file.
    pub sha256: bool,
    /// For formats that can.
    pub compression: Compression,
    /// Leave out what is zero although an extent covers it. For extents that came from a file, whose
    /// holes are an accident: the bytes of the output then depend on the disk's content alone.
    pub find_zeros: bool,
    /// An earlier file of the same kind whose compressed clusters are taken over where the content is
    /// the same. No byte of the output depends on it.
    pub previous: Option<&'a Previous>,
}

impl<'a> Output<'a> {
    /// An output of the format's usual kind, plain and without a digest.
    pub fn new(format: Format, target: &'a dyn WriteAt) -> Self {
        Self {
            format,
            subformat: Subformat::Default,
            target,
            readback: None,
            sha256: false,
            compression: Compression::None,
            find_zeros: false,
            previous: None,
        }
    }

    /// Whether `readback` has to be there for the SHA-256.
    #[must_use]
    pub fn needs_readback(&self) -> bool {
        self.sha256 && self.format.driver().first_bytes_last(self)
    }
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
    /// An output whose first bytes are known last is to be hashed, but cannot be read back.
    #[error("output {output} is to be hashed, but was given without a way to read it back")]
    NoReadback {
        /// Its index.
        output: usize,
    },
    /// The format cannot hold this disk, or has no such kind of file.
    #[error("output {output} cannot be written")]
    Impossible {
        /// Its index.
        output: usize,
        /// Why.
        #[source]
        source: SettingError,
    },
}

/// An output that no format can make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// The disk is larger than the format can say.
    #[error("a disk of {size} bytes is too large for {format}: it holds at most {limit}")]
    TooLarge {
        /// The format.
        format: Format,
        /// Size of the disk.
        size: u64,
        /// The most that it holds.
        limit: u64,
    },
    /// The format has no such kind.
    #[error("{format} has no subformat {subformat}")]
    NoSubformat {
        /// The format.
        format: Format,
        /// What was asked for.
        subformat: Subformat,
    },
    /// The format cannot compress, or not like this.
    #[error("{format} cannot be compressed with {compression}")]
    NoCompression {
        /// The format.
        format: Format,
        /// What was asked for.
        compression: Compression,
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
    /// Called once all windows were seen. `content` is the content digest of the disk, when it was
    /// asked for or the driver needs it.
    fn finish(self: Box<Self>, content: Option<&Digest>) -> io::Result<Finished>;
}

/// What the parallel half hands to the ordered one.
#[derive(Default)]
pub(crate) struct Encoded {
    /// Clusters of the window that are to be stored, and where in `bytes` each is; an empty range
    /// means "as it is in the window".
    pub clusters: Vec<(u64, std::ops::Range<usize>)>,
    /// Encoded clusters, one after the other.
    pub bytes: Vec<u8>,
}

/// What the ordered half knows at the end.
pub(crate) struct Finished {
    pub bytes: u64,
    pub sha256: Option<Digest>,
}

/// Writes `extents` to every output.
///
/// The outputs' bytes and the digests depend on the extents and the outputs' options alone, not on
/// `options.threads`. Buffers take 24 MiB, and as much again for each compressed output.
pub fn emit(
    extents: &Extents,
    blobs: &BlobTable,
    outputs: &[Output<'_>],
    options: EmitOptions,
) -> Result<Emitted, EmitError> {
    emit_watched(extents, blobs, outputs, options, &|_, _| {})
}

/// [`emit`] that tells `watch` how many bytes of data, of how many, are through. It is called from
/// any thread, about once for each MiB.
pub fn emit_watched(
    extents: &Extents,
    blobs: &BlobTable,
    outputs: &[Output<'_>],
    options: EmitOptions,
    watch: &Watch<'_>,
) -> Result<Emitted, EmitError> {
    let size = extents.size();
    for (output, o) in outputs.iter().enumerate() {
        o.format
            .check(o.subformat, o.compression, size)
            .map_err(|source| EmitError::Impossible { output, source })?;
        if o.readback.is_none() && o.needs_readback() {
            return Err(EmitError::NoReadback { output });
        }
    }
    let wrote = |output: usize, source| EmitError::Write {
        output,
        format: outputs[output].format,
        source,
    };
    let plan = WindowPlan::new(extents);
    let mut sinks = Vec::with_capacity(outputs.len());
    for (output, o) in outputs.iter().enumerate() {
        let made = o.format.driver().sinks(&plan, o);
        sinks.push(made.map_err(|source| wrote(output, source))?);
    }
    let needed = outputs.iter().any(|o| o.format.driver().needs_content());
    let unseen = !options.content_digest
        && outputs
            .iter()
            .all(|o| o.format == Format::Raw && !o.sha256 && !o.find_zeros);
    let run = if unseen {
        pipeline::copy(extents, blobs, outputs, options.threads, watch)?;
        pipeline::Run {
            blocks: Vec::new(),
            ordered: outputs.iter().map(|_| None).collect(),
        }
    } else {
        let options = EmitOptions {
            content_digest: options.content_digest || needed,
            ..options
        };
        pipeline::run(&plan, blobs, outputs, &mut sinks, options, watch)?
    };
    let content =
        (options.content_digest || needed).then(|| crate::digest::combine(size, &run.blocks));
    let fixed: Vec<u64> = sinks.iter().map(|s| s.fixed_bytes).collect();
    drop(sinks);
    let finished = pipeline::finish(run.ordered, content.as_ref())
        .map_err(|(output, source)| wrote(output, source))?;
    let artifacts = outputs
        .iter()
        .zip(fixed)
        .zip(finished)
        .map(|((output, fixed), finished)| Artifact {
            format: output.format,
            bytes: finished.as_ref().map_or(fixed, |f| f.bytes),
            virtual_bytes: output.format.virtual_bytes(size),
            sha256: finished.and_then(|f| f.sha256),
        })
        .collect();
    Ok(Emitted {
        content_digest: content.filter(|_| options.content_digest),
        artifacts,
    })
}

/// Told of progress: bytes done, bytes in all.
pub type Watch<'a> = dyn Fn(u64, u64) + Sync + 'a;

/// The SHA-256 of a finished file, holes not read.
pub(crate) fn hash_file(file: &dyn ReadAt, bytes: u64) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while let Some(range) = file.next_data(at)? {
        feed_zeros(&mut hasher, range.start.min(bytes).saturating_sub(at));
        at = at.max(range.start).min(bytes);
        let end = range.end.min(bytes);
        while at < end {
            let n = usize::try_from(end - at)
                .unwrap_or(buf.len())
                .min(buf.len());
            file.read_exact_at(&mut buf[..n], at)?;
            hasher.update(&buf[..n]);
            at += n as u64;
        }
        if at >= bytes || range.end <= range.start {
            break;
        }
    }
    feed_zeros(&mut hasher, bytes - at);
    Ok(hasher.finish())
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
