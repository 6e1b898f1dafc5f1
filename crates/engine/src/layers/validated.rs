//! Validate phases: run on a layer, thrown away, and remembered when they passed.

use std::collections::BTreeMap;

use amiforge_exec::Sandbox;
use amiforge_plan::{LayerKind, LayerPlan, Plan};

use super::overlay::Purpose;
use super::phase::Phase;
use super::{FailedAt, Left, Made, Work, store_context};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::load::LoadedRecipe;
use crate::settings::Engine;

/// Kind of the records that say which layers' validate phases have passed.
pub(crate) const VALIDATED: &str = "validated";
const VALIDATED_VERSION: u32 = 1;

/// The phase that looks at a layer.
const VALIDATE: &str = "validate";

impl Engine {
    /// The validate phase of a component on the layers up to number `at`, with an upper that is
    /// thrown away. What passed once is not run again.
    pub(super) fn validate_component(
        &self,
        work: &Work<'_>,
        at: usize,
        index: usize,
        below: &Made,
        sandbox: &mut Option<Sandbox>,
    ) -> Result<(), EngineError> {
        if work.recipe.components[index]
            .component
            .phase(VALIDATE)
            .is_none()
        {
            return Ok(());
        }
        let planned = &work.plan.layers[at];
        let key = key_of(work.recipe, work.plan, at, index);
        let title = &work.plan.components[index].name;
        let offer = |made| {
            if let Some(shared) = work.shared {
                shared.offer_validated(at, &key, title, made);
            }
        };
        let known = work
            .store
            .get_record(VALIDATED, &key)
            .or_fail(ErrorKind::Failed, store_context)?;
        let is_known = |record: &serde_json::Value| record["version"] == VALIDATED_VERSION;
        if known.as_ref().is_some_and(is_known) && !work.rebuild {
            offer(false);
            return Ok(());
        }
        let shared = work.shared.filter(|_| !work.rebuild);
        if let Some(record) = self.fetch_validated(shared, &key).filter(is_known) {
            offer(false);
            return work
                .store
                .put_record(VALIDATED, &key, &record)
                .or_fail(ErrorKind::Failed, store_context);
        }
        let run = self.phase_run(work, index, VALIDATE, below.clock)?;
        let of = Phase {
            index,
            phase: VALIDATE,
            run: &run,
        };
        let failed = FailedAt::Phase(planned, of);
        if self
            .run_on_tree(work, failed, of, below, sandbox)?
            .is_none()
        {
            let sandbox = self.sandbox(work.store, sandbox)?;
            let (_scratch, root) = self.overlay(work, sandbox, at + 1, Purpose::Steps)?;
            let running = self.interruption.job();
            if let Err(error) = self.run_phase(work, sandbox, of, (below, &root), running.cancel())
            {
                let left = Left::Overlay {
                    sandbox,
                    root: &root,
                };
                return Err(self.failed(work, failed, below, left, error));
            }
        }
        let record = serde_json::json!({ "version": VALIDATED_VERSION });
        work.store
            .put_record(VALIDATED, &key, &record)
            .or_fail(ErrorKind::Failed, store_context)?;
        offer(true);
        Ok(())
    }
}

/// What the validate phase of a component on the layers up to number `at` is known by.
pub(crate) fn key_of(recipe: &LoadedRecipe, plan: &Plan, at: usize, index: usize) -> String {
    let folder = recipe.recipe.working_directory.as_deref();
    let component = &recipe.components[index];
    let mut others = component.inputs(&recipe.recipe);
    let files = component.files().into_iter();
    others.extend(files.map(|(name, digest)| (name, digest.to_string())));
    validated_key(plan, &plan.layers[at], index, folder, &others)
}

/// The components whose validate phase runs on the layers up to number `at`: the one that made this
/// layer, and those after it that make none of their own.
pub(crate) fn validated_on(plan: &Plan, at: usize) -> Vec<usize> {
    let mut top = plan
        .layers
        .iter()
        .take_while(|l| !matches!(l.kind, LayerKind::Component { .. }))
        .count()
        .saturating_sub(1);
    let mut found = Vec::new();
    for (index, component) in plan.components.iter().enumerate() {
        if component.layer.is_some() {
            top += 1;
        }
        if top == at {
            found.push(index);
        }
    }
    found
}

/// What a validate phase that passed is known by: the layer, and of the component its document (of which the layer covers the
/// build phase alone), its parameters, the folder it runs in, and what it finds from outside. `<layer id>.<digest>`.
pub(super) fn validated_key(
    plan: &Plan,
    layer: &LayerPlan,
    index: usize,
    working_directory: Option<&str>,
    others: &BTreeMap<String, String>,
) -> String {
    let component = &plan.components[index];
    let mut hasher = amiforge_types::Hasher::new();
    hasher.field(b"amiforge-validated-v2");
    hasher.field(layer.id.to_string().as_bytes());
    hasher.field(component.digest.as_bytes());
    for (name, value) in &component.parameters {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    for (name, value) in others {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    if let Some(folder) = working_directory {
        hasher.field(b"workingDirectory");
        hasher.field(folder.as_bytes());
    }
    format!("{}.{}", layer.id, hasher.finish())
}
