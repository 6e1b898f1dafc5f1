//! Audits: which instances run from images that are not approved. The three managed rules of AWS Config, which report and never block.
//!
//! ```
//! use amiforge_ami::ec2::{AccountId, Caller, Region, State, audit::{ApprovedIds, Rule, Scope, audit}};
//!
//! let ids: ApprovedIds = "ami-0123456789abcdef0".parse().unwrap();
//! let caller = Caller { account: AccountId::local(), region: Region::local() };
//! assert!(audit(&State::default(), &caller, &Rule::ApprovedById(&ids), Scope { stopped: false }).is_empty());
//! ```
//!
//! Source: AWS Config developer guide, `approved-amis-by-id`, `approved-amis-by-tag`, `ec2-instance-launched-with-allowed-ami`,
//! `evaluate-config`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use amiforge_types::Timestamp;
use serde::Serialize;

use super::{AllowedImagesState, Caller, Image, Instance, InstanceState, State};
use crate::{ImageId, InstanceId};

/// Longest text of image ids, in characters.
pub const MAX_IDS_LENGTH: usize = 1024;
/// Most tags of a rule.
pub const MAX_TAGS: usize = 10;

/// A parameter that the rule refuses (Config's result would be `ERROR`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// More text than the rule takes.
    #[error("`amiIds` has at most {MAX_IDS_LENGTH} characters, these {0}")]
    TooLong(usize),
    /// Not an id.
    #[error("`amiIds`: {0}")]
    Id(crate::IdParseError),
    /// More pairs than the rule takes.
    #[error("`amisByTagKeyAndValue` has at most {MAX_TAGS} tags; these are {0}")]
    TooManyTags(usize),
    /// A key without characters, or longer than tags can be.
    #[error(
        "`amisByTagKeyAndValue`: {0:?} is no `key:value` with a key of 1 to 128 and a value of at most 256 characters"
    )]
    Tag(String),
    /// Nothing at all.
    #[error("`{0}` is empty")]
    Empty(&'static str),
}

/// The input of `approved-amis-by-id`: ids, parted by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedIds(BTreeSet<ImageId>);

impl FromStr for ApprovedIds {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        let length = text.chars().count();
        if length > MAX_IDS_LENGTH {
            return Err(ParameterError::TooLong(length));
        }
        let ids: BTreeSet<ImageId> = items(text)
            .map(|id| id.parse().map_err(ParameterError::Id))
            .collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Err(ParameterError::Empty("amiIds"));
        }
        Ok(Self(ids))
    }
}

/// The input of `approved-amis-by-tag`: `key:value` pairs, parted by commas; a key alone is any value. The first colon parts a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovedTags(Vec<(String, Option<String>)>);

impl FromStr for ApprovedTags {
    type Err = ParameterError;

    fn from_str(text: &str) -> Result<Self, ParameterError> {
        let mut tags = Vec::new();
        for item in items(text) {
            let (key, value) = match item.split_once(':') {
                None => (item, None),
                Some((key, value)) => (key.trim(), Some(value.trim().to_owned())),
            };
            let long = value.as_ref().is_some_and(|v| v.chars().count() > 256);
            if !(1..=128).contains(&key.chars().count()) || long {
                return Err(ParameterError::Tag(item.chars().take(60).collect()));
            }
            tags.push((key.to_owned(), value));
        }
        match tags.len() {
            0 => Err(ParameterError::Empty("amisByTagKeyAndValue")),
            1..=MAX_TAGS => Ok(Self(tags)),
            more => Err(ParameterError::TooManyTags(more)),
        }
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// A rule with its input.
#[derive(Clone, Copy)]
pub enum Rule<'a> {
    /// `approved-amis-by-id`: the instance's image is in the list.
    ApprovedById(&'a ApprovedIds),
    /// `approved-amis-by-tag`: the image has at least one of the tags, as far as the account sees its tags.
    ApprovedByTag(&'a ApprovedTags),
    /// `ec2-instance-launched-with-allowed-ami`: the image is one that the Allowed AMIs of account and region let through. `None` where
    /// these are off: the rule says nothing then.
    LaunchedWithAllowedAmi(Option<&'a dyn Fn(&Image) -> bool>),
}

impl Rule<'_> {
    /// The name of the rule at AWS.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ApprovedById(_) => "approved-amis-by-id",
            Self::ApprovedByTag(_) => "approved-amis-by-tag",
            Self::LaunchedWithAllowedAmi(_) => "ec2-instance-launched-with-allowed-ami",
        }
    }
}

impl fmt::Debug for Rule<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which instances are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Stopped instances as well as those that run. Config's rules are of those that run.
    pub stopped: bool,
}

/// What a rule finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Compliance {
    /// As it should be.
    Compliant,
    /// Not.
    NonCompliant,
    /// The rule says nothing of it.
    NotApplicable,
}

impl Compliance {
    /// As Config writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compliant => "COMPLIANT",
            Self::NonCompliant => "NON_COMPLIANT",
            Self::NotApplicable => "NOT_APPLICABLE",
        }
    }
}

/// What a rule finds of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// The instance.
    pub instance_id: InstanceId,
    /// The image it was launched from.
    pub image_id: ImageId,
    /// Name of the image, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// What is found.
    pub compliance: Compliance,
    /// Why, a sentence.
    pub reason: String,
}

/// Evaluates one rule over all instances of an account in a region, in the order of their ids. Terminated ones are not among them: their
/// records stay for a while, but to Config they are deleted resources, which have no results.
#[must_use]
pub fn audit(state: &State, caller: &Caller, rule: &Rule<'_>, scope: Scope) -> Vec<Evaluation> {
    let own = |i: &&Instance| {
        i.owner == caller.account
            && i.region == caller.region
            && i.state != InstanceState::Terminated
    };
    let instances = state.instances.values().filter(own);
    instances
        .map(|instance| {
            let image = state.images.get(&instance.image_id);
            let (compliance, reason) = match not_asked(instance, scope) {
                Some(reason) => (Compliance::NotApplicable, reason),
                None => judge(rule, caller, instance, image),
            };
            Evaluation {
                instance_id: instance.instance_id.clone(),
                image_id: instance.image_id.clone(),
                image_name: image.map(|i| i.name.clone()),
                compliance,
                reason,
            }
        })
        .collect()
}

/// The Allowed AMIs of the caller's account and region, for [`Rule::LaunchedWithAllowedAmi`]; `None` when they are off.
pub fn allowed_amis<'a>(
    state: &'a State,
    caller: &'a Caller,
    now: Timestamp,
) -> Option<impl Fn(&Image) -> bool + 'a> {
    let place = (caller.account.clone(), caller.region.clone());
    let allowed = &state.settings.get(&place)?.allowed_images;
    (allowed.state != AllowedImagesState::Disabled)
        .then_some(move |image: &Image| state.image_allowed(caller, image, now))
}

/// Whether an audit found something: what an exit code tells.
#[must_use]
pub fn compliant(evaluations: &[Evaluation]) -> bool {
    evaluations
        .iter()
        .all(|e| e.compliance != Compliance::NonCompliant)
}

/// Why the rule does not ask this instance.
fn not_asked(instance: &Instance, scope: Scope) -> Option<String> {
    let asked = match instance.state {
        InstanceState::Pending | InstanceState::Running => true,
        InstanceState::Stopping | InstanceState::Stopped => scope.stopped,
        InstanceState::ShuttingDown | InstanceState::Terminated => false,
    };
    (!asked).then(|| format!("the instance is {}", instance.state.as_str()))
}

fn judge(
    rule: &Rule<'_>,
    caller: &Caller,
    instance: &Instance,
    image: Option<&Image>,
) -> (Compliance, String) {
    let id = &instance.image_id;
    let verdict = |good: bool, reason: String| match good {
        true => (Compliance::Compliant, reason),
        false => (Compliance::NonCompliant, reason),
    };
    match rule {
        Rule::ApprovedById(ApprovedIds(ids)) => match ids.contains(id) {
            true => verdict(true, format!("{id} is approved")),
            false => verdict(false, format!("{id} is not among the approved images")),
        },
        Rule::ApprovedByTag(ApprovedTags(tags)) => {
            let Some(image) = image else {
                return verdict(
                    false,
                    format!("{id} is not known any more, and no tags of it"),
                );
            };
            let Some(seen) = image.tags_seen_by(&caller.account) else {
                let owner = &image.owner;
                return verdict(
                    false,
                    format!("{id} is shared by {owner}, whose tags others do not see"),
                );
            };
            let found = tags.iter().find(|(key, value)| {
                let has = seen.get(key);
                has.is_some_and(|has| value.as_ref().is_none_or(|v| v == has))
            });
            match found {
                Some((key, _)) => verdict(true, format!("{id} has the tag {key}:{}", seen[key])),
                None => verdict(false, format!("{id} has none of the approved tags")),
            }
        }
        Rule::LaunchedWithAllowedAmi(None) => (
            Compliance::NotApplicable,
            "Allowed AMIs are neither enabled nor in audit mode".to_owned(),
        ),
        Rule::LaunchedWithAllowedAmi(Some(allows)) => match image {
            None => verdict(false, format!("{id} is not known any more")),
            Some(image) if image.owner == caller.account => {
                verdict(true, format!("{id} is the account's own"))
            }
            Some(image) if allows(image) => verdict(true, format!("{id} is an allowed image")),
            Some(_) => verdict(
                false,
                format!("{id} meets none of the criteria of Allowed AMIs"),
            ),
        },
    }
}

#[cfg(test)]
mod tests;
