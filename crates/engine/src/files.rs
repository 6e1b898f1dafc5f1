//! Reading files that somebody else may have put there: never a pipe that nobody writes to, never
//! more than such a file can hold.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Contextual, EngineError, ErrorKind};

/// Longest JSON file of an output folder that is read, in bytes.
pub(crate) const MAX_JSON: u64 = 64 << 20;

/// A file that is not what it is to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be opened or read.
    #[error("{}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder, pipe, socket or device.
    #[error("{}: not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// A link where a file is to be: what it names can be anything of the host.
    #[error("{}: a symbolic link, which may lead out of the folder", .0.display())]
    Link(PathBuf),
    /// Longer than any such file.
    #[error("{}: longer than {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How long it may be.
        limit: u64,
    },
}

impl FileError {
    /// Whether there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Where a file that the user names is written: there, or where a link leads. What is no regular file is not replaced.
pub(crate) fn target(path: &Path) -> Result<PathBuf, FileError> {
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let found = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path.to_owned()),
        found => found.map_err(io)?,
    };
    let (path, found) = if found.is_symlink() {
        let end = std::fs::canonicalize(path).map_err(io)?;
        let found = std::fs::metadata(&end).map_err(io)?;
        (end, found)
    } else {
        (path.to_owned(), found)
    };
    if found.is_file() {
        Ok(path)
    } else {
        Err(FileError::NotAFile(path))
    }
}

/// Writes a small file that the user names, whole or not at all.
pub(crate) fn write_target(path: &Path, bytes: &[u8]) -> Result<(), EngineError> {
    let context = || format!("cannot write {}", path.display());
    let target = target(path).or_fail(ErrorKind::Failed, context)?;
    amiforge_store::write_atomic(&target, bytes).or_fail(ErrorKind::Failed, context)
}

/// The bytes of a regular file of at most `limit` bytes.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(io)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLong {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// Refuses a file of an output folder that is none: a manifest names files *of its folder*, and a
/// folder that came from elsewhere must not choose what of this host is opened.
pub(crate) fn check_artifact(path: &Path) -> Result<(), FileError> {
    let meta = std::fs::symlink_metadata(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })?;
    match meta.file_type() {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_symlink() => Err(FileError::Link(path.to_owned())),
        _ => Err(FileError::NotAFile(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_bounded_length_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(read_file(&file, 5).unwrap(), b"12345");
        assert!(matches!(
            read_file(&file, 4),
            Err(FileError::TooLong { .. })
        ));
        assert!(
            read_file(&dir.path().join("no"), 4)
                .unwrap_err()
                .is_absent()
        );
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for other in [&pipe, dir.path()] {
            assert!(matches!(read_file(other, 4), Err(FileError::NotAFile(_))));
            assert!(matches!(check_artifact(other), Err(FileError::NotAFile(_))));
        }
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(check_artifact(&link), Err(FileError::Link(_))));
        check_artifact(&file).unwrap();
    }
}
