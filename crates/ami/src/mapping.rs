//! Block device mappings in the AWS shape.
//!
//! Source: EC2 API reference `BlockDeviceMapping`; EC2 user guide, `block-device-mapping-concepts`.

use std::fmt;
use std::str::FromStr;

use crate::{DeviceName, EbsError, EbsVolume};

/// An instance store volume, `ephemeral0` to `ephemeral23`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualName(u8);

impl VirtualName {
    /// The number after `ephemeral`; `None` above 23.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number <= 23 {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The number after `ephemeral`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for VirtualName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ephemeral{}", self.0)
    }
}

impl FromStr for VirtualName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let digits = s
            .strip_prefix("ephemeral")
            .filter(|d| !d.starts_with('+') && (d.len() == 1 || !d.starts_with('0')));
        digits
            .and_then(|d| d.parse().ok())
            .and_then(Self::new)
            .ok_or_else(|| format!("virtual name {s:?} is not ephemeral0 to ephemeral23"))
    }
}

impl serde::Serialize for VirtualName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for VirtualName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a device name stands for: exactly one of three.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MappingTarget {
    /// An EBS volume.
    Ebs(EbsVolume),
    /// An instance store volume.
    Virtual(VirtualName),
    /// Nothing: suppresses what the parent image had under this name.
    NoDevice,
}

/// One entry of a block device mapping.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "RawMapping", into = "RawMapping")]
pub struct BlockDeviceMapping {
    /// The name the instance type's driver is told.
    pub device_name: DeviceName,
    /// What it stands for.
    pub target: MappingTarget,
}

impl BlockDeviceMapping {
    /// A mapping to an EBS volume.
    #[must_use]
    pub fn ebs(device_name: DeviceName, volume: EbsVolume) -> Self {
        Self {
            device_name,
            target: MappingTarget::Ebs(volume),
        }
    }

    /// The EBS volume, when it is one.
    #[must_use]
    pub fn as_ebs(&self) -> Option<&EbsVolume> {
        match &self.target {
            MappingTarget::Ebs(volume) => Some(volume),
            _ => None,
        }
    }
}

/// The JSON shape: one of three members beside `deviceName`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMapping {
    device_name: DeviceName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ebs: Option<EbsVolume>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    virtual_name: Option<VirtualName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    no_device: Option<String>,
}

impl TryFrom<RawMapping> for BlockDeviceMapping {
    type Error = String;

    fn try_from(raw: RawMapping) -> Result<Self, Self::Error> {
        let target = match (raw.ebs, raw.virtual_name, raw.no_device) {
            (Some(volume), None, None) => MappingTarget::Ebs(volume),
            (None, Some(name), None) => MappingTarget::Virtual(name),
            (None, None, Some(_)) => MappingTarget::NoDevice,
            _ => {
                return Err(format!(
                    "{} needs exactly one of ebs, virtualName, noDevice",
                    raw.device_name
                ));
            }
        };
        Ok(Self {
            device_name: raw.device_name,
            target,
        })
    }
}

impl From<BlockDeviceMapping> for RawMapping {
    fn from(mapping: BlockDeviceMapping) -> Self {
        let mut raw = Self {
            device_name: mapping.device_name,
            ebs: None,
            virtual_name: None,
            no_device: None,
        };
        match mapping.target {
            MappingTarget::Ebs(volume) => raw.ebs = Some(volume),
            MappingTarget::Virtual(name) => raw.virtual_name = Some(name),
            MappingTarget::NoDevice => raw.no_device = Some(String::new()),
        }
        raw
    }
}

/// A list of mappings that EC2 would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// Two entries mean the same slot.
    #[error("{first} and {second} are the same device")]
    Clash {
        /// The entry that came first.
        first: DeviceName,
        /// The other one.
        second: DeviceName,
    },
    /// The root device has no entry with an EBS volume.
    #[error("the root device {0} has no mapping to an EBS volume")]
    NoRoot(DeviceName),
    /// The root volume's type cannot boot.
    #[error("{device}: a {volume_type} volume cannot be a root volume")]
    NotBootable {
        /// The root device.
        device: DeviceName,
        /// Its type.
        volume_type: crate::VolumeType,
    },
    /// A volume breaks a rule of its type.
    #[error("{device}: {error}")]
    Volume {
        /// The entry.
        device: DeviceName,
        /// The rule, shown as part of this message because it has no cause of its own.
        error: EbsError,
    },
}

/// Every rule that a list of mappings with root device `root` breaks; empty when EC2 would take it.
///
/// Snapshot ids are not asked for here: before a build there are none.
#[must_use]
pub fn check_mappings(root: &DeviceName, mappings: &[BlockDeviceMapping]) -> Vec<MappingError> {
    let mut errors = Vec::new();
    for (i, mapping) in mappings.iter().enumerate() {
        if let Some(first) = mappings[..i]
            .iter()
            .find(|m| m.device_name.clashes(&mapping.device_name))
        {
            errors.push(MappingError::Clash {
                first: first.device_name.clone(),
                second: mapping.device_name.clone(),
            });
        }
        let device = &mapping.device_name;
        for error in mapping.as_ebs().map(EbsVolume::check).unwrap_or_default() {
            errors.push(MappingError::Volume {
                device: device.clone(),
                error,
            });
        }
    }
    match mappings
        .iter()
        .find(|m| m.device_name == *root)
        .and_then(BlockDeviceMapping::as_ebs)
    {
        None => errors.push(MappingError::NoRoot(root.clone())),
        Some(volume) if !volume.volume_type.bootable() => {
            errors.push(MappingError::NotBootable {
                device: root.clone(),
                volume_type: volume.volume_type,
            });
        }
        Some(_) => {}
    }
    errors
}
