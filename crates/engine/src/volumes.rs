//! From the recipe's block device mappings to those of the AMI.

use amiforge_ami::{
    BlockDeviceMapping, BootMode, DeviceName, EbsVolume, MappingTarget, VolumeType,
};
use amiforge_recipe as recipe;
use amiforge_types::GIB;

use crate::error::{Contextual, EngineError, ErrorKind};

/// What a recipe's volumes come to.
pub(crate) struct Volumes {
    /// The root device.
    pub(crate) root: DeviceName,
    /// Size of the root volume in GiB; `None` lets the content decide.
    pub(crate) root_gib: Option<u32>,
    /// Mappings of the recipe, the root's size still open where the recipe leaves it open.
    pub(crate) mappings: Vec<BlockDeviceMapping>,
}

/// Lowers the recipe's mappings.
pub(crate) fn of_recipe(recipe: &recipe::ImageRecipe) -> Result<Volumes, EngineError> {
    let context = || "the recipe's block device mappings cannot be used".to_owned();
    let root: DeviceName = recipe
        .root_device_name()
        .parse()
        .or_fail(ErrorKind::Invalid, context)?;
    let mut root_gib = None;
    let mut mappings = Vec::new();
    for mapping in &recipe.block_device_mappings {
        let device_name: DeviceName = mapping
            .device_name
            .parse()
            .or_fail(ErrorKind::Invalid, context)?;
        let is_root = device_name == root;
        let target = if let Some(ebs) = &mapping.ebs {
            if is_root {
                root_gib = ebs.volume_size;
            }
            let size = match ebs.volume_size {
                Some(size) => size,
                None if is_root => 0,
                None => {
                    return Err(EngineError::new(
                        ErrorKind::Invalid,
                        format!("blockDeviceMappings: {device_name} has no volumeSize"),
                    ));
                }
            };
            let mut volume = EbsVolume::gp3(size);
            if let Some(kind) = ebs.volume_type {
                volume.volume_type = kind_of(kind);
            }
            volume.delete_on_termination = ebs.delete_on_termination.unwrap_or(is_root);
            volume.iops = ebs.iops;
            volume.throughput = ebs.throughput;
            volume.encrypted = ebs.encrypted;
            volume.kms_key_id.clone_from(&ebs.kms_key_id);
            if let Some(snapshot) = &ebs.snapshot_id {
                return Err(EngineError::new(
                    ErrorKind::Invalid,
                    format!(
                        "blockDeviceMappings: {device_name} starts from {snapshot}, and the content of AWS's snapshots is not here"
                    ),
                )
                .with_hint("leave snapshotId out: the root volume is what is built, and further volumes start empty"));
            }
            MappingTarget::Ebs(volume)
        } else if let Some(name) = &mapping.virtual_name {
            MappingTarget::Virtual(name.parse().map_err(|e| {
                EngineError::new(ErrorKind::Invalid, format!("blockDeviceMappings: {e}"))
            })?)
        } else {
            MappingTarget::NoDevice
        };
        mappings.push(BlockDeviceMapping {
            device_name,
            target,
        });
    }
    if !mappings.iter().any(|m| m.device_name == root) {
        mappings.insert(0, BlockDeviceMapping::ebs(root.clone(), EbsVolume::gp3(0)));
    }
    Ok(Volumes {
        root,
        root_gib,
        mappings,
    })
}

/// A volume beside the root.
pub(crate) struct FurtherVolume {
    /// Its device.
    pub(crate) device: DeviceName,
    /// Its size in bytes.
    pub(crate) bytes: u64,
}

impl Volumes {
    /// The EBS volumes beside the root. Instance store volumes are no part of an image: EC2 makes
    /// them anew for every instance, and where they are NVMe it does not look at their mapping.
    pub(crate) fn further(&self) -> Vec<FurtherVolume> {
        self.mappings
            .iter()
            .filter(|mapping| mapping.device_name != self.root)
            .filter_map(|mapping| {
                let gib = mapping.as_ebs()?.volume_size;
                Some(FurtherVolume {
                    device: mapping.device_name.clone(),
                    bytes: u64::from(gib) * GIB,
                })
            })
            .collect()
    }

    /// The mappings with the root volume's size filled in: what the recipe asks for, else the
    /// smallest that holds `bytes`.
    pub(crate) fn with_root_size(mut self, bytes: u64) -> Vec<BlockDeviceMapping> {
        let gib = self
            .root_gib
            .unwrap_or_else(|| u32::try_from(bytes.div_ceil(GIB)).unwrap_or(u32::MAX));
        for mapping in &mut self.mappings {
            if mapping.device_name == self.root
                && let MappingTarget::Ebs(volume) = &mut mapping.target
            {
                volume.volume_size = gib;
            }
        }
        self.mappings
    }
}

fn kind_of(kind: recipe::VolumeType) -> VolumeType {
    match kind {
        recipe::VolumeType::Standard => VolumeType::Standard,
        recipe::VolumeType::Io1 => VolumeType::Io1,
        recipe::VolumeType::Io2 => VolumeType::Io2,
        recipe::VolumeType::Gp2 => VolumeType::Gp2,
        recipe::VolumeType::Gp3 => VolumeType::Gp3,
        recipe::VolumeType::Sc1 => VolumeType::Sc1,
        recipe::VolumeType::St1 => VolumeType::St1,
    }
}

/// The AMI's boot mode.
pub(crate) fn boot_mode(mode: recipe::BootMode) -> BootMode {
    match mode {
        recipe::BootMode::LegacyBios => BootMode::LegacyBios,
        recipe::BootMode::Uefi => BootMode::Uefi,
        recipe::BootMode::UefiPreferred => BootMode::UefiPreferred,
    }
}
