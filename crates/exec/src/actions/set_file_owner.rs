//! `SetFileOwner`: gives files to a user and a group, links followed.
//! Reference: AWSTOE action modules, SetFileOwner.

use amiforge_recipe::actions::SetFileOwner;

use super::files::{failed, wrong_type};
use super::{Action, Outputs, StepCx, StepError};
use crate::executor::accounts;

impl Action for Vec<SetFileOwner> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let (uid, gid) = accounts::owner(cx.root, &entry.owner, entry.group.as_deref())?;
            let found = cx
                .root
                .metadata(path.as_ref())
                .map_err(failed("change the owner of", &path))?;
            if found.is_dir() {
                return Err(wrong_type(&path, &found, "a file"));
            }
            cx.root.give_owner(&path, true, Some(uid), gid)?;
        }
        Ok(Vec::new())
    }
}
