//! `SetFileEncoding`: converts text files from UTF-8, links followed.
//! Reference: AWSTOE action modules, SetFileEncoding. A byte order mark is text like any other: it
//! is written in the new encoding where the file has one, and never added.

use amiforge_recipe::actions::{Encoding, SetFileEncoding};

use super::files::failed;
use super::{Action, Outputs, StepCx, StepError};
use crate::root::{self, Open};

/// Bytes of a file that is converted, which happens in memory.
const MAX_CONVERTED: u64 = 256 << 20;

impl Action for Vec<SetFileEncoding> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let size = cx.root.existing_file("read", &path)?.len;
            if size > MAX_CONVERTED {
                return Err(StepError::TooLarge {
                    path,
                    size,
                    limit: MAX_CONVERTED,
                });
            }
            let bytes =
                root::read(cx.root, path.as_ref(), MAX_CONVERTED).map_err(failed("read", &path))?;
            let text = Encoding::Utf8.decode(&bytes);
            let text = text.map_err(|source| StepError::NotText {
                path: path.clone(),
                source,
            })?;
            let converted = entry.encoding.encode(&text)?;
            // In place: its owner, mode and other names stay.
            if converted != bytes {
                cx.root
                    .write(path.as_ref(), Open::Replace(0o666), &converted)
                    .map_err(failed("write", &path))?;
            }
        }
        Ok(Vec::new())
    }
}
