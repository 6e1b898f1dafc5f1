//! Builds the root file system of a job and moves into it.
//!
//! ```text
//! /          overlay: upper (the job's) over shims (tmpfs) over the lower directories, volatile
//! /dev       tmpfs: null zero full random urandom tty from the host, own pts, shm, links
//! /proc      of the new pid namespace
//! /sys       empty and read-only: what hardware builds an image must not show in it
//! /run       tmpfs
//! /tmp       the job's own directory on disk, gone with it
//! ```

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::dirs::Opened;
use super::shims::{self, Lent};
use super::{ChildError, refused};
use crate::spec::{DEVICE_LINKS, DEVICES, MOUNT_POINTS, RootSpec, Way};

/// Builds the root and pivots into it. Afterwards nothing of the host is mounted or open.
pub(super) fn enter(root: &RootSpec, opened: Opened, way: Way) -> Result<(), ChildError> {
    let Opened {
        lowers,
        upper: Some(upper),
        work: Some(work),
    } = opened
    else {
        return Err(ChildError::plain(
            "the directories of the root are not open",
        ));
    };
    let work_parts = (open_at(&work, "overlay")?, open_at(&work, "tmp")?);
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(|e| refused("make the mounts private", e))?;

    // A stage of our own for the shims and to mount the root on. It lies in the work directory, which
    // is ours: the directory above belongs to the caller, whose umask may have closed it to us.
    tmpfs(
        &fd_path(&open_at(&work, "stage")?),
        c"mode=0755,size=64m",
        MountFlags::NODEV,
        "the stage",
    )?;
    let stage = open_at(&work, "stage")?;
    for name in ["shims", "root", "image"] {
        rustix::fs::mkdirat(&stage, name, Mode::from_raw_mode(0o755))
            .map_err(|e| refused("make the stage", e))?;
    }
    let shims_dir = open_at(&stage, "shims")?;
    let image = view(&stage, &lowers)?;
    let files = root.lent().collect();
    shims::build(
        shims_dir.as_fd(),
        image.as_fd(),
        &Lent {
            files,
            dirs: MOUNT_POINTS,
        },
    )?;
    copy_root(&image, &shims_dir)?;
    drop(image);

    let mut options = format!("userxattr,volatile,lowerdir={}", fd_path(&shims_dir));
    for lower in &lowers {
        options.push(':');
        options.push_str(&fd_path(lower));
    }
    options.push_str(&format!(
        ",upperdir={},workdir={}",
        fd_path(&upper),
        fd_path(&work_parts.0)
    ));
    let target = open_at(&stage, "root")?;
    overlay(&fd_path(&target), &options, MountFlags::empty())?;
    let new_root = open_at(&stage, "root")?;

    devices(&new_root, way)?;
    let proc_flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(
        "proc",
        fd_path(&open_at(&new_root, "proc")?),
        "proc",
        proc_flags,
        None,
    )
    .map_err(|e| refused("mount /proc", e))?;
    tmpfs(
        &fd_path(&open_at(&new_root, "sys")?),
        c"mode=0555,size=4k",
        proc_flags | MountFlags::RDONLY,
        "/sys",
    )?;
    tmpfs(
        &fd_path(&open_at(&new_root, "run")?),
        c"mode=0755",
        MountFlags::NOSUID | MountFlags::NODEV,
        "/run",
    )?;
    let run = open_at(&new_root, "run")?;
    mkdir_mode(&run, "lock", 0o1777)?;
    bind(
        &fd_path(&work_parts.1),
        &fd_path(&open_at(&new_root, "tmp")?),
        "/tmp",
    )?;

    let pivot = |e| refused("change the root directory", e);
    rustix::process::fchdir(&new_root).map_err(pivot)?;
    // The old root lands on top of the new one and is taken off again, with everything below it.
    rustix::process::pivot_root(".", ".").map_err(pivot)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)
        .map_err(|e| refused("unmount the host's files", e))?;
    rustix::process::chdir("/").map_err(pivot)
}

/// The image as the job will see it, for looking at only.
fn view(stage: &OwnedFd, lowers: &[OwnedFd]) -> Result<OwnedFd, ChildError> {
    match lowers {
        [] => Err(ChildError::plain("a root needs a lower directory")),
        [only] => open_at(only, "."),
        several => {
            let list: Vec<String> = several.iter().map(fd_path).collect();
            let options = format!("userxattr,lowerdir={}", list.join(":"));
            overlay(
                &fd_path(&open_at(stage, "image")?),
                &options,
                MountFlags::RDONLY,
            )?;
            open_at(stage, "image")
        }
    }
}

/// The topmost lower directory lends the root directory its attributes, until the upper has them.
pub(super) fn copy_root(image: &OwnedFd, shims: &OwnedFd) -> Result<(), ChildError> {
    let failed = |e| ChildError::job("cannot prepare the root directory", &e);
    let stat = rustix::fs::fstat(image).map_err(failed)?;
    let (uid, gid) = (
        rustix::thread::Uid::from_raw(stat.st_uid),
        rustix::thread::Gid::from_raw(stat.st_gid),
    );
    rustix::fs::fchown(shims, Some(uid), Some(gid)).map_err(failed)?;
    rustix::fs::fchmod(shims, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(failed)
}

fn devices(root: &OwnedFd, way: Way) -> Result<(), ChildError> {
    tmpfs(
        &fd_path(&open_at(root, "dev")?),
        c"mode=0755,size=1m",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "/dev",
    )?;
    let dev = open_at(root, "dev")?;
    for device in DEVICES {
        let name = device.name;
        let host = format!("/dev/{name}");
        if device.optional && !std::path::Path::new(&host).exists() {
            continue;
        }
        let what = || format!("lend the device {host}");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dev, name, flags, Mode::from_raw_mode(0o666))
            .map_err(|e| refused(what(), e))?;
        rustix::mount::mount_bind(&host, fd_path(&file)).map_err(|e| refused(what(), e))?;
    }
    mkdir_mode(&dev, "pts", 0o755)?;
    rustix::mount::mount(
        "devpts",
        fd_path(&open_at(&dev, "pts")?),
        "devpts",
        MountFlags::NOSUID | MountFlags::NOEXEC,
        Some(match way {
            Way::MappedIds | Way::Chroot | Way::MicroVm => {
                c"newinstance,ptmxmode=0666,mode=0620,gid=5"
            }
            // There is no group 5.
            Way::SingleId => c"newinstance,ptmxmode=0666,mode=0620",
        }),
    )
    .map_err(|e| refused("mount /dev/pts", e))?;
    mkdir_mode(&dev, "shm", 0o1777)?;
    tmpfs(
        &fd_path(&open_at(&dev, "shm")?),
        c"mode=1777",
        MountFlags::NOSUID | MountFlags::NODEV,
        "/dev/shm",
    )?;
    for (name, target) in DEVICE_LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).map_err(|e| refused("fill /dev", e))?;
    }
    Ok(())
}

pub(super) fn mkdir_mode(dir: &OwnedFd, name: &str, mode: u32) -> Result<(), ChildError> {
    let failed = |e| ChildError::refused(format!("make the directory {name}"), e);
    rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(failed)?;
    rustix::fs::fchmod(open_at(dir, name)?, Mode::from_raw_mode(mode)).map_err(failed)
}

fn tmpfs(
    target: &str,
    options: &std::ffi::CStr,
    flags: MountFlags,
    what: &str,
) -> Result<(), ChildError> {
    rustix::mount::mount("tmpfs", target, "tmpfs", flags, Some(options))
        .map_err(|e| ChildError::refused(format!("mount a file system in memory for {what}"), e))
}

fn bind(source: &str, target: &str, what: &str) -> Result<(), ChildError> {
    rustix::mount::mount_bind(source, target)
        .map_err(|e| ChildError::refused(format!("mount {what}"), e))
}

fn overlay(target: &str, options: &str, flags: MountFlags) -> Result<(), ChildError> {
    let options = std::ffi::CString::new(options)
        .map_err(|e| ChildError::job("cannot mount overlayfs", &e))?;
    if options.as_bytes().len() >= 4096 {
        return Err(ChildError::plain(
            "too many lower directories for one overlay; materialise them together",
        ));
    }
    rustix::mount::mount(
        "overlay",
        target,
        "overlay",
        flags,
        Some(options.as_c_str()),
    )
    .map_err(|e| ChildError::refused("mount an overlay in the user namespace", e))
}

/// A path that leads to an open directory without being resolved again.
fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens a directory of ours or of the image; never follows a link.
pub(super) fn open_at(dir: &OwnedFd, name: &str) -> Result<OwnedFd, ChildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|e| ChildError::job(format!("cannot open the directory {name} of the root"), &e))
}
