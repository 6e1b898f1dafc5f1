//! The other end of a machine's lines: its first process carries out jobs, each in a child as anywhere else.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use amiforge_types::Timestamp;

use super::{Console, Helper, Sandbox};
use crate::actions::chain;
use crate::error::SandboxError;
use crate::protocol::MAX_MESSAGE;
use crate::spec::{ID_COUNT, IdMap, Way};
use crate::wire::{FromChild, FromMachine, Job, ToMachine};

/// The ids of an image in a machine: what they are.
const SAME: IdMap = IdMap {
    uid_base: 0,
    gid_base: 0,
    count: ID_COUNT,
    helpers: false,
};

/// What is told when data did not reach the disk.
const UNWRITTEN: &str =
    "what the job wrote could not be kept: the disk of the host is full, or fails";

/// How often a machine that is at a job says so. Who waits for it takes one that says nothing for much longer for dead.
const BEAT: Duration = Duration::from_secs(10);

/// The lines of a machine.
#[derive(Debug)]
pub struct MachineLines {
    /// Messages, both ways.
    pub link: File,
    /// Bytes of layers, to the host.
    pub layers: File,
    /// Those of a shell, as [`SHELL_PORTS`](crate::SHELL_PORTS) has them.
    pub shell: [File; 3],
    /// Anything on the disk of what jobs change, opened before the first of them: what could not be written to the disk since
    /// then is told by it (syncfs(2), Linux 5.8).
    pub disk: File,
}

impl MachineLines {
    /// Says why the machine cannot be used.
    pub fn give_up(&mut self, why: &str) {
        // Nobody is there to hear of a line that is broken.
        let _gone = send(&mut self.link, &FromMachine::Broken(why.to_owned()));
    }

    /// What stands for the person's terminal, or their pipes.
    fn console(&self, terminal: bool) -> io::Result<Console> {
        let [both, output, errors] = &self.shell;
        let output = if terminal { both } else { output };
        Ok(Console {
            input: both.try_clone()?.into(),
            output: output.try_clone()?.into(),
            errors: errors.try_clone()?.into(),
            terminal,
        })
    }
}

fn send(link: &mut File, message: &FromMachine) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    link.write_all(&line)
}

/// The line for messages, for whoever has one.
struct Link(Mutex<File>);

impl Link {
    fn send(&self, message: &FromMachine) -> io::Result<()> {
        let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        send(&mut link, message)
    }

    /// Says again and again that a job is being carried out, while it is.
    fn while_busy<T>(&self, beat: Duration, job: impl FnOnce() -> T) -> T {
        let (ended, end) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while end.recv_timeout(beat) == Err(mpsc::RecvTimeoutError::Timeout) {
                    // What is next to be sent fails as well, and is told.
                    let _broken = self.send(&FromMachine::Busy);
                }
            });
            let result = job();
            // Nothing comes after the end of a job: a machine that waits for one says nothing.
            drop(ended);
            result
        })
    }
}

/// Serves jobs as the first process of a machine, as root, until the host closes its end. `set_clock` is called with the
/// time of the host before each job; all that a job wrote is on its disk before its end is told.
///
/// # Errors
/// When a line breaks.
pub fn serve_jobs(
    helper: Helper,
    lines: &mut MachineLines,
    set_clock: impl FnMut(Timestamp),
) -> io::Result<()> {
    serve(helper, lines, BEAT, set_clock)
}

fn serve(
    helper: Helper,
    lines: &mut MachineLines,
    beat: Duration,
    mut set_clock: impl FnMut(Timestamp),
) -> io::Result<()> {
    let sandbox = Sandbox {
        helper,
        way: Way::MappedIds,
        ids: SAME,
        fleet: None,
    };
    let mut reader = BufReader::new(lines.link.try_clone()?);
    let link = Link(Mutex::new(lines.link.try_clone()?));
    link.send(&FromMachine::Ready)?;
    loop {
        let mut line = Vec::new();
        let n = reader
            .by_ref()
            .take(MAX_MESSAGE as u64)
            .read_until(b'\n', &mut line)?;
        if n == 0 {
            return Ok(());
        }
        let ToMachine { now, job } = serde_json::from_slice(&line)?;
        set_clock(now);
        let layer = match &job {
            Job::Harvest { layer, .. } => Some(layer.clone()),
            _ => None,
        };
        let told = link.while_busy(beat, || {
            let told = carry_out(&sandbox, job, layer, lines, &link)?;
            // Nothing that a full disk of the host swallowed is taken for written.
            Ok::<_, io::Error>(match rustix::fs::syncfs(&lines.disk) {
                Ok(()) => told,
                Err(error) => unwritten(&error.into()),
            })
        })?;
        link.send(&FromMachine::Child(told))?;
    }
}

fn carry_out(
    sandbox: &Sandbox,
    job: Job,
    layer: Option<PathBuf>,
    lines: &mut MachineLines,
    link: &Link,
) -> io::Result<FromChild> {
    if let Some(layer) = &layer
        && let Err(error) = File::create(layer)
    {
        return Ok(unwritten(&error));
    }
    let console = match &job {
        Job::Shell { shell, .. } => Some(lines.console(shell.terminal.is_some())?),
        _ => None,
    };
    let mut broken = None;
    let mut tell = |event| {
        if broken.is_none() {
            let message = FromMachine::Child(FromChild::Event(event));
            broken = link.send(&message).err();
        }
    };
    let result = sandbox.run_on(job, &AtomicBool::new(false), &mut tell, console.as_ref());
    if let Some(error) = broken {
        return Err(error);
    }
    Ok(match result {
        Ok(result) => {
            if let Some(path) = layer {
                // Before it is read again: pages that were not written may be gone.
                let synced = rustix::fs::syncfs(&lines.disk).map_err(io::Error::from);
                let opened = synced.and_then(|()| File::open(&path));
                let mut file = match opened {
                    Ok(file) => file,
                    Err(error) => return Ok(unwritten(&error)),
                };
                link.send(&FromMachine::Layer(file.metadata()?.len()))?;
                io::copy(&mut file, &mut lines.layers)?;
                std::fs::remove_file(&path)?;
            }
            FromChild::Done(result)
        }
        Err(SandboxError::Refused { what, source }) => FromChild::Failed {
            what,
            refused: source.raw_os_error(),
        },
        Err(error) => FromChild::Failed {
            what: chain(&error),
            refused: None,
        },
    })
}

fn unwritten(error: &io::Error) -> FromChild {
    FromChild::Failed {
        what: format!("{UNWRITTEN}: {error}"),
        refused: None,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::BufRead as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_machine_says_that_it_is_at_a_job_and_nothing_when_it_waits() {
        let dir = tempfile::tempdir().unwrap();
        let (host, guest) = UnixStream::pair().unwrap();
        let link = File::from(OwnedFd::from(guest));
        let other = || File::open(dir.path()).unwrap();
        let mut lines = MachineLines {
            link,
            layers: other(),
            shell: [other(), other(), other()],
            disk: other(),
        };
        // Takes its time, and then is no helper at all.
        let helper = Helper {
            program: "sleep".into(),
            args: vec![OsString::from("0.4")],
            machines: None,
        };
        let beat = Duration::from_millis(50);
        let machine = std::thread::spawn(move || serve(helper, &mut lines, beat, |_| ()));
        let job = ToMachine {
            now: Timestamp::default(),
            job: Job::RemoveTrees {
                dirs: vec![dir.path().join("none")],
            },
        };
        let mut line = serde_json::to_vec(&job).unwrap();
        line.push(b'\n');
        (&host).write_all(&line).unwrap();
        let mut lines = BufReader::new(&host).lines();
        let mut next =
            || -> FromMachine { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
        assert!(matches!(next(), FromMachine::Ready));
        assert!(matches!(next(), FromMachine::Busy));
        let last = loop {
            match next() {
                FromMachine::Busy => {}
                other => break other,
            }
        };
        assert!(
            matches!(last, FromMachine::Child(FromChild::Failed { .. })),
            "{last:?}"
        );
        host.set_read_timeout(Some(beat * 5)).unwrap();
        let silent = io::Read::read(&mut &host, &mut [0]);
        assert_eq!(silent.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        host.shutdown(std::net::Shutdown::Both).unwrap();
        machine.join().unwrap().unwrap();
    }
}
