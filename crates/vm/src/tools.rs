//! Finding QEMU and the UEFI firmware.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The lowest release that has everything the command line uses.
const MINIMUM: QemuVersion = QemuVersion {
    major: 6,
    minor: 0,
    micro: 0,
};

/// Code and variable store of OVMF, in the order of preference: Debian and Ubuntu (4 MiB, then 2 MiB),
/// Fedora, Arch, openSUSE, QEMU's own copy. The variable store has no keys enrolled.
const OVMF: &[(&str, &str)] = &[
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.fd",
        "/usr/share/edk2/x64/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
        "/usr/share/edk2-ovmf/x64/OVMF_VARS.fd",
    ),
    (
        "/usr/share/qemu/ovmf-x86_64-code.bin",
        "/usr/share/qemu/ovmf-x86_64-vars.bin",
    ),
    (
        "/usr/share/qemu/edk2-x86_64-code.fd",
        "/usr/share/qemu/edk2-i386-vars.fd",
    ),
];

/// A QEMU release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QemuVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub micro: u32,
}

impl QemuVersion {
    /// Reads the first line of `qemu-system-x86_64 --version`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.split_once("version ")?.1;
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let mut numbers = rest[..end].split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            major: next()?,
            minor: next()?,
            micro: next().unwrap_or(0),
        })
    }
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

impl serde::Serialize for QemuVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for QemuVersion {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&format!("version {text}"))
            .ok_or_else(|| serde::de::Error::custom("not a QEMU version"))
    }
}

/// UEFI firmware files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ovmf {
    /// Read-only code.
    pub code: PathBuf,
    /// Template of the variable store; every boot uses a copy.
    pub vars: PathBuf,
}

/// The programs and files a boot needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuTools {
    /// `qemu-system-x86_64`.
    pub qemu: PathBuf,
    /// Its version.
    pub version: QemuVersion,
    /// UEFI firmware; `None` when not installed, which only matters to UEFI boots.
    pub ovmf: Option<Ovmf>,
}

/// Something is not installed. All of these mean "the environment lacks something" (exit code 3).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No QEMU in the path.
    #[error(
        "qemu-system-x86_64 is not installed (package qemu-system-x86 on Debian and Ubuntu, \
         qemu-system-x86-core on Fedora, qemu-system-x86 on Arch, qemu-x86 on openSUSE)"
    )]
    QemuMissing,
    /// QEMU does not run.
    #[error("{} does not run", .path.display())]
    QemuBroken {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `--version` printed something else.
    #[error("{} --version printed {output:?}, not a QEMU version", .path.display())]
    QemuVersionUnknown {
        /// The program.
        path: PathBuf,
        /// The start of its output.
        output: String,
    },
    /// QEMU is too old.
    #[error("{} is version {found}, at least {MINIMUM} is needed", .path.display())]
    QemuTooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: QemuVersion,
    },
    /// No UEFI firmware.
    #[error(
        "no UEFI firmware for QEMU is installed (package ovmf on Debian and Ubuntu, edk2-ovmf on Fedora and Arch, \
         qemu-ovmf-x86_64 on openSUSE)"
    )]
    OvmfMissing,
}

impl QemuTools {
    /// Looks through `PATH` and the places where distributions install OVMF.
    pub fn find() -> Result<Self, ToolError> {
        Self::find_in(&env::var_os("PATH").unwrap_or_default(), Path::new("/"))
    }

    /// Like [`QemuTools::find`] with a given `PATH` and another root folder for the firmware files.
    pub fn find_in(path: &OsStr, root: &Path) -> Result<Self, ToolError> {
        let qemu = env::split_paths(path)
            .map(|dir| dir.join("qemu-system-x86_64"))
            .find(|file| file.is_file())
            .ok_or(ToolError::QemuMissing)?;
        let output = Command::new(&qemu)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .map_err(|source| ToolError::QemuBroken {
                path: qemu.clone(),
                source,
            })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(version) = QemuVersion::parse(&text) else {
            return Err(ToolError::QemuVersionUnknown {
                path: qemu,
                output: text.chars().take(80).collect(),
            });
        };
        if version < MINIMUM {
            return Err(ToolError::QemuTooOld {
                path: qemu,
                found: version,
            });
        }
        let under = |file: &str| root.join(file.trim_start_matches('/'));
        let ovmf = OVMF
            .iter()
            .map(|(code, vars)| Ovmf {
                code: under(code),
                vars: under(vars),
            })
            .find(|ovmf| ovmf.code.is_file() && ovmf.vars.is_file());
        Ok(Self {
            qemu,
            version,
            ovmf,
        })
    }

    /// The UEFI firmware, or the error that names the package.
    pub fn ovmf(&self) -> Result<&Ovmf, ToolError> {
        self.ovmf.as_ref().ok_or(ToolError::OvmfMissing)
    }
}
