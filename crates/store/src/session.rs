//! The temporary directory of one open store.
//!
//! `tmp/<session>/` belongs to the process that holds the lock on `tmp/<session>.lock`. Whoever can
//! take that lock knows that the owner is dead, and clears up.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::lock::open_lock_file;
use crate::{StoreError, remove_tree};

#[derive(Debug)]
pub(crate) struct Session {
    dir: PathBuf,
    lock_path: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Session {
    /// Makes a session directory below `tmp`.
    pub(crate) fn create(tmp: &Path) -> Result<Self, StoreError> {
        for attempt in 0..u32::MAX {
            let name = format!("{}-{attempt}", std::process::id());
            let lock_path = tmp.join(format!("{name}.lock"));
            let lock = open_lock_file(&lock_path)?;
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                // Another process with our number (of another pid namespace), or a cleaner.
                Err(Errno::WOULDBLOCK | Errno::INTR) => continue,
                Err(e) => return Err(StoreError::io("lock", lock_path)(e.into())),
            }
            // A cleaner may have removed the file between our open and our lock.
            if !is_same_file(&lock, &lock_path) {
                continue;
            }
            let dir = tmp.join(&name);
            match fs_err::create_dir(&dir) {
                Ok(()) => {
                    return Ok(Self {
                        dir,
                        lock_path,
                        next: AtomicU64::new(0),
                        _lock: lock,
                    });
                }
                // Left by a dead process and not removable by us: leave it to its owner.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(StoreError::io("create", dir)(e)),
            }
        }
        Err(StoreError::io("create a directory in", tmp)(
            std::io::ErrorKind::AlreadyExists.into(),
        ))
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the session directory that nobody else uses.
    pub(crate) fn path(&self, prefix: &str) -> PathBuf {
        self.dir.join(format!(
            "{prefix}-{}",
            self.next.fetch_add(1, Ordering::Relaxed)
        ))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if remove_tree(&self.dir).is_ok() {
            // A failure leaves an unlocked file, which the next opening removes.
            let _ = std::fs::remove_file(&self.lock_path);
        }
    }
}

pub(crate) fn is_same_file(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Removes what dead processes left. Returns the directories that could not be removed, for
/// example because their files belong to subordinate ids; those need a user namespace.
pub(crate) fn clean(tmp: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut left = Vec::new();
    let entries = fs_err::read_dir(tmp).map_err(StoreError::io("list", tmp))?;
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", tmp))?.path();
        if path.extension().is_none_or(|e| e != "lock") {
            continue;
        }
        let Ok(lock) = open_lock_file(&path) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
            || !is_same_file(&lock, &path)
        {
            continue;
        }
        let dir = path.with_extension("");
        match remove_tree(&dir) {
            Ok(()) => {
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => left.push(dir),
        }
    }
    left.sort();
    Ok(left)
}
