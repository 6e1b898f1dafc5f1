//! Advisory locks between processes: `flock(2)` on files that stay.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::StoreError;

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
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Some(LayerLock { _file: file })),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if !wait => return Ok(None),
            Err(e) => return Err(StoreError::io("lock", path)(e.into())),
        }
    }
}
