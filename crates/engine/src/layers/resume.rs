//! Where the steps of a component go on that failed: what the ones before had done is kept while they run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use amiforge_exec::{
    ChildEvent, Download, Outside, Pause, Pauses, RootSpec, RunResult, RunSpec, Sandbox, Way,
};
use amiforge_plan::LayerPlan;
use amiforge_recipe::Node;
use amiforge_store::Store;
use amiforge_types::{ByteSize, Digest, Hasher, LayerId};
use serde::{Deserialize, Serialize};

use super::failed::ROOM;
use super::left_files;
use super::phase::{BUILD, Phase};
use super::sandbox::sandbox_error;
use super::{Made, Work, store_context};
use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::load::LoadedComponent;
use crate::plans::record_key;
use crate::settings::Engine;

/// Kind of the records, by recipe and component.
const PAUSED: &str = "paused-steps";
const VERSION: u32 = 1;

/// How long steps run before what they did is kept. In a changed root, which is made anew for that, it takes longer.
const FIRST: Duration = Duration::from_secs(2);
const FIRST_IN_CHROOT: Duration = Duration::from_secs(30);
/// The same as a multiple of the time that keeping took.
const TIMES: u32 = 10;

/// What is kept, beside a file for the root and one for `/tmp`; `record version 1`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Paused {
    version: u32,
    /// Digest of all inputs of the layer but its steps.
    base: Digest,
    /// Digest of the files of the layers below: one that was made again may be another.
    below: Digest,
    /// The layer that the steps were to become.
    layer: LayerId,
    /// The steps that are done, with the digests of what the document says of them.
    steps: Vec<(String, Digest)>,
    pause: Pause,
    /// What they brought in from elsewhere.
    downloads: BTreeSet<Download>,
}

/// The steps of a component that a build runs.
pub(super) struct Resume<'a> {
    work: &'a Work<'a>,
    planned: &'a LayerPlan,
    component: &'a LoadedComponent,
    sandbox: &'a Sandbox,
    below: &'a Made,
    root: &'a RootSpec,
    run: &'a RunSpec,
    /// Bytes that are free when the steps begin.
    free: u64,
    /// Of the record and, with another ending, of the files.
    key: String,
}

impl<'a> Resume<'a> {
    /// `None` where nothing is kept: of steps that see secrets, which are in memory alone, of those that a lock pins, of layers that are
    /// made again on purpose, and in a machine of its own.
    pub(super) fn of(
        work: &'a Work<'a>,
        of: Phase<'a>,
        sandbox: &'a Sandbox,
        (below, root): (&'a Made, &'a RootSpec),
    ) -> Option<Self> {
        let component = &work.recipe.components[of.index];
        let secret = !work.recipe.step_secrets.is_empty()
            || !work.recipe.secrets.is_empty()
            || component.external.values().any(|value| value.secret);
        let never = of.phase != BUILD || secret || work.rebuild || work.pins.is_some();
        if never || sandbox.way() == Way::MicroVm {
            return None;
        }
        let layer = work.plan.components[of.index].layer?;
        let planned = work
            .plan
            .layers
            .iter()
            .find(|planned| planned.id == layer)?;
        let key = record_key(&format!("{}\n{}", work.plan.recipe.name, component.name));
        Some(Self {
            work,
            planned,
            component,
            sandbox,
            below,
            root,
            run: of.run,
            free: free_bytes(work.store),
            key,
        })
    }

    fn files(&self, store: &Store) -> Result<[PathBuf; 2], EngineError> {
        let path = |key: &str| {
            store
                .failed_path(key)
                .or_fail(ErrorKind::Failed, store_context)
        };
        Ok([path(&self.key)?, path(&self.tmp_key())?])
    }

    fn tmp_key(&self) -> String {
        record_key(&format!("{}\ntmp", self.key))
    }

    /// All that the steps depend on besides themselves.
    fn base(&self) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(b"amiforge-paused-steps-v1");
        hasher.field(
            self.planned
                .parent
                .map(|id| id.to_string())
                .unwrap_or_default()
                .as_bytes(),
        );
        let inputs = self.planned.inputs.iter();
        for (name, value) in
            inputs.filter(|(name, _)| *name != "steps" && !name.starts_with("step."))
        {
            hasher.field(name.as_bytes());
            hasher.field(value.as_bytes());
        }
        hasher.finish()
    }

    fn below(&self) -> Digest {
        let mut hasher = Hasher::new();
        for layer in &self.below.layers {
            hasher.field(layer.info.digest.hex().as_bytes());
        }
        hasher.finish()
    }

    fn steps(&self) -> Vec<(&str, &Node)> {
        self.component.component.steps_of(BUILD)
    }

    /// What an earlier run left, if this one can go on from there.
    fn last(&self) -> Result<Option<Paused>, EngineError> {
        let record = self.work.store.get_record(PAUSED, &self.key);
        let record = record.or_fail(ErrorKind::Failed, store_context)?;
        let paused: Option<Paused> = record.and_then(|record| serde_json::from_value(record).ok());
        Ok(paused.filter(|paused| paused.version == VERSION && self.goes_on(paused)))
    }

    /// Whether the steps that are done are the first of those that are to be done.
    fn goes_on(&self, paused: &Paused) -> bool {
        let steps = self.steps();
        let done = paused.steps.iter();
        let same = done.len() <= steps.len()
            && done
                .zip(&steps)
                .all(|((name, digest), (now, node))| name == now && *digest == node.digest());
        // The id of the run comes from the layer's.
        let sees_id = || {
            let mut values = self.planned.inputs.values();
            let mut done = steps.iter().take(paused.steps.len());
            values.any(|value| tells_id(value.as_bytes()))
                || done.any(|(_, node)| tells_id(&node.canonical()))
        };
        let fits = paused.base == self.base() && paused.below == self.below();
        same && fits && (paused.layer == self.planned.id || !sees_id())
    }

    /// The step that comes after those that are done.
    fn next(&self, paused: &Paused) -> Option<&str> {
        let steps = self.steps();
        steps.get(paused.steps.len()).map(|(name, _)| *name)
    }

    /// Keeps the root as it is, and where the run is in it.
    fn keep(
        &self,
        engine: &Engine,
        pause: &Pause,
        downloads: &BTreeSet<Download>,
    ) -> Result<(), EngineError> {
        let store = self.work.store;
        let done: BTreeSet<&str> = pause.steps(BUILD).into_iter().collect();
        let steps = self
            .steps()
            .into_iter()
            .take_while(|(name, _)| done.contains(name));
        let steps: Vec<_> = steps
            .map(|(name, node)| (name.to_owned(), node.digest()))
            .collect();
        if steps.len() != done.len() {
            return Err(EngineError::new(
                ErrorKind::Internal,
                "steps are done in another order",
            ));
        }
        // What the steps changed is there twice from now on; they may need as much again.
        let free = free_bytes(store);
        let used = self.free.saturating_sub(free);
        if free < ROOM.saturating_add(used.saturating_mul(2)) {
            let message = format!("only {} are free on the disk of the store", ByteSize(free));
            return Err(EngineError::new(ErrorKind::Failed, message));
        }
        let running = engine.interruption.job();
        let of = |dir: &Path, key: &str| {
            let (store, sandbox) = (self.work.store, self.sandbox);
            left_files::as_it_is(store, sandbox, (dir, key), self.run.clock, running.cancel())
        };
        let upper = of(&self.root.upper, &self.key)?;
        let tmp = of(&self.root.work.join("tmp"), &self.tmp_key())?;
        let paused = Paused {
            version: VERSION,
            base: self.base(),
            below: self.below(),
            layer: self.planned.id,
            steps,
            pause: pause.clone(),
            downloads: downloads.clone(),
        };
        left_files::replace(store, (PAUSED, &self.key), &paused, [upper, tmp])
    }

    /// Makes the root what it was; where to go on in it. `None` when what is kept is gone.
    fn restore(&self, engine: &Engine) -> Result<Option<(Paused, Pause)>, EngineError> {
        let store = self.work.store;
        let _lock = store
            .lock_failed(&self.key)
            .or_fail(ErrorKind::Failed, store_context)?;
        let Some(paused) = self.last()? else {
            return Ok(None);
        };
        let [upper, tmp] = self.files(store)?;
        if !(upper.is_file() && tmp.is_file()) {
            return Ok(None);
        }
        let running = engine.interruption.job();
        let restored =
            self.sandbox
                .restore(self.root, (&upper, &tmp), &paused.pause, running.cancel());
        let pause = restored.map_err(sandbox_error)?;
        Ok(Some((paused, pause)))
    }

    /// Runs the steps, from where they can go on. `done` becomes how many of them are not run again.
    pub(super) fn run(
        &self,
        engine: &Engine,
        outside: &Outside,
        done: &Cell<usize>,
        cancel: &AtomicBool,
        on_event: &mut dyn FnMut(ChildEvent),
    ) -> Result<RunResult, EngineError> {
        let last = match self.restore(engine) {
            Ok(last) => last,
            Err(error) if engine.interruption.is_requested() => return Err(error),
            Err(error) => {
                let why = chain(&error);
                engine.warn(format!(
                    "{} starts at its first step: what an earlier run kept cannot be used: {why}",
                    self.component.name
                ));
                // What is damaged goes when the steps are kept again.
                let dirs = [self.root.upper.clone(), self.root.work.clone()];
                self.sandbox.remove_trees(&dirs).map_err(sandbox_error)?;
                None
            }
        };
        let mut from = None;
        let downloads = RefCell::new(BTreeSet::new());
        if let Some((paused, pause)) = last {
            done.set(paused.steps.len());
            self.tell(engine, &paused, on_event);
            downloads.replace(paused.downloads);
            from = Some(pause);
        }
        let first = match self.sandbox.way() {
            Way::Chroot => FIRST_IN_CHROOT,
            Way::MappedIds | Way::SingleId | Way::MicroVm => FIRST,
        };
        let mut keep = |pause: &Pause| {
            let start = Instant::now();
            match self.keep(engine, pause, &downloads.borrow()) {
                Ok(()) => Some(first.max(start.elapsed() * TIMES)),
                Err(_) if engine.interruption.is_requested() => None,
                Err(error) => {
                    let why = chain(&error);
                    engine.warn(format!(
                        "if a later step of {} fails, the next build does not go on here: {why}",
                        self.component.name
                    ));
                    None
                }
            }
        };
        let pauses = Pauses {
            from,
            after: Some(first),
            keep: &mut keep,
        };
        self.sandbox
            .run_component_pausing(self.root, self.run, outside, pauses, cancel, &mut |event| {
                if let ChildEvent::Fetched { download } = &event {
                    downloads.borrow_mut().insert(download.clone());
                }
                on_event(event);
            })
            .map_err(sandbox_error)
    }

    /// Tells people and logs what is not run again.
    fn tell(&self, engine: &Engine, paused: &Paused, on_event: &mut dyn FnMut(ChildEvent)) {
        let names: Vec<&str> = paused.steps.iter().map(|(name, _)| name.as_str()).collect();
        let done = names.join(", ");
        let text = match self.next(paused) {
            Some(next) => format!(
                "{} goes on at step {next}; an earlier run did {done}",
                self.component.name
            ),
            None => format!(
                "{} has no more steps; an earlier run did {done}",
                self.component.name
            ),
        };
        engine.stage("resume", text.clone());
        let document = self.component.shown.clone();
        on_event(ChildEvent::DocumentStarted { document });
        let phase = BUILD.to_owned();
        on_event(ChildEvent::PhaseStarted { phase });
        on_event(ChildEvent::Note { text });
        for download in paused.downloads.clone() {
            on_event(ChildEvent::Fetched { download });
        }
    }

    /// What is left to do once the run has ended.
    pub(super) fn end<R>(&self, ended: Result<R, EngineError>) -> Result<R, EngineError> {
        match ended {
            Ok(ran) => self.forget().map(|()| ran),
            // What it says itself is nearer.
            Err(error) if error.hint().is_some() => Err(error),
            Err(error) => {
                let last = self.last().ok().flatten();
                let next = last.as_ref().and_then(|paused| self.next(paused));
                Err(match next {
                    Some(next) => error.with_hint(format!(
                        "the next build goes on at step {next}: what the ones before it did is kept; --rebuild runs them again"
                    )),
                    None => error,
                })
            }
        }
    }

    /// Forgets what is kept.
    fn forget(&self) -> Result<(), EngineError> {
        let keys = [self.key.as_str(), &self.tmp_key()];
        left_files::forget(self.work.store, (PAUSED, &self.key), &keys)
    }
}

/// Of the disk of the store; where nobody knows, as many as there can be.
fn free_bytes(store: &Store) -> u64 {
    amiforge_store::free_bytes(store.path()).unwrap_or(u64::MAX)
}

/// Whether a step that says this may see the id of its run, or one that is drawn from it; what documents that it runs say is not
/// known.
fn tells_id(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    ["executionid", "uuid", "executedocument"]
        .iter()
        .any(|word| text.contains(word))
}
