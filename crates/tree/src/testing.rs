//! Random trees for property tests.

use std::sync::Arc;

use amiforge_types::{BlobTable, Timestamp};
use proptest::prelude::*;

use crate::{Content, DataExtent, DataSource, DumpContent, Inode, InodeFlags, Kind, Stat, Tree};

/// The bytes that blob extents of random trees point into.
pub(crate) fn blob_bytes() -> Vec<u8> {
    (0..20_000_u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// A table whose first blob is [`blob_bytes`].
pub(crate) fn blobs() -> BlobTable {
    let mut blobs = BlobTable::new();
    blobs.add(Arc::new(blob_bytes()));
    blobs
}

pub(crate) fn dump(tree: &Tree, blobs: &BlobTable) -> String {
    tree.dump(DumpContent::Digest(blobs)).unwrap()
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "a-b", "a.b", "z", "dir", "x y"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>().prop_filter("no slash or zero", |b| *b != b'/' && *b != 0), 1..8)
            .prop_filter("a name", |n| n.as_slice() != b"." && n.as_slice() != b".."),
        1 => Just(vec![b'n'; 255]),
    ]
}

fn path() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(name(), 1..5)
}

fn stat() -> impl Strategy<Value = Stat> {
    let id = prop_oneof![0..3_u32, Just(100_000), Just(u32::MAX - 1), any::<u32>()];
    let secs = prop_oneof![
        0..2_000_000_000_i64,
        Just(-1),
        Just(-2_000_000_000),
        Just(1_i64 << 40)
    ];
    let nanos = prop_oneof![Just(0), Just(500_000_000), 0..1_000_000_000_u32];
    (0..0o10000_u16, id.clone(), id, secs, nanos).prop_map(|(mode, uid, gid, secs, nanos)| Stat {
        mode,
        uid,
        gid,
        mtime: Timestamp { secs, nanos },
    })
}

fn content() -> impl Strategy<Value = Content> {
    let id = blobs_id();
    let run = (0..3_u64, 1..9_000_u64, 0..60_000_u64);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Content::bytes),
        (prop::collection::vec(run, 0..4), 0..3_u64).prop_map(move |(runs, tail)| {
            let mut at = 0;
            let mut extents = Vec::new();
            for (hole, len, offset) in runs {
                at += hole * 4096;
                extents.push(DataExtent {
                    offset: at,
                    len,
                    source: DataSource::Blob { id, offset },
                });
                at += len;
            }
            Content {
                size: at + tail * 5000,
                extents,
                digest: None,
            }
        }),
    ]
}

fn blobs_id() -> amiforge_types::BlobId {
    BlobTable::new().add(Arc::new(Vec::new()))
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::Dir),
        4 => content().prop_map(Kind::File),
        1 => prop::collection::vec(1..=255_u8, 1..150).prop_map(Kind::Symlink),
        1 => (0..4096_u32, 0..0x10_0000_u32).prop_map(|(major, minor)| Kind::CharDev { major, minor }),
        1 => (0..4096_u32, 0..256_u32).prop_map(|(major, minor)| Kind::BlockDev { major, minor }),
        1 => Just(Kind::Fifo),
    ]
}

fn inode() -> impl Strategy<Value = Inode> {
    let xattr = (
        prop::sample::select(vec![
            "user.a",
            "user.b=c%3D",
            "security.capability",
            "system.posix_acl_access",
        ]),
        prop::collection::vec(any::<u8>(), 0..40),
    );
    let flags = prop_oneof![
        3 => Just(InodeFlags::NONE),
        1 => any::<u32>().prop_map(InodeFlags::from_bits_truncate),
    ];
    let xattrs = prop::collection::vec(xattr, 0..3);
    (stat(), kind(), xattrs, flags).prop_map(|(stat, kind, xattrs, flags)| Inode {
        stat,
        kind,
        xattrs: xattrs
            .into_iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value))
            .collect(),
        flags,
    })
}

/// What is done to a tree: put an inode, add a name, take one away.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Put(Vec<Vec<u8>>, Inode),
    Link(Vec<Vec<u8>>, prop::sample::Index),
    Remove(prop::sample::Index),
}

pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        6 => (path(), inode()).prop_map(|(path, inode)| Edit::Put(path, inode)),
        2 => (path(), any::<prop::sample::Index>()).prop_map(|(path, to)| Edit::Link(path, to)),
        1 => any::<prop::sample::Index>().prop_map(Edit::Remove),
    ];
    prop::collection::vec(edit, 0..30)
}

pub(crate) fn apply_edits(tree: &mut Tree, edits: &[Edit]) {
    let default = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::from_secs(7),
    };
    let make_parents = |tree: &mut Tree, path: &[Vec<u8>]| {
        for end in 1..path.len() {
            let dir = path[..end].join(&b'/');
            if tree
                .lookup(&dir)
                .and_then(|ino| tree.children(ino))
                .is_none()
            {
                tree.insert(&dir, Inode::new(default, Kind::Dir)).unwrap();
            }
        }
    };
    for edit in edits {
        match edit {
            Edit::Put(path, inode) => {
                make_parents(tree, path);
                tree.insert(&path.join(&b'/'), inode.clone()).unwrap();
            }
            Edit::Link(path, to) => {
                let files: Vec<_> = tree
                    .walk()
                    .into_iter()
                    .filter(|(_, ino)| tree.children(*ino).is_none())
                    .collect();
                if files.is_empty() {
                    continue;
                }
                let target = to.get(&files).0.clone();
                make_parents(tree, path);
                // Making the parents may have replaced the target.
                if tree
                    .lookup(&target)
                    .is_some_and(|ino| tree.children(ino).is_none())
                {
                    tree.link(&path.join(&b'/'), &target).unwrap();
                }
            }
            Edit::Remove(which) => {
                let paths = tree.walk();
                let path = &which.get(&paths).0;
                if !path.is_empty() {
                    assert!(tree.remove(path));
                }
            }
        }
    }
}

pub(crate) fn tree_strategy() -> impl Strategy<Value = Tree> {
    (stat(), edits()).prop_map(|(root, edits)| {
        let mut tree = Tree::new(root);
        apply_edits(&mut tree, &edits);
        tree
    })
}
