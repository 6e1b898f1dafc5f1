//! Phases that need nothing but files: on the tree of the layers below, without a sandbox.

use amiforge_exec::{SandboxError, TreeRoot, TreeRootError, works_on_files};
use amiforge_tree::LayerDiff;

use super::overlay::EPHEMERAL;
use super::phase::Phase;
use super::{Made, Work, sandbox_error};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

impl Engine {
    /// Runs a phase on the files of the layers below; what it changed. `None` when it needs a sandbox, and then it has
    /// not been run.
    pub(super) fn run_on_tree(
        &self,
        work: &Work<'_>,
        of: Phase<'_>,
        below: &Made,
    ) -> Result<Option<LayerDiff>, EngineError> {
        let component = &work.recipe.components[of.index];
        let phase = component.component.phase(of.phase);
        if !phase.is_some_and(|phase| works_on_files(&phase.steps)) {
            return Ok(None);
        }
        let context = || format!("cannot run {}", component.name);
        let lower = below.tree().or_fail(ErrorKind::Failed, context)?;
        let running = self.interruption.job();
        let root = TreeRoot::new(&lower, &below.blobs, below.clock, running.cancel());
        // Told when it is known that it counts.
        let mut events = Vec::new();
        let result = amiforge_exec::run_on_tree(of.run, &root, &mut |event| events.push(event));
        let diff = match root.changes(EPHEMERAL) {
            Ok(diff) => diff,
            Err(TreeRootError::Cancelled) => return Err(sandbox_error(SandboxError::Cancelled)),
            Err(TreeRootError::NeedsSandbox(_)) => return Ok(None),
        };
        self.told_phase(work, of, |on_event| {
            events.into_iter().for_each(on_event);
            Ok(result)
        })?;
        Ok(Some(diff))
    }
}
