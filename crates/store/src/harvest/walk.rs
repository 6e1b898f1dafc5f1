//! The walk over an upper directory: everything but file data.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use amiforge_tree::{Content, Inode, Kind, LayerDiff, LayerEntry, Stat};
use amiforge_types::Timestamp;
use rustix::fs::{AtFlags, Dir, FileType};

use super::flags::FlagReader;
use super::{Form, HarvestError, HarvestOptions, xattr};
use crate::dirfd::{join, open_dir, retry};

/// What identifies a state of a regular file, to notice that it changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime: (i64, u64),
    pub(super) ctime: (i64, u64),
    /// Whether the file has fewer blocks than bytes.
    pub(super) sparse: bool,
}

impl FileState {
    pub(super) fn of(stat: &rustix::fs::Stat) -> Self {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Self {
            ino: stat.st_ino,
            size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
            sparse: u64::try_from(stat.st_blocks)
                .unwrap_or(0)
                .saturating_mul(512)
                < size,
        }
    }
}

/// The type of the entry `name` of `dir`, without its data. `path` is for messages.
pub(crate) fn kind_of(
    dir: BorrowedFd<'_>,
    name: &[u8],
    stat: &rustix::fs::Stat,
    path: impl Fn() -> Vec<u8>,
) -> Result<Kind, HarvestError> {
    let (major, minor) = (
        rustix::fs::major(stat.st_rdev),
        rustix::fs::minor(stat.st_rdev),
    );
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Dir,
        FileType::RegularFile => Kind::File(Content::default()),
        FileType::Symlink => {
            let target = retry(|| rustix::fs::readlinkat(dir, OsStr::from_bytes(name), Vec::new()))
                .map_err(|e| HarvestError::io("read the link", &path())(e))?;
            Kind::Symlink(target.into_bytes())
        }
        FileType::CharacterDevice => Kind::CharDev { major, minor },
        FileType::BlockDevice => Kind::BlockDev { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => {
            let unsupported = io::ErrorKind::Unsupported.into();
            return Err(HarvestError::io("tell the type of", &path())(unsupported));
        }
    })
}

/// What the image keeps of a file's status.
pub(crate) fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        mode: u16::try_from(stat.st_mode & 0o7777).unwrap_or(0),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: Timestamp {
            secs: stat.st_mtime,
            nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        },
    }
}

/// The result: the diff with empty files, and the files that data is to be read for, by the name
/// that their entry has.
pub(super) struct Walked {
    pub(super) diff: LayerDiff,
    pub(super) files: BTreeMap<Vec<u8>, FileState>,
}

struct Walker<'a> {
    upper: BorrowedFd<'a>,
    device: u64,
    options: &'a HarvestOptions,
    flags: FlagReader,
    out: Walked,
    /// Inodes with more than one name: all names found.
    linked: BTreeMap<u64, Vec<Vec<u8>>>,
    pending: Vec<Vec<u8>>,
}

pub(super) fn walk(
    upper: BorrowedFd<'_>,
    options: &HarvestOptions,
    flags: FlagReader,
) -> Result<Walked, HarvestError> {
    let stat = retry(|| rustix::fs::fstat(upper)).map_err(HarvestError::io("stat", b"/"))?;
    let attrs = xattr::read(upper, b"", Form::Overlay)
        .map_err(HarvestError::io("read the attributes of", b"/"))?;
    let mut walker = Walker {
        upper,
        device: stat.st_dev,
        options,
        flags,
        out: Walked {
            diff: LayerDiff::default(),
            files: BTreeMap::new(),
        },
        linked: BTreeMap::new(),
        pending: vec![Vec::new()],
    };
    walker.put(Vec::new(), &stat, Kind::Dir, attrs)?;
    while let Some(dir) = walker.pending.pop() {
        walker.directory(&dir)?;
    }
    Ok(walker.finish())
}

impl Walker<'_> {
    fn directory(&mut self, path: &[u8]) -> Result<(), HarvestError> {
        let fd = open_dir(self.upper, path).map_err(HarvestError::io("open", path))?;
        if let Some(LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode)) =
            self.out.diff.entries.get_mut(path)
        {
            inode.flags = inode.flags | self.flags.of(fd.as_fd());
        }
        let mut listing = Dir::read_from(&fd)
            .map_err(io::Error::from)
            .map_err(HarvestError::io("list", path))?;
        while let Some(entry) = listing.read() {
            let entry = entry
                .map_err(io::Error::from)
                .map_err(HarvestError::io("list", path))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let child = join(path, name);
            if !self.options.exclude.contains(&child) {
                self.entry(fd.as_fd(), name, child)?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<(), HarvestError> {
        let stat =
            retry(|| rustix::fs::statat(dir, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(HarvestError::io("stat", &path))?;
        if stat.st_dev != self.device {
            return Err(HarvestError::Mount(path));
        }
        let attrs = xattr::read(dir, name, Form::Overlay)
            .map_err(HarvestError::io("read the attributes of", &path))?;
        if let Some(feature) = attrs.unsupported {
            return Err(HarvestError::Overlay { path, feature });
        }
        let whiteout = match kind_of(dir, name, &stat, || path.clone())? {
            Kind::File(_) => attrs.whiteout,
            Kind::CharDev { major: 0, minor: 0 } => true,
            Kind::Dir => {
                self.pending.push(path.clone());
                return self.put(path, &stat, Kind::Dir, attrs);
            }
            kind => return self.put(path, &stat, kind, attrs),
        };
        if whiteout {
            return self.whiteout(path);
        }
        self.put(path, &stat, Kind::File(Content::default()), attrs)
    }

    fn whiteout(&mut self, path: Vec<u8>) -> Result<(), HarvestError> {
        self.out.diff.entries.insert(path, LayerEntry::Whiteout);
        Ok(())
    }

    fn put(
        &mut self,
        path: Vec<u8>,
        stat: &rustix::fs::Stat,
        kind: Kind,
        attrs: xattr::Attrs,
    ) -> Result<(), HarvestError> {
        let is_dir = matches!(kind, Kind::Dir);
        if !is_dir && stat.st_nlink > 1 {
            self.linked
                .entry(stat.st_ino)
                .or_default()
                .push(path.clone());
        }
        if matches!(kind, Kind::File(_)) {
            self.out.files.insert(path.clone(), FileState::of(stat));
        }
        let mut stat = stat_of(stat);
        if stat.mtime >= self.options.newer_than {
            stat.mtime = self.options.build_clock;
        }
        let inode = Inode {
            stat,
            kind,
            xattrs: attrs.kept,
            flags: attrs.protected,
        };
        // The root of an overlay cannot hide anything, whatever it is marked with.
        let opaque = is_dir && attrs.opaque && !path.is_empty();
        let entry = if opaque {
            LayerEntry::PutOpaque(inode)
        } else {
            LayerEntry::Put(inode)
        };
        self.out.diff.entries.insert(path, entry);
        Ok(())
    }

    /// Makes hard links of the further names. Names that the layer does not have (outside, or
    /// excluded) do not count.
    fn finish(mut self) -> Walked {
        for mut names in self.linked.into_values() {
            names.sort_unstable();
            let Some((first, others)) = names.split_first() else {
                continue;
            };
            for name in others {
                self.out.files.remove(name);
                self.out
                    .diff
                    .entries
                    .insert(name.clone(), LayerEntry::Link(first.clone()));
            }
        }
        self.out
    }
}
