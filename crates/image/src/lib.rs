//! A file tree becomes a bootable disk: partitions, file systems, boot loaders.
//!
//! [`assemble`] is the one entry. It finds the kernel in the tree, writes the files that a boot
//! needs into it (`grub.cfg`, `fstab`, GRUB's modules, …), solves the partition table, and plans the
//! EFI system partition and the root file system. The result is a list of extents; nothing is
//! written, and file data is only read where it must be patched (boot loaders).
//!
//! ```text
//! slot 3  BIOS boot    1 MiB      GRUB's core image        (BIOS only)
//! slot 2  ESP          64 MiB     shim and GRUB            (UEFI only)
//! slot 1  root         the rest   ext4; physically last, so that it can grow
//! ```
//!
//! What is *not* here: formats of disk files (`amiforge-disk`), layouts of file systems (`amiforge-fs`).
#![forbid(unsafe_code)]

mod assemble;
mod boot;
mod files;
mod layout;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::str::FromStr;

use amiforge_disk::gpt::GptError;
use amiforge_disk::{ExtentError, Extents, PartitionInfo};
use amiforge_fs::{ext4::Ext4Error, fat::FatError};
use amiforge_tree::TreeError;
use amiforge_types::{Arch, BlobId, ByteSize, GIB, MIB, Seed, Timestamp, Uuid};

pub use amiforge_fs::ext4::{Inodes, Profile};
pub use assemble::assemble;
pub use boot::compare_versions;

/// Which firmware the disk boots from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootMode {
    /// BIOS.
    LegacyBios,
    /// UEFI.
    Uefi,
    /// Both, UEFI where the machine has it.
    UefiPreferred,
    /// None: a root partition without a boot loader.
    None,
}

impl BootMode {
    /// True when BIOS is to boot the disk.
    #[must_use]
    pub const fn bios(self) -> bool {
        matches!(self, Self::LegacyBios | Self::UefiPreferred)
    }

    /// True when UEFI is to boot the disk.
    #[must_use]
    pub const fn uefi(self) -> bool {
        matches!(self, Self::Uefi | Self::UefiPreferred)
    }
}

/// The text is not a boot mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a boot mode; write legacy-bios, uefi, uefi-preferred or none")]
pub struct BootModeError(String);

impl FromStr for BootMode {
    type Err = BootModeError;

    /// The names of recipes, and the command line's `bios` and `hybrid`.
    fn from_str(text: &str) -> Result<Self, BootModeError> {
        match text {
            "legacy-bios" | "bios" => Ok(Self::LegacyBios),
            "uefi" => Ok(Self::Uefi),
            "uefi-preferred" | "hybrid" => Ok(Self::UefiPreferred),
            "none" => Ok(Self::None),
            _ => Err(BootModeError(text.to_owned())),
        }
    }
}

impl fmt::Display for BootMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LegacyBios => "legacy-bios",
            Self::Uefi => "uefi",
            Self::UefiPreferred => "uefi-preferred",
            Self::None => "none",
        })
    }
}

/// What the tree does not say about a disk.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Bytes of the disk; `None` for as small as the tree allows with [`headroom`](Self::headroom).
    pub size: Option<u64>,
    /// Free bytes on the root file system when `size` is `None`.
    pub headroom: u64,
    /// Firmware.
    pub boot: BootMode,
    /// Source of every UUID.
    pub seed: Seed,
    /// Time of everything that has none.
    pub clock: Timestamp,
    /// Processor.
    pub arch: Arch,
    /// Label of the root file system, at most 16 bytes.
    pub root_label: String,
    /// Features of the root file system.
    pub root_profile: Profile,
    /// How many inodes the root file system gets.
    pub root_inodes: Inodes,
    /// Words for the kernel's command line, behind root and consoles.
    pub kernel_args: Vec<String>,
    /// Bytes of the EFI system partition, a multiple of 1 MiB.
    pub esp_size: u64,
    /// Seconds that the boot menu waits; 0 boots at once.
    pub boot_timeout: u32,
    /// Blobs whose runs start on 4096-byte boundaries and are followed by zeros up to the next one
    /// (layers of the store); see [`amiforge_fs::ext4::Options::padded_blobs`].
    pub padded_blobs: BTreeSet<BlobId>,
}

impl ImageSpec {
    /// The usual spec: minimal size with 256 MiB of headroom, a 64 MiB ESP, no waiting.
    #[must_use]
    pub fn new(boot: BootMode, arch: Arch, seed: Seed, clock: Timestamp) -> Self {
        Self {
            size: None,
            headroom: 256 * MIB,
            boot,
            seed,
            clock,
            arch,
            root_label: "root".to_owned(),
            root_profile: Profile::Standard,
            root_inodes: Inodes::DEFAULT,
            kernel_args: Vec::new(),
            esp_size: 64 * MIB,
            boot_timeout: 0,
            padded_blobs: BTreeSet::new(),
        }
    }
}

/// A finished disk, ready to be emitted.
#[derive(Clone, Debug)]
pub struct DiskImage {
    /// Every byte that is not zero; its size is the disk's.
    pub extents: Extents,
    /// Id of the disk.
    pub disk_guid: Uuid,
    /// Partitions in slot order.
    pub partitions: Vec<PartitionInfo>,
    /// The root file system.
    pub root: RootInfo,
    /// What is booted; `None` with [`BootMode::None`].
    pub kernel: Option<KernelInfo>,
}

/// The root file system of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootInfo {
    /// Slot of its partition.
    pub slot: u32,
    /// Its UUID, as the kernel's command line has it.
    pub uuid: Uuid,
    /// Id of its partition.
    pub part_uuid: Uuid,
    /// Its label.
    pub label: String,
    /// Free bytes, the part reserved for root included.
    pub free_bytes: u64,
}

/// The kernel that is booted first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    /// Its version, the suffix of `/boot/vmlinuz-…`.
    pub version: String,
    /// Its command line.
    pub command_line: String,
}

/// Why a tree does not become a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The volume does not hold the tree.
    #[error(
        "the volume has {}, its content needs at least {} ({needed} bytes); set volumeSize to {volume_gib} (GiB) or more",
        ByteSize(*.size), ByteSize(*.needed)
    )]
    TooSmall {
        /// Bytes of the disk asked for.
        size: u64,
        /// Bytes of a disk that would do.
        needed: u64,
        /// The same in whole GiB, the unit of `volumeSize`.
        volume_gib: u64,
    },
    /// A size that no disk of ours can have.
    #[error("{what} cannot be {bytes} bytes: {why}")]
    BadSize {
        /// Which size.
        what: &'static str,
        /// The size.
        bytes: u64,
        /// The rule.
        why: &'static str,
    },
    /// BIOS was asked for on a processor that has none.
    #[error("{0} machines have no BIOS; use boot mode uefi")]
    NoBios(Arch),
    /// No kernel in the tree.
    #[error("there is no kernel in /boot")]
    NoKernel {
        /// The package that brings one.
        package: &'static str,
    },
    /// A kernel without its initrd.
    #[error("kernel {version} has no /boot/initrd.img-{version}")]
    NoInitrd {
        /// The kernel's version.
        version: String,
    },
    /// Files of a boot loader are missing.
    #[error("{path} is missing")]
    MissingLoader {
        /// The file that was looked for.
        path: String,
        /// The package that brings it.
        package: &'static str,
    },
    /// A word of the kernel's command line that GRUB or the kernel would misread.
    #[error("{0:?} cannot be on the kernel's command line")]
    BadKernelArg(String),
    /// A file of the boot loader is not what we know how to use.
    #[error("{path}: {what}")]
    BadLoader {
        /// The file.
        path: String,
        /// What does not hold.
        what: String,
    },
    /// A file of the tree could not be read.
    #[error("cannot read {path} of the tree")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file could not be put into the tree.
    #[error("cannot put {path} into the tree")]
    Tree {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: TreeError,
    },
    /// The root file system cannot be made.
    #[error("cannot make the root file system")]
    Root(#[source] Ext4Error),
    /// The EFI system partition cannot be made.
    #[error("cannot make the EFI system partition")]
    Esp(#[source] FatError),
    /// The partition table cannot be made.
    #[error("cannot make the partition table")]
    Table(#[source] GptError),
    /// The parts of the disk contradict one another: a bug of ours.
    #[error("internal error: the disk layout is inconsistent")]
    Layout(#[source] ExtentError),
}

impl ImageError {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoKernel { package } | Self::MissingLoader { package, .. } => Some(format!(
                "add the package {package} to the image; `amiforge disk assemble --boot none` makes a disk that needs none"
            )),
            Self::NoInitrd { version } => {
                Some(format!("run update-initramfs -c -k {version} in a step"))
            }
            _ => None,
        }
    }

    pub(crate) fn too_small(size: u64, needed: u64) -> Self {
        Self::TooSmall {
            size,
            needed,
            volume_gib: needed.div_ceil(GIB),
        }
    }
}
