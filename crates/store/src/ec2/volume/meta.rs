//! `volume.json`: what a volume consists of.

use std::path::{Path, PathBuf};

use amiforge_ami::VolumeId;
use amiforge_ami::ec2::Encryption;
use amiforge_types::Digest;
use serde::{Deserialize, Serialize};

use super::super::files::{read_limited, write_private};
use super::super::{Ec2, Ec2Error};

const VERSION: u64 = 1;
/// Layers that a volume may have: one more with each snapshot that failed.
const MAX_LAYERS: usize = 4096;

/// The map below what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BaseMeta {
    pub(super) map: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<Encryption>,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    version: u64,
    pub(super) volume_id: VolumeId,
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<BaseMeta>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) encryption: Option<Encryption>,
    /// Generations of the layers over the base, rising; the last one is written to.
    pub(super) layers: Vec<u64>,
    /// The generation of the next layer.
    pub(super) next: u64,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u64,
}

impl Meta {
    pub(super) fn new(
        volume_id: VolumeId,
        bytes: u64,
        base: Option<BaseMeta>,
        encryption: Option<Encryption>,
    ) -> Self {
        Self {
            version: VERSION,
            volume_id,
            bytes,
            base,
            encryption,
            layers: vec![1],
            next: 2,
        }
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join("volume.json")
    }

    pub(super) fn write(&self, ec2: &Ec2, dir: &Path) -> Result<(), Ec2Error> {
        let path = Self::path(dir);
        let mut text =
            serde_json::to_vec_pretty(self).map_err(|e| Ec2Error::damaged(&path, e.to_string()))?;
        text.push(b'\n');
        write_private(ec2.session().dir(), &path, &text)
    }

    /// Reads the file of a folder; `None` when it is not there.
    pub(super) fn read(dir: &Path, volume: &VolumeId) -> Result<Option<Self>, Ec2Error> {
        let path = Self::path(dir);
        let Some(text) = read_limited(&path, 1 << 20)? else {
            return Ok(None);
        };
        let bad = |e: serde_json::Error| Ec2Error::damaged(&path, e.to_string());
        let version = serde_json::from_slice::<VersionOnly>(&text)
            .map_err(bad)?
            .version;
        if version != VERSION {
            return Err(Ec2Error::Version {
                path,
                found: version,
                known: VERSION,
            });
        }
        let meta: Self = serde_json::from_slice(&text).map_err(bad)?;
        let rising = meta.layers.windows(2).all(|pair| pair[0] < pair[1]);
        let good = meta.volume_id == *volume
            && super::is_volume_size(meta.bytes)
            && rising
            && meta.layers.len() <= MAX_LAYERS
            && meta.layers.last().is_some_and(|last| *last < meta.next);
        if good {
            Ok(Some(meta))
        } else {
            Err(Ec2Error::damaged(path, "its values cannot be"))
        }
    }
}
