//! Whole files, old or new.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::StoreError;

/// Writes `bytes` to `path` so that a crash leaves the old file or the new one, complete: a
/// temporary file in the same directory, fsync, rename, fsync of the directory. Mode 0644 less umask.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    write_atomic_by(parent_of(path), path, bytes)
}

/// The same by way of a file in `dir`, on the same file system: a session's own goes with it, however that ends.
pub(crate) fn write_atomic_by(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut temp = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(dir)
        .map_err(StoreError::io("create a temporary file for", path))?;
    temp.write_all(bytes)
        .map_err(StoreError::io("write", path))?;
    temp.as_file()
        .sync_all()
        .map_err(StoreError::io("sync", path))?;
    temp.persist(path)
        .map_err(|e| StoreError::io("rename a temporary file to", path)(e.error))?;
    sync_dir(parent_of(path))
}

/// Makes renames in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(StoreError::io("sync", dir))
}

pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."))
}
