//! Archives that Linux unpacks as its first root: cpio in the `newc` form (the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::io::{self, Write};

/// An entry of an initrd.
#[derive(Clone, Debug)]
pub enum InitrdEntry<'a> {
    /// A directory.
    Dir,
    /// A program or file that root may read and start.
    File(&'a [u8]),
    /// A character device: major and minor number.
    CharDev(u32, u32),
}

/// Writes an archive of these entries; names have no leading slash, and folders stand before what is in them. Several
/// archives may stand behind one another.
///
/// # Errors
/// When `out` cannot be written, or something is larger than the form can say.
pub fn write_initrd(out: &mut impl Write, entries: &[(String, InitrdEntry<'_>)]) -> io::Result<()> {
    for (n, (name, entry)) in entries.iter().enumerate() {
        let (mode, content, device) = match entry {
            InitrdEntry::Dir => (0o040_755, &b""[..], (0, 0)),
            InitrdEntry::File(bytes) => (0o100_755, *bytes, (0, 0)),
            InitrdEntry::CharDev(major, minor) => (0o020_600, &b""[..], (*major, *minor)),
        };
        write_entry(out, n + 1, name, mode, content, device)?;
    }
    write_entry(out, 0, "TRAILER!!!", 0, b"", (0, 0))
}

fn write_entry(
    out: &mut impl Write,
    inode: usize,
    name: &str,
    mode: u32,
    content: &[u8],
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let number =
        |n: usize| u32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge));
    let fields = [
        number(inode)?,
        mode,
        0,
        0,
        1,
        0,
        number(content.len())?,
        0,
        0,
        major,
        minor,
        number(name.len() + 1)?,
        0,
    ];
    let mut header = String::from("070701");
    for field in fields {
        header.push_str(&format!("{field:08x}"));
    }
    header.push_str(name);
    header.push('\0');
    out.write_all(header.as_bytes())?;
    pad(out, header.len())?;
    out.write_all(content)?;
    pad(out, content.len())
}

/// Names and contents end on multiples of four bytes.
fn pad(out: &mut impl Write, len: usize) -> io::Result<()> {
    out.write_all(&[0; 3][..len.next_multiple_of(4) - len])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stand_on_multiples_of_four() {
        let mut out = Vec::new();
        let entries = [
            ("dev".to_owned(), InitrdEntry::Dir),
            ("dev/console".to_owned(), InitrdEntry::CharDev(5, 1)),
            ("init".to_owned(), InitrdEntry::File(b"hello")),
        ];
        write_initrd(&mut out, &entries).unwrap();
        assert_eq!(out.len() % 4, 0);
        let text = String::from_utf8_lossy(&out);
        let starts: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(starts.len(), 4);
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
        // inode, mode, owner, group, links, time, size
        let init = "07070100000003000081ed0000000000000000000000010000000000000005";
        assert!(text.contains(init), "{text}");
        assert!(text.contains("hello\x00\x00\x00070701"));
        assert!(text.contains("TRAILER!!!\x00"));
    }
}
