//! Jobs in a machine of their own: its first process has the child's part, and sees disks where we have directories.
//!
//! ```text
//! lowers[n]   a read-only disk, mounted on /lower<n>; what a layer puts is below its `fs`
//! upper       a disk mounted on /upper, with the job's upper and work directories
//! lent        a read-only disk mounted on /lent, with copies of the downloads that the job is lent, by their names
//! ```

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use amiforge_types::Timestamp;

use super::shell::{Console, Relay};
use super::{CANCEL_POLL, OnEvent};
use crate::error::SandboxError;
use crate::event::ShellResult;
use crate::executor::limits;
use crate::kept::LentDownload;
use crate::protocol::MAX_MESSAGE;
use crate::spec::RootSpec;
use crate::wire::{FromChild, FromMachine, Job, JobResult, ToMachine};

/// Name of a machine's virtio-serial port for messages.
pub const LINK_PORT: &str = "org.amiforge.jobs.0";

/// Name of its port for the bytes of layers.
pub const LAYERS_PORT: &str = "org.amiforge.layers.0";

/// Names of its ports for a shell: a terminal or what it reads, its output, its errors.
pub const SHELL_PORTS: [&str; 3] = [
    "org.amiforge.shell.0",
    "org.amiforge.shell.1",
    "org.amiforge.shell.2",
];

/// How long a machine may take until it waits for jobs: under translation, on a busy host.
const START: Duration = Duration::from_secs(600);

/// How long a machine that is at a job may say nothing, or take nothing: it says every ten seconds that it is alive. A host that is
/// busy with other things lets it wait for long.
const SILENCE: Duration = Duration::from_secs(300);

/// Bytes of a layer that a machine may send.
const MAX_LAYER: u64 = 1 << 42;

/// Signal of a process that writes to a pipe which nobody reads.
const SIGPIPE: i32 = 13;

/// The disks of a machine, by the directories that they stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineDisks {
    /// Lower directories, topmost first, as [`Machines::materialise`] made them; the disk `lower<n>` is the n-th.
    pub lowers: Vec<PathBuf>,
    /// Directory for the disk `upper`, which is made when it is not there and keeps what jobs change.
    pub upper: PathBuf,
    /// Whether there is a network.
    pub network: bool,
    /// Files for the read-only disk `lent`, by their names in its root directory; when there are none, it is not there. Nothing
    /// comes back from it.
    pub lent: Vec<LentDownload>,
}

impl MachineDisks {
    /// Whether a machine with these can do what one with `wanted` does.
    fn serve(&self, wanted: &Self) -> bool {
        self.lowers == wanted.lowers
            && self.upper == wanted.upper
            && self.network == wanted.network
            && wanted.lent.iter().all(|file| self.lent.contains(file))
    }
}

/// Starts machines that jobs run in. Whoever has a kernel and a virtual machine implements it.
pub trait Machines: std::fmt::Debug + Send + Sync {
    /// Makes the directory `dir`, with a disk of what a layer file puts, and renames it to `place`. The file system has the
    /// layer below its directory `fs`, whiteouts and all in overlayfs form (`user.overlay.*`). When `place` is
    /// there already it stays and `dir` goes.
    ///
    /// # Errors
    /// When the layer is damaged or the disk cannot be written.
    fn materialise(&self, layer: &Path, dir: &Path, place: &Path) -> Result<(), SandboxError>;

    /// Starts one, whose first process serves jobs ([`serve_jobs`](crate::serve_jobs)).
    ///
    /// # Errors
    /// What is missing ([`SandboxError::NoMachine`]), or that `cancel` was raised.
    fn start(
        &self,
        disks: &MachineDisks,
        cancel: &AtomicBool,
    ) -> Result<Box<dyn Machine>, SandboxError>;

    /// The address at which a machine with a network reaches what listens on our 127.0.0.1.
    fn host(&self) -> Ipv4Addr;
}

/// A machine that was started. It ends when it is dropped.
pub trait Machine: std::fmt::Debug + Send {
    /// The line for messages.
    fn link(&self) -> &UnixStream;
    /// The line for the bytes of layers.
    fn layers(&self) -> &UnixStream;
    /// The lines of a shell, as [`SHELL_PORTS`] has them.
    fn shell(&self) -> [&UnixStream; 3];
    /// What is known of its end, in its own words.
    fn last_words(&self) -> String;
}

/// The machines of a sandbox.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    machines: Arc<dyn Machines>,
    /// See [`SILENCE`].
    silence: Duration,
    /// Those that were used last, the last of them at the end. Their jobs are done, and all they wrote is on their disks.
    idle: Arc<Mutex<Vec<Session>>>,
}

#[derive(Debug)]
struct Session {
    disks: MachineDisks,
    machine: Box<dyn Machine>,
    lines: BufReader<UnixStream>,
    /// Bytes that must stay free on the host's disk.
    reserve: Option<u64>,
    /// Raised when nobody takes the output of a shell any more.
    unheard: Option<Arc<AtomicBool>>,
    /// See [`SILENCE`].
    silence: Duration,
}

impl Fleet {
    pub(super) fn new(machines: Arc<dyn Machines>) -> Self {
        Self {
            machines,
            silence: SILENCE,
            idle: Arc::default(),
        }
    }

    /// Carries out a job.
    pub(super) fn run(
        &self,
        job: Job,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
        console: Option<&Console>,
    ) -> Result<JobResult, SandboxError> {
        if cancel.load(Ordering::Relaxed) {
            return Err(SandboxError::Cancelled);
        }
        let (disks, job, layer) = match job {
            Job::Materialise {
                layer, dir, place, ..
            } => {
                self.machines.materialise(&layer, &dir, &place)?;
                return Ok(JobResult::Unit);
            }
            Job::RemoveTrees { dirs } => {
                self.remove(&dirs)?;
                return Ok(JobResult::Unit);
            }
            Job::Shell { root, shell } => {
                let (disks, root) = inside(root);
                (Ok(disks), Job::Shell { root, shell }, None)
            }
            Job::Prepare {
                root,
                keep_tmp,
                lent,
            } => {
                let (mut disks, root) = inside(root);
                disks.lent = lent;
                let job = Job::Prepare {
                    root,
                    keep_tmp,
                    lent: Vec::new(),
                };
                (Ok(disks), job, None)
            }
            Job::Script { root, script } => {
                let (disks, root) = inside(root);
                (Ok(disks), Job::Script { root, script }, None)
            }
            Job::Component {
                root,
                run,
                journal,
                outside,
                // What it would leave is on a disk that goes with the machine.
                pause_after: _,
            } => {
                let (mut disks, root) = inside(root);
                disks.lent.clone_from(&outside.lent);
                let outside = outside.seen_from_machine(self.machines.host(), LENT.as_ref());
                let job = Job::Component {
                    root,
                    run,
                    journal,
                    outside: Box::new(outside),
                    pause_after: None,
                };
                (Ok(disks), job, None)
            }
            Job::Harvest {
                upper,
                layer,
                clock,
                since,
                exclude,
            } => {
                let job = Job::Harvest {
                    upper: UPPER.into(),
                    layer: LAYER.into(),
                    clock,
                    since,
                    exclude,
                };
                (Err(upper), job, Some(layer))
            }
        };
        let mut session = self.session(disks, cancel)?;
        if let Some(console) = console {
            return session.run_shell(job, console, cancel);
        }
        let result = session.run(job, layer.as_deref(), cancel, on_event);
        if result.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(session);
        }
        result
    }

    /// A machine with these disks, or with any that have this upper directory.
    fn session(
        &self,
        disks: Result<MachineDisks, PathBuf>,
        cancel: &AtomicBool,
    ) -> Result<Session, SandboxError> {
        let fits = |session: &Session| match &disks {
            Ok(disks) => session.disks.serve(disks),
            Err(upper) => session.disks.upper == *upper,
        };
        let (idle, unfit, over) = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let found = idle.iter().position(fits).map(|at| idle.remove(at));
            // A disk that is written to has one machine.
            let same_upper = |session: &mut Session| match &disks {
                Ok(disks) => session.disks.upper == disks.upper,
                Err(_) => false,
            };
            let unfit: Vec<Session> = idle.extract_if(.., same_upper).collect();
            let room = std::thread::available_parallelism().map_or(1, usize::from) - 1;
            let over = idle.len().saturating_sub(room);
            (found, unfit, idle.drain(..over).collect::<Vec<_>>())
        };
        drop(unfit);
        // Each has memory of its own; those that waited longest end here.
        drop(over);
        if let Some(session) = idle
            && session.lives()
        {
            return Ok(session);
        }
        let disks = disks.unwrap_or_else(|upper| MachineDisks {
            lowers: Vec::new(),
            upper,
            network: false,
            lent: Vec::new(),
        });
        let machine = self.machines.start(&disks, cancel)?;
        let lines = machine.link().try_clone().and_then(|stream| {
            stream.set_read_timeout(Some(CANCEL_POLL))?;
            stream.set_write_timeout(Some(CANCEL_POLL))?;
            Ok(BufReader::new(stream))
        });
        let lines = lines.map_err(|error| lost(&error))?;
        // The limit that steps have elsewhere: in a machine it is asked of the machine's disk.
        let reserve = limits::reserve_of(&disks.upper);
        let mut session = Session {
            disks,
            machine,
            lines,
            reserve,
            unheard: None,
            silence: self.silence,
        };
        let first = session.receive(cancel, START);
        let first = first.map_err(|error| match error {
            SandboxError::Died { stderr, .. } => SandboxError::NoMachine {
                what: format!("a machine does not come up: {stderr}"),
                hint: None,
            },
            error => error,
        })?;
        match first {
            FromMachine::Ready => Ok(session),
            FromMachine::Broken(what) => Err(SandboxError::NoMachine { what, hint: None }),
            _ => Err(SandboxError::Job {
                what: "the first message of the machine is not understood".to_owned(),
            }),
        }
    }

    /// Directories are ours; machines that use them end.
    fn remove(&self, dirs: &[PathBuf]) -> Result<(), SandboxError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let uses = |session: &mut Session| {
            let mut all = session.disks.lowers.iter().chain([&session.disks.upper]);
            all.any(|used| dirs.iter().any(|dir| used.starts_with(dir)))
        };
        let ended: Vec<Session> = idle.extract_if(.., uses).collect();
        drop(idle);
        drop(ended);
        dirs.iter().try_for_each(|dir| {
            amiforge_store::remove_tree(dir).map_err(|error| SandboxError::Io {
                path: error.path,
                source: error.source,
            })
        })
    }
}

/// Directories of the machine.
const UPPER: &str = "/upper/fs";
const WORK: &str = "/upper/work";
const LAYER: &str = "/upper/layer";
const LENT: &str = "/lent";

/// The disks for a root, and the root as the machine sees it.
fn inside(root: RootSpec) -> (MachineDisks, RootSpec) {
    let numbers = 0..root.lowers.len();
    let there = RootSpec {
        lowers: numbers.map(|n| format!("/lower{n}/fs").into()).collect(),
        upper: UPPER.into(),
        work: WORK.into(),
        ..root.clone()
    };
    let disks = MachineDisks {
        lowers: root.lowers,
        upper: root.upper,
        network: root.network,
        lent: Vec::new(),
    };
    (disks, there)
}

fn lost(error: &io::Error) -> SandboxError {
    SandboxError::Job {
        what: format!("the line to the machine broke: {error}"),
    }
}

impl Session {
    /// Whether the machine is still there: it says nothing of itself.
    fn lives(&self) -> bool {
        let mut byte = [0];
        let link = self.machine.link();
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        let seen = rustix::net::recv(link, &mut byte, flags);
        self.lines.buffer().is_empty() && matches!(seen, Err(rustix::io::Errno::AGAIN))
    }

    fn run(
        &mut self,
        job: Job,
        layer: Option<&Path>,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<JobResult, SandboxError> {
        let message = ToMachine { now: now(), job };
        let mut line = serde_json::to_vec(&message).map_err(|e| lost(&e.into()))?;
        line.push(b'\n');
        self.send(&line, cancel)?;
        let mut wanted = layer;
        loop {
            match self.receive(cancel, self.silence)? {
                FromMachine::Child(FromChild::Event(event)) => on_event(event),
                FromMachine::Child(FromChild::Done(result)) if wanted.is_none() => {
                    return Ok(result);
                }
                FromMachine::Child(FromChild::Done(_)) => {
                    let what = "the machine sent no layer".to_owned();
                    return Err(SandboxError::Job { what });
                }
                FromMachine::Child(FromChild::Failed { what, refused }) => {
                    return Err(SandboxError::told(what, refused));
                }
                FromMachine::Layer(bytes) => self.take_layer(bytes, wanted.take(), cancel)?,
                FromMachine::Broken(what) => return Err(SandboxError::Job { what }),
                FromMachine::Ready | FromMachine::Busy | FromMachine::Child(_) => {}
            }
        }
    }

    /// The machine ends with the shell: its lines end with it, and so does what is read from them.
    fn run_shell(
        mut self,
        job: Job,
        console: &Console,
        cancel: &AtomicBool,
    ) -> Result<JobResult, SandboxError> {
        let lines = self.machine.shell().into_iter();
        let lines = lines.map(|line| line.try_clone().map(OwnedFd::from));
        let relay = lines
            .collect::<io::Result<_>>()
            .and_then(|lines| Relay::with(console, lines));
        let relay = relay.map_err(|error| SandboxError::Job {
            what: format!("cannot talk to the shell: {error}"),
        })?;
        let unheard = relay.gone();
        self.unheard = Some(unheard.clone());
        let result = self.run(job, None, cancel, &mut |_| ());
        drop(self);
        let relayed = relay.finish();
        let result = match result {
            // As a command that writes to a closed pipe ends.
            Err(SandboxError::Cancelled)
                if unheard.load(Ordering::Relaxed) && !cancel.load(Ordering::Relaxed) =>
            {
                JobResult::Shell(ShellResult {
                    exit_code: None,
                    signal: Some(SIGPIPE),
                })
            }
            result => result?,
        };
        relayed.map_err(|error| SandboxError::Job {
            what: format!("output of the shell was lost: {error}"),
        })?;
        Ok(result)
    }

    /// Writes the layer that comes into its file.
    fn take_layer(
        &self,
        bytes: u64,
        layer: Option<&Path>,
        cancel: &AtomicBool,
    ) -> Result<(), SandboxError> {
        let Some(path) = layer.filter(|_| bytes <= MAX_LAYER) else {
            let what = format!("the machine sends a layer of {bytes} bytes that nobody wants");
            return Err(SandboxError::Job { what });
        };
        let failed = |source| SandboxError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = File::options().write(true).open(path).map_err(failed)?;
        let mut from = self.machine.layers();
        from.set_read_timeout(Some(CANCEL_POLL))
            .map_err(|e| lost(&e))?;
        let mut buf = vec![0; 256 << 10];
        let mut left = bytes;
        let mut heard = Instant::now();
        while left > 0 {
            stop_if(cancel)?;
            let most = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            match from.read(&mut buf[..most]) {
                Ok(0) => return Err(self.died()),
                Ok(n) => {
                    file.write_all(&buf[..n]).map_err(failed)?;
                    left -= n as u64;
                    heard = Instant::now();
                }
                Err(e) if waits(&e) && heard.elapsed() > self.silence => {
                    return Err(self.hangs());
                }
                Err(e) if waits(&e) => stop_if(cancel)?,
                Err(e) => return Err(lost(&e)),
            }
        }
        file.set_len(bytes).map_err(failed)
    }

    /// Sends a message, which a machine that takes nothing any more does not get.
    fn send(&self, message: &[u8], cancel: &AtomicBool) -> Result<(), SandboxError> {
        let mut link = self.machine.link();
        let mut rest = message;
        let mut taken = Instant::now();
        while !rest.is_empty() {
            stop_if(cancel)?;
            match link.write(rest) {
                Ok(n) => {
                    rest = &rest[n..];
                    taken = Instant::now();
                }
                Err(e) if waits(&e) && taken.elapsed() > self.silence => return Err(self.hangs()),
                Err(e) if waits(&e) => {}
                Err(e) => return Err(lost(&e)),
            }
        }
        Ok(())
    }

    /// The next message. Not of a machine that says nothing at all for as long as `silence`.
    fn receive(
        &mut self,
        cancel: &AtomicBool,
        silence: Duration,
    ) -> Result<FromMachine, SandboxError> {
        let mut line = Vec::new();
        let mut heard = Instant::now();
        loop {
            stop_if(cancel)?;
            if let Some(left) = limits::below(self.reserve, &self.disks.upper) {
                let what = format!(
                    "the machine was ended: it left no more than {} MiB on the disk that it writes to",
                    left >> 20
                );
                return Err(SandboxError::Job { what });
            }
            if self
                .unheard
                .as_ref()
                .is_some_and(|gone| gone.load(Ordering::Relaxed))
            {
                return Err(SandboxError::Cancelled);
            }
            if heard.elapsed() > silence {
                return Err(self.hangs());
            }
            // A piece at a time: a line that never ends is no reason not to look at the above.
            let piece = match self.lines.fill_buf() {
                Ok([]) => return Err(self.died()),
                Ok(piece) => piece,
                Err(e) if waits(&e) => continue,
                Err(e) => return Err(lost(&e)),
            };
            let end = piece.iter().position(|b| *b == b'\n').map(|at| at + 1);
            let most = MAX_MESSAGE.saturating_sub(line.len());
            let taken = end.unwrap_or(piece.len()).min(most);
            heard = Instant::now();
            line.extend_from_slice(&piece[..taken]);
            self.lines.consume(taken);
            if line.ends_with(b"\n") || line.len() >= MAX_MESSAGE {
                break;
            }
        }
        serde_json::from_slice(&line).map_err(|_| SandboxError::Job {
            // Not the message itself: it may hold what nobody is to see.
            what: format!(
                "a message of {} bytes of the machine is not understood",
                line.len()
            ),
        })
    }

    fn died(&self) -> SandboxError {
        SandboxError::Died {
            status: "the machine is off".to_owned(),
            stderr: self.machine.last_words(),
        }
    }

    fn hangs(&self) -> SandboxError {
        SandboxError::Died {
            status: "the machine hangs: nothing was heard of it for too long".to_owned(),
            stderr: self.machine.last_words(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _gone = self.machine.link().shutdown(Shutdown::Both);
    }
}

fn waits(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn stop_if(cancel: &AtomicBool) -> Result<(), SandboxError> {
    match cancel.load(Ordering::Relaxed) {
        true => Err(SandboxError::Cancelled),
        false => Ok(()),
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or_default();
    Timestamp {
        secs: i64::try_from(since.as_secs()).unwrap_or(0),
        nanos: since.subsec_nanos(),
    }
}

#[cfg(test)]
mod tests;
