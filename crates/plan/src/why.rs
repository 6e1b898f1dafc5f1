//! Which input changed between two plans.

use std::collections::BTreeMap;

use amiforge_types::LayerId;
use serde::Serialize;

use crate::plan::{LayerKind, LayerPlan, Plan, PlannedComponent};

/// The difference between an old plan and a new one, for people and for `--json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// One entry per layer of the new plan, in its order.
    pub layers: Vec<LayerWhy>,
    /// Titles of layers that only the old plan has.
    pub removed: Vec<String>,
    /// Names of components without a layer that only the old plan has, or the new one, or that both have with other inputs.
    pub layerless: Vec<String>,
    /// The components that both plans have, where their order differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderChange>,
    /// Changed inputs of the image.
    pub image: Vec<InputChange>,
}

/// Another order of the same components, by their names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderChange {
    /// In the old plan.
    pub old: Vec<String>,
    /// In the new plan.
    pub new: Vec<String>,
}

/// What became of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerWhy {
    /// The layer of the new plan.
    pub id: LayerId,
    /// The layer of the old plan that it is compared with, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<LayerId>,
    /// Its title.
    pub title: String,
    /// What became of it.
    pub reason: Reason,
}

/// Why a layer has the id it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Reason {
    /// The old plan has the same layer.
    Unchanged,
    /// The old plan has no layer to compare with.
    New,
    /// The old plan has this layer with other inputs.
    #[serde(rename_all = "camelCase")]
    Changed {
        /// The inputs that differ, by name.
        inputs: Vec<InputChange>,
        /// True when the layer below differs too.
        parent: bool,
    },
}

/// One input that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InputChange {
    /// The input's name.
    pub input: String,
    /// Its value in the old plan, if it was there.
    pub old: Option<String>,
    /// Its value in the new plan, if it is there.
    pub new: Option<String>,
}

/// Names, for each layer of `new`, what makes it differ from `old`.
///
/// Layers are paired by what they are: the parent's with the parent's, a component's with that of
/// the component of the same name (the second with the second, where a recipe uses it twice).
#[must_use]
pub fn why(old: &Plan, new: &Plan) -> Why {
    let mut before: BTreeMap<Identity<'_>, &LayerPlan> = identities(old).collect();
    let layers = identities(new)
        .map(|(identity, layer)| {
            let old = before.remove(&identity);
            let reason = match old {
                None => Reason::New,
                Some(old) if old.id == layer.id => Reason::Unchanged,
                Some(old) => Reason::Changed {
                    inputs: changes(&old.inputs, &layer.inputs),
                    parent: old.parent != layer.parent,
                },
            };
            LayerWhy {
                id: layer.id,
                old: old.map(|layer| layer.id),
                title: layer.title.clone(),
                reason,
            }
        })
        .collect();
    let removed = before
        .into_values()
        .map(|layer| layer.title.clone())
        .collect();
    Why {
        layers,
        removed,
        layerless: layerless(old, new),
        order: order(old, new),
        image: changes(&old.image_inputs, &new.image_inputs),
    }
}

/// A component, and its name with how many of that came before.
type Named<'p> = ((&'p str, usize), &'p PlannedComponent);

fn components(plan: &Plan) -> Vec<Named<'_>> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let named = plan.components.iter().map(|component| {
        let count = seen.entry(&component.name).or_default();
        *count += 1;
        ((component.name.as_str(), *count), component)
    });
    named.collect()
}

fn layerless(old: &Plan, new: &Plan) -> Vec<String> {
    let (before, after) = (components(old), components(new));
    let mut names: Vec<String> = Vec::new();
    for (these, others) in [(&before, &after), (&after, &before)] {
        for (key, component) in these.iter().filter(|(_, c)| c.layer.is_none()) {
            let other = others.iter().find(|(name, _)| name == key);
            let same = other.is_some_and(|(_, other)| other == component);
            if !same && !names.contains(&component.name) {
                names.push(component.name.clone());
            }
        }
    }
    names
}

fn order(old: &Plan, new: &Plan) -> Option<OrderChange> {
    let (before, after) = (components(old), components(new));
    let common = |these: &[Named<'_>], others: &[Named<'_>]| -> Vec<String> {
        let both = these
            .iter()
            .filter(|(key, _)| others.iter().any(|(name, _)| name == key));
        both.map(|(_, component)| component.name.clone()).collect()
    };
    let change = OrderChange {
        old: common(&before, &after),
        new: common(&after, &before),
    };
    (change.old != change.new).then_some(change)
}

/// Which layer of one plan is which of the other: rank of the kind, component name, occurrence.
type Identity<'p> = (u8, &'p str, usize);

fn identities(plan: &Plan) -> impl Iterator<Item = (Identity<'_>, &LayerPlan)> {
    let mut seen: BTreeMap<(u8, &str), usize> = BTreeMap::new();
    plan.layers.iter().map(move |layer| {
        let (rank, name) = match &layer.kind {
            LayerKind::ParentUnpacked => (0, ""),
            LayerKind::ParentConfigured => (1, ""),
            LayerKind::ParentImported { .. } => (3, ""),
            LayerKind::ParentComponent => (4, layer.title.as_str()),
            LayerKind::BootPackages => (5, ""),
            LayerKind::Component { .. } => {
                (2, plan.component_of(layer).map_or("", |c| c.name.as_str()))
            }
        };
        let count = seen.entry((rank, name)).or_default();
        *count += 1;
        ((rank, name, *count), layer)
    })
}

fn changes(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<InputChange> {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name));
    changed
        .map(|name| InputChange {
            input: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}
