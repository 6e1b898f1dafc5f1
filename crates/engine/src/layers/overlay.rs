//! The overlay that a step runs on, and the layer that becomes of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use amiforge_exec::{Limits, RootSpec, Sandbox, Shim, Way};
use amiforge_plan::{LayerKind, LayerPlan};
use amiforge_recipe::{StepLimits, StepNetwork};
use amiforge_store::{LayerWriter, RootUse, Store, StoredLayer};
use amiforge_tree::layer::LayerInfo;
use amiforge_tree::{ApplyError, LayerDiff, LayerEntry, Stat, Tree};
use amiforge_types::{BlobTable, GIB, Timestamp};

use super::sandbox::verify;
use super::sandbox_error;
use super::{FailedAt, Left, Made, Ran, Work, store_context};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;
use crate::{lent, parent};

/// Files of a layer that differ from run to run and that the guest makes again: they stay out of
/// layers, so that the same inputs give the same bytes.
pub(super) const EPHEMERAL: &[&str] = &[
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

/// Programs that stand aside while steps run: laid over the image's own, they leave no trace.
pub(crate) fn component_shims() -> Vec<Shim> {
    shims(false)
}

/// While the parent is configured, that includes the one that would make an initrd for every package.
fn shims(configuring: bool) -> Vec<Shim> {
    parent::shims(configuring)
        .into_iter()
        .map(|(path, text)| Shim {
            path,
            text,
            mode: 0o755,
        })
        .collect()
}

/// What an overlay is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// The packages of the parent are configured.
    Parent,
    /// Packages are added to the parent.
    Packages,
    /// Steps of a component run.
    Steps,
}

impl Engine {
    /// A root over the first `layers` of a plan, and the folder of what is changed in it, which goes with the value.
    pub(super) fn overlay(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        layers: usize,
        purpose: Purpose,
    ) -> Result<(Scratch, RootSpec), EngineError> {
        let (lowers, uses) = self.lowers(work, sandbox, layers)?;
        let mut scratch = Scratch::new(work.store, sandbox, "overlay")?;
        scratch.uses = uses;
        let (shims, limits) = match purpose {
            Purpose::Steps => (
                component_shims(),
                step_limits(&work.recipe.recipe.amiforge.limits),
            ),
            // The parent is the same whatever recipe it is made for.
            Purpose::Packages => (component_shims(), Limits::default()),
            Purpose::Parent => (shims(true), Limits::default()),
        };
        let root = root_spec(sandbox, lowers, &scratch.dir, shims, limits);
        let network = work.recipe.recipe.amiforge.network;
        let root = match (purpose, network) {
            (Purpose::Steps, StepNetwork::None) => root.cut_off(),
            _ => root,
        };
        Ok((scratch, root))
    }

    /// A root for steps over the first `layers` of a plan, as [`Engine::overlay`] has it.
    pub(crate) fn steps_overlay(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        layers: usize,
    ) -> Result<(Scratch, RootSpec), EngineError> {
        self.overlay(work, sandbox, layers, Purpose::Steps)
    }

    /// Runs `job` on an overlay over the layers below, and makes a layer of what it changed.
    pub(crate) fn in_overlay(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        at: FailedAt<'_>,
        below: &Made,
        job: impl FnOnce(&RootSpec, &AtomicBool) -> Result<Timestamp, EngineError>,
    ) -> Result<LayerInfo, EngineError> {
        self.in_overlay_with(work, sandbox, at, below, None, job)
    }

    /// The same with a lower directory over the layers, which `job` only reads.
    pub(crate) fn in_overlay_with(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        at: FailedAt<'_>,
        below: &Made,
        lent: Option<&Path>,
        job: impl FnOnce(&RootSpec, &AtomicBool) -> Result<Timestamp, EngineError>,
    ) -> Result<LayerInfo, EngineError> {
        let planned = at.layer();
        if below.layers.is_empty() {
            let message = format!(
                "{} cannot run: it needs programs of the image, and {} has none",
                planned.title, work.plan.parent_image
            );
            return Err(EngineError::new(ErrorKind::Failed, message).with_hint(
                "steps that only create or change files, such as CreateFile, run without; else start from a parent with a shell",
            ));
        }
        let running = self.interruption.job();
        let cancel = running.cancel();
        // Its upper is not kept as the layer's root: what steps see must follow from the layer alone,
        // and the upper has wall-clock times and files that layers leave out.
        let purpose = match planned.kind {
            LayerKind::Component { .. } => Purpose::Steps,
            LayerKind::BootPackages => Purpose::Packages,
            _ => Purpose::Parent,
        };
        let (_scratch, mut root) = self.overlay(work, sandbox, below.layers.len(), purpose)?;
        if let Some(lent) = lent {
            root.lowers.insert(0, lent.to_owned());
        }
        let since = match job(&root, cancel) {
            Ok(since) => since,
            Err(error) => {
                let left = Left::Overlay {
                    sandbox,
                    root: &root,
                };
                return Err(self.failed(work, at, below, left, error));
            }
        };
        let of = (planned, below.clock, since);
        let writer = harvested(work.store, sandbox, &root, of, cancel)?;
        let info = keep(work.store, planned, below, &root, writer)?;
        self.remove_root(work.store, planned.id)?;
        let root = match purpose {
            Purpose::Steps => root,
            Purpose::Parent | Purpose::Packages => root.cut_off(),
        };
        Ran::commands(sandbox, &root).keep(work.store, planned.id)?;
        Ok(info)
    }

    /// Runs `job` on an overlay over the layers below, as packages are added to them: what it changed, which is kept
    /// nowhere.
    pub(crate) fn changes(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        planned: &LayerPlan,
        below: &Made,
        blobs: &mut BlobTable,
        job: impl FnOnce(&RootSpec, &AtomicBool) -> Result<Timestamp, EngineError>,
    ) -> Result<LayerDiff, EngineError> {
        let running = self.interruption.job();
        let cancel = running.cancel();
        let (_scratch, root) =
            self.overlay(work, sandbox, below.layers.len(), Purpose::Packages)?;
        let since = job(&root, cancel)?;
        let of = (planned, below.clock, since);
        let writer = harvested(work.store, sandbox, &root, of, cancel)?;
        let mut diff = writer
            .read(blobs)
            .or_fail(ErrorKind::Failed, store_context)?;
        if has_opaque(&diff) {
            diff.settle_opaque(&below.tree().or_fail(ErrorKind::Failed, store_context)?);
        }
        Ok(diff)
    }

    /// Keeps a layer that was made without an overlay.
    pub(crate) fn put_diff(
        &self,
        work: &Work<'_>,
        planned: &LayerPlan,
        below: &Made,
        diff: &LayerDiff,
    ) -> Result<LayerInfo, EngineError> {
        let info = work
            .store
            .put_layer(planned.id, diff, &below.blobs)
            .or_fail(ErrorKind::Failed, || keep_context(planned))?;
        self.remove_root(work.store, planned.id)?;
        Ok(info)
    }
}

/// What a job has changed since `since`, as the file of a layer that is not in the store yet.
fn harvested(
    store: &Store,
    sandbox: &Sandbox,
    root: &RootSpec,
    (planned, clock, since): (&LayerPlan, Timestamp, Timestamp),
    cancel: &AtomicBool,
) -> Result<LayerWriter, EngineError> {
    let writer = store
        .layer_writer(planned.id)
        .or_fail(ErrorKind::Failed, store_context)?;
    sandbox
        .harvest(
            &root.upper,
            writer.path(),
            clock,
            Some(since),
            EPHEMERAL,
            cancel,
        )
        .map_err(sandbox_error)?;
    verify(sandbox, &writer)?;
    Ok(writer)
}

fn keep_context(planned: &LayerPlan) -> String {
    format!("cannot keep the layer {}", planned.title)
}

impl Made {
    /// The files of the layers, put over one another. A root that no layer says anything of is as it is for steps.
    pub(crate) fn tree(&self) -> Result<Tree, ApplyError> {
        let stat = Stat {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
        };
        Tree::from_layers(stat, self.layers.iter().map(|layer| &*layer.diff))
    }
}

/// Whether a layer has a directory that is marked to hide what is below it.
fn has_opaque(diff: &LayerDiff) -> bool {
    let mut entries = diff.entries.values();
    entries.any(|entry| matches!(entry, LayerEntry::PutOpaque(_)))
}

/// Keeps a layer, without what its job was lent.
fn keep(
    store: &Store,
    planned: &LayerPlan,
    below: &Made,
    root: &RootSpec,
    writer: LayerWriter,
) -> Result<LayerInfo, EngineError> {
    let context = || keep_context(planned);
    let mut blobs = below.blobs.clone();
    let diff = writer
        .read(&mut blobs)
        .or_fail(ErrorKind::Failed, context)?;
    let attributed = |layer: &StoredLayer| lent::has_attributes(&layer.diff);
    let opaque = has_opaque(&diff);
    if opaque || lent::may_have(root, &diff) || below.layers.iter().any(attributed) {
        let lower = below.tree().or_fail(ErrorKind::Failed, context)?;
        let lent = lent::lent(root, &lower);
        let own =
            lent::without(&lent, &lower, &diff, &blobs).or_fail(ErrorKind::Failed, context)?;
        let mut changed = own.is_some();
        let mut own = own.unwrap_or(diff);
        changed |= lent::restore_attributes(&lent, &lower, &mut own);
        changed |= opaque && own.settle_opaque(&lower);
        if changed {
            return store
                .put_layer(planned.id, &own, &blobs)
                .or_fail(ErrorKind::Failed, context);
        }
    }
    writer.commit().or_fail(ErrorKind::Failed, context)
}

/// A directory of the store with files of mapped ids, removed in the sandbox when it is dropped.
pub(crate) struct Scratch {
    pub(crate) sandbox: Sandbox,
    pub(crate) dir: PathBuf,
    /// Roots that lie below what is changed in it.
    pub(super) uses: Vec<RootUse>,
}

impl Scratch {
    /// Makes one; `purpose` is a part of its name.
    pub(crate) fn new(
        store: &Store,
        sandbox: &Sandbox,
        purpose: &str,
    ) -> Result<Self, EngineError> {
        let dir = store
            .temp_dir(purpose)
            .or_fail(ErrorKind::Failed, store_context)?;
        Ok(Self {
            sandbox: sandbox.clone(),
            dir,
            uses: Vec::new(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.dir) else {
            return;
        };
        let below: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        // What cannot be removed is a leftover of the store and goes when it is opened next.
        let _ = self.sandbox.remove_trees(&below);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// What the steps of a component may use, by the recipe.
fn step_limits(asked: &StepLimits) -> Limits {
    Limits {
        processes: asked.processes.unwrap_or(Limits::PROCESSES),
        open_files: asked.open_files,
        file_size: asked.file_size_gib.map(|n| n.saturating_mul(GIB)),
    }
}

/// The name server of QEMU's own network, which asks those of the host.
const MACHINE_RESOLV_CONF: &str = "nameserver 10.0.2.3\n";

/// A root over `lowers` whose changes go into the scratch folder `dir`.
pub(crate) fn root_spec(
    sandbox: &Sandbox,
    lowers: Vec<PathBuf>,
    dir: &Path,
    shims: Vec<Shim>,
    limits: Limits,
) -> RootSpec {
    RootSpec {
        lowers,
        upper: dir.join("fs"),
        work: dir.join("work"),
        shims,
        limits,
        resolv_conf: match sandbox.way() {
            Way::MicroVm => Some(MACHINE_RESOLV_CONF.to_owned()),
            _ => std::fs::read_to_string("/etc/resolv.conf").ok(),
        },
        network: true,
    }
}
