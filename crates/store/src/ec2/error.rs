//! What can go wrong with the part of the store that EC2 lives in.

use std::io;
use std::path::PathBuf;

use amiforge_ami::VolumeId;
use amiforge_ami::ec2::KeyId;
use amiforge_types::Digest;

use crate::StoreError;

/// An operation on state, blocks, volumes or keys that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ec2Error {
    /// The store failed below.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database failed.
    #[error("cannot {action} the database {}", path.display())]
    Database {
        /// The database file.
        path: PathBuf,
        /// What was tried, for example `read`.
        action: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
    /// A file was written by a release with another format.
    #[error("{} has the format version {found}, this release reads {known}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that can be read.
        known: u64,
    },
    /// A record of the state is not what it should be.
    #[error("the record {kind} {id:?} of {} is damaged", path.display())]
    Record {
        /// The database file.
        path: PathBuf,
        /// Kind of the record, for example `image`.
        kind: String,
        /// Its id, shortened.
        id: String,
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A transaction was begun inside the closure of another one.
    #[error("a transaction on {} inside of another one", .0.display())]
    Nested(PathBuf),
    /// A file is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// No block map of this digest is there.
    #[error("no block map {}", path.display())]
    NoMap {
        /// The file that is missing.
        path: PathBuf,
        /// Its digest.
        map: Digest,
    },
    /// A block that a map names is not in the store.
    #[error("block {index} of the map {map} is not in the store")]
    NoBlock {
        /// The map.
        map: Digest,
        /// The block's number.
        index: u32,
    },
    /// The bytes of a block are not those that were stored.
    #[error("block {index} of the map {map} is damaged in slot {slot} of {}", path.display())]
    BadBlock {
        /// The pack file.
        path: PathBuf,
        /// The map.
        map: Digest,
        /// The block's number.
        index: u32,
        /// Where in the pack it lies.
        slot: u32,
    },
    /// The blocks are encrypted, and no key was given.
    #[error("{what} is encrypted: its data key is needed")]
    NeedsKey {
        /// For example `the map 1234…`.
        what: String,
    },
    /// The blocks are encrypted under another data key, or not at all.
    #[error("{what} is not encrypted under the data key {given}")]
    OtherKey {
        /// For example `the map 1234…`.
        what: String,
        /// The data key that was given.
        given: Digest,
    },
    /// The key store has no material of this key.
    #[error("no key material for {key} at {}", path.display())]
    NoMaterial {
        /// The key.
        key: KeyId,
        /// Where it would be.
        path: PathBuf,
    },
    /// The key store has material of this key, but not of the version that wraps the data key.
    #[error("the key {key} has no version {version} at {}", path.display())]
    NoMaterialVersion {
        /// The key.
        key: KeyId,
        /// The version.
        version: u32,
        /// The file.
        path: PathBuf,
    },
    /// There is key material under this id already.
    #[error("the key {key} is there already at {}", path.display())]
    KeyExists {
        /// The key.
        key: KeyId,
        /// The file.
        path: PathBuf,
    },
    /// The key does not open the data key: its material is not what it was.
    #[error("the key {key} does not open the data key {data_key}: wrong key material")]
    WrongMaterial {
        /// The key.
        key: KeyId,
        /// The data key.
        data_key: Digest,
    },
    /// No data key of this id is kept under this key.
    #[error("no data key {data_key} under the key {key}")]
    NoDataKey {
        /// The key.
        key: KeyId,
        /// The data key.
        data_key: Digest,
    },
    /// The id of a data key that is to be made belongs to one under another key.
    #[error("the data key {data_key} is there already, under another key")]
    DataKeyExists {
        /// The data key.
        data_key: Digest,
    },
    /// No such volume is in the store.
    #[error("no volume {volume} at {}", path.display())]
    NoVolume {
        /// The volume.
        volume: VolumeId,
        /// Where it would be.
        path: PathBuf,
    },
    /// A volume of this id is there.
    #[error("the volume {0} is there already")]
    VolumeExists(VolumeId),
    /// Another process, or another opening in this one, has the volume open.
    #[error("the volume {0} is in use")]
    VolumeInUse(VolumeId),
    /// A size that cannot be.
    #[error("{bytes} bytes cannot be the size of {what}: {rule}")]
    Size {
        /// For example `the volume vol-…`.
        what: String,
        /// The size.
        bytes: u64,
        /// What a size has to be.
        rule: &'static str,
    },
    /// What was to be stored could not be read.
    #[error("cannot read the bytes to be stored, at offset {offset}")]
    Source {
        /// Where.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// Writing a volume's data to the disk failed before: what has been written since may be lost, and nothing more is
    /// promised.
    #[error("an earlier flush of {} failed", .0.display())]
    FlushFailed(PathBuf),
}

impl Ec2Error {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let convert = StoreError::io(action, path);
        move |source| Self::Store(convert(source))
    }

    pub(super) fn damaged(path: impl Into<PathBuf>, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.into(),
            what: what.into(),
        }
    }

    /// Whether the disk is full (or the quota used up).
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Store(error) => error.is_disk_full(),
            Self::Database { source, .. } => {
                source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }
}

/// For [`ReadAt`](amiforge_types::ReadAt), whose errors are those of I/O: the kind of the call that failed, else `InvalidData`.
impl From<Ec2Error> for io::Error {
    fn from(error: Ec2Error) -> Self {
        let kind = match &error {
            Ec2Error::Store(StoreError::Io { source, .. }) | Ec2Error::Source { source, .. } => {
                source.kind()
            }
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
