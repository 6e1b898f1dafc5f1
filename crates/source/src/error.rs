//! What can go wrong between a recipe's `debian:<suite>` and its layer.

use std::io;
use std::path::PathBuf;

use amiforge_types::{Digest, Timestamp};

use crate::solver::Unresolvable;

/// A parent image that cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// A file of the host's apt configuration cannot be understood.
    #[error("{}:{line}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Neither the host's apt configuration nor the recipe names an archive.
    #[error(
        "no archive for Debian {suite}: the host's apt configuration has no Debian entry and the recipe sets no amiforge.apt.mirror"
    )]
    NoArchive {
        /// The suite asked for.
        suite: String,
    },
    /// A suite name with characters that no suite has.
    #[error("{0:?} is not the name of a Debian suite")]
    BadSuite(String),
    /// No key is there to check an archive with.
    #[error("no keyring to verify {uri} with (looked at {})", list(looked_at))]
    NoKeyring {
        /// The archive.
        uri: String,
        /// Files and folders tried.
        looked_at: Vec<PathBuf>,
    },
    /// A keyring cannot be read as one.
    #[error("keyring {}: {reason}", path.display())]
    Keyring {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No acceptable signature on a Release file.
    #[error("{uri}: no valid signature: {reason}")]
    Signature {
        /// Address of the file.
        uri: String,
        /// Why each signature was refused.
        reason: String,
    },
    /// A Release file past its `Valid-Until`.
    #[error(
        "{uri}: expired at {until}, and it is {now} (amiforge.apt.checkValidUntil: false accepts it)"
    )]
    Expired {
        /// Address of the file.
        uri: String,
        /// `Valid-Until`.
        until: Timestamp,
        /// The clock that was used.
        now: Timestamp,
    },
    /// A Release file whose `Date` is in the future.
    #[error("{uri}: dated {date}, and it is {now}: is the clock right?")]
    FromTheFuture {
        /// Address of the file.
        uri: String,
        /// `Date`.
        date: Timestamp,
        /// The clock that was used.
        now: Timestamp,
    },
    /// A Release file of another suite than the address says.
    #[error("{uri}: is of suite {suite:?} ({codename:?}), not of {wanted:?}")]
    WrongSuite {
        /// Address of the file.
        uri: String,
        /// `Suite` in it.
        suite: String,
        /// `Codename` in it.
        codename: String,
        /// The suite in the address.
        wanted: String,
    },
    /// A file of an archive that is not what its format demands.
    #[error("{what}: {reason}")]
    Malformed {
        /// Address or path.
        what: String,
        /// What is wrong, and where.
        reason: String,
    },
    /// The archive has no such suite.
    #[error("{uri}: has no suite {suite}")]
    NoSuite {
        /// Address of the archive.
        uri: String,
        /// The suite asked for.
        suite: String,
        /// Those that it has, where that can be told: of an archive on this host.
        has: Vec<String>,
    },
    /// The archive lacks something that is needed.
    #[error("{uri}: has no {what}")]
    Missing {
        /// Address of the Release file.
        uri: String,
        /// What is missing.
        what: String,
    },
    /// Bytes that are not those that were promised, by a signed index, a manifest or a lock.
    #[error("{uri}: digest is {got}, it should be {expected}")]
    Digest {
        /// Address of the file.
        uri: String,
        /// Digest promised.
        expected: Digest,
        /// Digest found.
        got: Digest,
    },
    /// A file that is not the one whose digest was named.
    #[error("{what}: its SHA-256 is {got}, the recipe says {expected}")]
    OtherFile {
        /// Address or path.
        what: String,
        /// Digest in the recipe.
        expected: Digest,
        /// Digest found.
        got: Digest,
    },
    /// A server that does not have a file.
    #[error("{uri}: the server has no such file")]
    NoFile {
        /// Address.
        uri: String,
    },
    /// A download that failed for good.
    #[error("cannot download {uri}: {reason}")]
    Download {
        /// Address.
        uri: String,
        /// Why the last attempt failed.
        reason: String,
    },
    /// A package that is nowhere.
    #[error("package {package} {version}{}", also(elsewhere))]
    Package {
        /// Its name.
        package: String,
        /// Its version.
        version: String,
        /// Archives that were tried besides the one it was found in.
        elsewhere: Vec<String>,
        /// Why the archive that it was found in did not give it.
        #[source]
        source: Box<SourceError>,
    },
    /// The archive has a file no more that it had when the packages were chosen.
    #[error("{uri}: the archive does not have this file any more")]
    Gone {
        /// Address.
        uri: String,
    },
    /// The network is needed and not allowed.
    #[error("{what} is not in the cache, or not whole, and downloads are off")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// No set of packages satisfies the request.
    #[error("the packages asked for cannot be installed together")]
    Unresolvable(#[source] Unresolvable),
    /// A `.deb` that cannot be unpacked.
    #[error("package {package}")]
    Deb {
        /// Its name.
        package: String,
        /// Why.
        #[source]
        source: crate::deb::DebError,
    },
    /// An image of a registry or layout that cannot be had.
    #[error("image {image}")]
    Oci {
        /// Its reference, or path and tag.
        image: String,
        /// Why.
        #[source]
        source: Box<crate::oci::OciError>,
    },
    /// A file of the download cache that cannot be kept.
    #[error("the download cache")]
    Cache(#[source] amiforge_store::StoreError),
    /// A file of the host that cannot be read or written.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl SourceError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

fn also(elsewhere: &[String]) -> String {
    match elsewhere.is_empty() {
        true => String::new(),
        false => format!(" (tried at {} too)", elsewhere.join(", ")),
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}
