//! The limits: sizes at which something that is fine in small goes wrong. All on sparse files.

use std::sync::Arc;

use amiforge_fs::ext4::{self, Ext4Error, Inodes, Options, Profile, Size};
use amiforge_tree::{Content, DataExtent, DataSource, Inode, Kind, Tree};
use amiforge_types::{BlobTable, GIB};

use crate::corpus::{self, options};
use crate::tool::{self, debugfs};
use crate::{differential, image};

const TIB: u64 = 1 << 40;

fn planned(tree: &Tree, size: u64) -> ext4::Plan {
    ext4::plan(tree, &options(Size::Volume(size))).unwrap()
}

/// A directory of so many names for few inodes, which are cheap.
fn many_names(names: u32) -> Tree {
    let mut tree = corpus::tree();
    for (dir, inode) in [("d", corpus::dir()), ("f", corpus::dir())] {
        tree.insert(dir.as_bytes(), inode).unwrap();
    }
    for i in 0..names.div_ceil(50_000) {
        tree.insert(format!("f/{i}").as_bytes(), corpus::file(b"x"))
            .unwrap();
    }
    for i in 0..names {
        let target = format!("f/{}", i / 50_000);
        tree.link(format!("d/name-{i:08}").as_bytes(), target.as_bytes())
            .unwrap();
    }
    tree
}

#[test]
fn scale_a_folder_of_a_million_names() {
    let tree = many_names(1_000_000);
    let image = image::write(&planned(&tree, GIB).extents, &BlobTable::new());
    tool::e2fsck(&image.path);
    let stat = debugfs(&image.path, "stat /d");
    assert!(stat.contains("Flags: 0x81000"), "{stat}");
    let dump = debugfs(&image.path, "htree_dump /d");
    assert!(dump.contains("Indirect levels: 1"), "{}", &dump[..400]);
    // Every name is once in the dump, behind its hash.
    assert_eq!(dump.matches("name-").count(), 1_000_000);
    for i in [0, 1, 77_777, 500_000, 999_999] {
        let name = format!("name-{i:08}");
        let request = format!("dx_hash -h half_md4 -s deadbeef-0102-4304-8506-0708090a0b0c {name}");
        let shown = debugfs(&image.path, &request);
        let hash = shown
            .split_whitespace()
            .find(|w| w.starts_with("0x"))
            .unwrap();
        let at = dump.find(&name).unwrap();
        let entry = dump[..at].rfind(hash.trim_start_matches("0x"));
        assert!(
            entry.is_some_and(|e| at - e < 60),
            "{name}: {hash} is not beside it"
        );
    }
    differential::with_mkext4(&tree, &BlobTable::new(), &image.path);
}

#[test]
fn scale_two_million_inodes() {
    let mut tree = corpus::tree();
    for dir in 0..2000 {
        tree.insert(format!("{dir:04}").as_bytes(), corpus::dir())
            .unwrap();
        for file in 0..1000 {
            let inode = Inode::new(corpus::stat(0o644), Kind::File(Content::default()));
            tree.insert(format!("{dir:04}/{file:03}").as_bytes(), inode)
                .unwrap();
        }
    }
    let plan = planned(&tree, 40 * GIB);
    assert_eq!(plan.inodes - plan.free_inodes, 2_002_000 + 11);
    let image = image::write(&plan.extents, &BlobTable::new());
    drop((tree, plan));
    tool::e2fsck(&image.path);
    let last = debugfs(&image.path, "stat /1999/999");
    assert!(last.starts_with("Inode: 2002011 "), "{last}");
}

#[test]
fn scale_a_volume_of_16_tib() {
    let (tree, blobs) = corpus::everything();
    let plan = planned(&tree, 16 * TIB);
    assert_eq!(plan.extents.size(), 16 * TIB);
    assert!(plan.size > 16 * TIB - (256 << 20), "{}", plan.size);
    // Descriptors and their copies, one bitmap for each 16 groups: nothing else is written.
    assert!(
        plan.extents.data_len() < 400 << 20,
        "{}",
        plan.extents.data_len()
    );
    assert!(
        plan.extents.list().len() < 20_000,
        "{}",
        plan.extents.list().len()
    );
    let small = planned(&tree, 100 * GIB);
    assert!(
        small.extents.data_len() < 20 << 20,
        "{}",
        small.extents.data_len()
    );
    let image = image::write(&plan.extents, &blobs);
    tool::e2fsck(&image.path);
    assert!(matches!(
        ext4::plan(&tree, &options(Size::Volume(16 * TIB + 4096))),
        Err(Ext4Error::TooLarge(_))
    ));
}

#[test]
fn scale_files_over_4_gib_and_of_100000_pieces() {
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(corpus::noise(1 << 20, 9)));
    let run = |offset, len| DataExtent {
        offset,
        len,
        source: DataSource::Blob { id, offset: 0 },
    };
    let mut tree = corpus::tree();
    let mut put = |name: &str, content| {
        let inode = Inode::new(corpus::stat(0o644), Kind::File(content));
        tree.insert(name.as_bytes(), inode).unwrap();
    };
    let largest = 16 * TIB - 4096;
    put(
        "largest",
        Content {
            size: largest,
            extents: vec![run(largest - 5, 5)],
            digest: None,
        },
    );
    let (size, extents) = (
        6 * GIB,
        vec![run(0, 1), run(4 * GIB - 1, 2), run(6 * GIB - 9, 9)],
    );
    put(
        "six",
        Content {
            size,
            extents,
            digest: None,
        },
    );
    let pieces = (0..100_000).map(|i| run(i * 8192, 1 + i % 4096)).collect();
    put(
        "pieces",
        Content {
            size: 100_000 * 8192 + 5,
            extents: pieces,
            digest: None,
        },
    );
    for profile in [Profile::Standard, Profile::Legacy] {
        let options = Options {
            profile,
            ..options(Size::Volume(2 * GIB))
        };
        let plan = ext4::plan(&tree, &options).unwrap();
        let image = image::write(&plan.extents, &blobs);
        tool::e2fsck(&image.path);
        differential::with_mkext4(&tree, &blobs, &image.path);
        let stat = debugfs(&image.path, "stat /largest");
        assert!(stat.contains(&format!("Size: {largest}")), "{stat}");
        let dump = debugfs(&image.path, "dump_extents /pieces");
        assert!(
            dump.lines().any(|l| l.trim_start().starts_with("2/ 2")),
            "{}",
            &dump[..800]
        );
        assert_eq!(
            dump.lines()
                .filter(|l| l.trim_start().starts_with("2/ 2"))
                .count(),
            100_000
        );
        let out = image.folder.path().join("out");
        debugfs(&image.path, &format!("dump /pieces {}", out.display()));
        let Kind::File(content) = &tree.inode(tree.lookup(b"pieces").unwrap()).kind else {
            panic!("no file")
        };
        assert!(std::fs::read(&out).unwrap() == crate::compare::content(content, &blobs));
    }
}

#[test]
fn scale_more_than_65000_names_of_a_file_are_refused() {
    let mut tree = corpus::tree();
    tree.insert(b"a", corpus::dir()).unwrap();
    tree.insert(b"a/f", corpus::file(b"x")).unwrap();
    for i in 1..65_000 {
        tree.link(format!("a/{i}").as_bytes(), b"a/f").unwrap();
    }
    let blobs = BlobTable::new();
    let inodes = Inodes::Content;
    let options = Options {
        inodes,
        ..options(Size::Volume(64 << 20))
    };
    let image = image::write(&ext4::plan(&tree, &options).unwrap().extents, &blobs);
    tool::e2fsck(&image.path);
    assert!(debugfs(&image.path, "stat /a/f").contains("Links: 65000"));
    tree.link(b"one-more", b"a/f").unwrap();
    assert_eq!(
        ext4::plan(&tree, &options).unwrap_err(),
        Ext4Error::TooManyLinks {
            path: b"/a/1".to_vec(),
            links: 65_001
        }
    );
}
