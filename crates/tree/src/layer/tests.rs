//! The codec: what is written is read, and what is not a layer is refused.

use std::sync::Arc;

use amiforge_types::{BlobTable, ReadAt, Timestamp};
use proptest::prelude::*;

use super::{ALIGN, LayerReadError, LayerWriteError, format, plan, read, verify, write};
use crate::testing::{blobs, dump, tree_strategy};
use crate::{
    Content, DataExtent, DataSource, Inode, InodeFlags, Kind, LayerDiff, LayerEntry, Stat, Tree,
};

const STAT: Stat = Stat {
    mode: 0o644,
    uid: 1,
    gid: 2,
    mtime: Timestamp { secs: 3, nanos: 4 },
};

fn written(diff: &LayerDiff) -> Vec<u8> {
    let mut out = Vec::new();
    let info = write(diff, &blobs(), &mut out).unwrap();
    assert_eq!(info.bytes, out.len() as u64);
    out
}

fn reread(bytes: &[u8]) -> Result<LayerDiff, LayerReadError> {
    let id = BlobTable::new().add(Arc::new(Vec::new()));
    read(&bytes.to_vec(), id).map(|(diff, _)| diff)
}

fn sample() -> LayerDiff {
    let file = |content| LayerEntry::Put(Inode::new(STAT, Kind::File(content)));
    let dir = |_| Inode::new(STAT, Kind::Dir);
    LayerDiff {
        entries: [
            (b"".to_vec(), LayerEntry::Put(dir(()))),
            (b"d".to_vec(), LayerEntry::PutOpaque(dir(()))),
            (b"d/file".to_vec(), file(Content::bytes(*b"some text"))),
            (b"d/link".to_vec(), LayerEntry::Link(b"d/file".to_vec())),
            (b"gone".to_vec(), LayerEntry::Whiteout),
            (
                b"sock".to_vec(),
                LayerEntry::Put(Inode::new(STAT, Kind::Socket)),
            ),
        ]
        .into(),
    }
}

#[test]
fn data_is_aligned_and_the_plan_says_where() {
    let diff = sample();
    let bytes = written(&diff);
    let plan = plan(&diff).unwrap();
    let (extent, place) = plan.files()[0].runs().next().unwrap();
    assert!(place.is_multiple_of(ALIGN));
    let at = usize::try_from(place).unwrap();
    assert_eq!(
        &bytes[at..at + usize::try_from(extent.len).unwrap()],
        b"some text"
    );
    let digests: Vec<_> = plan
        .files()
        .iter()
        .map(|f| f.content.digest.unwrap())
        .collect();
    let (tail, _) = plan.finish(&digests).unwrap();
    assert_eq!(bytes[usize::try_from(plan.tail_offset()).unwrap()..], tail);
    assert_eq!(bytes[..4096], plan.header());
}

#[test]
fn an_empty_layer_is_a_layer() {
    assert_eq!(
        reread(&written(&LayerDiff::default())).unwrap(),
        LayerDiff::default()
    );
}

/// The bytes of the format, pinned: a change here needs a new version number, since existing stores
/// would be read wrongly (or not at all).
#[test]
fn the_format_stays_what_it_is() {
    let digest = amiforge_types::Digest::of(&written(&sample()));
    assert_eq!(
        digest.hex(),
        "9e65bd304b91b02659bb6fece08e3af109e5df0761f968080ef8df671c3b3caa"
    );
}

/// Inode flags came later, as a feature: layers without any are what they were.
#[test]
fn flags_are_kept_and_are_a_feature_of_the_layer() {
    let mut diff = sample();
    let flagged = |entry: &mut LayerEntry, flags| match entry {
        LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => inode.flags = flags,
        LayerEntry::Link(_) | LayerEntry::Whiteout => panic!("no inode"),
    };
    let file = diff.entries.get_mut(b"d/file".as_slice()).unwrap();
    flagged(file, InodeFlags::IMMUTABLE | InodeFlags::NO_DUMP);
    let dir = diff.entries.get_mut(b"d".as_slice()).unwrap();
    flagged(dir, InodeFlags::APPEND_ONLY);
    let bytes = written(&diff);
    assert_eq!(bytes[12..16], [1, 0, 0, 0]);
    let back = reread(&bytes).unwrap();
    let flags = |path: &[u8]| match &back.entries[path] {
        LayerEntry::Put(inode) | LayerEntry::PutOpaque(inode) => inode.flags.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (flags(b"d/file"), flags(b"d"), flags(b"sock")),
        ("id".into(), "a".into(), String::new())
    );
    let digest = amiforge_types::Digest::of(&bytes);
    assert_eq!(
        digest.hex(),
        "dd4c8a823048c79b20016fc6db04bab408e42fe703ec042d0e7e9416124b05af"
    );
    for at in (0..4096).chain(8192..bytes.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(reread(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn every_changed_bit_outside_file_data_is_found() {
    let bytes = written(&sample());
    let data = 4096..4096 + 9;
    let padding = data.end..8192;
    for at in 0..bytes.len() {
        if data.contains(&at) || padding.contains(&at) {
            continue;
        }
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            assert!(reread(&changed).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let bytes = written(&sample());
    for len in 0..bytes.len() {
        assert!(reread(&bytes[..len]).is_err(), "{len} bytes");
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(reread(&longer).is_err());
}

#[test]
fn changed_file_data_is_found_by_verify() {
    let mut bytes = written(&sample());
    bytes[4096] ^= 1;
    let mut blobs = BlobTable::new();
    let blob = Arc::new(bytes);
    let id = blobs.add(blob.clone());
    let (diff, _) = read(&*blob, id).unwrap();
    match verify(&diff, &blobs) {
        Err(LayerReadError::Data { path, .. }) => assert_eq!(path, b"d/file"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_version_is_told_apart_from_damage() {
    for (other, unknown) in [(1, 0), (super::VERSION + 1, 0), (super::VERSION, 3)] {
        let mut bytes = written(&sample());
        let at = bytes.len() - format::TRAILER_LEN;
        let mut trailer = format::Trailer::from_bytes(bytes[at..].first_chunk().unwrap()).unwrap();
        trailer.version = other;
        trailer.features = unknown;
        bytes[at..].copy_from_slice(&trailer.to_bytes());
        assert!(matches!(
            reread(&bytes),
            Err(LayerReadError::Unsupported { version, features })
                if version == other && features == unknown
        ));
    }
}

/// A forged index with right digests: the decoder itself has to refuse it.
#[test]
fn hostile_entries_are_refused_behind_right_digests() {
    let put = |path: &[u8]| -> Vec<u8> {
        let mut entry = vec![0, 5, 0, 0];
        entry.extend_from_slice(&u32::try_from(path.len()).unwrap().to_le_bytes());
        entry.extend_from_slice(path);
        entry.extend_from_slice(&[0; 24]);
        entry
    };
    let file = |fields: [u64; 4]| {
        let [size, offset, len, place] = fields;
        let mut entry = put(b"f");
        entry[1] = 1;
        entry.extend_from_slice(&size.to_le_bytes());
        entry.extend_from_slice(&[0; 32]);
        entry.extend_from_slice(&1_u32.to_le_bytes());
        for field in [offset, len, place] {
            entry.extend_from_slice(&field.to_le_bytes());
        }
        entry
    };
    let forge = |index: &[u8], entries: u64, data_bytes: u64| {
        let mut bytes = format::header(0);
        bytes.resize(8192, 0);
        let trailer = format::Trailer {
            version: super::VERSION,
            features: 0,
            index_offset: 8192,
            index_len: index.len() as u64,
            entries,
            data_bytes,
            index_digest: amiforge_types::Digest::of(index),
        };
        bytes.extend_from_slice(index);
        bytes.extend_from_slice(&trailer.to_bytes());
        reread(&bytes)
    };
    forge(&put(b"ok"), 1, 0).unwrap();
    forge(&file([10, 0, 10, 4096]), 1, 10).unwrap();
    for bad in [
        &b"/abs"[..],
        b"a//b",
        b"a/",
        b"../x",
        b"a/./b",
        b"nul\0",
        &[b'n'; 256],
    ] {
        assert!(forge(&put(bad), 1, 0).is_err(), "{bad:?}");
    }
    assert!(forge(&put(b"ok"), 2, 0).is_err(), "wrong count");
    assert!(
        forge(&[put(b"b"), put(b"a")].concat(), 2, 0).is_err(),
        "not sorted"
    );
    assert!(
        forge(&[put(b"a"), put(b"a")].concat(), 2, 0).is_err(),
        "twice"
    );
    for (fields, why) in [
        ([10, 0, 10, 0], "data in the header"),
        ([10, 0, 10, 4097], "not aligned"),
        ([9, 0, 10, 4096], "longer than the file"),
        ([10, u64::MAX, 10, 4096], "overflowing"),
        ([u64::MAX, 0, u64::MAX - 4095, 4096], "past the data"),
        ([10, 0, 0, 4096], "empty run"),
    ] {
        assert!(forge(&file(fields), 1, fields[2]).is_err(), "{why}");
    }
    let mut huge_list = put(b"f");
    huge_list[1] = 1;
    huge_list.extend_from_slice(&[0; 40]);
    huge_list.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(
        forge(&huge_list, 1, 0).is_err(),
        "a count that the bytes do not hold"
    );
}

#[test]
fn what_cannot_be_stored_is_refused_by_path() {
    let put = |inode| LayerEntry::Put(inode);
    let overlapping = Content {
        size: 10,
        extents: vec![
            DataExtent {
                offset: 0,
                len: 5,
                source: DataSource::Bytes(Arc::from(*b"12345")),
            },
            DataExtent {
                offset: 4,
                len: 5,
                source: DataSource::Bytes(Arc::from(*b"12345")),
            },
        ],
        digest: None,
    };
    let cases = [
        ("../up", LayerEntry::Whiteout),
        ("", LayerEntry::Whiteout),
        ("dangling", LayerEntry::Link(b"nothing".to_vec())),
        (
            "mode",
            put(Inode::new(
                Stat {
                    mode: 0o10000,
                    ..STAT
                },
                Kind::Fifo,
            )),
        ),
        ("link", put(Inode::new(STAT, Kind::Symlink(Vec::new())))),
        ("extents", put(Inode::new(STAT, Kind::File(overlapping)))),
        (
            "opaque",
            LayerEntry::PutOpaque(Inode::new(STAT, Kind::Fifo)),
        ),
    ];
    for (path, entry) in cases {
        let diff = LayerDiff {
            entries: [(path.as_bytes().to_vec(), entry)].into(),
        };
        match write(&diff, &BlobTable::new(), &mut Vec::new()) {
            Err(LayerWriteError::Entry { path: found, .. }) => assert_eq!(found, path.as_bytes()),
            other => panic!("{path}: {other:?}"),
        }
    }
}

#[test]
fn a_wrong_known_digest_is_an_error() {
    let mut content = Content::bytes(*b"x");
    content.digest = Some(amiforge_types::Digest::of(b"y"));
    let diff = LayerDiff {
        entries: [(
            b"f".to_vec(),
            LayerEntry::Put(Inode::new(STAT, Kind::File(content))),
        )]
        .into(),
    };
    assert!(matches!(
        write(&diff, &BlobTable::new(), &mut Vec::new()),
        Err(LayerWriteError::Digest { .. })
    ));
}

proptest! {
    #[test]
    fn what_is_written_is_read(tree in tree_strategy()) {
        let diff = LayerDiff::from_tree(&tree);
        let bytes = written(&diff);
        prop_assert_eq!(&bytes, &written(&diff));
        let mut table = BlobTable::new();
        let blob: Arc<Vec<u8>> = Arc::new(bytes);
        let id = table.add(blob.clone());
        let (back, info) = read(&*blob, id).unwrap();
        prop_assert_eq!(info.bytes, blob.size());
        verify(&back, &table).unwrap();
        let again = Tree::from_layers(STAT, [&back]).unwrap();
        prop_assert_eq!(dump(&again, &table), dump(&tree, &blobs()));
    }

    #[test]
    fn damaged_bytes_never_panic(
        tree in tree_strategy(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        reseal in any::<bool>(),
    ) {
        let mut bytes = written(&LayerDiff::from_tree(&tree));
        for (at, value) in changes {
            *at.get_mut(&mut bytes) = value;
        }
        if reseal {
            // With digests made right again, so that the decoder sees the damage.
            let at = bytes.len() - format::TRAILER_LEN;
            let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
            let (start, len) = (u64_at(at + 16), u64_at(at + 24));
            if let (Ok(start), Ok(len)) = (usize::try_from(start), usize::try_from(len))
                && let Some(index) = start.checked_add(len).and_then(|end| bytes.get(start..end))
            {
                let trailer = format::Trailer {
                    version: super::VERSION,
                    features: 0,
                    index_offset: start as u64,
                    index_len: len as u64,
                    entries: u64_at(at + 32),
                    data_bytes: u64_at(at + 40),
                    index_digest: amiforge_types::Digest::of(index),
                };
                bytes[at..].copy_from_slice(&trailer.to_bytes());
            }
        }
        if let Ok(diff) = reread(&bytes) {
            // Whatever was accepted can be written again.
            let mut blobs = BlobTable::new();
            blobs.add(Arc::new(bytes));
            let mut clean = diff;
            for entry in clean.entries.values_mut() {
                if let LayerEntry::Put(Inode { kind: Kind::File(content), .. }) = entry {
                    content.digest = None;
                }
            }
            write(&clean, &blobs, &mut Vec::new()).unwrap();
        }
    }
}
