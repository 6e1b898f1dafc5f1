//! The parent's side of a sandbox: starts the helper, writes its id map, hands it the job, and
//! reads what happens.

mod ids;
mod machine;
mod pauses;
mod probe;
mod serve;
mod shell;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use amiforge_types::Timestamp;

use crate::error::SandboxError;
use crate::event::{ChildEvent, RunResult, RunSpec, ScriptResult, ShellResult};
use crate::kept::LentDownload;
use crate::outside::Outside;
use crate::spec::{IdMap, RootSpec, ScriptSpec, ShellSpec, Way};
use crate::wire::{FromChild, Job, JobResult, ToChild};

use machine::Fleet;
pub use machine::{LAYERS_PORT, LINK_PORT, Machine, MachineDisks, Machines, SHELL_PORTS};
pub(crate) use pauses::made_since;
pub use pauses::{Pause, Pauses};
pub use probe::{Chosen, Tried};
pub use serve::{MachineLines, serve_jobs};
pub use shell::Console;

/// How often the cancel flag is looked at.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// How long a child may take to end its processes.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Bytes kept of what the helper writes to standard error.
const STDERR_TAIL: u64 = 64 << 10;

/// The program that plays the child: it must call [`child_main`](crate::child_main) when started
/// with `args`. The command uses its own executable with [`CHILD_ARG`](crate::CHILD_ARG).
#[derive(Clone, Debug)]
pub struct Helper {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What starts machines for [`Way::MicroVm`].
    pub machines: Option<Arc<dyn Machines>>,
}

impl Helper {
    /// `program` with the one argument [`CHILD_ARG`](crate::CHILD_ARG).
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: vec![crate::CHILD_ARG.into()],
            machines: None,
        }
    }
}

/// Callback for what happens in a job, called on the thread that runs the job.
pub type OnEvent<'a> = &'a mut dyn FnMut(ChildEvent);

/// Runs jobs in child processes with their own users, mounts, processes and host name.
///
/// A value is only a configuration; every job has its own child, and two jobs may run at the same
/// time. The child, and everything it started, dies when the thread that runs the job ends.
#[derive(Clone, Debug)]
pub struct Sandbox {
    helper: Helper,
    way: Way,
    ids: IdMap,
    /// Where the jobs run instead, of [`Way::MicroVm`].
    fleet: Option<Fleet>,
}

impl Sandbox {
    /// Finds the ids to use for the calling user, in the way that is given.
    ///
    /// # Errors
    /// What the machine lacks; see [`SandboxError::hint`]. That the kernel allows namespaces shows
    /// only with the first job, or with [`Sandbox::usable`].
    pub fn new(helper: Helper, way: Way) -> Result<Self, SandboxError> {
        let ids = match way {
            Way::MappedIds => ids::choose()?,
            Way::SingleId => ids::single()?,
            Way::Chroot => ids::own()?,
            Way::MicroVm => ids::callers(),
        };
        let fleet = match way {
            Way::MicroVm => {
                let machines = helper.machines.clone().ok_or(SandboxError::NoMachine {
                    what: "this program has no machines".to_owned(),
                    hint: None,
                })?;
                Some(Fleet::new(machines))
            }
            Way::MappedIds | Way::SingleId | Way::Chroot => None,
        };
        Ok(Self {
            helper,
            way,
            ids,
            fleet,
        })
    }

    /// How steps run.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// The host ids behind the image's ids. Directories made by [`Sandbox::materialise`] are of use
    /// only with the same map: compare the owner of their root with `uid_base`.
    #[must_use]
    pub fn ids(&self) -> IdMap {
        self.ids
    }

    /// Runs `script` as root in `root`.
    ///
    /// # Errors
    /// When the sandbox could not be set up or was cancelled. A script that fails is a result.
    pub fn run_script(
        &self,
        root: &RootSpec,
        script: &ScriptSpec,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<ScriptResult, SandboxError> {
        self.prepare(root, false, &[], cancel)?;
        match self.run(
            Job::Script {
                root: root.clone(),
                script: script.clone(),
            },
            cancel,
            on_event,
        )? {
            JobResult::Script(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs phases of component documents in `root`. When a step wants a restart, the run goes on in a
    /// fresh sandbox on what has changed so far. Logs are the caller's: feed the events and the
    /// result to a [`ToeLog`](crate::ToeLog).
    ///
    /// # Errors
    /// When the sandbox could not be set up or was cancelled. A step that fails is a result.
    pub fn run_component(
        &self,
        root: &RootSpec,
        run: &RunSpec,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<RunResult, SandboxError> {
        self.run_component_with(root, run, &Outside::default(), cancel, on_event)
    }

    /// The same with what the transfer actions are lent.
    ///
    /// # Errors
    /// As without.
    pub fn run_component_with(
        &self,
        root: &RootSpec,
        run: &RunSpec,
        outside: &Outside,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<RunResult, SandboxError> {
        let never = Pauses {
            from: None,
            after: None,
            keep: &mut |_| None,
        };
        self.run_component_pausing(root, run, outside, never, cancel, on_event)
    }

    /// The same, going on where a run stopped before, and stopping between steps. A machine of its own never does.
    ///
    /// # Errors
    /// As without.
    pub fn run_component_pausing(
        &self,
        root: &RootSpec,
        run: &RunSpec,
        outside: &Outside,
        pauses: Pauses<'_>,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<RunResult, SandboxError> {
        let Pauses {
            from,
            after: mut pause_after,
            keep,
        } = pauses;
        let mut keep_tmp = from.is_some();
        let mut journal = from.map(Pause::into_journal).unwrap_or_default();
        loop {
            // Each time: it also empties the work directory, which the kernel wants for another mount.
            self.prepare(root, keep_tmp, &outside.lent, cancel)?;
            let job = Job::Component {
                root: root.clone(),
                run: Box::new(run.clone()),
                journal,
                outside: Box::new(outside.clone()),
                pause_after,
            };
            let executed = match self.run(job, cancel, &mut *on_event)? {
                JobResult::Run(executed) => *executed,
                other => return Err(unexpected(&other)),
            };
            // A restart is a new child: no process, mount or file of `/run` is left of the old one.
            let Some(next) = executed.restart else {
                return Ok(executed.result);
            };
            keep_tmp = executed.paused;
            journal = match executed.paused {
                true => {
                    let pause = Pause::new(next);
                    pause_after = keep(&pause);
                    pause.into_journal()
                }
                false => next,
            };
        }
    }

    /// Runs a command in `root` that reads from `console` and writes to it; with what earlier jobs left in the upper
    /// directory and in `/tmp`. Its `terminal` is decided by the console.
    ///
    /// # Errors
    /// When the sandbox could not be set up, the command not started, or it was cancelled.
    pub fn run_shell(
        &self,
        root: &RootSpec,
        shell: &ShellSpec,
        console: &Console,
        cancel: &AtomicBool,
    ) -> Result<ShellResult, SandboxError> {
        self.prepare(root, true, &[], cancel)?;
        let mut shell = shell.clone();
        shell.terminal = console.size();
        let job = Job::Shell {
            root: root.clone(),
            shell,
        };
        match self.run_on(job, cancel, &mut |_| (), Some(console))? {
            JobResult::Shell(result) => Ok(result),
            other => Err(unexpected(&other)),
        }
    }

    fn prepare(
        &self,
        root: &RootSpec,
        keep_tmp: bool,
        lent: &[LentDownload],
        cancel: &AtomicBool,
    ) -> Result<(), SandboxError> {
        let job = Job::Prepare {
            root: root.clone(),
            keep_tmp,
            lent: lent.to_vec(),
        };
        self.unit(job, cancel)
    }

    /// Writes one layer file into the new or empty directory `dir`, with mapped owners, so that it
    /// serves as a lower directory, and renames that to `place`. (The rename happens inside too: a
    /// directory that belongs to a mapped id cannot be moved by the caller.) When `place` is there
    /// already it stays and `dir` goes.
    ///
    /// # Errors
    /// When the layer is damaged or the directory cannot be written.
    pub fn materialise(
        &self,
        layer: &Path,
        dir: &Path,
        place: &Path,
        cancel: &AtomicBool,
    ) -> Result<(), SandboxError> {
        self.materialise_shifted(layer, (dir, place), None, cancel)
    }

    /// Writes what is in the upper directory of a job into the existing file `layer`. Every time at or
    /// after `since` (the wall-clock start of the job) becomes `clock`. The paths of `exclude`
    /// (without leading slash) stay out of the layer with everything below them.
    ///
    /// # Errors
    /// When a file cannot be read or the layer cannot be written.
    pub fn harvest(
        &self,
        upper: &Path,
        layer: &Path,
        clock: Timestamp,
        since: Option<Timestamp>,
        exclude: &[&str],
        cancel: &AtomicBool,
    ) -> Result<(), SandboxError> {
        self.unit(
            Job::Harvest {
                upper: upper.to_owned(),
                layer: layer.to_owned(),
                clock,
                since,
                exclude: exclude.iter().map(|path| (*path).to_owned()).collect(),
            },
            cancel,
        )
    }

    /// Removes directories that belong to mapped ids, with everything below. Missing ones are fine.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_trees(&self, dirs: &[PathBuf]) -> Result<(), SandboxError> {
        self.unit(
            Job::RemoveTrees {
                dirs: dirs.to_vec(),
            },
            &AtomicBool::new(false),
        )
    }

    fn unit(&self, job: Job, cancel: &AtomicBool) -> Result<(), SandboxError> {
        match self.run(job, cancel, &mut |_| ())? {
            JobResult::Unit => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn run(
        &self,
        job: Job,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
    ) -> Result<JobResult, SandboxError> {
        self.run_on(job, cancel, on_event, None)
    }

    fn run_on(
        &self,
        job: Job,
        cancel: &AtomicBool,
        on_event: OnEvent<'_>,
        console: Option<&Console>,
    ) -> Result<JobResult, SandboxError> {
        if let Some(fleet) = &self.fleet {
            return fleet.run(job, cancel, on_event, console);
        }
        let trusted = job.trusted();
        let spawn = |source| SandboxError::Spawn {
            helper: self.helper.program.clone(),
            source,
        };
        // A socket, since a shell's descriptors come back on it.
        let (ours, theirs) = UnixStream::pair().map_err(spawn)?;
        let mut command = Command::new(&self.helper.program);
        command
            .args(&self.helper.args)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        amiforge_sys::die_with_parent(&mut command);
        let child = command.spawn().map_err(spawn)?;
        // Also holds the child's end of the socket.
        drop(command);
        let mut child = Reaper(child);
        let lines = read_lines(child.0.stdout.take());
        let stderr = read_tail(child.0.stderr.take());

        let parent = rustix::process::getpid().as_raw_nonzero().get();
        send(
            &ours,
            &serde_json::to_string(&ToChild {
                parent,
                way: self.way,
                job,
            })
            .map_err(io::Error::from),
        );

        let mut relay = None;
        let outcome = loop {
            if cancel.load(Ordering::Relaxed) {
                break Some(Err(SandboxError::Cancelled));
            }
            let line = match lines.receiver.recv_timeout(CANCEL_POLL) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break None,
            };
            match serde_json::from_slice(&line) {
                Ok(FromChild::Unshared) => {
                    if let Err(e) = ids::write(self.ids, child.0.id(), trusted) {
                        break Some(Err(e));
                    }
                    send(&ours, &Ok("go".to_owned()));
                }
                Ok(FromChild::Event(event)) => on_event(event),
                Ok(FromChild::Opened) => match console.map(|on| shell::Relay::start(on, &ours)) {
                    Some(Ok(started)) => relay = Some(started),
                    Some(Err(e)) => {
                        let what = format!("cannot talk to the shell: {e}");
                        break Some(Err(SandboxError::Job { what }));
                    }
                    None => {}
                },
                Ok(FromChild::Done(result)) => break Some(Ok(result)),
                Ok(FromChild::Failed { what, refused }) => {
                    break Some(Err(SandboxError::told(what, refused)));
                }
                Err(_) => {
                    // Not the message itself: it may hold what nobody is to see.
                    let bytes = line.len();
                    let what =
                        format!("a message of {bytes} bytes of the sandbox is not understood");
                    break Some(Err(SandboxError::Job { what }));
                }
            }
        };
        drop(ours);
        if !matches!(outcome, Some(Ok(_)) | None) {
            child.give_up(trusted);
        }
        // Every process of the job holds the other end until it is gone, so this waits for all.
        lines.join();
        let relayed = relay.map_or(Ok(()), shell::Relay::finish);
        let status = child.wait();
        let stderr = stderr.join().unwrap_or_default();
        if let (Some(Ok(_)), Err(error)) = (&outcome, relayed) {
            let what = format!("output of the shell was lost: {error}");
            return Err(SandboxError::Job { what });
        }
        if let (Some(Ok(_)), Ok(status)) = (&outcome, &status)
            && !status.success()
        {
            let status = format!("after its work was done: {status}");
            return Err(SandboxError::Died { status, stderr });
        }
        outcome.unwrap_or_else(|| {
            let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
            Err(SandboxError::Died { status, stderr })
        })
    }
}

fn unexpected(result: &JobResult) -> SandboxError {
    SandboxError::Job {
        what: format!("the sandbox answered another job: {}", result.name()),
    }
}

/// A child that does not outlive us, whatever way we leave.
struct Reaper(Child);

impl Reaper {
    fn kill(&mut self) {
        // Fails only when it is gone already.
        let _gone = self.0.kill();
    }

    /// Ends the child. One that runs foreign code saw its input end; it kills them all and ends
    /// when they are gone, which a kill from here would not wait for.
    fn give_up(&mut self, trusted: bool) {
        let until = Instant::now() + GIVE_UP;
        while !trusted && Instant::now() < until {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }

    fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.0.wait()
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.kill();
        let _reaped = self.wait();
    }
}

/// Sends one line. A child that is gone shows on its output, so the error is not looked at here.
fn send(mut to: &UnixStream, line: &io::Result<String>) {
    if let Ok(line) = line {
        let _gone = to
            .write_all(line.as_bytes())
            .and_then(|()| to.write_all(b"\n"))
            .and_then(|()| to.flush());
    }
}

struct Lines {
    receiver: mpsc::Receiver<Vec<u8>>,
    thread: std::thread::JoinHandle<()>,
}

impl Lines {
    fn join(self) {
        drop(self.receiver);
        // The thread does not panic; if it did, its output was complete anyway.
        let _panicked = self.thread.join();
    }
}

fn read_lines(stdout: Option<ChildStdout>) -> Lines {
    let (sender, receiver) = mpsc::sync_channel(256);
    let thread = std::thread::spawn(move || {
        let Some(stdout) = stdout else { return };
        let mut reader = io::BufReader::with_capacity(64 << 10, stdout);
        let mut open = true;
        loop {
            let mut line = Vec::new();
            match reader
                .by_ref()
                .take(crate::protocol::MAX_MESSAGE as u64)
                .read_until(b'\n', &mut line)
            {
                Ok(0) | Err(_) => return,
                // When nobody listens any more, go on reading until the last writer is gone.
                Ok(_) => open = open && sender.send(line).is_ok(),
            }
        }
    });
    Lines { receiver, thread }
}

fn read_tail(stderr: Option<std::process::ChildStderr>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut tail = VecDeque::new();
        let mut buf = [0; 4096];
        if let Some(mut stderr) = stderr {
            while let Ok(n @ 1..) = stderr.read(&mut buf) {
                tail.extend(&buf[..n]);
                let excess = (tail.len() as u64).saturating_sub(STDERR_TAIL);
                tail.drain(..usize::try_from(excess).unwrap_or(0));
            }
        }
        let tail: Vec<u8> = tail.into();
        String::from_utf8_lossy(&tail).trim().to_owned()
    })
}
