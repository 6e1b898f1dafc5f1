//! From a tree to a disk.

use std::sync::Arc;

use amiforge_disk::gpt::GptSpec;
use amiforge_disk::{Extent, ExtentData, Extents, FileSystemInfo, FileSystemKind, PartitionInfo};
use amiforge_fs::{ext4, fat};
use amiforge_tree::Tree;
use amiforge_types::{Arch, BlobTable, SECTOR};

use crate::boot::{self, BootParts, Ids};
use crate::files::Files;
use crate::layout::{Area, Front, SLOT_ESP, SLOT_ROOT};
use crate::{BootMode, DiskImage, ImageError, ImageSpec, RootInfo};

/// Lays out a disk that holds `tree` and boots as `spec` says.
///
/// The tree gains the files a boot needs; file data is read from `blobs` only where boot loaders
/// are patched or packed. The same tree, file bytes and spec give the same disk.
pub fn assemble(tree: Tree, spec: &ImageSpec, blobs: &BlobTable) -> Result<DiskImage, ImageError> {
    if spec.boot.bios() && spec.arch != Arch::X86_64 {
        return Err(ImageError::NoBios(spec.arch));
    }
    if let Some(bytes) = spec.size
        && !bytes.is_multiple_of(SECTOR)
    {
        return Err(ImageError::BadSize {
            what: "the disk",
            bytes,
            why: "it must be a multiple of 512",
        });
    }
    let front = Front::new(spec)?;
    let ids = Ids {
        root: spec.seed.uuid("ext4.uuid"),
        esp: spec.seed.u32("fat.volume-id"),
    };

    let mut files = Files {
        tree,
        blobs,
        clock: spec.clock,
    };
    let parts = if spec.boot == BootMode::None {
        boot::without_boot_loader(&mut files, spec, ids)?;
        None
    } else {
        Some(boot::install(&mut files, spec, ids, front.bios_boot)?)
    };

    let (root_area, disk_size, plan) = plan_root(Arc::new(files.tree), spec, front, ids)?;
    let partitions = front.partitions(spec, root_area);
    let boot_code = parts.as_ref().and_then(|parts| parts.boot_code.clone());
    let disk_guid = spec.seed.uuid("gpt.disk-guid");
    let table = GptSpec {
        disk_guid,
        sectors: disk_size / SECTOR,
        partitions,
        boot_code,
    };
    let mut extents = table.extents().map_err(ImageError::Table)?;

    let kernel = parts.as_ref().map(|parts| parts.kernel.clone());
    if let Some(BootParts { core, esp, .. }) = parts {
        if let (Some(area), Some(core)) = (front.bios_boot, core) {
            let len = core.len() as u64;
            extents.push(Extent {
                offset: area.offset,
                len,
                data: ExtentData::Bytes(Arc::from(core)),
            });
        }
        if let Some(area) = front.esp {
            extents.extend(plan_esp(&esp, spec, area, ids)?.shifted(area.offset));
        }
    }
    let root = RootInfo {
        slot: SLOT_ROOT,
        uuid: plan.uuid,
        part_uuid: spec.seed.uuid(&format!("gpt.partition-{SLOT_ROOT}")),
        label: plan.label.clone(),
        free_bytes: plan.free_blocks * ext4::BLOCK_SIZE,
    };
    extents.extend(plan.extents.shifted(root_area.offset));

    let describe = |slot: u32| match slot {
        SLOT_ROOT => Some(FileSystemInfo {
            kind: FileSystemKind::Ext4,
            uuid: Some(root.uuid.to_string()),
            label: Some(root.label.clone()).filter(|label| !label.is_empty()),
            usage: None,
        }),
        SLOT_ESP => Some(FileSystemInfo {
            kind: FileSystemKind::Vfat,
            uuid: Some(boot::fat_uuid(ids.esp)),
            label: Some(ESP_LABEL.to_owned()),
            usage: None,
        }),
        _ => None,
    };
    let partitions = table
        .partitions
        .into_iter()
        .map(|p| PartitionInfo {
            slot: p.slot,
            file_system: describe(p.slot),
            name: p.name,
            type_guid: p.type_guid,
            guid: p.guid,
            mbr_type: None,
            digest: None,
            first_lba: p.first_lba,
            last_lba: p.last_lba,
        })
        .collect();
    let extents = Extents::new(disk_size, extents).map_err(ImageError::Layout)?;
    Ok(DiskImage {
        extents,
        disk_guid,
        partitions,
        root,
        kernel,
    })
}

const ESP_LABEL: &str = "ESP";

/// The root file system, the partition it fills, and the disk's size.
fn plan_root(
    tree: Arc<Tree>,
    spec: &ImageSpec,
    front: Front,
    ids: Ids,
) -> Result<(Area, u64, ext4::Plan), ImageError> {
    let mut options = ext4::Options::new(
        ext4::Size::Minimum {
            free: spec.headroom,
        },
        ids.root,
        spec.seed.uuid("ext4.hash-seed"),
        spec.clock,
    );
    options.label.clone_from(&spec.root_label);
    options.profile = spec.root_profile;
    options.inodes = spec.root_inodes;
    options.padded_blobs.clone_from(&spec.padded_blobs);
    let measured = ext4::Measured::new(tree, &options).map_err(ImageError::Root)?;
    let least = |free| measured.minimum_size(free).map_err(ImageError::Root);
    let disk_size = match spec.size {
        Some(size) => size,
        None => front.disk_for(least(spec.headroom)?),
    };
    let too_small = |tree_needs: u64| ImageError::too_small(disk_size, front.disk_for(tree_needs));
    let Some(area) = front.root(disk_size) else {
        return Err(too_small(least(0)?));
    };
    match measured.plan(ext4::Size::Volume(area.len)) {
        Ok(plan) => Ok((area, disk_size, plan)),
        Err(ext4::Ext4Error::TooSmall { needed, .. }) => Err(too_small(needed)),
        Err(error) => Err(ImageError::Root(error)),
    }
}

fn plan_esp(
    files: &[fat::FatFile],
    spec: &ImageSpec,
    area: Area,
    ids: Ids,
) -> Result<Extents, ImageError> {
    let bad = ImageError::BadSize {
        what: "the EFI system partition",
        bytes: area.len,
        why: "it starts beyond 2 TiB",
    };
    let options = fat::Options {
        size: area.len,
        volume_id: ids.esp,
        label: ESP_LABEL.to_owned(),
        clock: spec.clock,
        hidden_sectors: u32::try_from(area.first_lba()).map_err(|_| bad)?,
    };
    fat::build(files, &options).map_err(ImageError::Esp)
}
