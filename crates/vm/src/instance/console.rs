//! The serial console: into the log, and to whoever watches it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::SendFlags;

use crate::listener::Server;

/// Bytes of a log before a new one is begun; one old one is kept.
const LOG_MAX: u64 = 4 << 20;
/// What somebody who comes is shown first.
const TAIL: usize = 64 << 10;
/// Watchers at a time.
const WATCHERS_MAX: usize = 8;

/// A console in use.
#[derive(Debug)]
pub(super) struct Console {
    input: Mutex<UnixStream>,
    screen: Mutex<Screen>,
}

#[derive(Debug, Default)]
struct Screen {
    tail: VecDeque<u8>,
    watchers: Vec<UnixStream>,
    ended: bool,
}

impl Console {
    pub(super) fn new(input: UnixStream) -> Self {
        Self {
            input: Mutex::new(input),
            screen: Mutex::default(),
        }
    }

    fn screen(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the guest prints until the machine is off. Gives the first error of the log; the console goes on without it.
    pub(super) fn follow(&self, mut output: UnixStream, mut log: Log) -> io::Result<()> {
        let mut buf = vec![0; 16 << 10];
        let mut outcome = Ok(());
        loop {
            match output.read(&mut buf) {
                Ok(n @ 1..) => {
                    if outcome.is_ok() {
                        outcome = log.write(&buf[..n]);
                    }
                    self.screen().show(&buf[..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let mut screen = self.screen();
        screen.ended = true;
        for watcher in screen.watchers.drain(..) {
            let _ = watcher.shutdown(std::net::Shutdown::Both);
        }
        outcome
    }

    /// Shows the console on `stream` and types what comes from there, until either ends.
    pub(super) fn attach(&self, mut stream: &UnixStream) -> io::Result<()> {
        {
            let mut screen = self.screen();
            if screen.ended {
                return Ok(());
            }
            let (front, back) = screen.tail.as_slices();
            let tail = [front, back].concat();
            let watcher = stream.try_clone()?;
            // Its buffer is empty, and holds this.
            send(&watcher, &tail)?;
            screen.watchers.push(watcher);
        }
        let mut buf = [0; 4096];
        loop {
            match stream.read(&mut buf) {
                Ok(n @ 1..) => self
                    .input
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .write_all(&buf[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => return Ok(()),
            }
        }
    }
}

impl Screen {
    fn show(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let more = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..more);
        // Somebody who does not read loses what does not fit; the guest never waits.
        self.watchers.retain(|watcher| send(watcher, bytes).is_ok());
    }
}

/// Sends as much as there is room for.
fn send(stream: &UnixStream, bytes: &[u8]) -> io::Result<()> {
    match rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// A console on a Unix socket: what comes from a client is typed, what the guest prints is sent to all of them. A client is
/// first shown the last 64 KiB. It ends when it is dropped, or the machine is off.
#[derive(Debug)]
pub struct ConsoleServer {
    _server: Server,
}

impl ConsoleServer {
    pub(super) fn start(listener: UnixListener, console: Arc<Console>) -> io::Result<Self> {
        let serve = move |stream: &UnixStream| {
            // Either side is gone then.
            let _ = console.attach(stream);
        };
        let server = Server::start("console", listener, WATCHERS_MAX, serve)?;
        Ok(Self { _server: server })
    }
}

/// A log that is appended to, and begun anew when it is long enough.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes >= LOG_MAX {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            std::fs::rename(&self.path, &old)?;
            *self = Self::open(&self.path)?;
        }
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}
