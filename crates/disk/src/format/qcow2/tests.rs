#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the reference is qemu-img"
)]

use std::path::Path;
use std::process::Command;

use amiforge_types::{BlobTable, Digest};
use proptest::prelude::*;

use super::*;
use crate::testing::{Fragments, Memory, flatten, fragments, qemu_img, read_all, written};
use crate::{Extents, open};

const COMPRESSIONS: [Compression; 4] = [
    Compression::None,
    Compression::Zlib(1),
    Compression::Zlib(9),
    Compression::Zstd(3),
];

fn qcow2(disk: &Fragments, compression: Compression) -> Vec<u8> {
    written(
        disk,
        Output {
            compression,
            ..Output::new(Format::Qcow2, &Memory::default())
        },
    )
}

fn check_with_qemu(disk: &Fragments) {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    std::fs::write(&raw, flatten(&disk.extents, &disk.blobs)).unwrap();
    for compression in COMPRESSIONS {
        std::fs::write(&image, qcow2(disk, compression)).unwrap();
        qemu_img(&["check", "-f", "qcow2"], &[&image]);
        qemu_img(&["compare", "-f", "raw", "-F", "qcow2"], &[&raw, &image]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    #[test]
    fn qemu_accepts_any_extents(disk in fragments()) {
        check_with_qemu(&disk);
    }
}

#[test]
fn qemu_accepts_special_disks() {
    check_with_qemu(&Fragments::new(1 << 20, &[]));
    check_with_qemu(&Fragments::new(3 << 20, &[(0, 3 << 20, true)]));
    check_with_qemu(&Fragments::new(
        (600 << 20) + 512,
        &[
            (0, 1, true),
            (511 << 20, 2 << 20, false),
            (600 << 20, 512, true),
        ],
    ));
}

#[test]
fn empty_space_of_a_huge_disk_costs_nothing() {
    let disk = Fragments::new(
        1 << 44,
        &[(1 << 43, 5, true), ((1 << 44) - 512, 512, false)],
    );
    for compression in COMPRESSIONS {
        let bytes = qcow2(&disk, compression);
        assert!(bytes.len() < 2 << 20, "{} bytes", bytes.len());
        let back = open(Format::Qcow2, Arc::new(bytes)).unwrap();
        assert_eq!(back.size(), 1 << 44);
        let first = back.next_data(0).unwrap().unwrap();
        assert!(first.start <= 1 << 43 && first.end > 1 << 43);
        let second = back.next_data(first.end).unwrap().unwrap();
        assert_eq!(second.end, 1 << 44);
        assert_eq!(back.next_data(second.end).unwrap(), None);
    }
}

#[test]
fn zero_clusters_of_compressed_files_are_not_allocated() {
    let zeros = crate::Extent {
        offset: 0,
        len: 10 << 20,
        data: crate::ExtentData::Bytes(vec![0; 10 << 20].into()),
    };
    let extents = Extents::new(10 << 20, vec![zeros]).unwrap();
    let disk = Fragments {
        extents,
        blobs: BlobTable::new(),
    };
    assert!(qcow2(&disk, Compression::Zstd(3)).len() <= 6 << 16);
}

/// What qemu-img makes, our reader reads.
#[test]
fn files_of_qemu_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let disk = Fragments::new(
        5 << 20,
        &[
            (0, 700_000, true),
            (2 << 20, 65_536, false),
            ((4 << 20) + 3, 400_000, true),
        ],
    );
    let flat = flatten(&disk.extents, &disk.blobs);
    std::fs::write(&raw, &flat).unwrap();
    for options in [
        &["-O", "qcow2"][..],
        &["-O", "qcow2", "-o", "compat=0.10"],
        &["-O", "qcow2", "-o", "cluster_size=512"],
        &["-O", "qcow2", "-o", "cluster_size=2M"],
        &["-O", "qcow2", "-o", "preallocation=metadata"],
        &["-O", "qcow2", "-c"],
        &["-O", "qcow2", "-c", "-o", "cluster_size=4k"],
        &["-O", "qcow2", "-c", "-o", "compat=0.10"],
        &["-O", "qcow2", "-c", "-o", "compression_type=zstd"],
        &[
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd,cluster_size=256k",
        ],
        &["-O", "qcow2", "-S", "0"],
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"],
        &["-O", "qcow2", "-o", "extended_l2=on,cluster_size=16k"],
        &["-O", "qcow2", "-c", "-o", "extended_l2=on"],
    ] {
        let args: Vec<&str> = ["convert", "-f", "raw"]
            .iter()
            .chain(options)
            .copied()
            .collect();
        qemu_img(&args, &[&raw, &image]);
        let back = open(Format::Qcow2, Arc::new(std::fs::read(&image).unwrap())).unwrap();
        assert!(read_all(&*back) == flat, "{options:?}");
        let digest = crate::content_digest(&flat, 1).unwrap();
        assert_eq!(
            crate::content_digest(&*back, 2).unwrap(),
            digest,
            "{options:?}"
        );
    }
    // Explicit zero clusters over data.
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2"], &[&raw, &image]);
    let status = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -z 0 128k"])
        .arg(&image)
        .output()
        .unwrap();
    assert!(status.status.success());
    let back = open(Format::Qcow2, Arc::new(std::fs::read(&image).unwrap())).unwrap();
    let mut expected = flat.clone();
    expected[..128 << 10].fill(0);
    assert!(read_all(&*back) == expected);
}

/// Opens what lies in a folder, and counts.
struct Folder(std::path::PathBuf);

impl crate::Opener for Folder {
    fn open(&self, name: &str) -> io::Result<(Arc<dyn ReadAt>, Box<dyn crate::Opener>)> {
        let bytes = std::fs::read(self.0.join(name))?;
        Ok((Arc::new(bytes), Box::new(Self(self.0.clone()))))
    }
}

/// An overlay of an overlay, partly written, larger than what is below it; with subclusters, too.
#[test]
fn backing_files_are_read_where_the_caller_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let disk = Fragments::new(5 << 20, &[(0, 700_000, true), (2 << 20, 1_000_000, false)]);
    std::fs::write(path("base.raw"), flatten(&disk.extents, &disk.blobs)).unwrap();
    let commands = |image: &Path, writes: &[&str]| {
        let mut io = Command::new("qemu-io");
        for write in writes {
            io.args(["-c", write]);
        }
        let done = io.args(["-f", "qcow2"]).arg(image).output().unwrap();
        assert!(done.status.success());
    };
    for extended in ["off", "on"] {
        let option = format!("extended_l2={extended}");
        let create = ["create", "-f", "qcow2", "-o", &option, "-F"];
        let (mid, top, flat) = (path("mid.qcow2"), path("top.qcow2"), path("flat.raw"));
        let args: Vec<&str> = create
            .iter()
            .copied()
            .chain(["raw", "-b", "base.raw"])
            .collect();
        qemu_img(&args, &[&mid]);
        commands(
            &mid,
            &["write -P 3 4k 3k", "write -z 2M 64k", "discard 2200k 70k"],
        );
        let args: Vec<&str> = create
            .iter()
            .copied()
            .chain(["qcow2", "-b", "mid.qcow2"])
            .collect();
        qemu_img(&args, &[&top, Path::new("7M")]);
        commands(
            &top,
            &["write -P 9 100k 1k", "write -P 4 6M 5k", "write -z 600k 8k"],
        );
        qemu_img(&["convert", "-f", "qcow2", "-O", "raw"], &[&top, &flat]);
        let file = Arc::new(std::fs::read(&top).unwrap());
        assert!(open(Format::Qcow2, file.clone()).is_err());
        let back = crate::open_with(Format::Qcow2, file, &Folder(dir.path().into())).unwrap();
        let flat = std::fs::read(&flat).unwrap();
        assert!(read_all(&*back) == flat, "{option}");
        assert_eq!(
            crate::content_digest(&*back, 2).unwrap(),
            crate::content_digest(&flat, 1).unwrap(),
            "{option}"
        );
    }
    // A chain without an end, and a file that is not there.
    qemu_img(
        &[
            "rebase",
            "-u",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            "mid.qcow2",
        ],
        &[&path("mid.qcow2")],
    );
    for gone in [false, true] {
        if gone {
            std::fs::remove_file(path("mid.qcow2")).unwrap();
        }
        let file = Arc::new(std::fs::read(path("top.qcow2")).unwrap());
        let end = crate::open_with(Format::Qcow2, file, &Folder(dir.path().into()));
        assert!(matches!(end, Err(OpenError::Named { .. })));
    }
}

#[test]
fn data_files_are_read_where_the_caller_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("disk.raw"), dir.path().join("disk.qcow2"));
    let disk = Fragments::new(3 << 20, &[(0, 700_000, true), (2 << 20, 70_000, false)]);
    let flat = flatten(&disk.extents, &disk.blobs);
    std::fs::write(&raw, &flat).unwrap();
    for raw_external in ["off", "on"] {
        let data = dir.path().join("data");
        let option = format!("data_file={},data_file_raw={raw_external}", data.display());
        qemu_img(
            &["convert", "-f", "raw", "-O", "qcow2", "-o", &option],
            &[&raw, &image],
        );
        let file = Arc::new(std::fs::read(&image).unwrap());
        let back = crate::open_with(Format::Qcow2, file, &Folder(dir.path().into())).unwrap();
        assert!(read_all(&*back) == flat, "{raw_external}");
        std::fs::remove_file(&image).unwrap();
        std::fs::remove_file(&data).unwrap();
    }
}

/// LUKS in qcow2, and an image with internal snapshots.
#[test]
fn encrypted_images_are_refused_and_snapshots_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.qcow2");
    let disk = Fragments::new(1 << 20, &[(0, 300_000, true)]);
    // qemu-img makes LUKS headers only where it can measure its own processor time, so not reliably.
    let mut luks = qcow2(&disk, Compression::None);
    luks[32..36].copy_from_slice(&2_u32.to_be_bytes());
    let end = open(Format::Qcow2, Arc::new(luks));
    assert!(matches!(end, Err(OpenError::Unsupported { what, .. }) if what == "encryption"));

    std::fs::write(&image, qcow2(&disk, Compression::None)).unwrap();
    qemu_img(&["snapshot", "-c", "old"], &[&image]);
    let done = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 5 0 64k"])
        .arg(&image)
        .output()
        .unwrap();
    assert!(done.status.success());
    let back = open(Format::Qcow2, Arc::new(std::fs::read(&image).unwrap())).unwrap();
    let mut flat = flatten(&disk.extents, &disk.blobs);
    flat[..64 << 10].fill(5);
    assert!(read_all(&*back) == flat);
}

#[test]
fn other_files_are_never_opened_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let (base, image) = (dir.path().join("base.qcow2"), dir.path().join("top.qcow2"));
    qemu_img(&["create", "-f", "qcow2"], &[&base, Path::new("1M")]);
    qemu_img(
        &["create", "-f", "qcow2", "-F", "qcow2", "-b"],
        &[&base, &image],
    );
    let open_file = || open(Format::Qcow2, Arc::new(std::fs::read(&image).unwrap())).map(|_| ());
    assert!(matches!(
        open_file(),
        Err(OpenError::ExternalFile {
            what: "a backing file",
            ..
        })
    ));
    std::fs::remove_file(&image).unwrap();
    let data = format!("data_file={}", dir.path().join("data").display());
    qemu_img(
        &["create", "-f", "qcow2", "-o", &data],
        &[&image, Path::new("1M")],
    );
    assert!(matches!(
        open_file(),
        Err(OpenError::ExternalFile {
            what: "a data file",
            ..
        })
    ));
}

#[test]
fn impossible_headers_are_refused() {
    let good = qcow2(
        &Fragments::new(2 << 20, &[(0, 100, true)]),
        Compression::None,
    );
    for (at, bytes) in [
        (4, &9u32.to_be_bytes()[..]),
        (20, &8u32.to_be_bytes()),
        (20, &22u32.to_be_bytes()),
        (20, &u32::MAX.to_be_bytes()),
        (24, &u64::MAX.to_be_bytes()),
        (24, &(1u64 << 62).to_be_bytes()),
        (32, &1u32.to_be_bytes()),
        (36, &0u32.to_be_bytes()),
        (40, &u64::MAX.to_be_bytes()),
        (40, &3u64.to_be_bytes()),
        (72, &(1u64 << 1).to_be_bytes()),
        (72, &(1u64 << 5).to_be_bytes()),
        (72, &(1u64 << 63).to_be_bytes()),
        (100, &0u32.to_be_bytes()),
        (104, &[7]),
    ] {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(
            open(Format::Qcow2, Arc::new(file)).is_err(),
            "{bytes:?} at {at}"
        );
    }
    assert!(open(Format::Qcow2, Arc::new(good[..80].to_vec())).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever bytes change, opening and reading ends, with data or an error.
    #[test]
    fn damage_never_panics(
        kind in 0usize..4,
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), any::<bool>()), 1..12),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let disk = Fragments::new((1 << 20) + 512, &[(0, 70_000, true), (300_000, 90_000, false)]);
        let mut file = qcow2(&disk, COMPRESSIONS[kind]);
        for (place, value, in_tables) in hits {
            // Half of the hits go where the tables are.
            let range = if in_tables { 128 } else { file.len() };
            let mut at = place.index(range);
            if in_tables && at >= 112 {
                at = (at - 112) * 65_536 % file.len();
            }
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(disk) = open(Format::Qcow2, Arc::new(file)) {
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

/// The bytes of a known disk, pinned: a change here changes every published digest. Where only the
/// compressed ones change, the encoder's version (`codec.rs`) has to change with them.
#[test]
fn files_are_stable() {
    let disk = Fragments::new(
        (2 << 20) + 512,
        &[(0, 300_000, true), (1 << 20, 5_000, false)],
    );
    let digests: Vec<String> = COMPRESSIONS
        .iter()
        .map(|c| Digest::of(&qcow2(&disk, *c)).short())
        .collect();
    assert_eq!(
        digests,
        [
            "ad297991ebfd",
            "fc309fde1f32",
            "fe9c766f36e1",
            "a9ec7a064e07"
        ]
    );
}

/// A disk whose first part stays while something behind it changes.
fn versions() -> (Fragments, Fragments) {
    let old = [(0, 3 << 20, true), (8 << 20, 500_000, false)];
    let new = [
        (0, 3 << 20, true),
        (5 << 20, 90_000, false),
        (8 << 20, 500_000, false),
    ];
    (
        Fragments::new(10 << 20, &old),
        Fragments::new(12 << 20, &new),
    )
}

#[test]
fn taking_over_clusters_changes_no_byte() {
    let (old, new) = versions();
    for compression in [Compression::Zlib(6), Compression::Zstd(3)] {
        let file = Arc::new(qcow2(&old, compression));
        let previous = Previous::open(file.clone()).unwrap();
        assert!(previous.serves(compression));
        let target = Memory::default();
        let output = Output {
            compression,
            previous: Some(&previous),
            ..Output::new(Format::Qcow2, &target)
        };
        assert!(written(&new, output) == qcow2(&new, compression));
        assert!(written(&old, output) == *file);
        // Whatever the previous file says, content and bytes are right.
        let mut damaged = file.to_vec();
        for at in (70_000..damaged.len()).step_by(1013) {
            damaged[at] ^= 0x55;
        }
        if let Ok(damaged) = Previous::open(Arc::new(damaged)) {
            let output = Output {
                previous: Some(&damaged),
                ..output
            };
            assert!(written(&new, output) == qcow2(&new, compression));
        }
    }
}

#[test]
fn clusters_of_another_encoder_are_not_taken() {
    let (old, _) = versions();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.qcow2");
    std::fs::write(&image, qcow2(&old, Compression::Zstd(1))).unwrap();
    let previous = Previous::open(Arc::new(std::fs::read(&image).unwrap())).unwrap();
    assert!(!previous.serves(Compression::Zstd(3)) && !previous.serves(Compression::None));
    let target = Memory::default();
    let output = Output {
        compression: Compression::Zstd(3),
        previous: Some(&previous),
        ..Output::new(Format::Qcow2, &target)
    };
    assert!(written(&old, output) == qcow2(&old, Compression::Zstd(3)));
    // Neither are those of a file that names no encoder.
    let foreign = dir.path().join("foreign.qcow2");
    qemu_img(
        &[
            "convert",
            "-O",
            "qcow2",
            "-c",
            "-o",
            "compression_type=zstd",
        ],
        &[&image, &foreign],
    );
    let previous = Previous::open(Arc::new(std::fs::read(&foreign).unwrap())).unwrap();
    assert!(!previous.serves(Compression::Zstd(3)));
}
