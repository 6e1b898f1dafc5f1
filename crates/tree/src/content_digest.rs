//! The digest of a file's content, for which holes cost nothing.
//!
//! ```text
//! SHA-256 over  "amiforge-content-1"  18 bytes
//!               size                  u64, little-endian
//!               for each block of 64 KiB that has a byte other than zero, in order:
//!                 number of the block u64, little-endian, from 0
//!                 its bytes           65,536; the last block of a file may be shorter
//! ```
//!
//! It is a function of the bytes alone: not of where holes are, of how content is cut into runs, or of
//! the pieces it is fed in. A plain SHA-256 has to read every zero of a hole: half an hour for a
//! tebibyte of nothing.

use amiforge_types::{Digest, Hasher};

/// Bytes of a block.
const BLOCK: usize = 64 << 10;

const TAG: &[u8] = b"amiforge-content-1";

static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Computes the digest of content that is fed from start to end.
#[derive(Clone)]
pub struct ContentHasher {
    hasher: Hasher,
    at: u64,
    /// Zeros at the start of the current block that have not been fed on.
    pending: usize,
    /// Whether the current block has a byte other than zero.
    open: bool,
}

impl ContentHasher {
    /// For content of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let mut hasher = Hasher::new();
        hasher.update(TAG);
        hasher.update(&size.to_le_bytes());
        Self {
            hasher,
            at: 0,
            pending: 0,
            open: false,
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Self::new(bytes.len() as u64);
        hasher.update(bytes);
        hasher.finish()
    }

    /// Feeds `len` zeros.
    pub fn zeros(&mut self, mut len: u64) {
        while len > 0 {
            let room = self.room();
            if room == BLOCK && len >= BLOCK as u64 {
                let whole = len - len % BLOCK as u64;
                self.at = self.at.saturating_add(whole);
                len -= whole;
                continue;
            }
            let n = usize::try_from(len).map_or(room, |len| len.min(room));
            self.part(&ZEROS[..n], true);
            len -= n as u64;
        }
    }

    /// Feeds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(self.room()));
            self.part(part, !self.open && *part == ZEROS[..part.len()]);
            bytes = rest;
        }
    }

    /// The digest of everything fed.
    #[must_use]
    pub fn finish(self) -> Digest {
        self.hasher.finish()
    }

    /// Bytes to the end of the current block.
    fn room(&self) -> usize {
        BLOCK - usize::try_from(self.at % BLOCK as u64).unwrap_or(0)
    }

    /// Feeds bytes that end in the current block at the latest.
    fn part(&mut self, part: &[u8], zeros: bool) {
        let ends = part.len() == self.room();
        if self.open {
            self.hasher.update(part);
        } else if zeros {
            self.pending += part.len();
        } else {
            self.open = true;
            self.hasher.update(&(self.at / BLOCK as u64).to_le_bytes());
            self.hasher.update(&ZEROS[..self.pending]);
            self.hasher.update(part);
        }
        self.at = self.at.saturating_add(part.len() as u64);
        if ends {
            self.open = false;
            self.pending = 0;
        }
    }
}

impl std::fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentHasher at {}", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, written down once more without any cleverness.
    fn by_the_book(bytes: &[u8]) -> Digest {
        let mut all = TAG.to_vec();
        all.extend((bytes.len() as u64).to_le_bytes());
        for (number, block) in bytes.chunks(BLOCK).enumerate() {
            if block.iter().any(|b| *b != 0) {
                all.extend((number as u64).to_le_bytes());
                all.extend(block);
            }
        }
        Digest::of(&all)
    }

    #[test]
    fn pieces_and_holes_do_not_matter() {
        let mut bytes = vec![0; 5 * BLOCK + 77];
        for at in [0, 5, BLOCK - 1, 2 * BLOCK + 300, 5 * BLOCK + 76] {
            bytes[at] = 1;
            let expected = by_the_book(&bytes);
            assert_eq!(ContentHasher::of(&bytes), expected);
            for step in [1000, 4096, BLOCK - 1, BLOCK, 3 * BLOCK + 1] {
                let mut hasher = ContentHasher::new(bytes.len() as u64);
                for piece in bytes.chunks(step) {
                    if piece.iter().all(|b| *b == 0) {
                        hasher.zeros(piece.len() as u64);
                    } else {
                        hasher.update(piece);
                    }
                }
                assert_eq!(hasher.finish(), expected, "pieces of {step}");
            }
        }
    }

    #[test]
    fn size_and_place_matter() {
        let mut seen = std::collections::BTreeSet::new();
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK] {
            let bytes = vec![0; size];
            assert_eq!(ContentHasher::of(&bytes), by_the_book(&bytes));
            assert!(seen.insert(by_the_book(&bytes)));
        }
        for at in [0, 1, BLOCK, 2 * BLOCK] {
            let mut bytes = vec![0; 9 * BLOCK];
            bytes[at] = 7;
            assert_eq!(ContentHasher::of(&bytes), by_the_book(&bytes));
            assert!(seen.insert(by_the_book(&bytes)));
        }
    }

    /// Sixteen exbibytes: nothing here counts in blocks.
    #[test]
    fn the_largest_hole_costs_nothing() {
        let mut hasher = ContentHasher::new(u64::MAX);
        hasher.zeros(u64::MAX - 1);
        hasher.update(b"x");
        let mut other = ContentHasher::new(u64::MAX);
        other.zeros(u64::MAX);
        assert_ne!(hasher.finish(), other.finish());
    }
}
