//! Where a later layer goes, and that what lies below it stays where it is.

use amiforge_fs::ext4::{self, Size};
use amiforge_tree::{Content, Kind, Tree};
use amiforge_types::{BlobTable, MIB};

use crate::{corpus, image, reader, tool};

/// Names in the first layer: files of different lengths in two folders.
fn lower() -> (Tree, Vec<String>) {
    let mut tree = corpus::tree();
    let mut files = Vec::new();
    for dir in ["bin", "usr"] {
        tree.insert(dir.as_bytes(), corpus::dir()).unwrap();
        for number in 0..40 {
            let path = format!("{dir}/file-{number:02}");
            let bytes = corpus::noise(3000 * (number as usize + 1), number);
            tree.insert(path.as_bytes(), corpus::file(&bytes)).unwrap();
            files.push(path);
        }
    }
    (tree, files)
}

/// The first layer with a second one over it: a folder, names among the others, a file replaced by one of
/// `len` bytes, and one that is changed in place.
fn with_upper(names: u32, len: usize) -> (Tree, Vec<String>) {
    let (mut tree, mut files) = lower();
    tree.next_layer();
    tree.insert(b"bin/another", corpus::dir()).unwrap();
    for number in 0..names {
        let path = format!("bin/a-name-of-the-second-layer-{number:04}");
        tree.insert(path.as_bytes(), corpus::file(b"second"))
            .unwrap();
    }
    let data = corpus::noise(len, 77);
    tree.insert(b"bin/file-07", corpus::file(&data)).unwrap();
    let changed = tree.lookup(b"usr/file-09").unwrap();
    tree.update(changed, |inode| {
        inode.kind = Kind::File(Content::bytes(data.clone()));
    })
    .unwrap();
    files.retain(|path| path != "bin/file-07" && path != "usr/file-09");
    (tree, files)
}

/// What debugfs says of files: number and blocks.
fn places(image: &std::path::Path, files: &[String]) -> Vec<(String, String)> {
    files
        .iter()
        .map(|path| {
            let stat = tool::debugfs(image, &format!("stat /{path}"));
            let number = stat.split_whitespace().nth(1).unwrap().to_owned();
            (number, tool::debugfs(image, &format!("blocks /{path}")))
        })
        .collect()
}

#[test]
fn what_lies_below_stays_in_its_place() {
    let options = corpus::options(Size::Volume(64 * MIB));
    let mut seen = Vec::new();
    // One block of names more or less, data more or less.
    for (names, len) in [(3, 10_000), (700, 2_000_000)] {
        let (tree, files) = with_upper(names, len);
        let plan = ext4::plan(&tree, &options).unwrap();
        let made = image::write(&plan.extents, &BlobTable::new());
        tool::e2fsck(&made.path);
        reader::same_again(&tree, &BlobTable::new(), &options, &plan, &made.path);
        seen.push(places(&made.path, &files));
        // The new ones come after all others, wherever they are in the order of paths.
        let numbers: Vec<u32> = places(&made.path, &["bin/file-07".into(), "usr/file-09".into()])
            .iter()
            .map(|(number, _)| number.parse().unwrap())
            .collect();
        // Root, lost+found and two folders, and the first ten numbers are nobody's.
        let lower = 10 + 3 + u32::try_from(files.len()).unwrap();
        assert!(numbers.iter().all(|n| *n > lower), "{numbers:?}");
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn one_layer_is_in_the_order_of_paths_whatever_came_first() {
    let options = corpus::options(Size::Volume(64 * MIB));
    let (tree, files) = lower();
    let mut backwards = corpus::tree();
    for dir in ["usr", "bin"] {
        backwards.insert(dir.as_bytes(), corpus::dir()).unwrap();
    }
    for path in files.iter().rev() {
        let inode = tree.inode(tree.lookup(path.as_bytes()).unwrap());
        backwards.insert(path.as_bytes(), inode).unwrap();
    }
    let blocks = |tree: &Tree| {
        let plan = ext4::plan(tree, &options).unwrap();
        image::blocks(&plan.extents, &BlobTable::new())
    };
    assert!(blocks(&tree) == blocks(&backwards));
}

#[test]
fn a_file_system_that_grew_in_use_is_one_layer() {
    // Every name before the last one: more steps back than there can be layers.
    let mut tree = corpus::tree();
    for number in (0..600_u32).rev() {
        tree.next_layer();
        let path = format!("{number:04}");
        tree.insert(path.as_bytes(), corpus::file(b"x")).unwrap();
    }
    let plan = ext4::plan(&tree, &corpus::options(Size::Volume(32 * MIB))).unwrap();
    let made = image::write(&plan.extents, &BlobTable::new());
    let (found, _) = reader::import(&made.path);
    let layers: Vec<u16> = found
        .tree
        .walk()
        .iter()
        .map(|(_, ino)| found.tree.layer(*ino))
        .collect();
    assert!(layers.iter().all(|layer| *layer == 0));
}

#[test]
fn a_file_called_lost_and_found_is_in_its_layer() {
    let options = corpus::options(Size::Volume(32 * MIB));
    let mut tree = corpus::tree();
    for name in ["a", "z"] {
        tree.insert(name.as_bytes(), corpus::file(b"x")).unwrap();
    }
    tree.next_layer();
    tree.insert(b"lost+found", corpus::file(b"y")).unwrap();
    let plan = ext4::plan(&tree, &options).unwrap();
    let made = image::write(&plan.extents, &BlobTable::new());
    reader::same_again(&tree, &BlobTable::new(), &options, &plan, &made.path);
}
