//! Third pass: the bytes of all metadata, and the extents of all data.

use std::sync::Arc;

use amiforge_disk::{Extent, ExtentData, Extents, Make};
use amiforge_tree::{DataExtent, DataSource, Kind};

use super::checksum::Crc;
use super::emit::{Emitter, MAX_MADE, SMALL};
use super::extent_tree::{self, Run};
use super::geometry::{
    ADDRESSES_PER_BLOCK, BLOCKS_PER_GROUP, GROUPS_PER_FLEX, INODE_SIZE, has_superblock,
};
use super::group::{self, BLOCK_UNINIT, GroupUse, INODE_UNINIT, INODE_ZEROED};
use super::inode::{self, EXTENTS_FL, InodeFields, mode};
use super::layout::Layout;
use super::made::{Folders, InodeTables, LargeFolder, Reserved, SmallFiles};
use super::place::{Mapping, map};
use super::scan::number_of;
use super::superblock::{self, JOURNAL_INODE, Totals};
use super::{BLOCK_SIZE, Ext4Error, Options, Plan, journal, xattr};

const BAD_BLOCKS_INODE: u32 = 1;
const RESIZE_INODE: u32 = 7;
const BLOCK: usize = 4096;

/// Writes a layout down.
pub(super) struct Writer<'a> {
    pub(super) options: &'a Options,
    pub(super) layout: Arc<Layout>,
    /// Bytes of the volume.
    pub(super) volume: u64,
}

impl Writer<'_> {
    /// Writes it all down.
    pub(super) fn write(&self) -> Result<Plan, Ext4Error> {
        let Layout {
            scan,
            geometry,
            placement,
            crc,
            ..
        } = &*self.layout;
        let crc = *crc;
        let mut out = Emitter::new(&self.options.padded_blobs);
        // In the order in which blocks were handed out, so that neighbours come one after the other.
        self.files(&mut out);
        self.others(&mut out);
        self.folders(&mut out);
        let mut reserved = Reserved::new();
        let journal = self.reserved_inodes(&mut reserved, crc, &mut out);
        self.inode_tables(reserved, &mut out);

        let uses = self.bitmaps(crc, &mut out);
        let free_blocks = uses.iter().map(|u| u.free_blocks).sum();
        let free_inodes = geometry.inodes() - scan.used_inodes();
        let fixed: u64 = geometry.fixed.iter().map(|r| r.end - r.start).sum();
        let totals = Totals {
            free_blocks,
            free_inodes,
            overhead_blocks: fixed + placement.journal_blocks,
            journal,
        };
        self.superblocks(&uses, &totals, crc, &mut out);
        Ok(Plan {
            extents: Extents::new(self.volume, out.finish()).map_err(Ext4Error::Layout)?,
            size: geometry.blocks * BLOCK_SIZE,
            uuid: self.options.uuid,
            label: self.options.label.clone(),
            blocks: geometry.blocks,
            free_blocks,
            inodes: geometry.inodes(),
            free_inodes,
            journal_blocks: placement.journal_blocks,
        })
    }

    /// Emits the blocks of an extent tree that does not fit into the inode.
    fn extent_blocks(&self, place: usize, mapping: &Mapping, out: &mut Emitter<'_>) {
        if !mapping.tree.is_empty() {
            let number = number_of(place);
            let tree = mapping.tree.iter().copied();
            extent_tree::build(
                &mapping.runs,
                tree,
                self.layout.crc.of_inode(number),
                |block, bytes| out.block(block, bytes),
            );
        }
    }

    /// Emits all directories as something that is made when it is read: large ones each for itself, and the
    /// others with their neighbours.
    fn folders(&self, out: &mut Emitter<'_>) {
        let layout = &self.layout;
        for (first, folder) in layout.scan.folders.iter().enumerate() {
            let place = folder.place as usize;
            let mapping = layout.mapping(place);
            if u64::from(folder.blocks) * BLOCK_SIZE <= MAX_MADE {
                for run in &mapping.runs {
                    out.made(run.physical * BLOCK_SIZE, run.len * BLOCK_SIZE, || {
                        Arc::new(Folders::new(Arc::clone(layout), first))
                    });
                }
            } else if let Some(shape) = layout.scan.shape(folder) {
                let maker: Arc<dyn Make> = Arc::new(LargeFolder::new(Arc::clone(layout), shape));
                for run in &mapping.runs {
                    out.push(Extent {
                        offset: run.physical * BLOCK_SIZE,
                        len: run.len * BLOCK_SIZE,
                        data: ExtentData::Made {
                            maker: Arc::clone(&maker),
                            offset: run.logical * BLOCK_SIZE,
                        },
                    });
                }
            }
            self.extent_blocks(place, &mapping, out);
        }
        out.close();
    }

    /// Emits long symbolic links and blocks of attributes.
    fn others(&self, out: &mut Emitter<'_>) {
        let layout = &self.layout;
        for other in &layout.scan.others {
            let place = other.place as usize;
            let Some(ino) = layout.scan.ino(place) else {
                continue;
            };
            let inode = layout.scan.tree.inode(ino);
            if other.link
                && let Kind::Symlink(target) = &inode.kind
                && let Some(run) = layout.mapping(place).runs.first()
            {
                out.block(run.physical, target);
            }
            if other.attributes
                && let Ok(Some(encoded)) = xattr::encode(&inode.xattrs)
                && let Some(mut block) = encoded.block
            {
                let number = layout.placement.attributes(&layout.scan, place);
                xattr::seal(&mut block, number, layout.crc);
                out.block(number, &block[..]);
            }
        }
    }

    /// Emits the data of all files. Small ones that lie one after the other become one extent, which
    /// knows where to read them; for all others each run has its own.
    fn files(&self, out: &mut Emitter<'_>) {
        let layout = &self.layout;
        for place in 0..layout.scan.len() {
            let Some(file) = layout.scan.file(place) else {
                continue;
            };
            let mapping = layout.mapping(place);
            match (file.extents(), &mapping.runs[..]) {
                (
                    [
                        DataExtent {
                            offset: 0,
                            len,
                            source: DataSource::Blob { id, offset },
                        },
                    ],
                    [run],
                ) if *len <= SMALL => {
                    let to = run.physical * BLOCK_SIZE;
                    out.small(to, *id, *offset, *len, || {
                        Arc::new(SmallFiles::new(Arc::clone(layout), place))
                    });
                }
                (pieces, runs) => emit_data(pieces, runs, out),
            }
            self.extent_blocks(place, &mapping, out);
        }
        out.close();
    }

    /// Emits the inode tables up to the last inode in use.
    fn inode_tables(&self, reserved: Reserved, out: &mut Emitter<'_>) {
        let geometry = &self.layout.geometry;
        let used = self.layout.scan.used_inodes();
        let per_group = geometry.inodes_per_group;
        let tables: Arc<dyn Make> = Arc::new(InodeTables::new(Arc::clone(&self.layout), reserved));
        for (group, place) in (0..used.div_ceil(per_group)).zip(&geometry.groups) {
            let first = group * per_group;
            out.push(Extent {
                offset: place.inode_table * BLOCK_SIZE,
                len: (used - first).min(per_group) * INODE_SIZE,
                data: ExtentData::Made {
                    maker: Arc::clone(&tables),
                    offset: first * INODE_SIZE,
                },
            });
        }
    }

    /// Inodes 1 to 10. Returns what the superblock keeps of the journal's.
    fn reserved_inodes(
        &self,
        table: &mut Reserved,
        crc: Crc,
        out: &mut Emitter<'_>,
    ) -> ([u8; 60], u64) {
        let blank = InodeFields {
            mode: 0,
            uid: 0,
            gid: 0,
            links: 0,
            size: 0,
            blocks: 0,
            flags: 0,
            i_block: [0; 60],
            time: self.options.clock,
            xattr_block: 0,
            xattrs: None,
        };
        for number in [3, 4, 5, 6, 9, 10] {
            table.put(number, &inode::empty(number, crc));
        }
        table.put(
            BAD_BLOCKS_INODE,
            &inode::encode(BAD_BLOCKS_INODE, &blank, crc),
        );

        let resize = self.resize_inode(&blank, out);
        table.put(RESIZE_INODE, &inode::encode(RESIZE_INODE, &resize, crc));

        let placement = &self.layout.placement;
        let blocks = 0..placement.journal_blocks;
        let mapping = map(
            &self.layout.geometry,
            placement.journal_start,
            std::iter::once(blocks),
        );
        let size = placement.journal_blocks * BLOCK_SIZE;
        if let Some(first) = mapping.runs.first() {
            out.block(
                first.physical,
                &journal::superblock(placement.journal_blocks, &self.options.uuid),
            );
        }
        let blocks = placement.journal_blocks + mapping.tree.len() as u64;
        let i_block = extent_tree::build(
            &mapping.runs,
            mapping.tree,
            crc.of_inode(JOURNAL_INODE),
            |block, bytes| out.block(block, bytes),
        );
        let file = InodeFields {
            mode: mode::FILE | 0o600,
            links: 1,
            ..blank
        };
        let journal = InodeFields {
            size,
            blocks,
            flags: EXTENTS_FL,
            i_block,
            ..file
        };
        table.put(JOURNAL_INODE, &inode::encode(JOURNAL_INODE, &journal, crc));
        (i_block, size)
    }

    /// The inode that owns the reserved descriptor blocks: its double-indirect block names those of
    /// group 0, and each of them, as an indirect block, the ones at the same place in the backups.
    fn resize_inode(&self, blank: &InodeFields, out: &mut Emitter<'_>) -> InodeFields {
        let geometry = &self.layout.geometry;
        let first = 1 + geometry.descriptor_blocks;
        let reserved = geometry.reserved_descriptor_blocks;
        let word = |value: u64| extent_tree::low_u32(value).to_le_bytes();
        let mut names = [0; BLOCK];
        for index in 0..reserved {
            let slot = (geometry.descriptor_blocks + index) % ADDRESSES_PER_BLOCK;
            let at = usize::try_from(4 * slot).unwrap_or(0);
            names[at..at + 4].copy_from_slice(&word(first + index));
            let copies: Vec<u8> = geometry
                .backups()
                .flat_map(|group| word(group * BLOCKS_PER_GROUP + first + index))
                .collect();
            if !copies.is_empty() {
                out.block(first + index, &copies);
            }
        }
        out.block(self.layout.placement.resize_block, &names);
        let mut i_block = [0; 60];
        i_block[4 * 13..4 * 14].copy_from_slice(&word(self.layout.placement.resize_block));
        let addresses = ADDRESSES_PER_BLOCK;
        InodeFields {
            mode: mode::FILE | 0o600,
            links: 1,
            size: (12 + addresses + addresses * addresses) * BLOCK_SIZE,
            blocks: 1 + reserved * (1 + geometry.backups().count() as u64),
            i_block,
            ..blank.clone()
        }
    }

    /// Emits all bitmaps and says how each group is used.
    fn bitmaps(&self, crc: Crc, out: &mut Emitter<'_>) -> Vec<GroupUse> {
        let geometry = &self.layout.geometry;
        let mut directories = vec![0; geometry.groups.len()];
        for folder in &self.layout.scan.folders {
            let number = number_of(folder.place as usize);
            let group = (u64::from(number) - 1) / geometry.inodes_per_group;
            directories[usize::try_from(group).unwrap_or(0)] += 1;
        }
        let mut maps = BitmapBlocks { last: None };
        let mut fixed = geometry.fixed.as_slice();
        let mut uses = Vec::with_capacity(geometry.groups.len());
        for (group, (place, directories)) in (0..).zip(geometry.groups.iter().zip(directories)) {
            let range = geometry.group_range(group);
            while fixed.first().is_some_and(|r| r.end <= range.start) {
                fixed = &fixed[1..];
            }
            let mut bitmap = Bitmap::new(range.end - range.start);
            let end = self.layout.placement.end.clamp(range.start, range.end);
            bitmap.set(0..end - range.start);
            let mut in_use = end - range.start;
            for part in fixed.iter().take_while(|r| r.start < range.end) {
                let part = part.start.max(end)..part.end.min(range.end);
                if part.start < part.end {
                    in_use += part.end - part.start;
                    bitmap.set(part.start - range.start..part.end - range.start);
                }
            }
            let copy = if has_superblock(group) {
                geometry.super_blocks()
            } else {
                0
            };
            let last = group + 1 == geometry.group_count();
            // Flags of a group count with checksums only; without them every bitmap is read.
            let mut flags = if crc.is_on() { INODE_ZEROED } else { 0 };
            let unused = in_use == copy && end == range.start && !last;
            let block_bitmap = if unused && crc.is_on() {
                flags |= BLOCK_UNINIT;
                None
            } else {
                maps.emit(place.block_bitmap, &bitmap, out);
                Some(crc.with(&bitmap.0))
            };
            uses.push(GroupUse {
                free_blocks: range.end - range.start - in_use,
                free_inodes: 0,
                directories,
                unused_inodes: 0,
                flags,
                block_bitmap,
                inode_bitmap: None,
            });
            if (group + 1) % GROUPS_PER_FLEX == 0 || last {
                let from = group / GROUPS_PER_FLEX * GROUPS_PER_FLEX;
                let from = usize::try_from(from).unwrap_or(0);
                self.inode_bitmaps(from, &mut uses, &mut maps, crc, out);
            }
        }
        uses
    }

    /// Emits the inode bitmaps of the groups from `from` on; they follow the block bitmaps.
    fn inode_bitmaps(
        &self,
        from: usize,
        uses: &mut [GroupUse],
        maps: &mut BitmapBlocks,
        crc: Crc,
        out: &mut Emitter<'_>,
    ) {
        let per_group = self.layout.geometry.inodes_per_group;
        let bytes = usize::try_from(per_group / 8).unwrap_or(BLOCK);
        for (group, used) in uses.iter_mut().enumerate().skip(from) {
            let below = group as u64 * per_group;
            let in_use = self
                .layout
                .scan
                .used_inodes()
                .saturating_sub(below)
                .min(per_group);
            used.free_inodes = per_group - in_use;
            if crc.is_on() {
                used.unused_inodes = per_group - in_use;
                if in_use == 0 {
                    used.flags |= INODE_UNINIT;
                    continue;
                }
            }
            let mut bitmap = Bitmap::new(per_group);
            bitmap.set(0..in_use);
            used.inode_bitmap = Some(crc.with(&bitmap.0[..bytes]));
            maps.emit(
                self.layout.geometry.groups[group].inode_bitmap,
                &bitmap,
                out,
            );
        }
    }

    /// Emits all superblocks and descriptor tables.
    fn superblocks(&self, uses: &[GroupUse], totals: &Totals, crc: Crc, out: &mut Emitter<'_>) {
        let geometry = &self.layout.geometry;
        let mut table = Vec::with_capacity(uses.len() * 64);
        for (group, (place, used)) in (0..).zip(geometry.groups.iter().zip(uses)) {
            table.extend_from_slice(&group::encode(group, place, used, crc));
        }
        let table: Arc<[u8]> = table.into();
        let raw = superblock::encode(self.options, geometry, totals);
        let primary = superblock::copy_for(&raw, 0);
        out.shared(superblock::OFFSET as u64, Arc::from(&primary[..]));
        out.shared(BLOCK_SIZE, Arc::clone(&table));
        for group in geometry.backups() {
            let start = group * BLOCKS_PER_GROUP * BLOCK_SIZE;
            out.shared(start, Arc::from(&superblock::copy_for(&raw, group)[..]));
            out.shared(start + BLOCK_SIZE, Arc::clone(&table));
        }
    }
}

/// Sends the data of a file to where its blocks are. Both lists are in order of the file.
fn emit_data(pieces: &[DataExtent], runs: &[Run], out: &mut Emitter<'_>) {
    let mut runs = runs;
    for piece in pieces {
        let (mut at, end) = (piece.offset, piece.offset + piece.len);
        while at < end {
            let Some(run) = runs.first() else { return };
            let run_end = (run.logical + run.len) * BLOCK_SIZE;
            if run_end <= at {
                runs = &runs[1..];
                continue;
            }
            let len = end.min(run_end) - at;
            let to = run.physical * BLOCK_SIZE + (at - run.logical * BLOCK_SIZE);
            let from = at - piece.offset;
            match &piece.source {
                DataSource::Bytes(bytes) => out.bytes(to, bytes, from, len),
                DataSource::Blob { id, offset } => out.blob(to, *id, offset + from, len),
            }
            at += len;
        }
    }
}

/// Bitmap blocks, of which long rows are the same: one is kept for all that follow it.
struct BitmapBlocks {
    last: Option<Arc<[u8]>>,
}

impl BitmapBlocks {
    fn emit(&mut self, block: u64, bitmap: &Bitmap, out: &mut Emitter<'_>) {
        if bitmap.0.iter().all(|byte| *byte == 0) {
            // What no extent covers reads as zero.
            return;
        }
        let bytes = match &self.last {
            Some(last) if **last == bitmap.0 => last,
            _ => self.last.insert(Arc::from(&bitmap.0[..])),
        };
        out.shared(block * BLOCK_SIZE, Arc::clone(bytes));
    }
}

/// A bitmap block whose bits past `bits` are set.
struct Bitmap([u8; BLOCK]);

impl Bitmap {
    fn new(bits: u64) -> Self {
        let mut out = Self([0; BLOCK]);
        out.set(bits..8 * BLOCK_SIZE);
        out
    }

    fn set(&mut self, range: std::ops::Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let byte = usize::try_from(at / 8).unwrap_or(0);
            if at.is_multiple_of(8) && range.end - at >= 8 {
                let end = usize::try_from(range.end / 8).unwrap_or(byte);
                self.0[byte..end].fill(0xFF);
                at = range.end / 8 * 8;
            } else {
                self.0[byte] |= 1 << (at % 8);
                at += 1;
            }
        }
    }
}
