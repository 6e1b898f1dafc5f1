//! `AppendFile`: adds text to the end of files, links followed.
//! Reference: AWSTOE action modules, AppendFile. No line break is added.

use amiforge_recipe::actions::AppendFile;

use super::files::failed;
use super::{Action, Outputs, StepCx, StepError};
use crate::root::Open;

impl Action for Vec<AppendFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let bytes = entry.encoding.encode(&entry.content)?;
            cx.root.existing_file("append to", &path)?;
            // Opened for writing, an unchanged file would become part of the layer.
            if bytes.is_empty() {
                continue;
            }
            cx.root
                .write(path.as_ref(), Open::Append, &bytes)
                .map_err(failed("append to", &path))?;
        }
        Ok(Vec::new())
    }
}
