//! A file of the host that a parent is: its digest, and whether it stayed what it was.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use amiforge_source::SourceError;
use amiforge_types::{Digest, Hasher};
use rustix::fs::{Mode, OFlags};

use crate::error::{Contextual, EngineError, ErrorKind};

/// Which file it was, and when it was last written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of an open file.
    pub(super) fn of(file: &File) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            bytes: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// The stamp of a regular file, opened; `asked` is what the recipe calls it.
    pub(super) fn open(path: &Path, asked: &str) -> Result<(File, Self), EngineError> {
        let context = || format!("cannot read the parent {asked}");
        // A named pipe would wait for its writer; it is no regular file, as is seen next.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())
            .map(File::from)
            .map_err(|error| {
                let source = SourceError::Io {
                    path: path.to_owned(),
                    source: error.into(),
                };
                let hint = Some("paths start from the folder of the recipe");
                EngineError::wrap(ErrorKind::Invalid, context(), source, hint)
            })?;
        let meta = file.metadata().or_fail(ErrorKind::Invalid, context)?;
        if !meta.is_file() {
            let what = if meta.is_dir() {
                "a folder"
            } else {
                "no regular file"
            };
            let message = format!("{}: {} is {what}", context(), path.display());
            return Err(EngineError::new(ErrorKind::Invalid, message));
        }
        let stamp = Self::of(&file).or_fail(ErrorKind::Invalid, context)?;
        Ok((file, stamp))
    }

    /// The stamp and SHA-256 of a regular file.
    pub(super) fn with_digest(path: &Path, asked: &str) -> Result<(Self, Digest), EngineError> {
        let (file, stamp) = Self::open(path, asked)?;
        let digest = sha256(file).or_fail(ErrorKind::Failed, || {
            format!("cannot read {}", path.display())
        })?;
        stamp.check(path)?;
        Ok((stamp, digest))
    }

    /// Fails when the file at the path is another, or was written to.
    pub(super) fn check(self, path: &Path) -> Result<(), EngineError> {
        let context = || format!("cannot read {}", path.display());
        let file = File::open(path).or_fail(ErrorKind::Failed, context)?;
        if Self::of(&file).or_fail(ErrorKind::Failed, context)? == self {
            return Ok(());
        }
        let message = format!("{} changed while it was read", path.display());
        Err(EngineError::new(ErrorKind::Failed, message))
    }
}

/// Fails when the recipe names another digest than the file has.
pub(super) fn check_digest(
    path: &Path,
    wanted: Option<Digest>,
    got: Digest,
    asked: &str,
) -> Result<(), EngineError> {
    match wanted {
        Some(expected) if expected != got => {
            let what = path.display().to_string();
            let error = SourceError::OtherFile {
                what,
                expected,
                got,
            };
            let context = format!("cannot use the parent {asked}");
            let hint = "name the digest of the file as it is now, if you trust it";
            Err(EngineError::wrap(
                ErrorKind::Failed,
                context,
                error,
                Some(hint),
            ))
        }
        _ => Ok(()),
    }
}

fn sha256(mut file: File) -> std::io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => hasher.update(&buf[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
