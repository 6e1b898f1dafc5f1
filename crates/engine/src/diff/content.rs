//! File data of two trees: which pairs hold the same bytes, and digests of those that do not.
//!
//! Both work on all cores, a file at a time, and read no holes. What a damaged or hostile image claims
//! beyond the size of its disk is not read.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use amiforge_tree::{Content, DATA_CHUNK, DataExtent};
use amiforge_types::{BlobTable, Digest};

/// Bytes of holes that are hashed in all; a digest covers holes, and a terabyte of them costs ten minutes.
const HOLES: u64 = 64 << 30;

/// Does `work` for each item on `threads` threads; the results in the items' order, or the error of the
/// first item that has one.
fn parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T, &mut Buffers) -> io::Result<R> + Sync,
) -> io::Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, io::Result<R>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, items.len().max(1)) {
            scope.spawn(|| {
                let mut buffers = Buffers::default();
                let mut mine = Vec::new();
                while let Some((index, item)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).map(|item| (index, item))
                } {
                    mine.push((index, work(item, &mut buffers)));
                }
                if let Ok(mut done) = done.lock() {
                    done.append(&mut mine);
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .map_err(|_| io::Error::other("a thread panicked"))?;
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[derive(Default)]
struct Buffers {
    a: Vec<u8>,
    b: Vec<u8>,
}

/// Which pairs of files of one size hold different bytes. `budget` is what all of them together may
/// hold: more than the disks do is damage.
pub(super) fn differ(
    pairs: &[(&Content, &Content)],
    blobs: &BlobTable,
    budget: u64,
    threads: usize,
) -> io::Result<Vec<bool>> {
    let claimed = pairs
        .iter()
        .map(|(a, b)| a.data_len().saturating_add(b.data_len()))
        .fold(0, u64::saturating_add);
    if claimed > budget {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("files claim {claimed} bytes, and the disks have {budget}"),
        ));
    }
    parallel(pairs, threads, |(a, b), buffers| {
        same_bytes(a, b, blobs, buffers).map(|same| !same)
    })
}

/// Whether two contents of one size are equal byte by byte.
fn same_bytes(
    a: &Content,
    b: &Content,
    blobs: &BlobTable,
    buffers: &mut Buffers,
) -> io::Result<bool> {
    if a.size != b.size {
        return Ok(false);
    }
    buffers.a.resize(DATA_CHUNK, 0);
    buffers.b.resize(DATA_CHUNK, 0);
    let (mut left, mut right) = (Run::new(a), Run::new(b));
    let mut at = 0;
    while at < a.size {
        let (x, y) = (left.at(at), right.at(at));
        let end = x.until.min(y.until).min(a.size);
        if x.extent.is_none() && y.extent.is_none() {
            at = end;
            continue;
        }
        let n = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(DATA_CHUNK);
        x.fill(at, &mut buffers.a[..n], blobs)?;
        y.fill(at, &mut buffers.b[..n], blobs)?;
        if buffers.a[..n] != buffers.b[..n] {
            return Ok(false);
        }
        at += n as u64;
    }
    Ok(true)
}

/// Goes through the extents of a content, forward.
struct Run<'c> {
    content: &'c Content,
    next: usize,
}

/// What is at a place: an extent or a hole, and where it ends.
struct Piece<'c> {
    extent: Option<&'c DataExtent>,
    until: u64,
}

impl<'c> Run<'c> {
    fn new(content: &'c Content) -> Self {
        Self { content, next: 0 }
    }

    fn at(&mut self, at: u64) -> Piece<'c> {
        let extents = &self.content.extents;
        let end = |e: &DataExtent| e.offset.saturating_add(e.len);
        while extents.get(self.next).is_some_and(|e| end(e) <= at) {
            self.next += 1;
        }
        match extents.get(self.next) {
            Some(e) if e.offset <= at => Piece {
                extent: Some(e),
                until: end(e),
            },
            Some(e) => Piece {
                extent: None,
                until: e.offset,
            },
            None => Piece {
                extent: None,
                until: u64::MAX,
            },
        }
    }
}

impl Piece<'_> {
    fn fill(&self, at: u64, buf: &mut [u8], blobs: &BlobTable) -> io::Result<()> {
        match self.extent {
            Some(extent) => extent.read_exact(blobs, buf, at - extent.offset),
            None => {
                buf.fill(0);
                Ok(())
            }
        }
    }
}

/// Digests of files; `None` for those that would take the total beyond `budget` bytes of data, or
/// beyond what is hashed of holes.
pub(super) fn digests(
    files: &[&Content],
    blobs: &BlobTable,
    budget: u64,
    threads: usize,
) -> io::Result<Vec<Option<Digest>>> {
    let (mut data, mut holes) = (0_u64, 0_u64);
    let wanted: Vec<Option<&Content>> = files
        .iter()
        .map(|content| {
            let len = content.data_len();
            let more = (
                data.saturating_add(len),
                holes.saturating_add(content.size.saturating_sub(len)),
            );
            if content.digest.is_none() && (more.0 > budget || more.1 > HOLES) {
                return None;
            }
            (data, holes) = more;
            Some(*content)
        })
        .collect();
    parallel(&wanted, threads, |content, _| {
        content.map(|c| c.sha256(blobs)).transpose()
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use amiforge_tree::DataSource;

    use super::*;

    fn extent(offset: u64, bytes: &[u8]) -> DataExtent {
        DataExtent {
            offset,
            len: bytes.len() as u64,
            source: DataSource::Bytes(Arc::from(bytes)),
        }
    }

    fn content(size: u64, runs: &[(u64, &[u8])]) -> Content {
        Content {
            size,
            extents: runs.iter().map(|(at, bytes)| extent(*at, bytes)).collect(),
            digest: None,
        }
    }

    #[test]
    fn holes_and_zeros_are_the_same_bytes() {
        let blobs = BlobTable::new();
        let a = content(20, &[(0, b"ab\0\0"), (10, b"xy")]);
        let b = content(20, &[(0, b"ab"), (8, b"\0\0x"), (11, b"y\0")]);
        let c = content(20, &[(0, b"ab"), (8, b"\0\0x"), (11, b"y\x01")]);
        let pairs = [(&a, &b), (&b, &c), (&a, &c), (&a, &a)];
        for threads in [1, 3] {
            let found = differ(&pairs, &blobs, 1000, threads).unwrap();
            assert_eq!(found, [false, true, true, false]);
        }
        let error = differ(&pairs, &blobs, 10, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_exabyte_of_holes_costs_nothing() {
        let blobs = BlobTable::new();
        let big = |last: &'static [u8]| content(1 << 60, &[(1 << 40, b"x"), ((1 << 60) - 1, last)]);
        let (a, b, c) = (big(b"1"), big(b"1"), big(b"2"));
        let found = differ(&[(&a, &b), (&a, &c)], &blobs, 1000, 2).unwrap();
        assert_eq!(found, [false, true]);
        let small = content(3, &[(0, b"abc")]);
        let digests = digests(&[&a, &small], &blobs, 1000, 2).unwrap();
        assert_eq!(digests, [None, Some(Digest::of(b"abc"))]);
    }
}
