//! GRUB for UEFI: what `grub-install --target=x86_64-efi --removable` and Debian's signed packages
//! leave on the EFI system partition.
//!
//! ```text
//! EFI/BOOT/BOOTX64.EFI     shim (or GRUB, unsigned)   the path firmware falls back to
//! EFI/BOOT/grubx64.efi     GRUB, started by shim
//! EFI/BOOT/mmx64.efi       MokManager
//! EFI/debian/…             the same under its own name, with what a boot entry would need
//! EFI/debian/grub.cfg      finds the root file system; this path is built into GRUB, here Debian's
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

    let vendor = vendor_of(second.as_deref().unwrap_or(&first));
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
        out.push(FatFile::new(format!("EFI/{vendor}/{grub}"), grub_bytes));
        out.push(FatFile::new(
            format!("EFI/{vendor}/shim{suffix}.efi"),
            first,
        ));
        if let Some(manager) = shim_file(&format!("mm{suffix}.efi.signed"))? {
            out.push(FatFile::new(
                format!("EFI/BOOT/mm{suffix}.efi"),
                Arc::clone(&manager),
            ));
            out.push(FatFile::new(
                format!("EFI/{vendor}/mm{suffix}.efi"),
                manager,
            ));
        }
        if let Some(fallback) = shim_file(&format!("fb{suffix}.efi.signed"))? {
            out.push(FatFile::new(
                format!("EFI/{vendor}/fb{suffix}.efi"),
                fallback,
            ));
        }
        if let Some(csv) = shim_file(&format!("BOOT{}.CSV", suffix.to_uppercase()))? {
            out.push(FatFile::new(
                format!("EFI/{vendor}/BOOT{}.CSV", suffix.to_uppercase()),
                csv,
            ));
        }
    } else {
        out.push(FatFile::new(format!("EFI/{vendor}/{grub}"), first));
    }
    let config = format!(
        "search.fs_uuid {} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n",
        ids.root
    );
    out.push(FatFile::new(
        format!("EFI/{vendor}/grub.cfg"),
        config.into_bytes(),
    ));

    copy_modules(files, &library, &format!("/boot/grub/{platform}"))?;
    Ok(out)
}

/// The folder of the ESP where a GRUB looks for its configuration. Distributions build it into theirs as `/EFI/<name>`.
fn vendor_of(grub: &[u8]) -> String {
    const PREFIX: &[u8] = b"/EFI/";
    let name = grub
        .windows(PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == PREFIX)
        .find_map(|(at, _)| {
            let rest = grub.get(at + PREFIX.len()..)?;
            let name = rest.get(..rest.iter().take(32).position(|b| *b == 0)?)?;
            let fits = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
            let is_name = !name.is_empty() && name.iter().all(fits);
            let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
            (!name.eq_ignore_ascii_case("BOOT")).then(|| name.to_owned())
        });
    name.unwrap_or_else(|| "debian".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_says_where_its_configuration_is() {
        for (grub, vendor) in [
            (&b"x/EFI/ubuntu\0y"[..], "ubuntu"),
            (b"/EFI/BOOT\0/EFI/debian\0", "debian"),
            (b"/EFI/%s/x\0/EFI/\0/EFI/a name\0", "debian"),
            (b"/EFI/cut", "debian"),
            (b"", "debian"),
        ] {
            assert_eq!(vendor_of(grub), vendor);
        }
    }
}
