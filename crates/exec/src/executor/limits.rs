//! The limits that commands run under, and noticing that one was reached.
//!
//! `RLIMIT_NPROC` is counted per user of a user namespace (Linux 5.14; before, per user of the host,
//! of whom a sandbox has its own too). Nothing inside can raise it: that would take a capability in
//! the host's namespace. The executor itself stays free of it, or it could not report.
//! Of root of the host it is not kept by the kernel at all: where that is who runs the steps, they are counted, and ended
//! when there are too many.

use std::collections::BTreeMap;
use std::path::Path;

use amiforge_store::free_bytes;
use amiforge_sys::{Resource, Rlimit};
use rustix::process::getrlimit;

use super::processes;
use crate::spec::Limits;

/// Bytes of the disk that steps must leave, if it has [`PLENTY`] when they start. A disk that has less is full soon
/// in any case, which is an error of its own; this keeps a step from taking the disk away from all else on the machine.
const RESERVE: u64 = 256 << 20;
const PLENTY: u64 = 1 << 30;

/// Soft and hard limit of open files when none is given: what systemd gives every service.
const OPEN_FILES: (u64, u64) = (1024, 524_288);

/// Signal of a process that wrote beyond its file size, and the exit code a shell makes of it.
const SIGXFSZ: i32 = 25;

/// Limits as they are set. The default has none: a guest has its own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) list: Vec<(Resource, Rlimit)>,
    pub(crate) processes: Option<u64>,
    file_size: Option<u64>,
    /// Whether whoever runs the commands has to see to the limit of processes.
    pub(crate) watched: bool,
}

impl Held {
    pub(crate) fn of(limits: &Limits) -> Self {
        let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
        // The last of the caller's own processes are left to the caller, who could not even stop us.
        let own = hard(Resource::Nproc);
        let processes = limits.processes.min(own - own / 8);
        let (soft, files) = limits.open_files.map_or(OPEN_FILES, |n| (n, n));
        let files = files.min(hard(Resource::Nofile));
        let at = |soft: u64, hard: u64| Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        let mut list = vec![
            (Resource::Nproc, at(processes, processes)),
            (Resource::Nofile, at(soft.min(files), files)),
            // A program that crashes leaves no memory dump in the image.
            (Resource::Core, at(0, 0)),
        ];
        let file_size = limits.file_size.map(|n| n.min(hard(Resource::Fsize)));
        list.extend(file_size.map(|n| (Resource::Fsize, at(n, n))));
        Self {
            list,
            processes: Some(processes),
            file_size,
            watched: processes::adopts(),
        }
    }

    /// Bytes of one file at most.
    pub(crate) fn file_size(&self) -> Option<u64> {
        self.file_size
    }

    /// Bytes that must stay free below `/` while a command runs: none where little is free, where nobody knows, and in
    /// a guest, whose disk is its own.
    pub(crate) fn reserve(&self) -> Option<u64> {
        self.processes?;
        reserve_of(Path::new("/"))
    }

    /// How the processes of one user are to the limit now, and whether they are beyond it, which the kernel does not
    /// allow where it keeps it.
    pub(crate) fn crowd(&self) -> (Crowd, bool) {
        let Some(limit) = self.processes else {
            return (Crowd::Little, false);
        };
        let count = most_tasks();
        let crowd = match count {
            n if n >= limit - limit / 16 => Crowd::Full,
            n if n >= limit / 2 => Crowd::Half,
            _ => Crowd::Little,
        };
        (crowd, count > limit)
    }

    /// Which limit a failed step reached, in words.
    pub(crate) fn reached(&self, crowded: bool, exit_code: Option<i32>) -> Option<String> {
        match (self.processes, self.file_size) {
            (Some(n), _) if crowded => Some(format!(
                "the limit of {n} processes (amiforge.limits.processes of the recipe)"
            )),
            (_, Some(n)) if exit_code == Some(128 + SIGXFSZ) => Some(format!(
                "the limit of {n} bytes for a file (amiforge.limits.fileSizeGib of the recipe)"
            )),
            _ => None,
        }
    }
}

/// Bytes of the disk of `dir` that have to stay free, with what is free now.
pub(crate) fn reserve_of(dir: &Path) -> Option<u64> {
    let free = free_bytes(dir).ok()?;
    (free >= PLENTY).then_some(RESERVE)
}

/// What is free on the disk of `dir`, when that is less than `reserve`.
pub(crate) fn below(reserve: Option<u64>, dir: &Path) -> Option<u64> {
    let reserve = reserve?;
    free_bytes(dir).ok().filter(|free| *free < reserve)
}

/// How much of the limit of processes is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Crowd {
    /// Less than half.
    Little,
    /// Half or more: it may have been full a moment ago, when a program says that it was.
    Half,
    /// All, but for some that were just ending.
    Full,
}

/// Whether a program says with this line that the kernel refused it a process, as shells, make and the like do.
/// A crowd comes and goes faster than it can be counted; what it did to a program stays in its output.
pub(crate) fn tells_of_a_refused_fork(line: &str) -> bool {
    line.contains("Cannot fork")
        || (line.contains("fork") && line.contains("Resource temporarily unavailable"))
}

/// Processes and threads of the user that has most of them, of those that are ours.
fn most_tasks() -> u64 {
    let mut by_user: BTreeMap<String, u64> = BTreeMap::new();
    for process in processes::ours() {
        // One that is gone by now does not count.
        let Some(status) = process.read("status") else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()
        };
        let threads = field("Threads:").and_then(|n| n.parse().ok()).unwrap_or(1);
        if let Some(user) = field("Uid:") {
            *by_user.entry(user.to_owned()).or_default() += threads;
        }
    }
    by_user.into_values().max().unwrap_or(0)
}
