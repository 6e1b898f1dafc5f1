//! What can go wrong with a boot.

use std::path::PathBuf;

use amiforge_ami::{DeviceName, Firmware};

use crate::console::{GuestFailure, Milestone};
use crate::report::BootRun;
use crate::{SpecError, ToolError};

/// An error of a function handed in.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a boot did not happen, or did not get through.
///
/// The variants that hold a run mean that the guest failed; the others that it could not be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// A tool is missing.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The manifest cannot be booted.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A file operation failed.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The digest function failed.
    #[error("cannot compute the content digest of {device}")]
    Digest {
        /// The volume.
        device: DeviceName,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A disk is not what the manifest says.
    #[error(
        "the disk of {device} is not the one in the manifest: its content digest is {found}, not {expected}"
    )]
    NotTheArtefact {
        /// The volume.
        device: DeviceName,
        /// Digest of the file.
        found: amiforge_types::Digest,
        /// Digest in the manifest.
        expected: amiforge_types::Digest,
    },
    /// QEMU refused its command line or died before the guest ran.
    #[error("QEMU did not start: {stderr}")]
    Qemu {
        /// The end of its standard error.
        stderr: String,
    },
    /// The guest did not get through in time.
    #[error(
        "the guest under {} did not get through within {seconds:.0} s; {}",
        .run.firmware, progress(.run)
    )]
    Timeout {
        /// The limit in seconds.
        seconds: f64,
        /// The last milestone.
        last: Option<Milestone>,
        /// Everything recorded.
        run: Box<BootRun>,
    },
    /// The console shows that the guest cannot go on.
    #[error("the guest under {} failed: {failure}; {}", .run.firmware, progress(.run))]
    Guest {
        /// What it shows.
        failure: GuestFailure,
        /// Everything recorded.
        run: Box<BootRun>,
    },
    /// The guest ended before the session did.
    #[error("the guest under {} {how} too early; {}", .run.firmware, progress(.run))]
    Exited {
        /// How: powered off, reset, or QEMU ended.
        how: String,
        /// Everything recorded.
        run: Box<BootRun>,
    },
    /// The session gave up.
    #[error("the session with the guest under {} failed", .run.firmware)]
    Session {
        /// Why.
        #[source]
        source: BoxError,
        /// Everything recorded.
        run: Box<BootRun>,
    },
    /// A guest that did not power off when asked.
    #[error("the guest under {} did not power off within {seconds:.0} s", .run.firmware)]
    NoPowerOff {
        /// The limit in seconds.
        seconds: f64,
        /// Everything recorded.
        run: Box<BootRun>,
    },
    /// The overlay leaked: a disk changed while the guest ran.
    #[error("the disk of {device} changed while the guest under {} ran", .run.firmware)]
    ArtefactChanged {
        /// The volume.
        device: DeviceName,
        /// Everything recorded.
        run: Box<BootRun>,
    },
    /// The caller asked to stop.
    #[error("the boot was interrupted")]
    Cancelled,
}

fn progress(run: &BootRun) -> String {
    match run.last_milestone() {
        Some(milestone) => format!("last milestone: {milestone}"),
        None => "no milestone was reached".to_owned(),
    }
}

impl VmError {
    /// What was recorded before the guest failed; `None` when it never ran.
    #[must_use]
    pub fn run(&self) -> Option<&BootRun> {
        match self {
            Self::Timeout { run, .. }
            | Self::Guest { run, .. }
            | Self::Exited { run, .. }
            | Self::Session { run, .. }
            | Self::NoPowerOff { run, .. }
            | Self::ArtefactChanged { run, .. } => Some(run),
            _ => None,
        }
    }

    /// The last lines of the console, oldest first.
    #[must_use]
    pub fn console_tail(&self) -> &[String] {
        self.run()
            .and_then(|run| run.failure.as_ref())
            .map_or(&[], |failure| &failure.console_tail)
    }

    /// True when a tool is missing: exit code 3 instead of 1.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Tool(_))
    }

    /// The firmware under which the guest failed.
    #[must_use]
    pub fn firmware(&self) -> Option<Firmware> {
        self.run().map(|run| run.firmware)
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
