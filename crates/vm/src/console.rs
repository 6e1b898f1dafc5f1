//! Following a guest's serial console: which milestone it has reached, and whether it is lost.
//!
//! The console is foreign text: any bytes, any length, escape codes, carriage returns, prompts
//! without a line end. [`lines::Lines`] makes plain lines of it in bounded memory, [`rules`] says
//! what a line means, [`ConsoleScanner`] keeps the state between lines.

mod lines;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A point on the way from power-on to a working guest, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Milestone {
    /// SeaBIOS or OVMF speaks.
    Firmware,
    /// GRUB or another bootloader runs.
    Bootloader,
    /// The kernel's first line.
    Kernel,
    /// PID 1 of the root file system runs.
    Init,
    /// Init reached its target (`multi-user.target`).
    Target,
    /// A login prompt.
    Login,
    /// The agent's first message.
    Agent,
    /// The guest powered the machine off.
    PowerOff,
}

impl Milestone {
    /// The text form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Bootloader => "bootloader",
            Self::Kernel => "kernel",
            Self::Init => "init",
            Self::Target => "target",
            Self::Login => "login",
            Self::Agent => "agent",
            Self::PowerOff => "power-off",
        }
    }

    /// The milestones that must have been passed when this one is: a login prompt proves a kernel.
    /// The agent proves init but no target, as it may start before; powering off proves nothing.
    #[must_use]
    pub const fn implies(self) -> &'static [Self] {
        use Milestone::{Bootloader, Firmware, Init, Kernel, Target};
        match self {
            Self::Firmware | Self::PowerOff => &[],
            Self::Bootloader => &[Firmware],
            Self::Kernel => &[Firmware, Bootloader],
            Self::Init => &[Firmware, Bootloader, Kernel],
            Self::Target | Self::Agent => &[Firmware, Bootloader, Kernel, Init],
            Self::Login => &[Firmware, Bootloader, Kernel, Init, Target],
        }
    }
}

impl fmt::Display for Milestone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A guest that will not get any further by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GuestFailure {
    /// The firmware found nothing to boot.
    NoBootDevice(String),
    /// GRUB stopped at a rescue or command prompt.
    BootloaderPrompt(String),
    /// The kernel panicked.
    KernelPanic(String),
    /// The initramfs did not find the root file system and opened a shell.
    Initramfs(String),
    /// Init gave up and opened a maintenance shell.
    Emergency(String),
}

impl GuestFailure {
    /// Stable kebab-case code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoBootDevice(_) => "no-boot-device",
            Self::BootloaderPrompt(_) => "bootloader-prompt",
            Self::KernelPanic(_) => "kernel-panic",
            Self::Initramfs(_) => "initramfs-shell",
            Self::Emergency(_) => "emergency-shell",
        }
    }

    /// The console line that shows it.
    #[must_use]
    pub fn line(&self) -> &str {
        match self {
            Self::NoBootDevice(l)
            | Self::BootloaderPrompt(l)
            | Self::KernelPanic(l)
            | Self::Initramfs(l)
            | Self::Emergency(l) => l,
        }
    }
}

impl fmt::Display for GuestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NoBootDevice(_) => "the firmware found nothing to boot",
            Self::BootloaderPrompt(_) => "the bootloader stopped at its prompt",
            Self::KernelPanic(_) => "the kernel panicked",
            Self::Initramfs(_) => "the initramfs opened a shell",
            Self::Emergency(_) => "init opened a maintenance shell",
        };
        write!(f, "{what} ({:?})", self.line())
    }
}

/// Something the console showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsoleEvent {
    /// A milestone, at its first appearance.
    Milestone(Milestone),
    /// The guest is lost; reported once.
    Failure(GuestFailure),
}

/// Console lines kept for error messages.
const TAIL_LINES: usize = 40;

/// Reads a console as it comes and reports what it shows.
#[derive(Debug, Default)]
pub struct ConsoleScanner {
    lines: lines::Lines,
    stage: Option<Milestone>,
    in_initrd: bool,
    failed: bool,
    tail: VecDeque<String>,
}

impl ConsoleScanner {
    /// A scanner that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds bytes and returns what they show for the first time.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<ConsoleEvent> {
        let mut events = Vec::new();
        for line in self.lines.feed(bytes) {
            self.look(&line, true, &mut events);
            if self.tail.len() == TAIL_LINES {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
        let partial = self.lines.partial();
        if !partial.is_empty() {
            self.look(&partial, false, &mut events);
        }
        events
    }

    /// The last lines, oldest first, without escape codes; the unfinished line is the last.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        let partial = self.lines.partial();
        self.tail
            .iter()
            .cloned()
            .chain((!partial.trim().is_empty()).then_some(partial))
            .collect()
    }

    /// Tells the scanner of a milestone that the console did not show: the agent's message.
    pub fn advance(&mut self, milestone: Milestone) {
        self.stage = self.stage.max(Some(milestone));
    }

    fn look(&mut self, line: &str, complete: bool, events: &mut Vec<ConsoleEvent>) {
        if rules::enters_initrd(line) {
            self.in_initrd = true;
        }
        if let Some(milestone) = rules::milestone(line, self.stage, self.in_initrd) {
            self.stage = Some(milestone);
            events.push(ConsoleEvent::Milestone(milestone));
        }
        // After the look: the line itself is still the initramfs speaking.
        if complete && rules::leaves_initrd(line) {
            self.in_initrd = false;
        }
        if !self.failed
            && let Some(failure) = if complete {
                rules::failure(line, self.stage)
            } else {
                rules::prompt(line, self.stage)
            }
        {
            self.failed = true;
            events.push(ConsoleEvent::Failure(failure));
        }
    }
}
