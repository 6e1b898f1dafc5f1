use std::sync::Arc;

use amiforge_types::{BlobTable, Digest, ReadAt, WriteAt};
use proptest::prelude::*;

use super::*;
use crate::testing::{Fragments, Memory, flatten, fragments};
use crate::{BLOCK_BYTES, content_digest, open};
use std::ops::Range;

/// Every kind of output: format, subformat, compression, whether zeros are looked for.
const KINDS: [(Format, Subformat, Compression, bool); 10] = [
    (Format::Raw, Subformat::Default, Compression::None, false),
    (Format::Raw, Subformat::Default, Compression::None, true),
    (Format::Qcow2, Subformat::Default, Compression::None, false),
    (Format::Qcow2, Subformat::Default, Compression::None, true),
    (
        Format::Qcow2,
        Subformat::Default,
        Compression::Zlib(3),
        false,
    ),
    (
        Format::Qcow2,
        Subformat::Default,
        Compression::Zstd(3),
        true,
    ),
    (Format::Vmdk, Subformat::Default, Compression::None, false),
    (
        Format::Vmdk,
        Subformat::StreamOptimized,
        Compression::Zlib(1),
        true,
    ),
    (Format::Vhd, Subformat::Dynamic, Compression::None, true),
    (Format::Vhd, Subformat::Fixed, Compression::None, false),
];

fn emit_all(disk: &Fragments, threads: usize) -> (Emitted, Vec<Vec<u8>>) {
    let targets: Vec<Memory> = KINDS.iter().map(|_| Memory::default()).collect();
    let outputs: Vec<Output<'_>> = KINDS
        .iter()
        .zip(&targets)
        .map(
            |((format, subformat, compression, find_zeros), target)| Output {
                subformat: *subformat,
                readback: Some(target),
                sha256: true,
                compression: *compression,
                find_zeros: *find_zeros,
                ..Output::new(*format, target)
            },
        )
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
    for ((artifact, file), (format, ..)) in emitted.artifacts.iter().zip(&files).zip(KINDS) {
        assert_eq!(artifact.format, format);
        assert_eq!(artifact.bytes, file.len() as u64);
        assert_eq!(artifact.sha256, Some(Digest::of(file)), "{format}");
        let back = open(format, Arc::new(file.clone())).unwrap();
        // Some formats count in sectors or more.
        assert_eq!(back.size(), format.virtual_bytes(flat.len() as u64));
        assert_eq!(artifact.virtual_bytes, back.size());
        let mut bytes = vec![0xAA; usize::try_from(back.size()).unwrap()];
        back.read_exact_at(&mut bytes, 0).unwrap();
        let (content, padding) = bytes.split_at(flat.len());
        assert!(content == flat, "{format} differs");
        assert!(padding.iter().all(|b| *b == 0));
        if padding.is_empty() {
            assert_eq!(
                content_digest(&*back, 3).ok(),
                emitted.content_digest,
                "{format}"
            );
        }
    }
    assert!(files[0] == flat && files[1] == flat);
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
        let output = Output::new(Format::Raw, &target);
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
    for (format, subformat, compression, find_zeros) in KINDS {
        for sha256 in [false, true] {
            let (good, full) = (Memory::default(), Full((1 << 20).into()));
            let outputs = [
                Output::new(Format::Raw, &good),
                Output {
                    subformat,
                    readback: Some(&good),
                    sha256,
                    compression,
                    find_zeros,
                    ..Output::new(format, &full)
                },
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
        data: crate::ExtentData::Blob { id, offset: 0 },
    };
    let extents = Extents::new(8192, vec![extent]).unwrap();
    let target = Memory::default();
    let output = Output {
        sha256: true,
        ..Output::new(Format::Raw, &target)
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
        sha256: true,
        compression: Compression::Zstd(3),
        ..Output::new(Format::Qcow2, &target)
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

#[test]
fn outputs_that_cannot_be_are_refused_before_anything_is_written() {
    let target = Memory::default();
    let disk = Fragments::new(1 << 20, &[(0, 10, true)]);
    let huge = Fragments::new(3 << 40, &[]);
    let new = |format| Output::new(format, &target);
    for (disk, output, told) in [
        (
            &disk,
            Output {
                subformat: Subformat::Fixed,
                ..new(Format::Qcow2)
            },
            "qcow2 has no subformat fixed",
        ),
        (
            &disk,
            Output {
                compression: Compression::ZSTD,
                ..new(Format::Vmdk)
            },
            "vmdk cannot be compressed with zstd:3",
        ),
        (
            &huge,
            new(Format::Vhd),
            "a disk of 3298534883328 bytes is too large for vhd: it holds at most 2190433320960",
        ),
        (
            &huge,
            new(Format::Vmdk),
            "a disk of 3298534883328 bytes is too large for vmdk: it holds at most 2130303778816",
        ),
    ] {
        let options = EmitOptions {
            threads: 1,
            content_digest: false,
        };
        let error = emit(&disk.extents, &disk.blobs, &[output], options).unwrap_err();
        let EmitError::Impossible { output: 0, source } = error else {
            panic!("{error}")
        };
        assert_eq!(source.to_string(), told);
        assert_eq!(target.take(), Vec::<u8>::new());
    }
}

#[test]
fn progress_ends_at_all_the_data() {
    let disk = Fragments::new(8 << 20, &[(0, 3 << 20, true), (5 << 20, 100, false)]);
    for sha256 in [false, true] {
        let target = Memory::default();
        let seen = std::sync::Mutex::new(Vec::new());
        let options = EmitOptions {
            threads: 2,
            content_digest: false,
        };
        let output = Output {
            sha256,
            ..Output::new(Format::Raw, &target)
        };
        emit_watched(
            &disk.extents,
            &disk.blobs,
            &[output],
            options,
            &|done, total| {
                seen.lock().unwrap().push((done, total));
            },
        )
        .unwrap();
        let all = (3 << 20) + 100;
        let seen = seen.into_inner().unwrap();
        assert!(
            seen.iter()
                .all(|(done, total)| done <= total && *total == all)
        );
        assert_eq!(seen.iter().map(|(done, _)| *done).max(), Some(all));
    }
}

/// A file whose zeros are partly data and partly holes.
struct Holey(Vec<u8>, Vec<Range<u64>>);

impl ReadAt for Holey {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let found = self.1.iter().find(|range| range.end > offset);
        Ok(found.map(|range| range.start.max(offset)..range.end))
    }
}

/// Converting depends on the content of the input, not on where its holes are.
#[test]
fn holes_of_a_file_do_not_show_in_what_it_is_converted_to() {
    let mut flat = vec![0; 9 << 20];
    flat[70_000..300_000].fill(7);
    flat[(5 << 20) + 1..(5 << 20) + 9].fill(8);
    let len = flat.len() as u64;
    let mut all: Vec<(Emitted, Vec<Vec<u8>>)> = Vec::new();
    for holes in [
        std::iter::once(0..len).collect::<Vec<_>>(),
        vec![65_536..304_000, 5 << 20..6 << 20],
        vec![0..1 << 20, 3 << 20..(5 << 20) + 4096, 8 << 20..len],
    ] {
        let mut blobs = BlobTable::new();
        let file = Arc::new(Holey(flat.clone(), holes));
        let id = blobs.add(file.clone());
        let extents = Extents::of_disk(&*file, id).unwrap();
        let targets: Vec<Memory> = KINDS.iter().map(|_| Memory::default()).collect();
        let outputs: Vec<Output<'_>> = KINDS
            .iter()
            .zip(&targets)
            .map(|((format, subformat, compression, _), target)| Output {
                subformat: *subformat,
                readback: Some(target),
                sha256: true,
                compression: *compression,
                find_zeros: true,
                ..Output::new(*format, target)
            })
            .collect();
        let options = EmitOptions {
            threads: 2,
            content_digest: true,
        };
        let emitted = emit(&extents, &blobs, &outputs, options).unwrap();
        all.push((emitted, targets.iter().map(Memory::take).collect()));
    }
    assert!(all[0] == all[1] && all[1] == all[2]);
    assert!(all[0].1[0] == flat);
}
