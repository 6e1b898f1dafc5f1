#![allow(
    clippy::disallowed_methods,
    reason = "the reference is qemu-img, which reads and writes files"
)]

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::open;
use crate::testing::{Fragments, Memory, flatten, fragments, qemu_img, read_all, written};

fn vmdk(disk: &Fragments, compression: Compression) -> Vec<u8> {
    written(
        disk,
        Output {
            compression,
            ..Output::new(Format::Vmdk, &Memory::default())
        },
    )
}

fn check_with_qemu(disk: &Fragments) {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.vmdk"));
    std::fs::write(&raw, flatten(&disk.extents, &disk.blobs)).unwrap();
    for compression in [Compression::None, Compression::Zlib(1)] {
        std::fs::write(&image, vmdk(disk, compression)).unwrap();
        qemu_img(&["check", "-f", "vmdk"], &[&image]);
        qemu_img(&["compare", "-f", "raw", "-F", "vmdk"], &[&raw, &image]);
        let info = qemu_img(&["info", "-f", "vmdk"], &[&image]);
        assert!(info.contains("create type: streamOptimized"), "{info}");
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
    check_with_qemu(&Fragments::new(1 << 20, &[]));
    check_with_qemu(&Fragments::new(3 << 20, &[(0, 3 << 20, true)]));
    // Several grain tables, one of them empty.
    check_with_qemu(&Fragments::new(
        (130 << 20) + 512,
        &[
            (0, 1, true),
            (31 << 20, 2 << 20, false),
            (130 << 20, 512, true),
        ],
    ));
}

#[test]
fn empty_space_costs_nothing() {
    let disk = Fragments::new(1 << 40, &[(1 << 39, 5, true)]);
    let bytes = vmdk(&disk, Compression::None);
    assert!(bytes.len() < 1 << 20, "{} bytes", bytes.len());
    let back = open(Format::Vmdk, Arc::new(bytes)).unwrap();
    assert_eq!(back.size(), 1 << 40);
    let found = back.next_data(0).unwrap().unwrap();
    assert!(found.start <= 1 << 39 && found.end > 1 << 39);
    assert_eq!(back.next_data(found.end).unwrap(), None);
}

/// What qemu-img makes in one file, our reader reads; what it makes in several is refused.
#[test]
fn files_of_qemu_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.vmdk"));
    let disk = Fragments::new(
        (37 << 20) + 512,
        &[
            (0, 700_000, true),
            (2 << 20, 65_536, false),
            ((36 << 20) + 3, 1_000_000, true),
        ],
    );
    let flat = flatten(&disk.extents, &disk.blobs);
    std::fs::write(&raw, &flat).unwrap();
    for (options, read) in [
        ("subformat=monolithicSparse", true),
        ("subformat=monolithicSparse,zeroed_grain=on", true),
        ("subformat=streamOptimized", true),
        ("subformat=monolithicFlat", false),
        ("subformat=twoGbMaxExtentSparse", false),
        ("subformat=twoGbMaxExtentFlat", false),
    ] {
        qemu_img(
            &["convert", "-f", "raw", "-O", "vmdk", "-o", options],
            &[&raw, &image],
        );
        let back = open(Format::Vmdk, Arc::new(std::fs::read(&image).unwrap()));
        if read {
            let back = back.unwrap();
            assert!(read_all(&*back) == flat, "{options}");
            let digest = crate::content_digest(&flat, 1).unwrap();
            assert_eq!(
                crate::content_digest(&*back, 2).unwrap(),
                digest,
                "{options}"
            );
        } else {
            assert!(
                matches!(back, Err(OpenError::ExternalFile { .. })),
                "{options}"
            );
        }
    }
    // A piece of a disk is no disk.
    let piece = dir.path().join("disk-s001.vmdk");
    qemu_img(
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "vmdk",
            "-o",
            "subformat=twoGbMaxExtentSparse",
        ],
        &[&raw, &image],
    );
    let piece = open(Format::Vmdk, Arc::new(std::fs::read(&piece).unwrap()));
    assert!(matches!(piece, Err(OpenError::Unsupported { .. })));
}

#[test]
fn a_disk_with_a_parent_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (base, image) = (dir.path().join("base.vmdk"), dir.path().join("top.vmdk"));
    qemu_img(&["create", "-f", "vmdk"], &[&base, Path::new("1M")]);
    qemu_img(
        &["create", "-f", "vmdk", "-F", "vmdk", "-b"],
        &[&base, &image],
    );
    assert!(matches!(
        open(Format::Vmdk, Arc::new(std::fs::read(&image).unwrap())),
        Err(OpenError::ExternalFile {
            what: "a parent disk",
            ..
        })
    ));
}

#[test]
fn impossible_headers_are_refused() {
    let good = vmdk(
        &Fragments::new(2 << 20, &[(0, 100, true)]),
        Compression::None,
    );
    let footer = good.len() - 1024;
    for (at, bytes) in [
        (0, &b"KDMX"[..]),
        (4, &9u32.to_le_bytes()),
        (12, &u64::MAX.to_le_bytes()),
        (12, &(1u64 << 50).to_le_bytes()),
        (20, &0u64.to_le_bytes()),
        (20, &3u64.to_le_bytes()),
        (20, &(1u64 << 40).to_le_bytes()),
        (28, &u64::MAX.to_le_bytes()),
        (28, &0u64.to_le_bytes()),
        (36, &u64::MAX.to_le_bytes()),
        (44, &0u32.to_le_bytes()),
        (44, &u32::MAX.to_le_bytes()),
        (77, &7u16.to_le_bytes()),
    ] {
        // Header and footer say the same.
        let mut file = good.clone();
        for start in [0, footer] {
            file[start + at..start + at + bytes.len()].copy_from_slice(bytes);
        }
        assert!(
            open(Format::Vmdk, Arc::new(file)).is_err(),
            "{bytes:?} at {at}"
        );
    }
    let mut file = good.clone();
    file[footer + 56..footer + 64].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(open(Format::Vmdk, Arc::new(file)).is_err());
    for len in [0, 80, 512, good.len() / 2] {
        assert!(open(Format::Vmdk, Arc::new(good[..len].to_vec())).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever bytes change, opening and reading ends, with data or an error.
    #[test]
    fn damage_never_panics(
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()), 1..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let disk = Fragments::new((1 << 20) + 512, &[(0, 70_000, true), (300_000, 90_000, false)]);
        let mut file = vmdk(&disk, Compression::None);
        for (place, value, in_front) in hits {
            let at = place.index(if in_front { 512 } else { file.len() });
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(disk) = open(Format::Vmdk, Arc::new(file)) {
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
    assert_eq!(
        amiforge_types::Digest::of(&vmdk(&disk, Compression::None)).short(),
        "88f6f74b8ce2"
    );
}
