//! Placement of a layer's data, and the writers that follow it.

use std::collections::BTreeMap;
use std::io;

use amiforge_types::{BlobTable, Digest};

use super::{ALIGN, LayerInfo, align_up, encode, format, write_zeros};
use crate::content::DATA_CHUNK;
use crate::{Content, ContentHasher, DataExtent, DataSource, Kind, LayerDiff, LayerEntry};

/// A layer that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerWriteError {
    /// The data of a file could not be read.
    #[error("the data of {:?} cannot be read", String::from_utf8_lossy(path))]
    Read {
        /// Path in the image.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// Writing the layer failed.
    #[error("writing the layer failed")]
    Write(#[source] io::Error),
    /// An entry that the format cannot hold.
    #[error(
        "the entry {:?} cannot be stored: {what}",
        String::from_utf8_lossy(path)
    )]
    Entry {
        /// Path in the image.
        path: Vec<u8>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The file's content is not what its known digest says.
    #[error(
        "the content of {:?} has the digest {found}, expected {expected}",
        String::from_utf8_lossy(path)
    )]
    Digest {
        /// Path in the image.
        path: Vec<u8>,
        /// The digest that came with the content.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
}

/// A file with data, and where that data goes.
#[derive(Debug)]
pub struct PlannedFile<'a> {
    /// Path in the image.
    pub path: &'a [u8],
    /// The content as handed in.
    pub content: &'a Content,
    /// Where the byte of the file at offset 0 of the first extent goes; see [`PlannedFile::place`].
    places: Vec<u64>,
}

impl PlannedFile<'_> {
    /// The runs of the file with the offset in the layer file at which each goes.
    pub fn runs(&self) -> impl Iterator<Item = (&DataExtent, u64)> {
        self.content.extents.iter().zip(self.places.iter().copied())
    }

    /// Reads the content run by run, hands each chunk and its place in the layer file to `put`, and
    /// returns the digest of the whole content. An error of `put` is a write error.
    pub fn copy(
        &self,
        blobs: &BlobTable,
        buf: &mut Vec<u8>,
        put: &mut dyn FnMut(&[u8], u64) -> io::Result<()>,
    ) -> Result<Digest, LayerWriteError> {
        let read_error = |source| LayerWriteError::Read {
            path: self.path.to_vec(),
            source,
        };
        let mut hasher = ContentHasher::new(self.content.size);
        let mut at = 0;
        for (extent, place) in self.runs() {
            hasher.zeros(extent.offset - at);
            if let DataSource::Bytes(bytes) = &extent.source {
                hasher.update(bytes);
                put(bytes, place).map_err(LayerWriteError::Write)?;
            } else {
                buf.resize(DATA_CHUNK, 0);
                let mut done = 0;
                while done < extent.len {
                    let n = usize::try_from((extent.len - done).min(DATA_CHUNK as u64))
                        .unwrap_or(DATA_CHUNK);
                    extent
                        .read_exact(blobs, &mut buf[..n], done)
                        .map_err(read_error)?;
                    hasher.update(&buf[..n]);
                    put(&buf[..n], place + done).map_err(LayerWriteError::Write)?;
                    done += n as u64;
                }
            }
            at = extent.offset + extent.len;
        }
        hasher.zeros(self.content.size - at);
        let found = hasher.finish();
        match self.content.digest {
            Some(expected) if expected != found => Err(LayerWriteError::Digest {
                path: self.path.to_vec(),
                expected,
                found,
            }),
            _ => Ok(found),
        }
    }
}

/// Where everything of a layer goes. The same diff always gives the same plan.
#[derive(Debug)]
pub struct LayerPlan<'a> {
    diff: &'a LayerDiff,
    files: Vec<PlannedFile<'a>>,
    data_end: u64,
    data_bytes: u64,
    features: u32,
}

/// Checks a diff and places its data.
pub fn plan(diff: &LayerDiff) -> Result<LayerPlan<'_>, LayerWriteError> {
    encode::check(diff)?;
    let mut at = format::HEADER_LEN;
    let mut files = Vec::new();
    let mut data_bytes = 0_u64;
    for (path, entry) in &diff.entries {
        let LayerEntry::Put(inode) = entry else {
            continue;
        };
        let Kind::File(content) = &inode.kind else {
            continue;
        };
        let too_big = || LayerWriteError::Entry {
            path: path.clone(),
            what: "too much data",
        };
        let mut places = Vec::with_capacity(content.extents.len());
        for extent in &content.extents {
            places.push(at);
            at = at
                .checked_add(extent.len)
                .and_then(align_up)
                .ok_or_else(too_big)?;
            data_bytes += extent.len;
        }
        files.push(PlannedFile {
            path,
            content,
            places,
        });
    }
    Ok(LayerPlan {
        diff,
        files,
        data_end: at,
        data_bytes,
        features: format::features_of(diff),
    })
}

impl LayerPlan<'_> {
    /// Every regular file, in path order, which is the order of the data; also files without data.
    #[must_use]
    pub fn files(&self) -> &[PlannedFile<'_>] {
        &self.files
    }

    /// The bytes at offset 0 of the layer file.
    #[must_use]
    pub fn header(&self) -> Vec<u8> {
        format::header(self.features)
    }

    /// Offset of the tail that [`LayerPlan::finish`] returns: the end of the data, aligned.
    #[must_use]
    pub fn tail_offset(&self) -> u64 {
        self.data_end
    }

    /// The tail (index and trailer), given the digests of [`LayerPlan::files`] in order.
    pub fn finish(&self, digests: &[Digest]) -> Result<(Vec<u8>, LayerInfo), LayerWriteError> {
        debug_assert_eq!(digests.len(), self.files.len());
        let placed: BTreeMap<&[u8], (&[u64], Digest)> = self
            .files
            .iter()
            .zip(digests)
            .map(|(file, digest)| (file.path, (file.places.as_slice(), *digest)))
            .collect();
        encode::tail(
            self.diff,
            self.features,
            &placed,
            self.data_end,
            self.data_bytes,
        )
    }
}

/// Writes a layer file front to back, on one thread: `sink` needs no seek. The caller syncs it. Writers with
/// several threads follow [`plan()`] and must give the same bytes.
pub fn write(
    diff: &LayerDiff,
    blobs: &BlobTable,
    sink: &mut dyn io::Write,
) -> Result<LayerInfo, LayerWriteError> {
    let plan = plan(diff)?;
    let header = plan.header();
    sink.write_all(&header).map_err(LayerWriteError::Write)?;
    let mut at = header.len() as u64;
    let mut digests = Vec::with_capacity(plan.files.len());
    let mut buf = Vec::new();
    for file in &plan.files {
        digests.push(file.copy(blobs, &mut buf, &mut |bytes, place| {
            write_zeros(sink, place - at)?;
            sink.write_all(bytes)?;
            at = place + bytes.len() as u64;
            Ok(())
        })?);
    }
    debug_assert!(plan.data_end - at < ALIGN);
    write_zeros(sink, plan.data_end - at).map_err(LayerWriteError::Write)?;
    let (tail, info) = plan.finish(&digests)?;
    sink.write_all(&tail).map_err(LayerWriteError::Write)?;
    sink.flush().map_err(LayerWriteError::Write)?;
    Ok(info)
}
