//! Inodes and the tree that names them.

use std::collections::BTreeMap;
use std::sync::Arc;

use amiforge_types::{BlobId, Digest, Timestamp};

use crate::ContentHasher;
use crate::InodeFlags;
use crate::names::{Children, Directory, NameRef, NameStore};
use crate::pack::{FileRuns, Packed, Store};

/// Longest file name in bytes (`NAME_MAX` of Linux).
pub const MAX_NAME: usize = 255;

/// Index of an inode in its [`Tree`]. The root is [`Ino::ROOT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub(crate) u32);

impl Ino {
    /// The root directory.
    pub const ROOT: Self = Self(0);

    /// Position in the tree's inode table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The inode at a position of the table; `None` beyond the largest.
    #[must_use]
    pub fn from_index(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }
}

/// Full name of an extended attribute, for example `security.capability`.
pub type XattrName = Vec<u8>;

/// Ownership, mode and time of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Permission bits with set-uid, set-gid and sticky: at most `0o7777`. The type is in [`Kind`].
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification; the other times of the inode are set to the same.
    pub mtime: Timestamp,
}

/// Where the bytes of one run of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    /// In memory; for small, generated files.
    Bytes(Arc<[u8]>),
    /// In a blob at `offset`.
    Blob {
        /// The blob.
        id: BlobId,
        /// Byte offset of the first byte of the run inside the blob.
        offset: u64,
    },
}

/// One run of a file's data. Ranges of the file that no run covers are holes and read as zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataExtent {
    /// Byte offset in the file.
    pub offset: u64,
    /// Bytes, above zero.
    pub len: u64,
    /// Where they are.
    pub source: DataSource,
}

/// The content of a regular file.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Content {
    /// File size in bytes.
    pub size: u64,
    /// Runs of data, sorted by offset, not overlapping, inside `size`.
    pub extents: Vec<DataExtent>,
    /// Digest of the bytes by [`ContentHasher`](crate::ContentHasher), where it is already known.
    pub digest: Option<Digest>,
}

impl Content {
    /// Content held in memory.
    #[must_use]
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        let digest = Some(ContentHasher::of(&bytes));
        let extents = match size {
            0 => Vec::new(),
            len => vec![DataExtent {
                offset: 0,
                len,
                source: DataSource::Bytes(bytes),
            }],
        };
        Self {
            size,
            extents,
            digest,
        }
    }

    /// One contiguous run of a blob.
    #[must_use]
    pub fn blob(id: BlobId, offset: u64, size: u64) -> Self {
        let extents = match size {
            0 => Vec::new(),
            len => vec![DataExtent {
                offset: 0,
                len,
                source: DataSource::Blob { id, offset },
            }],
        };
        Self {
            size,
            extents,
            digest: None,
        }
    }
}

/// The type of an inode and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Directory. Its names are in the tree, see [`Tree::children`].
    Dir,
    /// Regular file.
    File(Content),
    /// Symbolic link and its target.
    Symlink(Vec<u8>),
    /// Character device.
    CharDev {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Block device.
    BlockDev {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
}

/// One inode. Several names may lead to one (hard links), except for directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Ownership, mode, time.
    pub stat: Stat,
    /// Type and content.
    pub kind: Kind,
    /// Extended attributes by full name, with the values that `getxattr` returns.
    pub xattrs: BTreeMap<XattrName, Vec<u8>>,
    /// Flags of `chattr`.
    pub flags: InodeFlags,
}

impl Inode {
    /// An inode without extended attributes and flags.
    #[must_use]
    pub fn new(stat: Stat, kind: Kind) -> Self {
        Self {
            stat,
            kind,
            xattrs: BTreeMap::new(),
            flags: InodeFlags::NONE,
        }
    }
}

/// A file tree. Inodes live in a table; names live in directories.
///
/// Inodes are held packed: an [`Inode`] is made when it is asked for. One takes 32 bytes, a name eight
/// and its text.
#[derive(Clone, Debug)]
pub struct Tree {
    inodes: Vec<Packed>,
    pub(crate) store: Store,
    directories: Vec<Directory>,
    names: NameStore,
}

/// A change to a tree that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A parent of the path is missing.
    #[error("{}: no such directory", String::from_utf8_lossy(.0))]
    NoParent(Vec<u8>),
    /// Something on the way is not a directory.
    #[error("{}: not a directory", String::from_utf8_lossy(.0))]
    NotADirectory(Vec<u8>),
    /// The name is empty, `.`, `..`, too long, or has a `/` or NUL in it.
    #[error("{:?}: not a file name", String::from_utf8_lossy(.0))]
    BadName(Vec<u8>),
    /// A hard link to a missing file or to a directory.
    #[error("{}: cannot be hard-linked to", String::from_utf8_lossy(.0))]
    BadLink(Vec<u8>),
    /// More inodes or more bytes of names than a tree can hold.
    #[error("more than {} inodes or bytes of names", u32::MAX)]
    TooMany,
}

/// One entry of a [`LayerDiff`], by its path below the root without a leading slash (`usr/bin/env`;
/// the root itself is the empty path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerEntry {
    /// The path becomes this inode. A directory keeps the children it has; children have
    /// entries of their own. Another type replaces what was there.
    Put(Inode),
    /// The path becomes another name of the inode at this earlier path of the same layer.
    Link(Vec<u8>),
    /// The path becomes this directory, and everything it held below goes (an opaque directory).
    PutOpaque(Inode),
    /// The path goes, with everything below it.
    Whiteout,
}

/// What one layer changes, in path order (so parents come before children).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerDiff {
    /// Entries by path; see [`LayerEntry`].
    pub entries: BTreeMap<Vec<u8>, LayerEntry>,
}

impl Tree {
    /// A tree with nothing but a root directory.
    #[must_use]
    pub fn new(root: Stat) -> Self {
        let mut tree = Self {
            inodes: Vec::new(),
            store: Store::default(),
            directories: Vec::new(),
            names: NameStore::default(),
        };
        // Only a second one can be one too many.
        let _ = tree.add(Inode::new(root, Kind::Dir));
        tree
    }

    /// The inode behind a number of this tree.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    #[must_use]
    pub fn inode(&self, ino: Ino) -> Inode {
        self.store.unpack(self.inodes[ino.index()])
    }

    /// Ownership, mode and time of an inode.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    #[must_use]
    pub fn stat(&self, ino: Ino) -> Stat {
        self.store.stat(self.inodes[ino.index()])
    }

    /// Size and runs of a file, of which nothing is copied; `None` for other types.
    #[must_use]
    pub fn file(&self, ino: Ino) -> Option<FileRuns<'_>> {
        self.store.file(self.inodes[ino.index()])
    }

    /// The extended attributes of an inode.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    #[must_use]
    pub fn xattrs(&self, ino: Ino) -> &BTreeMap<XattrName, Vec<u8>> {
        self.store.xattrs(self.inodes[ino.index()])
    }

    /// The layer that an inode, or the data of a file, is of; higher ones lie over lower ones. Comparisons of
    /// trees pass over it: it says what is likely to change together, not what an image holds.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    #[must_use]
    pub fn layer(&self, ino: Ino) -> u16 {
        self.store.layer(self.inodes[ino.index()])
    }

    /// What is added from here on is of the next layer. The last of all possible numbers serves all layers
    /// beyond it.
    pub fn next_layer(&mut self) {
        self.store.layer = self.store.layer.saturating_add(1);
    }

    /// The layer of what is added now.
    pub(crate) fn current_layer(&self) -> u16 {
        self.store.layer
    }

    /// Makes an inode one of that layer.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    pub fn set_layer(&mut self, ino: Ino, layer: u16) -> Result<(), TreeError> {
        let packed = self.inodes[ino.index()];
        self.inodes[ino.index()] = self.store.with_layer(packed, layer)?;
        // What is added later is never below.
        self.store.layer = self.store.layer.max(layer);
        Ok(())
    }

    /// The target of a symbolic link, of which nothing is copied; `None` for other types.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    #[must_use]
    pub fn target(&self, ino: Ino) -> Option<&[u8]> {
        self.store.target(self.inodes[ino.index()])
    }

    /// Whether an inode is a directory.
    #[must_use]
    pub fn is_dir(&self, ino: Ino) -> bool {
        self.store.directory(self.inodes[ino.index()]).is_some()
    }

    /// The entries of a directory; `None` for other types.
    #[must_use]
    pub fn children(&self, ino: Ino) -> Option<Children<'_>> {
        let number = self.store.directory(self.inodes[ino.index()])?;
        Some(Children::new(&self.directories[number], &self.names))
    }

    /// The text of a name that this tree gave. Panics on one of another tree that this one is too small for.
    #[must_use]
    pub fn text(&self, name: NameRef) -> &[u8] {
        self.names.text(name)
    }

    /// Number of slots in the inode table; slots no name leads to any more are counted.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.inodes.len()
    }

    /// Changes an inode. A directory keeps its names as long as it stays one.
    ///
    /// # Panics
    /// When `ino` is of another, larger tree.
    pub fn update<R>(
        &mut self,
        ino: Ino,
        change: impl FnOnce(&mut Inode) -> R,
    ) -> Result<R, TreeError> {
        let old = self.inodes[ino.index()];
        let mut inode = self.store.unpack(old);
        let result = change(&mut inode);
        let number = self.store.directory(old);
        self.inodes[ino.index()] = self.pack(inode, Some(old), number)?;
        Ok(result)
    }

    /// Changes all inodes of the table; see [`Tree::update`].
    pub fn update_all(&mut self, mut change: impl FnMut(&mut Inode)) -> Result<(), TreeError> {
        (0..self.inodes.len())
            .filter_map(Ino::from_index)
            .try_for_each(|ino| self.update(ino, &mut change))
    }

    /// Replaces every blob id; see [`Content::map_blobs`].
    pub fn map_blobs(&mut self, f: &mut dyn FnMut(BlobId) -> BlobId) {
        self.store.map_blobs(f);
    }

    /// Gives the data that is in [`BlobId::UNASSIGNED`] its blob.
    pub fn assign_blob(&mut self, id: BlobId) {
        self.map_blobs(&mut |old| match old {
            BlobId::UNASSIGNED => id,
            other => other,
        });
    }

    /// Adds an inode that no name leads to yet; [`Tree::name`] gives it one.
    pub fn add(&mut self, inode: Inode) -> Result<Ino, TreeError> {
        let ino = Ino(u32::try_from(self.inodes.len()).map_err(|_| TreeError::TooMany)?);
        let packed = self.pack(inode, None, None)?;
        self.inodes.push(packed);
        Ok(ino)
    }

    /// Makes a name of a directory lead to `ino`, whatever it led to before. The caller answers for
    /// directories having one name each.
    pub fn name(&mut self, dir: Ino, name: &[u8], ino: Ino) -> Result<(), TreeError> {
        let number = self.store.directory(self.inodes[dir.index()]);
        let number = number.ok_or_else(|| TreeError::NotADirectory(name.to_vec()))?;
        self.directories[number]
            .insert(&mut self.names, name, ino)
            .map(|_| ())
    }

    fn pack(
        &mut self,
        inode: Inode,
        old: Option<Packed>,
        number: Option<usize>,
    ) -> Result<Packed, TreeError> {
        let number = match number {
            None if inode.kind == Kind::Dir => {
                self.directories.push(Directory::default());
                self.directories.len() - 1
            }
            other => other.unwrap_or(0),
        };
        self.store.pack(inode, old, number)
    }

    /// Bytes that inodes and names take, without what is kept aside and what lists have in reserve.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        let names: usize = self.directories.iter().map(Directory::held_bytes).sum();
        self.inodes.len() * size_of::<Packed>() + names + self.names.held_bytes()
    }

    /// Takes all names of a directory away.
    pub(crate) fn clear(&mut self, dir: Ino) {
        if let Some(number) = self.store.directory(self.inodes[dir.index()]) {
            self.directories[number] = Directory::default();
        }
    }

    /// Finds a path without following symbolic links. Leading, trailing and double slashes and `.`
    /// do not matter; `..` is never resolved and finds nothing.
    #[must_use]
    pub fn lookup(&self, path: &[u8]) -> Option<Ino> {
        path.split(|b| *b == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .try_fold(Ino::ROOT, |dir, name| self.children(dir)?.get(name))
    }

    /// Puts `inode` at `path`, replacing what was there. The parent must exist.
    pub fn insert(&mut self, path: &[u8], inode: Inode) -> Result<Ino, TreeError> {
        let (dir, name) = self.parent(path)?;
        if !self.is_dir(dir) {
            return Err(TreeError::NotADirectory(path.to_vec()));
        }
        let ino = self.add(inode)?;
        self.name(dir, name, ino)?;
        Ok(ino)
    }

    /// Gives the inode at `target` the further name `path`.
    pub fn link(&mut self, path: &[u8], target: &[u8]) -> Result<Ino, TreeError> {
        let ino = self
            .lookup(target)
            .filter(|ino| !self.is_dir(*ino))
            .ok_or_else(|| TreeError::BadLink(target.to_vec()))?;
        let (dir, name) = self.parent(path)?;
        if !self.is_dir(dir) {
            return Err(TreeError::NotADirectory(path.to_vec()));
        }
        self.name(dir, name, ino)?;
        Ok(ino)
    }

    /// Removes a name of a directory.
    pub(crate) fn unname(&mut self, dir: Ino, name: &[u8]) {
        if let Some(number) = self.store.directory(self.inodes[dir.index()]) {
            self.directories[number].remove(&self.names, name);
        }
    }

    /// Removes a name, and with a directory everything below it. True when it was there.
    pub fn remove(&mut self, path: &[u8]) -> bool {
        let Ok((dir, name)) = self.parent(path) else {
            return false;
        };
        match self.store.directory(self.inodes[dir.index()]) {
            Some(number) => self.directories[number].remove(&self.names, name),
            None => false,
        }
    }

    /// Every name with its inode, parents before children and siblings in byte order. The root
    /// comes first with the empty path. A hard-linked inode comes once for each name. See
    /// [`Tree::visit`], which holds one path at a time.
    #[must_use]
    pub fn walk(&self) -> Vec<(Vec<u8>, Ino)> {
        let mut out = Vec::with_capacity(self.inodes.len());
        let taken: Result<(), std::convert::Infallible> = self.visit(&mut |path, ino| {
            out.push((path.to_vec(), ino));
            Ok(())
        });
        match taken {
            Ok(()) => out,
        }
    }

    /// Hands every name and its inode to `take`, in the order of [`Tree::walk`], and ends with the first
    /// error that `take` gives.
    pub fn visit<E>(&self, take: &mut impl FnMut(&[u8], Ino) -> Result<(), E>) -> Result<(), E> {
        let mut path = Vec::new();
        take(&path, Ino::ROOT)?;
        // The open directories: what is left of each, and how long the path to it is.
        let mut open = Vec::new();
        open.extend(self.children(Ino::ROOT).map(|names| (names.iter(), 0)));
        while let Some((names, len)) = open.last_mut() {
            path.truncate(*len);
            let Some((name, ino)) = names.next() else {
                open.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            take(&path, ino)?;
            if let Some(names) = self.children(ino) {
                open.push((names.iter(), path.len()));
            }
        }
        Ok(())
    }

    /// Link count of every inode slot: names for files, 2 plus sub-directories for directories, 0
    /// for a slot that no name leads to.
    #[must_use]
    pub fn link_counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.inodes.len()];
        counts[0] = 1;
        let mut open = vec![Ino::ROOT];
        while let Some(ino) = open.pop() {
            let Some(children) = self.children(ino) else {
                continue;
            };
            counts[ino.index()] += 1;
            for child in children.inodes() {
                counts[child.index()] += 1;
                if self.is_dir(child) {
                    counts[ino.index()] += 1;
                    open.push(child);
                }
            }
        }
        counts
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Result<(Ino, &'p [u8]), TreeError> {
        let trimmed = path.strip_prefix(b"/").unwrap_or(path);
        let trimmed = trimmed.strip_suffix(b"/").unwrap_or(trimmed);
        let (dir, name) = match trimmed.iter().rposition(|b| *b == b'/') {
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (&trimmed[..0], trimmed),
        };
        if name.is_empty()
            || name == b"."
            || name == b".."
            || name.len() > MAX_NAME
            || name.contains(&0)
        {
            return Err(TreeError::BadName(name.to_vec()));
        }
        let dir = self
            .lookup(dir)
            .ok_or_else(|| TreeError::NoParent(path.to_vec()))?;
        Ok((dir, name))
    }
}
