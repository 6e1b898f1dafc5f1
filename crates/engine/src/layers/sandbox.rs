//! The sandbox of a build: made when the first step needs it, and how its failures are told.

use amiforge_exec::Sandbox;
use amiforge_store::Store;

use crate::error::{EngineError, ErrorKind};
use crate::settings::Engine;
use crate::steps::push_tail;

impl Engine {
    pub(crate) fn sandbox<'s>(
        &self,
        slot: &'s mut Option<Sandbox>,
    ) -> Result<&'s Sandbox, EngineError> {
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

pub(super) fn with_tail(mut text: String, tail: &[String]) -> EngineError {
    push_tail(&mut text, tail);
    EngineError::new(ErrorKind::Failed, text)
}

pub(crate) fn sandbox_error(error: amiforge_exec::SandboxError) -> EngineError {
    let kind = if error.is_environment() {
        ErrorKind::Environment
    } else {
        ErrorKind::Failed
    };
    let hint = error.hint();
    EngineError::wrap(kind, "the sandbox failed", error, hint)
}
