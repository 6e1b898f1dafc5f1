//! QEMU's control channel: what a clean power-off and a restart need.
//!
//! Source: QEMU's `docs/interop/qmp-spec.txt`.

mod client;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

pub(crate) use client::{Client, CommandError};

/// Why the machine went off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// The guest powered it off.
    PowerOff,
    /// The guest reset it, which ends it under `-no-reboot` unless that was lifted.
    Reset,
    /// Anything else, such as a signal.
    Other,
}

/// Longest message that is read; QEMU's are a few hundred bytes.
const MESSAGE_MAX: u64 = 1 << 20;

/// Sends a command without waiting for its answer.
pub(crate) fn command(stream: &mut UnixStream, name: &str) -> io::Result<()> {
    let mut line = json!({ "execute": name }).to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Whether a reset by the guest restarts the machine (QEMU 6.0) or ends it, as `-no-reboot` says.
pub(crate) fn on_reset(stream: &mut UnixStream, restart: bool) -> io::Result<()> {
    let reboot = if restart { "reset" } else { "shutdown" };
    let arguments = json!({ "reboot": reboot });
    let mut line = json!({ "execute": "set-action", "arguments": arguments }).to_string();
    line.push('\n');
    stream.write_all(line.as_bytes())
}

/// Reads messages until the channel closes, giving every shutdown event to `on_shutdown`.
pub(crate) fn events(stream: UnixStream, mut on_shutdown: impl FnMut(Shutdown)) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match reader
            .by_ref()
            .take(MESSAGE_MAX)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        if message["event"] == "SHUTDOWN" {
            on_shutdown(match message["data"]["reason"].as_str() {
                Some("guest-shutdown") => Shutdown::PowerOff,
                Some("guest-reset") => Shutdown::Reset,
                _ => Shutdown::Other,
            });
        }
    }
}
