//! What a job changed, as the upper directory that overlayfs would have.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use amiforge_tree::{Inode, Kind};
use rustix::fs::{AtFlags, FileType, Mode, RenameFlags, Stat, XattrFlags};

use super::seen::{Id, Mark, Seen, mark};
use super::{Result, StackError, hand_nothing_down, names, over};
use crate::dirfd::{join, open_dir, proc_path, retry, split};
use crate::harvest::{Form, stat_of, xattr};
use crate::materialise::Parents;
use crate::remove_tree_at;

/// Moves what differs from what was `seen` below `root` into the empty directory `upper` on the same file system, in the form of
/// overlayfs: a whiteout for each name that is gone, an opaque directory where another had the name. Devices, and marks of
/// overlayfs that a job set itself, go. Nothing may change the root meanwhile.
///
/// Returns how many files with several names were changed where it is not known by which.
///
/// # Errors
/// Those of the file system; then neither directory is of use.
pub fn take_off(root: impl AsFd, seen: &Seen, upper: impl AsFd) -> Result<u64> {
    let (root, upper) = (root.as_fd(), upper.as_fd());
    let mut taker = Taker {
        root,
        seen,
        upper,
        dirs: BTreeMap::new(),
        made: BTreeSet::from([Vec::new()]),
        split: BTreeSet::new(),
        used: seen.used_inodes(root),
        unknown: 0,
    };
    hand_nothing_down(upper).map_err(StackError::io("set the attributes of", b"/"))?;
    let stat = retry(|| rustix::fs::fstat(root)).map_err(StackError::io("stat", b"/"))?;
    taker.dirs.insert(Vec::new(), stat);
    let mut pending = vec![Vec::new()];
    while let Some(dir) = pending.pop() {
        taker.directory(&dir, &mut pending)?;
    }
    // Children first: what was put into a directory changed its time.
    for path in taker.made.iter().rev() {
        let Some(stat) = taker.dirs.get(path) else {
            continue;
        };
        let from = open_dir(root, path).map_err(StackError::io("open", path))?;
        let to = open_dir(upper, path).map_err(StackError::io("open", path))?;
        let inode = inode(from.as_fd(), b"", path, stat)?;
        over::attributes(from.as_fd(), to.as_fd(), path, &inode)?;
    }
    Ok(taker.unknown)
}

struct Taker<'a> {
    root: BorrowedFd<'a>,
    seen: &'a Seen,
    upper: BorrowedFd<'a>,
    /// Directories that were there before, as they are, before anything is moved out of them.
    dirs: BTreeMap<Vec<u8>, Stat>,
    /// Those of them that are in the upper directory.
    made: BTreeSet<Vec<u8>>,
    /// Inodes with several names of which one is taken.
    split: BTreeSet<u64>,
    /// Inodes of which a name was used.
    used: BTreeSet<Id>,
    unknown: u64,
}

impl Taker<'_> {
    fn directory(&mut self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<()> {
        let fd = open_dir(self.root, path).map_err(StackError::io("open", path))?;
        let fd = fd.as_fd();
        let there = names(fd).map_err(StackError::io("list", path))?;
        for name in self.seen.children.get(path).into_iter().flatten() {
            if there.binary_search(name).is_err() {
                self.white_out(path, &join(path, name))?;
            }
        }
        for name in &there {
            let child = join(path, name);
            if self.seen.is_closed(&child) {
                continue;
            }
            let Some(before) = self.seen.entries.get(&child) else {
                self.take(fd, name, &child, false)?;
                continue;
            };
            let now = mark(fd, name, &child)?;
            if now.is_device {
                // No layer has it, nor what was there before.
                self.white_out(path, &child)?;
            } else if now.inode != before.inode || now.is_dir != before.is_dir {
                self.take(fd, name, &child, now.is_dir)?;
            } else if now.is_dir {
                let stat = retry(|| {
                    rustix::fs::statat(fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
                })
                .map_err(StackError::io("stat", &child))?;
                self.dirs.insert(child.clone(), stat);
                if before.changed != now.changed {
                    self.need(&child)?;
                }
                pending.push(child);
            } else if self.is_changed(&child, before, &now) {
                let first = !before.shared || self.split.insert(now.inode.0);
                match first {
                    true => self.take(fd, name, &child, false)?,
                    // Overlayfs makes a file of its own for each name that is used.
                    false => self.copy(fd, name, &child)?,
                }
            }
        }
        Ok(())
    }

    fn is_changed(&mut self, path: &[u8], before: &Mark, now: &Mark) -> bool {
        if before.changed.is_none() {
            return true;
        }
        let changed = before.changed != now.changed;
        match self.seen.used(path) {
            // Overlayfs takes it for a change that a file was opened for writing.
            Some(true) => changed || now.is_file,
            _ if !before.shared || !changed => changed,
            // Another name was, or there are more or fewer of them.
            Some(false) if before.own == now.own || self.used.contains(&now.inode) => false,
            _ => {
                self.unknown += 1;
                true
            }
        }
    }

    /// Leaves a mark that the name `path` in the directory `dir` is gone.
    fn white_out(&mut self, dir: &[u8], path: &[u8]) -> Result<()> {
        self.need(dir)?;
        Parents::below(self.upper).make_node(path, FileType::CharacterDevice)?;
        Ok(())
    }

    /// Has a directory, and those above it, in the upper directory.
    fn need(&mut self, path: &[u8]) -> Result<()> {
        if self.made.contains(path) {
            return Ok(());
        }
        let (above, name) = split(path);
        self.need(above)?;
        let to = open_dir(self.upper, above).map_err(StackError::io("open", above))?;
        rustix::fs::mkdirat(&to, OsStr::from_bytes(name), Mode::RWXU)
            .map_err(StackError::io("create the directory", path))?;
        let made = open_dir(self.upper, path).map_err(StackError::io("open", path))?;
        hand_nothing_down(made.as_fd()).map_err(StackError::io("set the attributes of", path))?;
        self.made.insert(path.to_vec());
        Ok(())
    }

    /// Moves what has a name, with everything below it.
    fn take(&mut self, from: BorrowedFd<'_>, name: &[u8], path: &[u8], opaque: bool) -> Result<()> {
        let (above, _) = split(path);
        self.need(above)?;
        let to = open_dir(self.upper, above).map_err(StackError::io("open", above))?;
        let name_os = OsStr::from_bytes(name);
        rustix::fs::renameat_with(from, name_os, &to, name_os, RenameFlags::NOREPLACE)
            .map_err(StackError::io("move", path))?;
        let mut pending = vec![path.to_vec()];
        while let Some(path) = pending.pop() {
            self.clean(&path, &mut pending)?;
        }
        if opaque {
            let dir = open_dir(self.upper, path).map_err(StackError::io("open", path))?;
            rustix::fs::fsetxattr(&dir, "user.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(StackError::io("mark as opaque", path))?;
        }
        Ok(())
    }

    fn copy(&mut self, from: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<()> {
        self.need(split(path).0)?;
        let stat =
            retry(|| rustix::fs::statat(from, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(StackError::io("stat", path))?;
        let inode = inode(from, name, path, &stat)?;
        let mut places = Parents::below(self.upper);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => over::copy(self.root, self.upper, path, &inode, true),
            kind @ (FileType::Fifo | FileType::Socket) => {
                places.make_node(path, kind)?;
                places.set_named(path, &inode)?;
                Ok(())
            }
            FileType::Symlink => {
                let os_name = OsStr::from_bytes(name);
                let to = retry(|| rustix::fs::readlinkat(from, os_name, Vec::new()))
                    .map_err(StackError::io("read the link", path))?;
                places.make_symlink(path, to.as_bytes())?;
                let inode = Inode {
                    kind: Kind::Symlink(to.into_bytes()),
                    ..inode
                };
                places.set_named(path, &inode)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Removes from what was moved what no layer has.
    fn clean(&self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<()> {
        let (above, name) = split(path);
        let dir = open_dir(self.upper, above).map_err(StackError::io("open", above))?;
        let dir = dir.as_fd();
        let stat =
            retry(|| rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(StackError::io("stat", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => {
                return remove_tree_at(dir, name)
                    .map_err(|e| StackError::io("remove", path)(e.source));
            }
            FileType::Directory => {
                let fd = open_dir(self.upper, path).map_err(StackError::io("open", path))?;
                let names = names(fd.as_fd()).map_err(StackError::io("list", path))?;
                pending.extend(names.iter().map(|name| join(path, name)));
            }
            _ => {}
        }
        let place = proc_path(dir, name);
        let attributes =
            xattr::list(&place, false).map_err(StackError::io("read the attributes of", path))?;
        for attribute in attributes {
            if xattr::strip_overlay(attribute.as_bytes()).is_some() {
                rustix::fs::lremovexattr(&place, &attribute)
                    .map_err(StackError::io("set the attributes of", path))?;
            }
        }
        Ok(())
    }
}

fn inode(dir: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<Inode> {
    let attrs = xattr::read(dir, name, Form::Plain)
        .map_err(StackError::io("read the attributes of", path))?;
    Ok(Inode {
        xattrs: attrs.kept,
        ..Inode::new(stat_of(stat), Kind::Dir)
    })
}
