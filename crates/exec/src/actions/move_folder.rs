//! `MoveFolder`: moves folders with all below them, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, MoveFolder. An existing folder is added to. What cannot be
//! renamed (another file system, or a folder of a lower layer of an overlay) is copied with all
//! that belongs to it, and goes only when the copy is whole.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use amiforge_recipe::actions::{MoveFolder, Transfer};

use super::files::{failed, shown, wrong_type};
use super::transfer::{Put, folder_target, not_within, pairs};
use super::{Action, Outputs, StepCx, StepError};
use crate::root::{Metadata, Root};

impl Action for Vec<MoveFolder> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let root = cx.root;
        for MoveFolder(entry) in self {
            let wanted = |path: &Path, _: &_| Ok(root.look(path)?.is_some_and(|m| m.is_dir()));
            for (source, target) in pairs(cx, &entry.source, &entry.destination, &wanted)? {
                cx.check_deadline()?;
                move_one(cx, entry, &source, &target)?;
            }
        }
        Ok(Vec::new())
    }
}

fn move_one(
    cx: &StepCx<'_>,
    entry: &Transfer,
    source: &Path,
    target: &Path,
) -> Result<(), StepError> {
    let root = cx.root;
    let folder = root.metadata(source).map_err(failed("move", source))?;
    if !folder.is_dir() {
        return Err(wrong_type(source, &folder, "a folder"));
    }
    // Of a link to a folder the link moves.
    let about = root
        .symlink_metadata(source)
        .map_err(failed("move", source))?;
    // Without `.` and `..` at its end: by such a name no folder can be taken away.
    let source = &match about.is_dir() {
        true => root.canonicalize(source).map_err(failed("move", source))?,
        false => source.to_owned(),
    };
    if !entry.overwrite && root.look_here(target)?.is_some() {
        return Err(StepError::Exists {
            path: shown(target),
        });
    }
    let target = &folder_target(root, target.to_owned())?;
    not_within(root, source, &folder, target)?;
    let before = root.look_here(target)?;
    if let Some(before) = &before {
        above(root, source, target, before)?;
    }
    root.make_parents(target)?;
    // Renamed onto a folder it would take its place, empty or not at all.
    if before.is_none() {
        match root.rename(source, target) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {}
            Err(e) => return Err(failed("move", source)(e)),
        }
    }
    let mut put = Put {
        cx,
        keep: true,
        links: BTreeMap::new(),
    };
    put.entry(source, &about, target)?;
    let removed = if about.is_dir() {
        root.remove_dir_all(source)
    } else {
        root.remove_file(source)
    };
    removed.map_err(failed("remove", source))
}

/// Refuses a target that holds the source: what moved out of it could land in it, and go with it.
fn above(root: &dyn Root, source: &Path, target: &Path, found: &Metadata) -> Result<(), StepError> {
    let source = root
        .canonicalize(source)
        .map_err(failed("look at", source))?;
    for folder in source.ancestors().skip(1) {
        if root
            .look(folder)?
            .is_some_and(|f| f.identity == found.identity)
        {
            return Err(StepError::OntoParent {
                source_path: shown(&source),
                target: shown(target),
            });
        }
    }
    Ok(())
}
