//! Units that need no outside tool.

use std::collections::HashMap;
use std::sync::Arc;

use amiforge_tree::{Content, Inode, Kind, Stat, Tree};
use amiforge_types::{Timestamp, Uuid};

use super::fs::Fs;
use super::hash::{self, Version};
use super::{bytes, dir, walk};
use crate::ext4::hash::HashSeed;
use crate::ext4::{self, Options, Size};

const SEED: &str = "deadbeef-0102-4304-8506-0708090a0b0c";

#[test]
fn hashes_agree_with_the_writers() {
    let seed = HashSeed::new(&SEED.parse().unwrap());
    for name in [
        &b"a"[..],
        b"lost+found",
        "caf\u{e9}".as_bytes(),
        &[0xFF; 200],
    ] {
        let own = hash::major(Version::HalfMd4, false, seed, name);
        assert_eq!(own, seed.hash(name).major);
        let unsigned = hash::major(Version::HalfMd4, true, seed, name);
        assert_eq!(own == unsigned, name.is_ascii());
    }
}

/// A file system with these names in one directory `d`.
fn with_names(names: &[Vec<u8>]) -> Fs {
    let stat = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::from_secs(1),
    };
    let mut tree = Tree::new(stat);
    tree.insert(b"d", Inode::new(stat, Kind::Dir)).unwrap();
    let file = Inode::new(stat, Kind::File(Content::bytes(b"".as_slice())));
    for name in names {
        tree.insert(&[b"d/", &name[..]].concat(), file.clone())
            .unwrap();
    }
    let size = Size::Volume(32 << 20);
    let seed: Uuid = SEED.parse().unwrap();
    let plan = ext4::plan(&tree, &Options::new(size, seed, seed, stat.mtime)).unwrap();
    let mut image = vec![0; 32 << 20];
    for extent in plan.extents.list() {
        let range = bytes::index(extent.offset)..bytes::index(extent.end());
        let blobs = amiforge_types::BlobTable::new();
        extent.read_exact(&blobs, &mut image[range], 0).unwrap();
    }
    Fs::open(Arc::new(image), 0, 32 << 20).unwrap()
}

#[test]
fn names_with_one_hash_in_two_leaves_are_found() {
    // Among so many names some have equal hashes; enough others move them over the edge of a leaf.
    let seed = HashSeed::new(&SEED.parse().unwrap());
    let name = |i: u32| format!("{i:0>120}").into_bytes();
    let mut by_hash: HashMap<u32, u32> = HashMap::new();
    let mut names: Vec<Vec<u8>> = Vec::new();
    for i in 0..200_000 {
        if let Some(other) = by_hash.insert(seed.hash(&name(i)).major, i) {
            names.extend([name(i), name(other)]);
        }
    }
    assert!(!names.is_empty());
    for more in 0..400 {
        names.push(format!("{more:x>120}").into_bytes());
        let fs = with_names(&names);
        let at = walk::walk(&fs, b"d", false).unwrap().inode;
        for name in &names {
            let found = dir::lookup(&fs, &at, name).unwrap();
            assert!(found.is_some(), "{}", String::from_utf8_lossy(name));
        }
        if !at.has_index() {
            continue;
        }
        let (_, root) = dir::block(&fs, &at, 0).unwrap();
        let count = bytes::le16(&root, 0x22).into();
        if (1..count).any(|slot| dir::pair(&root, 0x20, slot).0 & 1 == 1) {
            return;
        }
    }
    panic!("no leaf goes on with the hash of the one before");
}
