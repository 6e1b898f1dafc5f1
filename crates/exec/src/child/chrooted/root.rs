//! The root directory of a job: made of its layers, with what is mounted in the other ways as plain files.
//!
//! ```text
//! /dev       device nodes of our own: null zero full random urandom tty; empty pts; shm; links
//! /proc      empty: programs that ask for processes, or for /dev/fd, find nothing, but for one (`play`)
//! /sys       empty
//! /run       a directory on disk
//! /tmp       the job's own directory on disk, gone with it
//! ```

use std::os::fd::{AsFd as _, OwnedFd};

use amiforge_store::put_over;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use super::super::mounts::{copy_root, mkdir_mode, open_at};
use super::super::shims::{self, Lent};
use super::super::{ChildError, refused};
use super::{Places, ROOT, open_dir};
use crate::spec::{DEVICE_LINKS, DEVICES, MOUNT_POINTS, RootSpec};

/// [`MOUNT_POINTS`] as paths in a root: what is in them is the job's own, and never the image's.
pub(super) const CLOSED: &[&[u8]] = &[b"dev", b"proc", b"sys", b"run", b"tmp"];

/// Makes the root of the lower directories and of what the job is lent, in the work directory, which was made. The upper
/// directory goes over it when the job begins.
pub(in super::super) fn stack(spec: &RootSpec) -> Result<(), ChildError> {
    let work = open_dir(&spec.work)?;
    rustix::fs::mkdirat(&work, ROOT, Mode::RWXU)
        .map_err(|e| ChildError::job("cannot make the root directory", &e))?;
    let root = open_at(&work, ROOT)?;
    let failed = |e| ChildError::job("cannot make the root directory", &e);
    for lower in spec.lowers.iter().rev() {
        put_over(open_dir(lower)?, &root, CLOSED, true).map_err(failed)?;
    }
    let stage = open_at(&work, "stage")?;
    mkdir_mode(&stage, "shims", 0o755)?;
    let lent = open_at(&stage, "shims")?;
    let files = spec.lent().collect();
    let dirs = MOUNT_POINTS;
    shims::build(lent.as_fd(), root.as_fd(), &Lent { files, dirs })?;
    copy_root(&root, &lent)?;
    put_over(&lent, &root, CLOSED, true).map_err(failed)?;
    Ok(())
}

/// Fills what is mounted in the other ways.
pub(super) fn furnish(places: &Places) -> Result<(), ChildError> {
    let failed = |e: Errno| ChildError::job("cannot prepare the root directory", &e);
    try_whiteout(&places.work)?;
    let before = rustix::fs::fstat(&places.root).map_err(failed)?;
    let own = |name: &str, mode: u32| -> Result<OwnedFd, ChildError> {
        let dir = open_at(&places.root, name)?;
        rustix::fs::fchown(&dir, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(failed)?;
        rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode)).map_err(failed)?;
        // What is made in it has no access list; mostly there is none to hand down.
        let _none = rustix::fs::fremovexattr(&dir, "system.posix_acl_default");
        Ok(dir)
    };
    let dev = own("dev", 0o755)?;
    for device in DEVICES {
        match node(&dev, device.name, device.number) {
            Err(_) if device.optional => {}
            made => made.map_err(|e| refused(format!("make a device ({})", device.name), e))?,
        }
    }
    mkdir_mode(&dev, "pts", 0o755)?;
    mkdir_mode(&dev, "shm", 0o1777)?;
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).map_err(failed)?;
    }
    own("proc", 0o555)?;
    own("sys", 0o555)?;
    mkdir_mode(&own("run", 0o755)?, "lock", 0o1777)?;
    rustix::fs::unlinkat(&places.root, "tmp", AtFlags::REMOVEDIR).map_err(failed)?;
    rustix::fs::renameat(&places.work, "tmp", &places.root, "tmp").map_err(failed)?;
    // As if nothing had been made in it.
    let time = Timespec {
        tv_sec: before.st_mtime,
        tv_nsec: i64::try_from(before.st_mtime_nsec).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::futimens(&places.root, &times).map_err(failed)
}

/// The upper directory of afterwards needs them, and a store may be where none can be made.
fn try_whiteout(work: &OwnedFd) -> Result<(), ChildError> {
    // There it goes before the next job, whatever happens to us.
    const NAME: &str = "stage/whiteout";
    let what =
        "make a whiteout, since the store is on an overlay or on a file system that has none";
    let none = rustix::fs::makedev(0, 0);
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(work, NAME, kind, Mode::empty(), none)
        .and_then(|()| rustix::fs::unlinkat(work, NAME, AtFlags::empty()))
        .map_err(|e| refused(what, e))
}

/// A character device that everybody may use, where the file system lets it be one.
fn node(dev: &OwnedFd, name: &str, (major, minor): (u32, u32)) -> Result<(), Errno> {
    let number = rustix::fs::makedev(major, minor);
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(dev, name, kind, Mode::RUSR | Mode::WUSR, number)?;
    // Just made by us where nobody else is yet: not a link, and no device of the host's.
    rustix::fs::chmodat(dev, name, Mode::from_raw_mode(0o666), AtFlags::empty())?;
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::openat(dev, name, flags, Mode::empty()) {
        // There is no terminal.
        Ok(_) | Err(Errno::NXIO) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Changes the root directory of the calling process for good; nothing of the host's stays open.
pub(super) fn enter(places: Places) -> Result<(), ChildError> {
    let failed = |e| refused("change the root directory", e);
    rustix::process::fchdir(&places.root).map_err(failed)?;
    drop(places);
    rustix::process::chroot(".").map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)
}

/// Puts `/tmp` where a shell after the job finds it.
pub(super) fn keep_tmp(places: &Places) -> Result<(), ChildError> {
    let failed = |e: Errno| ChildError::job("cannot keep /tmp of the job", &e);
    match rustix::fs::renameat(&places.root, "tmp", &places.work, "tmp") {
        Ok(()) => {}
        // A step removed it.
        Err(Errno::NOENT) => {}
        Err(e) => return Err(failed(e)),
    }
    let kept = rustix::fs::statat(&places.work, "tmp", AtFlags::SYMLINK_NOFOLLOW);
    if kept.is_ok_and(|kept| FileType::from_raw_mode(kept.st_mode) == FileType::Directory) {
        return Ok(());
    }
    // Something else has its name.
    let _none = rustix::fs::unlinkat(&places.work, "tmp", AtFlags::empty());
    mkdir_mode(&places.work, "tmp", 0o1777)
}
