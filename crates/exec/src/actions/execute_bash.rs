//! `ExecuteBash`: all commands in one script, run by bash.
//! Reference: AWSTOE action modules, ExecuteBash.

use amiforge_recipe::actions::ExecuteBash;

use super::{Action, Outputs, StepCx, StepError, TempScript};

impl Action for ExecuteBash {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let mut text = self.commands.join("\n");
        text.push('\n');
        cx.about(text.trim());
        let script = TempScript::write(&text).map_err(|source| StepError::File {
            action: "write the script in",
            path: "/tmp".to_owned(),
            source,
        })?;
        cx.printing(&["bash".to_owned(), script.path().to_owned()])
    }
}
