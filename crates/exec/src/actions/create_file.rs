//! `CreateFile`: writes text files.
//! Reference: AWSTOE action modules, CreateFile.

use amiforge_recipe::actions::CreateFile;

use super::files::failed;
use super::{Action, Outputs, StepCx, StepError};
use crate::root::{Open, Root};

impl Action for Vec<CreateFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for file in self {
            cx.check_deadline()?;
            let path = cx.path(&file.path);
            cx.about(&path);
            create(cx.root, file, &path)?;
        }
        Ok(Vec::new())
    }
}

fn create(root: &dyn Root, file: &CreateFile, path: &str) -> Result<(), StepError> {
    match root.look(path)? {
        Some(found) if found.is_dir() => {
            return Err(StepError::WrongType {
                path: path.to_owned(),
                is: "a folder",
                wanted: "a file",
            });
        }
        Some(_) if !file.overwrite => {
            return Err(StepError::Exists {
                path: path.to_owned(),
            });
        }
        _ => {}
    }
    let bytes = file.encoding.encode(&file.content)?;
    root.make_parents(path)?;
    // 0666 less the mask of 022. An existing file keeps its mode, as it does for any program.
    root.write(path.as_ref(), Open::Replace(0o644), &bytes)
        .map_err(failed("write", path))?;
    root.set_attributes(
        path,
        file.owner.as_deref(),
        file.group.as_deref(),
        file.permissions,
    )
}
