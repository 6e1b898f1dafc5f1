//! One phase of a component in the sandbox, its logs, and what it gave out.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;

use amiforge_exec::{
    ChildEvent, DocumentSpec, Download, External, Failure, NOT_IN_MEMORY, NOT_PINNED, PhaseResult,
    RootSpec, RunResult, RunSpec, Sandbox, ToeLog,
};
use amiforge_store::Store;
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{Digest, LayerId, Timestamp};
use serde::Deserialize as _;

use super::resume::Resume;
use super::sandbox::sandbox_error;
use super::{Made, Work, shell_environment, store_context};
use crate::error::{Contextual, EngineError, ErrorKind, FailedStep};
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

/// A phase that came to its end.
#[derive(Debug)]
pub(crate) struct RanPhase {
    pub(super) result: RunResult,
    /// The files from elsewhere that its steps brought in.
    downloads: BTreeSet<Download>,
    /// How many of them had been done by an earlier run.
    pub(super) done: usize,
}

/// Kind of the records that hold what the build phase of a layer's component gave out, for later
/// phases that refer to it when the layer comes from the store. Each is of one file of the layer, and written after it: one that
/// is of another file counts as none, and the layer is made again.
pub(crate) const BUILD_RESULTS: &str = "build-results";
const BUILD_RESULTS_VERSION: u32 = 1;

/// What to do where secrets cannot be in memory.
const IN_MEMORY: &str = "with --sandbox chroot, /run is in the store: have the store on tmpfs (AMIFORGE_HOME=/dev/shm/amiforge), or take \
                         another --sandbox, if one works here (`amiforge doctor`)";

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

    /// Runs a phase in the sandbox, in a root over the layers below.
    pub(super) fn run_phase(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        of: Phase<'_>,
        (below, root): (&Made, &RootSpec),
        cancel: &AtomicBool,
    ) -> Result<RanPhase, EngineError> {
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
        let Some(resume) = Resume::of(work, of, sandbox, (below, root)) else {
            return self.told_phase(work, of, |on_event| {
                sandbox
                    .run_component_with(root, of.run, &outside, cancel, on_event)
                    .map_err(sandbox_error)
            });
        };
        let done = Cell::new(0);
        let ran = self.told_phase(work, of, |on_event| {
            resume.run(self, &outside, &done, cancel, on_event)
        });
        let mut ran = resume.end(ran)?;
        ran.done = done.get();
        Ok(ran)
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

    /// Shows and logs a phase while `go` runs it.
    pub(super) fn told_phase(
        &self,
        work: &Work<'_>,
        of: Phase<'_>,
        go: impl FnOnce(&mut dyn FnMut(ChildEvent)) -> Result<RunResult, EngineError>,
    ) -> Result<RanPhase, EngineError> {
        let Phase { index, run, .. } = of;
        let component = &work.recipe.components[index];
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
            let step = result
                .failure
                .as_ref()
                .filter(|failure| !failure.step.is_empty())
                .map(|failure| failed_step(component, failure));
            let error = EngineError::new(ErrorKind::Failed, text).of_step(step);
            let unlocked = |failure: &Failure| failure.reason.ends_with(NOT_PINNED);
            let on_disk = |failure: &Failure| failure.reason.ends_with(NOT_IN_MEMORY);
            return Err(match work.pins {
                Some(pins) if result.failure.as_ref().is_some_and(unlocked) => {
                    error.with_hint(pins.lacking())
                }
                _ if result.failure.as_ref().is_some_and(on_disk) => error.with_hint(IN_MEMORY),
                _ => error,
            });
        }
        Ok(RanPhase {
            result,
            downloads,
            done: 0,
        })
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

/// The step that ended a run, and where it stands.
fn failed_step(component: &LoadedComponent, failure: &Failure) -> FailedStep {
    // What a step runs by another's name is in another file.
    let place = Some(failure).filter(|f| f.within.is_empty());
    let place = place.and_then(|failure| component.place_of(failure));
    FailedStep {
        phase: failure.phase.clone(),
        step: failure.step.clone(),
        place: place.map(|at| format!("{}:{}:{}", component.shown, at.line, at.column)),
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

/// What is kept of how this very file of a layer was made; none when it is of another.
fn results_of_file(
    store: &Store,
    layer: LayerId,
) -> Result<Option<serde_json::Value>, EngineError> {
    let Some(record) = results_record(store, &layer.to_string())? else {
        return Ok(None);
    };
    // A damaged layer is found, told and made again where it is read.
    let info = store.layer_info(layer).ok().flatten();
    Ok(record_is_of(&record, info.map(|info| info.digest)).then_some(record))
}

/// Whether a record says that it is of the file of a layer with this digest.
fn record_is_of(record: &serde_json::Value, file: Option<Digest>) -> bool {
    let of = Digest::deserialize(&record["layer"]).ok();
    of.is_some() && of == file
}

/// Whether it is known how the file of a layer with this digest was made.
pub(crate) fn knows_results(
    store: &Store,
    layer: LayerId,
    file: Digest,
) -> Result<bool, EngineError> {
    let record = results_record(store, &layer.to_string())?;
    Ok(record.is_some_and(|record| record_is_of(&record, Some(file))))
}

/// The same of a record that came with it.
pub(crate) fn is_result_of(record: &serde_json::Value, file: Digest) -> bool {
    record["version"] == BUILD_RESULTS_VERSION && record_is_of(record, Some(file))
}

/// The files from elsewhere that a step brought into a layer; none when nothing is known of this very file.
pub(crate) fn layer_downloads(
    store: &Store,
    layer: LayerId,
) -> Result<BTreeSet<Download>, EngineError> {
    let record = results_of_file(store, layer)?;
    let downloads = record.map(|record| serde_json::from_value(record["downloads"].clone()));
    Ok(downloads.and_then(Result::ok).unwrap_or_default())
}

/// The markers that the steps of a layer left in `/tmp`, by name; none when nothing is known of this very file.
pub(crate) fn layer_markers(store: &Store, layer: LayerId) -> Result<Vec<String>, EngineError> {
    let record = results_of_file(store, layer)?;
    let markers = record.map(|record| serde_json::from_value(record["cleanupMarkers"].clone()));
    Ok(markers.and_then(Result::ok).unwrap_or_default())
}

/// The packages that a layer for a boot was made of; `None` when nothing is known of this very file.
pub(crate) fn layer_boot_packages(
    store: &Store,
    layer: LayerId,
) -> Result<Option<BootLock>, EngineError> {
    let record = results_of_file(store, layer)?;
    Ok(record.and_then(|mut record| serde_json::from_value(record["bootPackages"].take()).ok()))
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

/// Keeps what the build phase of a component gave out that made a layer. After the layer: what ends in between leaves a layer
/// of which nothing is known.
pub(super) fn keep_build_results(
    store: &Store,
    (layer, info): (LayerId, &LayerInfo),
    ran: &RanPhase,
) -> Result<(), EngineError> {
    let RanPhase {
        result, downloads, ..
    } = ran;
    let phases: Vec<&PhaseResult> = result
        .documents
        .iter()
        .flat_map(|document| &document.phases)
        .filter(|phase| phase.selected)
        .collect();
    let mut record = serde_json::json!({
        "version": BUILD_RESULTS_VERSION,
        "phases": phases,
        "layer": info.digest,
    });
    if !downloads.is_empty() {
        record["downloads"] = serde_json::json!(downloads);
    }
    if !result.markers.is_empty() {
        record["cleanupMarkers"] = serde_json::json!(result.markers);
    }
    store
        .put_record(BUILD_RESULTS, &layer.to_string(), &record)
        .or_fail(ErrorKind::Failed, store_context)
}
