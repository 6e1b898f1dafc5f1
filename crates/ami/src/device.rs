//! Device names of block device mappings, for Linux HVM instances.
//!
//! Source: EC2 user guide, `device-naming`.

use std::fmt;
use std::str::FromStr;

/// A device name that EC2 accepts for a Linux HVM instance, for example `/dev/xvda` or `/dev/sdf`.
///
/// `/dev/sd[a-z]`, `/dev/sda1`, `/dev/sda2`, `/dev/xvd[a-c][a-z]`, `/dev/xvdd[a-x]`, and
/// `/dev/xvd[a-z]`, which the guide lists for Windows but EC2 takes for Linux too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName(String);

/// The text is not a device name of a Linux HVM instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a device name of an HVM instance; use /dev/xvda or /dev/sda1 for the root, /dev/sd[b-z] for others"
)]
pub struct DeviceNameError(String);

impl DeviceName {
    /// The whole name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without `/dev/`, as file names and instance metadata have it.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0["/dev/".len()..]
    }

    /// What two names share when they mean the same slot: `/dev/sdf` and `/dev/xvdf` are both `f`.
    /// `/dev/sda1` is slot `a1`: it may stand beside nothing that is slot `a`, see
    /// [`DeviceName::clashes`].
    #[must_use]
    pub fn slot(&self) -> &str {
        let short = self.short();
        short
            .strip_prefix("xvd")
            .or_else(|| short.strip_prefix("sd"))
            .unwrap_or(short)
    }

    /// True when EC2 refuses the two in one mapping: the same slot, or a disk and a partition of it.
    #[must_use]
    pub fn clashes(&self, other: &Self) -> bool {
        let (a, b) = (self.slot(), other.slot());
        let disk = |slot: &str| {
            slot.trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned()
        };
        a == b || (disk(a) == disk(b) && (a == disk(a) || b == disk(b)))
    }
}

impl FromStr for DeviceName {
    type Err = DeviceNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let good = if let Some(sd) = s.strip_prefix("/dev/sd") {
            matches!(sd, "a1" | "a2") || matches!(sd.as_bytes(), [b'a'..=b'z'])
        } else if let Some(xvd) = s.strip_prefix("/dev/xvd") {
            matches!(
                xvd.as_bytes(),
                [b'a'..=b'z'] | [b'a'..=b'c', b'a'..=b'z'] | [b'd', b'a'..=b'x']
            )
        } else {
            false
        };
        if good {
            Ok(Self(s.to_owned()))
        } else {
            Err(DeviceNameError(s.chars().take(60).collect()))
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for DeviceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DeviceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
