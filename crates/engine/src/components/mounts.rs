//! What is mounted below a folder: `/proc/self/mountinfo` (proc_pid_mountinfo(5)), whose fifth field is the mount
//! point, with `\ooo` for blanks and the like.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// The first mount point below `dir`, which is a path without links.
pub(super) fn below(mountinfo: &[u8], dir: &Path) -> Option<PathBuf> {
    mountinfo
        .split(|b| *b == b'\n')
        .filter_map(|line| line.split(|b| *b == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .find(|point| point != dir && point.starts_with(dir))
}

fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut at = 0;
    while let Some(byte) = field.get(at) {
        let digits = field.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let value = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(value.unwrap_or(*byte));
        at += if value.is_some() { 4 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &[u8] = b"36 35 98:0 / /mnt/a\\040b rw,noatime - ext3 /dev/root rw\n\
        37 36 0:5 /etc /mnt/a\\040b/etc rw - ext3 /dev/root rw\n\
        38 36 0:5 / /mnt/ab rw - proc proc rw\nshort\n";

    #[test]
    fn finds_what_is_mounted_below_and_nothing_beside() {
        let found = |dir: &str| below(INFO, Path::new(dir));
        assert_eq!(found("/mnt/a b"), Some(PathBuf::from("/mnt/a b/etc")));
        assert_eq!(found("/mnt/a b/etc"), None);
        assert_eq!(found("/mnt/a"), None);
        assert_eq!(found("/mnt"), Some(PathBuf::from("/mnt/a b")));
    }
}
