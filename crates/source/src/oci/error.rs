//! What can go wrong with an image of a registry or layout.

use amiforge_tree::tar::TarError;
use amiforge_types::Digest;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// A document that is not what its format demands.
    #[error("{what}: {reason}")]
    Document {
        /// Which one: `manifest sha256:…`, `index.json`.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest of the form that Docker had until 2016, whose layers have no digests of their own.
    #[error(
        "{what} is of Docker's schema 1, which is not read; the image has to be pushed anew, with any Docker since 1.10"
    )]
    Schema1 {
        /// Which manifest.
        what: String,
    },
    /// An image for other machines.
    #[error("it is not for {wanted}, but for {}", found.join(", "))]
    Platform {
        /// The platform of the image to build.
        wanted: String,
        /// Those it is for.
        found: Vec<String>,
    },
    /// A layer that may not be distributed, and is not in the registry.
    #[error(
        "its layer {digest} is not distributed with it ({media_type}); such images are not supported"
    )]
    Foreign {
        /// The layer.
        digest: String,
        /// Its type.
        media_type: String,
    },
    /// Something that the formats allow and this program does not read.
    #[error("{what}: {reason}")]
    Unsupported {
        /// Where it is.
        what: String,
        /// What it is.
        reason: String,
    },
    /// The registry or layout does not have it.
    #[error("{place} does not have {what}")]
    Missing {
        /// The repository or layout.
        place: String,
        /// The tag, manifest or blob.
        what: String,
    },
    /// A layout of several images, or of others than the one asked for.
    #[error(
        "{place} has {}, {}",
        match wanted { Some(tag) => format!("no tag {tag:?}"), None => "several images, and no tag says which".to_owned() },
        match tags.is_empty() { true => "and no tags at all".to_owned(), false => format!("but {}", tags.join(", ")) }
    )]
    Tag {
        /// The layout.
        place: String,
        /// The tag asked for.
        wanted: Option<String>,
        /// Those that there are.
        tags: Vec<String>,
    },
    /// The registry does not let us in.
    #[error("{registry} {reason}")]
    Access {
        /// Its name.
        registry: String,
        /// What it asks for or refuses.
        reason: String,
    },
    /// An answer leads to an address that is not followed.
    #[error("{from} leads to {to}, which is not followed: {reason}")]
    Address {
        /// The address asked.
        from: String,
        /// The address in the answer, without its query.
        to: String,
        /// Why.
        reason: &'static str,
    },
    /// A layer that cannot be applied.
    #[error("layer {number} of {count}, {digest}")]
    Layer {
        /// Its number, the lowest is 1.
        number: usize,
        /// Layers of the image.
        count: usize,
        /// Its digest.
        digest: Digest,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
}

/// Why a layer cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The archive is damaged or does what no archive may.
    #[error("its archive")]
    Archive(#[source] Box<TarError>),
    /// The archive is not the one that the configuration names.
    #[error("its archive has the digest {got}, the configuration says {expected}")]
    DiffId {
        /// `rootfs.diff_ids` of the configuration.
        expected: Digest,
        /// Digest of the archive.
        got: Digest,
    },
    /// More than an image may have.
    #[error("the image's archives have more than {limit} bytes")]
    TooLarge {
        /// How much is allowed.
        limit: u64,
    },
    /// A compression that is not known.
    #[error("it is compressed with {0}; gzip and zstd are read")]
    Compression(&'static str),
    /// The layer or the spool cannot be read or written.
    #[error("it cannot be read or stored")]
    Io(#[source] std::io::Error),
}

impl OciError {
    pub(super) fn document(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Document {
            what: what.into(),
            reason: reason.into(),
        }
    }
}
