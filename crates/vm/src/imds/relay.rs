//! The process that QEMU starts for each connection of a guest to 169.254.169.254.
//!
//! Its standard input, output and error are all the guest's TCP stream (libslirp's `guestfwd` with `-cmd:`), so nothing may be
//! printed, and it may not end before it has read what came: the guest would get a reset instead of the end of the answer.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long nothing may happen; longer than the service waits for a request.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// How long the guest may still send after the service has closed.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Joins standard input and output with the socket at `socket`, until both directions have ended. Without a service
/// there, the guest is told to try again.
///
/// It ends when the virtual machine does: then its input ends. Standard error is closed to everybody from here on.
///
/// # Errors
/// When the guest's stream fails; there is nobody to tell, so the caller just ends.
pub fn imds_relay(socket: &Path) -> io::Result<()> {
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stderr(&null)?;
    let (input, output) = (io::stdin(), io::stdout());
    let (input, output) = (input.as_fd(), output.as_fd());
    match UnixStream::connect(socket) {
        Ok(service) => join(input, output, &service, IDLE_LIMIT),
        Err(_) => {
            let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let n = rustix::io::write(output, rest)?;
                rest = &rest[n..];
            }
            // Not a socket in tests perhaps; then it ends with the process.
            let _ = rustix::net::shutdown(output, rustix::net::Shutdown::Write);
            drain(input, DRAIN_LIMIT)
        }
    }
}

/// Reads until the end, or for a while.
fn drain(input: BorrowedFd<'_>, limit: Duration) -> io::Result<()> {
    let until = Instant::now() + limit;
    let mut buf = [0; 4096];
    while wait(&mut [PollFd::new(&input, PollFlags::IN)], until)? {
        if rustix::io::read(input, &mut buf)? == 0 {
            break;
        }
    }
    Ok(())
}

/// Bytes on their way from one side to the other.
#[derive(Default)]
struct Way {
    buf: Vec<u8>,
    /// The source has ended.
    ended: bool,
    /// The sink knows.
    closed: bool,
}

impl Way {
    const ROOM: usize = 64 << 10;

    fn wants(&self) -> bool {
        !self.ended && self.buf.is_empty()
    }

    /// Reads what there is.
    fn fill(&mut self, from: BorrowedFd<'_>) {
        self.buf.resize(Self::ROOM, 0);
        match rustix::io::read(from, &mut self.buf[..]) {
            Ok(0) => {
                self.buf.clear();
                self.ended = true;
            }
            Ok(n) => self.buf.truncate(n),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => self.buf.clear(),
            // Reset by its other end.
            Err(_) => {
                self.buf.clear();
                self.ended = true;
            }
        }
    }

    /// Writes what can be written; what a sink does not take any more is thrown away.
    fn empty(&mut self, to: BorrowedFd<'_>) {
        match rustix::io::write(to, &self.buf) {
            Ok(n) => drop(self.buf.drain(..n)),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => {
                self.buf.clear();
                self.ended = true;
            }
        }
    }
}

/// Carries bytes both ways. Each end is passed on for itself.
pub(super) fn join(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    service: &UnixStream,
    idle: Duration,
) -> io::Result<()> {
    let (mut asked, mut answered) = (Way::default(), Way::default());
    let socket = service.as_fd();
    let mut until = Instant::now() + idle;
    // Whether the service has said anything.
    let mut heard = false;
    loop {
        if asked.ended && asked.buf.is_empty() && !asked.closed {
            asked.closed = true;
            let _ = service.shutdown(Shutdown::Write);
        }
        if answered.ended && answered.buf.is_empty() && !answered.closed {
            answered.closed = true;
            let _ = rustix::net::shutdown(output, rustix::net::Shutdown::Write);
            if !heard {
                // There are too many connections already: this one does not stay for what the guest may still send.
                return Ok(());
            }
            until = until.min(Instant::now() + DRAIN_LIMIT);
        }
        if asked.closed && answered.closed {
            return Ok(());
        }
        let flags = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        // One entry for each thing that is waited for; an entry without flags would still report the other end's going.
        let mut fds = Vec::with_capacity(3);
        let [reads_guest, writes_guest] = [asked.wants(), !answered.buf.is_empty()];
        if reads_guest {
            fds.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
        }
        if writes_guest {
            fds.push(PollFd::from_borrowed_fd(output, PollFlags::OUT));
        }
        let service_flags = flags(answered.wants(), !asked.buf.is_empty());
        if !service_flags.is_empty() {
            fds.push(PollFd::from_borrowed_fd(socket, service_flags));
        }
        if !wait(&mut fds, until)? {
            return Ok(());
        }
        if !answered.closed {
            until = Instant::now() + idle;
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let mut ready = ready.into_iter();
        let came = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let room = PollFlags::OUT | PollFlags::HUP | PollFlags::ERR;
        if reads_guest && ready.next().is_some_and(|r| r.intersects(came)) {
            asked.fill(input);
        }
        if writes_guest && ready.next().is_some_and(|r| r.intersects(room)) {
            answered.empty(output);
        }
        if !service_flags.is_empty()
            && let Some(r) = ready.next()
        {
            if service_flags.contains(PollFlags::IN) && r.intersects(came) {
                answered.fill(socket);
                heard |= !answered.buf.is_empty();
            }
            if service_flags.contains(PollFlags::OUT) && r.intersects(room) {
                asked.empty(socket);
            }
        }
    }
}

/// Waits for one of `fds`; false when the time is over.
fn wait(fds: &mut [PollFd<'_>], until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Ok(timeout) = Timespec::try_from(left) else {
            return Ok(false);
        };
        match poll(fds, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
