//! The person's side of a shell: bytes between their terminal, or their pipes, and that of the sandbox.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::termios::{OptionalActions, Termios};

use crate::handed;

/// How often the size of the person's terminal is looked at.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};

/// Where a shell's input comes from, and where its output goes.
#[derive(Debug)]
pub struct Console {
    /// Standard input; a terminal, when `terminal` is set.
    pub input: OwnedFd,
    /// Standard output.
    pub output: OwnedFd,
    /// Standard error.
    pub errors: OwnedFd,
    /// Whether the shell gets a terminal.
    pub terminal: bool,
}

impl Console {
    /// Rows and columns of the terminal, if there is one.
    pub(super) fn size(&self) -> Option<(u16, u16)> {
        let size = rustix::termios::tcgetwinsize(&self.input).ok();
        let size = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        self.terminal.then_some(size)
    }
}

/// Bytes on their way, for as long as a shell runs.
pub(super) struct Relay {
    /// Ends the thread of the input when it is dropped.
    stop: Option<io::PipeWriter>,
    threads: Vec<JoinHandle<()>>,
    /// Why output was lost, if it was.
    lost: Arc<Mutex<Option<io::Error>>>,
    /// Raised when nobody takes the output any more.
    gone: Arc<AtomicBool>,
    /// The terminal as it was.
    raw: Option<Raw>,
}

impl Relay {
    /// Takes the descriptors that wait on `from`, and starts.
    ///
    /// # Errors
    /// When there are none, or the terminal cannot be used.
    pub(super) fn start(console: &Console, from: &UnixStream) -> io::Result<Self> {
        Self::with(console, handed::receive(from)?)
    }

    /// The same with these: a terminal, or what the shell reads, its output and its errors.
    ///
    /// # Errors
    /// When they are too few, or the terminal cannot be used.
    pub(super) fn with(console: &Console, handed: Vec<OwnedFd>) -> io::Result<Self> {
        let mut handed = handed.into_iter();
        let mut next = || {
            handed
                .next()
                .ok_or_else(|| io::Error::other("no descriptor came"))
        };
        let (waiting, stop) = io::pipe()?;
        let mut relay = Self {
            stop: Some(stop),
            threads: Vec::new(),
            lost: Arc::default(),
            gone: Arc::default(),
            raw: None,
        };
        let input = File::from(console.input.try_clone()?);
        let output = File::from(console.output.try_clone()?);
        if console.terminal {
            let theirs = next()?;
            // In a machine, the terminal is behind the line that is our input.
            if rustix::termios::isatty(&console.input) {
                relay.raw = Some(Raw::of(console.input.try_clone()?)?);
            }
            let size_of = Some((console.input.try_clone()?, theirs.try_clone()?));
            relay.pass_out(theirs.try_clone()?, output)?;
            relay.pass_in(input, theirs, waiting, size_of)?;
        } else {
            let errors = File::from(console.errors.try_clone()?);
            let to_input = next()?;
            relay.pass_out(next()?, output)?;
            relay.pass_out(next()?, errors)?;
            relay.pass_in(input, to_input, waiting, None)?;
        }
        Ok(relay)
    }

    fn pass_out(&mut self, from: OwnedFd, mut to: File) -> io::Result<()> {
        let (lost, gone) = (self.lost.clone(), self.gone.clone());
        self.spawn(move || {
            let mut from = File::from(from);
            let mut buf = [0; 16 << 10];
            // The side of a terminal whose other side is gone gives EIO.
            while let Ok(n @ 1..) = from.read(&mut buf) {
                if let Err(error) = write_all(&mut to, &buf[..n]) {
                    // Whoever read it has seen enough.
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        let mut lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
                        lost.get_or_insert(error);
                    }
                    // Closes the pipe: the command is told by SIGPIPE, as it would be outside. A line to a machine has no
                    // such end; whoever holds it looks at this.
                    gone.store(true, Ordering::Relaxed);
                    return;
                }
            }
        })
    }

    /// Also keeps the size of the second terminal that of the first.
    fn pass_in(
        &mut self,
        mut from: File,
        to: OwnedFd,
        waiting: io::PipeReader,
        sizes: Option<(OwnedFd, OwnedFd)>,
    ) -> io::Result<()> {
        self.spawn(move || {
            let mut to = File::from(to);
            copy_in(&mut from, &mut to, &waiting, sizes.as_ref());
            // A line to a machine stays open for others; a pipe or terminal is none, and ends with us.
            let _no_socket = rustix::net::shutdown(&to, rustix::net::Shutdown::Write);
        })
    }

    fn spawn(&mut self, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().spawn(run)?);
        Ok(())
    }

    /// Raised when nobody takes the output any more.
    pub(super) fn gone(&self) -> Arc<AtomicBool> {
        self.gone.clone()
    }

    /// Waits until all output has come; to be called when the shell and all it started are gone.
    ///
    /// # Errors
    /// When some of it could not be written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // None of them panics; if one did, the others have done their work.
            let _panicked = thread.join();
        }
        drop(self.raw.take());
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.take().map_or(Ok(()), Err)
    }
}

/// Passes on what comes, until it or the other side ends, or something happens to `waiting`.
fn copy_in(
    from: &mut File,
    to: &mut File,
    waiting: &io::PipeReader,
    sizes: Option<&(OwnedFd, OwnedFd)>,
) {
    let mut buf = [0; 4 << 10];
    loop {
        if let Some((ours, theirs)) = sizes
            && let Ok(size) = rustix::termios::tcgetwinsize(ours)
        {
            let _gone = rustix::termios::tcsetwinsize(theirs, size);
        }
        let mut fds = [
            PollFd::new(&*from, PollFlags::IN),
            PollFd::new(waiting, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) if !fds[1].revents().is_empty() => return,
            Ok(_) => {}
        }
        match from.read(&mut buf) {
            Ok(n @ 1..) if to.write_all(&buf[..n]).is_ok() => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// Also to what does not wait by itself (`O_NONBLOCK`): the terminal may be shared with who set that.
fn write_all(to: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                rustix::event::poll(&mut [PollFd::new(&*to, PollFlags::OUT)], None)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A terminal that hands on every byte as it is typed (termios(3), raw mode), until the value goes.
struct Raw {
    terminal: OwnedFd,
    before: Termios,
}

impl Raw {
    fn of(terminal: OwnedFd) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that went away needs nothing.
        let _gone = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
