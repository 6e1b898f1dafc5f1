//! What is on a disk: partitions, and the file system in each by its magic numbers.

use std::io;

use amiforge_types::{Digest, ReadAt, SECTOR, Uuid};

use crate::gpt::{self, GptReadError};
use crate::mbr::{Mbr, MbrReadError};
use crate::usage::{self, Usage};

/// A disk, as plain data.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskInfo {
    /// Size of the disk in bytes.
    pub virtual_bytes: u64,
    /// The partition table; `None` without one.
    pub table: Option<TableInfo>,
    /// Id of the disk; `None` without a GUID partition table.
    pub disk_guid: Option<Uuid>,
    /// Partitions in slot order.
    pub partitions: Vec<PartitionInfo>,
    /// The file system that fills a disk without partitions.
    pub file_system: Option<FileSystemInfo>,
    /// What is wrong with one of the two partition tables while the other serves.
    pub damage: Option<String>,
}

impl DiskInfo {
    /// The partition with the root file system: the first of the ext family that says it is the root, else
    /// the first of that family.
    #[must_use]
    pub fn root_partition(&self) -> Option<&PartitionInfo> {
        let candidates = || self.partitions.iter().filter(|part| part.is_ext());
        let says_root = |part: &&PartitionInfo| {
            [gpt::TYPE_ROOT_X86_64, gpt::TYPE_ROOT_ARM64].contains(&part.type_guid)
        };
        candidates().find(says_root).or_else(|| candidates().next())
    }
}

/// A partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum TableInfo {
    /// GUID partition table.
    #[serde(rename_all = "camelCase")]
    Gpt {
        /// Size of the sectors that it counts in.
        sector_bytes: u64,
    },
    /// Master boot record.
    #[serde(rename_all = "camelCase")]
    Mbr {
        /// The disk's id.
        disk_id: u32,
    },
}

/// A partition and what is in it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionInfo {
    /// 1-based number.
    pub slot: u32,
    /// Name in the partition table.
    pub name: String,
    /// What it is for. All zero in an MBR table, which has `mbr_type`.
    #[serde(skip_serializing_if = "is_nil", default = "nil")]
    pub type_guid: Uuid,
    /// Its own id (`PARTUUID`). All zero in an MBR table.
    #[serde(skip_serializing_if = "is_nil", default = "nil")]
    pub guid: Uuid,
    /// What it is for, in an MBR table.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mbr_type: Option<u8>,
    /// Content digest of the partition alone, where asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub digest: Option<Digest>,
    /// First sector of 512 bytes.
    pub first_lba: u64,
    /// Last sector, inclusive.
    pub last_lba: u64,
    /// The file system in it, when there is one we know.
    pub file_system: Option<FileSystemInfo>,
}

impl PartitionInfo {
    /// Byte offset on the disk.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.first_lba * SECTOR
    }

    /// Length in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> u64 {
        (self.last_lba - self.first_lba + 1) * SECTOR
    }

    /// Whether a file system of the ext family is in it.
    #[must_use]
    pub fn is_ext(&self) -> bool {
        self.file_system.as_ref().is_some_and(|fs| fs.kind.is_ext())
    }
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemInfo {
    /// Which.
    pub kind: FileSystemKind,
    /// Its id as `blkid` prints it (`XXXX-XXXX` for FAT).
    pub uuid: Option<String>,
    /// Its label.
    pub label: Option<String>,
    /// How full it is, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub usage: Option<Usage>,
}

const fn nil() -> Uuid {
    Uuid::from_bytes([0; 16])
}

fn is_nil(id: &Uuid) -> bool {
    *id == nil()
}

/// Kinds of file system that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FileSystemKind {
    /// ext2, without a journal and without extents.
    Ext2,
    /// ext3: a journal, no extents.
    Ext3,
    /// ext4.
    Ext4,
    /// FAT12, FAT16 or FAT32.
    Vfat,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// SquashFS.
    Squashfs,
    /// Linux swap.
    Swap,
}

impl FileSystemKind {
    /// Its name in lower case, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Vfat => "vfat",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Squashfs => "squashfs",
            Self::Swap => "swap",
        }
    }

    /// Whether it is one of the ext family.
    #[must_use]
    pub fn is_ext(self) -> bool {
        matches!(self, Self::Ext2 | Self::Ext3 | Self::Ext4)
    }
}

/// Why a disk cannot be described.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InfoError {
    /// The partition table is damaged beyond use.
    #[error("cannot use the partition table")]
    Table(#[source] GptReadError),
    /// The MBR table is damaged.
    #[error("cannot use the partition table")]
    Mbr(#[source] MbrReadError),
    /// The disk could not be read.
    #[error("cannot read the disk")]
    Io(#[source] io::Error),
}

/// Describes the virtual disk that [`open`](crate::open) gave.
pub fn disk_info(disk: &dyn ReadAt) -> Result<DiskInfo, InfoError> {
    let virtual_bytes = disk.size();
    let table = match gpt::read_gpt(disk) {
        Ok(table) => table,
        Err(GptReadError::Missing) => {
            return without_gpt(disk);
        }
        Err(error) => return Err(InfoError::Table(error)),
    };
    let mut partitions = Vec::with_capacity(table.partitions.len());
    for part in table.partitions {
        let file_system =
            probe_file_system(disk, part.offset(), part.len_bytes()).map_err(InfoError::Io)?;
        partitions.push(PartitionInfo {
            slot: part.slot,
            name: part.name,
            type_guid: part.type_guid,
            guid: part.guid,
            mbr_type: None,
            digest: None,
            first_lba: part.first_lba,
            last_lba: part.last_lba,
            file_system,
        });
    }
    Ok(DiskInfo {
        virtual_bytes,
        table: Some(TableInfo::Gpt {
            sector_bytes: table.sector.bytes(),
        }),
        disk_guid: Some(table.disk_guid),
        partitions,
        file_system: None,
        damage: table.damage,
    })
}

/// A disk with an MBR table, or with a file system all over it, or with nothing known.
fn without_gpt(disk: &dyn ReadAt) -> Result<DiskInfo, InfoError> {
    let virtual_bytes = disk.size();
    let mut info = DiskInfo {
        virtual_bytes,
        table: None,
        disk_guid: None,
        partitions: Vec::new(),
        // A boot sector of FAT has the signature of a table, too.
        file_system: probe_file_system(disk, 0, virtual_bytes).map_err(InfoError::Io)?,
        damage: None,
    };
    if info.file_system.is_some() {
        return Ok(info);
    }
    let mbr = match Mbr::read(disk) {
        Ok(mbr) => mbr,
        Err(MbrReadError::Missing) => return Ok(info),
        Err(error @ MbrReadError::ProtectsNothing) => {
            info.damage = Some(error.to_string());
            return Ok(info);
        }
        Err(MbrReadError::Io(error)) => return Err(InfoError::Io(error)),
        Err(error) => return Err(InfoError::Mbr(error)),
    };
    info.table = Some(TableInfo::Mbr {
        disk_id: mbr.disk_id,
    });
    for part in mbr.partitions {
        let mut entry = PartitionInfo {
            slot: part.slot,
            name: String::new(),
            type_guid: nil(),
            guid: nil(),
            mbr_type: Some(part.kind),
            digest: None,
            first_lba: part.first_lba,
            last_lba: part.last_lba,
            file_system: None,
        };
        entry.file_system =
            probe_file_system(disk, entry.offset(), entry.len_bytes()).map_err(InfoError::Io)?;
        info.partitions.push(entry);
    }
    Ok(info)
}

/// The file system in `len` bytes at `offset` of a disk, by its magic numbers.
pub fn probe_file_system(
    disk: &dyn ReadAt,
    offset: u64,
    len: u64,
) -> io::Result<Option<FileSystemInfo>> {
    let end = offset.saturating_add(len).min(disk.size());
    let mut head = vec![0; 0x1_1000];
    let have = usize::try_from(end.saturating_sub(offset))
        .unwrap_or(usize::MAX)
        .min(head.len());
    disk.read_exact_at(&mut head[..have], offset)?;
    let mut found = probe(&head);
    if let Some(fs) = &mut found {
        fs.usage = usage::of(fs.kind, disk, offset, end.saturating_sub(offset), &head)?;
    }
    Ok(found)
}

fn probe(head: &[u8]) -> Option<FileSystemInfo> {
    let at = |offset: usize, magic: &[u8]| head[offset..].starts_with(magic);
    let uuid = |offset: usize| {
        let mut id = [0; 16];
        id.copy_from_slice(&head[offset..offset + 16]);
        (id != [0; 16]).then(|| Uuid::from_bytes(id).to_string())
    };
    let info = |kind, uuid, label| {
        Some(FileSystemInfo {
            kind,
            uuid,
            label,
            usage: None,
        })
    };
    if at(0, b"XFSB") {
        return info(FileSystemKind::Xfs, uuid(32), text(&head[108..120]));
    }
    if at(0, b"hsqs") {
        return info(FileSystemKind::Squashfs, None, None);
    }
    if at(0x1_0040, b"_BHRfS_M") {
        return info(
            FileSystemKind::Btrfs,
            uuid(0x1_0020),
            text(&head[0x1_012B..0x1_022B]),
        );
    }
    if at(0x438, &[0x53, 0xEF]) {
        let word = |offset: usize| {
            u32::from_le_bytes([
                head[offset],
                head[offset + 1],
                head[offset + 2],
                head[offset + 3],
            ])
        };
        // Extents (0x40) or 64bit (0x80) or flex_bg (0x200) make it ext4; else the journal decides.
        let kind = match (word(0x45C) & 0x4 != 0, word(0x460) & 0x2C0 != 0) {
            (_, true) => FileSystemKind::Ext4,
            (true, false) => FileSystemKind::Ext3,
            (false, false) => FileSystemKind::Ext2,
        };
        return info(kind, uuid(0x468), text(&head[0x478..0x488]));
    }
    if at(4086, b"SWAPSPACE2") {
        return info(FileSystemKind::Swap, uuid(0x40C), text(&head[0x41C..0x42C]));
    }
    let fat32 = at(82, b"FAT32   ");
    if at(510, &[0x55, 0xAA]) && (fat32 || at(54, b"FAT12   ") || at(54, b"FAT16   ")) {
        let id = if fat32 { 67 } else { 39 };
        let uuid = format!(
            "{:02X}{:02X}-{:02X}{:02X}",
            head[id + 3],
            head[id + 2],
            head[id + 1],
            head[id]
        );
        let label = text(&head[id + 4..id + 15]).filter(|label| label != "NO NAME");
        return info(FileSystemKind::Vfat, Some(uuid), label);
    }
    None
}

/// A label: up to the first NUL, without spaces at the end; `None` when nothing is left.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
