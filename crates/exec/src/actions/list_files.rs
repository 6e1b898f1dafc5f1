//! `ListFiles`: the files of folders, sorted by path.
//! Reference: AWSTOE action modules, ListFiles. Whatever is no folder is listed, names with a
//! leading dot too; links to folders are folders, and are not entered.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use amiforge_recipe::actions::ListFiles;

use super::files::{shown, wildcard};
use super::{Action, MAX_OUTPUT, Outputs, StepCx, StepError};

impl Action for Vec<ListFiles> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let mut all = Vec::new();
        for entry in self {
            let path = cx.full_path(&entry.path);
            cx.about(&path);
            cx.root.existing_folder("list", &path)?;
            let mut files = Vec::new();
            list(Path::new(&path), entry, cx, &mut files)?;
            files.sort();
            let files = files.join(",");
            let size = u64::try_from(files.len()).unwrap_or(u64::MAX);
            if size > MAX_OUTPUT {
                return Err(StepError::TooLarge {
                    path: format!("the list of {path}"),
                    size,
                    limit: MAX_OUTPUT,
                });
            }
            all.push(Outputs::from([("files".to_owned(), files)]));
        }
        Ok(all)
    }
}

fn list(
    folder: &Path,
    entry: &ListFiles,
    cx: &StepCx<'_>,
    files: &mut Vec<String>,
) -> Result<(), StepError> {
    cx.check_deadline()?;
    for (path, found) in cx.root.children(folder)? {
        if found.is_dir() {
            if entry.recursive {
                list(&path, entry, cx, files)?;
            }
            continue;
        }
        // A link that leads nowhere, or round in a circle, is no folder.
        let link = found.is_link();
        if link && matches!(cx.root.look(&path), Ok(Some(to)) if to.is_dir()) {
            continue;
        }
        let name = path.file_name().unwrap_or_default().as_bytes();
        let pattern = entry.pattern.as_deref().unwrap_or("*");
        if !wildcard(pattern.as_bytes(), name) {
            continue;
        }
        let text = path
            .to_str()
            .ok_or_else(|| StepError::NotUtf8Name { path: shown(&path) })?;
        files.push(text.to_owned());
    }
    Ok(())
}
