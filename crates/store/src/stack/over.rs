//! A layer's directory onto an ordinary one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use amiforge_tree::{Inode, Kind};
use amiforge_types::{ReadAt as _, WriteAt as _};
use rayon::prelude::*;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Result, StackError, copy_flags, hand_nothing_down, names};
use crate::dirfd::{join, open_beneath, open_dir, retry};
use crate::harvest::{Form, kind_of, stat_of, xattr};
use crate::materialise::{Parents, host_only, make_link, set_open};
use crate::{FileBlob, FileTarget, remove_tree_at};

/// Puts what is in `layer`, a lower or upper directory of overlayfs with `user.overlay.*` marks, over what `target` holds:
/// whiteouts remove, opaque directories replace, other directories are merged and take the layer's owner, mode, time
/// and attributes. Names of one file in the layer are names of one file afterwards. Devices are left out, and what
/// is in the folders `closed`, which are there but empty. Returns the paths of what was put, with the root's, which is empty.
///
/// Without `threads` it starts none, for a process that is going to fork.
///
/// Call it as root; nobody else may write to `target` meanwhile. Links of either are never followed.
///
/// # Errors
/// Those of the file system. What was put so far stays.
pub fn put_over(
    layer: impl AsFd,
    target: impl AsFd,
    closed: &[&[u8]],
    threads: bool,
) -> Result<BTreeSet<Vec<u8>>> {
    let (layer, target) = (layer.as_fd(), target.as_fd());
    let mut put = Put {
        layer,
        target,
        dirs: BTreeMap::new(),
        files: Vec::new(),
        links: Vec::new(),
        linked: BTreeMap::new(),
        paths: BTreeSet::new(),
    };
    let stat = retry(|| rustix::fs::fstat(layer)).map_err(StackError::io("stat", b"/"))?;
    let attrs = xattr::read(layer, b"", Form::Overlay)
        .map_err(StackError::io("read the attributes of", b"/"))?;
    let root = Inode {
        xattrs: attrs.kept,
        ..Inode::new(stat_of(&stat), Kind::Dir)
    };
    put.dirs.insert(Vec::new(), root);
    put.paths.insert(Vec::new());
    let mut pending = vec![Vec::new()];
    while let Some(dir) = pending.pop() {
        put.directory(&dir, closed, &mut pending)?;
    }
    let make =
        |(path, inode, sparse): &(Vec<u8>, Inode, bool)| copy(layer, target, path, inode, *sparse);
    match threads {
        true => put.files.par_iter().try_for_each(make)?,
        false => put.files.iter().try_for_each(make)?,
    }
    for (path, to) in &put.links {
        make_link(target, path, to)?;
    }
    // Children first: what is made in a directory changes its time.
    for (path, inode) in put.dirs.iter().rev() {
        finish(layer, target, path, inode)?;
    }
    Ok(put.paths)
}

struct Put<'a> {
    layer: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    dirs: BTreeMap<Vec<u8>, Inode>,
    /// With whether the file has holes.
    files: Vec<(Vec<u8>, Inode, bool)>,
    /// Further names of files, with their first.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    linked: BTreeMap<u64, Vec<u8>>,
    paths: BTreeSet<Vec<u8>>,
}

impl Put<'_> {
    fn directory(
        &mut self,
        path: &[u8],
        closed: &[&[u8]],
        pending: &mut Vec<Vec<u8>>,
    ) -> Result<()> {
        let from = open_dir(self.layer, path).map_err(StackError::io("open", path))?;
        let to = open_dir(self.target, path).map_err(StackError::io("open", path))?;
        // The layer's own comes at the end.
        hand_nothing_down(to.as_fd()).map_err(StackError::io("set the attributes of", path))?;
        let names = names(from.as_fd()).map_err(StackError::io("list", path))?;
        for name in names {
            let child = join(path, &name);
            if self.entry(from.as_fd(), to.as_fd(), &name, &child)?
                && !closed.contains(&child.as_slice())
            {
                pending.push(child);
            }
        }
        Ok(())
    }

    /// True for a directory.
    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool> {
        let os_name = OsStr::from_bytes(name);
        let stat = retry(|| rustix::fs::statat(from, os_name, AtFlags::SYMLINK_NOFOLLOW))
            .map_err(StackError::io("stat", path))?;
        let attrs = xattr::read(from, name, Form::Overlay)
            .map_err(StackError::io("read the attributes of", path))?;
        let kind = kind_of(from, name, &stat, || path.to_vec())?;
        let there = match rustix::fs::statat(to, os_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Some(FileType::from_raw_mode(there.st_mode)),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(StackError::io("stat", path)(e)),
        };
        let merged = kind == Kind::Dir && !attrs.opaque && there == Some(FileType::Directory);
        if there.is_some() && !merged {
            remove_tree_at(to, name).map_err(|e| StackError::io("remove", path)(e.source))?;
        }
        let whiteout = match kind {
            Kind::File(_) => attrs.whiteout,
            Kind::CharDev { .. } | Kind::BlockDev { .. } => true,
            _ => false,
        };
        if whiteout {
            return Ok(false);
        }
        self.paths.insert(path.to_vec());
        let inode = Inode {
            xattrs: attrs.kept,
            ..Inode::new(stat_of(&stat), kind)
        };
        if inode.kind == Kind::Dir {
            if !merged {
                rustix::fs::mkdirat(to, os_name, Mode::RWXU)
                    .map_err(StackError::io("create the directory", path))?;
            }
            self.dirs.insert(path.to_vec(), inode);
            return Ok(true);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.linked.get(&stat.st_ino) {
                self.links.push((path.to_vec(), first.clone()));
                return Ok(false);
            }
            self.linked.insert(stat.st_ino, path.to_vec());
        }
        let mut places = Parents::below(self.target);
        match &inode.kind {
            Kind::Symlink(link) => places.make_symlink(path, link)?,
            Kind::Fifo => places.make_node(path, FileType::Fifo)?,
            Kind::Socket => places.make_node(path, FileType::Socket)?,
            _ => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let held = u64::try_from(stat.st_blocks).unwrap_or(0);
                let sparse = held.saturating_mul(512) < size;
                self.files.push((path.to_vec(), inode, sparse));
                return Ok(false);
            }
        }
        places.set_named(path, &inode)?;
        Ok(false)
    }
}

/// Makes a file with data, holes, attributes and flags of the layer's.
pub(super) fn copy(
    layer: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    path: &[u8],
    inode: &Inode,
    sparse: bool,
) -> Result<()> {
    let from = open_beneath(layer, path, OFlags::RDONLY, Mode::empty())
        .map_err(StackError::io("open", path))?;
    let from = FileBlob::from_file(File::from(from)).map_err(StackError::io("read", path))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let to = open_beneath(target, path, flags, Mode::RUSR | Mode::WUSR)
        .map_err(StackError::io("create", path))?;
    let to = FileTarget::from_file(File::from(to));
    let fill = || {
        let mut at = 0;
        while sparse && let Some(data) = from.next_data(at)? {
            to.copy_from(&from, data.start, data.end - data.start, data.start)?;
            at = data.end;
        }
        match sparse {
            true => to.set_len(from.size()),
            false => to.copy_from(&from, 0, from.size(), 0),
        }
    };
    fill().map_err(StackError::io("write", path))?;
    set_open(to.file().as_fd(), path, inode)?;
    if let Some(from) = from.as_fd() {
        copy_flags(from, to.file().as_fd());
    }
    Ok(())
}

/// Gives a directory all that the layer's has.
fn finish(layer: BorrowedFd<'_>, target: BorrowedFd<'_>, path: &[u8], inode: &Inode) -> Result<()> {
    let from = open_dir(layer, path).map_err(StackError::io("open", path))?;
    let to = open_dir(target, path).map_err(StackError::io("open", path))?;
    attributes(from.as_fd(), to.as_fd(), path, inode)
}

/// Owner, mode, time, attributes and flags of an open directory; attributes that it has beyond these go.
pub(super) fn attributes(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    path: &[u8],
    inode: &Inode,
) -> Result<()> {
    let own = xattr::read(to, b"", Form::Plain)
        .map_err(StackError::io("read the attributes of", path))?;
    let beyond = own.kept.keys();
    for name in beyond.filter(|name| !inode.xattrs.contains_key(*name) && !host_only(name)) {
        rustix::fs::fremovexattr(to, OsStr::from_bytes(name))
            .map_err(StackError::io("set the attributes of", path))?;
    }
    set_open(to, path, inode)?;
    copy_flags(from, to);
    Ok(())
}
