//! Whether the folder still is what was read, and may be changed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use amiforge_tree::{Ino, InodeFlags, Kind, Tree};
use rustix::fs::{Access, AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::FolderError;
use super::plan::{Action, Plan};
use crate::dirfd::{join, open_dir_here, retry, split};

/// Only the owner of an entry or of the directory may remove the entry.
const STICKY: u32 = 0o1000;

const LOCKED: InodeFlags = InodeFlags::IMMUTABLE.union(InodeFlags::APPEND_ONLY);

pub(super) fn check(root: BorrowedFd<'_>, old: &Tree, plan: &Plan) -> Result<(), FolderError> {
    let flagged = |ino: Ino, path: &[u8]| match old.inode(ino).flags.intersection(LOCKED) {
        flags if flags.is_empty() => Ok(()),
        _ => Err(FolderError::Flagged(path.to_vec())),
    };
    for dir in &plan.dirs {
        let Some(was) = dir.old else { continue };
        let fd = open(root, &dir.path)?;
        flagged(was, &dir.path)?;
        let stat = retry(|| rustix::fs::fstat(&fd)).map_err(FolderError::io("stat", &dir.path))?;
        unchanged(&stat, old, was, &dir.path)?;
        if dir.names {
            writable(&fd, &stat, &dir.path)?;
        }
    }
    for change in plan.changes() {
        let (dir, name) = split(&change.path);
        let Some(was) = change.old else {
            absent(root, old, &change.path)?;
            continue;
        };
        let parent = open(root, dir)?;
        flagged(was, &change.path)?;
        let stat = same(parent.as_fd(), name, old, was, &change.path)?;
        if !matches!(change.action, Action::Attributes(_)) {
            let dir = retry(|| rustix::fs::fstat(&parent)).map_err(FolderError::io("stat", dir))?;
            removable(&dir, &stat, &change.path)?;
        }
        if old.is_dir(was) {
            below(root, old, was, &change.path)?;
        }
    }
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, FolderError> {
    open_dir_here(root, path).map_err(|error| {
        let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV];
        match gone
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
        {
            true => FolderError::Changed(path.to_vec()),
            false => FolderError::io("open", path)(error),
        }
    })
}

/// A name that the folder did not have is still free. Below a directory that is new as well there is nothing.
fn absent(root: BorrowedFd<'_>, old: &Tree, path: &[u8]) -> Result<(), FolderError> {
    let (dir, name) = split(path);
    if !old.lookup(dir).is_some_and(|dir| old.is_dir(dir)) {
        return Ok(());
    }
    let parent = open(root, dir)?;
    match rustix::fs::statat(&parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Ok(_) => Err(FolderError::Changed(path.to_vec())),
        Err(e) => Err(FolderError::io("stat", path)(e.into())),
    }
}

/// Whether the caller may make and remove names in a directory, or may allow itself to.
fn writable(dir: &OwnedFd, stat: &Stat, path: &[u8]) -> Result<(), FolderError> {
    let own = stat.st_uid == rustix::process::geteuid().as_raw();
    let access = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(dir, ".", access, AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS) if own => Ok(()),
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
            Err(FolderError::NotWritable(path.to_vec()))
        }
        Err(e) => Err(FolderError::io("look at", path)(e.into())),
    }
}

/// Whether the caller may remove or replace an entry of a directory that it may write to: in a sticky one only
/// its own.
fn removable(dir: &Stat, entry: &Stat, path: &[u8]) -> Result<(), FolderError> {
    let caller = rustix::process::geteuid();
    let own = [dir.st_uid, entry.st_uid].contains(&caller.as_raw());
    match dir.st_mode & STICKY == 0 || own || caller.is_root() {
        true => Ok(()),
        false => Err(FolderError::NotWritable(path.to_vec())),
    }
}

/// The entry is what was read.
fn same(
    dir: BorrowedFd<'_>,
    name: &[u8],
    old: &Tree,
    was: Ino,
    path: &[u8],
) -> Result<Stat, FolderError> {
    let found =
        retry(|| rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW));
    match found {
        Ok(stat) => unchanged(&stat, old, was, path).map(|()| stat),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(FolderError::Changed(path.to_vec()))
        }
        Err(error) => Err(FolderError::io("stat", path)(error)),
    }
}

/// It has the type, size, mode, owner and time that were read. The size and time of a directory do not count.
pub(super) fn unchanged(stat: &Stat, old: &Tree, was: Ino, path: &[u8]) -> Result<(), FolderError> {
    let inode = old.inode(was);
    let kind = file_type(&inode.kind);
    let size = match &inode.kind {
        Kind::File(content) => u64::try_from(stat.st_size).ok() == Some(content.size),
        _ => true,
    };
    let time = (inode.stat.mtime.secs, u64::from(inode.stat.mtime.nanos));
    let rest = u32::from(inode.stat.mode) == stat.st_mode & 0o7777
        && (inode.stat.uid, inode.stat.gid) == (stat.st_uid, stat.st_gid);
    let time = kind == FileType::Directory || time == (stat.st_mtime, stat.st_mtime_nsec);
    match FileType::from_raw_mode(stat.st_mode) == kind && size && rest && time {
        true => Ok(()),
        false => Err(FolderError::Changed(path.to_vec())),
    }
}

pub(super) fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::File(_) => FileType::RegularFile,
        Kind::Symlink(_) => FileType::Symlink,
        Kind::CharDev { .. } => FileType::CharacterDevice,
        Kind::BlockDev { .. } => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
    }
}

/// A directory that goes holds what was read and nothing else, all the way down, and all of it may be removed.
fn below(root: BorrowedFd<'_>, old: &Tree, top: Ino, path: &[u8]) -> Result<(), FolderError> {
    let mut todo = vec![(path.to_vec(), top)];
    while let Some((path, ino)) = todo.pop() {
        let dir = open(root, &path)?;
        let Some(children) = old.children(ino) else {
            continue;
        };
        let held = retry(|| rustix::fs::fstat(&dir)).map_err(FolderError::io("stat", &path))?;
        let mut listed = 0_usize;
        for entry in Dir::read_from(&dir).map_err(|e| FolderError::io("list", &path)(e.into()))? {
            let entry = entry.map_err(|e| FolderError::io("list", &path)(e.into()))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            listed += 1;
            let child = join(&path, name);
            let Some(was) = children.get(name) else {
                return Err(FolderError::Changed(child));
            };
            let stat = same(dir.as_fd(), name, old, was, &child)?;
            removable(&held, &stat, &child)?;
            match old.inode(was).flags.intersection(LOCKED).is_empty() {
                false => return Err(FolderError::Flagged(child)),
                true if old.is_dir(was) => todo.push((child, was)),
                true => {}
            }
        }
        if listed != children.iter().count() {
            return Err(FolderError::Changed(path));
        }
        if listed > 0 {
            writable(&dir, &held, &path)?;
        }
    }
    Ok(())
}
