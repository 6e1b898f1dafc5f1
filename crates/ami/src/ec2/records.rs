//! What is kept of each resource. Written as JSON, one record of the store each; absent members are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use amiforge_types::{Arch, Digest, Timestamp};
use serde::{Deserialize, Serialize};

use super::RegionSettings;
use crate::{
    BlockDeviceMapping, BootMode, CreationDate, DeviceName, Firmware, ImageId, InstanceId,
    ReservationId, SnapshotId, V2Support, VirtualName, VolumeId, VolumeType,
};

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct TextError {
    /// What it should be.
    pub expected: &'static str,
    /// The text, shortened.
    pub text: String,
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $good:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let good: fn(&str) -> bool = $good;
                if good(s) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(TextError { expected: $expected, text: s.chars().take(60).collect() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text! {
    /// An account: 12 digits, leading zeros kept.
    AccountId, "an account id of 12 digits",
    |s| s.len() == 12 && s.bytes().all(|b| b.is_ascii_digit())
}

text! {
    /// A region, for example `eu-central-1`; any name of this shape is one.
    Region, "a region such as eu-central-1",
    |s| {
        let parts: Vec<&str> = s.split('-').collect();
        let word = |p: &&str| (2..=12).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_lowercase());
        (3..=5).contains(&parts.len())
            && parts[..parts.len() - 1].iter().all(word)
            && parts[parts.len() - 1].parse::<u8>().is_ok_and(|n| n > 0)
            && !parts[parts.len() - 1].starts_with(['0', '+'])
    }
}

text! {
    /// The id of a key, a UUID in lower case.
    KeyId, "a key id (a UUID)",
    |s| s.len() == 36 && s.bytes().enumerate().all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { b == b'-' } else { matches!(b, b'0'..=b'9' | b'a'..=b'f') })
}

impl AccountId {
    /// The account of who says none.
    #[must_use]
    pub fn local() -> Self {
        Self("123456789012".to_owned())
    }
}

impl Region {
    /// The region of who says none.
    #[must_use]
    pub fn local() -> Self {
        Self("us-east-1".to_owned())
    }

    /// Its first availability zone.
    #[must_use]
    pub fn zone(&self) -> String {
        format!("{self}a")
    }
}

/// Tags of a resource, by key.
pub type Tags = BTreeMap<String, String>;

/// Who asks, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account: AccountId,
    /// The region that the request goes to.
    pub region: Region,
}

/// What only the outside can give.
pub trait Effects {
    /// The time of the request.
    fn now(&self) -> Timestamp;
    /// Random bits for a new id.
    fn random(&mut self) -> u128;
}

/// Everything that is known, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Images, also those in the recycle bin, and deregistered ones (which keep their ids from being used again).
    pub images: BTreeMap<ImageId, Image>,
    /// Snapshots, also those in the recycle bin.
    pub snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// Volumes.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Instances, also terminated ones for an hour.
    pub instances: BTreeMap<InstanceId, Instance>,
    /// Keys.
    pub keys: BTreeMap<KeyId, Key>,
    /// Settings, by account and region.
    pub settings: BTreeMap<(AccountId, Region), RegionSettings>,
}

/// `State` of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageState {
    /// Its snapshots are being made.
    Pending,
    /// It can be launched.
    Available,
    /// It came to nothing; the reason says why.
    Failed,
    /// Its owner took it out of use.
    Disabled,
    /// It is gone, or in the recycle bin.
    Deregistered,
}

/// Why something is in its state: a code such as `Client.UserInitiatedShutdown`, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReason {
    /// The code.
    pub code: String,
    /// The sentence.
    pub message: String,
}

/// Who beside the owner may launch an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LaunchPermission {
    /// Everybody: the group `all`.
    All,
    /// An account.
    UserId(AccountId),
    /// An organization, by its ARN.
    OrganizationArn(String),
    /// An organizational unit, by its ARN.
    OrganizationalUnitArn(String),
}

/// Who beside the owner may make volumes and copies of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SnapshotPermission {
    /// Everybody.
    All,
    /// An account.
    UserId(AccountId),
}

/// Protection of an image against deregistration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// None.
    #[default]
    Disabled,
    /// Until it is taken off.
    EnabledWithoutCooldown,
    /// Until a day after it is taken off.
    EnabledWithCooldown {
        /// When it was taken off.
        #[serde(
            default,
            rename = "offSince",
            alias = "off_since",
            skip_serializing_if = "Option::is_none"
        )]
        off_since: Option<CreationDate>,
    },
}

/// That a resource lies in the recycle bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BinEntry {
    /// When it came there.
    pub entered: CreationDate,
    /// When it goes for good.
    pub exits: CreationDate,
    /// Whether it was disabled: it is so again when it comes back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// Where the root volume of an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootDevice {
    /// A snapshot.
    Ebs,
    /// A bundle.
    InstanceStore,
}

/// The build that an image came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildOrigin {
    /// Name of the recipe.
    pub recipe: String,
    /// Version of the recipe.
    pub version: String,
    /// The plan.
    pub plan_id: Digest,
    /// The parent as the recipe asked for it.
    pub parent: String,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its id.
    pub image_id: ImageId,
    /// Unique in account and region.
    pub name: String,
    /// Up to 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The owner.
    pub owner: AccountId,
    /// The region.
    pub region: Region,
    /// The state.
    pub state: ImageState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// When it was made here.
    pub creation_date: CreationDate,
    /// Processor architecture.
    pub architecture: Arch,
    /// How it boots; absent when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// Where its root comes from.
    pub root_device_type: RootDevice,
    /// The root.
    pub root_device_name: DeviceName,
    /// Its volumes; each EBS entry that is not empty names a snapshot of `snapshots`.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// Enhanced networking.
    #[serde(default)]
    pub ena_support: bool,
    /// Enhanced networking of the Intel 82599, `simple`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sriov_net_support: bool,
    /// Instances default to IMDSv2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imds_support: Option<V2Support>,
    /// NitroTPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm_support: Option<V2Support>,
    /// The store of UEFI variables, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uefi_data: Option<String>,
    /// For example `Linux/UNIX`.
    pub platform_details: String,
    /// For example `RunInstances`.
    pub usage_operation: String,
    /// Codes of the marketplace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    /// Codes of billed software.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub billing_products: Vec<String>,
    /// The owner's tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Tags that other accounts gave it; each account sees its own alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_tags: BTreeMap<AccountId, Tags>,
    /// Who may launch it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub launch_permissions: BTreeSet<LaunchPermission>,
    /// When it is hidden from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecation_time: Option<CreationDate>,
    /// Whether it can be deregistered.
    #[serde(default)]
    pub deregistration_protection: Protection,
    /// The instance that it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_instance_id: Option<InstanceId>,
    /// The image that it is a copy of, or that its instance was launched from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image_id: Option<ImageId>,
    /// The region of that image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image_region: Option<Region>,
    /// When an instance was launched from it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_launched_time: Option<CreationDate>,
    /// Where its manifest lies, of an instance-store image: an absolute path on this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_location: Option<String>,
    /// Bytes of the root file system image in that bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_bytes: Option<u64>,
    /// The build it is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildOrigin>,
    /// Client token of the request that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// Digest of that request, to tell a repetition from another request with the same token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request: Option<Digest>,
    /// Set while it lies in the recycle bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin: Option<BinEntry>,
}

/// `State` of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotState {
    /// Its blocks are being written.
    Pending,
    /// Complete.
    Completed,
    /// It came to nothing.
    Error,
    /// In the recycle bin.
    Recoverable,
}

/// How a volume or snapshot is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Encryption {
    /// The key that wraps the data key.
    pub key_id: KeyId,
    /// The data key: what its wrapped form is kept under. Snapshots of one volume share it.
    pub data_key_id: Digest,
}

/// A snapshot: a list of blocks of 512 KiB at one point in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its id.
    pub snapshot_id: SnapshotId,
    /// The owner.
    pub owner: AccountId,
    /// The region.
    pub region: Region,
    /// The volume it was taken of; absent for imports and copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_id: Option<VolumeId>,
    /// Up to 255 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The state.
    pub state: SnapshotState,
    /// Why it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_message: Option<String>,
    /// When it was begun.
    pub start_time: CreationDate,
    /// When it was complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<CreationDate>,
    /// Size of the volume in GiB.
    pub volume_size: u32,
    /// Encryption, unless its blocks lie in the open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The block map: a digest of its own file in the store. Absent until the snapshot is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Digest>,
    /// Blocks that are not zero.
    pub blocks: u64,
    /// Of these, blocks that the snapshot before it had not: what it added to the store.
    pub changed_blocks: u64,
    /// The snapshot that its volume was made from, or that it is a copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// Codes of the marketplace; images registered from it get them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    /// The owner's tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// Tags that other accounts gave it; each account sees its own alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub other_tags: BTreeMap<AccountId, Tags>,
    /// Who may make volumes of it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub permissions: BTreeSet<SnapshotPermission>,
    /// Set while it lies in the recycle bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bin: Option<BinEntry>,
}

/// `State` of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Being made.
    Creating,
    /// Attached to no instance.
    Available,
    /// Attached.
    InUse,
    /// It came to nothing.
    Error,
}

/// To what a volume is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The instance.
    pub instance_id: InstanceId,
    /// The device name.
    pub device: DeviceName,
    /// Whether the volume goes when the instance does.
    pub delete_on_termination: bool,
    /// Since when; of a volume that was made with its instance, since it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach_time: Option<CreationDate>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its id.
    pub volume_id: VolumeId,
    /// The owner.
    pub owner: AccountId,
    /// The region.
    pub region: Region,
    /// The zone.
    pub availability_zone: String,
    /// Size in GiB.
    pub size: u32,
    /// The type.
    pub volume_type: VolumeType,
    /// Provisioned I/O operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// Provisioned throughput, MiB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
    /// The snapshot it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_id: Option<SnapshotId>,
    /// The block map that it was made from. It keeps the blocks below a running volume when the snapshot is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Digest>,
    /// Encryption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// The state.
    pub state: VolumeState,
    /// To what it is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachment: Option<Attachment>,
    /// When it was made.
    pub create_time: CreationDate,
    /// Tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// `State` of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Being started.
    Pending,
    /// Its machine runs.
    Running,
    /// Being terminated.
    ShuttingDown,
    /// Gone for good.
    Terminated,
    /// Being stopped.
    Stopping,
    /// Off; its volumes stay.
    Stopped,
}

impl InstanceState {
    /// The number that the API gives it.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }

    /// The name that the API gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }
}

/// Whether a session token is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpTokens {
    /// IMDSv1 works, too.
    Optional,
    /// IMDSv2 only.
    Required,
}

/// `InstanceInitiatedShutdownBehavior`: what a power-off by the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShutdownBehavior {
    /// The instance stops.
    #[default]
    Stop,
    /// The instance is terminated.
    Terminate,
}

/// `MetadataOptions` of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetadataOptions {
    /// Whether the service answers at all.
    pub http_endpoint: bool,
    /// Whether a token is needed.
    pub http_tokens: HttpTokens,
    /// 1 to 64.
    pub http_put_response_hop_limit: u8,
    /// Whether the instance's tags are in the metadata.
    pub instance_metadata_tags: bool,
}

/// A port of the host that leads into the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortForward {
    /// Port of the host, on 127.0.0.1.
    pub host: u16,
    /// Port of the guest.
    pub guest: u16,
    /// Nobody asked for this port of the host: it may be another one at the next start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_host: bool,
}

/// A volume of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceVolume {
    /// The device name.
    pub device: DeviceName,
    /// The volume.
    pub volume_id: VolumeId,
}

/// An instance store volume of an instance: empty at first, gone with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EphemeralVolume {
    /// The device name.
    pub device: DeviceName,
    /// Its number.
    pub virtual_name: VirtualName,
    /// Size in GiB.
    pub size: u32,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its id.
    pub instance_id: InstanceId,
    /// The reservation it belongs to.
    pub reservation_id: ReservationId,
    /// The owner.
    pub owner: AccountId,
    /// The region.
    pub region: Region,
    /// The zone.
    pub availability_zone: String,
    /// The image it was launched from.
    pub image_id: ImageId,
    /// For example `t3.micro`.
    pub instance_type: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processor architecture.
    pub architecture: Arch,
    /// The firmware it boots with.
    pub firmware: Firmware,
    /// Boot mode of its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<BootMode>,
    /// The state.
    pub state: InstanceState,
    /// Why it is in it, for example `User initiated (2026-11-28 12:00:00 GMT)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state_transition_reason: String,
    /// The same with a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<StateReason>,
    /// When it was started last.
    pub launch_time: CreationDate,
    /// When it was terminated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminated: Option<CreationDate>,
    /// Where its root comes from.
    pub root_device_type: RootDevice,
    /// The root.
    pub root_device_name: DeviceName,
    /// Its volumes, the root first.
    pub volumes: Vec<InstanceVolume>,
    /// Its instance store volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ephemeral: Vec<EphemeralVolume>,
    /// Name of the key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Its public key, one line of `authorized_keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// User data, base64 of at most 16384 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_data: Option<String>,
    /// Options of the metadata service.
    pub metadata_options: MetadataOptions,
    /// Hardware address of the network interface.
    pub mac: String,
    /// Its private address.
    pub private_ip: String,
    /// Ports of the host that lead into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortForward>,
    /// Whether it may reach the network beyond this host.
    pub outbound: bool,
    /// Its number in its reservation, from 0.
    #[serde(default)]
    pub ami_launch_index: u32,
    /// Whether it ever reached `running`: a first launch that fails is terminated, a later start stops again.
    #[serde(default)]
    pub ran: bool,
    /// Whether it is protected against `TerminateInstances`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disable_api_termination: bool,
    /// What a power-off by the guest does.
    #[serde(default)]
    pub shutdown_behavior: ShutdownBehavior,
    /// Enhanced networking, as the image has it.
    #[serde(default)]
    pub ena_support: bool,
    /// NitroTPM, as the image has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm_support: Option<V2Support>,
    /// As the image has it.
    pub platform_details: String,
    /// As the image has it.
    pub usage_operation: String,
    /// Codes of the marketplace, as the image has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    /// Client token of the request that launched it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// Digest of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request: Option<Digest>,
    /// Tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

/// Who manages a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum KeyManager {
    /// The default key of an account and region, `aws/ebs`; it cannot be shared.
    Aws,
    /// A customer managed key.
    Customer,
}

/// `KeyState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyState {
    /// It can be used.
    Enabled,
    /// It cannot be used.
    Disabled,
    /// It goes at its deletion date, and cannot be used.
    PendingDeletion,
}

/// What a key's owner allows another account: to use it for EBS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The account.
    pub grantee: AccountId,
}

/// A key. Its material lies in the key store, not here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Its id.
    pub key_id: KeyId,
    /// The owner.
    pub owner: AccountId,
    /// The region.
    pub region: Region,
    /// Who manages it.
    pub manager: KeyManager,
    /// The state.
    pub state: KeyState,
    /// Names, each with `alias/`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub aliases: BTreeSet<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// When it was made.
    pub creation_date: CreationDate,
    /// When it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_date: Option<CreationDate>,
    /// Version of its material: 1, and one more with each rotation.
    pub version: u32,
    /// Others that may use it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub grants: BTreeSet<Grant>,
}
