//! Diff and apply, dump, content.

use std::io::Read;

use amiforge_types::{BlobTable, Digest, Timestamp};
use proptest::prelude::*;

use crate::testing::{apply_edits, blobs, dump, edits, tree_strategy};
use crate::{
    ApplyError, Content, DumpContent, Inode, Kind, LayerDiff, LayerEntry, Stat, Tree, TreeError,
};

const STAT: Stat = Stat {
    mode: 0o755,
    uid: 0,
    gid: 0,
    mtime: Timestamp { secs: 1, nanos: 0 },
};

fn dir() -> Inode {
    Inode::new(STAT, Kind::Dir)
}

fn file(text: &str) -> Inode {
    Inode::new(
        Stat {
            mode: 0o644,
            ..STAT
        },
        Kind::File(Content::bytes(text.as_bytes())),
    )
}

fn sample() -> Tree {
    let mut tree = Tree::new(STAT);
    tree.insert(b"etc", dir()).unwrap();
    tree.insert(b"etc/a", file("a")).unwrap();
    tree.insert(b"etc/b", file("b")).unwrap();
    tree.link(b"etc/c", b"etc/a").unwrap();
    tree.insert(b"bin", Inode::new(STAT, Kind::Symlink(b"usr/bin".to_vec())))
        .unwrap();
    tree
}

#[test]
fn dump_is_one_line_for_each_name() {
    let mut tree = sample();
    let mut odd = Inode::new(
        Stat {
            mode: 0o4711,
            uid: 5,
            gid: 6,
            mtime: Timestamp { secs: -2, nanos: 5 },
        },
        Kind::CharDev { major: 1, minor: 3 },
    );
    odd.xattrs.insert(b"user.x y".to_vec(), vec![0, 255]);
    tree.insert(b"etc/o\xffd\\ \n", odd).unwrap();
    let known = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
    assert_eq!(
        tree.dump(DumpContent::Digest(&BlobTable::new())).unwrap(),
        format!(
            "/ dir 0755 0 0 0 1.000000000\n\
             /bin symlink 0755 0 0 7 1.000000000 -> usr/bin\n\
             /etc dir 0755 0 0 0 1.000000000\n\
             /etc/a file 0644 0 0 1 1.000000000 sha256={known}\n\
             /etc/b file 0644 0 0 1 1.000000000 sha256={}\n\
             /etc/c hardlink -> /etc/a\n\
             /etc/o\\xffd\\\\\\x20\\x0a char 4711 5 6 0 -2.000000005 rdev=1:3 xattr user.x\\x20y=00ff\n",
            Digest::of(b"b"),
        )
    );
    assert!(!tree.dump(DumpContent::SizeOnly).unwrap().contains("sha256"));
}

#[test]
fn whiteouts_name_only_the_topmost() {
    let old = sample();
    let mut new = old.clone();
    new.remove(b"etc");
    let diff = LayerDiff::between(&old, &new);
    assert_eq!(
        diff.entries.into_iter().collect::<Vec<_>>(),
        [(b"etc".to_vec(), LayerEntry::Whiteout)]
    );
}

#[test]
fn a_layer_can_have_the_folders_of_what_it_changes() {
    let old = sample();
    let mut new = old.clone();
    let content = new.inode(new.lookup(b"etc/a").unwrap());
    new.insert(b"etc/new", content).unwrap();
    let diff = LayerDiff::between(&old, &new);
    let names = |diff: &LayerDiff| diff.entries.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&diff), [b"etc/new"]);
    let diff = diff.with_folders(&new);
    assert_eq!(names(&diff), [&b""[..], b"etc", b"etc/new"]);
    let etc = new.inode(new.lookup(b"etc").unwrap());
    assert_eq!(diff.entries[&b"etc"[..]], LayerEntry::Put(etc));
    let nothing = LayerDiff::default().with_folders(&new);
    assert_eq!(names(&nothing), [b""]);
}

#[test]
fn an_opaque_directory_loses_its_children() {
    let mut tree = sample();
    let mut diff = LayerDiff::default();
    diff.entries
        .insert(b"etc".to_vec(), LayerEntry::PutOpaque(dir()));
    diff.entries
        .insert(b"etc/new".to_vec(), LayerEntry::Put(file("n")));
    tree.apply(&diff).unwrap();
    assert_eq!(
        tree.children(tree.lookup(b"etc").unwrap()).unwrap().len(),
        1
    );
}

#[test]
fn only_what_hides_something_stays_opaque() {
    let lower = sample();
    let mut diff = LayerDiff::default();
    let mut put = |path: &[u8]| {
        diff.entries
            .insert(path.to_vec(), LayerEntry::PutOpaque(dir()))
    };
    put(b"etc"); // hides
    put(b"etc/a"); // in one that hides
    put(b"etc-new"); // not below `etc`, and new
    put(b"new"); // new
    put(b"new/sub");
    let mut tree = lower.clone();
    tree.apply(&diff).unwrap();
    assert!(diff.settle_opaque(&lower));
    let opaque: Vec<_> = diff
        .entries
        .iter()
        .filter(|(_, entry)| matches!(entry, LayerEntry::PutOpaque(_)))
        .map(|(path, _)| path.as_slice())
        .collect();
    assert_eq!(opaque, [b"etc"]);
    let mut again = lower.clone();
    again.apply(&diff).unwrap();
    assert!(LayerDiff::between(&tree, &again).entries.is_empty());
    assert!(!diff.settle_opaque(&lower));

    // Over what is no directory there is nothing to hide.
    let mut diff = LayerDiff::default();
    diff.entries
        .insert(b"etc/a".to_vec(), LayerEntry::PutOpaque(dir()));
    assert!(diff.settle_opaque(&lower));
    assert_eq!(diff.entries[&b"etc/a"[..]], LayerEntry::Put(dir()));
}

#[test]
fn a_replaced_file_does_not_change_its_other_names() {
    let mut tree = sample();
    let mut diff = LayerDiff::default();
    diff.entries
        .insert(b"etc/a".to_vec(), LayerEntry::Put(file("new")));
    tree.apply(&diff).unwrap();
    assert_ne!(tree.lookup(b"etc/a"), tree.lookup(b"etc/c"));
}

#[test]
fn a_link_that_was_split_is_a_change() {
    let old = sample();
    let mut new = old.clone();
    let copy = new.inode(new.lookup(b"etc/c").unwrap()).clone();
    new.insert(b"etc/c", copy).unwrap();
    let mut applied = old.clone();
    applied.apply(&LayerDiff::between(&old, &new)).unwrap();
    assert_eq!(dump(&applied, &blobs()), dump(&new, &blobs()));
    assert_ne!(dump(&old, &blobs()), dump(&new, &blobs()));
}

#[test]
fn layers_that_do_not_fit_name_the_entry() {
    let cases: [(&[u8], LayerEntry, TreeError); 4] = [
        (
            b"no/x",
            LayerEntry::Put(file("")),
            TreeError::NoParent(b"no/x".to_vec()),
        ),
        (
            b"etc/z",
            LayerEntry::Link(b"etc/a".to_vec()),
            TreeError::BadLink(b"etc/a".to_vec()),
        ),
        (
            b"",
            LayerEntry::Put(file("")),
            TreeError::NotADirectory(Vec::new()),
        ),
        (
            b"etc",
            LayerEntry::PutOpaque(file("")),
            TreeError::NotADirectory(b"etc".to_vec()),
        ),
    ];
    for (path, entry, source) in cases {
        let diff = LayerDiff {
            entries: [(path.to_vec(), entry)].into(),
        };
        assert_eq!(
            sample().apply(&diff),
            Err(ApplyError {
                path: path.to_vec(),
                source
            })
        );
    }
}

#[test]
fn content_that_is_too_large_is_not_read() {
    let content = Content {
        size: u64::MAX,
        extents: Vec::new(),
        digest: None,
    };
    assert!(content.read_to_vec(&BlobTable::new(), 1 << 20).is_err());
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_new_tree(old in tree_strategy(), changes in edits()) {
        let blobs = blobs();
        let mut new = old.clone();
        apply_edits(&mut new, &changes);
        let diff = LayerDiff::between(&old, &new);
        let mut applied = old.clone();
        applied.apply(&diff).unwrap();
        prop_assert_eq!(dump(&applied, &blobs), dump(&new, &blobs));
        // Applying twice changes nothing more.
        applied.apply(&diff).unwrap();
        prop_assert_eq!(dump(&applied, &blobs), dump(&new, &blobs));
        prop_assert_eq!(LayerDiff::between(&new, &new), LayerDiff::default());
    }

    #[test]
    fn a_tree_is_the_sum_of_its_layers(tree in tree_strategy(), changes in edits()) {
        let blobs = blobs();
        let mut new = tree.clone();
        apply_edits(&mut new, &changes);
        let layers = [LayerDiff::from_tree(&tree), LayerDiff::between(&tree, &new)];
        let sum = Tree::from_layers(STAT, &layers).unwrap();
        prop_assert_eq!(dump(&sum, &blobs), dump(&new, &blobs));
    }

    #[test]
    fn reader_and_digest_see_the_same_bytes(tree in tree_strategy(), step in 1..5000_usize) {
        let blobs = blobs();
        for (_, ino) in tree.walk() {
            let Kind::File(content) = &tree.inode(ino).kind else { continue };
            prop_assert!(content.is_well_formed());
            let mut bytes = Vec::new();
            let mut reader = content.reader(&blobs);
            let mut buf = vec![0xd1; step];
            loop {
                let n = reader.read(&mut buf).unwrap();
                if n == 0 { break; }
                bytes.extend_from_slice(&buf[..n]);
            }
            prop_assert_eq!(&bytes, &content.read_to_vec(&blobs, u64::MAX).unwrap());
            prop_assert_eq!(Digest::of(&bytes), content.sha256(&blobs).unwrap());
        }
    }
}

#[test]
fn what_a_layer_puts_is_of_it() {
    let mut diff = LayerDiff::default();
    let put = |diff: &mut LayerDiff, path: &[u8], inode| {
        diff.entries.insert(path.to_vec(), LayerEntry::Put(inode));
    };
    put(&mut diff, b"etc", dir());
    put(&mut diff, b"etc/a", file("new"));
    put(&mut diff, b"etc/d", file("d"));
    let mut tree = sample();
    tree.apply(&diff).unwrap();
    let layer = |path: &[u8]| tree.layer(tree.lookup(path).unwrap());
    let layers = [&b""[..], b"etc", b"etc/a", b"etc/b", b"etc/c", b"etc/d"].map(layer);
    assert_eq!(layers, [0, 0, 1, 0, 0, 1]);
}

#[test]
fn other_data_is_of_the_layer_that_brings_it() {
    let mut tree = sample();
    tree.next_layer();
    let [a, b] = [&b"etc/a"[..], b"etc/b"].map(|path| tree.lookup(path).unwrap());
    tree.update(a, |inode| inode.stat.mode = 0o600).unwrap();
    assert_eq!(tree.layer(a), 0);
    tree.update(b, |inode| inode.kind = file("b2").kind)
        .unwrap();
    assert_eq!(tree.layer(b), 1);
    tree.set_layer(b, 7).unwrap();
    assert_eq!(tree.layer(b), 7);
    assert_eq!(tree.inode(b), file("b2"));
}
