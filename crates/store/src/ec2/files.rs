//! Private files: only their owner reads them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use super::Ec2Error;
use crate::atomic::{parent_of, sync_dir};

/// A file without a name elsewhere yet, mode 0600; it goes when it is dropped.
pub(super) fn temp_file(dir: &Path) -> Result<tempfile::NamedTempFile, Ec2Error> {
    tempfile::Builder::new()
        .prefix(".new-")
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)
        .map_err(Ec2Error::io("create a temporary file in", dir))
}

/// Makes an empty file; content when it is there, which is not opened.
pub(super) fn make_file(path: &Path) -> Result<(), Ec2Error> {
    let mut options = std::fs::OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Ec2Error::io("create", path)(e))
        }
        _ => Ok(()),
    }
}

/// Writes a file by way of one in `dir`: a crash leaves old or new.
pub(super) fn write_private(dir: &Path, path: &Path, bytes: &[u8]) -> Result<(), Ec2Error> {
    let mut temp = temp_file(dir)?;
    temp.write_all(bytes).map_err(Ec2Error::io("write", path))?;
    temp.as_file()
        .sync_all()
        .map_err(Ec2Error::io("sync", path))?;
    temp.persist(path)
        .map_err(|e| Ec2Error::io("rename a temporary file to", path)(e.error))?;
    Ok(sync_dir(parent_of(path))?)
}

/// Opens a regular file for reading; `None` when it is not there. Links and pipes are not followed or waited for.
pub(super) fn open_regular(path: &Path) -> Result<Option<File>, Ec2Error> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Ec2Error::io("open", path)(e.into())),
    };
    let meta = file.metadata().map_err(Ec2Error::io("look at", path))?;
    if !meta.is_file() {
        return Err(Ec2Error::damaged(path, "not a regular file"));
    }
    Ok(Some(file))
}

/// A whole file of at most `limit` bytes; `None` when it is not there.
pub(super) fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Ec2Error> {
    let Some(file) = open_regular(path)? else {
        return Ok(None);
    };
    read_open(&file, path, limit).map(Some)
}

/// The same of an open file, from its start.
pub(super) fn read_open(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, Ec2Error> {
    let len = file
        .metadata()
        .map_err(Ec2Error::io("look at", path))?
        .len();
    if len > limit {
        return Err(Ec2Error::damaged(
            path,
            format!("{len} bytes, more than {limit}"),
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    (&mut &*file)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(Ec2Error::io("read", path))?;
    Ok(bytes)
}
