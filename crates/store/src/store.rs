//! Opening a store, and its directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_types::LayerId;

use crate::session::{self, Session};
use crate::{Home, LayerLock, StoreError, lock, write_atomic};

const FORMAT: &str = "amiforge-store 1";

/// An open store. Cheap to share; the temporary directory goes when the last writer and the store
/// itself are dropped.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) root: PathBuf,
    pub(crate) session: Arc<Session>,
    leftovers: Vec<PathBuf>,
}

impl Store {
    /// Opens the store of `home`, making it when it is not there, and removes what dead processes
    /// left behind.
    pub fn open(home: &Home) -> Result<Self, StoreError> {
        let root = home.store.join("v1");
        let make = |dir: &Path| fs_err::create_dir_all(dir).map_err(StoreError::io("create", dir));
        make(&home.store)?;
        check_version(&home.store.join("version"))?;
        for dir in [
            "layers",
            "roots",
            "records",
            "catalog/images",
            "failed",
            "locks",
            "tmp",
        ] {
            make(&root.join(dir))?;
        }
        let tmp = root.join("tmp");
        let leftovers = session::clean(&tmp)?;
        let session = Arc::new(Session::create(&tmp)?);
        Ok(Self {
            root,
            session,
            leftovers,
        })
    }

    /// The directory `v1`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Directories of dead processes that could not be removed at opening, because their files
    /// belong to other ids: to be removed with [`remove_tree`](crate::remove_tree) inside a user namespace.
    #[must_use]
    pub fn leftovers(&self) -> &[PathBuf] {
        &self.leftovers
    }

    /// The store's temporary space: of this opening alone, and removed with it.
    #[must_use]
    pub fn session_dir(&self) -> &Path {
        self.session.dir()
    }

    /// A new directory in the store's temporary space (same file system as layers and roots), for
    /// overlay uppers and work directories. It goes with the store; files of other ids in it have
    /// to be removed before, in a user namespace.
    pub fn temp_dir(&self, prefix: &str) -> Result<PathBuf, StoreError> {
        check_key(prefix)?;
        let path = self.session.path(prefix);
        fs_err::create_dir(&path).map_err(StoreError::io("create", &path))?;
        Ok(path)
    }

    /// Waits until no other process makes this layer.
    pub fn lock_layer(&self, id: LayerId) -> Result<LayerLock, StoreError> {
        loop {
            if let Some(lock) = lock::lock(&self.layer_lock_path(id), true)? {
                return Ok(lock);
            }
        }
    }

    /// The right to make this layer, and those over it, again: until its holder is done with them, nobody else replaces them
    /// under it. `None` while another process has it and `wait` is false.
    pub fn lock_rebuild(&self, id: LayerId, wait: bool) -> Result<Option<LayerLock>, StoreError> {
        let path = self.root.join("locks").join(format!("rebuild-{id}.lock"));
        lock::lock(&path, wait)
    }

    /// Waits until nobody else replaces what a failed run of `key` left, or takes it.
    pub fn lock_failed(&self, key: &str) -> Result<LayerLock, StoreError> {
        check_key(key)?;
        let path = self.root.join("locks").join(format!("failed-{key}.lock"));
        loop {
            if let Some(lock) = lock::lock(&path, true)? {
                return Ok(lock);
            }
        }
    }

    /// The lock, or `None` while another process makes this layer.
    pub fn try_lock_layer(&self, id: LayerId) -> Result<Option<LayerLock>, StoreError> {
        lock::lock(&self.layer_lock_path(id), false)
    }

    fn layer_lock_path(&self, id: LayerId) -> PathBuf {
        self.root.join("locks").join(format!("layer-{id}.lock"))
    }
}

fn check_version(path: &Path) -> Result<(), StoreError> {
    match fs_err::read_to_string(path) {
        Ok(text) if text.trim_end() == FORMAT => Ok(()),
        Ok(text) => Err(StoreError::Version {
            path: path.to_owned(),
            found: text.trim_end().chars().take(80).collect(),
            expected: FORMAT,
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            write_atomic(path, format!("{FORMAT}\n").as_bytes())
        }
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}

/// Kinds and keys become file names.
pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    let good = (1..=200).contains(&key.len())
        && !key.starts_with('.')
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
    if good {
        Ok(())
    } else {
        Err(StoreError::BadKey(key.chars().take(80).collect()))
    }
}
