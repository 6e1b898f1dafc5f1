//! Collects extents: metadata block by block, file data run by run, neighbours joined.

use std::collections::BTreeSet;
use std::sync::Arc;

use amiforge_disk::{Extent, ExtentData, Make};
use amiforge_types::BlobId;

use super::BLOCK_SIZE;

/// Bytes of metadata that are joined into one extent.
const MAX_PENDING: usize = 1 << 20;

/// Bytes of neighbours that are made when they are read and become one extent: a part of it is found by
/// looking through all of it.
pub(super) const MAX_MADE: u64 = 1 << 20;

/// Largest file that is not worth an extent of its own.
pub(super) const SMALL: u64 = 64 << 10;

/// Extents in the making.
pub(super) struct Emitter<'o> {
    list: Vec<Extent>,
    /// Metadata that may go on: first byte and content.
    pending: (u64, Vec<u8>),
    padded: &'o BTreeSet<BlobId>,
    /// The last extent is one that neighbours may still join.
    open: bool,
    /// Where the last run of a blob ended: blob, byte in it, byte of the volume.
    last_run: Option<(BlobId, u64, u64)>,
}

impl<'o> Emitter<'o> {
    /// An empty collection; `padded` is [`Options::padded_blobs`](super::Options::padded_blobs).
    pub(super) fn new(padded: &'o BTreeSet<BlobId>) -> Self {
        Self {
            list: Vec::new(),
            pending: (0, Vec::new()),
            padded,
            open: false,
            last_run: None,
        }
    }

    /// Metadata at a block; bytes beyond `bytes` up to the end of its last block are zero.
    pub(super) fn block(&mut self, number: u64, bytes: &[u8]) {
        let offset = number * BLOCK_SIZE;
        let (start, pending) = &mut self.pending;
        let padded_end = *start + (pending.len() as u64).next_multiple_of(BLOCK_SIZE);
        if pending.is_empty() || padded_end != offset || pending.len() >= MAX_PENDING {
            self.flush();
            self.pending.0 = offset;
        }
        let pending = &mut self.pending.1;
        pending.resize(pending.len().next_multiple_of(4096), 0);
        pending.extend_from_slice(bytes);
    }

    /// Metadata at a byte offset that others share.
    pub(super) fn shared(&mut self, offset: u64, bytes: Arc<[u8]>) {
        self.push(Extent {
            offset,
            len: bytes.len() as u64,
            data: ExtentData::Bytes(bytes),
        });
    }

    /// Any extent.
    pub(super) fn push(&mut self, extent: Extent) {
        self.open = false;
        self.list.push(extent);
    }

    /// Something that is made when it is read. `maker` serves all neighbours that follow, of which each
    /// is handed its place on the volume, up to [`Emitter::close`].
    pub(super) fn made(&mut self, offset: u64, len: u64, maker: impl FnOnce() -> Arc<dyn Make>) {
        if self.open
            && let Some(last) = self.list.last_mut()
            && last.end().next_multiple_of(BLOCK_SIZE) == offset
            && last.len < MAX_MADE
        {
            last.len = offset + len - last.offset;
            return;
        }
        self.push(Extent {
            offset,
            len,
            data: ExtentData::Made {
                maker: maker(),
                offset,
            },
        });
        self.open = true;
    }

    /// Lets nothing join the last extent.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// A small file that is one run of a blob. Where runs become one extent anyway it joins them, else
    /// its neighbours.
    pub(super) fn small(
        &mut self,
        offset: u64,
        id: BlobId,
        from: u64,
        len: u64,
        maker: impl FnOnce() -> Arc<dyn Make>,
    ) {
        let goes_on = self.last_run == Some((id, from, offset));
        if goes_on || self.padded.contains(&id) {
            self.blob(offset, id, from, len);
        } else {
            self.made(offset, len, maker);
        }
        self.last_run = Some((id, from + len, offset + len));
    }

    /// File data in memory: `len` bytes of `bytes` from `from` on.
    pub(super) fn bytes(&mut self, offset: u64, bytes: &Arc<[u8]>, from: u64, len: u64) {
        let range = usize::try_from(from)
            .ok()
            .zip(usize::try_from(from + len).ok());
        let part = range
            .and_then(|(start, end)| bytes.get(start..end))
            .unwrap_or_default();
        let data = if part.len() == bytes.len() {
            Arc::clone(bytes)
        } else {
            part.into()
        };
        self.shared(offset, data);
    }

    /// File data in a blob.
    pub(super) fn blob(&mut self, offset: u64, id: BlobId, from: u64, len: u64) {
        if let Some(last) = self.list.last_mut()
            && let ExtentData::Blob {
                id: last_id,
                offset: last_from,
            } = last.data
            && last_id == id
            && from > last_from
            && from - last_from == offset.wrapping_sub(last.offset)
        {
            let distance = from - last_from;
            let aligned =
                last_from.is_multiple_of(BLOCK_SIZE) && last.offset.is_multiple_of(BLOCK_SIZE);
            let padded = aligned
                && self.padded.contains(&id)
                && last.len.next_multiple_of(BLOCK_SIZE) == distance;
            if distance == last.len || padded {
                last.len = distance + len;
                return;
            }
        }
        self.push(Extent {
            offset,
            len,
            data: ExtentData::Blob { id, offset: from },
        });
    }

    fn flush(&mut self) {
        let (offset, bytes) = std::mem::take(&mut self.pending);
        if !bytes.is_empty() {
            self.shared(offset, bytes.into());
        }
    }

    /// Everything collected.
    pub(super) fn finish(mut self) -> Vec<Extent> {
        self.flush();
        self.list
    }
}
