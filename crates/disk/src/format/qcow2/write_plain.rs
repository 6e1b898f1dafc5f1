//! Plain qcow2: every address follows from the extents.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use amiforge_types::{Digest, Hasher, WriteAt};

use super::layout::{
    CLUSTER, COPIED, Header, L2_ENTRIES, REFCOUNTS, l1_entries, refcount_clusters, table,
    virtual_bytes,
};
use crate::emit::{
    Encoded, Finished, Ordered, Output, Parallel, Sinks, Window, WindowPlan, feed_zeros,
};

/// Where the guest's clusters are: runs of allocated guest clusters, each with the number of its
/// first data cluster in the file.
struct Map {
    runs: Vec<(Range<u64>, u64)>,
    /// Host offset of the first data cluster.
    data_offset: u64,
}

impl Map {
    /// The allocated parts of `range` (guest clusters) and the host offset of each.
    fn within(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u64)> + '_ {
        let first = self.runs.partition_point(|(run, _)| run.end <= range.start);
        self.runs[first..]
            .iter()
            .take_while(move |(run, _)| run.start < range.end)
            .map(move |(run, index)| {
                let part = run.start.max(range.start)..run.end.min(range.end);
                let host = self.data_offset + (index + part.start - run.start) * CLUSTER;
                (part, host)
            })
    }
}

pub(super) fn sinks<'a>(plan: &WindowPlan<'a>, output: &Output<'a>) -> io::Result<Sinks<'a>> {
    let mut runs: Vec<(Range<u64>, u64)> = Vec::new();
    let mut count = 0;
    for e in plan.extents().list() {
        let range = e.offset / CLUSTER..e.end().div_ceil(CLUSTER);
        match runs.last_mut() {
            Some((last, _)) if range.start <= last.end => {
                count += range.end.saturating_sub(last.end);
                last.end = last.end.max(range.end);
            }
            _ => {
                let len = range.end - range.start;
                runs.push((range, count));
                count += len;
            }
        }
    }

    let virtual_bytes = virtual_bytes(plan.disk_size());
    let l1_entries = l1_entries(virtual_bytes);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    let mut map = Map {
        runs,
        data_offset: 0,
    };
    let l2_of = |map: &Map, l1: u64| {
        map.within(l1 * L2_ENTRIES..(l1 + 1) * L2_ENTRIES)
            .next()
            .is_some()
    };
    let l2_tables: Vec<u64> = (0..l1_entries).filter(|l1| l2_of(&map, *l1)).collect();
    let l2_count = l2_tables.len() as u64;
    let (blocks, refcount_table) = refcount_clusters(1 + l1_clusters + l2_count + count);
    let blocks_at = 1 + refcount_table;
    let l1_at = blocks_at + blocks;
    let l2_at = l1_at + l1_clusters;
    let total = l2_at + l2_count + count;
    map.data_offset = (l2_at + l2_count) * CLUSTER;

    let bytes = total * CLUSTER;
    output.target.set_len(bytes)?;
    let header = Header {
        virtual_bytes,
        l1_entries,
        l1_offset: l1_at * CLUSTER,
        refcount_table_offset: CLUSTER,
        refcount_table_clusters: refcount_table,
        zstd: false,
        encoder: None,
    };
    let mut front = Front {
        target: output.target,
        at: 0,
        hasher: output.sha256.then(Hasher::new),
    };
    front.put(&header.encode().ok_or(io::ErrorKind::FileTooLarge)?)?;
    front.put(&table((0..blocks).map(|b| (blocks_at + b) * CLUSTER)))?;
    for block in 0..blocks {
        let used = (total - block * REFCOUNTS).min(REFCOUNTS);
        let mut counts: Vec<u8> = (0..used).flat_map(|_| 1u16.to_be_bytes()).collect();
        counts.resize(1 << 16, 0);
        front.put(&counts)?;
    }
    let mut l1 = vec![0; usize::try_from(l1_entries).map_err(io::Error::other)?];
    for (index, number) in l2_tables.iter().enumerate() {
        if let Some(slot) = usize::try_from(*number).ok().and_then(|n| l1.get_mut(n)) {
            *slot = ((l2_at + index as u64) * CLUSTER) | COPIED;
        }
    }
    front.put(&table(l1.into_iter()))?;
    for number in l2_tables {
        let first = number * L2_ENTRIES;
        let mut entries = vec![0; 1 << 13];
        for (part, host) in map.within(first..first + L2_ENTRIES) {
            for (cluster, host) in part.zip((host..).step_by(1 << 16)) {
                if let Some(entry) = usize::try_from(cluster - first)
                    .ok()
                    .and_then(|i| entries.get_mut(i))
                {
                    *entry = host | COPIED;
                }
            }
        }
        front.put(&table(entries.into_iter()))?;
    }

    let map = Arc::new(map);
    let ordered: Option<Box<dyn Ordered + 'a>> = match front.hasher {
        Some(hasher) => Some(Box::new(PlainHash {
            map: Arc::clone(&map),
            hasher,
            bytes,
        })),
        None => None,
    };
    Ok(Sinks {
        parallel: Box::new(PlainWrite {
            map,
            target: output.target,
        }),
        ordered,
        fixed_bytes: bytes,
    })
}

/// Writes the metadata in file order, hashing it on the way.
struct Front<'a> {
    target: &'a dyn WriteAt,
    at: u64,
    hasher: Option<Hasher>,
}

impl Front<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.target.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

/// The bytes of a part of a window, and how many zeros follow in its last cluster.
fn bytes_of<'w>(window: &'w Window, part: &Range<u64>) -> (&'w [u8], u64) {
    let (start, end) = (
        part.start * CLUSTER - window.offset(),
        part.end * CLUSTER - window.offset(),
    );
    let have = window.bytes().len() as u64;
    let slice = |n: u64| usize::try_from(n.min(have)).unwrap_or(usize::MAX);
    (
        &window.bytes()[slice(start)..slice(end)],
        end.saturating_sub(have),
    )
}

fn clusters_of(window: &Window) -> Range<u64> {
    window.offset() / CLUSTER..(window.offset() + window.bytes().len() as u64).div_ceil(CLUSTER)
}

struct PlainWrite<'a> {
    map: Arc<Map>,
    target: &'a dyn WriteAt,
}

impl Parallel for PlainWrite<'_> {
    fn accept(&self, window: &Window) -> io::Result<Encoded> {
        for (part, host) in self.map.within(clusters_of(window)) {
            self.target.write_all_at(bytes_of(window, &part).0, host)?;
        }
        Ok(Encoded::default())
    }
}

struct PlainHash {
    map: Arc<Map>,
    hasher: Hasher,
    bytes: u64,
}

impl Ordered for PlainHash {
    fn accept(&mut self, window: &Window, _encoded: Encoded) -> io::Result<()> {
        for (part, _) in self.map.within(clusters_of(window)) {
            let (bytes, zeros) = bytes_of(window, &part);
            self.hasher.update(bytes);
            feed_zeros(&mut self.hasher, zeros);
        }
        Ok(())
    }
    fn finish(self: Box<Self>, _content: Option<&Digest>) -> io::Result<Finished> {
        Ok(Finished {
            bytes: self.bytes,
            sha256: Some(self.hasher.finish()),
        })
    }
}
