//! What follows from the scan and the placement: where the content of each inode is, and its record.
//!
//! Nothing of it is held, since there may be millions of inodes; it is computed again when it is needed.

use std::sync::Arc;

use amiforge_tree::{Inode, InodeFlags, Kind, Stat};

use super::checksum::Crc;
use super::extent_tree;
use super::geometry::Geometry;
use super::inode::{self, EXTENTS_FL, INDEX_FL, InodeFields, RawInode, mode};
use super::place::{Mapping, Placement, map};
use super::scan::{FAST_SYMLINK, Scan, number_of, ranges_of};
use super::{BLOCK_SIZE, xattr};

/// Everything there is to know about a file system.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) scan: Arc<Scan>,
    pub(super) geometry: Geometry,
    pub(super) placement: Placement,
    pub(super) crc: Crc,
    /// What stands for the directory that the tree lacks.
    pub(super) lost_found: Inode,
}

impl Layout {
    /// Where the content of the inode at a place is.
    pub(super) fn mapping(&self, place: usize) -> Mapping {
        let start = self.placement.start(place);
        if let Some(file) = self.scan.file(place) {
            return map(&self.geometry, start, ranges_of(file.extents()));
        }
        let blocks = match self.scan.folder(place) {
            Some(folder) => folder.blocks.into(),
            // Nothing else but a symbolic link is asked for.
            None => 1,
        };
        map(&self.geometry, start, std::iter::once(0..blocks))
    }

    /// The record of the inode at a place. `put` is handed the blocks of its extent tree.
    pub(super) fn record(&self, place: usize, put: impl FnMut(u64, &[u8; 4096])) -> RawInode {
        let number = number_of(place);
        let scan = &*self.scan;
        let ino = scan.ino(place);
        let inode = ino.map(|ino| scan.tree.inode(ino));
        let inode = inode.as_ref().unwrap_or(&self.lost_found);
        let Stat {
            mode: permissions,
            uid,
            gid,
            mtime,
        } = inode.stat;
        let xattr_block = self.placement.attributes(scan, place);
        let mut i_block = [0; 60];
        let (size, flags) = match &inode.kind {
            Kind::Dir => {
                let folder = scan.folder(place);
                let indexed = folder.is_some_and(|folder| scan.is_indexed(folder));
                let size = folder.map_or(0, |folder| u64::from(folder.blocks) * BLOCK_SIZE);
                (size, EXTENTS_FL | if indexed { INDEX_FL } else { 0 })
            }
            Kind::File(content) => (content.size, EXTENTS_FL),
            Kind::Symlink(target) if target.len() > FAST_SYMLINK => {
                (target.len() as u64, EXTENTS_FL)
            }
            Kind::Symlink(target) => {
                i_block[..target.len()].copy_from_slice(target);
                (target.len() as u64, 0)
            }
            Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
                i_block = inode::device_block(*major, *minor);
                (0, 0)
            }
            Kind::Fifo | Kind::Socket => (0, 0),
        };
        let mut blocks = u64::from(xattr_block != 0);
        if flags & EXTENTS_FL != 0 {
            let Mapping { runs, tree } = self.mapping(place);
            blocks += runs.iter().map(|r| r.len).sum::<u64>() + tree.len() as u64;
            i_block = extent_tree::build(&runs, tree, self.crc.of_inode(number), put);
        }
        let xattrs = match xattr::encode(&inode.xattrs) {
            Ok(Some(encoded)) => encoded.inline,
            // The scan has refused what cannot be encoded.
            Ok(None) | Err(_) => None,
        };
        let fields = InodeFields {
            mode: type_bits(&inode.kind) | permissions & 0o7777,
            uid,
            gid,
            links: scan.links(place),
            size,
            blocks,
            flags: flags | user_flags(inode),
            i_block,
            time: mtime,
            xattr_block,
            xattrs,
        };
        inode::encode(number, &fields, self.crc)
    }
}

/// The flags of `chattr`, as far as the kernel lets this type of file have them: e2fsck calls an
/// immutable device or link an error.
fn user_flags(inode: &Inode) -> u32 {
    const NOT_FOR_FILES: InodeFlags = InodeFlags::DIR_SYNC.union(InodeFlags::TOP_DIR);
    const FOR_OTHERS: InodeFlags = InodeFlags::NO_DUMP.union(InodeFlags::NO_ATIME);
    match &inode.kind {
        Kind::Dir => inode.flags.bits(),
        Kind::File(_) => inode.flags.bits() & !NOT_FOR_FILES.bits(),
        _ => inode.flags.intersection(FOR_OTHERS).bits(),
    }
}

fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Dir => mode::DIR,
        Kind::File(_) => mode::FILE,
        Kind::Symlink(_) => mode::SYMLINK,
        Kind::CharDev { .. } => mode::CHAR,
        Kind::BlockDev { .. } => mode::BLOCK,
        Kind::Fifo => mode::FIFO,
        Kind::Socket => mode::SOCKET,
    }
}
