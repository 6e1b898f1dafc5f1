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
