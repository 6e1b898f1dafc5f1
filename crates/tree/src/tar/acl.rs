//! POSIX ACLs: the text of `SCHILY.acl.*` records to the bytes that `getxattr` gives
//! (`linux/posix_acl_xattr.h`: version 2, then tag, permissions and id of each entry).

use super::TarErrorKind;

pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const READ: u16 = 4;
const WRITE: u16 = 2;
const EXECUTE: u16 = 1;
const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;

/// Longest text that is looked at: what 8,191 entries need, the most that an attribute of 64 KiB holds.
pub(super) const MAX_TEXT: usize = 512 << 10;

/// Finds the number of a user (`true`: a group) by name.
pub(super) type Names<'a> = &'a dyn Fn(bool, &str) -> Option<u32>;

/// `user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---`; entries end at commas or newlines, a
/// fourth field (star) is the number for a name in the second. GNU tar writes names without numbers.
pub(super) fn from_text(text: &[u8], names: Names<'_>) -> Result<Vec<u8>, TarErrorKind> {
    const BAD: TarErrorKind = TarErrorKind::Field("access control list");
    if text.len() > MAX_TEXT {
        return Err(BAD);
    }
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for entry in text
        .split([',', '\n'])
        .map(str::trim)
        .filter(|e| !e.is_empty() && !e.starts_with('#'))
    {
        let fields: Vec<&str> = entry.split(':').collect();
        let (kind, qualifier, permissions) = match fields.as_slice() {
            [kind @ ("mask" | "m" | "other" | "o"), permissions] => (*kind, "", *permissions),
            [kind, qualifier, permissions] => (*kind, *qualifier, *permissions),
            [kind, _, permissions, number] => (*kind, *number, *permissions),
            _ => return Err(BAD),
        };
        let tag = match (kind, qualifier.is_empty()) {
            ("user" | "u", true) => USER_OBJ,
            ("user" | "u", false) => USER,
            ("group" | "g", true) => GROUP_OBJ,
            ("group" | "g", false) => GROUP,
            ("mask" | "m", true) => MASK,
            ("other" | "o", true) => OTHER,
            _ => return Err(BAD),
        };
        let id = match qualifier {
            "" => NO_ID,
            _ => match qualifier.parse() {
                Ok(id) => id,
                Err(_) => names(tag == GROUP, qualifier).ok_or_else(|| {
                    TarErrorKind::Unsupported(format!(
                        "the access control entry {entry:?}, whose name is not in the archive's etc/passwd or etc/group,"
                    ))
                })?,
            },
        };
        let mut bits = 0;
        for c in permissions.split_whitespace().next().unwrap_or("").chars() {
            bits |= match c {
                'r' => READ,
                'w' => WRITE,
                'x' => EXECUTE,
                '-' => 0,
                _ => return Err(BAD),
            };
        }
        entries.push((tag, id, bits));
    }
    if entries.is_empty() {
        return Err(BAD);
    }
    entries.sort_unstable();
    let mut out = VERSION.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Ok(out)
}

/// Whether a list has no entries but those that the mode has.
pub(super) fn is_mode_only(value: &[u8]) -> bool {
    value.get(4..).is_some_and(|entries| {
        entries.chunks(8).all(|entry| {
            let tag = entry.first_chunk().map(|tag| u16::from_le_bytes(*tag));
            matches!(tag, Some(USER_OBJ | GROUP_OBJ | OTHER))
        })
    })
}

/// The text with numbers, or `None` for bytes that the text could not give back.
pub(super) fn to_text(value: &[u8]) -> Option<String> {
    let mut entries = Vec::new();
    for entry in value.strip_prefix(&VERSION.to_le_bytes())?.chunks(8) {
        let &[t0, t1, p0, p1, i0, i1, i2, i3] = entry else {
            return None;
        };
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let (kind, qualifier) = match u16::from_le_bytes([t0, t1]) {
            USER_OBJ => ("user", String::new()),
            USER => ("user", id.to_string()),
            GROUP_OBJ => ("group", String::new()),
            GROUP => ("group", id.to_string()),
            MASK => ("mask", String::new()),
            OTHER => ("other", String::new()),
            _ => return None,
        };
        let bits = u16::from_le_bytes([p0, p1]);
        let bit = |bit, c| if bits & bit == 0 { '-' } else { c };
        let (r, w, x) = (bit(READ, 'r'), bit(WRITE, 'w'), bit(EXECUTE, 'x'));
        entries.push(format!("{kind}:{qualifier}:{r}{w}{x}"));
    }
    let text = entries.join(",");
    let back = from_text(text.as_bytes(), &|_, _| None).ok()?;
    (back == value).then_some(text)
}
