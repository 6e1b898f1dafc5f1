//! EC2 as plain data: the images, snapshots, volumes, instances and keys of all local accounts and regions, and the
//! rules by which they change.
//!
//! A [`State`] is everything that a host knows. Every operation of the API is a method that takes a request to a
//! changed state or an [`ApiError`] with the code that AWS gives; who calls, in which region, when, and which ids are
//! free is handed in as [`Caller`] and [`Effects`]. Nothing here does I/O: the store keeps the state, the engine moves the bytes.
//!
//! A request that is refused has changed nothing, but that the default key may have been made. What takes time has a
//! beginning that says what is to be done (`run_instances`, `create_image`, `copy_image`, `stop_instances`, …) and an
//! end that the engine calls (`instance_running`, `complete_image`, `instance_stopped`, …).
//!
//! Source: EC2 API reference 2016-11-15, EC2 and EBS user guides; each rule names its page.

mod access;
pub mod audit;
mod check;
mod copy;
pub mod cost;
mod create;
mod describe;
mod devices;
mod error;
mod filter;
mod invariants;
mod keys;
pub mod lifecycle;
pub mod lineage;
mod lookup;
pub mod policy;
mod records;
mod register;
mod request;
mod retire;
mod run;
mod settings;
mod share;
mod tags;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transitions;
mod types;
mod volumes;

pub use copy::{CopiedImage, CopiedSnapshot, CopyImageRequest, CopySnapshotRequest, SnapshotCopy};
pub use create::{
    CreateImageRequest, CreateSnapshotRequest, CreatedImage, Pending, SnapshotContent,
    VolumeSnapshot,
};
pub use describe::{
    AliasDescription, AttachmentDescription, AttributeText, CpuOptionsDescription,
    DescribeImageAttributeRequest, DescribeImagesRequest, DescribeImagesResult,
    DescribeInstancesRequest, DescribeInstancesResult, DescribeKeysResult,
    DescribeSnapshotsRequest, DescribeSnapshotsResult, DescribeVolumesRequest,
    DescribeVolumesResult, EbsDescription, EbsInstanceDescription, GrantDescription,
    ImageAttribute, ImageDescription, InstanceDescription, InstanceMappingDescription,
    InstanceStateDescription, KeyDescription, LaunchPermissionDescription, MappingDescription,
    MetadataOptionsDescription, MonitoringDescription, NetworkInterfaceDescription,
    PlacementDescription, PrivateIpDescription, ProductCodeDescription, ReservationDescription,
    SnapshotDescription, StateReasonDescription, TagDescription, VolumeDescription,
};
pub use error::{ApiError, ErrorCode};
pub use filter::wildcard;
pub use keys::DEFAULT_KEY_ALIAS;
pub use records::{
    AccountId, Attachment, BinEntry, BuildOrigin, Caller, Effects, Encryption, EphemeralVolume,
    Grant, HttpTokens, Image, ImageState, Instance, InstanceState, InstanceVolume, Key, KeyId,
    KeyManager, KeyState, LaunchPermission, MetadataOptions, PortForward, Protection, Region,
    RootDevice, ShutdownBehavior, Snapshot, SnapshotPermission, SnapshotState, State, StateReason,
    Tags, TextError, Volume, VolumeState,
};
pub use register::{AdoptImage, Adopted, BundleFacts, MAX_BUNDLE_BYTES, RegisterImageRequest};
pub use request::{EbsRequest, Filter, MappingRequest, Tag, TagSpecification};
pub use retire::{
    DeleteReturnCode, DeprecateImageRequest, DeregisterImageRequest, Deregistered, ImageRequest,
    ProtectImageRequest, SnapshotRequest,
};
pub use run::{
    Launch, MAX_USER_DATA, MetadataOptionsRequest, NewVolume, Placement, RunInstances,
    RunInstancesRequest, VolumeSource,
};
pub use settings::{
    AllowedImages, AllowedImagesState, CreationDateCondition, DeprecationTimeCondition,
    ImageCriterion, ImageCriterionRequest, RegionSettings, retention,
};
pub use share::{
    AttributeValue, LaunchPermissionChanges, LaunchPermissionRequest, ModifyImageRequest,
    ModifySnapshotRequest, VolumePermissionChanges, VolumePermissionRequest,
};
pub use tags::{CreateTagsRequest, DeleteTag, DeleteTagsRequest};
pub use transitions::{Expired, InstancesRequest, Leftovers, ModifyInstanceRequest, StateChange};
pub use types::{DEFAULT_INSTANCE_TYPE, INSTANCE_TYPES, InstanceType};
pub use volumes::{AttachVolumeRequest, CreateVolumeRequest, DetachVolumeRequest};
