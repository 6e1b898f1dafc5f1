//! Parts and manifest → image.

use std::io::{self, BufRead as _, BufReader, Read, Write};

use flate2::bufread::GzDecoder;
use sha1::{Digest as _, Sha1};

use crate::cipher::Decrypt;
use crate::error::{BundleError, carried, hex, taken};
use crate::keys::{Certificate, PrivateKey};
use crate::manifest::{BundleManifest, PartRecord};
use crate::tar;
use crate::write::PartSink;

/// Largest part, in bytes: one is held in memory until its digest is verified.
pub const MAX_PART_BYTES: u64 = 128 * 1024 * 1024;

/// Where parts come from.
pub trait PartSource {
    /// Gives the bytes of one part.
    type Part: Read;

    /// Opens a part. Its name is a plain file name.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn open(&mut self, index: usize, name: &str) -> io::Result<Self::Part>;
}

/// An image that came out whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbundled {
    /// The manifest that it was verified against.
    pub manifest: BundleManifest,
    /// Bytes of the image.
    pub bytes: u64,
}

/// Gives back the image of a bundle. `key` is the private key of the user or of EC2 that the bundle is sealed for; `signer` the certificate that
/// the manifest must be signed by: `None` takes the key's own, as the user's key both opens and signs.
///
/// In this order: the signature; the sealed key; each part's size and digest, before it is decrypted; the compressed stream and the archive, never
/// more than an image of the manifest's size can need; the digest of the archive. What was written to `out` counts only when this returns `Ok`.
///
/// # Errors
/// What is wrong, and in which part or element.
pub fn unbundle<S: PartSource>(
    manifest: &str,
    key: &PrivateKey,
    signer: Option<&Certificate>,
    source: &mut S,
    out: &mut dyn Write,
) -> Result<Unbundled, BundleError> {
    let manifest = BundleManifest::from_xml(manifest)?;
    match signer {
        Some(signer) => manifest.verify(signer)?,
        None => manifest.verify(&key.public())?,
    }
    unpack(&manifest, key, source, out)?;
    let bytes = manifest.size;
    Ok(Unbundled { manifest, bytes })
}

/// The same of a manifest that was verified before: its signature, or its digest against that of one whose signature was.
///
/// # Errors
/// What is wrong, and in which part.
pub fn unpack<S: PartSource>(
    manifest: &BundleManifest,
    key: &PrivateKey,
    source: &mut S,
    out: &mut dyn Write,
) -> Result<(), BundleError> {
    let aes = BundleManifest::opened(
        key,
        &manifest.user_encrypted_key,
        &manifest.ec2_encrypted_key,
    );
    let iv = BundleManifest::opened(key, &manifest.user_encrypted_iv, &manifest.ec2_encrypted_iv);
    let (Some(aes), Some(iv)) = (aes, iv) else {
        return Err(BundleError::WrongKey);
    };
    let parts = Parts::new(manifest, source);
    // An archive of the image has its header and end beside it, and a sparse one the list of its pieces.
    let limit = manifest.size + manifest.size / 64 + 1024 * 1024;
    let decrypt = BufReader::with_capacity(64 * 1024, Decrypt::new(parts, &aes, &iv));
    let mut archive = Hashing {
        inner: GzDecoder::new(decrypt),
        sha1: Sha1::new(),
        limit,
        total: 0,
    };
    tar::read(&mut archive, manifest.size, out)?;
    let found: [u8; 20] = archive.sha1.finalize().into();
    if found != manifest.digest {
        return Err(BundleError::ImageDigest {
            expected: hex(&manifest.digest),
            found: hex(&found),
        });
    }
    let mut rest = archive.inner.into_inner();
    let trailing = rest.fill_buf().map_err(|e| taken(e, BundleError::Gzip))?;
    if !trailing.is_empty() {
        return Err(BundleError::GzipTrailer);
    }
    Ok(())
}

/// Copies the parts of a bundle whose manifest was verified before. Each has its size and digest, or the copy fails.
///
/// # Errors
/// What is wrong, and with which part.
pub fn copy_parts<S: PartSource, K: PartSink>(
    manifest: &BundleManifest,
    source: &mut S,
    sink: &mut K,
) -> Result<(), BundleError> {
    let mut parts = Parts::new(manifest, source);
    for (index, record) in manifest.parts.iter().enumerate() {
        parts.fetch(record)?;
        let failed = |source| BundleError::PartWrite {
            index,
            name: record.file_name.clone(),
            source,
        };
        let mut part = sink.begin(index, &record.file_name).map_err(failed)?;
        part.write_all(&parts.buffer).map_err(failed)?;
        sink.end(part).map_err(failed)?;
    }
    Ok(())
}

/// SHA-1 of what passes, up to a limit.
struct Hashing<R> {
    inner: R,
    sha1: Sha1,
    limit: u64,
    total: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.total += count as u64;
        if self.total > self.limit {
            return Err(carried(BundleError::TooLarge(self.limit)));
        }
        self.sha1.update(&out[..count]);
        Ok(count)
    }
}

/// The bytes of all parts, each verified before it is given on.
struct Parts<'a, S> {
    source: &'a mut S,
    records: &'a [PartRecord],
    /// Bytes of all parts.
    expected: u64,
    next: usize,
    total: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a, S: PartSource> Parts<'a, S> {
    fn new(manifest: &'a BundleManifest, source: &'a mut S) -> Self {
        Self {
            source,
            records: &manifest.parts,
            expected: manifest.bundled_size,
            next: 0,
            total: 0,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// Reads and verifies the next part.
    fn fetch(&mut self, record: &PartRecord) -> Result<(), BundleError> {
        let (index, name) = (self.next, record.file_name.clone());
        let unreadable = |source| BundleError::PartRead {
            index,
            name: name.clone(),
            source,
        };
        let part = self.source.open(index, &name).map_err(unreadable)?;
        let left = self.expected - self.total;
        let most = left.min(MAX_PART_BYTES);
        self.buffer.clear();
        self.at = 0;
        // One byte more than there may be tells of a part that is too long, without reading it.
        part.take(most + 1)
            .read_to_end(&mut self.buffer)
            .map_err(unreadable)?;
        let bytes = self.buffer.len() as u64;
        if bytes > most && most < left {
            return Err(BundleError::PartTooLarge { index, name });
        }
        self.total += bytes;
        let last = index + 1 == self.records.len();
        if bytes > left || (last && bytes < left) {
            return Err(BundleError::PartSize {
                index,
                name,
                expected: self.expected,
                found: self.total,
            });
        }
        let found: [u8; 20] = Sha1::digest(&self.buffer).into();
        if found != record.digest {
            return Err(BundleError::PartDigest {
                index,
                name,
                expected: hex(&record.digest),
                found: hex(&found),
            });
        }
        self.next += 1;
        Ok(())
    }
}

impl<S: PartSource> Read for Parts<'_, S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.buffer.len() {
            let records = self.records;
            let Some(record) = records.get(self.next) else {
                return Ok(0);
            };
            self.fetch(record).map_err(carried)?;
        }
        let count = out.len().min(self.buffer.len() - self.at);
        out[..count].copy_from_slice(&self.buffer[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
