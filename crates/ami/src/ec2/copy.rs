//! `CopyImage` and `CopySnapshot`, called in the region that the copy goes to.
//!
//! Source: EC2 API reference, `CopyImage`, `CopySnapshot`; EC2 user guide, `CopyingAMIs`, `how-ami-copy-works`,
//! `copy-ami-permissions`.

use super::check::{
    Api, add_tags, ami_name, date, description, dry_run, gone, image_id, missing, refuse,
    request_digest, snapshot_id, tag_sets,
};
use super::keys::new_encryption;
use super::register::NewImage;
use super::request::request;
use super::{
    ApiError, Caller, Effects, Encryption, ErrorCode, Image, ImageState, Region, RootDevice,
    Snapshot, SnapshotState, State, StateReason, Tag, TagSpecification, Tags,
};
use crate::{ImageId, MappingTarget, SnapshotId};

/// Most copies in progress to a region.
pub(crate) const MAX_COPIES: usize = 300;

request! {
    /// `CopyImage`.
    pub struct CopyImageRequest {
        /// The image.
        pub source_image_id: String,
        /// Its region.
        pub source_region: String,
        /// Name of the copy.
        pub name: String,
        /// Up to 255 characters.
        pub description: Option<String>,
        /// A request repeated with the same token and members gives the same image.
        pub client_token: Option<String>,
        /// Encrypts the copies of snapshots. Never decrypts.
        pub encrypted: Option<bool>,
        /// The key for that; needs `Encrypted`.
        pub kms_key_id: Option<String>,
        /// Copies the tags that the caller has put on the source.
        pub copy_image_tags: Option<bool>,
        /// Tags for the types `image` and `snapshot`.
        pub tag_specifications: Vec<TagSpecification>,
        /// 15 to 2880 in steps of 15. Has no effect here: a copy is done at once.
        pub snapshot_copy_completion_duration_minutes: Option<u32>,
        /// Not supported here.
        pub destination_outpost_arn: Option<String>,
        /// Not supported here.
        pub destination_availability_zone: Option<String>,
        /// Not supported here.
        pub destination_availability_zone_id: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `CopySnapshot`.
    pub struct CopySnapshotRequest {
        /// The snapshot.
        pub source_snapshot_id: String,
        /// Its region.
        pub source_region: String,
        /// Up to 255 characters.
        pub description: Option<String>,
        /// Encrypts the copy. Never decrypts.
        pub encrypted: Option<bool>,
        /// The key for that; needs `Encrypted`.
        pub kms_key_id: Option<String>,
        /// Tags for the type `snapshot`.
        pub tag_specifications: Vec<TagSpecification>,
        /// 15 to 2880 in steps of 15. Has no effect here.
        pub completion_duration_minutes: Option<u32>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

/// A copy of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotCopy {
    /// The source.
    pub from: SnapshotId,
    /// The copy. Complete already, with the blocks of the source, unless `reencrypt`.
    pub to: SnapshotId,
    /// The blocks are to be encrypted so, under a data key that is to be made with this id; then the snapshot is to be
    /// completed.
    pub reencrypt: Option<Encryption>,
}

/// What [`State::copy_image`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedImage {
    /// The copy.
    pub image_id: ImageId,
    /// `Available` when it is records alone, `Pending` until [`State::complete_image`], `Failed` when a key cannot be
    /// used: EC2 finds that out after it has answered. The image's state reason says why.
    pub state: ImageState,
    /// The snapshots; empty for a repeated request.
    pub snapshots: Vec<SnapshotCopy>,
    /// The manifest of the bundle that is to be copied, of an instance-store image.
    pub bundle: Option<String>,
    /// Whether an earlier request with this client token made it.
    pub repeated: bool,
}

/// What [`State::copy_snapshot`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedSnapshot {
    /// The copy.
    pub snapshot_id: SnapshotId,
    /// `Error` when a key cannot be used; the state message says why.
    pub state: SnapshotState,
    /// What is to be done; `None` when it failed.
    pub copy: Option<SnapshotCopy>,
}

/// How the blocks of a copy lie.
enum CopyPlan {
    /// As those of the source.
    Same,
    /// Encrypted anew.
    Anew(Encryption),
}

fn check_encryption(encrypted: Option<bool>, key: Option<&str>, minutes: Option<u32>) -> Api<()> {
    if key.is_some() && encrypted != Some(true) {
        return refuse(
            ErrorCode::InvalidParameterDependency,
            "The parameter KmsKeyId requires the parameter Encrypted to be set to true.",
        );
    }
    if minutes.is_some_and(|m| !(15..=2880).contains(&m) || m % 15 != 0) {
        return refuse(
            ErrorCode::InvalidParameterValue,
            "The completion duration has 15 to 2880 minutes, in steps of 15.",
        );
    }
    Ok(())
}

fn region(member: &str, text: &str) -> Api<Region> {
    if text.is_empty() {
        return missing(member);
    }
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(60).collect();
        ApiError::new(
            ErrorCode::InvalidRegion,
            format!("The region '{shown}' does not exist"),
        )
    })
}

impl State {
    /// `CopyImage`. The copy is the caller's, in the caller's region, with new ids; launch permissions and others' tags
    /// stay behind.
    ///
    /// Refused with `InvalidRequest`: another's image whose snapshots the caller may not read or whose keys it may not
    /// use, with codes of billed software or of the marketplace, of a bundle, or with encrypted snapshots (of these
    /// the snapshots can be copied; `RegionSettings::copy_shared_encrypted_images` lifts that).
    pub fn copy_image(
        &mut self,
        caller: &Caller,
        request: &CopyImageRequest,
        fx: &mut dyn Effects,
    ) -> Api<CopiedImage> {
        ami_name(&request.name)?;
        description(request.description.as_deref())?;
        check_encryption(
            request.encrypted,
            request.kms_key_id.as_deref(),
            request.snapshot_copy_completion_duration_minutes,
        )?;
        let [mut tags, snapshot_tags] =
            tag_sets(&request.tag_specifications, ["image", "snapshot"])?;
        let places = [
            &request.destination_outpost_arn,
            &request.destination_availability_zone,
            &request.destination_availability_zone_id,
        ];
        match places.iter().filter(|p| p.is_some()).count() {
            0 => {}
            1 => {
                return refuse(
                    ErrorCode::UnsupportedOperation,
                    "Copies to an Outpost or a Local Zone are not supported here.",
                );
            }
            _ => {
                return refuse(
                    ErrorCode::InvalidParameterCombination,
                    "Only one of DestinationOutpostArn, DestinationAvailabilityZone and DestinationAvailabilityZoneId can be given.",
                );
            }
        }
        let source_id = image_id(&request.source_image_id)?;
        let from = Caller {
            account: caller.account.clone(),
            region: region("SourceRegion", &request.source_region)?,
        };
        dry_run(request.dry_run)?;

        let digest = request_digest(request);
        if let Some(token) = &request.client_token
            && let Some(image) = self.images.values().find(|i| {
                i.owner == caller.account
                    && i.region == caller.region
                    && i.client_token.as_ref() == Some(token)
            })
        {
            if image.client_request != Some(digest) {
                return refuse(
                    ErrorCode::IdempotentParameterMismatch,
                    format!("The client token {token} was used with other parameters."),
                );
            }
            return Ok(CopiedImage {
                image_id: image.image_id.clone(),
                state: image.state,
                snapshots: Vec::new(),
                bundle: None,
                repeated: true,
            });
        }
        let source = self.seen_image(&from, &source_id, fx)?.clone();
        if source.state != ImageState::Available {
            return Err(gone(&source_id));
        }
        self.may_copy(&from, &source)?;
        if source.root_device_type == RootDevice::InstanceStore && request.encrypted == Some(true) {
            return refuse(
                ErrorCode::InvalidRequest,
                "The encryption of an instance store-backed image cannot be changed.",
            );
        }
        if request.copy_image_tags == Some(true)
            && let Some(own) = source.tags_seen_by(&caller.account)
        {
            // Tags of the request have the last word.
            let new: Vec<Tag> = own
                .iter()
                .filter(|(key, _)| !key.starts_with("aws:") && !tags.contains_key(*key))
                .map(|(key, value)| Tag {
                    key: key.clone(),
                    value: value.clone(),
                })
                .collect();
            add_tags(&mut tags, &new)?;
        }
        self.free_name(caller, &request.name)?;
        self.image_quota(caller)?;
        let running = self
            .images
            .values()
            .filter(|i| {
                i.region == caller.region
                    && i.owner == caller.account
                    && i.state == ImageState::Pending
                    && i.source_instance_id.is_none()
            })
            .count();
        if running >= MAX_COPIES {
            return refuse(
                ErrorCode::ResourceLimitExceeded,
                format!("{MAX_COPIES} copies to {} are in progress.", caller.region),
            );
        }

        let image_id = self.new_image_id(fx);
        let mut image = NewImage {
            image_id: image_id.clone(),
            name: request.name.clone(),
            state: ImageState::Pending,
            architecture: source.architecture,
            root_device_type: source.root_device_type,
            root_device_name: source.root_device_name.clone(),
            block_device_mappings: source.block_device_mappings.clone(),
            creation_date: date(fx),
        }
        .of(caller);
        image.description = request.description.clone();
        image.boot_mode = source.boot_mode;
        image.ena_support = source.ena_support;
        image.sriov_net_support = source.sriov_net_support;
        image.imds_support = source.imds_support;
        image.tpm_support = source.tpm_support;
        image.uefi_data = source.uefi_data.clone();
        image.platform_details.clone_from(&source.platform_details);
        image.usage_operation.clone_from(&source.usage_operation);
        image.product_codes = source.product_codes.clone();
        image.billing_products = source.billing_products.clone();
        image.build = source.build.clone();
        image.tags = tags;
        image.source_image_id = Some(source_id.clone());
        image.source_image_region = Some(from.region.clone());
        image.client_token = request.client_token.clone();
        image.client_request = request.client_token.is_some().then_some(digest);
        image.bundle_bytes = source.bundle_bytes;
        image.bundle_stored_bytes = source.bundle_stored_bytes;
        image.bundle_manifest = source.bundle_manifest;
        image.image_location = source.image_location.clone();

        let mut copies = Vec::new();
        let mut new = Vec::new();
        let mut failed = None;
        for mapping in &mut image.block_device_mappings {
            let MappingTarget::Ebs(volume) = &mut mapping.target else {
                continue;
            };
            let Some(id) = volume.snapshot_id.take() else {
                continue;
            };
            let snapshot = self.snapshots.get(&id).cloned();
            let Some(snapshot) = snapshot else {
                return refuse(ErrorCode::InvalidRequest, no_storage());
            };
            match self.copy_plan(
                caller,
                &from,
                &snapshot,
                request.encrypted,
                request.kms_key_id.as_deref(),
                fx,
            ) {
                Ok(plan) => {
                    let (mut record, copy) = self.copied(caller, &snapshot, plan, fx);
                    record.description = Some(format!(
                        "Copied for DestinationAmi {image_id} from SourceAmi {source_id} for SourceSnapshot {id}."
                    ));
                    record.tags = snapshot_tags.clone();
                    volume.snapshot_id = Some(copy.to.clone());
                    new.push(record);
                    copies.push(copy);
                }
                Err(error) => failed = Some(error),
            }
        }
        let bundle = match source.root_device_type {
            RootDevice::Ebs => None,
            RootDevice::InstanceStore => source.image_location.clone(),
        };
        if let Some(error) = failed {
            for mapping in &mut image.block_device_mappings {
                if let MappingTarget::Ebs(volume) = &mut mapping.target {
                    volume.snapshot_id = None;
                }
            }
            image.state = ImageState::Failed;
            image.state_reason = Some(StateReason {
                code: "Client.InternalError".to_owned(),
                message: not_accessible(&error),
            });
            copies.clear();
        } else {
            if bundle.is_none() && copies.iter().all(|c| c.reencrypt.is_none()) {
                image.state = ImageState::Available;
            }
            for snapshot in new {
                self.snapshots
                    .insert(snapshot.snapshot_id.clone(), snapshot);
            }
        }
        let state = image.state;
        self.images.insert(image_id.clone(), image);
        Ok(CopiedImage {
            image_id,
            state,
            snapshots: copies,
            bundle: bundle.filter(|_| state == ImageState::Pending),
            repeated: false,
        })
    }

    /// Whether the caller, in the source's region, may copy the image.
    fn may_copy(&self, from: &Caller, source: &Image) -> Api<()> {
        if source.owner == from.account {
            return Ok(());
        }
        let refused = |message: String| refuse(ErrorCode::InvalidRequest, message);
        if !source.product_codes.is_empty() {
            return refused(format!(
                "Image {} with AWS Marketplace product codes cannot be copied to another AWS account",
                source.image_id
            ));
        }
        if !source.billing_products.is_empty() {
            return refused(format!(
                "Image {} with EC2 BillingProduct codes cannot be copied to another AWS account",
                source.image_id
            ));
        }
        if source.root_device_type == RootDevice::InstanceStore {
            return refused(no_storage().to_owned());
        }
        let lifted = self.settings_of(from).copy_shared_encrypted_images;
        for id in source
            .block_device_mappings
            .iter()
            .filter_map(|m| m.as_ebs()?.snapshot_id.as_ref())
        {
            let Ok(snapshot) = self.seen_snapshot(from, id) else {
                return refused(no_storage().to_owned());
            };
            let Some(encryption) = &snapshot.encryption else {
                continue;
            };
            match self.key_usable(&from.account, &encryption.key_id) {
                Err(error)
                    if matches!(
                        error.code,
                        ErrorCode::KmsAccessDenied | ErrorCode::KmsNotFound
                    ) =>
                {
                    return refused(no_storage().to_owned());
                }
                _ if !lifted => {
                    return refused(format!(
                        "You cannot copy an encrypted AMI that was shared by another account. Copy its snapshot {id} instead and register an image of the copy."
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How the copy of a snapshot is encrypted. An error is one of a key.
    fn copy_plan(
        &mut self,
        caller: &Caller,
        from: &Caller,
        source: &Snapshot,
        encrypted: Option<bool>,
        key: Option<&str>,
        fx: &mut dyn Effects,
    ) -> Api<CopyPlan> {
        if let Some(encryption) = &source.encryption {
            self.key_usable(&caller.account, &encryption.key_id)?;
        }
        let own = source.owner == caller.account && from.region == caller.region;
        let wished = encrypted == Some(true);
        let same = match &source.encryption {
            None => !wished && !self.settings_of(caller).encryption_by_default,
            // One's own stays under its key when no other is named.
            Some(_) => own && key.is_none(),
        };
        if same {
            return Ok(CopyPlan::Same);
        }
        let key = self.wanted_key(caller, key, fx)?;
        self.key_usable(&caller.account, &key)?;
        match &source.encryption {
            // The same key: the data key that it wraps serves the copy, too.
            Some(old) if own && old.key_id == key => Ok(CopyPlan::Same),
            _ => Ok(CopyPlan::Anew(new_encryption(key, fx))),
        }
    }

    /// The record of a copy.
    fn copied(
        &self,
        caller: &Caller,
        source: &Snapshot,
        plan: CopyPlan,
        fx: &mut dyn Effects,
    ) -> (Snapshot, SnapshotCopy) {
        let mut record = self.pending_snapshot(caller, source.volume_size, fx);
        record.parent = Some(source.snapshot_id.clone());
        record.product_codes = source.product_codes.clone();
        let reencrypt = match plan {
            CopyPlan::Same => {
                record.state = SnapshotState::Completed;
                record.completion_time = Some(date(fx));
                record.encryption = source.encryption.clone();
                record.map = source.map;
                record.blocks = source.blocks;
                None
            }
            CopyPlan::Anew(encryption) => {
                record.encryption = Some(encryption.clone());
                Some(encryption)
            }
        };
        let copy = SnapshotCopy {
            from: source.snapshot_id.clone(),
            to: record.snapshot_id.clone(),
            reencrypt,
        };
        (record, copy)
    }

    /// `CopySnapshot` of a snapshot that the caller may read; the copy is the caller's. A key that cannot be used makes
    /// the copy fail after the answer, as on EC2.
    pub fn copy_snapshot(
        &mut self,
        caller: &Caller,
        request: &CopySnapshotRequest,
        fx: &mut dyn Effects,
    ) -> Api<CopiedSnapshot> {
        description(request.description.as_deref())?;
        check_encryption(
            request.encrypted,
            request.kms_key_id.as_deref(),
            request.completion_duration_minutes,
        )?;
        let [tags]: [Tags; 1] = tag_sets(&request.tag_specifications, ["snapshot"])?;
        let id = snapshot_id(&request.source_snapshot_id)?;
        let from = Caller {
            account: caller.account.clone(),
            region: region("SourceRegion", &request.source_region)?,
        };
        dry_run(request.dry_run)?;
        let source = self.seen_snapshot(&from, &id)?.clone();
        if source.state != SnapshotState::Completed {
            return refuse(
                ErrorCode::IncorrectState,
                format!("Snapshot '{id}' is not 'completed'."),
            );
        }
        if source.owner != caller.account && !source.product_codes.is_empty() {
            return refuse(
                ErrorCode::InvalidRequest,
                format!(
                    "Snapshot {id} with AWS Marketplace product codes cannot be copied to another AWS account"
                ),
            );
        }
        let plan = self.copy_plan(
            caller,
            &from,
            &source,
            request.encrypted,
            request.kms_key_id.as_deref(),
            fx,
        );
        let (mut record, copy) = match plan {
            Ok(plan) => {
                let (record, copy) = self.copied(caller, &source, plan, fx);
                (record, Some(copy))
            }
            Err(error) => {
                let mut record = self.pending_snapshot(caller, source.volume_size, fx);
                record.parent = Some(id.clone());
                record.state = SnapshotState::Error;
                record.state_message = Some(not_accessible(&error));
                (record, None)
            }
        };
        record.description = Some(
            request
                .description
                .clone()
                .unwrap_or_else(|| format!("[Copied {id} from {}]", from.region)),
        );
        record.tags = tags;
        let done = CopiedSnapshot {
            snapshot_id: record.snapshot_id.clone(),
            state: record.state,
            copy,
        };
        self.snapshots.insert(record.snapshot_id.clone(), record);
        Ok(done)
    }
}

const fn no_storage() -> &'static str {
    "You do not have permission to access the storage of this ami"
}

fn not_accessible(error: &ApiError) -> String {
    format!("Given key ID is not accessible: {error}")
}
