//! One of the two images, opened: its disk, partitions, root file system and what a boot reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_ami::ComponentRecord;
use amiforge_disk::{DiskInfo, FileSystemKind, Format, PartitionInfo, gpt};
use amiforge_fs::{ext4, fat};
use amiforge_tree::{Content, Ino, Kind, Stat, Tree};
use amiforge_types::{BlobId, BlobTable, Digest, LayerId, ReadAt, SECTOR, Timestamp, Uuid};

use super::container::{Container, Folder};
use super::report::Bytes;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::look::{disk_file, open_disk, read_manifest};
use crate::parent::{InstalledPackage, installed_packages};
use crate::shown::shown;

/// Bytes of boot code in the first sector.
const BOOT_CODE: u64 = 440;
/// Largest BIOS boot partition that is read.
const MAX_BIOS_BOOT: u64 = 64 << 20;
/// Directories inside each other on an EFI system partition; a damaged one may hold itself.
const MAX_ESP_DEPTH: usize = 16;
/// Names on an EFI system partition.
const MAX_ESP_NAMES: usize = 20_000;

/// An opened image.
pub(super) struct Side {
    /// As it was asked for.
    pub(super) asked: PathBuf,
    /// The disk file, or the layout of a container.
    pub(super) file: PathBuf,
    /// The name of its format.
    pub(super) format: &'static str,
    /// `None` of a container.
    pub(super) info: Option<DiskInfo>,
    pub(super) root: Root,
    /// What a boot reads besides files of the root file system: by place and path.
    pub(super) boot: BTreeMap<(&'static str, Option<String>), Bytes>,
    pub(super) packages: Vec<InstalledPackage>,
    pub(super) packages_from: Option<&'static str>,
    /// Settings of a container, by name.
    pub(super) settings: BTreeMap<String, String>,
    /// Of an output folder.
    pub(super) origin: Option<Origin>,
}

/// What an image was built from.
pub(super) struct Origin {
    /// The lowest first, with the digests of what they came to.
    pub(super) layers: Vec<(LayerId, Digest)>,
    pub(super) components: Vec<ComponentRecord>,
}

impl Origin {
    /// The component that made a layer, for people.
    pub(super) fn component(&self, layer: LayerId) -> Option<String> {
        let mut components = self.components.iter();
        let found = components.find(|c| c.layer == Some(layer))?;
        Some(shown(found.name.as_bytes()))
    }
}

impl Side {
    /// Whether the layer of this id, in hexadecimal, is the very same in another image: not only made of the same, but of the
    /// same bytes.
    pub(super) fn shares(&self, other: &Self, id: &str) -> bool {
        let digest = |side: &Self| {
            let layers = &side.origin.as_ref()?.layers;
            let found = layers.iter().find(|(layer, _)| layer.0.hex() == id);
            found.map(|(_, digest)| *digest)
        };
        digest(self).is_some_and(|own| digest(other) == Some(own))
    }
}

/// The root file system, empty where there is none that we read.
pub(super) struct Root {
    /// Slot of its partition.
    pub(super) slot: Option<u32>,
    pub(super) tree: Tree,
    /// Parameters by name, of every file system: by slot.
    pub(super) parameters: BTreeMap<Option<u32>, Vec<(&'static str, String)>>,
    /// Why there are no files.
    pub(super) missing: Option<String>,
}

/// One of the two images, as far as it is opened.
pub(super) enum Opened {
    Disk(Disk),
    Folder(Box<Folder>),
    Container(Box<Container>),
}

impl Opened {
    pub(super) fn open(image: &Path) -> Result<Self, EngineError> {
        Ok(match Folder::find(image) {
            Some(folder) => Self::Folder(Box::new(folder)),
            None => Self::Disk(Disk::open(image)?),
        })
    }

    /// Bytes of all that is in it.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Disk(disk) => disk.source.size(),
            Self::Folder(_) => 0,
            Self::Container(container) => container.bytes,
        }
    }
}

/// A disk that was opened; the file systems are read on it.
pub(super) struct Disk {
    asked: PathBuf,
    file: PathBuf,
    format: Format,
    pub(super) source: Arc<dyn ReadAt>,
}

impl Disk {
    pub(super) fn open(image: &Path) -> Result<Self, EngineError> {
        let file = disk_file(image)?;
        let (format, disk, _) = open_disk(&file)?;
        Ok(Self {
            asked: image.to_owned(),
            file,
            format,
            source: Arc::from(disk),
        })
    }
}

impl Side {
    /// Reads everything but file data. `blob` is the disk in `blobs`.
    pub(super) fn read(disk: Disk, blob: BlobId, blobs: &BlobTable) -> Result<Self, EngineError> {
        let context = || format!("cannot look into {}", disk.file.display());
        let info = amiforge_disk::disk_info(&*disk.source).or_fail(ErrorKind::Failed, context)?;
        let root = read_root(&disk, &info, blob)?;
        let boot = read_boot(&disk, &info)?;
        let manifest = match disk.asked.is_dir() {
            true => Some(read_manifest(&disk.asked).or_fail(ErrorKind::Invalid, context)?),
            false => None,
        };
        let (packages, packages_from) = packages(&root.tree, &disk.asked, blobs)?;
        Ok(Self {
            asked: disk.asked,
            file: disk.file,
            format: disk.format.name(),
            info: Some(info),
            root,
            boot,
            packages,
            packages_from,
            settings: BTreeMap::new(),
            origin: manifest.map(|manifest| Origin {
                layers: manifest.layers.iter().map(|l| (l.id, l.digest)).collect(),
                components: manifest.components,
            }),
        })
    }

    /// The same of a container, which has no disk.
    pub(super) fn of(container: Container, blobs: &BlobTable) -> Result<Self, EngineError> {
        let Container {
            folder,
            layout,
            tree,
            ..
        } = container;
        let (packages, packages_from) = packages(&tree, &folder.asked, blobs)?;
        Ok(Self {
            asked: folder.asked,
            file: layout,
            format: "oci",
            info: None,
            root: Root {
                slot: None,
                tree,
                parameters: BTreeMap::new(),
                missing: None,
            },
            boot: Boot::new(),
            packages,
            packages_from,
            settings: container.settings,
            origin: Some(Origin {
                layers: folder
                    .manifest
                    .layers
                    .iter()
                    .map(|layer| (layer.id, layer.digest))
                    .collect(),
                components: folder.manifest.components,
            }),
        })
    }

    /// Its partitions.
    pub(super) fn partitions(&self) -> &[PartitionInfo] {
        self.info.as_ref().map_or(&[], |info| &info.partitions)
    }
}

/// The packages of a root file system, else those that its folder lists.
fn packages(
    tree: &Tree,
    asked: &Path,
    blobs: &BlobTable,
) -> Result<(Vec<InstalledPackage>, Option<&'static str>), EngineError> {
    let packages = installed_packages(tree, blobs)?;
    let list = asked.join("packages.json");
    if !packages.is_empty() || !asked.is_dir() || !list.is_file() {
        let from = (!packages.is_empty()).then_some("dpkg");
        return Ok((packages, from));
    }
    let context = || format!("{}", list.display());
    let bytes = read_file(&list, MAX_JSON).or_fail(ErrorKind::Failed, context)?;
    let packages = serde_json::from_slice(&bytes).or_fail(ErrorKind::Failed, context)?;
    Ok((packages, Some("packages.json")))
}

fn read_root(disk: &Disk, info: &DiskInfo, blob: BlobId) -> Result<Root, EngineError> {
    let nothing = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
    };
    let mut root = Root {
        slot: None,
        tree: Tree::new(nothing),
        parameters: BTreeMap::new(),
        missing: None,
    };
    let chosen = info.root_partition().map(|p| p.slot);
    let mut volumes: Vec<(Option<u32>, u64, u64)> = info
        .partitions
        .iter()
        .filter(|p| p.is_ext())
        .map(|p| (Some(p.slot), p.offset(), p.len_bytes()))
        .collect();
    if let Some(fs) = &info.file_system
        && info.partitions.is_empty()
        && fs.kind.is_ext()
    {
        volumes.push((None, 0, info.virtual_bytes));
    }
    if volumes.is_empty() {
        root.missing = Some(format!(
            "{}: no ext4 file system, so files and packages are not compared",
            disk.file.display()
        ));
    }
    for (slot, offset, len) in volumes {
        let context = || match slot {
            Some(slot) => format!("cannot read partition {slot} of {}", disk.file.display()),
            None => format!("cannot read {}", disk.file.display()),
        };
        let reader = ext4::Reader::open(disk.source.clone(), offset, len)
            .or_fail(ErrorKind::Failed, context)?;
        let usage = reader.usage().or_fail(ErrorKind::Failed, context)?;
        let parameters = vec![
            ("label", shown(&reader.label())),
            ("uuid", reader.uuid().to_string()),
            ("hashSeed", reader.hash_seed().to_string()),
            ("blockSize", usage.block_size.to_string()),
            ("blocks", usage.blocks.to_string()),
            ("inodes", usage.inodes.to_string()),
            ("journal", journal(reader.is_recovered())),
        ];
        root.parameters.insert(slot, parameters);
        if slot == chosen {
            let import = reader
                .tree(blob, offset)
                .or_fail(ErrorKind::Failed, context)?;
            root.slot = slot;
            root.tree = import.tree;
        }
    }
    Ok(root)
}

fn journal(recovered: bool) -> String {
    if recovered { "to be replayed" } else { "clean" }.to_owned()
}

type Boot = BTreeMap<(&'static str, Option<String>), Bytes>;

fn read_boot(disk: &Disk, info: &DiskInfo) -> Result<Boot, EngineError> {
    let context = || format!("cannot read {}", disk.file.display());
    let mut boot = Boot::new();
    if info.virtual_bytes >= SECTOR {
        let bytes = read_range(&*disk.source, 0, BOOT_CODE).or_fail(ErrorKind::Failed, context)?;
        if bytes.iter().any(|b| *b != 0) {
            boot.insert(("bootSector", None), bytes_of(&bytes));
        }
    }
    let of_type = |guid: Uuid| info.partitions.iter().find(|p| p.type_guid == guid);
    if let Some(part) = of_type(gpt::TYPE_BIOS_BOOT)
        && part.len_bytes() <= MAX_BIOS_BOOT
    {
        let bytes = read_range(&*disk.source, part.offset(), part.len_bytes())
            .or_fail(ErrorKind::Failed, context)?;
        boot.insert(("biosBoot", None), bytes_of(&bytes));
    }
    if let Some(part) = of_type(gpt::TYPE_ESP)
        && part
            .file_system
            .as_ref()
            .is_some_and(|fs| fs.kind == FileSystemKind::Vfat)
    {
        let context = || {
            format!(
                "cannot read the EFI system partition of {}",
                disk.file.display()
            )
        };
        let reader = fat::Reader::open(disk.source.clone(), part.offset(), part.len_bytes())
            .or_fail(ErrorKind::Failed, context)?;
        // Files of a damaged table may all share the same clusters.
        let mut left = part.len_bytes();
        let mut names = 0;
        let mut folders = vec![(String::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            for entry in reader.list(&folder).or_fail(ErrorKind::Failed, context)? {
                names += 1;
                if names > MAX_ESP_NAMES || depth > MAX_ESP_DEPTH {
                    return Err(EngineError::new(
                        ErrorKind::Failed,
                        format!("{}: too many names, or a folder in itself", context()),
                    ));
                }
                let path = format!("{folder}/{}", entry.name);
                if entry.stat.directory {
                    folders.push((path, depth + 1));
                    continue;
                }
                let sha256 = match left.checked_sub(entry.stat.size) {
                    Some(rest) => {
                        left = rest;
                        let bytes = reader.read(&path).or_fail(ErrorKind::Failed, context)?;
                        Some(Digest::of(&bytes))
                    }
                    None => None,
                };
                let bytes = Bytes {
                    size: entry.stat.size,
                    sha256,
                };
                boot.insert(("esp", Some(shown(path.as_bytes()))), bytes);
            }
        }
    }
    Ok(boot)
}

fn read_range(disk: &dyn ReadAt, offset: u64, len: u64) -> std::io::Result<Vec<u8>> {
    let len = usize::try_from(len).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; len];
    disk.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn bytes_of(bytes: &[u8]) -> Bytes {
    Bytes {
        size: bytes.len() as u64,
        sha256: Some(Digest::of(bytes)),
    }
}

impl Root {
    /// The content of a regular file.
    pub(super) fn content(&self, ino: Ino) -> Option<Content> {
        match self.tree.inode(ino).kind {
            Kind::File(content) => Some(content),
            _ => None,
        }
    }
}
