//! The operations of amiforge: validate, plan, build, test, assemble, inspect, diff.
//!
//! This crate is where effects are made: it reads the clock and the environment (in [`Settings`]),
//! opens the store, and hands bytes, times and seeds to the crates below, which have none of their
//! own. It prints nothing; what happens is told as [`Event`]s.
#![forbid(unsafe_code)]

mod assemble;
mod build;
mod diff;
mod doctor;
mod error;
mod event;
mod layers;
mod load;
mod look;
mod output;
mod parent;
mod plans;
mod prove;
mod rootfs;
mod settings;
mod volumes;

pub use assemble::{AssembleReport, AssembleRequest, AssembledFile, BootChoice, Checksums};
pub use build::{BuildOutcome, BuildRequest};
pub use diff::{DiffReport, DiffRequest};
pub use doctor::{DoctorReport, Finding};
pub use error::{DocumentReport, EngineError, ErrorKind};
pub use event::{Event, EventSink};
pub use load::RecipeRequest;
pub use look::{DiskReport, InspectEntry};
pub use plans::{PlanReport, PlannedLayer, TOOL_VERSION};
pub use prove::{FirmwareChoice, TestReport, TestRequest};
pub use settings::{Engine, Interruption, Settings};
