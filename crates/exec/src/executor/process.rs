//! Runs one command: output line by line, a deadline, and nothing of it left behind on time-out.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::limits::{Crowd, Room, tells_of_a_full_disk, tells_of_a_refused_fork};
use super::{Held, processes, reaper};
use crate::MAX_LINE;
use crate::event::ChildEvent;
use crate::spec::UMASK;

/// Lines kept for the report of a failure, and how many of standard error are among them at least,
/// however much came on standard output: reasons are on the former.
const TAIL_LINES: usize = 25;
const TAIL_ERRORS: usize = 10;

/// Bytes of standard output that become the `stdout` output of a step.
const MAX_CAPTURE: usize = 4 << 20;

/// Bytes of output passed on as events for one command; what is beyond runs unseen.
const MAX_STREAM: usize = 64 << 20;

/// How long output may still come after the command ended: something it started may hold the pipes.
const DRAIN: Duration = Duration::from_millis(500);

/// How often the processes are counted while a command runs. One that cannot fork tries for seconds.
const COUNT: Duration = Duration::from_millis(250);

/// The same where nobody else keeps them below their limit.
const WATCH: Duration = Duration::from_millis(50);

/// What to run and how.
pub(crate) struct Spec<'a> {
    /// Program and arguments; a name without slash is looked up in `PATH` of `env`.
    pub(crate) argv: &'a [String],
    /// The whole environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// The folder it starts in.
    pub(crate) dir: &'a str,
    /// What it may use at most.
    pub(crate) held: &'a Held,
    /// Bytes that must stay free on the disk below `/`, or the command is ended.
    pub(crate) reserve: Option<u64>,
    /// When to give up.
    pub(crate) deadline: Option<Instant>,
    /// False keeps the output out of the events.
    pub(crate) loud: bool,
}

/// What a command did.
pub(crate) struct Done {
    /// `None` when the deadline ended it, or the disk, be it that the disk was found full when it had ended.
    pub(crate) status: Option<ExitStatus>,
    /// Standard output, up to a limit, without the last newline.
    pub(crate) stdout: String,
    /// The last lines of both outputs.
    pub(crate) tail: Vec<String>,
    /// Bytes that were left on the disk when it was ended for that.
    pub(crate) filled: Option<u64>,
    /// Whether it was seen at the limit of processes, or said so with half of them in use.
    pub(crate) crowded: bool,
    /// Whether what it left running is there now.
    pub(crate) left_crowded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

enum Message {
    Line(Stream, Vec<u8>),
    Eof,
    Exit(io::Result<ExitStatus>),
}

/// Runs the command to its end or its deadline.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn run(spec: &Spec<'_>, sink: &mut dyn FnMut(ChildEvent)) -> io::Result<Done> {
    let (program, args) = spec.argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(spec.env)
        .current_dir(spec.dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    amiforge_sys::new_session(&mut command, UMASK);
    amiforge_sys::limit(&mut command, spec.held.list.clone());
    let mut child = reaper::spawn(&mut command)?;
    let pid = child.id();
    let (sender, messages) = mpsc::sync_channel(1024);
    let mut streams = 0;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let listen = || -> io::Result<()> {
        if let Some(stdout) = stdout {
            read_lines(stdout, Stream::Out, sender.clone())?;
            streams += 1;
        }
        if let Some(stderr) = stderr {
            read_lines(stderr, Stream::Err, sender.clone())?;
            streams += 1;
        }
        // Nobody listening means that the run was given up.
        thread(move || {
            drop(sender.send(Message::Exit(reaper::wait(&mut child))));
        })
    };
    // The caller's own limit of processes may leave no room for a thread.
    listen().inspect_err(|_| kill_all(pid))?;

    let mut output = Output {
        stdout: Vec::new(),
        tail: Tail::default(),
        passed: 0,
        refused: false,
        full: false,
        loud: spec.loud,
    };
    let mut status = None;
    let mut until = spec.deadline;
    let mut given_up = false;
    let mut filled = None;
    let counts = spec.held.processes.is_some();
    let mut crowd = Crowd::Little;
    let pause = if spec.held.watched { WATCH } else { COUNT };
    let mut next_count = Instant::now() + pause;
    let mut room = spec
        .reserve
        .map(|reserve| Room::new(Path::new("/"), reserve));
    let mut next_room = room.as_ref().map(|room| Instant::now() + room.pause());
    while status.is_none() || streams > 0 {
        let watched = spec.held.watched;
        if counts && (watched || crowd < Crowd::Full) && Instant::now() >= next_count {
            let (now, beyond) = spec.held.crowd();
            crowd = crowd.max(now);
            if watched && beyond {
                processes::end_all();
            }
            next_count = Instant::now() + pause;
        }
        if let Some(room) = &mut room
            && status.is_none()
            && next_room.is_some_and(|next| Instant::now() >= next)
        {
            filled = room.look();
            next_room = Some(Instant::now() + room.pause());
        }
        let counting = (counts && (watched || crowd < Crowd::Full)).then_some(next_count);
        let looking = next_room.filter(|_| status.is_none());
        let wake = [until, counting, looking].into_iter().flatten().min();
        let message = match wake {
            _ if filled.is_some() => Err(RecvTimeoutError::Timeout),
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wake) => messages.recv_timeout(wake.saturating_duration_since(Instant::now())),
        };
        match message {
            Err(RecvTimeoutError::Timeout)
                if filled.is_none() && until.is_none_or(|until| Instant::now() < until) => {}
            Ok(Message::Line(stream, line)) => output.take(stream, &line, sink),
            Ok(Message::Eof) => streams -= 1,
            Ok(Message::Exit(ended)) => {
                status = Some(ended?);
                until = Some(Instant::now() + DRAIN);
            }
            Err(RecvTimeoutError::Timeout) if status.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {
                given_up = true;
                kill_all(pid);
                // It is dead within moments, unless it hangs in the kernel; then go on without it.
                until = Some(Instant::now() + Duration::from_secs(10));
                if let Some(ended) = await_exit(&messages, until, &mut output, sink) {
                    status = Some(ended?);
                }
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    reaper::reap();
    // Of one that took too long, or was ended, that is the reason.
    if let (Some(room), false) = (&mut room, given_up) {
        filled = room.at_end(output.full);
    }
    let (left, _) = spec.held.crowd();
    crowd = crowd.max(left);
    let stdout = String::from_utf8_lossy(&output.stdout);
    Ok(Done {
        status: status.filter(|_| !given_up && filled.is_none()),
        stdout: stdout.strip_suffix('\n').unwrap_or(&stdout).to_owned(),
        tail: output.tail.lines(),
        filled,
        crowded: crowd == Crowd::Full || (crowd == Crowd::Half && output.refused),
        left_crowded: left == Crowd::Full,
    })
}

/// Starts a thread; an error where `std::thread::spawn` would panic.
fn thread(run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().spawn(run).map(drop)
}

fn await_exit(
    messages: &mpsc::Receiver<Message>,
    until: Option<Instant>,
    output: &mut Output,
    sink: &mut dyn FnMut(ChildEvent),
) -> Option<io::Result<ExitStatus>> {
    loop {
        let left = until
            .map(|u| u.saturating_duration_since(Instant::now()))
            .unwrap_or_default();
        match messages.recv_timeout(left) {
            Ok(Message::Exit(ended)) => return Some(ended),
            Ok(Message::Line(stream, line)) => output.take(stream, &line, sink),
            Ok(Message::Eof) => {}
            Err(_) => return None,
        }
    }
}

struct Output {
    stdout: Vec<u8>,
    tail: Tail,
    passed: usize,
    /// Whether standard error told of a refused process.
    refused: bool,
    /// Whether it told of a full disk.
    full: bool,
    loud: bool,
}

/// The last lines of all, and the last ones of standard error, each with its number.
#[derive(Default)]
struct Tail {
    count: u64,
    all: VecDeque<(u64, String)>,
    errors: VecDeque<(u64, String)>,
}

impl Tail {
    fn push(&mut self, stream: Stream, line: &str) {
        self.count += 1;
        self.all.push_back((self.count, line.to_owned()));
        if self.all.len() > TAIL_LINES {
            self.all.pop_front();
        }
        if stream == Stream::Err {
            self.errors.push_back((self.count, line.to_owned()));
            if self.errors.len() > TAIL_ERRORS {
                self.errors.pop_front();
            }
        }
    }

    /// In the order they came.
    fn lines(self) -> Vec<String> {
        let lines: BTreeMap<u64, String> = self.all.into_iter().chain(self.errors).collect();
        lines.into_values().collect()
    }
}

impl Output {
    fn take(&mut self, stream: Stream, line: &[u8], sink: &mut dyn FnMut(ChildEvent)) {
        if stream == Stream::Out && self.stdout.len() < MAX_CAPTURE {
            let room = MAX_CAPTURE - self.stdout.len();
            self.stdout.extend_from_slice(&line[..line.len().min(room)]);
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = String::from_utf8_lossy(line).into_owned();
        self.refused |= stream == Stream::Err && tells_of_a_refused_fork(&line);
        self.full |= stream == Stream::Err && tells_of_a_full_disk(&line);
        if !self.loud {
            return;
        }
        self.tail.push(stream, &line);
        let before = self.passed;
        self.passed = before.saturating_add(line.len() + 1);
        if before >= MAX_STREAM {
            return;
        }
        sink(match stream {
            Stream::Out => ChildEvent::Stdout { line },
            Stream::Err => ChildEvent::Stderr { line },
        });
        if self.passed >= MAX_STREAM {
            sink(ChildEvent::Note {
                text: format!("more than {MAX_STREAM} bytes of output; the rest is not shown"),
            });
        }
    }
}

/// Cuts a stream into lines of at most [`MAX_LINE`] bytes each, so that a line without end costs no
/// memory. Reads on when nobody listens, since a full pipe would stop the command.
fn read_lines(
    mut from: impl Read + Send + 'static,
    stream: Stream,
    to: mpsc::SyncSender<Message>,
) -> io::Result<()> {
    thread(move || {
        let mut buf = [0; MAX_LINE];
        let mut line = Vec::new();
        let mut open = true;
        loop {
            let n = match from.read(&mut buf) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            for part in buf[..n].split_inclusive(|b| *b == b'\n') {
                if line.len() + part.len() > MAX_LINE {
                    open = open
                        && to
                            .send(Message::Line(stream, std::mem::take(&mut line)))
                            .is_ok();
                    line.clear();
                }
                line.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    open = open
                        && to
                            .send(Message::Line(stream, std::mem::take(&mut line)))
                            .is_ok();
                    line.clear();
                }
            }
        }
        if open && (line.is_empty() || to.send(Message::Line(stream, line)).is_ok()) {
            let _unheard = to.send(Message::Eof);
        }
    })
}

/// Kills a command with everything it started: its session, and whoever descends from it.
fn kill_all(root: u32) {
    // Stopping comes first so that nothing is born between the look and the kill.
    for signal in [Signal::STOP, Signal::KILL] {
        processes::signal(processes::family(root), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, seconds: u64) -> (Done, Vec<ChildEvent>) {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned);
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        let mut events = Vec::new();
        let deadline = Some(Instant::now() + Duration::from_secs(seconds));
        let done = run(
            &Spec {
                argv: &argv,
                env: &env,
                dir: "/",
                held: &Held::default(),
                reserve: None,
                deadline,
                loud: true,
            },
            &mut |e| events.push(e),
        )
        .unwrap();
        (done, events)
    }

    #[test]
    fn programs_tell_of_refused_processes() {
        for line in [
            "sh: 1: Cannot fork",
            "bash: fork: retry: Resource temporarily unavailable",
            "make: fork: Resource temporarily unavailable",
            "make: vfork: Resource temporarily unavailable",
        ] {
            assert!(tells_of_a_refused_fork(line), "{line}");
        }
        for line in ["read: Resource temporarily unavailable", "a fork of it", ""] {
            assert!(!tells_of_a_refused_fork(line), "{line}");
        }
    }

    #[test]
    fn captures_both_streams_and_the_exit_code() {
        let (done, events) = sh("echo one; echo; echo two >&2; printf three; exit 7", 60);
        assert_eq!(done.status.unwrap().code(), Some(7));
        assert_eq!(done.stdout, "one\n\nthree");
        assert_eq!(events.len(), 4);
        assert!(events.contains(&ChildEvent::Stderr { line: "two".into() }));
    }

    #[test]
    fn ends_a_command_with_its_descendants_at_the_deadline() {
        let start = Instant::now();
        let (done, events) = sh("setsid sh -c 'echo $$; exec sleep 300' & wait", 1);
        assert!(done.status.is_none() && start.elapsed() < Duration::from_secs(9));
        let ChildEvent::Stdout { line: pid } = &events[0] else {
            panic!("{events:?}")
        };
        // The kill is sent; dying takes the process a moment.
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        };
        while !gone() && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone());
    }

    #[test]
    fn does_not_wait_for_what_runs_in_the_background() {
        let start = Instant::now();
        let (done, _) = sh("sleep 20 & echo started", 60);
        assert_eq!(done.stdout, "started");
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn cuts_endless_lines() {
        let (done, events) = sh("head -c 100000 /dev/zero | tr '\\0' x", 60);
        assert_eq!(done.stdout.len(), 100_000);
        assert!(
            events
                .iter()
                .all(|e| matches!(e, ChildEvent::Stdout { line } if line.len() <= MAX_LINE))
        );
    }
}
