//! The parent `disk:`: the root file system of a disk image, one layer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use amiforge_disk::{DiskInfo, Format, PartitionInfo, gpt};
use amiforge_fs::ext4;
use amiforge_plan::ImportedLayer;
use amiforge_recipe::DiskFormat;
use amiforge_tree::layer::LayerInfo;
use amiforge_tree::{Content, Kind, LayerDiff};
use amiforge_types::{BlobTable, ByteSize, Digest, LayerId, ReadAt};

use super::file::{Stamp, check_digest};
use super::mounts::{self, FSTAB};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::Work;
use crate::look::{open_disk_as, threads};
use crate::settings::Engine;

/// Largest `/etc/fstab` that is read, in bytes.
const MAX_FSTAB: u64 = 1 << 20;

/// A disk that is known by its content, and where the root file system lies on it.
#[derive(Debug)]
pub(crate) struct ResolvedDisk {
    /// As the recipe names it.
    asked: String,
    path: PathBuf,
    format: Format,
    stamp: Stamp,
    /// Of the whole virtual disk, whatever the format of its file.
    pub(super) content_digest: Digest,
    /// Number of the root's partition; `None` on a disk without partitions.
    pub(super) partition: Option<u32>,
}

/// Which disk is meant.
pub(super) struct DiskRequest<'r> {
    /// What people call it.
    pub(super) asked: String,
    pub(super) path: PathBuf,
    pub(super) format: Option<DiskFormat>,
    pub(super) partition: Option<u32>,
    pub(super) sha256: Option<Digest>,
    /// What to do when the root cannot be told.
    pub(super) choose: &'r str,
}

/// Where the root file system is.
struct Root {
    partition: Option<u32>,
    offset: u64,
    len: u64,
}

impl ResolvedDisk {
    /// The one layer that it becomes.
    pub(super) fn layer(&self) -> ImportedLayer {
        let partition = self.partition.map_or("none".to_owned(), |n| n.to_string());
        ImportedLayer {
            title: self.asked.clone(),
            inputs: BTreeMap::from([
                ("disk".to_owned(), format!("sha256:{}", self.content_digest)),
                ("partition".to_owned(), partition),
            ]),
        }
    }
}

impl Engine {
    /// Opens the disk, finds the root file system and takes the disk's digest.
    pub(super) fn resolve_disk(
        &self,
        request: DiskRequest<'_>,
    ) -> Result<ResolvedDisk, EngineError> {
        let DiskRequest { asked, path, .. } = &request;
        let (_, stamp) = Stamp::open(path, asked)?;
        if request.sha256.is_some() {
            let (_, sha256) = Stamp::with_digest(path, asked)?;
            check_digest(path, request.sha256, sha256, asked)?;
        }
        let (format, disk, _) = open_disk_as(path, request.format.map(format_of), false)?;
        let disk: Arc<dyn ReadAt> = Arc::from(disk);
        let context = || format!("cannot use the parent {asked}");
        let info = amiforge_disk::disk_info(&*disk).or_fail(ErrorKind::Failed, context)?;
        let root = find_root(&*disk, &info, &request)?;
        let reader = ext4::Reader::open(disk.clone(), root.offset, root.len)
            .or_fail(ErrorKind::Failed, context)?;
        if let Some(text) = fstab(&reader).or_fail(ErrorKind::Failed, context)? {
            mounts::check(&text, &info, root.partition).map_err(|why| not_carried(asked, &why))?;
        }
        let content_digest =
            amiforge_disk::content_digest(&*disk, threads()).or_fail(ErrorKind::Failed, context)?;
        stamp.check(path)?;
        Ok(ResolvedDisk {
            asked: asked.clone(),
            path: path.clone(),
            format,
            stamp,
            content_digest,
            partition: root.partition,
        })
    }

    /// Reads the root file system into the layer `id`.
    pub(super) fn import_disk(
        &self,
        work: &Work<'_>,
        resolved: &ResolvedDisk,
        id: LayerId,
    ) -> Result<LayerInfo, EngineError> {
        let ResolvedDisk { asked, path, .. } = resolved;
        self.stage("read", path.display().to_string());
        let context = || format!("cannot read the parent {asked}");
        resolved.stamp.check(path)?;
        let (_, disk, _) = open_disk_as(path, Some(resolved.format), false)?;
        let disk: Arc<dyn ReadAt> = Arc::from(disk);
        let info = amiforge_disk::disk_info(&*disk).or_fail(ErrorKind::Failed, context)?;
        let request = DiskRequest {
            asked: asked.clone(),
            path: path.clone(),
            format: None,
            partition: resolved.partition,
            sha256: None,
            choose: "",
        };
        let root = find_root(&*disk, &info, &request)?;
        let reader = ext4::Reader::open(disk.clone(), root.offset, root.len)
            .or_fail(ErrorKind::Failed, context)?;
        let mut blobs = BlobTable::new();
        let blob = blobs.add(disk);
        let mut tree = reader
            .tree(blob, root.offset)
            .or_fail(ErrorKind::Failed, context)?
            .tree;
        if let Some(ino) = tree.lookup(FSTAB)
            && let Kind::File(content) = tree.inode(ino).kind
        {
            let old = content
                .read_to_vec(&blobs, MAX_FSTAB)
                .or_fail(ErrorKind::Failed, context)?;
            let old = String::from_utf8_lossy(&old);
            let (new, left_out) = mounts::without_partitions(&old, &info, root.partition);
            if !left_out.is_empty() {
                self.warn(format!(
                    "{asked}: /etc/fstab loses the lines of partitions that are not carried over: {}",
                    left_out.join("; ")
                ));
            }
            if new != old {
                tree.update(ino, |inode| {
                    inode.kind = Kind::File(Content::bytes(new.into_bytes()));
                })
                .or_fail(ErrorKind::Failed, context)?;
            }
        }
        let context = || format!("cannot keep the layer of {asked}");
        let writer = work
            .store
            .layer_writer(id)
            .or_fail(ErrorKind::Failed, context)?;
        writer
            .write(&LayerDiff::from_tree(&tree), &blobs)
            .or_fail(ErrorKind::Failed, context)?;
        // Else the layer is not of the bytes that its id names.
        resolved.stamp.check(path)?;
        writer.commit().or_fail(ErrorKind::Failed, context)
    }
}

const fn format_of(format: DiskFormat) -> Format {
    match format {
        DiskFormat::Raw => Format::Raw,
        DiskFormat::Qcow2 => Format::Qcow2,
        DiskFormat::Vmdk => Format::Vmdk,
        DiskFormat::Vhd => Format::Vhd,
    }
}

fn fstab(reader: &ext4::Reader) -> Result<Option<String>, ext4::ReadError> {
    let path = [b"/", FSTAB].concat();
    match reader.stat(&path) {
        Ok(stat) if stat.kind == ext4::FileKind::File && stat.size <= MAX_FSTAB => {
            let bytes = reader.read(&path)?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Ok(None),
    }
}

/// A layout that one root file system cannot take the place of.
fn not_carried(asked: &str, why: &str) -> EngineError {
    let message = format!("cannot use the parent {asked}: {why}");
    EngineError::new(ErrorKind::Invalid, message).with_hint(
        "only a single ext4 root file system is taken over: copy the files together on the machine itself, and name them as an archive (`tar:`)",
    )
}

/// The root file system: the partition that the recipe names, else the one whose type says so, else the only one
/// of the ext family.
fn find_root(
    disk: &dyn ReadAt,
    info: &DiskInfo,
    request: &DiskRequest<'_>,
) -> Result<Root, EngineError> {
    let DiskRequest { asked, .. } = request;
    let invalid = |text: String| {
        let message = format!("cannot use the parent {asked}: {text}");
        EngineError::new(ErrorKind::Invalid, message)
    };
    let listed = || {
        let parts: Vec<String> = info.partitions.iter().map(|p| described(disk, p)).collect();
        match parts.is_empty() {
            true => "the disk has no partitions".to_owned(),
            false => format!("the disk has {}", parts.join(", ")),
        }
    };
    let of = |part: &PartitionInfo| Root {
        partition: Some(part.slot),
        offset: part.offset(),
        len: part.len_bytes(),
    };
    if let Some(number) = request.partition {
        let part = info.partitions.iter().find(|p| p.slot == number);
        let part = part.ok_or_else(|| {
            invalid(format!("there is no partition {number}")).with_hint(listed())
        })?;
        return match part.is_ext() {
            true => Ok(of(part)),
            false => Err(not_carried(asked, &described(disk, part))),
        };
    }
    if let Some(fs) = &info.file_system {
        return match fs.kind.is_ext() {
            true => Ok(Root {
                partition: None,
                offset: 0,
                len: info.virtual_bytes,
            }),
            false => Err(not_carried(
                asked,
                &format!("its file system is {}", fs.kind.name()),
            )),
        };
    }
    let roots = [gpt::TYPE_ROOT_X86_64, gpt::TYPE_ROOT_ARM64];
    let is_root = |p: &&PartitionInfo| roots.contains(&p.type_guid);
    let mut named = info.partitions.iter().filter(is_root);
    if let (Some(part), None) = (named.next(), named.next()) {
        return match part.is_ext() {
            true => Ok(of(part)),
            false => Err(not_carried(
                asked,
                &format!("its root is {}", described(disk, part)),
            )),
        };
    }
    let mut ext = info.partitions.iter().filter(|p| p.is_ext());
    match (ext.next(), ext.next()) {
        (Some(part), None) => Ok(of(part)),
        (Some(_), Some(_)) => {
            let message = format!("several partitions may be the root: {}", listed());
            Err(invalid(message).with_hint(request.choose))
        }
        (None, _) if info.partitions.is_empty() => Err(invalid(
            "it holds neither partitions nor a file system".to_owned(),
        )),
        (None, _) => Err(not_carried(
            asked,
            &format!("it has no ext4 file system; {}", listed()),
        )),
    }
}

/// `partition 2 (ext4, 1.0 GiB, "boot")`
fn described(disk: &dyn ReadAt, part: &PartitionInfo) -> String {
    let what = match &part.file_system {
        Some(fs) => fs.kind.name(),
        None => container(disk, part).unwrap_or_else(|| {
            let kind = part.mbr_type.and_then(amiforge_disk::mbr::type_name);
            kind.unwrap_or(if part.type_guid == gpt::TYPE_BIOS_BOOT {
                "BIOS boot"
            } else {
                "nothing known"
            })
        }),
    };
    let name = match part.name.is_empty() {
        true => String::new(),
        false => format!(", {:?}", part.name),
    };
    let size = ByteSize(part.len_bytes());
    format!("partition {} ({what}, {size}{name})", part.slot)
}

/// What holds file systems in a partition, by its first bytes.
fn container(disk: &dyn ReadAt, part: &PartitionInfo) -> Option<&'static str> {
    let mut head = [0; 2048];
    if part.len_bytes() < head.len() as u64 || disk.read_exact_at(&mut head, part.offset()).is_err()
    {
        return None;
    }
    // LVM2: the label is in one of the first four sectors.
    let label = |sector: &[u8]| sector.starts_with(b"LABELONE");
    if head.chunks(512).any(label) {
        return Some("LVM");
    }
    head.starts_with(b"LUKS\xba\xbe").then_some("LUKS")
}
