#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the reference is sfdisk"
)]

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A disk of 64 MiB as sfdisk partitions it; the disk, and sfdisk's own listing.
fn sfdisk(script: &str) -> (Vec<u8>, serde_json::Value) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    std::fs::write(&path, vec![0; 64 << 20]).unwrap();
    let mut child = Command::new("/usr/sbin/sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(&path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk (package fdisk)");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    let json = Command::new("/usr/sbin/sfdisk")
        .arg("--json")
        .arg(&path)
        .output()
        .unwrap();
    (
        std::fs::read(&path).unwrap(),
        serde_json::from_slice(&json.stdout).unwrap(),
    )
}

const LOGICAL: &str = "label: dos\nlabel-id: 0x1234abcd\n\
    start=2048, size=4096, type=83, bootable\n\
    start=8192, size=100000, type=5\n\
    start=10240, size=2048, type=83\n\
    start=14336, size=2048, type=82\n\
    start=20480, size=4096, type=c\n";

#[test]
fn tables_of_sfdisk_are_read() {
    for script in [
        "label: dos\nlabel-id: 0x00000001\nstart=2048, type=83\n",
        "label: dos\nstart=2048, size=2048, type=c, bootable\nstart=6144, type=83\n",
        LOGICAL,
    ] {
        let (disk, listing) = sfdisk(script);
        let mbr = Mbr::read(&disk).unwrap();
        let table = &listing["partitiontable"];
        assert_eq!(
            table["id"].as_str(),
            Some(format!("0x{:08x}", mbr.disk_id).as_str())
        );
        let theirs: Vec<_> = table["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| {
                let node = p["node"].as_str().unwrap();
                let slot = node.rsplit("raw").next().unwrap().parse().unwrap();
                let (start, size) = (p["start"].as_u64().unwrap(), p["size"].as_u64().unwrap());
                MbrPartition {
                    slot,
                    kind: u8::from_str_radix(p["type"].as_str().unwrap(), 16).unwrap(),
                    first_lba: start,
                    last_lba: start + size - 1,
                    active: p["bootable"].as_bool().unwrap_or(false),
                }
            })
            .collect();
        assert_eq!(mbr.partitions, theirs, "{script}");
    }
}

#[test]
fn chains_that_do_harm_are_refused_with_their_place() {
    let (good, _) = sfdisk(LOGICAL);
    let first = 8192 * 512;
    for (at, bytes, told) in [
        // The second link is the first one: a loop.
        (
            first + 446 + 16 + 8,
            0u32.to_le_bytes(),
            "the chain goes back",
        ),
        (
            first + 446 + 16 + 8,
            u32::MAX.to_le_bytes(),
            "it reaches past its end",
        ),
        (
            first + 446 + 8,
            u32::MAX.to_le_bytes(),
            "it reaches past its end",
        ),
        (
            first + 446 + 8,
            0u32.to_le_bytes(),
            "it starts on the table itself",
        ),
        (first + 446 + 12, 0u32.to_le_bytes(), "it has no sectors"),
        (
            first + 446 + 12,
            50_000u32.to_le_bytes(),
            "it overlaps another partition",
        ),
        (446 + 8, u32::MAX.to_le_bytes(), "it reaches past its end"),
        (
            446 + 12,
            90_000u32.to_le_bytes(),
            "it overlaps another partition",
        ),
    ] {
        let mut disk = good.clone();
        disk[at..at + 4].copy_from_slice(&bytes);
        let text = Mbr::read(&disk).unwrap_err().to_string();
        assert!(
            text.contains(told) && text.contains("sector"),
            "{told}: {text}"
        );
    }
    let mut disk = good.clone();
    disk[446] = 0x55;
    assert!(Mbr::read(&disk).unwrap_err().to_string().contains("flags"));
}

#[test]
fn an_endless_chain_ends() {
    let mut disk = vec![0; 4 << 20];
    let mut put = |lba: usize, entries: &[(u8, u32, u32)]| {
        for (i, (kind, start, len)) in entries.iter().enumerate() {
            let at = lba * 512 + 446 + i * 16;
            disk[at + 4] = *kind;
            disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            disk[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
        }
        disk[lba * 512 + 510] = 0x55;
        disk[lba * 512 + 511] = 0xAA;
    };
    put(0, &[(5, 1, 8000)]);
    for link in 1..4000u32 {
        put(link as usize * 2 - 1, &[(0x83, 1, 1), (5, link * 2, 2)]);
    }
    let text = Mbr::read(&disk).unwrap_err().to_string();
    assert!(text.contains("too long"), "{text}");
}

#[test]
fn what_is_no_table_is_none() {
    assert!(matches!(
        Mbr::read(&vec![0; 1 << 20]),
        Err(MbrReadError::Missing)
    ));
    assert!(matches!(
        Mbr::read(&vec![0; 100]),
        Err(MbrReadError::Missing)
    ));
    let mut disk = vec![0; 1 << 20];
    disk[510] = 0x55;
    disk[511] = 0xAA;
    assert!(matches!(Mbr::read(&disk), Err(MbrReadError::Missing)));
    disk[446 + 4] = 0xEE;
    assert!(matches!(
        Mbr::read(&disk),
        Err(MbrReadError::ProtectsNothing)
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_bytes_end_with_a_table_or_an_error(
        tables in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 66), 8),
        small in any::<bool>(),
    ) {
        let mut disk = vec![0; 8 * 512];
        for (lba, table) in tables.iter().enumerate() {
            let at = lba * 512 + 446;
            disk[at..at + 64].copy_from_slice(&table[..64]);
            if small {
                for entry in 0..4 {
                    let at = at + entry * 16;
                    disk[at] &= 0x80;
                    disk[at + 4] = [0, 5, 0x83, 0x0F][usize::from(disk[at + 4] % 4)];
                    disk[at + 8..at + 16].copy_from_slice(&[table[8] % 8, 0, 0, 0, table[12] % 4, 0, 0, 0]);
                }
            }
            disk[lba * 512 + 510] = 0x55;
            disk[lba * 512 + 511] = 0xAA;
        }
        if let Ok(mbr) = Mbr::read(&disk) {
            for p in mbr.partitions {
                prop_assert!(p.first_lba <= p.last_lba && p.last_lba < 8);
            }
        }
    }
}
