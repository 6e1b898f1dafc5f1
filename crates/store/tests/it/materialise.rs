//! Layers as directories.

use std::fs::File;
use std::sync::Arc;

use amiforge_store::{MaterialiseReport, materialise};
use amiforge_tree::{Content, Inode, Kind, LayerDiff, LayerEntry, Stat, Tree};
use amiforge_types::{BlobTable, Timestamp};

use crate::common::{CLOCK, EVERYTHING, ROOT, dump_diff, dump_dir, harvested, options, sh};
use crate::tar::similar_asserts;

#[test]
fn what_was_harvested_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), EVERYTHING);
    sh(
        dir.path(),
        r#"cd "$1"; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'"#,
    );
    let (diff, blobs) = harvested(dir.path(), &options());
    let out = tempfile::tempdir().unwrap();
    let report = materialise(&diff, &blobs, File::open(out.path()).unwrap()).unwrap();
    assert_eq!(report.devices_skipped, 2);
    assert_eq!(report.xattrs_skipped, 0);
    let expected: String = dump_diff(&diff, &blobs)
        .lines()
        .filter(|l| !l.starts_with("/null ") && !l.starts_with("/disk "))
        .map(|l| l.to_owned() + "\n")
        .collect();
    similar_asserts(&dump_dir(out.path()), &expected, "materialised");
    // Holes stay holes on disk, seen by an outside tool.
    let blocks: u64 = sh(out.path(), r#"stat -c %b "$1/sparse""#)
        .trim()
        .parse()
        .unwrap();
    assert!(blocks < 100, "{blocks} blocks");
}

#[test]
fn whiteouts_and_opaque_directories_are_what_overlayfs_reads() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir -p low/gone low/opaque/old up work merged; : > low/file; : > low/gone/x"#,
    );
    let inode = |kind| Inode::new(ROOT, kind);
    let empty_dir = || inode(Kind::Dir);
    let diff = LayerDiff {
        entries: [
            (b"".to_vec(), LayerEntry::Put(empty_dir())),
            (b"file".to_vec(), LayerEntry::Whiteout),
            (b"gone".to_vec(), LayerEntry::Whiteout),
            (b"opaque".to_vec(), LayerEntry::PutOpaque(empty_dir())),
            (
                b"opaque/new".to_vec(),
                LayerEntry::Put(inode(Kind::File(Content::bytes(*b"n")))),
            ),
        ]
        .into(),
    };
    let up = dir.path().join("up");
    let report = materialise(&diff, &BlobTable::new(), File::open(&up).unwrap()).unwrap();
    assert_eq!(
        report,
        MaterialiseReport {
            entries: 5,
            devices_skipped: 0,
            xattrs_skipped: 0
        }
    );
    let seen = sh(
        dir.path(),
        r#"cd "$1"; unshare -m bash -euc 'mount -t overlay o -o userxattr,lowerdir=up:low merged; find merged | sort'"#,
    );
    assert_eq!(seen, "merged\nmerged/opaque\nmerged/opaque/new\n");
    let (back, _) = harvested(&up, &options());
    assert_eq!(
        back.entries
            .keys()
            .zip(back.entries.values().map(std::mem::discriminant))
            .collect::<Vec<_>>(),
        diff.entries
            .keys()
            .zip(diff.entries.values().map(std::mem::discriminant))
            .collect::<Vec<_>>()
    );
}

/// A name that is a link on the way must not lead out of the target.
#[test]
fn links_are_not_followed_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let (target, outside) = (dir.path().join("t"), dir.path().join("outside"));
    sh(
        dir.path(),
        r#"cd "$1"; mkdir t outside; ln -s ../outside t/d"#,
    );
    for entry in [
        LayerEntry::Put(Inode::new(ROOT, Kind::File(Content::bytes(*b"x")))),
        LayerEntry::Put(Inode::new(ROOT, Kind::Symlink(b"x".to_vec()))),
        LayerEntry::Put(Inode::new(ROOT, Kind::Fifo)),
        LayerEntry::Whiteout,
    ] {
        let diff = LayerDiff {
            entries: [(b"d/f".to_vec(), entry)].into(),
        };
        let error =
            materialise(&diff, &BlobTable::new(), File::open(&target).unwrap()).unwrap_err();
        assert_eq!(error.path, b"d/f");
    }
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_full_disk_names_the_file() {
    let disk = amiforge_testkit::SmallDisk::new(1 << 20);
    let content = |len: usize| Kind::File(Content::bytes(vec![7; len]));
    let diff = LayerDiff {
        entries: [
            (
                b"small".to_vec(),
                LayerEntry::Put(Inode::new(ROOT, content(10))),
            ),
            (
                b"too-large".to_vec(),
                LayerEntry::Put(Inode::new(ROOT, content(4 << 20))),
            ),
        ]
        .into(),
    };
    let error =
        materialise(&diff, &BlobTable::new(), File::open(disk.path()).unwrap()).unwrap_err();
    assert_eq!(
        (error.path.as_slice(), error.source.kind()),
        (&b"too-large"[..], std::io::ErrorKind::StorageFull)
    );
}

#[test]
fn the_umask_and_a_closed_parent_do_not_matter() {
    let stat = |mode| Stat {
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp { secs: -7, nanos: 9 },
    };
    let mut tree = Tree::new(stat(0o555));
    let dir = || Kind::Dir;
    tree.insert(b"closed", Inode::new(stat(0), dir())).unwrap();
    tree.insert(b"closed/in", Inode::new(stat(0o7777), dir()))
        .unwrap();
    tree.insert(
        b"closed/in/f",
        Inode::new(stat(0o6777), Kind::File(Content::bytes(*b"x"))),
    )
    .unwrap();
    let diff = LayerDiff::from_tree(&tree);
    let out = tempfile::tempdir().unwrap();
    // The umask belongs to the process, so this runs in one of its own.
    let blobs = BlobTable::new();
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let result = materialise(&diff, &blobs, File::open(out.path()).unwrap());
    rustix::process::umask(old);
    result.unwrap();
    assert_eq!(dump_dir(out.path()), dump_diff(&diff, &Arc::new(blobs)));
    assert_eq!(CLOCK.nanos, 0);
}
