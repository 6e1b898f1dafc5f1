//! `CreateFile`: writes text files.
//! Reference: AWSTOE action modules, CreateFile.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use amiforge_recipe::actions::CreateFile;

use super::files::{failed, look, make_parents, set_attributes};
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<CreateFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for file in self {
            cx.check_deadline()?;
            let path = cx.path(&file.path);
            cx.about(&path);
            create(file, &path)?;
        }
        Ok(Vec::new())
    }
}

fn create(file: &CreateFile, path: &str) -> Result<(), StepError> {
    match look(path)? {
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
    make_parents(path)?;
    // 0666 less the mask of 022. An existing file keeps its mode, as it does for any program.
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(path)
        .map_err(failed("write", path))?;
    out.write_all(&bytes).map_err(failed("write", path))?;
    drop(out);
    set_attributes(
        path,
        file.owner.as_deref(),
        file.group.as_deref(),
        file.permissions,
    )
}
