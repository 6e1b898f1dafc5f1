//! `SetFilePermissions`: changes the mode of files, links followed.
//! Reference: AWSTOE action modules, SetFilePermissions.

use amiforge_recipe::actions::{FileMode, SetFilePermissions};

use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<SetFilePermissions> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let FileMode(mode) = entry.permissions;
            cx.root.give_mode(&path, u32::from(mode))?;
        }
        Ok(Vec::new())
    }
}
