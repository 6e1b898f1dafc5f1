//! Compressed qcow2: clusters are compressed by all threads and packed in order by one.

use std::io;
use std::sync::{Mutex, PoisonError};

use amiforge_types::{Hasher, ReadAt, WriteAt};
use flate2::{Compress, FlushCompress, Status};

use super::layout::{
    CLUSTER, COMPRESSED, COMPRESSED_SHIFT, COPIED, Header, L2_ENTRIES, REFCOUNTS, l1_entries,
    refcount_clusters, table, virtual_bytes,
};
use crate::Compression;
use crate::digest::is_zero;
use crate::emit::{Encoded, Finished, Ordered, Output, Parallel, Sinks, Window, WindowPlan};

const CLUSTER_LEN: usize = 1 << 16;

pub(super) fn sinks<'a>(plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
    output.target.set_len(0)?;
    let virtual_bytes = virtual_bytes(plan.disk_size());
    let packer = Packer {
        target: output.target,
        readback: output.readback.filter(|_| output.sha256),
        virtual_bytes,
        zstd: matches!(output.compression, Compression::Zstd(_)),
        l1: vec![0; usize::try_from(l1_entries(virtual_bytes)).map_err(io::Error::other)?],
        l2: None,
        refcounts: vec![1],
        pack: CLUSTER,
    };
    Ok(Sinks {
        parallel: Box::new(Encoder {
            compression: output.compression,
            idle: Mutex::new(Vec::new()),
        }),
        ordered: Some(Box::new(packer)),
        fixed_bytes: 0,
    })
}

enum Codec {
    Deflate(Box<Compress>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Codec {
    fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd(level) => {
                let mut codec = zstd::bulk::Compressor::new(i32::from(level.clamp(1, 19)))?;
                codec.include_checksum(false)?;
                Self::Zstd(codec)
            }
            Compression::None | Compression::Zlib(_) => {
                let level = if let Compression::Zlib(level) = compression {
                    level.clamp(1, 9)
                } else {
                    6
                };
                // A raw stream with a window of 4 KiB: what QEMU writes, so what readers are made for.
                Self::Deflate(Box::new(Compress::new_with_window_bits(
                    flate2::Compression::new(u32::from(level)),
                    false,
                    12,
                )))
            }
        })
    }

    /// Compresses one cluster; `None` when it does not get smaller.
    fn compress(&mut self, cluster: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut out = vec![0; CLUSTER_LEN - 1];
        let len = match self {
            Self::Deflate(codec) => {
                codec.reset();
                match codec.compress(cluster, &mut out, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => {
                        usize::try_from(codec.total_out()).unwrap_or(usize::MAX)
                    }
                    Ok(_) => return Ok(None),
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
            // The only error of this call into a buffer that can be short is that it was.
            Self::Zstd(codec) => match codec.compress_to_buffer(cluster, &mut out[..]) {
                Ok(len) => len,
                Err(_) => return Ok(None),
            },
        };
        out.truncate(len);
        out.shrink_to_fit();
        Ok(Some(out))
    }
}

struct Encoder {
    compression: Compression,
    idle: Mutex<Vec<Codec>>,
}

impl Parallel for Encoder {
    /// Every cluster that is not all zero: compressed, or empty to say "store it plain".
    fn accept(&self, window: &Window) -> io::Result<Encoded> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut codec = idle.map_or_else(|| Codec::new(self.compression), Ok)?;
        let mut clusters = Vec::new();
        for (number, cluster) in
            (window.offset() / CLUSTER..).zip(window.bytes().chunks(CLUSTER_LEN))
        {
            if is_zero(cluster) {
                continue;
            }
            let encoded = if cluster.len() == CLUSTER_LEN {
                codec.compress(cluster)?
            } else {
                codec.compress(&padded(cluster))?
            };
            clusters.push((number, encoded.unwrap_or_default()));
        }
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(codec);
        Ok(Encoded { clusters })
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

    fn sha256(&self, bytes: u64) -> io::Result<Option<amiforge_types::Digest>> {
        let Some(file) = self.readback else {
            return Ok(None);
        };
        let mut hasher = Hasher::new();
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        while at < bytes {
            let n = usize::try_from(bytes - at)
                .unwrap_or(buf.len())
                .min(buf.len());
            file.read_exact_at(&mut buf[..n], at)?;
            hasher.update(&buf[..n]);
            at += n as u64;
        }
        Ok(Some(hasher.finish()))
    }
}

impl Ordered for Packer<'_> {
    fn accept(&mut self, window: &Window, encoded: Encoded) -> io::Result<()> {
        for (cluster, bytes) in encoded.clusters {
            if bytes.is_empty() {
                let offset = self.allocate();
                let start = usize::try_from(cluster * CLUSTER - window.offset())
                    .map_err(io::Error::other)?;
                let end = (start + CLUSTER_LEN).min(window.bytes().len());
                self.target
                    .write_all_at(&window.bytes()[start..end], offset)?;
                self.map(cluster, offset | COPIED)?;
            } else {
                let len = bytes.len() as u64;
                let offset = self.allocate_bytes(len);
                self.target.write_all_at(&bytes, offset)?;
                let further_sectors = (offset % 512 + len - 1) / 512;
                self.map(
                    cluster,
                    COMPRESSED | further_sectors << COMPRESSED_SHIFT | offset,
                )?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Finished> {
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
        };
        self.target
            .write_all_at(&header.encode().ok_or(io::ErrorKind::FileTooLarge)?, 0)?;
        let bytes = self.end();
        self.target.set_len(bytes)?;
        Ok(Finished {
            bytes,
            sha256: self.sha256(bytes)?,
        })
    }
}
