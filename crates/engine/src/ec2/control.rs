//! The line between a command and the background process of an instance: one JSON line each way on a Unix socket.
//!
//! The folder of an instance can only be entered by its user, so whoever reaches the socket may give orders.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use amiforge_ami::{ImageId, SnapshotId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The socket in the folder of an instance.
const SOCKET: &str = "control.sock";
/// Longest order or answer, in bytes.
const LINE_MAX: u64 = 1 << 20;

/// What a command asks of a running instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "order",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub(super) enum Order {
    /// Shut down and end; the state of the record says whether it was stopped or terminated.
    End {
        /// Without asking the guest.
        force: bool,
        /// Seconds that the guest gets.
        seconds: u64,
    },
    /// Shut down and start again.
    Reboot {
        /// Without asking the guest.
        force: bool,
        /// Seconds that the guest gets.
        seconds: u64,
    },
    /// Fill the snapshots of an image that was begun, and complete it.
    Image {
        /// The image.
        image_id: ImageId,
        /// Without shutting down.
        no_reboot: bool,
        /// Seconds that the guest gets.
        seconds: u64,
    },
    /// Fill a snapshot of a volume that was begun, and complete it.
    Snapshot {
        /// The snapshot.
        snapshot_id: SnapshotId,
    },
    /// Write the screen as PNG to `screen.png` in the folder of the instance.
    Screen,
    /// The tags in the metadata are those of the record now.
    Tags,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    /// Why it could not be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// What came of it.
    #[serde(default)]
    pub(super) result: Value,
}

/// An order, and where its answer goes.
pub(super) struct Ordered {
    pub(super) order: Order,
    answer: UnixStream,
}

impl Ordered {
    /// Answers. Who asked may be gone.
    pub(super) fn answer(mut self, result: Result<Value, String>) {
        let answer = match result {
            Ok(result) => Answer {
                problem: None,
                result,
            },
            Err(problem) => Answer {
                problem: Some(problem),
                result: Value::Null,
            },
        };
        let mut line = serde_json::to_vec(&answer).unwrap_or_default();
        line.push(b'\n');
        let _ = self.answer.write_all(&line);
    }
}

/// Listens in the current folder, which is that of the instance; orders come out of the receiver.
pub(super) fn listen() -> io::Result<Receiver<Ordered>> {
    let _ = std::fs::remove_file(SOCKET);
    let listener = UnixListener::bind(SOCKET)?;
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || read_order(stream, &sender));
        }
    });
    Ok(receiver)
}

fn read_order(stream: UnixStream, orders: &Sender<Ordered>) {
    let limit = Some(Duration::from_secs(10));
    let _ = stream.set_read_timeout(limit);
    let _ = stream.set_write_timeout(limit);
    let Ok(line) = read_line(&stream) else { return };
    match serde_json::from_slice(&line) {
        // The receiver goes with the process.
        Ok(order) => drop(orders.send(Ordered {
            order,
            answer: stream,
        })),
        Err(error) => {
            let order = Order::Tags;
            Ordered {
                order,
                answer: stream,
            }
            .answer(Err(format!("not an order: {error}")));
        }
    }
}

fn read_line(stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(LINE_MAX)
        .read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") {
        return Ok(line);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Gives an order to the process of the instance whose folder this is, and waits for the answer.
///
/// # Errors
/// When nobody listens there, or the process ends before it has answered.
pub(super) fn ask(folder: &Path, order: &Order) -> io::Result<Answer> {
    // A socket's address has room for 107 bytes; the folder may lie deeper than that.
    let dir = File::open(folder)?;
    let mut stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let line = read_line(&stream)?;
    Ok(serde_json::from_slice(&line)?)
}
