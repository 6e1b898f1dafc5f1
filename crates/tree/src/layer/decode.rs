//! Index bytes to a diff. Nothing of the file is believed before its digest was checked, and
//! everything is bounded by the file's length, so a hostile layer costs no more memory than it has
//! bytes.

use std::collections::BTreeMap;
use std::io;

use amiforge_types::{BlobId, BlobTable, Digest, ReadAt, Timestamp};

use super::format::{self, Trailer};
use super::{ALIGN, LayerInfo, VERSION};
use crate::{
    Content, DataExtent, DataSource, Inode, InodeFlags, Kind, LayerDiff, LayerEntry, Stat,
};

/// A layer file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerReadError {
    /// Reading failed.
    #[error("reading the layer failed at byte {offset}")]
    Read {
        /// Offset in the layer file.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Not a layer file, cut short, or damaged.
    #[error("the layer file is damaged: {what}")]
    Corrupt {
        /// What does not fit.
        what: &'static str,
        /// Offset in the layer file.
        offset: u64,
    },
    /// Written by a newer release.
    #[error(
        "the layer file has version {version} and features {features:#x}; this release reads version {VERSION}"
    )]
    Unsupported {
        /// Its version.
        version: u32,
        /// Its feature bits.
        features: u32,
    },
    /// The data of a file is not what the index says.
    #[error(
        "the data of {:?} is damaged: its digest is {found}, not {expected}",
        String::from_utf8_lossy(path)
    )]
    Data {
        /// Path in the image.
        path: Vec<u8>,
        /// Digest in the index.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
}

/// Reads the index. `id` is the layer file's id in the operation's blob table; file data points
/// there. Truncation and any changed bit outside the file data are detected; file data itself is
/// only checked by [`verify`].
pub fn read(layer: &dyn ReadAt, id: BlobId) -> Result<(LayerDiff, LayerInfo), LayerReadError> {
    let corrupt = |what, offset| LayerReadError::Corrupt { what, offset };
    let read_at = |buf: &mut [u8], offset| {
        layer
            .read_exact_at(buf, offset)
            .map_err(|source| LayerReadError::Read { offset, source })
    };
    let size = layer.size();
    let trailer_at = size
        .checked_sub(format::TRAILER_LEN as u64)
        .filter(|at| *at >= format::HEADER_LEN)
        .ok_or_else(|| corrupt("it is too short", 0))?;
    let mut header = vec![0; usize::try_from(format::HEADER_LEN).unwrap_or(4096)];
    read_at(&mut header, 0)?;
    if header[..8] != format::HEADER_MAGIC {
        return Err(corrupt("it does not start like one", 0));
    }
    let mut bytes = [0; format::TRAILER_LEN];
    read_at(&mut bytes, trailer_at)?;
    let trailer = Trailer::from_bytes(&bytes)
        .ok_or_else(|| corrupt("its trailer is missing or changed", trailer_at))?;
    if trailer.version != VERSION || trailer.features & !format::KNOWN_FEATURES != 0 {
        return Err(LayerReadError::Unsupported {
            version: trailer.version,
            features: trailer.features,
        });
    }
    if header != format::header(trailer.features) {
        return Err(corrupt("its header was changed", 0));
    }
    let index_at = trailer.index_offset;
    if index_at < format::HEADER_LEN
        || !index_at.is_multiple_of(ALIGN)
        || index_at.checked_add(trailer.index_len) != Some(trailer_at)
    {
        return Err(corrupt("its index is out of place", trailer_at));
    }
    let index_len = usize::try_from(trailer.index_len)
        .map_err(|_| corrupt("its index is too large", trailer_at))?;
    let mut index = vec![0; index_len];
    read_at(&mut index, index_at)?;
    if Digest::of(&index) != trailer.index_digest {
        return Err(corrupt("its index was changed", index_at));
    }
    let mut cursor = Cursor {
        bytes: &index,
        at: 0,
        data_end: index_at,
        features: trailer.features,
        id,
    };
    let mut entries = Vec::new();
    let mut data_bytes = 0_u64;
    while cursor.at < index.len() {
        let at = index_at + cursor.at as u64;
        let (path, entry, data) = cursor
            .entry()
            .ok_or_else(|| corrupt("an entry is malformed", at))?;
        if entries
            .last()
            .is_some_and(|(last, _): &(Vec<u8>, _)| *last >= path)
        {
            return Err(corrupt("its entries are not sorted", at));
        }
        data_bytes = data_bytes.saturating_add(data);
        entries.push((path, entry));
    }
    if entries.len() as u64 != trailer.entries || data_bytes != trailer.data_bytes {
        return Err(corrupt(
            "its trailer does not count what the index holds",
            trailer_at,
        ));
    }
    let diff = LayerDiff {
        entries: entries.into_iter().collect::<BTreeMap<_, _>>(),
    };
    check_links(&diff).map_err(|()| corrupt("a hard link has no target", index_at))?;
    let info = LayerInfo {
        digest: trailer.index_digest,
        entries: trailer.entries,
        data_bytes,
        bytes: size,
    };
    Ok((diff, info))
}

/// Compares the data of every file with the digests of the index.
pub fn verify(diff: &LayerDiff, blobs: &BlobTable) -> Result<(), LayerReadError> {
    for (path, entry) in &diff.entries {
        let LayerEntry::Put(inode) = entry else {
            continue;
        };
        let Kind::File(content) = &inode.kind else {
            continue;
        };
        let Some(expected) = content.digest else {
            continue;
        };
        let unknown = Content {
            digest: None,
            ..content.clone()
        };
        let found = unknown
            .content_digest(blobs)
            .map_err(|source| LayerReadError::Read { offset: 0, source })?;
        if found != expected {
            return Err(LayerReadError::Data {
                path: path.clone(),
                expected,
                found,
            });
        }
    }
    Ok(())
}

fn check_links(diff: &LayerDiff) -> Result<(), ()> {
    let good = diff.entries.iter().all(|(path, entry)| match entry {
        LayerEntry::Link(target) => match diff.entries.get(target) {
            Some(LayerEntry::Put(inode)) => target < path && !matches!(inode.kind, Kind::Dir),
            _ => false,
        },
        _ => true,
    });
    good.then_some(()).ok_or(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// End of the data area of the layer file.
    data_end: u64,
    features: u32,
    id: BlobId,
}

impl Cursor<'_> {
    /// One entry with its path and its bytes of data. `None` when it is malformed.
    fn entry(&mut self) -> Option<(Vec<u8>, LayerEntry, u64)> {
        let [op, kind] = self.array()?;
        let mode = u16::from_le_bytes(self.array()?);
        let path = self.counted(format::MAX_PATH)?.to_vec();
        if !format::is_entry_path(&path) || mode > 0o7777 {
            return None;
        }
        let has_inode = op == format::OP_PUT || op == format::OP_PUT_OPAQUE;
        if !has_inode && (kind != 0 || mode != 0 || path.is_empty()) {
            return None;
        }
        match op {
            format::OP_LINK => {
                let target = self.counted(format::MAX_PATH)?.to_vec();
                Some((path, LayerEntry::Link(target), 0))
            }
            format::OP_WHITEOUT => Some((path, LayerEntry::Whiteout, 0)),
            format::OP_PUT | format::OP_PUT_OPAQUE => {
                let (inode, data) = self.inode(kind, mode)?;
                let is_dir = matches!(inode.kind, Kind::Dir);
                let opaque = op == format::OP_PUT_OPAQUE;
                if !is_dir && (opaque || path.is_empty()) {
                    return None;
                }
                let entry = if opaque {
                    LayerEntry::PutOpaque(inode)
                } else {
                    LayerEntry::Put(inode)
                };
                Some((path, entry, data))
            }
            _ => None,
        }
    }

    fn inode(&mut self, kind: u8, mode: u16) -> Option<(Inode, u64)> {
        let uid = self.u32()?;
        let gid = self.u32()?;
        let secs = i64::from_le_bytes(self.array()?);
        let nanos = self.u32().filter(|nanos| *nanos < 1_000_000_000)?;
        let flags = match self.features & format::FEATURE_INODE_FLAGS {
            0 => InodeFlags::NONE,
            _ => InodeFlags::from_bits(self.u32()?)?,
        };
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.u32()? {
            let name = self.counted(format::MAX_XATTR_NAME)?.to_vec();
            let value = self.counted(format::MAX_XATTR_VALUE)?.to_vec();
            let sorted = xattrs.last_key_value().is_none_or(|(last, _)| *last < name);
            if name.is_empty() || name.contains(&0) || !sorted {
                return None;
            }
            xattrs.insert(name, value);
        }
        let mut data = 0;
        let kind = match kind {
            format::KIND_DIR => Kind::Dir,
            format::KIND_FILE => {
                let content = self.content()?;
                data = content.data_len();
                Kind::File(content)
            }
            format::KIND_SYMLINK => {
                let target = self.counted(format::MAX_PATH)?.to_vec();
                if target.is_empty() || target.contains(&0) {
                    return None;
                }
                Kind::Symlink(target)
            }
            format::KIND_CHAR => Kind::CharDev {
                major: self.u32()?,
                minor: self.u32()?,
            },
            format::KIND_BLOCK => Kind::BlockDev {
                major: self.u32()?,
                minor: self.u32()?,
            },
            format::KIND_FIFO => Kind::Fifo,
            format::KIND_SOCKET => Kind::Socket,
            _ => return None,
        };
        let stat = Stat {
            mode,
            uid,
            gid,
            mtime: Timestamp { secs, nanos },
        };
        let inode = Inode {
            stat,
            kind,
            xattrs,
            flags,
        };
        Some((inode, data))
    }

    fn content(&mut self) -> Option<Content> {
        let size = self.u64()?;
        let digest = Digest::from_bytes(self.array()?);
        let count = self.u32()?;
        let mut extents = Vec::new();
        for _ in 0..count {
            let (offset, len, place) = (self.u64()?, self.u64()?, self.u64()?);
            let end = place.checked_add(len)?;
            if place < format::HEADER_LEN || end > self.data_end || !place.is_multiple_of(ALIGN) {
                return None;
            }
            extents.push(DataExtent {
                offset,
                len,
                source: DataSource::Blob {
                    id: self.id,
                    offset: place,
                },
            });
        }
        let content = Content {
            size,
            extents,
            digest: Some(digest),
        };
        content.is_well_formed().then_some(content)
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn counted(&mut self, max: usize) -> Option<&[u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        (len <= max).then_some(())?;
        self.take(len)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.first_chunk().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }
}
