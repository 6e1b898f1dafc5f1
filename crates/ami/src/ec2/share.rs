//! `ModifyImageAttribute` and `ModifySnapshotAttribute`: sharing, description, IMDS support.
//!
//! Source: EC2 API reference, `ModifyImageAttribute`, `ModifySnapshotAttribute`, `CancelImageLaunchPermission`; EC2 user
//! guide, `sharingamis-explicit`, `share-amis-with-organizations-and-OUs`, `block-public-access-to-amis`.

use std::collections::BTreeSet;

use super::check::{Api, bad_value, description, dry_run, image_id, missing, refuse, snapshot_id};
use super::request::request;
use super::retire::public_deprecation;
use super::transitions::one_attribute;
use super::{
    AccountId, ApiError, Caller, Effects, ErrorCode, Image, ImageRequest, ImageState,
    LaunchPermission, SnapshotPermission, SnapshotState, State,
};
use crate::V2Support;

/// Most grantees of one request.
const MAX_CHANGES: usize = 10_000;
/// Most accounts, organizations and units that an image is shared with.
pub(crate) const MAX_GRANTEES: usize = 1_000;
/// Most public images of an account in a region.
pub(crate) const MAX_PUBLIC: usize = 5;
/// Most grantees of one request about a snapshot.
const MAX_SNAPSHOT_CHANGES: usize = 500;

request! {
    /// `LaunchPermission`: exactly one member.
    pub struct LaunchPermissionRequest {
        /// An account.
        pub user_id: Option<String>,
        /// `all`.
        pub group: Option<String>,
        /// `arn:aws:organizations::<management account>:organization/o-…`.
        pub organization_arn: Option<String>,
        /// `arn:aws:organizations::<management account>:ou/o-…/ou-…`.
        pub organizational_unit_arn: Option<String>,
    }
}

request! {
    /// `LaunchPermissionModifications`.
    pub struct LaunchPermissionChanges {
        /// To add.
        pub add: Vec<LaunchPermissionRequest>,
        /// To remove.
        pub remove: Vec<LaunchPermissionRequest>,
    }
}

request! {
    /// `AttributeValue`.
    pub struct AttributeValue {
        /// The value.
        pub value: String,
    }
}

request! {
    /// `ModifyImageAttribute`: one attribute, in the newer form (a member of its name) or the older one (`Attribute` with
    /// `Value`, or with `OperationType` and lists).
    pub struct ModifyImageRequest {
        /// The image.
        pub image_id: String,
        /// `description`, `imdsSupport` or `launchPermission`, in the older form.
        pub attribute: Option<String>,
        /// The value, in the older form.
        pub value: Option<String>,
        /// `add` or `remove`, in the older form.
        pub operation_type: Option<String>,
        /// Accounts, in the older form.
        pub user_ids: Vec<String>,
        /// `all`, in the older form.
        pub user_groups: Vec<String>,
        /// Organizations, in the older form.
        pub organization_arns: Vec<String>,
        /// Organizational units, in the older form.
        pub organizational_unit_arns: Vec<String>,
        /// Another description.
        pub description: Option<AttributeValue>,
        /// `v2.0`.
        pub imds_support: Option<AttributeValue>,
        /// Who may launch it.
        pub launch_permission: Option<LaunchPermissionChanges>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `CreateVolumePermission`: exactly one member.
    pub struct VolumePermissionRequest {
        /// An account.
        pub user_id: Option<String>,
        /// `all`.
        pub group: Option<String>,
    }
}

request! {
    /// `CreateVolumePermissionModifications`: either additions or removals.
    pub struct VolumePermissionChanges {
        /// To add.
        pub add: Vec<VolumePermissionRequest>,
        /// To remove.
        pub remove: Vec<VolumePermissionRequest>,
    }
}

request! {
    /// `ModifySnapshotAttribute`, in the newer form or the older one (`OperationType` and lists).
    pub struct ModifySnapshotRequest {
        /// The snapshot.
        pub snapshot_id: String,
        /// `createVolumePermission`, in the older form.
        pub attribute: Option<String>,
        /// `add` or `remove`, in the older form.
        pub operation_type: Option<String>,
        /// Accounts, in the older form.
        pub user_ids: Vec<String>,
        /// `all`, in the older form.
        pub group_names: Vec<String>,
        /// Who may make volumes of it.
        pub create_volume_permission: Option<VolumePermissionChanges>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

fn bad_item(kind: &str, text: &str) -> ApiError {
    let shown: String = text.chars().take(100).collect();
    ApiError::new(
        ErrorCode::InvalidAmiAttributeItemValue,
        format!("Invalid attribute item value \"{shown}\" for {kind} item type."),
    )
}

/// `arn:aws:organizations::<12 digits>:<kind>/o-…`, with an id after the kind for each of `prefixes`.
pub(super) fn organization_arn(text: &str, kind: &str, prefixes: &[&str]) -> bool {
    let Some(rest) = text.strip_prefix("arn:aws:organizations::") else {
        return false;
    };
    let Some((account, resource)) = rest.split_once(':') else {
        return false;
    };
    let mut parts = resource.split('/');
    account.parse::<AccountId>().is_ok()
        && parts.next() == Some(kind)
        && prefixes.iter().all(|prefix| {
            parts.next().is_some_and(|id| {
                id.strip_prefix(prefix).is_some_and(|rest| {
                    (4..=68).contains(&rest.len())
                        && rest
                            .bytes()
                            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                })
            })
        })
        && parts.next().is_none()
}

impl LaunchPermissionRequest {
    fn read(&self) -> Api<LaunchPermission> {
        match (
            &self.user_id,
            &self.group,
            &self.organization_arn,
            &self.organizational_unit_arn,
        ) {
            (Some(id), None, None, None) => id
                .parse()
                .map(LaunchPermission::UserId)
                .map_err(|_| bad_item("userId", id)),
            (None, Some(group), None, None) if group == "all" => Ok(LaunchPermission::All),
            (None, Some(group), None, None) => Err(bad_item("group", group)),
            (None, None, Some(arn), None) if organization_arn(arn, "organization", &["o-"]) => {
                Ok(LaunchPermission::OrganizationArn(arn.clone()))
            }
            (None, None, Some(arn), None) => Err(bad_item("organizationArn", arn)),
            (None, None, None, Some(arn)) if organization_arn(arn, "ou", &["o-", "ou-"]) => {
                Ok(LaunchPermission::OrganizationalUnitArn(arn.clone()))
            }
            (None, None, None, Some(arn)) => Err(bad_item("organizationalUnitArn", arn)),
            (None, None, None, None) => missing("UserId or Group"),
            _ => refuse(
                ErrorCode::InvalidParameterCombination,
                "A launch permission has one of UserId, Group, OrganizationArn, OrganizationalUnitArn.",
            ),
        }
    }
}

/// The permission of the request for an account.
impl From<&AccountId> for LaunchPermissionRequest {
    fn from(account: &AccountId) -> Self {
        Self {
            user_id: Some(account.to_string()),
            ..Self::default()
        }
    }
}

impl VolumePermissionRequest {
    fn read(&self) -> Api<SnapshotPermission> {
        match (&self.user_id, &self.group) {
            (Some(id), None) => id.parse().map(SnapshotPermission::UserId).map_err(|_| {
                let shown: String = id.chars().take(60).collect();
                ApiError::new(
                    ErrorCode::InvalidUserIdMalformed,
                    format!("Invalid user id: \"{shown}\""),
                )
            }),
            (None, Some(group)) if group == "all" => Ok(SnapshotPermission::All),
            (None, Some(group)) => Err(bad_value("Group", group)),
            (None, None) => missing("UserId or Group"),
            (Some(_), Some(_)) => refuse(
                ErrorCode::InvalidParameterCombination,
                "A permission has one of UserId and Group.",
            ),
        }
    }
}

/// What a [`ModifyImageRequest`] asks for.
enum ImageChange<'a> {
    Description(&'a str),
    Imds(&'a str),
    Launch {
        add: Vec<LaunchPermissionRequest>,
        remove: Vec<LaunchPermissionRequest>,
    },
}

/// Whether an older form adds.
fn adds(operation: Option<&str>) -> Api<bool> {
    match operation {
        Some("add") => Ok(true),
        Some("remove") => Ok(false),
        Some(other) => Err(bad_value("OperationType", other)),
        None => missing("OperationType"),
    }
}

impl ModifyImageRequest {
    fn change(&self) -> Api<ImageChange<'_>> {
        let lists = [
            &self.user_ids,
            &self.user_groups,
            &self.organization_arns,
            &self.organizational_unit_arns,
        ];
        let older = self.attribute.is_some()
            || self.operation_type.is_some()
            || lists.iter().any(|l| !l.is_empty());
        let newer = [
            self.description.is_some(),
            self.imds_support.is_some(),
            self.launch_permission.is_some(),
        ];
        one_attribute(newer.iter().filter(|n| **n).count() + usize::from(older))?;
        if let Some(text) = &self.description {
            return Ok(ImageChange::Description(&text.value));
        }
        if let Some(text) = &self.imds_support {
            return Ok(ImageChange::Imds(&text.value));
        }
        if let Some(changes) = &self.launch_permission {
            return Ok(ImageChange::Launch {
                add: changes.add.clone(),
                remove: changes.remove.clone(),
            });
        }
        let value = || self.value.as_deref().map_or_else(|| missing("Value"), Ok);
        match self.attribute.as_deref() {
            Some("description") => return Ok(ImageChange::Description(value()?)),
            Some("imdsSupport") => return Ok(ImageChange::Imds(value()?)),
            Some("launchPermission") | None => {}
            Some(other) => return Err(bad_value("Attribute", other)),
        }
        let of = |list: &[String],
                  make: fn(String) -> LaunchPermissionRequest|
         -> Vec<LaunchPermissionRequest> {
            list.iter().cloned().map(make).collect()
        };
        let mut all = of(&self.user_ids, |t| LaunchPermissionRequest {
            user_id: Some(t),
            ..Default::default()
        });
        all.extend(of(&self.user_groups, |t| LaunchPermissionRequest {
            group: Some(t),
            ..Default::default()
        }));
        all.extend(of(&self.organization_arns, |t| LaunchPermissionRequest {
            organization_arn: Some(t),
            ..Default::default()
        }));
        all.extend(of(&self.organizational_unit_arns, |t| {
            LaunchPermissionRequest {
                organizational_unit_arn: Some(t),
                ..Default::default()
            }
        }));
        if all.is_empty() {
            return missing("UserId");
        }
        Ok(match adds(self.operation_type.as_deref())? {
            true => ImageChange::Launch {
                add: all,
                remove: Vec::new(),
            },
            false => ImageChange::Launch {
                add: Vec::new(),
                remove: all,
            },
        })
    }
}

impl State {
    /// `ModifyImageAttribute`.
    pub fn modify_image(
        &mut self,
        caller: &Caller,
        request: &ModifyImageRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        let id = image_id(&request.image_id)?;
        match request.change()? {
            ImageChange::Description(text) => {
                description(Some(text))?;
                dry_run(request.dry_run)?;
                let image = self.own_image_mut(caller, &id, fx)?;
                image.description = (!text.is_empty()).then(|| text.to_owned());
                Ok(())
            }
            ImageChange::Imds(text) => {
                if text != "v2.0" {
                    return Err(bad_value("ImdsSupport", text));
                }
                dry_run(request.dry_run)?;
                self.own_image_mut(caller, &id, fx)?.imds_support = Some(V2Support::V2);
                Ok(())
            }
            ImageChange::Launch { add, remove } => self.modify_launch_permission(
                caller,
                &request.image_id,
                &add,
                &remove,
                request.dry_run,
                fx,
            ),
        }
    }

    /// `ModifyImageAttribute` of `launchPermission`. Adding what is there and removing what is not is no error; the owner is
    /// never listed. A public image is deprecated two years after its creation.
    ///
    /// Of an addition: `IncorrectState` unless the image is available; `InvalidParameter` when a snapshot is under the
    /// default key, or the image would be public with an encrypted snapshot; `OperationNotPermitted` when public images are
    /// blocked, or one with product codes would be for more than accounts; `ResourceLimitExceeded` above 1000 grantees or 5
    /// public images.
    pub fn modify_launch_permission(
        &mut self,
        caller: &Caller,
        image: &str,
        add: &[LaunchPermissionRequest],
        remove: &[LaunchPermissionRequest],
        dry: bool,
        fx: &dyn Effects,
    ) -> Api<()> {
        let id = image_id(image)?;
        if add.is_empty() && remove.is_empty() {
            return missing("LaunchPermission");
        }
        if add.len() + remove.len() > MAX_CHANGES {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!("A request has at most {MAX_CHANGES} launch permissions."),
            );
        }
        let read = |list: &[LaunchPermissionRequest]| -> Api<BTreeSet<LaunchPermission>> {
            list.iter().map(LaunchPermissionRequest::read).collect()
        };
        let (mut add, remove) = (read(add)?, read(remove)?);
        dry_run(dry)?;
        let image = self.own_image(caller, &id, fx)?;
        add.remove(&LaunchPermission::UserId(image.owner.clone()));
        if !add.is_empty() {
            self.may_share(caller, image, &add)?;
        }
        let mut permissions = image.launch_permissions.clone();
        permissions.extend(add);
        for permission in &remove {
            permissions.remove(permission);
        }
        let public = permissions.contains(&LaunchPermission::All);
        if permissions.len() - usize::from(public) > MAX_GRANTEES {
            return refuse(
                ErrorCode::ResourceLimitExceeded,
                format!(
                    "An image is shared with at most {MAX_GRANTEES} accounts, organizations and units."
                ),
            );
        }
        let becomes_public = public && !image.is_public();
        if becomes_public {
            let count = self
                .images
                .values()
                .filter(|i| {
                    i.owner == caller.account
                        && i.region == caller.region
                        && i.is_public()
                        && i.state != ImageState::Deregistered
                })
                .count();
            if count >= MAX_PUBLIC {
                return refuse(
                    ErrorCode::ResourceLimitExceeded,
                    format!(
                        "You have reached the limit of {MAX_PUBLIC} public AMIs in {}.",
                        caller.region
                    ),
                );
            }
        }
        let image = self.own_image_mut(caller, &id, fx)?;
        image.launch_permissions = permissions;
        if becomes_public {
            let latest = public_deprecation(image);
            image.deprecation_time =
                Some(image.deprecation_time.map_or(latest, |at| at.min(latest)));
        }
        Ok(())
    }

    fn may_share(
        &self,
        caller: &Caller,
        image: &Image,
        add: &BTreeSet<LaunchPermission>,
    ) -> Api<()> {
        let id = &image.image_id;
        if image.state != ImageState::Available {
            return refuse(
                ErrorCode::IncorrectState,
                format!("The image '{id}' is not available and cannot be shared."),
            );
        }
        let public = add.contains(&LaunchPermission::All);
        for snapshot in self.snapshots_of(image) {
            let Some(encryption) = &snapshot.encryption else {
                continue;
            };
            if self.under_default_key(encryption) {
                return refuse(
                    ErrorCode::InvalidParameter,
                    format!(
                        "Snapshot {} is encrypted with the AWS managed key; such snapshots can't be shared.",
                        snapshot.snapshot_id
                    ),
                );
            }
            if public {
                return refuse(
                    ErrorCode::InvalidParameter,
                    format!(
                        "Snapshot {} is encrypted: the image cannot be made public.",
                        snapshot.snapshot_id
                    ),
                );
            }
        }
        let beyond_accounts = add
            .iter()
            .any(|p| !matches!(p, LaunchPermission::UserId(_)));
        if beyond_accounts && !image.product_codes.is_empty() {
            return refuse(
                ErrorCode::OperationNotPermitted,
                format!("Image {id} has product codes and can be shared with accounts only."),
            );
        }
        if public && !image.is_public() && !self.settings_of(caller).allow_public_images {
            return refuse(
                ErrorCode::OperationNotPermitted,
                "You can't publicly share this image: block public access is enabled for this account.",
            );
        }
        Ok(())
    }

    /// `ResetImageAttribute` of `launchPermission`: none are left.
    pub fn reset_launch_permission(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        self.own_image_mut(caller, &id, fx)?
            .launch_permissions
            .clear();
        Ok(())
    }

    /// `CancelImageLaunchPermission`: the caller gives up what its account was granted by itself; grants to everybody, an
    /// organization or a unit stay. `InvalidRequest` when there is none (the code is not documented).
    pub fn cancel_launch_permission(
        &mut self,
        caller: &Caller,
        request: &ImageRequest,
        fx: &dyn Effects,
    ) -> Api<()> {
        let id = image_id(&request.image_id)?;
        dry_run(request.dry_run)?;
        self.seen_image(caller, &id, fx)?;
        let own = LaunchPermission::UserId(caller.account.clone());
        let removed = self
            .images
            .get_mut(&id)
            .is_some_and(|image| image.launch_permissions.remove(&own));
        if !removed {
            return refuse(
                ErrorCode::InvalidRequest,
                format!(
                    "Image {id} was not shared with account {} by itself.",
                    caller.account
                ),
            );
        }
        Ok(())
    }

    /// `ModifySnapshotAttribute` of `createVolumePermission`: additions or removals, at most 500.
    ///
    /// `OperationNotPermitted` when it is encrypted under the default key, when it is encrypted, has product codes, or
    /// public snapshots are blocked and it would be public.
    pub fn modify_snapshot(&mut self, caller: &Caller, request: &ModifySnapshotRequest) -> Api<()> {
        let id = snapshot_id(&request.snapshot_id)?;
        if let Some(other) = request
            .attribute
            .as_deref()
            .filter(|a| *a != "createVolumePermission")
        {
            return Err(bad_value("Attribute", other));
        }
        let older = request.operation_type.is_some()
            || !request.user_ids.is_empty()
            || !request.group_names.is_empty();
        if older && request.create_volume_permission.is_some() {
            return one_attribute(2);
        }
        let (add, remove) = match &request.create_volume_permission {
            Some(changes) => (changes.add.clone(), changes.remove.clone()),
            None => {
                let mut all: Vec<VolumePermissionRequest> = request
                    .user_ids
                    .iter()
                    .map(|id| VolumePermissionRequest {
                        user_id: Some(id.clone()),
                        group: None,
                    })
                    .collect();
                all.extend(request.group_names.iter().map(|g| VolumePermissionRequest {
                    user_id: None,
                    group: Some(g.clone()),
                }));
                if all.is_empty() {
                    return missing("CreateVolumePermission");
                }
                match adds(request.operation_type.as_deref())? {
                    true => (all, Vec::new()),
                    false => (Vec::new(), all),
                }
            }
        };
        match (add.is_empty(), remove.is_empty()) {
            (true, true) => return missing("CreateVolumePermission"),
            (false, false) => {
                return refuse(
                    ErrorCode::InvalidParameterCombination,
                    "Permissions can be added or removed, not both in one request.",
                );
            }
            _ => {}
        }
        if add.len() + remove.len() > MAX_SNAPSHOT_CHANGES {
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!("A request has at most {MAX_SNAPSHOT_CHANGES} permissions."),
            );
        }
        let read = |list: &[VolumePermissionRequest]| -> Api<BTreeSet<SnapshotPermission>> {
            list.iter().map(VolumePermissionRequest::read).collect()
        };
        let (mut add, remove) = (read(&add)?, read(&remove)?);
        dry_run(request.dry_run)?;
        let snapshot = self.own_snapshot(caller, &id)?;
        add.remove(&SnapshotPermission::UserId(snapshot.owner.clone()));
        let denied = |why: &str| {
            refuse(
                ErrorCode::OperationNotPermitted,
                format!("Snapshot {id}: {why}"),
            )
        };
        if !add.is_empty() {
            if snapshot.state != SnapshotState::Completed {
                return refuse(
                    ErrorCode::IncorrectState,
                    format!("Snapshot '{id}' is not 'completed'."),
                );
            }
            let public = add.contains(&SnapshotPermission::All);
            if let Some(encryption) = &snapshot.encryption {
                if self.under_default_key(encryption) {
                    return denied("Encrypted snapshots with EBS default key cannot be shared.");
                }
                if public {
                    return denied("Encrypted snapshots cannot be made public.");
                }
            }
            if public && !snapshot.product_codes.is_empty() {
                return denied("Snapshots with product codes cannot be made public.");
            }
            if public && self.settings_of(caller).block_public_snapshots {
                return denied("Block public access is enabled for this account.");
            }
        }
        if let Some(snapshot) = self.snapshots.get_mut(&id) {
            snapshot.permissions.extend(add);
            for permission in &remove {
                snapshot.permissions.remove(permission);
            }
        }
        Ok(())
    }
}
