//! Reading MBR partition tables: four primary partitions, and the chain of logical ones.
//!
//! ```text
//! sector 0    0 boot code   440 disk id   446 four entries   510 55 AA
//! entry      0 flags (80: active)   1 CHS   4 type   5 CHS   8 first sector   12 sectors
//! ```
//!
//! An extended partition (type 05, 0F or 85) begins with a sector of the same form: its first entry is
//! a logical partition, placed relative to that sector; its second is the next such sector, placed
//! relative to the extended partition. The chain is foreign: it must go forward inside the extended
//! partition, and ends after 128 links.

use std::io;

use amiforge_types::{ReadAt, SECTOR};

/// Logical partitions beyond this are refused; Linux itself stops at 255 partitions, fdisk at 60.
const MAX_LOGICAL: u32 = 128;

/// A table as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mbr {
    /// The disk's id, of which partition ids are made.
    pub disk_id: u32,
    /// Primary partitions by their slot, then logical ones from 5 on. The extended partition is one
    /// of the primary ones.
    pub partitions: Vec<MbrPartition>,
}

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MbrPartition {
    /// 1 to 4, or from 5 on.
    pub slot: u32,
    /// What it is for.
    pub kind: u8,
    /// First sector of 512 bytes.
    pub first_lba: u64,
    /// Last sector, inclusive.
    pub last_lba: u64,
    /// Whether a BIOS boots from it.
    pub active: bool,
}

/// Why a disk has no readable MBR table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MbrReadError {
    /// No signature, or no partition.
    #[error("there is no MBR partition table")]
    Missing,
    /// The only entry stands for a GUID partition table, which is not there.
    #[error("the MBR says that there is a GUID partition table, but there is none")]
    ProtectsNothing,
    /// A table that cannot be.
    #[error("the MBR partition table is damaged: sector {sector}, entry {entry}: {what}")]
    Corrupt {
        /// The sector with the table.
        sector: u64,
        /// 1 to 4.
        entry: u32,
        /// What does not hold.
        what: &'static str,
    },
    /// The disk could not be read.
    #[error("cannot read the partition table")]
    Io(#[source] io::Error),
}

impl Mbr {
    /// Reads the table of a disk.
    pub fn read(disk: &dyn ReadAt) -> Result<Self, MbrReadError> {
        let sectors = disk.size() / SECTOR;
        let table = sector(disk, 0, sectors)?.ok_or(MbrReadError::Missing)?;
        let entries = entries(&table);
        if entries.iter().all(|e| e.kind == 0) {
            return Err(MbrReadError::Missing);
        }
        if entries.iter().any(|e| e.kind == 0xEE) {
            return Err(MbrReadError::ProtectsNothing);
        }
        let mut partitions = Vec::new();
        let mut extended = None;
        for (entry, slot) in entries.iter().zip(1..) {
            if entry.kind == 0 {
                continue;
            }
            let part = entry.within(0, 0, sectors, slot, slot)?;
            if part.first_lba == 0 {
                return Err(corrupt(0, slot, "it starts on the table itself"));
            }
            if is_extended(entry.kind) {
                if extended.is_some() {
                    return Err(corrupt(0, slot, "there are two extended partitions"));
                }
                extended = Some(part.clone());
            }
            partitions.push(part);
        }
        no_overlap(&partitions)?;
        if let Some(extended) = extended {
            let mut logical = Vec::new();
            chain(disk, sectors, &extended, &mut logical)?;
            no_overlap(&logical)?;
            partitions.append(&mut logical);
        }
        Ok(Self {
            disk_id: u32::from_le_bytes([table[440], table[441], table[442], table[443]]),
            partitions,
        })
    }
}

/// The logical partitions of an extended one.
fn chain(
    disk: &dyn ReadAt,
    sectors: u64,
    extended: &MbrPartition,
    out: &mut Vec<MbrPartition>,
) -> Result<(), MbrReadError> {
    let end = extended.last_lba + 1;
    let mut at = extended.first_lba;
    for slot in 5..5 + MAX_LOGICAL {
        // An extended partition that was never written to is an empty one.
        let Some(table) = sector(disk, at, sectors)? else {
            return if slot == 5 {
                Ok(())
            } else {
                Err(corrupt(at, 1, "a link of the chain has no signature"))
            };
        };
        let [part, next, ..] = entries(&table);
        if part.kind != 0 && !is_extended(part.kind) {
            let part = part.within(at, at, end, 1, slot)?;
            if part.first_lba <= at {
                return Err(corrupt(at, 1, "it starts on the table itself"));
            }
            out.push(part);
        }
        if next.kind == 0 {
            return Ok(());
        }
        if !is_extended(next.kind) {
            return Err(corrupt(at, 2, "it is no link of the chain"));
        }
        let link = next.within(at, extended.first_lba, end, 2, slot)?;
        if link.first_lba <= at {
            return Err(corrupt(at, 2, "the chain goes back"));
        }
        at = link.first_lba;
    }
    Err(corrupt(at, 2, "the chain is too long"))
}

fn corrupt(sector: u64, entry: u32, what: &'static str) -> MbrReadError {
    MbrReadError::Corrupt {
        sector,
        entry,
        what,
    }
}

fn is_extended(kind: u8) -> bool {
    matches!(kind, 0x05 | 0x0F | 0x85)
}

fn no_overlap(parts: &[MbrPartition]) -> Result<(), MbrReadError> {
    let mut sorted: Vec<_> = parts.iter().collect();
    sorted.sort_by_key(|p| p.first_lba);
    for pair in sorted.windows(2) {
        if pair[1].first_lba <= pair[0].last_lba {
            return Err(corrupt(0, pair[1].slot, "it overlaps another partition"));
        }
    }
    Ok(())
}

/// A sector with the signature of a table.
fn sector(disk: &dyn ReadAt, lba: u64, sectors: u64) -> Result<Option<[u8; 512]>, MbrReadError> {
    if lba >= sectors {
        return Ok(None);
    }
    let mut table = [0; 512];
    disk.read_exact_at(&mut table, lba * SECTOR)
        .map_err(MbrReadError::Io)?;
    Ok((table[510..] == [0x55, 0xAA]).then_some(table))
}

struct Entry {
    flags: u8,
    kind: u8,
    start: u64,
    len: u64,
}

impl Entry {
    /// The partition, its start counted from `base`; it must end at `end` or before.
    fn within(
        &self,
        sector: u64,
        base: u64,
        end: u64,
        entry: u32,
        slot: u32,
    ) -> Result<MbrPartition, MbrReadError> {
        if self.flags & 0x7F != 0 {
            return Err(corrupt(sector, entry, "its flags are impossible"));
        }
        if self.len == 0 {
            return Err(corrupt(sector, entry, "it has no sectors"));
        }
        // Both are numbers of 32 bits.
        let first_lba = base + self.start;
        if first_lba + self.len > end {
            return Err(corrupt(sector, entry, "it reaches past its end"));
        }
        Ok(MbrPartition {
            slot,
            kind: self.kind,
            first_lba,
            last_lba: first_lba + self.len - 1,
            active: self.flags == 0x80,
        })
    }
}

fn entries(table: &[u8; 512]) -> [Entry; 4] {
    [0, 1, 2, 3].map(|i| {
        let e = &table[446 + i * 16..462 + i * 16];
        let word =
            |at: usize| u64::from(u32::from_le_bytes([e[at], e[at + 1], e[at + 2], e[at + 3]]));
        Entry {
            flags: e[0],
            kind: e[4],
            start: word(8),
            len: word(12),
        }
    })
}

/// The name of a well-known partition type, for people.
#[must_use]
pub fn type_name(kind: u8) -> Option<&'static str> {
    Some(match kind {
        0x01 | 0x04 | 0x06 | 0x0B | 0x0C | 0x0E => "FAT",
        0x05 | 0x0F | 0x85 => "extended",
        0x07 => "NTFS or exFAT",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8E => "Linux LVM",
        0xEF => "EFI system",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
