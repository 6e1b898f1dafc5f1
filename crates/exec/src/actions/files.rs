//! What the actions on files share.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use amiforge_recipe::actions::FileMode;

use super::{StepCx, StepError};
use crate::executor::accounts;
use crate::root::{FileKind, Metadata, Root};
use crate::spec::UMASK;

pub(super) fn failed(
    action: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> StepError {
    let path = shown(path.as_ref());
    move |source| StepError::File {
        action,
        path,
        source,
    }
}

/// A path for messages; bytes that are no text are escaped.
pub(super) fn shown(path: &Path) -> String {
    path.to_str().map_or_else(
        || path.as_os_str().as_bytes().escape_ascii().to_string(),
        str::to_owned,
    )
}

fn found(metadata: io::Result<Metadata>, path: &Path) -> Result<Option<Metadata>, StepError> {
    match metadata {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("look at", path)(e)),
    }
}

/// What it is, for messages.
pub(super) fn kind(metadata: &Metadata) -> &'static str {
    match metadata.kind {
        FileKind::File => "a file",
        FileKind::Folder => "a folder",
        FileKind::Link => "a link",
        FileKind::Pipe => "a pipe",
        FileKind::Socket => "a socket",
        FileKind::BlockDevice | FileKind::CharacterDevice => "a device",
    }
}

pub(super) fn wrong_type(path: impl AsRef<Path>, is: &Metadata, wanted: &'static str) -> StepError {
    StepError::WrongType {
        path: shown(path.as_ref()),
        is: kind(is),
        wanted,
    }
}

/// Mode of a new file: `mode` less the mask.
pub(super) fn masked(mode: u32) -> u32 {
    mode & 0o777 & !u32::from(UMASK)
}

impl dyn Root + '_ {
    /// What is at the path, links followed; `None` for nothing, also where a link leads nowhere.
    pub(super) fn look(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, StepError> {
        found(self.metadata(path.as_ref()), path.as_ref())
    }

    /// What is at the path itself, be it a link.
    pub(super) fn look_here(&self, path: impl AsRef<Path>) -> Result<Option<Metadata>, StepError> {
        found(self.symlink_metadata(path.as_ref()), path.as_ref())
    }

    /// A regular file that must be there, links followed. To open anything else may wait for ever.
    pub(super) fn existing_file(
        &self,
        action: &'static str,
        path: &str,
    ) -> Result<Metadata, StepError> {
        let found = self.metadata(path.as_ref());
        let found = found.map_err(failed(action, path))?;
        if found.is_file() {
            Ok(found)
        } else {
            Err(wrong_type(path, &found, "a file"))
        }
    }

    /// A folder that must be there, links followed.
    pub(super) fn existing_folder(
        &self,
        action: &'static str,
        path: &str,
    ) -> Result<(), StepError> {
        let found = self.metadata(path.as_ref());
        let found = found.map_err(failed(action, path))?;
        if found.is_dir() {
            Ok(())
        } else {
            Err(wrong_type(path, &found, "a folder"))
        }
    }

    /// What is in a folder, sorted by name, with what each is; links are not followed.
    pub(super) fn children(&self, folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, StepError> {
        let mut all = Vec::new();
        for name in self.read_dir(folder).map_err(failed("list", folder))? {
            let path = folder.join(name);
            // Another process may have taken it away.
            if let Some(found) = self.look_here(&path)? {
                all.push((path, found));
            }
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    pub(super) fn make_parents(&self, path: impl AsRef<Path>) -> Result<(), StepError> {
        match path.as_ref().parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.make_folders(parent),
            _ => Ok(()),
        }
    }

    /// Makes a folder and those above it with 0777 less the mask.
    pub(super) fn make_folders(&self, path: impl AsRef<Path>) -> Result<(), StepError> {
        let path = path.as_ref();
        self.make_each(path)
            .map_err(failed("create the folder", path))
    }

    fn make_each(&self, path: &Path) -> io::Result<()> {
        let make = || self.create_dir(path, masked(0o777));
        let error = match make() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = path.parent().filter(|p| !p.as_os_str().is_empty());
                let Some(above) = above else {
                    return Err(error);
                };
                self.make_each(above)?;
                match make() {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        match self.metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            _ => Err(error),
        }
    }

    /// Sets the mode, links followed.
    pub(super) fn give_mode(&self, path: impl AsRef<Path>, mode: u32) -> Result<(), StepError> {
        let path = path.as_ref();
        self.set_mode(path, mode)
            .map_err(failed("set the permissions of", path))
    }

    /// Changes owner and group, as far as they are given.
    pub(super) fn give_owner(
        &self,
        path: impl AsRef<Path>,
        follow: bool,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), StepError> {
        let path = path.as_ref();
        self.chown(path, follow, uid, gid)
            .map_err(failed("change the owner of", path))
    }

    /// Gives the file its owner, group and permissions, as far as they are asked for.
    pub(super) fn set_attributes(
        &self,
        path: &str,
        owner: Option<&str>,
        group: Option<&str>,
        permissions: Option<FileMode>,
    ) -> Result<(), StepError> {
        let user = owner.map(|name| accounts::user(self, name)).transpose()?;
        let gid = group.map(|name| accounts::group(self, name)).transpose()?;
        if user.is_some() || gid.is_some() {
            self.give_owner(path, true, user.map(|user| user.uid), gid)?;
        }
        // After the owner: changing that clears the set-id bits.
        permissions.map_or(Ok(()), |FileMode(mode)| {
            self.give_mode(path, u32::from(mode))
        })
    }

    /// What a path with `*` in its last part means, sorted: the entries that `wanted` accepts. A name
    /// that starts with a dot only matches a pattern that does.
    pub(super) fn matches(
        &self,
        pattern: &str,
        wanted: &dyn Fn(&Path, &Metadata) -> Result<bool, StepError>,
    ) -> Result<Vec<PathBuf>, StepError> {
        let (folder, last) = match pattern.rsplit_once('/') {
            Some((folder, last)) => (format!("{folder}/"), last),
            None => (".".to_owned(), pattern),
        };
        let mut all = Vec::new();
        for (path, found) in self.children(Path::new(&folder))? {
            let name = path.file_name().unwrap_or_default().as_bytes();
            let hidden = name.starts_with(b".") && !last.starts_with('.');
            if !hidden && wildcard(last.as_bytes(), name) && wanted(&path, &found)? {
                all.push(path);
            }
        }
        Ok(all)
    }
}

/// Visits all below a folder, what is in a folder before the folder itself. Links are visited and
/// not followed.
pub(super) fn below(
    folder: &Path,
    cx: &StepCx<'_>,
    visit: &mut dyn FnMut(&Path, &Metadata) -> Result<(), StepError>,
) -> Result<(), StepError> {
    for (path, found) in cx.root.children(folder)? {
        cx.check_deadline()?;
        if found.is_dir() {
            below(&path, cx, visit)?;
        }
        visit(&path, &found)?;
    }
    Ok(())
}

/// `*` stands for any number of bytes.
pub(super) fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|b| *b == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&[u8]> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        let at = if part.is_empty() {
            Some(0)
        } else {
            rest.windows(part.len()).position(|w| w == part)
        };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        let all: &[(&str, &str, bool)] = &[
            ("*", "", true),
            ("*", "abc", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("aba*ba", "aba", false),
            ("a*b*c", "a-b-b-c", true),
            ("a**c", "axc", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
        ];
        for (pattern, name, expected) in all {
            assert_eq!(
                wildcard(pattern.as_bytes(), name.as_bytes()),
                *expected,
                "{pattern} {name}"
            );
        }
    }
}
