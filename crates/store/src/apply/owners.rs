//! Whose files they are: on the host, and in the sandbox.
//!
//! For root the ids of the folder are those of the image. For everybody else the caller's own files are root's
//! in the sandbox, as in a home-made root file system they are meant to be. Ids that the sandbox does not have
//! are `nobody` (65534) in it. An owner that the run left alone stays what it is on the host; a file that it moved
//! is a new one, and stays nobody's.

use std::collections::HashSet;

use amiforge_tree::{Inode, Stat, Tree, TreeError};

use crate::materialise::host_only;

/// Ids of a sandbox are below this.
const IDS: u32 = 65_536;

/// The caller, whose files are root's in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    uid: u32,
    gid: u32,
}

/// A folder before and after a run as the host has it.
#[derive(Debug)]
pub struct HostTrees {
    /// Before.
    pub old: Tree,
    /// After.
    pub new: Tree,
    /// Files that root's run moved or copied, and whose owner the sandbox does not have: they are nobody's.
    pub disowned: u64,
}

impl Owners {
    /// The owner in the sandbox of what belongs to nobody there.
    pub const NOBODY: u32 = 65_534;

    /// The caller with these ids.
    #[must_use]
    pub fn of(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }

    /// The ids of the calling process.
    #[must_use]
    pub fn of_caller() -> Self {
        Self::of(
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }

    /// Gives the files of a folder the owners that they have in the sandbox.
    ///
    /// # Errors
    /// When the tree is too large.
    pub fn inside(self, tree: &mut Tree) -> Result<(), TreeError> {
        let id = |id: u32, own: u32| match (self.uid, id) {
            (0, id) if id < IDS => id,
            (1.., id) if id == own => 0,
            _ => Self::NOBODY,
        };
        tree.update_all(|inode| {
            inode.stat.uid = id(inode.stat.uid, self.uid);
            inode.stat.gid = id(inode.stat.gid, self.gid);
        })
    }

    /// The trees before and after a run as the host has them. `read` is what the folder holds; `lower`, the same
    /// with the owners of the sandbox, and its slots are those of `changed` as far as they go.
    ///
    /// What the sandbox cannot show stays as it is: flags, attributes that only the host may set, and all
    /// attributes of the directories `covered`, over which the sandbox lays files of its own.
    ///
    /// # Errors
    /// When a tree is too large.
    pub fn outside(
        self,
        read: &Tree,
        lower: &Tree,
        changed: &Tree,
        covered: &[Vec<u8>],
    ) -> Result<HostTrees, TreeError> {
        let mut old = lower.clone();
        let mut strangers = HashSet::new();
        for (path, ino) in lower.walk() {
            if let Some(there) = read.lookup(&path) {
                let stat = read.stat(there);
                old.update(ino, |inode| inode.stat = stat)?;
                // For anybody else it is counted when it cannot be set.
                if self.uid == 0 && (stat.uid >= IDS || stat.gid >= IDS) {
                    strangers.insert((stat.mtime, stat.mode));
                }
            }
        }
        let mut disowned = 0;
        let mut new = changed.clone();
        let mut seen = vec![false; new.slots()];
        for (path, ino) in changed.walk() {
            if std::mem::replace(&mut seen[ino.index()], true) {
                continue;
            }
            let was = match ino.index() < lower.slots() {
                true => Some(ino),
                false => lower.lookup(&path),
            };
            let before = was.map(|was| (lower.stat(was), old.inode(was)));
            let all = covered.contains(&path);
            new.update(ino, |inode| self.restore(inode, before, all))?;
            // A move and a careful copy keep the time and the mode.
            let now = new.stat(ino);
            let nobodys = now.uid == Self::NOBODY || now.gid == Self::NOBODY;
            let owner = |stat: Stat| (stat.uid, stat.gid);
            let fresh = was.is_none_or(|was| owner(now) != owner(old.stat(was)));
            if fresh && nobodys && strangers.contains(&(now.mtime, now.mode)) {
                disowned += 1;
            }
        }
        Ok(HostTrees { old, new, disowned })
    }

    fn restore(self, inode: &mut Inode, before: Option<(Stat, Inode)>, all: bool) {
        let seen = before.as_ref().map(|(seen, _)| *seen);
        let host = before.as_ref().map(|(_, old)| old.stat);
        let id = |id: u32, seen: Option<u32>, host: Option<u32>, own: u32| match (seen, host) {
            (Some(seen), Some(host)) if seen == id => host,
            _ if self.uid != 0 && id == 0 => own,
            _ => id,
        };
        let stat = &mut inode.stat;
        stat.uid = id(stat.uid, seen.map(|s| s.uid), host.map(|s| s.uid), self.uid);
        stat.gid = id(stat.gid, seen.map(|s| s.gid), host.map(|s| s.gid), self.gid);
        let Some((_, old)) = before else { return };
        if std::mem::discriminant(&old.kind) != std::mem::discriminant(&inode.kind) {
            return;
        }
        inode.flags = inode.flags | old.flags;
        for (name, value) in old.xattrs {
            if all || host_only(&name) {
                inode.xattrs.entry(name).or_insert(value);
            }
        }
    }
}
