//! `SetFolderPermissions`: changes the mode of folders, and of all below them.
//! Reference: AWSTOE action modules, SetFolderPermissions. The folder itself may be a link to one;
//! links below it are left alone, with what they lead to.

use std::path::Path;

use amiforge_recipe::actions::{FileMode, SetFolderPermissions};

use super::files::below;
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<SetFolderPermissions> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let FileMode(mode) = entry.permissions;
            let mode = u32::from(mode);
            cx.root.existing_folder("set the permissions of", &path)?;
            if entry.recursive {
                // A folder comes after what is in it: its new mode may keep us out.
                below(Path::new(&path), cx, &mut |path, found| {
                    if found.is_link() {
                        return Ok(());
                    }
                    cx.root.give_mode(path, mode)
                })?;
            }
            cx.root.give_mode(&path, mode)?;
        }
        Ok(Vec::new())
    }
}
