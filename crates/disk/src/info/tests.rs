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

/// A number that follows `name` in what a tool printed.
fn number(text: &str, name: &str) -> u64 {
    let rest = text
        .split_once(name)
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .1;
    let digits = rest
        .trim_start()
        .split(|c: char| !c.is_ascii_digit())
        .next();
    digits.unwrap().parse().unwrap()
}

#[test]
fn usage_of_ext_is_what_dumpe2fs_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    for args in [
        &["-q", "-F"][..],
        &["-q", "-F", "-b", "1024"],
        &["-q", "-F", "-O", "64bit"],
    ] {
        std::fs::write(&path, vec![0; 48 << 20]).unwrap();
        run("mkfs.ext4", args, &path);
        let text = run("dumpe2fs", &["-h"], &path);
        let block = number(&text, "Block size:");
        let (blocks, free) = (number(&text, "Block count:"), number(&text, "Free blocks:"));
        let (inodes, free_inodes) = (number(&text, "Inode count:"), number(&text, "Free inodes:"));
        let disk = std::fs::read(&path).unwrap();
        let found = probe_file_system(&disk, 0, disk.len() as u64).unwrap();
        assert_eq!(
            found.unwrap().usage,
            Some(Usage {
                used_bytes: (blocks - free) * block,
                free_bytes: free * block,
                used_inodes: Some(inodes - free_inodes),
                free_inodes: Some(free_inodes),
            }),
            "{args:?}"
        );
    }
}

#[test]
fn usage_of_fat_is_what_fsck_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("fs"), dir.path().join("file"));
    std::fs::write(&file, vec![1; 300_001]).unwrap();
    for (bits, mib) in [("12", 4), ("16", 32), ("32", 64)] {
        std::fs::write(&path, vec![0; mib << 20]).unwrap();
        run(
            "mkfs.vfat",
            &["-F", bits, "-s", "1"].map(|a| if bits == "12" && a == "1" { "4" } else { a }),
            &path,
        );
        let copy = Command::new("mcopy")
            .arg("-i")
            .arg(&path)
            .arg(&file)
            .arg("::FILE")
            .status()
            .expect("mcopy (package mtools)");
        assert!(copy.success());
        let text = run("fsck.vfat", &["-n", "-v"], &path);
        let cluster = number(
            text[..text.find(" bytes per cluster").unwrap()]
                .rsplit('\n')
                .next()
                .unwrap(),
            "",
        );
        // The last line: "…: 2 files, 587/130811 clusters".
        let last = text.lines().last().unwrap();
        let (used, all) = last
            .rsplit(", ")
            .next()
            .and_then(|t| t.strip_suffix(" clusters"))
            .and_then(|t| t.split_once('/'))
            .unwrap();
        let (used, all): (u64, u64) = (used.parse().unwrap(), all.parse().unwrap());
        let disk = std::fs::read(&path).unwrap();
        let found = probe_file_system(&disk, 0, disk.len() as u64).unwrap();
        assert_eq!(
            found.unwrap().usage,
            Some(Usage {
                used_bytes: used * cluster,
                free_bytes: (all - used) * cluster,
                used_inodes: None,
                free_inodes: None,
            }),
            "FAT{bits}"
        );
    }
}

/// Counters that contradict each other say nothing.
#[test]
fn impossible_counters_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    std::fs::write(&path, vec![0; 8 << 20]).unwrap();
    run("mkfs.ext4", &["-q", "-F"], &path);
    for (at, value) in [(0x0C, u32::MAX), (0x18, 60), (0x10, u32::MAX)] {
        let mut disk = std::fs::read(&path).unwrap();
        disk[1024 + at..1024 + at + 4].copy_from_slice(&value.to_le_bytes());
        let found = probe_file_system(&disk, 0, disk.len() as u64).unwrap();
        assert_eq!(found.unwrap().usage, None, "{at:#x}");
    }
}
