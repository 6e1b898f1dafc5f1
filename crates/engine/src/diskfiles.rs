//! Disk files that an operation leaves where the user says: written beside their place by one pass
//! over the disk, then renamed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use amiforge_disk::{Compression, EmitOptions, Extents, Format, Output, Previous, Subformat};
use amiforge_store::{FileBlob, FileTarget};
use amiforge_types::{BlobTable, Digest};
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::look::threads;
use crate::settings::Engine;

/// Which digests to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Content digest, and SHA-256 of every file.
    Full,
    /// Content digest, and SHA-256 of files that are not raw disks.
    Fast,
    /// None.
    None,
}

/// The files to write and how.
#[derive(Clone, Debug)]
pub struct OutputRequest {
    /// Where to; the extension tells the format.
    pub files: Vec<PathBuf>,
    /// How formats that can are compressed.
    pub compression: Compression,
    /// The kind of file of formats that have several.
    pub subformat: Subformat,
    /// A qcow2 file of earlier: its compressed clusters are taken over where the content is the same.
    pub reuse: Option<PathBuf>,
    /// Which digests.
    pub checksums: Checksums,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFilesReport {
    /// The disks.
    pub files: Vec<DiskFile>,
    /// Identity of the disk's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_digest: Option<Digest>,
    /// Size of the disk in bytes.
    pub virtual_bytes: u64,
}

/// One disk file.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFile {
    /// Where it is.
    pub path: PathBuf,
    /// `raw`, `qcow2`, `vmdk` or `vhd`.
    pub format: Format,
    /// Bytes of the file.
    pub bytes: u64,
    /// Size of the disk in it: some formats round up.
    pub virtual_bytes: u64,
    /// Its SHA-256, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// One file of a request, its format known.
pub(crate) struct Declared<'r> {
    path: &'r Path,
    format: Format,
    subformat: Subformat,
    compression: Compression,
}

impl Declared<'_> {
    /// Whether it is a raw disk.
    pub(crate) fn is_raw(&self) -> bool {
        self.format == Format::Raw
    }
}

/// The format that a file's extension declares.
pub(crate) fn format_of(
    path: &Path,
    context: impl FnOnce() -> String,
) -> Result<Format, EngineError> {
    if path.is_dir() {
        return Err(EngineError::new(ErrorKind::Invalid, context())
            .with_hint("it is a folder: name a disk file in it"));
    }
    let name = path
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    Format::from_file_name(&name).or_fail(ErrorKind::Invalid, context)
}

impl OutputRequest {
    /// One file, as it is, without digests.
    #[must_use]
    pub fn plain(file: &Path) -> Self {
        Self {
            files: vec![file.to_owned()],
            compression: Compression::None,
            subformat: Subformat::Default,
            reuse: None,
            checksums: Checksums::None,
        }
    }

    /// Checks the request as far as that goes before anything is read.
    pub(crate) fn declared(&self) -> Result<Vec<Declared<'_>>, EngineError> {
        let invalid = |text: String| Err(EngineError::new(ErrorKind::Invalid, text));
        let mut declared: Vec<Declared<'_>> = Vec::new();
        for path in &self.files {
            if declared.iter().any(|d| d.path == path) {
                return invalid(format!("{} is named twice", path.display()));
            }
            let format = format_of(path, || path.display().to_string())?;
            let subformat = match self.subformat {
                wanted if format.subformats().contains(&wanted) => wanted,
                _ => Subformat::Default,
            };
            let compression = format.compression(self.compression);
            declared.push(Declared {
                path,
                format,
                subformat,
                compression,
            });
        }
        if self.compression != Compression::None
            && declared.iter().all(|d| d.compression == Compression::None)
        {
            return invalid(format!(
                "--compress {}: none of the formats asked for can be compressed so",
                self.compression
            ));
        }
        if self.subformat != Subformat::Default
            && declared.iter().all(|d| d.subformat == Subformat::Default)
        {
            return invalid(format!(
                "--subformat {}: none of the formats asked for has it",
                self.subformat
            ));
        }
        if self.reuse.is_some()
            && !declared
                .iter()
                .any(|d| d.format == Format::Qcow2 && d.compression != Compression::None)
        {
            return invalid(
                "--reuse: only a compressed qcow2 output takes clusters over; add --compress"
                    .to_owned(),
            );
        }
        Ok(declared)
    }
}

impl Engine {
    /// Tells how far disks are written, a hundred times at most.
    pub(crate) fn emit_watch(&self) -> impl Fn(u64, u64) + Sync + '_ {
        let percent = AtomicU64::new(0);
        move |done: u64, total: u64| {
            let now = done.saturating_mul(100) / total.max(1);
            if percent.fetch_max(now, Ordering::Relaxed) < now {
                self.emit(Event::Progress {
                    name: "emit",
                    done,
                    total,
                    unit: "bytes",
                });
            }
        }
    }

    /// The earlier file of a request. One that cannot help is said so, and left aside.
    pub(crate) fn previous(
        &self,
        path: Option<&Path>,
        compression: Compression,
    ) -> Result<Option<Previous>, EngineError> {
        let Some(path) = path else { return Ok(None) };
        let context = || format!("--reuse {}", path.display());
        let blob = FileBlob::open(path).or_fail(ErrorKind::Invalid, context)?;
        let previous = Previous::open(Arc::new(blob)).or_fail(ErrorKind::Invalid, context)?;
        if previous.serves(compression) {
            return Ok(Some(previous));
        }
        self.warn(format!(
            "--reuse {}: it was not compressed by this version with {compression}; nothing is taken over",
            path.display()
        ));
        Ok(None)
    }

    /// Writes a disk to all files of a request, which appear whole or not at all. With `find_zeros`
    /// what is zero is left out although an extent covers it.
    pub(crate) fn write_disk_files(
        &self,
        extents: &Extents,
        blobs: &BlobTable,
        request: &OutputRequest,
        declared: &[Declared<'_>],
        find_zeros: bool,
        context: &dyn Fn() -> String,
    ) -> Result<DiskFilesReport, EngineError> {
        for file in declared {
            file.format
                .check(file.subformat, file.compression, extents.size())
                .or_fail(ErrorKind::Invalid, || file.path.display().to_string())?;
        }
        let previous = self.previous(request.reuse.as_deref(), request.compression)?;
        self.stage(
            "emit",
            declared
                .iter()
                .map(|d| d.path.display().to_string())
                .collect::<Vec<_>>()
                .join(", "),
        );
        let temps = declared
            .iter()
            .map(|d| Beside::new(d.path, self))
            .collect::<Result<Vec<_>, _>>()?;
        let targets = temps
            .iter()
            .map(|temp| temp.file.reopen().map(FileTarget::from_file))
            .collect::<Result<Vec<_>, _>>()
            .or_fail(ErrorKind::Failed, context)?;
        let outputs: Vec<Output<'_>> = declared
            .iter()
            .zip(&targets)
            .map(|(d, target)| Output {
                subformat: d.subformat,
                readback: Some(target),
                sha256: match request.checksums {
                    Checksums::Full => true,
                    Checksums::Fast => d.format != Format::Raw,
                    Checksums::None => false,
                },
                compression: d.compression,
                find_zeros,
                previous: previous.as_ref(),
                ..Output::new(d.format, target)
            })
            .collect();
        let options = EmitOptions {
            threads: threads(),
            content_digest: request.checksums != Checksums::None,
        };
        let watch = self.emit_watch();
        let emitted = amiforge_disk::emit_watched(extents, blobs, &outputs, options, &watch);
        let emitted = emitted.or_fail(ErrorKind::Failed, context)?;
        drop(outputs);
        let mut files = Vec::new();
        for ((temp, file), artifact) in temps.into_iter().zip(declared).zip(&emitted.artifacts) {
            temp.persist(file.path)?;
            self.emit(Event::Artifact {
                file: file.path.display().to_string(),
                bytes: artifact.bytes,
                sha256: artifact.sha256.map(|d| d.hex()),
            });
            let more = artifact.virtual_bytes - extents.size();
            if more > 0 {
                self.warn(format!(
                    "{}: the disk in it is {more} bytes longer than {}, since {} counts in larger units",
                    file.path.display(),
                    extents.size(),
                    file.format,
                ));
            }
            files.push(DiskFile {
                path: file.path.to_owned(),
                format: file.format,
                bytes: artifact.bytes,
                virtual_bytes: artifact.virtual_bytes,
                sha256: artifact.sha256,
            });
        }
        Ok(DiskFilesReport {
            files,
            content_digest: emitted.content_digest,
            virtual_bytes: extents.size(),
        })
    }
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn target_of(out: &Path) -> Result<PathBuf, EngineError> {
    crate::files::target(out).or_fail(ErrorKind::Failed, || {
        format!("cannot write {}", out.display())
    })
}

/// A temporary file in the folder of its final place. It goes with an error, and when the process is
/// interrupted.
pub(crate) struct Beside<'e> {
    file: NamedTempFile,
    engine: &'e Engine,
    watched: PathBuf,
}

impl<'e> Beside<'e> {
    pub(crate) fn new(out: &Path, engine: &'e Engine) -> Result<Self, EngineError> {
        use std::os::unix::fs::PermissionsExt;
        let target = target_of(out)?;
        let folder = folder_of(&target);
        let file = tempfile::Builder::new()
            .prefix(".amiforge-")
            .permissions(std::fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)
            .or_fail(ErrorKind::Failed, || {
                format!("cannot write to {}", folder.display())
            })?;
        let watched = file.path().to_owned();
        engine.interruption().watch(&watched);
        Ok(Self {
            file,
            engine,
            watched,
        })
    }

    /// Writes a small file; a program may be run.
    pub(crate) fn fill(&mut self, bytes: &[u8], program: bool) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::PermissionsExt;
        self.file.write_all(bytes)?;
        let mode = if program { 0o755 } else { 0o644 };
        let permissions = std::fs::Permissions::from_mode(mode);
        self.file.as_file().set_permissions(permissions)
    }

    /// Brings the data to the disk, then gives the file its name.
    pub(crate) fn persist(self, out: &Path) -> Result<(), EngineError> {
        let out = &target_of(out)?;
        let context = || format!("cannot write {}", out.display());
        let Self {
            file,
            engine,
            watched,
        } = self;
        file.as_file()
            .sync_all()
            .or_fail(ErrorKind::Failed, context)?;
        let done = file.persist(out).map_err(|e| e.error);
        engine.interruption().unwatch(&watched);
        done.or_fail(ErrorKind::Failed, context)?;
        // The name is durable with its folder; a file system that cannot say so has no more to give.
        let _ = File::open(folder_of(out)).and_then(|dir| dir.sync_all());
        Ok(())
    }
}
