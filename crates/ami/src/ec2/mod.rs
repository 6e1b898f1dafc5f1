//! EC2 as plain data: the images, snapshots, volumes, instances and keys of all local accounts and regions, and the
//! rules by which they change.
//!
//! A [`State`] is everything that a host knows. Every operation of the API is a function from a state and a request to a
//! changed state or an [`ApiError`] with the code that AWS gives; who calls, in which region, when, and which ids are
//! free is handed in as [`Caller`] and [`Effects`]. Nothing here does I/O: the store keeps the state, the engine moves the bytes.
//!
//! Source: EC2 API reference 2016-11-15, EC2 and EBS user guides; each rule names its page.

pub mod audit;
pub mod cost;
mod error;
pub mod lifecycle;
pub mod lineage;
pub mod policy;
mod records;
#[cfg(test)]
mod testing;

pub use error::{ApiError, ErrorCode};
pub use records::{
    AccountId, Attachment, BinEntry, BuildOrigin, Caller, Effects, Encryption, EphemeralVolume,
    Grant, HttpTokens, Image, ImageState, Instance, InstanceState, InstanceVolume, Key, KeyId,
    KeyManager, KeyState, LaunchPermission, MetadataOptions, PortForward, Protection, Region,
    RegionSettings, RootDevice, Snapshot, SnapshotPermission, SnapshotState, State, StateReason,
    Tags, TextError, Volume, VolumeState,
};
