//! Footer and header. All numbers are big-endian.
//!
//! ```text
//! footer, 512 bytes    0 "conectix"    8 features   12 version   16 place of the header (all ones: none)
//!                     24 time         28 creator, 32 its version, 36 its host
//!                     40 first size   48 size       56 cylinders, heads, sectors
//!                     60 type         64 checksum   68 id (16 bytes)   84 saved state
//! header, 1024 bytes   0 "cxsparse"    8 all ones   16 place of the table   24 version
//!                     28 entries      32 block size 36 checksum   40 parent …
//! ```
//!
//! A checksum is the ones' complement of the sum of all bytes, the checksum itself taken as zero.

use amiforge_types::{Digest, MIB, SECTOR};

use crate::format::numbers::{be32, be64};

/// First bytes of a footer.
pub(super) const MAGIC: &[u8; 8] = b"conectix";
/// First bytes of the header of a dynamic disk.
pub(super) const HEADER_MAGIC: &[u8; 8] = b"cxsparse";
/// Bytes of a block of the files we write.
pub(super) const BLOCK: u64 = 2 * MIB;
/// Bytes of the bitmap before a block of ours: a bit for each sector.
pub(super) const BITMAP: u64 = 512;
/// Where the header is in the files we write.
pub(super) const HEADER_AT: u64 = 512;
/// Where the block table is.
pub(super) const TABLE_AT: u64 = 512 + 1024;
/// Table entry of a block that is not there.
pub(super) const ABSENT: u32 = u32::MAX;
/// The largest disk: what Virtual PC, Hyper-V and Azure's tools stop at.
pub(super) const MAX_DISK: u64 = 2040 << 30;
/// Sectors beyond which cylinders, heads and sectors cannot count.
pub(super) const CHS_MAX: u64 = 65_535 * 16 * 255;

/// Kinds of disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed = 2,
    Dynamic = 3,
}

/// Size of the disk in a file that holds one of `disk_size` bytes. Azure takes whole MiB only.
pub(super) fn virtual_bytes(disk_size: u64) -> u64 {
    disk_size.next_multiple_of(MIB)
}

/// The geometry of a disk, by the algorithm of the specification's appendix.
pub(super) fn geometry(sectors: u64) -> (u16, u8, u8) {
    let total = sectors.min(CHS_MAX);
    let (per_track, heads, tracks);
    if total >= 65_535 * 16 * 63 {
        (per_track, heads, tracks) = (255, 16, total / 255);
    } else {
        let mut s = 17;
        let mut t = total / s;
        let mut h = t.div_ceil(1024).max(4);
        if t >= h * 1024 || h > 16 {
            (s, h) = (31, 16);
            t = total / s;
        }
        if t >= h * 1024 {
            (s, h) = (63, 16);
            t = total / s;
        }
        (per_track, heads, tracks) = (s, h, t);
    }
    let small = |n: u64| u8::try_from(n).unwrap_or(u8::MAX);
    (
        u16::try_from(tracks / heads).unwrap_or(u16::MAX),
        small(heads),
        small(per_track),
    )
}

/// The footer of a disk of `size` bytes whose content has this digest.
///
/// The creator says "Windows": readers that know two ways to say a size (QEMU among them) take the
/// size field of such files, and geometry, which can only say multiples of a cylinder, for others.
pub(super) fn footer(kind: Kind, size: u64, content: &Digest) -> Vec<u8> {
    let (cylinders, heads, sectors) = geometry(size / SECTOR);
    let mut f = Vec::with_capacity(512);
    f.extend(MAGIC);
    f.extend(2u32.to_be_bytes()); // features: a reserved bit that is always set
    f.extend(0x0001_0000u32.to_be_bytes());
    let header = match kind {
        Kind::Fixed => u64::MAX,
        Kind::Dynamic => HEADER_AT,
    };
    f.extend(header.to_be_bytes());
    f.extend(0u32.to_be_bytes()); // 2000-01-01: the bytes depend on the content alone
    f.extend(b"win \0\x06\0\x01Wi2k");
    f.extend(size.to_be_bytes());
    f.extend(size.to_be_bytes());
    f.extend(cylinders.to_be_bytes());
    f.extend([heads, sectors]);
    f.extend((kind as u32).to_be_bytes());
    f.extend([0; 4]);
    let mut id = [0; 16];
    id.copy_from_slice(&content.as_bytes()[..16]);
    // A UUID of version 8 (RFC 9562): its other bits are ours to choose.
    id[6] = id[6] & 0x0F | 0x80;
    id[8] = id[8] & 0x3F | 0x80;
    f.extend(id);
    f.resize(512, 0);
    seal(&mut f, 64);
    f
}

/// The header of a dynamic disk.
pub(super) fn header(entries: u32) -> Option<Vec<u8>> {
    let mut h = Vec::with_capacity(1024);
    h.extend(HEADER_MAGIC);
    h.extend(u64::MAX.to_be_bytes());
    h.extend(TABLE_AT.to_be_bytes());
    h.extend(0x0001_0000u32.to_be_bytes());
    h.extend(entries.to_be_bytes());
    h.extend(u32::try_from(BLOCK).ok()?.to_be_bytes());
    h.resize(1024, 0);
    seal(&mut h, 36);
    Some(h)
}

/// The checksum of a structure that has it at `at`.
pub(super) fn checksum(bytes: &[u8], at: usize) -> u32 {
    let sum: u32 = bytes
        .iter()
        .enumerate()
        .filter(|(i, _)| !(at..at + 4).contains(i))
        .fold(0, |sum, (_, b)| sum.wrapping_add(u32::from(*b)));
    !sum
}

fn seal(bytes: &mut [u8], at: usize) {
    let sum = checksum(bytes, at);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

/// What a footer says.
pub(super) struct Footer {
    pub header_at: u64,
    pub kind: u32,
    /// Size of the disk in bytes, by the rule that QEMU has.
    pub size: u64,
}

impl Footer {
    /// `None` when the bytes are no footer, or a damaged one.
    pub(super) fn decode(f: &[u8; 512]) -> Option<Self> {
        if !f.starts_with(MAGIC) || be32(f, 64) != checksum(f, 64) {
            return None;
        }
        // Virtual PC goes by geometry, Hyper-V and all later programs by the size field.
        let by_size = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"]
            .iter()
            .any(|creator| f[28..32] == creator[..]);
        let chs = (u64::from(be32(f, 56) >> 16)) * u64::from(f[58]) * u64::from(f[59]);
        let size = be64(f, 48);
        Some(Self {
            header_at: be64(f, 16),
            kind: be32(f, 60),
            size: if by_size || chs == CHS_MAX {
                size / SECTOR * SECTOR
            } else {
                chs * SECTOR
            },
        })
    }
}
