//! The end of images and snapshots: deregistering, deleting, the recycle bin, disabling, deprecating, and protection.
//!
//! Source: EC2 user guide, `deregister-ami`, `ami-deregistration-protection`, `ami-deprecate`, `disable-an-ami`; EBS user
//! guide, `recycle-bin`.

use amiforge_types::Timestamp;

use super::check::{Api, bad_value, date, dry_run, image_id, no_snapshot, refuse, snapshot_id};
use super::keys::after_days;
use super::request::request;
use super::{
    BinEntry, Caller, Effects, ErrorCode, Image, ImageState, Protection, SnapshotState, State,
};
use crate::{CreationDate, ImageId, SnapshotId};

const DAY: i64 = 86_400;

/// Longest time ahead that an image can be deprecated, in days: ten years.
const DEPRECATION_DAYS: i64 = 3653;

/// Time after which a public image is deprecated, in days from its creation: two years.
const PUBLIC_DAYS: u16 = 730;

request! {
    /// `DeregisterImage`.
    pub struct DeregisterImageRequest {
        /// The image.
        pub image_id: String,
        /// Deletes its snapshots, too.
        pub delete_associated_snapshots: bool,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// A request that names an image and nothing else: `DisableImage`, `EnableImage`, `DisableImageDeprecation`,
    /// `DisableImageDeregistrationProtection`, `RestoreImageFromRecycleBin`, `CancelImageLaunchPermission`.
    pub struct ImageRequest {
        /// The image.
        pub image_id: String,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// A request that names a snapshot and nothing else: `DeleteSnapshot`, `RestoreSnapshotFromRecycleBin`.
    pub struct SnapshotRequest {
        /// The snapshot.
        pub snapshot_id: String,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `EnableImageDeprecation`.
    pub struct DeprecateImageRequest {
        /// The image.
        pub image_id: String,
        /// When, for example `2027-01-01T00:00:00Z`; rounded to the nearest minute.
        pub deprecate_at: String,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `EnableImageDeregistrationProtection`.
    pub struct ProtectImageRequest {
        /// The image.
        pub image_id: String,
        /// The protection holds a day longer than it is on.
        pub with_cooldown: bool,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

/// `ReturnCode` of a snapshot that was to be deleted with its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteReturnCode {
    /// Deleted, or in the recycle bin.
    Success,
    /// Another image uses it.
    Skipped,
    /// It is not the caller's.
    MissingPermissions,
    /// It is not there.
    ClientError,
}

impl DeleteReturnCode {
    /// The code as the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Skipped => "skipped",
            Self::MissingPermissions => "missing-permissions",
            Self::ClientError => "client-error",
        }
    }
}

/// What [`State::deregister_image`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deregistered {
    /// The image.
    pub image_id: ImageId,
    /// The image is in the recycle bin.
    pub in_bin: bool,
    /// `DeleteSnapshotResults`; empty unless deletion was asked for.
    pub delete_snapshot_results: Vec<(SnapshotId, DeleteReturnCode)>,
}

impl Protection {
    /// Whether the image cannot be deregistered now.
    #[must_use]
    pub fn holds(self, now: Timestamp) -> bool {
        match self {
            Self::Disabled => false,
            Self::EnabledWithoutCooldown | Self::EnabledWithCooldown { off_since: None } => true,
            Self::EnabledWithCooldown {
                off_since: Some(at),
            } => now.secs.saturating_sub(at.timestamp().secs) < DAY,
        }
    }

    /// When it ends by itself: a day after it was taken off.
    #[must_use]
    pub fn until(self) -> Option<Timestamp> {
        match self {
            Self::EnabledWithCooldown {
                off_since: Some(at),
            } => {
                let mut until = at.timestamp();
                until.secs = until.secs.saturating_add(DAY);
                Some(until)
            }
            _ => None,
        }
    }

    /// The text that the API has for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::EnabledWithoutCooldown => "enabled-without-cooldown",
            Self::EnabledWithCooldown { .. } => "enabled-with-cooldown",
        }
    }
}

/// The date on which a public image is deprecated by itself.
pub(crate) fn public_deprecation(image: &Image) -> CreationDate {
    after_days(image.creation_date, PUBLIC_DAYS)
}

impl State {
    /// `DeregisterImage`: the image goes, or lies in the recycle bin when the settings have days for it. Instances of it
    /// stay. A pending one is cancelled with its snapshots.
    ///
    /// `OperationNotPermitted` while it is protected (AWS's code for that is not documented); `InvalidAMIID.Unavailable`
    /// when it was deregistered before.
    pub fn deregister_image(
        &mut self,
        caller: &Caller,
        request: &DeregisterImageRequest,
        fx: &dyn Effects,
    ) -> Api<Deregistered> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        let image = self.own_image(caller, &id, fx)?.clone();
        if image.deregistration_protection.holds(fx.now()) {
            let how = match image.deregistration_protection.until() {
                Some(until) => format!("until {until}, a day after that was taken off."),
                None => "disable its deregistration protection first.".to_owned(),
            };
            return refuse(
                ErrorCode::OperationNotPermitted,
                format!("The image '{id}' is protected against deregistration: {how}"),
            );
        }
        let days = self.settings_of(caller).image_retention_days;
        let keep =
            days.filter(|_| matches!(image.state, ImageState::Available | ImageState::Disabled));
        // Each once, in the order of the devices: two volumes may be of one snapshot.
        let mut snapshots: Vec<SnapshotId> = Vec::new();
        for mapping in &image.block_device_mappings {
            if let Some(id) = mapping.as_ebs().and_then(|v| v.snapshot_id.as_ref())
                && !snapshots.contains(id)
            {
                snapshots.push(id.clone());
            }
        }
        if let Some(record) = self.images.get_mut(&id) {
            record.state = ImageState::Deregistered;
            record.bin = keep.map(|days| BinEntry {
                entered: date(fx),
                exits: after_days(date(fx), days),
                disabled: image.state == ImageState::Disabled,
            });
        }
        if image.state == ImageState::Pending {
            for snapshot in &snapshots {
                if self
                    .snapshots
                    .get(snapshot)
                    .is_some_and(|s| s.state == SnapshotState::Pending)
                {
                    self.snapshots.remove(snapshot);
                }
            }
        }
        let mut results = Vec::new();
        if request.delete_associated_snapshots {
            for snapshot in snapshots {
                let code = match self.snapshots.get(&snapshot) {
                    None => DeleteReturnCode::ClientError,
                    Some(s) if s.owner != caller.account => DeleteReturnCode::MissingPermissions,
                    // In the bin already.
                    Some(s) if s.bin.is_some() => DeleteReturnCode::ClientError,
                    Some(_) if self.user_of(&snapshot).is_some() => DeleteReturnCode::Skipped,
                    Some(_) => {
                        self.remove_snapshot(caller, &snapshot, fx);
                        DeleteReturnCode::Success
                    }
                };
                results.push((snapshot, code));
            }
        }
        Ok(Deregistered {
            image_id: id,
            in_bin: keep.is_some(),
            delete_snapshot_results: results,
        })
    }

    /// What needs a snapshot: an image that is not deregistered, or a copy of it that is being made.
    fn user_of(&self, id: &SnapshotId) -> Option<String> {
        let image = self.images.values().find(|image| {
            image.state != ImageState::Deregistered
                && image.block_device_mappings.iter().any(|m| {
                    m.as_ebs()
                        .is_some_and(|v| v.snapshot_id.as_ref() == Some(id))
                })
        });
        if let Some(image) = image {
            return Some(image.image_id.to_string());
        }
        self.snapshots
            .values()
            .find(|s| {
                s.state == SnapshotState::Pending
                    && s.volume_id.is_none()
                    && s.parent.as_ref() == Some(id)
            })
            .map(|s| s.snapshot_id.to_string())
    }

    /// Takes a snapshot away, or into the recycle bin.
    fn remove_snapshot(&mut self, caller: &Caller, id: &SnapshotId, fx: &dyn Effects) -> bool {
        let days = self.settings_of(caller).snapshot_retention_days;
        match (days, self.snapshots.get_mut(id)) {
            (Some(days), Some(snapshot)) if snapshot.state == SnapshotState::Completed => {
                snapshot.state = SnapshotState::Recoverable;
                snapshot.bin = Some(BinEntry {
                    entered: date(fx),
                    exits: after_days(date(fx), days),
                    disabled: false,
                });
                true
            }
            _ => {
                self.snapshots.remove(id);
                false
            }
        }
    }

    /// `DeleteSnapshot`: gives whether it lies in the recycle bin. `InvalidSnapshot.InUse` while an image has it, also a
    /// disabled one; an image in the recycle bin does not hold its snapshots.
    pub fn delete_snapshot(
        &mut self,
        caller: &Caller,
        request: &SnapshotRequest,
        fx: &dyn Effects,
    ) -> Api<bool> {
        let id = snapshot_id(&request.snapshot_id)?;
        dry_run(request.dry_run)?;
        self.own_snapshot(caller, &id)?;
        if let Some(user) = self.user_of(&id) {
            return refuse(
                ErrorCode::InvalidSnapshotInUse,
                format!("The snapshot {id} is currently in use by {user}"),
            );
        }
        Ok(self.remove_snapshot(caller, &id, fx))
    }

    /// `RestoreSnapshotFromRecycleBin`: complete again, with its tags and permissions.
    pub fn restore_snapshot(&mut self, caller: &Caller, request: &SnapshotRequest) -> Api<()> {
        let id = snapshot_id(&request.snapshot_id)?;
        dry_run(request.dry_run)?;
        let snapshot = self
            .snapshots
            .get_mut(&id)
            .filter(|s| s.bin.is_some() && s.owner == caller.account && s.region == caller.region)
            .ok_or_else(|| no_snapshot(id.as_str()))?;
        snapshot.bin = None;
        snapshot.state = SnapshotState::Completed;
        Ok(())
    }

    /// `RestoreImageFromRecycleBin`: as it was, with its id, tags and launch permissions; one that was disabled is so
    /// again.
    ///
    /// `InvalidAMIID.NotFound` when it is not in the bin; `InvalidAMIName.Duplicate` when its name was given away;
    /// `IncorrectState` when a snapshot of it lies in the bin and is to be restored first, `InvalidSnapshot.NotFound` when
    /// one is gone.
    pub fn restore_image(&mut self, caller: &Caller, request: &ImageRequest) -> Api<()> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        let image = self
            .images
            .get(&id)
            .filter(|i| i.bin.is_some() && i.owner == caller.account && i.region == caller.region)
            .ok_or_else(|| super::check::no_image(id.as_str()))?;
        self.free_name(caller, &image.name)?;
        for snapshot in image
            .block_device_mappings
            .iter()
            .filter_map(|m| m.as_ebs()?.snapshot_id.as_ref())
        {
            match self.snapshots.get(snapshot) {
                None => return Err(no_snapshot(snapshot.as_str())),
                Some(s) if s.bin.is_some() => {
                    return refuse(
                        ErrorCode::IncorrectState,
                        format!("Snapshot '{snapshot}' is in the recycle bin: restore it first."),
                    );
                }
                Some(_) => {}
            }
        }
        if let Some(image) = self.images.get_mut(&id)
            && let Some(bin) = image.bin.take()
        {
            image.state = if bin.disabled {
                ImageState::Disabled
            } else {
                ImageState::Available
            };
        }
        Ok(())
    }

    /// `DisableImage`: nobody launches it, all launch permissions go. Disabling it twice is no error.
    pub fn disable_image(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        let image = self.image_in(caller, request, fx)?;
        image.state = ImageState::Disabled;
        image.launch_permissions.clear();
        Ok(())
    }

    /// `EnableImage`: it can be launched again, by its owner alone. Enabling it twice is no error.
    pub fn enable_image(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        self.image_in(caller, request, fx)?.state = ImageState::Available;
        Ok(())
    }

    /// The caller's image, available or disabled.
    fn image_in(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<&mut Image> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        let image = self.own_image_mut(caller, &id, fx)?;
        if !matches!(image.state, ImageState::Available | ImageState::Disabled) {
            return refuse(
                ErrorCode::IncorrectState,
                format!("The image '{id}' is not available."),
            );
        }
        Ok(image)
    }

    /// `EnableImageDeprecation`: from then on others do not see it in lists. At most ten years ahead, of a public image two
    /// years after its creation; `InvalidParameterValue` otherwise. Gives the time, rounded.
    pub fn deprecate_image(
        &mut self,
        caller: &Caller,
        request: &DeprecateImageRequest,
        fx: &dyn Effects,
    ) -> Api<CreationDate> {
        let id = image_id(&request.image_id)?;
        if request.deprecate_at.is_empty() {
            return super::check::missing("DeprecateAt");
        }
        let at: Timestamp = request
            .deprecate_at
            .parse()
            .map_err(|_| bad_value("DeprecateAt", &request.deprecate_at))?;
        dry_run(request.dry_run)?;
        let now = fx.now();
        let image = self.own_image_mut(caller, &id, fx)?;
        let minute = at.secs.saturating_add(30).div_euclid(60).saturating_mul(60);
        let at = CreationDate::new(Timestamp::from_secs(minute));
        let latest = if image.is_public() {
            public_deprecation(image)
                .timestamp()
                .secs
                .saturating_add(30)
        } else {
            now.secs.saturating_add(DEPRECATION_DAYS * DAY)
        };
        if at.timestamp() <= now || at.timestamp().secs > latest {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "DeprecateAt must lie in the future, at most ten years ahead (of a public image, two years after its creation): {at}"
                ),
            );
        }
        image.deprecation_time = Some(at);
        Ok(at)
    }

    /// `DisableImageDeprecation`. A public image gets back the date that all public images have, two years after its
    /// creation.
    pub fn undeprecate_image(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        let image = self.own_image_mut(caller, &id, fx)?;
        image.deprecation_time = image.is_public().then(|| public_deprecation(image));
        Ok(())
    }

    /// `EnableImageDeregistrationProtection`. Gives the text that the API answers with.
    pub fn protect_image(
        &mut self,
        caller: &Caller,
        request: &ProtectImageRequest,
        fx: &dyn Effects,
    ) -> Api<&'static str> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        let image = self.own_image_mut(caller, &id, fx)?;
        image.deregistration_protection = if request.with_cooldown {
            Protection::EnabledWithCooldown { off_since: None }
        } else {
            Protection::EnabledWithoutCooldown
        };
        Ok(image.deregistration_protection.as_str())
    }

    /// `DisableImageDeregistrationProtection`: at once, or with a cooldown a day later. Doing it again does not make the day
    /// longer. Gives what protects it now.
    pub fn unprotect_image(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<Protection> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        let now = date(fx);
        let image = self.own_image_mut(caller, &id, fx)?;
        image.deregistration_protection = match image.deregistration_protection {
            Protection::EnabledWithCooldown { off_since }
                if image.deregistration_protection.holds(now.timestamp()) =>
            {
                Protection::EnabledWithCooldown {
                    off_since: Some(off_since.unwrap_or(now)),
                }
            }
            _ => Protection::Disabled,
        };
        Ok(image.deregistration_protection)
    }

    /// The images of the caller in the recycle bin, those that leave it first in front (`ListImagesInRecycleBin`).
    #[must_use]
    pub fn images_in_bin(&self, caller: &Caller) -> Vec<&Image> {
        let mut images: Vec<&Image> = self
            .images
            .values()
            .filter(|i| i.bin.is_some() && i.owner == caller.account && i.region == caller.region)
            .collect();
        images.sort_by_key(|i| i.bin.map(|b| b.exits));
        images
    }

    /// The snapshots of the caller in the recycle bin, those that leave it first in front (`ListSnapshotsInRecycleBin`).
    #[must_use]
    pub fn snapshots_in_bin(&self, caller: &Caller) -> Vec<&super::Snapshot> {
        let mut snapshots: Vec<_> = self
            .snapshots
            .values()
            .filter(|s| s.bin.is_some() && s.owner == caller.account && s.region == caller.region)
            .collect();
        snapshots.sort_by_key(|s| s.bin.map(|b| b.exits));
        snapshots
    }
}
