//! `MoveFile`: moves files, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, MoveFile. A link moves as a link, as with mv(1).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use amiforge_recipe::actions::MoveFile;

use super::files::{failed, shown, wrong_type};
use super::transfer::{Put, pairs};
use super::{Action, Outputs, StepCx, StepError};
use crate::root::{Metadata, Root};

impl Action for Vec<MoveFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for MoveFile(entry) in self {
            let wanted = |_: &Path, about: &Metadata| Ok(!about.is_dir());
            for (source, target) in pairs(cx, &entry.source, &entry.destination, &wanted)? {
                cx.check_deadline()?;
                move_one(cx, &source, &target, entry.overwrite)?;
            }
        }
        Ok(Vec::new())
    }
}

fn move_one(
    cx: &StepCx<'_>,
    source: &Path,
    target: &Path,
    overwrite: bool,
) -> Result<(), StepError> {
    let root = cx.root;
    let about = root
        .symlink_metadata(source)
        .map_err(failed("move", source))?;
    if about.is_dir() {
        return Err(wrong_type(source, &about, "a file"));
    }
    if let Some(folder) = root.look(target)?.filter(Metadata::is_dir) {
        return Err(wrong_type(target, &folder, "a file"));
    }
    if let Some(before) = root.look_here(target)? {
        if !overwrite {
            return Err(StepError::Exists {
                path: shown(target),
            });
        }
        if before.identity == about.identity {
            return same(root, source, &about, target);
        }
    }
    root.make_parents(target)?;
    match root.rename(source, target) {
        Ok(()) => Ok(()),
        // Another file system: copied with all that belongs to it, then removed.
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            let mut put = Put {
                cx,
                keep: true,
                links: BTreeMap::new(),
            };
            put.entry(source, &about, target)?;
            root.remove_file(source).map_err(failed("remove", source))
        }
        Err(e) => Err(failed("move", source)(e)),
    }
}

/// Of two names of one file the source goes, since rename(2) would leave both. One name is nothing
/// to move.
fn same(root: &dyn Root, source: &Path, about: &Metadata, target: &Path) -> Result<(), StepError> {
    let place = |path: &Path| -> Result<_, StepError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let folder = root.canonicalize(folder).map_err(failed("look at", path))?;
        Ok(folder.join(path.file_name().unwrap_or_default()))
    };
    if about.links < 2 || place(source)? == place(target)? {
        return Err(StepError::OntoItself {
            path: shown(target),
        });
    }
    root.remove_file(source).map_err(failed("move", source))
}
