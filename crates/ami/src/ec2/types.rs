//! Instance types: processors, memory, firmware and instance store of the current ones, and a few older ones that
//! instance-store images need.
//!
//! Source: EC2 instance types guide; `launch-instance-boot-mode` for the boot modes (Xen types have a BIOS, Graviton UEFI,
//! other Nitro types both, but for those that the guide excepts).

use amiforge_types::Arch;

use super::ErrorCode;
use super::check::{Api, refuse};
use crate::{BootMode, Firmware};

/// What machines of a type have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// Its name.
    pub name: &'static str,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processor architecture.
    pub architecture: Arch,
    /// Firmwares it can start with.
    pub firmwares: &'static [Firmware],
    /// Number of instance store volumes, and the GiB of each.
    pub instance_store: (u8, u32),
    /// Whether the root can come from a bundle.
    pub instance_store_root: bool,
}

/// The type of who says none.
pub const DEFAULT_INSTANCE_TYPE: &str = "t3.micro";

const BIOS: &[Firmware] = &[Firmware::Bios];
const UEFI: &[Firmware] = &[Firmware::Uefi];
const BOTH: &[Firmware] = &[Firmware::Bios, Firmware::Uefi];

const fn new(
    name: &'static str,
    cpus: u32,
    memory_mib: u32,
    firmwares: &'static [Firmware],
) -> InstanceType {
    InstanceType {
        name,
        cpus,
        memory_mib,
        architecture: Arch::X86_64,
        firmwares,
        instance_store: (0, 0),
        instance_store_root: false,
    }
}

const fn nitro(name: &'static str, cpus: u32, gib: u32) -> InstanceType {
    new(name, cpus, gib * 1024, BOTH)
}

const fn xen(name: &'static str, cpus: u32, memory_mib: u32) -> InstanceType {
    new(name, cpus, memory_mib, BIOS)
}

const fn graviton(name: &'static str, cpus: u32, gib: u32) -> InstanceType {
    let mut kind = new(name, cpus, gib * 1024, UEFI);
    kind.architecture = Arch::Arm64;
    kind
}

const fn half_gib(mut kind: InstanceType) -> InstanceType {
    kind.memory_mib = 512;
    kind
}

const fn with_store(mut kind: InstanceType, volumes: u8, gib: u32) -> InstanceType {
    kind.instance_store = (volumes, gib);
    kind
}

const fn with_root(mut kind: InstanceType) -> InstanceType {
    kind.instance_store_root = true;
    kind
}

/// All types that are known, by family.
pub static INSTANCE_TYPES: &[InstanceType] = &[
    xen("t2.nano", 1, 512),
    xen("t2.micro", 1, 1024),
    xen("t2.small", 1, 2048),
    xen("t2.medium", 2, 4096),
    xen("t2.large", 2, 8192),
    xen("t2.xlarge", 4, 16384),
    xen("t2.2xlarge", 8, 32768),
    half_gib(nitro("t3.nano", 2, 1)),
    nitro("t3.micro", 2, 1),
    nitro("t3.small", 2, 2),
    nitro("t3.medium", 2, 4),
    nitro("t3.large", 2, 8),
    nitro("t3.xlarge", 4, 16),
    nitro("t3.2xlarge", 8, 32),
    half_gib(nitro("t3a.nano", 2, 1)),
    nitro("t3a.micro", 2, 1),
    nitro("t3a.small", 2, 2),
    nitro("t3a.medium", 2, 4),
    nitro("t3a.large", 2, 8),
    nitro("t3a.xlarge", 4, 16),
    nitro("t3a.2xlarge", 8, 32),
    half_gib(graviton("t4g.nano", 2, 1)),
    graviton("t4g.micro", 2, 1),
    graviton("t4g.small", 2, 2),
    graviton("t4g.medium", 2, 4),
    graviton("t4g.large", 2, 8),
    graviton("t4g.xlarge", 4, 16),
    graviton("t4g.2xlarge", 8, 32),
    nitro("m5.large", 2, 8),
    nitro("m5.xlarge", 4, 16),
    nitro("m5.2xlarge", 8, 32),
    nitro("m5.4xlarge", 16, 64),
    nitro("m5a.large", 2, 8),
    nitro("m5a.xlarge", 4, 16),
    with_store(nitro("m5d.large", 2, 8), 1, 70),
    with_store(nitro("m5d.xlarge", 4, 16), 1, 140),
    nitro("m6i.large", 2, 8),
    nitro("m6i.xlarge", 4, 16),
    nitro("m6i.2xlarge", 8, 32),
    nitro("m6i.4xlarge", 16, 64),
    nitro("m6a.large", 2, 8),
    nitro("m6a.xlarge", 4, 16),
    graviton("m6g.medium", 1, 4),
    graviton("m6g.large", 2, 8),
    graviton("m6g.xlarge", 4, 16),
    with_store(nitro("m6id.large", 2, 8), 1, 110),
    nitro("m7i.large", 2, 8),
    nitro("m7i.xlarge", 4, 16),
    nitro("m7i.2xlarge", 8, 32),
    nitro("m7i-flex.large", 2, 8),
    nitro("m7i-flex.xlarge", 4, 16),
    nitro("m7a.medium", 1, 4),
    nitro("m7a.large", 2, 8),
    graviton("m7g.medium", 1, 4),
    graviton("m7g.large", 2, 8),
    nitro("c5.large", 2, 4),
    nitro("c5.xlarge", 4, 8),
    nitro("c5.2xlarge", 8, 16),
    nitro("c5.4xlarge", 16, 32),
    nitro("c5a.large", 2, 4),
    with_store(nitro("c5d.large", 2, 4), 1, 46),
    with_store(nitro("c5d.xlarge", 4, 8), 1, 93),
    nitro("c6i.large", 2, 4),
    nitro("c6i.xlarge", 4, 8),
    nitro("c6i.2xlarge", 8, 16),
    nitro("c6a.large", 2, 4),
    graviton("c6g.medium", 1, 2),
    graviton("c6g.large", 2, 4),
    nitro("c7i.large", 2, 4),
    nitro("c7i.xlarge", 4, 8),
    nitro("c7i-flex.large", 2, 4),
    graviton("c7g.medium", 1, 2),
    graviton("c7g.large", 2, 4),
    nitro("r5.large", 2, 16),
    nitro("r5.xlarge", 4, 32),
    nitro("r5.2xlarge", 8, 64),
    nitro("r5a.large", 2, 16),
    with_store(nitro("r5d.large", 2, 16), 1, 70),
    nitro("r6i.large", 2, 16),
    nitro("r6i.xlarge", 4, 32),
    nitro("r6i.2xlarge", 8, 64),
    graviton("r6g.large", 2, 16),
    nitro("r7i.large", 2, 16),
    nitro("r7i.xlarge", 4, 32),
    with_store(nitro("i3.large", 2, 15), 1, 442),
    with_store(nitro("i4i.large", 2, 16), 1, 436),
    xen("m4.large", 2, 8192),
    xen("m4.xlarge", 4, 16384),
    xen("c4.large", 2, 3840),
    xen("r4.large", 2, 15616),
    with_root(with_store(xen("m3.medium", 1, 3840), 1, 4)),
    with_root(with_store(xen("m3.large", 2, 7680), 1, 32)),
    with_root(with_store(xen("m3.xlarge", 4, 15360), 2, 40)),
    with_root(with_store(xen("c3.large", 2, 3840), 2, 16)),
    with_root(with_store(xen("c3.xlarge", 4, 7680), 2, 40)),
    with_root(with_store(xen("r3.large", 2, 15616), 1, 32)),
    with_root(with_store(xen("d2.xlarge", 4, 31232), 3, 1863)),
    with_root(with_store(xen("i2.xlarge", 4, 31232), 1, 745)),
    // UEFI is excepted on these.
    new("g4ad.xlarge", 4, 16384, BIOS),
    new("m5.metal", 96, 393_216, BIOS),
    // These have UEFI alone.
    graviton("a1.medium", 1, 2),
    graviton("a1.large", 2, 4),
];

impl InstanceType {
    /// The type of this name; `InvalidInstanceType` (a type that is not in the table here may be one on AWS).
    pub fn named(name: &str) -> Api<&'static Self> {
        INSTANCE_TYPES.iter().find(|t| t.name == name).map_or_else(
            || {
                let shown: String = name.chars().take(60).collect();
                refuse(
                    ErrorCode::InvalidInstanceType,
                    format!("Invalid value '{shown}' for InstanceType."),
                )
            },
            Ok,
        )
    }

    /// The firmware that an instance of this type starts an image of `mode` with.
    ///
    /// EC2 does not look into the image: `uefi-preferred` on a type that has both starts with UEFI, so the image must boot
    /// both ways. No mode: UEFI on Graviton, BIOS on Intel and AMD. `UnsupportedOperation` when the type lacks what the
    /// mode asks for.
    pub fn firmware(&self, mode: Option<BootMode>) -> Api<Firmware> {
        let has = |firmware| self.firmwares.contains(&firmware);
        let wanted: &[Firmware] = match mode {
            Some(BootMode::Uefi) => UEFI,
            Some(BootMode::LegacyBios) => BIOS,
            Some(BootMode::UefiPreferred) => &[Firmware::Uefi, Firmware::Bios],
            None if self.architecture == Arch::Arm64 => UEFI,
            None => BIOS,
        };
        if let Some(firmware) = wanted.iter().copied().find(|f| has(*f)) {
            return Ok(firmware);
        }
        refuse(
            ErrorCode::UnsupportedOperation,
            format!(
                "The instance type '{}' does not support the boot mode '{}' of the AMI.",
                self.name,
                mode.map_or("legacy-bios", BootMode::as_str)
            ),
        )
    }
}
