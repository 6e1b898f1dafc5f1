//! Makes the layers of a plan, or takes them from the store.

mod failed;
mod joined;
mod left_files;
mod on_tree;
mod overlay;
mod phase;
mod ran;
mod resume;
mod roots;
mod sandbox;
mod tested;
#[cfg(test)]
mod tests;
mod touched;
mod validated;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Instant;

use amiforge_exec::{ChildEvent, RootSpec, Sandbox, ScriptSpec, Way};
use amiforge_plan::{LayerKind, LayerPlan, Plan};
use amiforge_store::{LayerLock, Store, StoreError, StoredLayer};
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{BlobTable, LayerId, Timestamp};

use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::event::Event;
use crate::load::LoadedRecipe;
use crate::lock::LockPins;
use crate::look::threads;
use crate::parent::{self, Parent};
use crate::settings::Engine;
use crate::shared::Shared;
use crate::steps::Telling;

pub(crate) use self::failed::FailedAt;
use self::failed::Left;
pub use self::failed::ShellAccess;
pub(crate) use self::failed::{CHANGES_FILE, FailedState, shell_environment};
pub(crate) use self::on_tree::on_tree;
pub(crate) use self::overlay::{Scratch, component_shims, root_spec};
use self::phase::{BUILD, Phase, keep_build_results, knows_results};
pub(crate) use self::phase::{
    BUILD_RESULTS, is_result_of, keep_boot_packages, layer_boot_packages, layer_downloads,
    layer_markers,
};
pub(crate) use self::ran::{RAN, Ran};
use self::sandbox::with_tail;
pub(crate) use self::sandbox::{describe, sandbox_error};
pub(crate) use self::touched::{STEPS, Touched};
pub(crate) use self::validated::{VALIDATED, key_of, validated_on};

/// Version of what unpacks packages, runs steps and harvests their results; an input of every layer's id. Raise it
/// when the same inputs would give other bytes.
pub(crate) const EXECUTOR_VERSION: &str = "10";

/// What making layers needs to know.
#[derive(Clone)]
pub(crate) struct Work<'a> {
    pub(crate) store: &'a Store,
    pub(crate) recipe: &'a LoadedRecipe,
    pub(crate) parent: &'a Parent,
    pub(crate) plan: &'a Plan,
    pub(crate) rebuild: bool,
    pub(crate) offline: bool,
    pub(crate) jobs: usize,
    /// `SOURCE_DATE_EPOCH`; without it the clock is the parent's, or the newest time in its lowest layer.
    pub(crate) epoch: Option<i64>,
    /// Folder for the `TOE_…` log folders.
    pub(crate) logs: PathBuf,
    /// What the downloads of build phases and the packages for a boot must be.
    pub(crate) pins: Option<&'a LockPins>,
    /// Opens a shell where a phase fails.
    pub(crate) shell: Option<&'a ShellAccess>,
    /// Caches that are asked before a layer is made, and get it after.
    pub(crate) shared: Option<&'a Shared<'a>>,
}

impl<'a> Work<'a> {
    /// Of somebody who looks at a state or asks what there is, and keeps nothing but the layers on the way.
    pub(crate) fn passing(
        engine: &Engine,
        store: &'a Store,
        recipe: &'a LoadedRecipe,
        (parent, plan): (&'a Parent, &'a Plan),
        offline: bool,
    ) -> Result<Self, EngineError> {
        let logs = store.temp_dir("passing-logs");
        Ok(Self {
            store,
            recipe,
            parent,
            plan,
            rebuild: false,
            offline,
            jobs: threads(),
            epoch: engine.settings.source_date_epoch,
            logs: logs.or_fail(ErrorKind::Failed, store_context)?,
            pins: None,
            shell: None,
            shared: None,
        })
    }

    /// The same with shared caches.
    pub(crate) fn with<'w>(&'w self, shared: Option<&'w Shared<'w>>) -> Work<'w> {
        Work {
            shared,
            ..self.clone()
        }
    }
}

/// The layers of an image, ready to be put over one another.
pub(crate) struct Made {
    pub(crate) layers: Vec<StoredLayer>,
    /// How each of them was made, as far as that is known.
    pub(crate) ran: Vec<Option<Ran>>,
    pub(crate) blobs: BlobTable,
    /// The build clock.
    pub(crate) clock: Timestamp,
    /// Layers that had to be made.
    pub(crate) built: usize,
    /// Layers that came from a shared cache.
    pub(crate) fetched: usize,
    /// Held until nothing more is done with layers that were made again.
    _rebuilding: Option<Arc<LayerLock>>,
}

impl Engine {
    /// Makes what is missing, lowest first, and runs the validate phases.
    pub(crate) fn make_layers(&self, work: &Work<'_>) -> Result<Made, EngineError> {
        if work.rebuild {
            work.parent
                .kept_by_rebuild()
                .into_iter()
                .for_each(|kept| self.warn(kept));
        }
        self.make(work, work.plan.layers.len(), true)
    }

    /// The same of the first `count` layers, without the validate phases.
    pub(crate) fn make_layers_below(
        &self,
        work: &Work<'_>,
        count: usize,
    ) -> Result<Made, EngineError> {
        self.make(work, count, false)
    }

    fn make(&self, work: &Work<'_>, count: usize, validate: bool) -> Result<Made, EngineError> {
        let mut made = Made {
            layers: Vec::new(),
            ran: Vec::new(),
            blobs: BlobTable::new(),
            clock: Timestamp::default(),
            built: 0,
            fetched: 0,
            _rebuilding: self.rebuilding(work, count)?,
        };
        let clock = match work.epoch {
            Some(secs) => Some(Timestamp::from_secs(secs)),
            None => work.parent.clock(),
        };
        made.clock = clock.unwrap_or_default();
        let mut sandbox = None;
        for (at, planned) in work.plan.layers.iter().enumerate().take(count) {
            let asked = work.rebuild && at >= work.parent.continued();
            let rebuild = || asked && !self.is_rebuilt(planned.id);
            let found = if rebuild() {
                None
            } else {
                self.usable_layer(work, at, &mut made.blobs)?
            };
            let mut fresh = false;
            let layer = match found {
                Some(layer) => {
                    self.emit(Event::LayerCached {
                        id: planned.id.to_string(),
                        title: planned.title.clone(),
                    });
                    layer
                }
                None => {
                    let _lock = self.lock_layer(work.store, planned.id, &planned.title)?;
                    // Another process may have made it while we waited.
                    let found = if rebuild() {
                        None
                    } else {
                        self.usable_layer(work, at, &mut made.blobs)?
                    };
                    match found {
                        Some(layer) => {
                            self.emit(Event::LayerCached {
                                id: planned.id.to_string(),
                                title: planned.title.clone(),
                            });
                            layer
                        }
                        None => {
                            let shared = work.shared.filter(|_| !asked);
                            if self.fetch_layer(shared, work.store, planned)
                                && self.fits_lock(work, planned)?
                            {
                                made.fetched += 1;
                            } else {
                                self.make_layer(work, at, &made, &mut sandbox)?;
                                made.built += 1;
                                fresh = true;
                            }
                            if asked {
                                self.rebuilt
                                    .lock()
                                    .unwrap_or_else(PoisonError::into_inner)
                                    .insert(planned.id);
                            }
                            // Written just now: its data needs no second look.
                            work.store
                                .layer(planned.id, &mut made.blobs)
                                .or_fail(ErrorKind::Failed, store_context)?
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
            if at == 0 && clock.is_none() {
                made.clock = newest(&layer);
            }
            if let Some(shared) = work.shared {
                let of = (at, planned, fresh);
                self.offer_clean(shared, work.recipe, of, (&layer, &made.blobs))?;
            }
            made.layers.push(layer);
            made.ran.push(Ran::of(work.store, planned.id));
            let validated = validate.then(|| validated_on(work.plan, at));
            for index in validated.unwrap_or_default() {
                self.validate_component(work, at, index, &made, &mut sandbox)?;
            }
        }
        Ok(made)
    }

    /// Whether a layer that came from elsewhere holds what the lock says; one that does not is taken out.
    fn fits_lock(&self, work: &Work<'_>, planned: &LayerPlan) -> Result<bool, EngineError> {
        let Some(pins) = work.pins else {
            return Ok(true);
        };
        match crate::lock::pinned_layer(work.store, planned, pins) {
            Ok(()) => Ok(true),
            Err(error) if error.exit_code() == 2 => {
                self.warn(format!("{error}; it is made here"));
                work.store
                    .remove_layer(planned.id)
                    .or_fail(ErrorKind::Failed, store_context)?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The right to make the layers of a plan again, where that is asked for: a second one who makes them again meanwhile would
    /// replace them under the first, whose upper layers would then lie on others than they were made on.
    fn rebuilding(
        &self,
        work: &Work<'_>,
        count: usize,
    ) -> Result<Option<Arc<LayerLock>>, EngineError> {
        let mut own = work.plan.layers.iter().take(count);
        let lowest = own.nth(work.parent.continued());
        let Some(lowest) = lowest.filter(|_| work.rebuild) else {
            return Ok(None);
        };
        let mut held = self
            .rebuilding
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = held.get(&lowest.id).and_then(Weak::upgrade) {
            return Ok(Some(lock));
        }
        let take = |wait| {
            let lock = work.store.lock_rebuild(lowest.id, wait);
            lock.or_fail(ErrorKind::Failed, store_context)
        };
        let mut lock = take(false)?;
        if lock.is_none() {
            let title = &lowest.title;
            self.stage(
                "wait",
                format!("for another build that makes {title} and what is over it again"),
            );
        }
        while lock.is_none() {
            lock = take(true)?;
        }
        let lock = lock.map(Arc::new);
        held.extend(lock.iter().map(|lock| (lowest.id, Arc::downgrade(lock))));
        Ok(lock)
    }

    /// Whether this run has made the layer again; once is enough for all of its recipes.
    fn is_rebuilt(&self, id: LayerId) -> bool {
        let rebuilt = self.rebuilt.lock();
        rebuilt
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&id)
    }

    /// The right to make a layer, or its directory; says so when somebody else is at it.
    fn lock_layer(
        &self,
        store: &Store,
        id: LayerId,
        title: &str,
    ) -> Result<LayerLock, EngineError> {
        let free = store.try_lock_layer(id);
        match free.or_fail(ErrorKind::Failed, store_context)? {
            Some(lock) => Ok(lock),
            None => {
                self.stage("wait", format!("for {title}, which another build makes"));
                store
                    .lock_layer(id)
                    .or_fail(ErrorKind::Failed, store_context)
            }
        }
    }

    /// The layer `at` of the store, if the lock allows it. One of which it is not known how this file of it was made is
    /// made again: its lock would be silent about packages and downloads, or tell of another file's.
    fn usable_layer(
        &self,
        work: &Work<'_>,
        at: usize,
        blobs: &mut BlobTable,
    ) -> Result<Option<StoredLayer>, EngineError> {
        let planned = &work.plan.layers[at];
        let Some(layer) = self.load_layer(work.store, planned.id, blobs)? else {
            return Ok(None);
        };
        let is_known = match planned.kind {
            // How another image's layers are made again, this recipe does not say.
            _ if at < work.parent.continued() => true,
            LayerKind::BootPackages => {
                layer.diff.entries.is_empty()
                    || layer_boot_packages(work.store, planned.id)?.is_some()
            }
            LayerKind::Component { .. } => {
                knows_results(work.store, planned.id, layer.info.digest)?
            }
            _ => true,
        };
        if !is_known {
            return Ok(None);
        }
        if let Some(pins) = work.pins.filter(|_| !work.rebuild) {
            crate::lock::pinned_layer(work.store, planned, pins)?;
        }
        Ok(Some(layer))
    }

    /// A layer of the store, its data compared with its digests. A damaged one is taken out, so that it
    /// is made again.
    fn load_layer(
        &self,
        store: &Store,
        id: LayerId,
        blobs: &mut BlobTable,
    ) -> Result<Option<StoredLayer>, EngineError> {
        let whole = store.layer(id, blobs).and_then(|found| {
            if let Some(layer) = &found {
                layer.verify(blobs)?;
            }
            Ok(found)
        });
        match whole {
            Err(
                error @ (StoreError::Layer { .. }
                | StoreError::LayerData { .. }
                | StoreError::LayerKind(_)),
            ) => {
                self.warn(format!("{}; it is made again", chain(&error)));
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
        Ran::NOTHING.keep(work.store, planned.id)?;
        let info = match planned.kind {
            LayerKind::ParentUnpacked => match work.parent.packages() {
                Some(resolved) => self.unpack_debian(work, resolved, planned.id)?,
                None => return Err(parent::gone(planned)),
            },
            LayerKind::ParentConfigured => {
                let Some(resolved) = work.parent.packages() else {
                    return Err(parent::gone(planned));
                };
                let script = parent::configure_script(resolved, made.clock);
                let what = format!("configuring the packages of {}", work.plan.parent_image);
                let sandbox = self.sandbox(work.store, sandbox)?;
                self.run_parent_script(work, sandbox, planned, made, (script, what))?
            }
            LayerKind::ParentImported { index } => self.import_parent(work, planned, index)?,
            LayerKind::ParentComponent => return Err(parent::gone(planned)),
            LayerKind::BootPackages if at >= work.parent.continued() => {
                self.boot_packages(work, planned, made, sandbox)?
            }
            LayerKind::BootPackages => return Err(parent::gone(planned)),
            LayerKind::Component { index } => {
                let run = self.phase_run(work, index, BUILD, made.clock)?;
                let of = Phase {
                    index,
                    phase: BUILD,
                    run: &run,
                };
                let failed = FailedAt::Phase(planned, of);
                let mut gave = None;
                let info = match self.run_on_tree(work, failed, of, made, sandbox)? {
                    Some((diff, ran)) => {
                        gave = Some(ran);
                        self.put_diff(work, planned, made, &diff)?
                    }
                    None => {
                        let sandbox = self.sandbox(work.store, sandbox)?;
                        self.in_overlay(work, sandbox, failed, made, |root, cancel| {
                            let ran = self.run_phase(work, sandbox, of, (made, root), cancel)?;
                            // What changed in a machine is on a disk of its own.
                            let here = sandbox.way() != Way::MicroVm;
                            let upper = here.then_some(root.upper.as_path());
                            let touched = Touched::of(&ran.result, upper, ran.done);
                            touched.keep(work.store, planned.id)?;
                            Ok(gave.insert(ran).result.start)
                        })?
                    }
                };
                if let Some(ran) = &gave {
                    keep_build_results(work.store, (planned.id, &info), ran)?;
                }
                info
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
        if work.store.has_layer(planned.id) {
            return "how it was made is not known of the one in the store".to_owned();
        }
        let last = self.last_plan(work.store, &work.plan.recipe.name);
        let reasons = self.reasons(work.store, work.recipe, work.plan);
        // What cannot be explained is made all the same.
        let mut reasons = reasons.unwrap_or_default();
        let own = reasons.remove(&planned.id).unwrap_or_default();
        own.into_iter().next().unwrap_or_else(|| match last {
            None => "never built".to_owned(),
            Some(_) => "not in the store".to_owned(),
        })
    }

    /// Runs a script of ours on the layers below, without a network; `what` it does is for people.
    fn run_parent_script(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        planned: &LayerPlan,
        made: &Made,
        script: (String, String),
    ) -> Result<LayerInfo, EngineError> {
        self.in_overlay(
            work,
            sandbox,
            FailedAt::Layer(planned),
            made,
            |root, cancel| self.run_script(sandbox, &root.cut_off(), cancel, planned, made, script),
        )
    }

    /// Runs a script of ours in a root; when it began. `what` it does is for people.
    pub(crate) fn run_script(
        &self,
        sandbox: &Sandbox,
        root: &RootSpec,
        cancel: &AtomicBool,
        planned: &LayerPlan,
        made: &Made,
        (script, what): (String, String),
    ) -> Result<Timestamp, EngineError> {
        let spec = ScriptSpec {
            interpreter: vec!["/bin/bash".to_owned()],
            text: script,
            env: BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), made.clock.secs.to_string())]),
            timeout_seconds: Some(3600),
        };
        let mut telling = Telling::component(self, &planned.title);
        let mut on_event = |event: ChildEvent| telling.event(event);
        let result = sandbox
            .run_script(root, &spec, cancel, &mut on_event)
            .map_err(sandbox_error)?;
        if result.is_ok() {
            return Ok(result.start);
        }
        let how = match (result.exit_code, result.timed_out) {
            (_, true) => "did not end in time".to_owned(),
            (Some(code), _) => format!("failed with exit code {code}"),
            (None, _) => format!("was killed by signal {}", result.signal.unwrap_or(0)),
        };
        Err(with_tail(format!("{what} {how}"), &result.tail))
    }
}

pub(crate) fn store_context() -> String {
    "the store cannot be used".to_owned()
}

/// The newest time of a layer's files: a function of what it is made of alone.
fn newest(layer: &StoredLayer) -> Timestamp {
    let times = layer.diff.entries.values().filter_map(|entry| match entry {
        amiforge_tree::LayerEntry::Put(inode) | amiforge_tree::LayerEntry::PutOpaque(inode) => {
            Some(inode.stat.mtime.secs)
        }
        _ => None,
    });
    Timestamp::from_secs(times.max().unwrap_or(0).max(0))
}
