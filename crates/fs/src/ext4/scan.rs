//! First pass: gives every inode of the tree its number and finds out how many blocks it takes.
//!
//! Nothing here depends on the size of the volume. Inodes are numbered, and later placed, in the
//! byte order of their paths, which is also the order of file data in a layer.

use std::cmp::Ordering;
use std::ops::Range;

use amiforge_tree::{Content, DataExtent, DataSource, Ino, Inode, Kind, MAX_NAME, Tree};

use super::dir::{self, Entry, Form, Shape};
use super::geometry::FIRST_INODE;
use super::xattr::{self, Encoded, XattrProblem};
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
const FAST_SYMLINK: usize = 59;
const MAX_SYMLINK: usize = 4095;
/// Logical block numbers are 32 bits wide, and the last one is not used.
const MAX_FILE_BLOCKS: u64 = u32::MAX as u64;

/// Content of an inode, in blocks.
#[derive(Debug)]
pub(super) enum Body<'t> {
    /// A directory.
    Dir(Box<Shape<'t>>),
    /// A regular file; see [`ranges_of`].
    File(&'t Content),
    /// A symbolic link inside the inode.
    FastSymlink(&'t [u8]),
    /// A symbolic link in a block.
    SlowSymlink(&'t [u8]),
    /// A device: major, minor.
    Device(u32, u32),
    /// Named pipe or socket.
    Nothing,
}

/// One inode to be written.
#[derive(Debug)]
pub(super) struct Node<'t> {
    /// `None` is our own lost+found.
    pub(super) inode: Option<&'t Inode>,
    /// As stored: 1 for a directory with too many sub-directories.
    pub(super) links: u32,
    pub(super) body: Body<'t>,
    pub(super) xattrs: Option<Box<Encoded>>,
}

/// What is placed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Directories: first.
    Dir,
    /// All that is neither, and attribute blocks of any.
    Other,
    /// Regular files: last.
    File,
}

impl Node<'_> {
    /// With what this inode's content is placed.
    pub(super) fn class(&self) -> Class {
        match self.body {
            Body::Dir(_) => Class::Dir,
            Body::File(_) => Class::File,
            _ => Class::Other,
        }
    }

    /// Ranges of logical blocks that this inode needs, without extent blocks and attributes.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let whole = match &self.body {
            Body::Dir(shape) => Some(0..shape.blocks()),
            Body::SlowSymlink(_) => Some(0..1),
            _ => None,
        };
        let file = match &self.body {
            Body::File(content) => content.extents.as_slice(),
            _ => &[],
        };
        whole.into_iter().chain(ranges_of(file))
    }

    /// Needs a block for attributes.
    pub(super) fn has_xattr_block(&self) -> bool {
        self.xattrs.as_ref().is_some_and(|x| x.block.is_some())
    }
}

/// Everything about the content that does not depend on the volume.
#[derive(Debug)]
pub(super) struct Scan<'t> {
    /// The root, then inodes 11, 12, ... in order.
    pub(super) nodes: Vec<Node<'t>>,
    /// Blocks for all content, without the extent blocks of files in many pieces.
    pub(super) blocks: u64,
}

impl Scan<'_> {
    /// Inodes in use, reserved ones included; also the highest number.
    pub(super) fn used_inodes(&self) -> u64 {
        u64::from(FIRST_INODE) - 2 + self.nodes.len() as u64
    }
}

/// The number of the inode at a place in [`Scan::nodes`].
pub(super) fn number_of(index: usize) -> u32 {
    match u32::try_from(index) {
        Ok(0) => ROOT,
        Ok(n) => n + FIRST_INODE - 1,
        Err(_) => u32::MAX,
    }
}

/// What is known of an inode slot of the tree while it is being numbered.
#[derive(Clone, Copy, Default)]
struct Slot<'t> {
    /// Place in the list of nodes plus one; 0 as long as it has none.
    place: u32,
    links: u32,
    parent: u32,
    name: &'t [u8],
}

struct Numbering<'t> {
    tree: &'t Tree,
    slots: Vec<Slot<'t>>,
    /// Slots in the order of their numbers; `None` is our own lost+found.
    order: Vec<Option<Ino>>,
    parents: Vec<u32>,
}

/// Numbers and measures a tree.
pub(super) fn scan(tree: &Tree, form: Form) -> Result<Scan<'_>, Ext4Error> {
    let mut numbering = Numbering {
        tree,
        slots: vec![Slot::default(); tree.slots()],
        order: Vec::with_capacity(tree.slots() + 1),
        parents: Vec::with_capacity(tree.slots() + 1),
    };
    let own_lost_found = numbering.walk()?;
    numbering.measure(own_lost_found, form)
}

impl<'t> Numbering<'t> {
    /// Numbers all inodes. True when a lost+found has to be added.
    fn walk(&mut self) -> Result<bool, Ext4Error> {
        self.number(Ino::ROOT, 0, b"");
        let existing = self
            .tree
            .children(Ino::ROOT)
            .and_then(|children| children.get(LOST_AND_FOUND));
        let own = existing.is_none();
        match existing {
            Some(ino) if self.tree.children(*ino).is_some() => self.number(*ino, 0, LOST_AND_FOUND),
            Some(_) => {}
            None => {
                self.order.push(None);
                self.parents.push(0);
            }
        }
        let mut stack = vec![Item {
            name: b"",
            ino: Ino::ROOT,
            parent: 0,
            below: true,
        }];
        while let Some(item) = stack.pop() {
            if item.below {
                self.expand(item.ino, &mut stack);
            } else {
                self.meet(&item)?;
            }
        }
        match u32::try_from(self.order.len() + FIRST_INODE as usize) {
            Ok(_) => Ok(own),
            Err(_) => Err(Ext4Error::TooManyInodes(self.order.len() as u64)),
        }
    }

    fn number(&mut self, ino: Ino, parent: u32, name: &'t [u8]) {
        self.order.push(Some(ino));
        self.parents.push(parent);
        let slot = &mut self.slots[ino.index()];
        slot.place = u32::try_from(self.order.len()).unwrap_or(u32::MAX);
        slot.parent = parent;
        slot.name = name;
    }

    /// Puts the names in a directory, and what lies below those that are directories, on the stack.
    fn expand(&self, dir: Ino, stack: &mut Vec<Item<'t>>) {
        let Some(children) = self.tree.children(dir) else {
            return;
        };
        let parent = u32::try_from(dir.index()).unwrap_or(u32::MAX);
        let start = stack.len();
        for (name, ino) in children {
            stack.push(Item {
                name,
                ino: *ino,
                parent,
                below: false,
            });
            if self.tree.children(*ino).is_some() {
                stack.push(Item {
                    name,
                    ino: *ino,
                    parent,
                    below: true,
                });
            }
        }
        // Taken from the end, so the last in path order goes first.
        stack[start..].sort_by(|a, b| b.path_order(a));
    }

    /// Counts a name, and numbers its inode when it is the first one.
    fn meet(&mut self, item: &Item<'t>) -> Result<(), Ext4Error> {
        let name = item.name;
        let legal = !name.is_empty() && name.len() <= MAX_NAME && name != b"." && name != b"..";
        if !legal || name.contains(&b'/') || name.contains(&0) {
            return Err(Ext4Error::BadName {
                path: self.path_below(item.parent, name),
            });
        }
        let slot = self.slots[item.ino.index()];
        let is_dir = self.tree.children(item.ino).is_some();
        if is_dir && (slot.links > 0 || item.ino == Ino::ROOT) {
            return Err(Ext4Error::DirectoryLink {
                path: self.path_below(item.parent, name),
            });
        }
        if slot.place == 0 {
            self.number(item.ino, item.parent, name);
        }
        self.slots[item.ino.index()].links += 1;
        Ok(())
    }

    fn path_below(&self, mut parent: u32, name: &[u8]) -> Vec<u8> {
        let mut names = vec![name];
        while parent != 0 {
            let slot = &self.slots[parent as usize];
            names.push(slot.name);
            parent = slot.parent;
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    fn path(&self, ino: Ino) -> Vec<u8> {
        let slot = &self.slots[ino.index()];
        if ino == Ino::ROOT {
            b"/".to_vec()
        } else {
            self.path_below(slot.parent, slot.name)
        }
    }

    /// The number of an inode of the tree.
    fn number_of(&self, ino: Ino) -> u32 {
        number_of((self.slots[ino.index()].place as usize).saturating_sub(1))
    }

    fn measure(&self, own_lost_found: bool, form: Form) -> Result<Scan<'t>, Ext4Error> {
        let mut nodes = Vec::with_capacity(self.order.len());
        let mut blocks = 0;
        for (slot, parent) in self.order.iter().zip(&self.parents) {
            let node = match slot {
                Some(ino) => self.node(*ino, *parent, own_lost_found, form)?,
                None => Node {
                    inode: None,
                    links: 2,
                    body: Body::Dir(Box::new(Shape::linear(
                        Vec::new(),
                        number_of(1),
                        ROOT,
                        LOST_AND_FOUND_BLOCKS,
                        form,
                    ))),
                    xattrs: None,
                },
            };
            blocks += node.ranges().map(|r| r.end - r.start).sum::<u64>()
                + u64::from(node.has_xattr_block());
            nodes.push(node);
        }
        Ok(Scan { nodes, blocks })
    }

    fn node(
        &self,
        ino: Ino,
        parent: u32,
        add_lost_found: bool,
        form: Form,
    ) -> Result<Node<'t>, Ext4Error> {
        let inode = self.tree.inode(ino);
        let path = || self.path(ino);
        let mut links = self.slots[ino.index()].links;
        let body = match &inode.kind {
            Kind::Dir(children) => {
                let mut entries: Vec<_> = children
                    .iter()
                    .map(|(name, child)| Entry {
                        name,
                        number: self.number_of(*child),
                        kind: dir::kind_code(&self.tree.inode(*child).kind),
                    })
                    .collect();
                if ino == Ino::ROOT && add_lost_found {
                    let lost = Entry {
                        name: LOST_AND_FOUND,
                        number: number_of(1),
                        kind: dir::DIRECTORY,
                    };
                    let at = entries.partition_point(|e| e.name < LOST_AND_FOUND);
                    entries.insert(at, lost);
                }
                let below = entries.iter().filter(|e| e.kind == dir::DIRECTORY).count();
                links = u32::try_from(below + 2)
                    .ok()
                    .filter(|links| *links <= MAX_LINKS)
                    .unwrap_or(1);
                let own = self.number_of(ino);
                let up = if ino == Ino::ROOT {
                    ROOT
                } else {
                    self.number_of_slot(parent)
                };
                let shape = Shape::new(entries, own, up, form);
                let too_large = || Ext4Error::DirectoryTooLarge { path: path() };
                Body::Dir(Box::new(shape.ok_or_else(too_large)?))
            }
            Kind::File(content) => {
                check_content(content, path)?;
                Body::File(content)
            }
            Kind::Symlink(target) => match target.len() {
                1..=FAST_SYMLINK => Body::FastSymlink(target),
                len if (1..=MAX_SYMLINK).contains(&len) => Body::SlowSymlink(target),
                len => return Err(Ext4Error::BadSymlink { path: path(), len }),
            },
            Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
                if *major >= 1 << 12 || *minor >= 1 << 20 {
                    return Err(Ext4Error::BadDevice {
                        path: path(),
                        major: *major,
                        minor: *minor,
                    });
                }
                Body::Device(*major, *minor)
            }
            Kind::Fifo | Kind::Socket => Body::Nothing,
        };
        if !matches!(body, Body::Dir(_)) && links > MAX_LINKS {
            return Err(Ext4Error::TooManyLinks {
                path: path(),
                links,
            });
        }
        let xattrs = xattr::encode(&inode.xattrs).map_err(|problem| match problem {
            XattrProblem::Name(name) => Ext4Error::XattrName { path: path(), name },
            XattrProblem::Value(name) => Ext4Error::XattrValue { path: path(), name },
            XattrProblem::Space { size, limit } => Ext4Error::XattrSpace {
                path: path(),
                size,
                limit,
            },
        })?;
        Ok(Node {
            inode: Some(inode),
            links,
            body,
            xattrs: xattrs.map(Box::new),
        })
    }

    fn number_of_slot(&self, slot: u32) -> u32 {
        number_of((self.slots[slot as usize].place as usize).saturating_sub(1))
    }
}

/// A name on the stack of the walk, or (`below`) what lies below it.
struct Item<'t> {
    name: &'t [u8],
    ino: Ino,
    /// Slot of the directory it is in.
    parent: u32,
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
fn ranges_of(runs: &[DataExtent]) -> impl Iterator<Item = Range<u64>> {
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
fn check_content(content: &Content, path: impl Fn() -> Vec<u8>) -> Result<(), Ext4Error> {
    if content.size > MAX_FILE_BLOCKS * BLOCK_SIZE {
        return Err(Ext4Error::FileTooLarge {
            path: path(),
            size: content.size,
        });
    }
    let mut end = 0;
    for run in &content.extents {
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
