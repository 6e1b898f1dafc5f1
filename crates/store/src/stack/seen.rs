//! What was there before a job, to tell what it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::{Result, StackError, names};
use crate::dirfd::{join, open_dir, proc_path};

/// A time of the kernel's.
type Time = (i64, u32);

/// An inode number with the time of birth.
pub(super) type Id = (u64, Time);

/// A name as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Inode and time of birth: an inode number alone is used again.
    pub(super) inode: Id,
    /// When it was changed last; none when it is to count as changed.
    pub(super) changed: Option<Time>,
    pub(super) is_dir: bool,
    pub(super) is_file: bool,
    pub(super) is_device: bool,
    /// Whether it is one of several names of a file.
    pub(super) shared: bool,
    pub(super) own: Own,
}

/// What stays as it is when another name of a file is made or goes, unlike the time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    modified: Time,
    mode: u16,
    uid: u32,
    gid: u32,
    size: u64,
}

/// The names below a root, and which of them are used meanwhile.
///
/// Times tell what was changed. That a file was only opened for writing, which overlayfs takes for a change, and which
/// of several names of a file was used, they do not: where the kernel has room for the watches, those tell it (inotify(7)).
#[derive(Debug)]
pub struct Seen {
    pub(super) entries: BTreeMap<Vec<u8>, Mark>,
    /// Names of each directory that was there.
    pub(super) children: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
    closed: Vec<Vec<u8>>,
    watch: Watch,
}

#[derive(Debug, Default)]
struct Watch {
    /// None before the beginning, and when it cannot be read.
    queue: Option<OwnedFd>,
    dirs: BTreeMap<i32, Vec<u8>>,
    used: BTreeSet<Vec<u8>>,
    /// Whether names may have been used that are not among these.
    lost: bool,
}

impl Seen {
    /// Notes what is below `root`, without the folders `closed` of the root and what is in them: they are
    /// left alone.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(root: impl AsFd, closed: &[&[u8]]) -> Result<Self> {
        let root = root.as_fd();
        let mut seen = Self {
            entries: BTreeMap::new(),
            children: BTreeMap::new(),
            closed: closed.iter().map(|path| path.to_vec()).collect(),
            watch: Watch::default(),
        };
        seen.entries.insert(Vec::new(), mark(root, b"", b"")?);
        let mut pending = vec![Vec::new()];
        while let Some(dir) = pending.pop() {
            let fd = open_dir(root, &dir).map_err(StackError::io("open", &dir))?;
            let mut names = names(fd.as_fd()).map_err(StackError::io("list", &dir))?;
            names.retain(|name| !seen.is_closed(&join(&dir, name)));
            for name in &names {
                let path = join(&dir, name);
                let mark = mark(fd.as_fd(), name, &path)?;
                if mark.is_dir {
                    pending.push(path.clone());
                }
                seen.entries.insert(path, mark);
            }
            seen.children.insert(dir, names);
        }
        Ok(seen)
    }

    pub(super) fn is_closed(&self, path: &[u8]) -> bool {
        self.closed.iter().any(|closed| closed == path)
    }

    /// To be called when all is in its place and just before others may change it: looks at the times again. What
    /// was `put` over the rest since counts as changed. Returns when a change from now on shows.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(&mut self, root: impl AsFd, put: &BTreeSet<Vec<u8>>) -> Result<()> {
        let root = root.as_fd();
        let mut newest = (0, 0);
        let mut open: Option<(Vec<u8>, OwnedFd)> = None;
        for (path, entry) in &mut self.entries {
            let (dir, name) = crate::dirfd::split(path);
            if open.as_ref().is_none_or(|(at, _)| at != dir) {
                // Something else may have its place by now.
                open = open_dir(root, dir).ok().map(|fd| (dir.to_vec(), fd));
            }
            let now = open
                .as_ref()
                .map(|(_, fd)| mark(fd.as_fd(), name, path))
                .and_then(Result::ok);
            if let Some(now) = now.filter(|now| now.inode == entry.inode) {
                newest = newest.max(now.changed.unwrap_or_default());
                *entry = now;
            }
            if put.contains(path) {
                entry.changed = None;
            }
        }
        self.watch = self.watch(root);
        // Times of files go in steps of some milliseconds: what is changed in the same one would look untouched.
        let now = || {
            let now = clock_gettime(ClockId::RealtimeCoarse);
            (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or(0))
        };
        let mut rounds = 0;
        while now() <= newest && rounds < 200 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            rounds += 1;
        }
        Ok(())
    }

    /// Watches every directory that was there and still is, as far as the kernel has room for it.
    fn watch(&self, root: BorrowedFd<'_>) -> Watch {
        let mut watch = Watch::default();
        let Ok(queue) = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) else {
            watch.lost = true;
            return watch;
        };
        for (path, mark) in self.entries.iter().filter(|(_, mark)| mark.is_dir) {
            let Ok(fd) = open_dir(root, path) else {
                continue;
            };
            let same = self::mark(fd.as_fd(), b"", path).is_ok_and(|now| now.inode == mark.inode);
            if same {
                let place = proc_path(fd.as_fd(), b"");
                let what = WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
                match inotify::add_watch(&queue, place, what) {
                    Ok(number) => {
                        watch.dirs.insert(number, path.clone());
                    }
                    // What the others tell is still known.
                    Err(_) => {
                        watch.lost = true;
                        break;
                    }
                }
            }
        }
        watch.queue = Some(queue);
        watch
    }

    /// What there is to wait for while others change the root; [`Seen::note`] has to be called when it is readable.
    #[must_use]
    pub fn queue(&self) -> Option<BorrowedFd<'_>> {
        self.watch.queue.as_ref().map(AsFd::as_fd)
    }

    /// Notes which names were used.
    pub fn note(&mut self) {
        let Watch {
            queue,
            dirs,
            used,
            lost,
        } = &mut self.watch;
        let Some(open) = queue.as_ref() else { return };
        let mut buf = [std::mem::MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(open, &mut buf);
        loop {
            match reader.next() {
                // Too much at once. What came before and what comes after is known.
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => *lost = true,
                Ok(event) => {
                    let dir = dirs.get(&event.wd());
                    if let (Some(dir), Some(name)) = (dir, event.file_name()) {
                        used.insert(join(dir, name.to_bytes()));
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        // It does not work: then times have to do from here on.
        *lost = true;
        *queue = None;
    }

    /// Whether it is not known of all names if they were used, so that of several names of a file, and of files
    /// that were only opened for writing, times alone tell.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.watch.lost
    }

    /// Whether a name was used to open its file for writing or to change its attributes. `None`: it is not known.
    pub(super) fn used(&self, path: &[u8]) -> Option<bool> {
        match self.watch.used.contains(path) {
            true => Some(true),
            false if self.watch.lost => None,
            false => Some(false),
        }
    }

    /// The inodes that the names which were used had at first, or have now.
    pub(super) fn used_inodes(&self, root: BorrowedFd<'_>) -> BTreeSet<Id> {
        let mut found = BTreeSet::new();
        if !self.entries.values().any(|entry| entry.shared) {
            return found;
        }
        let mut open: Option<(Vec<u8>, OwnedFd)> = None;
        for path in &self.watch.used {
            found.extend(self.entries.get(path).map(|entry| entry.inode));
            let (dir, name) = crate::dirfd::split(path);
            if open.as_ref().is_none_or(|(at, _)| at != dir) {
                open = open_dir(root, dir).ok().map(|fd| (dir.to_vec(), fd));
            }
            let now = open
                .as_ref()
                .and_then(|(_, fd)| mark(fd.as_fd(), name, path).ok());
            found.extend(now.map(|now| now.inode));
        }
        found
    }

    /// As when the kernel had more to tell than room for it.
    #[cfg(test)]
    pub(super) fn lose(&mut self) {
        self.watch.lost = true;
    }
}

/// How a name is now; of the directory itself without a name.
pub(super) fn mark(dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Mark> {
    let stat = statx(dir, name).map_err(StackError::io("stat", path))?;
    let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
    let kind = FileType::from_raw_mode(stat.stx_mode.into());
    let is_dir = kind == FileType::Directory;
    Ok(Mark {
        inode: (stat.stx_ino, time(stat.stx_btime)),
        changed: Some(time(stat.stx_ctime)),
        is_dir,
        is_file: kind == FileType::RegularFile,
        is_device: matches!(kind, FileType::CharacterDevice | FileType::BlockDevice),
        shared: !is_dir && stat.stx_nlink > 1,
        own: Own {
            modified: time(stat.stx_mtime),
            mode: stat.stx_mode,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
        },
    })
}

fn statx(dir: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statx(dir, Path::new(OsStr::from_bytes(name)), flags, wanted)
}
