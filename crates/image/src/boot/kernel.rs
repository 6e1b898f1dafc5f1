//! The kernels in `/boot`.

use amiforge_types::Arch;

use super::version::compare_versions;
use crate::ImageError;
use crate::files::Files;

/// Versions of the kernels in the tree, the newest first; each has an initrd.
pub(super) fn find(files: &Files<'_>, arch: Arch) -> Result<Vec<String>, ImageError> {
    let mut versions: Vec<String> = files
        .names("/boot")
        .iter()
        .filter_map(|name| name.strip_prefix("vmlinuz-"))
        .filter(|version| {
            is_plain(version) && files.content(&format!("/boot/vmlinuz-{version}")).is_some()
        })
        .map(str::to_owned)
        .collect();
    versions.sort_by(|a, b| compare_versions(b, a).then_with(|| b.cmp(a)));
    let newest = versions.first().ok_or(ImageError::NoKernel {
        package: package(arch),
    })?;
    let has_initrd = |version: &String| {
        files
            .content(&format!("/boot/initrd.img-{version}"))
            .is_some()
    };
    if !has_initrd(newest) {
        return Err(ImageError::NoInitrd {
            version: newest.clone(),
        });
    }
    versions.retain(has_initrd);
    Ok(versions)
}

/// A version that can stand in `grub.cfg` without quoting, and is no backup copy.
fn is_plain(version: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
    let backup = [".bak", ".old", ".dpkg-tmp", ".dpkg-new", "~"]
        .iter()
        .any(|end| version.ends_with(end));
    !version.is_empty() && version.bytes().all(ok) && !backup
}

fn package(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "linux-image-cloud-amd64",
        Arch::Arm64 => "linux-image-cloud-arm64",
    }
}
