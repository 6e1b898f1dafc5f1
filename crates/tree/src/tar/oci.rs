//! A layer to an archive of changes, as the layers of OCI images are (image-spec 1.1, "Image Layer
//! Filesystem Changeset").
//!
//! ```text
//! etc/                      a directory: its stat replaces that of the one below
//! etc/.wh.motd              `motd` of the layers below is gone
//! opt/app/                  a directory that shows nothing of the layers below:
//! opt/app/.wh..wh..opq      … says the empty file in it, before everything else in it
//! opt/app/run               replaces what was there, of whatever type
//! ```
//!
//! Members stand in path order, so parents come before children and the first name of a hard-linked file
//! before the others. The format has no holes (readers do not agree on them): they are written as zeros.
//! It has no sockets either; where one hides something, that something gets a whiteout.

use std::io::Write;

use amiforge_types::{BlobTable, Timestamp};

use super::header::BLOCK;
use super::write::{Member, Reader, TarWriteError, copy, pad};
use crate::{Inode, Kind, LayerDiff, LayerEntry, Stat};

/// Begins the name of a whiteout; no other file can have such a name.
const WHITEOUT: &[u8] = b".wh.";
/// Name of the file that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Most bytes of holes that become zeros, in one layer.
const MOST_HOLES: u64 = 64 << 30;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangesSummary {
    /// Members.
    pub members: u64,
    /// Sockets left out.
    pub sockets_skipped: u64,
}

/// Writes the changes of a layer. The bytes depend on `diff` and the data alone.
///
/// # Errors
/// When data cannot be read or written, and when a file has a name that only a whiteout can have or more holes
/// than can be written out.
pub fn write_changes(
    diff: &LayerDiff,
    blobs: &BlobTable,
    out: &mut dyn Write,
) -> Result<ChangesSummary, TarWriteError> {
    let mut summary = ChangesSummary::default();
    let mut holes = 0_u64;
    for (path, entry) in &diff.entries {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
        if name.starts_with(WHITEOUT) {
            return Err(TarWriteError::Entry {
                path: path.clone(),
                what: "in a container image, a name that begins with .wh. is the mark of a removed file",
            });
        }
        summary.members += 1;
        match entry {
            LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) if inode.kind == Kind::Socket => {
                summary.sockets_skipped += 1;
                marker(parent(path), &[WHITEOUT, name].concat(), out)?;
            }
            LayerEntry::Put(inode) => put(path, inode, &mut holes, blobs, out)?,
            LayerEntry::PutOpaque(inode) => {
                put(path, inode, &mut holes, blobs, out)?;
                marker(path, OPAQUE, out)?;
                summary.members += 1;
            }
            LayerEntry::Link(target) => match diff.entries.get(target) {
                Some(LayerEntry::Put(inode)) if inode.kind != Kind::Socket => {
                    Member::new(path, inode, Some(target), Reader::Container)
                        .write(out)
                        .map_err(TarWriteError::Write)?;
                }
                Some(LayerEntry::Put(_)) => {
                    summary.sockets_skipped += 1;
                    marker(parent(path), &[WHITEOUT, name].concat(), out)?;
                }
                _ => {
                    return Err(TarWriteError::Entry {
                        path: path.clone(),
                        what: "it is a hard link to nothing of its layer",
                    });
                }
            },
            LayerEntry::Whiteout => marker(parent(path), &[WHITEOUT, name].concat(), out)?,
        }
    }
    out.write_all(&[0; 2 * BLOCK])
        .map_err(TarWriteError::Write)?;
    out.flush().map_err(TarWriteError::Write)?;
    Ok(summary)
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|b| *b == b'/')
        .map_or(&[], |at| &path[..at])
}

/// An empty file that only says something.
fn marker(dir: &[u8], name: &[u8], out: &mut dyn Write) -> Result<(), TarWriteError> {
    let path = match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    };
    let stat = Stat {
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
    };
    let inode = Inode::new(stat, Kind::File(crate::Content::default()));
    Member::new(&path, &inode, None, Reader::Container)
        .write(out)
        .map_err(TarWriteError::Write)
}

fn put(
    path: &[u8],
    inode: &Inode,
    holes: &mut u64,
    blobs: &BlobTable,
    out: &mut dyn Write,
) -> Result<(), TarWriteError> {
    let mut member = Member::new(path, inode, None, Reader::Container);
    if inode.xattrs.keys().any(|name| name.contains(&b'=')) {
        return Err(TarWriteError::Entry {
            path: path.to_vec(),
            what: "no archive can hold an extended attribute with `=` in its name",
        });
    }
    let Kind::File(content) = &inode.kind else {
        return member.write(out).map_err(TarWriteError::Write);
    };
    *holes = holes.saturating_add(content.size.saturating_sub(content.data_len()));
    if *holes > MOST_HOLES || !content.is_well_formed() {
        return Err(TarWriteError::Entry {
            path: path.to_vec(),
            what: "layers of containers have no holes, and with this file there would be more than 64 GiB of zeros in one",
        });
    }
    member.size = content.size;
    member.write(out).map_err(TarWriteError::Write)?;
    let mut at = 0;
    for extent in &content.extents {
        zeros(extent.offset.saturating_sub(at), out)?;
        copy(extent, path, blobs, out)?;
        at = extent.offset.saturating_add(extent.len);
    }
    zeros(content.size.saturating_sub(at), out)?;
    pad(content.size, out).map_err(TarWriteError::Write)
}

fn zeros(mut len: u64, out: &mut dyn Write) -> Result<(), TarWriteError> {
    const ZEROS: [u8; 1 << 14] = [0; 1 << 14];
    while len > 0 {
        let n = usize::try_from(len).unwrap_or(ZEROS.len()).min(ZEROS.len());
        out.write_all(&ZEROS[..n]).map_err(TarWriteError::Write)?;
        len -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
