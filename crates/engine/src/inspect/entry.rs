//! What `inspect` tells about one file.

use amiforge_fs::ext4::{self, FileKind};
use amiforge_fs::fat;
use serde::Serialize;

use crate::shown::shown;

/// One file of an image. What the file system does not have is missing.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectEntry {
    /// Name in its directory, or the path asked for.
    pub name: String,
    /// `regular file`, `directory`, `symbolic link` …
    pub kind: &'static str,
    /// Permission bits in octal, four digits; empty where the file system has none.
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last modification, RFC 3339.
    pub mtime: String,
    /// Target of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Number of the inode: names with the same one are the same file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inode: Option<u32>,
    /// Number of names; of a directory with its sub-directories, and 1 when they are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nlink: Option<u32>,
    /// `major:minor` of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdev: Option<String>,
    /// Bytes that the file takes on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated: Option<u64>,
    /// Last access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub atime: Option<String>,
    /// Last change of the inode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctime: Option<String>,
    /// Creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crtime: Option<String>,
    /// Flags in the letters of `lsattr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Extended attributes by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<InspectXattr>,
}

/// An extended attribute.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectXattr {
    /// Full name.
    pub name: String,
    /// The value, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The value in hex.
    pub hex: String,
}

impl InspectEntry {
    pub(super) fn is_folder(&self) -> bool {
        self.kind == FileKind::Dir.name()
    }

    fn arrow(&self) -> String {
        self.target
            .as_ref()
            .map(|t| format!(" -> {t}"))
            .unwrap_or_default()
    }

    /// One line of a listing.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "{:<9} {:>4} {:>5} {:>5} {:>12} {} {}{}",
            self.kind,
            self.mode,
            self.uid,
            self.gid,
            self.size,
            self.mtime,
            self.name,
            self.arrow()
        )
    }

    /// One line of a long listing, as `ls -l` has it: type and permissions, `+` with an access control
    /// list or `@` with other attributes, number of names, owner, group, size or device, time, name.
    #[must_use]
    pub fn long_line(&self) -> String {
        let acl = self
            .xattrs
            .iter()
            .any(|x| x.name.starts_with("system.posix_acl"));
        let mark = match (acl, self.xattrs.is_empty()) {
            (true, _) => '+',
            (false, false) => '@',
            (false, true) => ' ',
        };
        let links = self.nlink.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let size = self.rdev.clone().unwrap_or_else(|| self.size.to_string());
        format!(
            "{}{mark} {links:>3} {:>5} {:>5} {size:>12} {} {}{}",
            self.permissions(),
            self.uid,
            self.gid,
            self.mtime,
            self.name,
            self.arrow()
        )
    }

    /// `drwxr-xr-t` and the like.
    fn permissions(&self) -> String {
        let kind = match self.kind {
            "directory" => 'd',
            "symbolic link" => 'l',
            "character device" => 'c',
            "block device" => 'b',
            "named pipe" => 'p',
            "socket" => 's',
            _ => '-',
        };
        let Ok(mode) = u16::from_str_radix(&self.mode, 8) else {
            return format!("{kind}?????????");
        };
        let mut text = String::from(kind);
        for (shift, special, on, off) in [
            (6, 0o4000, 's', 'S'),
            (3, 0o2000, 's', 'S'),
            (0, 0o1000, 't', 'T'),
        ] {
            let bits = mode >> shift;
            text.push(if bits & 4 != 0 { 'r' } else { '-' });
            text.push(if bits & 2 != 0 { 'w' } else { '-' });
            text.push(match (mode & special != 0, bits & 1 != 0) {
                (true, true) => on,
                (true, false) => off,
                (false, true) => 'x',
                (false, false) => '-',
            });
        }
        text
    }

    /// One fact to a line.
    #[must_use]
    pub fn details(&self) -> String {
        let mut text = format!(
            "path   {}\ntype   {}\nmode   {}\nowner  {}:{}\nsize   {}\n",
            self.name, self.kind, self.mode, self.uid, self.gid, self.size
        );
        let mut fact = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                text.push_str(&format!("{name:<6} {value}\n"));
            }
        };
        fact("disk", self.allocated.map(|n| format!("{n} bytes")));
        fact("inode", self.inode.map(|n| n.to_string()));
        fact("links", self.nlink.map(|n| n.to_string()));
        fact("device", self.rdev.clone());
        fact("mtime", Some(self.mtime.clone()));
        fact("ctime", self.ctime.clone());
        fact("atime", self.atime.clone());
        fact("born", self.crtime.clone());
        fact("flags", self.flags.clone());
        fact("target", self.target.clone());
        for xattr in &self.xattrs {
            let value = xattr
                .text
                .clone()
                .unwrap_or_else(|| format!("0x{}", xattr.hex));
            text.push_str(&format!("xattr  {}={value}\n", xattr.name));
        }
        text
    }
}

/// The entry of an inode of ext4.
pub(super) fn of_ext4(
    reader: &ext4::Reader,
    name: &[u8],
    stat: &ext4::FileStat,
) -> Result<InspectEntry, ext4::ReadError> {
    let node = reader.by_number(stat.ino)?;
    let target = match stat.kind {
        FileKind::Symlink => Some(shown(&node.read_link()?)),
        _ => None,
    };
    let xattrs = match node.may_have_xattrs() {
        true => node.xattrs()?,
        false => Default::default(),
    };
    Ok(InspectEntry {
        name: shown(name),
        kind: stat.kind.name(),
        mode: format!("{:04o}", stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        mtime: stat.mtime.to_string(),
        target,
        inode: Some(stat.ino),
        nlink: Some(stat.nlink),
        rdev: stat.rdev.map(|(major, minor)| format!("{major}:{minor}")),
        allocated: Some(stat.blocks.saturating_mul(512)),
        atime: Some(stat.atime.to_string()),
        ctime: Some(stat.ctime.to_string()),
        crtime: stat.crtime.map(|t| t.to_string()),
        flags: Some(stat.flag_letters()),
        xattrs: xattrs
            .iter()
            .map(|(name, value)| InspectXattr {
                name: shown(name),
                text: printable(value),
                hex: value.iter().map(|b| format!("{b:02x}")).collect(),
            })
            .collect(),
    })
}

/// A value that is text, with the NUL that some write after it left out.
fn printable(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// The entry of a file of FAT.
pub(super) fn of_fat(name: &str, stat: &fat::Stat) -> InspectEntry {
    InspectEntry {
        name: shown(name.as_bytes()),
        kind: if stat.directory {
            FileKind::Dir.name()
        } else {
            "file"
        },
        mode: String::new(),
        uid: 0,
        gid: 0,
        size: stat.size,
        mtime: stat.mtime.map(|t| t.to_string()).unwrap_or_default(),
        target: None,
        inode: None,
        nlink: None,
        rdev: None,
        allocated: None,
        atime: None,
        ctime: None,
        crtime: None,
        flags: None,
        xattrs: Vec::new(),
    }
}
