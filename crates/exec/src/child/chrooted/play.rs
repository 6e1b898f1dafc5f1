//! What steps are told by us and not by the kernel, since they have no namespaces of their own.
//!
//! ```text
//! any program        uname ─ waits ─▶ S   the name that a machine has elsewhere
//!                    execve ─ waits ─▶ S   goes on; S traces it from there when it is systemd-tmpfiles
//! systemd-tmpfiles   open("/proc/self/fd/7") ─ stops ─▶ S   makes it uname, which waits as above,
//!                                                       and answers what open would have returned
//! ```
//!
//! Only the calls of that one program are looked at, so nothing else gets slower. When it cannot be traced the job ends.
//! Why not a second watch for it alone: the kernel takes one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use amiforge_store::Seen;
use amiforge_sys::trace::{self, Arguments, Resume, Stop};
use amiforge_sys::{Answer, Asked, Call, Fork, Listener, Watched};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::super::memory::{self, MAX_PATH};
use super::super::{ChildError, refused};
use super::proc::{Deed, Instead, Played, Proc, Unplayed};
use crate::handed;
use crate::spec::HOST_NAME;

/// The program that does nothing without `/proc`, of those that packages call.
const PROGRAM: &[u8] = b"systemd-tmpfiles";

/// Paths that are told of, when they were asked for and are not played.
const MOST_NOTES: usize = 8;

/// In the process that runs the steps: hands over what brings its calls, and those of all that it starts, to the other one.
pub(super) fn begin(to: &OwnedFd) -> Result<(), ChildError> {
    let failed = |e| refused("have calls of steps answered", e);
    let listener: OwnedFd = amiforge_sys::watch(Watched::Programs)
        .map_err(failed)?
        .into();
    handed::send(to, &[listener.as_fd()]).map_err(failed)
}

/// Whether we may look into what we start. Without that nobody would see what steps execute.
pub(super) fn try_look() -> Result<(), ChildError> {
    let failed = |e: io::Error| refused("look into the memory of steps", e);
    let (wait, go) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    match amiforge_sys::fork().map_err(failed)? {
        Fork::Child => {
            drop(go);
            // Until the other end is closed.
            let _closed = rustix::io::read(&wait, &mut [0]);
            amiforge_sys::exit_now(0)
        }
        Fork::Parent(pid) => {
            let memory = File::open(format!("/proc/{}/mem", pid.as_raw_nonzero()));
            drop(go);
            rustix::process::waitpid(Some(pid), WaitOptions::empty())
                .map_err(|e| failed(e.into()))?;
            memory.map(drop).map_err(failed)
        }
    }
}

/// Answers the calls of a job.
pub(super) struct Player {
    /// None when the job ended before it was handed over.
    listener: Option<Listener>,
    /// Readable when a traced thread may have stopped.
    signals: OwnedFd,
    root: OwnedFd,
    proc: Proc,
    traced: BTreeMap<u32, Traced>,
    missed: Option<String>,
    unknown: BTreeSet<String>,
}

#[derive(Default)]
struct Traced {
    /// Whether what it runs, or is to run, is the program.
    plays: bool,
    /// What it waits for.
    deed: Option<Deed>,
    /// What is to be put back when its call is made.
    arguments: Option<Arguments>,
}

impl Player {
    /// In the process that answers, which started the other one.
    pub(super) fn new(root: &OwnedFd, from: &OwnedFd) -> io::Result<Self> {
        let signals = amiforge_sys::child_signals()?;
        let listener = handed::receive(from)?.into_iter().next();
        Ok(Self {
            listener: listener.map(Listener::from),
            signals,
            root: root.try_clone()?,
            proc: Proc::new(root)?,
            traced: BTreeMap::new(),
            missed: None,
            unknown: BTreeSet::new(),
        })
    }

    /// Why the program did less than it does elsewhere, if it did.
    pub(super) fn missed(&self) -> Option<String> {
        let why = self.missed.as_ref()?;
        Some(format!(
            "a step called systemd-tmpfiles, which does its work only where /proc is mounted; a changed root directory has none, and it cannot be played ({why}), so this takes another way of running steps"
        ))
    }

    /// What the program asked for in vain, for people.
    pub(super) fn notes(&self) -> Option<String> {
        let all: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
        (!all.is_empty()).then(|| {
            format!(
                "systemd-tmpfiles asked for {}, which is not there in a changed root directory",
                all.join(", ")
            )
        })
    }

    /// Answers one call.
    fn serve(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let Some(asked) = listener.next()? else {
            return Ok(());
        };
        let answer = match asked.call {
            Call::Uname => match self
                .traced
                .get_mut(&asked.thread)
                .and_then(|t| t.deed.take())
            {
                Some(deed) => return self.carry_out(&asked, &deed),
                None => self.name(&asked),
            },
            Call::Execve | Call::Execveat => {
                self.executes(&asked);
                Answer::Go
            }
            _ => Answer::Go,
        };
        self.answer(&asked, answer)
    }

    fn answer(&self, asked: &Asked, answer: Answer) -> io::Result<()> {
        match &self.listener {
            Some(listener) => listener.answer(asked.id, answer),
            None => Ok(()),
        }
    }

    fn waits(&self, asked: &Asked) -> bool {
        let listener = self.listener.as_ref();
        listener.is_some_and(|listener| listener.is_waiting(asked.id))
    }

    /// The name of the machine. Where the memory of the asker cannot be reached the kernel tells the container's.
    fn name(&self, asked: &Asked) -> Answer {
        let told = amiforge_sys::uname_bytes(HOST_NAME).and_then(|bytes| {
            let memory = self.memory(asked.thread, OFlags::RDWR)?;
            match self.waits(asked) {
                true => memory.write_all_at(&bytes, asked.args[0]),
                false => Err(io::ErrorKind::NotFound.into()),
            }
        });
        told.map_or(Answer::Go, |()| Answer::Value(0))
    }

    /// The memory of a thread. Its user is who may look into it, if it became another one.
    fn memory(&self, thread: u32, flags: OFlags) -> io::Result<File> {
        let path = format!("{thread}/mem");
        let flags = flags | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(self.proc.dir(), &path, flags, Mode::empty());
        let opened = match open() {
            Err(Errno::ACCESS | Errno::PERM) => {
                let dir = thread.to_string();
                let owner = rustix::fs::statat(self.proc.dir(), dir, AtFlags::empty())?;
                amiforge_sys::with_file_ids((owner.st_uid, owner.st_gid), open)?
            }
            opened => opened,
        };
        Ok(File::from(opened?))
    }

    /// A program is about to be executed.
    fn executes(&mut self, asked: &Asked) {
        let path = self.program(asked).unwrap_or_default();
        let plays = path.as_bytes().rsplit(|b| *b == b'/').next() == Some(PROGRAM);
        let traced = self.traced.contains_key(&asked.thread);
        if !plays || !self.exists(&path) || !self.waits(asked) {
            if let Some(traced) = self.traced.get_mut(&asked.thread) {
                traced.plays = false;
            }
            return;
        }
        if !traced && let Err(error) = trace::seize(asked.thread) {
            // Unless it is gone.
            if self.waits(asked) {
                self.miss(format!("it cannot be traced: {error}"));
            }
            return;
        }
        self.traced.entry(asked.thread).or_default().plays = true;
    }

    /// The path that is executed.
    fn program(&self, asked: &Asked) -> io::Result<CString> {
        let a = &asked.args;
        let (at, empty) = match asked.call {
            Call::Execveat => (a[1], a[4] & u64::from(AtFlags::EMPTY_PATH.bits()) != 0),
            _ => (a[0], false),
        };
        let memory = self.memory(asked.thread, OFlags::RDONLY)?;
        let path = memory::text(at, MAX_PATH, |at, part| memory.read_at(part, at))?;
        if !path.is_empty() || !empty {
            return Ok(path);
        }
        // By its descriptor: the name it was opened by tells.
        let fd = u32::try_from(a[0]).map_err(io::Error::other)?;
        let link = format!("{}/fd/{fd}", asked.thread);
        let target = rustix::fs::readlinkat(self.proc.dir(), link, Vec::new())?;
        let target = target.into_bytes();
        let name = target.rsplit(|b| *b == b'/').next().unwrap_or_default();
        Ok(CString::new(name)?)
    }

    /// Whether there is something at a path, as far as that can be told: shells try one folder after the other.
    fn exists(&self, path: &CString) -> bool {
        if !path.as_bytes().starts_with(b"/") {
            return true;
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT;
        let found = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve);
        !matches!(found, Err(Errno::NOENT | Errno::NOTDIR))
    }

    fn miss(&mut self, why: String) {
        self.missed.get_or_insert(why);
    }

    /// Lets all go on that have stopped.
    fn stops(&mut self) {
        // What it tells is only that something was.
        let mut buffer = [0; 1024];
        while rustix::io::read(&self.signals, &mut buffer).is_ok_and(|n| n > 0) {}
        let mut pending: Vec<u32> = self.traced.keys().copied().collect();
        while let Some(thread) = pending.pop() {
            match trace::next_stop(thread) {
                Ok(None) => {}
                Ok(Some(Stop::Ended)) | Err(_) => drop(self.traced.remove(&thread)),
                Ok(Some(stop)) => {
                    pending.push(thread);
                    pending.extend(self.stopped(thread, stop));
                }
            }
        }
    }

    /// Lets one go on; returns the one it started.
    fn stopped(&mut self, thread: u32, stop: Stop) -> Option<u32> {
        let plays = self.traced.get(&thread).is_some_and(|traced| traced.plays);
        let mut started = None;
        let how = match stop {
            Stop::Enters(Some((call, args))) if plays => {
                self.enters(thread, call, args);
                Resume::On
            }
            Stop::Leaves => {
                let traced = self.traced.get_mut(&thread);
                if let Some(arguments) = traced.and_then(|traced| traced.arguments.take())
                    && let Err(error) = arguments.restore(thread)
                {
                    self.miss(format!("its calls cannot be answered: {error}"));
                }
                Resume::On
            }
            Stop::Executed if !plays => {
                self.traced.remove(&thread);
                Resume::Free
            }
            Stop::Started(other) => {
                let traced = self.traced.entry(other).or_default();
                traced.plays = plays;
                started = Some(other);
                Resume::On
            }
            Stop::Signal(signal) => Resume::With(signal),
            Stop::Halted => Resume::Halted,
            Stop::Enters(_) | Stop::Executed | Stop::Other | Stop::Ended => Resume::On,
        };
        if let Err(error) = trace::resume(thread, how) {
            self.miss(format!("it does not go on: {error}"));
        }
        started
    }

    fn enters(&mut self, thread: u32, call: Call, args: [u64; 6]) {
        let instead = match self.proc.deed(thread, call, args) {
            Ok(instead) => instead,
            Err(Unplayed::Kernel) => return,
            Err(Unplayed::Differs(why)) => return self.miss(why),
        };
        if self.unknown.len() < MOST_NOTES {
            self.unknown.extend(self.proc.take_unknown());
        }
        let traced = self.traced.entry(thread).or_default();
        let made = match instead {
            Instead::Answered(deed) => trace::make_uname(thread).map(|()| traced.deed = Some(deed)),
            Instead::Duplicate(fd, close) => trace::make_duplicate(thread, fd, close)
                .map(|arguments| traced.arguments = Some(arguments)),
        };
        if let Err(error) = made {
            self.miss(format!("its calls cannot be answered: {error}"));
        }
    }

    fn carry_out(&mut self, asked: &Asked, deed: &Deed) -> io::Result<()> {
        let answer = match self.proc.carry_out(asked.thread, deed) {
            Ok(Played::Answer(answer)) => answer,
            Ok(Played::Opened(file, close)) => {
                let Some(listener) = &self.listener else {
                    return Ok(());
                };
                match listener.answer_with_fd(asked.id, file.as_fd(), close) {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        // It has too many; or the kernel is older than 5.14.
                        if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) {
                            self.miss(format!("it cannot be given a file: {error}"));
                        }
                        Answer::Error(error.raw_os_error().unwrap_or(Errno::MFILE.raw_os_error()))
                    }
                }
            }
            Err(error) => Answer::Error(error.raw_os_error()),
        };
        self.answer(asked, answer)
    }
}

/// What a look at all that may happen found.
#[derive(Default)]
struct Ready {
    ended: bool,
    given_up: bool,
    asked: bool,
    nobody_asks: bool,
    stopped: bool,
    used: bool,
}

/// Returns when `pid` has ended, answering calls and noting which files are used until then; ends it when the parent closes our
/// standard input, and says so.
pub(super) fn attend(pid: Pid, player: &mut Player, seen: &mut Seen) -> Result<bool, ChildError> {
    let failed = |e| refused("watch the first process", e);
    let flags = rustix::process::PidfdFlags::empty();
    let init = rustix::process::pidfd_open(pid, flags).map_err(failed)?;
    loop {
        let ready = wait(&init, player, seen).map_err(failed)?;
        if ready.ended {
            return Ok(false);
        }
        // Nothing more is ever sent, so anything there is the end.
        if ready.given_up {
            let _gone = rustix::process::pidfd_send_signal(&init, Signal::KILL);
            return Ok(true);
        }
        if ready.used {
            seen.note();
        }
        if ready.stopped {
            player.stops();
        }
        if ready.asked {
            let served = player.serve();
            served.map_err(|e| refused("answer calls of steps", e))?;
        } else if ready.nobody_asks {
            player.listener = None;
        }
    }
}

/// Notes what a descriptor tells.
type Note = fn(&mut Ready, PollFlags);

fn wait(init: &OwnedFd, player: &Player, seen: &Seen) -> Result<Ready, Errno> {
    let stdin = io::stdin();
    let mut watched: Vec<(BorrowedFd<'_>, Note)> = vec![
        (init.as_fd(), |ready, _| ready.ended = true),
        (stdin.as_fd(), |ready, _| ready.given_up = true),
        (player.signals.as_fd(), |ready, _| ready.stopped = true),
    ];
    if let Some(listener) = &player.listener {
        watched.push((listener.as_fd(), |ready, events| {
            ready.asked = events.contains(PollFlags::IN);
            ready.nobody_asks = !ready.asked;
        }));
    }
    if let Some(queue) = seen.queue() {
        watched.push((queue, |ready, _| ready.used = true));
    }
    let mut fds: Vec<PollFd<'_>> = watched
        .iter()
        .map(|(fd, _)| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    match rustix::event::poll(&mut fds, None) {
        Err(Errno::INTR) => return Ok(Ready::default()),
        Err(e) => return Err(e),
        Ok(_) => {}
    }
    let mut ready = Ready::default();
    for (fd, (_, note)) in fds.iter().zip(&watched) {
        if !fd.revents().is_empty() {
            note(&mut ready, fd.revents());
        }
    }
    Ok(ready)
}
