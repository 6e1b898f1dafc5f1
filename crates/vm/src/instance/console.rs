//! The serial console: into the log, and to whoever watches it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
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

/// Name of what a log was before it was begun anew.
fn old_path(path: &Path) -> PathBuf {
    let mut old = path.to_owned().into_os_string();
    old.push(".1");
    old.into()
}

/// A log that is appended to, and begun anew when it is long enough: what it was until then is kept beside it, once.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
}

impl Log {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LOG_MAX)
    }

    fn with_limit(path: &Path, most: u64) -> io::Result<Self> {
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
            most,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.bytes >= self.most {
            std::fs::rename(&self.path, old_path(&self.path))?;
            *self = Self::with_limit(&self.path, self.most)?;
        }
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// Reads the log of a console while it is written, and goes on when it is begun anew: what is kept of it from before comes first, and
/// nothing in between is missed unless more than two logs (8 MiB) are written from one reading to the next.
#[derive(Debug)]
pub struct ConsoleReader {
    path: PathBuf,
    file: Option<File>,
}

impl ConsoleReader {
    /// A reader of the log at `path`, from its beginning. The log may not be there yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
        }
    }

    /// Appends to `out` what was written since the last time.
    ///
    /// # Errors
    /// Those of reading the files.
    pub fn read_more(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        loop {
            if let Some(file) = &mut self.file {
                file.read_to_end(out)?;
            }
            let Some(next) = self.next()? else {
                return Ok(());
            };
            // It is not written to any more: this is all of it.
            if let Some(file) = &mut self.file {
                file.read_to_end(out)?;
            }
            self.file = Some(next);
        }
    }

    /// The file that was begun when the one that is read was full.
    fn next(&self) -> io::Result<Option<File>> {
        let current = open(&self.path)?;
        // In this order: when the log is begun anew in between, the file of before is seen under its second name.
        let old = open(&old_path(&self.path))?;
        let Some(file) = &self.file else {
            return Ok(old.or(current));
        };
        let here = id(file)?;
        if let Some(current) = &current
            && id(current)? == here
        {
            return Ok(None);
        }
        match old {
            Some(old) if id(&old)? != here => Ok(Some(old)),
            _ => Ok(current),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn id(file: &File) -> io::Result<(u64, u64)> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;

    fn line(n: u32) -> Vec<u8> {
        format!("line {n}\n").into_bytes()
    }

    #[test]
    fn a_log_that_is_begun_anew_is_read_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let over = AtomicBool::new(false);
        let readings = AtomicU64::new(0);
        let mut wanted = Vec::new();
        let mut found = Vec::new();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reader = ConsoleReader::new(&path);
                let mut out = Vec::new();
                loop {
                    let last = over.load(Ordering::SeqCst);
                    reader.read_more(&mut out).unwrap();
                    readings.fetch_add(1, Ordering::SeqCst);
                    if last {
                        return out;
                    }
                }
            });
            let mut log = Log::with_limit(&path, 300).unwrap();
            for n in 0..2000 {
                log.write(&line(n)).unwrap();
                wanted.extend(line(n));
                // Some 60 times it is begun anew, and never twice between the ends of two readings.
                let seen = readings.load(Ordering::SeqCst);
                while n % 20 == 0 && readings.load(Ordering::SeqCst) < seen + 2 {
                    std::thread::yield_now();
                }
            }
            over.store(true, Ordering::SeqCst);
            found = reader.join().unwrap();
        });
        assert!(found == wanted, "{} bytes of {}", found.len(), wanted.len());
    }

    #[test]
    fn lines_that_came_before_and_after_the_log_was_begun_anew_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut reader = ConsoleReader::new(&path);
        let mut out = Vec::new();
        reader.read_more(&mut out).unwrap();
        assert!(out.is_empty());
        let mut log = Log::with_limit(&path, 10).unwrap();
        log.write(&line(1)).unwrap();
        reader.read_more(&mut out).unwrap();
        // The second is after what was read, in the file that is put away; the third is in the new one, longer than what was read.
        log.write(&line(2)).unwrap();
        log.write(&line(3)).unwrap();
        reader.read_more(&mut out).unwrap();
        assert_eq!(out, [line(1), line(2), line(3)].concat());
        // Put away twice since: the one in between is not missed.
        for n in 4..=7 {
            log.write(&line(n)).unwrap();
        }
        reader.read_more(&mut out).unwrap();
        let all: Vec<u8> = (1..=7).flat_map(line).collect();
        assert_eq!(out, all);
        // Who comes later gets what is kept.
        let mut late = Vec::new();
        ConsoleReader::new(&path).read_more(&mut late).unwrap();
        assert!(
            all.ends_with(&late) && late.starts_with(&line(5)),
            "{late:?}"
        );
    }
}
