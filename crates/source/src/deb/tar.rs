//! The tar archives inside a package: ustar with GNU long names and pax headers, read as a stream.
//!
//! ```text
//! 0 name 100 · 100 mode 8 · 108 uid 8 · 116 gid 8 · 124 size 12 · 136 mtime 12 · 148 checksum 8
//! 156 type 1 · 157 link name 100 · 257 magic 6 · 265 uname 32 · 297 gname 32 · 329 major 8
//! 337 minor 8 · 345 prefix 155 (ustar), all numbers octal text or, with the top bit set, binary
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use super::DebError;

/// Longest name, link target, or set of pax records.
const MAX_NAME: u64 = 64 << 10;
const MAX_PAX: u64 = 1 << 20;

/// Most entries of one archive, and most bytes of all its files.
const MAX_ENTRIES: u64 = 2_000_000;
const MAX_BYTES: u64 = 64 << 30;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Dir,
    Symlink(Vec<u8>),
    /// Another name of an earlier entry of this archive.
    Hardlink(Vec<u8>),
    CharDev(u32, u32),
    BlockDev(u32, u32),
    Fifo,
}

/// One entry; the content of a file follows in the stream.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// As written, without a leading `./` or `/` and a final `/`; the root is empty.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) size: u64,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads entries one after the other.
pub(crate) struct TarReader<'a> {
    reader: Box<dyn BufRead + 'a>,
    part: &'static str,
    offset: u64,
    /// Content of the current entry that was not read, and its padding.
    left: u64,
    padding: u64,
    entries: u64,
    bytes: u64,
}

impl<'a> TarReader<'a> {
    pub(crate) fn new(reader: Box<dyn BufRead + 'a>, part: &'static str) -> Self {
        Self {
            reader,
            part,
            offset: 0,
            left: 0,
            padding: 0,
            entries: 0,
            bytes: 0,
        }
    }

    fn bad(&self, reason: impl Into<String>) -> DebError {
        DebError::malformed(self.part, self.offset, reason)
    }

    fn io(&self, source: std::io::Error) -> DebError {
        DebError::Io {
            part: self.part,
            source,
        }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), DebError> {
        self.reader.read_exact(buf).map_err(|e| self.io(e))?;
        self.offset += buf.len() as u64;
        Ok(())
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), DebError> {
        while bytes > 0 {
            let have = self
                .reader
                .fill_buf()
                .map_err(|source| DebError::Io {
                    part: self.part,
                    source,
                })?
                .len() as u64;
            if have == 0 {
                return Err(self.io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let n = have.min(bytes);
            self.reader
                .consume(usize::try_from(n).unwrap_or(usize::MAX));
            self.offset += n;
            bytes -= n;
        }
        Ok(())
    }

    /// Hands the content of the current file to `sink` piece by piece.
    pub(crate) fn content(
        &mut self,
        mut sink: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), DebError> {
        while self.left > 0 {
            let part = self.part;
            let chunk = self
                .reader
                .fill_buf()
                .map_err(|source| DebError::Io { part, source })?;
            if chunk.is_empty() {
                return Err(self.io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let n = chunk
                .len()
                .min(usize::try_from(self.left).unwrap_or(usize::MAX));
            sink(&chunk[..n]).map_err(|source| DebError::Io {
                part: "spool",
                source,
            })?;
            self.reader.consume(n);
            self.left -= n as u64;
            self.offset += n as u64;
        }
        Ok(())
    }

    /// The content of the current file, which must not be larger than `limit`.
    pub(crate) fn content_vec(&mut self, limit: u64) -> Result<Vec<u8>, DebError> {
        if self.left > limit {
            return Err(DebError::Limit {
                what: "bytes of a control file",
                limit,
            });
        }
        let mut out = Vec::new();
        self.content(|chunk| {
            out.extend_from_slice(chunk);
            Ok(())
        })?;
        Ok(out)
    }

    /// The next entry; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, DebError> {
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        let mut pax: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        loop {
            let skip = self.left + self.padding;
            (self.left, self.padding) = (0, 0);
            self.skip(skip)?;
            let mut header = [0; 512];
            if self
                .reader
                .fill_buf()
                .map_err(|source| DebError::Io {
                    part: self.part,
                    source,
                })?
                .is_empty()
            {
                // Without the two blocks of zeros at the end; dpkg takes it too.
                return Ok(None);
            }
            self.fill(&mut header)?;
            if header.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(DebError::Limit {
                    what: "entries",
                    limit: MAX_ENTRIES,
                });
            }
            self.checksum(&header)?;
            let mut size = self.number(&header[124..136], "size")?;
            let kind = header[156];
            match kind {
                b'L' | b'K' => {
                    let text = self.meta(size, MAX_NAME)?;
                    let text = text.split(|b| *b == 0).next().unwrap_or_default().to_vec();
                    *(if kind == b'L' {
                        &mut long_name
                    } else {
                        &mut long_link
                    }) = Some(text);
                    continue;
                }
                b'x' => {
                    let text = self.meta(size, MAX_PAX)?;
                    self.pax(&text, &mut pax)?;
                    continue;
                }
                b'g' => {
                    self.meta(size, MAX_PAX)?;
                    continue;
                }
                _ => {}
            }
            if let Some(text) = pax.get(b"size".as_slice()) {
                size = parse_decimal(text).ok_or_else(|| self.bad("bad pax size"))?;
            }
            let cut = |field: &[u8]| field.split(|b| *b == 0).next().unwrap_or_default().to_vec();
            let mut path = cut(&header[..100]);
            if &header[257..263] == b"ustar\0" && header[345] != 0 {
                let mut prefix = cut(&header[345..500]);
                prefix.push(b'/');
                prefix.extend_from_slice(&path);
                path = prefix;
            }
            let mut link = cut(&header[157..257]);
            path = pax
                .remove(b"path".as_slice())
                .or(long_name.take())
                .unwrap_or(path);
            link = pax
                .remove(b"linkpath".as_slice())
                .or(long_link.take())
                .unwrap_or(link);
            let number =
                |range: std::ops::Range<usize>, what: &str| self.number(&header[range], what);
            let small = |value: u64, what: &str| {
                u32::try_from(value).map_err(|_| self.bad(format!("{what} too large")))
            };
            let id = |name: &[u8], range, what| match pax.get(name) {
                Some(text) => {
                    parse_decimal(text).ok_or_else(|| self.bad(format!("bad pax {what}")))
                }
                None => number(range, what),
            };
            let (uid, gid) = (
                small(id(b"uid", 108..116, "uid")?, "uid")?,
                small(id(b"gid", 116..124, "gid")?, "gid")?,
            );
            let device = || -> Result<(u32, u32), DebError> {
                Ok((
                    small(number(329..337, "major")?, "major")?,
                    small(number(337..345, "minor")?, "minor")?,
                ))
            };
            let directory_by_name = path.ends_with(b"/");
            let kind = match kind {
                b'0' | 0 | b'7' if directory_by_name => EntryKind::Dir,
                b'0' | 0 | b'7' => EntryKind::File,
                b'1' => EntryKind::Hardlink(clean(&link)),
                b'2' => EntryKind::Symlink(link),
                b'3' => {
                    let (major, minor) = device()?;
                    EntryKind::CharDev(major, minor)
                }
                b'4' => {
                    let (major, minor) = device()?;
                    EntryKind::BlockDev(major, minor)
                }
                b'5' => EntryKind::Dir,
                b'6' => EntryKind::Fifo,
                other => {
                    return Err(DebError::Unsupported(format!(
                        "tar entry type {:?}",
                        char::from(other)
                    )));
                }
            };
            if matches!(&kind, EntryKind::Symlink(target) if target.is_empty() || target.contains(&0))
            {
                return Err(self.bad("a symbolic link without a target"));
            }
            let mode = self.number(&header[100..108], "mode")? & 0o7777;
            let mtime = i64::try_from(self.number(&header[136..148], "mtime")?)
                .map_err(|_| self.bad("bad mtime"))?;
            if kind != EntryKind::File {
                // Some writers give a size to links; no content follows.
                size = if matches!(kind, EntryKind::Dir) {
                    size
                } else {
                    0
                };
            }
            self.bytes = self.bytes.saturating_add(size);
            if self.bytes > MAX_BYTES {
                return Err(DebError::Limit {
                    what: "bytes",
                    limit: MAX_BYTES,
                });
            }
            self.left = size;
            self.padding = size.next_multiple_of(512) - size;
            let xattrs = pax
                .into_iter()
                .filter_map(|(k, v)| {
                    Some((k.strip_prefix(b"SCHILY.xattr.".as_slice())?.to_vec(), v))
                })
                .collect();
            return Ok(Some(Entry {
                path: clean(&path),
                kind,
                mode: u16::try_from(mode).unwrap_or_default(),
                uid,
                gid,
                mtime,
                size,
                xattrs,
            }));
        }
    }

    /// The content of a header entry.
    fn meta(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, DebError> {
        if size > limit {
            return Err(DebError::Limit {
                what: "bytes of a tar header",
                limit,
            });
        }
        self.left = size;
        self.padding = size.next_multiple_of(512) - size;
        self.content_vec(limit)
    }

    /// `<length> <key>=<value>\n` …
    fn pax(&self, mut text: &[u8], out: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), DebError> {
        while !text.is_empty() {
            let bad = || self.bad("bad pax record");
            let space = text.iter().position(|b| *b == b' ').ok_or_else(bad)?;
            let length = parse_decimal(&text[..space])
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(bad)?;
            let record = text.get(space + 1..length).ok_or_else(bad)?;
            let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
            let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
            out.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
            text = &text[length..];
        }
        Ok(())
    }

    fn checksum(&self, header: &[u8; 512]) -> Result<(), DebError> {
        let wanted = self.number(&header[148..156], "checksum")?;
        let sum: u64 = header
            .iter()
            .enumerate()
            .map(|(i, b)| u64::from(if (148..156).contains(&i) { b' ' } else { *b }))
            .sum();
        if sum == wanted {
            Ok(())
        } else {
            Err(self.bad("bad header checksum"))
        }
    }

    fn number(&self, field: &[u8], what: &str) -> Result<u64, DebError> {
        let bad = || self.bad(format!("bad {what}"));
        if let Some(first) = field.first().filter(|b| **b & 0x80 != 0) {
            // Binary, big-endian, positive.
            if *first != 0x80 {
                return Err(bad());
            }
            return field[1..].iter().try_fold(0u64, |n, b| {
                n.checked_mul(256)
                    .map(|n| n + u64::from(*b))
                    .ok_or_else(bad)
            });
        }
        let digits: Vec<u8> = field
            .iter()
            .copied()
            .filter(|b| !matches!(b, b' ' | 0))
            .collect();
        digits.iter().try_fold(0u64, |n, b| match b {
            b'0'..=b'7' => n
                .checked_mul(8)
                .map(|n| n + u64::from(b - b'0'))
                .ok_or_else(bad),
            _ => Err(bad()),
        })
    }
}

fn parse_decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Without leading `./` and `/`, and final `/`.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|b| *b == b'/')
        .filter(|p| !p.is_empty() && *p != b".")
        .collect();
    parts.join(&b'/')
}
