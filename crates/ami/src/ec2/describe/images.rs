//! `DescribeImages` and `DescribeImageAttribute`.

use amiforge_types::Timestamp;

use super::super::check::{Api, bad_value, dry_run, image_id, no_image, refuse};
use super::super::filter::{check, page, passes};
use super::super::keys::no_tags;
use super::super::request::request;
use super::super::settings::AllowedImagesState;
use super::super::{
    Caller, Effects, ErrorCode, Filter, Image, ImageState, LaunchPermission, RootDevice, State,
};
use super::{
    MappingDescription, ProductCodeDescription, StateReasonDescription, TagDescription,
    check_accounts, mapping, maybe, one, owned_by, product_codes, shape, state_reason, tags,
};
use crate::ImageId;

request! {
    /// `DescribeImages`.
    pub struct DescribeImagesRequest {
        /// These; each must be seen.
        pub image_ids: Vec<String>,
        /// Of these accounts; `self` is the caller's.
        pub owners: Vec<String>,
        /// That these accounts may launch by a permission of theirs; `self`, `all`.
        pub executable_users: Vec<String>,
        /// That pass all of these.
        pub filters: Vec<Filter>,
        /// Also deprecated ones of others.
        pub include_deprecated: bool,
        /// Also disabled ones of the caller.
        pub include_disabled: bool,
        /// Most images of an answer.
        pub max_results: Option<u32>,
        /// Where the answer before ended.
        pub next_token: Option<String>,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

request! {
    /// `DescribeImageAttribute`.
    pub struct DescribeImageAttributeRequest {
        /// The image.
        pub image_id: String,
        /// Its name, for example `launchPermission`.
        pub attribute: String,
        /// Only tell whether the request is allowed.
        pub dry_run: bool,
    }
}

shape! {
    /// `Image`.
    pub struct ImageDescription {
        /// For example `Linux/UNIX`.
        pub platform_details: String,
        /// For example `RunInstances`.
        pub usage_operation: String,
        /// Its volumes.
        pub block_device_mappings: Vec<MappingDescription>,
        /// Description.
        pub description: String,
        /// Enhanced networking.
        pub ena_support: bool,
        /// Always `xen`, as on AWS.
        pub hypervisor: String,
        /// Name.
        pub name: String,
        /// The root.
        pub root_device_name: String,
        /// `ebs` or `instance-store`.
        pub root_device_type: String,
        /// `simple`.
        pub sriov_net_support: String,
        /// Why it failed.
        pub state_reason: StateReasonDescription,
        /// The caller's tags on it.
        pub tags: Vec<TagDescription>,
        /// Always `hvm`.
        pub virtualization_type: String,
        /// How it boots.
        pub boot_mode: String,
        /// `v2.0`.
        pub tpm_support: String,
        /// When it is hidden.
        pub deprecation_time: String,
        /// `v2.0`.
        pub imds_support: String,
        /// The instance it was made of.
        pub source_instance_id: String,
        /// `disabled`, `enabled-without-cooldown`, `enabled-with-cooldown`; for the owner.
        pub deregistration_protection: String,
        /// When it was launched last; for the owner.
        pub last_launched_time: String,
        /// Whether the caller's allowed images have it.
        pub image_allowed: bool,
        /// Its parent.
        pub source_image_id: String,
        /// The parent's region.
        pub source_image_region: String,
        /// Its id.
        pub image_id: String,
        /// `<account>/<name>`, or the manifest of a bundle.
        pub image_location: String,
        /// The state.
        pub state: String,
        /// The owner.
        pub owner_id: String,
        /// When it was made.
        pub creation_date: String,
        /// Whether everybody may launch it.
        pub public: bool,
        /// Codes of the marketplace.
        pub product_codes: Vec<ProductCodeDescription>,
        /// `x86_64` or `arm64`.
        pub architecture: String,
        /// Always `machine`.
        pub image_type: String,
    }
}

shape! {
    /// The answer of `DescribeImages`.
    pub struct DescribeImagesResult {
        /// Where it ended, when there is more.
        pub next_token: String,
        /// By id.
        pub images: Vec<ImageDescription>,
    }
}

shape! {
    /// `LaunchPermission`.
    pub struct LaunchPermissionDescription {
        /// An organization.
        pub organization_arn: String,
        /// An organizational unit.
        pub organizational_unit_arn: String,
        /// An account.
        pub user_id: String,
        /// `all`.
        pub group: String,
    }
}

shape! {
    /// `AttributeValue` of an answer; empty when the image has none.
    pub struct AttributeText {
        /// The value.
        pub value: String,
    }
}

shape! {
    /// `ImageAttribute`: the id and the one that was asked for.
    pub struct ImageAttribute {
        /// Description.
        pub description: AttributeText,
        /// `simple`.
        pub sriov_net_support: AttributeText,
        /// How it boots.
        pub boot_mode: AttributeText,
        /// `v2.0`.
        pub tpm_support: AttributeText,
        /// UEFI variables.
        pub uefi_data: AttributeText,
        /// When it was launched last.
        pub last_launched_time: AttributeText,
        /// `v2.0`.
        pub imds_support: AttributeText,
        /// Protection.
        pub deregistration_protection: AttributeText,
        /// The image.
        pub image_id: String,
        /// Who may launch it.
        pub launch_permissions: Vec<LaunchPermissionDescription>,
        /// Codes of the marketplace.
        pub product_codes: Vec<ProductCodeDescription>,
    }
}

impl ImageState {
    /// The name that the API gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Available => "available",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Deregistered => "deregistered",
        }
    }
}

impl RootDevice {
    /// `ebs` or `instance-store`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebs => "ebs",
            Self::InstanceStore => "instance-store",
        }
    }
}

impl Image {
    /// `ImageLocation`: `<account>/<name>`, or the manifest of a bundle.
    #[must_use]
    pub fn location(&self) -> String {
        self.image_location
            .clone()
            .unwrap_or_else(|| format!("{}/{}", self.owner, self.name))
    }

    /// Whether its time of deprecation is past.
    #[must_use]
    pub fn is_deprecated(&self, now: Timestamp) -> bool {
        self.deprecation_time
            .is_some_and(|at| at.timestamp() <= now)
    }
}

impl State {
    /// `DescribeImages`: what the caller owns, was shared with, and what is public, by id.
    ///
    /// Deprecated images of others are left out unless asked for by id or `IncludeDeprecated`, disabled ones of the caller
    /// unless `IncludeDisabled`, deregistered ones always. `InvalidAMIID.NotFound` for an id that is not seen;
    /// `InvalidParameterValue` for an unknown filter.
    pub fn describe_images(
        &self,
        caller: &Caller,
        request: &DescribeImagesRequest,
        fx: &dyn Effects,
    ) -> Api<DescribeImagesResult> {
        let ids: Vec<ImageId> = request
            .image_ids
            .iter()
            .map(|t| image_id(t))
            .collect::<Api<_>>()?;
        check_accounts(
            &request.owners,
            &["self", "amazon", "aws-marketplace", "aws-backup-vault"],
        )?;
        check_accounts(&request.executable_users, &["self", "all"])?;
        check(&request.filters, IMAGE_FILTERS)?;
        dry_run(request.dry_run)?;
        let now = fx.now();
        let seen = |image: &Image| {
            image.state != ImageState::Deregistered && self.may_launch(caller, image, now)
        };
        for id in &ids {
            if !self.images.get(id).is_some_and(seen) {
                return Err(no_image(id.as_str()));
            }
        }
        let mut found = Vec::new();
        for image in self.images.values() {
            let own = image.owner == caller.account;
            let asked = ids.contains(&image.image_id);
            if !seen(image)
                || (!ids.is_empty() && !asked)
                || (image.state == ImageState::Disabled && !request.include_disabled)
                || (!own && !asked && image.is_deprecated(now) && !request.include_deprecated)
                || !owned_by(&image.owner, &request.owners, caller)
                || !self.executable_by(caller, image, &request.executable_users)
            {
                continue;
            }
            let own_tags = image.tags_seen_by(&caller.account).unwrap_or(no_tags());
            if passes(&request.filters, own_tags, |name| {
                self.image_filter(caller, image, name, now)
            })? {
                found.push(image);
            }
        }
        let (found, next_token) = page(
            found,
            |i| i.image_id.as_str(),
            request.max_results,
            request.next_token.as_deref(),
        )?;
        Ok(DescribeImagesResult {
            next_token,
            images: Some(
                found
                    .into_iter()
                    .map(|i| self.describe_image(caller, i, now))
                    .collect(),
            ),
        })
    }

    fn executable_by(&self, caller: &Caller, image: &Image, users: &[String]) -> bool {
        users.is_empty()
            || users.iter().any(|user| match user.as_str() {
                "all" => image.is_public(),
                // Also by organization and unit.
                "self" => image
                    .launch_permissions
                    .iter()
                    .any(|p| *p != LaunchPermission::All && self.covers(p, &caller.account)),
                id => id.parse().is_ok_and(|id| {
                    image
                        .launch_permissions
                        .contains(&LaunchPermission::UserId(id))
                }),
            })
    }

    fn snapshot_encrypted(&self, volume: &crate::EbsVolume) -> bool {
        match volume
            .snapshot_id
            .as_ref()
            .and_then(|id| self.snapshots.get(id))
        {
            Some(snapshot) => snapshot.encryption.is_some(),
            None => volume.encrypted == Some(true),
        }
    }

    /// An image as the caller sees it.
    #[must_use]
    pub fn describe_image(
        &self,
        caller: &Caller,
        image: &Image,
        now: Timestamp,
    ) -> ImageDescription {
        let own = image.owner == caller.account;
        let allowed = self.allowed_state(caller) != AllowedImagesState::Disabled;
        ImageDescription {
            platform_details: Some(image.platform_details.clone()),
            usage_operation: Some(image.usage_operation.clone()),
            block_device_mappings: Some(
                image
                    .block_device_mappings
                    .iter()
                    .map(|m| mapping(m, |v| self.snapshot_encrypted(v)))
                    .collect(),
            ),
            description: image.description.clone(),
            ena_support: Some(image.ena_support),
            hypervisor: Some("xen".to_owned()),
            name: Some(image.name.clone()),
            root_device_name: Some(image.root_device_name.to_string()),
            root_device_type: Some(image.root_device_type.as_str().to_owned()),
            sriov_net_support: image.sriov_net_support.then(|| "simple".to_owned()),
            state_reason: state_reason(image.state_reason.as_ref()),
            tags: tags(image.tags_seen_by(&caller.account)),
            virtualization_type: Some("hvm".to_owned()),
            boot_mode: image.boot_mode.map(|m| m.to_string()),
            tpm_support: image.tpm_support.map(|_| "v2.0".to_owned()),
            deprecation_time: image.deprecation_time.map(|t| t.to_string()),
            imds_support: image.imds_support.map(|_| "v2.0".to_owned()),
            source_instance_id: image
                .source_instance_id
                .as_ref()
                .filter(|_| own)
                .map(ToString::to_string),
            deregistration_protection: own
                .then(|| image.deregistration_protection.as_str().to_owned()),
            last_launched_time: image
                .last_launched_time
                .filter(|_| own)
                .map(|t| t.to_string()),
            image_allowed: allowed.then(|| self.image_allowed(caller, image, now)),
            source_image_id: image.source_image_id.as_ref().map(ToString::to_string),
            source_image_region: image.source_image_region.as_ref().map(ToString::to_string),
            image_id: Some(image.image_id.to_string()),
            image_location: Some(image.location()),
            state: Some(image.state.as_str().to_owned()),
            owner_id: Some(image.owner.to_string()),
            creation_date: Some(image.creation_date.to_string()),
            public: Some(image.is_public()),
            product_codes: (!image.product_codes.is_empty())
                .then(|| product_codes(&image.product_codes)),
            architecture: Some(image.architecture.to_string()),
            image_type: Some("machine".to_owned()),
        }
    }

    fn image_filter(
        &self,
        caller: &Caller,
        image: &Image,
        name: &str,
        now: Timestamp,
    ) -> Option<Vec<String>> {
        let volumes = || {
            image
                .block_device_mappings
                .iter()
                .filter_map(|m| m.as_ebs())
        };
        match name {
            "architecture" => one(image.architecture),
            "block-device-mapping.delete-on-termination" => Some(
                volumes()
                    .map(|v| v.delete_on_termination.to_string())
                    .collect(),
            ),
            "block-device-mapping.device-name" => Some(
                image
                    .block_device_mappings
                    .iter()
                    .map(|m| m.device_name.to_string())
                    .collect(),
            ),
            "block-device-mapping.snapshot-id" => Some(
                volumes()
                    .filter_map(|v| v.snapshot_id.as_ref())
                    .map(ToString::to_string)
                    .collect(),
            ),
            "block-device-mapping.volume-size" => {
                Some(volumes().map(|v| v.volume_size.to_string()).collect())
            }
            "block-device-mapping.volume-type" => {
                Some(volumes().map(|v| v.volume_type.to_string()).collect())
            }
            "block-device-mapping.encrypted" => Some(
                volumes()
                    .map(|v| self.snapshot_encrypted(v).to_string())
                    .collect(),
            ),
            "creation-date" => one(image.creation_date),
            "description" => maybe(image.description.as_ref()),
            "ena-support" => one(image.ena_support),
            "hypervisor" => one("xen"),
            "image-allowed" => one(self.image_allowed(caller, image, now)),
            "image-id" => one(&image.image_id),
            "image-type" => one("machine"),
            "is-public" => one(image.is_public()),
            "manifest-location" => one(image.location()),
            "name" => one(&image.name),
            "owner-id" => one(&image.owner),
            "product-code" => Some(image.product_codes.clone()),
            "product-code.type" => Some(
                image
                    .product_codes
                    .iter()
                    .map(|_| "marketplace".to_owned())
                    .collect(),
            ),
            "root-device-name" => one(&image.root_device_name),
            "root-device-type" => one(image.root_device_type.as_str()),
            "source-image-id" => maybe(image.source_image_id.as_ref()),
            "source-image-region" => maybe(image.source_image_region.as_ref()),
            "source-instance-id" => maybe(image.source_instance_id.as_ref()),
            "sriov-net-support" => maybe(image.sriov_net_support.then_some("simple")),
            "state" => one(image.state.as_str()),
            "state-reason-code" => maybe(image.state_reason.as_ref().map(|r| &r.code)),
            "state-reason-message" => maybe(image.state_reason.as_ref().map(|r| &r.message)),
            "virtualization-type" => one("hvm"),
            // Of what no image here has.
            other if IMAGE_FILTERS.contains(&other) => Some(Vec::new()),
            _ => None,
        }
    }

    /// `DescribeImageAttribute`: one attribute of an image of the caller. `AuthFailure` for `blockDeviceMapping`, which the
    /// API does not answer any more.
    pub fn describe_image_attribute(
        &self,
        caller: &Caller,
        request: &DescribeImageAttributeRequest,
        fx: &dyn Effects,
    ) -> Api<ImageAttribute> {
        const KNOWN: [&str; 13] = [
            "description",
            "kernel",
            "ramdisk",
            "launchPermission",
            "productCodes",
            "blockDeviceMapping",
            "sriovNetSupport",
            "bootMode",
            "tpmSupport",
            "uefiData",
            "lastLaunchedTime",
            "imdsSupport",
            "deregistrationProtection",
        ];
        let id = image_id(&request.image_id)?;
        if !KNOWN.contains(&request.attribute.as_str()) {
            return Err(bad_value("Attribute", &request.attribute));
        }
        dry_run(request.dry_run)?;
        let image = self.own_image(caller, &id, fx)?;
        let text = |value: Option<String>| Some(AttributeText { value });
        let mut out = ImageAttribute {
            image_id: Some(id.to_string()),
            ..ImageAttribute::default()
        };
        match request.attribute.as_str() {
            "description" => out.description = text(image.description.clone()),
            "launchPermission" => {
                out.launch_permissions =
                    Some(image.launch_permissions.iter().map(permission).collect());
            }
            "productCodes" => out.product_codes = Some(product_codes(&image.product_codes)),
            "blockDeviceMapping" => {
                return refuse(
                    ErrorCode::AuthFailure,
                    format!(
                        "Unauthorized attempt to access restricted resource: blockDeviceMapping of {id}"
                    ),
                );
            }
            "sriovNetSupport" => {
                out.sriov_net_support = text(image.sriov_net_support.then(|| "simple".to_owned()));
            }
            "bootMode" => out.boot_mode = text(image.boot_mode.map(|m| m.to_string())),
            "tpmSupport" => out.tpm_support = text(image.tpm_support.map(|_| "v2.0".to_owned())),
            "uefiData" => out.uefi_data = text(image.uefi_data.clone()),
            "lastLaunchedTime" => {
                out.last_launched_time = text(image.last_launched_time.map(|t| t.to_string()));
            }
            "imdsSupport" => out.imds_support = text(image.imds_support.map(|_| "v2.0".to_owned())),
            "deregistrationProtection" => {
                out.deregistration_protection =
                    text(Some(image.deregistration_protection.as_str().to_owned()));
            }
            // `kernel` and `ramdisk`: of paravirtual images alone.
            _ => {}
        }
        Ok(out)
    }
}

pub(in super::super) const IMAGE_FILTERS: &[&str] = &[
    "architecture",
    "block-device-mapping.delete-on-termination",
    "block-device-mapping.device-name",
    "block-device-mapping.encrypted",
    "block-device-mapping.snapshot-id",
    "block-device-mapping.volume-size",
    "block-device-mapping.volume-type",
    "creation-date",
    "description",
    "ena-support",
    "free-tier-eligible",
    "hypervisor",
    "image-allowed",
    "image-id",
    "image-type",
    "is-public",
    "kernel-id",
    "manifest-location",
    "name",
    "owner-alias",
    "owner-id",
    "platform",
    "product-code",
    "product-code.type",
    "public-ssm-parameter-name",
    "ramdisk-id",
    "root-device-name",
    "root-device-type",
    "source-image-id",
    "source-image-region",
    "source-instance-id",
    "sriov-net-support",
    "state",
    "state-reason-code",
    "state-reason-message",
    "virtualization-type",
];

fn permission(permission: &LaunchPermission) -> LaunchPermissionDescription {
    let mut out = LaunchPermissionDescription::default();
    match permission {
        LaunchPermission::All => out.group = Some("all".to_owned()),
        LaunchPermission::UserId(id) => out.user_id = Some(id.to_string()),
        LaunchPermission::OrganizationArn(arn) => out.organization_arn = Some(arn.clone()),
        LaunchPermission::OrganizationalUnitArn(arn) => {
            out.organizational_unit_arn = Some(arn.clone())
        }
    }
    out
}
