//! Settings of an account in a region, and which images of others it may use.
//!
//! Source: EC2 user guide, `block-public-access-to-amis`, `ec2-allowed-amis`; EC2 API reference,
//! `ReplaceImageCriteriaInAllowedImagesSettings`; EBS user guide, encryption by default and recycle bin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::{Api, bad_value, refuse};
use super::request::request;
use super::share::organization_arn;
use super::{AccountId, ErrorCode, Image, KeyId};
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

/// Days that something can stay in the recycle bin.
const BIN_DAYS: std::ops::RangeInclusive<u16> = 1..=365;

/// Days in the recycle bin as they are kept: 0 is none.
///
/// # Errors
/// `InvalidParameterValue` of more than a year.
pub fn retention(days: u16) -> Api<Option<u16>> {
    match days {
        0 => Ok(None),
        days if BIN_DAYS.contains(&days) => Ok(Some(days)),
        days => refuse(
            ErrorCode::InvalidParameterValue,
            format!("{days} days: the recycle bin keeps 1 to 365"),
        ),
    }
}

impl RegionSettings {
    /// Puts the account into an organization, by its ARN; an empty text takes it out.
    ///
    /// # Errors
    /// `InvalidParameterValue` of what is no such ARN.
    pub fn set_organization(&mut self, arn: &str) -> Api<()> {
        if !arn.is_empty() && !organization_arn(arn, "organization", &["o-"]) {
            return Err(bad_value("OrganizationArn", arn));
        }
        self.organization = Some(arn.to_owned()).filter(|arn| !arn.is_empty());
        Ok(())
    }

    /// Puts the account into organizational units, and out of all others; one empty text is no unit.
    ///
    /// # Errors
    /// `InvalidParameterValue` of what is no ARN of a unit.
    pub fn set_organizational_units(&mut self, arns: &[String]) -> Api<()> {
        let arns = match arns {
            [one] if one.is_empty() => &[],
            arns => arns,
        };
        if let Some(bad) = arns
            .iter()
            .find(|arn| !organization_arn(arn, "ou", &["o-", "ou-"]))
        {
            return Err(bad_value("OrganizationalUnitArn", bad));
        }
        self.organizational_units = arns.to_vec();
        Ok(())
    }

    /// Forgets a policy.
    ///
    /// # Errors
    /// `InvalidParameterValue` when there is none of that name, with those that there are.
    pub fn remove_policy(&mut self, name: &str) -> Api<()> {
        if self.policies.remove(name).is_some() {
            return Ok(());
        }
        let shown: String = name.chars().take(60).collect();
        let names: Vec<&str> = self.policies.keys().map(String::as_str).collect();
        let known = match names.is_empty() {
            true => "there is none".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        refuse(
            ErrorCode::InvalidParameterValue,
            format!("the account has no policy {shown:?} in this region: {known}"),
        )
    }
}

request! {
    /// `ImageCriterionRequest`: all members that are given must fit.
    pub struct ImageCriterionRequest {
        /// Owners: account ids, `amazon`, `aws-marketplace`, `aws-backup-vault`; or `none` alone.
        pub image_providers: Vec<String>,
        /// Names, with `*` and `?`.
        pub image_names: Vec<String>,
        /// Product codes of the marketplace.
        pub marketplace_product_codes: Vec<String>,
        /// How old it may be.
        pub creation_date_condition: Option<CreationDateCondition>,
        /// For how long it may have been deprecated.
        pub deprecation_time_condition: Option<DeprecationTimeCondition>,
    }
}

request! {
    /// `CreationDateConditionRequest`.
    pub struct CreationDateCondition {
        /// Days since it was made, at most.
        pub maximum_days_since_created: Option<u32>,
    }
}

request! {
    /// `DeprecationTimeConditionRequest`.
    pub struct DeprecationTimeCondition {
        /// Days since it was deprecated, at most; 0: it is not.
        pub maximum_days_since_deprecated: Option<u32>,
    }
}

/// Most criteria.
const MAX_CRITERIA: usize = 10;
/// Most owners of a criterion.
const MAX_PROVIDERS: usize = 200;
/// Most names, and most product codes, of a criterion.
const MAX_NAMES: usize = 50;

impl ImageCriterionRequest {
    fn read(&self) -> Api<ImageCriterion> {
        let Self {
            image_providers,
            image_names,
            marketplace_product_codes,
            ..
        } = self;
        for (what, list, most) in [
            ("ImageProvider", image_providers, MAX_PROVIDERS),
            ("ImageName", image_names, MAX_NAMES),
            (
                "MarketplaceProductCode",
                marketplace_product_codes,
                MAX_NAMES,
            ),
        ] {
            if list.len() > most {
                let count = list.len();
                return refuse(
                    ErrorCode::InvalidParameterValue,
                    format!("a criterion has at most {most} {what}s, this one {count}"),
                );
            }
            if let Some(empty) = list.iter().find(|text| text.is_empty()) {
                return Err(bad_value(what, empty));
            }
        }
        let known = |p: &String| {
            let alias = ["amazon", "aws-marketplace", "aws-backup-vault"].contains(&p.as_str());
            alias || p.parse::<AccountId>().is_ok() || (p == "none" && image_providers.len() == 1)
        };
        if let Some(bad) = image_providers.iter().find(|p| !known(p)) {
            return Err(bad_value("ImageProvider", bad));
        }
        let code = |c: &String| c.len() <= 25 && c.bytes().all(|b| b.is_ascii_alphanumeric());
        if let Some(bad) = marketplace_product_codes.iter().find(|c| !code(c)) {
            return Err(bad_value("MarketplaceProductCode", bad));
        }
        let found = ImageCriterion {
            image_providers: image_providers.clone(),
            image_names: image_names.clone(),
            marketplace_product_codes: marketplace_product_codes.clone(),
            maximum_days_since_created: self
                .creation_date_condition
                .as_ref()
                .and_then(|c| c.maximum_days_since_created),
            maximum_days_since_deprecated: self
                .deprecation_time_condition
                .as_ref()
                .and_then(|c| c.maximum_days_since_deprecated),
        };
        if found == ImageCriterion::default() {
            // It would fit every image.
            return refuse(
                ErrorCode::InvalidParameterValue,
                "a criterion of allowed images says something: it has at least one member",
            );
        }
        Ok(found)
    }
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

    /// `ReplaceImageCriteriaInAllowedImagesSettings`: these criteria instead of all that there were.
    ///
    /// # Errors
    /// `InvalidParameterValue` of more than ten, and of what the API does not take in one.
    pub fn replace_criteria(&mut self, criteria: &[ImageCriterionRequest]) -> Api<()> {
        if criteria.len() > MAX_CRITERIA {
            let count = criteria.len();
            return refuse(
                ErrorCode::InvalidParameterValue,
                format!("there are at most {MAX_CRITERIA} criteria, these are {count}"),
            );
        }
        self.image_criteria = criteria
            .iter()
            .map(ImageCriterionRequest::read)
            .collect::<Api<_>>()?;
        Ok(())
    }

    /// Whether an image of another account fits, whatever the state of the setting.
    #[must_use]
    pub fn fits(&self, image: &Image, now: Timestamp) -> bool {
        self.image_criteria.iter().any(|c| c.fits(image, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn organizations_and_units_are_arns_and_can_be_cleared() {
        let mut settings = RegionSettings::default();
        let organization = "arn:aws:organizations::111122223333:organization/o-abcd1234";
        let unit = "arn:aws:organizations::111122223333:ou/o-abcd1234/ou-ab12-cd34ef56";
        settings.set_organization(organization).unwrap();
        settings
            .set_organizational_units(&[unit.to_owned()])
            .unwrap();
        for bad in ["foo", unit, "arn:aws:organizations::1:organization/o-abcd"] {
            let error = settings.set_organization(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameterValue, "{bad}");
        }
        for bad in [vec!["bar"], vec![unit, ""], vec![organization]] {
            let bad: Vec<String> = bad.into_iter().map(str::to_owned).collect();
            settings.set_organizational_units(&bad).unwrap_err();
        }
        assert_eq!(settings.organization.as_deref(), Some(organization));
        assert_eq!(settings.organizational_units, [unit]);
        settings.set_organization("").unwrap();
        settings.set_organizational_units(&[String::new()]).unwrap();
        assert_eq!(settings, RegionSettings::default());
    }

    #[test]
    fn a_policy_that_is_not_there_is_not_removed() {
        let mut settings = RegionSettings::default();
        settings.policies.insert("a.json".into(), "{}".into());
        let error = settings.remove_policy("p").unwrap_err();
        assert!(error.message.contains("a.json"), "{error}");
        settings.remove_policy("a.json").unwrap();
        let error = settings.remove_policy("a.json").unwrap_err();
        assert!(error.message.contains("there is none"), "{error}");
    }

    #[test]
    fn criteria_are_those_of_the_api() {
        let read = |json: serde_json::Value| {
            let criteria: Vec<ImageCriterionRequest> = serde_json::from_value(json).unwrap();
            let mut allowed = AllowedImages::default();
            allowed.replace_criteria(&criteria).map(|()| allowed)
        };
        let good = serde_json::json!([
            {"ImageProviders": ["amazon", "111122223333"], "ImageNames": ["web-*"]},
            {"MarketplaceProductCodes": ["abc123"], "CreationDateCondition": {"MaximumDaysSinceCreated": 30},
             "DeprecationTimeCondition": {"MaximumDaysSinceDeprecated": 0}},
            {"ImageProviders": ["none"]},
        ]);
        let allowed = read(good).unwrap();
        assert_eq!(
            allowed.image_criteria[1].maximum_days_since_created,
            Some(30)
        );
        assert_eq!(allowed.image_criteria.len(), 3);
        let many = vec![serde_json::json!({"ImageNames": ["x"]}); 11];
        for bad in [
            serde_json::json!([{}]),
            serde_json::json!([{"ImageProviders": ["somebody"]}]),
            serde_json::json!([{"ImageProviders": ["none", "amazon"]}]),
            serde_json::json!([{"ImageNames": [""]}]),
            serde_json::json!([{"ImageNames": vec!["x"; 51]}]),
            serde_json::json!([{"MarketplaceProductCodes": ["a-b"]}]),
            serde_json::Value::Array(many),
        ] {
            let error = read(bad.clone()).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidParameterValue, "{bad}");
        }
    }
}
