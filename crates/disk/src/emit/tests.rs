use std::sync::Arc;

use amiforge_types::{BlobTable, Digest};
use proptest::prelude::*;

use super::*;
use crate::testing::{Fragments, Memory, flatten, fragments};
use crate::{BLOCK_BYTES, content_digest, open};

/// Every kind of output, hashed.
const KINDS: [(Format, Compression); 4] = [
    (Format::Raw, Compression::None),
    (Format::Qcow2, Compression::None),
    (Format::Qcow2, Compression::Zlib(3)),
    (Format::Qcow2, Compression::Zstd(3)),
];

fn emit_all(disk: &Fragments, threads: usize) -> (Emitted, Vec<Vec<u8>>) {
    let targets: Vec<Memory> = KINDS.iter().map(|_| Memory::default()).collect();
    let outputs: Vec<Output<'_>> = KINDS
        .iter()
        .zip(&targets)
        .map(|((format, compression), target)| Output {
            format: *format,
            target,
            readback: Some(target),
            sha256: true,
            compression: *compression,
        })
        .collect();
    let options = EmitOptions {
        threads,
        content_digest: true,
    };
    let emitted = emit(&disk.extents, &disk.blobs, &outputs, options).unwrap();
    (emitted, targets.iter().map(Memory::take).collect())
}

/// The content digest by its definition.
fn reference_digest(disk: &[u8]) -> Digest {
    let mut all = Vec::new();
    for block in disk.chunks(usize::try_from(BLOCK_BYTES).unwrap()) {
        let mut block = block.to_vec();
        block.resize(usize::try_from(BLOCK_BYTES).unwrap(), 0);
        all.extend(Digest::of(&block).as_bytes());
    }
    Digest::of(&all)
}

fn check(disk: &Fragments) {
    let flat = flatten(&disk.extents, &disk.blobs);
    let (emitted, files) = emit_all(disk, 1);
    assert_eq!(
        emit_all(disk, 4),
        (emitted.clone(), files.clone()),
        "threads must not matter"
    );
    assert_eq!(emitted.content_digest, Some(reference_digest(&flat)));
    for ((artifact, file), (format, _)) in emitted.artifacts.iter().zip(&files).zip(KINDS) {
        assert_eq!(artifact.format, format);
        assert_eq!(artifact.bytes, file.len() as u64);
        assert_eq!(artifact.sha256, Some(Digest::of(file)), "{format}");
        let back = open(format, Arc::new(file.clone())).unwrap();
        // qcow2 counts whole sectors.
        let mut bytes = vec![0xAA; usize::try_from(back.size()).unwrap()];
        back.read_exact_at(&mut bytes, 0).unwrap();
        let (content, padding) = bytes.split_at(flat.len());
        assert!(content == flat, "{format} differs");
        assert!(padding.len() < 512 && padding.iter().all(|b| *b == 0));
        if padding.is_empty() {
            assert_eq!(
                content_digest(&*back, 3).ok(),
                emitted.content_digest,
                "{format}"
            );
        }
    }
    assert!(files[0] == flat);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_output_holds_the_disk_for_any_extents(disk in fragments()) {
        check(&disk);
    }
}

#[test]
fn empty_and_tiny_disks() {
    for size in [0, 1, 511, 512, 65_536, 65_537] {
        check(&Fragments::new(size, &[]));
        if size > 0 {
            check(&Fragments::new(size, &[(size - 1, 1, true)]));
        }
    }
}

#[test]
fn raw_without_digests_is_copied_to_the_same_bytes() {
    let disk = Fragments::new(
        40 << 20,
        &[
            (0, 512, false),
            (4096, 20 << 20, true),
            (30 << 20, 7, true),
            ((40 << 20) - 1, 1, false),
        ],
    );
    let (_, files) = emit_all(&disk, 2);
    for threads in [1, 3] {
        let target = Memory::default();
        let output = Output {
            format: Format::Raw,
            target: &target,
            readback: None,
            sha256: false,
            compression: Compression::None,
        };
        let emitted = emit(
            &disk.extents,
            &disk.blobs,
            &[output],
            EmitOptions {
                threads,
                content_digest: false,
            },
        )
        .unwrap();
        assert_eq!(emitted.content_digest, None);
        assert_eq!(emitted.artifacts[0].bytes, 40 << 20);
        assert!(target.take() == files[0]);
    }
}

#[test]
fn more_windows_than_buffers() {
    let pieces: Vec<(u64, u64, bool)> = (0..90)
        .map(|i| (i * (1 << 20) + 5000, 300, i % 2 == 0))
        .collect();
    check(&Fragments::new(90 << 20, &pieces));
}

/// Fails after some bytes, as a full disk does.
struct Full(std::sync::atomic::AtomicI64);

impl WriteAt for Full {
    fn write_all_at(&self, buf: &[u8], _offset: u64) -> io::Result<()> {
        let len = i64::try_from(buf.len()).unwrap();
        if self.0.fetch_sub(len, std::sync::atomic::Ordering::Relaxed) < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
    fn set_len(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_target_ends_the_run_and_is_named() {
    let pieces: Vec<(u64, u64, bool)> = (0..60).map(|i| (i * (1 << 20), 1 << 20, true)).collect();
    let disk = Fragments::new(60 << 20, &pieces);
    for (format, compression) in KINDS {
        for sha256 in [false, true] {
            let (good, full) = (Memory::default(), Full((1 << 20).into()));
            let output = |target, format, compression| Output {
                format,
                target,
                readback: Some(&good),
                sha256,
                compression,
            };
            let outputs = [
                output(&good, Format::Raw, Compression::None),
                output(&full, format, compression),
            ];
            let options = EmitOptions {
                threads: 2,
                content_digest: true,
            };
            let error = emit(&disk.extents, &disk.blobs, &outputs, options).unwrap_err();
            let EmitError::Write {
                output: 1, source, ..
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
        }
    }
}

#[test]
fn a_source_that_cannot_be_read_names_the_place() {
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(vec![1; 10]));
    let extent = crate::Extent {
        offset: 4096,
        len: 20,
        data: ExtentData::Blob { id, offset: 0 },
    };
    let extents = Extents::new(8192, vec![extent]).unwrap();
    let target = Memory::default();
    let output = Output {
        format: Format::Raw,
        target: &target,
        readback: None,
        sha256: true,
        compression: Compression::None,
    };
    let error = emit(
        &extents,
        &blobs,
        &[output],
        EmitOptions {
            threads: 2,
            content_digest: true,
        },
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read the data of bytes 4096 to 4116 of the disk"
    );
}

#[test]
fn hashing_a_compressed_output_needs_readback() {
    let target = Memory::default();
    let output = Output {
        format: Format::Qcow2,
        target: &target,
        readback: None,
        sha256: true,
        compression: Compression::Zstd(3),
    };
    let disk = Fragments::new(1 << 20, &[]);
    let options = EmitOptions {
        threads: 1,
        content_digest: false,
    };
    assert!(matches!(
        emit(&disk.extents, &disk.blobs, &[output], options),
        Err(EmitError::NoReadback { output: 0 })
    ));
}
