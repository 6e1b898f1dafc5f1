//! Running programs: to the end, with a limit, or until they are killed.

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// No program that a test runs may take longer than this. A whole build with a boot under emulation fits.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// A program that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// The exit status as the kernel gave it.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error, as text.
    pub stderr: String,
    /// Wall-clock time from start to end.
    pub took: Duration,
}

impl Finished {
    /// The exit code; 128 + the signal number when a signal ended it, as a shell has it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|s| 128 + s))
            .unwrap_or(-1)
    }

    /// Standard output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as one JSON document; panics when it is not.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|e| panic!("standard output is not JSON: {e}\n{self}"))
    }

    /// Panics with everything known unless the exit code is `code`.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(self.code() == code, "expected exit code {code}\n{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nended with {} after {:.1} s\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code(),
            self.took.as_secs_f64(),
            tail(&self.text()),
            tail(&self.stderr)
        )
    }
}

/// The last lines of a long output: enough to see what went wrong without flooding the log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(200);
    lines[from..].join("\n")
}

/// A program that runs in its own process group, its output collected in files without a name, so
/// that neither a full pipe nor a surviving grandchild can block the test.
pub struct Running {
    command: String,
    child: Child,
    started: Instant,
    stdout: std::fs::File,
    stderr: std::fs::File,
    done: bool,
}

impl Running {
    /// Starts `command`; panics when the program cannot be started.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let shown = show(command);
        let stdout = tempfile::tempfile().expect("a temporary file for standard output");
        let stderr = tempfile::tempfile().expect("a temporary file for standard error");
        let child = command
            .stdout(stdout.try_clone().expect("duplicate a descriptor"))
            .stderr(stderr.try_clone().expect("duplicate a descriptor"))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|e| {
                panic!("cannot start `{shown}`: {e}; is it installed? `cargo xtask setup test` installs what tests need")
            });
        Self {
            command: shown,
            child,
            started: Instant::now(),
            stdout,
            stderr,
            done: false,
        }
    }

    /// Process id of the program; also the id of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&contents(&self.stderr)).into_owned()
    }

    /// Waits until standard error contains `text`. Panics when the program ends first or `limit` passes.
    #[track_caller]
    pub fn wait_for_stderr(&mut self, text: &str, limit: Duration) {
        self.wait_until(&format!("`{text}` on standard error"), limit, |p| {
            p.stderr().contains(text)
        });
    }

    /// Waits until `path` exists. Panics when the program ends first or `limit` passes.
    #[track_caller]
    pub fn wait_for_path(&mut self, path: &Path, limit: Duration) {
        self.wait_until(&format!("{} to appear", path.display()), limit, |_| {
            path.exists()
        });
    }

    /// Waits until `reached` says so. Panics when the program ends first or `limit` passes.
    #[track_caller]
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut reached: impl FnMut(&Self) -> bool,
    ) {
        let until = Instant::now() + limit;
        while !reached(self) {
            let ended = self.child.try_wait().expect("wait for a child");
            // Looked at once more: the program may have said it and ended between the two looks.
            if ended.is_some() && !reached(self) {
                panic!(
                    "waited for {what}, but the program ended\n{}",
                    self.collect()
                );
            }
            if Instant::now() > until {
                self.signal(Signal::KILL);
                panic!("waited {limit:?} for {what}\n{}", self.collect());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to the program *and* everything in its process group, as a terminal does.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The group is gone already: nothing to signal.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Presses ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// `kill -9` of the program alone: what the OOM killer does. Its children must notice by themselves.
    #[track_caller]
    pub fn kill9(mut self) -> Finished {
        self.child.kill().expect("kill -9");
        self.collect()
    }

    /// `kill -9` of the program and of all that it started in its group.
    #[track_caller]
    pub fn kill9_group(mut self) -> Finished {
        self.signal(Signal::KILL);
        self.collect()
    }

    /// Waits for the end; kills the group and panics when `limit` passes.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Finished {
        let until = self.started + limit;
        let mut pause = Duration::from_millis(1);
        while self.child.try_wait().expect("wait for a child").is_none() {
            if Instant::now() > until {
                self.signal(Signal::KILL);
                panic!("not finished after {limit:?}\n{}", self.collect());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        self.collect()
    }

    fn collect(&mut self) -> Finished {
        let status = self.child.wait().expect("wait for a child");
        self.done = true;
        Finished {
            command: self.command.clone(),
            status,
            stdout: contents(&self.stdout),
            stderr: String::from_utf8_lossy(&contents(&self.stderr)).into_owned(),
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// What the child wrote so far. The child shares the file's offset with us and writes there next, so
/// this reads at positions and never moves it.
fn contents(file: &std::fs::File) -> Vec<u8> {
    let mut data = Vec::new();
    let mut buf = [0; 64 << 10];
    while let Ok(n @ 1..) = file.read_at(&mut buf, data.len() as u64) {
        data.extend_from_slice(&buf[..n]);
    }
    data
}

/// A command for an outside tool: no inherited locale, so its messages can be read by the test, and
/// `/usr/sbin` on the path, where the checkers live.
#[must_use]
pub fn tool(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", search_path())
        .stdin(Stdio::null());
    command
}

/// The caller's search path plus the system administrator's folders, which an ordinary user lacks on Debian.
pub(crate) fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

/// Runs to the end whatever the exit code; panics only when it cannot start or never ends.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    Running::spawn(command).wait(LIMIT)
}

/// Runs to the end and panics, with all output, unless the exit code is 0.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    finish(command).expect_code(0)
}

fn show(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_a_failure_is_kept() {
        let end = finish(tool("sh").args(["-c", "echo out; echo err >&2; exit 7"])).expect_code(7);
        assert_eq!(
            (end.text().as_str(), end.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn much_output_on_both_streams_does_not_block() {
        let end = run(tool("sh").args([
            "-c",
            "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2",
        ]));
        assert_eq!((end.stdout.len(), end.stderr.len()), (3_000_000, 3_000_000));
    }

    #[test]
    #[should_panic(expected = "not finished")]
    fn a_program_that_hangs_is_a_failure() {
        Running::spawn(tool("sleep").arg("60")).wait(Duration::from_millis(50));
    }

    #[test]
    fn a_killed_program_reports_its_signal() {
        let mut p = Running::spawn(tool("sh").args(["-c", "echo ready >&2; sleep 60 & wait"]));
        p.wait_for_stderr("ready", Duration::from_secs(10));
        p.signal(Signal::KILL);
        assert_eq!(p.wait(Duration::from_secs(10)).code(), 128 + 9);
    }
}
