//! What the actions that copy and move have in common.
//!
//! A tree is put at a place entry by entry. Folders that exist there are added to and keep their
//! owner and mode, anything else that exists is replaced, and a folder never replaces a file nor a
//! file a folder. Links in the tree stay links: nothing is read or written through one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::files::{failed, masked, shown, wrong_type};
use super::{StepCx, StepError};
use crate::root::{FileKind, Metadata, Open, Root};

/// Sources with their targets. `wanted` says which entries a wildcard means; a `destination` that
/// ends in `/` is a folder and keeps the source's name.
pub(super) fn pairs(
    cx: &mut StepCx<'_>,
    source: &str,
    destination: &str,
    wanted: &dyn Fn(&Path, &Metadata) -> Result<bool, StepError>,
) -> Result<Vec<(PathBuf, PathBuf)>, StepError> {
    let (pattern, destination) = (cx.path(source), cx.path(destination));
    cx.about(&format!("{pattern} to {destination}"));
    let into_folder = destination.ends_with('/');
    let sources = if source.contains('*') {
        cx.root.matches(&pattern, wanted)?
    } else {
        vec![PathBuf::from(&pattern)]
    };
    match sources.len() {
        0 => return Err(StepError::NoMatch { pattern }),
        1 => {}
        _ if into_folder => {}
        _ => return Err(StepError::ManyMatches { pattern }),
    }
    let target = |source: PathBuf| {
        if !into_folder {
            return Ok((source, PathBuf::from(&destination)));
        }
        let name = source.file_name().ok_or_else(|| StepError::NoName {
            path: shown(&source),
        })?;
        let target = Path::new(&destination).join(name);
        Ok((source, target))
    };
    sources.into_iter().map(target).collect()
}

/// The folder that a target means: of a link to a folder, that folder.
pub(super) fn folder_target(root: &dyn Root, target: PathBuf) -> Result<PathBuf, StepError> {
    match root.look(&target)? {
        Some(found) if found.is_dir() => root
            .canonicalize(&target)
            .map_err(failed("look at", &target)),
        _ => Ok(target),
    }
}

/// Refuses a target that is the folder `source` or is inside it; what has not been made yet counts.
pub(super) fn not_within(
    root: &dyn Root,
    source: &Path,
    about: &Metadata,
    target: &Path,
) -> Result<(), StepError> {
    let mut above = target;
    let deepest = loop {
        match root.canonicalize(above) {
            Ok(path) => break path,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at", target)(e)),
        }
        match above.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => above = parent,
            _ => return Ok(()),
        }
    };
    for folder in deepest.ancestors() {
        let found = root.look(folder)?;
        if found.is_none_or(|found| found.identity != about.identity) {
            continue;
        }
        return Err(if folder == deepest && above == target {
            StepError::OntoItself {
                path: shown(target),
            }
        } else {
            StepError::IntoItself {
                source_path: shown(source),
                target: shown(target),
            }
        });
    }
    Ok(())
}

/// How a tree is put somewhere.
pub(super) struct Put<'a, 'cx> {
    pub(super) cx: &'a StepCx<'cx>,
    /// Whether owners, modes, times, attributes and hard links are kept. Without, what is new
    /// belongs to the one who copies, with the mode less the mask and the set-id bits.
    pub(super) keep: bool,
    /// Where the first name of a file with several is.
    pub(super) links: BTreeMap<(u64, u64), PathBuf>,
}

impl Put<'_, '_> {
    /// Puts what is at `from`, which is `about`, at `to`, whose parent is there.
    pub(super) fn entry(
        &mut self,
        from: &Path,
        about: &Metadata,
        to: &Path,
    ) -> Result<(), StepError> {
        self.cx.check_deadline()?;
        let root = self.cx.root;
        let before = root.look_here(to)?;
        if about.is_dir() {
            return self.folder(from, about, to, before);
        }
        if let Some(before) = before {
            if before.is_dir() {
                return Err(wrong_type(to, &before, "a file"));
            }
            if before.identity == about.identity && about.links < 2 {
                return Err(StepError::OntoItself { path: shown(to) });
            }
            root.remove_file(to).map_err(failed("replace", to))?;
        }
        if self.keep && about.links > 1 {
            if let Some(first) = self.links.get(&about.identity) {
                return root.hard_link(first, to).map_err(failed("write", to));
            }
            self.links.insert(about.identity, to.to_owned());
        }
        match about.kind {
            FileKind::Link => {
                let target = root.read_link(from).map_err(failed("read", from))?;
                root.symlink(&target, to)
                    .map_err(failed("create the link", to))?;
            }
            FileKind::File => {
                let how = Open::New(masked(about.mode));
                root.copy(from, to, how).map_err(failed("write", to))?;
            }
            _ => {
                let mode = masked(about.mode);
                root.make_node(to, about, mode)
                    .map_err(failed("write", to))?;
            }
        }
        if self.keep {
            attributes(root, from, about, to)?;
        }
        Ok(())
    }

    fn folder(
        &mut self,
        from: &Path,
        about: &Metadata,
        to: &Path,
        before: Option<Metadata>,
    ) -> Result<(), StepError> {
        let root = self.cx.root;
        let new = match before {
            // The same folder by another way, such as a bind mount: replacing would remove the source.
            Some(before) if before.identity == about.identity => {
                return Err(StepError::OntoItself { path: shown(to) });
            }
            Some(before) if before.is_dir() => false,
            Some(before) => return Err(wrong_type(to, &before, "a folder")),
            None => true,
        };
        if new {
            // Nobody else's until all is in it.
            root.create_dir(to, 0o700)
                .map_err(failed("create the folder", to))?;
        }
        for (path, about) in root.children(from)? {
            let name = path.file_name().unwrap_or_default();
            self.entry(&path, &about, &to.join(name))?;
        }
        match (new, self.keep) {
            (true, true) => attributes(root, from, about, to),
            (true, false) => root.give_mode(to, masked(about.mode)),
            (false, _) => Ok(()),
        }
    }
}

/// Gives `to` what `from` has besides content: owner, mode, extended attributes, times.
fn attributes(root: &dyn Root, from: &Path, about: &Metadata, to: &Path) -> Result<(), StepError> {
    root.give_owner(to, false, Some(about.uid), Some(about.gid))?;
    if !about.is_link() {
        // After the owner: changing that clears the set-id bits.
        root.give_mode(to, about.mode)?;
    }
    root.copy_attributes(from, to)
        .map_err(failed("set the attributes of", to))?;
    root.set_times(to, about)
        .map_err(failed("set the times of", to))
}
