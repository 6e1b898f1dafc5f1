//! GRUB for UEFI: what `grub-install --target=x86_64-efi --removable` and Debian's signed packages
//! leave on the EFI system partition.
//!
//! ```text
//! EFI/BOOT/BOOTX64.EFI     shim (or GRUB, unsigned)   the path firmware falls back to
//! EFI/BOOT/grubx64.efi     GRUB, started by shim
//! EFI/BOOT/mmx64.efi       MokManager
//! EFI/debian/…             the same under its own name, with what a boot entry would need
//! EFI/debian/grub.cfg      finds the root file system; this path is built into Debian's GRUB
//! ```
//!
//! shim's fallback (`fbx64.efi`) is left out of `EFI/BOOT`: with it there, shim would write boot
//! entries and reset the machine first.

use std::sync::Arc;

use amiforge_fs::fat::FatFile;
use amiforge_types::Arch;

use super::{Ids, bios::copy_modules};
use crate::ImageError;
use crate::files::Files;

struct Names {
    /// Suffix of the files in lower case.
    suffix: &'static str,
    /// Name of the file that firmware looks for.
    default: &'static str,
    /// GRUB's platform directory.
    platform: &'static str,
    /// The package with the signed GRUB.
    signed: &'static str,
}

fn names(arch: Arch) -> Names {
    match arch {
        Arch::X86_64 => Names {
            suffix: "x64",
            default: "BOOTX64.EFI",
            platform: "x86_64-efi",
            signed: "grub-efi-amd64-signed",
        },
        Arch::Arm64 => Names {
            suffix: "aa64",
            default: "BOOTAA64.EFI",
            platform: "arm64-efi",
            signed: "grub-efi-arm64-signed",
        },
    }
}

/// Copies GRUB's modules into the tree; gives the files of the ESP.
pub(super) fn install(
    files: &mut Files<'_>,
    arch: Arch,
    ids: Ids,
) -> Result<Vec<FatFile>, ImageError> {
    let Names {
        suffix,
        default,
        platform,
        signed,
    } = names(arch);
    let library = format!("/usr/lib/grub/{platform}");
    let shim_file = |name: &str| files.read(&format!("/usr/lib/shim/{name}"));

    let grub_signed = files.read(&format!("{library}-signed/grub{suffix}.efi.signed"))?;
    let shim = shim_file(&format!("shim{suffix}.efi.signed"))?;
    // Without shim no firmware would accept Debian's signature; without the signed GRUB shim would
    // start nothing. Either both, or the unsigned GRUB alone.
    let (first, second) = match (shim, grub_signed) {
        (Some(shim), Some(grub)) => (shim, Some(grub)),
        (None, Some(grub)) => (grub, None),
        (_, None) => match files.read(&format!("{library}/monolithic/grub{suffix}.efi"))? {
            Some(grub) => (grub, None),
            None => {
                let path = format!("{library}-signed/grub{suffix}.efi.signed");
                return Err(ImageError::MissingLoader {
                    path,
                    package: signed,
                });
            }
        },
    };

    let mut out = vec![FatFile::new(
        format!("EFI/BOOT/{default}"),
        Arc::clone(&first),
    )];
    let grub = format!("grub{suffix}.efi");
    if let Some(grub_bytes) = second {
        out.push(FatFile::new(
            format!("EFI/BOOT/{grub}"),
            Arc::clone(&grub_bytes),
        ));
        out.push(FatFile::new(format!("EFI/debian/{grub}"), grub_bytes));
        out.push(FatFile::new(format!("EFI/debian/shim{suffix}.efi"), first));
        if let Some(manager) = shim_file(&format!("mm{suffix}.efi.signed"))? {
            out.push(FatFile::new(
                format!("EFI/BOOT/mm{suffix}.efi"),
                Arc::clone(&manager),
            ));
            out.push(FatFile::new(format!("EFI/debian/mm{suffix}.efi"), manager));
        }
        if let Some(fallback) = shim_file(&format!("fb{suffix}.efi.signed"))? {
            out.push(FatFile::new(format!("EFI/debian/fb{suffix}.efi"), fallback));
        }
        if let Some(csv) = shim_file(&format!("BOOT{}.CSV", suffix.to_uppercase()))? {
            out.push(FatFile::new(
                format!("EFI/debian/BOOT{}.CSV", suffix.to_uppercase()),
                csv,
            ));
        }
    } else {
        out.push(FatFile::new(format!("EFI/debian/{grub}"), first));
    }
    let config = format!(
        "search.fs_uuid {} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n",
        ids.root
    );
    out.push(FatFile::new("EFI/debian/grub.cfg", config.into_bytes()));

    copy_modules(files, &library, &format!("/boot/grub/{platform}"))?;
    Ok(out)
}
