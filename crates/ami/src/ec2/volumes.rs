//! `CreateVolume`, `DeleteVolume`, `AttachVolume`, `DetachVolume`, and how any volume begins.
//!
//! Source: EC2 API reference, `CreateVolume`, `AttachVolume`, `DetachVolume`, `DeleteVolume`; EBS user guide, encryption. Volumes are
//! attached and detached while their instance is stopped; EC2 does it while one runs, too.

use super::check::{
    Api, bad_value, date, dry_run, instance_id, missing, no_volume, refuse, snapshot_id, tag_sets,
    volume_id,
};
use super::devices::check_figures;
use super::keys::new_encryption;
use super::request::request;
use super::{
    ApiError, Attachment, Caller, Effects, Encryption, ErrorCode, Instance, InstanceState,
    InstanceVolume, KeyId, NewVolume, SnapshotState, State, TagSpecification, Tags, Volume,
    VolumeSource, VolumeState,
};
use crate::{DeviceName, EbsVolume, VolumeId, VolumeType};

/// Most disks of an instance: what the machine has slots for.
const MAX_DISKS: usize = 26;

request! {
    /// `CreateVolume`.
    pub struct CreateVolumeRequest {
        /// A zone of the region.
        pub availability_zone: Option<String>,
        /// The snapshot that it is made from.
        pub snapshot_id: Option<String>,
        /// Size in GiB; that of the snapshot when absent.
        pub size: Option<u32>,
        /// The type; `gp2` when absent.
        pub volume_type: Option<String>,
        /// Provisioned I/O operations per second.
        pub iops: Option<u32>,
        /// Provisioned throughput in MiB/s.
        pub throughput: Option<u32>,
        /// Encryption.
        pub encrypted: Option<bool>,
        /// The key: an id, `alias/…`, or an ARN.
        pub kms_key_id: Option<String>,
        /// Tags for the type `volume`.
        pub tag_specifications: Vec<TagSpecification>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `AttachVolume`.
    pub struct AttachVolumeRequest {
        /// The volume.
        pub volume_id: String,
        /// The instance.
        pub instance_id: String,
        /// The device name.
        pub device: String,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `DetachVolume`.
    pub struct DetachVolumeRequest {
        /// The volume.
        pub volume_id: String,
        /// The instance that it is attached to.
        pub instance_id: Option<String>,
        /// The device name that it has there.
        pub device: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

/// What a volume is to be, with a key that was found already.
#[derive(Clone, Debug)]
pub(crate) struct VolumePlan {
    pub(crate) volume: EbsVolume,
    pub(crate) source: VolumeSource,
    pub(crate) encryption: Wish,
}

/// How a volume is to be encrypted.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    None,
    /// Under the snapshot's data key.
    Inherited(Encryption),
    /// Under a new data key.
    New(KeyId),
}

/// A zone of the caller's region, `InvalidZone.NotFound` else.
fn zone(caller: &Caller, text: &str) -> Api<String> {
    let letter = text.strip_prefix(caller.region.as_str());
    if letter.is_some_and(|l| matches!(l.as_bytes(), [b'a'..=b'f'])) {
        return Ok(text.to_owned());
    }
    let shown: String = text.chars().take(60).collect();
    refuse(
        ErrorCode::InvalidZoneNotFound,
        format!("The zone '{shown}' does not exist."),
    )
}

/// Which state it is in, as a refusal.
pub(crate) fn wrong_state<T>(volume: &Volume) -> Api<T> {
    refuse(
        ErrorCode::IncorrectState,
        format!(
            "Volume '{}' is in the '{}' state.",
            volume.volume_id,
            volume.state.as_str()
        ),
    )
}

/// Volumes come and go while their instance is stopped: refused in every other state.
fn is_stopped(instance: &Instance, verb: &str) -> Api<()> {
    let id = &instance.instance_id;
    match instance.state {
        InstanceState::Stopped => Ok(()),
        InstanceState::Running => refuse(
            ErrorCode::UnsupportedOperation,
            format!(
                "The instance '{id}' is running, and here volumes are {verb} while it is stopped: stop it first."
            ),
        ),
        state => refuse(
            ErrorCode::IncorrectState,
            format!("Instance '{id}' is {}, not stopped.", state.as_str()),
        ),
    }
}

impl Instance {
    /// Whether its root volume is attached to it.
    pub(crate) fn has_root(&self) -> bool {
        self.volumes
            .iter()
            .any(|v| v.device == self.root_device_name)
    }

    /// `IncorrectInstanceState` when its root volume was detached.
    pub(crate) fn needs_root(&self) -> Api<()> {
        if self.has_root() {
            return Ok(());
        }
        refuse(
            ErrorCode::IncorrectInstanceState,
            format!(
                "Instance '{}' does not have a volume attached at root ({})",
                self.instance_id, self.root_device_name
            ),
        )
    }
}

impl State {
    /// How a volume over `old` is encrypted: `wished` or not, under `key` or the caller's default one. What is under another account's key
    /// already is under one of the caller's then.
    pub(crate) fn encryption_wish(
        &mut self,
        caller: &Caller,
        old: Option<Encryption>,
        own: bool,
        wished: bool,
        key: Option<&str>,
        fx: &mut dyn Effects,
    ) -> Api<Wish> {
        Ok(match old {
            Some(old) if !wished || (key.is_none() && own) => Wish::Inherited(old),
            None if !wished => Wish::None,
            old => {
                let key = self.wanted_key(caller, key, fx)?;
                self.key_usable(&caller.account, &key)?;
                match old {
                    Some(old) if old.key_id == key => Wish::Inherited(old),
                    _ => Wish::New(key),
                }
            }
        })
    }

    /// Enters the record of a volume: attached, or being made. Gives what is to be made.
    pub(crate) fn insert_volume(
        &mut self,
        caller: &Caller,
        zone: &str,
        plan: &VolumePlan,
        attachment: Option<Attachment>,
        tags: Tags,
        fx: &mut dyn Effects,
    ) -> NewVolume {
        let volume_id = self.new_volume_id(fx);
        let (encryption, new_data_key) = match &plan.encryption {
            Wish::None => (None, false),
            Wish::Inherited(encryption) => (Some(encryption.clone()), false),
            Wish::New(key) => (Some(new_encryption(key.clone(), fx)), true),
        };
        let (snapshot_id, base) = match &plan.source {
            VolumeSource::Empty => (None, None),
            VolumeSource::Snapshot {
                snapshot_id, map, ..
            } => (Some(snapshot_id.clone()), Some(*map)),
        };
        let record = Volume {
            volume_id: volume_id.clone(),
            owner: caller.account.clone(),
            region: caller.region.clone(),
            availability_zone: zone.to_owned(),
            size: plan.volume.volume_size,
            volume_type: plan.volume.volume_type,
            iops: plan.volume.iops,
            throughput: plan.volume.throughput,
            snapshot_id,
            base,
            encryption: encryption.clone(),
            state: match attachment {
                Some(_) => VolumeState::InUse,
                None => VolumeState::Creating,
            },
            attachment,
            create_time: date(fx),
            tags,
        };
        self.volumes.insert(volume_id.clone(), record);
        NewVolume {
            volume_id,
            size: plan.volume.volume_size,
            source: plan.source.clone(),
            encryption,
            new_data_key,
        }
    }

    /// Begins `CreateVolume`: the volume is being made, to be ended by [`State::volume_created`]. Empty, or over the blocks of a snapshot
    /// that the caller may read.
    ///
    /// Encryption is as at a launch. Codes that the reference leaves open: a size below that of the snapshot is
    /// `InvalidParameterValue`, `Encrypted` false over an encrypted snapshot `InvalidParameterCombination`.
    pub fn create_volume(
        &mut self,
        caller: &Caller,
        request: &CreateVolumeRequest,
        fx: &mut dyn Effects,
    ) -> Api<NewVolume> {
        let Some(zone_name) = request.availability_zone.as_deref() else {
            return missing("AvailabilityZone");
        };
        if request.size.is_none() && request.snapshot_id.is_none() {
            return missing("size/snapshot");
        }
        let from = request
            .snapshot_id
            .as_deref()
            .map(snapshot_id)
            .transpose()?;
        let volume_type = match request.volume_type.as_deref() {
            None => VolumeType::Gp2,
            Some(text) => text
                .parse()
                .map_err(|error: String| ApiError::new(ErrorCode::UnknownVolumeType, error))?,
        };
        if request.kms_key_id.is_some() && request.encrypted != Some(true) {
            return refuse(
                ErrorCode::InvalidParameterDependency,
                "The parameter KmsKeyId requires the parameter Encrypted to be set.",
            );
        }
        let [tags] = tag_sets(&request.tag_specifications, ["volume"])?;
        dry_run(request.dry_run)?;
        let zone = zone(caller, zone_name)?;
        let snapshot = match &from {
            None => None,
            Some(id) => {
                let snapshot = self.seen_snapshot(caller, id)?;
                let (SnapshotState::Completed, Some(map)) = (snapshot.state, snapshot.map) else {
                    return refuse(
                        ErrorCode::IncorrectState,
                        format!("Snapshot '{id}' is not 'completed'."),
                    );
                };
                Some((snapshot.clone(), map))
            }
        };
        let least = snapshot.as_ref().map_or(1, |(s, _)| s.volume_size);
        let size = request.size.unwrap_or(least);
        if let Some(id) = from.filter(|_| size < least) {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "Volume of size {size}GB is smaller than snapshot '{id}', expect size >= {least}GB"
                ),
            );
        }
        let volume = EbsVolume {
            snapshot_id: None,
            volume_size: size,
            volume_type,
            delete_on_termination: false,
            iops: request.iops,
            throughput: request.throughput,
            encrypted: None,
            kms_key_id: None,
        };
        check_figures("the volume", &volume)?;
        let old = snapshot.as_ref().and_then(|(s, _)| s.encryption.clone());
        if let Some(old) = &old {
            if request.encrypted == Some(false) {
                return refuse(
                    ErrorCode::InvalidParameterCombination,
                    "An encrypted snapshot makes an encrypted volume.",
                );
            }
            self.key_usable(&caller.account, &old.key_id)?;
        }
        let own = snapshot
            .as_ref()
            .is_some_and(|(s, _)| s.owner == caller.account);
        let by_default = self.settings_of(caller).encryption_by_default;
        let wished = match request.encrypted {
            Some(wished) => wished || by_default,
            None if old.is_some() => !own,
            None => by_default,
        };
        let key = request.kms_key_id.as_deref();
        let encryption = self.encryption_wish(caller, old, own, wished, key, fx)?;
        let plan = VolumePlan {
            volume,
            source: snapshot.map_or(VolumeSource::Empty, |(s, map)| VolumeSource::Snapshot {
                snapshot_id: s.snapshot_id,
                map,
                encryption: s.encryption,
            }),
            encryption,
        };
        Ok(self.insert_volume(caller, &zone, &plan, None, tags, fx))
    }

    /// Ends `CreateVolume`: the volume is there. `IncorrectState` when it is not being made.
    pub fn volume_created(&mut self, id: &VolumeId) -> Api<()> {
        self.end_creation(id, VolumeState::Available)
    }

    /// Ends `CreateVolume`: the volume came to nothing. It can be deleted.
    pub fn fail_volume(&mut self, id: &VolumeId) -> Api<()> {
        self.end_creation(id, VolumeState::Error)
    }

    fn end_creation(&mut self, id: &VolumeId, state: VolumeState) -> Api<()> {
        let volume = self
            .volumes
            .get_mut(id)
            .ok_or_else(|| no_volume(id.as_str()))?;
        if volume.state != VolumeState::Creating {
            return wrong_state(volume);
        }
        volume.state = state;
        Ok(())
    }

    /// `DeleteVolume` of one that is attached to nothing; else `VolumeInUse`, and `IncorrectState` while it is being made.
    pub fn delete_volume(&mut self, caller: &Caller, id: &str) -> Api<VolumeId> {
        let id = volume_id(id)?;
        let volume = self.own_volume(caller, &id)?;
        if let Some(attachment) = &volume.attachment {
            return refuse(
                ErrorCode::VolumeInUse,
                format!(
                    "Volume {id} is currently attached to {}",
                    attachment.instance_id
                ),
            );
        }
        if volume.state == VolumeState::Creating {
            return wrong_state(volume);
        }
        self.volumes
            .remove(&id)
            .ok_or_else(|| no_volume(id.as_str()))?;
        Ok(id)
    }

    /// `AttachVolume` to a stopped instance. It stays when the instance is terminated, as on EC2. At the root's device name it becomes
    /// the root.
    ///
    /// `VolumeInUse`, `IncorrectState`, `InvalidVolume.ZoneMismatch`, `AttachmentLimitExceeded`; `InvalidParameterValue` for a device
    /// that is taken; `UnsupportedOperation` while the instance runs. KMS's codes for a key that cannot be used.
    pub fn attach_volume(
        &mut self,
        caller: &Caller,
        request: &AttachVolumeRequest,
        fx: &dyn Effects,
    ) -> Api<Attachment> {
        let id = volume_id(&request.volume_id)?;
        let instance_id = instance_id(&request.instance_id)?;
        if request.device.is_empty() {
            return missing("device");
        }
        let device: DeviceName = request
            .device
            .parse()
            .map_err(|_| bad_value("device", &request.device))?;
        dry_run(request.dry_run)?;
        let volume = self.own_volume(caller, &id)?;
        let instance = self.own_instance(caller, &instance_id)?;
        if volume.attachment.is_some() {
            return refuse(
                ErrorCode::VolumeInUse,
                format!("{id} is already attached to an instance"),
            );
        }
        if volume.state != VolumeState::Available {
            return wrong_state(volume);
        }
        if volume.availability_zone != instance.availability_zone {
            return refuse(
                ErrorCode::InvalidVolumeZoneMismatch,
                format!(
                    "The volume '{id}' is not in the same availability zone as instance '{instance_id}'"
                ),
            );
        }
        is_stopped(instance, "attached")?;
        let mut taken = instance
            .volumes
            .iter()
            .map(|v| &v.device)
            .chain(instance.ephemeral.iter().map(|e| &e.device));
        if taken.any(|d| d.clashes(&device)) {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
                ),
            );
        }
        if instance.volumes.len() + instance.ephemeral.len() >= MAX_DISKS {
            return refuse(
                ErrorCode::AttachmentLimitExceeded,
                format!(
                    "The instance '{instance_id}' has {MAX_DISKS} disks, as many as it can have."
                ),
            );
        }
        if let Some(encryption) = &volume.encryption {
            self.key_usable(&caller.account, &encryption.key_id)?;
        }
        let attachment = Attachment {
            instance_id: instance_id.clone(),
            device: device.clone(),
            delete_on_termination: false,
            attach_time: Some(date(fx)),
        };
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.state = VolumeState::InUse;
            volume.attachment = Some(attachment.clone());
        }
        if let Some(instance) = self.instances.get_mut(&instance_id) {
            // The root first.
            let place = match device == instance.root_device_name {
                true => 0,
                false => instance.volumes.len(),
            };
            let entry = InstanceVolume {
                device,
                volume_id: id,
            };
            instance.volumes.insert(place, entry);
        }
        Ok(attachment)
    }

    /// `DetachVolume` of a stopped instance, the root, too: without one the instance does not start. Gives what the attachment was.
    ///
    /// `IncorrectState` when it is attached to nothing, `InvalidAttachment.NotFound` when not to what the request says,
    /// `OperationNotPermitted` for the root of a running instance, `UnsupportedOperation` for another volume of one.
    pub fn detach_volume(
        &mut self,
        caller: &Caller,
        request: &DetachVolumeRequest,
    ) -> Api<Attachment> {
        let id = volume_id(&request.volume_id)?;
        let from = request
            .instance_id
            .as_deref()
            .map(instance_id)
            .transpose()?;
        dry_run(request.dry_run)?;
        let volume = self.own_volume(caller, &id)?;
        let Some(attachment) = volume.attachment.clone() else {
            return wrong_state(volume);
        };
        let other_device = request
            .device
            .as_ref()
            .is_some_and(|d| d != attachment.device.as_str());
        if from.is_some_and(|i| i != attachment.instance_id) || other_device {
            return refuse(
                ErrorCode::InvalidAttachmentNotFound,
                format!(
                    "The volume '{id}' is attached to instance '{}' as {}.",
                    attachment.instance_id, attachment.device
                ),
            );
        }
        let instance = self.own_instance(caller, &attachment.instance_id)?;
        if instance.state == InstanceState::Running
            && attachment.device == instance.root_device_name
        {
            return refuse(
                ErrorCode::OperationNotPermitted,
                format!(
                    "Unable to detach root volume '{id}' from instance '{}': stop it first.",
                    attachment.instance_id
                ),
            );
        }
        is_stopped(instance, "detached")?;
        if let Some(volume) = self.volumes.get_mut(&id) {
            volume.state = VolumeState::Available;
            volume.attachment = None;
        }
        if let Some(instance) = self.instances.get_mut(&attachment.instance_id) {
            instance.volumes.retain(|v| v.volume_id != id);
        }
        Ok(attachment)
    }
}
