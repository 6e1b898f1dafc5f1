//! First pass: gives every inode of the tree its number and finds out how many blocks it takes.
//!
//! Nothing here depends on the size of the volume. Inodes are numbered, and later placed, layer by
//! layer, the lowest first, and within a layer in the byte order of their paths, which is also the order of file
//! data in a stored layer. What a later layer changes leaves the numbers and places below it as they are.
//!
//! There may be millions of inodes, so what is kept of each is a number or two; all else is asked of the
//! tree again when it is needed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use amiforge_tree::{
    DataExtent, DataSource, FileRuns, Ino, Kind, MAX_NAME, NameRef, Tree, TreeError,
};

use super::dir::{self, Entry, Form, Names, Shape};
use super::geometry::FIRST_INODE;
use super::xattr::{self, XattrProblem};
use super::{BLOCK_SIZE, Ext4Error};

/// Number of the root directory.
pub(super) const ROOT: u32 = 2;
/// Name of the directory that e2fsck puts lost files into.
const LOST_AND_FOUND: &[u8] = b"lost+found";
/// Blocks that lost+found has from the start, so that e2fsck need not allocate any.
const LOST_AND_FOUND_BLOCKS: u64 = 4;
/// Most names of a file. A directory that would have more links has one.
const MAX_LINKS: u32 = 65_000;
/// Longest target inside the inode, and at all.
pub(super) const FAST_SYMLINK: usize = 59;
const MAX_SYMLINK: usize = 4095;
/// Logical block numbers are 32 bits wide, and the last one is not used.
const MAX_FILE_BLOCKS: u64 = u32::MAX as u64;

/// Most layers that are told apart in a file system that is read.
const MAX_LAYERS_READ: usize = 256;

/// A directory, by its place in the order of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folder {
    pub(super) place: u32,
    /// Place of the directory it is in.
    parent: u32,
    pub(super) blocks: u32,
}

/// An inode that needs blocks and is neither directory nor file, or any with a block of attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Other {
    pub(super) place: u32,
    /// A symbolic link too long for the inode.
    pub(super) link: bool,
    /// Attributes too large for the inode.
    pub(super) attributes: bool,
}

/// Everything about the content that does not depend on the volume.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) tree: Arc<Tree>,
    form: Form,
    /// The root, then inodes 11, 12, ... in order, by their slots in the tree; `None` is our own
    /// lost+found.
    order: Vec<Option<Ino>>,
    /// For each slot its place in `order` plus one; 0 for those that no name leads to.
    places: Vec<u32>,
    /// For each slot its link count, as stored: 1 for a directory with too many sub-directories.
    links: Vec<u32>,
    /// All directories, in order.
    pub(super) folders: Vec<Folder>,
    /// In order, too.
    pub(super) others: Vec<Other>,
    /// Blocks for all content, without the extent blocks of files in many pieces.
    pub(super) blocks: u64,
}

impl Scan {
    /// Number of inodes that are not reserved, and the root.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Inodes in use, reserved ones included; also the highest number.
    pub(super) fn used_inodes(&self) -> u64 {
        u64::from(FIRST_INODE) - 2 + self.order.len() as u64
    }

    /// The inode at a place; `None` for our own lost+found.
    pub(super) fn ino(&self, place: usize) -> Option<Ino> {
        self.order.get(place).copied().flatten()
    }

    /// Link count of the inode at a place.
    pub(super) fn links(&self, place: usize) -> u32 {
        self.ino(place).map_or(2, |ino| self.links[ino.index()])
    }

    /// The file at a place; `None` for all others.
    pub(super) fn file(&self, place: usize) -> Option<FileRuns<'_>> {
        self.tree.file(self.ino(place)?)
    }

    /// The directory at a place; `None` for all others.
    pub(super) fn folder(&self, place: usize) -> Option<&Folder> {
        let found = self
            .folders
            .binary_search_by_key(&place, |folder| folder.place as usize);
        Some(&self.folders[found.ok()?])
    }

    /// Whether a directory has a hash tree.
    pub(super) fn is_indexed(&self, folder: &Folder) -> bool {
        folder.blocks > 1 && self.ino(folder.place as usize).is_some()
    }

    /// A directory cut into blocks; `None` when it is too large for two index levels.
    pub(super) fn shape(&self, folder: &Folder) -> Option<Shape<Named>> {
        let own = number_of(folder.place as usize);
        let up = number_of(folder.parent as usize);
        let Some(ino) = self.ino(folder.place as usize) else {
            let blocks = LOST_AND_FOUND_BLOCKS;
            return Some(Shape::linear(Vec::new(), own, up, blocks, self.form));
        };
        let children = self.tree.children(ino)?;
        let mut names = Vec::with_capacity(children.len() + 1);
        names.extend(children.refs().map(|(name, child)| Named {
            name,
            place: self.places[child.index()].saturating_sub(1),
        }));
        if ino == Ino::ROOT && self.ino(1).is_none() && self.len() > 1 {
            let lost = Named {
                name: NameRef::default(),
                place: 1,
            };
            let at = names.partition_point(|named| self.entry(*named).name < LOST_AND_FOUND);
            names.insert(at, lost);
        }
        Shape::new(self, names, own, up, self.form)
    }

    fn kind_code(&self, ino: Ino) -> u8 {
        if self.tree.is_dir(ino) {
            dir::DIRECTORY
        } else if self.tree.file(ino).is_some() {
            dir::FILE
        } else if self.tree.target(ino).is_some() {
            dir::SYMLINK
        } else {
            dir::kind_code(&self.tree.inode(ino).kind)
        }
    }
}

/// A name in a directory, and the place of what it leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    /// Of our own lost+found, which the tree does not name, it says nothing.
    name: NameRef,
    place: u32,
}

const _: () = assert!(size_of::<Named>() == 8);

impl Names for Scan {
    type Key = Named;

    fn entry(&self, key: Named) -> Entry<'_> {
        let place = key.place as usize;
        let (name, kind) = match self.ino(place) {
            Some(ino) => (self.tree.text(key.name), self.kind_code(ino)),
            None => (LOST_AND_FOUND, dir::DIRECTORY),
        };
        Entry {
            name,
            number: number_of(place),
            kind,
        }
    }
}

/// What the tree has at the place of lost+found.
fn lost_and_found(tree: &Tree) -> Option<Ino> {
    tree.children(Ino::ROOT)?.get(LOST_AND_FOUND)
}

/// Gives inodes the layers that make the writer number them in the order of `numbers`, which has the number
/// of each slot of the tree: one more layer wherever the paths go back. Of a file system that has grown
/// in use that makes thousands, which mean nothing; it stays in one.
pub(super) fn layers_of_numbers(tree: &mut Tree, numbers: &[u32]) -> Result<(), TreeError> {
    let own = lost_and_found(tree).filter(|ino| tree.is_dir(*ino));
    // A stable sort by number leaves those in the order of paths that share one, as in a damaged file system.
    let mut walked: Vec<Ino> = Vec::with_capacity(tree.slots());
    let mut met = vec![false; tree.slots()];
    for item in Walk::new(tree) {
        if !std::mem::replace(&mut met[item.ino.index()], true) && own != Some(item.ino) {
            walked.push(item.ino);
        }
    }
    let number = |ino: Ino| numbers.get(ino.index()).copied().unwrap_or(u32::MAX);
    let mut by_number: Vec<u32> = (0..).take(walked.len()).collect();
    by_number.sort_by_key(|at| number(walked[*at as usize]));
    let back = by_number.windows(2).filter(|pair| pair[1] < pair[0]);
    if back.count() >= MAX_LAYERS_READ {
        return Ok(());
    }
    let (mut layer, mut last) = (0, 0);
    for at in by_number {
        if at < last {
            layer += 1;
        }
        last = at;
        if layer > 0 {
            tree.set_layer(walked[at as usize], layer)?;
        }
    }
    Ok(())
}

/// The number of the inode at a place in the order of a [`Scan`].
pub(super) fn number_of(index: usize) -> u32 {
    match u32::try_from(index) {
        Ok(0) => ROOT,
        Ok(n) => n + FIRST_INODE - 1,
        Err(_) => u32::MAX,
    }
}

/// Numbers and measures a tree.
pub(super) fn scan(tree: Arc<Tree>, form: Form) -> Result<Scan, Ext4Error> {
    let mut scan = Scan {
        form,
        order: Vec::with_capacity(tree.slots() + 1),
        places: vec![0; tree.slots()],
        links: vec![0; tree.slots()],
        folders: Vec::new(),
        others: Vec::new(),
        blocks: 0,
        tree: Arc::clone(&tree),
    };
    scan.number_all(&tree)?;
    scan.measure(&tree)?;
    Ok(scan)
}

impl Scan {
    /// Gives all inodes their places.
    fn number_all(&mut self, tree: &Tree) -> Result<(), Ext4Error> {
        self.number(tree, Ino::ROOT, Ino::ROOT);
        match lost_and_found(tree) {
            Some(ino) if tree.is_dir(ino) => self.number(tree, ino, Ino::ROOT),
            Some(_) => {}
            None => {
                self.order.push(None);
                self.folders.push(Folder {
                    place: 1,
                    parent: 0,
                    blocks: 0,
                });
            }
        }
        for item in Walk::new(tree) {
            self.meet(tree, &item)?;
        }
        self.sort_by_layer(tree);
        match u32::try_from(self.order.len() + FIRST_INODE as usize) {
            Ok(_) => Ok(()),
            Err(_) => Err(Ext4Error::TooManyInodes(self.order.len() as u64)),
        }
    }

    /// Brings what the walk has numbered into the order of layers; the root and lost+found stay first.
    fn sort_by_layer(&mut self, tree: &Tree) {
        let layer = |ino: &Option<Ino>| ino.map_or(0, |ino| tree.layer(ino));
        let first = if self.keeps_second_place(tree) { 2 } else { 1 };
        let movable = self.order.get(first..).unwrap_or_default();
        if movable.is_sorted_by_key(layer) {
            return;
        }
        let walked = self.order.clone();
        self.order[first..].sort_by_key(layer);
        for (place, ino) in (1..).zip(&self.order) {
            if let Some(ino) = ino {
                self.places[ino.index()] = place;
            }
        }
        // Our own lost+found stays where it is.
        let moved = |place: u32| {
            let ino = walked.get(place as usize).copied().flatten();
            ino.map_or(place, |ino| self.places[ino.index()].saturating_sub(1))
        };
        for folder in &mut self.folders {
            (folder.place, folder.parent) = (moved(folder.place), moved(folder.parent));
        }
        self.folders.sort_unstable_by_key(|folder| folder.place);
    }

    /// Whether the inode after the root is lost+found, ours or the tree's.
    fn keeps_second_place(&self, tree: &Tree) -> bool {
        match self.order.get(1) {
            Some(Some(ino)) => lost_and_found(tree) == Some(*ino) && tree.is_dir(*ino),
            Some(None) => true,
            None => false,
        }
    }

    fn number(&mut self, tree: &Tree, ino: Ino, parent: Ino) {
        let place = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        self.order.push(Some(ino));
        self.places[ino.index()] = place.saturating_add(1);
        if tree.is_dir(ino) {
            self.folders.push(Folder {
                place,
                parent: self.places[parent.index()].saturating_sub(1),
                blocks: 0,
            });
        }
    }

    /// Counts a name, and numbers its inode when it is the first one.
    fn meet(&mut self, tree: &Tree, item: &Item<'_>) -> Result<(), Ext4Error> {
        let name = item.name;
        let legal = !name.is_empty() && name.len() <= MAX_NAME && name != b"." && name != b"..";
        let below = || [&path_of(tree, item.parent, b"")[..], b"/", name].concat();
        if !legal || name.contains(&b'/') || name.contains(&0) {
            return Err(Ext4Error::BadName { path: below() });
        }
        let links = self.links[item.ino.index()];
        if tree.is_dir(item.ino) && (links > 0 || item.ino == Ino::ROOT) {
            return Err(Ext4Error::DirectoryLink { path: below() });
        }
        if self.places[item.ino.index()] == 0 {
            self.number(tree, item.ino, item.parent);
        }
        self.links[item.ino.index()] = links + 1;
        Ok(())
    }

    fn measure(&mut self, tree: &Tree) -> Result<(), Ext4Error> {
        for index in 0..self.folders.len() {
            self.measure_folder(tree, index)?;
        }
        for place in 0..self.order.len() {
            let Some(ino) = self.order[place] else {
                continue;
            };
            let other = Other {
                place: u32::try_from(place).unwrap_or(u32::MAX),
                link: self.measure_inode(tree, ino)?,
                attributes: needs_block(tree, ino)?,
            };
            if other.link || other.attributes {
                self.blocks += u64::from(other.link) + u64::from(other.attributes);
                self.others.push(other);
            }
        }
        Ok(())
    }

    fn measure_folder(&mut self, tree: &Tree, index: usize) -> Result<(), Ext4Error> {
        let folder = self.folders[index];
        let ino = self.ino(folder.place as usize);
        let shape = self.shape(&folder);
        let shape = shape.ok_or_else(|| Ext4Error::DirectoryTooLarge {
            path: ino.map_or_else(Vec::new, |ino| path_of(tree, ino, b"/")),
        })?;
        let (blocks, below) = (shape.blocks(), shape.folders(self));
        self.folders[index].blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        self.blocks += blocks;
        if let Some(ino) = ino {
            self.links[ino.index()] = u32::try_from(below + 2)
                .ok()
                .filter(|links| *links <= MAX_LINKS)
                .unwrap_or(1);
        }
        Ok(())
    }

    /// Checks an inode and counts the blocks of a file. True for a symbolic link that needs one.
    fn measure_inode(&mut self, tree: &Tree, ino: Ino) -> Result<bool, Ext4Error> {
        if tree.is_dir(ino) {
            return Ok(false);
        }
        let path = || path_of(tree, ino, b"/");
        let mut needs_block = false;
        if let Some(file) = tree.file(ino) {
            check_content(&file, path)?;
            self.blocks += ranges_of(file.extents())
                .map(|r| r.end - r.start)
                .sum::<u64>();
        } else {
            match tree.inode(ino).kind {
                Kind::Symlink(target) if (1..=MAX_SYMLINK).contains(&target.len()) => {
                    needs_block = target.len() > FAST_SYMLINK;
                }
                Kind::Symlink(target) => {
                    let len = target.len();
                    return Err(Ext4Error::BadSymlink { path: path(), len });
                }
                Kind::CharDev { major, minor } | Kind::BlockDev { major, minor }
                    if major >= 1 << 12 || minor >= 1 << 20 =>
                {
                    let path = path();
                    return Err(Ext4Error::BadDevice { path, major, minor });
                }
                _ => {}
            }
        }
        let links = self.links[ino.index()];
        if links > MAX_LINKS {
            let path = path();
            return Err(Ext4Error::TooManyLinks { path, links });
        }
        Ok(needs_block)
    }
}

/// Checks the attributes of an inode. True when they need a block.
fn needs_block(tree: &Tree, ino: Ino) -> Result<bool, Ext4Error> {
    let path = || path_of(tree, ino, b"/");
    let encoded = xattr::encode(tree.xattrs(ino)).map_err(|problem| match problem {
        XattrProblem::Name(name) => Ext4Error::XattrName { path: path(), name },
        XattrProblem::Value(name) => Ext4Error::XattrValue { path: path(), name },
        XattrProblem::Space { size, limit } => Ext4Error::XattrSpace {
            path: path(),
            size,
            limit,
        },
    })?;
    Ok(encoded.is_some_and(|encoded| encoded.block.is_some()))
}

/// The first name of an inode, for messages; `root` is that of the root.
fn path_of(tree: &Tree, ino: Ino, root: &[u8]) -> Vec<u8> {
    if ino == Ino::ROOT {
        return root.to_vec();
    }
    let mut folders: HashMap<Ino, Item<'_>> = HashMap::new();
    let Some(found) = Walk::new(tree).find(|item| {
        if tree.is_dir(item.ino) {
            folders.entry(item.ino).or_insert(*item);
        }
        item.ino == ino
    }) else {
        return Vec::new();
    };
    let mut names = vec![found.name];
    let mut at = found.parent;
    while let Some(item) = folders.get(&at).filter(|_| at != Ino::ROOT) {
        names.push(item.name);
        at = item.parent;
    }
    let mut path = Vec::new();
    for name in names.into_iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    path
}

/// All names of a tree but the root's, in byte order of the whole paths. It ends only for a tree, so
/// whoever walks has to stop at a directory that comes again.
struct Walk<'t> {
    tree: &'t Tree,
    stack: Vec<Item<'t>>,
}

impl<'t> Walk<'t> {
    fn new(tree: &'t Tree) -> Self {
        let mut walk = Self {
            tree,
            stack: Vec::new(),
        };
        walk.expand(Ino::ROOT);
        walk
    }

    /// Puts the names in a directory, and what lies below those that are directories, on the stack.
    fn expand(&mut self, dir: Ino) {
        let Some(children) = self.tree.children(dir) else {
            return;
        };
        let start = self.stack.len();
        for (name, ino) in children.iter() {
            let item = Item {
                name,
                ino,
                parent: dir,
                below: false,
            };
            self.stack.push(item);
            if self.tree.is_dir(ino) {
                self.stack.push(Item {
                    below: true,
                    ..item
                });
            }
        }
        // Taken from the end, so the last in path order goes first.
        self.stack[start..].sort_by(|a, b| b.path_order(a));
    }
}

impl<'t> Iterator for Walk<'t> {
    type Item = Item<'t>;

    fn next(&mut self) -> Option<Item<'t>> {
        loop {
            let item = self.stack.pop()?;
            if !item.below {
                return Some(item);
            }
            self.expand(item.ino);
        }
    }
}

/// A name on the stack of the walk, or (`below`) what lies below it.
#[derive(Clone, Copy)]
struct Item<'t> {
    name: &'t [u8],
    ino: Ino,
    /// The directory it is in.
    parent: Ino,
    below: bool,
}

impl Item<'_> {
    /// Order of the whole paths, where what lies below a name has a `/` after it.
    fn path_order(&self, other: &Self) -> Ordering {
        let common = self.name.len().min(other.name.len());
        let next = |item: &Self| {
            item.name
                .get(common)
                .copied()
                .or(item.below.then_some(b'/'))
        };
        self.name[..common]
            .cmp(&other.name[..common])
            .then_with(|| next(self).cmp(&next(other)))
    }
}

/// The blocks that runs of data lie in, neighbours joined.
pub(super) fn ranges_of(runs: &[DataExtent]) -> impl Iterator<Item = Range<u64>> {
    let mut blocks = runs
        .iter()
        .map(|run| run.offset / BLOCK_SIZE..(run.offset + run.len).div_ceil(BLOCK_SIZE))
        .peekable();
    std::iter::from_fn(move || {
        let mut range = blocks.next()?;
        while let Some(next) = blocks.next_if(|next| next.start <= range.end) {
            range.end = next.end;
        }
        Some(range)
    })
}

/// Whether the runs of a file are in order, and ext4 can map it.
fn check_content(content: &FileRuns<'_>, path: impl Fn() -> Vec<u8>) -> Result<(), Ext4Error> {
    if content.size > MAX_FILE_BLOCKS * BLOCK_SIZE {
        return Err(Ext4Error::FileTooLarge {
            path: path(),
            size: content.size,
        });
    }
    let mut end = 0;
    for run in content.extents() {
        let bad = || Ext4Error::BadContent {
            path: path(),
            offset: run.offset,
        };
        let next = run.offset.checked_add(run.len).ok_or_else(bad)?;
        let held = match &run.source {
            DataSource::Bytes(bytes) => bytes.len() as u64 == run.len,
            DataSource::Blob { offset, .. } => offset.checked_add(run.len).is_some(),
        };
        if run.len == 0 || run.offset < end || next > content.size || !held {
            return Err(bad());
        }
        end = next;
    }
    Ok(())
}
