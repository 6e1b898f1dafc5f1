//! A diff to index bytes.

use std::collections::BTreeMap;

use amiforge_types::Digest;

use super::format::{self, Trailer};
use super::{LayerInfo, LayerWriteError, VERSION};
use crate::{Inode, Kind, LayerDiff, LayerEntry};

type Placed<'a> = BTreeMap<&'a [u8], (&'a [u64], Digest)>;

/// Refuses what the reader would refuse.
pub(super) fn check(diff: &LayerDiff) -> Result<(), LayerWriteError> {
    for (path, entry) in &diff.entries {
        let fail = |what| {
            Err(LayerWriteError::Entry {
                path: path.clone(),
                what,
            })
        };
        if !format::is_entry_path(path) {
            return fail("not a path");
        }
        match entry {
            LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => {
                if let Some(what) = inode_fault(inode) {
                    return fail(what);
                }
                let is_dir = matches!(inode.kind, Kind::Dir);
                if !is_dir && (path.is_empty() || matches!(entry, LayerEntry::PutOpaque(_))) {
                    return fail("not a directory");
                }
            }
            LayerEntry::Link(target) => match diff.entries.get(target) {
                Some(LayerEntry::Put(inode))
                    if target < path && !matches!(inode.kind, Kind::Dir) => {}
                _ => return fail("its target is not an earlier file of the layer"),
            },
            LayerEntry::Whiteout if path.is_empty() => return fail("the root cannot go"),
            LayerEntry::Whiteout => {}
        }
    }
    Ok(())
}

fn inode_fault(inode: &Inode) -> Option<&'static str> {
    let stat = &inode.stat;
    if stat.mode > 0o7777 || stat.mtime.nanos >= 1_000_000_000 {
        return Some("mode or time out of range");
    }
    let xattr_fits = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        !name.is_empty()
            && name.len() <= format::MAX_XATTR_NAME
            && !name.contains(&0)
            && value.len() <= format::MAX_XATTR_VALUE
    };
    if !inode.xattrs.iter().all(xattr_fits) {
        return Some("an extended attribute is too long");
    }
    match &inode.kind {
        Kind::File(content) if !content.is_well_formed() => Some("malformed extents"),
        Kind::Symlink(target)
            if target.is_empty() || target.len() > format::MAX_PATH || target.contains(&0) =>
        {
            Some("malformed link target")
        }
        _ => None,
    }
}

/// Index and trailer.
pub(super) fn tail(
    diff: &LayerDiff,
    features: u32,
    placed: &Placed<'_>,
    index_offset: u64,
    data_bytes: u64,
) -> Result<(Vec<u8>, LayerInfo), LayerWriteError> {
    let mut out = Vec::with_capacity(diff.entries.len() * 160);
    for (path, entry) in &diff.entries {
        put_entry(&mut out, path, entry, features, placed).ok_or_else(|| {
            LayerWriteError::Entry {
                path: path.clone(),
                what: "a field is out of range",
            }
        })?;
    }
    let trailer = Trailer {
        version: VERSION,
        features,
        index_offset,
        index_len: out.len() as u64,
        entries: diff.entries.len() as u64,
        data_bytes,
        index_digest: Digest::of(&out),
    };
    out.extend_from_slice(&trailer.to_bytes());
    let info = LayerInfo {
        digest: trailer.index_digest,
        entries: trailer.entries,
        data_bytes,
        bytes: index_offset + out.len() as u64,
    };
    Ok((out, info))
}

fn put_entry(
    out: &mut Vec<u8>,
    path: &[u8],
    entry: &LayerEntry,
    features: u32,
    placed: &Placed<'_>,
) -> Option<()> {
    let (op, inode) = match entry {
        LayerEntry::Put(inode) => (format::OP_PUT, Some(inode)),
        LayerEntry::PutOpaque(inode) => (format::OP_PUT_OPAQUE, Some(inode)),
        LayerEntry::Link(_) => (format::OP_LINK, None),
        LayerEntry::Whiteout => (format::OP_WHITEOUT, None),
    };
    out.push(op);
    out.push(inode.map_or(0, |inode| kind_code(&inode.kind)));
    out.extend_from_slice(&inode.map_or(0, |inode| inode.stat.mode).to_le_bytes());
    put_bytes(out, path)?;
    if let LayerEntry::Link(target) = entry {
        put_bytes(out, target)?;
    }
    let Some(inode) = inode else { return Some(()) };
    out.extend_from_slice(&inode.stat.uid.to_le_bytes());
    out.extend_from_slice(&inode.stat.gid.to_le_bytes());
    out.extend_from_slice(&inode.stat.mtime.secs.to_le_bytes());
    out.extend_from_slice(&inode.stat.mtime.nanos.to_le_bytes());
    if features & format::FEATURE_INODE_FLAGS != 0 {
        out.extend_from_slice(&inode.flags.bits().to_le_bytes());
    }
    out.extend_from_slice(&u32::try_from(inode.xattrs.len()).ok()?.to_le_bytes());
    for (name, value) in &inode.xattrs {
        put_bytes(out, name)?;
        put_bytes(out, value)?;
    }
    match &inode.kind {
        Kind::File(content) => {
            let (places, digest) = placed.get(path)?;
            out.extend_from_slice(&content.size.to_le_bytes());
            out.extend_from_slice(digest.as_bytes());
            out.extend_from_slice(&u32::try_from(content.extents.len()).ok()?.to_le_bytes());
            for (extent, place) in content.extents.iter().zip(*places) {
                for field in [extent.offset, extent.len, *place] {
                    out.extend_from_slice(&field.to_le_bytes());
                }
            }
        }
        Kind::Symlink(target) => put_bytes(out, target)?,
        Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
            out.extend_from_slice(&major.to_le_bytes());
            out.extend_from_slice(&minor.to_le_bytes());
        }
        Kind::Dir | Kind::Fifo | Kind::Socket => {}
    }
    Some(())
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    out.extend_from_slice(bytes);
    Some(())
}

fn kind_code(kind: &Kind) -> u8 {
    match kind {
        Kind::Dir => format::KIND_DIR,
        Kind::File(_) => format::KIND_FILE,
        Kind::Symlink(_) => format::KIND_SYMLINK,
        Kind::CharDev { .. } => format::KIND_CHAR,
        Kind::BlockDev { .. } => format::KIND_BLOCK,
        Kind::Fifo => format::KIND_FIFO,
        Kind::Socket => format::KIND_SOCKET,
    }
}
