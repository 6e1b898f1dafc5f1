//! What every operation asks first: that texts are ids, names and tags, and that the resource is there, seen, and the
//! caller's. In the order in which EC2 answers: presence, syntax, dry run, existence and visibility, owner, state.

use std::str::FromStr;

use amiforge_types::Digest;

use super::{
    AccountId, ApiError, Caller, Effects, ErrorCode, Image, ImageState, Instance, KeyId, Snapshot,
    State, Tag, TagSpecification, Tags, Volume,
};
use crate::{
    CreationDate, ImageId, InstanceId, ReservationId, SnapshotId, VolumeId, check_ami_name,
};

/// A result of an operation.
pub(crate) type Api<T> = Result<T, ApiError>;

pub(crate) fn refuse<T>(code: ErrorCode, message: impl Into<String>) -> Api<T> {
    Err(ApiError::new(code, message))
}

/// `DryRunOperation` when the request is one; everything that is known without looking at resources was checked.
pub(crate) fn dry_run(asked: bool) -> Api<()> {
    if asked {
        return refuse(
            ErrorCode::DryRunOperation,
            "Request would have succeeded, but DryRun flag is set.",
        );
    }
    Ok(())
}

fn parse<T: FromStr>(text: &str, code: ErrorCode, member: &str, prefix: &str) -> Api<T> {
    if text.is_empty() {
        return missing(member);
    }
    let shown: String = text.chars().take(60).collect();
    text.parse().map_err(|_| {
        ApiError::new(
            code,
            format!("Invalid id: \"{shown}\" (expecting \"{prefix}...\")"),
        )
    })
}

pub(crate) fn missing<T>(member: &str) -> Api<T> {
    refuse(
        ErrorCode::MissingParameter,
        format!("The request must contain the parameter {member}"),
    )
}

pub(crate) fn image_id(text: &str) -> Api<ImageId> {
    parse(
        text,
        ErrorCode::InvalidAmiIdMalformed,
        "ImageId",
        ImageId::PREFIX,
    )
}

pub(crate) fn snapshot_id(text: &str) -> Api<SnapshotId> {
    parse(
        text,
        ErrorCode::InvalidSnapshotIdMalformed,
        "SnapshotId",
        SnapshotId::PREFIX,
    )
}

pub(crate) fn instance_id(text: &str) -> Api<InstanceId> {
    parse(
        text,
        ErrorCode::InvalidInstanceIdMalformed,
        "InstanceId",
        InstanceId::PREFIX,
    )
}

pub(crate) fn volume_id(text: &str) -> Api<VolumeId> {
    parse(
        text,
        ErrorCode::InvalidVolumeIdMalformed,
        "VolumeId",
        VolumeId::PREFIX,
    )
}

/// A value of an enumeration.
pub(crate) fn one_of<T: FromStr>(member: &str, text: &str) -> Api<T> {
    text.parse().map_err(|_| bad_value(member, text))
}

pub(crate) fn bad_value(member: &str, text: &str) -> ApiError {
    let shown: String = text.chars().take(60).collect();
    ApiError::new(
        ErrorCode::InvalidParameterValue,
        format!("Value ({shown}) for parameter {member} is invalid."),
    )
}

pub(crate) fn ami_name(name: &str) -> Api<()> {
    if name.is_empty() {
        return missing("Name");
    }
    check_ami_name(name)
        .map_err(|error| ApiError::new(ErrorCode::InvalidAmiNameMalformed, error.to_string()))
}

pub(crate) fn description(text: Option<&str>) -> Api<()> {
    if text.is_some_and(|t| t.chars().count() > 255) {
        return refuse(
            ErrorCode::InvalidParameterValue,
            "Description exceeds the maximum length of 255 characters.",
        );
    }
    Ok(())
}

/// Most tags of a resource.
const MAX_TAGS: usize = 50;

/// Checks tags and adds them to `tags`.
pub(crate) fn add_tags(tags: &mut Tags, new: &[Tag]) -> Api<()> {
    for Tag { key, value } in new {
        tag_key(key)?;
        if value.chars().count() > 256 {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!("Tag value exceeds the maximum length of 256 characters. TagKey: {key}"),
            );
        }
        tags.insert(key.clone(), value.clone());
    }
    if tags.len() > MAX_TAGS {
        return refuse(
            ErrorCode::TagLimitExceeded,
            format!("The maximum number of tags for a resource is {MAX_TAGS}."),
        );
    }
    Ok(())
}

pub(crate) fn tag_key(key: &str) -> Api<()> {
    let len = key.chars().count();
    if !(1..=127).contains(&len) {
        return refuse(
            ErrorCode::InvalidTagKeyMalformed,
            format!("Tag key has 1 to 127 characters, not {len}."),
        );
    }
    // Compared byte by byte: a key that begins with other characters has no boundary at 4.
    if key
        .as_bytes()
        .get(..4)
        .is_some_and(|p| p.eq_ignore_ascii_case(b"aws:"))
    {
        return refuse(
            ErrorCode::InvalidTagKeyMalformed,
            format!("Tag keys starting with 'aws:' are reserved for internal use: {key}"),
        );
    }
    Ok(())
}

/// The tags of `specifications` for each type of `types`, in that order; `InvalidParameterValue` for any other type.
pub(crate) fn tag_sets<const N: usize>(
    specifications: &[TagSpecification],
    types: [&str; N],
) -> Api<[Tags; N]> {
    let mut sets: [Tags; N] = std::array::from_fn(|_| Tags::new());
    for specification in specifications {
        let Some(i) = types.iter().position(|t| *t == specification.resource_type) else {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!(
                    "'{}' is not a valid taggable resource type for this operation.",
                    specification.resource_type
                ),
            );
        };
        add_tags(&mut sets[i], &specification.tags)?;
    }
    Ok(sets)
}

/// Bytes that a base64 text stands for; `None` when it is not one.
pub(crate) fn base64_len(text: &str) -> Option<usize> {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    let good = body
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'));
    (good && text.len().is_multiple_of(4) && padding <= 2 && body.len() % 4 != 1)
        .then_some(body.len() * 3 / 4)
}

/// The digest of a request, to tell a repetition from another request with the same client token.
pub(crate) fn request_digest<T: serde::Serialize>(request: &T) -> Digest {
    // Cannot fail: plain structs with string keys.
    Digest::of(&serde_json::to_vec(request).unwrap_or_default())
}

pub(crate) fn gone(id: &ImageId) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidAmiIdUnavailable,
        format!("The image id '[{id}]' is no longer available"),
    )
}

pub(crate) fn no_image(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidAmiIdNotFound,
        format!("The image id '[{id}]' does not exist"),
    )
}

pub(crate) fn no_snapshot(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidSnapshotNotFound,
        format!("The snapshot '{id}' does not exist."),
    )
}

pub(crate) fn no_instance(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidInstanceIdNotFound,
        format!("The instance ID '{id}' does not exist"),
    )
}

pub(crate) fn no_volume(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::InvalidVolumeNotFound,
        format!("The volume '{id}' does not exist."),
    )
}

pub(crate) fn date(fx: &dyn Effects) -> CreationDate {
    CreationDate::new(fx.now())
}

/// `KmsKeyId` as EC2 answers it.
pub(crate) fn key_arn(account: &AccountId, region: &super::Region, key: &KeyId) -> String {
    format!("arn:aws:kms:{region}:{account}:key/{key}")
}

impl State {
    /// The image, when the caller sees it.
    pub(crate) fn seen_image(
        &self,
        caller: &Caller,
        id: &ImageId,
        fx: &dyn Effects,
    ) -> Api<&Image> {
        self.images
            .get(id)
            .filter(|image| self.may_launch(caller, image, fx.now()))
            .ok_or_else(|| no_image(id.as_str()))
    }

    /// The image, when it is the caller's and not deregistered.
    pub(crate) fn own_image(&self, caller: &Caller, id: &ImageId, fx: &dyn Effects) -> Api<&Image> {
        let image = self.seen_image(caller, id, fx)?;
        if image.owner != caller.account {
            return refuse(
                ErrorCode::AuthFailure,
                format!("Not authorized for image:{id}"),
            );
        }
        if image.state == ImageState::Deregistered {
            return Err(gone(id));
        }
        Ok(image)
    }

    /// [`State::own_image`], to change.
    pub(crate) fn own_image_mut(
        &mut self,
        caller: &Caller,
        id: &ImageId,
        fx: &dyn Effects,
    ) -> Api<&mut Image> {
        self.own_image(caller, id, fx)?;
        self.images.get_mut(id).ok_or_else(|| no_image(id.as_str()))
    }

    /// The snapshot, when the caller may read it and it is not in the recycle bin.
    pub(crate) fn seen_snapshot(&self, caller: &Caller, id: &SnapshotId) -> Api<&Snapshot> {
        self.snapshots
            .get(id)
            .filter(|s| {
                s.region == caller.region && s.bin.is_none() && s.readable_by(&caller.account)
            })
            .ok_or_else(|| no_snapshot(id.as_str()))
    }

    /// The snapshot, when it is the caller's.
    pub(crate) fn own_snapshot(&self, caller: &Caller, id: &SnapshotId) -> Api<&Snapshot> {
        let snapshot = self.seen_snapshot(caller, id)?;
        if snapshot.owner != caller.account {
            return refuse(
                ErrorCode::AuthFailure,
                format!("Not authorized for snapshot:{id}"),
            );
        }
        Ok(snapshot)
    }

    /// The instance, when it is the caller's.
    pub(crate) fn own_instance(&self, caller: &Caller, id: &InstanceId) -> Api<&Instance> {
        self.instances
            .get(id)
            .filter(|i| i.owner == caller.account && i.region == caller.region)
            .ok_or_else(|| no_instance(id.as_str()))
    }

    /// The volume, when it is the caller's.
    pub(crate) fn own_volume(&self, caller: &Caller, id: &VolumeId) -> Api<&Volume> {
        self.volumes
            .get(id)
            .filter(|v| v.owner == caller.account && v.region == caller.region)
            .ok_or_else(|| no_volume(id.as_str()))
    }

    /// `InvalidAMIName.Duplicate` when an image of the caller in this region has the name. Failed and deregistered
    /// images hold none (UNCONFIRMED for failed ones; a second attempt should not need another name).
    pub(crate) fn free_name(&self, caller: &Caller, name: &str) -> Api<()> {
        let holder = self.images.values().find(|i| {
            i.name == name
                && i.owner == caller.account
                && i.region == caller.region
                && !matches!(i.state, ImageState::Failed | ImageState::Deregistered)
        });
        match holder {
            None => Ok(()),
            Some(image) => refuse(
                ErrorCode::InvalidAmiNameDuplicate,
                format!(
                    "AMI name {name} is already in use by AMI {}",
                    image.image_id
                ),
            ),
        }
    }

    pub(crate) fn new_image_id(&self, fx: &mut dyn Effects) -> ImageId {
        loop {
            let id = ImageId::random(fx.random());
            if !self.images.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn new_snapshot_id(&self, fx: &mut dyn Effects) -> SnapshotId {
        loop {
            let id = SnapshotId::random(fx.random());
            if !self.snapshots.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn new_volume_id(&self, fx: &mut dyn Effects) -> VolumeId {
        loop {
            let id = VolumeId::random(fx.random());
            if !self.volumes.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn new_instance_id(&self, fx: &mut dyn Effects) -> InstanceId {
        loop {
            let id = InstanceId::random(fx.random());
            if !self.instances.contains_key(&id) {
                return id;
            }
        }
    }

    pub(crate) fn new_reservation_id(&self, fx: &mut dyn Effects) -> ReservationId {
        loop {
            let id = ReservationId::random(fx.random());
            if !self.instances.values().any(|i| i.reservation_id == id) {
                return id;
            }
        }
    }

    /// Settings of the caller where it is; the default ones when none were set.
    #[must_use]
    pub fn settings_of(&self, caller: &Caller) -> super::RegionSettings {
        self.settings
            .get(&(caller.account.clone(), caller.region.clone()))
            .cloned()
            .unwrap_or_default()
    }
}
