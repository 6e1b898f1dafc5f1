//! The duty of the first process of a pid namespace, and of one that adopts: waiting for whatever lost its parent.
//!
//! What has ended and nobody waits for keeps counting against the limit of processes, so a later step would have less
//! than it was promised. In any other process nothing here differs from what the standard library does.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, PoisonError};

use rustix::process::WaitOptions;

use super::processes;

/// Children that somebody here waits for. Whoever takes a child's end away holds the lock.
static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn is_first() -> bool {
    std::process::id() == 1 || processes::adopts()
}

/// Starts a command, which [`wait`] has to be called for.
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    reap();
    if processes::adopts() {
        // Who answers its calls reads which program it is to become. We stay hidden.
        amiforge_sys::shown(command);
    }
    // Also for the program that cannot be started: the standard library waits for that child itself.
    let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn()?;
    ours.insert(child.id());
    Ok(child)
}

/// Waits for a command, and meanwhile for what lost its parent.
pub(super) fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    while is_first() && take(true, child.id()) {}
    let status = child.wait();
    OURS.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&child.id());
    status
}

/// Waits for all that has ended by now.
pub(super) fn reap() {
    while is_first() && take(false, 0) {}
}

/// Takes one end away, if it is nobody's here. False when there is no more to do before `child` is waited for.
fn take(wait: bool, child: u32) -> bool {
    match amiforge_sys::ended_child(wait) {
        Ok(Some(pid)) => {
            let number = u32::try_from(pid.as_raw_nonzero().get()).unwrap_or(child);
            let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
            // Of two that wait, one may see the other's child first. It leaves the orphans to the other.
            if number == child || ours.contains(&number) {
                return false;
            }
            let _status = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            true
        }
        Ok(None) => false,
        Err(error) => error.kind() == io::ErrorKind::Interrupted,
    }
}
