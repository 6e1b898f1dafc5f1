//! `plan`: what a build would make or take from the store, and why.

mod documents;
mod readable;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amiforge_plan::{InputChange, Plan, PlanRequest, Reason, ResolvedComponent, compile, why};
use amiforge_store::Store;
use amiforge_types::{Arch, Digest, LayerId};
use serde::Serialize;

use self::documents::Documents;
use self::readable::Plans;
use crate::build::default_target;
use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::layers::EXECUTOR_VERSION;
use crate::load::{LoadedRecipe, RecipeRequest};
use crate::parent::Parent;
use crate::settings::Engine;
use crate::shown::shown;

/// Version of this program; goes into manifests and image inputs.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Kinds of the records that hold the plan of the last finished build and its documents, by recipe name.
const LAST: Kinds = Kinds {
    plan: "last-plan",
    documents: "last-documents",
};

/// The same of the last build since then that failed.
const TRIED: Kinds = Kinds {
    plan: "tried-plan",
    documents: "tried-documents",
};

/// Kinds of records of one build.
#[derive(Clone, Copy)]
struct Kinds {
    plan: &'static str,
    documents: &'static str,
}

/// The plan of an earlier build, and where its documents are.
struct Earlier {
    plan: Plan,
    kinds: Kinds,
}

impl Earlier {
    fn find(store: &Store, kinds: Kinds, recipe: &str) -> Option<Self> {
        let record = store.get_record(kinds.plan, &record_key(recipe)).ok()??;
        let plan = Plan::from_json(&record.to_string()).ok()?;
        Some(Self { plan, kinds })
    }

    fn has(&self, layer: LayerId) -> bool {
        self.plan.layers.iter().any(|known| known.id == layer)
    }

    /// Whether what it says of a layer explains anything: that a failed build planned it as well does not.
    fn explains(&self, layer: LayerId) -> bool {
        self.kinds.plan == LAST.plan || !self.has(layer)
    }
}

/// Why a plan differs from an earlier one, in words.
#[derive(Default)]
struct Reasons {
    /// By the layers that differ.
    layers: BTreeMap<LayerId, Vec<String>>,
    /// Of none of them.
    others: Vec<String>,
}

/// What to plan.
#[derive(Clone, Debug)]
pub struct PlanQuery {
    /// The recipe.
    pub recipe: RecipeRequest,
    /// Take the parent of `lock.json`, beside the recipe or in the output folder.
    pub locked: bool,
    /// The output folder that may have the lock; `./out/<name>-<version>` when absent.
    pub out: Option<PathBuf>,
}

/// What `plan` tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanReport {
    /// The plan's id.
    pub plan_id: String,
    /// The layers, lowest first.
    pub layers: Vec<PlannedLayer>,
    /// For people, what changed since the last build of this recipe and is of no layer: components that are gone, another
    /// order, and inputs of the image itself.
    pub reasons: Vec<String>,
    /// The whole plan, as `plan.json` has it.
    pub plan: Plan,
}

/// One layer of a [`PlanReport`].
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedLayer {
    /// Id.
    pub id: String,
    /// For people.
    pub title: String,
    /// Whether it is in the store.
    pub cached: bool,
    /// The inputs that changed since the last build of this recipe, a line each.
    pub why: Vec<String>,
    /// The same for people: of a step what differs in it, and where the last build failed.
    pub reasons: Vec<String>,
}

impl Engine {
    /// Says what a build would do.
    pub fn plan(&self, query: &PlanQuery) -> Result<PlanReport, EngineError> {
        let recipe = self.load(&query.recipe)?;
        let store = self.open_store()?;
        let offline = query.recipe.offline;
        let (parent, pins) = if query.locked {
            let out = match &query.out {
                Some(out) => out.clone(),
                None => default_target(Path::new("out"), &recipe),
            };
            let locked = self.locked(&recipe, &store, (None, &out), offline)?;
            (locked.parent, Some(locked.pins))
        } else {
            (self.resolve_parent(&recipe, &store, offline, None)?, None)
        };
        let recipe = self.over_parent(recipe, &parent)?;
        let plan = self.compile(&recipe, &parent)?;
        if let Some(pins) = &pins {
            crate::lock::pinned_layers(&store, &plan, pins)?;
        }
        let earlier = self.earlier(&store, &plan.recipe.name);
        let mut all = self.compared(&store, earlier.as_ref(), &recipe, &plan)?;
        let layers = plan
            .layers
            .iter()
            .map(|layer| {
                let cached = store.has_layer(layer.id);
                let mut reasons = all.layers.remove(&layer.id).unwrap_or_default();
                let explained = earlier.as_ref().filter(|old| old.explains(layer.id));
                let why = match explained {
                    Some(old) => why_lines(&old.plan, &plan, layer.id),
                    None if cached => vec!["in the store".to_owned()],
                    None if !reasons.is_empty() => reasons.clone(),
                    None => vec!["never built".to_owned()],
                };
                // A layer that was made before the failure is there.
                if reasons.is_empty() || (explained.is_none() && cached) {
                    reasons.splice(0..0, why.iter().cloned());
                }
                PlannedLayer {
                    id: layer.id.to_string(),
                    title: layer.title.clone(),
                    cached,
                    why,
                    reasons,
                }
            })
            .collect();
        Ok(PlanReport {
            plan_id: plan.plan_id.to_string(),
            layers,
            reasons: all.others,
            plan,
        })
    }

    /// The plan of a recipe whose parent is resolved.
    pub(crate) fn compile(
        &self,
        recipe: &LoadedRecipe,
        parent: &Parent,
    ) -> Result<Plan, EngineError> {
        let components = recipe
            .components
            .iter()
            .map(|c| ResolvedComponent {
                name: c.name.clone(),
                version: c.version.clone(),
                reference: c.shown.clone(),
                component: &c.component,
                parameters: c.parameters.clone(),
                files: c.files(),
                values: c.inputs(&recipe.recipe),
            })
            .collect();
        let request = PlanRequest {
            recipe: &recipe.recipe,
            arch: Arch::X86_64,
            tool_version: TOOL_VERSION,
            executor_version: EXECUTOR_VERSION,
            build_clock: self
                .settings
                .source_date_epoch
                .map(amiforge_types::Timestamp::from_secs),
            parent: parent.planned(recipe)?,
            components,
            step_inputs: BTreeMap::new(),
            image_inputs: BTreeMap::new(),
        };
        compile(&request).or_fail(ErrorKind::Internal, || {
            "the plan could not be made".to_owned()
        })
    }

    /// What the next build of a recipe is compared with: the last finished one, or one that failed where none was finished.
    fn earlier(&self, store: &Store, recipe: &str) -> Option<Earlier> {
        Earlier::find(store, LAST, recipe).or_else(|| Earlier::find(store, TRIED, recipe))
    }

    /// Why layers are made, in words, by their ids: what differs from the last finished build, or one that failed where
    /// none was finished, and what failed since. Of a layer of which nothing is known there is nothing.
    pub(crate) fn reasons(
        &self,
        store: &Store,
        recipe: &LoadedRecipe,
        plan: &Plan,
    ) -> Result<BTreeMap<LayerId, Vec<String>>, EngineError> {
        let earlier = self.earlier(store, &plan.recipe.name);
        let compared = self.compared(store, earlier.as_ref(), recipe, plan)?;
        Ok(compared.layers)
    }

    fn compared(
        &self,
        store: &Store,
        earlier: Option<&Earlier>,
        recipe: &LoadedRecipe,
        plan: &Plan,
    ) -> Result<Reasons, EngineError> {
        let mut reasons = Reasons::default();
        if let Some(old) = earlier {
            let documents = Documents::of_plan(store, old.kinds.documents, &old.plan);
            let plans = Plans {
                old: &old.plan,
                documents: documents.as_ref(),
                new: plan,
                recipe,
            };
            let why = why(&old.plan, plan);
            for layer in why.layers.iter().filter(|layer| old.explains(layer.id)) {
                reasons.layers.insert(layer.id, plans.lines(layer));
            }
            reasons.others = plans.others(&why);
        }
        if let Some(failed) = self.last_failed(store, &plan.recipe.name)?
            && let Some(layer) = failed_layer(plan, &failed.what)
        {
            let tried = Earlier::find(store, TRIED, &plan.recipe.name);
            let when = match tried.is_none_or(|tried| tried.has(layer)) {
                true => "failed last time",
                false => "failed last time, with other inputs,",
            };
            let line = format!("{when} at {}", shown(failed.place().as_bytes()));
            reasons.layers.entry(layer).or_default().push(line);
        }
        Ok(reasons)
    }

    /// The plan of the last finished build of a recipe; one that cannot be read counts as none.
    pub(crate) fn last_plan(&self, store: &Store, recipe: &str) -> Option<Plan> {
        Some(Earlier::find(store, LAST, recipe)?.plan)
    }

    /// The same of every recipe.
    pub(crate) fn last_plans(&self, store: &Store) -> Result<Vec<Plan>, EngineError> {
        let context = || "cannot read the build records".to_owned();
        let mut plans = Vec::new();
        for key in store
            .record_keys(LAST.plan)
            .or_fail(ErrorKind::Failed, context)?
        {
            let record = store
                .get_record(LAST.plan, &key)
                .or_fail(ErrorKind::Failed, context)?;
            plans.extend(record.and_then(|record| Plan::from_json(&record.to_string()).ok()));
        }
        Ok(plans)
    }

    /// Keeps the plan of a build that is finished, and what its documents said.
    pub(crate) fn keep_plan(
        &self,
        store: &Store,
        recipe: &LoadedRecipe,
        plan: &Plan,
    ) -> Result<(), EngineError> {
        keep(store, LAST, recipe, plan)?;
        self.forget_tried(store, &plan.recipe.name)
    }

    /// Keeps the plan of a build that failed. What cannot be kept is missing from later reasons: the failure is the news.
    pub(crate) fn keep_tried(&self, store: &Store, recipe: &LoadedRecipe, plan: &Plan) {
        if let Err(error) = keep(store, TRIED, recipe, plan) {
            self.warn(format!(
                "what the failed build planned is not kept: {}",
                chain(&error)
            ));
        }
    }

    /// Forgets the last failed build of a recipe, which was built since.
    pub(crate) fn forget_tried(&self, store: &Store, recipe: &str) -> Result<(), EngineError> {
        for kind in [TRIED.plan, TRIED.documents] {
            store
                .remove_record(kind, &record_key(recipe))
                .or_fail(ErrorKind::Failed, || {
                    "cannot remove the build record".to_owned()
                })?;
        }
        Ok(())
    }
}

fn keep(
    store: &Store,
    kinds: Kinds,
    recipe: &LoadedRecipe,
    plan: &Plan,
) -> Result<(), EngineError> {
    Documents::keep(store, kinds.documents, recipe, plan)?;
    let context = || "cannot write the build record".to_owned();
    let record = serde_json::to_value(plan).or_fail(ErrorKind::Internal, context)?;
    store
        .put_record(kinds.plan, &record_key(&plan.recipe.name), &record)
        .or_fail(ErrorKind::Failed, context)
}

/// A key of the store for any name.
pub(crate) fn record_key(name: &str) -> String {
    Digest::of(name.as_bytes()).hex()
}

/// The layer that a failure is told of: that of the component which failed, or the uppermost where it has none.
fn failed_layer(plan: &Plan, what: &str) -> Option<LayerId> {
    let top = plan.layers.last().map(|layer| layer.id);
    let of_phase = |name: &str| {
        let rest = what.strip_prefix(name)?.strip_prefix(", ")?;
        rest.strip_suffix(" phase")
    };
    let component = plan.components.iter().find(|c| of_phase(&c.name).is_some());
    if let Some(component) = component {
        return component.layer.or(top);
    }
    let layer = plan.layers.iter().find(|layer| layer.title == what)?;
    Some(layer.id)
}

/// What changed for a layer between two plans, a line for each input.
pub(crate) fn why_lines(old: &Plan, new: &Plan, layer: LayerId) -> Vec<String> {
    let why = why(old, new);
    let Some(found) = why.layers.iter().find(|l| l.id == layer) else {
        return Vec::new();
    };
    match &found.reason {
        Reason::Unchanged => vec!["unchanged since the last build".to_owned()],
        Reason::New => vec!["new since the last build".to_owned()],
        Reason::Changed { inputs, parent } => {
            let below = parent.then(|| "a layer below it changed".to_owned());
            inputs.iter().map(change_line).chain(below).collect()
        }
    }
}

fn change_line(change: &InputChange) -> String {
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{} changed: {old} -> {new}", change.input),
        (None, Some(new)) => format!("{} is new: {new}", change.input),
        (Some(old), None) => format!("{} is gone: {old}", change.input),
        (None, None) => change.input.clone(),
    }
}
