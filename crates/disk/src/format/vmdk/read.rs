//! Reading sparse extents: streamOptimized and monolithicSparse, of VMware, VirtualBox and QEMU.
//!
//! The file is not trusted: tables are bounded by the file's length before they are read, and a
//! descriptor that names other files, or a parent, is refused.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use amiforge_types::{ReadAt, SECTOR};

use super::layout::{
    AT_END, DESCRIPTOR_MAGIC, FLAG_COMPRESSED, FLAG_MARKERS, FLAG_ZERO_GRAINS, Header,
};
use crate::format::cache::Cache;
use crate::format::codec::{Expanders, Stream};
use crate::format::numbers::{le32, le64};
use crate::format::{Format, OpenError};

/// Largest grain directory that is read: enough for 2^32 grains in tables of 512.
const MAX_DIRECTORY_BYTES: u64 = 32 << 20;
/// Largest descriptor that is read.
const MAX_DESCRIPTOR_BYTES: u64 = 64 << 10;
/// Grains of 4 KiB to 1 MiB; every tool writes 64 KiB.
const GRAIN_SECTORS: Range<u64> = 8..2049;

pub(super) struct VmdkDisk {
    file: Arc<dyn ReadAt>,
    size: u64,
    grain: u64,
    /// Entries of a grain table.
    table_entries: u64,
    zero_grains: bool,
    compressed: bool,
    markers: bool,
    directory: Vec<u32>,
    tables: Cache<u32>,
    grains: Cache<u8>,
    expanders: Expanders,
}

fn corrupt(what: &'static str) -> OpenError {
    OpenError::Corrupt {
        format: Format::Vmdk,
        what,
    }
}

fn bad_data(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, corrupt(what))
}

fn unsupported(what: impl Into<String>) -> OpenError {
    OpenError::Unsupported {
        format: Format::Vmdk,
        what: what.into(),
    }
}

fn io_error(source: io::Error) -> OpenError {
    OpenError::Io {
        format: Format::Vmdk,
        source,
    }
}

impl VmdkDisk {
    pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Self, OpenError> {
        let size = file.size();
        let mut first = [0; 512];
        let have = usize::try_from(size).unwrap_or(512).min(512);
        file.read_exact_at(&mut first[..have], 0)
            .map_err(io_error)?;
        if first.starts_with(DESCRIPTOR_MAGIC) {
            return Err(OpenError::ExternalFile {
                format: Format::Vmdk,
                what: "an extent file",
            });
        }
        let cut = || corrupt("the header is cut off");
        let mut header = Header::decode(&first)
            .filter(|_| have == 512)
            .ok_or_else(cut)?;
        if header.directory == AT_END {
            // … footer, end marker: each a sector, at the end of the file.
            let at = size.checked_sub(2 * SECTOR).ok_or_else(cut)?;
            let mut last = [0; 512];
            file.read_exact_at(&mut last, at).map_err(io_error)?;
            let footer = Header::decode(&last).ok_or_else(|| corrupt("it has no footer"))?;
            if footer.capacity != header.capacity
                || footer.grain_sectors != header.grain_sectors
                || footer.table_entries != header.table_entries
                || footer.flags != header.flags
                || footer.compression != header.compression
            {
                return Err(corrupt("header and footer differ"));
            }
            header.directory = footer.directory;
        }
        if !(1..=3).contains(&header.version) {
            return Err(unsupported(format!("version {}", header.version)));
        }
        let compressed = header.flags & FLAG_COMPRESSED != 0;
        if header.compression > u16::from(compressed) {
            return Err(unsupported(format!("compression {}", header.compression)));
        }
        if !GRAIN_SECTORS.contains(&header.grain_sectors) || !header.grain_sectors.is_power_of_two()
        {
            return Err(corrupt("the grain size is impossible"));
        }
        if !(1..=512).contains(&header.table_entries) {
            return Err(corrupt("the size of the grain tables is impossible"));
        }
        check_descriptor(&*file, header.descriptor)?;

        let disk = header
            .capacity
            .checked_mul(SECTOR)
            .ok_or_else(|| corrupt("the disk is too large"))?;
        let table_sectors = header.grain_sectors * u64::from(header.table_entries);
        let entries = header.capacity.div_ceil(table_sectors);
        let end = header
            .directory
            .checked_mul(SECTOR)
            .and_then(|at| at.checked_add(entries * 4));
        if entries * 4 > MAX_DIRECTORY_BYTES || end.is_none_or(|end| end > size) {
            return Err(corrupt("the grain directory is outside the file"));
        }
        let mut bytes = vec![0; usize::try_from(entries * 4).map_err(|_| cut())?];
        file.read_exact_at(&mut bytes, header.directory * SECTOR)
            .map_err(io_error)?;
        Ok(Self {
            file,
            size: disk,
            grain: header.grain_sectors * SECTOR,
            table_entries: u64::from(header.table_entries),
            zero_grains: header.flags & FLAG_ZERO_GRAINS != 0,
            compressed,
            markers: header.flags & FLAG_MARKERS != 0,
            directory: words(&bytes),
            tables: Cache::default(),
            grains: Cache::default(),
            expanders: Expanders::new(Stream::Zlib),
        })
    }

    fn grain_len(&self) -> usize {
        usize::try_from(self.grain).unwrap_or(usize::MAX)
    }

    /// A grain table; `None` when the directory has none there.
    fn table(&self, number: u64) -> io::Result<Option<Arc<[u32]>>> {
        let entry = usize::try_from(number)
            .ok()
            .and_then(|n| self.directory.get(n))
            .map_or(0, |sector| u64::from(*sector));
        if entry == 0 {
            return Ok(None);
        }
        if let Some(found) = self.tables.get(number) {
            return Ok(Some(found));
        }
        let len = self.table_entries * 4;
        if entry * SECTOR + len > self.file.size() {
            return Err(bad_data("a grain table is outside the file"));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, entry * SECTOR)?;
        Ok(Some(self.tables.put(
            number,
            words(&bytes).into(),
            bytes.len(),
        )))
    }

    /// The byte offset of an entry's grain; `None` for zeros.
    fn place(&self, entry: u32) -> Option<u64> {
        match entry {
            0 => None,
            1 if self.zero_grains => None,
            sector => Some(u64::from(sector) * SECTOR),
        }
    }

    /// Fills `out`, a whole grain, from a compressed one.
    fn expand(&self, grain: u64, at: u64, out: &mut [u8]) -> io::Result<()> {
        let head_len = if self.markers { 12 } else { 4 };
        let mut head = [0; 12];
        let outside = || bad_data("a grain is outside the file");
        if at + head_len as u64 > self.file.size() {
            return Err(outside());
        }
        self.file.read_exact_at(&mut head[..head_len], at)?;
        let len = u64::from(le32(&head, head_len - 4));
        if self.markers && le64(&head, 0) != grain * (self.grain / SECTOR) {
            return Err(bad_data("a grain is not where its marker says"));
        }
        // Deflate grows by a thousandth at most.
        if len > self.grain * 2 || at + head_len as u64 + len > self.file.size() {
            return Err(outside());
        }
        let mut input = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut input, at + head_len as u64)?;
        // The last grain of a disk may be as short as the disk.
        let left = usize::try_from(self.size.saturating_sub(grain * self.grain))
            .unwrap_or(usize::MAX)
            .min(out.len());
        if self.expanders.expand(&input, out)?.is_none() {
            let short = self.expanders.expand(&input, &mut out[..left])?;
            if left == out.len() || short.is_none() {
                return Err(bad_data("a grain does not decompress"));
            }
            out[left..].fill(0);
        }
        Ok(())
    }

    fn read_in_grain(&self, grain: u64, within: usize, buf: &mut [u8]) -> io::Result<()> {
        let table = self.table(grain / self.table_entries)?;
        let slot = usize::try_from(grain % self.table_entries).map_err(io::Error::other)?;
        let Some(at) = table.and_then(|table| self.place(table[slot])) else {
            buf.fill(0);
            return Ok(());
        };
        if self.compressed {
            if buf.len() == self.grain_len() {
                return self.expand(grain, at, buf);
            }
            let data = match self.grains.get(grain) {
                Some(found) => found,
                None => {
                    let mut out = vec![0; self.grain_len()];
                    self.expand(grain, at, &mut out)?;
                    self.grains.put(grain, out.into(), self.grain_len())
                }
            };
            buf.copy_from_slice(&data[within..within + buf.len()]);
            return Ok(());
        }
        // The last grain of a file may be short.
        if at >= self.file.size() {
            return Err(bad_data("a grain is outside the file"));
        }
        let start = at + within as u64;
        let have = usize::try_from(self.file.size().saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(buf.len());
        buf[have..].fill(0);
        match have {
            0 => Ok(()),
            _ => self.file.read_exact_at(&mut buf[..have], start),
        }
    }
}

impl ReadAt for VmdkDisk {
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
            let grain = offset / self.grain;
            let within = usize::try_from(offset % self.grain).map_err(io::Error::other)?;
            let n = buf.len().min(self.grain_len() - within);
            let (head, rest) = buf.split_at_mut(n);
            self.read_in_grain(grain, within, head)?;
            (buf, offset) = (rest, offset + n as u64);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let end = self.size.div_ceil(self.grain);
        let mut grain = offset / self.grain;
        while grain < end {
            let number = grain / self.table_entries;
            let table_end = ((number + 1) * self.table_entries).min(end);
            let Some(table) = self.table(number)? else {
                grain = table_end;
                continue;
            };
            let is_data = |g: u64| {
                usize::try_from(g % self.table_entries)
                    .ok()
                    .and_then(|slot| table.get(slot))
                    .is_some_and(|entry| self.place(*entry).is_some())
            };
            let Some(start) = (grain..table_end).find(|g| is_data(*g)) else {
                grain = table_end;
                continue;
            };
            let stop = (start..table_end)
                .find(|g| !is_data(*g))
                .unwrap_or(table_end);
            let bytes = |g: u64| (g * self.grain).min(self.size);
            return Ok(Some(bytes(start).max(offset)..bytes(stop)));
        }
        Ok(None)
    }
}

/// Refuses a descriptor that names a parent or more than the file it stands in.
fn check_descriptor(file: &dyn ReadAt, (at, len): (u64, u64)) -> Result<(), OpenError> {
    let outside = || corrupt("the descriptor is outside the file");
    // The pieces of a disk in several files have none, or an empty one.
    let elsewhere = || unsupported("a descriptor in another file");
    if at == 0 || len == 0 {
        return Err(elsewhere());
    }
    let start = at.checked_mul(SECTOR).ok_or_else(outside)?;
    let len = len.checked_mul(SECTOR).ok_or_else(outside)?;
    let len = len.min(MAX_DESCRIPTOR_BYTES);
    if start.checked_add(len).is_none_or(|end| end > file.size()) {
        return Err(outside());
    }
    let mut text = vec![0; usize::try_from(len).map_err(|_| outside())?];
    file.read_exact_at(&mut text, start).map_err(io_error)?;
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    let text = String::from_utf8_lossy(&text[..end]);
    let mut extents = 0;
    for line in text.lines().map(str::trim) {
        let lower = line.to_ascii_lowercase();
        if let Some(parent) = lower.strip_prefix("parentcid=")
            && parent.trim() != "ffffffff"
        {
            return Err(OpenError::ExternalFile {
                format: Format::Vmdk,
                what: "a parent disk",
            });
        }
        if ["rw ", "rdonly ", "noaccess "]
            .iter()
            .any(|access| lower.starts_with(access))
        {
            extents += 1;
            if lower.split_whitespace().nth(2) != Some("sparse") {
                return Err(OpenError::ExternalFile {
                    format: Format::Vmdk,
                    what: "an extent file",
                });
            }
        }
    }
    match extents {
        0 => Err(elsewhere()),
        1 => Ok(()),
        _ => Err(OpenError::ExternalFile {
            format: Format::Vmdk,
            what: "several extent files",
        }),
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|c| le32(c, 0)).collect()
}
