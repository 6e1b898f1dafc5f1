//! Helpers of this crate's tests.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the reference is qemu-img"
)]

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use amiforge_types::{BlobTable, ReadAt, WriteAt};
use proptest::prelude::*;

use crate::{EmitOptions, Extent, ExtentData, Extents, Output, emit};

/// Runs qemu-img, which must be content; what it printed.
#[track_caller]
pub(crate) fn qemu_img(args: &[&str], paths: &[&Path]) -> String {
    let output = Command::new("qemu-img")
        .args(args)
        .args(paths)
        .output()
        .expect("qemu-img (package qemu-utils)");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "qemu-img {args:?}: {text}");
    text.into_owned()
}

/// All bytes of a disk, in pieces that straddle clusters.
pub(crate) fn read_all(disk: &dyn ReadAt) -> Vec<u8> {
    let mut out = vec![0xAA; usize::try_from(disk.size()).unwrap()];
    for (i, piece) in out.chunks_mut(100_001).enumerate() {
        disk.read_exact_at(piece, i as u64 * 100_001).unwrap();
    }
    out
}

/// The file that `output` (its target aside) makes of a disk.
pub(crate) fn written(disk: &Fragments, output: Output<'_>) -> Vec<u8> {
    let target = Memory::default();
    let output = Output {
        target: &target,
        readback: Some(&target),
        ..output
    };
    let options = EmitOptions {
        threads: 2,
        content_digest: false,
    };
    emit(&disk.extents, &disk.blobs, &[output], options).unwrap();
    target.take()
}

/// The bytes of a disk, the slow and obvious way.
pub(crate) fn flatten(extents: &Extents, blobs: &BlobTable) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(extents.size()).unwrap()];
    for e in extents.list() {
        let range = usize::try_from(e.offset).unwrap()..usize::try_from(e.end()).unwrap();
        e.read_exact(blobs, &mut out[range], 0).unwrap();
    }
    out
}

/// A target in memory; what is never written keeps what `set_len` made.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) Mutex<Vec<u8>>);

impl Memory {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        if bytes.len() < start + buf.len() {
            bytes.resize(start + buf.len(), 0);
        }
        bytes[start..start + buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0
            .lock()
            .unwrap()
            .resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.lock().unwrap().read_exact_at(buf, offset)
    }
}

/// A disk made for a test.
#[derive(Debug)]
pub(crate) struct Fragments {
    pub(crate) extents: Extents,
    pub(crate) blobs: BlobTable,
}

impl Fragments {
    /// Pieces are (offset, length, from a blob); their bytes are half noise and half pattern, so
    /// that some clusters compress and some do not.
    pub(crate) fn new(size: u64, pieces: &[(u64, u64, bool)]) -> Self {
        let mut blobs = BlobTable::new();
        let mut noise = 0x9E37_79B9_7F4A_7C15u64;
        let mut blob = Vec::new();
        let mut list = Vec::new();
        let mut blob_parts = Vec::new();
        for (n, (offset, len, from_blob)) in pieces.iter().enumerate() {
            let bytes: Vec<u8> = (0..*len)
                .map(|i| {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    let [random, ..] = noise.to_le_bytes();
                    match (n % 3, (i >> 15) % 3) {
                        (0, _) | (_, 0) => random,
                        (1, 1) => 0,
                        _ => b'a' + random % 4,
                    }
                })
                .collect();
            if *from_blob {
                blob_parts.push((*offset, *len, blob.len() as u64));
                blob.extend(bytes);
            } else {
                list.push(Extent {
                    offset: *offset,
                    len: *len,
                    data: ExtentData::Bytes(bytes.into()),
                });
            }
        }
        let id = blobs.add(Arc::new(blob));
        list.extend(blob_parts.into_iter().map(|(offset, len, at)| Extent {
            offset,
            len,
            data: ExtentData::Blob { id, offset: at },
        }));
        Self {
            extents: Extents::new(size, list).unwrap(),
            blobs,
        }
    }
}

/// Disks of odd sizes with extents of odd lengths at odd places.
pub(crate) fn fragments() -> impl Strategy<Value = Fragments> {
    let piece = (
        prop_oneof![0u64..10_000, 0u64..700_000],
        prop_oneof![1u64..600, 1u64..400_000],
        any::<bool>(),
    );
    (proptest::collection::vec(piece, 0..24), 0u64..200_000).prop_map(|(pieces, tail)| {
        let mut at = 0;
        let placed: Vec<_> = pieces
            .into_iter()
            .map(|(gap, len, from_blob)| {
                let offset = at + gap;
                at = offset + len;
                (offset, len, from_blob)
            })
            .collect();
        Fragments::new(at + tail, &placed)
    })
}
