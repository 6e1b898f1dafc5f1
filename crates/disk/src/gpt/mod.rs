//! GUID partition tables (UEFI specification 2.10, chapter 5).
//!
//! ```text
//! LBA 0            protective MBR; bytes 0..440 are free for boot code
//! LBA 1            primary header
//! LBA 2..34        128 entries of 128 bytes
//! LBA 34..n-33     usable
//! LBA n-33..n-1    backup entries
//! LBA n-1          backup header
//! ```
//!
//! The slot of a partition (its number, `/dev/sda1`) and its place on the disk are independent.
//!
//! That is a disk with sectors of 512 bytes. With sectors of 4096 bytes ([`SectorSize::Bytes4096`])
//! the entries take 4 sectors instead of 32. In this crate's types, places are *always* numbers of 512
//! bytes; only the bytes on the disk count in the disk's sectors.

mod read;
#[cfg(test)]
mod tests;
mod write;

use amiforge_types::Uuid;

pub use read::{Gpt, GptReadError, read_gpt};
pub use write::{GptError, GptSpec};

/// Size of a disk's sectors, as the disk itself counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorSize {
    /// 512 bytes: nearly every disk, and every image for EC2.
    Bytes512,
    /// 4096 bytes.
    Bytes4096,
}

impl SectorSize {
    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Bytes512 => 512,
            Self::Bytes4096 => 4096,
        }
    }

    /// Units of 512 bytes in a sector.
    const fn units(self) -> u64 {
        self.bytes() / amiforge_types::SECTOR
    }
}

/// First LBA a partition may use.
pub const FIRST_USABLE_LBA: u64 = 34;
/// Sectors at the end of the disk that belong to the backup table.
pub const BACKUP_SECTORS: u64 = 33;
/// Slots of the tables we write.
pub const SLOTS: u32 = 128;

/// BIOS boot partition: GRUB's core image, without a file system.
pub const TYPE_BIOS_BOOT: Uuid = guid(0x21686148_6449_6E6F_744E_656564454649);
/// EFI system partition.
pub const TYPE_ESP: Uuid = guid(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B);
/// Root of an x86-64 system (Discoverable Partitions Specification).
pub const TYPE_ROOT_X86_64: Uuid = guid(0x4F68BCE3_E8CD_4DB1_96E7_FBCAF984B709);
/// Root of a 64-bit Arm system (Discoverable Partitions Specification).
pub const TYPE_ROOT_ARM64: Uuid = guid(0xB921B045_1DF0_41C3_AF44_4C6F280D3FAE);
/// Linux data of any kind.
pub const TYPE_LINUX: Uuid = guid(0x0FC63DAF_8483_4772_8E79_3D69D8477DE4);

const fn guid(text_order: u128) -> Uuid {
    Uuid::from_bytes(text_order.to_be_bytes())
}

/// The name of a well-known partition type, for people.
#[must_use]
pub fn type_name(type_guid: Uuid) -> Option<&'static str> {
    match type_guid {
        TYPE_BIOS_BOOT => Some("BIOS boot"),
        TYPE_ESP => Some("EFI system"),
        TYPE_ROOT_X86_64 => Some("Linux root (x86-64)"),
        TYPE_ROOT_ARM64 => Some("Linux root (arm64)"),
        TYPE_LINUX => Some("Linux"),
        _ => None,
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GptPartition {
    /// 1-based number, at most [`SLOTS`] when written.
    pub slot: u32,
    /// What it is for.
    pub type_guid: Uuid,
    /// Its own id (`PARTUUID`).
    pub guid: Uuid,
    /// Name; at most 36 UTF-16 units.
    pub name: String,
    /// First sector, of 512 bytes.
    pub first_lba: u64,
    /// Last sector of 512 bytes, inclusive.
    pub last_lba: u64,
    /// Attribute bits (UEFI 5.3.3; bits 48-63 belong to the type).
    pub attributes: u64,
}

impl GptPartition {
    /// Byte offset of the first sector.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.first_lba * amiforge_types::SECTOR
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        (self.last_lba - self.first_lba + 1) * amiforge_types::SECTOR
    }
}
