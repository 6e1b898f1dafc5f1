//! The folder of an instance: its lock, its console, and what its process works with.
//!
//! ```text
//! ec2/instances/<instance>/lock          held by whoever starts it, then by its process; free: there is no machine
//!                          control.sock  where its process takes orders
//!                          console.log   what the guest wrote to its serial line since the last start; console.log.1: before that
//!                          console.before.log  the end of that of the start before
//!                          process.log   what its process and QEMU said
//!                          …             sockets, UEFI variables, instance store volumes
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amiforge_ami::InstanceId;
use amiforge_store::Sign;
use amiforge_vm::ConsoleReader;

use super::control::{Answer, Order, ask};
use super::desk::Desk;

/// Name of the console in the folder.
pub(super) const CONSOLE: &str = "console.log";
/// Name of what a long console was begun with.
const CONSOLE_OLD: &str = "console.log.1";
/// Name of the console of the start before.
const CONSOLE_BEFORE: &str = "console.before.log";
/// Name of the log of its process.
pub(super) const PROCESS_LOG: &str = "process.log";
/// Name of the picture of the screen.
pub(super) const SCREEN: &str = "screen.png";

/// The folder of an instance.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

/// The right to start the machine of an instance, and the sign that there is one.
#[derive(Debug)]
pub(super) struct MachineLock(Sign);

impl MachineLock {
    /// The open lock, to be handed to the process of the instance: as long as anybody has it open, it is held.
    pub(super) fn into_file(self) -> File {
        self.0.into_file()
    }
}

impl Desk<'_> {
    /// The folder of an instance, which may not be there.
    pub(super) fn folder(&self, id: &InstanceId) -> Folder {
        Folder {
            path: self.ec2.path().join("instances").join(id.as_str()),
        }
    }
}

impl Folder {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder, when it is not there, and locks it; `None` while there is a machine.
    pub(super) fn lock(&self) -> io::Result<Option<MachineLock>> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)?;
        let sign = Sign::claim(&self.path.join("lock")).map_err(io::Error::other)?;
        Ok(sign.map(MachineLock))
    }

    /// Whether there is a machine, or somebody is starting one. Looking at it does not disturb who starts one.
    pub(super) fn is_live(&self) -> io::Result<bool> {
        Sign::is_set(&self.path.join("lock")).map_err(io::Error::other)
    }

    /// What the guest wrote to its console since the last start, to be read on.
    pub(super) fn console(&self) -> ConsoleReader {
        ConsoleReader::new(&self.path.join(CONSOLE))
    }

    /// Puts the console of the start before away.
    pub(super) fn begin_console(&self) -> io::Result<()> {
        let there = |result: io::Result<()>| match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
        let (console, before) = (self.path.join(CONSOLE), self.path.join(CONSOLE_BEFORE));
        there(std::fs::rename(console, before))?;
        there(std::fs::remove_file(self.path.join(CONSOLE_OLD)))
    }

    /// Gives an order to the process of the instance.
    pub(super) fn ask(&self, order: &Order) -> io::Result<Answer> {
        ask(&self.path, order)
    }

    /// Waits until there is no machine any more: at most `limit`.
    pub(super) fn wait_until_free(&self, limit: Duration) {
        let until = Instant::now() + limit;
        while self.is_live().unwrap_or(false) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Removes the folder.
    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.path)
    }

    /// Removes what a terminated instance does not need any more: all but what its console and its process said.
    pub(super) fn empty(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if ![CONSOLE, CONSOLE_OLD, CONSOLE_BEFORE, PROCESS_LOG, "lock"]
                .iter()
                .any(|kept| name == *kept)
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The last lines of the log of its process.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read(self.path.join(PROCESS_LOG)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}
