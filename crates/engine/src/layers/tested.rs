//! Test phases of a container's components: on its finished root, with an upper that is thrown away.

use super::overlay::Purpose;
use super::phase::{Phase, TEST};
use super::{FailedAt, Left, Made, Work};
use crate::error::EngineError;
use crate::settings::Engine;

impl Engine {
    /// Runs them in the order of the recipe, all on the same root, as in one container. Returns the numbers
    /// of the components that have any.
    pub(crate) fn test_components(
        &self,
        work: &Work<'_>,
        made: &Made,
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
        let sandbox = self.sandbox(work.store, &mut sandbox)?;
        let layers = work.plan.layers.len();
        let (_scratch, root) = self.overlay(work, sandbox, layers, Purpose::Steps)?;
        let running = self.interruption.job();
        for index in &tested {
            let run = self.phase_run(work, *index, TEST, made.clock)?;
            let of = Phase {
                index: *index,
                phase: TEST,
                run: &run,
            };
            let ran = self.run_phase(work, sandbox, of, (made, &root), running.cancel());
            if let (Err(error), Some(top)) = (ran, work.plan.top()) {
                let left = Left::Overlay {
                    sandbox,
                    root: &root,
                };
                return Err(self.failed(work, FailedAt::Phase(top, of), made, left, error));
            }
        }
        Ok(tested)
    }
}
