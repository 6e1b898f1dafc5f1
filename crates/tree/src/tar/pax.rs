//! PAX extended headers: `"<length> <key>=<value>\n"` records (POSIX.1-2017, "pax", section "pax
//! Extended Header").

use std::collections::BTreeMap;

use amiforge_types::Timestamp;

use super::TarErrorKind;
use super::sparse::PaxSparse;
use crate::InodeFlags;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about a member. Absent: the header block counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) acl_access: Option<Vec<u8>>,
    pub(super) acl_default: Option<Vec<u8>>,
    pub(super) flags: InodeFlags,
    pub(super) sparse: PaxSparse,
}

impl Pax {
    /// Adds the records of one extended header. Later records win; an empty value takes an earlier one
    /// back.
    pub(super) fn add(&mut self, mut records: &[u8]) -> Result<(), TarErrorKind> {
        while !records.is_empty() {
            // Some writers pad with zeros inside the declared size.
            if records.iter().all(|b| *b == 0) {
                break;
            }
            let (key, value, rest) = record(records).ok_or(TarErrorKind::Field("PAX record"))?;
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    /// Adds the records of a global header. What belongs to one file is refused there: a name, size or
    /// map for every file after it is no archive, and attributes would be copied to each.
    pub(super) fn add_global(&mut self, mut records: &[u8]) -> Result<(), TarErrorKind> {
        while !records.is_empty() && !records.iter().all(|b| *b == 0) {
            let (key, value, rest) = record(records).ok_or(TarErrorKind::Field("PAX record"))?;
            let of_one_file = matches!(key, b"path" | b"linkpath" | b"size")
                || [XATTR, &b"SCHILY.acl."[..], b"GNU.sparse."]
                    .iter()
                    .any(|prefix| key.starts_with(prefix));
            if of_one_file {
                return Err(TarErrorKind::Unsupported(format!(
                    "the record {:?} for all files",
                    String::from_utf8_lossy(key)
                )));
            }
            self.set(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarErrorKind> {
        if let Some(name) = key.strip_prefix(XATTR) {
            return self.set_xattr(&decode_name(name), value);
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.set(key, value);
        }
        let text = (!value.is_empty()).then_some(value);
        match key {
            b"path" => self.path = text.map(<[u8]>::to_vec),
            b"linkpath" => self.link = text.map(<[u8]>::to_vec),
            b"size" => {
                self.size = text
                    .map(|v| decimal(v).ok_or(TarErrorKind::Field("size")))
                    .transpose()?
            }
            b"uid" => {
                self.uid = text
                    .map(|v| id(v).ok_or(TarErrorKind::Field("uid")))
                    .transpose()?
            }
            b"gid" => {
                self.gid = text
                    .map(|v| id(v).ok_or(TarErrorKind::Field("gid")))
                    .transpose()?
            }
            b"mtime" => {
                self.mtime = text
                    .map(|v| time(v).ok_or(TarErrorKind::Field("mtime")))
                    .transpose()?
            }
            b"SCHILY.acl.access" => self.acl_access = text.map(<[u8]>::to_vec),
            b"SCHILY.acl.default" => self.acl_default = text.map(<[u8]>::to_vec),
            b"SCHILY.fflags" => {
                self.flags = InodeFlags::from_names(&String::from_utf8_lossy(value));
            }
            // Owner names (numbers count), other times, comments, labels, vendors' extensions.
            _ => {}
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), TarErrorKind> {
        const MAX_VALUE: usize = 64 << 10;
        if name.is_empty()
            || name.len() > crate::MAX_NAME
            || name.contains(&0)
            || value.len() > MAX_VALUE
        {
            return Err(TarErrorKind::Field("extended attribute"));
        }
        self.xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }
}

/// GNU tar writes `=` and `%` in names of attributes as `%3D` and `%25`.
fn decode_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'%', b'3', b'D', tail @ ..] => (b'=', tail),
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            _ => (*first, tail),
        };
        out.push(byte);
        rest = tail;
    }
    out
}

/// Splits off the first record: key, value, rest.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..len)?;
    let (newline, body) = record.split_last()?;
    let equals = body.iter().position(|b| *b == b'=')?;
    (*newline == b'\n' && equals > 0).then(|| (&body[..equals], &body[equals + 1..], &bytes[len..]))
}

/// Decimal digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let good = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| good)?
        .parse()
        .ok()
}

fn id(text: &[u8]) -> Option<u32> {
    u32::try_from(decimal(text)?).ok()
}

/// `[-]seconds[.fraction]`; digits below a nanosecond are dropped towards the past.
pub(super) fn time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |b| *b == b'.');
    let whole = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanos = 0_u32;
    for i in 0..9 {
        nanos = nanos * 10 + fraction.get(i).map_or(0, |b| u32::from(b - b'0'));
    }
    if !negative {
        return Some(Timestamp { secs: whole, nanos });
    }
    let more = fraction.iter().skip(9).any(|b| *b != b'0');
    nanos += u32::from(more);
    // Before 1970 the nanoseconds still count forward.
    match nanos {
        0 => Some(Timestamp {
            secs: -whole,
            nanos: 0,
        }),
        n => Some(Timestamp {
            secs: (-whole).checked_sub(1)?,
            nanos: 1_000_000_000 - n,
        }),
    }
}
