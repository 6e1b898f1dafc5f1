//! The operations of amiforge: validate, plan, build, test, components, export, assemble, convert, inspect, diff, cache.
//!
//! This crate is where effects are made: it reads the clock and the environment (in [`Settings`]),
//! opens the store, and hands bytes, times and seeds to the crates below, which have none of their
//! own. It prints nothing; what happens is told as [`Event`]s.
#![forbid(unsafe_code)]

mod assemble;
mod build;
mod cache;
mod check;
mod cleanup;
mod components;
mod compress;
mod container;
mod convert;
mod diff;
mod diskfiles;
mod disks;
mod doctor;
pub mod ec2;
mod error;
mod event;
mod export;
mod files;
mod hygiene;
mod inspect;
mod kept;
mod layers;
mod lent;
mod library;
mod load;
mod lock;
mod look;
mod machines;
mod many;
mod output;
mod outside;
mod parent;
mod plans;
mod prove;
mod rootfs;
mod schemas;
mod settings;
mod shared;
mod shell;
mod shown;
mod sources;
mod steps;
mod variables;
mod volumes;

/// What can be said about disk files.
pub use amiforge_disk::{Compression, Format, Subformat};
pub use amiforge_exec::Way;
pub use amiforge_recipe::{SecretSource, codes, explain, nearest_code};
/// Where a shared cache is.
pub use amiforge_source::SharedPlace;
pub use assemble::{AssembleRequest, BootChoice};
pub use build::{BuildOutcome, BuildRequest};
pub use cache::{CacheReport, CachedLayer, Collected, Downloads, HoldingImage, Keep};
pub use check::{AGAIN_ARG, CheckReport, CheckedFile, CheckedLayer, Difference, again_main};
pub use components::ComponentRequest;
pub use convert::ConvertRequest;
pub use diff::{DiffReport, DiffRequest};
pub use diskfiles::{Checksums, DiskFile, DiskFilesReport, OutputRequest};
pub use doctor::{DoctorReport, Finding};
pub use error::{DocumentPlace, DocumentReport, EngineError, ErrorKind};
pub use event::{EVENTS_VERSION, Event, EventSink};
pub use export::{ExportFormat, ExportRequest, Exported};
pub use inspect::{InspectEntry, InspectXattr, TreeLine};
pub use layers::ShellAccess;
pub use library::{LibraryDocument, library, library_document};
pub use load::RecipeRequest;
pub use lock::{LockReport, LockRequest, LockedChangelog, LockedInput, LockedPackage, PackageFate};
pub use look::DiskReport;
pub use many::{Built, BuiltOne};
pub use plans::{PlanQuery, PlanReport, PlannedLayer, TOOL_VERSION};
pub use prove::{FirmwareChoice, TestReport, TestRequest};
pub use schemas::{schema, schemas};
pub use settings::{Engine, Interruption, Settings};
pub use shared::{CacheRequest, CacheWriter};
pub use shell::{ShellRequest, ShellWhere};
