//! EC2 on this host: instances in QEMU, and the life of images, snapshots and keys.
//!
//! The rules are those of [`amiforge_ami::ec2`]; here requests get their caller, time and chance, bytes are moved, and
//! processes started. A request changes the state in one transaction. What takes longer is begun by one transaction (a
//! pending image), done, and ended by another.

mod account;
mod adopt;
mod bundle;
mod control;
mod create;
mod desk;
mod folder;
mod govern;
mod images;
mod instance_store;
mod instances;
mod keys;
mod lifecycle;
mod run;
mod snapshots;
mod spanned;
mod supervise;
mod volumes;

pub use account::AccountChange;
pub use amiforge_ami::ec2 as api;
pub use amiforge_vm::imds::imds_relay;
pub use bundle::BundleRequest;
pub use create::CreatedImage;
pub use desk::Place;
pub use govern::{AuditReport, AuditRequest, AuditRule, PolicyCheck, PolicyRequest};
pub use images::{DeregisteredImage, ImageChange, ImagesRequest, RegisterDisk, ShareRequest};
pub use instances::{EndRequest, SshAccess, WaitRequest};
pub use keys::{KeyChange, KeyReport};
pub use lifecycle::LifecycleReport;
pub use run::RunRequest;
pub use snapshots::{SnapshotCheck, SnapshotDiff};
pub use supervise::{IMDS_RELAY_ARG, INSTANCE_ARG};
