#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the references are mkfs and blkid"
)]

use std::path::Path;
use std::process::Command;

use super::*;

fn run(program: &str, args: &[&str], path: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .arg(path)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn file_systems_are_named_as_blkid_names_them() {
    for (program, args, kind, name) in [
        (
            "mkfs.ext2",
            &["-q", "-F", "-L", "two"][..],
            FileSystemKind::Ext2,
            "ext2",
        ),
        ("mkfs.ext3", &["-q", "-F"], FileSystemKind::Ext3, "ext3"),
        (
            "mkfs.ext4",
            &["-q", "-F", "-L", "sixteen-bytes-ok"],
            FileSystemKind::Ext4,
            "ext4",
        ),
        (
            "mkfs.vfat",
            &["-F", "32", "-n", "ESP"],
            FileSystemKind::Vfat,
            "vfat",
        ),
        ("mkfs.vfat", &["-F", "16"], FileSystemKind::Vfat, "vfat"),
        (
            "mkfs.vfat",
            &["-F", "12", "-n", "SMALL"],
            FileSystemKind::Vfat,
            "vfat",
        ),
        ("mkswap", &["-L", "swap"], FileSystemKind::Swap, "swap"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(40 << 20).unwrap();
        run(program, args, file.path());
        let bytes = std::fs::read(file.path()).unwrap();
        let info = disk_info(&bytes).unwrap();
        assert_eq!((info.disk_guid, info.partitions.len()), (None, 0));
        let found = info
            .file_system
            .unwrap_or_else(|| panic!("{program} {args:?}"));
        assert_eq!(found.kind, kind);
        let blkid = |tag: &str| {
            let output = Command::new("blkid")
                .args(["-p", "-o", "value", "-s", tag])
                .arg(file.path())
                .output()
                .unwrap();
            Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
                .filter(|text| !text.is_empty())
        };
        assert_eq!(blkid("TYPE").as_deref(), Some(name));
        assert_eq!(found.uuid, blkid("UUID"), "{program}");
        assert_eq!(found.label, blkid("LABEL"), "{program}");
        assert_eq!(serde_json::to_value(found.kind).unwrap(), name);
    }
}

#[test]
fn empty_and_tiny_disks_hold_nothing() {
    for size in [0, 1, 511, 512, 1024, 70_000] {
        let info = disk_info(&vec![0; size]).unwrap();
        assert_eq!(info.file_system, None);
        assert_eq!(info.virtual_bytes, size as u64);
    }
    // Noise in a partition is no file system, and never a panic.
    for fill in [0xFF, 0x55, 0xAA] {
        assert_eq!(disk_info(&vec![fill; 70_000]).unwrap().file_system, None);
    }
}
