//! What can go wrong with an instance.

use std::path::PathBuf;

use super::SubnetError;
use crate::qmp::CommandError;
use crate::{ToolError, VmError};

/// Why an instance did not start, or did not do what it was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// QEMU is missing, a file operation failed, or QEMU did not start.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The address of the guest cannot be served.
    #[error(transparent)]
    Subnet(#[from] SubnetError),
    /// More disks than the machine has room for.
    #[error("an instance with {0} disks is more than the machine has room for")]
    TooManyDisks(usize),
    /// A path that cannot be handed to QEMU: not UTF-8, or too long for a socket.
    #[error("QEMU cannot be given {}: it is not UTF-8, or too long for a socket's address", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// QEMU refused a command.
    #[error("QEMU refused {command}: {message}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Why.
        message: String,
    },
    /// Something did not answer in time.
    #[error("no answer to {0} in time")]
    Late(&'static str),
    /// The machine is off.
    #[error("the instance does not run any more")]
    Gone,
    /// No guest agent runs inside.
    #[error("no QEMU guest agent runs in the instance")]
    NoAgent,
    /// The guest agent refused a command.
    #[error("the guest agent refused {command}: {message}")]
    Agent {
        /// The command.
        command: &'static str,
        /// Why; foreign text.
        message: String,
    },
}

impl InstanceError {
    /// True when a tool is missing: exit code 3 instead of 1.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Vm(error) if error.is_environment())
    }

    pub(super) fn of_command(command: &'static str) -> impl FnOnce(CommandError) -> Self {
        move |error| match error {
            CommandError::Refused(message) => Self::Refused { command, message },
            CommandError::Late => Self::Late(command),
            CommandError::Gone => Self::Gone,
        }
    }
}

impl From<ToolError> for InstanceError {
    fn from(error: ToolError) -> Self {
        Self::Vm(error.into())
    }
}
