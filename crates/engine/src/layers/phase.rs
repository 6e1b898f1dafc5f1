//! One phase of a component in the sandbox, its logs, and what it gave out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use amiforge_exec::{
    ChildEvent, DocumentSpec, Download, External, PhaseResult, RootSpec, RunResult, RunSpec,
    Sandbox, ToeLog,
};
use amiforge_store::Store;
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{Digest, LayerId, Timestamp};

use super::sandbox::sandbox_error;
use super::{Work, shell_environment, store_context};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::load::LoadedComponent;
use crate::parent::BootLock;
use crate::settings::Engine;
use crate::sources::Sources;
use crate::steps::{Telling, failure_text};
use crate::variables::{self, Stage};

/// The phase that makes a component's layer.
pub(super) const BUILD: &str = "build";

/// The phase that looks at the finished image.
pub(super) const TEST: &str = "test";

/// A phase of a component, by its number in the recipe, and the run that it is.
#[derive(Clone, Copy)]
pub(crate) struct Phase<'a> {
    pub(super) index: usize,
    pub(super) phase: &'a str,
    pub(super) run: &'a RunSpec,
}

/// Kind of the records that hold what the build phase of a layer's component gave out, for later
/// phases that refer to it when the layer comes from the store.
pub(crate) const BUILD_RESULTS: &str = "build-results";
const BUILD_RESULTS_VERSION: u32 = 1;

impl Engine {
    /// One phase of a component as a run.
    pub(super) fn phase_run(
        &self,
        work: &Work<'_>,
        index: usize,
        phase: &str,
        clock: Timestamp,
    ) -> Result<RunSpec, EngineError> {
        let component = &work.recipe.components[index];
        let key = work.plan.components[index].layer.map(|id| id.to_string());
        // What is the same for every build that may use the layer.
        let of = key
            .clone()
            .unwrap_or_else(|| component.component.digest().hex());
        let earlier = match &key {
            // A test is a run of its own: in the service, another machine.
            Some(key) if phase != BUILD && phase != TEST => build_results(work.store, key)?,
            _ => Vec::new(),
        };
        let stage = if phase == TEST {
            Stage::Testing
        } else {
            Stage::Building
        };
        let external = if phase == TEST {
            self.external_of_test(component, &work.recipe.secrets)?
        } else {
            component.external.clone()
        };
        Ok(RunSpec {
            execution_id: format!("{}-{}-{phase}", &work.plan.plan_id.hex()[..12], index),
            documents: vec![DocumentSpec {
                name: component.shown.clone(),
                text: component.text.clone(),
                parameters: component.parameters.clone(),
                earlier,
                working_directory: work.recipe.recipe.working_directory.clone(),
            }],
            phases: vec![phase.to_owned()],
            env: component.environment(&work.recipe.recipe, stage),
            clock,
            context: variables::execution_id(Digest::of(of.as_bytes())),
            external,
            library: component.library.clone(),
            until: None,
        })
    }

    /// Runs a phase in the sandbox.
    pub(super) fn run_phase(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        of: Phase<'_>,
        root: &RootSpec,
        cancel: &AtomicBool,
    ) -> Result<RunResult, EngineError> {
        let component = &work.recipe.components[of.index];
        let mut outside = self.outside(&component.component, of.phase, work.offline);
        outside
            .secrets
            .clone_from(work.recipe.step_secrets.values()?);
        // What other phases bring in reaches no image.
        if of.phase == BUILD {
            outside.pins = work.pins.map(|pins| pins.downloads.clone());
        }
        self.lend_downloads(work, (of.index, of.phase), &mut outside)?;
        self.told_phase(work, of, |on_event| {
            sandbox
                .run_component_with(root, of.run, &outside, cancel, on_event)
                .map_err(sandbox_error)
        })
    }

    /// Runs the build phase of a component, up to and with a step, in a root; nothing of it is kept. A failure on the
    /// way is told, and the root is as it left it.
    pub(crate) fn run_to(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        root: &RootSpec,
        (index, step): (usize, &str),
        clock: Timestamp,
    ) -> Result<(), EngineError> {
        let component = &work.recipe.components[index];
        let steps = component.component.phase(BUILD).map(|phase| &phase.steps);
        let names: Vec<&str> = steps
            .into_iter()
            .flatten()
            .map(|s| s.name.as_str())
            .collect();
        if !names.contains(&step) {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "the build phase of {} has no step {step}; it has {}",
                    component.name,
                    names.join(", ")
                ),
            ));
        }
        let mut run = self.phase_run(work, index, BUILD, clock)?;
        run.until = Some(step.to_owned());
        let mut outside = self.outside(&component.component, BUILD, work.offline);
        outside
            .secrets
            .clone_from(work.recipe.step_secrets.values()?);
        self.lend_downloads(work, (index, BUILD), &mut outside)?;
        let running = self.interruption.job();
        let mut telling = Telling::component(self, &component.name);
        let result = sandbox
            .run_component_with(root, &run, &outside, running.cancel(), &mut |event| {
                telling.event(event);
            })
            .map_err(sandbox_error)?;
        if !result.status.is_ok() {
            self.warn(failure_text(&result, |failure| component.place_of(failure)));
        }
        Ok(())
    }

    /// The variables of the steps of a component, beside those of every command.
    pub(crate) fn steps_environment(
        &self,
        work: &Work<'_>,
        index: usize,
        clock: Timestamp,
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let run = self.phase_run(work, index, BUILD, clock)?;
        let dir = work.recipe.recipe.working_directory.as_deref();
        Ok(shell_environment(&run, dir))
    }

    /// Shows and logs a phase while `go` runs it, and keeps what the build phase gave out.
    pub(super) fn told_phase(
        &self,
        work: &Work<'_>,
        of: Phase<'_>,
        go: impl FnOnce(&mut dyn FnMut(ChildEvent)) -> Result<RunResult, EngineError>,
    ) -> Result<RunResult, EngineError> {
        let Phase { index, phase, run } = of;
        let component = &work.recipe.components[index];
        let key = work.plan.components[index].layer.map(|id| id.to_string());
        let context = || format!("cannot write the logs of {}", component.name);
        let mut log = ToeLog::create(&work.logs, run).or_fail(ErrorKind::Failed, context)?;
        let mut telling = Telling::component(self, &component.name);
        let mut downloads = BTreeSet::new();
        let result = go(&mut |event: ChildEvent| {
            log.event(&event);
            if let ChildEvent::Fetched { download } = &event {
                downloads.insert(download.clone());
            }
            telling.event(event);
        })?;
        log.finish(&result).or_fail(ErrorKind::Failed, context)?;
        if !result.status.is_ok() {
            let text = failure_text(&result, |failure| component.place_of(failure));
            return Err(EngineError::new(ErrorKind::Failed, text));
        }
        if let (Some(key), true) = (&key, phase == BUILD) {
            keep_build_results(work.store, key, &result, &downloads)?;
        }
        Ok(result)
    }
}

impl Engine {
    /// Values of the references to AWS in a component's test phase; what has none fails when a step needs it.
    fn external_of_test(
        &self,
        loaded: &LoadedComponent,
        secrets: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, External>, EngineError> {
        let sources = Sources::load(self.settings.config_file.as_deref())?;
        let variables = loaded.component.variables(&loaded.parameters);
        let found = sources.external(&loaded.component, &variables, secrets, |phase| {
            phase == TEST
        })?;
        Ok(found.0)
    }
}

/// What is kept of how a layer was made, of the version that we write.
fn results_record(store: &Store, key: &str) -> Result<Option<serde_json::Value>, EngineError> {
    let record = store
        .get_record(BUILD_RESULTS, key)
        .or_fail(ErrorKind::Failed, store_context)?;
    Ok(record.filter(|record| record["version"] == BUILD_RESULTS_VERSION))
}

/// The results of a layer's build phase; none when the record is missing or of another version.
fn build_results(store: &Store, key: &str) -> Result<Vec<PhaseResult>, EngineError> {
    let record = results_record(store, key)?;
    let phases = record.map(|record| serde_json::from_value(record["phases"].clone()));
    Ok(phases.and_then(Result::ok).unwrap_or_default())
}

/// The files from elsewhere that a step brought into a layer; none when nothing is known of it.
pub(crate) fn layer_downloads(
    store: &Store,
    layer: LayerId,
) -> Result<BTreeSet<Download>, EngineError> {
    let record = results_record(store, &layer.to_string())?;
    let downloads = record.map(|record| serde_json::from_value(record["downloads"].clone()));
    Ok(downloads.and_then(Result::ok).unwrap_or_default())
}

/// The packages that a layer for a boot was made of; `None` when nothing is known of this very file.
pub(crate) fn layer_boot_packages(
    store: &Store,
    layer: LayerId,
) -> Result<Option<BootLock>, EngineError> {
    let record = results_record(store, &layer.to_string())?;
    let Some(mut record) = record.filter(|record| !record["bootPackages"].is_null()) else {
        return Ok(None);
    };
    // A damaged layer is found, told and made again where it is read.
    let info = store.layer_info(layer).ok().flatten();
    let of = serde_json::from_value::<Digest>(record["layer"].take()).ok();
    if info.is_none() || of != info.map(|info| info.digest) {
        return Ok(None);
    }
    Ok(serde_json::from_value(record["bootPackages"].take()).ok())
}

/// Keeps what a layer for a boot was made of.
pub(crate) fn keep_boot_packages(
    store: &Store,
    (layer, info): (LayerId, &LayerInfo),
    packages: &BootLock,
) -> Result<(), EngineError> {
    let record = serde_json::json!({
        "version": BUILD_RESULTS_VERSION,
        "phases": [],
        "layer": info.digest,
        "bootPackages": packages,
    });
    store
        .put_record(BUILD_RESULTS, &layer.to_string(), &record)
        .or_fail(ErrorKind::Failed, store_context)
}

fn keep_build_results(
    store: &Store,
    key: &str,
    result: &RunResult,
    downloads: &BTreeSet<Download>,
) -> Result<(), EngineError> {
    let phases: Vec<&PhaseResult> = result
        .documents
        .iter()
        .flat_map(|document| &document.phases)
        .filter(|phase| phase.selected)
        .collect();
    let mut record = serde_json::json!({ "version": BUILD_RESULTS_VERSION, "phases": phases });
    if !downloads.is_empty() {
        record["downloads"] = serde_json::json!(downloads);
    }
    store
        .put_record(BUILD_RESULTS, key, &record)
        .or_fail(ErrorKind::Failed, store_context)
}
