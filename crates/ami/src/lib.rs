//! The AMI model: what an image is to EC2, as plain data.
//!
//! A build ends in a [`Manifest`] (`manifest.json`): identity, boot mode, block device mappings,
//! volumes with their partitions and content digests, and where everything came from. Two request
//! files for the AWS command line are derived from it: [`register_image_request`] and
//! [`run_instances_mappings`]. The boot proof reads the manifest, not the recipe, to know which
//! disks to attach.
//!
//! What is *not* here: anything that does I/O, and anything that talks to AWS.
//!
//! Entry type: [`Manifest`], made by [`Manifest::new`] from a [`ManifestSpec`] or read by
//! [`Manifest::from_json`]; both check every rule, so a `Manifest` in hand is a valid one.
#![forbid(unsafe_code)]

/// The JSON Schema of `manifest.json`, as it is published.
pub const MANIFEST_SCHEMA: &str = include_str!("../../../docs/schema/manifest.schema.json");

mod boot_mode;
mod container;
mod device;
mod ebs;
pub mod ec2;
mod id;
mod manifest;
mod mapping;
mod name;
mod request;
#[cfg(test)]
mod tests;

pub use boot_mode::{BootMode, Firmware};
pub use container::{
    ContainerKind, ContainerLayer, ContainerManifest, ContainerManifestError, ContainerTest,
};
pub use device::{DeviceName, DeviceNameError};
pub use ebs::{EbsError, EbsVolume, VolumeType};
pub use id::{IdParseError, ImageId, InstanceId, ReservationId, SnapshotId, VolumeId};
pub use manifest::{
    Artifact, ArtifactFormat, BootProof, ComponentRecord, CreationDate, LayerRecord, LayerRun,
    MAX_MANIFEST_BYTES, Manifest, ManifestError, ManifestProblem, ManifestSpec, ParentImage,
    PartitionInfo, RootDeviceType, SCHEMA_VERSION, ToolInfo, V2Support, VirtualizationType,
    VolumeInfo,
};
pub use mapping::{BlockDeviceMapping, MappingError, MappingTarget, VirtualName, check_mappings};
pub use name::{NameError, check_ami_name};
pub use request::{register_image_request, run_instances_mappings};
