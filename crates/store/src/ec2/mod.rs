//! The part of the store that EC2 lives in: its state, the blocks of snapshots, the volumes of instances, and keys.
//!
//! ```text
//! ec2/state.sqlite        records, where each block lies, wrapped data keys
//! ec2/packs/<name>.pack   blocks of 512 KiB; <name>.index says which, should the database be lost
//! ec2/maps/<digest>       block maps: what a snapshot consists of
//! ec2/volumes/<volume>/   volume.json, data-<n>, mask-<n>: what was written over a map
//! ec2/keys/<key id>       key material
//! ec2/making/<id>         locked by who makes an image or snapshot
//! ec2/hold.lock           shared: something is being made; exclusive: garbage is collected
//! ```
//!
//! The folder has mode 0700, each file 0600. See `docs/formats/ec2.md`.
//!
//! Whatever makes something that a record will name (a map, a volume, a data key) takes a [`Hold`] and drops it when the
//! record is written: until then the collection of garbage waits.

mod crypt;
mod db;
mod error;
mod files;
mod gc;
mod import;
mod keys;
mod making;
mod map;
mod pack;
mod reader;
mod state;
mod volume;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;

pub use crypt::{DataKey, random_u128};
pub use error::Ec2Error;
pub use gc::{Collected, Usage};
pub use import::MapInfo;
pub use keys::Keys;
pub use making::Making;
pub use map::BlockMap;
pub use reader::{Check, SnapshotReader};
pub use volume::{VolumeBase, VolumeFile, VolumeInfo, VolumePoint, VolumeSnapshot};

use crate::Store;
use crate::lock::{open_lock_file, take};
use crate::session::Session;

/// Bytes of a block, as in EBS (`BlockSize` of the EBS direct APIs).
pub const BLOCK_BYTES: u64 = 512 << 10;
/// The same for buffers.
pub(crate) const BLOCK: usize = 512 << 10;
/// Largest volume: 64 TiB, as of `io2` volumes.
pub const MAX_VOLUME_BYTES: u64 = 64 << 40;

/// The store's EC2 part, open. Cheap to clone, and to share between threads.
#[derive(Clone, Debug)]
pub struct Ec2 {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    session: Arc<Session>,
    db: db::Db,
    packs: pack::PackFiles,
}

/// Held while something is made that no record names yet. Any number of holds can be, in all processes; collecting garbage needs
/// that there is none. Released when dropped, and by the kernel when the process ends in any way.
#[derive(Debug)]
#[must_use = "what was made may be collected when this is dropped"]
pub struct Hold {
    _file: File,
}

impl Store {
    /// Opens the EC2 part of the store, making it when it is not there.
    ///
    /// # Errors
    /// [`Ec2Error::Version`] for one of a newer release.
    pub fn ec2(&self) -> Result<Ec2, Ec2Error> {
        let root = self.root.join("ec2");
        for dir in ["", "packs", "maps", "volumes", "keys", "making"] {
            make_private(&root.join(dir))?;
        }
        for lock in ["hold.lock", "keys.lock"] {
            files::make_file(&root.join(lock))?;
        }
        let db = db::Db::open(root.join("state.sqlite"))?;
        Ok(Ec2 {
            inner: Arc::new(Inner {
                root,
                session: self.session.clone(),
                db,
                packs: pack::PackFiles::default(),
            }),
        })
    }
}

fn make_private(dir: &Path) -> Result<(), Ec2Error> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = std::fs::symlink_metadata(dir).map_err(Ec2Error::io("look at", dir))?;
            if !meta.is_dir() {
                return Err(Ec2Error::damaged(dir, "not a directory"));
            }
            if meta.permissions().mode() & 0o077 != 0 {
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
                    .map_err(Ec2Error::io("make private", dir))?;
            }
            Ok(())
        }
        Err(e) => Err(Ec2Error::io("create", dir)(e)),
    }
}

impl Ec2 {
    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.root
    }

    /// Keeps what is made from now on from being collected; waits while garbage is being collected.
    pub fn hold(&self) -> Result<Hold, Ec2Error> {
        let path = self.dir("hold.lock");
        let file = open_lock_file(&path)?;
        take(&file, FlockOperation::LockShared)
            .map_err(|e| Ec2Error::io("lock", path)(e.into()))?;
        Ok(Hold { _file: file })
    }

    /// The right to collect; `None` while anything is held.
    fn hold_alone(&self) -> Result<Option<Hold>, Ec2Error> {
        let path = self.dir("hold.lock");
        let file = open_lock_file(&path)?;
        let taken = take(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|e| Ec2Error::io("lock", path)(e.into()))?;
        Ok(taken.then_some(Hold { _file: file }))
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.inner.root.join(name)
    }

    fn session(&self) -> &Session {
        &self.inner.session
    }

    /// A path in the temporary folder of this opening.
    fn temp_path(&self, prefix: &str) -> PathBuf {
        self.inner.session.path(prefix)
    }

    fn db(&self) -> &db::Db {
        &self.inner.db
    }

    fn packs(&self) -> &pack::PackFiles {
        &self.inner.packs
    }
}
