//! Extended attributes: reading them, and which of them belong to the image.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use amiforge_tree::InodeFlags;
use rustix::io::Errno;

use super::{Form, flags};
use crate::dirfd::{proc_path, retry};

/// Largest list of names and largest value on Linux (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 64 << 10;

/// What overlayfs says about an inode, and the attributes that the image keeps.
#[derive(Debug, Default)]
pub(crate) struct Attrs {
    pub(crate) kept: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) whiteout: bool,
    pub(crate) opaque: bool,
    /// Flags that overlayfs keeps beside the file.
    pub(crate) protected: InodeFlags,
    /// An overlay attribute that means that part of the inode is elsewhere.
    pub(crate) unsupported: Option<String>,
}

/// Reads the attributes of the entry `name` of `dir` without following a link; with an empty name
/// those of `dir` itself.
pub(crate) fn read(dir: BorrowedFd<'_>, name: &[u8], form: Form) -> io::Result<Attrs> {
    let path = proc_path(dir, name);
    let mut attrs = Attrs::default();
    for attr in list(&path, name.is_empty())? {
        let bytes = attr.as_bytes();
        let overlay = strip_overlay(bytes).filter(|_| form == Form::Overlay);
        if let Some(overlay) = overlay {
            match overlay {
                b"whiteout" => attrs.whiteout = true,
                // `x` marks a directory that may hold attribute whiteouts; it hides nothing.
                b"opaque" => {
                    attrs.opaque = get(&path, &attr, name.is_empty())?.as_deref() == Some(b"y")
                }
                b"protattr" => {
                    let value = get(&path, &attr, name.is_empty())?;
                    attrs.protected = flags::from_protattr(value.as_deref().unwrap_or_default());
                }
                b"redirect" | b"metacopy" => {
                    attrs.unsupported = Some(attr.to_string_lossy().into_owned())
                }
                _ => {}
            }
        } else if belongs_to_image(bytes) {
            let Some(mut value) = get(&path, &attr, name.is_empty())? else {
                continue;
            };
            if bytes == b"security.capability" {
                value = capability_v2(value);
            }
            attrs.kept.insert(bytes.to_vec(), value);
        }
    }
    Ok(attrs)
}

pub(crate) fn strip_overlay(name: &[u8]) -> Option<&[u8]> {
    name.strip_prefix(b"user.overlay.")
        .or_else(|| name.strip_prefix(b"trusted.overlay."))
}

/// Labels and signatures that the host's security modules add mean nothing in the image, and differ
/// between hosts.
pub(crate) fn belongs_to_image(name: &[u8]) -> bool {
    let hosts: [&[u8]; 5] = [
        b"security.selinux",
        b"security.evm",
        b"security.ima",
        b"security.apparmor",
        b"security.SMACK64",
    ];
    !hosts.contains(&name) && !name.starts_with(b"security.SMACK64") && !name.starts_with(b"btrfs.")
}

/// A file capability as the image has it. From inside a user namespace the kernel stores revision 3,
/// which ends in the namespace's root id on the host (`struct vfs_ns_cap_data`); revision 2 is the
/// same without it.
pub(super) fn capability_v2(mut value: Vec<u8>) -> Vec<u8> {
    const REVISION_2: u8 = 2;
    const REVISION_3: u8 = 3;
    // The magic is a little-endian u32 with the revision in its top byte.
    if value.len() == 24 && value[3] == REVISION_3 {
        value[3] = REVISION_2;
        value.truncate(20);
    }
    value
}

pub(crate) fn list(path: &Path, follow: bool) -> io::Result<Vec<CString>> {
    let mut buf = vec![0_u8; 1024];
    loop {
        let result = retry(|| {
            if follow {
                rustix::fs::listxattr(path, &mut buf[..])
            } else {
                rustix::fs::llistxattr(path, &mut buf[..])
            }
        });
        match result {
            Ok(len) => {
                let names = buf[..len].split_inclusive(|b| *b == 0);
                return Ok(names
                    .filter_map(|n| CStr::from_bytes_with_nul(n).ok())
                    .map(CStr::to_owned)
                    .collect());
            }
            Err(e) if is(&e, Errno::RANGE) && buf.len() < MAX_XATTR => buf.resize(MAX_XATTR, 0),
            // A file system without attributes.
            Err(e) if is(&e, Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn get(path: &Path, name: &CStr, follow: bool) -> io::Result<Option<Vec<u8>>> {
    let mut buf = vec![0_u8; 1024];
    loop {
        let result = retry(|| {
            if follow {
                rustix::fs::getxattr(path, name, &mut buf[..])
            } else {
                rustix::fs::lgetxattr(path, name, &mut buf[..])
            }
        });
        match result {
            Ok(len) => {
                buf.truncate(len);
                return Ok(Some(buf));
            }
            Err(e) if is(&e, Errno::RANGE) && buf.len() < MAX_XATTR => buf.resize(MAX_XATTR, 0),
            Err(e) if is(&e, Errno::NODATA) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
