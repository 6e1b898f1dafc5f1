//! The overlay that a step runs on, and the layer that becomes of it.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use amiforge_exec::{Limits, RootSpec, Sandbox, Shim};
use amiforge_plan::{LayerKind, LayerPlan};
use amiforge_recipe::StepLimits;
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{GIB, Timestamp};

use super::sandbox::sandbox_error;
use super::{Work, store_context};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::parent;
use crate::settings::Engine;

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
pub(super) fn shims(kind: &LayerKind) -> Vec<Shim> {
    lent(matches!(kind, LayerKind::ParentConfigured))
}

/// The same for steps alone.
pub(crate) fn component_shims() -> Vec<Shim> {
    lent(false)
}

fn lent(configuring: bool) -> Vec<Shim> {
    parent::shims(configuring)
        .into_iter()
        .map(|(path, text)| Shim {
            path,
            text,
            mode: 0o755,
        })
        .collect()
}

impl Engine {
    /// Runs `job` on an overlay over the layers below, and makes a layer of what it changed.
    pub(super) fn in_overlay(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        at: usize,
        planned: &LayerPlan,
        clock: Timestamp,
        job: impl FnOnce(&RootSpec, &AtomicBool) -> Result<Timestamp, EngineError>,
    ) -> Result<LayerInfo, EngineError> {
        let running = self.interruption.job();
        let cancel = running.cancel();
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
            &scratch.dir,
            shims(&planned.kind),
            match planned.kind {
                LayerKind::Component { .. } => step_limits(&work.recipe.recipe.amiforge.limits),
                // The parent is the same whatever recipe it is made for.
                _ => Limits::default(),
            },
        );
        let since = job(&root, cancel)?;
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
                cancel,
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
}

/// A directory with files of mapped ids, removed in the sandbox when it is dropped.
pub(super) struct Scratch<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) dir: PathBuf,
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

/// What the steps of a component may use, by the recipe.
pub(super) fn step_limits(asked: &StepLimits) -> Limits {
    Limits {
        processes: asked.processes.unwrap_or(Limits::PROCESSES),
        open_files: asked.open_files,
        file_size: asked.file_size_gib.map(|n| n.saturating_mul(GIB)),
    }
}

/// A root over `lowers` whose changes go into the scratch folder `dir`.
pub(crate) fn root_spec(
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
        resolv_conf: std::fs::read_to_string("/etc/resolv.conf").ok(),
        network: true,
    }
}
