//! The trees that builds leave in their stores.

use std::path::Path;

use amiforge_store::{Home, Store};
use amiforge_tree::{DumpContent, Stat, Tree, dump_entries};
use amiforge_types::{BlobTable, Timestamp};
use serde_json::Value;

/// The layers of a build over one another, lowest first: the lowest alone, the lowest two, …
pub(crate) fn stacks(state: &Path, out: &Path) -> (Vec<(String, Tree)>, BlobTable) {
    let plan: Value =
        serde_json::from_slice(&fs_err::read(out.join("plan.json")).unwrap()).unwrap();
    let store = Store::open(&Home::below(state)).unwrap();
    let mut blobs = BlobTable::new();
    let root = Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
    };
    let mut diffs = Vec::new();
    let mut stacks = Vec::new();
    for layer in plan["layers"].as_array().unwrap() {
        let id = serde_json::from_value(layer["id"].clone()).unwrap();
        let stored = store
            .layer(id, &mut blobs)
            .unwrap()
            .unwrap_or_else(|| panic!("the store has no layer {id}"));
        diffs.push(stored.diff);
        let tree = Tree::from_layers(root, diffs.iter().map(|d| &**d)).unwrap();
        stacks.push((layer["title"].as_str().unwrap().to_owned(), tree));
    }
    (stacks, blobs)
}

/// Panics with the first file in which two builds differ, in the lowest layer that has one.
#[track_caller]
pub(crate) fn assert_same_files(a: (&Path, &Path), b: (&Path, &Path)) {
    let (stacks_a, blobs_a) = stacks(a.0, a.1);
    let (stacks_b, blobs_b) = stacks(b.0, b.1);
    for ((title, tree_a), (_, tree_b)) in stacks_a.iter().zip(&stacks_b) {
        let lines_a = dump_entries(tree_a, DumpContent::Digest(&blobs_a)).unwrap();
        let lines_b = dump_entries(tree_b, DumpContent::Digest(&blobs_b)).unwrap();
        let differing: Vec<String> = lines_a
            .iter()
            .zip(&lines_b)
            .filter(|(a, b)| a != b)
            .take(10)
            .map(|(a, b)| format!("- {a}\n+ {b}"))
            .collect();
        assert!(
            differing.is_empty(),
            "after the layer \"{title}\" these files differ first:\n{}",
            differing.join("\n")
        );
        assert_eq!(
            lines_a.len(),
            lines_b.len(),
            "names after the layer \"{title}\""
        );
    }
    assert_eq!(stacks_a.len(), stacks_b.len(), "layers");
}
