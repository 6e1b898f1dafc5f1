//! `AppendFile`: adds text to the end of files, links followed.
//! Reference: AWSTOE action modules, AppendFile. No line break is added.

use std::fs::OpenOptions;
use std::io::Write as _;

use amiforge_recipe::actions::AppendFile;

use super::files::{existing_file, failed};
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<AppendFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let bytes = entry.encoding.encode(&entry.content)?;
            existing_file("append to", &path)?;
            // Opened for writing, an unchanged file would become part of the layer.
            if bytes.is_empty() {
                continue;
            }
            OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut out| out.write_all(&bytes))
                .map_err(failed("append to", &path))?;
        }
        Ok(Vec::new())
    }
}
