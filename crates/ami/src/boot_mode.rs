//! Boot modes, and which firmware each lets an instance start with.
//!
//! Source: EC2 user guide, `ami-boot` and `launch-instance-boot-mode`.

use std::fmt;
use std::str::FromStr;

use amiforge_types::Arch;

/// The `BootMode` of an AMI.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// BIOS only.
    LegacyBios,
    /// UEFI only.
    Uefi,
    /// UEFI where the instance type has it, BIOS elsewhere: the image must boot both ways.
    UefiPreferred,
}

/// The firmware an instance starts with.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Firmware {
    /// PC BIOS.
    Bios,
    /// UEFI.
    Uefi,
}

impl BootMode {
    /// The text form, as in the EC2 API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LegacyBios => "legacy-bios",
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
        }
    }

    /// The firmwares that an image of this mode claims to boot with, in the order of a boot proof.
    #[must_use]
    pub const fn firmwares(self) -> &'static [Firmware] {
        match self {
            Self::LegacyBios => &[Firmware::Bios],
            Self::Uefi => &[Firmware::Uefi],
            Self::UefiPreferred => &[Firmware::Bios, Firmware::Uefi],
        }
    }

    /// True when an image of this mode may be started with `firmware`.
    #[must_use]
    pub fn allows(self, firmware: Firmware) -> bool {
        self.firmwares().contains(&firmware)
    }

    /// True when machines of `arch` can have this mode: 64-bit Arm instances have no BIOS.
    #[must_use]
    pub fn fits(self, arch: Arch) -> bool {
        arch == Arch::X86_64 || self == Self::Uefi
    }
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for BootMode {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "legacy-bios" => Ok(Self::LegacyBios),
            "uefi" => Ok(Self::Uefi),
            "uefi-preferred" => Ok(Self::UefiPreferred),
            other => Err(format!(
                "boot mode {other:?} is none of legacy-bios, uefi, uefi-preferred"
            )),
        }
    }
}

impl Firmware {
    /// `bios` or `uefi`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Firmware {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "bios" => Ok(Self::Bios),
            "uefi" => Ok(Self::Uefi),
            other => Err(format!("firmware {other:?} is neither bios nor uefi")),
        }
    }
}
