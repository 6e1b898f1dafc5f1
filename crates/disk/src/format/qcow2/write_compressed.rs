//! Packed qcow2: clusters are compressed by all threads and placed in order by one. Also the plain
//! file whose clusters are found by their content: nothing is compressed, zeros are left out.

use std::io;
use std::ops::Range;

use amiforge_types::{Digest, ReadAt, WriteAt};

use super::Previous;
use super::layout::{
    CLUSTER, COMPRESSED, COMPRESSED_SHIFT, COPIED, Header, L2_ENTRIES, REFCOUNTS, l1_entries,
    refcount_clusters, table, virtual_bytes,
};
use crate::Compression;
use crate::digest::is_zero;
use crate::emit::{
    Encoded, Finished, Ordered, Output, Parallel, Sinks, Window, WindowPlan, hash_file,
};
use crate::format::codec::{CLUSTER_LEN, Codecs, Wrapping};

pub(super) fn sinks<'a>(plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
    output.target.set_len(0)?;
    let virtual_bytes = virtual_bytes(plan.disk_size());
    let codecs = Codecs::new(output.compression, Wrapping::Qcow2);
    let packer = Packer {
        target: output.target,
        readback: output.readback.filter(|_| output.sha256),
        virtual_bytes,
        zstd: matches!(output.compression, Compression::Zstd(_)),
        encoder: codecs.name(),
        l1: vec![0; usize::try_from(l1_entries(virtual_bytes)).map_err(io::Error::other)?],
        l2: None,
        refcounts: vec![1],
        pack: CLUSTER,
    };
    let previous = output.previous.filter(|previous| {
        previous.encoder().is_some() && previous.encoder() == packer.encoder.as_deref()
    });
    Ok(Sinks {
        parallel: Box::new(Encoder { codecs, previous }),
        ordered: Some(Box::new(packer)),
        fixed_bytes: 0,
    })
}

struct Encoder<'a> {
    codecs: Codecs,
    previous: Option<&'a Previous>,
}

impl Parallel for Encoder<'_> {
    /// Every cluster that is not all zero: compressed, or empty to say "store it plain".
    fn accept(&self, window: &Window) -> io::Result<Encoded> {
        let mut codec = self.codecs.lend()?;
        let mut encoded = Encoded::default();
        for (number, cluster) in
            (window.offset() / CLUSTER..).zip(window.bytes().chunks(CLUSTER_LEN))
        {
            if is_zero(cluster) {
                continue;
            }
            let full;
            let cluster = if cluster.len() == CLUSTER_LEN {
                cluster
            } else {
                full = padded(cluster);
                &full
            };
            let start = encoded.bytes.len();
            // A previous file that cannot be read is no help, and no error of this output.
            let taken = self
                .previous
                .is_some_and(|p| p.take(number, cluster, &mut encoded.bytes).unwrap_or(false));
            if !taken {
                encoded.bytes.truncate(start);
                codec.compress(cluster, &mut encoded.bytes, CLUSTER_LEN - 1)?;
            }
            encoded.clusters.push((number, start..encoded.bytes.len()));
        }
        Ok(encoded)
    }
}

fn padded(cluster: &[u8]) -> Vec<u8> {
    let mut out = cluster.to_vec();
    out.resize(CLUSTER_LEN, 0);
    out
}

struct Packer<'a> {
    target: &'a dyn WriteAt,
    readback: Option<&'a dyn ReadAt>,
    virtual_bytes: u64,
    zstd: bool,
    encoder: Option<String>,
    l1: Vec<u64>,
    /// The L2 table being filled and its number.
    l2: Option<(u64, Vec<u64>)>,
    /// Users of every cluster of the file so far; its length is the end of the file.
    refcounts: Vec<u16>,
    /// Next free byte of the cluster that takes compressed data; at a cluster's start: none is open.
    pack: u64,
}

impl Packer<'_> {
    /// Offset of the first cluster never used.
    fn end(&self) -> u64 {
        self.refcounts.len() as u64 * CLUSTER
    }

    /// One whole cluster.
    fn allocate(&mut self) -> u64 {
        let offset = self.end();
        self.refcounts.push(1);
        offset
    }

    /// Room for compressed bytes: behind the last ones if they fit, also across the end of the file.
    fn allocate_bytes(&mut self, len: u64) -> u64 {
        let limit = self.pack.next_multiple_of(CLUSTER);
        if self.pack + len > limit && limit != self.end() || self.pack == limit {
            self.pack = self.end();
        }
        let offset = self.pack;
        self.pack += len;
        for cluster in offset / CLUSTER..=(self.pack - 1) / CLUSTER {
            match usize::try_from(cluster)
                .ok()
                .and_then(|c| self.refcounts.get_mut(c))
            {
                Some(count) => *count += 1,
                None => self.refcounts.push(1),
            }
        }
        offset
    }

    fn map(&mut self, cluster: u64, entry: u64) -> io::Result<()> {
        let (table, slot) = (
            cluster / L2_ENTRIES,
            usize::try_from(cluster % L2_ENTRIES).map_err(io::Error::other)?,
        );
        if self.l2.as_ref().is_some_and(|(number, _)| *number != table) {
            self.flush_l2()?;
        }
        self.l2.get_or_insert_with(|| (table, vec![0; 1 << 13])).1[slot] = entry;
        Ok(())
    }

    fn flush_l2(&mut self) -> io::Result<()> {
        if let Some((number, entries)) = self.l2.take() {
            let offset = self.allocate();
            self.target
                .write_all_at(&table(entries.into_iter()), offset)?;
            self.l1[usize::try_from(number).map_err(io::Error::other)?] = offset | COPIED;
        }
        Ok(())
    }
}

/// A write that the next cluster may lengthen.
struct Pending<'w> {
    offset: u64,
    from: &'w [u8],
    range: Range<usize>,
}

impl<'w> Pending<'w> {
    fn add(slot: &mut Option<Self>, next: Self, target: &dyn WriteAt) -> io::Result<()> {
        match slot {
            Some(last)
                if std::ptr::eq(last.from, next.from)
                    && last.range.end == next.range.start
                    && last.offset + last.range.len() as u64 == next.offset =>
            {
                last.range.end = next.range.end;
                Ok(())
            }
            _ => match slot.replace(next) {
                Some(ready) => ready.write(target),
                None => Ok(()),
            },
        }
    }

    fn write(self, target: &dyn WriteAt) -> io::Result<()> {
        target.write_all_at(&self.from[self.range], self.offset)
    }
}

impl Ordered for Packer<'_> {
    fn accept(&mut self, window: &Window, encoded: Encoded) -> io::Result<()> {
        let mut pending = None;
        for (cluster, range) in encoded.clusters {
            let next = if range.is_empty() {
                let offset = self.allocate();
                self.map(cluster, offset | COPIED)?;
                let start = usize::try_from(cluster * CLUSTER - window.offset())
                    .map_err(io::Error::other)?;
                Pending {
                    offset,
                    from: window.bytes(),
                    range: start..(start + CLUSTER_LEN).min(window.bytes().len()),
                }
            } else {
                let len = range.len() as u64;
                let offset = self.allocate_bytes(len);
                let further_sectors = (offset % 512 + len - 1) / 512;
                self.map(
                    cluster,
                    COMPRESSED | further_sectors << COMPRESSED_SHIFT | offset,
                )?;
                Pending {
                    offset,
                    from: &encoded.bytes,
                    range,
                }
            };
            Pending::add(&mut pending, next, self.target)?;
        }
        match pending {
            Some(last) => last.write(self.target),
            None => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>, _content: Option<&Digest>) -> io::Result<Finished> {
        self.flush_l2()?;
        let l1 = table(self.l1.iter().copied());
        let l1_offset = self.end();
        let l1_clusters = l1.len() / CLUSTER_LEN;
        self.refcounts.extend(std::iter::repeat_n(1, l1_clusters));
        self.target.write_all_at(&l1, l1_offset)?;

        let (blocks, table_clusters) = refcount_clusters(self.refcounts.len() as u64);
        let blocks_offset = self.end();
        let table_offset = blocks_offset + blocks * CLUSTER;
        for _ in 0..blocks + table_clusters {
            self.allocate();
        }
        let per_block = usize::try_from(REFCOUNTS).map_err(io::Error::other)?;
        for (counts, offset) in self
            .refcounts
            .chunks(per_block)
            .zip((blocks_offset..).step_by(CLUSTER_LEN))
        {
            let bytes: Vec<u8> = counts.iter().flat_map(|c| c.to_be_bytes()).collect();
            self.target.write_all_at(&bytes, offset)?;
        }
        let entries = table((0..blocks).map(|b| blocks_offset + b * CLUSTER));
        self.target.write_all_at(&entries, table_offset)?;

        let header = Header {
            virtual_bytes: self.virtual_bytes,
            l1_entries: self.l1.len() as u64,
            l1_offset,
            refcount_table_offset: table_offset,
            refcount_table_clusters: table_clusters,
            zstd: self.zstd,
            encoder: self.encoder.take(),
        };
        self.target
            .write_all_at(&header.encode().ok_or(io::ErrorKind::FileTooLarge)?, 0)?;
        let bytes = self.end();
        self.target.set_len(bytes)?;
        Ok(Finished {
            bytes,
            sha256: self
                .readback
                .map(|file| hash_file(file, bytes))
                .transpose()?,
        })
    }
}
