//! Layers as archives of changes, looked at member by member.

use std::io::Read;

use amiforge_types::{BlobTable, Timestamp};

use super::write_changes;
use crate::tar::TarWriteError;
use crate::{Content, DataExtent, DataSource, Inode, Kind, LayerDiff, LayerEntry, Stat};

fn stat(mode: u16) -> Stat {
    Stat {
        mode,
        uid: 3_000_000,
        gid: 7,
        mtime: Timestamp {
            secs: 12,
            nanos: 500_000_000,
        },
    }
}

fn file(size: u64, runs: &[(u64, &[u8])]) -> Inode {
    let extents = runs
        .iter()
        .map(|(offset, bytes)| DataExtent {
            offset: *offset,
            len: bytes.len() as u64,
            source: DataSource::Bytes((*bytes).into()),
        })
        .collect();
    let content = Content {
        size,
        extents,
        digest: None,
    };
    Inode::new(stat(0o4755), Kind::File(content))
}

fn dir() -> Inode {
    Inode::new(stat(0o755), Kind::Dir)
}

fn diff(entries: Vec<(&str, LayerEntry)>) -> LayerDiff {
    LayerDiff {
        entries: entries
            .into_iter()
            .map(|(path, entry)| (path.as_bytes().to_vec(), entry))
            .collect(),
    }
}

fn archive(diff: &LayerDiff) -> Vec<u8> {
    let mut out = Vec::new();
    write_changes(diff, &BlobTable::new(), &mut out).unwrap();
    out
}

/// Type and name of every member.
fn members(bytes: &[u8]) -> Vec<String> {
    let mut archive = ::tar::Archive::new(bytes);
    archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let kind = char::from(entry.header().entry_type().as_byte());
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let link = entry.link_name_bytes();
            let link = link.map_or_else(String::new, |l| {
                format!(" -> {}", String::from_utf8_lossy(&l))
            });
            format!("{kind} {name}{link}")
        })
        .collect()
}

#[test]
fn removed_names_and_replaced_folders_are_marked() {
    let bytes = archive(&diff(vec![
        ("", LayerEntry::Put(dir())),
        ("a", LayerEntry::Put(dir())),
        ("a/gone", LayerEntry::Whiteout),
        ("b", LayerEntry::PutOpaque(dir())),
        ("b/new", LayerEntry::Put(file(0, &[]))),
        ("c", LayerEntry::Whiteout),
        ("d", LayerEntry::Link(b"b/new".to_vec())),
    ]));
    assert_eq!(
        members(&bytes),
        [
            "5 ./",
            "5 a/",
            "0 a/.wh.gone",
            "5 b/",
            "0 b/.wh..wh..opq",
            "0 b/new",
            "0 .wh.c",
            "1 d -> b/new",
        ]
    );
    assert!(bytes.len().is_multiple_of(512) && bytes.ends_with(&[0; 1024]));
}

#[test]
fn attributes_ids_and_fractions_of_seconds_are_records() {
    let mut inode = file(3, &[(0, b"abc")]);
    inode
        .xattrs
        .insert(b"security.capability".to_vec(), vec![1, 0, 0, 2]);
    // As text only GNU tar would have it.
    let acl = vec![2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255];
    inode
        .xattrs
        .insert(b"system.posix_acl_access".to_vec(), acl.clone());
    let bytes = archive(&diff(vec![("f", LayerEntry::Put(inode))]));
    let mut archive = ::tar::Archive::new(&*bytes);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let records: Vec<(String, Vec<u8>)> = entry
        .pax_extensions()
        .unwrap()
        .unwrap()
        .map(|r| r.unwrap())
        .map(|r| (r.key().unwrap().to_owned(), r.value_bytes().to_vec()))
        .collect();
    let get = |key: &str| &records.iter().find(|(k, _)| k == key).unwrap().1;
    assert_eq!(get("uid"), b"3000000");
    assert_eq!(get("mtime"), b"12.5");
    assert_eq!(get("SCHILY.xattr.security.capability"), &[1, 0, 0, 2]);
    assert_eq!(get("SCHILY.xattr.system.posix_acl_access"), &acl);
    assert_eq!(entry.header().mode().unwrap(), 0o4755);
    let mut text = String::new();
    entry.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abc");
}

#[test]
fn holes_are_zeros() {
    let bytes = archive(&diff(vec![(
        "f",
        LayerEntry::Put(file(40_000, &[(20_000, b"x")])),
    )]));
    let mut archive = ::tar::Archive::new(&*bytes);
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let mut data = Vec::new();
    entry.read_to_end(&mut data).unwrap();
    assert_eq!((data.len(), data[20_000]), (40_000, b'x'));
    assert_eq!(data.iter().filter(|b| **b != 0).count(), 1);
    let huge = diff(vec![("f", LayerEntry::Put(file(1 << 40, &[])))]);
    let error = write_changes(&huge, &BlobTable::new(), &mut std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("holes"), "{error}");
}

#[test]
fn a_socket_still_hides_what_is_below_it() {
    let socket = Inode::new(stat(0o777), Kind::Socket);
    let diff = diff(vec![
        ("run", LayerEntry::Put(dir())),
        ("run/a", LayerEntry::Put(socket)),
        ("run/b", LayerEntry::Link(b"run/a".to_vec())),
    ]);
    assert_eq!(
        members(&archive(&diff)),
        ["5 run/", "0 run/.wh.a", "0 run/.wh.b"]
    );
}

#[test]
fn a_file_with_the_name_of_a_whiteout_is_refused() {
    for name in [".wh.x", "a/.wh..wh..opq"] {
        let diff = diff(vec![(name, LayerEntry::Put(file(0, &[])))]);
        let error = write_changes(&diff, &BlobTable::new(), &mut std::io::sink()).unwrap_err();
        assert!(matches!(error, TarWriteError::Entry { .. }), "{error}");
    }
    let dangling = diff(vec![("a", LayerEntry::Link(b"b".to_vec()))]);
    assert!(write_changes(&dangling, &BlobTable::new(), &mut std::io::sink()).is_err());
}
