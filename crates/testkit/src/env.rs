//! A hermetic environment: nothing of the caller's home, locale or state reaches the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Finished, run, search_path};

/// A temporary folder with a home, a state folder (`AMIFORGE_HOME`) and room for outputs. It is
/// removed with everything in it when dropped, unless `AMIFORGE_TEST_KEEP` is set.
pub struct Env {
    dir: Option<tempfile::TempDir>,
    root: PathBuf,
}

impl Env {
    /// A fresh environment under the system's temporary folder.
    #[must_use]
    #[track_caller]
    pub fn new() -> Self {
        Self::under(&std::env::temp_dir())
    }

    /// A fresh environment under `parent`: a small disk, a memory-backed folder, a path with odd characters.
    #[must_use]
    #[track_caller]
    pub fn under(parent: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("amiforge-test-")
            .tempdir_in(parent)
            .unwrap_or_else(|e| panic!("a temporary folder under {}: {e}", parent.display()));
        let root = dir.path().to_path_buf();
        for sub in ["home", "state", "tmp"] {
            fs_err::create_dir(root.join(sub)).expect("a folder of the test environment");
        }
        Self {
            dir: Some(dir),
            root,
        }
    }

    /// `name` inside the environment's folder (it need not exist).
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// The state folder, `AMIFORGE_HOME` of every command.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Writes a file below the environment's folder, making its parents, and returns its path.
    #[track_caller]
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            fs_err::create_dir_all(parent).expect("a folder of the test environment");
        }
        fs_err::write(&path, content).expect("a file of the test environment");
        path
    }

    /// A command that sees this environment and nothing else of the caller's but `PATH`, in the
    /// workspace's root folder.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("AMIFORGE_HOME", self.state())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .current_dir(workspace_root());
        command
    }

    /// The real `amiforge`, in this environment.
    #[must_use]
    #[track_caller]
    pub fn amiforge(&self) -> Command {
        self.command(amiforge_binary())
    }

    /// Runs a command to its end and panics with its output unless the exit code is 0.
    #[track_caller]
    pub fn run(&self, command: &mut Command) -> Finished {
        run(command)
    }

    /// Command lines of the processes that still live in this environment (their `AMIFORGE_HOME` is
    /// ours), whoever started them. Empty after a well-behaved run.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let mark = format!("AMIFORGE_HOME={}", self.state().display());
        let Ok(entries) = fs_err::read_dir("/proc") else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let ours = fs_err::read(path.join("environ"))
                .is_ok_and(|vars| vars.split(|&b| b == 0).any(|v| v == mark.as_bytes()));
            if ours {
                let line = fs_err::read(path.join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                // A zombie that nobody has waited for yet has an empty command line, and does nothing.
                if !line.is_empty() {
                    found.push(format!("{} {line}", path.display()));
                }
            }
        }
        found
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Env {
    fn drop(&mut self) {
        if std::env::var_os("AMIFORGE_TEST_KEEP").is_some()
            && let Some(dir) = self.dir.take()
        {
            let _ = dir.keep();
        }
    }
}

/// The root folder of the workspace this crate was compiled in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Cargo's target folder, found from where the running test lies.
#[must_use]
pub fn target_dir() -> PathBuf {
    profile_dir()
        .parent()
        .map_or_else(|| workspace_root().join("target"), Path::to_path_buf)
}

/// `target/<profile>`: a test executable lies in its `deps`, a doc test somewhere in a temporary folder.
fn profile_dir() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| {
            let deps = exe
                .ancestors()
                .find(|dir| dir.file_name().is_some_and(|n| n == "deps"))?;
            Some(deps.parent()?.to_path_buf())
        })
        .unwrap_or_else(|| workspace_root().join("target/debug"))
}

/// The `amiforge` to test: `AMIFORGE_BIN` when set, else the one that lies beside the running test.
/// Panics when it is not built: `cargo xtask test` builds it first.
#[must_use]
#[track_caller]
pub fn amiforge_binary() -> PathBuf {
    let path = std::env::var_os("AMIFORGE_BIN")
        .map_or_else(|| profile_dir().join("amiforge"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: run `cargo build -p amiforge` before this test",
        path.display()
    );
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sees_only_the_environment() {
        let env = Env::new();
        let seen = env.run(&mut env.command("env")).text();
        let mut names: Vec<_> = seen.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["AMIFORGE_HOME", "HOME", "LC_ALL", "PATH", "TMPDIR"]);
        assert!(seen.contains(&format!("AMIFORGE_HOME={}", env.state().display())));
    }

    #[test]
    fn a_surviving_process_is_found() {
        let env = Env::new();
        assert_eq!(env.processes(), Vec::<String>::new());
        let sleeper = crate::Running::spawn(env.command("sleep").arg("60"));
        assert_eq!(env.processes().len(), 1);
        drop(sleeper);
        assert_eq!(env.processes(), Vec::<String>::new());
    }

    #[test]
    fn the_folder_goes_with_the_environment() {
        let env = Env::new();
        let file = env.write("a/b", "x");
        assert!(file.exists());
        drop(env);
        assert!(!file.exists());
    }
}
