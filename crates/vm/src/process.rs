//! The QEMU process: its own process group, dying with us, its standard error kept.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Standard error that is kept, in bytes.
const STDERR_MAX: usize = 16 << 10;

/// A running QEMU. Dropping it kills the process group and reaps the process.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    status: Option<ExitStatus>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    /// The end of standard output, if it is listened to.
    console: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Qemu {
    /// Starts `command`. The process gets `SIGKILL` when the calling thread ends.
    pub(crate) fn start(command: Command) -> io::Result<Self> {
        Self::spawn(command, false)
    }

    /// The same; the end of its standard output is kept, too.
    pub(crate) fn start_with_console(command: Command) -> io::Result<Self> {
        Self::spawn(command, true)
    }

    fn spawn(mut command: Command, listen: bool) -> io::Result<Self> {
        let stdout = if listen {
            Stdio::piped()
        } else {
            Stdio::null()
        };
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0);
        amiforge_sys::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let stderr = child
            .stderr
            .take()
            .map(|pipe| std::thread::spawn(move || collect(pipe, &Mutex::default())));
        let console = child.stdout.take().map(|pipe| {
            let kept = Arc::<Mutex<Vec<u8>>>::default();
            let to = kept.clone();
            // It ends with the process.
            std::thread::spawn(move || collect(pipe, &to));
            kept
        });
        Ok(Self {
            child,
            status: None,
            stderr,
            console,
        })
    }

    /// The exit status, if the process has ended.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Its process id; it is its own until the process has been waited for.
    pub(crate) fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Waits up to `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait() {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the process group. The process has not been reaped, so its id is still its own.
    pub(crate) fn kill(&mut self) {
        if self.try_wait().is_none()
            && let Some(pid) = self.pid()
        {
            // It can only have ended by itself in between, which is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The end of standard output as far as it has come.
    pub(crate) fn console(&self) -> Vec<u8> {
        let kept = self.console.as_ref();
        kept.map(|kept| kept.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .unwrap_or_default()
    }

    /// The end of standard error; waits for the process to end.
    pub(crate) fn stderr(&mut self) -> String {
        if self.status.is_none() {
            self.status = self.child.wait().ok();
        }
        let bytes = self
            .stderr
            .take()
            .and_then(|t| t.join().ok())
            .unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
        if self.status.is_none() {
            let _ = self.child.wait();
        }
    }
}

/// Waits until a child has ended, and leaves it to be waited for: its id stays its own.
pub(crate) fn await_end(pid: Pid) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), options).is_err_and(|e| e == rustix::io::Errno::INTR) {}
}

/// Keeps the end of what comes; gives it at the end, too.
fn collect(mut pipe: impl Read, to: &Mutex<Vec<u8>>) -> Vec<u8> {
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buf) {
        let mut kept = to.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buf[..n]);
        if kept.len() > STDERR_MAX {
            let more = kept.len() - STDERR_MAX;
            kept.drain(..more);
        }
    }
    std::mem::take(&mut *to.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests;
