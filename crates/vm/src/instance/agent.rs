//! QEMU's guest agent, through its virtio-serial port. The guest may say anything there, or nothing.
//!
//! Source: QEMU's `docs/interop/qemu-ga-ref` and `qga/qapi-schema.json`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::InstanceError;

/// Longest answer, in bytes.
const ANSWER_MAX: usize = 64 << 10;
/// Bytes that may stand in the channel before the answer to a synchronization.
const STALE_MAX: usize = 1 << 20;
/// Before the answer to `guest-sync-delimited`; no JSON text has such a byte.
const SENTINEL: u8 = 0xFF;

#[derive(Debug)]
pub(super) struct GuestAgent {
    channel: Mutex<Channel>,
    /// Whether a program in the guest has opened the port; told by QEMU.
    open: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Channel {
    stream: UnixStream,
    /// Of the last synchronization.
    number: u32,
}

impl GuestAgent {
    pub(super) fn new(stream: UnixStream, open: Arc<AtomicBool>) -> Self {
        let channel = Mutex::new(Channel { stream, number: 0 });
        Self { channel, open }
    }

    /// Carries out a command within `limit`.
    pub(super) fn execute(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, InstanceError> {
        if !self.open.load(Ordering::SeqCst) {
            return Err(InstanceError::NoAgent);
        }
        let until = Instant::now() + limit;
        let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e: io::Error| match e.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => InstanceError::Late(command),
            io::ErrorKind::InvalidData => InstanceError::Agent {
                command,
                message: e.to_string(),
            },
            _ => InstanceError::Gone,
        };
        channel.synchronize(until).map_err(failed)?;
        let mut message = json!({ "execute": command });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        channel.send(&message, until).map_err(failed)?;
        let mut answer = channel.answer(until).map_err(failed)?;
        match answer.get("error") {
            None => Ok(answer["return"].take()),
            Some(error) => {
                let message = error["desc"].as_str().unwrap_or("no reason given");
                let message = message
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(200)
                    .collect();
                Err(InstanceError::Agent { command, message })
            }
        }
    }
}

impl Channel {
    /// Gets rid of whatever was said before.
    fn synchronize(&mut self, until: Instant) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        let number = self.number;
        // The sentinel makes the agent forget half of a command.
        self.write(&[SENTINEL], until)?;
        let message = json!({ "execute": "guest-sync-delimited", "arguments": { "id": number } });
        self.send(&message, until)?;
        let mut skipped = 0;
        loop {
            while self.byte(until)? != SENTINEL {
                skipped += 1;
                if skipped > STALE_MAX {
                    return Err(wrong("it does not stop to speak"));
                }
            }
            // Also that of an earlier one may still be there, as may be an error for the forgotten half.
            if self
                .answer(until)
                .is_ok_and(|answer| answer["return"].as_u64() == Some(number.into()))
            {
                return Ok(());
            }
            skipped += 1;
            if skipped > STALE_MAX || Instant::now() >= until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    fn send(&mut self, message: &Value, until: Instant) -> io::Result<()> {
        self.write(format!("{message}\n").as_bytes(), until)
    }

    fn write(&mut self, bytes: &[u8], until: Instant) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(until)?))?;
        self.stream.write_all(bytes)
    }

    fn byte(&mut self, until: Instant) -> io::Result<u8> {
        self.stream.set_read_timeout(Some(left(until)?))?;
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn answer(&mut self, until: Instant) -> io::Result<Value> {
        let mut line = Vec::new();
        loop {
            match self.byte(until)? {
                b'\n' if line.is_empty() => {}
                b'\n' => break,
                SENTINEL => line.clear(),
                _ if line.len() >= ANSWER_MAX => return Err(wrong("its answer is too long")),
                byte => line.push(byte),
            }
        }
        match serde_json::from_slice(&line) {
            Ok(answer @ Value::Object(_)) => Ok(answer),
            _ => Err(wrong("its answer is not one")),
        }
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
