//! The first process of the sandbox's pid namespace.

use std::io;
use std::os::fd::OwnedFd;

use amiforge_sys::Fork;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal, WaitOptions};

use super::dirs::Opened;
use super::{ChildError, Out, mounts, refused};
use crate::executor::{self, Held, Machine, processes};
use crate::handed;
use crate::spec::{HOST_NAME, Way};
use crate::wire::{FromChild, Job, JobResult};

/// Builds the root and runs the job in it. `alive` is the reading end of a pipe that the parent
/// process holds open.
pub(super) fn run(
    job: Job,
    opened: Opened,
    way: Way,
    alive: &OwnedFd,
    out: &mut Out,
) -> Result<JobResult, ChildError> {
    die_with_parent(alive)?;
    // Kernels without keyrings have none to leave.
    let _no_keyrings = amiforge_sys::join_new_session_keyring();

    let Some(root) = job.foreign_root() else {
        return Err(ChildError::plain("this job is a trusted one"));
    };
    mounts::enter(root, opened, way)?;
    rustix::system::sethostname(HOST_NAME.as_bytes())
        .map_err(|e| refused("set the host name", e))?;
    if !root.network {
        amiforge_sys::loopback_up().map_err(|e| refused("bring up the loopback interface", e))?;
    }
    // The steps are root in the same user namespace. Without this they could reach our way to the
    // parent through /proc/1/fd, and the helper program through /proc/1/exe. One that is watched has to
    // be readable for who watches it; the steps lack a capability that it has, which hides it as well.
    if way == Way::MappedIds {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|e| refused("hide from the steps", e))?;
    }

    let held = Held::of(&root.limits);
    carry_out(job, &held, None, out)
}

/// Runs a job of foreign code where the root is in its place. A shell gets the `terminal`, or one of its own.
pub(super) fn carry_out(
    job: Job,
    held: &Held,
    terminal: Option<OwnedFd>,
    out: &mut Out,
) -> Result<JobResult, ChildError> {
    if let Job::Shell { shell, .. } = &job {
        let ended = executor::run_shell(shell, held, terminal, &mut |fds| {
            // Standard input is a socket for this job.
            handed::send(io::stdin(), fds)?;
            out.send(&FromChild::Opened);
            Ok(())
        });
        return ended
            .map(JobResult::Shell)
            .map_err(|e| ChildError::job("cannot run a shell", &e));
    }
    let mut sink = |event| out.send(&FromChild::Event(event));
    Ok(match job {
        Job::Script { script, .. } => JobResult::Script(
            executor::run_script(&script, held, &mut sink)
                .map_err(|e| ChildError::job("cannot run the script", &e))?,
        ),
        Job::Component {
            run,
            outside,
            journal,
            pause_after,
            ..
        } => {
            skip_pids(outside.skipped_pids)?;
            let own_pids = !processes::adopts();
            if own_pids {
                skip_pids_to(journal.last_pid)?;
            }
            let machine = Machine {
                pause_after,
                ..Machine::live(&outside, held)
            };
            let mut ended = executor::execute(&run, machine, journal, &mut sink);
            if let Some(journal) = ended.restart.as_mut().filter(|_| ended.paused && own_pids) {
                journal.last_pid = last_pid();
            }
            JobResult::Run(Box::new(ended))
        }
        _ => return Err(ChildError::plain("this job is a trusted one")),
    })
}

/// Uses up process ids: nobody gets them again soon.
fn skip_pids(count: u32) -> Result<(), ChildError> {
    (0..count).try_for_each(|_| use_pid().map(drop))
}

/// The same up to one that was given in a namespace like ours. Of very many, the last are given again.
fn skip_pids_to(last: u32) -> Result<(), ChildError> {
    const MOST: u32 = 20_000;
    let last = last.min(MOST);
    while last > 0 && use_pid()? < last {}
    Ok(())
}

/// The id that was given last in our namespace (proc_sys_kernel(5), `ns_last_pid`); 0 where the kernel does not say.
fn last_pid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/ns_last_pid");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// Uses up one, which is returned.
fn use_pid() -> Result<u32, ChildError> {
    let failed = |e| refused("use up process ids", e);
    let pid = match amiforge_sys::fork().map_err(failed)? {
        Fork::Child => amiforge_sys::exit_now(0),
        Fork::Parent(pid) => pid,
    };
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(_) => return Ok(pid.as_raw_nonzero().get().unsigned_abs()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed(e.into())),
        }
    }
}

/// Has the calling process die with the one that holds the other end of `alive`.
pub(super) fn die_with_parent(alive: &OwnedFd) -> Result<(), ChildError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| refused("die with the parent", e))?;
    let mut poll = [PollFd::new(alive, PollFlags::IN)];
    let died = rustix::event::poll(
        &mut poll,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    );
    if !matches!(died, Ok(0)) {
        return Err(ChildError::plain("the parent is gone"));
    }
    Ok(())
}
