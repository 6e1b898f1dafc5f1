//! Runs foreign commands: sandboxes, and the executor of component phases.
//!
//! ```text
//!  engine ──▶ Sandbox ──spawn──▶ helper program ──▶ child_main ──▶ namespaces, overlay, pivot_root
//!                 ◀── ChildEvent, RunResult ──                          └─▶ executor ─▶ actions
//!  host ◀── protocol over virtio-serial ──▶ guest agent ────────────────────▶ executor ─▶ actions
//! ```
//!
//! [`Sandbox`] is the parent's side. The child is any program that calls [`child_main`]. One
//! executor runs component phases on the live root `/` of wherever it is: in a sandbox, or in a
//! guest. It streams [`ChildEvent`]s and returns a [`RunResult`]; [`ToeLog`] turns both into the
//! log folder that AWSTOE leaves.
//!
//! What is not here: which layers to run and when (`engine`), and what a layer file looks like
//! (`tree`, `store`).
#![forbid(unsafe_code)]

mod actions;
pub mod aws;
mod child;
mod error;
mod event;
mod executor;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handed;
mod kept;
mod logs;
mod net;
mod outside;
pub mod protocol;
mod root;
mod sandbox;
mod spec;
#[cfg(test)]
mod testing;
mod wire;

pub use actions::download_of;
pub use child::child_main;
pub use error::SandboxError;
pub use event::{
    CLEANUP_MARKERS, ChildEvent, DocumentResult, DocumentSpec, Download, External, Failure,
    PhaseResult, RunResult, RunSpec, RunSummary, ScriptResult, ShellResult, Status, StepResult,
};
pub use executor::{
    Executed, Journal, NOT_IN_MEMORY, run as run_here, run_on_tree, run_until_restart,
    works_on_files,
};
pub use kept::{KeptName, LentDownload, MOST_LENT, Origin, fetch_download};
pub use logs::ToeLog;
pub use outside::{NOT_PINNED, Outside, Pins};
pub use root::{TreeRoot, TreeRootError};
pub use sandbox::{
    Chosen, Console, Helper, LAYERS_PORT, LINK_PORT, Machine, MachineDisks, MachineLines, Machines,
    OnEvent, Pause, Pauses, SHELL_PORTS, Sandbox, Tried, serve_jobs,
};
pub use spec::{
    ID_COUNT, IdMap, Limits, PlaceError, RootSpec, ScriptSpec, ShellSpec, Shim, Way, lent_place,
};

/// The argument with which a program is asked to play the child of a [`Sandbox`].
pub const CHILD_ARG: &str = "__sandbox";

/// Longest line of output, in bytes; a longer one arrives as several.
pub const MAX_LINE: usize = 16 << 10;
