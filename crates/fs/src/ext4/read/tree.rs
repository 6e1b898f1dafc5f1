//! A whole file system as a [`Tree`] whose file data stays where it is.

use std::collections::{BTreeMap, HashMap, HashSet};

use amiforge_tree::{
    Content, DataExtent, DataSource, Ino, Inode as TreeInode, InodeFlags, Kind, Stat, Tree,
};
use amiforge_types::BlobId;

use super::super::scan::layers_of_numbers;
use super::error::{Fault, Place, ReadError};
use super::fs::Fs;
use super::inode::{Inode, ROOT};
use super::map::Budget;
use super::superblock::ro_compat;
use super::{DataPlace, DataRun, FileKind, dir, runs, xattr};

const LOST_AND_FOUND: &[u8] = b"lost+found";

/// What a tree may be at most. The defaults are far above what images have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeLimits {
    /// Names.
    pub entries: u64,
    /// Directories inside each other.
    pub depth: u32,
    /// Bytes of all paths together.
    pub path_bytes: u64,
    /// Pieces of file data.
    pub runs: u64,
    /// Bytes of extended attributes, link targets and data that cannot be pointed to.
    pub inline_bytes: u64,
}

impl Default for TreeLimits {
    fn default() -> Self {
        Self {
            entries: 1 << 24,
            depth: 4096,
            path_bytes: 2 << 30,
            runs: 1 << 24,
            inline_bytes: 1 << 30,
        }
    }
}

/// A file system as a tree.
#[derive(Clone, Debug)]
pub struct TreeImport {
    /// Everything that has a name.
    pub tree: Tree,
    /// True when `/lost+found` is not in the tree: one that is as mke2fs makes it is left out, since
    /// the writer makes its own.
    pub left_out_lost_found: bool,
}

/// A directory whose names are still to be read.
struct Pending {
    inode: Inode,
    ino: Ino,
    path: Vec<u8>,
    depth: u32,
}

struct Importer<'a> {
    fs: &'a Fs,
    blob: BlobId,
    /// Where the file system begins in the blob.
    base: u64,
    left: TreeLimits,
    limits: &'a TreeLimits,
    budget: Budget,
    tree: Tree,
    /// For each slot of the tree the number of its inode.
    numbers: Vec<u32>,
    /// Slots of inodes with several names.
    linked: HashMap<u32, Ino>,
    directories: HashSet<u32>,
    left_out: bool,
}

/// Reads everything.
pub(super) fn read(
    fs: &Fs,
    blob: BlobId,
    base: u64,
    limits: &TreeLimits,
) -> Result<TreeImport, ReadError> {
    let at_root = |fault: Fault| fault.at(b"/");
    let root = fs.named_inode(ROOT).map_err(at_root)?;
    if root.kind != FileKind::Dir {
        return Err(ReadError::NotADirectory(b"/".to_vec()));
    }
    // Files that share blocks by design are bounded by the limits alone.
    let budget = match fs.sb.has_ro_compat(ro_compat::SHARED_BLOCKS) {
        true => Budget::unlimited(),
        false => Budget::of(&fs.volume),
    };
    let mut importer = Importer {
        fs,
        blob,
        base,
        left: limits.clone(),
        limits,
        budget,
        tree: Tree::new(stat(&root)),
        numbers: vec![ROOT],
        linked: HashMap::new(),
        directories: HashSet::from([ROOT]),
        left_out: false,
    };
    let xattrs = importer.xattrs(&root).map_err(at_root)?;
    let root_flags = flags(&root);
    let set = |inode: &mut TreeInode| {
        (inode.xattrs, inode.flags) = (xattrs, root_flags);
    };
    importer
        .tree
        .update(Ino::ROOT, set)
        .map_err(|_| at_root(too_many()))?;
    let mut stack = vec![Pending {
        inode: root,
        ino: Ino::ROOT,
        path: Vec::new(),
        depth: 0,
    }];
    while let Some(pending) = stack.pop() {
        importer.directory(&pending, &mut stack)?;
    }
    layers_of_numbers(&mut importer.tree, &importer.numbers).map_err(|_| at_root(too_many()))?;
    Ok(TreeImport {
        tree: importer.tree,
        left_out_lost_found: importer.left_out,
    })
}

/// The tree has no room for a further inode or name.
fn too_many() -> Fault {
    Fault::Limit {
        what: "inodes and bytes of names",
        limit: u32::MAX.into(),
    }
}

/// What `chattr` sets; what the file system set for itself is not an inode's own.
fn flags(inode: &Inode) -> InodeFlags {
    InodeFlags::from_bits_truncate(inode.flags)
}

fn stat(inode: &Inode) -> Stat {
    let stat = inode.stat();
    Stat {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: stat.mtime,
    }
}

impl Importer<'_> {
    /// Puts all names of a directory into the tree, and its directories on the stack.
    fn directory(&mut self, at: &Pending, stack: &mut Vec<Pending>) -> Result<(), ReadError> {
        let shown: &[u8] = if at.path.is_empty() { b"/" } else { &at.path };
        let mut names: Vec<(u32, Vec<u8>)> = Vec::new();
        let (fs, left, limits) = (self.fs, &mut self.left, self.limits);
        let path_len = at.path.len() as u64 + 1;
        dir::scan(fs, &at.inode, &mut self.budget, |entry| {
            spend(&mut left.entries, 1, limits.entries, "names")?;
            let bytes = path_len + entry.name.len() as u64;
            spend(
                &mut left.path_bytes,
                bytes,
                limits.path_bytes,
                "bytes of paths",
            )?;
            names.push((entry.inode, entry.name.to_vec()));
            Ok(true)
        })
        .map_err(|fault| fault.at(shown))?;
        // By number, so that an inode table is read from front to back.
        names.sort_unstable();
        let mut found = Vec::with_capacity(names.len());
        for (number, name) in names {
            let path = [&at.path[..], b"/", &name[..]].concat();
            let made = self
                .entry(number, at, &name)
                .map_err(|fault| fault.at(&path))?;
            if let Some((ino, below)) = made {
                found.push((name, ino));
                if let Some(inode) = below {
                    stack.push(Pending {
                        inode,
                        ino,
                        path,
                        depth: at.depth + 1,
                    });
                }
            }
        }
        found.sort_unstable();
        if found.windows(2).any(|w| w[0].0 == w[1].0) {
            let place = Place::Inode(at.inode.number);
            return Err(Fault::damaged(place, "is a directory with a name twice").at(shown));
        }
        for (name, ino) in found {
            self.tree
                .name(at.ino, &name, ino)
                .map_err(|_| too_many().at(shown))?;
        }
        Ok(())
    }

    /// Makes the inode of a name. A directory comes back to be read; `None` when it is left out.
    #[allow(clippy::type_complexity, reason = "used once")]
    fn entry(
        &mut self,
        number: u32,
        at: &Pending,
        name: &[u8],
    ) -> Result<Option<(Ino, Option<Inode>)>, Fault> {
        if let Some(ino) = self.linked.get(&number) {
            return Ok(Some((*ino, None)));
        }
        let inode = self.fs.named_inode(number)?;
        let place = Place::Inode(number);
        let is_dir = inode.kind == FileKind::Dir;
        if is_dir {
            if !self.directories.insert(number) {
                return Err(Fault::damaged(place, "is a directory with two names"));
            }
            if at.depth >= self.limits.depth {
                return Err(Fault::Limit {
                    what: "directories inside each other",
                    limit: self.limits.depth.into(),
                });
            }
            if at.ino == Ino::ROOT && name == LOST_AND_FOUND && self.is_standard(&inode)? {
                self.left_out = true;
                return Ok(None);
            }
        }
        let kind = match inode.kind {
            FileKind::Dir => Kind::Dir,
            FileKind::File => Kind::File(self.content(&inode)?),
            FileKind::Symlink => {
                let target = self.fs.link_target(&inode)?;
                self.keep(target.len() as u64)?;
                Kind::Symlink(target)
            }
            FileKind::CharDev => {
                let (major, minor) = inode.device().unwrap_or_default();
                Kind::CharDev { major, minor }
            }
            FileKind::BlockDev => {
                let (major, minor) = inode.device().unwrap_or_default();
                Kind::BlockDev { major, minor }
            }
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
        };
        let mut made = TreeInode::new(stat(&inode), kind);
        made.xattrs = self.xattrs(&inode)?;
        made.flags = flags(&inode);
        let ino = self.tree.add(made).map_err(|_| too_many())?;
        self.numbers.push(number);
        if !is_dir && inode.links != 1 {
            self.linked.insert(number, ino);
        }
        Ok(Some((ino, is_dir.then_some(inode))))
    }

    fn content(&mut self, inode: &Inode) -> Result<Content, Fault> {
        let found = runs::data_runs(self.fs, inode, &mut self.budget)?;
        spend(
            &mut self.left.runs,
            found.len() as u64,
            self.limits.runs,
            "pieces of files",
        )?;
        let mut extents = Vec::with_capacity(found.len());
        for DataRun { offset, len, place } in found {
            let source = match place {
                DataPlace::Disk(at) => DataSource::Blob {
                    id: self.blob,
                    offset: self.base.saturating_add(at),
                },
                DataPlace::Bytes(bytes) => {
                    self.keep(len)?;
                    DataSource::Bytes(bytes)
                }
            };
            extents.push(DataExtent {
                offset,
                len,
                source,
            });
        }
        Ok(Content {
            size: inode.size,
            extents,
            digest: None,
        })
    }

    fn xattrs(&mut self, inode: &Inode) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
        let xattrs = xattr::read(self.fs, inode)?;
        let bytes: usize = xattrs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        self.keep(bytes as u64)?;
        Ok(xattrs)
    }

    fn keep(&mut self, bytes: u64) -> Result<(), Fault> {
        let limit = self.limits.inline_bytes;
        spend(
            &mut self.left.inline_bytes,
            bytes,
            limit,
            "bytes beside file data",
        )
    }

    /// True for a lost+found that holds nothing and has nothing of its own.
    fn is_standard(&mut self, inode: &Inode) -> Result<bool, Fault> {
        let stat = inode.stat();
        if (stat.mode, stat.uid, stat.gid) != (0o700, 0, 0) || !flags(inode).is_empty() {
            return Ok(false);
        }
        let mut empty = true;
        dir::scan(self.fs, inode, &mut self.budget, |_| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty && xattr::read(self.fs, inode)?.is_empty())
    }
}

fn spend(left: &mut u64, amount: u64, limit: u64, what: &'static str) -> Result<(), Fault> {
    *left = left
        .checked_sub(amount)
        .ok_or(Fault::Limit { what, limit })?;
    Ok(())
}
