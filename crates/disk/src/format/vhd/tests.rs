#![allow(
    clippy::disallowed_methods,
    reason = "the reference is qemu-img, which reads and writes files"
)]

use amiforge_types::MIB;
use proptest::prelude::*;

use super::*;
use crate::open;
use crate::testing::{Fragments, Memory, flatten, fragments, qemu_img, read_all, written};

const KINDS: [Subformat; 2] = [Subformat::Dynamic, Subformat::Fixed];

fn vhd(disk: &Fragments, subformat: Subformat) -> Vec<u8> {
    written(
        disk,
        Output {
            subformat,
            ..Output::new(Format::Vhd, &Memory::default())
        },
    )
}

/// The disk as a VHD holds it: whole MiB.
fn whole_mib(disk: &Fragments) -> Vec<u8> {
    let mut flat = flatten(&disk.extents, &disk.blobs);
    flat.resize(flat.len().next_multiple_of(1 << 20), 0);
    flat
}

fn check_with_qemu(disk: &Fragments) {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.vhd"));
    let flat = whole_mib(disk);
    std::fs::write(&raw, &flat).unwrap();
    for subformat in KINDS {
        std::fs::write(&image, vhd(disk, subformat)).unwrap();
        let info = qemu_img(&["info", "--output=json", "-f", "vpc"], &[&image]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], flat.len(), "{subformat}");
        qemu_img(&["compare", "-f", "raw", "-F", "vpc"], &[&raw, &image]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn qemu_accepts_any_extents(disk in fragments().prop_filter("qemu needs a sector", |d| d.extents.size() > 0)) {
        check_with_qemu(&disk);
    }
}

#[test]
fn qemu_accepts_special_disks() {
    check_with_qemu(&Fragments::new(MIB, &[]));
    check_with_qemu(&Fragments::new(3 * MIB, &[(0, 3 * MIB, true)]));
    check_with_qemu(&Fragments::new(
        130 * MIB,
        &[
            (0, 1, true),
            (31 * MIB, 2 * MIB, false),
            (130 * MIB - 512, 512, true),
        ],
    ));
}

/// Sizes where geometry cannot say the size, and where it ends.
#[test]
fn qemu_reads_the_size_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.vhd");
    for mib in [1, 7, 504, 505, 2_047, 32_255, 130_559, 130_560, 2040 << 10] {
        let disk = Fragments::new(mib * MIB, &[(0, 10, true)]);
        let file = vhd(&disk, Subformat::Dynamic);
        std::fs::write(&image, &file).unwrap();
        let info = qemu_img(&["info", "--output=json", "-f", "vpc"], &[&image]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], mib * MIB);
        let back = open(Format::Vhd, Arc::new(file)).unwrap();
        assert_eq!(back.size(), mib * MIB);
    }
}

#[test]
fn empty_space_costs_nothing_and_holes_stay() {
    let disk = Fragments::new(1 << 40, &[(1 << 39, 5, true)]);
    let bytes = vhd(&disk, Subformat::Dynamic);
    assert!(bytes.len() < 5 << 20, "{} bytes", bytes.len());
    let back = open(Format::Vhd, Arc::new(bytes)).unwrap();
    assert_eq!(back.size(), 1 << 40);
    let found = back.next_data(0).unwrap().unwrap();
    assert!(found.start <= 1 << 39 && found.end > 1 << 39);
    assert_eq!(back.next_data(found.end).unwrap(), None);
}

#[test]
fn files_of_qemu_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.vhd"));
    let disk = Fragments::new(
        37 * MIB,
        &[
            (0, 700_000, true),
            (2 * MIB, 65_536, false),
            (36 * MIB + 3, 1_000_000, true),
        ],
    );
    std::fs::write(&raw, flatten(&disk.extents, &disk.blobs)).unwrap();
    for options in [
        "subformat=dynamic",
        "subformat=dynamic,force_size=on",
        "subformat=fixed",
        "subformat=fixed,force_size=on",
    ] {
        qemu_img(
            &["convert", "-f", "raw", "-O", "vpc", "-o", options],
            &[&raw, &image],
        );
        let back = open(Format::Vhd, Arc::new(std::fs::read(&image).unwrap())).unwrap();
        // Without force_size QEMU rounds up to whole cylinders; it has to find what we find.
        let ours = dir.path().join("ours.raw");
        std::fs::write(&ours, read_all(&*back)).unwrap();
        qemu_img(&["compare", "-f", "raw", "-F", "vpc"], &[&ours, &image]);
        let info = qemu_img(&["info", "--output=json", "-f", "vpc"], &[&image]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        assert_eq!(info["virtual-size"], back.size(), "{options}");
    }
}

#[test]
fn a_dynamic_disk_with_a_damaged_end_is_read_by_its_copy() {
    let disk = Fragments::new(3 * MIB, &[(0, 70_000, true)]);
    let mut file = vhd(&disk, Subformat::Dynamic);
    let end = file.len() - 512;
    file[end..].fill(0xD1);
    let back = open(Format::Vhd, Arc::new(file)).unwrap();
    assert!(read_all(&*back) == whole_mib(&disk));
}

#[test]
fn the_id_follows_from_the_content() {
    let id = |disk: &Fragments, kind| {
        let file = vhd(disk, kind);
        file[file.len() - 512 + 68..file.len() - 512 + 84].to_vec()
    };
    let (a, b) = (
        Fragments::new(MIB, &[(0, 10, true)]),
        Fragments::new(MIB, &[(1, 10, true)]),
    );
    assert_eq!(id(&a, Subformat::Fixed), id(&a, Subformat::Dynamic));
    assert_ne!(id(&a, Subformat::Fixed), id(&b, Subformat::Fixed));
}

#[test]
fn impossible_files_are_refused() {
    let disk = Fragments::new(2 * MIB, &[(0, 100, true)]);
    let good = vhd(&disk, Subformat::Dynamic);
    let seal = |bytes: &mut [u8], at: usize| {
        let sum = layout::checksum(bytes, at);
        bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    };
    let end = good.len() - 512;
    // In the footer, sealed again.
    for (at, bytes) in [
        (16, &u64::MAX.to_be_bytes()[..]),
        (16, &(good.len() as u64).to_be_bytes()),
        (48, &u64::MAX.to_be_bytes()),
        (48, &(1u64 << 50).to_be_bytes()),
        (60, &0u32.to_be_bytes()),
        (60, &4u32.to_be_bytes()),
        (60, &9u32.to_be_bytes()),
    ] {
        let mut file = good.clone();
        file[end + at..end + at + bytes.len()].copy_from_slice(bytes);
        seal(&mut file[end..], 64);
        assert!(
            open(Format::Vhd, Arc::new(file)).is_err(),
            "{bytes:?} at {at}"
        );
    }
    // In the header.
    for (at, bytes) in [
        (0, &b"cxsparsf"[..]),
        (16, &u64::MAX.to_be_bytes()),
        (28, &0u32.to_be_bytes()),
        (32, &0u32.to_be_bytes()),
        (32, &3u32.to_be_bytes()),
        (32, &(1u32 << 31).to_be_bytes()),
    ] {
        let mut file = good.clone();
        file[512 + at..512 + at + bytes.len()].copy_from_slice(bytes);
        seal(&mut file[512..1536], 36);
        assert!(
            open(Format::Vhd, Arc::new(file)).is_err(),
            "{bytes:?} at {at}"
        );
    }
    let mut fixed = vhd(&disk, Subformat::Fixed);
    fixed.drain(..4096);
    assert!(open(Format::Vhd, Arc::new(fixed)).is_err());
    for len in [0, 80, 511] {
        assert!(open(Format::Vhd, Arc::new(good[..len].to_vec())).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever bytes change, opening and reading ends, with data or an error.
    #[test]
    fn damage_never_panics(
        fixed in any::<bool>(),
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let disk = Fragments::new(MIB + 512, &[(0, 70_000, true), (300_000, 90_000, false)]);
        let mut file = vhd(&disk, if fixed { Subformat::Fixed } else { Subformat::Dynamic });
        for (place, value) in hits {
            // In the tables, and sealed again so that the damage is seen.
            let at = place.index(2048);
            file[at] = value;
        }
        let end = file.len() - 512;
        for (range, at) in [(0..512, 64), (512..1536, 36), (end..end + 512, 64)] {
            let sum = layout::checksum(&file[range.clone()], at);
            file[range.start + at..range.start + at + 4].copy_from_slice(&sum.to_be_bytes());
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(disk) = open(Format::Vhd, Arc::new(file)) {
            let mut buf = vec![0; 65_536];
            let mut at = 0;
            while at + 65_536 <= disk.size().min(2 << 20) {
                let _ = disk.read_exact_at(&mut buf, at);
                at += 65_536;
            }
            let _ = disk.next_data(0);
        }
    }
}

/// The bytes of a known disk, pinned: a change here changes every published digest.
#[test]
fn files_are_stable() {
    let disk = Fragments::new(
        (2 << 20) + 512,
        &[(0, 300_000, true), (1 << 20, 5_000, false)],
    );
    let digests = KINDS.map(|kind| amiforge_types::Digest::of(&vhd(&disk, kind)).short());
    assert_eq!(digests, ["2a4a4da1daac", "25a284a072da"]);
}
