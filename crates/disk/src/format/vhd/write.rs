//! Writing: a fixed disk's data goes to its own offsets from all threads; a dynamic one's blocks are
//! placed in order, since only the data tells which there are.

use std::io;

use amiforge_types::{Digest, Hasher, ReadAt, SECTOR, WriteAt};

use super::layout::{
    ABSENT, BITMAP, BLOCK, HEADER_AT, Kind, TABLE_AT, footer, header, virtual_bytes,
};
use crate::emit::{
    Encoded, Finished, Ordered, Output, Parallel, Sinks, Window, WindowPlan, feed_zeros, hash_file,
};
use crate::format::raw::{RawWrite, non_zero};

pub(super) fn fixed<'a>(plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
    let size = virtual_bytes(plan.disk_size());
    output.target.set_len(size + 512)?;
    Ok(Sinks {
        parallel: Box::new(RawWrite::new(output)),
        ordered: Some(Box::new(Fixed {
            target: output.target,
            hasher: output.sha256.then(Hasher::new),
            at: 0,
            size,
        })),
        fixed_bytes: 0,
    })
}

/// Hashes a fixed disk, and adds the footer.
struct Fixed<'a> {
    target: &'a dyn WriteAt,
    hasher: Option<Hasher>,
    at: u64,
    size: u64,
}

fn known(content: Option<&Digest>) -> io::Result<&Digest> {
    content.ok_or_else(|| io::Error::other("the content digest was not computed"))
}

impl Ordered for Fixed<'_> {
    fn accept(&mut self, window: &Window, _encoded: Encoded) -> io::Result<()> {
        if let Some(hasher) = &mut self.hasher {
            feed_zeros(hasher, window.offset() - self.at);
            hasher.update(window.bytes());
        }
        self.at = window.offset() + window.bytes().len() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>, content: Option<&Digest>) -> io::Result<Finished> {
        let footer = footer(Kind::Fixed, self.size, known(content)?);
        self.target.write_all_at(&footer, self.size)?;
        if let Some(hasher) = &mut self.hasher {
            feed_zeros(hasher, self.size - self.at);
            hasher.update(&footer);
        }
        Ok(Finished {
            bytes: self.size + 512,
            sha256: self.hasher.map(Hasher::finish),
        })
    }
}

pub(super) fn dynamic<'a>(plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
    output.target.set_len(0)?;
    let size = virtual_bytes(plan.disk_size());
    let entries = size.div_ceil(BLOCK);
    let table_bytes = (entries * 4).next_multiple_of(SECTOR);
    Ok(Sinks {
        parallel: Box::new(Zeros),
        ordered: Some(Box::new(Dynamic {
            target: output.target,
            readback: output.readback.filter(|_| output.sha256),
            size,
            table: vec![ABSENT; usize::try_from(entries).map_err(io::Error::other)?],
            end: TABLE_AT + table_bytes,
        })),
        fixed_bytes: 0,
    })
}

/// Finds what is not zero, by pages.
struct Zeros;

impl Parallel for Zeros {
    fn accept(&self, window: &Window) -> io::Result<Encoded> {
        let all = 0..window.bytes().len();
        Ok(Encoded {
            clusters: non_zero(window.bytes(), all, 4096)
                .zip(0..)
                .map(|(range, n)| (n, range))
                .collect(),
            bytes: Vec::new(),
        })
    }
}

struct Dynamic<'a> {
    target: &'a dyn WriteAt,
    readback: Option<&'a dyn ReadAt>,
    size: u64,
    table: Vec<u32>,
    /// Where the next block goes.
    end: u64,
}

impl Ordered for Dynamic<'_> {
    fn accept(&mut self, window: &Window, encoded: Encoded) -> io::Result<()> {
        if encoded.clusters.is_empty() {
            return Ok(());
        }
        // A window is half a block, aligned.
        let entry = usize::try_from(window.offset() / BLOCK)
            .ok()
            .and_then(|n| self.table.get_mut(n))
            .ok_or(io::ErrorKind::InvalidInput)?;
        if *entry == ABSENT {
            *entry = u32::try_from(self.end / SECTOR).map_err(|_| io::ErrorKind::FileTooLarge)?;
            self.target.write_all_at(&[0xFF; 512], self.end)?;
            self.end += BITMAP + BLOCK;
        }
        let base = u64::from(*entry) * SECTOR + BITMAP + window.offset() % BLOCK;
        for (_, range) in encoded.clusters {
            let at = base + range.start as u64;
            self.target.write_all_at(&window.bytes()[range], at)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, content: Option<&Digest>) -> io::Result<Finished> {
        let footer = footer(Kind::Dynamic, self.size, known(content)?);
        let bytes = self.end + 512;
        self.target.set_len(bytes)?;
        self.target.write_all_at(&footer, self.end)?;
        let mut table: Vec<u8> = self.table.iter().flat_map(|e| e.to_be_bytes()).collect();
        table.resize(table.len().next_multiple_of(512), 0xFF);
        self.target.write_all_at(&table, TABLE_AT)?;
        let entries = u32::try_from(self.table.len()).map_err(io::Error::other)?;
        let header = header(entries).ok_or(io::ErrorKind::FileTooLarge)?;
        self.target.write_all_at(&header, HEADER_AT)?;
        self.target.write_all_at(&footer, 0)?;
        Ok(Finished {
            bytes,
            sha256: self
                .readback
                .map(|file| hash_file(file, bytes))
                .transpose()?,
        })
    }
}
