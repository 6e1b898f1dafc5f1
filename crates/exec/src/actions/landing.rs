//! A file that is put in place when it is whole: written beside its target, then renamed. Until then,
//! and when it never comes to that, the target is what it was.

use std::fs::Permissions;
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use amiforge_types::{Digest, Hasher};
use rustix::thread::{Gid, Uid};

use super::StepError;
use super::fetch::Receiver;
use super::files::{failed, shown, wrong_type};
use crate::root::{Live, Root};
use crate::spec::MAX_LINKS;

/// Unfinished content with where it is to go.
pub(crate) struct Landing {
    file: tempfile::NamedTempFile,
    target: PathBuf,
    hasher: Hasher,
    bytes: u64,
}

impl Receiver for Landing {
    fn restart(&mut self) -> Result<(), StepError> {
        self.hasher = Hasher::new();
        self.bytes = 0;
        let file = self.file.as_file_mut();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .map_err(failed("write", &self.target))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StepError> {
        self.hasher.update(bytes);
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        self.file
            .write_all(bytes)
            .map_err(failed("write", &self.target))
    }
}

impl Landing {
    /// Begins a file that becomes `target`, whose folder must be there. A link is the file it leads
    /// to.
    pub(crate) fn begin(target: &Path) -> Result<Self, StepError> {
        let target = behind_links(target)?;
        if let Some(found) = live().look(&target)?
            && !found.is_file()
        {
            return Err(wrong_type(&target, &found, "a file"));
        }
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new()
            .prefix(".amiforge-")
            .tempfile_in(folder)
            .map_err(failed("write", &target))?;
        Ok(Self {
            file,
            target,
            hasher: Hasher::new(),
            bytes: 0,
        })
    }

    /// Digest and size of what it has.
    pub(crate) fn content(&mut self) -> (Digest, u64) {
        let hasher = std::mem::take(&mut self.hasher);
        (hasher.finish(), self.bytes)
    }

    /// Puts it in place: with owner and mode of the file that was there, else as any new file.
    pub(crate) fn finish(self) -> Result<(), StepError> {
        let before = live().look(&self.target)?;
        let mode = before.as_ref().map_or(0o644, |m| m.mode & 0o777);
        let file = self.file.as_file();
        if let Some(before) = before {
            let owner = (Uid::from_raw(before.uid), Gid::from_raw(before.gid));
            rustix::fs::fchown(file, Some(owner.0), Some(owner.1))
                .map_err(|e| failed("change the owner of", &self.target)(e.into()))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
            .map_err(failed("set the permissions of", &self.target))?;
        let target = self.target;
        self.file
            .persist(&target)
            .map(|_| ())
            .map_err(|e| failed("write", &target)(e.error))
    }
}

/// Downloads land where the process lives.
fn live() -> &'static dyn Root {
    &Live
}

/// The path that the links at `path` lead to, be anything there or not.
fn behind_links(path: &Path) -> Result<PathBuf, StepError> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match live().look_here(&path)? {
            Some(found) if found.is_link() => {
                let to = std::fs::read_link(&path).map_err(failed("read the link", &path))?;
                path = path.parent().unwrap_or(Path::new("/")).join(to);
            }
            _ => return Ok(path),
        }
    }
    Err(failed("follow the links of", shown(&path))(
        rustix::io::Errno::LOOP.into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_changes_before_the_end_and_owner_and_mode_stay() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("file");
        fs_err::write(&target, "old").unwrap();
        fs_err::set_permissions(&target, Permissions::from_mode(0o640)).unwrap();
        let mut landing = Landing::begin(&target).unwrap();
        landing.write(b"wrong and long").unwrap();
        assert_eq!(fs_err::read(&target).unwrap(), b"old");
        landing.restart().unwrap();
        landing.write(b"new").unwrap();
        landing.finish().unwrap();
        assert_eq!(fs_err::read(&target).unwrap(), b"new");
        let mode = fs_err::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        drop(Landing::begin(&target).unwrap());
        let names: Vec<_> = fs_err::read_dir(dir.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    }

    #[test]
    fn links_are_the_files_they_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("there", &link).unwrap();
        let mut landing = Landing::begin(&link).unwrap();
        landing.write(b"x").unwrap();
        landing.finish().unwrap();
        assert!(fs_err::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs_err::read(dir.path().join("there")).unwrap(), b"x");
        std::os::unix::fs::symlink("round", dir.path().join("round")).unwrap();
        assert!(Landing::begin(&dir.path().join("round")).is_err());
        assert!(Landing::begin(dir.path()).is_err(), "a folder");
        assert!(Landing::begin(Path::new("/dev/null")).is_err(), "a device");
    }
}
