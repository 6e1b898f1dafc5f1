//! The hash tree of a directory, read: from a name to the block that has it. Its bytes are drawn in
//! [`dir`](crate::ext4::dir); kernel documentation, `filesystems/ext4/directory.rst`.

use super::bytes::{le16, le32};
use super::dir::{self, pair};
use super::error::{Fault, Place};
use super::fs::Fs;
use super::hash::{self, Version};
use super::inode::Inode;
use super::superblock::incompat;
use super::volume::Block;
use crate::ext4::hash::HashSeed;

/// Where the root says what it is, and how long that is.
const INFO: usize = 0x18;
const INFO_LEN: u8 = 8;
/// Where the slots of a root and of a node are.
const ROOT_SLOTS: usize = 0x20;
const NODE_SLOTS: usize = 8;
/// Bytes after the slots that hold the checksum.
const TAIL: usize = 8;

/// True for a block of an indexed directory that has slots instead of entries.
pub(super) fn is_node(dir: &Inode, logical: u64, block: &[u8]) -> bool {
    let whole = usize::from(le16(block, 4)) == block.len() % 65_536;
    dir.has_index() && (logical == 0 || (le32(block, 0) == 0 && whole))
}

fn slots_at(logical: u64) -> usize {
    if logical == 0 { ROOT_SLOTS } else { NODE_SLOTS }
}

/// Compares the checksum of a root (block 0 of the directory) or node.
pub(super) fn check(dir: &Inode, logical: u64, block: &[u8], number: u64) -> Result<(), Fault> {
    let place = Place::HashTreeBlock {
        inode: dir.number,
        block: number,
    };
    let start = slots_at(logical);
    let (limit, count) = (
        usize::from(le16(block, start)),
        usize::from(le16(block, start + 2)),
    );
    let (end, tail) = (start + 8 * count, start + 8 * limit);
    match (block.get(..end), block.get(tail..tail + TAIL)) {
        (Some(covered), Some(tail)) if count <= limit => {
            let crc = dir.crc.with(covered).with(&tail[..4]).with(&[0; 4]);
            Fault::unless_equal(place, le32(tail, 4), crc.value())
        }
        _ => Err(Fault::damaged(place, "has no room for its checksum")),
    }
}

/// A root or node on the way to a name.
struct Level {
    block: Block,
    start: usize,
    count: u64,
    /// The slot that was taken.
    slot: u64,
}

impl Level {
    fn read(fs: &Fs, dir: &Inode, logical: u64) -> Result<Self, Fault> {
        let (number, block) = dir::block(fs, dir, logical)?;
        let place = Place::HashTreeBlock {
            inode: dir.number,
            block: number,
        };
        if fs.sb.has_checksums() {
            check(dir, logical, &block, number)?;
        }
        let start = slots_at(logical);
        let (limit, count) = (le16(&block, start), le16(&block, start + 2));
        let room = (block.len() - start) / 8;
        if count == 0 || count > limit || usize::from(limit) > room {
            return Err(Fault::damaged(place, "has an impossible number of slots"));
        }
        Ok(Self {
            block,
            start,
            count: count.into(),
            slot: 0,
        })
    }

    /// Hash and block of a slot; the first one's hash is 0 and gave way to the counts.
    fn get(&self, slot: u64) -> (u32, u64) {
        let (hash, block) = pair(&self.block, self.start, slot);
        // The upper bits of the number are kept for other uses.
        (
            if slot == 0 { 0 } else { hash },
            u64::from(block & 0x0FFF_FFFF),
        )
    }

    /// Takes the last slot that may lead to a hash.
    fn seek(&mut self, hash: u32) -> u64 {
        let (mut low, mut high) = (1, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).0 > hash {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        self.slot = low - 1;
        self.get(self.slot).1
    }
}

/// Finds a name through the index. The outer `None` means that the index cannot tell.
pub(super) fn lookup(fs: &Fs, dir: &Inode, name: &[u8]) -> Result<Option<Option<u32>>, Fault> {
    let blocks = dir::blocks(fs, dir)?;
    let mut root = Level::read(fs, dir, 0)?;
    let damaged = |problem| Err(Fault::damaged(Place::Inode(dir.number), problem));
    let info = root.block.get(INFO..INFO + 8).unwrap_or_default();
    let (version, info_len, depth) = match *info {
        [_, _, _, _, version, len, depth, _] => (version, len, depth),
        _ => return damaged("has a hash tree that is cut off"),
    };
    let Some((version, says_unsigned)) = Version::of(version) else {
        return Err(Fault::Unsupported(format!("directory hash {version}")));
    };
    let deepest = if fs.sb.has_incompat(incompat::LARGEDIR) {
        2
    } else {
        1
    };
    if info_len != INFO_LEN || depth > deepest {
        return damaged("has an impossible hash tree");
    }
    // Where nobody wrote down which characters the maker had, nothing can be concluded from a miss.
    let certain = says_unsigned || fs.sb.unsigned_hash.is_some();
    let unsigned = says_unsigned || fs.sb.unsigned_hash == Some(true);
    let hash = hash::major(version, unsigned, HashSeed::new(&fs.sb.hash_seed), name);
    let mut leaf = root.seek(hash);
    let mut levels = vec![root];
    for _ in 0..depth {
        let mut level = Level::read(fs, dir, leaf)?;
        leaf = level.seek(hash);
        levels.push(level);
    }
    // Names with the same hash may go on in the next leaf. No leaf is visited twice in a sound tree.
    for _ in 0..blocks {
        if let Some(found) = dir::find_in_block(fs, dir, leaf, name)? {
            return Ok(Some(Some(found)));
        }
        match next_leaf(fs, dir, &mut levels, hash)? {
            Some(next) => leaf = next,
            None => return Ok(certain.then_some(None)),
        }
    }
    damaged("has a hash tree without end")
}

/// The leaf after the current one, when it goes on with the same hash.
fn next_leaf(fs: &Fs, dir: &Inode, levels: &mut [Level], hash: u32) -> Result<Option<u64>, Fault> {
    let Some(turn) = levels
        .iter()
        .rposition(|level| level.slot + 1 < level.count)
    else {
        return Ok(None);
    };
    levels[turn].slot += 1;
    let (next_hash, mut block) = levels[turn].get(levels[turn].slot);
    if next_hash & !1 != hash {
        return Ok(None);
    }
    for level in &mut levels[turn + 1..] {
        *level = Level::read(fs, dir, block)?;
        block = level.get(0).1;
    }
    Ok(Some(block))
}
