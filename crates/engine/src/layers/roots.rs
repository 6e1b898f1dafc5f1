//! Layers as directories: the lower ones of an overlay.

use std::path::{Path, PathBuf};

use amiforge_exec::Sandbox;
use amiforge_store::{RootUse, Store};
use amiforge_types::LayerId;

use super::sandbox::sandbox_error;
use super::{Work, store_context};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

impl Engine {
    /// The directories of the layers below number `at`, topmost first; made where they are missing. They stay as long as their
    /// uses are held, also when another process makes a layer again.
    pub(super) fn lowers(
        &self,
        work: &Work<'_>,
        sandbox: &Sandbox,
        at: usize,
    ) -> Result<(Vec<PathBuf>, Vec<RootUse>), EngineError> {
        let layers = &work.plan.layers[..at];
        let layers: Vec<_> = layers.iter().map(|l| (l.id, l.title.clone())).collect();
        self.lowers_of(work.store, sandbox, &layers)
    }

    /// The same of layers with their titles, the lowest first. Of very many the lowest are in one directory.
    pub(crate) fn lowers_of(
        &self,
        store: &Store,
        sandbox: &Sandbox,
        layers: &[(LayerId, String)],
    ) -> Result<(Vec<PathBuf>, Vec<RootUse>), EngineError> {
        let (mut lowers, mut uses) = (Vec::new(), Vec::new());
        let joined = self.joined_layers(store, layers)?;
        for (id, title) in &joined.layers {
            let (root, used) = self.root(store, sandbox, *id, title)?;
            lowers.push(root);
            uses.push(used);
        }
        lowers.reverse();
        Ok((lowers, uses))
    }

    /// The directory of a layer.
    fn root(
        &self,
        store: &Store,
        sandbox: &Sandbox,
        id: LayerId,
        title: &str,
    ) -> Result<(PathBuf, RootUse), EngineError> {
        let there = || -> Result<Option<(PathBuf, RootUse)>, EngineError> {
            let root = store.use_root(id);
            let root = root.or_fail(ErrorKind::Failed, store_context)?;
            let usable = root.filter(|(root, _)| is_usable(root, sandbox));
            Ok(usable.map(|(root, used)| (root.join("fs"), used)))
        };
        if let Some(root) = there()? {
            return Ok(root);
        }
        // Whoever makes it holds the lock of its layer; locks are taken from higher layers to lower ones alone.
        let _lock = self.lock_layer(store, id, title)?;
        if let Some(root) = there()? {
            return Ok(root);
        }
        self.stage("layer", format!("materialise {title}"));
        // One of another way or boot.
        self.remove_root(store, id)?;
        let place = store
            .root_writer(id)
            .or_fail(ErrorKind::Failed, store_context)?;
        let running = self.interruption.job();
        sandbox
            .materialise(
                &store.layer_path(id),
                &place.path().join("new"),
                &place.path().join("fs"),
                running.cancel(),
            )
            .map_err(sandbox_error)?;
        mark(place.path(), sandbox)?;
        place.commit().or_fail(ErrorKind::Failed, store_context)?;
        there()?.ok_or_else(|| {
            EngineError::new(ErrorKind::Failed, format!("the root of {title} is gone"))
        })
    }

    /// Takes the root of a layer away, which was made from another file. What another process uses of it goes when a later
    /// one finds it unused.
    pub(crate) fn remove_root(&self, store: &Store, id: LayerId) -> Result<(), EngineError> {
        // A machine that has it as a disk ends by that name.
        let mut dirs = vec![store.root_path(id)];
        if !dirs[0].exists() {
            return Ok(());
        }
        let gone = store.retire_root(id);
        let gone = gone.or_fail(ErrorKind::Failed, store_context)?;
        dirs.extend(gone.iter().map(|gone| gone.path().to_owned()));
        self.remove_trees(store, &dirs)
    }
}

/// Name of the file in a root's folder that says during which boot of the host it was made, and in which way.
const BOOT_ID: &str = "boot-id";

/// Raised when directories of layers are made otherwise.
const FORM: u32 = 2;

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// This boot, and the way in which owners are kept.
fn mark_of(sandbox: &Sandbox) -> String {
    format!("{} {} {FORM}\n", boot_id().trim(), sandbox.way())
}

/// Notes this boot in the folder of a root, whose files are not synced.
fn mark(dir: &Path, sandbox: &Sandbox) -> Result<(), EngineError> {
    fs_err::write(dir.join(BOOT_ID), mark_of(sandbox)).or_fail(ErrorKind::Failed, store_context)
}

/// True when a root was made since the host started, in the way and with the ids that are in use now.
fn is_usable(root: &Path, sandbox: &Sandbox) -> bool {
    use std::os::unix::fs::MetadataExt;
    let made = std::fs::read_to_string(root.join(BOOT_ID)).unwrap_or_default();
    let uid = sandbox.ids().uid_base;
    made == mark_of(sandbox)
        && std::fs::symlink_metadata(root.join("fs")).is_ok_and(|m| m.is_dir() && m.uid() == uid)
}
