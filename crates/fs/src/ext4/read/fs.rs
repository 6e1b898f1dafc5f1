//! A file system by inode numbers: what paths and whole trees are read with.

use std::ops::Range;
use std::sync::Arc;

use amiforge_types::ReadAt;

use super::FileKind;
use super::bytes::index;
use super::error::{Fault, Place};
use super::inode::{self, Inode};
use super::map::{Budget, Run, Search};
use super::superblock::{Superblock, incompat};
use super::volume::Volume;
use super::{journal, xattr};
use crate::ext4::superblock::OFFSET;
use crate::window::Window;

const MAX_SYMLINK: u64 = 4096;

/// An open file system.
pub(super) struct Fs {
    pub(super) volume: Volume,
    pub(super) sb: Superblock,
}

impl Fs {
    /// Opens the file system in a part of a source, as its journal leaves it.
    pub(super) fn open(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Result<Self, Fault> {
        let place = Place::Superblock;
        let failed = |source| Fault::Io { place, source };
        let window = Window::new(source, offset, len).map_err(failed)?;
        let mut raw = [0; 1024];
        window
            .read_exact_at(&mut raw, OFFSET as u64)
            .map_err(failed)?;
        let sb = Superblock::parse(&raw, len)?;
        let volume = Volume::new(window, sb.block_size, sb.blocks, sb.first_block);
        let fs = Self { volume, sb };
        if !fs.sb.has_incompat(incompat::RECOVER) {
            return Ok(fs);
        }
        let overlay = journal::replay(&fs)?;
        let volume = fs.volume.with_overlay(overlay);
        // The superblock may be one of the blocks that the journal has.
        volume.read(OFFSET as u64, &mut raw, place)?;
        let sb = Superblock::parse(&raw, len)?;
        if (sb.block_size, sb.blocks, sb.first_block)
            != (fs.sb.block_size, fs.sb.blocks, fs.sb.first_block)
        {
            return Err(Fault::damaged(place, "has another geometry in the journal"));
        }
        Ok(Self { volume, sb })
    }

    /// An inode that may have no name.
    pub(super) fn inode(&self, number: u32) -> Result<Inode, Fault> {
        inode::read(&self.volume, &self.sb, number, false)
    }

    /// An inode that a name leads to.
    pub(super) fn named_inode(&self, number: u32) -> Result<Inode, Fault> {
        inode::read(&self.volume, &self.sb, number, true)
    }

    /// Where a range of a file's blocks is.
    pub(super) fn runs(
        &self,
        inode: &Inode,
        range: Range<u64>,
        budget: &mut Budget,
    ) -> Result<Vec<Run>, Fault> {
        Search {
            volume: &self.volume,
            inode,
            checksums: self.sb.has_checksums(),
            range,
            budget,
            runs: Vec::new(),
        }
        .run()
    }

    /// Data that is inside of the inode and its attributes: at most the size of a file, whose rest is a hole.
    pub(super) fn inline_data(&self, inode: &Inode) -> Result<Vec<u8>, Fault> {
        let mut data = inode.i_block().to_vec();
        data.extend(xattr::inline_data(self, inode)?);
        // A file may have grown without any data: e2fsck accepts it, and the kernel reads zeros behind what is here.
        if inode.size > data.len() as u64 && inode.kind != FileKind::File {
            return Err(Fault::damaged(
                Place::Inode(inode.number),
                "is larger than the data that it holds",
            ));
        }
        data.truncate(index(inode.size.min(data.len() as u64)));
        Ok(data)
    }

    /// Fills `buf` from a part of a file that is inside of its size. Holes read as zero.
    pub(super) fn read_data(
        &self,
        inode: &Inode,
        offset: u64,
        buf: &mut [u8],
        budget: &mut Budget,
    ) -> Result<(), Fault> {
        inode.refuse_transformed()?;
        if inode.has_inline_data() {
            let data = self.inline_data(inode)?;
            let part = data.get(index(offset)..).unwrap_or_default();
            let len = part.len().min(buf.len());
            buf[..len].copy_from_slice(&part[..len]);
            buf[len..].fill(0);
            return Ok(());
        }
        let block_size = self.sb.block_size;
        let end = offset.saturating_add(buf.len() as u64);
        let range = offset / block_size..end.div_ceil(block_size);
        let mut done = offset;
        for run in self.runs(inode, range, budget)? {
            let start = (run.logical * block_size).max(offset);
            let stop = ((run.logical + run.len) * block_size).min(end);
            if start >= stop {
                continue;
            }
            buf[index(done - offset)..index(start - offset)].fill(0);
            let at = run.physical * block_size + (start - run.logical * block_size);
            let part = &mut buf[index(start - offset)..index(stop - offset)];
            let place = Place::Data {
                inode: inode.number,
            };
            self.volume.read(at, part, place)?;
            done = stop;
        }
        buf[index(done - offset)..].fill(0);
        Ok(())
    }

    /// The target of a symbolic link.
    pub(super) fn link_target(&self, inode: &Inode) -> Result<Vec<u8>, Fault> {
        inode.refuse_transformed()?;
        let place = Place::Data {
            inode: inode.number,
        };
        let target = if inode.is_fast_symlink(self.sb.block_size, self.sb.cluster) {
            let target = inode.i_block().get(..index(inode.size));
            target.unwrap_or_default().to_vec()
        } else {
            if inode.size > MAX_SYMLINK.min(self.sb.block_size) {
                return Err(Fault::damaged(place, "is a target that is too long"));
            }
            let mut target = vec![0; index(inode.size)];
            self.read_data(inode, 0, &mut target, &mut Budget::of(&self.volume))?;
            target
        };
        if target.is_empty() || target.contains(&0) {
            return Err(Fault::damaged(place, "is a target that is none"));
        }
        Ok(target)
    }
}
