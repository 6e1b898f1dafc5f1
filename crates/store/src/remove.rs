//! Removing whole trees, also unreadable and very deep ones.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::atomic::parent_of;

/// Directories deeper than this below the removed one are moved up first, so that a chain of any
/// depth needs neither as many handles nor as much stack.
const MAX_HELD: usize = 64;

/// Something could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {}", path.display())]
pub struct RemoveError {
    /// What could not be removed, from the path that was asked for.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Removes `path` and everything below it; content when it is not there. Symbolic links are removed,
/// never followed; directories without permissions are opened up first. Stops at the first thing
/// that cannot be removed.
pub fn remove_tree(path: &Path) -> Result<(), RemoveError> {
    let fail = |source: io::Error| RemoveError {
        path: path.to_owned(),
        source,
    };
    let name = path
        .file_name()
        .ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::open(parent_of(path), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(fail(e.into())),
    };
    remove_tree_at(parent.as_fd(), name.as_bytes()).map_err(|e| RemoveError {
        path: parent_of(path).join(e.path),
        ..e
    })
}

/// [`remove_tree`] for the entry `name` of an open directory. Paths in errors start with `name`.
pub fn remove_tree_at(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), RemoveError> {
    let path = PathBuf::from(OsStr::from_bytes(name));
    let c_name = CString::new(name).map_err(|_| RemoveError {
        path: path.clone(),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(RemoveError {
            path,
            source: io::ErrorKind::InvalidInput.into(),
        });
    }
    let mut walk = Walk {
        top: None,
        moved: 0,
    };
    walk.remove(parent, &c_name, &path, 0)
}

struct Walk {
    /// Handle of the directory that is removed, the place for directories that are moved up.
    top: Option<OwnedFd>,
    moved: u64,
}

impl Walk {
    fn remove(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &CString,
        path: &Path,
        depth: usize,
    ) -> Result<(), RemoveError> {
        let fail = |e: Errno| RemoveError {
            path: path.to_owned(),
            source: e.into(),
        };
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Linux says ISDIR, POSIX and some file systems PERM.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(fail(e)),
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
            Err(e) => return Err(fail(e)),
        }
        if depth >= MAX_HELD && self.move_up(dir, name) {
            return Ok(());
        }
        let fd = open_up(dir, name).map_err(fail)?;
        if depth == 0 {
            self.top = Some(fd.try_clone().map_err(|source| RemoveError {
                path: path.to_owned(),
                source,
            })?);
        }
        // Names first: removing while listing may skip entries on some file systems. A round that
        // moved directories up has left new entries at the top, so the top is listed again.
        loop {
            let names = list(&fd).map_err(fail)?;
            if names.is_empty() {
                break;
            }
            for child in &names {
                let child_path = path.join(OsStr::from_bytes(child.as_bytes()));
                self.remove(fd.as_fd(), child, &child_path, depth + 1)?;
            }
            if depth > 0 {
                break;
            }
        }
        drop(fd);
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(fail(e)),
        }
    }

    /// Moves a directory to the top of the tree, whose next round removes it.
    fn move_up(&mut self, dir: BorrowedFd<'_>, name: &CString) -> bool {
        let Some(top) = &self.top else { return false };
        let to = format!(".amiforge-removed-{}", self.moved);
        self.moved += 1;
        rustix::fs::renameat_with(
            dir,
            name,
            top,
            to.as_str(),
            rustix::fs::RenameFlags::NOREPLACE,
        )
        .is_ok()
    }
}

fn open_up(dir: BorrowedFd<'_>, name: &CString) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::io::retry_on_intr(|| rustix::fs::openat(dir, name, flags, Mode::empty()));
    let fd = match open() {
        Err(Errno::ACCESS) => {
            // `fchmodat` follows links, but a name that is a directory (it did not unlink) and not
            // ours to swap is not one; a swapped link would fail at `O_NOFOLLOW`.
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    // Listing needs r, removing entries needs w and x.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // Ignored where it is not ours: then removing the entries tells what is wrong.
        let _ = rustix::fs::fchmod(&fd, mode | Mode::RWXU);
    }
    Ok(fd)
}

fn list(fd: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
