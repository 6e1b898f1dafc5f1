//! Extended attributes: in the tail of the inode first, the rest in one block.
//!
//! ```text
//! entry: name length u8, name index u8, value offset u16, value inode u32, value size u32, hash u32, name, 0..3 zeros
//! inode: magic u32 | entries -> four zero bytes ... <- values          (offsets from after the magic)
//! block: magic, references, blocks, hash, checksum, 0,0,0 | entries -> four zero bytes ... <- values
//! ```
//! Kernel documentation, `filesystems/ext4/attributes.rst`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use amiforge_tree::XattrName;

use super::BLOCK_SIZE;
use super::checksum::Crc;

const MAGIC: u32 = 0xEA02_0000;
/// Bytes of an inode after the fields, magic included.
pub(super) const INLINE_SPACE: usize = 96;
const BLOCK: usize = 4096;
const BLOCK_HEADER: usize = 32;
const ENTRY_HEADER: usize = 16;
/// Bytes that end the list of entries.
const END: usize = 4;

const _: () = assert!(BLOCK as u64 == BLOCK_SIZE);

/// Why a set of attributes cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum XattrProblem {
    Name(XattrName),
    Value(XattrName),
    Space { size: usize, limit: usize },
}

/// The attributes of one inode, ready to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoded {
    /// The inode's tail.
    pub(super) inline: Option<[u8; INLINE_SPACE]>,
    /// The block, without its checksum.
    pub(super) block: Option<Box<[u8; BLOCK]>>,
}

/// One attribute as ext4 has it. The order of the fields is the order of the kernel's comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Attribute<'a> {
    index: u8,
    name_len: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
}

impl Attribute<'_> {
    fn entry_len(&self) -> usize {
        (ENTRY_HEADER + self.name.len()).next_multiple_of(4)
    }

    fn value_len(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }

    /// The hash that entries in a block carry.
    fn hash(&self) -> u32 {
        let mut hash: u32 = 0;
        for byte in self.name {
            // As kernels before 6.2 and all e2fsprogs accept it: a signed character.
            hash = hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned();
        }
        for word in self.value.chunks(4) {
            let mut padded = [0; 4];
            padded[..word.len()].copy_from_slice(word);
            hash = hash.rotate_left(16) ^ u32::from_le_bytes(padded);
        }
        hash
    }
}

/// Encodes all attributes of an inode; `None` when it has none.
pub(super) fn encode(
    xattrs: &BTreeMap<XattrName, Vec<u8>>,
) -> Result<Option<Encoded>, XattrProblem> {
    if xattrs.is_empty() {
        return Ok(None);
    }
    let mut all = xattrs
        .iter()
        .map(|(name, value)| attribute(name, value))
        .collect::<Result<Vec<_>, _>>()?;
    all.sort();
    let mut room = INLINE_SPACE - 4 - END;
    let (inline, block): (Vec<_>, Vec<_>) = all.into_iter().partition(|a| {
        let fits = a.entry_len() + a.value_len() <= room;
        if fits {
            room -= a.entry_len() + a.value_len();
        }
        fits
    });
    let needed: usize = block.iter().map(|a| a.entry_len() + a.value_len()).sum();
    let limit = BLOCK - BLOCK_HEADER - END;
    if needed > limit {
        return Err(XattrProblem::Space {
            size: needed,
            limit,
        });
    }
    Ok(Some(Encoded {
        inline: encode_inline(&inline),
        block: encode_block(&block),
    }))
}

fn encode_inline(list: &[Attribute<'_>]) -> Option<[u8; INLINE_SPACE]> {
    if list.is_empty() {
        return None;
    }
    let mut out = [0; INLINE_SPACE];
    out[..4].copy_from_slice(&MAGIC.to_le_bytes());
    put_entries(&mut out[4..], 0, list, |_| 0);
    Some(out)
}

fn encode_block(list: &[Attribute<'_>]) -> Option<Box<[u8; BLOCK]>> {
    if list.is_empty() {
        return None;
    }
    let mut out = Box::new([0; BLOCK]);
    let hash = list
        .iter()
        .fold(0_u32, |hash, a| hash.rotate_left(16) ^ a.hash());
    let hash = if list.iter().any(|a| a.hash() == 0) {
        0
    } else {
        hash
    };
    for (at, field) in [(0, MAGIC), (4, 1), (8, 1), (12, hash)] {
        out[at..at + 4].copy_from_slice(&field.to_le_bytes());
    }
    put_entries(&mut out[..], BLOCK_HEADER, list, |a| a.hash());
    Some(out)
}

/// Writes entries from `start` on and values from the end of `space` down.
fn put_entries(
    space: &mut [u8],
    start: usize,
    list: &[Attribute<'_>],
    hash: impl Fn(&Attribute<'_>) -> u32,
) {
    let (mut entry, mut value) = (start, space.len());
    for a in list {
        value -= a.value_len();
        let offset = if a.value.is_empty() {
            0
        } else {
            u16::try_from(value).unwrap_or(0)
        };
        let size = u32::try_from(a.value.len()).unwrap_or(0);
        space[entry] = a.name_len;
        space[entry + 1] = a.index;
        space[entry + 2..entry + 4].copy_from_slice(&offset.to_le_bytes());
        space[entry + 8..entry + 12].copy_from_slice(&size.to_le_bytes());
        space[entry + 12..entry + 16].copy_from_slice(&hash(a).to_le_bytes());
        space[entry + ENTRY_HEADER..entry + ENTRY_HEADER + a.name.len()].copy_from_slice(a.name);
        space[value..value + a.value.len()].copy_from_slice(&a.value);
        entry += a.entry_len();
    }
}

/// Puts the checksum into an attribute block that lies at block `number`.
pub(super) fn seal(block: &mut [u8; BLOCK], number: u64, file_system: Crc) {
    block[16..20].fill(0);
    let sum = file_system
        .with(&number.to_le_bytes())
        .with(&block[..])
        .value();
    block[16..20].copy_from_slice(&sum.to_le_bytes());
}

fn attribute<'a>(full: &'a XattrName, value: &'a [u8]) -> Result<Attribute<'a>, XattrProblem> {
    const SPACES: [(&[u8], u8); 4] = [
        (b"user.", 1),
        (b"trusted.", 4),
        (b"security.", 6),
        (b"system.", 7),
    ];
    let bad_value = || XattrProblem::Value(full.clone());
    let (index, name, value): (u8, &[u8], Cow<'a, [u8]>) = match full.as_slice() {
        b"system.posix_acl_access" => (2, b"", Cow::Owned(acl(value).ok_or_else(bad_value)?)),
        b"system.posix_acl_default" => (3, b"", Cow::Owned(acl(value).ok_or_else(bad_value)?)),
        b"security.capability" => (6, b"capability", capability(value).ok_or_else(bad_value)?),
        other => SPACES
            .into_iter()
            .find_map(|(prefix, index)| {
                Some((index, other.strip_prefix(prefix)?, Cow::Borrowed(value)))
            })
            .filter(|(_, name, _)| !name.is_empty() && !name.contains(&0))
            .ok_or_else(|| XattrProblem::Name(full.clone()))?,
    };
    let name_len = u8::try_from(name.len()).map_err(|_| XattrProblem::Name(full.clone()))?;
    Ok(Attribute {
        index,
        name_len,
        name,
        value,
    })
}

/// An access control list from the form of `getxattr` (version 2: eight bytes an entry) to that on
/// disk (version 1: the id only where the entry names a user or group).
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    const OTHERS: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    if entries.is_empty() || !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut out = 1_u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        out.extend_from_slice(&entry[..4]);
        match tag {
            USER | GROUP => out.extend_from_slice(&entry[4..]),
            tag if OTHERS.contains(&tag) => {}
            _ => return None,
        }
    }
    Some(out)
}

/// File capabilities as version 2. Version 3 adds the root id of a user namespace of the machine
/// that set it, which means nothing inside an image.
fn capability(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    const VERSION_MASK: u32 = 0xFF00_0000;
    let magic = u32::from_le_bytes(value.get(..4)?.try_into().ok()?);
    match (magic & VERSION_MASK, value.len()) {
        (0x0100_0000, 12) | (0x0200_0000, 20) => Some(Cow::Borrowed(value)),
        (0x0300_0000, 24) => {
            let mut out = (0x0200_0000 | magic & !VERSION_MASK).to_le_bytes().to_vec();
            out.extend_from_slice(&value[4..20]);
            Some(Cow::Owned(out))
        }
        _ => None,
    }
}
