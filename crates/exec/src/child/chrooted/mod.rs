//! A job without namespaces and mounts: in a root directory of its own, as root of the container that we are in.
//!
//! ```text
//! S  helper process   puts the directories over one another, adopts what the job leaves, takes off what it changed
//! └─ I                changes its root directory, gives up what the steps are not to have, runs them, reports
//! ```
//!
//! The root is an ordinary directory, `root` in the job's work directory: a copy of the lower directories and the upper one
//! (`amiforge_store::put_over`). The upper directory of afterwards has the form that overlayfs gives it, so that nobody
//! else needs to know.

mod play;
mod proc;
mod root;

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use amiforge_store::{Seen, put_over, take_off};
use amiforge_sys::{Confinement, Fork, Pid};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, WaitOptions, WaitStatus};
use rustix::thread::CapabilitySet;

use self::play::Player;
use super::dirs::Dirs;
use super::mounts::open_at;
use super::{ChildError, Out, init, refused, trusted, watched};
use crate::event::ChildEvent;
use crate::executor::{Held, open_terminal, processes};
use crate::spec::{RootSpec, Way};
use crate::wire::{FromChild, Job, JobResult};

pub(super) use root::stack;

/// The job's root, in its work directory.
pub(super) const ROOT: &str = "root";

/// What the steps keep, of what the container has. Root without the others cannot leave its root directory, make devices, or
/// look into a process that has more. Into one of the container that has no more the kernel would let it look: the calls
/// for that are filtered ([`amiforge_sys::confine`]).
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID);

/// Carries out a job of any kind for the process `parent`.
pub(super) fn serve(job: Job, dirs: &Dirs, parent: i32, out: &mut Out) -> Result<(), ChildError> {
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    if !job.trusted() {
        // Nobody but us ends what the job started: the end of our input tells when the parent is gone.
        rustix::process::set_parent_process_death_signal(None)
            .map_err(|e| refused("outlive the parent", e))?;
    }
    if rustix::process::getppid().map(|p| p.as_raw_nonzero().get()) != Some(parent) {
        return Ok(());
    }
    if job.trusted() {
        trusted::run(job, Way::Chroot)?;
        out.send(&FromChild::Done(JobResult::Unit));
        return Ok(());
    }
    // Checks the paths of the job.
    dirs.open(&job)?;
    run(job, out)
}

/// What is open of a job's directories.
struct Places {
    work: OwnedFd,
    upper: OwnedFd,
    root: OwnedFd,
}

fn run(job: Job, out: &mut Out) -> Result<(), ChildError> {
    let spec = job.foreign_root().cloned();
    let spec = spec.ok_or_else(|| ChildError::plain("this job is a trusted one"))?;
    let work = open_dir(&spec.work)?;
    let places = Places {
        root: open_at(&work, ROOT)?,
        upper: open_dir(&spec.upper)?,
        work,
    };
    play::try_look()?;
    let failed = |e| ChildError::job("cannot prepare the root directory", &e);
    let mut seen = Seen::of(&places.root, root::CLOSED).map_err(failed)?;
    let put = put_over(&places.upper, &places.root, root::CLOSED, false).map_err(failed)?;
    root::furnish(&places)?;
    seen.begin(&places.root, &put).map_err(failed)?;

    let what = "start the first process";
    processes::adopt().map_err(|e| refused(what, e))?;
    let (alive, our_end) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| refused(what, e))?;
    let told =
        rustix::fs::memfd_create("result", MemfdFlags::CLOEXEC).map_err(|e| refused(what, e))?;
    let mut told = File::from(told);
    let (ours, theirs) = watched::socket_pair()?;
    match amiforge_sys::fork().map_err(|e| refused(what, e))? {
        Fork::Child => {
            drop((our_end, ours));
            let ended = match inside(job, places, (&alive, theirs), out) {
                Ok(result) => FromChild::Done(result),
                Err(ChildError { what, refused }) => FromChild::Failed { what, refused },
            };
            let ended = serde_json::to_vec(&ended).unwrap_or_default();
            // Whoever reads it notes what is missing.
            let _lost = told.write_all(&ended);
            amiforge_sys::exit_now(0)
        }
        Fork::Parent(pid) => {
            // Else we would wait for ourselves.
            drop(theirs);
            let mut player = Player::new(&places.root, &ours)
                .map_err(|e| refused("have calls of steps answered", e));
            let attended = match &mut player {
                Ok(player) => play::attend(pid, player, &mut seen),
                Err(_) => Ok(false),
            };
            let status = end(pid);
            let player = player?;
            drop(our_end);
            if attended? {
                return Ok(());
            }
            seen.note();
            let mut ended = message(&mut told, status)?;
            if let Some(what) = player.missed() {
                let refused = None;
                ended = FromChild::Failed { what, refused };
            }
            if let Some(text) = player.notes() {
                out.send(&FromChild::Event(ChildEvent::Note { text }));
            }
            let unknown = finish(&spec, places, &seen)?;
            if unknown > 0 {
                let text = format!(
                    "{unknown} files with several names were changed under one of them, and all names have the change"
                );
                out.send(&FromChild::Event(ChildEvent::Note { text }));
            }
            if seen.is_lost() {
                let text = "the kernel had no room to tell of all files which names were used (fs.inotify.max_user_watches, max_queued_events): files that were only opened for writing may be missing from the layer".to_owned();
                out.send(&FromChild::Event(ChildEvent::Note { text }));
            }
            out.send(&ended);
            Ok(())
        }
    }
}

/// In the new process: everything up to the end of the job.
fn inside(
    job: Job,
    places: Places,
    (alive, answers): (&OwnedFd, OwnedFd),
    out: &mut Out,
) -> Result<JobResult, ChildError> {
    init::die_with_parent(alive)?;
    // Kernels without keyrings have none to leave.
    let _no_keyrings = amiforge_sys::join_new_session_keyring();
    let spec = job.foreign_root();
    let spec = spec.ok_or_else(|| ChildError::plain("this job is a trusted one"))?;
    let network = spec.network;
    let limits = spec.limits;
    let terminal = match &job {
        Job::Shell { shell, .. } if shell.terminal.is_some() => {
            Some(open_terminal().map_err(|e| refused("open a terminal", e))?)
        }
        _ => None,
    };
    let mut protected = vec![rustix::process::getpid()];
    // S, and who started it.
    protected.extend(rustix::process::getppid());
    protected.extend(grandparent());
    processes::adopt().map_err(|e| refused("adopt processes", e))?;
    // While there is a `/proc` to see that we have one thread.
    give_up(&Confinement { network, protected })?;
    play::begin(&answers)?;
    drop(answers);
    root::enter(places)?;
    let held = Held::of(&limits);
    init::carry_out(job, &held, terminal, out)
}

/// Who started the process that started us.
fn grandparent() -> Option<Pid> {
    let parent = rustix::process::getppid()?.as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

/// Takes from all that is started from here on what it is not to have. We keep what we have: that alone keeps root without it
/// from looking into us (ptrace(2)).
fn give_up(confinement: &Confinement) -> Result<(), ChildError> {
    let failed = |e| refused("give up privileges", e);
    for one in (0..u64::BITS).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
        if KEPT.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // One that this kernel does not know.
            Err(Errno::INVAL) | Ok(()) => {}
            Err(e) => return Err(failed(e)),
        }
    }
    // What would be handed down without being in the bounding set.
    let own = rustix::thread::capabilities(None).map_err(failed)?;
    let own = rustix::thread::CapabilitySets {
        inheritable: CapabilitySet::empty(),
        ..own
    };
    rustix::thread::set_capabilities(None, own).map_err(failed)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed)?;
    amiforge_sys::confine(confinement).map_err(|e| refused("filter the calls of steps", e))
}

/// Ends all that descends from us; how the first of them ended.
fn end(first: Pid) -> Option<WaitStatus> {
    let mut status = None;
    loop {
        processes::end_all();
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, ended))) if pid == first => status = Some(ended),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                // Somebody is still on the way out, or `/proc` could not be read: we are told when nobody is left.
                Ok(None) => break,
                Err(Errno::CHILD) => return status,
                Err(_) => break,
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// What the first process said at its end.
fn message(told: &mut File, status: Option<WaitStatus>) -> Result<FromChild, ChildError> {
    let mut text = Vec::new();
    told.rewind()
        .and_then(|()| told.read_to_end(&mut text))
        .map_err(|e| ChildError::job("the result cannot be read", &e))?;
    if let Ok(message) = serde_json::from_slice(&text) {
        return Ok(message);
    }
    let signal = status.and_then(WaitStatus::terminating_signal);
    Err(ChildError::plain(match signal {
        Some(signal) => format!("the first process of the sandbox was ended by signal {signal}"),
        None => "the first process of the sandbox failed".to_owned(),
    }))
}

/// Makes the upper directory what overlayfs would have made of it.
fn finish(spec: &RootSpec, places: Places, seen: &Seen) -> Result<u64, ChildError> {
    const NEXT: &str = "next";
    let failed = |e: Errno| ChildError::job("cannot keep what the job changed", &e);
    let next = spec.work.join(NEXT);
    rustix::fs::mkdirat(&places.work, NEXT, Mode::RWXU).map_err(failed)?;
    let upper = open_at(&places.work, NEXT)?;
    let unknown = take_off(&places.root, seen, &upper)
        .map_err(|e| ChildError::job("cannot keep what the job changed", &e))?;
    drop(upper);
    // At once: there is always an upper directory, and it is whole.
    rustix::fs::renameat_with(CWD, &next, CWD, &spec.upper, RenameFlags::EXCHANGE)
        .map_err(failed)?;
    amiforge_store::remove_tree(&next)
        .map_err(|e| ChildError::job("cannot keep what the job changed", &e))?;
    root::keep_tmp(&places)?;
    Ok(unknown)
}

fn open_dir(path: &Path) -> Result<OwnedFd, ChildError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| ChildError::job(format!("cannot open {}", path.display()), &e))
}
