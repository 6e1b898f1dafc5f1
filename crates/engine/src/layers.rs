//! Makes the layers of a plan, or takes them from the store.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use amiforge_exec::{
    ChildEvent, DocumentSpec, PhaseResult, RootSpec, RunResult, RunSpec, Sandbox, ScriptSpec, Shim,
    ToeLog,
};
use amiforge_plan::{LayerKind, LayerPlan, Plan};
use amiforge_source::ResolvedDebian;
use amiforge_store::{Store, StoreError, StoredLayer};
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{BlobTable, LayerId, Timestamp};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::load::LoadedRecipe;
use crate::parent;
use crate::settings::Engine;

/// Version of what unpacks packages, runs steps and harvests their results; an input of every layer's id. Raise it
/// when the same inputs would give other bytes.
pub(crate) const EXECUTOR_VERSION: &str = "2";

/// Kind of the records that say which layers' validate phases have passed.
const VALIDATED: &str = "validated";
const VALIDATED_VERSION: u32 = 1;

/// The phase that makes a component's layer.
const BUILD: &str = "build";

/// Kind of the records that hold what the build phase of a layer's component gave out, for later
/// phases that refer to it when the layer comes from the store.
const BUILD_RESULTS: &str = "build-results";
const BUILD_RESULTS_VERSION: u32 = 1;

/// Files of a layer that differ from run to run and that the guest makes again: they stay out of
/// layers, so that the same inputs give the same bytes.
const EPHEMERAL: &[&str] = &[
    "var/cache/apt/archives/partial",
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists/lock",
    "var/lib/apt/lists/partial",
    "var/lib/apt/periodic",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/log/alternatives.log",
    "var/log/apt/eipp.log.xz",
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
];

/// Programs that stand aside while steps run: bound over the image's own, they leave no trace. While
/// the parent is configured, that includes the one that would make an initrd for every package.
fn shims(kind: &LayerKind) -> Vec<Shim> {
    parent::shims(matches!(kind, LayerKind::ParentConfigured))
        .into_iter()
        .map(|(path, text)| Shim {
            path,
            text,
            mode: 0o755,
        })
        .collect()
}

/// What making layers needs to know.
pub(crate) struct Work<'a> {
    pub(crate) store: &'a Store,
    pub(crate) recipe: &'a LoadedRecipe,
    pub(crate) resolved: &'a ResolvedDebian,
    pub(crate) plan: &'a Plan,
    pub(crate) rebuild: bool,
    pub(crate) offline: bool,
    pub(crate) jobs: usize,
    /// `SOURCE_DATE_EPOCH`; without it the clock is the newest time in the parent's packages.
    pub(crate) epoch: Option<i64>,
    /// Folder for the `TOE_…` log folders.
    pub(crate) logs: PathBuf,
}

/// The layers of an image, ready to be put over one another.
pub(crate) struct Made {
    pub(crate) layers: Vec<StoredLayer>,
    pub(crate) blobs: BlobTable,
    /// The build clock.
    pub(crate) clock: Timestamp,
    /// Layers that had to be made.
    pub(crate) built: usize,
}

impl Engine {
    /// Makes what is missing, lowest first.
    pub(crate) fn make_layers(&self, work: &Work<'_>) -> Result<Made, EngineError> {
        let mut made = Made {
            layers: Vec::new(),
            blobs: BlobTable::new(),
            clock: Timestamp::default(),
            built: 0,
        };
        let mut sandbox = None;
        for (at, planned) in work.plan.layers.iter().enumerate() {
            let found = if work.rebuild {
                None
            } else {
                self.load_layer(work.store, planned.id, &mut made.blobs)?
            };
            let layer = match found {
                Some(layer) => {
                    self.emit(Event::LayerCached {
                        id: planned.id.to_string(),
                        title: planned.title.clone(),
                    });
                    layer
                }
                None => {
                    let _lock = work
                        .store
                        .lock_layer(planned.id)
                        .or_fail(ErrorKind::Failed, store_context)?;
                    // Another process may have made it while we waited.
                    let found = if work.rebuild {
                        None
                    } else {
                        self.load_layer(work.store, planned.id, &mut made.blobs)?
                    };
                    match found {
                        Some(layer) => layer,
                        None => {
                            self.make_layer(work, at, &made, &mut sandbox)?;
                            made.built += 1;
                            self.load_layer(work.store, planned.id, &mut made.blobs)?
                                .ok_or_else(|| {
                                    EngineError::new(
                                        ErrorKind::Internal,
                                        format!("the layer {} is gone", planned.title),
                                    )
                                })?
                        }
                    }
                }
            };
            if at == 0 {
                made.clock = match work.epoch {
                    Some(secs) => Timestamp::from_secs(secs),
                    None => newest(&layer),
                };
            }
            made.layers.push(layer);
            for index in validated_on(work.plan, at) {
                self.validate_component(work, at, index, made.clock, &mut sandbox)?;
            }
        }
        Ok(made)
    }

    /// A layer of the store. A damaged one is taken out, so that it is made again.
    fn load_layer(
        &self,
        store: &Store,
        id: LayerId,
        blobs: &mut BlobTable,
    ) -> Result<Option<StoredLayer>, EngineError> {
        match store.layer(id, blobs) {
            Err(StoreError::Layer { path, source }) => {
                self.warn(format!("{}: {source}; it is made again", path.display()));
                store
                    .remove_layer(id)
                    .or_fail(ErrorKind::Failed, store_context)?;
                Ok(None)
            }
            other => other.or_fail(ErrorKind::Failed, || {
                format!("the layer {id} of the store cannot be used")
            }),
        }
    }

    fn make_layer(
        &self,
        work: &Work<'_>,
        at: usize,
        made: &Made,
        sandbox: &mut Option<Sandbox>,
    ) -> Result<(), EngineError> {
        let planned = &work.plan.layers[at];
        self.emit(Event::LayerStarted {
            id: planned.id.to_string(),
            title: planned.title.clone(),
            reason: self.reason(work, planned),
        });
        let start = Instant::now();
        let info = match planned.kind {
            LayerKind::ParentUnpacked => self.unpack_parent(work, planned.id)?,
            LayerKind::ParentConfigured => {
                let sandbox = self.sandbox(sandbox)?;
                let script = parent::configure_script(work.resolved, made.clock);
                self.in_overlay(work, sandbox, at, planned, made.clock, |root, cancel| {
                    let spec = ScriptSpec {
                        interpreter: vec!["/bin/bash".to_owned()],
                        text: script,
                        env: BTreeMap::from([(
                            "SOURCE_DATE_EPOCH".to_owned(),
                            made.clock.secs.to_string(),
                        )]),
                        timeout_seconds: Some(3600),
                    };
                    let mut root = root.clone();
                    root.network = false;
                    // Of no use without a network, and the scripts of resolvers keep copies of it.
                    root.resolv_conf = None;
                    let mut on_event =
                        |event: ChildEvent| self.child_event(&planned.title, event, start);
                    let result = sandbox
                        .run_script(&root, &spec, cancel, &mut on_event)
                        .map_err(sandbox_error)?;
                    if result.is_ok() {
                        return Ok(result.start);
                    }
                    let how = match (result.exit_code, result.timed_out) {
                        (_, true) => "did not end in time".to_owned(),
                        (Some(code), _) => format!("failed with exit code {code}"),
                        (None, _) => format!("was killed by signal {}", result.signal.unwrap_or(0)),
                    };
                    Err(with_tail(
                        format!(
                            "configuring the packages of {} {how}",
                            work.plan.parent_image
                        ),
                        &result.tail,
                    ))
                })?
            }
            LayerKind::Component { index } => {
                let sandbox = self.sandbox(sandbox)?;
                self.in_overlay(work, sandbox, at, planned, made.clock, |root, cancel| {
                    let result =
                        self.run_phase(work, sandbox, index, BUILD, root, made.clock, cancel)?;
                    Ok(result.start)
                })?
            }
        };
        self.emit(Event::LayerFinished {
            id: planned.id.to_string(),
            title: planned.title.clone(),
            seconds: start.elapsed().as_secs_f64(),
            bytes: info.bytes,
        });
        Ok(())
    }

    /// Why a layer is not cached: the input that differs from the last build of this recipe.
    fn reason(&self, work: &Work<'_>, planned: &LayerPlan) -> String {
        if work.rebuild {
            return "--rebuild".to_owned();
        }
        match self.last_plan(work.store, &work.plan.recipe.name) {
            None => "never built".to_owned(),
            Some(old) => {
                let why = crate::plans::why_lines(&old, work.plan, planned.id);
                why.into_iter()
                    .next()
                    .unwrap_or_else(|| "not in the store".to_owned())
            }
        }
    }

    fn unpack_parent(&self, work: &Work<'_>, id: LayerId) -> Result<LayerInfo, EngineError> {
        let debs = self.fetch_parent(work.resolved, work.offline, work.jobs)?;
        self.stage(
            "unpack",
            format!("{} packages", work.resolved.packages.len()),
        );
        parent::unpack(self, work, &debs, id)
    }

    /// Runs `job` on an overlay over the layers below, and makes a layer of what it changed.
    fn in_overlay(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        at: usize,
        planned: &LayerPlan,
        clock: Timestamp,
        job: impl FnOnce(&RootSpec, &AtomicBool) -> Result<Timestamp, EngineError>,
    ) -> Result<LayerInfo, EngineError> {
        let cancel = AtomicBool::new(false);
        let lowers = self.lowers(work, sandbox, at)?;
        // Its upper is not kept as the layer's root: what steps see must follow from the layer alone,
        // and the upper has wall-clock times and files that layers leave out.
        let dir = work
            .store
            .temp_dir("layer")
            .or_fail(ErrorKind::Failed, store_context)?;
        let scratch = Scratch { sandbox, dir };
        let root = root_spec(
            lowers,
            scratch.dir.join("fs"),
            scratch.dir.join("work"),
            shims(&planned.kind),
        );
        let since = job(&root, &cancel)?;
        let writer = work
            .store
            .layer_writer(planned.id)
            .or_fail(ErrorKind::Failed, store_context)?;
        sandbox
            .harvest(
                &root.upper,
                writer.path(),
                clock,
                Some(since),
                EPHEMERAL,
                &cancel,
            )
            .map_err(sandbox_error)?;
        let info = writer.commit().or_fail(ErrorKind::Failed, || {
            format!("cannot keep the layer {}", planned.title)
        })?;
        // A root of this name was made from another file.
        if work.store.root(planned.id).is_some() {
            sandbox
                .remove_trees(&[work.store.root_path(planned.id)])
                .map_err(sandbox_error)?;
        }
        Ok(info)
    }

    /// The directories of the layers below number `at`, topmost first; made where they are missing.
    fn lowers(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        at: usize,
    ) -> Result<Vec<PathBuf>, EngineError> {
        let cancel = AtomicBool::new(false);
        let mut lowers = Vec::new();
        for planned in &work.plan.layers[..at] {
            let root = match work
                .store
                .root(planned.id)
                .filter(|root| is_usable(root, sandbox.ids().uid_base))
            {
                Some(root) => root.join("fs"),
                None => {
                    self.stage("layer", format!("materialise {}", planned.title));
                    let stale = work.store.root_path(planned.id);
                    if stale.exists() {
                        sandbox.remove_trees(&[stale]).map_err(sandbox_error)?;
                    }
                    let place = work
                        .store
                        .root_writer(planned.id)
                        .or_fail(ErrorKind::Failed, store_context)?;
                    let layer = work.store.layer_path(planned.id);
                    sandbox
                        .materialise(
                            &layer,
                            &place.path().join("new"),
                            &place.path().join("fs"),
                            &cancel,
                        )
                        .map_err(sandbox_error)?;
                    mark(place.path())?;
                    place
                        .commit()
                        .or_fail(ErrorKind::Failed, store_context)?
                        .join("fs")
                }
            };
            lowers.push(root);
        }
        lowers.reverse();
        Ok(lowers)
    }

    /// The validate phase of a component on the layers up to number `at`, with an upper that is
    /// thrown away. What passed once is not run again.
    fn validate_component(
        &self,
        work: &Work<'_>,
        at: usize,
        index: usize,
        clock: Timestamp,
        sandbox: &mut Option<Sandbox>,
    ) -> Result<(), EngineError> {
        if work.recipe.components[index]
            .component
            .phase("validate")
            .is_none()
        {
            return Ok(());
        }
        let planned = &work.plan.layers[at];
        let key = validated_key(work.plan, planned, index);
        let known = work
            .store
            .get_record(VALIDATED, &key)
            .or_fail(ErrorKind::Failed, store_context)?;
        if known.is_some_and(|record| record["version"] == VALIDATED_VERSION) && !work.rebuild {
            return Ok(());
        }
        let sandbox = self.sandbox(sandbox)?;
        let lowers = self.lowers(work, sandbox, at + 1)?;
        let dir = work
            .store
            .temp_dir("validate")
            .or_fail(ErrorKind::Failed, store_context)?;
        let scratch = Scratch { sandbox, dir };
        let root = root_spec(
            lowers,
            scratch.dir.join("fs"),
            scratch.dir.join("work"),
            shims(&planned.kind),
        );
        self.run_phase(
            work,
            sandbox,
            index,
            "validate",
            &root,
            clock,
            &AtomicBool::new(false),
        )?;
        let record = serde_json::json!({ "version": VALIDATED_VERSION });
        work.store
            .put_record(VALIDATED, &key, &record)
            .or_fail(ErrorKind::Failed, store_context)
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call site per phase; a struct would name the same seven things"
    )]
    fn run_phase(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        index: usize,
        phase: &str,
        root: &RootSpec,
        clock: Timestamp,
        cancel: &AtomicBool,
    ) -> Result<RunResult, EngineError> {
        let component = &work.recipe.components[index];
        let key = work.plan.components[index].layer.map(|id| id.to_string());
        let earlier = match &key {
            Some(key) if phase != BUILD => build_results(work.store, key)?,
            _ => Vec::new(),
        };
        let run = RunSpec {
            execution_id: format!("{}-{}-{phase}", &work.plan.plan_id.hex()[..12], index),
            documents: vec![DocumentSpec {
                name: component.shown.clone(),
                text: component.text.clone(),
                parameters: component.parameters.clone(),
                earlier,
            }],
            phases: vec![phase.to_owned()],
            env: BTreeMap::new(),
            clock,
        };
        let context = || format!("cannot write the logs of {}", component.name);
        let mut log = ToeLog::create(&work.logs, &run).or_fail(ErrorKind::Failed, context)?;
        let mut started = Instant::now();
        let mut on_event = |event: ChildEvent| {
            if matches!(event, ChildEvent::StepStarted { .. }) {
                started = Instant::now();
            }
            log.event(&event);
            self.child_event(&component.name, event, started);
        };
        let result = sandbox
            .run_component(root, &run, cancel, &mut on_event)
            .map_err(sandbox_error)?;
        log.finish(&result).or_fail(ErrorKind::Failed, context)?;
        match &result.failure {
            Some(failure) if !result.status.is_ok() => {
                let mut text = failure.to_string();
                if !failure.command.is_empty() {
                    let command = failure.command.trim_end().replace('\n', "\n           ");
                    text.push_str(&format!("\n  command: {command}"));
                }
                Err(with_tail(text, &failure.tail))
            }
            _ if result.status.is_ok() => {
                if let (Some(key), true) = (&key, phase == BUILD) {
                    keep_build_results(work.store, key, &result)?;
                }
                Ok(result)
            }
            _ => Err(EngineError::new(
                ErrorKind::Failed,
                format!("{}: the {phase} phase failed", component.name),
            )),
        }
    }

    fn sandbox<'s>(&self, slot: &'s mut Option<Sandbox>) -> Result<&'s Sandbox, EngineError> {
        if slot.is_none() {
            *slot = Some(Sandbox::new(self.settings.helper.clone()).map_err(sandbox_error)?);
        }
        slot.as_ref()
            .ok_or_else(|| EngineError::new(ErrorKind::Internal, "no sandbox"))
    }

    /// Removes what dead processes left in the store under mapped ids.
    pub(crate) fn clear_leftovers(&self, store: &Store) {
        if store.leftovers().is_empty() {
            return;
        }
        let cleared = Sandbox::new(self.settings.helper.clone())
            .and_then(|sandbox| sandbox.remove_trees(store.leftovers()));
        if let Err(error) = cleared {
            self.warn(format!(
                "{} unfinished folders of earlier runs stay in the store: {error}",
                store.leftovers().len()
            ));
        }
    }
}

/// The components whose validate phase runs on the layers up to number `at`: the one that made this
/// layer, and those after it that make none of their own.
fn validated_on(plan: &Plan, at: usize) -> Vec<usize> {
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

/// What a validate phase that passed is known by: the layer covers the component that made it; one
/// without a layer adds its document and parameters.
fn validated_key(plan: &Plan, layer: &LayerPlan, index: usize) -> String {
    let component = &plan.components[index];
    if component.layer == Some(layer.id) {
        return layer.id.to_string();
    }
    let mut hasher = amiforge_types::Hasher::new();
    hasher.field(b"amiforge-validated-v1");
    hasher.field(layer.id.to_string().as_bytes());
    hasher.field(component.digest.as_bytes());
    for (name, value) in &component.parameters {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    hasher.finish().hex()
}

/// A directory with files of mapped ids, removed in the sandbox when it is dropped.
struct Scratch<'a> {
    sandbox: &'a Sandbox,
    dir: PathBuf,
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        // What cannot be removed is a leftover of the store and goes when it is opened next.
        let _ = self
            .sandbox
            .remove_trees(&[self.dir.join("fs"), self.dir.join("work")]);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

fn root_spec(lowers: Vec<PathBuf>, upper: PathBuf, work: PathBuf, shims: Vec<Shim>) -> RootSpec {
    RootSpec {
        lowers,
        upper,
        work,
        shims,
        resolv_conf: std::fs::read_to_string("/etc/resolv.conf").ok(),
        network: true,
    }
}

/// The results of a layer's build phase; none when the record is missing or of another version.
fn build_results(store: &Store, key: &str) -> Result<Vec<PhaseResult>, EngineError> {
    let record = store
        .get_record(BUILD_RESULTS, key)
        .or_fail(ErrorKind::Failed, store_context)?
        .filter(|record| record["version"] == BUILD_RESULTS_VERSION);
    let phases = record.map(|record| serde_json::from_value(record["phases"].clone()));
    Ok(phases.and_then(Result::ok).unwrap_or_default())
}

fn keep_build_results(store: &Store, key: &str, result: &RunResult) -> Result<(), EngineError> {
    let phases: Vec<&PhaseResult> = result
        .documents
        .iter()
        .flat_map(|document| &document.phases)
        .filter(|phase| phase.selected)
        .collect();
    let record = serde_json::json!({ "version": BUILD_RESULTS_VERSION, "phases": phases });
    store
        .put_record(BUILD_RESULTS, key, &record)
        .or_fail(ErrorKind::Failed, store_context)
}

fn store_context() -> String {
    "the store cannot be used".to_owned()
}

/// Name of the file in a root's folder that says during which boot of the host it was made.
const BOOT_ID: &str = "boot-id";

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Notes this boot in the folder of a root, whose files are not synced.
fn mark(dir: &Path) -> Result<(), EngineError> {
    fs_err::write(dir.join(BOOT_ID), boot_id()).or_fail(ErrorKind::Failed, store_context)
}

/// True when a root was made since the host started and with the ids that are in use now.
fn is_usable(root: &Path, uid: u32) -> bool {
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::read_to_string(root.join(BOOT_ID)).unwrap_or_default();
    made == boot_id()
        && std::fs::symlink_metadata(root.join("fs")).is_ok_and(|m| m.is_dir() && m.uid() == uid)
}

/// The newest time of a layer's files: a function of the packages alone.
fn newest(layer: &StoredLayer) -> Timestamp {
    let times = layer.diff.entries.values().filter_map(|entry| match entry {
        amiforge_tree::LayerEntry::Put(inode) | amiforge_tree::LayerEntry::PutOpaque(inode) => {
            Some(inode.stat.mtime.secs)
        }
        _ => None,
    });
    Timestamp::from_secs(times.max().unwrap_or(0).max(0))
}

fn with_tail(mut text: String, tail: &[String]) -> EngineError {
    for line in tail {
        text.push_str("\n  | ");
        text.push_str(line);
    }
    EngineError::new(ErrorKind::Failed, text)
}

pub(crate) fn sandbox_error(error: amiforge_exec::SandboxError) -> EngineError {
    let kind = if error.is_environment() {
        ErrorKind::Environment
    } else {
        ErrorKind::Failed
    };
    let hint = error.hint();
    let wrapped = EngineError::Context {
        context: "the sandbox failed".to_owned(),
        kind,
        hint: None,
        source: Some(Box::new(error)),
    };
    match hint {
        Some(hint) => wrapped.with_hint(hint),
        None => wrapped,
    }
}

#[cfg(test)]
mod tests;
