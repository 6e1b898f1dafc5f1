//! The content digest: identity of a disk's content, at a cost that does not grow with empty space.
//!
//! SHA-256 over the SHA-256 of each 512 KiB block in order, 32 bytes each; a last partial block is
//! padded with zeros. A block of zeros is a constant, so holes are free. 512 KiB is the block of EBS
//! snapshots.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use amiforge_types::{Digest, Hasher, ReadAt};

/// Bytes of a block of the content digest.
pub const BLOCK_BYTES: u64 = 512 << 10;
pub(crate) const BLOCK: usize = 512 << 10;

/// Digest of a block of zeros.
pub(crate) fn zero_block() -> Digest {
    static ZERO: OnceLock<Digest> = OnceLock::new();
    *ZERO.get_or_init(|| Digest::of(&vec![0; BLOCK]))
}

/// The digest of one block, from its bytes (at most [`BLOCK`]).
pub(crate) fn block_digest(bytes: &[u8]) -> Digest {
    if is_zero(bytes) {
        return zero_block();
    }
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    crate::emit::feed_zeros(&mut hasher, (BLOCK - bytes.len()) as u64);
    hasher.finish()
}

/// Combines the digests of the blocks that are not all zero; `blocks` is (block number, digest) in
/// order.
pub(crate) fn combine(disk_size: u64, blocks: &[(u64, Digest)]) -> Digest {
    let mut hasher = Hasher::new();
    let mut known = blocks.iter().peekable();
    for number in 0..disk_size.div_ceil(BLOCK_BYTES) {
        let digest = known
            .next_if(|(n, _)| *n == number)
            .map_or_else(zero_block, |(_, digest)| *digest);
        hasher.update(digest.as_bytes());
    }
    hasher.finish()
}

/// The SHA-256 of so many zeros, for every length. SHA-256 cannot skip what it is not shown, but one
/// pass up to the largest length serves all of them.
#[must_use]
pub fn zeros_sha256(lengths: &[u64]) -> Vec<Digest> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|at| lengths[*at]);
    let mut out = vec![Digest::of(b""); lengths.len()];
    let (mut hasher, mut done) = (Hasher::new(), 0);
    for at in order {
        crate::emit::feed_zeros(&mut hasher, lengths[at] - done);
        done = lengths[at];
        out[at] = hasher.clone().finish();
    }
    out
}

/// True when every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Chunks of a fixed size let the compiler use wide registers; the early exit costs nothing.
    let mut chunks = bytes.chunks_exact(256);
    chunks
        .by_ref()
        .all(|c| c.iter().fold(0, |acc, b| acc | b) == 0)
        && chunks.remainder().iter().all(|b| *b == 0)
}

/// The content digest of a disk, read with `threads` threads. Equal to what [`emit`](crate::emit())
/// returned for it.
pub fn content_digest(disk: &dyn ReadAt, threads: usize) -> io::Result<Digest> {
    let size = disk.size();
    let mut wanted = Vec::new();
    let mut at = 0;
    while let Some(range) = disk.next_data(at)? {
        let first = (range.start / BLOCK_BYTES).max(wanted.last().map_or(0, |last| last + 1));
        wanted.extend(first..range.end.min(size).div_ceil(BLOCK_BYTES));
        if range.end <= at || range.end >= size {
            break;
        }
        at = range.end;
    }
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<Vec<(u64, Digest)>> {
        let mut out = Vec::new();
        let mut buf = vec![0; BLOCK];
        while let Some(number) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let offset = number * BLOCK_BYTES;
            let len = usize::try_from((size - offset).min(BLOCK_BYTES)).unwrap_or(BLOCK);
            disk.read_exact_at(&mut buf[..len], offset)?;
            out.push((*number, block_digest(&buf[..len])));
        }
        Ok(out)
    };
    let mut blocks = Vec::with_capacity(wanted.len());
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for handle in handles {
            blocks.extend(
                handle
                    .join()
                    .map_err(|_| io::Error::other("a digest thread panicked"))??,
            );
        }
        Ok::<_, io::Error>(())
    })?;
    blocks.sort_unstable_by_key(|(number, _)| *number);
    Ok(combine(size, &blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_several_lengths_are_hashed_in_one_pass() {
        let lengths = [300_000, 0, 64, 300_000, 70_000];
        let expected: Vec<Digest> = lengths
            .iter()
            .map(|len| Digest::of(&vec![0; usize::try_from(*len).unwrap()]))
            .collect();
        assert_eq!(zeros_sha256(&lengths), expected);
        assert!(zeros_sha256(&[]).is_empty());
    }
}
