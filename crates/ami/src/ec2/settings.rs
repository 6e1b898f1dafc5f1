//! Settings of an account in a region, and which images of others it may use.
//!
//! Source: EC2 user guide, `block-public-access-to-amis`, `ec2-allowed-amis`; EBS user guide, encryption by default and
//! recycle bin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Image, KeyId};
use amiforge_types::Timestamp;

/// Settings of an account in a region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegionSettings {
    /// New volumes and copies are encrypted.
    pub encryption_by_default: bool,
    /// The key for that, instead of `aws/ebs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_key: Option<KeyId>,
    /// Images can be made public. Off by default, as for new accounts.
    pub allow_public_images: bool,
    /// Snapshots cannot be made public.
    pub block_public_snapshots: bool,
    /// A shared image with encrypted snapshots can be copied by whoever may read the snapshots and use their keys. Off:
    /// only its snapshots can be copied, the older rule.
    pub copy_shared_encrypted_images: bool,
    /// Which images of others can be used.
    #[serde(skip_serializing_if = "AllowedImages::is_off")]
    pub allowed_images: AllowedImages,
    /// Days that deregistered images stay in the recycle bin; absent: they go at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_retention_days: Option<u16>,
    /// Days that deleted snapshots stay in the recycle bin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_retention_days: Option<u16>,
    /// The organization that the account belongs to, its ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// The organizational units that it is in, their ARNs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organizational_units: Vec<String>,
    /// Certificates that bundles of the account are signed with, PEM, by their ids: the first 32 hex digits of the SHA-256 of the text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub signing_certificates: BTreeMap<String, String>,
    /// IAM policies that launches are checked against, by name. None: everything is allowed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<String, String>,
}

/// `AllowedImagesSettings`: which images of other accounts can be used. An account's own images always can.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedImages {
    /// Whether it is looked at.
    pub state: AllowedImagesState,
    /// An image is allowed when one of these fits; at most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_criteria: Vec<ImageCriterion>,
}

/// Whether [`AllowedImages`] are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowedImagesState {
    /// Every image can be used.
    #[default]
    Disabled,
    /// Every image can be used; `ImageAllowed` tells which could not.
    AuditMode,
    /// Images that do not fit are as if they did not exist.
    Enabled,
}

/// `ImageCriterion`: all members that are given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ImageCriterion {
    /// Owners: account ids or aliases such as `amazon`; `none` alone fits nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_providers: Vec<String>,
    /// Names, with `*` and `?`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub image_names: Vec<String>,
    /// Product codes of the marketplace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub marketplace_product_codes: Vec<String>,
    /// Oldest that the image may be, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_days_since_created: Option<u32>,
    /// For how long it may have been deprecated, in days; 0: not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_days_since_deprecated: Option<u32>,
}

const DAY: i64 = 86_400;

impl ImageCriterion {
    fn fits(&self, image: &Image, now: Timestamp) -> bool {
        let days = |since: i64| now.secs.saturating_sub(since).max(0) / DAY;
        let any = |list: &[String], good: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|text| good(text))
        };
        any(&self.image_providers, &|p| p == image.owner.as_str())
            && any(&self.image_names, &|n| super::wildcard(n, &image.name))
            && any(&self.marketplace_product_codes, &|c| {
                image.product_codes.iter().any(|code| code == c)
            })
            && self
                .maximum_days_since_created
                .is_none_or(|most| days(image.creation_date.timestamp().secs) <= i64::from(most))
            && self.maximum_days_since_deprecated.is_none_or(|most| {
                image.deprecation_time.is_none_or(|at| {
                    let at = at.timestamp().secs;
                    at > now.secs || (most > 0 && days(at) <= i64::from(most))
                })
            })
    }
}

impl AllowedImages {
    /// Whether nothing was set.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an image of another account fits, whatever the state of the setting.
    #[must_use]
    pub fn fits(&self, image: &Image, now: Timestamp) -> bool {
        self.image_criteria.iter().any(|c| c.fits(image, now))
    }
}
