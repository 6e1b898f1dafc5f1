//! Writing streamOptimized: grains are compressed by all threads and written in order by one.

use std::io;

use amiforge_types::{Digest, Hasher, SECTOR, WriteAt};

use super::layout::{
    AT_END, GRAIN, GRAIN_SECTORS, Header, Marker, OVERHEAD, TABLE, descriptor, marker,
};
use crate::Compression;
use crate::digest::is_zero;
use crate::emit::{Encoded, Finished, Ordered, Output, Parallel, Sinks, Window, WindowPlan};
use crate::format::codec::{CLUSTER_LEN, Codecs, Wrapping};

/// Room for a grain that does not shrink: stored as it is, with a few bytes for every block of the
/// stream. The fast levels of deflate may need more; they are then not used.
const GRAIN_LIMIT: usize = CLUSTER_LEN + 512;

pub(super) fn sinks<'a>(plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
    output.target.set_len(0)?;
    let capacity = plan.disk_size().div_ceil(SECTOR);
    let tables = capacity.div_ceil(GRAIN_SECTORS * TABLE).max(1);
    let compression = match output.compression {
        Compression::Zlib(level) => Compression::Zlib(level),
        // Grains of this subformat are always compressed.
        Compression::None | Compression::Zstd(_) => Compression::ZLIB,
    };
    let mut stream = Stream {
        target: output.target,
        at: 0,
        hasher: output.sha256.then(Hasher::new),
    };
    stream.put(&Header::stream_optimized(capacity, AT_END).encode())?;
    stream.put(&descriptor(capacity))?;
    stream.pad_to(OVERHEAD * SECTOR)?;
    Ok(Sinks {
        parallel: Box::new(Encoder {
            codecs: Codecs::new(compression, Wrapping::Zlib),
            stored: Codecs::new(Compression::Zlib(0), Wrapping::Zlib),
        }),
        ordered: Some(Box::new(Packer {
            stream,
            capacity,
            directory: vec![0; usize::try_from(tables).map_err(io::Error::other)?],
            table: None,
        })),
        fixed_bytes: 0,
    })
}

struct Encoder {
    codecs: Codecs,
    /// Level 0: for grains that grow.
    stored: Codecs,
}

impl Parallel for Encoder {
    /// Every grain that is not all zero, with its marker, padded to whole sectors.
    fn accept(&self, window: &Window) -> io::Result<Encoded> {
        let mut codec = self.codecs.lend()?;
        let mut encoded = Encoded::default();
        let mut full = Vec::new();
        for (number, grain) in (window.offset() / GRAIN..).zip(window.bytes().chunks(CLUSTER_LEN)) {
            if is_zero(grain) {
                continue;
            }
            full.clear();
            let grain = if grain.len() == CLUSTER_LEN {
                grain
            } else {
                full.extend_from_slice(grain);
                full.resize(CLUSTER_LEN, 0);
                &full
            };
            let bytes = &mut encoded.bytes;
            let start = bytes.len();
            bytes.extend((number * GRAIN_SECTORS).to_le_bytes());
            bytes.extend([0; 4]);
            if !codec.compress(grain, bytes, GRAIN_LIMIT)?
                && !self.stored.lend()?.compress(grain, bytes, GRAIN_LIMIT)?
            {
                return Err(io::Error::other("a grain outgrows its bound"));
            }
            let len = u32::try_from(bytes.len() - start - 12).map_err(io::Error::other)?;
            bytes[start + 8..start + 12].copy_from_slice(&len.to_le_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
            encoded.clusters.push((number, start..bytes.len()));
        }
        Ok(encoded)
    }
}

/// The file, written from front to back.
struct Stream<'a> {
    target: &'a dyn WriteAt,
    at: u64,
    hasher: Option<Hasher>,
}

impl Stream<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.target.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn pad_to(&mut self, end: u64) -> io::Result<()> {
        let len = usize::try_from(end.saturating_sub(self.at)).map_err(io::Error::other)?;
        self.put(&vec![0; len])
    }

    /// Place of the next byte in sectors, as the tables say it.
    fn sector(&self) -> io::Result<u32> {
        u32::try_from(self.at / SECTOR).map_err(|_| io::ErrorKind::FileTooLarge.into())
    }
}

struct Packer<'a> {
    stream: Stream<'a>,
    capacity: u64,
    directory: Vec<u32>,
    /// The grain table being filled and its number.
    table: Option<(u64, Vec<u32>)>,
}

impl Packer<'_> {
    fn flush_table(&mut self) -> io::Result<()> {
        let Some((number, table)) = self.table.take() else {
            return Ok(());
        };
        self.stream
            .put(&marker(TABLE * 4 / SECTOR, Marker::GrainTable))?;
        let at = self.stream.sector()?;
        if let Some(entry) = usize::try_from(number)
            .ok()
            .and_then(|n| self.directory.get_mut(n))
        {
            *entry = at;
        }
        self.stream.put(&le(&table))
    }
}

/// Little-endian table, padded to whole sectors.
fn le(entries: &[u32]) -> Vec<u8> {
    let mut out: Vec<u8> = entries.iter().flat_map(|e| e.to_le_bytes()).collect();
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

impl Ordered for Packer<'_> {
    fn accept(&mut self, _window: &Window, encoded: Encoded) -> io::Result<()> {
        // The window lies within one table's 32 MiB, so its grains are one run of the file.
        let Some((first, _)) = encoded.clusters.first() else {
            return Ok(());
        };
        let number = first / TABLE;
        if self.table.as_ref().is_some_and(|(open, _)| *open != number) {
            self.flush_table()?;
        }
        let base = self.stream.sector()?;
        let (_, table) = self.table.get_or_insert_with(|| (number, vec![0; 512]));
        for (grain, range) in &encoded.clusters {
            let sector = u32::try_from(range.start / 512).map_err(io::Error::other)?;
            let slot = usize::try_from(grain % TABLE).map_err(io::Error::other)?;
            table[slot] = base
                .checked_add(sector)
                .ok_or(io::ErrorKind::FileTooLarge)?;
        }
        self.stream.put(&encoded.bytes)
    }

    fn finish(mut self: Box<Self>, _content: Option<&Digest>) -> io::Result<Finished> {
        self.flush_table()?;
        let directory = le(&self.directory);
        let sectors = directory.len() as u64 / SECTOR;
        self.stream.put(&marker(sectors, Marker::GrainDirectory))?;
        let at = u64::from(self.stream.sector()?);
        self.stream.put(&directory)?;
        self.stream.put(&marker(1, Marker::Footer))?;
        self.stream
            .put(&Header::stream_optimized(self.capacity, at).encode())?;
        self.stream.put(&marker(0, Marker::EndOfStream))?;
        Ok(Finished {
            bytes: self.stream.at,
            sha256: self.stream.hasher.map(Hasher::finish),
        })
    }
}
