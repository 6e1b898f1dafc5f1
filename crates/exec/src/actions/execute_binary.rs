//! `ExecuteBinary`: one program, no shell.
//! Reference: AWSTOE action modules, ExecuteBinary.

use amiforge_recipe::actions::ExecuteBinary;

use super::{Action, Outputs, StepCx, StepError};

impl Action for ExecuteBinary {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let mut argv = vec![self.path.clone()];
        argv.extend(self.arguments.iter().cloned());
        cx.about(&argv.join(" "));
        cx.printing(&argv)
    }
}
