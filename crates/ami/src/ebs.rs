//! EBS volumes of a mapping: types and their limits.
//!
//! Source: EC2 API reference `EbsBlockDevice`; EBS user guide, volume types. The limits are those
//! of 2026; accounts, older SDKs and Outposts may still have the smaller gp3 limits of before 2025.

use crate::SnapshotId;

/// An EBS volume type.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum VolumeType {
    /// General purpose SSD, third generation.
    Gp3,
    /// General purpose SSD, second generation.
    Gp2,
    /// Provisioned IOPS SSD (Block Express).
    Io2,
    /// Provisioned IOPS SSD, first generation.
    Io1,
    /// Throughput-optimised HDD; not bootable.
    St1,
    /// Cold HDD; not bootable.
    Sc1,
    /// Magnetic, previous generation.
    Standard,
}

/// What a type allows.
struct Limits {
    size_gib: (u32, u32),
    iops: Option<(u32, u32)>,
    iops_required: bool,
    iops_per_gib: u32,
    throughput: Option<(u32, u32)>,
    bootable: bool,
}

impl VolumeType {
    /// The text form, as in the EC2 API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gp3 => "gp3",
            Self::Gp2 => "gp2",
            Self::Io2 => "io2",
            Self::Io1 => "io1",
            Self::St1 => "st1",
            Self::Sc1 => "sc1",
            Self::Standard => "standard",
        }
    }

    /// True when a root volume may have this type.
    #[must_use]
    pub const fn bootable(self) -> bool {
        self.limits().bootable
    }

    const fn limits(self) -> Limits {
        let plain = Limits {
            size_gib: (1, 16_384),
            iops: None,
            iops_required: false,
            iops_per_gib: 0,
            throughput: None,
            bootable: true,
        };
        match self {
            Self::Gp3 => Limits {
                size_gib: (1, 65_536),
                iops: Some((3_000, 80_000)),
                iops_per_gib: 500,
                throughput: Some((125, 2_000)),
                ..plain
            },
            Self::Gp2 => plain,
            Self::Io2 => Limits {
                size_gib: (4, 65_536),
                iops: Some((100, 256_000)),
                iops_required: true,
                iops_per_gib: 1_000,
                ..plain
            },
            Self::Io1 => Limits {
                size_gib: (4, 16_384),
                iops: Some((100, 64_000)),
                iops_required: true,
                iops_per_gib: 50,
                ..plain
            },
            Self::St1 | Self::Sc1 => Limits {
                size_gib: (125, 16_384),
                bootable: false,
                ..plain
            },
            Self::Standard => Limits {
                size_gib: (1, 1_024),
                ..plain
            },
        }
    }
}

impl std::fmt::Display for VolumeType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for VolumeType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [
            Self::Gp3,
            Self::Gp2,
            Self::Io2,
            Self::Io1,
            Self::St1,
            Self::Sc1,
            Self::Standard,
        ]
        .into_iter()
        .find(|t| t.as_str() == s)
        .ok_or_else(|| {
            format!("volume type {s:?} is none of gp3, gp2, io2, io1, st1, sc1, standard")
        })
    }
}

/// The `Ebs` part of a mapping. JSON keys are those of the API in camelCase; absent members are
/// left out.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EbsVolume {
    /// The snapshot the volume is made from; `None` for an empty volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// Size in GiB. Always present in a manifest, although the API lets it default to the snapshot's.
    pub volume_size: u32,
    /// Type.
    pub volume_type: VolumeType,
    /// Whether the volume goes when the instance does.
    pub delete_on_termination: bool,
    /// Provisioned I/O operations per second; gp3, io1, io2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// Provisioned throughput in MiB/s; gp3 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
    /// Asked encryption. It is a wish about instances: `RegisterImage` takes it for empty volumes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Key for `encrypted`; used when instances are run, never when an image is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
}

/// A volume that EC2 would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EbsError {
    /// The size is outside the type's range.
    #[error("a {volume_type} volume has {min} to {max} GiB, not {size}")]
    Size {
        /// The type.
        volume_type: VolumeType,
        /// The size given, in GiB.
        size: u32,
        /// Smallest, in GiB.
        min: u32,
        /// Largest, in GiB.
        max: u32,
    },
    /// `iops` is missing where the type needs it.
    #[error("a {0} volume needs iops")]
    IopsMissing(VolumeType),
    /// `iops` is given for a type that does not take it.
    #[error("iops cannot be set for a {0} volume (only gp3, io1, io2)")]
    IopsNotSettable(VolumeType),
    /// `iops` is outside the range for this type and size.
    #[error("a {volume_type} volume of {size} GiB has {min} to {max} iops, not {iops}")]
    Iops {
        /// The type.
        volume_type: VolumeType,
        /// The volume's size in GiB.
        size: u32,
        /// The value given.
        iops: u32,
        /// Smallest.
        min: u32,
        /// Largest for this size.
        max: u32,
    },
    /// `throughput` is given for a type that does not take it.
    #[error("throughput cannot be set for a {0} volume (only gp3)")]
    ThroughputNotSettable(VolumeType),
    /// `throughput` is outside the range for these iops.
    #[error("a gp3 volume with {iops} iops has {min} to {max} MiB/s, not {throughput}")]
    Throughput {
        /// The value given, in MiB/s.
        throughput: u32,
        /// The volume's iops, given or default.
        iops: u32,
        /// Smallest, in MiB/s.
        min: u32,
        /// Largest for these iops, in MiB/s.
        max: u32,
    },
    /// A key without encryption.
    #[error("kmsKeyId needs encrypted: true")]
    KeyWithoutEncryption,
}

impl EbsVolume {
    /// A volume of `size_gib` and type gp3 that goes with its instance, with nothing provisioned.
    #[must_use]
    pub fn gp3(size_gib: u32) -> Self {
        Self {
            snapshot_id: None,
            volume_size: size_gib,
            volume_type: VolumeType::Gp3,
            delete_on_termination: true,
            iops: None,
            throughput: None,
            encrypted: None,
            kms_key_id: None,
        }
    }

    /// Every rule the volume breaks; empty when EC2 would take it.
    #[must_use]
    pub fn check(&self) -> Vec<EbsError> {
        let mut errors = Vec::new();
        let (volume_type, size) = (self.volume_type, self.volume_size);
        let limits = volume_type.limits();
        let (min, max) = limits.size_gib;
        if !(min..=max).contains(&size) {
            errors.push(EbsError::Size {
                volume_type,
                size,
                min,
                max,
            });
        }
        match (self.iops, limits.iops) {
            (None, _) if limits.iops_required => errors.push(EbsError::IopsMissing(volume_type)),
            (Some(_), None) => errors.push(EbsError::IopsNotSettable(volume_type)),
            (Some(iops), Some((min, max))) => {
                let by_size = size.saturating_mul(limits.iops_per_gib);
                let max = max.min(by_size.max(min));
                if !(min..=max).contains(&iops) {
                    errors.push(EbsError::Iops {
                        volume_type,
                        size,
                        iops,
                        min,
                        max,
                    });
                }
            }
            (None, _) => {}
        }
        match (self.throughput, limits.throughput) {
            (Some(_), None) => errors.push(EbsError::ThroughputNotSettable(volume_type)),
            (Some(throughput), Some((min, max))) => {
                let iops = self.iops.unwrap_or(3_000);
                let max = max.min((iops / 4).max(min));
                if !(min..=max).contains(&throughput) {
                    errors.push(EbsError::Throughput {
                        throughput,
                        iops,
                        min,
                        max,
                    });
                }
            }
            (None, _) => {}
        }
        if self.kms_key_id.is_some() && self.encrypted != Some(true) {
            errors.push(EbsError::KeyWithoutEncryption);
        }
        errors
    }
}
