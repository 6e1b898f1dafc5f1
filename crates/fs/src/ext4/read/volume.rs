//! Blocks of a file system, as its journal leaves them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::bytes::index;
use super::error::{Fault, Place};
use super::journal;
use crate::window::Window;

/// Bytes of metadata that are kept.
const CACHE: u64 = 16 << 20;

/// The bytes of a block.
pub(super) type Block = Arc<[u8]>;

/// Where the newest version of a block is when the journal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logged {
    /// The block of the file system that holds it, part of the journal.
    pub(super) block: u64,
    /// Its first four bytes are the journal's magic number, and are zero in the journal.
    pub(super) escaped: bool,
}

/// A file system's blocks.
pub(super) struct Volume {
    window: Window,
    /// Bytes in a block.
    pub(super) block_size: u64,
    /// Blocks of the file system.
    pub(super) blocks: u64,
    /// The first block that may hold anything but the boot sector.
    pub(super) first: u64,
    overlay: HashMap<u64, Logged>,
    cache: Mutex<Cache>,
}

/// Blocks in two generations: what the younger one outgrows becomes the older one, whose blocks go
/// unless they are asked for again.
#[derive(Default)]
struct Cache {
    young: HashMap<u64, Block>,
    old: HashMap<u64, Block>,
}

impl Volume {
    pub(super) fn new(window: Window, block_size: u64, blocks: u64, first: u64) -> Self {
        Self {
            window,
            block_size,
            blocks,
            first,
            overlay: HashMap::new(),
            cache: Mutex::default(),
        }
    }

    /// The same volume, where blocks that the journal has come from there.
    pub(super) fn with_overlay(mut self, overlay: HashMap<u64, Logged>) -> Self {
        self.overlay = overlay;
        self.cache = Mutex::default();
        self
    }

    /// True for a block that can hold something.
    pub(super) fn holds(&self, block: u64) -> bool {
        (self.first..self.blocks).contains(&block)
    }

    /// A block of metadata.
    pub(super) fn block(&self, number: u64, place: Place) -> Result<Block, Fault> {
        if number >= self.blocks {
            return Err(Fault::damaged(place, "is outside of the file system"));
        }
        if let Some(block) = self.cached(number) {
            return Ok(block);
        }
        let mut bytes = vec![0; index(self.block_size)];
        self.read_block(number, 0, &mut bytes)
            .map_err(|source| Fault::Io { place, source })?;
        let block: Block = bytes.into();
        self.keep(number, &block);
        Ok(block)
    }

    /// A block as it lies on the disk, without what the journal says about it.
    pub(super) fn block_on_disk(&self, number: u64, place: Place) -> Result<Vec<u8>, Fault> {
        if number >= self.blocks {
            return Err(Fault::damaged(place, "is outside of the file system"));
        }
        let mut bytes = vec![0; index(self.block_size)];
        self.window
            .read_exact_at(&mut bytes, number * self.block_size)
            .map_err(|source| Fault::Io { place, source })?;
        Ok(bytes)
    }

    /// Fills `buf` from a byte offset of the file system on. Whatever asks has made sure that the
    /// range is inside of it.
    pub(super) fn read(&self, mut at: u64, mut buf: &mut [u8], place: Place) -> Result<(), Fault> {
        let failed = |source| Fault::Io { place, source };
        if self.overlay.is_empty() {
            return self.window.read_exact_at(buf, at).map_err(failed);
        }
        while !buf.is_empty() {
            let (number, skip) = (at / self.block_size, at % self.block_size);
            let len = index(self.block_size - skip).min(buf.len());
            let (part, rest) = buf.split_at_mut(len);
            self.read_block(number, skip, part).map_err(failed)?;
            at += len as u64;
            buf = rest;
        }
        Ok(())
    }

    /// Where a block is on the disk, and whether its first bytes have to be restored.
    pub(super) fn find(&self, number: u64) -> (u64, bool) {
        match self.overlay.get(&number) {
            Some(logged) => (logged.block, logged.escaped),
            None => (number, false),
        }
    }

    /// True when some blocks are not in their place.
    pub(super) fn has_overlay(&self) -> bool {
        !self.overlay.is_empty()
    }

    fn read_block(&self, number: u64, skip: u64, buf: &mut [u8]) -> io::Result<()> {
        let (block, escaped) = self.find(number);
        let at = block
            .checked_mul(self.block_size)
            .and_then(|start| start.checked_add(skip))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        self.window.read_exact_at(buf, at)?;
        if escaped {
            let magic = journal::MAGIC.to_be_bytes();
            for (byte, value) in buf.iter_mut().zip(magic.iter().skip(index(skip))) {
                *byte = *value;
            }
        }
        Ok(())
    }

    fn cached(&self, number: u64) -> Option<Block> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = cache.young.get(&number) {
            return Some(Arc::clone(block));
        }
        let block = cache.old.remove(&number)?;
        cache.young.insert(number, Arc::clone(&block));
        Some(block)
    }

    fn keep(&self, number: u64, block: &Block) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.young.len() as u64 >= CACHE / 2 / self.block_size {
            cache.old = std::mem::take(&mut cache.young);
        }
        cache.young.insert(number, Arc::clone(block));
    }
}
