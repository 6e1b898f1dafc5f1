//! The hashes of directory names that are found on disks: legacy, half MD4 and TEA, each with names
//! read as signed or as unsigned characters. Kernel documentation,
//! `filesystems/ext4/directory.rst`, "Hash Tree Directories".

use crate::ext4::hash::{self, HashSeed};

/// Golden ratio, as TEA (Wheeler and Needham, 1994) has it.
const TEA_DELTA: u32 = 0x9E37_79B9;
const TEA_ROUNDS: u32 = 16;
const LEGACY_START: (u32, u32) = (0x12A3_FE2D, 0x37AB_E8F9);
const LEGACY_FACTOR: u32 = 7_152_373;
/// The major hash that means "end of directory", which no name may have.
const END: u32 = 0x7FFF_FFFF << 1;

/// Which hash a directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Legacy,
    HalfMd4,
    Tea,
}

impl Version {
    /// From the number in the root of the index; the second is whether that number says that
    /// characters are unsigned.
    pub(super) fn of(number: u8) -> Option<(Self, bool)> {
        let version = match number % 3 {
            0 => Self::Legacy,
            1 => Self::HalfMd4,
            _ => Self::Tea,
        };
        (number < 6).then_some((version, number >= 3))
    }
}

/// The major hash of a name, by which the index is sorted.
pub(super) fn major(version: Version, unsigned: bool, seed: HashSeed, name: &[u8]) -> u32 {
    let hash = match version {
        Version::Legacy => legacy(name, unsigned),
        Version::HalfMd4 => {
            let mut state = seed.words();
            let mut rest = name;
            while !rest.is_empty() {
                hash::transform(&mut state, &block(rest, unsigned));
                rest = rest.get(32..).unwrap_or_default();
            }
            state[1]
        }
        Version::Tea => {
            let mut state = seed.words();
            let mut rest = name;
            while !rest.is_empty() {
                tea(&mut state, block(rest, unsigned));
                rest = rest.get(16..).unwrap_or_default();
            }
            state[0]
        }
    };
    match hash & !1 {
        END => END - 2,
        hash => hash,
    }
}

fn character(byte: u8, unsigned: bool) -> u32 {
    match unsigned {
        true => byte.into(),
        false => i32::from(byte.cast_signed()).cast_unsigned(),
    }
}

/// The first bytes of `rest` as words, high byte first, filled up with the length of `rest`.
fn block<const WORDS: usize>(rest: &[u8], unsigned: bool) -> [u32; WORDS] {
    let len = u32::from(u8::try_from(rest.len()).unwrap_or(u8::MAX));
    let pad = len | len << 8;
    let mut words = [pad | pad << 16; WORDS];
    for (word, bytes) in words.iter_mut().zip(rest.chunks(4)) {
        for byte in bytes {
            *word = (*word << 8).wrapping_add(character(*byte, unsigned));
        }
    }
    words
}

fn tea(state: &mut [u32; 4], key: [u32; 4]) {
    let mix = |x: u32, sum: u32, low: u32, high: u32| {
        (x << 4).wrapping_add(low) ^ x.wrapping_add(sum) ^ (x >> 5).wrapping_add(high)
    };
    let (mut x, mut y) = (state[0], state[1]);
    let mut sum = 0_u32;
    for _ in 0..TEA_ROUNDS {
        sum = sum.wrapping_add(TEA_DELTA);
        x = x.wrapping_add(mix(y, sum, key[0], key[1]));
        y = y.wrapping_add(mix(x, sum, key[2], key[3]));
    }
    state[0] = state[0].wrapping_add(x);
    state[1] = state[1].wrapping_add(y);
}

fn legacy(name: &[u8], unsigned: bool) -> u32 {
    let (mut last, mut before) = LEGACY_START;
    for byte in name {
        let product = character(*byte, unsigned).wrapping_mul(LEGACY_FACTOR);
        let mut next = before.wrapping_add(last ^ product);
        if next & 0x8000_0000 != 0 {
            next = next.wrapping_sub(0x7FFF_FFFF);
        }
        (before, last) = (last, next);
    }
    last << 1
}
