//! `DeleteFolder`: removes folders.
//! Reference: AWSTOE action modules, DeleteFolder. Of a link the link goes. A path of a file is
//! taken too, since a document of AWS gives one; a missing folder is an error without `force`.

use std::io;
use std::path::Path;

use amiforge_recipe::actions::DeleteFolder;

use super::files::failed;
use super::{Action, Outputs, StepCx, StepError};
use crate::root::Root;

impl Action for Vec<DeleteFolder> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            delete(cx.root, &path, entry.force)?;
        }
        Ok(Vec::new())
    }
}

fn delete(root: &dyn Root, path: &str, force: bool) -> Result<(), StepError> {
    let trimmed = path.trim_end_matches('/');
    // With a `/` at the end the kernel would follow a link.
    let named = Path::new(if trimmed.is_empty() { "/" } else { trimmed });
    let about = match root.symlink_metadata(named) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && force => return Ok(()),
        other => other.map_err(failed("delete", path))?,
    };
    if !about.is_dir() {
        return root.remove_file(named).map_err(failed("delete", path));
    }
    // Without `.` and `..`, on which the kernel stops after all in them is gone.
    let folder = root.canonicalize(named).map_err(failed("delete", path))?;
    if folder == Path::new("/") {
        return Err(StepError::Root {
            path: path.to_owned(),
        });
    }
    if force {
        return root.remove_dir_all(&folder).map_err(failed("delete", path));
    }
    if !root.children(&folder)?.is_empty() {
        return Err(StepError::NotEmpty {
            path: path.to_owned(),
        });
    }
    root.remove_dir(&folder).map_err(failed("delete", path))
}
