//! The processes that `/proc` shows, and which of them are ours.
//!
//! In a pid namespace, and in a guest, all are. Where there is no namespace, the process that runs the steps adopts
//! what they leave, so that ours are those that descend from it.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

/// `/proc` of the machine, from before the root was changed.
static PROC: OnceLock<OwnedFd> = OnceLock::new();

/// From here on the calling process is the adoptive parent of all that descends from it (prctl(2), `PR_SET_CHILD_SUBREAPER`), and
/// ours are those alone. To be called where `/proc` is mounted, and before the root is changed.
///
/// # Errors
/// When there is no `/proc`.
pub(crate) fn adopt() -> io::Result<()> {
    let proc = open("/proc")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // Once in the life of a process.
    let _again = PROC.set(proc);
    Ok(())
}

/// Whether [`adopt`] was called: there is no namespace of ours around us.
pub(crate) fn adopts() -> bool {
    PROC.get().is_some()
}

fn open(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// A process, from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: u32,
    /// Its parent's.
    pub(crate) parent: u32,
    /// Its session.
    pub(crate) session: u32,
}

impl Process {
    /// A file of it in `/proc`; none when it is gone.
    pub(crate) fn read(&self, name: &str) -> Option<String> {
        read(&format!("{}/{name}", self.pid)).ok().flatten()
    }
}

/// A file in `/proc`; none when its process is gone, or is none that is shown to us (`hidepid`).
fn read(path: &str) -> io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match PROC.get() {
        Some(proc) => rustix::fs::openat(proc, path, flags, Mode::empty()),
        None => rustix::fs::open(format!("/proc/{path}"), flags, Mode::empty()),
    };
    let mut bytes = Vec::new();
    let read = file
        .map_err(io::Error::from)
        .and_then(|file| std::fs::File::from(file).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) => match Errno::from_io_error(&e) {
            Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
            _ => Err(e),
        },
    }
}

/// All of them. That one cannot be read is an error: it must not look as if it were gone.
fn all() -> io::Result<Vec<Process>> {
    let listing = match PROC.get() {
        Some(proc) => Dir::read_from(proc)?,
        None => Dir::read_from(open("/proc")?)?,
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry?;
        let pid = entry.file_name().to_str().ok();
        let Some(pid) = pid.and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // pid (name) state ppid pgrp session …; the name may hold anything, also brackets.
        let stat = read(&format!("{pid}/stat"))?.unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let mut fields = rest.split_ascii_whitespace().skip(1).map(str::parse::<u32>);
        if let (Some(Ok(parent)), Some(_), Some(Ok(session))) =
            (fields.next(), fields.next(), fields.next())
        {
            found.push(Process {
                pid,
                parent,
                session,
            });
        }
    }
    Ok(found)
}

/// Those that are ours.
pub(crate) fn ours() -> io::Result<Vec<Process>> {
    match adopts() {
        true => descendants(std::process::id()),
        false => all(),
    }
}

/// Those that descend from a process, which is not among them.
fn descendants(root: u32) -> io::Result<Vec<Process>> {
    let all = all()?;
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        let found = all.iter().filter(|p| family.contains(&p.parent));
        family.extend(found.map(|p| p.pid).collect::<Vec<_>>());
        if family.len() == before {
            break;
        }
    }
    family.remove(&root);
    let ours = all.into_iter().filter(|p| family.contains(&p.pid));
    Ok(ours.collect())
}

/// A command with everything it started: its session, and whoever descends from it.
pub(crate) fn family(root: u32) -> BTreeSet<u32> {
    let processes = all().unwrap_or_default();
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        family.extend(
            processes
                .iter()
                .filter(|p| p.session == root || family.contains(&p.parent))
                .map(|p| p.pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            return family;
        }
    }
}

/// Sends a signal to each; one that is gone needs none.
pub(crate) fn signal(pids: impl IntoIterator<Item = u32>, signal: Signal) {
    for pid in pids {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _gone = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Kills all that descend from the calling process, again and again until none is left that could start another.
pub(crate) fn end_all() {
    const ROUNDS: usize = 1000;
    for _ in 0..ROUNDS {
        // What cannot be looked at now may be alive.
        if end_those_there_are().unwrap_or(false) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// True when all of them have ended.
fn end_those_there_are() -> io::Result<bool> {
    let own = std::process::id();
    // Stopping comes first so that nothing is born between the look and the kill.
    signal(descendants(own)?.iter().map(|p| p.pid), Signal::STOP);
    let found = descendants(own)?;
    signal(found.iter().map(|p| p.pid), Signal::KILL);
    for process in &found {
        // What has ended and is not waited for yet is shown, too.
        let stat = read(&format!("{}/stat", process.pid))?.unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        if state.is_some_and(|state| !state.starts_with(['Z', 'X'])) {
            return Ok(false);
        }
    }
    Ok(true)
}
