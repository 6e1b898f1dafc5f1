//! Directory slots of 32 bytes, and the long names that stand before them.
//!
//! ```text
//! long:  order, 5 units, 0x0F, 0, checksum, 6 units, 0 0, 2 units     (last part first, order | 0x40)
//! short: name 8+3, attributes, case, ..., cluster high @20, time @22, date @24, cluster low @26, size @28
//! ```

use amiforge_types::Timestamp;

const SLOT: usize = 32;
const LONG_NAME: u8 = 0x0F;
const VOLUME_ID: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const DELETED: u8 = 0xE5;
const LAST_PART: u8 = 0x40;
/// Parts of the longest name, and UTF-16 units in each.
const MAX_PARTS: u8 = 20;
const UNITS: usize = 13;
/// Where the units are in a slot.
const UNIT_OFFSETS: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// One name of a directory.
pub(super) struct Slot {
    /// Long name, or the short one.
    pub(super) name: String,
    pub(super) short: String,
    pub(super) directory: bool,
    /// Bytes.
    pub(super) size: u64,
    /// First cluster; anything, also 0.
    pub(super) cluster: u64,
    pub(super) mtime: Timestamp,
}

/// A long name on the way: parts still to come, the short name's checksum, units.
struct Long {
    missing: u8,
    checksum: u8,
    units: Vec<u16>,
}

/// All names of a directory, without `.`, `..` and the label. Broken long names are left out.
pub(super) fn parse(bytes: &[u8]) -> Vec<Slot> {
    let mut out = Vec::new();
    let mut long: Option<Long> = None;
    for slot in bytes.chunks_exact(SLOT).take_while(|slot| slot[0] != 0) {
        let attributes = slot[11] & 0x3F;
        if slot[0] == DELETED {
            long = None;
        } else if attributes & LONG_NAME == LONG_NAME {
            long = next_part(long, slot);
        } else {
            let before = long.take();
            if attributes & VOLUME_ID == 0 && slot[0] != b'.' {
                out.push(short_slot(slot, before));
            }
        }
    }
    out
}

fn word(slot: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([slot[at], slot[at + 1]])
}

fn next_part(before: Option<Long>, slot: &[u8]) -> Option<Long> {
    let order = slot[0] & 0x1F;
    if !(1..=MAX_PARTS).contains(&order) {
        return None;
    }
    let mut long = if slot[0] & LAST_PART != 0 {
        Long {
            missing: order,
            checksum: slot[13],
            units: vec![0; usize::from(order) * UNITS],
        }
    } else {
        before.filter(|long| long.missing == order && long.checksum == slot[13])?
    };
    let start = usize::from(order - 1) * UNITS;
    for (unit, at) in long.units[start..start + UNITS]
        .iter_mut()
        .zip(UNIT_OFFSETS)
    {
        *unit = word(slot, at);
    }
    long.missing -= 1;
    Some(long)
}

fn short_slot(slot: &[u8], long: Option<Long>) -> Slot {
    let mut base = slot[..8].to_vec();
    if base[0] == 0x05 {
        base[0] = DELETED;
    }
    let (mut name, mut extension) = (ascii(&base), ascii(&slot[8..11]));
    if slot[12] & 0x08 != 0 {
        name.make_ascii_lowercase();
    }
    if slot[12] & 0x10 != 0 {
        extension.make_ascii_lowercase();
    }
    let short = if extension.is_empty() {
        name
    } else {
        format!("{name}.{extension}")
    };
    let checksum = slot[..11]
        .iter()
        .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let long = long
        .filter(|long| long.missing == 0 && long.checksum == checksum)
        .map(|long| {
            let units = long.units.into_iter().take_while(|unit| *unit != 0);
            char::decode_utf16(units)
                .map(|c| clean(c.unwrap_or(char::REPLACEMENT_CHARACTER)))
                .collect::<String>()
        });
    Slot {
        name: long
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| short.clone()),
        short,
        directory: slot[11] & DIRECTORY != 0,
        size: u64::from(word(slot, 28)) | u64::from(word(slot, 30)) << 16,
        cluster: u64::from(word(slot, 26)) | u64::from(word(slot, 20)) << 16,
        mtime: unix(word(slot, 24), word(slot, 22)),
    }
}

/// Padded bytes of an OEM character set, of which only ASCII is sure.
pub(super) fn ascii(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .rposition(|b| *b != b' ')
        .map_or(0, |last| last + 1);
    let known = |b: &u8| {
        if b.is_ascii() {
            clean(char::from(*b))
        } else {
            char::REPLACEMENT_CHARACTER
        }
    };
    bytes[..end].iter().map(known).collect()
}

fn clean(c: char) -> char {
    if c == '/' || c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// Seconds since 1970 of a FAT date and time read as UTC; months and days out of range count on.
fn unix(date: u16, time: u16) -> Timestamp {
    let (y, m, d) = (
        1980 + i64::from(date >> 9),
        i64::from(date >> 5 & 0xF),
        i64::from(date & 0x1F),
    );
    // Years that start in March, so that the leap day comes last.
    let year = if m <= 2 { y - 1 } else { y };
    let month = (m + 9) % 12;
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + d - 1 - 719_468;
    let clock = i64::from(time >> 11) * 3600
        + i64::from(time >> 5 & 0x3F) * 60
        + i64::from(time & 0x1F) * 2;
    Timestamp::from_secs(days * 86_400 + clock)
}
