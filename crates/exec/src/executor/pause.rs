//! Stops between two steps, after which another process goes on from the journal: only where nothing is lost that is
//! not in a file of the image or of `/tmp`.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{processes, reaper};

/// Folders in memory that steps may write to.
const IN_MEMORY: [&str; 2] = ["/run", "/dev/shm"];

/// What the kernel tells of mounts and of objects of System V.
const TOLD: [&str; 4] = [
    "/proc/self/mountinfo",
    "/proc/sysvipc/msg",
    "/proc/sysvipc/sem",
    "/proc/sysvipc/shm",
];

/// Files in a folder that are looked at; with more of them there is no stop.
const MOST: usize = 10_000;

/// What the surroundings of steps were like before the first of them.
pub(super) struct Pauses {
    after: Duration,
    begun: Instant,
    /// Whether a step has run since.
    has_run: bool,
    surroundings: Option<Surroundings>,
}

/// Where the calling process is; `None` where that cannot be told.
#[derive(PartialEq)]
struct Surroundings {
    /// Inode, size and time of change by path.
    in_memory: BTreeMap<PathBuf, (u64, u64, i64, i64)>,
    /// Texts of [`TOLD`]; none where there is no `/proc`.
    told: Vec<Option<String>>,
    /// What the machine is called.
    names: [CString; 2],
}

impl Pauses {
    /// `after`: how long steps run at least before there is a stop.
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after,
            begun: Instant::now(),
            has_run: false,
            surroundings: Surroundings::now(),
        }
    }

    /// Whether there is to be one now, before a step, and nothing would be lost by it.
    pub(super) fn is_due(&mut self) -> bool {
        let has_run = std::mem::replace(&mut self.has_run, true);
        has_run
            && self.begun.elapsed() >= self.after
            && self.surroundings.is_some()
            && is_alone()
            && Surroundings::now() == self.surroundings
            && is_of_root(Path::new("/tmp"))
    }
}

impl Surroundings {
    fn now() -> Option<Self> {
        let mut in_memory = BTreeMap::new();
        for folder in IN_MEMORY {
            let whole = walk(Path::new(folder), &mut |path, meta| {
                let seen = (meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
                in_memory.insert(path.to_owned(), seen);
                true
            });
            whole.then_some(())?;
        }
        let name = rustix::system::uname();
        Some(Self {
            in_memory,
            told: TOLD.map(|path| fs::read_to_string(path).ok()).to_vec(),
            names: [name.nodename(), name.domainname()].map(CString::from),
        })
    }
}

/// Whether no process that a step started is left.
fn is_alone() -> bool {
    reaper::reap();
    let own = [1, std::process::id()];
    processes::ours().is_ok_and(|all| all.iter().all(|p| own.contains(&p.pid)))
}

/// Whether all files below a folder are root's: whose the others are is recorded nowhere.
fn is_of_root(folder: &Path) -> bool {
    walk(folder, &mut |_, meta| (meta.uid(), meta.gid()) == (0, 0))
}

/// Calls `on` for everything below a folder until it says no. False also when there is too much, or something cannot be read.
fn walk(folder: &Path, on: &mut dyn FnMut(&Path, &fs::Metadata) -> bool) -> bool {
    let mut folders = vec![folder.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            return false;
        };
        for entry in entries {
            let Ok(path) = entry.map(|entry| entry.path()) else {
                return false;
            };
            let Ok(meta) = fs::symlink_metadata(&path) else {
                return false;
            };
            seen += 1;
            if seen > MOST || !on(&path, &meta) {
                return false;
            }
            if meta.is_dir() {
                folders.push(path);
            }
        }
    }
    true
}
