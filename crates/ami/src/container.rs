//! `manifest.json` of a container build, schema version 1: what the folder `oci/` holds, and where it came
//! from. Its member `kind` tells it from the manifest of a machine image.
//!
//! Written as [`Manifest`](crate::Manifest) is: two-space indentation, keys in the order of the fields, a final
//! newline. It holds no measured time, so two builds of the same inputs have the same manifest.

use std::collections::BTreeMap;

use amiforge_types::{Arch, Digest, LayerId};
use serde::{Deserialize, Serialize};

use crate::manifest::{MAX_MANIFEST_BYTES, SCHEMA_VERSION};
use crate::{ComponentRecord, CreationDate, LayerRun, ParentImage, ToolInfo};

/// The one value of `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerKind {
    /// An OCI image.
    Container,
}

/// A layer: what it is here, and the blob that it is in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerLayer {
    /// Identity: what went in.
    pub id: LayerId,
    /// Media type of the blob.
    pub media_type: String,
    /// Of the blob; also its name.
    pub digest: Digest,
    /// Length of the blob.
    pub bytes: u64,
    /// Of the archive in it.
    pub diff_id: Digest,
    /// How its steps ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran: Option<LayerRun>,
}

/// How the test phases of a component ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerTest {
    /// The component.
    pub component: String,
    /// `test` or `container-host-test`.
    pub phase: String,
    /// `passed` or `skipped`; a build whose tests fail has no manifest.
    pub outcome: String,
    /// Why it was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerManifest {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `container`
    pub kind: ContainerKind,
    /// `oci-` and the first 17 digits of [`ContainerManifest::digest`].
    pub image_id: String,
    /// The recipe's name.
    pub name: String,
    /// The recipe's version.
    pub version: String,
    /// Architecture.
    pub architecture: Arch,
    /// `linux`
    pub os: String,
    /// The build clock.
    pub creation_date: CreationDate,
    /// Folder of the OCI image layout.
    pub layout: String,
    /// Its name in the layout.
    pub reference: String,
    /// Of the OCI manifest: what registries know the image by.
    pub digest: Digest,
    /// Of its configuration: what Docker calls the image's id.
    pub config_digest: Digest,
    /// The parent image.
    pub parent_image: ParentImage,
    /// The components, in recipe order.
    pub components: Vec<ComponentRecord>,
    /// The layers, lowest first.
    pub layers: Vec<ContainerLayer>,
    /// Digest of the recipe.
    pub recipe_digest: Digest,
    /// Identity of the plan.
    pub plan_id: Digest,
    /// What made it.
    pub tool: ToolInfo,
    /// The test phases; empty when they were not run.
    pub tests: Vec<ContainerTest>,
    /// Tags of the recipe.
    pub tags: BTreeMap<String, String>,
}

/// Bytes that are no manifest of a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerManifestError {
    /// Too long to be one.
    #[error("it has {0} bytes, more than a manifest has")]
    TooLarge(usize),
    /// Not JSON, or not with these members.
    #[error("it is no manifest of a container")]
    Json(#[source] serde_json::Error),
    /// Of another release.
    #[error("it has schemaVersion {0}, this release reads {SCHEMA_VERSION}")]
    Version(u32),
    /// The id is not that of the digest.
    #[error("its imageId {0:?} does not belong to its digest")]
    Id(String),
}

impl ContainerManifest {
    /// The id of the image whose OCI manifest has this digest.
    #[must_use]
    pub fn id_of(digest: &Digest) -> String {
        format!("oci-{}", &digest.hex()[..17])
    }

    /// The bytes of the file.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// Says why the bytes are none.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ContainerManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ContainerManifestError::TooLarge(bytes.len()));
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(ContainerManifestError::Json)?;
        if manifest.schema_version != SCHEMA_VERSION {
            return Err(ContainerManifestError::Version(manifest.schema_version));
        }
        if manifest.image_id != Self::id_of(&manifest.digest) {
            return Err(ContainerManifestError::Id(manifest.image_id));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use amiforge_types::Timestamp;

    use super::*;

    fn manifest() -> ContainerManifest {
        let digest = Digest::of(b"manifest");
        ContainerManifest {
            schema_version: SCHEMA_VERSION,
            kind: ContainerKind::Container,
            image_id: ContainerManifest::id_of(&digest),
            name: "web".to_owned(),
            version: "1.0.0".to_owned(),
            architecture: Arch::X86_64,
            os: "linux".to_owned(),
            creation_date: CreationDate::new(Timestamp::from_secs(0)),
            layout: "oci".to_owned(),
            reference: "web:1.0.0".to_owned(),
            digest,
            config_digest: Digest::of(b"config"),
            parent_image: ParentImage {
                asked: "debian:bookworm".to_owned(),
                resolved: "debian:bookworm@sha256:0".to_owned(),
            },
            components: Vec::new(),
            layers: Vec::new(),
            recipe_digest: Digest::of(b"recipe"),
            plan_id: Digest::of(b"plan"),
            tool: ToolInfo {
                name: "amiforge".to_owned(),
                version: "0".to_owned(),
            },
            tests: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let manifest = manifest();
        let bytes = manifest.to_json();
        assert_eq!(ContainerManifest::from_json(&bytes).unwrap(), manifest);
        assert!(crate::Manifest::from_json(&bytes).is_err());
    }

    #[test]
    fn another_version_and_a_foreign_id_are_refused() {
        let mut other = manifest();
        other.schema_version = 2;
        let error = ContainerManifest::from_json(&other.to_json()).unwrap_err();
        assert!(matches!(error, ContainerManifestError::Version(2)));
        let mut other = manifest();
        other.image_id = "oci-00000000000000000".to_owned();
        let error = ContainerManifest::from_json(&other.to_json()).unwrap_err();
        assert!(matches!(error, ContainerManifestError::Id(_)));
        assert!(ContainerManifest::from_json(b"{}").is_err());
    }
}
