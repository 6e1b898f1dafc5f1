//! `CreateImage`, `CreateSnapshot`, and the ends of what is pending.
//!
//! Source: EC2 API reference, `CreateImage`, `CreateSnapshot`; EC2 user guide, `creating-an-ami-ebs`.

use std::collections::BTreeSet;

use amiforge_types::Digest;

use super::check::{
    Api, ami_name, bad_value, date, description, dry_run, gone, instance_id, no_snapshot, refuse,
    tag_sets, volume_id,
};
use super::devices::{EntryTarget, bad_mapping, check_clashes, ebs_mut, entries};
use super::register::NewImage;
use super::request::request;
use super::{
    Caller, Effects, ErrorCode, Image, ImageState, InstanceState, MappingRequest, RootDevice,
    Snapshot, SnapshotState, State, StateReason, TagSpecification, Tags, Volume, VolumeState,
};
use crate::{
    BlockDeviceMapping, DeviceName, EbsVolume, ImageId, MappingTarget, SnapshotId, VolumeId,
};

request! {
    /// `CreateImage`.
    pub struct CreateImageRequest {
        /// The instance.
        pub instance_id: String,
        /// Name of the image.
        pub name: String,
        /// Up to 255 characters.
        pub description: Option<String>,
        /// The instance goes on running: the image is as after a power cut.
        pub no_reboot: bool,
        /// Volumes left out, added, or kept after termination.
        pub block_device_mappings: Vec<MappingRequest>,
        /// Tags for the types `image` and `snapshot`.
        pub tag_specifications: Vec<TagSpecification>,
        /// `regional`; `local` is for Local Zones.
        pub snapshot_location: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `CreateSnapshot`.
    pub struct CreateSnapshotRequest {
        /// The volume.
        pub volume_id: String,
        /// Up to 255 characters.
        pub description: Option<String>,
        /// Tags for the type `snapshot`.
        pub tag_specifications: Vec<TagSpecification>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

/// A snapshot to be taken of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeSnapshot {
    /// The volume.
    pub volume_id: VolumeId,
    /// Its device.
    pub device: DeviceName,
    /// The snapshot, pending; encrypted as the volume, under its data key.
    pub snapshot_id: SnapshotId,
}

/// What [`State::create_image`] began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedImage {
    /// The image, pending until [`State::complete_image`].
    pub image_id: ImageId,
    /// The snapshots to take, all of one point in time.
    pub snapshots: Vec<VolumeSnapshot>,
    /// Whether the instance is to be shut down for it and started afterwards.
    pub reboot: bool,
}

/// What a pending snapshot holds now that it is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotContent {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Its block map.
    pub map: Digest,
    /// Blocks that are not zero.
    pub blocks: u64,
    /// Of these, blocks that were not in the store before.
    pub changed_blocks: u64,
}

/// Something that is being made: by one maker, who ends it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pending {
    /// An image, with the snapshots that are made for it.
    Image(ImageId),
    /// A snapshot that is made by itself.
    Snapshot(SnapshotId),
    /// A volume that is made by itself.
    Volume(VolumeId),
}

impl Pending {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Image(id) => id.as_str(),
            Self::Snapshot(id) => id.as_str(),
            Self::Volume(id) => id.as_str(),
        }
    }
}

/// Why a record failed whose maker is gone.
const ABANDONED: &str = "The process that made it ended before it was complete";

impl State {
    /// Everything that is pending, by who makes it.
    #[must_use]
    pub fn pending_works(&self) -> Vec<Pending> {
        let images = self
            .images
            .values()
            .filter(|i| i.state == ImageState::Pending);
        let mut of_images = BTreeSet::new();
        let mut works = Vec::new();
        for image in images {
            of_images.extend(self.snapshots_of(image).map(|s| &s.snapshot_id));
            works.push(Pending::Image(image.image_id.clone()));
        }
        let alone = self
            .snapshots
            .values()
            .filter(|s| s.state == SnapshotState::Pending && !of_images.contains(&s.snapshot_id));
        works.extend(alone.map(|s| Pending::Snapshot(s.snapshot_id.clone())));
        let volumes = self
            .volumes
            .values()
            .filter(|v| v.state == VolumeState::Creating);
        works.extend(volumes.map(|v| Pending::Volume(v.volume_id.clone())));
        works
    }

    /// Ends what is pending and has no maker any more: it failed, with `Server.InternalError`. No change when it has ended.
    pub fn abandon(&mut self, work: &Pending) {
        // An error says that it is not pending.
        let _ = match work {
            Pending::Image(id) => self.fail_image(
                id,
                StateReason {
                    code: "Server.InternalError".to_owned(),
                    message: ABANDONED.to_owned(),
                },
            ),
            Pending::Snapshot(id) => self.fail_snapshot(id, ABANDONED),
            Pending::Volume(id) => self.fail_volume(id),
        };
    }

    /// `CreateImage` of a running or stopped instance of the caller whose root is an EBS volume: the image, pending, and
    /// the snapshots that are to be taken.
    ///
    /// Of an existing volume only `DeleteOnTermination` may change. The image has the instance's boot mode, product codes
    /// and architecture; whether AWS hands on TPM, UEFI variables and IMDS support is not documented, here it does, so
    /// that an instance of the image is as the first one. User data and launch permissions are not handed on.
    pub fn create_image(
        &mut self,
        caller: &Caller,
        request: &CreateImageRequest,
        fx: &mut dyn Effects,
    ) -> Api<CreatedImage> {
        let id = instance_id(&request.instance_id)?;
        ami_name(&request.name)?;
        description(request.description.as_deref())?;
        let [image_tags, snapshot_tags] =
            tag_sets(&request.tag_specifications, ["image", "snapshot"])?;
        let changes = entries(
            &request.block_device_mappings,
            ErrorCode::InvalidBlockDeviceMapping,
        )?;
        match request.snapshot_location.as_deref() {
            None | Some("regional") => {}
            Some("local") => {
                return refuse(
                    ErrorCode::InvalidParameterCombination,
                    "Local snapshots are for instances in a Local Zone.",
                );
            }
            Some(other) => return Err(bad_value("SnapshotLocation", other)),
        }
        dry_run(request.dry_run)?;
        let instance = self.own_instance(caller, &id)?.clone();
        if !matches!(
            instance.state,
            InstanceState::Running | InstanceState::Stopped
        ) {
            return refuse(
                ErrorCode::IncorrectInstanceState,
                format!(
                    "The instance '{id}' is not in a valid state for this operation: it is {}.",
                    instance.state.as_str()
                ),
            );
        }
        if instance.root_device_type == RootDevice::InstanceStore {
            return refuse(
                ErrorCode::UnsupportedOperation,
                format!(
                    "The instance '{id}' does not have an 'ebs' root device type: bundle it instead."
                ),
            );
        }
        instance.needs_root()?;
        let image_id = self.new_image_id(fx);
        let mut mappings = Vec::new();
        for attached in &instance.volumes {
            let volume = self.own_volume(caller, &attached.volume_id)?;
            mappings.push(BlockDeviceMapping::ebs(
                attached.device.clone(),
                of_volume(volume),
            ));
        }
        for ephemeral in &instance.ephemeral {
            mappings.push(BlockDeviceMapping {
                device_name: ephemeral.device.clone(),
                target: MappingTarget::Virtual(ephemeral.virtual_name),
            });
        }
        for change in &changes {
            self.change(
                caller,
                &instance.root_device_name,
                &mut mappings,
                &instance.volumes,
                change,
            )?;
        }
        check_clashes(&mappings)?;
        self.free_name(caller, &request.name)?;
        self.image_quota(caller)?;

        let mut snapshots = Vec::new();
        for attached in &instance.volumes {
            let Some(entry) = ebs_mut(&mut mappings, &attached.device) else {
                continue;
            };
            let volume = self.own_volume(caller, &attached.volume_id)?;
            let mut snapshot = self.pending_snapshot(caller, volume.size, fx);
            snapshot.volume_id = Some(volume.volume_id.clone());
            snapshot.description = Some(format!("Created by CreateImage({id}) for {image_id}"));
            snapshot.encryption = volume.encryption.clone();
            snapshot.parent = volume.snapshot_id.clone();
            snapshot.product_codes = instance.product_codes.clone();
            snapshot.tags = snapshot_tags.clone();
            entry.snapshot_id = Some(snapshot.snapshot_id.clone());
            snapshots.push(VolumeSnapshot {
                volume_id: attached.volume_id.clone(),
                device: attached.device.clone(),
                snapshot_id: snapshot.snapshot_id.clone(),
            });
            self.snapshots
                .insert(snapshot.snapshot_id.clone(), snapshot);
        }
        let mut image = NewImage {
            image_id: image_id.clone(),
            name: request.name.clone(),
            state: ImageState::Pending,
            architecture: instance.architecture,
            root_device_type: RootDevice::Ebs,
            root_device_name: instance.root_device_name.clone(),
            block_device_mappings: mappings,
            creation_date: date(fx),
        }
        .of(caller);
        image.description = request.description.clone();
        image.boot_mode = instance.boot_mode;
        image.ena_support = instance.ena_support;
        image.tpm_support = instance.tpm_support;
        image.product_codes = instance.product_codes.clone();
        image
            .platform_details
            .clone_from(&instance.platform_details);
        image.usage_operation.clone_from(&instance.usage_operation);
        if let Some(source) = self.images.get(&instance.image_id) {
            image.imds_support = source.imds_support;
            image.uefi_data = source.uefi_data.clone();
            image.sriov_net_support = source.sriov_net_support;
            image.billing_products = source.billing_products.clone();
        }
        image.tags = image_tags;
        image.source_instance_id = Some(id);
        image.source_image_id = Some(instance.image_id.clone());
        image.source_image_region = Some(instance.region.clone());
        self.images.insert(image_id.clone(), image);
        Ok(CreatedImage {
            image_id,
            snapshots,
            reboot: !request.no_reboot && instance.state == InstanceState::Running,
        })
    }

    /// One entry of the request on the mappings of the new image.
    fn change(
        &self,
        caller: &Caller,
        root: &DeviceName,
        mappings: &mut Vec<BlockDeviceMapping>,
        attached: &[super::InstanceVolume],
        change: &super::devices::Entry,
    ) -> Api<()> {
        let device = &change.device;
        let place = mappings.iter().position(|m| m.device_name == *device);
        let is_volume = attached.iter().any(|v| v.device == *device);
        match &change.target {
            EntryTarget::NoDevice => {
                if device == root {
                    return bad_mapping(format!("The root device {device} cannot be left out."));
                }
                if let Some(place) = place {
                    mappings.remove(place);
                }
            }
            EntryTarget::Virtual(name) => {
                if is_volume {
                    return bad_mapping(format!("{device} is an attached volume."));
                }
                let target = MappingTarget::Virtual(*name);
                match place {
                    Some(place) => mappings[place].target = target,
                    None => mappings.push(BlockDeviceMapping {
                        device_name: device.clone(),
                        target,
                    }),
                }
            }
            EntryTarget::Ebs(ebs) if is_volume => {
                let encrypted = attached
                    .iter()
                    .find(|v| v.device == *device)
                    .and_then(|v| self.volumes.get(&v.volume_id))
                    .is_some_and(|v| v.encryption.is_some());
                // What an encrypted volume is asked for is ignored: it stays encrypted.
                if ebs.encrypted == Some(true) && !encrypted {
                    return bad_mapping(format!(
                        "{device}: the encryption of an attached volume cannot be changed."
                    ));
                }
                if ebs.key.is_some()
                    || ebs.snapshot.is_some()
                    || ebs.size.is_some()
                    || ebs.kind.is_some()
                    || ebs.iops.is_some()
                    || ebs.throughput.is_some()
                {
                    return bad_mapping(format!(
                        "{device}: of an attached volume only DeleteOnTermination can be changed."
                    ));
                }
                if let (Some(delete), Some(volume)) =
                    (ebs.delete_on_termination, ebs_mut(mappings, device))
                {
                    volume.delete_on_termination = delete;
                }
            }
            EntryTarget::Ebs(ebs) => {
                let (volume, _) = self.registered_volume(caller, device, ebs, false)?;
                match place {
                    Some(place) => mappings[place].target = MappingTarget::Ebs(volume),
                    None => mappings.push(BlockDeviceMapping::ebs(device.clone(), volume)),
                }
            }
        }
        Ok(())
    }

    /// `CreateSnapshot` of a volume of the caller, attached or not: pending, to be ended by [`State::complete_snapshot`]. `IncorrectState`
    /// while the volume is being made, or when it came to nothing.
    pub fn create_snapshot(
        &mut self,
        caller: &Caller,
        request: &CreateSnapshotRequest,
        fx: &mut dyn Effects,
    ) -> Api<SnapshotId> {
        let id = volume_id(&request.volume_id)?;
        description(request.description.as_deref())?;
        let [tags] = tag_sets(&request.tag_specifications, ["snapshot"])?;
        dry_run(request.dry_run)?;
        let volume = self.own_volume(caller, &id)?;
        if !matches!(volume.state, VolumeState::Available | VolumeState::InUse) {
            return super::volumes::wrong_state(volume);
        }
        let mut snapshot = self.pending_snapshot(caller, volume.size, fx);
        snapshot.volume_id = Some(id);
        snapshot.description = request.description.clone();
        snapshot.encryption = volume.encryption.clone();
        snapshot.parent = volume.snapshot_id.clone();
        snapshot.tags = tags;
        let id = snapshot.snapshot_id.clone();
        self.snapshots.insert(id.clone(), snapshot);
        Ok(id)
    }

    /// A snapshot record of a volume that came from outside (`ImportSnapshot`, the EBS direct APIs): pending.
    /// Encrypted under the default key when encryption by default is on.
    pub fn import_snapshot(
        &mut self,
        caller: &Caller,
        size_gib: u32,
        text: Option<&str>,
        tags: Tags,
        fx: &mut dyn Effects,
    ) -> Api<SnapshotId> {
        description(text)?;
        if !(1..=65_536).contains(&size_gib) {
            return Err(bad_value("VolumeSize", &size_gib.to_string()));
        }
        let mut snapshot = self.pending_snapshot(caller, size_gib, fx);
        if self.settings_of(caller).encryption_by_default {
            let key = self.default_key(caller, fx);
            self.key_usable(&caller.account, &key)?;
            snapshot.encryption = Some(super::keys::new_encryption(key, fx));
        }
        snapshot.description = text.map(str::to_owned);
        snapshot.tags = tags;
        let id = snapshot.snapshot_id.clone();
        self.snapshots.insert(id.clone(), snapshot);
        Ok(id)
    }

    pub(crate) fn pending_snapshot(
        &self,
        caller: &Caller,
        size: u32,
        fx: &mut dyn Effects,
    ) -> Snapshot {
        let mut snapshot = Snapshot::new(
            self.new_snapshot_id(fx),
            caller.account.clone(),
            caller.region.clone(),
        );
        snapshot.start_time = date(fx);
        snapshot.volume_size = size;
        snapshot
    }

    /// Ends a pending snapshot: it is complete.
    ///
    /// `InvalidSnapshot.NotFound` when it was deleted meanwhile, `IncorrectState` when it is not pending. Images that
    /// wait for it are not touched: see [`State::complete_image`].
    pub fn complete_snapshot(&mut self, content: &SnapshotContent, fx: &dyn Effects) -> Api<()> {
        let snapshot = self.pending(&content.snapshot_id)?;
        snapshot.state = SnapshotState::Completed;
        snapshot.completion_time = Some(date(fx));
        snapshot.map = Some(content.map);
        snapshot.blocks = content.blocks;
        snapshot.changed_blocks = content.changed_blocks;
        Ok(())
    }

    /// Ends a pending snapshot: it came to nothing.
    pub fn fail_snapshot(&mut self, id: &SnapshotId, message: &str) -> Api<()> {
        let snapshot = self.pending(id)?;
        snapshot.state = SnapshotState::Error;
        snapshot.state_message = Some(message.to_owned());
        Ok(())
    }

    fn pending(&mut self, id: &SnapshotId) -> Api<&mut Snapshot> {
        let snapshot = self
            .snapshots
            .get_mut(id)
            .ok_or_else(|| no_snapshot(id.as_str()))?;
        if snapshot.state != SnapshotState::Pending {
            return refuse(
                ErrorCode::IncorrectState,
                format!("Snapshot '{id}' is not pending."),
            );
        }
        Ok(snapshot)
    }

    fn pending_image(&self, id: &ImageId) -> Api<&Image> {
        match self.images.get(id) {
            Some(image) if image.state == ImageState::Pending => Ok(image),
            Some(image) if image.state != ImageState::Deregistered => refuse(
                ErrorCode::IncorrectState,
                format!("The image '{id}' is not pending."),
            ),
            // Deregistered while it was being made: what was made is nobody's.
            _ => Err(gone(id)),
        }
    }

    /// Ends a pending image: its snapshots are complete, with this content, and it is available. `image_location` is
    /// where the bundle of an instance-store image was copied to.
    ///
    /// `InvalidAMIID.Unavailable` when it was deregistered meanwhile: nothing changes, and what was written can go.
    /// `IncorrectState` when a snapshot of it would still be pending, or it is not pending itself.
    pub fn complete_image(
        &mut self,
        id: &ImageId,
        contents: &[SnapshotContent],
        image_location: Option<&str>,
        fx: &dyn Effects,
    ) -> Api<()> {
        let image = self.pending_image(id)?;
        let open = self.snapshots_of(image).find(|s| {
            s.state != SnapshotState::Completed
                && !contents.iter().any(|c| c.snapshot_id == s.snapshot_id)
        });
        if let Some(snapshot) = open {
            return refuse(
                ErrorCode::IncorrectState,
                format!("Snapshot '{}' is not 'completed'.", snapshot.snapshot_id),
            );
        }
        // All or nothing: a content of a snapshot that is not pending is an error before anything changes.
        for content in contents {
            self.pending(&content.snapshot_id)?;
        }
        for content in contents {
            self.complete_snapshot(content, fx)?;
        }
        if let Some(image) = self.images.get_mut(id) {
            image.state = ImageState::Available;
            if let Some(location) = image_location {
                image.image_location = Some(location.to_owned());
            }
        }
        Ok(())
    }

    /// Ends a pending image: it failed, and so did its pending snapshots. `InvalidAMIID.Unavailable` when it was
    /// deregistered meanwhile.
    pub fn fail_image(&mut self, id: &ImageId, reason: StateReason) -> Api<()> {
        let image = self.pending_image(id)?;
        let pending: Vec<SnapshotId> = self
            .snapshots_of(image)
            .filter(|s| s.state == SnapshotState::Pending)
            .map(|s| s.snapshot_id.clone())
            .collect();
        for snapshot in &pending {
            self.fail_snapshot(snapshot, &reason.message)?;
        }
        if let Some(image) = self.images.get_mut(id) {
            image.state = ImageState::Failed;
            image.state_reason = Some(reason);
        }
        Ok(())
    }
}

/// The mapping of a volume, without its snapshot.
fn of_volume(volume: &Volume) -> EbsVolume {
    EbsVolume {
        snapshot_id: None,
        volume_size: volume.size,
        volume_type: volume.volume_type,
        delete_on_termination: volume
            .attachment
            .as_ref()
            .is_some_and(|a| a.delete_on_termination),
        iops: volume.iops,
        throughput: volume.throughput,
        encrypted: None,
        kms_key_id: None,
    }
}
