//! Test phases of a container's components: on its finished root, with an upper that is thrown away.

use amiforge_plan::LayerKind;
use amiforge_types::Timestamp;

use super::overlay::{Scratch, root_spec, shims, step_limits};
use super::phase::TEST;
use super::{Work, store_context};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

impl Engine {
    /// Runs them in the order of the recipe, all on the same root, as in one container. Returns the numbers
    /// of the components that have any.
    pub(crate) fn test_components(
        &self,
        work: &Work<'_>,
        clock: Timestamp,
    ) -> Result<Vec<usize>, EngineError> {
        let components = work.recipe.components.iter().enumerate();
        let tested: Vec<usize> = components
            .filter(|(_, c)| c.component.phase(TEST).is_some())
            .map(|(index, _)| index)
            .collect();
        if tested.is_empty() {
            return Ok(tested);
        }
        let mut sandbox = None;
        let sandbox = self.sandbox(&mut sandbox)?;
        let lowers = self.lowers(work, sandbox, work.plan.layers.len())?;
        let dir = work
            .store
            .temp_dir("test")
            .or_fail(ErrorKind::Failed, store_context)?;
        let scratch = Scratch { sandbox, dir };
        let root = root_spec(
            lowers,
            &scratch.dir,
            shims(&LayerKind::Component { index: 0 }),
            step_limits(&work.recipe.recipe.amiforge.limits),
        );
        let running = self.interruption.job();
        for index in &tested {
            self.run_phase(work, sandbox, *index, TEST, &root, clock, running.cancel())?;
        }
        Ok(tested)
    }
}
