//! `CopyFile`: copies files, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, CopyFile.

use std::path::Path;

use amiforge_recipe::actions::CopyFile;

use super::files::{failed, masked, shown, wrong_type};
use super::transfer::pairs;
use super::{Action, Outputs, StepCx, StepError};
use crate::root::{Open, Root};

impl Action for Vec<CopyFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let root = cx.root;
        for copy in self {
            // A link is the file it leads to.
            let wanted = |path: &Path, _: &_| Ok(root.look(path)?.is_some_and(|m| m.is_file()));
            for (source, target) in pairs(cx, &copy.source, &copy.destination, &wanted)? {
                cx.check_deadline()?;
                root.make_parents(&target)?;
                copy_one(root, &source, &target, copy.overwrite)?;
            }
        }
        Ok(Vec::new())
    }
}

/// Copies content, holes not kept. A new file gets the source's mode less the mask and without
/// set-id bits, like cp(1); an existing one keeps its own.
fn copy_one(
    root: &dyn Root,
    source: &Path,
    target: &Path,
    overwrite: bool,
) -> Result<(), StepError> {
    let about = root.metadata(source).map_err(failed("read", source))?;
    if !about.is_file() {
        return Err(wrong_type(source, &about, "a file"));
    }
    match root.look(target)? {
        Some(found) if found.is_dir() => {
            return Err(wrong_type(target, &found, "a file"));
        }
        Some(_) if !overwrite => {
            return Err(StepError::Exists {
                path: shown(target),
            });
        }
        Some(found) if found.identity == about.identity => {
            return Err(StepError::OntoItself {
                path: shown(target),
            });
        }
        _ => {}
    }
    let how = Open::Replace(masked(about.mode));
    root.copy(source, target, how)
        .map_err(failed("write", target))
}
