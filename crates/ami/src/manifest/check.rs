//! The rules between the members of a manifest.

use std::collections::BTreeSet;
use std::fmt;

use amiforge_types::{Arch, GIB};

use super::{Manifest, SCHEMA_VERSION};
use crate::{
    BootMode, DeviceName, ImageId, MappingError, NameError, SnapshotId, check_ami_name,
    check_mappings,
};

/// A manifest that cannot be read or is not one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_BYTES`](crate::MAX_MANIFEST_BYTES).
    #[error("the manifest has {len} bytes, more than any manifest can have")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not JSON of the right shape.
    #[error("the manifest is not JSON of the expected shape")]
    Json(#[source] serde_json::Error),
    /// Made by a newer amiforge.
    #[error("the manifest has schemaVersion {found}, this amiforge reads {SCHEMA_VERSION}")]
    Version {
        /// The version found.
        found: u64,
    },
    /// It contradicts itself or EC2's rules.
    #[error("the manifest is invalid: {}", list(.problems))]
    Invalid {
        /// Every problem found.
        problems: Vec<ManifestProblem>,
    },
}

fn list(problems: &[ManifestProblem]) -> String {
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// One contradiction in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestProblem {
    /// The name the image would be registered under is refused.
    Name(NameError),
    /// The mappings are refused.
    Mapping(MappingError),
    /// This architecture has no such boot mode.
    BootMode {
        /// Architecture.
        architecture: Arch,
        /// Boot mode.
        boot_mode: BootMode,
    },
    /// NitroTPM without boot mode `uefi`.
    TpmNeedsUefi(BootMode),
    /// Two volumes of one device.
    VolumeTwice(DeviceName),
    /// A volume without an EBS mapping.
    VolumeUnmapped(DeviceName),
    /// The root device has no volume.
    NoRootVolume(DeviceName),
    /// A mapping with a snapshot that no volume stands for.
    SnapshotWithoutVolume(DeviceName),
    /// A snapshot id that is not that of the volume's content.
    Snapshot {
        /// Device.
        device: DeviceName,
        /// Id in the mapping.
        found: SnapshotId,
        /// Id of the content.
        expected: SnapshotId,
    },
    /// The mapping's `volumeSize` is below the volume's size.
    VolumeTooSmall {
        /// Device.
        device: DeviceName,
        /// `volumeSize`.
        gib: u32,
        /// Size of the volume in bytes.
        needed: u64,
    },
    /// A partition outside its volume.
    PartitionPastEnd {
        /// Device.
        device: DeviceName,
        /// Partition number.
        number: u32,
    },
    /// An artefact name that is not a plain file name.
    ArtifactName(String),
    /// Two artefacts of one name.
    ArtifactTwice(String),
    /// An artefact of a device without a volume.
    ArtifactWithoutVolume {
        /// Artefact.
        file: String,
        /// Device.
        device: DeviceName,
    },
    /// An artefact whose disk size is not the volume's.
    ArtifactSize {
        /// Artefact.
        file: String,
        /// Disk size it claims.
        found: u64,
        /// Size of the volume.
        expected: u64,
    },
    /// The image id does not belong to the content.
    ImageId {
        /// Id in the manifest.
        found: ImageId,
        /// Id of the content.
        expected: ImageId,
    },
    /// A tag that EC2 refuses.
    Tag(String),
}

impl fmt::Display for ManifestProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Mapping(error) => error.fmt(f),
            Self::BootMode {
                architecture,
                boot_mode,
            } => write!(f, "{architecture} machines have no {boot_mode} boot"),
            Self::TpmNeedsUefi(mode) => write!(f, "tpmSupport needs boot mode uefi, not {mode}"),
            Self::VolumeTwice(device) => write!(f, "two volumes for {device}"),
            Self::VolumeUnmapped(device) => write!(f, "the volume of {device} has no EBS mapping"),
            Self::NoRootVolume(device) => write!(f, "the root device {device} has no volume"),
            Self::SnapshotWithoutVolume(device) => {
                write!(f, "{device} names a snapshot but has no volume")
            }
            Self::Snapshot {
                device,
                found,
                expected,
            } => {
                write!(
                    f,
                    "{device} has snapshot {found}, its content is {expected}"
                )
            }
            Self::VolumeTooSmall {
                device,
                gib,
                needed,
            } => {
                let needed = needed.div_ceil(GIB);
                write!(
                    f,
                    "{device} has volumeSize {gib} GiB, its content needs {needed} GiB"
                )
            }
            Self::PartitionPastEnd { device, number } => {
                write!(f, "partition {number} of {device} ends past the volume")
            }
            Self::ArtifactName(name) => write!(f, "artifact {name:?} is not a plain file name"),
            Self::ArtifactTwice(name) => write!(f, "two artifacts named {name:?}"),
            Self::ArtifactWithoutVolume { file, device } => {
                write!(f, "artifact {file} is of {device}, which has no volume")
            }
            Self::ArtifactSize {
                file,
                found,
                expected,
            } => {
                write!(
                    f,
                    "artifact {file} holds a disk of {found} bytes, the volume has {expected}"
                )
            }
            Self::ImageId { found, expected } => {
                write!(f, "imageId is {found}, the content is {expected}")
            }
            Self::Tag(key) => write!(
                f,
                "tag {key:?} is refused: a key has 1 to 127 characters and does not begin with aws:, a value at most 256, \
                 an image at most 50"
            ),
        }
    }
}

impl Manifest {
    /// Every contradiction; empty for a good manifest.
    #[must_use]
    pub fn check(&self) -> Vec<ManifestProblem> {
        let mut problems = Vec::new();
        if let Err(error) = check_ami_name(&self.ami_name()) {
            problems.push(ManifestProblem::Name(error));
        }
        if !self.boot_mode.fits(self.architecture) {
            problems.push(ManifestProblem::BootMode {
                architecture: self.architecture,
                boot_mode: self.boot_mode,
            });
        }
        if self.tpm_support.is_some() && self.boot_mode != BootMode::Uefi {
            problems.push(ManifestProblem::TpmNeedsUefi(self.boot_mode));
        }
        let mappings = check_mappings(&self.root_device_name, &self.block_device_mappings);
        problems.extend(mappings.into_iter().map(ManifestProblem::Mapping));
        self.check_volumes(&mut problems);
        self.check_artifacts(&mut problems);
        self.check_tags(&mut problems);
        let expected = self.derive_image_id();
        if self.image_id != expected {
            problems.push(ManifestProblem::ImageId {
                found: self.image_id.clone(),
                expected,
            });
        }
        problems
    }

    pub(super) fn into_checked(self) -> Result<Self, ManifestError> {
        let problems = self.check();
        if problems.is_empty() {
            Ok(self)
        } else {
            Err(ManifestError::Invalid { problems })
        }
    }

    fn check_volumes(&self, problems: &mut Vec<ManifestProblem>) {
        let mut seen = BTreeSet::new();
        for volume in &self.volumes {
            let device = || volume.device.clone();
            if !seen.insert(&volume.device) {
                problems.push(ManifestProblem::VolumeTwice(device()));
            }
            let mapping = self
                .block_device_mappings
                .iter()
                .find(|m| m.device_name == volume.device);
            let Some(ebs) = mapping.and_then(|m| m.as_ebs()) else {
                problems.push(ManifestProblem::VolumeUnmapped(device()));
                continue;
            };
            let expected = SnapshotId::from_digest(&volume.content_digest);
            match &ebs.snapshot_id {
                Some(found) if *found == expected => {}
                found => problems.push(ManifestProblem::Snapshot {
                    device: device(),
                    found: found.clone().unwrap_or_else(|| expected.clone()),
                    expected,
                }),
            }
            if u64::from(ebs.volume_size) * GIB < volume.size {
                let (gib, needed) = (ebs.volume_size, volume.size);
                problems.push(ManifestProblem::VolumeTooSmall {
                    device: device(),
                    gib,
                    needed,
                });
            }
            for p in &volume.partitions {
                if p.offset
                    .checked_add(p.size)
                    .is_none_or(|end| end > volume.size)
                {
                    problems.push(ManifestProblem::PartitionPastEnd {
                        device: device(),
                        number: p.number,
                    });
                }
            }
        }
        if !seen.contains(&self.root_device_name) {
            problems.push(ManifestProblem::NoRootVolume(self.root_device_name.clone()));
        }
        for mapping in &self.block_device_mappings {
            if mapping
                .as_ebs()
                .is_some_and(|ebs| ebs.snapshot_id.is_some())
                && !seen.contains(&mapping.device_name)
            {
                problems.push(ManifestProblem::SnapshotWithoutVolume(
                    mapping.device_name.clone(),
                ));
            }
        }
    }

    fn check_artifacts(&self, problems: &mut Vec<ManifestProblem>) {
        let mut seen = BTreeSet::new();
        for artifact in &self.artifacts {
            let file = || artifact.file.clone();
            let plain = !matches!(artifact.file.as_str(), "" | "." | "..")
                && artifact.file.len() <= 255
                && !artifact.file.contains(['/', '\0']);
            if !plain {
                problems.push(ManifestProblem::ArtifactName(file()));
            }
            if !seen.insert(&artifact.file) {
                problems.push(ManifestProblem::ArtifactTwice(file()));
            }
            match self.volume(&artifact.device) {
                None => problems.push(ManifestProblem::ArtifactWithoutVolume {
                    file: file(),
                    device: artifact.device.clone(),
                }),
                Some(volume) if volume.size != artifact.virtual_bytes => {
                    problems.push(ManifestProblem::ArtifactSize {
                        file: file(),
                        found: artifact.virtual_bytes,
                        expected: volume.size,
                    })
                }
                Some(_) => {}
            }
        }
    }

    fn check_tags(&self, problems: &mut Vec<ManifestProblem>) {
        for (i, (key, value)) in self.tags.iter().enumerate() {
            let length = key.chars().count();
            let refused = !(1..=127).contains(&length)
                || key.to_ascii_lowercase().starts_with("aws:")
                || value.chars().count() > 256
                || i >= 50;
            if refused {
                problems.push(ManifestProblem::Tag(key.clone()));
            }
        }
    }
}
