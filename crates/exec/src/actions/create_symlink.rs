//! `CreateSymlink`: makes symbolic links.
//! Reference: AWSTOE action modules, CreateSymlink. A relative target is kept as it is written and
//! starts in the link's folder, as with ln(1).

use std::path::{Path, PathBuf};

use amiforge_recipe::actions::CreateSymlink;

use super::files::{failed, wrong_type};
use super::{Action, Outputs, StepCx, StepError};
use crate::root::Root;

impl Action for Vec<CreateSymlink> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.full_path(&entry.path);
            cx.about(&format!("{path} to {}", entry.target));
            create(
                cx.root,
                path.trim_end_matches('/'),
                &entry.target,
                entry.force,
            )?;
        }
        Ok(Vec::new())
    }
}

fn create(root: &dyn Root, path: &str, target: &str, force: bool) -> Result<(), StepError> {
    let before = root.look_here(path)?;
    if let Some(before) = &before {
        if !before.is_link() {
            return Err(wrong_type(path, before, "a link"));
        }
        if !force {
            return Err(StepError::LinkExists {
                path: path.to_owned(),
            });
        }
    }
    root.make_parents(path)?;
    let no_target = || StepError::NoTarget {
        path: path.to_owned(),
        target: target.to_owned(),
    };
    // Through the folder as it is, be that behind a link: `..` of the target is meant from there.
    let leads_to: PathBuf = Path::new(path)
        .parent()
        .unwrap_or(Path::new("/"))
        .join(target);
    if root.look(&leads_to)?.is_none() {
        return Err(no_target());
    }
    if before.is_none() {
        return root
            .symlink(target.as_ref(), path.as_ref())
            .map_err(failed("create the link", path));
    }
    let old = root
        .read_link(path.as_ref())
        .map_err(failed("read", path))?;
    root.remove_file(path.as_ref())
        .map_err(failed("replace", path))?;
    // The target may have been there by the old link alone; then the old one is right.
    if root.look(&leads_to)?.is_none() {
        root.symlink(&old, path.as_ref())
            .map_err(failed("create the link", path))?;
        return Err(no_target());
    }
    root.symlink(target.as_ref(), path.as_ref())
        .map_err(failed("create the link", path))
}
