#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test asks sgdisk"
)]
use amiforge_types::{BlobTable, Digest, Seed};

use super::*;
use crate::{Extents, testing::flatten};

fn spec(sectors: u64) -> GptSpec {
    let seed = Seed::new(Digest::of(b"gpt"));
    let part = |slot: u32, type_guid, name: &str, first_lba, last_lba| GptPartition {
        slot,
        type_guid,
        guid: seed.uuid(name),
        name: name.to_owned(),
        first_lba,
        last_lba,
        attributes: if slot == 1 { 1 << 59 } else { 0 },
    };
    GptSpec {
        disk_guid: seed.uuid("disk"),
        sectors,
        partitions: vec![
            part(1, TYPE_ROOT_X86_64, "root", 6144, sectors - 34),
            part(2, TYPE_ESP, "esp", 4096, 6143),
            part(14, TYPE_BIOS_BOOT, "bios ü", 2048, 4095),
        ],
        boot_code: Some(Box::new([0x5A; 440])),
    }
}

fn disk(spec: &GptSpec) -> Vec<u8> {
    let extents = Extents::new(spec.sectors * 512, spec.extents().unwrap()).unwrap();
    flatten(&extents, &BlobTable::new())
}

#[test]
fn what_is_written_is_read() {
    let spec = spec(20_480);
    let bytes = disk(&spec);
    let gpt = read_gpt(&bytes).unwrap();
    assert_eq!(
        gpt,
        Gpt {
            disk_guid: spec.disk_guid,
            sector: SectorSize::Bytes512,
            partitions: spec.partitions,
            damage: None
        }
    );
    assert_eq!(bytes[..440], [0x5A; 440]);
    assert_eq!(
        bytes[446..462],
        [
            0, 0, 2, 0, 0xEE, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 0xFF, 0x4F, 0, 0
        ]
    );
}

#[test]
fn the_gpt_crate_reads_the_same() {
    let spec = spec(20_480);
    let disk = gpt::GptConfig::new()
        .open_from_device(std::io::Cursor::new(disk(&spec)))
        .unwrap();
    assert!(disk.primary_header().is_ok() && disk.backup_header().is_ok());
    assert_eq!(disk.guid().to_string(), spec.disk_guid.to_string());
    assert_eq!(
        disk.partitions().keys().copied().collect::<Vec<_>>(),
        [1, 2, 14]
    );
    for ours in &spec.partitions {
        let theirs = &disk.partitions()[&ours.slot];
        assert_eq!(theirs.part_guid.to_string(), ours.guid.to_string());
        assert_eq!(
            theirs.part_type_guid.guid.to_string(),
            ours.type_guid.to_string()
        );
        assert_eq!(
            (theirs.first_lba, theirs.last_lba),
            (ours.first_lba, ours.last_lba)
        );
        assert_eq!((&theirs.name, theirs.flags), (&ours.name, ours.attributes));
    }
}

#[test]
fn one_damaged_table_is_told_and_survived() {
    let spec = spec(20_480);
    for at in [
        512 + 60,
        1024 + 40,
        20_479 * 512 + 60,
        (20_480 - 33) * 512 + 3,
    ] {
        let mut bytes = disk(&spec);
        bytes[at] ^= 1;
        let gpt = read_gpt(&bytes).unwrap();
        assert_eq!(gpt.partitions, spec.partitions, "byte {at}");
        assert!(gpt.damage.is_some(), "byte {at}");
    }
    let mut bytes = disk(&spec);
    bytes[512 + 60] ^= 1;
    bytes[20_479 * 512 + 60] ^= 1;
    assert!(matches!(
        read_gpt(&bytes),
        Err(GptReadError::Corrupt { .. })
    ));
    assert!(matches!(
        read_gpt(&vec![0; 1 << 20]),
        Err(GptReadError::Missing)
    ));
}

#[test]
fn an_enlarged_disk_is_read() {
    let mut bytes = disk(&spec(20_480));
    bytes.resize(bytes.len() * 2, 0);
    let gpt = read_gpt(&bytes).unwrap();
    assert_eq!(gpt.partitions.len(), 3);
    assert!(gpt.damage.unwrap().contains("enlarged"));
}

#[test]
fn hostile_headers_are_refused_without_allocation() {
    let good = disk(&spec(20_480));
    for (at, value) in [
        (80, u32::MAX),
        (84, u32::MAX),
        (84, 1),
        (84, 0),
        (12, 0),
        (12, u32::MAX),
        (72, u32::MAX),
        (76, u32::MAX),
    ] {
        let mut bytes = good.clone();
        bytes[20_479 * 512..].fill(0);
        bytes[512 + at..512 + at + 4].copy_from_slice(&value.to_le_bytes());
        bytes[512 + 16..512 + 20].fill(0);
        let crc = crc32fast::hash(&bytes[512..512 + 92]);
        bytes[512 + 16..512 + 20].copy_from_slice(&crc.to_le_bytes());
        assert!(read_gpt(&bytes).is_err(), "{value:#x} at {at}");
    }
}

#[test]
fn impossible_specs_are_refused() {
    let change = |f: &dyn Fn(&mut GptSpec)| {
        let mut s = spec(20_480);
        f(&mut s);
        s.extents().unwrap_err()
    };
    assert_eq!(change(&|s| s.partitions[1].slot = 1), GptError::BadSlot(1));
    assert_eq!(
        change(&|s| s.partitions[0].slot = 129),
        GptError::BadSlot(129)
    );
    assert_eq!(
        change(&|s| s.partitions[1].last_lba = 6144),
        GptError::Overlap(2, 1)
    );
    assert!(matches!(
        change(&|s| s.partitions[0].last_lba += 1),
        GptError::OutOfRange { slot: 1, .. }
    ));
    assert!(matches!(
        change(&|s| s.partitions[2].first_lba = 33),
        GptError::OutOfRange { slot: 14, .. }
    ));
    assert_eq!(
        change(&|s| s.partitions[0].name = "x".repeat(37)),
        GptError::LongName(1)
    );
    assert_eq!(change(&|s| s.sectors = 60), GptError::TooSmall(60));
}

/// A table in sectors of 4096 bytes, for a disk of 80 MiB.
fn spec_4096() -> GptSpec {
    let mut spec = spec(163_840);
    spec.partitions[0].last_lba = 163_840 - 5 * 8 - 1;
    spec
}

fn disk_4096(spec: &GptSpec) -> Vec<u8> {
    let extents = spec.extents_for(SectorSize::Bytes4096).unwrap();
    flatten(
        &Extents::new(spec.sectors * 512, extents).unwrap(),
        &BlobTable::new(),
    )
}

#[test]
fn tables_in_large_sectors_are_read_back() {
    let spec = spec_4096();
    let bytes = disk_4096(&spec);
    let gpt = read_gpt(&bytes).unwrap();
    assert_eq!(
        gpt,
        Gpt {
            disk_guid: spec.disk_guid,
            sector: SectorSize::Bytes4096,
            partitions: spec.partitions.clone(),
            damage: None
        }
    );
    // The header is in the second sector; the backup serves when it is gone.
    let mut hurt = bytes;
    assert_eq!(&hurt[4096..4104], b"EFI PART");
    hurt[4096..8192].fill(0xD1);
    let gpt = read_gpt(&hurt).unwrap();
    assert_eq!(gpt.partitions, spec.partitions);
    assert!(gpt.damage.unwrap().starts_with("primary table"));
}

#[test]
fn fdisk_and_sgdisk_find_no_fault_with_large_sectors() {
    use std::os::unix::fs::MetadataExt as _;
    let path = std::env::temp_dir().join(format!("amiforge-gpt-4096-{}", std::process::id()));
    std::fs::write(&path, disk_4096(&spec_4096())).unwrap();
    let run = |program: &str, args: &[&str]| {
        let out = std::process::Command::new(program)
            .args(args)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .output()
            .unwrap();
        assert!(out.status.success(), "{program}: {out:?}");
        let [stdout, stderr] = [out.stdout, out.stderr].map(|b| String::from_utf8(b).unwrap());
        (stdout, stderr)
    };
    let shown = path.to_str().unwrap();
    let (listed, complaints) = run("fdisk", &["--sector-size", "4096", "--list", shown]);
    assert_eq!(complaints, "");
    assert!(listed.contains("Disklabel type: gpt"), "{listed}");
    let rows = listed
        .lines()
        .filter(|line| line.starts_with(shown))
        .count();
    assert_eq!(rows, spec_4096().partitions.len(), "{listed}");
    // sgdisk looks at more, but takes the size of sectors from a device, and only root has loop devices.
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if root && std::path::Path::new("/dev/loop-control").exists() {
        let attach = ["--find", "--show", "--sector-size", "4096", shown];
        let (device, _) = run("losetup", &attach);
        let device = device.trim();
        let said = ["-v", "-p"].map(|what| run("sgdisk", &[what, device]).0);
        run("losetup", &["--detach", device]);
        assert!(said[0].contains("No problems found"), "{}", said[0]);
        assert!(said[1].contains("4096"), "{}", said[1]);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_gpt_crate_reads_large_sectors_the_same() {
    let spec = spec_4096();
    let disk = gpt::GptConfig::new()
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb4096)
        .open_from_device(std::io::Cursor::new(disk_4096(&spec)))
        .unwrap();
    let mut theirs: Vec<(u32, u64, u64)> = disk
        .partitions()
        .iter()
        .map(|(slot, p)| (*slot, p.first_lba, p.last_lba))
        .collect();
    theirs.sort_unstable();
    let mut ours: Vec<(u32, u64, u64)> = spec
        .partitions
        .iter()
        .map(|p| (p.slot, p.first_lba / 8, p.last_lba / 8))
        .collect();
    ours.sort_unstable();
    assert_eq!(theirs, ours);
}

#[test]
fn parts_of_a_large_sector_are_no_place_for_a_partition() {
    let mut spec = spec_4096();
    spec.partitions[1].first_lba += 1;
    assert_eq!(
        spec.extents_for(SectorSize::Bytes4096),
        Err(GptError::Unaligned(2))
    );
    let mut spec = spec_4096();
    spec.partitions[0].last_lba += 8;
    assert!(matches!(
        spec.extents_for(SectorSize::Bytes4096),
        Err(GptError::OutOfRange { slot: 1, .. })
    ));
}

/// A table whose checksums hold although its partitions cannot be.
#[test]
fn partitions_that_cannot_be_are_refused_with_their_place() {
    let spec = spec(20_480);
    let good = disk(&spec);
    let forge = |slot: usize, at: usize, value: u64| {
        let mut bytes = good.clone();
        let last = bytes.len() - 512;
        for (header, array) in [(512, 1024), (last, last - 32 * 512)] {
            let entry = array + (slot - 1) * 128 + at;
            bytes[entry..entry + 8].copy_from_slice(&value.to_le_bytes());
            let crc = crc32fast::hash(&bytes[array..array + 128 * 128]);
            bytes[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
            bytes[header + 16..header + 20].fill(0);
            let crc = crc32fast::hash(&bytes[header..header + 92]);
            bytes[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
        }
        read_gpt(&bytes)
    };
    assert!(forge(2, 32, 4096).is_ok());
    for (slot, at, value, told) in [
        (2, 40, 7000, "partitions 2 and 1 overlap at sector 6144"),
        (14, 40, 1, "partition 14 (sectors 2048 to 1) is outside"),
        (
            1,
            40,
            20_479,
            "is not within the usable sectors 34 to 20446",
        ),
        (
            1,
            40,
            1 << 40,
            "partition 1 (sectors 6144 to 1099511627776) is outside",
        ),
        (14, 32, 1, "partition 14 (sectors 1 to 4095) is not within"),
        (14, 32, u64::MAX, "is outside the disk"),
    ] {
        let text = forge(slot, at, value).unwrap_err().to_string();
        assert!(text.contains(told), "{told}: {text}");
    }
}
