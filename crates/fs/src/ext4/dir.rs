//! Directories: one linear block, or a hash tree when the names need more.
//!
//! ```text
//! linear:  entries | tail {0, 12, 0, 0xDE, checksum}, with checksums only
//! htree:   block 0      "." ".." {0, version 1, length 8, levels, 0} {limit, count, block} {hash, block}... tail
//!          blocks 1..   leaves (linear blocks, by hash)
//!          then         inner nodes {0, 4096, 0, 0} {limit, count, block} {hash, block}... tail
//! ```
//! Kernel documentation, `filesystems/ext4/directory.rst`.

use std::ops::Range;

use amiforge_tree::Kind;

use super::BLOCK_SIZE;
use super::checksum::Crc;
use super::hash::{HashSeed, NameHash};

/// Type code of a regular file.
pub(super) const FILE: u8 = 1;
/// Type code of a directory.
pub(super) const DIRECTORY: u8 = 2;
/// See [`kind_code`].
pub(super) const SYMLINK: u8 = 7;
const BLOCK: usize = 4096;
/// Bytes of the fake entry that ends a block and holds its checksum.
const TAIL: usize = 12;
const TAIL_KIND: u8 = 0xDE;
/// Entries `.` and `..`.
const DOTS: usize = 24;
/// Where {limit, count, block} is in a root and in a node.
const ROOT_INDEX: usize = 0x20;
const NODE_INDEX: usize = 8;
const HALF_MD4: u8 = 1;
const INFO_LEN: u8 = 8;

const _: () = assert!(BLOCK as u64 == BLOCK_SIZE);

/// What all directories of a file system have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) seed: HashSeed,
    /// Blocks end with a checksum.
    pub(super) checksums: bool,
}

impl Form {
    /// Bytes for entries in a block.
    fn space(self) -> usize {
        if self.checksums { BLOCK - TAIL } else { BLOCK }
    }

    /// Slots of an index that starts at a byte of its block.
    fn limit(self, start: usize) -> usize {
        let tail = if self.checksums { 8 } else { 0 };
        (BLOCK - start - tail) / 8
    }
}

/// One name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'t> {
    pub(super) name: &'t [u8],
    /// Inode number.
    pub(super) number: u32,
    /// Type code.
    pub(super) kind: u8,
}

impl Entry<'_> {
    fn len(&self) -> usize {
        (8 + self.name.len()).next_multiple_of(4)
    }
}

/// The type code of a directory entry.
pub(super) fn kind_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => FILE,
        Kind::Dir => DIRECTORY,
        Kind::CharDev { .. } => 3,
        Kind::BlockDev { .. } => 4,
        Kind::Fifo => 5,
        Kind::Socket => 6,
        Kind::Symlink(_) => SYMLINK,
    }
}

/// A directory cut into blocks.
#[derive(Debug)]
pub(super) struct Shape<'t> {
    form: Form,
    own: u32,
    parent: u32,
    entries: Vec<Entry<'t>>,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// All entries in the first of so many blocks.
    Linear(u64),
    /// Entries are sorted by hash. The leaves, with the hash that leads to each.
    Tree(Vec<(u32, Range<usize>)>),
}

impl<'t> Shape<'t> {
    /// A directory `own` inside `parent`; `None` when it is too large for two index levels.
    pub(super) fn new(entries: Vec<Entry<'t>>, own: u32, parent: u32, form: Form) -> Option<Self> {
        let bytes: usize = entries.iter().map(Entry::len).sum();
        if DOTS + bytes <= form.space() {
            return Some(Self::linear(entries, own, parent, 1, form));
        }
        let mut hashed: Vec<(NameHash, Entry<'t>)> = entries
            .into_iter()
            .map(|e| (form.seed.hash(e.name), e))
            .collect();
        hashed.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.name.cmp(y.name)));
        let leaves = pack(&hashed, form.space());
        let entries = hashed.into_iter().map(|(_, entry)| entry).collect();
        let fits = leaves.len() <= form.limit(ROOT_INDEX) * form.limit(NODE_INDEX);
        fits.then_some(Self {
            form,
            own,
            parent,
            entries,
            layout: Layout::Tree(leaves),
        })
    }

    /// A directory whose names fit into the first of `blocks` blocks.
    pub(super) fn linear(
        entries: Vec<Entry<'t>>,
        own: u32,
        parent: u32,
        blocks: u64,
        form: Form,
    ) -> Self {
        Self {
            form,
            own,
            parent,
            entries,
            layout: Layout::Linear(blocks),
        }
    }

    /// Blocks in the directory.
    pub(super) fn blocks(&self) -> u64 {
        match &self.layout {
            Layout::Linear(blocks) => *blocks,
            Layout::Tree(leaves) => (1 + leaves.len() + self.node_count(leaves.len())) as u64,
        }
    }

    /// Directories among the names.
    pub(super) fn folders(&self) -> usize {
        self.entries.iter().filter(|e| e.kind == DIRECTORY).count()
    }

    /// All blocks, in order, with their checksums.
    pub(super) fn write(&self, file_system: Crc, mut put: impl FnMut(&[u8; BLOCK])) {
        let crc = file_system.of_inode(self.own);
        match &self.layout {
            Layout::Linear(blocks) => {
                let dots = [
                    Entry {
                        name: b".",
                        number: self.own,
                        kind: DIRECTORY,
                    },
                    Entry {
                        name: b"..",
                        number: self.parent,
                        kind: DIRECTORY,
                    },
                ];
                put(&self.linear_block(dots.iter().chain(&self.entries), crc));
                for _ in 1..*blocks {
                    put(&self.linear_block([].iter(), crc));
                }
            }
            Layout::Tree(leaves) => {
                let mut index: Vec<(u32, u32)> = (1..)
                    .zip(leaves)
                    .map(|(block, (hash, _))| (*hash, block))
                    .collect();
                let limit = self.form.limit(NODE_INDEX);
                let nodes: Vec<_> = index.chunks(limit).map(<[_]>::to_vec).collect();
                let first_node = 1 + leaves.len();
                let levels = u8::from(self.node_count(leaves.len()) > 0);
                if levels > 0 {
                    let numbers = (first_node..).filter_map(|n| u32::try_from(n).ok());
                    index = nodes.iter().map(|node| node[0].0).zip(numbers).collect();
                }
                put(&self.root_block(&index, levels, crc));
                for (_, range) in leaves {
                    put(&self.linear_block(self.entries[range.clone()].iter(), crc));
                }
                if levels > 0 {
                    for node in &nodes {
                        put(&self.node_block(node, crc));
                    }
                }
            }
        }
    }

    fn root_block(&self, index: &[(u32, u32)], levels: u8, crc: Crc) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_entry(
            &mut block,
            0,
            12,
            &Entry {
                name: b".",
                number: self.own,
                kind: DIRECTORY,
            },
        );
        put_entry(
            &mut block,
            12,
            BLOCK - 12,
            &Entry {
                name: b"..",
                number: self.parent,
                kind: DIRECTORY,
            },
        );
        block[0x1C..0x20].copy_from_slice(&[HALF_MD4, INFO_LEN, levels, 0]);
        put_index(
            &mut block,
            ROOT_INDEX,
            self.form.limit(ROOT_INDEX),
            index,
            crc,
        );
        block
    }

    fn node_block(&self, index: &[(u32, u32)], crc: Crc) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[4..6].copy_from_slice(&BLOCK_LEN.to_le_bytes());
        let limit = self.form.limit(NODE_INDEX);
        put_index(&mut block, NODE_INDEX, limit, index, crc);
        block
    }

    /// Blocks of inner nodes over so many leaves.
    fn node_count(&self, leaves: usize) -> usize {
        if leaves > self.form.limit(ROOT_INDEX) {
            leaves.div_ceil(self.form.limit(NODE_INDEX))
        } else {
            0
        }
    }

    /// A block of entries; the last one reaches up to the tail, and an empty block has one unused
    /// entry.
    fn linear_block<'a>(
        &self,
        entries: impl Iterator<Item = &'a Entry<'a>>,
        crc: Crc,
    ) -> [u8; BLOCK]
    where
        't: 'a,
    {
        const UNUSED: Entry<'_> = Entry {
            name: b"",
            number: 0,
            kind: 0,
        };
        let space = self.form.space();
        let mut block = [0; BLOCK];
        let mut at = 0;
        let mut last = 0;
        for entry in entries {
            put_entry(&mut block, at, entry.len(), entry);
            last = at;
            at += entry.len();
        }
        if at == 0 {
            put_entry(&mut block, 0, space, &UNUSED);
        } else {
            block[last + 4..last + 6]
                .copy_from_slice(&u16::try_from(space - last).unwrap_or(0).to_le_bytes());
        }
        if self.form.checksums {
            let sum = crc.with(&block[..space]).value();
            block[space + 4] = u8::try_from(TAIL).unwrap_or(0);
            block[space + 7] = TAIL_KIND;
            block[space + 8..].copy_from_slice(&sum.to_le_bytes());
        }
        block
    }
}

/// Cuts entries sorted by hash into leaves. A leaf that goes on with the hash of the one before is
/// marked by bit 0.
fn pack(entries: &[(NameHash, Entry<'_>)], space: usize) -> Vec<(u32, Range<usize>)> {
    let mut leaves: Vec<(u32, Range<usize>)> = Vec::new();
    let mut used = space;
    for (at, (hash, entry)) in entries.iter().enumerate() {
        used += entry.len();
        match leaves.last_mut() {
            Some((_, range)) if used <= space => range.end = at + 1,
            _ => {
                let continued = at > 0 && entries[at - 1].0.major == hash.major;
                leaves.push((hash.major | u32::from(continued), at..at + 1));
                used = entry.len();
            }
        }
    }
    leaves
}

fn put_entry(block: &mut [u8; BLOCK], at: usize, len: usize, entry: &Entry<'_>) {
    block[at..at + 4].copy_from_slice(&entry.number.to_le_bytes());
    block[at + 4..at + 6].copy_from_slice(&u16::try_from(len).unwrap_or(0).to_le_bytes());
    block[at + 6] = u8::try_from(entry.name.len()).unwrap_or(0);
    block[at + 7] = entry.kind;
    block[at + 8..at + 8 + entry.name.len()].copy_from_slice(entry.name);
}

/// Length of the one unused entry that makes a node look like an empty block.
const BLOCK_LEN: u16 = 4096;

/// Writes the slots and their checksum. The first slot's hash gives way to limit and count.
fn put_index(block: &mut [u8; BLOCK], start: usize, limit: usize, index: &[(u32, u32)], crc: Crc) {
    for (slot, (hash, number)) in index.iter().enumerate() {
        let at = start + 8 * slot;
        block[at..at + 4].copy_from_slice(&hash.to_le_bytes());
        block[at + 4..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    block[start..start + 2].copy_from_slice(&u16::try_from(limit).unwrap_or(0).to_le_bytes());
    block[start + 2..start + 4]
        .copy_from_slice(&u16::try_from(index.len()).unwrap_or(0).to_le_bytes());
    let tail = start + 8 * limit;
    if !crc.is_on() {
        return;
    }
    let sum = crc
        .with(&block[..start + 8 * index.len()])
        .with(&block[tail..tail + 4])
        .with(&[0; 4])
        .value();
    block[tail + 4..tail + 8].copy_from_slice(&sum.to_le_bytes());
}
