//! Reading the bytes of a file: extents in order, holes as zeros.

use std::borrow::Cow;
use std::io::{self, Read};

use amiforge_types::{BlobId, BlobTable, Digest, Hasher};

use crate::{Content, ContentHasher, DataExtent, DataSource, Kind, LayerDiff, LayerEntry};

/// Bytes that one read of file data asks for: large enough to hide the cost of a system call, small
/// enough to stay in the second-level cache of a core that hashes them.
pub const DATA_CHUNK: usize = 256 << 10;

static ZEROS: [u8; 4096] = [0; 4096];

impl DataExtent {
    /// Fills `buf` with the bytes of this run from `skip` bytes after its start.
    pub fn read_exact(&self, blobs: &BlobTable, buf: &mut [u8], skip: u64) -> io::Result<()> {
        let end = skip
            .checked_add(buf.len() as u64)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.source {
            DataSource::Bytes(bytes) => {
                let from = usize::try_from(skip).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let range = bytes
                    .get(from..from + buf.len())
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(range);
                Ok(())
            }
            DataSource::Blob { id, offset } => {
                let at = offset
                    .checked_add(skip)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                blobs.get(*id)?.read_exact_at(buf, at)
            }
        }
    }
}

impl Content {
    /// Whether the runs are sorted, non-empty, apart from each other and inside `size`. Everything
    /// this crate produces is; a consumer that computes offsets from foreign content may check.
    #[must_use]
    pub fn is_well_formed(&self) -> bool {
        let mut at = 0;
        self.extents.iter().all(|e| {
            let end = e.offset.checked_add(e.len);
            let fits = match &e.source {
                DataSource::Bytes(bytes) => bytes.len() as u64 == e.len,
                DataSource::Blob { offset, .. } => offset.checked_add(e.len).is_some(),
            };
            let ok = fits && e.len > 0 && e.offset >= at && end.is_some_and(|end| end <= self.size);
            at = end.unwrap_or(u64::MAX);
            ok
        })
    }

    /// Bytes that are not hole.
    #[must_use]
    pub fn data_len(&self) -> u64 {
        self.extents
            .iter()
            .map(|e| e.len)
            .fold(0, u64::saturating_add)
    }

    /// A reader over the whole content, holes as zeros.
    #[must_use]
    pub fn reader<'a>(&'a self, blobs: &'a BlobTable) -> ContentReader<'a> {
        ContentReader::new(Cow::Borrowed(self), blobs)
    }

    /// The same, with the content in the reader.
    #[must_use]
    pub fn into_reader(self, blobs: &BlobTable) -> ContentReader<'_> {
        ContentReader::new(Cow::Owned(self), blobs)
    }

    /// The whole content in memory; an error of kind `FileTooLarge` above `limit` bytes.
    pub fn read_to_vec(&self, blobs: &BlobTable, limit: u64) -> io::Result<Vec<u8>> {
        if self.size > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let size = usize::try_from(self.size).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut out = vec![0; size];
        self.reader(blobs).read_exact(&mut out)?;
        Ok(out)
    }

    /// The digest of the bytes: the known one, or computed by reading what is not hole.
    pub fn content_digest(&self, blobs: &BlobTable) -> io::Result<Digest> {
        if let Some(digest) = self.digest {
            return Ok(digest);
        }
        let mut hasher = ContentHasher::new(self.size);
        self.feed(
            blobs,
            &mut hasher,
            ContentHasher::update,
            ContentHasher::zeros,
        )?;
        Ok(hasher.finish())
    }

    /// Plain SHA-256 of the whole content, holes as zeros: reads and hashes every byte of `size`.
    pub fn sha256(&self, blobs: &BlobTable) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        self.feed(blobs, &mut hasher, Hasher::update, hash_zeros)?;
        Ok(hasher.finish())
    }

    /// Hands data and holes to a hasher, in order.
    fn feed<H>(
        &self,
        blobs: &BlobTable,
        hasher: &mut H,
        update: impl Fn(&mut H, &[u8]),
        zeros: impl Fn(&mut H, u64),
    ) -> io::Result<()> {
        let mut at = 0;
        let mut buf = Vec::new();
        for extent in &self.extents {
            zeros(hasher, extent.offset.saturating_sub(at));
            if let DataSource::Bytes(bytes) = &extent.source {
                update(hasher, bytes);
            } else {
                buf.resize(DATA_CHUNK, 0);
                let mut done = 0;
                while done < extent.len {
                    let n = usize::try_from((extent.len - done).min(DATA_CHUNK as u64))
                        .unwrap_or(DATA_CHUNK);
                    extent.read_exact(blobs, &mut buf[..n], done)?;
                    update(hasher, &buf[..n]);
                    done += n as u64;
                }
            }
            at = extent.offset.saturating_add(extent.len);
        }
        zeros(hasher, self.size.saturating_sub(at));
        Ok(())
    }

    /// Replaces every blob id, for content whose blob becomes known later than the content.
    pub fn map_blobs(&mut self, f: &mut dyn FnMut(BlobId) -> BlobId) {
        for extent in &mut self.extents {
            if let DataSource::Blob { id, .. } = &mut extent.source {
                *id = f(*id);
            }
        }
    }

    /// Whether both are known to hold the same bytes: equal digests, or the same runs of the same
    /// sources. `false` means "different or not known".
    #[must_use]
    pub fn same_bytes(&self, other: &Self) -> bool {
        if self.size != other.size {
            return false;
        }
        match (self.digest, other.digest) {
            (Some(a), Some(b)) => a == b,
            _ => self.extents == other.extents,
        }
    }
}

/// Feeds `len` zero bytes.
fn hash_zeros(hasher: &mut Hasher, mut len: u64) {
    while len > 0 {
        let n = usize::try_from(len.min(ZEROS.len() as u64)).unwrap_or(ZEROS.len());
        hasher.update(&ZEROS[..n]);
        len -= n as u64;
    }
}

impl LayerDiff {
    /// Replaces every blob id; see [`Content::map_blobs`].
    pub fn map_blobs(&mut self, f: &mut dyn FnMut(BlobId) -> BlobId) {
        for entry in self.entries.values_mut() {
            if let LayerEntry::Put(inode) = entry
                && let Kind::File(content) = &mut inode.kind
            {
                content.map_blobs(f);
            }
        }
    }
}

/// Reads a [`Content`] from start to end; see [`Content::reader`].
#[derive(Debug)]
pub struct ContentReader<'a> {
    content: Cow<'a, Content>,
    blobs: &'a BlobTable,
    at: u64,
    next: usize,
}

impl<'a> ContentReader<'a> {
    fn new(content: Cow<'a, Content>, blobs: &'a BlobTable) -> Self {
        Self {
            content,
            blobs,
            at: 0,
            next: 0,
        }
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let extents = &self.content.extents;
        while extents
            .get(self.next)
            .is_some_and(|e| e.offset.saturating_add(e.len) <= self.at)
        {
            self.next += 1;
        }
        let (until, extent) = match extents.get(self.next) {
            Some(e) if e.offset > self.at => (e.offset, None),
            Some(e) => (e.offset.saturating_add(e.len), Some(e)),
            None => (self.content.size, None),
        };
        let left = until.min(self.content.size).saturating_sub(self.at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        match extent {
            Some(e) => e.read_exact(self.blobs, &mut buf[..n], self.at - e.offset)?,
            None => buf[..n].fill(0),
        }
        self.at += n as u64;
        Ok(n)
    }
}
