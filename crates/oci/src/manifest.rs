//! From layers and a configuration to the documents that name them (image-spec 1.1, descriptor.md,
//! manifest.md, image-index.md, image-layout.md).

use std::collections::BTreeMap;

use amiforge_types::Digest;
use serde::Serialize;

use crate::ImageConfig;

/// The bytes of the file `oci-layout`.
pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How the archive of a layer is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerFormat {
    /// As it is.
    Tar,
    /// Read by everything.
    Gzip,
    /// Docker 23, containerd 1.5, Podman.
    Zstd,
}

impl LayerFormat {
    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Tar => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// The blob of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// How it is stored.
    pub format: LayerFormat,
    /// Of the stored bytes.
    pub digest: Digest,
    /// Number of the stored bytes.
    pub size: u64,
    /// Of the archive before it was compressed.
    pub diff_id: Digest,
}

/// Names bytes by their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What they are.
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// How many.
    pub size: u64,
    /// Free data.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The documents of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The configuration and its digest.
    pub config: (Digest, Vec<u8>),
    /// The manifest and its digest: the identity of the image.
    pub manifest: (Digest, Vec<u8>),
    /// `index.json`.
    pub index: Vec<u8>,
}

/// Writes the documents of an image whose lowest layer comes first. `reference` is its name in the index.
#[must_use]
pub fn image(
    config: &ImageConfig,
    layers: &[LayerBlob],
    annotations: &BTreeMap<String, String>,
    reference: &str,
) -> Image {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'static str,
        config: Descriptor,
        layers: Vec<Descriptor>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Platform {
        architecture: &'static str,
        os: &'static str,
    }
    #[derive(Serialize)]
    struct Entry {
        #[serde(flatten)]
        manifest: Descriptor,
        platform: Platform,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u32,
        media_type: &'static str,
        manifests: [Entry; 1],
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    let config_bytes = config.to_json(&diff_ids);
    let layer = |blob: &LayerBlob| Descriptor {
        media_type: blob.format.media_type().to_owned(),
        digest: sha256(&blob.digest),
        size: blob.size,
        annotations: BTreeMap::new(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: descriptor(CONFIG, &config_bytes),
        layers: layers.iter().map(layer).collect(),
        annotations,
    };
    let manifest_bytes = serde_json::to_vec(&manifest).unwrap_or_default();
    let mut entry = descriptor(MANIFEST, &manifest_bytes);
    entry.annotations.insert(
        "org.opencontainers.image.ref.name".to_owned(),
        reference.to_owned(),
    );
    let index = Index {
        schema_version: 2,
        media_type: INDEX,
        manifests: [Entry {
            manifest: entry,
            platform: Platform {
                architecture: config.architecture.debian(),
                os: "linux",
            },
        }],
    };
    Image {
        config: (Digest::of(&config_bytes), config_bytes),
        manifest: (Digest::of(&manifest_bytes), manifest_bytes),
        index: serde_json::to_vec(&index).unwrap_or_default(),
    }
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: sha256(&Digest::of(bytes)),
        size: bytes.len() as u64,
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn sha256(digest: &Digest) -> String {
    format!("sha256:{}", digest.hex())
}

#[cfg(test)]
mod tests;
