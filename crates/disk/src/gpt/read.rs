//! Reading: every number is checked before it is used, so a hostile table costs at most the size of
//! a full one. (The `gpt` crate's reader allocates what the header says and asserts the entry size;
//! it serves as an oracle in tests.)

use std::io;

use amiforge_types::{ReadAt, Uuid};

use super::{GptPartition, SectorSize};

/// Entries beyond this are refused; no tool writes more.
const MAX_ENTRIES: u32 = 1024;
/// Entry sizes beyond this are refused; the specification's next sizes are 256 and 512.
const MAX_ENTRY_SIZE: u32 = 4096;

/// A partition table as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpt {
    /// Id of the disk.
    pub disk_guid: Uuid,
    /// The sectors that the table counts in. Places here are in units of 512 bytes all the same.
    pub sector: SectorSize,
    /// Used slots in slot order.
    pub partitions: Vec<GptPartition>,
    /// What is wrong with one of the two tables while the other serves; `None` when both are valid
    /// and agree.
    pub damage: Option<String>,
}

/// Why a disk has no readable GPT.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GptReadError {
    /// No protective MBR and no header: not a GPT disk.
    #[error("there is no GUID partition table")]
    Missing,
    /// Both tables are there in part, and neither is valid.
    #[error("neither partition table is valid: primary: {primary}; backup: {backup}")]
    Corrupt {
        /// What is wrong with the primary one.
        primary: String,
        /// What is wrong with the backup.
        backup: String,
    },
    /// The disk could not be read.
    #[error("cannot read the partition table")]
    Io(#[source] io::Error),
}

enum Bad {
    NoSignature,
    Wrong(String),
    Io(io::Error),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Bad {
    fn text(self) -> Result<String, GptReadError> {
        match self {
            Self::NoSignature => Ok("no header".to_owned()),
            Self::Wrong(text) => Ok(text),
            Self::Io(error) => Err(GptReadError::Io(error)),
        }
    }
}

/// Reads the table of a disk: the primary one, or the backup when the primary is damaged. A disk
/// without a table in sectors of 512 bytes is looked at for one in sectors of 4096.
pub fn read_gpt(disk: &dyn ReadAt) -> Result<Gpt, GptReadError> {
    match read_sized(disk, SectorSize::Bytes512) {
        Err(GptReadError::Missing) => read_sized(disk, SectorSize::Bytes4096),
        done => done,
    }
}

fn read_sized(disk: &dyn ReadAt, sector: SectorSize) -> Result<Gpt, GptReadError> {
    let sectors = disk.size() / sector.bytes();
    if sectors < 3 {
        return Err(GptReadError::Missing);
    }
    let read_table = |lba| read_table(disk, lba, sectors, sector);
    let primary = read_table(1);
    // After growth of the disk the backup header is not at the end but where the primary says.
    let backup_lba = match &primary {
        Ok(table) if table.other_lba > 1 && table.other_lba < sectors => table.other_lba,
        _ => sectors - 1,
    };
    let backup = read_table(backup_lba);
    match (primary, backup) {
        (Ok(p), Ok(b)) => {
            let damage = if p.gpt != b.gpt {
                Some("the backup table differs from the primary one".to_owned())
            } else if backup_lba != sectors - 1 {
                Some("the backup table is not at the end of the disk (it was enlarged)".to_owned())
            } else {
                None
            };
            Ok(Gpt { damage, ..p.gpt })
        }
        (Ok(p), Err(b)) => Ok(Gpt {
            damage: Some(format!("backup table: {}", b.text()?)),
            ..p.gpt
        }),
        (Err(p), Ok(b)) => Ok(Gpt {
            damage: Some(format!("primary table: {}", p.text()?)),
            ..b.gpt
        }),
        (Err(Bad::NoSignature), Err(Bad::NoSignature)) => Err(GptReadError::Missing),
        (Err(p), Err(b)) => Err(GptReadError::Corrupt {
            primary: p.text()?,
            backup: b.text()?,
        }),
    }
}

struct Table {
    gpt: Gpt,
    other_lba: u64,
}

fn read_table(disk: &dyn ReadAt, lba: u64, sectors: u64, sector: SectorSize) -> Result<Table, Bad> {
    let mut header = [0; 512];
    disk.read_exact_at(&mut header, lba * sector.bytes())?;
    if &header[..8] != b"EFI PART" {
        return Err(Bad::NoSignature);
    }
    let wrong = |text: &str| Err(Bad::Wrong(text.to_owned()));
    let size = u32_at(&header, 12) as usize;
    if !(92..=512).contains(&size) {
        return wrong("the header size is impossible");
    }
    let stated = u32_at(&header, 16);
    header[16..20].fill(0);
    if crc32fast::hash(&header[..size]) != stated {
        return wrong("the header checksum does not match");
    }
    if u64_at(&header, 24) != lba {
        return wrong("the header is not where it says");
    }
    let entries_lba = u64_at(&header, 72);
    let count = u32_at(&header, 80);
    let entry_size = u32_at(&header, 84);
    if count > MAX_ENTRIES
        || !(128..=MAX_ENTRY_SIZE).contains(&entry_size)
        || !entry_size.is_power_of_two()
    {
        return wrong("the number or size of the entries is impossible");
    }
    let bytes = u64::from(count) * u64::from(entry_size);
    let end = entries_lba
        .checked_mul(sector.bytes())
        .and_then(|o| o.checked_add(bytes));
    if end.is_none_or(|end| end > sectors * sector.bytes()) {
        return wrong("the entries are outside the disk");
    }
    let (first_usable, last_usable) = (u64_at(&header, 40), u64_at(&header, 48));
    let mut array = vec![0; usize::try_from(bytes).unwrap_or(0)];
    disk.read_exact_at(&mut array, entries_lba * sector.bytes())?;
    if crc32fast::hash(&array) != u32_at(&header, 88) {
        return wrong("the checksum of the entries does not match");
    }
    let mut partitions = Vec::new();
    for (entry, slot) in array.chunks_exact(entry_size as usize).zip(1..) {
        if entry[..16] == [0; 16] {
            continue;
        }
        let (first_lba, last_lba) = (u64_at(entry, 32), u64_at(entry, 40));
        if first_lba > last_lba || last_lba >= sectors {
            return Err(Bad::Wrong(format!(
                "partition {slot} (sectors {first_lba} to {last_lba}) is outside the disk"
            )));
        }
        if first_lba < first_usable || last_lba > last_usable {
            return Err(Bad::Wrong(format!(
                "partition {slot} (sectors {first_lba} to {last_lba}) is not within the usable sectors {first_usable} to {last_usable}"
            )));
        }
        let name: Vec<u16> = entry[56..128]
            .chunks_exact(2)
            .map(|c| u16::from_le_bytes([c[0], c[1]]))
            .take_while(|unit| *unit != 0)
            .collect();
        partitions.push(GptPartition {
            slot,
            type_guid: guid_at(entry, 0),
            guid: guid_at(entry, 16),
            name: String::from_utf16_lossy(&name),
            first_lba: first_lba * sector.units(),
            last_lba: (last_lba + 1) * sector.units() - 1,
            attributes: u64_at(entry, 48),
        });
    }
    let mut by_place: Vec<&GptPartition> = partitions.iter().collect();
    by_place.sort_by_key(|p| (p.first_lba, p.slot));
    for pair in by_place.windows(2) {
        if pair[1].first_lba <= pair[0].last_lba {
            return Err(Bad::Wrong(format!(
                "partitions {} and {} overlap at sector {}",
                pair[0].slot,
                pair[1].slot,
                pair[1].first_lba / sector.units()
            )));
        }
    }
    let gpt = Gpt {
        disk_guid: guid_at(&header, 56),
        sector,
        partitions,
        damage: None,
    };
    Ok(Table {
        gpt,
        other_lba: u64_at(&header, 32),
    })
}

fn guid_at(bytes: &[u8], at: usize) -> Uuid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&bytes[at..at + 16]);
    Uuid::from_guid_bytes(guid)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
