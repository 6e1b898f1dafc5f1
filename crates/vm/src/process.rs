//! The QEMU process: its own process group, dying with us, its standard error kept.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
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
}

impl Qemu {
    /// Starts `command`. The process gets `SIGKILL` when the calling thread ends.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        amiforge_sys::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let stderr = child
            .stderr
            .take()
            .map(|pipe| std::thread::spawn(move || collect(pipe)));
        Ok(Self {
            child,
            status: None,
            stderr,
        })
    }

    /// The exit status, if the process has ended.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
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
            && let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // It can only have ended by itself in between, which is what is wanted.
            let _ = kill_process_group(pid, Signal::KILL);
        }
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

fn collect(mut pipe: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buf = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buf) {
        kept.extend_from_slice(&buf[..n]);
        if kept.len() > STDERR_MAX {
            kept.drain(..kept.len() - STDERR_MAX);
        }
    }
    kept
}

#[cfg(test)]
mod tests;
