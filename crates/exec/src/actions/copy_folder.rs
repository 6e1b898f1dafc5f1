//! `CopyFolder`: copies folders with all below them, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, CopyFolder. An existing folder is added to.

use std::collections::BTreeMap;
use std::path::Path;

use amiforge_recipe::actions::{CopyFolder, Transfer};

use super::files::{failed, shown, wrong_type};
use super::transfer::{Put, folder_target, not_within, pairs};
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<CopyFolder> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let root = cx.root;
        for CopyFolder(copy) in self {
            let wanted = |path: &Path, _: &_| Ok(root.look(path)?.is_some_and(|m| m.is_dir()));
            for (source, target) in pairs(cx, &copy.source, &copy.destination, &wanted)? {
                copy_one(cx, copy, &source, &target)?;
            }
        }
        Ok(Vec::new())
    }
}

fn copy_one(
    cx: &StepCx<'_>,
    copy: &Transfer,
    source: &Path,
    target: &Path,
) -> Result<(), StepError> {
    let root = cx.root;
    // A link that is named is the folder it leads to; links below stay links.
    let about = root.metadata(source).map_err(failed("read", source))?;
    if !about.is_dir() {
        return Err(wrong_type(source, &about, "a folder"));
    }
    if !copy.overwrite && root.look_here(target)?.is_some() {
        return Err(StepError::Exists {
            path: shown(target),
        });
    }
    let target = folder_target(root, target.to_owned())?;
    not_within(root, source, &about, &target)?;
    root.make_parents(&target)?;
    let mut put = Put {
        cx,
        keep: false,
        links: BTreeMap::new(),
    };
    put.entry(source, &about, &target)
}
