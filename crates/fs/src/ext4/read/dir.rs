//! Directories, read. Their bytes are drawn in [`dir`](crate::ext4::dir); kernel documentation,
//! `filesystems/ext4/directory.rst`.
//!
//! To whoever reads block by block, a hash tree is invisible: its root looks like `.` and `..`, its
//! inner nodes look like one unused entry.

use super::bytes::{index, le16, le32};
use super::error::{Fault, Place};
use super::fs::Fs;
use super::htree;
use super::inode::{I_BLOCK_LEN, Inode};
use super::map::{Budget, Run};
use crate::ext4::checksum::Crc;

/// Bytes of an entry before its name.
const ENTRY: usize = 8;
/// Most names that are taken of one directory.
const MAX_NAMES: usize = 1 << 23;
/// Bytes of the fake entry at the end of a block that holds its checksum, and its type.
const TAIL: usize = 12;
const TAIL_KIND: u8 = 0xDE;
/// Bytes of the parent's number in a directory that is inside its inode.
const INLINE_PARENT: usize = 4;

/// A name and what it leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'b> {
    pub(super) name: &'b [u8],
    pub(super) inode: u32,
}

/// The names in a block, without unused entries, `.` and `..`.
pub(super) struct Names<'b> {
    block: &'b [u8],
    at: usize,
    place: Place,
    /// Without the type in entries, names have two bytes for their length.
    typed: bool,
    inodes: u32,
}

impl<'b> Names<'b> {
    pub(super) fn new(fs: &Fs, block: &'b [u8], place: Place) -> Self {
        Self {
            block,
            at: 0,
            place,
            typed: fs.sb.has_incompat(super::superblock::incompat::FILETYPE),
            inodes: fs.sb.inodes,
        }
    }

    /// The entry at the current place, `None` when it is not in use.
    fn entry(&mut self) -> Result<Option<Name<'b>>, &'static str> {
        let rest = &self.block[self.at..];
        let len = match (le16(rest, 4), self.block.len()) {
            // Blocks of 64 KiB have lengths that need a bit more than there are.
            (0 | u16::MAX, 65_536) => 65_536,
            (len, 65_536) => usize::from(len & !3) | usize::from(len & 3) << 16,
            (len, _) => len.into(),
        };
        let name_len = match self.typed {
            true => rest.get(6).copied().unwrap_or(0).into(),
            false => usize::from(le16(rest, 6)),
        };
        let inode = le32(rest, 0);
        if len < TAIL || len % 4 != 0 || len > rest.len() {
            return Err("has an entry of impossible length");
        }
        self.at += len;
        if inode == 0 {
            return Ok(None);
        }
        let name = match rest.get(ENTRY..ENTRY + name_len) {
            Some(name) if ENTRY + name_len <= len => name,
            _ => return Err("has a name that is longer than its entry"),
        };
        if inode > self.inodes {
            return Err("has an entry for an inode that does not exist");
        }
        match name {
            b"." | b".." => Ok(None),
            b"" => Err("has an empty name"),
            name if name.len() > 255 || name.contains(&b'/') || name.contains(&0) => {
                Err("has a name that is none")
            }
            name => Ok(Some(Name { name, inode })),
        }
    }
}

impl<'b> Iterator for Names<'b> {
    type Item = Result<Name<'b>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        // An inline area may end with less than an entry.
        while self.at + ENTRY <= self.block.len() {
            match self.entry() {
                Ok(Some(name)) => return Some(Ok(name)),
                Ok(None) => {}
                Err(problem) => {
                    self.at = self.block.len();
                    return Some(Err(Fault::damaged(self.place, problem)));
                }
            }
        }
        None
    }
}

/// Hands every name of a directory to `each`, until it says that it has seen enough.
pub(super) fn scan(
    fs: &Fs,
    dir: &Inode,
    budget: &mut Budget,
    mut each: impl FnMut(Name<'_>) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    dir.refuse_transformed()?;
    if dir.has_inline_data() {
        return scan_inline(fs, dir, each);
    }
    let blocks = blocks(fs, dir)?;
    let runs = fs.runs(dir, 0..blocks, budget)?;
    check_runs(dir, &runs, blocks)?;
    let mut seen = 0;
    for run in runs {
        for offset in 0..run.len {
            let logical = run.logical + offset;
            let number = run.physical + offset;
            let place = Place::DirectoryBlock {
                inode: dir.number,
                block: number,
            };
            let block = fs.volume.block(number, place)?;
            if fs.sb.has_checksums() {
                if htree::is_node(dir, logical, &block) {
                    htree::check(dir, logical, &block, number)?;
                } else {
                    check(&block, dir.crc, place)?;
                }
            }
            for name in Names::new(fs, &block, place) {
                seen += 1;
                if seen > MAX_NAMES {
                    return Err(Fault::Limit {
                        what: "names in one directory",
                        limit: MAX_NAMES as u64,
                    });
                }
                if !each(name?)? {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Blocks of a directory.
pub(super) fn blocks(fs: &Fs, dir: &Inode) -> Result<u64, Fault> {
    match dir.size % fs.sb.block_size {
        0 => Ok(dir.size / fs.sb.block_size),
        _ => Err(Fault::damaged(
            Place::Inode(dir.number),
            "is a directory with a part of a block",
        )),
    }
}

/// A directory has no holes, and no block twice.
fn check_runs(dir: &Inode, runs: &[Run], blocks: u64) -> Result<(), Fault> {
    let damaged = |problem| Err(Fault::damaged(Place::Inode(dir.number), problem));
    if runs.iter().map(|run| run.len).sum::<u64>() != blocks {
        return damaged("is a directory with a hole");
    }
    let mut places: Vec<(u64, u64)> = runs.iter().map(|run| (run.physical, run.len)).collect();
    places.sort_unstable();
    if places.windows(2).any(|w| w[0].0 + w[0].1 > w[1].0) {
        return damaged("is a directory with one block in two places");
    }
    Ok(())
}

fn scan_inline(
    fs: &Fs,
    dir: &Inode,
    mut each: impl FnMut(Name<'_>) -> Result<bool, Fault>,
) -> Result<(), Fault> {
    let place = Place::DirectoryBlock {
        inode: dir.number,
        block: 0,
    };
    let data = fs.inline_data(dir)?;
    let (first, second) = data.split_at(I_BLOCK_LEN.min(data.len()));
    let areas = [first.get(INLINE_PARENT..).unwrap_or_default(), second];
    for area in areas {
        for name in Names::new(fs, area, place) {
            if !each(name?)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Compares the checksum at the end of a block of entries.
pub(super) fn check(block: &[u8], crc: Crc, place: Place) -> Result<(), Fault> {
    let (entries, tail) = block.split_at(block.len().saturating_sub(TAIL));
    let is_tail =
        le32(tail, 0) == 0 && le16(tail, 4) == 12 && tail.get(6..8) == Some(&[0, TAIL_KIND]);
    if !is_tail {
        return Err(Fault::damaged(place, "has no checksum"));
    }
    Fault::unless_equal(place, le32(tail, ENTRY), crc.with(entries).value())
}

/// Finds a name.
pub(super) fn lookup(fs: &Fs, dir: &Inode, name: &[u8]) -> Result<Option<u32>, Fault> {
    dir.refuse_transformed()?;
    if dir.has_index()
        && !dir.has_inline_data()
        && let Some(found) = htree::lookup(fs, dir, name)?
    {
        return Ok(found);
    }
    let mut found = None;
    scan(fs, dir, &mut Budget::of(&fs.volume), |entry| {
        if entry.name == name {
            found = Some(entry.inode);
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// A block of a directory by its number in it.
pub(super) fn block(
    fs: &Fs,
    dir: &Inode,
    logical: u64,
) -> Result<(u64, super::volume::Block), Fault> {
    let mut budget = Budget::of(&fs.volume);
    let runs = fs.runs(dir, logical..logical.saturating_add(1), &mut budget)?;
    let hole = || Fault::damaged(Place::Inode(dir.number), "is a directory with a hole");
    let number = runs.first().ok_or_else(hole)?.physical;
    let place = Place::DirectoryBlock {
        inode: dir.number,
        block: number,
    };
    Ok((number, fs.volume.block(number, place)?))
}

/// Finds a name in one block of entries.
pub(super) fn find_in_block(
    fs: &Fs,
    dir: &Inode,
    logical: u64,
    name: &[u8],
) -> Result<Option<u32>, Fault> {
    let (number, bytes) = block(fs, dir, logical)?;
    let place = Place::DirectoryBlock {
        inode: dir.number,
        block: number,
    };
    if fs.sb.has_checksums() {
        check(&bytes, dir.crc, place)?;
    }
    for entry in Names::new(fs, &bytes, place) {
        let entry = entry?;
        if entry.name == name {
            return Ok(Some(entry.inode));
        }
    }
    Ok(None)
}

/// A slot of an array of pairs of 32-bit numbers.
pub(super) fn pair(bytes: &[u8], start: usize, slot: u64) -> (u32, u32) {
    let at = start.saturating_add(index(slot).saturating_mul(8));
    (le32(bytes, at), le32(bytes, at.saturating_add(4)))
}
