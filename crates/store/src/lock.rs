//! Advisory locks between processes: `flock(2)` on files that stay, and signs of life.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use amiforge_sys::{LockKind, is_locked, try_lock};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::StoreError;
use crate::session::is_same_file;

/// Held while one process makes a layer, so that another one waits and then finds it. Released when
/// dropped, and by the kernel when the process ends in any way.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct LayerLock {
    _file: File,
}

pub(crate) fn open_lock_file(path: &Path) -> Result<File, StoreError> {
    let file = fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.map(|f| f.into_parts().0)
        .map_err(StoreError::io("open the lock file", path))
}

/// Waits for the lock, or with `wait` false returns `None` when another holder has it.
pub(crate) fn lock(path: &Path, wait: bool) -> Result<Option<LayerLock>, StoreError> {
    let file = open_lock_file(path)?;
    let operation = if wait {
        FlockOperation::LockExclusive
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    let taken = take(&file, operation).map_err(|e| StoreError::io("lock", path)(e.into()))?;
    Ok(taken.then_some(LayerLock { _file: file }))
}

/// Takes a lock; false when it is another holder's and the operation does not wait.
pub(crate) fn take(file: &File, operation: FlockOperation) -> Result<bool, Errno> {
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

/// Held while one process works on a folder that is not of the store: a lock on the directory itself, which
/// leaves nothing in it.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
pub struct FolderLock {
    dir: File,
}

impl FolderLock {
    /// Opens the directory and locks it; `None` while another process has the lock.
    pub fn take(path: &Path) -> Result<Option<Self>, StoreError> {
        let flags = rustix::fs::OFlags::RDONLY
            | rustix::fs::OFlags::DIRECTORY
            | rustix::fs::OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(|e| StoreError::io("open", path)(e.into()))?;
        let dir = File::from(dir);
        let taken = take(&dir, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| StoreError::io("lock", path)(e.into()))?;
        Ok(taken.then_some(Self { dir }))
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &File {
        &self.dir
    }
}

/// A sign that somebody is at work: a lock that everybody sees and nobody disturbs by looking. It is there as long as anybody has the
/// file open, and the kernel takes it away however a process ends.
#[derive(Debug)]
#[must_use = "the sign is gone when this is dropped"]
pub struct Sign(File);

impl Sign {
    /// Sets the sign for one holder alone, making the file (mode 0600) when it is not there; `None` while anybody has it.
    pub fn claim(path: &Path) -> Result<Option<Self>, StoreError> {
        Self::set(path, LockKind::Exclusive)
    }

    /// Sets the sign beside others; `None` while somebody has it alone.
    pub fn join(path: &Path) -> Result<Option<Self>, StoreError> {
        Self::set(path, LockKind::Shared)
    }

    fn set(path: &Path, kind: LockKind) -> Result<Option<Self>, StoreError> {
        loop {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(StoreError::io("open the lock file", path))?;
            if !try_lock(&file, kind).map_err(StoreError::io("lock", path))? {
                return Ok(None);
            }
            // Removed between the two: nobody would see it.
            if is_same_file(&file, path) {
                return Ok(Some(Self(file)));
            }
        }
    }

    /// Whether anybody has the sign.
    pub fn is_set(path: &Path) -> Result<bool, StoreError> {
        match File::open(path) {
            Ok(file) => is_locked(&file).map_err(StoreError::io("look at the lock of", path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io("open the lock file", path)(e)),
        }
    }

    /// The open file, to be handed to another process: as long as anybody has it open, the sign is there.
    #[must_use]
    pub fn into_file(self) -> File {
        self.0
    }
}
