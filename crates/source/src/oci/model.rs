//! What is asked for, and what it resolved to.

use std::path::PathBuf;

use amiforge_types::{Arch, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::document::{MAX_LAYERS, is_layer};
use super::{Credential, Reference};
use crate::{Context, LockError};

/// The only form that is written and read.
pub(super) const FORMAT: u32 = 1;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OciPlace {
    /// In a registry.
    Registry(Reference),
    /// In an image layout: a folder, or an archive of one.
    Layout {
        /// The folder or archive.
        path: PathBuf,
        /// The path as the recipe has it.
        asked: String,
        /// `org.opencontainers.image.ref.name` in its index.
        tag: Option<String>,
    },
}

impl std::fmt::Display for OciPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout { asked, tag, .. } => {
                f.write_str(asked)?;
                match tag {
                    Some(tag) => write!(f, ":{tag}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// An OCI image as the recipe asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciRequest {
    /// Where it is.
    pub place: OciPlace,
    /// The architecture of the image to build.
    pub arch: Arch,
}

/// How credentials are found: for the reference's registry; the error is a reason to go without, and is told.
pub type FindCredential<'a> = dyn Fn(&Reference) -> Result<Option<Credential>, String> + Sync + 'a;

/// Everything from outside that resolving and fetching may use.
#[derive(Clone, Copy)]
pub struct OciContext<'a> {
    /// What all parents have.
    pub base: Context<'a>,
    /// Asked only when a registry wants to know who we are.
    pub credentials: &'a FindCredential<'a>,
    /// Most bytes of all layers of an image, compressed, and again of their archives.
    pub max_bytes: u64,
}

/// Bytes named by their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedBlob {
    /// Their SHA-256.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// What they are.
    pub media_type: String,
}

/// A layer of a [`ResolvedOci`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedOciLayer {
    /// The layer as it is stored.
    #[serde(flatten)]
    pub blob: ResolvedBlob,
    /// SHA-256 of its archive, uncompressed.
    pub diff_id: Digest,
}

/// An OCI image, pinned: the lock of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedOci {
    /// Form of this structure; 1.
    pub format: u32,
    /// What was asked for: the whole reference, or path and tag of the layout.
    pub reference: String,
    /// Registry and repository, or the path of the layout.
    pub name: String,
    /// The architecture.
    pub arch: Arch,
    /// The index that the reference named, where it named one.
    pub index: Option<Digest>,
    /// The manifest for the architecture.
    pub manifest: Digest,
    /// The configuration.
    pub config: ResolvedBlob,
    /// The layers, the lowest first.
    pub layers: Vec<ResolvedOciLayer>,
    /// When the image was made, 1970 where it does not say.
    pub newest: Timestamp,
    /// How a container of it is started: `config` of the configuration, as it stands there; null where it has none.
    #[serde(default)]
    pub run: serde_json::Value,
}

impl ResolvedOci {
    /// `<name>@sha256:<manifest>`.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}@sha256:{}", self.name, self.manifest.hex())
    }

    /// Whether every value is one that a resolution has.
    ///
    /// # Errors
    /// The first that is none.
    pub fn check(&self) -> Result<(), LockError> {
        if self.format != FORMAT {
            return Err(LockError::Format {
                found: u64::from(self.format),
                read: FORMAT,
            });
        }
        let bad = |place: String, reason| Err(LockError::Value { place, reason });
        if self.layers.len() > MAX_LAYERS {
            return bad("layers".to_owned(), "more than an image has");
        }
        for (at, layer) in self.layers.iter().enumerate() {
            if !is_layer(&layer.blob.media_type) {
                return bad(format!("layers[{at}].mediaType"), "not that of a layer");
            }
        }
        if self.config.size > super::document::MAX_CONFIG {
            return bad("config.size".to_owned(), "larger than any configuration");
        }
        if self.newest.nanos != 0 || self.newest.secs < 0 {
            return bad("newest".to_owned(), "not the time of an image");
        }
        Ok(())
    }

    /// In what a request differs from the one that this lock was made for; empty when it fits.
    #[must_use]
    pub fn unlike(&self, request: &OciRequest) -> Vec<String> {
        let mut out = Vec::new();
        let asked = request.place.to_string();
        if self.reference != asked {
            out.push(format!(
                "the lock is of {}, the recipe says {asked}",
                self.reference
            ));
        }
        if self.arch != request.arch {
            out.push(format!(
                "the lock is of {}, the image is of {}",
                self.arch, request.arch
            ));
        }
        out
    }
}

/// Bytes that are in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedBlob {
    /// The file.
    pub path: PathBuf,
    /// Where in it they begin.
    pub offset: u64,
    /// The file is of the download cache, and may be removed when it is damaged.
    pub cached: bool,
}

/// The configuration and layers of a [`ResolvedOci`] on this machine.
#[derive(Clone, Debug)]
pub struct FetchedOci {
    /// The configuration, verified.
    pub config: Vec<u8>,
    /// One place for each layer; they are verified as they are unpacked.
    pub layers: Vec<PlacedBlob>,
    /// Bytes that came over the network in this run.
    pub downloaded: u64,
}
