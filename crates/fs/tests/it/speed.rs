//! Planning must stay linear and cheap. The limits are wide: they catch a wrong exponent, not a slow day.

use std::time::Instant;

use amiforge_fs::ext4::{self, Size};
use amiforge_tree::{Content, Inode, Kind, Tree};
use amiforge_types::{BlobTable, GIB};
use std::sync::Arc;

use crate::corpus;

/// A tree like that of a distribution: so many files, twenty in a directory.
fn many(files: u32) -> Tree {
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(Vec::new()));
    let mut tree = corpus::tree();
    for i in 0..files {
        let (a, b) = (i / 4000, i / 20);
        if i % 4000 == 0 {
            tree.insert(format!("{a}").as_bytes(), corpus::dir())
                .unwrap();
        }
        if i % 20 == 0 {
            tree.insert(format!("{a}/{b}").as_bytes(), corpus::dir())
                .unwrap();
        }
        let content = Content::blob(id, u64::from(i) * 8192, 5000);
        let inode = Inode::new(corpus::stat(0o644), Kind::File(content));
        tree.insert(format!("{a}/{b}/some-file-{i}").as_bytes(), inode)
            .unwrap();
    }
    tree
}

fn millis(tree: &Tree, size: u64) -> u128 {
    let start = Instant::now();
    let plan = ext4::plan(tree, &corpus::options(Size::Volume(size))).unwrap();
    let spent = start.elapsed().as_millis();
    assert!(plan.free_blocks > 0);
    println!(
        "{} inodes of {} GiB: {spent} ms, {} extents",
        plan.inodes - plan.free_inodes,
        size / GIB,
        plan.extents.list().len()
    );
    spent
}

#[test]
fn planning_is_linear() {
    let small = millis(&many(12_000), 2 * GIB);
    let large = millis(&many(200_000), 8 * GIB);
    let empty = millis(&many(1000), 1 << 40);
    assert!(
        small < 500 && large < 5000 && empty < 2000,
        "{small} {large} {empty}"
    );
}
