//! Extended attributes, read. Their bytes are drawn in [`xattr`](crate::ext4::xattr); kernel
//! documentation, `filesystems/ext4/attributes.rst`.

use std::collections::BTreeMap;

use amiforge_tree::XattrName;

use super::bytes::{index, le16, le32};
use super::error::{Fault, Place};
use super::fs::Fs;
use super::inode::Inode;
use super::map::Budget;

const MAGIC: u32 = 0xEA02_0000;
const ENTRY: usize = 16;
const BLOCK_HEADER: usize = 32;
/// Largest value that Linux takes.
const MAX_VALUE: u32 = 65_536;
/// Most bytes of values of one inode: what the largest block holds, or some values in inodes.
const MAX_VALUES: u64 = 1 << 20;
const SYSTEM: u8 = 7;
const ENCRYPTION: u8 = 9;

/// An attribute as it is stored.
struct Raw<'b> {
    space: u8,
    name: &'b [u8],
    value_at: usize,
    value_len: u32,
    /// The inode that holds the value, 0 when it is here.
    value_inode: u32,
}

/// The attributes of an inode by full name, with the values that `getxattr` gives.
pub(super) fn read(fs: &Fs, inode: &Inode) -> Result<BTreeMap<XattrName, Vec<u8>>, Fault> {
    let mut out = BTreeMap::new();
    let mut total = 0;
    each(fs, inode, |entry, values, place| {
        total += u64::from(entry.value_len);
        if total > MAX_VALUES {
            return Err(Fault::Limit {
                what: "bytes of attributes of one inode",
                limit: MAX_VALUES,
            });
        }
        let Some(name) = full_name(entry, place)? else {
            return Ok(());
        };
        let value = value(fs, entry, values, place)?;
        let value = match entry.space {
            2 | 3 => access_list(&value)
                .ok_or_else(|| Fault::damaged(place, "has a malformed access control list"))?,
            _ => value,
        };
        // Linux takes the one in the inode.
        out.entry(name).or_insert(value);
        Ok(())
    })?;
    Ok(out)
}

/// The part of an inode's data that is in an attribute; empty without.
pub(super) fn inline_data(fs: &Fs, inode: &Inode) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    each(fs, inode, |entry, values, place| {
        if (entry.space, entry.name) == (SYSTEM, b"data") {
            out = value(fs, entry, values, place)?;
        }
        Ok(())
    })?;
    Ok(out)
}

/// Hands every attribute to `f`, with the bytes in which its value is.
fn each(
    fs: &Fs,
    inode: &Inode,
    mut f: impl FnMut(&Raw<'_>, &[u8], Place) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let place = |block| Place::XattrBlock {
        inode: inode.number,
        block,
    };
    let tail = inode.tail();
    if le32(tail, 0) == MAGIC {
        let values = tail.get(4..).unwrap_or_default();
        entries(values, 0, place(0), &mut f)?;
    }
    if inode.xattr_block == 0 {
        return Ok(());
    }
    let place = place(inode.xattr_block);
    if !fs.volume.holds(inode.xattr_block) {
        return Err(Fault::damaged(place, "is outside of the file system"));
    }
    let block = fs.volume.block(inode.xattr_block, place)?;
    if le32(&block, 0) != MAGIC || le32(&block, 8) != 1 {
        return Err(Fault::damaged(place, "is not a block of attributes"));
    }
    if fs.sb.has_checksums() {
        let crc = fs.sb.crc.with(&inode.xattr_block.to_le_bytes());
        let crc = crc.with(&block[..16]).with(&[0; 4]).with(&block[20..]);
        Fault::unless_equal(place, le32(&block, 16), crc.value())?;
    }
    entries(&block, BLOCK_HEADER, place, &mut f)
}

fn entries(
    space: &[u8],
    start: usize,
    place: Place,
    f: &mut impl FnMut(&Raw<'_>, &[u8], Place) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut at = start;
    // Four zero bytes end the list; so does the end of the space.
    while le32(space, at) != 0 {
        let entry = space.get(at..).unwrap_or_default();
        let name_len = usize::from(entry[0]);
        let Some(name) = entry.get(ENTRY..ENTRY + name_len) else {
            return Err(Fault::damaged(place, "has an attribute that is cut off"));
        };
        let raw = Raw {
            space: entry[1],
            name,
            value_at: le16(entry, 2).into(),
            value_inode: le32(entry, 4),
            value_len: le32(entry, 8),
        };
        f(&raw, space, place)?;
        at += (ENTRY + name_len).next_multiple_of(4);
    }
    Ok(())
}

fn value(fs: &Fs, entry: &Raw<'_>, values: &[u8], place: Place) -> Result<Vec<u8>, Fault> {
    if entry.value_len > MAX_VALUE {
        return Err(Fault::damaged(place, "has a value that is too large"));
    }
    let len = index(entry.value_len.into());
    if entry.value_inode != 0 {
        let holder = fs.inode(entry.value_inode)?;
        if !holder.holds_xattr() || holder.size != u64::from(entry.value_len) {
            return Err(Fault::damaged(
                place,
                "has a value in an inode that holds none of that size",
            ));
        }
        let mut out = vec![0; len];
        fs.read_data(&holder, 0, &mut out, &mut Budget::of(&fs.volume))?;
        return Ok(out);
    }
    if len == 0 {
        return Ok(Vec::new());
    }
    values
        .get(entry.value_at..entry.value_at + len)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| Fault::damaged(place, "has a value that is cut off"))
}

/// The name that Linux shows; `None` for what it keeps to itself.
fn full_name(entry: &Raw<'_>, place: Place) -> Result<Option<XattrName>, Fault> {
    let prefix: &[u8] = match (entry.space, entry.name) {
        (SYSTEM, b"data") | (ENCRYPTION, _) => return Ok(None),
        (2, b"") => return Ok(Some(b"system.posix_acl_access".to_vec())),
        (3, b"") => return Ok(Some(b"system.posix_acl_default".to_vec())),
        (1, _) => b"user.",
        (4, _) => b"trusted.",
        (6, _) => b"security.",
        (SYSTEM, _) => b"system.",
        (10, _) => b"gnu.",
        (2 | 3, _) => {
            return Err(Fault::damaged(
                place,
                "has an access control list with a name",
            ));
        }
        (space, _) => {
            return Err(Fault::Unsupported(format!(
                "an attribute of the name space {space}"
            )));
        }
    };
    if entry.name.is_empty() || entry.name.contains(&0) {
        return Err(Fault::damaged(place, "has an attribute without a name"));
    }
    Ok(Some([prefix, entry.name].concat()))
}

/// An access control list from the form on disk (version 1: an id only where the entry names a user
/// or group) to that of `getxattr` (version 2: eight bytes an entry).
fn access_list(stored: &[u8]) -> Option<Vec<u8>> {
    const NAMED: [u16; 2] = [0x02, 0x08];
    const OTHERS: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
    let mut rest = stored.strip_prefix(&1_u32.to_le_bytes())?;
    let mut out = 2_u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let tag = le16(rest, 0);
        let len = match tag {
            tag if NAMED.contains(&tag) => 8,
            tag if OTHERS.contains(&tag) => 4,
            _ => return None,
        };
        out.extend_from_slice(rest.get(..4)?);
        match len {
            8 => out.extend_from_slice(rest.get(4..8)?),
            _ => out.extend_from_slice(&u32::MAX.to_le_bytes()),
        }
        rest = rest.get(len..)?;
    }
    Some(out)
}
