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

/// What a directory names, each name as a key that says where to find it.
pub(super) trait Names {
    /// Stands for a name. A directory may have millions of them, so it should be small.
    type Key: Copy;

    /// The name and what it leads to.
    fn entry(&self, key: Self::Key) -> Entry<'_>;
}

/// A directory cut into blocks.
#[derive(Debug)]
pub(super) struct Shape<K> {
    form: Form,
    own: u32,
    parent: u32,
    /// In the order in which they are written.
    keys: Vec<K>,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// All entries in the first of so many blocks.
    Linear(u64),
    /// Entries are sorted by hash.
    Tree(Vec<Leaf>),
}

/// A leaf: the hash that leads to it, and the first of its entries.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    hash: u32,
    first: u32,
}

impl<K: Copy> Shape<K> {
    /// A directory `own` inside `parent`; `None` when it is too large for two index levels.
    pub(super) fn new(
        names: &impl Names<Key = K>,
        keys: Vec<K>,
        own: u32,
        parent: u32,
        form: Form,
    ) -> Option<Self> {
        let bytes: usize = keys.iter().map(|key| names.entry(*key).len()).sum();
        if DOTS + bytes <= form.space() {
            return Some(Self::linear(keys, own, parent, 1, form));
        }
        let hash = |key: &K| form.seed.hash(names.entry(*key).name);
        let mut hashed: Vec<(NameHash, K)> = keys.into_iter().map(|k| (hash(&k), k)).collect();
        hashed.sort_unstable_by(|(a, x), (b, y)| {
            let name = |key: &K| names.entry(*key).name;
            a.cmp(b).then_with(|| name(x).cmp(name(y)))
        });
        let leaves = pack(names, &hashed, form.space())?;
        let fits = leaves.len() <= form.limit(ROOT_INDEX) * form.limit(NODE_INDEX);
        let mut keys: Vec<K> = hashed.into_iter().map(|(_, key)| key).collect();
        keys.shrink_to_fit();
        fits.then_some(Self {
            form,
            own,
            parent,
            keys,
            layout: Layout::Tree(leaves),
        })
    }

    /// A directory whose names fit into the first of `blocks` blocks.
    pub(super) fn linear(keys: Vec<K>, own: u32, parent: u32, blocks: u64, form: Form) -> Self {
        Self {
            form,
            own,
            parent,
            keys,
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
    pub(super) fn folders(&self, names: &impl Names<Key = K>) -> usize {
        let kinds = self.keys.iter().map(|key| names.entry(*key).kind);
        kinds.filter(|kind| *kind == DIRECTORY).count()
    }

    /// The block at a place in the directory, with its checksum.
    pub(super) fn block(
        &self,
        names: &impl Names<Key = K>,
        file_system: Crc,
        place: usize,
    ) -> [u8; BLOCK] {
        let crc = file_system.of_inode(self.own);
        let entries = |range: Range<usize>| {
            let keys = self.keys.get(range).unwrap_or_default();
            keys.iter().map(|key| names.entry(*key))
        };
        let leaves = match &self.layout {
            Layout::Linear(_) if place == 0 => {
                let all = self.dots().into_iter().chain(entries(0..self.keys.len()));
                return self.linear_block(all, crc);
            }
            Layout::Linear(_) => return self.linear_block(std::iter::empty(), crc),
            Layout::Tree(leaves) => leaves,
        };
        let limit = self.form.limit(NODE_INDEX);
        let nodes = self.node_count(leaves.len());
        let first_node = 1 + leaves.len();
        let pointer = |leaf: &Leaf, block: usize| (leaf.hash, u32::try_from(block).unwrap_or(0));
        if let Some(node) = place.checked_sub(first_node) {
            let from = node * limit;
            let below = leaves.iter().enumerate().skip(from).take(limit);
            let index: Vec<_> = below.map(|(at, leaf)| pointer(leaf, 1 + at)).collect();
            return self.node_block(&index, crc);
        }
        match place.checked_sub(1) {
            Some(leaf) => {
                let start = |at: usize| leaves.get(at).map(|leaf| leaf.first as usize);
                let first = start(leaf).unwrap_or(self.keys.len());
                let end = start(leaf + 1).unwrap_or(self.keys.len());
                self.linear_block(entries(first..end), crc)
            }
            None if nodes > 0 => {
                let firsts = leaves.iter().step_by(limit).enumerate();
                let index: Vec<_> = firsts
                    .map(|(node, leaf)| pointer(leaf, first_node + node))
                    .collect();
                self.root_block(&index, 1, crc)
            }
            None => {
                let all = leaves.iter().enumerate();
                let index: Vec<_> = all.map(|(at, leaf)| pointer(leaf, 1 + at)).collect();
                self.root_block(&index, 0, crc)
            }
        }
    }

    fn dots(&self) -> [Entry<'static>; 2] {
        let dot = |name, number| Entry {
            name,
            number,
            kind: DIRECTORY,
        };
        [dot(&b"."[..], self.own), dot(b"..", self.parent)]
    }

    fn root_block(&self, index: &[(u32, u32)], levels: u8, crc: Crc) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let [own, parent] = self.dots();
        put_entry(&mut block, 0, 12, &own);
        put_entry(&mut block, 12, BLOCK - 12, &parent);
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
    fn linear_block<'a>(&self, entries: impl Iterator<Item = Entry<'a>>, crc: Crc) -> [u8; BLOCK] {
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
            put_entry(&mut block, at, entry.len(), &entry);
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
/// marked by bit 0. `None` when there are more entries than inodes can be.
fn pack<N: Names>(names: &N, entries: &[(NameHash, N::Key)], space: usize) -> Option<Vec<Leaf>> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut used = space;
    let mut before = None;
    for (at, (hash, key)) in entries.iter().enumerate() {
        let len = names.entry(*key).len();
        used += len;
        if used > space {
            let continued = before == Some(hash.major);
            leaves.push(Leaf {
                hash: hash.major | u32::from(continued),
                first: u32::try_from(at).ok()?,
            });
            used = len;
        }
        before = Some(hash.major);
    }
    Some(leaves)
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
