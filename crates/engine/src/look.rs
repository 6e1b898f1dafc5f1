//! Describing finished disks: `disk info`. Looking into them is in [`inspect`](crate::inspect).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_ami::{ContainerManifest, Manifest, ManifestError};
use amiforge_disk::{
    DiskInfo, FileSystemInfo, FileSystemKind, Format, OpenError, Opener, Part, PartitionInfo,
    TableInfo, Usage,
};
use amiforge_fs::{ext4, fat};
use amiforge_store::FileBlob;
use amiforge_types::{ByteSize, Digest, ReadAt};
use serde::Serialize;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{FileError, MAX_JSON, check_artifact, read_file};
use crate::settings::Engine;
use crate::shown::shown;

/// What `disk info` tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    /// The file.
    pub file: PathBuf,
    /// `raw`, `qcow2`, `vmdk` or `vhd`.
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
        match self.disk.table {
            Some(TableInfo::Gpt { sector_bytes }) => {
                text.push_str(&format!(
                    "partitions      GPT, sectors of {sector_bytes} bytes\n"
                ));
            }
            Some(TableInfo::Mbr { disk_id }) => {
                text.push_str(&format!("partitions      MBR, disk id 0x{disk_id:08x}\n"));
            }
            None => {}
        }
        if let Some(guid) = self.disk.disk_guid {
            text.push_str(&format!("disk GUID       {guid}\n"));
        }
        if let Some(damage) = &self.disk.damage {
            text.push_str(&format!("damage          {damage}\n"));
        }
        if !self.disk.partitions.is_empty() {
            text.push_str("\nSLOT  START LBA    SIZE        FILE SYSTEM  USED        FREE        UUID                                  LABEL / NAME\n");
        }
        let mut parts: Vec<&PartitionInfo> = self.disk.partitions.iter().collect();
        parts.sort_by_key(|p| p.first_lba);
        for part in parts {
            let fs = part.file_system.as_ref();
            text.push_str(&format!(
                "{:<5} {:<12} {:<11} {:<12} {:<11} {:<11} {:<37} {}\n",
                part.slot,
                part.first_lba,
                ByteSize(part.len_bytes()).to_string(),
                fs.map_or_else(|| contents(part), |f| f.kind.name()),
                size_or_dash(fs, |u| u.used_bytes),
                size_or_dash(fs, |u| u.free_bytes),
                fs.and_then(|f| f.uuid.as_deref()).unwrap_or("-"),
                [
                    fs.and_then(|f| f.label.as_deref()).unwrap_or(""),
                    &part.name
                ]
                .into_iter()
                .filter(|s| !s.is_empty())
                .map(|s| shown(s.as_bytes()))
                .collect::<Vec<_>>()
                .join(" / "),
            ));
        }
        for part in &self.disk.partitions {
            let usage = part.file_system.as_ref().and_then(|f| f.usage);
            if let Some((used, free)) = usage.and_then(|u| u.used_inodes.zip(u.free_inodes)) {
                text.push_str(&format!(
                    "inodes {:<8} {used} used, {free} free\n",
                    part.slot
                ));
            }
        }
        for part in &self.disk.partitions {
            if let Some(digest) = &part.digest {
                text.push_str(&format!("digest {:<8} {digest}\n", part.slot));
            }
        }
        if let Some(fs) = &self.disk.file_system {
            text.push_str(&format!(
                "file system     {} {}\n",
                fs.kind.name(),
                fs.uuid.as_deref().unwrap_or("")
            ));
            text.push_str(&format!(
                "usage           {} used, {} free\n",
                size_or_dash(Some(fs), |u| u.used_bytes),
                size_or_dash(Some(fs), |u| u.free_bytes)
            ));
        }
        text
    }
}

/// What a partition without a file system is for, as far as its type says.
fn contents(part: &PartitionInfo) -> &'static str {
    part.mbr_type
        .and_then(amiforge_disk::mbr::type_name)
        .unwrap_or("-")
}

fn size_or_dash(fs: Option<&FileSystemInfo>, pick: impl Fn(&Usage) -> u64) -> String {
    fs.and_then(|f| f.usage.as_ref())
        .map_or_else(|| "-".to_owned(), |usage| ByteSize(pick(usage)).to_string())
}

/// An open file system of a disk.
pub(crate) enum FileSystem {
    Ext4(Box<ext4::Reader>),
    Fat(fat::Reader),
}

impl Engine {
    /// Describes a disk image; with `digests` each partition gets a content digest of its own, with
    /// `named` the image may name other files.
    pub fn disk_info(
        &self,
        file: &Path,
        digests: bool,
        named: bool,
    ) -> Result<DiskReport, EngineError> {
        let context = || format!("cannot describe {}", file.display());
        let (format, disk, file_bytes) = open_disk_as(file, None, named)?;
        let mut info = amiforge_disk::disk_info(&*disk).or_fail(ErrorKind::Failed, context)?;
        for part in info.partitions.iter_mut().filter(|_| digests) {
            let bytes = Part::new(&*disk, part.offset(), part.len_bytes());
            let digest = amiforge_disk::content_digest(&bytes, threads());
            part.digest = Some(digest.or_fail(ErrorKind::Failed, context)?);
        }
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
pub(crate) fn disk_file(image: &Path) -> Result<PathBuf, EngineError> {
    if !image.is_dir() {
        return Ok(image.to_owned());
    }
    let context = || format!("{} is not an output folder of amiforge", image.display());
    let manifest = read_manifest(image).or_fail(ErrorKind::Invalid, context)?;
    let root = manifest
        .artifacts
        .iter()
        .find(|a| a.device == manifest.root_device_name);
    let file = root.map(|a| image.join(&a.file)).ok_or_else(|| {
        EngineError::new(
            ErrorKind::Invalid,
            format!("{}: no disk in it", image.display()),
        )
    })?;
    check_artifact(&file).or_fail(ErrorKind::Invalid, || {
        format!("cannot look into {}", image.display())
    })?;
    Ok(file)
}

/// A manifest that cannot be read, with the file that it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestFileError {
    #[error("its manifest cannot be read")]
    File(#[from] FileError),
    #[error("{}: it is the manifest of a container image, which has no disk and does not boot", path.display())]
    Container { path: PathBuf },
    #[error("{}", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        source: ManifestError,
    },
}

/// The manifest of an output folder.
pub(crate) fn read_manifest(dir: &Path) -> Result<Manifest, ManifestFileError> {
    let path = dir.join("manifest.json");
    let bytes = read_file(&path, MAX_JSON)?;
    Manifest::from_json(&bytes).map_err(|source| {
        if ContainerManifest::from_json(&bytes).is_ok() {
            ManifestFileError::Container { path }
        } else {
            ManifestFileError::Manifest { path, source }
        }
    })
}

pub(crate) fn open_disk(file: &Path) -> Result<(Format, Box<dyn ReadAt>, u64), EngineError> {
    open_disk_as(file, None, false)
}

/// The largest disk that is looked into: that of the largest EBS volume (io2 Block Express), 64 TiB.
const MOST_BYTES: u64 = 64 << 40;

/// Opens the files that an image names, from its own folder.
struct Named {
    folder: PathBuf,
}

impl Opener for Named {
    fn open(&self, name: &str) -> std::io::Result<(Arc<dyn ReadAt>, Box<dyn Opener>)> {
        let path = self.folder.join(name);
        let folder = crate::diskfiles::folder_of(&path).to_owned();
        Ok((Arc::new(FileBlob::open(&path)?), Box::new(Self { folder })))
    }
}

/// The virtual disk in a file of the given format, else of the one that its extension declares. With
/// `named` the image may name other files.
pub(crate) fn open_disk_as(
    file: &Path,
    format: Option<Format>,
    named: bool,
) -> Result<(Format, Box<dyn ReadAt>, u64), EngineError> {
    let context = || format!("cannot open {}", file.display());
    let format = match format {
        Some(format) => format,
        None => crate::diskfiles::format_of(file, context)?,
    };
    let blob = Arc::new(FileBlob::open(file).or_fail(ErrorKind::Invalid, context)?);
    let bytes = blob.size();
    let opened = if named {
        let folder = crate::diskfiles::folder_of(file).to_owned();
        amiforge_disk::open_with(format, blob, &Named { folder })
    } else {
        amiforge_disk::open(format, blob)
    };
    match opened {
        Ok(disk) if disk.size() > MOST_BYTES => Err(EngineError::new(
            ErrorKind::Invalid,
            format!(
                "{}: the image claims a disk of {}, more than any volume has ({})",
                file.display(),
                ByteSize(disk.size()),
                ByteSize(MOST_BYTES)
            ),
        )),
        Ok(disk) => Ok((format, disk, bytes)),
        Err(error) => {
            let hint = open_hint(&error);
            Err(EngineError::wrap(ErrorKind::Failed, context(), error, hint))
        }
    }
}

/// What the user can do about a disk file that does not open.
fn open_hint(error: &OpenError) -> Option<String> {
    match error {
        OpenError::Mismatch { .. } => Some(
            "the format is taken from the file name: rename the file, or convert it with `amiforge disk convert --from <FORMAT>`; \
             as a parent, `disk:PATH#format=<FORMAT>` says it"
                .to_owned(),
        ),
        // Only qcow2 disks that other files continue are read.
        OpenError::ExternalFile { format: Format::Qcow2, .. } => Some(
            "if you trust the image, `amiforge disk convert --allow-backing-file` makes one file of it"
                .to_owned(),
        ),
        OpenError::ExternalFile { .. } => {
            Some("make one file of it with the program that wrote it".to_owned())
        }
        _ => None,
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
    let (offset, len, kind) = match (partition, &info.file_system) {
        (None, Some(fs)) => (0, info.virtual_bytes, fs.kind),
        (wanted, _) => {
            let found = match wanted {
                Some(slot) => info.partitions.iter().find(|p| p.slot == slot),
                None => info.root_partition(),
            };
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
        kind if kind.is_ext() => ext4::Reader::open(disk, offset, len)
            .map(|reader| FileSystem::Ext4(Box::new(reader)))
            .or_fail(ErrorKind::Failed, context),
        other => Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{}: cannot look into {}", file.display(), other.name()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(slot: u32, name: &str, type_guid: amiforge_types::Uuid) -> PartitionInfo {
        PartitionInfo {
            slot,
            name: name.to_owned(),
            type_guid,
            guid: amiforge_types::Uuid::from_bytes([1; 16]),
            mbr_type: None,
            digest: None,
            first_lba: u64::from(slot) * 2048,
            last_lba: u64::from(slot) * 2048 + 2047,
            file_system: Some(FileSystemInfo {
                kind: FileSystemKind::Ext4,
                uuid: None,
                label: Some("\x1b[2Jlabel".to_owned()),
                usage: None,
            }),
        }
    }

    #[test]
    fn names_of_a_disk_do_nothing_to_the_terminal() {
        let linux = amiforge_types::Uuid::from_bytes([2; 16]);
        let report = DiskReport {
            file: "disk.raw".into(),
            format: Format::Raw,
            file_bytes: 1,
            content_digest: Digest::of(b""),
            disk: DiskInfo {
                virtual_bytes: 1,
                table: None,
                disk_guid: None,
                partitions: vec![part(1, "a\x07\u{202e}b", linux)],
                file_system: None,
                damage: None,
            },
        };
        let table = report.table();
        assert!(
            table.contains("\\u{1b}[2Jlabel / a\\u{7}\\u{202e}b"),
            "{table}"
        );
        assert!(table.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn the_partition_that_says_so_is_the_root() {
        let linux = amiforge_types::Uuid::from_bytes([2; 16]);
        let mut info = DiskInfo {
            virtual_bytes: 1,
            table: None,
            disk_guid: None,
            partitions: vec![part(1, "boot", linux), part(2, "other", linux)],
            file_system: None,
            damage: None,
        };
        assert_eq!(info.root_partition().map(|p| p.slot), Some(1));
        let root = part(3, "root", amiforge_disk::gpt::TYPE_ROOT_X86_64);
        info.partitions.push(root);
        assert_eq!(info.root_partition().map(|p| p.slot), Some(3));
    }
}
