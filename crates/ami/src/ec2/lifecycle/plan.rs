//! What a policy would do to a state.

use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::Timestamp;
use serde::Serialize;

use super::document::{
    ActionType, ExclusionRules, Filter, LifecyclePolicy, PolicyDetail, ResourceSelection,
};
use crate::ec2::{
    Caller, Image, ImageState, InstanceState, LaunchPermission, Protection, Region, State, Tags,
};
use crate::{CreationDate, ImageId, SnapshotId};

/// A snapshot that stays although its image goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptSnapshot {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Why it stays.
    pub reason: String,
}

/// One call of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleStep {
    /// The image.
    pub image: ImageId,
    /// Its name.
    pub name: String,
    /// The region it is in.
    pub region: Region,
    /// When it was made.
    pub creation_date: CreationDate,
    /// What is done: `EnableImageDeprecation` as of now, `DisableImage`, or `DeregisterImage`.
    pub action: ActionType,
    /// Why, for example `older than 6 months`.
    pub reason: String,
    /// Snapshots that are deleted with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotId>,
    /// Its other snapshots, of an image that is deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_snapshots: Vec<KeptSnapshot>,
    /// What who applies it should know: instances that run from it, accounts that lose it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An image that a filter is of, and yet is let be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// The image.
    pub image: ImageId,
    /// Its name.
    pub name: String,
    /// What is not done.
    pub action: ActionType,
    /// Why not.
    pub reason: String,
}

/// All steps of a policy: first those that can be taken back, and the oldest images first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecyclePlan {
    /// What is done, in this order.
    pub steps: Vec<LifecycleStep>,
    /// What is not done, and why.
    pub kept: Vec<Kept>,
}

/// Images of which the newest stay: of one recipe in one region, or of no recipe.
type Group<'a> = Vec<&'a Image>;

impl LifecyclePolicy {
    /// What the policy does to the caller's images of all regions (a region can be excluded). Each image gets the strongest action that
    /// applies, and a weaker one where the stronger is not possible.
    #[must_use]
    pub fn plan(&self, state: &State, caller: &Caller, now: Timestamp) -> LifecyclePlan {
        let mut plan = LifecyclePlan::default();
        if self.status.as_deref() == Some("DISABLED") {
            return plan;
        }
        // The strongest action first.
        let mut details: Vec<&PolicyDetail> = self.policy_details.iter().collect();
        details.sort_by_key(|d| std::cmp::Reverse(d.action.action_type));
        for group in groups(&self.resource_selection, state, caller) {
            let mut done: BTreeSet<&ImageId> = BTreeSet::new();
            for detail in &details {
                let action = detail.action.action_type;
                if detail.action.include_resources.is_some_and(|i| !i.amis) {
                    continue;
                }
                for (image, reason) in filtered(detail.filter, &group, now, &done) {
                    match reason
                        .and_then(|reason| obstacle(detail, image, now).map_or(Ok(reason), Err))
                    {
                        Err(reason) => plan.kept.push(Kept {
                            image: image.image_id.clone(),
                            name: image.name.clone(),
                            action,
                            reason,
                        }),
                        Ok(reason) => {
                            done.insert(&image.image_id);
                            if !already(action, image, now) {
                                plan.steps.push(step(image, action, reason, state));
                            }
                        }
                    }
                }
            }
        }
        plan.steps.sort_by(|a, b| {
            (a.action, a.creation_date, &a.image).cmp(&(b.action, b.creation_date, &b.image))
        });
        let with_snapshots: BTreeSet<ActionType> = self
            .policy_details
            .iter()
            .filter(|d| d.action.include_resources.is_some_and(|i| i.snapshots))
            .map(|d| d.action.action_type)
            .collect();
        snapshots(
            &mut plan.steps,
            state,
            with_snapshots.contains(&ActionType::Delete),
        );
        plan
    }
}

/// The caller's images that are selected, by recipe and region, the newest first. Images that were never usable are in none.
fn groups<'a>(selection: &ResourceSelection, state: &'a State, caller: &Caller) -> Vec<Group<'a>> {
    let mut groups: BTreeMap<(&Region, &str), Group<'a>> = BTreeMap::new();
    for image in state.images.values() {
        let usable = matches!(image.state, ImageState::Available | ImageState::Disabled);
        if image.owner != caller.account || !usable {
            continue;
        }
        let recipe = image
            .build
            .as_ref()
            .map(|b| (b.recipe.as_str(), b.version.as_str()));
        let selected = if selection.recipes.is_empty() {
            selection
                .tag_map
                .iter()
                .all(|(key, value)| image.tags.get(key) == Some(value))
        } else {
            recipe.is_some_and(|(name, version)| {
                selection.recipes.iter().any(|r| r.selects(name, version))
            })
        };
        if selected {
            let name = recipe.map_or("", |(name, _)| name);
            groups.entry((&image.region, name)).or_default().push(image);
        }
    }
    let mut groups: Vec<Group<'a>> = groups.into_values().collect();
    for group in &mut groups {
        group.sort_by(|a, b| (b.creation_date, &b.image_id).cmp(&(a.creation_date, &a.image_id)));
    }
    groups
}

/// The images of a group that a filter is of, each with why it is, or why it stays nevertheless.
fn filtered<'a>(
    filter: Filter,
    group: &Group<'a>,
    now: Timestamp,
    done: &BTreeSet<&ImageId>,
) -> Vec<(&'a Image, Result<String, String>)> {
    let keep = match filter {
        Filter::Age {
            retain_at_least, ..
        } => retain_at_least,
        Filter::Count { value } => value,
    };
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    // The newest, and as many of those that can be launched: a disabled image is no substitute for one that can.
    let mut newest: BTreeSet<&ImageId> = group.iter().take(keep).map(|i| &i.image_id).collect();
    let available = group.iter().filter(|i| i.state == ImageState::Available);
    newest.extend(available.take(keep).map(|i| &i.image_id));
    let mut found = Vec::new();
    for image in group.iter().filter(|i| !done.contains(&i.image_id)) {
        let stays = newest.contains(&image.image_id);
        match filter {
            Filter::Age { value, unit, .. } => {
                if image.creation_date.timestamp() >= unit.before(now, value) {
                    continue;
                }
                let why = format!("older than {}", unit.words(value));
                found.push((
                    *image,
                    match stays {
                        false => Ok(why),
                        true => Err(format!("{why}, but one of the newest {keep}, which stay")),
                    },
                ));
            }
            // Those that stay are what a filter by count is about: nothing to tell.
            Filter::Count { .. } if stays => {}
            Filter::Count { .. } => {
                found.push((*image, Ok(format!("not one of the newest {keep}"))))
            }
        }
    }
    found
}

/// Why an image that a filter is of is let be.
fn obstacle(detail: &PolicyDetail, image: &Image, now: Timestamp) -> Option<String> {
    if let Some(reason) = excluded(&detail.exclusion_rules, image, now) {
        return Some(format!("excluded: {reason}"));
    }
    if detail.action.action_type != ActionType::Delete {
        return None;
    }
    match image.deregistration_protection {
        Protection::Disabled => None,
        Protection::EnabledWithoutCooldown => {
            Some("it is protected against deregistration".to_owned())
        }
        Protection::EnabledWithCooldown { off_since: None } => {
            Some("it is protected against deregistration".to_owned())
        }
        Protection::EnabledWithCooldown {
            off_since: Some(since),
        } => {
            let cool = now.secs >= since.timestamp().secs.saturating_add(24 * 3600);
            (!cool)
                .then(|| format!("its protection was taken off at {since} and lasts 24 hours more"))
        }
    }
}

fn excluded(rules: &ExclusionRules, image: &Image, now: Timestamp) -> Option<String> {
    let tagged = |tags: &Tags| {
        tags.iter()
            .find(|(key, value)| image.tags.get(*key) == Some(value))
            .map(|(key, value)| format!("it has the tag {key}={value}"))
    };
    if let Some(reason) = tagged(&rules.tag_map).or_else(|| tagged(&rules.amis.tag_map)) {
        return Some(reason);
    }
    let amis = &rules.amis;
    if amis.is_public && image.launch_permissions.contains(&LaunchPermission::All) {
        return Some("it is public".to_owned());
    }
    if amis.regions.contains(&image.region) {
        return Some(format!("it is in {}", image.region));
    }
    let shared = amis.shared_accounts.iter().find(|a| {
        image
            .launch_permissions
            .contains(&LaunchPermission::UserId((*a).clone()))
    });
    if let Some(account) = shared {
        return Some(format!("it is shared with {account}"));
    }
    let last = amis.last_launched?;
    let launched = image.last_launched_time?;
    (launched.timestamp() >= last.unit.before(now, last.value)).then(|| {
        format!(
            "it was launched within the last {}",
            last.unit.words(last.value)
        )
    })
}

/// Whether nothing is left to do.
fn already(action: ActionType, image: &Image, now: Timestamp) -> bool {
    match action {
        ActionType::Deprecate => {
            image.state == ImageState::Disabled
                || image.deprecation_time.is_some_and(|t| t.timestamp() <= now)
        }
        ActionType::Disable => image.state == ImageState::Disabled,
        ActionType::Delete => false,
    }
}

fn step(image: &Image, action: ActionType, reason: String, state: &State) -> LifecycleStep {
    let mut notes = Vec::new();
    let instances: Vec<&str> = state
        .instances
        .values()
        .filter(|i| i.image_id == image.image_id && i.state != InstanceState::Terminated)
        .map(|i| i.instance_id.as_str())
        .collect();
    if !instances.is_empty() && action != ActionType::Deprecate {
        notes.push(format!(
            "launched from it, and left as they are: {}",
            instances.join(", ")
        ));
    }
    if !image.launch_permissions.is_empty() && action != ActionType::Deprecate {
        let word = match image.launch_permissions.contains(&LaunchPermission::All) {
            true => "it is public".to_owned(),
            false => format!("it is shared with {}", image.launch_permissions.len()),
        };
        notes.push(format!(
            "{word}: others lose it, and its launch permissions do not come back"
        ));
    }
    LifecycleStep {
        image: image.image_id.clone(),
        name: image.name.clone(),
        region: image.region.clone(),
        creation_date: image.creation_date,
        action,
        reason,
        snapshots: Vec::new(),
        kept_snapshots: Vec::new(),
        notes,
    }
}

/// Gives each image that goes its snapshots: those that no image needs which is still there after the step, and that are the owner's.
fn snapshots(steps: &mut [LifecycleStep], state: &State, delete: bool) {
    let mut users: BTreeMap<&SnapshotId, BTreeSet<&ImageId>> = BTreeMap::new();
    for image in state.images.values() {
        // One in the recycle bin can come back, and needs its snapshots then.
        if image.state != ImageState::Deregistered || image.bin.is_some() {
            for snapshot in of_image(image) {
                users.entry(snapshot).or_default().insert(&image.image_id);
            }
        }
    }
    for step in steps.iter_mut().filter(|s| s.action == ActionType::Delete) {
        let Some(image) = state.images.get(&step.image) else {
            continue;
        };
        for id in of_image(image) {
            let others = users.entry(id).or_default();
            others.remove(&image.image_id);
            let reason = if !delete {
                Some("the policy does not include snapshots".to_owned())
            } else if let Some(other) = others.first() {
                let more = others.len() - 1;
                Some(match more {
                    0 => format!("{other} uses it"),
                    more => format!("{other} and {more} more use it"),
                })
            } else {
                match state.snapshots.get(id) {
                    None => Some("it is not there".to_owned()),
                    Some(s) if s.owner != image.owner => Some(format!("it belongs to {}", s.owner)),
                    Some(s) if s.bin.is_some() => Some("it lies in the recycle bin".to_owned()),
                    Some(_) => None,
                }
            };
            match reason {
                None => step.snapshots.push(id.clone()),
                Some(reason) => step.kept_snapshots.push(KeptSnapshot {
                    snapshot_id: id.clone(),
                    reason,
                }),
            }
        }
    }
}

/// The snapshots of an image, each once, in the order of its mappings.
fn of_image(image: &Image) -> Vec<&SnapshotId> {
    let mut found: Vec<&SnapshotId> = Vec::new();
    for mapping in &image.block_device_mappings {
        if let Some(id) = mapping.as_ebs().and_then(|v| v.snapshot_id.as_ref())
            && !found.contains(&id)
        {
            found.push(id);
        }
    }
    found
}
