//! What is known of a running machine, shared by the threads that watch it.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::console::{ConsoleEvent, ConsoleScanner, GuestFailure, Milestone};
use crate::link::{LinkError, MAX_LINE_BYTES};
use crate::qmp::Shutdown;
use crate::report::MilestoneRecord;

/// Bytes of console kept in the log; a guest that prints for ever fills no disk.
const CONSOLE_MAX: u64 = 32 << 20;
/// Messages and their bytes waiting for the session; then the guest has to wait.
const QUEUE_MAX: (usize, usize) = (4096, 32 << 20);

/// Seconds with three decimals: enough, and short in a report.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) milestones: Vec<MilestoneRecord>,
    pub(crate) scanner: ConsoleScanner,
    pub(crate) failure: Option<(GuestFailure, Duration)>,
    pub(crate) messages: VecDeque<Value>,
    queued_bytes: usize,
    pub(crate) shutdown: Option<Shutdown>,
    pub(crate) exited: Option<ExitStatus>,
    pub(crate) timed_out: bool,
    pub(crate) cancelled: bool,
    /// The session is over: nothing waits for messages any more.
    pub(crate) closing: bool,
    /// The machine shall be killed.
    pub(crate) stop: bool,
    /// When the watchdog ends it.
    pub(crate) deadline: Option<Instant>,
    /// Channels whose other end has not closed.
    pub(crate) open_channels: u32,
}

impl State {
    pub(crate) fn has(&self, milestone: Milestone) -> bool {
        self.milestones.iter().any(|m| m.name == milestone)
    }

    /// Off, and everything it said has been read.
    pub(crate) fn gone(&self) -> bool {
        self.exited.is_some() && self.open_channels == 0
    }

    fn lost(&self) -> Option<LinkError> {
        if self.cancelled {
            Some(LinkError::Cancelled)
        } else if self.timed_out {
            Some(LinkError::BootTimeout)
        } else if let Some((failure, _)) = &self.failure {
            Some(LinkError::GuestFailed(failure.clone()))
        } else if self.gone() {
            Some(LinkError::GuestGone)
        } else {
            None
        }
    }
}

/// The state and its condition variable.
pub(crate) struct Shared {
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(channels: u32) -> Self {
        let state = State {
            open_channels: channels,
            ..State::default()
        };
        Self {
            started: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The state. A thread that panicked while it held the lock leaves it consistent: every
    /// change is one assignment.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes everybody.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until `pick` finds something, the machine is lost (an error), or `until` (`None`).
    pub(crate) fn wait<T>(
        &self,
        until: Instant,
        mut pick: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, LinkError> {
        let mut state = self.lock();
        loop {
            if let Some(found) = pick(&mut state) {
                drop(state);
                self.changed.notify_all();
                return Ok(Some(found));
            }
            if let Some(lost) = state.lost() {
                return Err(lost);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// An error when the machine is lost.
    pub(crate) fn check(&self) -> Result<(), LinkError> {
        self.lock().lost().map_or(Ok(()), Err)
    }

    /// Records a milestone, and those it implies.
    pub(crate) fn reach(&self, milestone: Milestone) {
        let seconds = seconds(self.elapsed());
        self.update(|state| {
            if state.has(milestone) {
                return;
            }
            for implied in milestone.implies() {
                if !state.has(*implied) {
                    state.milestones.push(MilestoneRecord {
                        name: *implied,
                        seconds,
                        inferred: true,
                    });
                }
            }
            state.milestones.push(MilestoneRecord {
                name: milestone,
                seconds,
                inferred: false,
            });
            state.scanner.advance(milestone);
        });
    }

    /// Reads the console until it closes: log, milestones, failures.
    pub(crate) fn read_console(
        &self,
        stream: &mut UnixStream,
        mut log: impl Write,
    ) -> std::io::Result<()> {
        let mut buf = vec![0; 16 << 10];
        let mut written = 0;
        let mut outcome = Ok(());
        while let Some(n) = read(stream, &mut buf) {
            let bytes = &buf[..n];
            if written < CONSOLE_MAX && outcome.is_ok() {
                outcome = log.write_all(bytes);
                written += n as u64;
                if written >= CONSOLE_MAX && outcome.is_ok() {
                    outcome = log.write_all(b"\n[amiforge: the rest of the console is not kept]\n");
                }
            }
            let events = self.update(|state| state.scanner.feed(bytes));
            for event in events {
                match event {
                    ConsoleEvent::Milestone(milestone) => self.reach(milestone),
                    ConsoleEvent::Failure(failure) => {
                        let when = self.elapsed();
                        self.update(|state| state.failure.get_or_insert((failure, when)).clone());
                    }
                }
            }
        }
        self.update(|state| state.open_channels -= 1);
        outcome.and_then(|()| log.flush())
    }

    /// Reads the agent's lines until the port closes for good. What is not a JSON object in a line of
    /// bounded length is thrown away: a getty, a kernel message or a hostile guest may write there.
    pub(crate) fn read_agent(&self, stream: &mut UnixStream) {
        let mut buf = vec![0; 64 << 10];
        let mut line = Vec::new();
        let mut skipping = false;
        while let Some(n) = read(stream, &mut buf) {
            for part in buf[..n].split_inclusive(|b| *b == b'\n') {
                let ended = part.ends_with(b"\n");
                if !skipping && line.len() + part.len() <= MAX_LINE_BYTES {
                    line.extend_from_slice(part);
                } else {
                    skipping = true;
                }
                if ended {
                    if !skipping {
                        self.queue(&line);
                    }
                    skipping = false;
                    line.clear();
                }
            }
        }
        self.update(|state| state.open_channels -= 1);
    }

    fn queue(&self, line: &[u8]) {
        let Ok(message @ Value::Object(_)) = serde_json::from_slice::<Value>(line) else {
            return;
        };
        self.reach(Milestone::Agent);
        let mut state = self.lock();
        while !state.closing
            && (state.messages.len() >= QUEUE_MAX.0 || state.queued_bytes >= QUEUE_MAX.1)
        {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            if state.messages.is_empty() {
                state.queued_bytes = 0;
            }
        }
        if state.messages.is_empty() {
            state.queued_bytes = 0;
        }
        if !state.closing {
            state.queued_bytes += line.len();
            state.messages.push_back(message);
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn read(stream: &mut UnixStream, buf: &mut [u8]) -> Option<usize> {
    use std::io::Read;
    loop {
        match stream.read(buf) {
            Ok(0) => return None,
            Ok(n) => return Some(n),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests;
