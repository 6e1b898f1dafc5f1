//! Debian binary packages: `ar` container, control and data members (deb(5)), and the dpkg database
//! that records them as unpacked.

mod ar;
mod control;
mod database;
mod deferred;
mod tar;
mod unpack;

pub(crate) use ar::{decompress, members};
pub(crate) use control::Control;
pub(crate) use tar::{EntryKind, TarReader};
pub(crate) use unpack::Spool;
pub use unpack::unpack;
#[cfg(test)]
pub(crate) use unpack::{SpoolWriter, parse_bytes};

/// A `.deb` that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DebError {
    /// The file or a member is not what the format demands.
    #[error("{part} at byte {offset}: {reason}")]
    Malformed {
        /// `ar`, `control` or `data`.
        part: &'static str,
        /// Byte offset in the part (after decompression).
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A compression or format version that is not known.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// More than a package may have.
    #[error("{what} beyond the limit of {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// The compressed data is damaged, or the spool cannot be written.
    #[error("{part} cannot be read or stored")]
    Io {
        /// Which part.
        part: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The control data is of another package than the index says.
    #[error("is {found}, not {expected}")]
    WrongPackage {
        /// Name, version and architecture in the package.
        found: String,
        /// The same in the lock.
        expected: String,
    },
    /// Two packages have the same file, and neither replaces the other.
    #[error("{path} is also in package {other}")]
    FileConflict {
        /// The path.
        path: String,
        /// The other package.
        other: String,
    },
    /// A path that leads out of the root or through something that is no directory.
    #[error("{path}: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// Why.
        reason: &'static str,
    },
}

impl DebError {
    pub(crate) fn malformed(part: &'static str, offset: u64, reason: impl Into<String>) -> Self {
        Self::Malformed {
            part,
            offset,
            reason: reason.into(),
        }
    }
}
