//! The line to the agent inside the guest: JSON values, one per line.

use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::console::{GuestFailure, Milestone};
use crate::error::BoxError;
use crate::machine::Shared;

/// Longest line read from or sent to the guest, in bytes. A longer one from the guest is thrown away.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// What a session made of the guest.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOutcome {
    /// Whether its tests passed.
    pub passed: bool,
    /// Their results, for the report.
    pub tests: Value,
}

/// The link cannot do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The call's own time limit passed.
    #[error("the guest did not {0} in time")]
    Timeout(&'static str),
    /// The time limit of the whole boot passed.
    #[error("the time for the boot is over")]
    BootTimeout,
    /// The console shows that the guest is lost.
    #[error("the guest failed: {0}")]
    GuestFailed(GuestFailure),
    /// The machine is off.
    #[error("the guest is gone")]
    GuestGone,
    /// The boot was interrupted.
    #[error("the boot was interrupted")]
    Cancelled,
    /// A message longer than [`MAX_LINE_BYTES`].
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
}

/// Why a session gave up.
#[derive(Debug)]
pub enum SessionError {
    /// The link broke; the boot finds the cause and reports that.
    Link(LinkError),
    /// Something of the session itself.
    Other(BoxError),
}

impl From<LinkError> for SessionError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<BoxError> for SessionError {
    fn from(error: BoxError) -> Self {
        Self::Other(error)
    }
}

impl From<&str> for SessionError {
    fn from(error: &str) -> Self {
        Self::Other(error.into())
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// A running guest, as a session sees it. Every call ends at its own time limit, at that of the
/// boot, or when the guest is gone, whichever comes first.
#[derive(Debug)]
pub struct GuestLink<'a> {
    shared: &'a Shared,
    stream: UnixStream,
    /// QEMU's control channel.
    control: Option<UnixStream>,
    until: Instant,
    /// What a boot may take.
    limit: Duration,
}

impl<'a> GuestLink<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        stream: UnixStream,
        control: Option<UnixStream>,
        limit: Duration,
        until: Instant,
    ) -> Self {
        Self {
            shared,
            stream,
            control,
            until,
            limit,
        }
    }

    /// The guest may restart itself now, and gets the time of another boot.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn begin_restart(&mut self) -> Result<(), LinkError> {
        self.on_reset(true)?;
        self.until += self.limit;
        let until = self.until;
        self.shared.update(|state| state.deadline = Some(until));
        Ok(())
    }

    /// The guest is back; from now on a restart ends the machine again.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn end_restart(&mut self) -> Result<(), LinkError> {
        self.on_reset(false)
    }

    fn on_reset(&mut self, restart: bool) -> Result<(), LinkError> {
        let control = self.control.as_mut().ok_or(LinkError::GuestGone)?;
        let sent = crate::qmp::on_reset(control, restart);
        sent.map_err(|_| self.gone())
    }

    /// Time left for the whole boot.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Sends one message. It waits in the host until the guest opens its port.
    pub fn send(&mut self, message: &Value, timeout: Duration) -> Result<(), LinkError> {
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        if line.len() > MAX_LINE_BYTES {
            return Err(LinkError::TooLong(line.len()));
        }
        let until = self.deadline(timeout);
        let mut rest = &line[..];
        while !rest.is_empty() {
            self.shared.check()?;
            // Short write timeouts, so that a guest that dies is noticed.
            let step = until
                .saturating_duration_since(Instant::now())
                .min(Duration::from_millis(100));
            if step.is_zero() {
                return Err(self.timed_out("take a message"));
            }
            let _ = self.stream.set_write_timeout(Some(step));
            match self.stream.write(rest) {
                Ok(0) => return Err(self.gone()),
                Ok(n) => rest = &rest[n..],
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Err(self.gone()),
            }
        }
        Ok(())
    }

    /// The next message of the guest. Lines that are not JSON were thrown away before.
    pub fn recv(&mut self, timeout: Duration) -> Result<Value, LinkError> {
        let until = self.deadline(timeout);
        self.shared
            .wait(until, |state| state.messages.pop_front())
            .and_then(|found| found.ok_or_else(|| self.timed_out("answer")))
    }

    /// Waits until the guest has reached `milestone`.
    pub fn wait_for(&mut self, milestone: Milestone, timeout: Duration) -> Result<(), LinkError> {
        let until = self.deadline(timeout);
        self.shared
            .wait(until, |state| state.has(milestone).then_some(()))
            .and_then(|found| found.ok_or_else(|| self.timed_out("reach the next milestone")))
    }

    /// Whether the guest has reached `milestone`.
    #[must_use]
    pub fn reached(&self, milestone: Milestone) -> bool {
        self.shared.lock().has(milestone)
    }

    /// Records a milestone that the agent reported and a silent console did not show.
    pub fn mark(&mut self, milestone: Milestone) {
        self.shared.reach(milestone);
    }

    fn deadline(&self, timeout: Duration) -> Instant {
        Instant::now()
            .checked_add(timeout)
            .map_or(self.until, |t| t.min(self.until))
    }

    fn timed_out(&self, what: &'static str) -> LinkError {
        if self.remaining().is_zero() {
            LinkError::BootTimeout
        } else {
            LinkError::Timeout(what)
        }
    }

    fn gone(&self) -> LinkError {
        self.shared.check().err().unwrap_or(LinkError::GuestGone)
    }
}
