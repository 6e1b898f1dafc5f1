//! `DeleteFolder`: removes folders.
//! Reference: AWSTOE action modules, DeleteFolder. Of a link the link goes. A path of a file is
//! taken too, since a document of AWS gives one; a missing folder is an error without `force`.

use std::io;
use std::path::Path;

use amiforge_recipe::actions::DeleteFolder;

use super::files::{children, failed};
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<DeleteFolder> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            delete(&path, entry.force)?;
        }
        Ok(Vec::new())
    }
}

fn delete(path: &str, force: bool) -> Result<(), StepError> {
    let trimmed = path.trim_end_matches('/');
    // With a `/` at the end the kernel would follow a link.
    let named = if trimmed.is_empty() { "/" } else { trimmed };
    let about = match std::fs::symlink_metadata(named) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && force => return Ok(()),
        other => other.map_err(failed("delete", path))?,
    };
    if !about.is_dir() {
        return std::fs::remove_file(named).map_err(failed("delete", path));
    }
    // Without `.` and `..`, on which the kernel stops after all in them is gone.
    let folder = std::fs::canonicalize(named).map_err(failed("delete", path))?;
    if folder == Path::new("/") {
        return Err(StepError::Root {
            path: path.to_owned(),
        });
    }
    if force {
        return std::fs::remove_dir_all(&folder).map_err(failed("delete", path));
    }
    if !children(&folder)?.is_empty() {
        return Err(StepError::NotEmpty {
            path: path.to_owned(),
        });
    }
    std::fs::remove_dir(&folder).map_err(failed("delete", path))
}
