//! Paths below a directory handle, opened without following any symbolic link.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Longest path handed to one system call: `PATH_MAX` is 4,096 with the final zero.
const MAX_CALL: usize = 4000;

/// The path of `name` in the directory `dir`, which is empty for the root.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}

/// Opens `path` (relative, without `.` and `..`; empty means the directory itself) below `root`.
/// No component may be a symbolic link.
pub(crate) fn open_beneath(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    if path.is_empty() {
        return Ok(rustix::fs::openat(root, ".", flags, mode)?);
    }
    let mut held: Option<OwnedFd> = None;
    let mut rest = path;
    while rest.len() > MAX_CALL {
        let Some(cut) = rest[..MAX_CALL].iter().rposition(|b| *b == b'/') else {
            break;
        };
        let dir = held.as_ref().map_or(root, AsFd::as_fd);
        held = Some(open_short(
            dir,
            &rest[..cut],
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        rest = &rest[cut + 1..];
    }
    open_short(held.as_ref().map_or(root, AsFd::as_fd), rest, flags, mode)
}

fn open_short(dir: BorrowedFd<'_>, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(dir, OsStr::from_bytes(path), flags, mode, resolve) {
            Ok(fd) => return Ok(fd),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Kernels before 5.6, and filters that do not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return open_stepwise(dir, path, flags, mode),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The same, one component at a time.
fn open_stepwise(
    dir: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let mut held: Option<OwnedFd> = None;
    let mut parts = path.split(|b| *b == b'/').peekable();
    while let Some(part) = parts.next() {
        let at = held.as_ref().map_or(dir, AsFd::as_fd);
        let last = parts.peek().is_none();
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (flags, mode) = if last {
            (flags | OFlags::NOFOLLOW, mode)
        } else {
            (step, Mode::empty())
        };
        held = Some(rustix::fs::openat(
            at,
            OsStr::from_bytes(part),
            flags,
            mode,
        )?);
    }
    held.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Opens a directory below `root` for use with the `*at` calls.
pub(crate) fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open_beneath(
        root,
        path,
        OFlags::RDONLY | OFlags::DIRECTORY,
        Mode::empty(),
    )
}

/// The same, and no other mount may be on the way: not even one of the same file system.
pub(crate) fn open_dir_here(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let device = retry(|| rustix::fs::fstat(root))?.st_dev;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut held = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        let part = OsStr::from_bytes(part);
        let resolve = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        held = loop {
            match rustix::fs::openat2(&held, part, flags, Mode::empty(), resolve) {
                Ok(fd) => break fd,
                Err(Errno::INTR | Errno::AGAIN) => {}
                // See `open_short`.
                Err(Errno::NOSYS | Errno::PERM) => {
                    break rustix::fs::openat(&held, part, flags, Mode::empty())?;
                }
                Err(e) => return Err(e.into()),
            }
        };
    }
    if rustix::fs::fstat(&held)?.st_dev != device {
        return Err(Errno::XDEV.into());
    }
    Ok(held)
}

/// A path that leads to `name` in the directory `dir` for calls that take no directory handle
/// (`lgetxattr`). The handle is reached through `/proc`, nothing is resolved again.
pub(crate) fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(OsStr::from_bytes(name));
    path
}

/// Parent and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

/// Retries a call that a signal interrupted.
pub(crate) fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}
