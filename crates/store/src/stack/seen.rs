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

/// A name as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Inode and time of birth: an inode number alone is used again.
    pub(super) inode: (u64, Time),
    /// When it was changed last; none when it is to count as changed.
    pub(super) changed: Option<Time>,
    pub(super) is_dir: bool,
    pub(super) is_file: bool,
    /// Whether it is one of several names of a file.
    pub(super) shared: bool,
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
    watch: Option<Watch>,
}

#[derive(Debug)]
struct Watch {
    queue: OwnedFd,
    dirs: BTreeMap<i32, Vec<u8>>,
    used: BTreeSet<Vec<u8>>,
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
            watch: None,
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
        self.watch = self.watch(root).ok();
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

    /// Watches every directory that was there and still is.
    fn watch(&self, root: BorrowedFd<'_>) -> std::result::Result<Watch, Errno> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut dirs = BTreeMap::new();
        for (path, mark) in self.entries.iter().filter(|(_, mark)| mark.is_dir) {
            let Ok(fd) = open_dir(root, path) else {
                continue;
            };
            let same = self::mark(fd.as_fd(), b"", path).is_ok_and(|now| now.inode == mark.inode);
            if same {
                let place = proc_path(fd.as_fd(), b"");
                let what = WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB | WatchFlags::ONLYDIR;
                dirs.insert(inotify::add_watch(&queue, place, what)?, path.clone());
            }
        }
        Ok(Watch {
            queue,
            dirs,
            used: BTreeSet::new(),
        })
    }

    /// What there is to wait for while others change the root; [`Seen::note`] has to be called when it is readable.
    #[must_use]
    pub fn queue(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(|watch| watch.queue.as_fd())
    }

    /// Notes which names were used.
    pub fn note(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let mut buf = [std::mem::MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&watch.queue, &mut buf);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => break,
                Ok(event) => {
                    let dir = watch.dirs.get(&event.wd());
                    if let (Some(dir), Some(name)) = (dir, event.file_name()) {
                        watch.used.insert(join(dir, name.to_bytes()));
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        // Too much at once, or it does not work: then times alone have to do.
        self.watch = None;
    }

    /// Whether a name was used to open its file for writing or to change its attributes. `None`: it is not known.
    pub(super) fn used(&self, path: &[u8]) -> Option<bool> {
        self.watch.as_ref().map(|watch| watch.used.contains(path))
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
        shared: !is_dir && stat.stx_nlink > 1,
    })
}

fn statx(dir: BorrowedFd<'_>, name: &[u8]) -> std::result::Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statx(dir, Path::new(OsStr::from_bytes(name)), flags, wanted)
}
