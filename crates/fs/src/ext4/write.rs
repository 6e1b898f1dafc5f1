//! Third pass: the bytes of all metadata, and the extents of all data.

use std::sync::Arc;

use amiforge_disk::Extents;
use amiforge_tree::{Content, DataSource, Inode, InodeFlags, Kind, Stat};
use zerocopy::IntoBytes;

use super::checksum::Crc;
use super::emit::Emitter;
use super::extent_tree::{self, Run};
use super::geometry::{
    ADDRESSES_PER_BLOCK, BLOCKS_PER_GROUP, GROUPS_PER_FLEX, Geometry, has_superblock,
};
use super::group::{self, BLOCK_UNINIT, GroupUse, INODE_UNINIT, INODE_ZEROED};
use super::inode::{self, EXTENTS_FL, INDEX_FL, InodeFields, RawInode, mode};
use super::place::{Mapping, Placement};
use super::scan::{Body, Class, Node, Scan, number_of};
use super::superblock::{self, JOURNAL_INODE, Totals};
use super::{BLOCK_SIZE, Ext4Error, Options, Plan, Profile, journal, xattr};

const BAD_BLOCKS_INODE: u32 = 1;
const RESIZE_INODE: u32 = 7;
const BLOCK: usize = 4096;

/// Everything there is to know about the file system.
pub(super) struct Writer<'a> {
    pub(super) options: &'a Options,
    pub(super) scan: &'a Scan<'a>,
    pub(super) geometry: &'a Geometry,
    pub(super) placement: &'a Placement,
    /// Bytes of the volume.
    pub(super) volume: u64,
    /// What stands for the directory that the tree lacks.
    pub(super) lost_found: Inode,
}

impl Writer<'_> {
    /// Writes it all down.
    pub(super) fn write(&self) -> Result<Plan, Ext4Error> {
        let crc = match self.options.profile {
            Profile::Standard => Crc::of_file_system(&self.options.uuid),
            Profile::Legacy => Crc::OFF,
        };
        let mut out = Emitter::new(&self.options.padded_blobs);
        let mut table = InodeTable::new(self.geometry, self.scan.used_inodes());
        // In the order in which blocks were handed out, so that neighbours come one after the other.
        for kind in [Class::Dir, Class::Other, Class::File] {
            for (index, (node, mapping)) in self
                .scan
                .nodes
                .iter()
                .zip(&self.placement.nodes)
                .enumerate()
            {
                if node.class() == kind {
                    let number = number_of(index);
                    let fields = self.node(number, node, mapping, crc, &mut out);
                    table.put(number, &inode::encode(number, &fields, crc));
                }
                if kind == Class::Other
                    && let Some(mut block) = node.xattrs.as_ref().and_then(|x| x.block.clone())
                {
                    xattr::seal(&mut block, mapping.xattr_block(), crc);
                    out.block(mapping.xattr_block(), &block[..]);
                }
            }
        }
        let journal = self.reserved_inodes(&mut table, crc, &mut out);
        table.emit(self.geometry, &mut out);

        let uses = self.bitmaps(crc, &mut out);
        let free_blocks = uses.iter().map(|u| u.free_blocks).sum();
        let free_inodes = self.geometry.inodes() - self.scan.used_inodes();
        let fixed: u64 = self.geometry.fixed.iter().map(|r| r.end - r.start).sum();
        let totals = Totals {
            free_blocks,
            free_inodes,
            overhead_blocks: fixed + self.placement.journal_blocks,
            journal,
        };
        self.superblocks(&uses, &totals, crc, &mut out);
        Ok(Plan {
            extents: Extents::new(self.volume, out.finish()).map_err(Ext4Error::Layout)?,
            size: self.geometry.blocks * BLOCK_SIZE,
            uuid: self.options.uuid,
            label: self.options.label.clone(),
            blocks: self.geometry.blocks,
            free_blocks,
            inodes: self.geometry.inodes(),
            free_inodes,
            journal_blocks: self.placement.journal_blocks,
        })
    }

    fn runs(&self, mapping: &Mapping) -> &[Run] {
        self.placement.runs(mapping)
    }

    fn extents(&self, number: u32, mapping: &Mapping, crc: Crc, out: &mut Emitter<'_>) -> [u8; 60] {
        let tree = self.placement.tree_blocks(mapping).iter().copied();
        extent_tree::build(
            self.runs(mapping),
            tree,
            crc.of_inode(number),
            |block, bytes| out.block(block, bytes),
        )
    }

    /// Emits the content of an inode and returns what its record says.
    fn node(
        &self,
        number: u32,
        node: &Node<'_>,
        mapping: &Mapping,
        crc: Crc,
        out: &mut Emitter<'_>,
    ) -> InodeFields {
        let inode = node.inode.unwrap_or(&self.lost_found);
        let Stat {
            mode: permissions,
            uid,
            gid,
            mtime,
        } = inode.stat;
        let runs = self.runs(mapping);
        let data_blocks: u64 = runs.iter().map(|r| r.len).sum();
        let blocks = data_blocks + mapping.tree_len() + u64::from(node.has_xattr_block());
        let mut i_block = [0; 60];
        let (size, flags) = match &node.body {
            Body::Dir(shape) => {
                let mut places = runs.iter().flat_map(|r| r.physical..r.physical + r.len);
                shape.write(crc, |bytes| {
                    if let Some(block) = places.next() {
                        out.block(block, bytes);
                    }
                });
                (
                    shape.blocks() * BLOCK_SIZE,
                    if shape.is_indexed() {
                        EXTENTS_FL | INDEX_FL
                    } else {
                        EXTENTS_FL
                    },
                )
            }
            Body::File(content) => {
                emit_data(content, runs, out);
                (content.size, EXTENTS_FL)
            }
            Body::SlowSymlink(target) => {
                if let Some(run) = runs.first() {
                    out.block(run.physical, target);
                }
                (target.len() as u64, EXTENTS_FL)
            }
            Body::FastSymlink(target) => {
                i_block[..target.len()].copy_from_slice(target);
                (target.len() as u64, 0)
            }
            Body::Device(major, minor) => {
                i_block = inode::device_block(*major, *minor);
                (0, 0)
            }
            Body::Nothing => (0, 0),
        };
        if flags & EXTENTS_FL != 0 {
            i_block = self.extents(number, mapping, crc, out);
        }
        InodeFields {
            mode: type_bits(&inode.kind) | permissions & 0o7777,
            uid,
            gid,
            links: node.links,
            size,
            blocks,
            flags: flags | user_flags(inode),
            i_block,
            time: mtime,
            xattr_block: mapping.xattr_block(),
            xattrs: node.xattrs.as_ref().and_then(|x| x.inline),
        }
    }

    /// Inodes 1 to 10. Returns what the superblock keeps of the journal's.
    fn reserved_inodes(
        &self,
        table: &mut InodeTable,
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

        let mapping = &self.placement.journal;
        let size = self.placement.journal_blocks * BLOCK_SIZE;
        if let Some(first) = self.runs(mapping).first() {
            out.block(
                first.physical,
                &journal::superblock(self.placement.journal_blocks, &self.options.uuid),
            );
        }
        let i_block = self.extents(JOURNAL_INODE, mapping, crc, out);
        let blocks = self.placement.journal_blocks + mapping.tree_len();
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
        let geometry = self.geometry;
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
        out.block(self.placement.resize_block, &names);
        let mut i_block = [0; 60];
        i_block[4 * 13..4 * 14].copy_from_slice(&word(self.placement.resize_block));
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
        let geometry = self.geometry;
        let mut directories = vec![0; geometry.groups.len()];
        for (index, _) in self
            .scan
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, n)| matches!(n.body, Body::Dir(_)))
        {
            let group = (u64::from(number_of(index)) - 1) / geometry.inodes_per_group;
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
            let end = self.placement.end.clamp(range.start, range.end);
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
        let per_group = self.geometry.inodes_per_group;
        let bytes = usize::try_from(per_group / 8).unwrap_or(BLOCK);
        for (group, used) in uses.iter_mut().enumerate().skip(from) {
            let below = group as u64 * per_group;
            let in_use = self.scan.used_inodes().saturating_sub(below).min(per_group);
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
            maps.emit(self.geometry.groups[group].inode_bitmap, &bitmap, out);
        }
    }

    /// Emits all superblocks and descriptor tables.
    fn superblocks(&self, uses: &[GroupUse], totals: &Totals, crc: Crc, out: &mut Emitter<'_>) {
        let geometry = self.geometry;
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

/// The flags of `chattr`, as far as the kernel lets this type of file have them: e2fsck calls an
/// immutable device or link an error.
fn user_flags(inode: &Inode) -> u32 {
    const NOT_FOR_FILES: InodeFlags = InodeFlags::DIR_SYNC.union(InodeFlags::TOP_DIR);
    const FOR_OTHERS: InodeFlags = InodeFlags::NO_DUMP.union(InodeFlags::NO_ATIME);
    match &inode.kind {
        Kind::Dir(_) => inode.flags.bits(),
        Kind::File(_) => inode.flags.bits() & !NOT_FOR_FILES.bits(),
        _ => inode.flags.intersection(FOR_OTHERS).bits(),
    }
}

fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Dir(_) => mode::DIR,
        Kind::File(_) => mode::FILE,
        Kind::Symlink(_) => mode::SYMLINK,
        Kind::CharDev { .. } => mode::CHAR,
        Kind::BlockDev { .. } => mode::BLOCK,
        Kind::Fifo => mode::FIFO,
        Kind::Socket => mode::SOCKET,
    }
}

/// Sends the data of a file to where its blocks are. Both lists are in order of the file.
fn emit_data(content: &Content, runs: &[Run], out: &mut Emitter<'_>) {
    let mut runs = runs;
    for piece in &content.extents {
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

/// The inode tables up to the last inode in use.
struct InodeTable {
    per_group: u64,
    /// Shared from the start, so that they need not be copied into the extents.
    bytes: Vec<Arc<[u8]>>,
}

impl InodeTable {
    fn new(geometry: &Geometry, used: u64) -> Self {
        let per_group = geometry.inodes_per_group;
        let bytes = (0..used.div_ceil(per_group))
            .map(|group| (used - group * per_group).min(per_group) * 256)
            .map(|len| std::iter::repeat_n(0, usize::try_from(len).unwrap_or(0)).collect())
            .collect();
        Self { per_group, bytes }
    }

    fn put(&mut self, number: u32, raw: &RawInode) {
        let index = u64::from(number) - 1;
        let group = usize::try_from(index / self.per_group).unwrap_or(usize::MAX);
        let at = usize::try_from(index % self.per_group * 256).unwrap_or(usize::MAX);
        let table = self.bytes.get_mut(group).and_then(Arc::get_mut);
        if let Some(place) = table.and_then(|t| t.get_mut(at..at + 256)) {
            place.copy_from_slice(raw.as_bytes());
        }
    }

    fn emit(self, geometry: &Geometry, out: &mut Emitter<'_>) {
        for (bytes, place) in self.bytes.into_iter().zip(&geometry.groups) {
            out.shared(place.inode_table * BLOCK_SIZE, bytes);
        }
    }
}
