//! What `/etc/fstab` of an imported disk says of the disk's other partitions, which do not come along.
//! Source: fstab(5).

use amiforge_disk::{DiskInfo, PartitionInfo};

/// Its path in the tree.
pub(super) const FSTAB: &[u8] = b"etc/fstab";

/// One line that mounts something.
struct Mount<'t> {
    source: &'t str,
    target: &'t str,
    kind: &'t str,
}

fn mount(line: &str) -> Option<Mount<'_>> {
    let mut words = line.split_whitespace();
    let source = words.next().filter(|word| !word.starts_with('#'))?;
    Some(Mount {
        source,
        target: words.next()?,
        kind: words.next().unwrap_or_default(),
    })
}

impl Mount<'_> {
    /// Whether it is the root's own line.
    fn is_root(&self) -> bool {
        self.target == "/"
    }

    /// What the image writer makes anew, or nobody misses.
    fn is_dispensable(&self) -> bool {
        let target = self.target.trim_end_matches('/');
        matches!(target, "/boot/efi" | "/efi" | "/boot/firmware") || self.kind == "swap"
    }

    /// The partition of this disk that it mounts.
    fn partition<'i>(&self, info: &'i DiskInfo) -> Option<&'i PartitionInfo> {
        let (key, value) = self.source.split_once('=').unwrap_or(("", self.source));
        let value = value.trim_matches('"');
        let same = |text: &str| value.eq_ignore_ascii_case(text);
        info.partitions.iter().find(|part| {
            let fs = part.file_system.as_ref();
            match key {
                "UUID" => fs.and_then(|fs| fs.uuid.as_deref()).is_some_and(same),
                "LABEL" => fs.and_then(|fs| fs.label.as_deref()) == Some(value),
                "PARTUUID" => same(&part.guid.to_string()),
                "PARTLABEL" => part.name == value,
                _ => {
                    let by = |folder: &str| value.strip_prefix(folder);
                    let uuid = by("/dev/disk/by-uuid/");
                    let own = fs.and_then(|fs| fs.uuid.as_deref());
                    uuid.is_some_and(|uuid| own.is_some_and(|own| own.eq_ignore_ascii_case(uuid)))
                        || is_device(value, part.slot)
                }
            }
        })
    }
}

/// Whether `/dev/sda2`, `/dev/nvme0n1p2` and their like mean the partition of that number on a first disk.
fn is_device(path: &str, slot: u32) -> bool {
    [
        "/dev/sda",
        "/dev/vda",
        "/dev/xvda",
        "/dev/hda",
        "/dev/nvme0n1p",
    ]
    .iter()
    .filter_map(|disk| path.strip_prefix(disk))
    .any(|number| number.parse() == Ok(slot))
}

/// Whether a line needs a folder tree that lies outside of the root file system.
///
/// # Errors
/// Says which mount point is where.
pub(super) fn check(text: &str, info: &DiskInfo, root: Option<u32>) -> Result<(), String> {
    for mount in text.lines().filter_map(mount) {
        if mount.is_root() || mount.is_dispensable() {
            continue;
        }
        let target = mount.target;
        if let Some(part) = mount.partition(info) {
            if Some(part.slot) != root {
                let slot = part.slot;
                return Err(format!(
                    "{target} is a file system of its own, in partition {slot}"
                ));
            }
            continue;
        }
        let outside = ["/boot", "/usr", "/etc", "/var", "/lib"];
        let needed = outside.contains(&target.trim_end_matches('/'));
        if needed && mount.source.starts_with("/dev/") {
            let source = mount.source;
            return Err(format!("{target} is a file system of its own, on {source}"));
        }
    }
    Ok(())
}

/// The text without the lines of other partitions of the disk, and those of these lines that no image gets anew.
pub(super) fn without_partitions(
    text: &str,
    info: &DiskInfo,
    root: Option<u32>,
) -> (String, Vec<String>) {
    let mut left_out = Vec::new();
    let mut kept = String::new();
    for line in text.split_inclusive('\n') {
        let goes = mount(line).is_some_and(|mount| {
            let part = mount.partition(info);
            !mount.is_root()
                && mount.is_dispensable()
                && part.is_some_and(|part| Some(part.slot) != root)
        });
        if !goes {
            kept.push_str(line);
        } else if mount(line).is_some_and(|mount| mount.kind == "swap") {
            left_out.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    (kept, left_out)
}

#[cfg(test)]
mod tests;
