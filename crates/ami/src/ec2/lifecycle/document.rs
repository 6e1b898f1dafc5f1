//! The document.

use amiforge_types::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::ec2::{AccountId, Region, Tags};

/// Largest document, in bytes.
pub const MAX_POLICY_BYTES: usize = 64 * 1024;

/// A document that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Too much text.
    #[error("a lifecycle policy has at most {MAX_POLICY_BYTES} bytes, this one {0}")]
    TooLarge(usize),
    /// Not JSON, or not of this shape; the cause has line and column.
    #[error("the lifecycle policy cannot be read")]
    Json(#[source] serde_json::Error),
    /// Against a rule of the API.
    #[error("{place}: {message}")]
    Rule {
        /// The member, for example `policyDetails[0].filter`.
        place: String,
        /// What is wrong.
        message: String,
    },
}

/// A lifecycle policy for machine images. Numbers and booleans may stand in quotes, as templates and our canonical form have them, and
/// members may have CloudFormation's capital letters.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LifecyclePolicy {
    /// Its name.
    #[serde(alias = "Name")]
    pub name: String,
    /// What it is for.
    #[serde(default, alias = "Description")]
    pub description: Option<String>,
    /// `AMI_IMAGE`; container images are not kept here.
    #[serde(alias = "ResourceType")]
    pub resource_type: String,
    /// `ENABLED` (the default) or `DISABLED`: then it plans nothing.
    #[serde(default, alias = "Status")]
    pub status: Option<String>,
    /// One to three, each of another action.
    #[serde(alias = "PolicyDetails")]
    pub policy_details: Vec<PolicyDetail>,
    /// Whose images.
    #[serde(alias = "ResourceSelection")]
    pub resource_selection: ResourceSelection,
    /// The role it runs as at AWS; nothing here.
    #[serde(default, alias = "ExecutionRole")]
    pub execution_role: Option<String>,
    /// Tags of the policy itself.
    #[serde(default, alias = "Tags")]
    pub tags: Tags,
    /// Nothing here.
    #[serde(default, alias = "ClientToken")]
    pub client_token: Option<String>,
    /// Nothing here.
    #[serde(default)]
    pub lifecycle_policy_arn: Option<String>,
    /// Nothing here.
    #[serde(default, deserialize_with = "flag")]
    pub dry_run: bool,
}

/// What is done, to which images, and to which not.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDetail {
    /// What is done.
    #[serde(alias = "Action")]
    pub action: Action,
    /// To which.
    #[serde(alias = "Filter")]
    pub filter: Filter,
    /// To which not.
    #[serde(default, alias = "ExclusionRules")]
    pub exclusion_rules: ExclusionRules,
}

/// `action`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Action {
    /// What.
    #[serde(rename = "type", alias = "Type")]
    pub action_type: ActionType,
    /// Of what. Absent: images, and no snapshots.
    #[serde(default, alias = "IncludeResources")]
    pub include_resources: Option<IncludeResources>,
}

/// What is done to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ActionType {
    /// It is hidden from who does not own it.
    Deprecate,
    /// It cannot be launched.
    Disable,
    /// It is deregistered.
    Delete,
}

impl ActionType {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deprecate => "DEPRECATE",
            Self::Disable => "DISABLE",
            Self::Delete => "DELETE",
        }
    }
}

/// `includeResources`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IncludeResources {
    /// Images.
    #[serde(default, alias = "Amis", deserialize_with = "flag")]
    pub amis: bool,
    /// Their snapshots, too.
    #[serde(default, alias = "Snapshots", deserialize_with = "flag")]
    pub snapshots: bool,
    /// Container images.
    #[serde(default, alias = "Containers", deserialize_with = "flag")]
    pub containers: bool,
}

/// `filter`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawFilter")]
pub enum Filter {
    /// Images older than this.
    Age {
        /// How many units.
        value: u32,
        /// Of what.
        unit: TimeUnit,
        /// How many usable images of a recipe stay, however old.
        retain_at_least: u32,
    },
    /// All images but the newest.
    Count {
        /// How many stay.
        value: u32,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFilter {
    #[serde(rename = "type", alias = "Type")]
    filter_type: String,
    #[serde(alias = "Value", deserialize_with = "number")]
    value: u32,
    #[serde(default, alias = "Unit")]
    unit: Option<TimeUnit>,
    #[serde(default, alias = "RetainAtLeast", deserialize_with = "some_number")]
    retain_at_least: Option<u32>,
}

impl TryFrom<RawFilter> for Filter {
    type Error = String;

    fn try_from(raw: RawFilter) -> Result<Self, String> {
        let RawFilter {
            filter_type,
            value,
            unit,
            retain_at_least,
        } = raw;
        if !(1..=1000).contains(&value) {
            return Err(format!("the value of a filter is 1 to 1000, not {value}"));
        }
        match (filter_type.as_str(), unit, retain_at_least) {
            ("AGE", Some(unit), None | Some(1..=10)) => Ok(Self::Age {
                value,
                unit,
                retain_at_least: retain_at_least.unwrap_or(0),
            }),
            ("AGE", None, _) => Err("a filter by AGE has a `unit`".to_owned()),
            ("AGE", _, Some(count)) => Err(format!("`retainAtLeast` is 1 to 10, not {count}")),
            ("COUNT", None, None) => Ok(Self::Count { value }),
            ("COUNT", ..) => {
                Err("a filter by COUNT has neither `unit` nor `retainAtLeast`".to_owned())
            }
            (other, ..) => Err(format!("a filter is of type AGE or COUNT, not {other:?}")),
        }
    }
}

/// A unit of time, by the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TimeUnit {
    /// Of 24 hours.
    Days,
    /// Of seven days.
    Weeks,
    /// By the calendar.
    Months,
    /// By the calendar.
    Years,
}

impl TimeUnit {
    /// The point in time so many units before `now`.
    #[must_use]
    pub fn before(self, now: Timestamp, count: u32) -> Timestamp {
        let count = i64::from(count);
        let span = jiff::Span::new();
        let span = match self {
            Self::Days => span.days(count),
            Self::Weeks => span.weeks(count),
            Self::Months => span.months(count),
            Self::Years => span.years(count),
        };
        let then = jiff::Timestamp::from_second(now.secs)
            .and_then(|t| t.to_zoned(jiff::tz::TimeZone::UTC).checked_sub(span));
        // Before the first year of the calendar nothing was made.
        then.map_or(Timestamp::from_secs(i64::MIN), |t| {
            Timestamp::from_secs(t.timestamp().as_second())
        })
    }

    /// For example `6 months`.
    #[must_use]
    pub fn words(self, count: u32) -> String {
        let word = match self {
            Self::Days => "day",
            Self::Weeks => "week",
            Self::Months => "month",
            Self::Years => "year",
        };
        format!("{count} {word}{}", if count == 1 { "" } else { "s" })
    }
}

/// `exclusionRules`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExclusionRules {
    /// Images with one of these tags.
    #[serde(default, alias = "TagMap")]
    pub tag_map: Tags,
    /// By what is of machine images.
    #[serde(default, alias = "Amis")]
    pub amis: AmiExclusions,
}

/// `exclusionRules.amis`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmiExclusions {
    /// Public images.
    #[serde(default, alias = "IsPublic", deserialize_with = "flag")]
    pub is_public: bool,
    /// Images in these regions.
    #[serde(default, alias = "Regions")]
    pub regions: Vec<Region>,
    /// Images shared with one of these accounts.
    #[serde(default, alias = "SharedAccounts")]
    pub shared_accounts: Vec<AccountId>,
    /// Images that were launched lately.
    #[serde(default, alias = "LastLaunched")]
    pub last_launched: Option<LastLaunched>,
    /// Images with one of these tags.
    #[serde(default, alias = "TagMap")]
    pub tag_map: Tags,
}

/// `lastLaunched`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LastLaunched {
    /// How many units.
    #[serde(alias = "Value", deserialize_with = "number")]
    pub value: u32,
    /// Of what.
    #[serde(alias = "Unit")]
    pub unit: TimeUnit,
}

/// `resourceSelection`: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceSelection {
    /// Images built of these recipes.
    #[serde(default, alias = "Recipes")]
    pub recipes: Vec<RecipeSelection>,
    /// Images with all of these tags.
    #[serde(default, alias = "TagMap")]
    pub tag_map: Tags,
}

/// A recipe.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecipeSelection {
    /// Its name.
    #[serde(alias = "Name")]
    pub name: String,
    /// Its version; `x` stands for any number.
    #[serde(alias = "SemanticVersion")]
    pub semantic_version: String,
}

impl RecipeSelection {
    /// Whether a recipe is this one.
    #[must_use]
    pub fn selects(&self, name: &str, version: &str) -> bool {
        let wanted = self.semantic_version.split('.');
        let mut found = version.split('/').next().unwrap_or_default().split('.');
        self.name == name
            && wanted.into_iter().all(|part| {
                let number = found.next();
                number.is_some_and(|n| part.eq_ignore_ascii_case("x") || part == n)
            })
            && found.next().is_none()
    }
}

impl LifecyclePolicy {
    /// Reads a document of at most 64 KiB.
    ///
    /// # Errors
    /// Its syntax or shape (with line and column), or the rule of the API that it breaks.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge(text.len()));
        }
        let policy: Self = serde_json::from_str(text).map_err(PolicyError::Json)?;
        policy.check()?;
        Ok(policy)
    }

    /// What works here and is refused or different at AWS, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (i, detail) in self.policy_details.iter().enumerate() {
            let action = detail.action.action_type;
            if matches!(detail.filter, Filter::Count { .. }) && action != ActionType::Delete {
                found.push(format!(
                    "policyDetails[{i}]: AWS takes a filter by COUNT with DELETE only, not with {}",
                    action.as_str()
                ));
            }
            if detail.action.include_resources.is_none() {
                found.push(format!(
                    "policyDetails[{i}]: without `includeResources`, AWS leaves the AMI as it is and marks Image Builder's own record of it alone"
                ));
            }
        }
        found
    }

    /// Checks the rules of the API that are not in the shape of the document. Who decodes it by other means than [`Self::from_json`]
    /// calls this, too.
    ///
    /// # Errors
    /// The first rule that it breaks, with the member.
    pub fn check(&self) -> Result<(), PolicyError> {
        let rule = |good: bool, place: &str, message: &str| match good {
            true => Ok(()),
            false => Err(PolicyError::Rule {
                place: place.to_owned(),
                message: message.to_owned(),
            }),
        };
        rule(
            self.resource_type == "AMI_IMAGE",
            "resourceType",
            "it is AMI_IMAGE: container images are not kept in this catalog",
        )?;
        let status = self.status.as_deref().unwrap_or("ENABLED");
        rule(
            matches!(status, "ENABLED" | "DISABLED"),
            "status",
            "it is ENABLED or DISABLED",
        )?;
        rule(
            (1..=3).contains(&self.policy_details.len()),
            "policyDetails",
            "there are one to three",
        )?;
        let mut types: Vec<ActionType> = self
            .policy_details
            .iter()
            .map(|d| d.action.action_type)
            .collect();
        types.sort_unstable();
        types.dedup();
        rule(
            types.len() == self.policy_details.len(),
            "policyDetails",
            "two of them have the same action",
        )?;
        for (i, detail) in self.policy_details.iter().enumerate() {
            let place = |member: &str| format!("policyDetails[{i}].{member}");
            let included = detail.action.include_resources.unwrap_or(IncludeResources {
                amis: true,
                ..IncludeResources::default()
            });
            let include = place("action.includeResources");
            rule(
                !included.containers,
                &include,
                "there are no container images here",
            )?;
            rule(
                included.amis || !included.snapshots,
                &include,
                "snapshots go with their images: `amis` is true where `snapshots` is",
            )?;
            rule(
                detail.action.action_type == ActionType::Delete || !included.snapshots,
                &include,
                "snapshots can be deleted only",
            )?;
            let launched = detail.exclusion_rules.amis.last_launched;
            rule(
                launched.is_none_or(|l| (1..=365).contains(&l.value)),
                &place("exclusionRules.amis.lastLaunched"),
                "its value is 1 to 365",
            )?;
        }
        let ResourceSelection { recipes, tag_map } = &self.resource_selection;
        rule(
            recipes.is_empty() != tag_map.is_empty(),
            "resourceSelection",
            "it has either `recipes` or `tagMap`",
        )?;
        rule(
            recipes.len() <= 50,
            "resourceSelection.recipes",
            "there are at most 50",
        )
    }
}

/// A boolean, also in quotes.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected true or false")]
    enum Raw {
        Bool(bool),
        Text(String),
    }
    match Raw::deserialize(deserializer)? {
        Raw::Bool(flag) => Ok(flag),
        Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// A number, also in quotes.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number that is not negative")]
    enum Raw {
        Number(u32),
        Text(String),
    }
    match Raw::deserialize(deserializer)? {
        Raw::Number(number) => Ok(number),
        Raw::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

fn some_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    number(deserializer).map(Some)
}
