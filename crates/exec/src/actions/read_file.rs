//! `ReadFile`: the text of files, links followed.
//! Reference: AWSTOE action modules, ReadFile. A byte order mark is not part of the content.

use amiforge_recipe::actions::{BYTE_ORDER_MARK, ReadFile};

use super::files::failed;
use super::{Action, MAX_OUTPUT, Outputs, StepCx, StepError};
use crate::MAX_LINE;
use crate::event::ChildEvent;
use crate::root;

impl Action for Vec<ReadFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        let mut all = Vec::new();
        for entry in self {
            cx.check_deadline()?;
            let path = cx.path(&entry.path);
            cx.about(&path);
            let size = cx.root.existing_file("read", &path)?.len;
            if size > MAX_OUTPUT {
                return Err(StepError::TooLarge {
                    path,
                    size,
                    limit: MAX_OUTPUT,
                });
            }
            let bytes =
                root::read(cx.root, path.as_ref(), MAX_OUTPUT).map_err(failed("read", &path))?;
            let text = entry.encoding.decode(&bytes);
            let text = text.map_err(|source| StepError::NotText { path, source })?;
            let content = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
            if entry.print && cx.loud {
                print(content, cx);
            }
            all.push(Outputs::from([("content".to_owned(), content.to_owned())]));
        }
        Ok(all)
    }
}

/// Long lines are cut, as those of commands are.
fn print(content: &str, cx: &mut StepCx<'_>) {
    for line in content.lines() {
        let line = line[..line.floor_char_boundary(MAX_LINE)].to_owned();
        (cx.sink)(ChildEvent::Stdout { line });
    }
}
