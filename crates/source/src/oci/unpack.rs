//! The layers of an image to one layer of ours.
//!
//! One and not one each: a layer of the store means the same on whatever it lies, while an archive of changes may put
//! a file behind a link of a layer below, or give a file of it another name.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use amiforge_tree::tar::{self, Compression, Limits, ReadOptions};
use amiforge_tree::{LayerDiff, Stat, Tree};
use amiforge_types::{BlobTable, Hasher};

use super::layout::oci;
use super::{
    FetchedOci, LayerError, OciContext, OciError, PlacedBlob, ResolvedOci, ResolvedOciLayer,
};
use crate::deb::Spool;
use crate::{SourceError, SourceEvent};

/// Largest zstd window, 2^27 = 128 MiB, the limit of the `zstd` command without `--long`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Applies the layers of an image in order. File data goes into `spool`, an empty file open for reading and writing
/// that becomes one blob of `blobs`; the layer points into it.
///
/// Every layer is verified before it is read, and its archive once it was; a damaged one is removed from the cache, so
/// that the next [`fetch`](super::fetch()) brings it anew. The result depends on the archives and the time in the
/// configuration alone.
///
/// # Errors
/// When a layer is not what its digests say, is damaged, or does what no archive may.
pub fn unpack(
    resolved: &ResolvedOci,
    fetched: &FetchedOci,
    spool: File,
    blobs: &mut BlobTable,
    ctx: &OciContext<'_>,
) -> Result<LayerDiff, SourceError> {
    let total = resolved.layers.len();
    if fetched.layers.len() != total {
        return Err(SourceError::malformed(
            "layers",
            "the fetched files are of another lock",
        ));
    }
    let clock = resolved.newest;
    let stat = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: clock,
    };
    let mut tree = Tree::new(stat);
    let mut limits = Limits::DEFAULT;
    limits.data_bytes = limits.data_bytes.min(ctx.max_bytes);
    let mut left = ctx.max_bytes;
    let mut spooled = 0;
    let mut writer = BufWriter::with_capacity(1 << 20, &spool);
    for (at, (layer, place)) in resolved.layers.iter().zip(&fetched.layers).enumerate() {
        let options = ReadOptions {
            build_clock: clock,
            limits,
        };
        let digest = layer.blob.digest;
        verify(layer, place)?;
        let changed = apply(
            layer,
            place,
            tree,
            &mut writer,
            spooled,
            &options,
            &mut left,
        )
        .map_err(|source| {
            let source = match source {
                LayerError::TooLarge { .. } => LayerError::TooLarge {
                    limit: ctx.max_bytes,
                },
                other => other,
            };
            let error = OciError::Layer {
                number: at + 1,
                count: total,
                digest,
                source: Box::new(source),
            };
            oci(&resolved.pinned(), error)
        })?;
        tree = changed.tree;
        spooled = changed.spool_bytes;
        let used = changed.used;
        limits.entries = limits.entries.saturating_sub(used.entries);
        limits.data_bytes = limits.data_bytes.saturating_sub(used.data_bytes);
        limits.metadata_bytes = limits.metadata_bytes.saturating_sub(used.metadata_bytes);
        (ctx.base.events)(SourceEvent::LayerUnpacked {
            done: at + 1,
            total,
        });
    }
    let flushed = writer.into_inner().map(|_| ());
    flushed.map_err(|e| SourceError::io("spool", e.into_error()))?;
    let id = blobs.add(Arc::new(Spool {
        file: spool,
        size: spooled,
    }));
    tree.assign_blob(id);
    Ok(LayerDiff::from_tree(&tree))
}

/// Checks the digest of a layer as it is stored.
fn verify(layer: &ResolvedOciLayer, place: &PlacedBlob) -> Result<(), SourceError> {
    let io = |e| SourceError::io(&place.path, e);
    let mut reader = open(layer, place).map_err(io)?;
    let mut hasher = Hasher::new();
    let read = io::copy(&mut reader, &mut hasher).map_err(io)?;
    let got = hasher.finish();
    if got == layer.blob.digest && read == layer.blob.size {
        return Ok(());
    }
    if place.cached {
        let _ = std::fs::remove_file(&place.path);
    }
    Err(SourceError::Digest {
        uri: place.path.display().to_string(),
        expected: layer.blob.digest,
        got,
    })
}

fn open(layer: &ResolvedOciLayer, place: &PlacedBlob) -> io::Result<io::Take<File>> {
    let mut file = File::open(&place.path)?;
    file.seek(SeekFrom::Start(place.offset))?;
    Ok(file.take(layer.blob.size))
}

fn apply(
    layer: &ResolvedOciLayer,
    place: &PlacedBlob,
    tree: Tree,
    spool: &mut dyn Write,
    spooled: u64,
    options: &ReadOptions,
    left: &mut u64,
) -> Result<tar::Changed, LayerError> {
    let stored = open(layer, place).map_err(LayerError::Io)?;
    let plain = decoder(BufReader::with_capacity(128 << 10, stored))?;
    let mut archive = Archive {
        plain,
        hasher: Hasher::new(),
        left,
        over: false,
    };
    let changed = tar::read_changes(tree, &mut archive, spool, spooled, options);
    let changed = match changed {
        Ok(changed) => changed,
        Err(_) if archive.over => return Err(LayerError::TooLarge { limit: 0 }),
        Err(e) => return Err(LayerError::Archive(Box::new(e))),
    };
    // What is left of the archive counts for its digest, and no further than for that.
    if let Err(e) = io::copy(&mut archive, &mut io::sink()) {
        return Err(match archive.over {
            true => LayerError::TooLarge { limit: 0 },
            false => LayerError::Io(e),
        });
    }
    let got = archive.hasher.finish();
    match got == layer.diff_id {
        true => Ok(changed),
        false => Err(LayerError::DiffId {
            expected: layer.diff_id,
            got,
        }),
    }
}

/// A reader of the archive in a layer, its compression told by the first bytes: media types are not always right, and
/// the digest of the archive has the last word.
fn decoder(mut stored: BufReader<io::Take<File>>) -> Result<Box<dyn Read>, LayerError> {
    use std::io::BufRead as _;
    let first = stored.fill_buf().map_err(LayerError::Io)?;
    let magic = first.get(..Compression::MAGIC_LEN).unwrap_or(first);
    Ok(match Compression::detect(magic) {
        Compression::None => Box::new(stored),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(stored)),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(stored);
            let mut decoder = decoder.map_err(LayerError::Io)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .map_err(LayerError::Io)?;
            Box::new(decoder)
        }
        Compression::Xz => return Err(LayerError::Compression("xz")),
        Compression::Bzip2 => return Err(LayerError::Compression("bzip2")),
    })
}

/// The archive, hashed and counted as it is read.
struct Archive<'a> {
    plain: Box<dyn Read>,
    hasher: Hasher,
    /// Bytes that all archives of the image may still have.
    left: &'a mut u64,
    over: bool,
}

impl Read for Archive<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.plain.read(buf)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => *self.left = left,
            None => {
                self.over = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        self.hasher.update(&buf[..n]);
        Ok(n)
    }
}
