//! `DeleteFile`: removes files, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, DeleteFile. Of a link the link goes. A file that is named must
//! be there; a pattern may match nothing.

use std::path::{Path, PathBuf};

use amiforge_recipe::actions::DeleteFile;

use super::files::{failed, wrong_type};
use super::{Action, Outputs, StepCx, StepError};
use crate::root::Metadata;

impl Action for Vec<DeleteFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            let pattern = cx.path(&entry.path);
            cx.about(&pattern);
            let all = if entry.path.contains('*') {
                cx.root
                    .matches(&pattern, &|_: &Path, about: &Metadata| Ok(!about.is_dir()))?
            } else {
                vec![PathBuf::from(&pattern)]
            };
            if all.is_empty() && cx.loud {
                cx.note(format!("nothing matches {pattern}"));
            }
            for path in all {
                cx.check_deadline()?;
                let about = cx
                    .root
                    .symlink_metadata(&path)
                    .map_err(failed("delete", &path))?;
                if about.is_dir() {
                    return Err(wrong_type(&path, &about, "a file"));
                }
                cx.root
                    .remove_file(&path)
                    .map_err(failed("delete", &path))?;
            }
        }
        Ok(Vec::new())
    }
}
