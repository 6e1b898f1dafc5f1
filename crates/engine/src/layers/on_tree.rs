//! Phases that need nothing but files: on the tree of the layers below, without a sandbox.

use amiforge_exec::{
    ChildEvent, RunResult, RunSpec, Sandbox, SandboxError, TreeRoot, TreeRootError, run_on_tree,
    works_on_files,
};
use amiforge_tree::LayerDiff;

use super::overlay::EPHEMERAL;
use super::phase::{BUILD, Phase, RanPhase};
use super::{FailedAt, Left, Made, Touched, Work, sandbox_error};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

impl Engine {
    /// Runs a phase on the files of the layers below; what it changed and gave out. `None` when it needs a sandbox, and then it has
    /// not been run.
    pub(super) fn run_on_tree(
        &self,
        work: &Work<'_>,
        at: FailedAt<'_>,
        of: Phase<'_>,
        below: &Made,
        sandbox: &mut Option<Sandbox>,
    ) -> Result<Option<(LayerDiff, RanPhase)>, EngineError> {
        let component = &work.recipe.components[of.index];
        let phase = component.component.phase(of.phase);
        // There the files with secrets are not.
        let lent = !work.recipe.step_secrets.is_empty();
        if lent || !phase.is_some_and(|phase| works_on_files(&phase.steps)) {
            return Ok(None);
        }
        let context = || format!("cannot run {}", component.name);
        let lower = below.tree().or_fail(ErrorKind::Failed, context)?;
        let running = self.interruption.job();
        let root = TreeRoot::new(&lower, &below.blobs, below.clock, running.cancel());
        let Some(done) = on_tree(of.run, root, EPHEMERAL)? else {
            return Ok(None);
        };
        let told = self.told_phase(work, of, |on_event| {
            done.events.into_iter().for_each(on_event);
            Ok(done.result)
        });
        match told {
            Ok(ran) => {
                if of.phase == BUILD {
                    Touched::of(&ran.result, None, 0).keep(work.store, at.layer().id)?;
                }
                Ok(Some((done.changes, ran)))
            }
            Err(error) => {
                let left = Left::Tree {
                    sandbox,
                    changes: &done.changes,
                };
                Err(self.failed(work, at, below, left, error))
            }
        }
    }
}

/// A run on a tree that came to its end there.
pub(crate) struct OnTree {
    pub(crate) result: RunResult,
    /// What it told, which nobody has been told yet.
    pub(crate) events: Vec<ChildEvent>,
    pub(crate) changes: LayerDiff,
}

/// Runs `run` on `root`, whose changes at `exclude` do not count; `None` when it needs a sandbox.
pub(crate) fn on_tree(
    run: &RunSpec,
    root: TreeRoot<'_>,
    exclude: &[&str],
) -> Result<Option<OnTree>, EngineError> {
    let mut events = Vec::new();
    let result = run_on_tree(run, &root, &mut |event| events.push(event));
    match root.changes(exclude) {
        Ok(changes) => Ok(Some(OnTree {
            result,
            events,
            changes,
        })),
        Err(TreeRootError::Cancelled) => Err(sandbox_error(SandboxError::Cancelled)),
        Err(TreeRootError::NeedsSandbox(_)) => Ok(None),
    }
}
