//! Writing: a spec becomes three extents (head, backup table).
//!
//! The structures are encoded by the `gpt` crate, one by one: its whole-table writer renumbers the
//! slots to 1..n and draws random ids for what it is not told, its `Header`, `Partition` and
//! `ProtectiveMBR` do neither.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use amiforge_types::{SECTOR, Uuid};
use gpt::disk::LogicalBlockSize;
use gpt::header::Header;
use gpt::mbr::ProtectiveMBR;
use gpt::partition::Partition;
use gpt::partition_types::{OperatingSystem, Type};

use super::{BACKUP_SECTORS, FIRST_USABLE_LBA, GptPartition, SLOTS};
use crate::{Extent, ExtentData};

const LB: LogicalBlockSize = LogicalBlockSize::Lb512;
const ENTRY: u32 = 128;

/// A table to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GptSpec {
    /// Id of the disk.
    pub disk_guid: Uuid,
    /// Size of the disk in sectors of 512 bytes.
    pub sectors: u64,
    /// The partitions in any order.
    pub partitions: Vec<GptPartition>,
    /// Bytes 0..440 of the protective MBR; zero when there is nothing to boot from BIOS.
    pub boot_code: Option<Box<[u8; 440]>>,
}

/// A partition table that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GptError {
    /// The disk has no room for the two tables.
    #[error("a disk of {0} sectors is too small for a partition table")]
    TooSmall(u64),
    /// A slot outside 1..=128 or used twice.
    #[error("partition slot {0} is used twice or not within 1 to {SLOTS}")]
    BadSlot(u32),
    /// Sectors outside the usable area, or an end before the start.
    #[error(
        "partition {slot} (sectors {first} to {last}) is not within the usable sectors {FIRST_USABLE_LBA} to {usable_last}"
    )]
    OutOfRange {
        /// The slot.
        slot: u32,
        /// Its first sector.
        first: u64,
        /// Its last sector.
        last: u64,
        /// The last sector that can be used.
        usable_last: u64,
    },
    /// Two partitions share sectors.
    #[error("partitions {0} and {1} overlap")]
    Overlap(u32, u32),
    /// A name of more than 36 UTF-16 units.
    #[error("the name of partition {0} is longer than 36 characters")]
    LongName(u32),
    /// The encoder refused: a bug of ours.
    #[error("the partition table could not be encoded: {0}")]
    Encode(String),
}

impl GptSpec {
    /// The last sector a partition may use on a disk of `sectors`.
    #[must_use]
    pub const fn last_usable(sectors: u64) -> u64 {
        sectors.saturating_sub(BACKUP_SECTORS + 1)
    }

    /// The extents of the protective MBR and of both tables.
    pub fn extents(&self) -> Result<Vec<Extent>, GptError> {
        self.check()?;
        let last = self.sectors - 1;
        let mut head = Window::new(0, FIRST_USABLE_LBA);
        let mut tail = Window::new(self.sectors - BACKUP_SECTORS, BACKUP_SECTORS);

        let mut mbr = ProtectiveMBR::with_lb_size(u32::try_from(last).unwrap_or(u32::MAX));
        if let Some(code) = &self.boot_code {
            mbr.set_bootcode(**code);
        }
        head.bytes[..512].copy_from_slice(&mbr.to_bytes());

        for part in &self.partitions {
            let entry = Partition {
                part_type_guid: Type {
                    guid: uuid(part.type_guid),
                    os: OperatingSystem::None,
                },
                part_guid: uuid(part.guid),
                first_lba: part.first_lba,
                last_lba: part.last_lba,
                flags: part.attributes,
                name: part.name.clone(),
            };
            let index = u64::from(part.slot) - 1;
            entry
                .write_to_device(&mut head, index, 2, LB, ENTRY)
                .map_err(encode)?;
            entry
                .write_to_device(&mut tail, index, self.sectors - BACKUP_SECTORS, LB, ENTRY)
                .map_err(encode)?;
        }

        self.header(1, last, 2)
            .write_primary(&mut head, LB)
            .map_err(encode)?;
        self.header(last, 1, self.sectors - BACKUP_SECTORS)
            .write_backup(&mut tail, LB)
            .map_err(encode)?;
        Ok(vec![head.into_extent(), tail.into_extent()])
    }

    fn header(&self, current_lba: u64, backup_lba: u64, part_start: u64) -> Header {
        Header {
            signature: "EFI PART".to_owned(),
            revision: (1, 0),
            header_size_le: 92,
            crc32: 0,
            reserved: 0,
            current_lba,
            backup_lba,
            first_usable: FIRST_USABLE_LBA,
            last_usable: Self::last_usable(self.sectors),
            disk_guid: uuid(self.disk_guid),
            part_start,
            num_parts: SLOTS,
            part_size: ENTRY,
            crc32_parts: 0,
        }
    }

    fn check(&self) -> Result<(), GptError> {
        if self.sectors < FIRST_USABLE_LBA + BACKUP_SECTORS + 1 || self.sectors > u64::MAX / SECTOR
        {
            return Err(GptError::TooSmall(self.sectors));
        }
        let usable_last = Self::last_usable(self.sectors);
        let mut used = std::collections::BTreeSet::new();
        let mut by_place: Vec<&GptPartition> = self.partitions.iter().collect();
        by_place.sort_by_key(|p| (p.first_lba, p.slot));
        for p in &by_place {
            if p.slot == 0 || p.slot > SLOTS || !used.insert(p.slot) {
                return Err(GptError::BadSlot(p.slot));
            }
            if p.first_lba < FIRST_USABLE_LBA
                || p.last_lba < p.first_lba
                || p.last_lba > usable_last
            {
                return Err(GptError::OutOfRange {
                    slot: p.slot,
                    first: p.first_lba,
                    last: p.last_lba,
                    usable_last,
                });
            }
            if p.name.encode_utf16().count() > 36 {
                return Err(GptError::LongName(p.slot));
            }
        }
        for pair in by_place.windows(2) {
            if pair[1].first_lba <= pair[0].last_lba {
                return Err(GptError::Overlap(pair[0].slot, pair[1].slot));
            }
        }
        Ok(())
    }
}

fn encode(error: impl std::fmt::Display) -> GptError {
    GptError::Encode(error.to_string())
}

fn uuid(id: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(*id.as_bytes())
}

/// A few sectors of a disk in memory, addressed by their place on the whole disk.
#[derive(Debug)]
struct Window {
    base: u64,
    at: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(first_lba: u64, sectors: u64) -> Self {
        let len = usize::try_from(sectors * SECTOR).unwrap_or(0);
        Self {
            base: first_lba * SECTOR,
            at: 0,
            bytes: vec![0; len],
        }
    }

    fn range(&self, len: usize) -> io::Result<std::ops::Range<usize>> {
        let start = self
            .at
            .checked_sub(self.base)
            .and_then(|s| usize::try_from(s).ok());
        start
            .and_then(|s| Some(s..s.checked_add(len)?))
            .filter(|r| r.end <= self.bytes.len())
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn into_extent(self) -> Extent {
        Extent {
            offset: self.base,
            len: self.bytes.len() as u64,
            data: ExtentData::Bytes(Arc::from(self.bytes)),
        }
    }
}

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        buf.copy_from_slice(&self.bytes[self.range(buf.len())?]);
        self.at += buf.len() as u64;
        Ok(buf.len())
    }
}

impl Write for Window {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let range = self.range(buf.len())?;
        self.bytes[range].copy_from_slice(buf);
        self.at += buf.len() as u64;
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.at = match pos {
            SeekFrom::Start(at) => at,
            SeekFrom::Current(by) => self
                .at
                .checked_add_signed(by)
                .ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(self.at)
    }
}
