//! A kernel for machines of our own, from Debian's archive: found, verified and unpacked like any other package.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use amiforge_types::{Arch, Digest};

use crate::deb::{DebError, EntryKind, TarReader, decompress, members};
use crate::{Context, DebianRequest, ResolvedDebian, SourceError, Variant};

/// The suite that the kernel is taken from.
pub const KERNEL_SUITE: &str = "bookworm";

/// The package that depends on the newest kernel for virtual machines.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Most bytes of the kernel, and of one module.
const MAX_FILE: u64 = 256 << 20;
const MAX_MODULE: u64 = 16 << 20;

/// Most modules that are kept on the way; a kernel has some hundred in the places that are looked at.
const MAX_MODULES: usize = 2000;

/// What a machine needs that a kernel may have as modules.
const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
    "overlay",
];

/// A kernel and the modules that a machine needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its release, as `uname -r` says it.
    pub release: String,
    /// The kernel, in the form of the Linux boot protocol.
    pub image: Vec<u8>,
    /// Names and contents of modules, in an order in which they can be loaded. What is not there is part of the kernel.
    pub modules: Vec<(String, Vec<u8>)>,
}

/// Brings the newest kernel package into the cache.
///
/// # Errors
/// When the archive cannot be reached or verified.
pub fn fetch_kernel(ctx: &Context<'_>) -> Result<PathBuf, SourceError> {
    let request = DebianRequest {
        variant: Variant::Essential,
        packages: Some(vec![PACKAGE.to_owned()]),
        ..DebianRequest::new(KERNEL_SUITE, Arch::X86_64)
    };
    let resolved = crate::resolve(&request, ctx)?;
    let is_kernel = |name: &str| {
        let release = name.strip_prefix("linux-image-");
        release.is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    };
    let packages: Vec<_> = resolved
        .packages
        .iter()
        .filter(|package| is_kernel(&package.name))
        .cloned()
        .collect();
    let found = packages.len();
    let only = ResolvedDebian {
        packages,
        ..resolved
    };
    let mut fetched = crate::fetch(&only, ctx)?;
    match (found, fetched.debs.pop()) {
        (1, Some(deb)) => {
            let bytes = fs_err::read(&deb).map_err(|e| SourceError::io(&deb, e))?;
            let (got, expected) = (Digest::of(&bytes), only.packages[0].sha256);
            match got == expected {
                true => Ok(deb),
                false => Err(SourceError::Digest {
                    uri: deb.display().to_string(),
                    expected,
                    got,
                }),
            }
        }
        _ => Err(SourceError::malformed(
            PACKAGE,
            format!("it brings {found} kernels, not one"),
        )),
    }
}

/// Reads a kernel package.
///
/// # Errors
/// When it is damaged or has no kernel.
pub fn read_kernel(deb: &Path) -> Result<Kernel, SourceError> {
    let bytes = fs_err::read(deb).map_err(|e| SourceError::io(deb, e))?;
    let package = || deb.display().to_string();
    read(&bytes).map_err(|source| SourceError::Deb {
        package: package(),
        source,
    })
}

fn read(deb: &[u8]) -> Result<Kernel, DebError> {
    let (_, data) = members(deb)?;
    let mut tar = TarReader::new(decompress(data)?, "data");
    let mut kernel = None;
    let mut modules: Vec<(String, Vec<u8>)> = Vec::new();
    while let Some(entry) = tar.next()? {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let file = path.rsplit('/').next().unwrap_or_default();
        if entry.kind != EntryKind::File {
            continue;
        }
        if let Some(release) = path.strip_prefix("boot/vmlinuz-") {
            kernel = Some((release.to_owned(), tar.content_vec(MAX_FILE)?));
        } else if path.contains("lib/modules/")
            && may_be_needed(&path)
            && let Some((name, packed)) = file.split_once(".ko")
        {
            if modules.len() >= MAX_MODULES {
                return Err(DebError::Limit {
                    what: "modules of a kernel",
                    limit: MAX_MODULES as u64,
                });
            }
            let content = tar.content_vec(MAX_MODULE)?;
            modules.push((name.replace('-', "_"), unpacked(packed, &content)?));
        }
    }
    let (release, image) =
        kernel.ok_or_else(|| DebError::malformed("data", 0, "there is no kernel in boot"))?;
    Ok(Kernel {
        release,
        image,
        modules: in_order(modules),
    })
}

/// Modules are many; those that the wanted ones can depend on are in these places.
fn may_be_needed(path: &str) -> bool {
    let (_, below) = path.split_once("/kernel/").unwrap_or(("", path));
    let places = [
        "drivers/virtio/",
        "drivers/block/virtio",
        "drivers/char/virtio",
        "drivers/char/hw_random/",
        "drivers/net/virtio_net",
        "drivers/net/net_failover",
        "net/core/",
        "fs/ext4/",
        "fs/jbd2/",
        "fs/mbcache",
        "fs/overlayfs/",
        "crypto/crc32",
        "lib/",
    ];
    places.iter().any(|place| below.starts_with(place))
}

fn unpacked(packed: &str, content: &[u8]) -> Result<Vec<u8>, DebError> {
    let mut out = Vec::new();
    let member = format!("module.tar{packed}");
    decompress((&member, content))?
        .take(MAX_MODULE)
        .read_to_end(&mut out)
        .map_err(|source| DebError::Io {
            part: "module",
            source,
        })?;
    Ok(out)
}

/// The wanted modules, each behind what it depends on.
fn in_order(mut modules: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<String> = Vec::new();
    let mut todo: Vec<(String, bool)> = WANTED
        .iter()
        .rev()
        .map(|name| ((*name).to_owned(), false))
        .collect();
    while let Some((name, met)) = todo.pop() {
        if names.contains(&name) {
            continue;
        }
        let Some((_, content)) = modules.iter().find(|(n, _)| *n == name) else {
            continue;
        };
        if met {
            names.push(name);
            continue;
        }
        let needed = depends(content);
        todo.push((name, true));
        // One that depends on itself on the way is found here as met, and comes once.
        let open: Vec<String> = todo
            .iter()
            .filter(|(_, met)| *met)
            .map(|(name, _)| name.clone())
            .collect();
        let missing = needed.into_iter().filter(|name| !open.contains(name));
        todo.extend(missing.map(|name| (name, false)));
    }
    let take = |name: &String| {
        let at = modules.iter().position(|(n, _)| n == name)?;
        Some(modules.swap_remove(at))
    };
    names.iter().filter_map(take).collect()
}

/// What a module says it depends on: `depends=a,b` among the strings of its `.modinfo`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let at = module.windows(KEY.len()).position(|window| window == KEY);
    let text = at.map_or(&b""[..], |at| &module[at + KEY.len()..]);
    let end = text.iter().position(|b| *b == 0).unwrap_or(0);
    let names = String::from_utf8_lossy(&text[..end]).replace('-', "_");
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &str) -> (String, Vec<u8>) {
        let content = format!("\x7fELF\0license=GPL\0depends={depends}\0name={name}\0");
        (name.to_owned(), content.into_bytes())
    }

    #[test]
    fn modules_come_behind_what_they_depend_on() {
        let made = in_order(vec![
            module("virtio_blk", "virtio,virtio-ring"),
            module("virtio", ""),
            module("virtio_ring", "virtio"),
            module("unused", ""),
            module("virtio_pci", "virtio_ring,virtio,absent"),
            // Of a hostile package.
            module("overlay", "ext4"),
            module("ext4", "overlay,ext4"),
        ]);
        let names: Vec<&str> = made.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names[..4],
            ["virtio", "virtio_ring", "virtio_pci", "virtio_blk"]
        );
        assert_eq!(names.len(), 6);
    }
}
