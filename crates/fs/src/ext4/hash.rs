//! The directory hash: half MD4, with names read as signed characters.
//!
//! A cut-down MD4 (RFC 1320) of eight words a block and eight steps a round, seeded by the
//! superblock. Kernel documentation, `filesystems/ext4/directory.rst`, "Hash Tree Directories".

use amiforge_types::Uuid;

/// Words in a block of the hash.
const WORDS: usize = 8;
/// The initial state where the seed is zero, that of MD4.
const MD4_INIT: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
/// Round constants of MD4.
const ROUND_2: u32 = 0x5A82_7999;
const ROUND_3: u32 = 0x6ED9_EBA1;
/// The major hash that means "end of directory", which no name may have.
const END: u32 = 0x7FFF_FFFF << 1;

/// Hash of a name: it orders the leaves of a directory index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameHash {
    /// What the index holds; bit 0 is clear.
    pub(super) major: u32,
    /// Breaks ties inside a leaf.
    pub(super) minor: u32,
}

/// The seed as four little-endian words, `None` where it is zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashSeed([u32; 4]);

impl HashSeed {
    pub(super) fn new(seed: &Uuid) -> Self {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(seed.as_bytes().chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self(if words == [0; 4] { MD4_INIT } else { words })
    }

    /// The initial state.
    pub(super) fn words(self) -> [u32; 4] {
        self.0
    }

    /// The hash of a name.
    pub(super) fn hash(self, name: &[u8]) -> NameHash {
        let mut state = self.0;
        let mut rest = name;
        while !rest.is_empty() {
            transform(&mut state, &block(rest));
            rest = rest.get(WORDS * 4..).unwrap_or_default();
        }
        let major = match state[1] & !1 {
            END => END - 2,
            major => major,
        };
        NameHash {
            major,
            minor: state[2],
        }
    }
}

/// Up to 32 bytes of `rest` as words, high byte first, filled up with the length of `rest`.
fn block(rest: &[u8]) -> [u32; WORDS] {
    let len = u32::from(u8::try_from(rest.len()).unwrap_or(u8::MAX));
    let pad = len | len << 8;
    let pad = pad | pad << 16;
    let mut words = [pad; WORDS];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for byte in bytes {
            // The reference implementation adds a signed char: bytes from 0x80 on borrow.
            let signed = i32::from(byte.cast_signed()).cast_unsigned();
            *word = (*word << 8).wrapping_add(signed);
        }
    }
    words
}

/// Mixes a block into the state.
pub(super) fn transform(state: &mut [u32; 4], x: &[u32; WORDS]) {
    let f = |x: u32, y: u32, z: u32| z ^ (x & (y ^ z));
    let g = |x: u32, y: u32, z: u32| (x & y).wrapping_add((x ^ y) & z);
    let h = |x: u32, y: u32, z: u32| x ^ y ^ z;
    let [mut a, mut b, mut c, mut d] = *state;
    let mut round = |mix: &dyn Fn(u32, u32, u32) -> u32,
                     constant: u32,
                     order: [usize; WORDS],
                     shifts: [u32; 4]| {
        for (step, word) in order.into_iter().enumerate() {
            let sum = a
                .wrapping_add(mix(b, c, d))
                .wrapping_add(x[word])
                .wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    };
    round(&f, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]);
    round(&g, ROUND_2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]);
    round(&h, ROUND_3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]);
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}
