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
const NO_ID: u32 = u32::MAX;

/// `user::rwx,user:1000:r-x,group::r-x,mask::r-x,other::---`; entries end at commas or newlines, a
/// fourth field (star) is the number for a name in the second.
pub(super) fn from_text(text: &[u8]) -> Result<Vec<u8>, TarErrorKind> {
    const BAD: TarErrorKind = TarErrorKind::Field("access control list");
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
            "root" => 0,
            // What a name means only the archive's own user database can tell.
            _ => qualifier.parse().map_err(|_| {
                TarErrorKind::Unsupported(format!(
                    "the access control entry {entry:?} with a name and no number (write the archive with --numeric-owner)"
                ))
            })?,
        };
        let mut bits = 0;
        for c in permissions.split_whitespace().next().unwrap_or("").chars() {
            bits |= match c {
                'r' => 4,
                'w' => 2,
                'x' => 1,
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
    let mut out = 2_u32.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Ok(out)
}
