//! Reading fixed and dynamic disks.
//!
//! The file is not trusted: the block table is bounded by the file's length before it is read. The
//! bitmaps of blocks are not looked at: in a disk without a parent, a sector that was never written
//! is zero in its block.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use amiforge_types::{ReadAt, SECTOR};

use super::layout::{ABSENT, Footer, HEADER_MAGIC, Kind, checksum};
use crate::format::numbers::{be32, be64};
use crate::format::{Format, OpenError};

/// Blocks of 512 KiB to 256 MiB; every tool writes 2 MiB.
const BLOCKS: Range<u64> = (512 << 10)..(256 << 20) + 1;
/// Largest block table that is read: enough for 2 TiB in the smallest blocks.
const MAX_TABLE_BYTES: u64 = 16 << 20;

fn corrupt(what: &'static str) -> OpenError {
    OpenError::Corrupt {
        format: Format::Vhd,
        what,
    }
}

fn bad_data(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, corrupt(what))
}

fn io_error(source: io::Error) -> OpenError {
    OpenError::Io {
        format: Format::Vhd,
        source,
    }
}

pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Box<dyn ReadAt>, OpenError> {
    let end = file
        .size()
        .checked_sub(512)
        .ok_or_else(|| corrupt("the footer is cut off"))?;
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, end).map_err(io_error)?;
    let footer = match Footer::decode(&bytes) {
        Some(footer) => footer,
        // A dynamic disk has a copy in front.
        None => {
            file.read_exact_at(&mut bytes, 0).map_err(io_error)?;
            Footer::decode(&bytes)
                .filter(|f| f.kind == Kind::Dynamic as u32)
                .ok_or_else(|| corrupt("its footer is damaged"))?
        }
    };
    match footer.kind {
        2 => {
            if footer.size > end {
                return Err(corrupt("the disk is longer than the file"));
            }
            Ok(Box::new(Fixed {
                file,
                size: footer.size,
            }))
        }
        3 => Ok(Box::new(Dynamic::open(file, &footer)?)),
        4 => Err(OpenError::ExternalFile {
            format: Format::Vhd,
            what: "a parent disk",
        }),
        other => Err(OpenError::Unsupported {
            format: Format::Vhd,
            what: format!("disk type {other}"),
        }),
    }
}

/// The front of the file.
struct Fixed {
    file: Arc<dyn ReadAt>,
    size: u64,
}

impl ReadAt for Fixed {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let found = self.file.next_data(offset)?;
        Ok(found
            .map(|range| range.start..range.end.min(self.size))
            .filter(|range| range.start < range.end))
    }

    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.file.as_fd()
    }
}

struct Dynamic {
    file: Arc<dyn ReadAt>,
    size: u64,
    block: u64,
    /// Bytes of the bitmap before each block.
    bitmap: u64,
    table: Vec<u32>,
}

impl Dynamic {
    fn open(file: Arc<dyn ReadAt>, footer: &Footer) -> Result<Self, OpenError> {
        let mut header = [0; 1024];
        if footer
            .header_at
            .checked_add(1024)
            .is_none_or(|end| end > file.size())
        {
            return Err(corrupt("the header is outside the file"));
        }
        file.read_exact_at(&mut header, footer.header_at)
            .map_err(io_error)?;
        if !header.starts_with(HEADER_MAGIC) || be32(&header, 36) != checksum(&header, 36) {
            return Err(corrupt("the header is damaged"));
        }
        let block = u64::from(be32(&header, 32));
        if !BLOCKS.contains(&block) || !block.is_power_of_two() {
            return Err(corrupt("the block size is impossible"));
        }
        let entries = footer.size.div_ceil(block);
        let table_at = be64(&header, 16);
        let end = table_at.checked_add(entries.saturating_mul(4));
        if u64::from(be32(&header, 28)) < entries
            || entries > MAX_TABLE_BYTES / 4
            || end.is_none_or(|end| end > file.size())
        {
            return Err(corrupt("the block table does not cover the disk"));
        }
        let mut bytes = vec![0; usize::try_from(entries * 4).unwrap_or(0)];
        file.read_exact_at(&mut bytes, table_at).map_err(io_error)?;
        Ok(Self {
            size: footer.size,
            block,
            bitmap: (block / SECTOR).div_ceil(8).next_multiple_of(SECTOR),
            table: bytes.chunks_exact(4).map(|c| be32(c, 0)).collect(),
            file,
        })
    }

    /// Where the data of a block is in the file.
    fn place(&self, block: u64) -> Option<u64> {
        let entry = usize::try_from(block).ok().and_then(|n| self.table.get(n));
        entry
            .filter(|entry| **entry != ABSENT)
            .map(|entry| u64::from(*entry) * SECTOR + self.bitmap)
    }
}

impl ReadAt for Dynamic {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while !buf.is_empty() {
            let within = offset % self.block;
            let left = usize::try_from(self.block - within).map_err(io::Error::other)?;
            let n = buf.len().min(left);
            let (head, rest) = buf.split_at_mut(n);
            match self.place(offset / self.block) {
                None => head.fill(0),
                Some(base) => {
                    let at = base + within;
                    if at + n as u64 > self.file.size() {
                        return Err(bad_data("a block is outside the file"));
                    }
                    self.file.read_exact_at(head, at)?;
                }
            }
            (buf, offset) = (rest, offset + n as u64);
        }
        Ok(())
    }

    fn next_data(&self, mut offset: u64) -> io::Result<Option<Range<u64>>> {
        while offset < self.size {
            let number = offset / self.block;
            let end = ((number + 1) * self.block).min(self.size);
            let Some(base) = self.place(number) else {
                offset = end;
                continue;
            };
            // The file's own holes are holes of the disk.
            let within = offset % self.block;
            let found = self.file.next_data(base + within)?;
            let start_of = number * self.block;
            let range = found
                .map(|r| {
                    r.start.max(base + within) - base + start_of..r.end.max(base) - base + start_of
                })
                .filter(|r| r.start < end);
            match range {
                Some(range) => return Ok(Some(range.start..range.end.min(end))),
                // A block past the end of the file: reading it says so.
                None if base + within >= self.file.size() => return Ok(Some(offset..end)),
                None => offset = end,
            }
        }
        Ok(None)
    }
}
