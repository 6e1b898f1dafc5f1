//! The partition solver.

use amiforge_disk::gpt::{self, GptPartition};
use amiforge_types::{Arch, MIB, SECTOR, Uuid};

use crate::{ImageError, ImageSpec};

/// Slots, whatever the order on the disk.
pub(crate) const SLOT_ROOT: u32 = 1;
pub(crate) const SLOT_ESP: u32 = 2;
pub(crate) const SLOT_BIOS_BOOT: u32 = 3;

/// Every partition starts on a multiple of this.
const ALIGN: u64 = MIB;
/// GRUB's core image takes 30 KiB; the rest is room for in-guest upgrades.
const BIOS_BOOT_BYTES: u64 = MIB;
/// Space behind the root partition: the backup table, rounded up.
const TAIL: u64 = ALIGN;
/// A FAT volume below this holds no boot loader worth the name.
const MIN_ESP: u64 = 8 * MIB;
/// Largest ESP; FAT32 with 512-byte clusters is sane far beyond what an ESP needs.
const MAX_ESP: u64 = 2 << 30;
/// Discoverable Partitions Specification: grow the file system to the partition's size.
const ATTRIBUTE_GROW: u64 = 1 << 59;

/// Bytes that a partition covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    pub offset: u64,
    pub len: u64,
}

impl Area {
    pub(crate) fn end(self) -> u64 {
        self.offset + self.len
    }

    pub(crate) fn first_lba(self) -> u64 {
        self.offset / SECTOR
    }
}

/// Where the partitions before root are, and where root starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    pub bios_boot: Option<Area>,
    pub esp: Option<Area>,
    pub root_offset: u64,
}

impl Front {
    pub(crate) fn new(spec: &ImageSpec) -> Result<Self, ImageError> {
        let mut at = ALIGN;
        let mut take = |len: u64| {
            let area = Area { offset: at, len };
            at += len;
            area
        };
        let bios_boot = spec.boot.bios().then(|| take(BIOS_BOOT_BYTES));
        let esp = if spec.boot.uefi() {
            let bad = |why| {
                Err(ImageError::BadSize {
                    what: "the EFI system partition",
                    bytes: spec.esp_size,
                    why,
                })
            };
            if !spec.esp_size.is_multiple_of(ALIGN) {
                return bad("it must be a multiple of 1 MiB");
            }
            if !(MIN_ESP..=MAX_ESP).contains(&spec.esp_size) {
                return bad("it must be within 8 MiB and 2 GiB");
            }
            Some(take(spec.esp_size))
        } else {
            None
        };
        Ok(Self {
            bios_boot,
            esp,
            root_offset: at,
        })
    }

    /// The disk that a root file system of `bytes` needs.
    pub(crate) fn disk_for(self, root_bytes: u64) -> u64 {
        self.root_offset + root_bytes.next_multiple_of(ALIGN) + TAIL
    }

    /// The root partition of a disk; `None` when there is no room for one.
    pub(crate) fn root(self, disk: u64) -> Option<Area> {
        let usable = disk.checked_sub(gpt::BACKUP_SECTORS * SECTOR)?;
        let end = usable / ALIGN * ALIGN;
        let len = end.checked_sub(self.root_offset)?;
        (len > 0).then_some(Area {
            offset: self.root_offset,
            len,
        })
    }

    /// The table entries, in slot order.
    pub(crate) fn partitions(self, spec: &ImageSpec, root: Area) -> Vec<GptPartition> {
        let entry = |slot, type_guid: Uuid, name: &str, area: Area, attributes| GptPartition {
            slot,
            type_guid,
            guid: spec.seed.uuid(&format!("gpt.partition-{slot}")),
            name: name.to_owned(),
            first_lba: area.first_lba(),
            last_lba: area.end() / SECTOR - 1,
            attributes,
        };
        let root_type = match spec.arch {
            Arch::X86_64 => gpt::TYPE_ROOT_X86_64,
            Arch::Arm64 => gpt::TYPE_ROOT_ARM64,
        };
        let mut out = vec![entry(SLOT_ROOT, root_type, "root", root, ATTRIBUTE_GROW)];
        out.extend(
            self.esp
                .map(|area| entry(SLOT_ESP, gpt::TYPE_ESP, "esp", area, 0)),
        );
        out.extend(
            self.bios_boot
                .map(|area| entry(SLOT_BIOS_BOOT, gpt::TYPE_BIOS_BOOT, "bios-boot", area, 0)),
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BootMode;
    use amiforge_types::{Digest, Seed, Timestamp};

    fn spec(boot: BootMode) -> ImageSpec {
        ImageSpec::new(
            boot,
            Arch::X86_64,
            Seed::new(Digest::of(b"x")),
            Timestamp::from_secs(0),
        )
    }

    #[test]
    fn a_disk_for_a_root_holds_that_root() {
        for boot in [
            BootMode::None,
            BootMode::LegacyBios,
            BootMode::Uefi,
            BootMode::UefiPreferred,
        ] {
            let front = Front::new(&spec(boot)).unwrap();
            for root in [1, MIB - 1, MIB, 700 * MIB + 4096] {
                let disk = front.disk_for(root);
                let area = front.root(disk).unwrap();
                assert!(area.len >= root && area.len - root < ALIGN, "{boot} {root}");
                assert!(
                    front.root(disk - MIB).is_none_or(|a| a.len < root),
                    "{boot} {root}"
                );
            }
        }
    }

    #[test]
    fn root_is_last_and_slots_are_fixed() {
        let spec = spec(BootMode::UefiPreferred);
        let front = Front::new(&spec).unwrap();
        let parts = front.partitions(&spec, front.root(1 << 30).unwrap());
        let by_slot: Vec<_> = parts
            .iter()
            .map(|p| (p.slot, p.first_lba, p.last_lba))
            .collect();
        assert_eq!(
            by_slot,
            [(1, 135_168, 2_095_103), (2, 4096, 135_167), (3, 2048, 4095)]
        );
    }

    #[test]
    fn bad_esp_sizes_are_refused() {
        for size in [0, MIB, 64 * MIB + 512, 4 << 30] {
            let mut spec = spec(BootMode::Uefi);
            spec.esp_size = size;
            assert!(
                matches!(Front::new(&spec), Err(ImageError::BadSize { .. })),
                "{size}"
            );
        }
    }
}
