//! `CreateFolder`: makes folders with those above them.
//! Reference: AWSTOE action modules, CreateFolder. Whether an existing folder loses its content is
//! not documented clearly; here it keeps it.

use amiforge_recipe::actions::CreateFolder;

use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<CreateFolder> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for folder in self {
            cx.check_deadline()?;
            let path = cx.path(&folder.path);
            cx.about(&path);
            match cx.root.look(&path)? {
                Some(found) if !found.is_dir() => {
                    return Err(StepError::WrongType {
                        path,
                        is: "a file",
                        wanted: "a folder",
                    });
                }
                Some(_) if !folder.overwrite => {
                    return Err(StepError::Exists { path });
                }
                Some(_) => {}
                None => cx.root.make_folders(&path)?,
            }
            cx.root.set_attributes(
                &path,
                folder.owner.as_deref(),
                folder.group.as_deref(),
                folder.permissions,
            )?;
        }
        Ok(Vec::new())
    }
}
