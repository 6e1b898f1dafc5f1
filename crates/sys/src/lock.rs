//! Locks that belong to an open file description (fcntl(2), `F_OFD_SETLK`): they go when the last descriptor of it is closed,
//! however that comes, and whoever asks whether there is one does not get in anybody's way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// How a lock is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Beside others of this kind. The file is open for reading.
    Shared,
    /// Alone. The file is open for writing.
    Exclusive,
}

/// Locks the file; false when a lock of another open file description forbids it. Does not wait.
///
/// # Errors
/// When the file system has no locks, or the file is not open as the kind needs it.
pub fn try_lock(file: &File, kind: LockKind) -> io::Result<bool> {
    let mut request = whole_file(match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    });
    match fcntl(file, libc::F_OFD_SETLK, &mut request) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether another open file description has a lock on the file, of either kind. Takes none.
///
/// # Errors
/// When the file system has no locks.
pub fn is_locked(file: &File) -> io::Result<bool> {
    let mut request = whole_file(libc::F_WRLCK);
    fcntl(file, libc::F_OFD_GETLK, &mut request)?;
    Ok(i32::from(request.l_type) != libc::F_UNLCK)
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    // JUSTIFICATION: rustix has the locks of processes alone, which go when any descriptor of the file is closed.
    // SAFETY: an all-zero `flock` is a valid value of this plain C structure; it means the whole file.
    let mut request: libc::flock = unsafe { std::mem::zeroed() };
    request.l_type = libc::c_short::try_from(kind).unwrap_or_default();
    request.l_whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or_default();
    request
}

fn fcntl(file: &File, what: libc::c_int, request: &mut libc::flock) -> io::Result<()> {
    loop {
        // JUSTIFICATION: as above.
        // SAFETY: the descriptor is open, and the pointer leads to a `flock` that lives until the call returns and that
        // the kernel may write to, as F_OFD_SETLK and F_OFD_GETLK want.
        let ret = unsafe { libc::fcntl(file.as_raw_fd(), what, std::ptr::from_mut(request)) };
        if ret != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &std::path::Path) -> File {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(path).unwrap()
    }

    #[test]
    fn locks_are_seen_without_being_taken_and_go_with_the_last_descriptor() {
        let path = std::env::temp_dir().join(format!("amiforge-lock-{}", std::process::id()));
        let (a, b, c) = (opened(&path), opened(&path), opened(&path));
        assert!(!is_locked(&c).unwrap());
        assert!(try_lock(&a, LockKind::Shared).unwrap() && try_lock(&b, LockKind::Shared).unwrap());
        assert!(is_locked(&c).unwrap() && !try_lock(&c, LockKind::Exclusive).unwrap());
        drop(b);
        assert!(is_locked(&c).unwrap());
        let twin = a.try_clone().unwrap();
        drop(a);
        // Closing another description of the same file in this process takes nothing away, as it would of a process's lock.
        drop(opened(&path));
        assert!(is_locked(&c).unwrap());
        drop(twin);
        assert!(!is_locked(&c).unwrap());
        assert!(try_lock(&c, LockKind::Exclusive).unwrap());
        assert!(!try_lock(&opened(&path), LockKind::Shared).unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
