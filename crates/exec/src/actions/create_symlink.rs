//! `CreateSymlink`: makes symbolic links.
//! Reference: AWSTOE action modules, CreateSymlink. A relative target is kept as it is written and
//! starts in the link's folder, as with ln(1).

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use amiforge_recipe::actions::CreateSymlink;

use super::files::{failed, look, look_here, make_parents, wrong_type};
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<CreateSymlink> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.full_path(&entry.path);
            cx.about(&format!("{path} to {}", entry.target));
            create(path.trim_end_matches('/'), &entry.target, entry.force)?;
        }
        Ok(Vec::new())
    }
}

fn create(path: &str, target: &str, force: bool) -> Result<(), StepError> {
    let before = look_here(path)?;
    if let Some(before) = &before {
        if !before.file_type().is_symlink() {
            return Err(wrong_type(path, before, "a link"));
        }
        if !force {
            return Err(StepError::LinkExists {
                path: path.to_owned(),
            });
        }
    }
    make_parents(path)?;
    let no_target = || StepError::NoTarget {
        path: path.to_owned(),
        target: target.to_owned(),
    };
    // Through the folder as it is, be that behind a link: `..` of the target is meant from there.
    let leads_to: PathBuf = Path::new(path)
        .parent()
        .unwrap_or(Path::new("/"))
        .join(target);
    if look(&leads_to)?.is_none() {
        return Err(no_target());
    }
    if before.is_none() {
        return symlink(target, path).map_err(failed("create the link", path));
    }
    let old = std::fs::read_link(path).map_err(failed("read", path))?;
    std::fs::remove_file(path).map_err(failed("replace", path))?;
    // The target may have been there by the old link alone; then the old one is right.
    if look(&leads_to)?.is_none() {
        symlink(old, path).map_err(failed("create the link", path))?;
        return Err(no_target());
    }
    symlink(target, path).map_err(failed("create the link", path))
}
