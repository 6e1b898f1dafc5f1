//! What the actions on files share.

use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use amiforge_recipe::actions::FileMode;
use rustix::thread::Gid;

use super::{StepCx, StepError};
use crate::executor::accounts;

/// File mode mask that the modes of new files are less by.
const UMASK: u32 = 0o022;

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

/// What is at the path, links followed; `None` for nothing, also where a link leads nowhere.
pub(super) fn look(path: impl AsRef<Path>) -> Result<Option<Metadata>, StepError> {
    found(std::fs::metadata(&path), path.as_ref())
}

/// What is at the path itself, be it a link.
pub(super) fn look_here(path: impl AsRef<Path>) -> Result<Option<Metadata>, StepError> {
    found(std::fs::symlink_metadata(&path), path.as_ref())
}

fn found(metadata: io::Result<Metadata>, path: &Path) -> Result<Option<Metadata>, StepError> {
    match metadata {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("look at", path)(e)),
    }
}

/// Which file it is, whatever its name.
pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// What it is, for messages.
pub(super) fn kind(metadata: &Metadata) -> &'static str {
    match metadata.file_type() {
        t if t.is_file() => "a file",
        t if t.is_dir() => "a folder",
        t if t.is_symlink() => "a link",
        t if t.is_fifo() => "a pipe",
        t if t.is_socket() => "a socket",
        _ => "a device",
    }
}

pub(super) fn wrong_type(path: impl AsRef<Path>, is: &Metadata, wanted: &'static str) -> StepError {
    StepError::WrongType {
        path: shown(path.as_ref()),
        is: kind(is),
        wanted,
    }
}

/// A regular file that must be there, links followed. To open anything else may wait for ever.
pub(super) fn existing_file(action: &'static str, path: &str) -> Result<Metadata, StepError> {
    let found = std::fs::metadata(path).map_err(failed(action, path))?;
    if found.is_file() {
        Ok(found)
    } else {
        Err(wrong_type(path, &found, "a file"))
    }
}

/// A folder that must be there, links followed.
pub(super) fn existing_folder(action: &'static str, path: &str) -> Result<(), StepError> {
    let found = std::fs::metadata(path).map_err(failed(action, path))?;
    if found.is_dir() {
        Ok(())
    } else {
        Err(wrong_type(path, &found, "a folder"))
    }
}

/// What is in a folder, sorted by name, with what each is; links are not followed.
pub(super) fn children(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>, StepError> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed("list", folder))? {
        let path = entry.map_err(failed("list", folder))?.path();
        // Another process may have taken it away.
        if let Some(found) = look_here(&path)? {
            all.push((path, found));
        }
    }
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(all)
}

/// Visits all below a folder, what is in a folder before the folder itself. Links are visited and
/// not followed.
pub(super) fn below(
    folder: &Path,
    cx: &StepCx<'_>,
    visit: &mut dyn FnMut(&Path, &Metadata) -> Result<(), StepError>,
) -> Result<(), StepError> {
    for (path, found) in children(folder)? {
        cx.check_deadline()?;
        if found.is_dir() {
            below(&path, cx, visit)?;
        }
        visit(&path, &found)?;
    }
    Ok(())
}

pub(super) fn make_parents(path: impl AsRef<Path>) -> Result<(), StepError> {
    match path.as_ref().parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_folders(parent),
        _ => Ok(()),
    }
}

/// Makes a folder and those above it with 0777 less the mask.
pub(super) fn make_folders(path: impl AsRef<Path>) -> Result<(), StepError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o777 & !UMASK)
        .create(&path)
        .map_err(failed("create the folder", path))
}

/// Mode of a new file: `mode` less the mask.
pub(super) fn masked(mode: u32) -> u32 {
    mode & 0o777 & !UMASK
}

pub(super) fn set_mode(path: impl AsRef<Path>, mode: u32) -> Result<(), StepError> {
    std::fs::set_permissions(&path, Permissions::from_mode(mode))
        .map_err(failed("set the permissions of", path))
}

/// Gives the file its owner, group and permissions, as far as they are asked for.
pub(super) fn set_attributes(
    path: &str,
    owner: Option<&str>,
    group: Option<&str>,
    permissions: Option<FileMode>,
) -> Result<(), StepError> {
    let user = owner.map(accounts::user).transpose()?;
    let gid: Option<Gid> = group.map(accounts::group).transpose()?;
    if user.is_some() || gid.is_some() {
        rustix::fs::chown(path, user.map(|u| u.uid), gid)
            .map_err(|e| failed("change the owner of", path)(e.into()))?;
    }
    // After the owner: changing that clears the set-id bits.
    permissions.map_or(Ok(()), |FileMode(mode)| set_mode(path, u32::from(mode)))
}

/// What a path with `*` in its last part means, sorted: the entries that `wanted` accepts. A name
/// that starts with a dot only matches a pattern that does.
pub(super) fn matches(
    pattern: &str,
    wanted: &dyn Fn(&Path, &Metadata) -> Result<bool, StepError>,
) -> Result<Vec<PathBuf>, StepError> {
    let (folder, last) = match pattern.rsplit_once('/') {
        Some((folder, last)) => (format!("{folder}/"), last),
        None => (".".to_owned(), pattern),
    };
    let mut all = Vec::new();
    for (path, found) in children(Path::new(&folder))? {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let hidden = name.starts_with(b".") && !last.starts_with('.');
        if !hidden && wildcard(last.as_bytes(), name) && wanted(&path, &found)? {
            all.push(path);
        }
    }
    Ok(all)
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
