//! Where owners are recorded: an attribute of the file, or the table beside its directory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::place::Place;
use super::{Dirs, MAX_VALUE};

/// Names that a job does not see.
pub(super) const PREFIX: &[u8] = b"user.amiforge.";
/// The owner as `UID:GID`.
pub(super) const OWNER: &str = "user.amiforge.owner";
/// Access lists that name ids which the namespace lacks, in the form of acl(5)'s attributes.
pub(super) const ACCESS_ACL: &str = "user.amiforge.acl.access";
pub(super) const DEFAULT_ACL: &str = "user.amiforge.acl.default";

/// Files that one table may name.
const MAX_TABLE: u64 = 64 << 20;

/// Inode and time of birth: what is made anew in the place of another has another birth.
type Key = (u64, i64, u32);

/// The table of a directory, in a file beside it.
#[derive(Serialize, Deserialize)]
struct Table {
    version: u32,
    /// Inode, birth in seconds and nanoseconds, user, group.
    owners: Vec<(u64, i64, u32, u32, u32)>,
}

const VERSION: u32 = 1;

/// The records.
pub(super) struct Marks {
    table: RefCell<BTreeMap<Key, (u32, u32)>>,
    /// Those of the table that lie in the upper directory under the inode that they show.
    made: RefCell<BTreeSet<Key>>,
    /// The file beside the directory that is written to: open, since what may be opened later is less.
    file: File,
}

/// The file beside a directory.
fn beside(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".owners");
    PathBuf::from(name)
}

impl Marks {
    pub(super) fn load(dirs: Dirs) -> io::Result<Self> {
        let mut table = BTreeMap::new();
        let mut made = BTreeSet::new();
        let own = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(&dirs.write))?;
        let read = dirs.read.iter().map(|dir| (File::open(beside(dir)), false));
        for (file, is_own) in read.chain([(own.try_clone(), true)]) {
            let mut bytes = Vec::new();
            match file {
                Ok(file) => file.take(MAX_TABLE).read_to_end(&mut bytes)?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            if bytes.is_empty() {
                continue;
            }
            let read: Table = serde_json::from_slice(&bytes)?;
            if read.version != VERSION {
                return Err(io::Error::other("a table of owners of another version"));
            }
            for (ino, secs, nanos, uid, gid) in read.owners {
                let key = (ino, secs, nanos);
                table.insert(key, (uid, gid));
                if is_own {
                    made.insert(key);
                }
            }
        }
        Ok(Self {
            table: RefCell::new(table),
            made: RefCell::new(made),
            file: own,
        })
    }

    /// Writes the table beside the directory, of which nothing is kept when that fails; an empty one is an empty file.
    pub(super) fn save(&self) -> io::Result<()> {
        let table = self.table.borrow();
        self.file.set_len(0)?;
        if table.is_empty() {
            return Ok(());
        }
        let table = Table {
            version: VERSION,
            owners: table
                .iter()
                .map(|((ino, secs, nanos), (uid, gid))| (*ino, *secs, *nanos, *uid, *gid))
                .collect(),
        };
        self.file.write_all_at(&serde_json::to_vec(&table)?, 0)
    }

    /// The recorded owner.
    pub(super) fn owner(&self, place: &Place) -> Result<Option<(u32, u32)>, Errno> {
        let mut buf = [0; 32];
        match place.attribute(OWNER, &mut buf) {
            Ok(len) => Ok(parse(&buf[..len])),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM)
                if self.table.borrow().is_empty() =>
            {
                Ok(None)
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {
                Ok(self.table.borrow().get(&key(place)?).copied())
            }
            Err(e) => Err(e),
        }
    }

    /// Gives a file to somebody: what the kernel does then, and the record.
    pub(super) fn chown(&self, place: &Place, owner: (u32, u32)) -> Result<(), Errno> {
        let before = match owner {
            (0, 0) => None,
            _ => Some(key(place)?),
        };
        // Clears set-id bits and capabilities, and has overlayfs copy the file up.
        rustix::fs::chownat(
            CWD,
            &place.path,
            Some(Uid::ROOT),
            Some(Gid::ROOT),
            place.flags(),
        )?;
        if owner == (0, 0) {
            if !self.table.borrow().is_empty() {
                self.table.borrow_mut().remove(&key(place)?);
            }
            return match place.remove_attribute(OWNER) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
                Err(e) => Err(e),
            };
        }
        let text = format!("{}:{}", owner.0, owner.1);
        match place.set_attribute(OWNER, text.as_bytes()) {
            // Links, pipes, sockets and devices have none.
            Err(Errno::PERM | Errno::OPNOTSUPP) => {
                let known = self.made.borrow().contains(&key(place)?);
                if !known {
                    anew(place, before)?;
                }
                let key = key(place)?;
                self.made.borrow_mut().insert(key);
                self.table.borrow_mut().insert(key, owner);
                Ok(())
            }
            other => other,
        }
    }

    /// A recorded access list.
    pub(super) fn list(&self, place: &Place, name: &str) -> Option<Vec<u8>> {
        let mut buf = vec![0; MAX_VALUE];
        let len = place.attribute(name, &mut buf).ok()?;
        buf.truncate(len);
        Some(buf)
    }

    /// Records an access list, in place of one that the kernel has, and sets the mode that follows from it.
    pub(super) fn set_list(&self, place: &Place, name: &str, list: &[u8]) -> Result<(), Errno> {
        let kernels = match name {
            ACCESS_ACL => "system.posix_acl_access",
            _ => "system.posix_acl_default",
        };
        let stat = place.stat()?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        match rustix::fs::removexattr(&place.path, kernels) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
        if name == ACCESS_ACL {
            let bits = mode_of(list).ok_or(Errno::INVAL)?;
            let mode = Mode::from_raw_mode((stat.st_mode & 0o7000) | bits);
            rustix::fs::chmodat(CWD, &place.path, mode, AtFlags::empty())?;
        }
        place.set_attribute(name, list)
    }

    /// Drops a recorded access list; whether there was one.
    pub(super) fn forget_list(&self, place: &Place, name: &str) -> bool {
        place.remove_attribute(name).is_ok()
    }

    /// The names of the attributes of a file as a job sees them (listxattr(2)). `None` when it sees what there is.
    pub(super) fn names(&self, place: &Place) -> Result<Option<Vec<u8>>, Errno> {
        let mut buf = vec![0; MAX_VALUE];
        let len = place.attributes(&mut buf)?;
        let names = || buf[..len].split_inclusive(|b| *b == 0);
        if !names().any(|name| name.starts_with(PREFIX)) {
            return Ok(None);
        }
        let mut shown = Vec::new();
        for name in names() {
            match name.strip_suffix(&[0]).unwrap_or(name) {
                n if n == ACCESS_ACL.as_bytes() => {
                    shown.extend_from_slice(b"system.posix_acl_access\0");
                }
                n if n == DEFAULT_ACL.as_bytes() => {
                    shown.extend_from_slice(b"system.posix_acl_default\0");
                }
                n if n.starts_with(PREFIX) => {}
                _ => shown.extend_from_slice(name),
            }
        }
        Ok(Some(shown))
    }
}

/// Makes a link, pipe or socket once more in its place. Overlayfs shows one that it has copied up under the inode of
/// the layer below, by which nobody will find it again in the upper directory. `before` is what it showed before it
/// was given away.
fn anew(place: &Place, before: Option<Key>) -> Result<(), Errno> {
    let stat = rustix::fs::lstat(&place.path)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let copied = before != Some(key(place)?);
    // A pipe that somebody has open stays; of several names each shows the inode that it has.
    let wanted = match kind {
        FileType::Symlink => true,
        FileType::Fifo | FileType::Socket => copied,
        _ => false,
    };
    if !wanted || stat.st_nlink > 1 {
        return Ok(());
    }
    let folder = place.folder();
    let above = rustix::fs::stat(&folder.path)?;
    let mut fresh = folder.path.as_bytes().to_vec();
    fresh.extend_from_slice(FRESH);
    let fresh = CString::new(fresh).map_err(|_| Errno::INVAL)?;
    match kind {
        FileType::Symlink => {
            let target = rustix::fs::readlink(&place.path, Vec::new())?;
            rustix::fs::symlink(target, &fresh)?;
        }
        kind => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            rustix::fs::mknodat(CWD, &fresh, kind, mode, 0)?;
            rustix::fs::chmodat(CWD, &fresh, mode, AtFlags::empty())?;
        }
    }
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    let replaced = rustix::fs::utimensat(CWD, &fresh, &times(&stat), nofollow)
        .and_then(|()| rustix::fs::rename(&fresh, &place.path));
    if replaced.is_err() {
        // The error is what counts.
        let _left = rustix::fs::unlink(&fresh);
    }
    replaced?;
    rustix::fs::utimensat(CWD, &folder.path, &times(&above), AtFlags::empty())
}

/// Name of what is being made once more, behind that of its folder.
const FRESH: &[u8] = b"/.amiforge-owner";

fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |tv_sec, nanos| Timespec {
        tv_sec,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn key(place: &Place) -> Result<Key, Errno> {
    let wanted = StatxFlags::INO | StatxFlags::BTIME;
    let stat = rustix::fs::statx(CWD, &place.path, place.flags(), wanted)?;
    Ok((stat.stx_ino, stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

fn parse(text: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = str::from_utf8(text).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

/// Tags of entries of an access list (acl(5), `linux/posix_acl.h`).
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Tag, permissions and id of the entries: a version, then eight bytes for each.
fn entries(list: &[u8]) -> impl Iterator<Item = (u16, u16, u32)> {
    let rest = list.get(4..).unwrap_or_default();
    rest.chunks_exact(8).map(|e| {
        (
            u16::from_le_bytes([e[0], e[1]]),
            u16::from_le_bytes([e[2], e[3]]),
            u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        )
    })
}

/// Whether a list names a user or group beside root, which the kernel would not take.
pub(super) fn names_others(list: &[u8]) -> bool {
    entries(list).any(|(tag, _, id)| matches!(tag, USER | GROUP) && id != 0)
}

/// The permission bits that an access list stands for: of the owner, of the mask or else the group, of others.
fn mode_of(list: &[u8]) -> Option<u32> {
    let find = |wanted| entries(list).find(|(tag, ..)| *tag == wanted);
    let of = |entry: Option<(u16, u16, u32)>| entry.map(|(_, bits, _)| u32::from(bits & 7));
    let owner = of(find(USER_OBJ))?;
    let group = of(find(MASK)).or_else(|| of(find(GROUP_OBJ)))?;
    let others = of(find(OTHER))?;
    Some(owner << 6 | group << 3 | others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(of: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0];
        for (tag, bits, id) in of {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(bits.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn access_lists() {
        let nobody = u32::MAX;
        let own = list(&[
            (USER_OBJ, 7, nobody),
            (GROUP_OBJ, 5, nobody),
            (OTHER, 0, nobody),
        ]);
        assert!(!names_others(&own));
        assert_eq!(mode_of(&own), Some(0o750));
        let group = list(&[
            (USER_OBJ, 6, nobody),
            (GROUP_OBJ, 0, nobody),
            (GROUP, 5, 4),
            (MASK, 5, nobody),
            (OTHER, 4, nobody),
        ]);
        assert!(names_others(&group));
        assert_eq!(mode_of(&group), Some(0o654));
        assert_eq!(mode_of(b"x"), None);
    }

    #[test]
    fn owners_in_attributes() {
        assert_eq!(parse(b"33:4"), Some((33, 4)));
        assert_eq!(parse(b"33"), None);
        assert_eq!(parse(b"-1:4"), None);
    }
}
