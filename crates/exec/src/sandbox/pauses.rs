//! Stops between the steps of a run, to go on from there in another root.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use amiforge_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::Sandbox;
use crate::error::SandboxError;
use crate::executor::{Journal, now};
use crate::spec::RootSpec;
use crate::wire::{Job, Shift};

/// Where a run stopped between two steps. What they did is in the upper directory of its root, and in `/tmp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    at: Timestamp,
    journal: Journal,
}

/// When a run stops between two steps.
pub struct Pauses<'a> {
    /// Where an earlier run stopped, if this one goes on from there: the root is what [`Sandbox::restore`] made of it.
    pub from: Option<Pause>,
    /// How long steps run at least before it stops; `None`: it does not.
    pub after: Option<Duration>,
    /// Is told where it stopped, and says the same of the next time. The root is at rest meanwhile.
    pub keep: &'a mut dyn FnMut(&Pause) -> Option<Duration>,
}

impl Pause {
    pub(super) fn new(journal: Journal) -> Self {
        Self { at: now(), journal }
    }

    pub(super) fn into_journal(self) -> Journal {
        self.journal
    }

    /// Names of the steps of a phase of the first document that have ended, in no order.
    #[must_use]
    pub fn steps(&self, phase: &str) -> Vec<&str> {
        self.journal.steps_done(phase)
    }

    /// The same as if the run had stopped only now, and what has to become of the times of its files for that: whatever is
    /// younger than the start of a run counts as made by it.
    fn moved(&self) -> (Self, Option<Shift>) {
        let mut moved = Self {
            at: now(),
            journal: self.journal.clone(),
        };
        // In whole steps of what times are compared by, so that what was younger than the start stays so.
        let nanos = (nanos(moved.at) - nanos(self.at)).div_euclid(EVEN) * EVEN;
        let shift = moved.journal.run_started().map(|started| {
            let shift = Shift {
                since: made_since(*started),
                nanos,
            };
            *started = shift.of(*started);
            shift
        });
        (moved, shift)
    }
}

impl Shift {
    /// What becomes of a time.
    pub(crate) fn of(&self, time: Timestamp) -> Timestamp {
        if time < self.since {
            return time;
        }
        let moved = nanos(time) + self.nanos;
        Timestamp {
            secs: i64::try_from(moved.div_euclid(SECOND)).unwrap_or(time.secs),
            nanos: u32::try_from(moved.rem_euclid(SECOND)).unwrap_or(0),
        }
    }
}

const SECOND: i128 = 1_000_000_000;
const EVEN: i128 = 2 * SECOND;

/// From which time on a file counts as made by a run that started then: programs that copy or unpack cut times to whole
/// seconds (`cp -a` of busybox) or to even ones (zip).
pub(crate) fn made_since(start: Timestamp) -> Timestamp {
    Timestamp::from_secs(start.secs - start.secs.rem_euclid(2))
}

fn nanos(time: Timestamp) -> i128 {
    i128::from(time.secs) * SECOND + i128::from(time.nanos)
}

impl Sandbox {
    /// Makes a new root what another was when its run stopped, of the layer files `upper` and `tmp` that were made of its
    /// upper directory and of `tmp` in its work directory then. Where to go on in it.
    ///
    /// # Errors
    /// When a layer is damaged or the directories cannot be written.
    pub fn restore(
        &self,
        root: &RootSpec,
        (upper, tmp): (&Path, &Path),
        pause: &Pause,
        cancel: &AtomicBool,
    ) -> Result<Pause, SandboxError> {
        let (moved, shift) = pause.moved();
        self.prepare(root, false, &[], cancel)?;
        let places = [root.upper.clone(), root.work.join("tmp")];
        // Both at once: the work directory is not the caller's, who enters what is above all of them.
        self.remove_trees(&places)?;
        for (layer, place) in [upper, tmp].into_iter().zip(&places) {
            let new = place.with_file_name("restored");
            self.materialise_shifted(layer, (&new, place), shift, cancel)?;
        }
        Ok(moved)
    }

    pub(super) fn materialise_shifted(
        &self,
        layer: &Path,
        (dir, place): (&Path, &Path),
        shift: Option<Shift>,
        cancel: &AtomicBool,
    ) -> Result<(), SandboxError> {
        let job = Job::Materialise {
            layer: layer.to_owned(),
            dir: dir.to_owned(),
            place: place.to_owned(),
            shift,
        };
        self.unit(job, cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_made_by_a_run_still_does_when_it_has_moved() {
        let mut journal = Journal::default();
        let now = now();
        let ago = |secs| Timestamp {
            secs: now.secs - secs,
            ..now
        };
        let started = ago(701);
        journal.start("", started);
        // The last one by a clock that was put back since.
        for stopped in [0, 1, 2, 3, 600, 601, -5] {
            let at = ago(stopped);
            let journal = journal.clone();
            let (mut moved, shift) = Pause { at, journal }.moved();
            let (start, shift) = (*moved.journal.run_started().unwrap(), shift.unwrap());
            assert!(start <= moved.at, "{stopped}");
            let first = made_since(started);
            assert_eq!(shift.of(first), made_since(start), "{stopped}");
            let before = Timestamp::from_secs(first.secs - 1);
            assert_eq!(shift.of(before), before);
        }
    }

    #[test]
    fn what_a_run_made_moves_with_its_start() {
        let time = |secs, nanos| Timestamp { secs, nanos };
        let shift = Shift {
            since: time(100, 500_000_000),
            nanos: 7 * SECOND + 600_000_000,
        };
        for (before, after) in [
            (time(100, 499_999_999), time(100, 499_999_999)),
            (time(100, 500_000_000), time(108, 100_000_000)),
            (time(101, 0), time(108, 600_000_000)),
            (time(-5, 0), time(-5, 0)),
        ] {
            assert_eq!(shift.of(before), after);
        }
    }
}
