//! Who uses a layer, and when that was last.
//!
//! Whoever builds holds `locks/use-<id>.lock` of every layer of its plan, shared with other builds; what removes a layer
//! needs it for itself. The time of the file is that of the last use. `locks/use-downloads.lock` is the same for the cache of downloads.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use amiforge_types::LayerId;
use rustix::fs::FlockOperation;

use crate::lock::{open_lock_file, take};
use crate::{Store, StoreError};

/// Held while layers are used: none of them is removed. Released when dropped, and by the kernel when the process ends
/// in any way.
#[derive(Debug)]
#[must_use = "the layers may be removed when this is dropped"]
pub struct LayerUse {
    _files: Vec<File>,
}

/// Held while a layer is removed.
#[derive(Debug)]
#[must_use = "the layer may be used when this is dropped"]
pub struct Unused {
    id: LayerId,
    _file: File,
}

impl Unused {
    /// The layer that nobody uses.
    #[must_use]
    pub fn id(&self) -> LayerId {
        self.id
    }
}

impl Store {
    /// Keeps layers from being removed, be they there or not, and notes that they are used `now`. Waits for who is
    /// removing one.
    pub fn use_layers(&self, ids: &[LayerId], now: SystemTime) -> Result<LayerUse, StoreError> {
        let mut files = Vec::with_capacity(ids.len());
        for id in ids {
            let path = self.use_path(*id);
            let file = shared(&path)?;
            file.set_modified(now)
                .map_err(StoreError::io("set the time of", &path))?;
            files.push(file);
        }
        Ok(LayerUse { _files: files })
    }

    /// The right to remove a layer; `None` while somebody uses it.
    pub fn unused(&self, id: LayerId) -> Result<Option<Unused>, StoreError> {
        let path = self.use_path(id);
        let before = last_change(&path);
        let Some(file) = alone(&path)? else {
            return Ok(None);
        };
        // Made by asking, it would say that the layer was used now. (Its name must stay: others may have opened it.)
        if before.is_none() {
            let made = last_change(&self.layer_path(id)).unwrap_or(SystemTime::UNIX_EPOCH);
            file.set_modified(made)
                .map_err(StoreError::io("set the time of", &path))?;
        }
        Ok(Some(Unused { id, _file: file }))
    }

    /// Keeps downloads from being removed.
    pub fn use_downloads(&self) -> Result<LayerUse, StoreError> {
        let file = shared(&self.downloads_path())?;
        Ok(LayerUse { _files: vec![file] })
    }

    /// The right to remove downloads, for as long as the file is open; `None` while somebody uses them.
    pub fn unused_downloads(&self) -> Result<Option<File>, StoreError> {
        alone(&self.downloads_path())
    }

    fn downloads_path(&self) -> PathBuf {
        self.root.join("locks").join("use-downloads.lock")
    }

    /// When a layer was used last: by a build, or else when it was made. `None` for one that is not there.
    #[must_use]
    pub fn last_use(&self, id: LayerId) -> Option<SystemTime> {
        let made = last_change(&self.layer_path(id))?;
        Some(last_change(&self.use_path(id)).map_or(made, |used| used.max(made)))
    }

    fn use_path(&self, id: LayerId) -> PathBuf {
        self.root.join("locks").join(format!("use-{id}.lock"))
    }
}

fn last_change(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// A lock that others may have, too; waits for who has it alone.
fn shared(path: &Path) -> Result<File, StoreError> {
    let file = open_lock_file(path)?;
    take(&file, FlockOperation::LockShared).map_err(|e| StoreError::io("lock", path)(e.into()))?;
    Ok(file)
}

/// A lock that nobody else has; `None` while somebody does.
fn alone(path: &Path) -> Result<Option<File>, StoreError> {
    let file = open_lock_file(path)?;
    let taken = take(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| StoreError::io("lock", path)(e.into()))?;
    Ok(taken.then_some(file))
}
