//! The archive in a bundle: tar with one regular file.
//!
//! Written: one ustar header (the size in base 256 beyond 8 GiB, as GNU tar has it), the bytes, zeros up to a record of 10240 bytes. Read: that,
//! and what `tar -S`, ec2-ami-tools and Python write: old GNU sparse files, long names, and PAX headers with path and size.
//!
//! The reader is our own, since the archive is foreign, its one file is written to a stream and not to a path, and a name or header must not
//! be as long as the archive: the `tar` crate takes both as they come, and is the independent reader of the tests.
//!
//! Source: POSIX.1-2017, `pax`; GNU tar manual, "Basic Tar Format".

use std::io::{self, Read, Write};

use crate::error::{BundleError, taken};

const BLOCK: usize = 512;
const RECORD: u64 = 10240;
/// Largest extended header or long name, in bytes.
const MAX_EXTENDED: u64 = 64 * 1024;
/// Most pieces of a sparse file.
const MAX_PIECES: usize = 1 << 22;
const CHUNK: usize = 64 * 1024;

/// The header of a regular file.
pub(crate) fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    // A bundle's name is short and plain.
    put(0, &name.as_bytes()[..name.len().min(100)]);
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar  \0");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Zeros that follow a file of this size: to the end of its block, two blocks of the end, and to the end of the record.
pub(crate) fn trailer(size: u64) -> usize {
    let block = BLOCK as u64;
    let used = block + size.div_ceil(block) * block + 2 * block;
    let total = used.div_ceil(RECORD) * RECORD;
    // Less than a record and three blocks.
    usize::try_from(total - block - size).unwrap_or(0)
}

struct Source<'a, R> {
    inner: &'a mut R,
    at: u64,
}

impl<R: Read> Source<'_, R> {
    fn problem(&self, problem: impl Into<String>) -> BundleError {
        BundleError::Tar {
            at: self.at,
            problem: problem.into(),
        }
    }

    /// Reads all of it.
    fn exact(&mut self, out: &mut [u8]) -> Result<(), BundleError> {
        let at = self.at;
        self.inner.read_exact(out).map_err(|e| {
            taken(e, |e| match e.kind() {
                io::ErrorKind::UnexpectedEof => BundleError::Tar {
                    at,
                    problem: "it ends early".to_owned(),
                },
                _ => BundleError::Gzip(e),
            })
        })?;
        self.at += out.len() as u64;
        Ok(())
    }

    fn block(&mut self) -> Result<[u8; BLOCK], BundleError> {
        let mut block = [0; BLOCK];
        self.exact(&mut block)?;
        Ok(block)
    }

    /// The data of an extended header or a long name.
    fn extended(&mut self, size: u64) -> Result<Vec<u8>, BundleError> {
        if size > MAX_EXTENDED {
            return Err(self.problem(format!(
                "a header of {size} bytes, more than {MAX_EXTENDED}"
            )));
        }
        let size = usize::try_from(size).unwrap_or(0);
        let mut data = vec![0; size.div_ceil(BLOCK) * BLOCK];
        self.exact(&mut data)?;
        data.truncate(size);
        Ok(data)
    }

    fn copy(&mut self, mut count: u64, out: &mut dyn Write) -> Result<(), BundleError> {
        let mut buffer = vec![0; CHUNK];
        while count > 0 {
            let part = usize::try_from(count).unwrap_or(CHUNK).min(CHUNK);
            self.exact(&mut buffer[..part])?;
            out.write_all(&buffer[..part])
                .map_err(BundleError::Output)?;
            count -= part as u64;
        }
        Ok(())
    }
}

/// A piece of a sparse file.
struct Piece {
    offset: u64,
    bytes: u64,
}

/// Reads an archive of one regular file of `size` bytes to its end, and writes the file, holes as zeros.
pub(crate) fn read(
    inner: &mut impl Read,
    size: u64,
    out: &mut dyn Write,
) -> Result<(), BundleError> {
    let mut source = Source { inner, at: 0 };
    let (mut long_name, mut pax_size) = (None, None);
    let header = loop {
        let header = source.block()?;
        check(&source, &header)?;
        let bytes =
            number(&header[124..136]).ok_or_else(|| source.problem("a size that is no number"))?;
        match header[156] {
            b'L' => long_name = Some(source.extended(bytes)?),
            b'x' | b'g' => {
                let data = source.extended(bytes)?;
                let (path, size) = pax(&source, &data)?;
                long_name = path.or(long_name);
                pax_size = size.or(pax_size);
            }
            b'0' | 0 | b'7' | b'S' => break header,
            other => {
                let kind = char::from(other).escape_default();
                return Err(
                    source.problem(format!("an entry of type '{kind}', not a regular file"))
                );
            }
        }
    };
    let stored = pax_size.or_else(|| number(&header[124..136])).unwrap_or(0);
    let name = long_name.unwrap_or_else(|| {
        header[..100]
            .split(|b| *b == 0)
            .next()
            .unwrap_or_default()
            .to_vec()
    });
    plain_name(&source, &name)?;
    if header[156] == b'S' {
        sparse(&mut source, &header, stored, size, out)?;
    } else {
        if stored != size {
            return Err(source.problem(format!(
                "a file of {stored} bytes, and the manifest says {size}"
            )));
        }
        source.copy(stored, out)?;
    }
    // The rest of the block, the end and the record are zeros; another file's header is not.
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match source.inner.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(taken(e, BundleError::Gzip)),
        };
        if let Some(at) = buffer[..count].iter().position(|b| *b != 0) {
            source.at += at as u64;
            return Err(source.problem("something follows its one file"));
        }
        source.at += count as u64;
    }
}

fn check<R: Read>(source: &Source<'_, R>, header: &[u8; BLOCK]) -> Result<(), BundleError> {
    if header.iter().all(|b| *b == 0) {
        return Err(source.problem("no file in it"));
    }
    let spaces = 148..156;
    let sum: u32 = header
        .iter()
        .enumerate()
        .map(|(i, b)| {
            if spaces.contains(&i) {
                u32::from(b' ')
            } else {
                u32::from(*b)
            }
        })
        .sum();
    if number(&header[148..156]) != Some(u64::from(sum)) {
        return Err(source.problem("the checksum of a header is wrong"));
    }
    Ok(())
}

/// Octal digits, or base 256 after a byte with the highest bit.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len() - 8);
        if high[0] != 0x80 || high[1..].iter().any(|b| *b != 0) {
            return None;
        }
        return Some(u64::from_be_bytes(low.try_into().ok()?));
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    if digits.is_empty() {
        return Some(0);
    }
    (!digits.starts_with('+'))
        .then(|| u64::from_str_radix(digits, 8).ok())
        .flatten()
}

/// Path and size of a PAX header.
type PaxFacts = (Option<Vec<u8>>, Option<u64>);

fn pax<R: Read>(source: &Source<'_, R>, mut data: &[u8]) -> Result<PaxFacts, BundleError> {
    let bad = || source.problem("an extended header that cannot be read");
    let (mut path, mut size) = (None, None);
    while !data.is_empty() {
        let space = data.iter().position(|b| *b == b' ').ok_or_else(bad)?;
        let length: usize = std::str::from_utf8(&data[..space])
            .ok()
            .filter(|t| t.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|t| t.parse().ok())
            .ok_or_else(bad)?;
        let record = data.get(space + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(bad)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => path = Some(value.to_vec()),
            b"size" => {
                let text = std::str::from_utf8(value).map_err(|_| bad())?;
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                size = Some(text.parse().ok().filter(|_| digits).ok_or_else(bad)?);
            }
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(source.problem("a sparse file of PAX; `tar --format=gnu -S` is read"));
            }
            _ => {}
        }
        data = &data[length..];
    }
    Ok((path, size))
}

/// The name is of no use here, but one that leads elsewhere tells of an archive that is up to no good.
fn plain_name<R: Read>(source: &Source<'_, R>, name: &[u8]) -> Result<(), BundleError> {
    let name = name.strip_suffix(b"\0").unwrap_or(name);
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let bad = name.is_empty()
        || name == b"."
        || name == b".."
        || name.contains(&b'/')
        || name.contains(&0);
    if bad {
        let shown = String::from_utf8_lossy(&name[..name.len().min(60)]).into_owned();
        return Err(source.problem(format!("a file called {shown:?}, which is no plain name")));
    }
    Ok(())
}

fn sparse<R: Read>(
    source: &mut Source<'_, R>,
    header: &[u8; BLOCK],
    stored: u64,
    size: u64,
    out: &mut dyn Write,
) -> Result<(), BundleError> {
    let real = number(&header[483..495]);
    if real != Some(size) {
        return Err(source.problem(format!(
            "a sparse file of another size than the manifest's {size} bytes"
        )));
    }
    let mut pieces: Vec<Piece> = Vec::new();
    let mut more = take(source, &header[386..482], header[482], &mut pieces)?;
    while more {
        let block = source.block()?;
        more = take(source, &block[..504], block[504], &mut pieces)?;
    }
    let mut at = 0;
    let mut left = stored;
    for piece in &pieces {
        let end = piece.offset.checked_add(piece.bytes);
        if piece.offset < at || piece.bytes > left || end.is_none_or(|end| end > size) {
            return Err(source.problem("pieces of a sparse file that overlap or lie outside"));
        }
        zeros(piece.offset - at, out)?;
        source.copy(piece.bytes, out)?;
        at = piece.offset + piece.bytes;
        left -= piece.bytes;
    }
    if left > 0 {
        return Err(source.problem("a sparse file with more bytes than its pieces"));
    }
    zeros(size - at, out)
}

/// Reads the entries of one header or of its continuation; true when another follows.
fn take<R: Read>(
    source: &Source<'_, R>,
    entries: &[u8],
    extended: u8,
    pieces: &mut Vec<Piece>,
) -> Result<bool, BundleError> {
    for entry in entries.chunks_exact(24) {
        if entry.iter().all(|b| *b == 0) {
            continue;
        }
        let (Some(offset), Some(bytes)) = (number(&entry[..12]), number(&entry[12..])) else {
            return Err(source.problem("pieces of a sparse file that are no numbers"));
        };
        if pieces.len() == MAX_PIECES {
            return Err(source.problem(format!("a sparse file of more than {MAX_PIECES} pieces")));
        }
        pieces.push(Piece { offset, bytes });
    }
    Ok(extended != 0)
}

fn zeros(mut count: u64, out: &mut dyn Write) -> Result<(), BundleError> {
    let buffer = [0; 4096];
    while count > 0 {
        let part = usize::try_from(count)
            .unwrap_or(buffer.len())
            .min(buffer.len());
        out.write_all(&buffer[..part])
            .map_err(BundleError::Output)?;
        count -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
