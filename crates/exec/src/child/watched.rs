//! A job whose owners are recorded: who works is watched, who started it answers.

use std::os::fd::{AsFd as _, OwnedFd};

use amiforge_sys::{Fork, Listener, Watched};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Signal, WaitOptions};
use rustix::thread::CapabilitySet;

use super::recorded::{Dirs, Prepared, Recorder};
use super::{ChildError, attend, refused, trusted as own};
use crate::handed;
use crate::spec::Way;
use crate::wire::Job;

/// The two ends of the way that the listener takes.
pub(super) type Pair = Option<(OwnedFd, OwnedFd)>;

/// Reads the records that a job needs. `None`: it needs none.
pub(super) fn prepare(way: Way, job: &Job) -> Result<Option<Prepared>, ChildError> {
    let dirs = match (way, job) {
        (Way::MappedIds | Way::Chroot | Way::MicroVm, _) | (_, Job::RemoveTrees { .. }) => {
            return Ok(None);
        }
        (
            Way::SingleId,
            Job::Prepare { root, .. }
            | Job::Script { root, .. }
            | Job::Component { root, .. }
            | Job::Shell { root, .. },
        ) => Dirs {
            read: root.lowers.clone(),
            write: root.upper.clone(),
        },
        (Way::SingleId, Job::Materialise { place, .. }) => Dirs {
            read: Vec::new(),
            write: place.clone(),
        },
        (Way::SingleId, Job::Harvest { upper, .. }) => Dirs {
            read: Vec::new(),
            write: upper.clone(),
        },
    };
    Prepared::new(dirs).map(Some)
}

/// To be called before the fork.
pub(super) fn pair(wanted: bool) -> Result<Pair, ChildError> {
    wanted.then(socket_pair).transpose()
}

/// A socket that takes descriptors.
pub(super) fn socket_pair() -> Result<(OwnedFd, OwnedFd), ChildError> {
    let made = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    made.map_err(|e| refused("make a socket", e))
}

/// In the process that works: from here on its calls are answered by the other one.
pub(super) fn begin(to: OwnedFd) -> Result<(), ChildError> {
    let failed = |e| refused("have the owners of files recorded", e);
    // Who answers reads paths in our memory.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed)?;
    // Steps never get this one. A process may not look into one that has more capabilities than itself
    // (ptrace(2)), so they cannot look into us; into one another they can.
    rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_PTRACE)
        .map_err(failed)?;
    let listener: OwnedFd = amiforge_sys::watch(Watched::Owners)
        .map_err(|e| refused("have the owners of files recorded", e))?
        .into();
    handed::send(&to, &[listener.as_fd()])
        .map_err(|e| refused("have the owners of files recorded", e))
}

/// In the process that answers.
pub(super) fn listen(
    pair: Pair,
    prepared: Option<Prepared>,
) -> Result<Option<Recorder>, ChildError> {
    let (Some((from, theirs)), Some(prepared)) = (pair, prepared) else {
        return Ok(None);
    };
    // Else we would wait for ourselves.
    drop(theirs);
    let failed = |e| refused("have the owners of files recorded", e);
    let handed = handed::receive(&from).map_err(failed)?;
    let listener = handed.into_iter().next();
    // When it ended before, it has said why.
    Ok(listener.map(|fd| prepared.listen(Listener::from(fd))))
}

/// Runs a trusted job in a process of its own.
pub(super) fn trusted(job: Job, prepared: Prepared) -> Result<(), ChildError> {
    let (told, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| refused("make a pipe", e))?;
    let pair = pair(true)?;
    match amiforge_sys::fork().map_err(|e| refused("start a process", e))? {
        Fork::Child => {
            let dies = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let result = dies
                .map_err(|e| refused("die with the parent", e))
                .and_then(|()| pair.map_or(Ok(()), |(_, theirs)| begin(theirs)))
                .and_then(|()| own::run(job, Way::SingleId));
            let code = match result {
                Ok(()) => 0,
                Err(ChildError { what, refused }) => {
                    let text = serde_json::to_vec(&(what, refused)).unwrap_or_default();
                    // Who started us notes the end in any case.
                    let _gone = rustix::io::write(&tell, &text);
                    1
                }
            };
            amiforge_sys::exit_now(code)
        }
        Fork::Parent(pid) => {
            drop(tell);
            let mut recorder = listen(pair, Some(prepared))?;
            attend(pid, recorder.as_mut())?;
            let status = rustix::process::waitpid(Some(pid), WaitOptions::empty())
                .map_err(|e| refused("wait for a process", e))?;
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut std::fs::File::from(told), &mut text)
                .map_err(|e| refused("wait for a process", e))?;
            if let Ok((what, refused)) = serde_json::from_slice(&text) {
                return Err(ChildError { what, refused });
            }
            if status.and_then(|(_, status)| status.exit_status()) != Some(0) {
                return Err(ChildError::plain("a process of the sandbox was killed"));
            }
            recorder.map_or(Ok(()), |recorder| recorder.finish())
        }
    }
}
