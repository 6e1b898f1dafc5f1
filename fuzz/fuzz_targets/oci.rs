//! Invariant: references and documents of images are read or refused; archives of changes leave a tree that can be
//! written, and hide nothing that they bring.
#![no_main]

use std::sync::Arc;

use amiforge_tree::tar::{self, Limits, ReadOptions};
use amiforge_tree::{Stat, Tree};
use amiforge_types::{BlobTable, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        amiforge_source::fuzzing::oci(text);
    }
    let options = ReadOptions {
        build_clock: Timestamp::from_secs(1),
        limits: Limits::DEFAULT,
    };
    let stat = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::from_secs(1),
    };
    let (mut spool, mut spooled) = (Vec::new(), 0);
    let mut tree = Tree::new(stat);
    // Two layers of one text: the second over the first.
    let (lower, upper) = data.split_at((data.len() / 1024) * 512);
    for mut archive in [lower, upper] {
        match tar::read_changes(tree, &mut archive, &mut spool, spooled, &options) {
            Ok(changed) => {
                tree = changed.tree;
                spooled = changed.spool_bytes;
            }
            Err(_) => return,
        }
    }
    let mut blobs = BlobTable::new();
    tree.assign_blob(blobs.add(Arc::new(spool)));
    let diff = amiforge_tree::LayerDiff::from_tree(&tree);
    Tree::from_layers(stat, [&diff]).expect("what was read is a layer");
});
