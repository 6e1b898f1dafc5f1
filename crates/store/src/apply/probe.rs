//! Whether the file system can do what the changes need.

use std::os::fd::{AsFd as _, BorrowedFd};

use amiforge_tree::Tree;
use rustix::fs::{Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::FolderError;
use super::plan::{Action, Plan};
use crate::dirfd::{open_dir_here, retry};
use crate::remove_tree_at;

/// Tries the renames that the plan needs, in a new directory of the name `spare`: the kernel finds most errors
/// before it asks the file system, so only files that are there tell.
pub(super) fn renames(
    root: BorrowedFd<'_>,
    old: &Tree,
    plan: &Plan,
    spare: &str,
) -> Result<(), FolderError> {
    let exchange = plan.changes().any(|change| match change.action {
        Action::Remove | Action::Attributes(_) => false,
        Action::MakeDir => change.old.is_some(),
        _ => change.old.is_some_and(|was| old.is_dir(was)),
    });
    if !exchange && plan.changes().all(|change| change.old.is_some()) {
        return Ok(());
    }
    for dir in plan
        .dirs
        .iter()
        .filter(|dir| dir.names && dir.old.is_some())
    {
        let fd = open_dir_here(root, &dir.path).map_err(FolderError::io("open", &dir.path))?;
        let stat = retry(|| rustix::fs::fstat(&fd)).map_err(FolderError::io("stat", &dir.path))?;
        match rustix::fs::mkdirat(&fd, spare, Mode::RWXU) {
            Ok(()) => {}
            // One of the caller's own that it has closed to itself: the next may be open.
            Err(Errno::ACCESS) => continue,
            Err(e) => return Err(FolderError::io("write to", &dir.path)(e.into())),
        }
        let tried = open_dir_here(fd.as_fd(), spare.as_bytes())
            .and_then(|probe| attempt(probe.as_fd(), exchange).map_err(Into::into));
        let removed = remove_tree_at(fd.as_fd(), spare.as_bytes());
        let time = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: rustix::fs::UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: stat.st_mtime,
                tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        };
        // Who may write to a directory may not always set its time.
        let _ = rustix::fs::futimens(&fd, &time);
        removed?;
        return match tried {
            Ok(()) => Ok(()),
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                Err(FolderError::NoSafeRename)
            }
            Err(e) => Err(FolderError::io("write to", &dir.path)(e)),
        };
    }
    Ok(())
}

fn attempt(dir: BorrowedFd<'_>, exchange: bool) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let make = |name| rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(drop);
    make("a")?;
    rustix::fs::renameat_with(dir, "a", dir, "b", RenameFlags::NOREPLACE)?;
    if exchange {
        make("a")?;
        rustix::fs::renameat_with(dir, "a", dir, "b", RenameFlags::EXCHANGE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_file_system_can() {
        let dir = tempfile::tempdir().unwrap();
        let fd = std::fs::File::open(dir.path()).unwrap();
        assert_eq!(attempt(fd.as_fd(), true), Ok(()));
        assert!(dir.path().join("a").exists() && dir.path().join("b").exists());
    }
}
