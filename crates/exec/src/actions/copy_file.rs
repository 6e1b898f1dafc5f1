//! `CopyFile`: copies files, by name or with `*` in the last part.
//! Reference: AWSTOE action modules, CopyFile.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use amiforge_recipe::actions::CopyFile;

use super::files::{failed, look, make_folders, make_parents, masked, matches};
use super::{Action, Outputs, StepCx, StepError};

impl Action for Vec<CopyFile> {
    fn run(&self, cx: &mut StepCx<'_>) -> Result<Vec<Outputs>, StepError> {
        for copy in self {
            let (pattern, destination) = (cx.path(&copy.source), cx.path(&copy.destination));
            cx.about(&format!("{pattern} to {destination}"));
            let into_folder = destination.ends_with('/');
            let sources = if copy.source.contains('*') {
                matches(&pattern)?
            } else {
                vec![pattern.clone()]
            };
            match sources.len() {
                0 => {
                    return Err(StepError::NoMatch { pattern });
                }
                1 => {}
                _ if into_folder => {}
                _ => {
                    return Err(StepError::ManyMatches { pattern });
                }
            }
            for source in &sources {
                cx.check_deadline()?;
                let target = if into_folder {
                    make_folders(&destination)?;
                    let name = source.rsplit('/').next().unwrap_or(source);
                    format!("{destination}{name}")
                } else {
                    make_parents(&destination)?;
                    destination.clone()
                };
                copy_one(source, &target, copy.overwrite)?;
            }
        }
        Ok(Vec::new())
    }
}

/// Copies content, holes not kept. A new file gets the source's mode less the mask and without
/// set-id bits, like cp(1); an existing one keeps its own.
fn copy_one(source: &str, target: &str, overwrite: bool) -> Result<(), StepError> {
    let mut from = File::open(source).map_err(failed("read", source))?;
    let about = from.metadata().map_err(failed("read", source))?;
    if about.is_dir() {
        return Err(StepError::WrongType {
            path: source.to_owned(),
            is: "a folder",
            wanted: "a file",
        });
    }
    match look(target)? {
        Some(found) if found.is_dir() => {
            return Err(StepError::WrongType {
                path: target.to_owned(),
                is: "a folder",
                wanted: "a file",
            });
        }
        Some(_) if !overwrite => {
            return Err(StepError::Exists {
                path: target.to_owned(),
            });
        }
        Some(found) if (found.dev(), found.ino()) == (about.dev(), about.ino()) => {
            return Err(StepError::OntoItself {
                path: target.to_owned(),
            });
        }
        _ => {}
    }
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(masked(about.permissions().mode()))
        .open(target)
        .map_err(failed("write", target))?;
    std::io::copy(&mut from, &mut to).map_err(failed("write", target))?;
    Ok(())
}
