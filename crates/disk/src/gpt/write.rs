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

use super::{GptPartition, SLOTS, SectorSize};
use crate::{Extent, ExtentData};

const ENTRY: u32 = 128;

/// The numbers of a disk, in its own sectors.
#[derive(Clone, Copy)]
struct Geometry {
    size: SectorSize,
    lb: LogicalBlockSize,
    sectors: u64,
    /// Sectors of an array of entries.
    array: u64,
}

impl Geometry {
    fn new(units: u64, size: SectorSize) -> Self {
        Self {
            size,
            lb: match size {
                SectorSize::Bytes512 => LogicalBlockSize::Lb512,
                SectorSize::Bytes4096 => LogicalBlockSize::Lb4096,
            },
            sectors: units / size.units(),
            array: u64::from(SLOTS) * u64::from(ENTRY) / size.bytes(),
        }
    }

    /// The first sector a partition may use.
    fn first_usable(&self) -> u64 {
        2 + self.array
    }

    /// Sectors at the end that belong to the backup table.
    fn backup(&self) -> u64 {
        self.array + 1
    }

    /// The last sector a partition may use.
    fn last_usable(&self) -> u64 {
        self.sectors.saturating_sub(self.backup() + 1)
    }
}

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
    #[error(
        "a disk of {0} sectors is too small for a partition table, or no whole number of sectors"
    )]
    TooSmall(u64),
    /// A slot outside 1..=128 or used twice.
    #[error("partition slot {0} is used twice or not within 1 to {SLOTS}")]
    BadSlot(u32),
    /// Sectors outside the usable area, or an end before the start.
    #[error(
        "partition {slot} (sectors {first} to {last}) is not within the usable sectors {usable_first} to {usable_last}"
    )]
    OutOfRange {
        /// The slot.
        slot: u32,
        /// Its first sector.
        first: u64,
        /// Its last sector.
        last: u64,
        /// The first sector that can be used.
        usable_first: u64,
        /// The last sector that can be used.
        usable_last: u64,
    },
    /// A place that is no whole sector of the disk.
    #[error("partition {0} does not begin and end with a sector of 4096 bytes")]
    Unaligned(u32),
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
        sectors.saturating_sub(super::BACKUP_SECTORS + 1)
    }

    /// The extents of the protective MBR and of both tables, for a disk with sectors of 512 bytes.
    pub fn extents(&self) -> Result<Vec<Extent>, GptError> {
        self.extents_for(SectorSize::Bytes512)
    }

    /// The same for a disk with sectors of the given size. All places of the spec stay in units of
    /// 512 bytes, and have to be whole sectors.
    pub fn extents_for(&self, size: SectorSize) -> Result<Vec<Extent>, GptError> {
        let g = Geometry::new(self.sectors, size);
        self.check(&g)?;
        let last = g.sectors - 1;
        let mut head = Window::new(0, g.first_usable(), size);
        let backup_at = g.sectors - g.backup();
        let mut tail = Window::new(backup_at, g.backup(), size);

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
                first_lba: part.first_lba / size.units(),
                last_lba: part.last_lba / size.units(),
                flags: part.attributes,
                name: part.name.clone(),
            };
            let index = u64::from(part.slot) - 1;
            for (window, at) in [(&mut head, 2), (&mut tail, backup_at)] {
                entry
                    .write_to_device(window, index, at, g.lb, ENTRY)
                    .map_err(encode)?;
            }
        }

        self.header(&g, 1, last, 2)
            .write_primary(&mut head, g.lb)
            .map_err(encode)?;
        self.header(&g, last, 1, backup_at)
            .write_backup(&mut tail, g.lb)
            .map_err(encode)?;
        Ok(vec![head.into_extent(), tail.into_extent()])
    }

    fn header(&self, g: &Geometry, current_lba: u64, backup_lba: u64, part_start: u64) -> Header {
        Header {
            signature: "EFI PART".to_owned(),
            revision: (1, 0),
            header_size_le: 92,
            crc32: 0,
            reserved: 0,
            current_lba,
            backup_lba,
            first_usable: g.first_usable(),
            last_usable: g.last_usable(),
            disk_guid: uuid(self.disk_guid),
            part_start,
            num_parts: SLOTS,
            part_size: ENTRY,
            crc32_parts: 0,
        }
    }

    fn check(&self, g: &Geometry) -> Result<(), GptError> {
        if !self.sectors.is_multiple_of(g.size.units())
            || g.sectors < g.first_usable() + g.backup() + 1
            || self.sectors > u64::MAX / SECTOR
        {
            return Err(GptError::TooSmall(self.sectors));
        }
        let units = g.size.units();
        let (usable_first, usable_last) =
            (g.first_usable() * units, (g.last_usable() + 1) * units - 1);
        let mut used = std::collections::BTreeSet::new();
        let mut by_place: Vec<&GptPartition> = self.partitions.iter().collect();
        by_place.sort_by_key(|p| (p.first_lba, p.slot));
        for p in &by_place {
            if p.slot == 0 || p.slot > SLOTS || !used.insert(p.slot) {
                return Err(GptError::BadSlot(p.slot));
            }
            if p.first_lba < usable_first || p.last_lba < p.first_lba || p.last_lba > usable_last {
                return Err(GptError::OutOfRange {
                    slot: p.slot,
                    first: p.first_lba,
                    last: p.last_lba,
                    usable_first,
                    usable_last,
                });
            }
            if !p.first_lba.is_multiple_of(units) || !(p.last_lba + 1).is_multiple_of(units) {
                return Err(GptError::Unaligned(p.slot));
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
    fn new(first_lba: u64, sectors: u64, size: SectorSize) -> Self {
        let len = usize::try_from(sectors * size.bytes()).unwrap_or(0);
        Self {
            base: first_lba * size.bytes(),
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
