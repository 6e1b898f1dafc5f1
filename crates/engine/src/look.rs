//! Describing finished disks: `disk info`. Looking into them is in [`inspect`](crate::inspect).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_ami::Manifest;
use amiforge_disk::{DiskInfo, FileSystemKind, Format, PartitionInfo};
use amiforge_fs::{ext4, fat};
use amiforge_store::FileBlob;
use amiforge_types::{ByteSize, Digest, ReadAt};
use serde::Serialize;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

/// What `disk info` tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// The file.
    pub file: PathBuf,
    /// `raw` or `qcow2`.
    pub format: Format,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Identity of the disk's content.
    pub content_digest: Digest,
    /// Partitions and file systems.
    #[serde(flatten)]
    pub disk: DiskInfo,
}

impl DiskReport {
    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!(
            "file            {}\nformat          {}\nfile size       {} ({} bytes)\nvirtual size    {} ({} bytes)\ncontent digest  {}\n",
            self.file.display(),
            self.format.name(),
            ByteSize(self.file_bytes),
            self.file_bytes,
            ByteSize(self.disk.virtual_bytes),
            self.disk.virtual_bytes,
            self.content_digest,
        );
        if let Some(guid) = self.disk.disk_guid {
            text.push_str(&format!("disk GUID       {guid}\n"));
        }
        if let Some(damage) = &self.disk.damage {
            text.push_str(&format!("damage          {damage}\n"));
        }
        if !self.disk.partitions.is_empty() {
            text.push_str("\nSLOT  START LBA    SIZE        FILE SYSTEM  UUID                                  LABEL / NAME\n");
        }
        let mut parts: Vec<&PartitionInfo> = self.disk.partitions.iter().collect();
        parts.sort_by_key(|p| p.first_lba);
        for part in parts {
            let fs = part.file_system.as_ref();
            text.push_str(&format!(
                "{:<5} {:<12} {:<11} {:<12} {:<37} {}\n",
                part.slot,
                part.first_lba,
                ByteSize(part.len_bytes()).to_string(),
                fs.map_or("-", |f| kind_name(f.kind)),
                fs.and_then(|f| f.uuid.as_deref()).unwrap_or("-"),
                [
                    fs.and_then(|f| f.label.as_deref()).unwrap_or(""),
                    &part.name
                ]
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join(" / "),
            ));
        }
        if let Some(fs) = &self.disk.file_system {
            text.push_str(&format!(
                "file system     {} {}\n",
                kind_name(fs.kind),
                fs.uuid.as_deref().unwrap_or("")
            ));
        }
        text
    }
}

fn kind_name(kind: FileSystemKind) -> &'static str {
    match kind {
        FileSystemKind::Ext2 => "ext2",
        FileSystemKind::Ext3 => "ext3",
        FileSystemKind::Ext4 => "ext4",
        FileSystemKind::Vfat => "vfat",
        FileSystemKind::Xfs => "xfs",
        FileSystemKind::Btrfs => "btrfs",
        FileSystemKind::Squashfs => "squashfs",
        FileSystemKind::Swap => "swap",
        _ => "other",
    }
}

/// An open file system of a disk.
pub(crate) enum FileSystem {
    Ext4(Box<ext4::Reader>),
    Fat(fat::Reader),
}

impl Engine {
    /// Describes a disk image.
    pub fn disk_info(&self, file: &Path) -> Result<DiskReport, EngineError> {
        let context = || format!("cannot describe {}", file.display());
        let (format, disk, file_bytes) = open_disk(file)?;
        let info = amiforge_disk::disk_info(&*disk).or_fail(ErrorKind::Failed, context)?;
        let content_digest =
            amiforge_disk::content_digest(&*disk, threads()).or_fail(ErrorKind::Failed, context)?;
        Ok(DiskReport {
            file: file.to_owned(),
            format,
            file_bytes,
            content_digest,
            disk: info,
        })
    }
}

pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The disk of a path: a disk image, or the first readable artefact of an output folder.
fn disk_file(image: &Path) -> Result<PathBuf, EngineError> {
    if !image.is_dir() {
        return Ok(image.to_owned());
    }
    let path = image.join("manifest.json");
    let context = || format!("{} is not an output folder of amiforge", image.display());
    let bytes = fs_err::read(&path).or_fail(ErrorKind::Invalid, context)?;
    let manifest = Manifest::from_json(&bytes).or_fail(ErrorKind::Invalid, context)?;
    let root = manifest
        .artifacts
        .iter()
        .find(|a| a.device == manifest.root_device_name);
    root.map(|a| image.join(&a.file)).ok_or_else(|| {
        EngineError::new(
            ErrorKind::Invalid,
            format!("{}: no disk in it", image.display()),
        )
    })
}

pub(crate) fn open_disk(file: &Path) -> Result<(Format, Box<dyn ReadAt>, u64), EngineError> {
    let context = || format!("cannot open {}", file.display());
    let name = file
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let format = Format::from_file_name(&name).or_fail(ErrorKind::Invalid, context)?;
    let blob = Arc::new(FileBlob::open(file).or_fail(ErrorKind::Invalid, context)?);
    let bytes = blob.size();
    match amiforge_disk::open(format, blob) {
        Ok(disk) => Ok((format, disk, bytes)),
        Err(error) => {
            let hint = error.hint();
            let wrapped = Err::<(), _>(error).or_fail(ErrorKind::Failed, context);
            Err(match (wrapped, hint) {
                (Err(e), Some(hint)) => e.with_hint(hint),
                (Err(e), None) => e,
                (Ok(()), _) => EngineError::new(ErrorKind::Internal, context()),
            })
        }
    }
}

pub(crate) fn open_file_system(
    image: &Path,
    partition: Option<u32>,
) -> Result<FileSystem, EngineError> {
    let file = disk_file(image)?;
    let context = || format!("cannot look into {}", file.display());
    let (_, disk, _) = open_disk(&file)?;
    let info = amiforge_disk::disk_info(&*disk).or_fail(ErrorKind::Failed, context)?;
    let is_ext = |kind| {
        matches!(
            kind,
            FileSystemKind::Ext2 | FileSystemKind::Ext3 | FileSystemKind::Ext4
        )
    };
    let (offset, len, kind) = match (partition, info.file_system) {
        (None, Some(fs)) => (0, info.virtual_bytes, fs.kind),
        (wanted, _) => {
            let found = info.partitions.iter().find(|p| match wanted {
                Some(slot) => p.slot == slot,
                None => p.file_system.as_ref().is_some_and(|f| is_ext(f.kind)),
            });
            let part = found.ok_or_else(|| {
                let slots: Vec<String> =
                    info.partitions.iter().map(|p| p.slot.to_string()).collect();
                let what = wanted.map_or_else(
                    || "partition with an ext4 file system".to_owned(),
                    |n| format!("partition {n}"),
                );
                EngineError::new(
                    ErrorKind::Invalid,
                    format!("{}: there is no {what}", file.display()),
                )
                .with_hint(format!(
                    "partitions of this disk: {}",
                    if slots.is_empty() {
                        "none".to_owned()
                    } else {
                        slots.join(", ")
                    }
                ))
            })?;
            let kind = part.file_system.as_ref().map(|f| f.kind).ok_or_else(|| {
                EngineError::new(
                    ErrorKind::Invalid,
                    format!(
                        "{}: partition {} holds no file system",
                        file.display(),
                        part.slot
                    ),
                )
            })?;
            (part.offset(), part.len_bytes(), kind)
        }
    };
    let disk: Arc<dyn ReadAt> = Arc::from(disk);
    match kind {
        FileSystemKind::Vfat => fat::Reader::open(disk, offset, len)
            .map(FileSystem::Fat)
            .or_fail(ErrorKind::Failed, context),
        kind if is_ext(kind) => ext4::Reader::open(disk, offset, len)
            .map(|reader| FileSystem::Ext4(Box::new(reader)))
            .or_fail(ErrorKind::Failed, context),
        other => Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{}: cannot look into {}", file.display(), kind_name(other)),
        )),
    }
}
