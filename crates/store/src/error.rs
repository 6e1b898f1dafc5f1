//! What can go wrong with a store.

use std::io;
use std::path::PathBuf;

use amiforge_tree::layer::{LayerReadError, LayerWriteError};

/// A store operation that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Neither `AMIFORGE_HOME` nor a home directory is known.
    #[error("no place for the store: set AMIFORGE_HOME, or HOME")]
    NoHome,
    /// An environment value is not an absolute path.
    #[error("{variable} has to be an absolute path, not {value:?}")]
    RelativeHome {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, for example `create`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store was written by a release with another layout.
    #[error("the store at {} has the format {found:?}, this release reads {expected:?}", path.display())]
    Version {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it has to say.
        expected: &'static str,
    },
    /// A stored layer is damaged.
    #[error("the stored layer {} cannot be used", path.display())]
    Layer {
        /// The layer file.
        path: PathBuf,
        /// What is wrong.
        source: LayerReadError,
    },
    /// The data of a stored layer is not what its index says.
    #[error("the data of the stored layer {} cannot be used", path.display())]
    LayerData {
        /// The layer file.
        path: PathBuf,
        /// Which file of the image, and what is wrong with it.
        source: LayerWriteError,
    },
    /// A stored layer is something else than a file.
    #[error("the stored layer {} is not a regular file", .0.display())]
    LayerKind(PathBuf),
    /// A record or catalog entry is not valid JSON of its type.
    #[error("{} is not a valid entry", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A kind or key that cannot be a file name: letters, digits, `.`, `_`, `-`, `+`, at most 200,
    /// not starting with a dot.
    #[error("{0:?} cannot be a key of the store")]
    BadKey(String),
    /// More than one image of this name and version: ask by id.
    #[error("several images are named {name}/{version}")]
    Ambiguous {
        /// Name asked for.
        name: String,
        /// Version asked for.
        version: String,
    },
}

impl StoreError {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Whether the disk is full (or the quota used up).
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
