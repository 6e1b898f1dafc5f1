//! The canonical text form of a tree: one line for each name, for tests, diffs and people.
//!
//! ```text
//! / dir 0755 0 0 0 1795215480.000000000
//! /bin symlink 0777 0 0 7 1795215480.000000000 -> usr/bin
//! /dev/null char 0666 0 0 0 1795215480.000000000 rdev=1:3
//! /etc/resolv.conf file 0644 0 0 21 1795215480.000000000 sha256=… flags=i
//! /usr/bin/ping file 0755 0 0 90568 1795215480.000000000 sha256=… xattr security.capability=0100…
//! /usr/bin/ping4 hardlink -> /usr/bin/ping
//! ```
//!
//! Fields: path, type, mode (octal), uid, gid, size (bytes of a file, length of a link target),
//! mtime (seconds.nanoseconds), then what the type adds, then flags as the letters of `lsattr`. In paths, targets and attribute names a
//! backslash is doubled, and bytes outside printable ASCII and spaces are written `\xNN`. Attribute
//! values are hex.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use amiforge_types::{BlobTable, Digest, Hasher};

use crate::{Ino, Inode, Kind, Tree};

/// What the dump says about file content.
#[derive(Clone, Copy, Debug)]
pub enum DumpContent<'a> {
    /// Only the size.
    SizeOnly,
    /// The digest of every file; the bytes of files without a known one are read from these blobs.
    Digest(&'a BlobTable),
}

impl Tree {
    /// The canonical text of the whole tree, in the order of [`Tree::walk`]. An error names the
    /// path whose data could not be read.
    pub fn dump(&self, content: DumpContent<'_>) -> io::Result<String> {
        let mut out = String::new();
        self.dump_lines(content, &mut |line| {
            out.push_str(line);
            out.push('\n');
        })?;
        Ok(out)
    }

    /// SHA-256 of [`Tree::dump`], without holding the text.
    pub fn dump_digest(&self, content: DumpContent<'_>) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        let mut pending = Vec::with_capacity(2 * DIGEST_CHUNK);
        self.dump_lines(content, &mut |line| {
            pending.extend_from_slice(line.as_bytes());
            pending.push(b'\n');
            if pending.len() >= DIGEST_CHUNK {
                hasher.update(&pending);
                pending.clear();
            }
        })?;
        hasher.update(&pending);
        Ok(hasher.finish())
    }
}

/// Bytes that are hashed at once: calls for single lines would cost more than the hash.
const DIGEST_CHUNK: usize = 32 << 10;

/// The lines of [`Tree::dump`].
pub fn dump_entries(tree: &Tree, content: DumpContent<'_>) -> io::Result<Vec<String>> {
    let mut lines = Vec::with_capacity(tree.slots());
    tree.dump_lines(content, &mut |line| lines.push(line.to_owned()))?;
    Ok(lines)
}

impl Tree {
    /// Hands each line of [`Tree::dump`], without its end, to `take`.
    pub fn dump_lines(
        &self,
        content: DumpContent<'_>,
        take: &mut dyn FnMut(&str),
    ) -> io::Result<()> {
        let counts = self.link_counts();
        // Only inodes with several names are looked up again.
        let mut first_names: BTreeMap<Ino, String> = BTreeMap::new();
        let mut line = String::new();
        self.visit(&mut |path, ino| {
            line.clear();
            line.push('/');
            escape(path, &mut line);
            if let Some(first) = first_names.get(&ino) {
                let _ = write!(line, " hardlink -> {first}");
            } else {
                let inode = self.inode(ino);
                if counts[ino.index()] > 1 && !matches!(inode.kind, Kind::Dir) {
                    first_names.insert(ino, line.clone());
                }
                describe(&inode, content, &mut line).map_err(|e| {
                    io::Error::new(
                        e.kind(),
                        format!(
                            "cannot read the data of /{}: {e}",
                            String::from_utf8_lossy(path)
                        ),
                    )
                })?;
            }
            take(&line);
            Ok(())
        })
    }
}

fn describe(inode: &Inode, content: DumpContent<'_>, line: &mut String) -> io::Result<()> {
    let (name, size) = match &inode.kind {
        Kind::Dir => ("dir", 0),
        Kind::File(content) => ("file", content.size),
        Kind::Symlink(target) => ("symlink", target.len() as u64),
        Kind::CharDev { .. } => ("char", 0),
        Kind::BlockDev { .. } => ("block", 0),
        Kind::Fifo => ("fifo", 0),
        Kind::Socket => ("socket", 0),
    };
    let stat = &inode.stat;
    let (secs, nanos) = (stat.mtime.secs, stat.mtime.nanos);
    let _ = write!(
        line,
        " {name} {:04o} {} {} {size} {secs}.{nanos:09}",
        stat.mode, stat.uid, stat.gid
    );
    match &inode.kind {
        Kind::File(file) => {
            if let DumpContent::Digest(blobs) = content {
                let _ = write!(line, " sha256={}", file.sha256(blobs)?);
            }
        }
        Kind::Symlink(target) => {
            line.push_str(" -> ");
            escape(target, line);
        }
        Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
            let _ = write!(line, " rdev={major}:{minor}");
        }
        Kind::Dir | Kind::Fifo | Kind::Socket => {}
    }
    if !inode.flags.is_empty() {
        let _ = write!(line, " flags={}", inode.flags);
    }
    for (name, value) in &inode.xattrs {
        line.push_str(" xattr ");
        escape(name, line);
        line.push('=');
        for byte in value {
            let _ = write!(line, "{byte:02x}");
        }
    }
    Ok(())
}

fn escape(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            0x21..=0x7e => out.push(char::from(*byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}
