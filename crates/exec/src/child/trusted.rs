//! Jobs of our own code, run as root of a user namespace in which the caller's own id is mapped
//! too: the caller's files can be used, and files can be given to the image's users.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use amiforge_store::UNSAID;
use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::thread::{Gid, Uid};

use super::{ChildError, chrooted, layers};
use crate::spec::{RootSpec, Way};
use crate::wire::Job;

pub(super) fn run(job: Job, way: Way) -> Result<(), ChildError> {
    match job {
        Job::Prepare { root, keep_tmp, .. } => {
            prepare(&root, keep_tmp)?;
            match way {
                Way::Chroot => chrooted::stack(&root),
                Way::MappedIds | Way::SingleId | Way::MicroVm => Ok(()),
            }
        }
        Job::Materialise {
            layer,
            dir,
            place,
            shift,
        } => layers::materialise(&layer, &dir, &place, shift),
        Job::Harvest {
            upper,
            layer,
            clock,
            since,
            exclude,
        } => layers::harvest(&upper, &layer, clock, since, exclude),
        Job::RemoveTrees { dirs } => layers::remove(&dirs),
        Job::Script { .. } | Job::Component { .. } | Job::Shell { .. } => {
            Err(ChildError::plain("this job is not a trusted one"))
        }
    }
}

/// Makes the upper directory a twin of the topmost lower one that says what the root is like, and the work directory empty, but for `tmp` where it is
/// to be kept.
fn prepare(root: &RootSpec, keep_tmp: bool) -> Result<(), ChildError> {
    let mut like = None;
    for lower in &root.lowers {
        let stat = rustix::fs::stat(lower)
            .map_err(|e| ChildError::job(format!("cannot read {}", lower.display()), &e))?;
        let said = stat.st_mtime != UNSAID.secs;
        like = match like {
            None => Some((stat, said)),
            Some((_, false)) if said => Some((stat, true)),
            top => top,
        };
    }
    let (like, said) = like.ok_or_else(|| ChildError::plain("a root needs a lower directory"))?;
    if make_dir(&root.upper)? {
        let upper = open_dir(&root.upper)?;
        let mode = Mode::from_raw_mode(like.st_mode & 0o7777);
        let failed = |e| ChildError::job(format!("cannot prepare {}", root.upper.display()), &e);
        rustix::fs::fchown(
            &upper,
            Some(Uid::from_raw(like.st_uid)),
            Some(Gid::from_raw(like.st_gid)),
        )
        .map_err(failed)?;
        rustix::fs::fchmod(&upper, mode).map_err(failed)?;
        // Of no layer's, it is as old as can be told in archives.
        let time = Timespec {
            tv_sec: if said { like.st_mtime } else { 0 },
            tv_nsec: match said {
                true => i64::try_from(like.st_mtime_nsec).unwrap_or(0),
                false => 0,
            },
        };
        rustix::fs::futimens(
            &upper,
            &Timestamps {
                last_access: time,
                last_modification: time,
            },
        )
        .map_err(failed)?;
    }
    // A work directory of an earlier mount holds a mark that forbids to use it again.
    let old = match keep_tmp {
        true => ["overlay", "stage", chrooted::ROOT]
            .map(|name| root.work.join(name))
            .to_vec(),
        false => vec![root.work.clone()],
    };
    for dir in old {
        layers::remove_tree(&dir)
            .map_err(|e| ChildError::job(format!("cannot clear {}", dir.display()), &e))?;
    }
    make_dir(&root.work)?;
    let work = open_dir(&root.work)?;
    give_to_root(work.as_fd(), &root.work, 0o700)?;
    for (name, mode) in [("overlay", 0o700), ("stage", 0o700), ("tmp", 0o1777)] {
        let path = root.work.join(name);
        match rustix::fs::mkdirat(&work, name, Mode::RWXU) {
            Err(Errno::EXIST) if keep_tmp && name == "tmp" => continue,
            made => {
                made.map_err(|e| ChildError::job(format!("cannot create {}", path.display()), &e))?
            }
        }
        give_to_root(open_dir(&path)?.as_fd(), &path, mode)?;
    }
    Ok(())
}

/// True when it was not there.
fn make_dir(path: &Path) -> Result<bool, ChildError> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(ChildError::job(
            format!("cannot create {}", path.display()),
            &e,
        )),
    }
}

fn give_to_root(dir: BorrowedFd<'_>, path: &Path, mode: u32) -> Result<(), ChildError> {
    let failed = |e| ChildError::job(format!("cannot prepare {}", path.display()), &e);
    rustix::fs::fchown(dir, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(failed)?;
    rustix::fs::fchmod(dir, Mode::from_raw_mode(mode)).map_err(failed)
}

fn open_dir(path: &Path) -> Result<OwnedFd, ChildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|e| ChildError::job(format!("cannot open {}", path.display()), &e))
}
