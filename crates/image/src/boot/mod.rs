//! What makes a tree bootable: kernel, GRUB for both firmwares, and the files around them.

mod bios;
mod config;
mod core_image;
mod efi;
mod elf;
mod kernel;
mod version;

use amiforge_fs::fat::FatFile;
use amiforge_types::Uuid;

use crate::files::Files;
use crate::layout::Area;
use crate::{ImageError, ImageSpec, KernelInfo};

pub(crate) use config::fat_uuid;
pub(crate) use config::install_fstab_only as without_boot_loader;
pub use version::compare_versions;

/// Ids that boot files refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    /// Of the root file system.
    pub root: Uuid,
    /// Serial number of the ESP.
    pub esp: u32,
}

/// What boot code goes outside of the root file system.
pub(crate) struct BootParts {
    pub kernel: KernelInfo,
    /// Bytes 0..440 of the disk.
    pub boot_code: Option<Box<[u8; 440]>>,
    /// The content of the BIOS boot partition.
    pub core: Option<Vec<u8>>,
    /// The files of the ESP.
    pub esp: Vec<FatFile>,
}

/// Prepares a tree for its firmware.
pub(crate) fn install(
    files: &mut Files<'_>,
    spec: &ImageSpec,
    ids: Ids,
    bios_boot: Option<Area>,
) -> Result<BootParts, ImageError> {
    let kernels = kernel::find(files, spec.arch)?;
    let command_line = config::command_line(spec, ids)?;
    let (mut boot_code, mut core) = (None, None);
    if let Some(area) = bios_boot {
        let (code, image) = bios::install(files, area)?;
        (boot_code, core) = (Some(code), Some(image));
    }
    let esp = if spec.boot.uefi() {
        efi::install(files, spec.arch, ids)?
    } else {
        Vec::new()
    };
    config::install(files, spec, ids, &kernels, &command_line)?;
    let version = kernels[0].clone();
    Ok(BootParts {
        kernel: KernelInfo {
            version,
            command_line,
        },
        boot_code,
        core,
        esp,
    })
}
