//! Root directories of layers that are in use, and those whose layer was made again meanwhile.
//!
//! ```text
//! roots/<id>/              flock(2), shared: a run has it as a lower directory
//! roots/.gone-<id>-<n>/    was <id>; goes when nobody has it any more
//! ```
//!
//! A layer that is made again gets another root, while a run of another process may be at work on the old one. So that
//! is taken out of its name, which disturbs nobody, and removed only by who has it alone. Nobody waits here: who waited for a
//! root could hold a layer that another one waits for.

use std::fs::File;
use std::path::{Path, PathBuf};

use amiforge_types::LayerId;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::lock::take;
use crate::session::is_same_file;
use crate::{Store, StoreError};

/// Begins the name of a root that has no layer any more.
const GONE: &str = ".gone-";

/// Held while a root is used: it stays as it is. Released when dropped, and by the kernel when the process ends in any way.
#[derive(Debug)]
#[must_use = "the root may be removed when this is dropped"]
pub struct RootUse {
    _dir: File,
}

/// A root that has lost its name and that nobody uses.
#[derive(Debug)]
#[must_use = "somebody else may remove it when this is dropped"]
pub struct GoneRoot {
    path: PathBuf,
    _dir: File,
}

impl GoneRoot {
    /// Where it is now, to be removed in a user namespace.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// The directory of a layer's root, for use; `None` when there is none.
    pub fn use_root(&self, id: LayerId) -> Result<Option<(PathBuf, RootUse)>, StoreError> {
        let path = self.root_path(id);
        loop {
            let Some(dir) = open(&path)? else {
                return Ok(None);
            };
            let taken = take(&dir, FlockOperation::NonBlockingLockShared)
                .map_err(|e| StoreError::io("lock", &path)(e.into()))?;
            // It may have been taken away, and another one put in its place, since it was opened.
            if taken && is_same_file(&dir, &path) {
                return Ok(Some((path, RootUse { _dir: dir })));
            }
            if !path.is_dir() {
                return Ok(None);
            }
            std::thread::yield_now();
        }
    }

    /// Takes a layer's root out of its name: who asks for it from now on finds none. Gives it if nobody uses it; else it
    /// stays until [`Store::gone_roots`] finds it unused. The caller holds the lock of the layer.
    pub fn retire_root(&self, id: LayerId) -> Result<Option<GoneRoot>, StoreError> {
        let path = self.root_path(id);
        for n in 0..u32::MAX {
            let gone = path.with_file_name(format!("{GONE}{id}-{n}"));
            match rustix::fs::renameat_with(CWD, &path, CWD, &gone, RenameFlags::NOREPLACE) {
                Ok(()) => return alone(gone),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                Err(e) => return Err(StoreError::io("rename", path)(e.into())),
            }
        }
        Ok(None)
    }

    /// Roots that have lost their names and that nobody uses any more.
    pub fn gone_roots(&self) -> Result<Vec<GoneRoot>, StoreError> {
        let dir = self.root.join("roots");
        let mut all = Vec::new();
        for entry in fs_err::read_dir(&dir).map_err(StoreError::io("list", &dir))? {
            let name = entry.map_err(StoreError::io("list", &dir))?.file_name();
            if name.to_string_lossy().starts_with(GONE) {
                all.extend(alone(dir.join(name))?);
            }
        }
        Ok(all)
    }
}

fn open(path: &Path) -> Result<Option<File>, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(File::from(dir))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(StoreError::io("open", path)(e.into())),
    }
}

/// A root without a name, if nobody uses it.
fn alone(path: PathBuf) -> Result<Option<GoneRoot>, StoreError> {
    let Some(dir) = open(&path)? else {
        return Ok(None);
    };
    let taken = take(&dir, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| StoreError::io("lock", &path)(e.into()))?;
    Ok(taken.then_some(GoneRoot { path, _dir: dir }))
}

#[cfg(test)]
mod tests {
    use amiforge_types::Digest;

    use super::*;
    use crate::Home;

    #[test]
    fn a_root_in_use_outlives_its_name_and_goes_after_the_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&Home::below(dir.path())).unwrap();
        let id = LayerId(Digest::of(b"layer"));
        assert!(store.use_root(id).unwrap().is_none());
        assert!(store.retire_root(id).unwrap().is_none());
        let make = |text: &str| {
            fs_err::create_dir(store.root_path(id)).unwrap();
            fs_err::write(store.root_path(id).join("file"), text).unwrap();
        };
        make("old");
        let (path, first) = store.use_root(id).unwrap().unwrap();
        let (_, second) = store.use_root(id).unwrap().unwrap();
        let mut seen = fs_err::File::open(path.join("file")).unwrap();
        assert!(store.retire_root(id).unwrap().is_none(), "it is in use");
        assert!(store.use_root(id).unwrap().is_none());
        make("new");
        let (path, third) = store.use_root(id).unwrap().unwrap();
        assert_eq!(fs_err::read_to_string(path.join("file")).unwrap(), "new");
        drop(first);
        assert!(store.gone_roots().unwrap().is_empty());
        let mut text = String::new();
        std::io::Read::read_to_string(&mut seen, &mut text).unwrap();
        assert_eq!(text, "old");
        drop(second);
        let gone = store.gone_roots().unwrap();
        assert_eq!(gone.len(), 1);
        assert_eq!(
            fs_err::read_to_string(gone[0].path().join("file")).unwrap(),
            "old"
        );
        // One who has it alone, no second one.
        assert!(store.gone_roots().unwrap().is_empty());
        drop((gone, third));
        let gone = store.retire_root(id).unwrap().unwrap();
        assert_ne!(gone.path(), store.gone_roots().unwrap()[0].path());
    }
}
