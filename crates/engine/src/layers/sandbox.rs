//! The sandbox of a build: chosen when the first step needs one, and how its failures are told.

use std::path::PathBuf;
use std::sync::PoisonError;

use amiforge_exec::{Sandbox, SandboxError, Way};
use amiforge_store::{LayerWriter, Store};

use super::store_context;
use crate::error::{Contextual, EngineError, ErrorKind, chain};
use crate::settings::Engine;
use crate::steps::push_tail;

impl Engine {
    /// The sandbox of `work`, chosen if there is none in `slot`.
    pub(crate) fn sandbox<'s>(
        &self,
        store: &Store,
        slot: &'s mut Option<Sandbox>,
    ) -> Result<&'s Sandbox, EngineError> {
        let sandbox = match slot.take() {
            Some(sandbox) => sandbox,
            None => self.chosen_sandbox(store)?,
        };
        Ok(slot.insert(sandbox))
    }

    /// The way of running steps that is asked for, else the best that works here; tried once, and told.
    pub(crate) fn chosen_sandbox(&self, store: &Store) -> Result<Sandbox, EngineError> {
        let mut chosen = self.sandbox.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sandbox) = &*chosen {
            return Ok(sandbox.clone());
        }
        let scratch = store
            .temp_dir("probe")
            .or_fail(ErrorKind::Failed, store_context)?;
        let tried = Sandbox::choose(&self.helper(), self.settings.sandbox, &scratch);
        // What is left is a leftover of the store and goes when it is opened next.
        let _ = std::fs::remove_dir(&scratch);
        let tried = tried.map_err(sandbox_error)?;
        let mut detail = describe(tried.sandbox.way()).to_owned();
        for passed in &tried.passed {
            detail.push_str(&format!("; not {}: {}", passed.way, chain(&passed.error)));
        }
        self.stage("sandbox", detail);
        Ok(chosen.insert(tried.sandbox).clone())
    }

    /// Removes folders of the store whose files belong to the ids of a sandbox, of any way.
    pub(crate) fn remove_trees(&self, store: &Store, dirs: &[PathBuf]) -> Result<(), EngineError> {
        let error = match self.chosen_sandbox(store)?.remove_trees(dirs) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // They may be from another time, when another way was taken.
        let helper = self.helper();
        let others = Way::ALL
            .iter()
            .map(|way| Sandbox::new(helper.clone(), *way));
        for sandbox in others.flatten() {
            if sandbox.remove_trees(dirs).is_ok() {
                return Ok(());
            }
        }
        Err(sandbox_error(error))
    }

    /// Removes what dead processes left in the store under mapped ids, and roots that were in use when their layers were made
    /// again.
    pub(crate) fn clear_leftovers(&self, store: &Store) {
        // What cannot be listed is for another time.
        let gone = store.gone_roots().unwrap_or_default();
        let gone = gone.iter().map(|gone| gone.path().to_owned());
        let dirs: Vec<PathBuf> = store.leftovers().iter().cloned().chain(gone).collect();
        if dirs.is_empty() {
            return;
        }
        if let Err(error) = self.remove_trees(store, &dirs) {
            self.warn(format!(
                "{} unfinished folders of earlier runs stay in the store: {}",
                dirs.len(),
                chain(&error)
            ));
        }
    }
}

/// Reads a layer that came out of a machine, in which root of a step may have had a hand in it: the data are those that
/// the index says. Elsewhere our own processes wrote them.
pub(super) fn verify(sandbox: &Sandbox, writer: &LayerWriter) -> Result<(), EngineError> {
    if sandbox.way() == Way::MicroVm {
        let what = || "the layer that the machine sent is damaged".to_owned();
        writer.verify().or_fail(ErrorKind::Failed, what)?;
    }
    Ok(())
}

/// A way in words.
pub(crate) fn describe(way: Way) -> &'static str {
    match way {
        Way::MappedIds => "steps run in a user namespace with all ids of the image",
        Way::SingleId => "steps run in a user namespace with one id; owners are recorded",
        Way::Chroot => {
            "steps run in a changed root directory as root of this container, with a copy of the files"
        }
        Way::MicroVm => "steps run in a machine of their own under QEMU",
    }
}

pub(super) fn with_tail(mut text: String, tail: &[String]) -> EngineError {
    push_tail(&mut text, tail);
    EngineError::new(ErrorKind::Failed, text)
}

pub(crate) fn sandbox_error(error: SandboxError) -> EngineError {
    let kind = if error.is_environment() {
        ErrorKind::Environment
    } else {
        ErrorKind::Failed
    };
    let hint = error.hint();
    EngineError::wrap(kind, "the sandbox failed", error, hint)
}
