//! QEMU as EC2 would start an instance: from the AMI manifest and its block device mappings.
//!
//! [`BootSpec::from_manifest`] decides what is attached, [`boot`] starts the machine with a
//! throw-away overlay over every volume, follows the serial console from milestone to milestone,
//! gives the caller a [`GuestLink`] to the agent inside the guest, powers off, and tells what
//! happened as a [`BootRun`]. The artefact is never written; a digest function handed in proves it.
//!
//! An instance that runs for as long as it is wanted is a [`RunningInstance`]; its volumes reach QEMU
//! through [`nbd`], its metadata through [`imds`].
//!
//! What is *not* here: components and test phases (the caller speaks with the agent), what an
//! instance's volumes are made of, and the layout of disks.
//!
//! ```no_run
//! # use amiforge_vm::*;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (manifest, dir, options): (amiforge_ami::Manifest, std::path::PathBuf, BootOptions) = unimplemented!();
//! # let digest = |_: &Volume| -> Result<amiforge_types::Digest, BoxError> { unimplemented!() };
//! let tools = QemuTools::find()?;
//! let spec = BootSpec::from_manifest(&manifest, &dir, Firmware::Bios, options)?;
//! let hooks = BootHooks { digest: &digest, milestone: &|_, _| {} };
//! let run = boot(&tools, &spec, &hooks, &mut |link| {
//!     link.wait_for(Milestone::Target, link.remaining())?;
//!     Ok(SessionOutcome { passed: true, tests: serde_json::Value::Null })
//! })?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod accel;
mod args;
mod boot;
mod console;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod imds;
mod initrd;
mod instance;
mod link;
mod listener;
mod machine;
mod micro;
pub mod nbd;
mod overlay;
mod payload;
mod process;
mod qmp;
mod report;
mod sockets;
mod spec;
mod tools;

pub use accel::{Acceleration, Accelerator, probe_acceleration};
pub use amiforge_ami::Firmware;
pub use args::HOST_ADDRESS;
pub use boot::{BootHooks, boot};
pub use console::{ConsoleEvent, ConsoleScanner, GuestFailure, Milestone};
pub use error::{BoxError, VmError};
pub use initrd::{InitrdEntry, write_initrd};
pub use instance::{
    ConsoleReader, ConsoleServer, DiskSource, Exit, ExitReason, InstanceDisk, InstanceError,
    InstanceEvent, InstanceNetwork, InstanceSpec, RunningInstance, ScreenFormat, Status,
    SubnetError,
};
pub use link::{GuestLink, LinkError, MAX_LINE_BYTES, SessionError, SessionOutcome};
pub use micro::{MicroDisk, MicroSpec, MicroVm};
pub use payload::{TinyEnding, TinyGuest};
pub use report::{BOOT_REPORT_VERSION, BootReport, BootRun, Failure, MilestoneRecord, VolumeProof};
pub use spec::{BootOptions, BootSpec, SpecError, Volume, VolumeSource};
pub use tools::{Ovmf, QemuTools, QemuVersion, ToolError};
