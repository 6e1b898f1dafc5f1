//! What the host and the guest agent say to one another, one JSON object per line, over the
//! virtio-serial port [`PORT`].
//!
//! ```text
//! guest → host   {"type":"hello", …}          once the guest has reached its target
//! host → guest   {"type":"lend", …}           what the runs after it may use of the host's; no answer
//! host → guest   {"type":"run", …}            any number of times, one after the other
//! guest → host   {"type":"event", …}          while it runs
//! guest → host   {"type":"result", …}         at its end
//! guest → host   {"type":"restart", …}        instead, when a step wants one
//! host → guest   {"type":"restart"}           once the host is ready for it
//! guest → host   {"type":"bye"}               just before it restarts; a hello follows
//! host → guest   {"type":"resume", …}         the run again, with what of it is done
//! host → guest   {"type":"poweroff"}
//! guest → host   {"type":"bye"}               just before it powers off
//! ```

use serde::{Deserialize, Serialize};

use crate::event::{ChildEvent, RunResult, RunSpec};
use crate::executor::Journal;
use crate::outside::Outside;

/// Version of this protocol. A host refuses another one.
pub const VERSION: u32 = 3;

/// Name of the virtio-serial port.
pub const PORT: &str = "org.amiforge.agent.0";

/// Longest line either side accepts, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// Longest result that a guest sends, in bytes: a host takes no line above 4 MiB.
pub const MAX_RESULT: usize = 3 << 20;

/// Host to guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Request {
    /// Say hello again; answered at once.
    Hello,
    /// What the transfer actions of later runs may use.
    Lend(Outside),
    /// Run component phases.
    Run(RunSpec),
    /// Go on with a run after a restart.
    Resume {
        /// As it was given first.
        run: RunSpec,
        /// Of the restart before.
        journal: Journal,
    },
    /// Restart the machine.
    Restart,
    /// Shut down cleanly.
    Poweroff,
}

/// Guest to host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Reply {
    /// The agent is there.
    Hello(Hello),
    /// Something happened in the current run.
    Event {
        /// What.
        event: ChildEvent,
    },
    /// The current run ended.
    Result {
        /// How.
        result: Box<RunResult>,
    },
    /// A step of the current run wants the machine to restart.
    Restart {
        /// What of the run is done.
        journal: Journal,
    },
    /// The request could not be carried out at all.
    Error {
        /// Why, with causes, in one line.
        message: String,
    },
    /// The guest goes down now, for good or to restart.
    Bye,
}

/// What the agent knows of its guest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// [`VERSION`] of the agent.
    pub version: u32,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Seconds since the kernel started.
    pub uptime: f64,
    /// True when the guest was started by UEFI firmware.
    pub efi: bool,
    /// What `systemctl is-system-running` said: `running`, `degraded`, … ; `unknown` without systemd.
    pub system_state: String,
    /// Units in the failed state, sorted.
    pub failed_units: Vec<String>,
}
