//! The 512-byte header block: v7, ustar (POSIX.1-2017, "pax", section "ustar Interchange Format") and
//! GNU ("Basic Tar Format" of the GNU tar manual).

use super::TarErrorKind;

pub(super) const BLOCK: usize = 512;
pub(super) const BLOCK_BYTES: u64 = 512;

/// A header with its numbers decoded. Names are as they stand there.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) typeflag: u8,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// Whether the stored checksum is the sum of the bytes, the checksum field taken as spaces. Some old
/// writers summed signed bytes.
pub(super) fn checksum_matches(block: &[u8; BLOCK]) -> bool {
    let Some(stored) = number(&block[148..156]) else {
        return false;
    };
    // Plain sums over whole slices, which the compiler makes wide instructions of: this is done for
    // every member.
    let spaces = 8 * i64::from(b' ');
    let parts = [&block[..148], &block[156..]];
    let unsigned = |part: &[u8]| part.iter().map(|b| u32::from(*b)).sum::<u32>();
    let signed = |part: &[u8]| part.iter().map(|b| i32::from(b.cast_signed())).sum::<i32>();
    stored
        == spaces
            + parts
                .into_iter()
                .map(|p| i64::from(unsigned(p)))
                .sum::<i64>()
        || stored == spaces + parts.into_iter().map(|p| i64::from(signed(p))).sum::<i64>()
}

/// Decodes a block whose checksum was found right.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Header, TarErrorKind> {
    let field = |range: std::ops::Range<usize>, what| {
        number(&block[range]).ok_or(TarErrorKind::Field(what))
    };
    let id = |range, what| {
        field(range, what)
            .and_then(|n: i64| u32::try_from(n).map_err(|_| TarErrorKind::Field(what)))
    };
    let is_ustar = block[257..263] == *b"ustar\0";
    let is_gnu = block[257..265] == *b"ustar  \0";
    // The prefix; the star format keeps times in its last 24 bytes.
    let prefix = match is_ustar {
        true if block[508..512] == *b"tar\0" => until_nul(&block[345..476]),
        true => until_nul(&block[345..500]),
        false => &[],
    };
    let mut name = prefix.to_vec();
    if !name.is_empty() {
        name.push(b'/');
    }
    name.extend_from_slice(until_nul(&block[..100]));
    let typeflag = block[156];
    let (major, minor) = match typeflag {
        b'3' | b'4' if is_ustar || is_gnu => (id(329..337, "devmajor")?, id(337..345, "devminor")?),
        _ => (0, 0),
    };
    let mode = field(100..108, "mode")? & 0o7777;
    Ok(Header {
        name,
        link: until_nul(&block[157..257]).to_vec(),
        typeflag,
        mode: u16::try_from(mode).map_err(|_| TarErrorKind::Field("mode"))?,
        uid: id(108..116, "uid")?,
        gid: id(116..124, "gid")?,
        size: size(&block[124..136])?,
        mtime: field(136..148, "mtime")?,
        major,
        minor,
    })
}

pub(super) fn size(bytes: &[u8]) -> Result<u64, TarErrorKind> {
    number(bytes)
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(TarErrorKind::Field("size"))
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Octal digits between spaces and zeros, or with the top bit set a big-endian two's complement
/// number (GNU "base-256"). An empty field is 0.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // The mark bit is no part of the number; the bit below it is the sign.
        let negative = first & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (i, byte) in field.iter().enumerate() {
            let byte = match (i, negative) {
                (0, true) => *byte,
                (0, false) => *byte & 0x7f,
                _ => *byte,
            };
            // At most 12 bytes: 96 bits do not overflow.
            value = (value << 8) | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let start = field.iter().position(|b| *b != b' ').unwrap_or(field.len());
    let mut value = 0_i64;
    for (i, byte) in field[start..].iter().enumerate() {
        match byte {
            b'0'..=b'7' => value = value.checked_mul(8)?.checked_add(i64::from(byte - b'0'))?,
            b' ' | 0 => {
                let rest = &field[start + i..];
                return rest.iter().all(|b| matches!(b, b' ' | 0)).then_some(value);
            }
            _ => return None,
        }
    }
    Some(value)
}
