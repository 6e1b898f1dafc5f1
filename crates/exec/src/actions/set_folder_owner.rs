//! `SetFolderOwner`: gives folders to a user and a group, with all below them.
//! Reference: AWSTOE action modules, SetFolderOwner. The folder itself may be a link to one; of
//! links below it the links change hands, not what they lead to.

use std::path::Path;

use amiforge_recipe::actions::SetFolderOwner;

use super::files::below;
use super::{Action, Outputs, StepCx, StepError};
use crate::executor::accounts;

impl Action for Vec<SetFolderOwner> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let (uid, gid) = accounts::owner(cx.root, &entry.owner, entry.group.as_deref())?;
            cx.root.existing_folder("change the owner of", &path)?;
            if entry.recursive {
                below(Path::new(&path), cx, &mut |path, _| {
                    cx.root.give_owner(path, false, Some(uid), gid)
                })?;
            }
            cx.root.give_owner(&path, true, Some(uid), gid)?;
        }
        Ok(Vec::new())
    }
}
