//! `DescribeSnapshots` and `DescribeVolumes`.

use super::super::check::{Api, dry_run, key_arn, no_snapshot, no_volume, snapshot_id, volume_id};
use super::super::filter::{check, page, passes};
use super::super::keys::no_tags;
use super::super::request::request;
use super::super::{
    Attachment, Caller, Encryption, Filter, Snapshot, SnapshotPermission, SnapshotState, State,
    Volume, VolumeState,
};
use super::{TagDescription, check_accounts, maybe, one, owned_by, shape, tags, time};
use crate::{CreationDate, SnapshotId, VolumeId, VolumeType};

request! {
    /// `DescribeSnapshots`.
    pub struct DescribeSnapshotsRequest {
        /// These; each must be seen.
        pub snapshot_ids: Vec<String>,
        /// Of these accounts; `self` is the caller's.
        pub owner_ids: Vec<String>,
        /// That these accounts may make volumes of by a permission of theirs; `self`, `all`.
        pub restorable_by_user_ids: Vec<String>,
        /// That pass all of these.
        pub filters: Vec<Filter>,
        /// Most snapshots of an answer.
        pub max_results: Option<u32>,
        /// Where the answer before ended.
        pub next_token: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `DescribeVolumes`.
    pub struct DescribeVolumesRequest {
        /// These.
        pub volume_ids: Vec<String>,
        /// That pass all of these.
        pub filters: Vec<Filter>,
        /// Most volumes of an answer.
        pub max_results: Option<u32>,
        /// Where the answer before ended.
        pub next_token: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

shape! {
    /// `Snapshot`.
    pub struct SnapshotDescription {
        /// The caller's tags on it.
        pub tags: Vec<TagDescription>,
        /// Always `standard`.
        pub storage_tier: String,
        /// When it was complete.
        pub completion_time: String,
        /// Bytes of its blocks.
        pub full_snapshot_size_in_bytes: u64,
        /// Its id.
        pub snapshot_id: String,
        /// The volume; `vol-ffffffff` of imports and copies.
        pub volume_id: String,
        /// The state.
        pub state: String,
        /// Why it failed.
        pub state_message: String,
        /// When it was begun.
        pub start_time: String,
        /// `100%` when it is complete.
        pub progress: String,
        /// The owner.
        pub owner_id: String,
        /// Description.
        pub description: String,
        /// Size of the volume in GiB.
        pub volume_size: u32,
        /// Whether it is encrypted.
        pub encrypted: bool,
        /// ARN of the key.
        pub kms_key_id: String,
        /// The data key: equal in what shares one.
        pub data_encryption_key_id: String,
    }
}

shape! {
    /// The answer of `DescribeSnapshots`.
    pub struct DescribeSnapshotsResult {
        /// Where it ended, when there is more.
        pub next_token: String,
        /// By id.
        pub snapshots: Vec<SnapshotDescription>,
    }
}

shape! {
    /// `VolumeAttachment`: also the answer of `AttachVolume` and `DetachVolume`.
    pub struct AttachmentDescription {
        /// Whether the volume goes with the instance.
        pub delete_on_termination: bool,
        /// The volume.
        pub volume_id: String,
        /// The instance.
        pub instance_id: String,
        /// The device name.
        pub device: String,
        /// `attached`.
        pub state: String,
        /// Since when.
        pub attach_time: String,
    }
}

shape! {
    /// `Volume`.
    pub struct VolumeDescription {
        /// I/O operations per second.
        pub iops: u32,
        /// Tags.
        pub tags: Vec<TagDescription>,
        /// The type.
        pub volume_type: String,
        /// Always false.
        pub multi_attach_enabled: bool,
        /// MiB/s, of gp3.
        pub throughput: u32,
        /// Its id.
        pub volume_id: String,
        /// Size in GiB.
        pub size: u32,
        /// The snapshot it was made from; empty when there is none.
        pub snapshot_id: String,
        /// The zone.
        pub availability_zone: String,
        /// The state.
        pub state: String,
        /// When it was made.
        pub create_time: String,
        /// To what it is attached.
        pub attachments: Vec<AttachmentDescription>,
        /// Whether it is encrypted.
        pub encrypted: bool,
        /// ARN of the key.
        pub kms_key_id: String,
    }
}

shape! {
    /// The answer of `DescribeVolumes`.
    pub struct DescribeVolumesResult {
        /// Where it ended, when there is more.
        pub next_token: String,
        /// By id.
        pub volumes: Vec<VolumeDescription>,
    }
}

impl SnapshotState {
    /// The name that the API gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Error => "error",
            Self::Recoverable => "recoverable",
        }
    }
}

impl VolumeState {
    /// The name that the API gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Available => "available",
            Self::InUse => "in-use",
            Self::Error => "error",
        }
    }
}

/// Bytes of a block of a snapshot.
const BLOCK_BYTES: u64 = 512 << 10;

/// What the volume type gives when nothing was provisioned.
fn iops(volume: &Volume) -> Option<u32> {
    match volume.volume_type {
        VolumeType::Gp3 => Some(volume.iops.unwrap_or(3_000)),
        VolumeType::Gp2 => Some(volume.size.saturating_mul(3).clamp(100, 16_000)),
        VolumeType::Io1 | VolumeType::Io2 => volume.iops,
        VolumeType::St1 | VolumeType::Sc1 | VolumeType::Standard => None,
    }
}

impl State {
    /// The ARN of the key of an encryption: of the key's owner, who may be another account.
    fn encryption_key(&self, caller: &Caller, encryption: Option<&Encryption>) -> Option<String> {
        let encryption = encryption?;
        let (owner, region) = self
            .keys
            .get(&encryption.key_id)
            .map_or((&caller.account, &caller.region), |k| (&k.owner, &k.region));
        Some(key_arn(owner, region, &encryption.key_id))
    }

    /// `DescribeSnapshots`: what the caller owns or may read, by id. `InvalidSnapshot.NotFound` for an id that is not seen.
    pub fn describe_snapshots(
        &self,
        caller: &Caller,
        request: &DescribeSnapshotsRequest,
    ) -> Api<DescribeSnapshotsResult> {
        let ids: Vec<SnapshotId> = request
            .snapshot_ids
            .iter()
            .map(|t| snapshot_id(t))
            .collect::<Api<_>>()?;
        check_accounts(
            &request.owner_ids,
            &["self", "amazon", "aws-marketplace", "aws-backup-vault"],
        )?;
        check_accounts(&request.restorable_by_user_ids, &["self", "all"])?;
        check(&request.filters, SNAPSHOT_FILTERS)?;
        dry_run(request.dry_run)?;
        for id in &ids {
            self.seen_snapshot(caller, id)
                .map_err(|_| no_snapshot(id.as_str()))?;
        }
        let mut found = Vec::new();
        for snapshot in self.snapshots.values() {
            if self.seen_snapshot(caller, &snapshot.snapshot_id).is_err()
                || (!ids.is_empty() && !ids.contains(&snapshot.snapshot_id))
                || !owned_by(&snapshot.owner, &request.owner_ids, caller)
                || !restorable_by(caller, snapshot, &request.restorable_by_user_ids)
            {
                continue;
            }
            let own_tags = snapshot.tags_seen_by(&caller.account).unwrap_or(no_tags());
            if passes(&request.filters, own_tags, |name| {
                snapshot_filter(snapshot, name)
            })? {
                found.push(snapshot);
            }
        }
        let (found, next_token) = page(
            found,
            |s| s.snapshot_id.as_str(),
            request.max_results,
            request.next_token.as_deref(),
        )?;
        Ok(DescribeSnapshotsResult {
            next_token,
            snapshots: Some(
                found
                    .into_iter()
                    .map(|s| self.describe_snapshot(caller, s))
                    .collect(),
            ),
        })
    }

    /// A snapshot as the caller sees it.
    #[must_use]
    pub fn describe_snapshot(&self, caller: &Caller, snapshot: &Snapshot) -> SnapshotDescription {
        SnapshotDescription {
            tags: tags(snapshot.tags_seen_by(&caller.account)),
            storage_tier: Some("standard".to_owned()),
            completion_time: snapshot.completion_time.map(time),
            full_snapshot_size_in_bytes: snapshot
                .map
                .map(|_| snapshot.blocks.saturating_mul(BLOCK_BYTES)),
            snapshot_id: Some(snapshot.snapshot_id.to_string()),
            volume_id: Some(
                snapshot
                    .volume_id
                    .as_ref()
                    .map_or_else(|| "vol-ffffffff".to_owned(), ToString::to_string),
            ),
            state: Some(snapshot.state.as_str().to_owned()),
            state_message: snapshot.state_message.clone(),
            start_time: Some(time(snapshot.start_time)),
            progress: Some(progress(snapshot).to_owned()),
            owner_id: Some(snapshot.owner.to_string()),
            description: Some(snapshot.description.clone().unwrap_or_default()),
            volume_size: Some(snapshot.volume_size),
            encrypted: Some(snapshot.encryption.is_some()),
            kms_key_id: self.encryption_key(caller, snapshot.encryption.as_ref()),
            data_encryption_key_id: snapshot
                .encryption
                .as_ref()
                .map(|e| e.data_key_id.to_string()),
        }
    }

    /// `DescribeVolumes` of the caller, by id. `InvalidVolume.NotFound` for an id that is not there.
    pub fn describe_volumes(
        &self,
        caller: &Caller,
        request: &DescribeVolumesRequest,
    ) -> Api<DescribeVolumesResult> {
        let ids: Vec<VolumeId> = request
            .volume_ids
            .iter()
            .map(|t| volume_id(t))
            .collect::<Api<_>>()?;
        check(&request.filters, VOLUME_FILTERS)?;
        dry_run(request.dry_run)?;
        for id in &ids {
            self.own_volume(caller, id)
                .map_err(|_| no_volume(id.as_str()))?;
        }
        let mut found = Vec::new();
        for volume in self.volumes.values() {
            if self.own_volume(caller, &volume.volume_id).is_err()
                || (!ids.is_empty() && !ids.contains(&volume.volume_id))
            {
                continue;
            }
            if passes(&request.filters, &volume.tags, |name| {
                volume_filter(volume, name)
            })? {
                found.push(volume);
            }
        }
        let (found, next_token) = page(
            found,
            |v| v.volume_id.as_str(),
            request.max_results,
            request.next_token.as_deref(),
        )?;
        Ok(DescribeVolumesResult {
            next_token,
            volumes: Some(
                found
                    .into_iter()
                    .map(|v| self.describe_volume(caller, v))
                    .collect(),
            ),
        })
    }

    /// A volume.
    #[must_use]
    pub fn describe_volume(&self, caller: &Caller, volume: &Volume) -> VolumeDescription {
        VolumeDescription {
            iops: iops(volume),
            tags: tags(Some(&volume.tags)),
            volume_type: Some(volume.volume_type.to_string()),
            multi_attach_enabled: Some(false),
            throughput: (volume.volume_type == VolumeType::Gp3)
                .then(|| volume.throughput.unwrap_or(125)),
            volume_id: Some(volume.volume_id.to_string()),
            size: Some(volume.size),
            snapshot_id: Some(
                volume
                    .snapshot_id
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            ),
            availability_zone: Some(volume.availability_zone.clone()),
            state: Some(volume.state.as_str().to_owned()),
            create_time: Some(time(volume.create_time)),
            attachments: Some(
                volume
                    .attachment
                    .iter()
                    .map(|a| volume.describe_attachment(a, "attached"))
                    .collect(),
            ),
            encrypted: Some(volume.encryption.is_some()),
            kms_key_id: self.encryption_key(caller, volume.encryption.as_ref()),
        }
    }
}

impl Volume {
    /// Since when it is attached.
    pub(super) fn attached_since(&self, attachment: &Attachment) -> CreationDate {
        attachment.attach_time.unwrap_or(self.create_time)
    }

    /// An attachment of it, in a state: `attached`, or `detached` when it was just ended.
    #[must_use]
    pub fn describe_attachment(
        &self,
        attachment: &Attachment,
        state: &str,
    ) -> AttachmentDescription {
        AttachmentDescription {
            delete_on_termination: Some(attachment.delete_on_termination),
            volume_id: Some(self.volume_id.to_string()),
            instance_id: Some(attachment.instance_id.to_string()),
            device: Some(attachment.device.to_string()),
            state: Some(state.to_owned()),
            attach_time: Some(time(self.attached_since(attachment))),
        }
    }
}

const fn progress(snapshot: &Snapshot) -> &'static str {
    match snapshot.state {
        SnapshotState::Completed | SnapshotState::Recoverable => "100%",
        SnapshotState::Pending | SnapshotState::Error => "0%",
    }
}

fn restorable_by(caller: &Caller, snapshot: &Snapshot, users: &[String]) -> bool {
    users.is_empty()
        || users.iter().any(|user| match user.as_str() {
            "all" => snapshot.permissions.contains(&SnapshotPermission::All),
            "self" => snapshot
                .permissions
                .contains(&SnapshotPermission::UserId(caller.account.clone())),
            id => id.parse().is_ok_and(|id| {
                snapshot
                    .permissions
                    .contains(&SnapshotPermission::UserId(id))
            }),
        })
}

fn snapshot_filter(snapshot: &Snapshot, name: &str) -> Option<Vec<String>> {
    match name {
        "description" => maybe(snapshot.description.as_ref()),
        "encrypted" => one(snapshot.encryption.is_some()),
        "owner-alias" => Some(Vec::new()),
        "owner-id" => one(&snapshot.owner),
        "progress" => one(progress(snapshot)),
        "snapshot-id" => one(&snapshot.snapshot_id),
        "start-time" => one(snapshot.start_time),
        "status" => one(snapshot.state.as_str()),
        "storage-tier" => one("standard"),
        "volume-id" => maybe(snapshot.volume_id.as_ref()),
        "volume-size" => one(snapshot.volume_size),
        _ => None,
    }
}

fn volume_filter(volume: &Volume, name: &str) -> Option<Vec<String>> {
    let attachment = volume.attachment.as_ref();
    match name {
        "attachment.attach-time" => maybe(attachment.map(|a| volume.attached_since(a))),
        "attachment.delete-on-termination" => maybe(attachment.map(|a| a.delete_on_termination)),
        "attachment.device" => maybe(attachment.map(|a| &a.device)),
        "attachment.instance-id" => maybe(attachment.map(|a| &a.instance_id)),
        "attachment.status" => maybe(attachment.map(|_| "attached")),
        "availability-zone" => one(&volume.availability_zone),
        "create-time" => one(volume.create_time),
        "encrypted" => one(volume.encryption.is_some()),
        "multi-attach-enabled" => one(false),
        "size" => one(volume.size),
        "snapshot-id" => maybe(volume.snapshot_id.as_ref()),
        "status" => one(volume.state.as_str()),
        "volume-id" => one(&volume.volume_id),
        "volume-type" => one(volume.volume_type),
        _ => None,
    }
}

pub(in super::super) const SNAPSHOT_FILTERS: &[&str] = &[
    "description",
    "encrypted",
    "owner-alias",
    "owner-id",
    "progress",
    "snapshot-id",
    "start-time",
    "status",
    "storage-tier",
    "volume-id",
    "volume-size",
];

pub(in super::super) const VOLUME_FILTERS: &[&str] = &[
    "attachment.attach-time",
    "attachment.delete-on-termination",
    "attachment.device",
    "attachment.instance-id",
    "attachment.status",
    "availability-zone",
    "create-time",
    "encrypted",
    "multi-attach-enabled",
    "size",
    "snapshot-id",
    "status",
    "volume-id",
    "volume-type",
];
