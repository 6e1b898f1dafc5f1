//! GRUB for BIOS: what `grub-install --target=i386-pc` leaves on a disk.
//!
//! ```text
//! sector 0                 boot.img, patched: loads one sector from `kernel_sector`
//! BIOS boot partition      core.img: diskboot.img, patched: loads the rest of core.img
//! /boot/grub/i386-pc/      modules, lists, boot.img, core.img
//! ```
//!
//! Offsets in `boot.img` and `diskboot.img` are those of GRUB's `include/grub/i386/pc/boot.h`, stable
//! since 2.00.

use amiforge_tree::Content;
use amiforge_types::SECTOR;

use super::core_image::{self, CoreImage};
use crate::ImageError;
use crate::files::Files;
use crate::layout::{Area, SLOT_ROOT};

const PACKAGE: &str = "grub-pc-bin";
const LIBRARY: &str = "/usr/lib/grub/i386-pc";
const TARGET: &str = "/boot/grub/i386-pc";
/// What core.img must bring to reach the modules on the root file system.
const MODULES: [&str; 3] = ["biosdisk", "part_gpt", "ext2"];

/// What `grub-install` copies beside the modules, whatever the platform, where it is there. A library
/// has more lists than these: `fdt.lst` stays there.
const DATA: [&str; 11] = [
    "command.lst",
    "crypto.lst",
    "efiemu32.o",
    "efiemu64.o",
    "fs.lst",
    "moddep.lst",
    "modinfo.sh",
    "partmap.lst",
    "parttool.lst",
    "terminal.lst",
    "video.lst",
];

/// Area that a BIOS parameter block would take: kept as the disk has it, that is zero.
const BPB: std::ops::Range<usize> = 0x03..0x5A;
/// boot.img: sector of core.img, 8 bytes.
const KERNEL_SECTOR: usize = 0x5C;
/// boot.img: the drive to boot from; 0xFF means the one the BIOS booted.
const BOOT_DRIVE: usize = 0x64;
/// boot.img: a jump that only floppies need, replaced by no-ops for disks.
const DRIVE_CHECK: usize = 0x66;
/// core.img: the only entry of its block list: start (8), sectors (2), segment (2).
const BLOCK_LIST: usize = 512 - 12;
/// Boot code ends where the disk signature and the partition table start.
const BOOT_CODE: usize = 440;

/// Installs GRUB's files into the tree; gives the boot code and the content of the partition.
pub(super) fn install(
    files: &mut Files<'_>,
    area: Area,
) -> Result<(Box<[u8; BOOT_CODE]>, Vec<u8>), ImageError> {
    let prefix = format!("(,gpt{SLOT_ROOT})/boot/grub");
    let read = |name: &str| files.require(&format!("{LIBRARY}/{name}"), PACKAGE);
    let boot = read("boot.img")?;
    let CoreImage { bytes: core, .. } = core_image::build(&read, &prefix, &MODULES)?;

    copy_modules(files, LIBRARY, TARGET)?;
    files.write(&format!("{TARGET}/boot.img"), Content::bytes(boot.clone()))?;
    files.write(&format!("{TARGET}/core.img"), Content::bytes(core.clone()))?;

    let code = patch_boot(&boot, area.first_lba())?;
    let core = patch_core(core, area)?;
    Ok((code, core))
}

/// Copies what GRUB loads at run time; a directory that is missing is left out.
pub(super) fn copy_modules(files: &mut Files<'_>, from: &str, to: &str) -> Result<(), ImageError> {
    for name in files.names(from) {
        if name.ends_with(".mod") || DATA.contains(&name.as_str()) {
            files.copy(&format!("{from}/{name}"), &format!("{to}/{name}"))?;
        }
    }
    Ok(())
}

fn bad(name: &str, what: &str) -> ImageError {
    ImageError::BadLoader {
        path: format!("{LIBRARY}/{name}"),
        what: what.to_owned(),
    }
}

fn patch_boot(boot: &[u8], core_lba: u64) -> Result<Box<[u8; BOOT_CODE]>, ImageError> {
    if boot.len() != 512 || boot[510..] != [0x55, 0xAA] {
        return Err(bad("boot.img", "not a boot sector"));
    }
    // A two-byte jump; anything else means that the offsets below are not those of this file.
    if boot[DRIVE_CHECK] != 0xEB && boot[DRIVE_CHECK..DRIVE_CHECK + 2] != [0x90, 0x90] {
        return Err(bad(
            "boot.img",
            "its drive check is not where it was in every GRUB since 2.00",
        ));
    }
    let mut code = Box::new([0; BOOT_CODE]);
    code.copy_from_slice(&boot[..BOOT_CODE]);
    code[BPB].fill(0);
    code[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&core_lba.to_le_bytes());
    code[BOOT_DRIVE] = 0xFF;
    code[DRIVE_CHECK..DRIVE_CHECK + 2].copy_from_slice(&[0x90, 0x90]);
    Ok(code)
}

fn patch_core(mut core: Vec<u8>, area: Area) -> Result<Vec<u8>, ImageError> {
    let sector = usize::try_from(SECTOR).unwrap_or(512);
    core.resize(core.len().next_multiple_of(sector), 0);
    if core.len() as u64 > area.len {
        return Err(bad("core.img", "it is larger than the BIOS boot partition"));
    }
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(area.first_lba() + 1).to_le_bytes());
    Ok(core)
}
