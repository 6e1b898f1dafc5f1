//! The child's side of a sandbox.
//!
//! ```text
//! S  helper process   reads the job, unshares, waits for its id map, becomes root of the namespace
//! ├─ trusted job      runs in S: our own code only, the caller's own id mapped beside the image's
//! └─ I  pid 1         builds the root, pivots into it, runs the foreign commands, reports
//! ```
//!
//! Host directories are opened by S *after* it left the host's mount namespace and *before* its
//! ids change: then it may still reach them as the caller does, and overlayfs takes them.

mod chrooted;
mod dirs;
mod init;
mod layers;
mod memory;
mod mounts;
mod recorded;
mod shims;
mod trusted;
mod watched;

use std::fs::File;
use std::io::{self, BufRead, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use amiforge_sys::{Fork, Namespaces, Pid};
use rustix::process::{Signal, WaitOptions};
use rustix::thread::{Gid, Uid};

use self::recorded::{Prepared, Recorder};
use crate::kept::Lent;
use crate::spec::Way;
use crate::wire::{FromChild, Job, JobResult, ToChild};

/// A failure in the child, as the parent will tell it.
#[derive(Debug)]
pub(crate) struct ChildError {
    what: String,
    refused: Option<i32>,
}

impl ChildError {
    /// The machine refused something that the sandbox is made of.
    pub(crate) fn refused(what: impl Into<String>, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        match error.raw_os_error() {
            Some(errno) => Self {
                what: what.into(),
                refused: Some(errno),
            },
            None => Self::job(format!("cannot {}", what.into()), &error),
        }
    }

    /// The job failed: `what`, and why.
    pub(crate) fn job(what: impl Into<String>, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut what = what.into();
        let mut next = Some(error);
        while let Some(error) = next {
            what.push_str(": ");
            what.push_str(&error.to_string());
            next = error.source();
        }
        Self {
            what,
            refused: None,
        }
    }

    /// The job failed for a reason that is one sentence.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            refused: None,
        }
    }
}

/// Short for [`ChildError::refused`].
pub(crate) fn refused(what: impl Into<String>, error: impl Into<io::Error>) -> ChildError {
    ChildError::refused(what, error)
}

/// The way to the parent.
pub(crate) struct Out(File);

impl Out {
    pub(crate) fn send(&mut self, message: &FromChild) {
        let Ok(mut line) = serde_json::to_vec(message) else {
            return;
        };
        line.push(b'\n');
        // A parent that is gone kills us; there is nobody to tell.
        let _gone = self.0.write_all(&line);
    }
}

/// Plays the child of a [`Sandbox`](crate::Sandbox): reads a job from standard input, carries it
/// out, and writes what happens to standard output. A program calls it first thing in `main`,
/// before it starts a thread, when its only argument is [`CHILD_ARG`](crate::CHILD_ARG).
///
/// The exit code says nothing; the messages do.
#[must_use]
pub fn child_main() -> ExitCode {
    let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut out = Out(File::from(stdout));
    match serve(&mut out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(ChildError { what, refused }) => {
            // For a parent that was told already that all is done.
            let _gone = rustix::io::write(rustix::stdio::stderr(), what.as_bytes());
            out.send(&FromChild::Failed { what, refused });
            ExitCode::FAILURE
        }
    }
}

fn serve(out: &mut Out) -> Result<(), ChildError> {
    amiforge_sys::close_on_exec_from_3().map_err(|e| refused("close inherited files", e))?;
    // No terminal: a ctrl-C is the parent's to handle, and no step can type into the terminal.
    rustix::process::setsid().map_err(|e| refused("start a session", e))?;
    let mut stdin = io::stdin().lock();
    let Some(line) = read_line(&mut stdin)? else {
        return Ok(());
    };
    let ToChild {
        parent,
        way,
        mut job,
    } = serde_json::from_slice(&line)
        .map_err(|e| ChildError::job("the job is not understood", &e))?;

    if let Job::Component { outside, .. } = &mut job {
        // As the caller, whose files they are.
        outside.opened = Lent::open(&outside.lent)
            .map_err(|e| ChildError::job("a download cannot be lent", &e))?;
    }
    let dirs = dirs::Dirs::of(&job)?;
    if way == Way::Chroot {
        return chrooted::serve(job, &dirs, parent, out);
    }
    let recorder = watched::prepare(way, &job)?;
    unshare(&job)?;
    let opened = dirs.open(&job)?;
    out.send(&FromChild::Unshared);
    if read_line(&mut stdin)?.is_none() {
        return Ok(()); // the parent gave up
    }
    become_root(way)?;
    // Changing ids cleared the parent-death signal that the parent had set.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| refused("die with the parent", e))?;
    if rustix::process::getppid().map(|p| p.as_raw_nonzero().get()) != Some(parent) {
        return Ok(());
    }
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);

    if job.trusted() {
        match recorder {
            None => trusted::run(job, way)?,
            Some(recorder) => watched::trusted(job, recorder)?,
        }
        out.send(&FromChild::Done(JobResult::Unit));
        return Ok(());
    }
    supervise(job, opened, (way, recorder), out)
}

fn unshare(job: &Job) -> Result<(), ChildError> {
    let network = job.foreign_root().is_none_or(|root| root.network);
    let mut flags = Namespaces::NEWUSER;
    if !job.trusted() {
        // An older kernel may lack cgroup namespaces; nothing depends on them.
        if std::path::Path::new("/proc/self/ns/cgroup").exists() {
            flags |= Namespaces::NEWCGROUP;
        }
        flags |= Namespaces::NEWNS | Namespaces::NEWPID | Namespaces::NEWIPC | Namespaces::NEWUTS;
        if !network {
            flags |= Namespaces::NEWNET;
        }
    }
    amiforge_sys::unshare(flags).map_err(|e| ChildError::refused("create a user namespace", e))
}

fn become_root(way: Way) -> Result<(), ChildError> {
    let failed = |e| refused("become root of the user namespace", e);
    if way == Way::MappedIds {
        // With one id the kernel lets nobody change groups.
        rustix::thread::set_thread_groups(&[]).map_err(failed)?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(failed)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(failed)
}

/// Starts the first process of the new pid namespace and waits for it.
fn supervise(
    job: Job,
    opened: dirs::Opened,
    (way, recorder): (Way, Option<Prepared>),
    out: &mut Out,
) -> Result<(), ChildError> {
    let pair = watched::pair(recorder.is_some())?;
    let (alive, our_end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| ChildError::refused("make a pipe", e))?;
    match amiforge_sys::fork().map_err(|e| ChildError::refused("start the first process", e))? {
        Fork::Child => {
            drop(our_end);
            let watched = pair.map_or(Ok(()), |(_, theirs)| watched::begin(theirs));
            let code = match watched.and_then(|()| init::run(job, opened, way, &alive, out)) {
                Ok(result) => {
                    out.send(&FromChild::Done(result));
                    0
                }
                Err(ChildError { what, refused }) => {
                    out.send(&FromChild::Failed { what, refused });
                    0
                }
            };
            // As pid 1: the kernel now kills whatever the job left running.
            amiforge_sys::exit_now(code)
        }
        Fork::Parent(pid) => {
            drop(opened);
            let mut recorder = watched::listen(pair, recorder)?;
            let given_up = attend(pid, recorder.as_mut())?;
            let status = loop {
                match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
                    Ok(Some((_, status))) => break status,
                    Ok(None) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return Err(ChildError::refused("wait for the first process", e)),
                }
            };
            drop(our_end);
            if let Some(recorder) = recorder {
                recorder.finish()?;
            }
            match status.terminating_signal() {
                // Its result was there, or nobody wants one.
                Some(_) if given_up => Ok(()),
                // reboot(2) in a pid namespace ends its first process with SIGHUP or SIGINT.
                Some(signal @ (1 | 2)) => Err(ChildError::plain(format!(
                    "a step asked the kernel to reboot or halt, which ended the sandbox (signal {signal})"
                ))),
                Some(signal) => Err(ChildError::plain(format!(
                    "the first process of the sandbox was ended by signal {signal}"
                ))),
                None if status.exit_status() == Some(0) => Ok(()),
                None => Err(ChildError::plain("the first process of the sandbox failed")),
            }
        }
    }
}

/// Returns when `pid` has ended, answering its calls until then; ends it when the parent closes our standard input, and says so.
/// Ending the first process of a pid namespace takes every process of the job along, and waiting for it waits for them all.
fn attend(pid: Pid, mut recorder: Option<&mut Recorder>) -> Result<bool, ChildError> {
    use rustix::event::{PollFd, PollFlags};
    let init = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
        .map_err(|e| refused("watch the first process", e))?;
    let stdin = io::stdin();
    let mut asks = true;
    loop {
        let mut fds = vec![
            PollFd::new(&init, PollFlags::IN),
            PollFd::new(&stdin, PollFlags::IN),
        ];
        // Nobody is watched any more when it hangs up.
        if let Some(recorder) = recorder.as_deref().filter(|_| asks) {
            fds.push(PollFd::new(recorder, PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(refused("watch the first process", e)),
            Ok(_) if !fds[0].revents().is_empty() => return Ok(false),
            Ok(_) if fds[1].revents().is_empty() => {
                let asked = fds.get(2).map(PollFd::revents);
                asks = asked.is_some_and(|events| events.contains(PollFlags::IN));
                if let Some(recorder) = recorder.as_deref_mut().filter(|_| asks) {
                    let served = recorder.serve();
                    served.map_err(|e| refused("answer for the owners of files", e))?;
                }
            }
            // Nothing more is ever sent, so anything there is the end.
            Ok(_) => {
                let _gone = rustix::process::pidfd_send_signal(&init, Signal::KILL);
                return Ok(true);
            }
        }
    }
}

fn read_line(from: &mut impl BufRead) -> Result<Option<Vec<u8>>, ChildError> {
    let mut line = Vec::new();
    from.take(crate::protocol::MAX_MESSAGE as u64)
        .read_until(b'\n', &mut line)
        .map_err(|e| ChildError::job("cannot read from the parent", &e))?;
    Ok(line.pop().is_some().then_some(line))
}
