//! Constants and fixed structures of the layer file, version 2. All numbers are little-endian.
//!
//! ```text
//! 0            header, 4,096 bytes: magic, version, features, alignment, zeros
//! 4096         file data, each run at a multiple of 4,096, zeros between
//! index_offset index: the entries in path order, without gaps
//! ..           trailer, 128 bytes, ends the file
//! ```

use amiforge_types::Digest;

use super::{ALIGN, VERSION};
use crate::{LayerDiff, LayerEntry};

pub(super) const HEADER_MAGIC: [u8; 8] = *b"AMIFLAYR";
pub(super) const TRAILER_MAGIC: [u8; 8] = *b"AMIFLEND";
pub(super) const HEADER_LEN: u64 = ALIGN;
pub(super) const TRAILER_LEN: usize = 128;

/// Longest path, link target and hard-link target in bytes.
pub(super) const MAX_PATH: usize = 64 << 10;
/// Longest name of an extended attribute (`XATTR_NAME_MAX`).
pub(super) const MAX_XATTR_NAME: usize = 255;
/// Longest value of an extended attribute (`XATTR_SIZE_MAX`).
pub(super) const MAX_XATTR_VALUE: usize = 64 << 10;

pub(super) const OP_PUT: u8 = 0;
pub(super) const OP_PUT_OPAQUE: u8 = 1;
pub(super) const OP_LINK: u8 = 2;
pub(super) const OP_WHITEOUT: u8 = 3;

pub(super) const KIND_DIR: u8 = 0;
pub(super) const KIND_FILE: u8 = 1;
pub(super) const KIND_SYMLINK: u8 = 2;
pub(super) const KIND_CHAR: u8 = 3;
pub(super) const KIND_BLOCK: u8 = 4;
pub(super) const KIND_FIFO: u8 = 5;
pub(super) const KIND_SOCKET: u8 = 6;

/// Feature: each put has the flags of its inode. Only layers with any have it, so that all others
/// are the same bytes as ever, and can be read by earlier releases.
pub(super) const FEATURE_INODE_FLAGS: u32 = 1;
/// Features that are read.
pub(super) const KNOWN_FEATURES: u32 = FEATURE_INODE_FLAGS;

/// The features that a diff needs.
pub(super) fn features_of(diff: &LayerDiff) -> u32 {
    let has_flags = diff.entries.values().any(|entry| match entry {
        LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => !inode.flags.is_empty(),
        LayerEntry::Link(_) | LayerEntry::Whiteout => false,
    });
    if has_flags { FEATURE_INODE_FLAGS } else { 0 }
}

/// The first 4,096 bytes of every version 2 file.
pub(super) fn header(features: u32) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(HEADER_LEN).unwrap_or(4096)];
    out[..8].copy_from_slice(&HEADER_MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&features.to_le_bytes());
    out[16..24].copy_from_slice(&ALIGN.to_le_bytes());
    out
}

/// The last 128 bytes of the file.
///
/// ```text
/// 0  magic "AMIFLEND"     32 entries
/// 8  version u32          40 bytes of file data
/// 12 features u32         48 SHA-256 of the index
/// 16 index offset         80 zeros
/// 24 index length         96 SHA-256 of bytes 0..96
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub(super) version: u32,
    pub(super) features: u32,
    pub(super) index_offset: u64,
    pub(super) index_len: u64,
    pub(super) entries: u64,
    pub(super) data_bytes: u64,
    pub(super) index_digest: Digest,
}

impl Trailer {
    pub(super) fn to_bytes(self) -> [u8; TRAILER_LEN] {
        let mut out = [0; TRAILER_LEN];
        out[..8].copy_from_slice(&TRAILER_MAGIC);
        out[8..12].copy_from_slice(&self.version.to_le_bytes());
        out[12..16].copy_from_slice(&self.features.to_le_bytes());
        for (i, field) in [
            self.index_offset,
            self.index_len,
            self.entries,
            self.data_bytes,
        ]
        .iter()
        .enumerate()
        {
            out[16 + 8 * i..24 + 8 * i].copy_from_slice(&field.to_le_bytes());
        }
        out[48..80].copy_from_slice(self.index_digest.as_bytes());
        let digest = Digest::of(&out[..96]);
        out[96..].copy_from_slice(digest.as_bytes());
        out
    }

    /// `None` when magic or digest do not match.
    pub(super) fn from_bytes(bytes: &[u8; TRAILER_LEN]) -> Option<Self> {
        if bytes[..8] != TRAILER_MAGIC || Digest::of(&bytes[..96]).as_bytes()[..] != bytes[96..] {
            return None;
        }
        let u32_at = |at: usize| bytes[at..].first_chunk().map(|b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| bytes[at..].first_chunk().map(|b| u64::from_le_bytes(*b));
        Some(Self {
            version: u32_at(8)?,
            features: u32_at(12)?,
            index_offset: u64_at(16)?,
            index_len: u64_at(24)?,
            entries: u64_at(32)?,
            data_bytes: u64_at(40)?,
            index_digest: Digest::from_bytes(*bytes[48..].first_chunk()?),
        })
    }
}

/// Whether `path` can name an entry: relative, no empty, `.` or `..` component, no zero byte, no
/// component above `NAME_MAX`. The empty path is the root.
pub(super) fn is_entry_path(path: &[u8]) -> bool {
    path.is_empty()
        || (path.len() <= MAX_PATH
            && path.split(|b| *b == b'/').all(|name| {
                !name.is_empty()
                    && name != b"."
                    && name != b".."
                    && name.len() <= crate::MAX_NAME
                    && !name.contains(&0)
            }))
}
