//! `CopyFile`: copies files, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, CopyFile.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use amiforge_recipe::actions::CopyFile;

use super::files::{failed, identity, look, make_parents, masked, shown, wrong_type};
use super::transfer::pairs;
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<CopyFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for copy in self {
            // A link is the file it leads to.
            let wanted = |path: &Path, _: &_| Ok(look(path)?.is_some_and(|m| m.is_file()));
            for (source, target) in pairs(cx, &copy.source, &copy.destination, &wanted)? {
                cx.check_deadline()?;
                make_parents(&target)?;
                copy_one(&source, &target, copy.overwrite)?;
            }
        }
        Ok(Vec::new())
    }
}

/// Copies content, holes not kept. A new file gets the source's mode less the mask and without
/// set-id bits, like cp(1); an existing one keeps its own.
fn copy_one(source: &Path, target: &Path, overwrite: bool) -> Result<(), StepError> {
    let about = std::fs::metadata(source).map_err(failed("read", source))?;
    if !about.is_file() {
        return Err(wrong_type(source, &about, "a file"));
    }
    let mut from = File::open(source).map_err(failed("read", source))?;
    match look(target)? {
        Some(found) if found.is_dir() => {
            return Err(wrong_type(target, &found, "a file"));
        }
        Some(_) if !overwrite => {
            return Err(StepError::Exists {
                path: shown(target),
            });
        }
        Some(found) if identity(&found) == identity(&about) => {
            return Err(StepError::OntoItself {
                path: shown(target),
            });
        }
        _ => {}
    }
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(masked(about.permissions().mode()))
        .open(target)
        .map_err(failed("write", target))?;
    std::io::copy(&mut from, &mut to).map_err(failed("write", target))?;
    Ok(())
}
