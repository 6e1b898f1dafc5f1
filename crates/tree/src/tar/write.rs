//! A tree to a PAX archive. Headers are plain ustar wherever that can hold the value, so most members
//! have no extension; the bytes depend on the tree alone.

use std::io::{self, Write};

use amiforge_types::BlobTable;

use super::acl;
use super::header::{BLOCK, BLOCK_BYTES};
use crate::{Content, DataExtent, Inode, Kind, Tree};

/// An archive that could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarWriteError {
    /// The data of a file could not be read.
    #[error("the data of {:?} cannot be read", String::from_utf8_lossy(path))]
    Read {
        /// Path in the image.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// The sink failed.
    #[error("writing the archive failed")]
    Write(#[source] io::Error),
    /// Something that an archive of this kind cannot hold.
    #[error("{:?} cannot be written: {what}", String::from_utf8_lossy(path))]
    Entry {
        /// Path in the image.
        path: Vec<u8>,
        /// Why not.
        what: &'static str,
    },
}

/// Who reads the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// GNU tar and libarchive.
    Tar,
    /// What unpacks the layers of containers: it knows attributes under `SCHILY.xattr.` alone.
    Container,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteSummary {
    /// Members.
    pub members: u64,
    /// Sockets left out: tar has no type for them.
    pub sockets_skipped: u64,
}

/// Largest number in an octal field of 8 and of 12 bytes.
const MAX_8: u64 = 0o7_777_777;
const MAX_12: u64 = 0o77_777_777_777;

/// Writes `tree` in the order of [`Tree::walk`], the root as `./`. Files with holes are written in
/// the GNU sparse format 1.0.
pub fn write(
    tree: &Tree,
    blobs: &BlobTable,
    out: &mut dyn Write,
) -> Result<WriteSummary, TarWriteError> {
    let mut summary = WriteSummary {
        members: 0,
        sockets_skipped: 0,
    };
    let mut first_name: Vec<Option<Vec<u8>>> = vec![None; tree.slots()];
    for (path, ino) in tree.walk() {
        let inode = tree.inode(ino);
        if inode.kind == Kind::Socket {
            summary.sockets_skipped += 1;
            continue;
        }
        let first = &mut first_name[ino.index()];
        match first {
            Some(first) => Member::new(&path, &inode, Some(first), Reader::Tar)
                .write(out)
                .map_err(TarWriteError::Write)?,
            None => {
                *first = Some(path.clone());
                write_member(&path, &inode, blobs, out)?;
            }
        }
        summary.members += 1;
    }
    out.write_all(&[0; 2 * BLOCK])
        .map_err(TarWriteError::Write)?;
    out.flush().map_err(TarWriteError::Write)?;
    Ok(summary)
}

fn write_member(
    path: &[u8],
    inode: &Inode,
    blobs: &BlobTable,
    out: &mut dyn Write,
) -> Result<(), TarWriteError> {
    let mut member = Member::new(path, inode, None, Reader::Tar);
    let Kind::File(content) = &inode.kind else {
        return member.write(out).map_err(TarWriteError::Write);
    };
    let mut data_len = content.size;
    let mut map = Vec::new();
    if content.data_len() < content.size {
        map = sparse_map(content);
        data_len = map.len() as u64 + content.data_len();
        member.pax(b"GNU.sparse.major", b"1");
        member.pax(b"GNU.sparse.minor", b"0");
        member.pax(b"GNU.sparse.name", &member.name.clone());
        member.pax(b"GNU.sparse.realsize", content.size.to_string().as_bytes());
        member.name = [b"GNUSparseFile.0/", path].concat();
    }
    member.size = data_len;
    member.write(out).map_err(TarWriteError::Write)?;
    out.write_all(&map).map_err(TarWriteError::Write)?;
    for extent in &content.extents {
        copy(extent, path, blobs, out)?;
    }
    pad(data_len, out).map_err(TarWriteError::Write)
}

/// The bytes of one run of a file.
pub(super) fn copy(
    extent: &DataExtent,
    path: &[u8],
    blobs: &BlobTable,
    out: &mut dyn Write,
) -> Result<(), TarWriteError> {
    let chunk = usize::try_from(extent.len)
        .unwrap_or(crate::DATA_CHUNK)
        .min(crate::DATA_CHUNK);
    let mut buf = vec![0; chunk];
    let mut done = 0;
    while done < extent.len {
        let n = usize::try_from((extent.len - done).min(buf.len() as u64)).unwrap_or(0);
        extent
            .read_exact(blobs, &mut buf[..n], done)
            .map_err(|source| TarWriteError::Read {
                path: path.to_vec(),
                source,
            })?;
        out.write_all(&buf[..n]).map_err(TarWriteError::Write)?;
        done += n as u64;
    }
    Ok(())
}

fn sparse_map(content: &Content) -> Vec<u8> {
    let mut runs: Vec<(u64, u64)> = content.extents.iter().map(|e| (e.offset, e.len)).collect();
    // GNU tar takes the end of the last run for the size, so a hole at the end needs an empty one.
    if runs
        .last()
        .is_none_or(|(offset, len)| offset + len < content.size)
    {
        runs.push((content.size, 0));
    }
    let mut text = format!("{}\n", runs.len());
    for (offset, len) in runs {
        text.push_str(&format!("{offset}\n{len}\n"));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

pub(super) fn pad(len: u64, out: &mut dyn Write) -> io::Result<()> {
    let padding = len.next_multiple_of(BLOCK_BYTES) - len;
    out.write_all(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])
}

/// One header, in ustar with the rest in PAX records.
pub(super) struct Member {
    name: Vec<u8>,
    link: Vec<u8>,
    pub(super) size: u64,
    header: ::tar::Header,
    records: Vec<u8>,
}

impl Member {
    /// `first` is the first name of a hard-linked inode, when this is not it.
    pub(super) fn new(path: &[u8], inode: &Inode, first: Option<&Vec<u8>>, reader: Reader) -> Self {
        let mut name = path.to_vec();
        let mut link = Vec::new();
        let mut header = ::tar::Header::new_ustar();
        let kind = match (&inode.kind, first) {
            (_, Some(first)) => {
                link.clone_from(first);
                ::tar::EntryType::Link
            }
            (Kind::Dir, None) => {
                if name.is_empty() {
                    name.push(b'.');
                }
                name.push(b'/');
                ::tar::EntryType::Directory
            }
            (Kind::Symlink(target), None) => {
                link.clone_from(target);
                ::tar::EntryType::Symlink
            }
            (Kind::CharDev { .. }, None) => ::tar::EntryType::Char,
            (Kind::BlockDev { .. }, None) => ::tar::EntryType::Block,
            (Kind::Fifo, None) => ::tar::EntryType::Fifo,
            (Kind::File(_) | Kind::Socket, None) => ::tar::EntryType::Regular,
        };
        header.set_entry_type(kind);
        header.set_mode(u32::from(inode.stat.mode));
        let mut member = Self {
            name,
            link,
            size: 0,
            header,
            records: Vec::new(),
        };
        member.set_stat(inode);
        if first.is_none() {
            if let Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } = inode.kind {
                // Infallible for a ustar header.
                let _ = member.header.set_device_major(major);
                let _ = member.header.set_device_minor(minor);
            }
            if !inode.flags.is_empty() {
                member.pax(b"SCHILY.fflags", inode.flags.to_names().as_bytes());
            }
            for (attr, value) in &inode.xattrs {
                // GNU tar takes access control lists in their own records only, as text.
                let acl_key: Option<&[u8]> = match attr.as_slice() {
                    acl::ACCESS => Some(b"SCHILY.acl.access"),
                    acl::DEFAULT => Some(b"SCHILY.acl.default"),
                    _ => None,
                };
                let acl_key = acl_key.filter(|_| reader == Reader::Tar);
                match acl_key.zip(acl::to_text(value)) {
                    Some((key, text)) => member.pax(key, text.as_bytes()),
                    None if reader == Reader::Container => {
                        member.pax(&[b"SCHILY.xattr.", attr.as_slice()].concat(), value);
                    }
                    None => {
                        let key = [b"SCHILY.xattr.", encode_name(attr).as_slice()].concat();
                        member.pax(&key, value);
                    }
                }
            }
        }
        member
    }

    fn set_stat(&mut self, inode: &Inode) {
        let stat = &inode.stat;
        let mut id = |key: &[u8], value: u32, set: fn(&mut ::tar::Header, u64)| {
            if u64::from(value) <= MAX_8 {
                set(&mut self.header, u64::from(value));
            } else {
                set(&mut self.header, 0);
                push_record(&mut self.records, key, value.to_string().as_bytes());
            }
        };
        id(b"uid", stat.uid, ::tar::Header::set_uid);
        id(b"gid", stat.gid, ::tar::Header::set_gid);
        let secs = u64::try_from(stat.mtime.secs)
            .ok()
            .filter(|secs| *secs <= MAX_12);
        self.header.set_mtime(secs.unwrap_or(0));
        if secs.is_none() || stat.mtime.nanos != 0 {
            let text = time_text(stat.mtime.secs, stat.mtime.nanos);
            self.pax(b"mtime", text.as_bytes());
        }
    }

    fn pax(&mut self, key: &[u8], value: &[u8]) {
        push_record(&mut self.records, key, value);
    }

    pub(super) fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut records = Vec::new();
        // Names that do not fit, and names that are not text: PAX values are UTF-8 unless said
        // otherwise.
        let long = |bytes: &[u8], room: usize| bytes.len() > room;
        let (long_name, long_link) = (long(&self.name, 100), long(&self.link, 100));
        let binary = |bytes: &[u8], used: bool| used && std::str::from_utf8(bytes).is_err();
        if binary(&self.name, long_name) || binary(&self.link, long_link) {
            push_record(&mut records, b"hdrcharset", b"BINARY");
        }
        if long_name {
            push_record(&mut records, b"path", &self.name);
        }
        if long_link {
            push_record(&mut records, b"linkpath", &self.link);
        }
        if self.size > MAX_12 {
            push_record(&mut records, b"size", self.size.to_string().as_bytes());
        }
        records.extend_from_slice(&self.records);
        if !records.is_empty() {
            let mut header = ::tar::Header::new_ustar();
            header.set_entry_type(::tar::EntryType::XHeader);
            header.set_mode(0o644);
            header.set_size(records.len() as u64);
            set_field(&mut header, 0, b"PaxHeaders/extended");
            header.set_cksum();
            out.write_all(header.as_bytes())?;
            out.write_all(&records)?;
            pad(records.len() as u64, out)?;
        }
        set_field(&mut self.header, 0, &self.name[..self.name.len().min(100)]);
        set_field(
            &mut self.header,
            157,
            &self.link[..self.link.len().min(100)],
        );
        self.header
            .set_size(if self.size <= MAX_12 { self.size } else { 0 });
        self.header.set_cksum();
        out.write_all(self.header.as_bytes())
    }
}

fn set_field(header: &mut ::tar::Header, at: usize, bytes: &[u8]) {
    header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(bytes);
}

/// GNU tar's way to keep a `=` of an attribute's name out of the keyword.
fn encode_name(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    for byte in name {
        match byte {
            b'%' => out.extend_from_slice(b"%25"),
            b'=' => out.extend_from_slice(b"%3D"),
            other => out.push(*other),
        }
    }
    out
}

/// `"<length> <key>=<value>\n"`, where the length counts itself.
fn push_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = 3 + key.len() + value.len();
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend_from_slice(len.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn time_text(secs: i64, nanos: u32) -> String {
    let (sign, whole, nanos) = match (secs < 0, nanos) {
        (true, 0) => ("-", secs.unsigned_abs(), 0),
        // -2 s + 0.5 s is written -1.5.
        (true, n) => ("-", secs.unsigned_abs() - 1, 1_000_000_000 - n),
        (false, n) => ("", secs.unsigned_abs(), n),
    };
    if nanos == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{whole}.{}", fraction.trim_end_matches('0'))
}
