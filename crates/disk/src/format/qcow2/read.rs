//! Reading versions 2 and 3: plain, deflate, zstd and zero clusters, and subclusters (extended L2
//! entries).
//!
//! The file is not trusted: every table is bounded by the file's length and by fixed limits before
//! it is read, memory does not grow with what the file claims, and no other file is opened unless the
//! caller handed in the means. Internal snapshots are not looked at.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use amiforge_types::ReadAt;

use super::layout::{COMPRESSED, COPIED, ENCODER_EXTENSION, MAGIC};
use crate::format::cache::Cache;
use crate::format::codec::{Expanders, Stream};
use crate::format::numbers::{be32, be64 as be64_at};
use crate::format::{Format, Gate, OpenError};

/// Largest L1 table that is read, as in QEMU: 32 MiB.
const MAX_L1_BYTES: u64 = 32 << 20;
/// Bits of a table entry that hold a host offset.
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;

const KNOWN_INCOMPAT: u64 = 0b1_1111;
const INCOMPAT_CORRUPT: u64 = 1 << 1;
const INCOMPAT_DATA_FILE: u64 = 1 << 2;
const INCOMPAT_EXTENDED_L2: u64 = 1 << 4;

/// Header extensions that name the format of the backing file, and the data file.
const BACKING_FORMAT: u32 = 0xE279_2ACA;
const DATA_FILE: u32 = 0x4441_5441;
/// Longest name of a backing file.
const MAX_NAME: u32 = 1023;
/// All 32 subclusters are in the file: what a cluster without extended entries is.
const ALL_SUBCLUSTERS: u64 = 0xFFFF_FFFF;

pub(super) struct Qcow2Disk {
    file: Arc<dyn ReadAt>,
    /// Where plain clusters are: the file itself, or its data file.
    data: Arc<dyn ReadAt>,
    /// What is read where nothing is allocated.
    backing: Option<Box<dyn ReadAt>>,
    /// There is a data file.
    external: bool,
    cluster_bits: u32,
    /// Entries of second-level tables are of 16 bytes.
    extended: bool,
    size: u64,
    expanders: Expanders,
    /// The text of [`ENCODER_EXTENSION`].
    encoder: Option<String>,
    /// Version 3 knows explicit zero clusters; in version 2 their bit is reserved.
    zero_flag: bool,
    l1: Vec<u64>,
    l2: Cache<u64>,
    clusters: Cache<u8>,
}

/// What a guest cluster is.
pub(super) enum Cluster {
    /// Zero by its own word.
    Zero,
    /// Not here: the backing file's, or zero.
    Absent,
    /// A host cluster, and for each 32nd of it a bit that it is there (0 to 31) or zero (32 to 63).
    Plain {
        offset: u64,
        map: u64,
    },
    Compressed {
        offset: u64,
        len: u64,
    },
}

fn corrupt(what: &'static str) -> OpenError {
    OpenError::Corrupt {
        format: Format::Qcow2,
        what,
    }
}

fn bad_data(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, corrupt(what))
}

impl Qcow2Disk {
    pub(super) fn open(file: Arc<dyn ReadAt>, gate: &Gate<'_>) -> Result<Self, OpenError> {
        let io_error = |source| OpenError::Io {
            format: Format::Qcow2,
            source,
        };
        let unsupported = |what: String| OpenError::Unsupported {
            format: Format::Qcow2,
            what,
        };
        let external = |what| OpenError::ExternalFile {
            format: Format::Qcow2,
            what,
        };

        let mut header = [0; 112];
        let have = usize::try_from(file.size())
            .unwrap_or(usize::MAX)
            .min(header.len());
        file.read_exact_at(&mut header[..have], 0)
            .map_err(io_error)?;
        let u32_at = |at: usize| be32(&header, at);
        let u64_at = |at: usize| be64_at(&header, at);
        if have < 72 || header[..4] != MAGIC {
            return Err(corrupt("the header is cut off"));
        }
        let version = u32_at(4);
        let (mut incompatible, mut zstd, mut encoder) = (0, false, None);
        match version {
            2 => {}
            3 => {
                if have < 104 || u32_at(100) < 104 {
                    return Err(corrupt("the header is cut off"));
                }
                incompatible = u64_at(72);
                zstd = match if u32_at(100) > 104 { header[104] } else { 0 } {
                    0 => false,
                    1 => true,
                    other => return Err(unsupported(format!("compression type {other}"))),
                };
            }
            other => return Err(unsupported(format!("version {other}"))),
        }
        if incompatible & INCOMPAT_DATA_FILE != 0 && gate.is_shut() {
            return Err(external("a data file"));
        }
        if u64_at(8) != 0 && gate.is_shut() {
            return Err(external("a backing file"));
        }
        if incompatible & !KNOWN_INCOMPAT != 0 {
            return Err(unsupported(format!(
                "incompatible features {:#x}",
                incompatible & !KNOWN_INCOMPAT
            )));
        }
        if incompatible & INCOMPAT_CORRUPT != 0 {
            return Err(corrupt("it is marked as corrupt"));
        }
        if u32_at(32) != 0 {
            return Err(unsupported("encryption".to_owned()));
        }
        let cluster_bits = u32_at(20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(corrupt("the cluster size is impossible"));
        }
        let cluster = 1u64 << cluster_bits;
        let extended = incompatible & INCOMPAT_EXTENDED_L2 != 0;
        if extended && cluster_bits < 14 {
            return Err(corrupt("the cluster size is impossible"));
        }
        let header_len = if version == 3 { u32_at(100) } else { 72 };
        let text_of = |kind| -> Result<Option<String>, OpenError> {
            let found = extension(&*file, u64::from(header_len), cluster, kind);
            Ok(found
                .map_err(io_error)?
                .and_then(|text| String::from_utf8(text).ok()))
        };
        if version == 3 {
            encoder = text_of(ENCODER_EXTENSION)?;
        }
        let mut data = Arc::clone(&file);
        if incompatible & INCOMPAT_DATA_FILE != 0 {
            let name = text_of(DATA_FILE)?.ok_or_else(|| corrupt("the data file has no name"))?;
            data = gate.open_bytes(Format::Qcow2, &name)?;
        }
        let mut backing = None;
        if u64_at(8) != 0 {
            let len = u32_at(16);
            let end = u64_at(8).checked_add(u64::from(len));
            if len == 0 || len > MAX_NAME || end.is_none_or(|end| end > cluster.min(file.size())) {
                return Err(corrupt(
                    "the name of the backing file is outside the header",
                ));
            }
            let mut name = vec![0; len as usize];
            file.read_exact_at(&mut name, u64_at(8)).map_err(io_error)?;
            let name = String::from_utf8(name)
                .map_err(|_| corrupt("the name of the backing file is no text"))?;
            // Formats are declared, never guessed.
            let format = text_of(BACKING_FORMAT)?
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| {
                    unsupported("a backing file whose format is not declared".to_owned())
                })?;
            backing = Some(gate.open_disk(Format::Qcow2, &name, format)?);
        }
        let size = u64_at(24);
        let entry_bytes = if extended { 16 } else { 8 };
        let needed = size.div_ceil(cluster * (cluster / entry_bytes));
        let (l1_entries, l1_offset) = (u64::from(u32_at(36)), u64_at(40));
        if needed > l1_entries || needed * 8 > MAX_L1_BYTES {
            return Err(corrupt("the first-level table does not cover the disk"));
        }
        if !l1_offset.is_multiple_of(cluster)
            || l1_offset
                .checked_add(needed * 8)
                .is_none_or(|end| end > file.size())
        {
            return Err(corrupt("the first-level table is outside the file"));
        }
        let mut bytes = vec![0; usize::try_from(needed * 8).unwrap_or(0)];
        file.read_exact_at(&mut bytes, l1_offset)
            .map_err(io_error)?;
        Ok(Self {
            file,
            external: incompatible & INCOMPAT_DATA_FILE != 0,
            data,
            backing,
            cluster_bits,
            extended,
            size,
            expanders: Expanders::new(if zstd { Stream::Zstd } else { Stream::Raw }),
            encoder,
            zero_flag: version == 3,
            l1: be64(&bytes),
            l2: Cache::default(),
            clusters: Cache::default(),
        })
    }

    pub(super) fn cluster_bits(&self) -> u32 {
        self.cluster_bits
    }

    pub(super) fn encoder(&self) -> Option<&str> {
        self.encoder.as_deref()
    }

    fn cluster_len(&self) -> usize {
        1 << self.cluster_bits
    }

    /// Guest clusters that one second-level table covers.
    fn l2_entries(&self) -> u64 {
        1 << (self.cluster_bits - if self.extended { 4 } else { 3 })
    }

    /// A second-level table; `None` when the first level has none there.
    fn l2(&self, number: u64) -> io::Result<Option<Arc<[u64]>>> {
        let entry = usize::try_from(number)
            .ok()
            .and_then(|n| self.l1.get(n))
            .copied()
            .unwrap_or(0);
        let offset = entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(None);
        }
        if let Some(found) = self.l2.get(number) {
            return Ok(Some(found));
        }
        let len = self.cluster_len();
        if !offset.is_multiple_of(len as u64)
            || offset
                .checked_add(len as u64)
                .is_none_or(|end| end > self.file.size())
        {
            return Err(bad_data("a second-level table is outside the file"));
        }
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(Some(self.l2.put(number, be64(&bytes).into(), len)))
    }

    /// The entry of a guest cluster in its table.
    fn decode(&self, table: &[u64], cluster: u64) -> Cluster {
        let slot = usize::try_from(cluster % self.l2_entries()).unwrap_or(0);
        let (entry, map) = if self.extended {
            (table[slot * 2], table[slot * 2 + 1])
        } else {
            (table[slot], ALL_SUBCLUSTERS)
        };
        let offset = entry & OFFSET_MASK;
        if entry & COMPRESSED != 0 {
            let shift = 62 - (self.cluster_bits - 8);
            let offset = entry & ((1 << shift) - 1);
            let sectors = (entry & (COMPRESSED - 1)) >> shift;
            return Cluster::Compressed {
                offset,
                len: (sectors + 1) * 512 - offset % 512,
            };
        }
        if self.extended {
            return match map {
                0 => Cluster::Absent,
                _ if map == !ALL_SUBCLUSTERS => Cluster::Zero,
                _ => Cluster::Plain { offset, map },
            };
        }
        match (offset, self.zero_flag && entry & 1 != 0) {
            (_, true) => Cluster::Zero,
            // Only in a data file the first cluster is one of the guest's.
            (0, false) if !self.external || entry & COPIED == 0 => Cluster::Absent,
            (offset, false) => Cluster::Plain { offset, map },
        }
    }

    pub(super) fn locate(&self, cluster: u64) -> io::Result<Cluster> {
        let table = self.l2(cluster / self.l2_entries())?;
        Ok(table.map_or(Cluster::Absent, |table| self.decode(&table, cluster)))
    }

    /// What the backing file has at a place of the disk; zeros past its end.
    fn read_backing(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let len = usize::try_from(backing.size().saturating_sub(offset))
            .unwrap_or(usize::MAX)
            .min(buf.len());
        buf[len..].fill(0);
        match len {
            // A disk cannot be read past its end, not even nothing of it.
            0 => Ok(()),
            _ => backing.read_exact_at(&mut buf[..len], offset),
        }
    }

    /// A part of a host cluster; what is past the end of the file but in the same cluster is zero.
    fn read_plain(&self, buf: &mut [u8], offset: u64, within: usize) -> io::Result<()> {
        if !offset.is_multiple_of(self.cluster_len() as u64) {
            return Err(bad_data("a cluster is not aligned"));
        }
        if offset >= self.data.size() {
            return Err(bad_data("a cluster is outside the file"));
        }
        let start = offset.saturating_add(within as u64);
        let have = usize::try_from(self.data.size().saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(buf.len());
        buf[have..].fill(0);
        match have {
            0 => Ok(()),
            _ => self.data.read_exact_at(&mut buf[..have], start),
        }
    }

    /// Reads from the file; what is past its end but in the same cluster reads as zero, because QEMU
    /// leaves the last cluster of a file short.
    pub(super) fn read_host(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let have = self
            .file
            .size()
            .checked_sub(offset)
            .filter(|have| *have > 0);
        let have = have.ok_or_else(|| bad_data("a cluster is outside the file"))?;
        let len = usize::try_from(have).unwrap_or(usize::MAX).min(buf.len());
        self.file.read_exact_at(&mut buf[..len], offset)?;
        buf[len..].fill(0);
        Ok(())
    }

    /// Fills `out`, a whole cluster, from `len` compressed bytes; the length of the stream.
    pub(super) fn expand(
        &self,
        offset: u64,
        len: u64,
        input: &mut Vec<u8>,
        out: &mut [u8],
    ) -> io::Result<usize> {
        input.clear();
        input.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        self.read_host(input, offset)?;
        self.expanders
            .expand(input, out)?
            .ok_or_else(|| bad_data("a compressed cluster does not decompress"))
    }

    fn decompressed(&self, cluster: u64, offset: u64, len: u64) -> io::Result<Arc<[u8]>> {
        if let Some(found) = self.clusters.get(cluster) {
            return Ok(found);
        }
        let mut out = vec![0; self.cluster_len()];
        self.expand(offset, len, &mut Vec::new(), &mut out)?;
        Ok(self.clusters.put(cluster, out.into(), self.cluster_len()))
    }

    fn read_in_cluster(&self, cluster: u64, within: usize, buf: &mut [u8]) -> io::Result<()> {
        let base = cluster << self.cluster_bits;
        match self.locate(cluster)? {
            Cluster::Zero => buf.fill(0),
            Cluster::Absent => self.read_backing(buf, base + within as u64)?,
            Cluster::Plain {
                offset,
                map: ALL_SUBCLUSTERS,
            } => self.read_plain(buf, offset, within)?,
            Cluster::Plain { offset, map } => {
                let unit = self.cluster_len() / 32;
                let (mut rest, mut at) = (buf, within);
                while !rest.is_empty() {
                    let n = rest.len().min(unit - at % unit);
                    let (head, tail) = rest.split_at_mut(n);
                    let bit = 1u64 << (at / unit);
                    if map & bit << 32 != 0 {
                        head.fill(0);
                    } else if map & bit != 0 {
                        self.read_plain(head, offset, at)?;
                    } else {
                        self.read_backing(head, base + at as u64)?;
                    }
                    (rest, at) = (tail, at + n);
                }
            }
            Cluster::Compressed { offset, len } if buf.len() == self.cluster_len() => {
                self.expand(offset, len, &mut Vec::new(), buf)?;
            }
            Cluster::Compressed { offset, len } => {
                let data = self.decompressed(cluster, offset, len)?;
                buf.copy_from_slice(&data[within..within + buf.len()]);
            }
        }
        Ok(())
    }
}

impl ReadAt for Qcow2Disk {
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
            let cluster = offset >> self.cluster_bits;
            let within = usize::try_from(offset - (cluster << self.cluster_bits))
                .map_err(io::Error::other)?;
            let n = buf.len().min(self.cluster_len() - within);
            let (head, rest) = buf.split_at_mut(n);
            self.read_in_cluster(cluster, within, head)?;
            (buf, offset) = (rest, offset + n as u64);
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let end = self.size.div_ceil(1 << self.cluster_bits);
        let bytes = |c: u64| (c << self.cluster_bits).min(self.size);
        let mut cluster = offset >> self.cluster_bits;
        while cluster < end {
            let number = cluster / self.l2_entries();
            let table_end = ((number + 1) * self.l2_entries()).min(end);
            let table = self.l2(number)?;
            let Some(table) = table else {
                if let Some(found) =
                    self.backing_data(offset.max(bytes(cluster)), bytes(table_end))?
                {
                    return Ok(Some(found));
                }
                cluster = table_end;
                continue;
            };
            let is_data = |c: u64| match self.decode(&table, c) {
                Cluster::Zero => false,
                Cluster::Absent => self.backing.is_some(),
                Cluster::Plain { .. } | Cluster::Compressed { .. } => true,
            };
            let Some(start) = (cluster..table_end).find(|c| is_data(*c)) else {
                cluster = table_end;
                continue;
            };
            let stop = (start..table_end)
                .find(|c| !is_data(*c))
                .unwrap_or(table_end);
            return Ok(Some(bytes(start).max(offset)..bytes(stop)));
        }
        Ok(None)
    }
}

impl Qcow2Disk {
    /// Data of the backing file within `start..end` of the disk.
    fn backing_data(&self, start: u64, end: u64) -> io::Result<Option<Range<u64>>> {
        let Some(backing) = &self.backing else {
            return Ok(None);
        };
        Ok(backing
            .next_data(start)?
            .filter(|found| found.start < end)
            .map(|found| found.start.max(start)..found.end.min(end)))
    }
}

/// Bytes of a header extension that are read; ours are shorter.
const MAX_EXTENSION: u64 = 1024;

/// The data of a header extension. The list begins behind the header and ends with the first cluster.
fn extension(file: &dyn ReadAt, mut at: u64, end: u64, wanted: u32) -> io::Result<Option<Vec<u8>>> {
    let end = end.min(file.size());
    while at.checked_add(8).is_some_and(|data| data <= end) {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at)?;
        let (kind, len) = (be32(&head, 0), u64::from(be32(&head, 4)));
        if kind == 0 || len > end - at - 8 {
            return Ok(None);
        }
        if kind == wanted && len <= MAX_EXTENSION {
            let mut data = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_exact_at(&mut data, at + 8)?;
            return Ok(Some(data));
        }
        at += 8 + len.next_multiple_of(8);
    }
    Ok(None)
}

fn be64(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks_exact(8)
        .map(|c| u64::from_be_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
        .collect()
}
