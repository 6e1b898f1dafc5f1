//! What the actions on files share.

use std::ffi::OsString;
use std::fs::{Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use amiforge_recipe::actions::FileMode;
use rustix::thread::Gid;

use super::StepError;
use crate::executor::accounts;

/// File mode mask that the modes of new files are less by.
const UMASK: u32 = 0o022;

pub(super) fn failed(action: &'static str, path: &str) -> impl FnOnce(io::Error) -> StepError {
    let path = path.to_owned();
    move |source| StepError::File {
        action,
        path,
        source,
    }
}

/// What is at the path, links followed; `None` for nothing.
pub(super) fn look(path: &str) -> Result<Option<Metadata>, StepError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("look at", path)(e)),
    }
}

pub(super) fn make_parents(path: &str) -> Result<(), StepError> {
    match Path::new(path.trim_end_matches('/')).parent() {
        Some(parent) if !parent.as_os_str().is_empty() => make_folders(&parent.to_string_lossy()),
        _ => Ok(()),
    }
}

/// Makes a folder and those above it with 0777 less the mask.
pub(super) fn make_folders(path: &str) -> Result<(), StepError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o777 & !UMASK)
        .create(path)
        .map_err(failed("create the folder", path))
}

/// Mode of a new file: `mode` less the mask.
pub(super) fn masked(mode: u32) -> u32 {
    mode & 0o777 & !UMASK
}

pub(super) fn set_mode(path: &str, mode: u32) -> Result<(), StepError> {
    std::fs::set_permissions(path, Permissions::from_mode(mode))
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

/// The regular files that a path with `*` in its last part means, sorted; a name that starts with a
/// dot only matches a pattern that does.
pub(super) fn matches(pattern: &str) -> Result<Vec<String>, StepError> {
    let (folder, last) = match pattern.rsplit_once('/') {
        Some((folder, last)) => (format!("{folder}/"), last),
        None => (String::new(), pattern),
    };
    let listed = if folder.is_empty() { "." } else { &folder };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(listed).map_err(failed("list", listed))? {
        let name: OsString = entry.map_err(failed("list", listed))?.file_name();
        // Names that are no text cannot be meant by a document, which is text.
        let Some(name) = name.to_str() else { continue };
        let hidden = name.starts_with('.') && !last.starts_with('.');
        let path = format!("{folder}{name}");
        if !hidden
            && wildcard(last.as_bytes(), name.as_bytes())
            && look(&path)?.is_some_and(|m| m.is_file())
        {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// `*` stands for any number of bytes.
fn wildcard(pattern: &[u8], name: &[u8]) -> bool {
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
