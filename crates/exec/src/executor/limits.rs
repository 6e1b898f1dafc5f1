//! The limits that commands run under, and noticing that one was reached.
//!
//! `RLIMIT_NPROC` is counted per user of a user namespace (Linux 5.14; before, per user of the host,
//! of whom a sandbox has its own too). Nothing inside can raise it: that would take a capability in
//! the host's namespace. The executor itself stays free of it, or it could not report.
//! Of root of the host it is not kept by the kernel at all: where that is who runs the steps, they are counted, and ended
//! when there are too many.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use amiforge_store::free_bytes;
use amiforge_sys::{Resource, Rlimit};
use rustix::process::getrlimit;

use super::processes;
use crate::spec::Limits;

/// Bytes of the disk that steps must leave, if it has four times as many when they start; of less a quarter. This keeps a
/// step from taking the disk away from all else on the machine, and from going on after its disk was full.
const RESERVE: u64 = 256 << 20;
const PART: u64 = 4;

/// How often the free space is looked at, with the whole reserve: what a fast disk takes in that time is a part of it. With
/// less of a reserve it is more often. Microseconds.
const ROOM_MICROS: u64 = 40_000;
const ROOM_LEAST_MICROS: u64 = 2_000;

/// Free bytes with which a disk counts as full for a program that says so, however small the reserve.
const LITTLE: u64 = 1 << 20;

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

    /// Bytes that must stay free below `/` while a command runs: none where nobody knows, and in a guest, whose disk is
    /// its own.
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
    free_bytes(dir).ok().map(part_of)
}

/// What of so many free bytes has to stay.
fn part_of(free: u64) -> u64 {
    (free / PART).min(RESERVE)
}

/// Looks at the free space while a command runs.
pub(crate) struct Room<'d> {
    dir: &'d Path,
    reserve: u64,
    least: u64,
}

impl<'d> Room<'d> {
    pub(crate) fn new(dir: &'d Path, reserve: u64) -> Self {
        Self {
            dir,
            reserve,
            least: u64::MAX,
        }
    }

    /// The time between two looks.
    pub(crate) fn pause(&self) -> Duration {
        let pause = ROOM_MICROS * self.reserve / RESERVE;
        Duration::from_micros(pause.max(ROOM_LEAST_MICROS))
    }

    /// What is free, when that is less than must be.
    pub(crate) fn look(&mut self) -> Option<u64> {
        let free = free_bytes(self.dir).ok()?;
        self.least = self.least.min(free);
        (free < self.reserve).then_some(free)
    }

    /// The same at the end of a command; `refused` says whether a program told that the disk was full. What it says counts
    /// when the disk was seen at the way there: a moment may come between two looks.
    pub(crate) fn at_end(&mut self, refused: bool) -> Option<u64> {
        let now = self.look();
        now.or_else(|| {
            (refused && self.least < (2 * self.reserve).max(LITTLE)).then_some(self.least)
        })
    }
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

/// Whether a program says with this line that the disk is full, as the C library and most others word it.
pub(crate) fn tells_of_a_full_disk(line: &str) -> bool {
    line.contains("No space left on device")
}

/// Processes and threads of the user that has most of them, of those that are ours.
fn most_tasks() -> u64 {
    let mut by_user: BTreeMap<String, u64> = BTreeMap::new();
    // None when that cannot be told now.
    for process in processes::ours().unwrap_or_default() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_what_is_free_stays_and_small_disks_are_looked_at_often() {
        const MIB: u64 = 1 << 20;
        for (free, reserve, pause) in [
            (1 << 40, 256 * MIB, 40_000),
            (1024 * MIB, 256 * MIB, 40_000),
            (1023 * MIB, 1023 * MIB / 4, 39_960),
            (256 * MIB, 64 * MIB, 10_000),
            (20 * MIB, 5 * MIB, 2_000),
            (0, 0, 2_000),
        ] {
            assert_eq!(part_of(free), reserve, "{free}");
            let room = Room::new(Path::new("/"), reserve);
            assert_eq!(room.pause(), Duration::from_micros(pause), "{free}");
        }
    }

    #[test]
    fn a_disk_that_was_seen_low_and_was_told_to_be_full_was_full() {
        let dir = tempfile::tempdir().unwrap();
        let free = free_bytes(dir.path()).unwrap();
        // By what is free here: below the reserve, below twice of it, and far from it.
        for (reserve, plain, told) in [
            (free + (1 << 30), true, true),
            (free / 4 * 3, false, true),
            (free / 4, false, false),
        ] {
            let mut room = Room::new(dir.path(), reserve);
            assert_eq!(room.at_end(false).is_some(), plain, "{reserve} of {free}");
            assert_eq!(room.at_end(true).is_some(), told, "{reserve} of {free}");
        }
        for (line, full) in [
            ("sh: 1: echo: I/O error: No space left on device", true),
            ("no space between words", false),
        ] {
            assert_eq!(tells_of_a_full_disk(line), full, "{line}");
        }
    }
}
