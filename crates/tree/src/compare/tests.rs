use std::collections::BTreeSet;

use amiforge_types::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::testing::{apply_edits, edits, tree_strategy};
use crate::{Content, InodeFlags, Stat};

fn stat(mode: u16) -> Stat {
    Stat {
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp::from_secs(1),
    }
}

/// `d/` with a file of two names, a link and a device.
fn tree() -> Tree {
    let mut tree = Tree::new(stat(0o755));
    let mut put = |path: &str, kind: Kind| {
        tree.insert(path.as_bytes(), Inode::new(stat(0o644), kind))
            .unwrap();
    };
    put("d", Kind::Dir);
    put("d/f", Kind::File(Content::bytes(*b"abc")));
    put("d/l", Kind::Symlink(b"f".to_vec()));
    put("d/n", Kind::CharDev { major: 1, minor: 3 });
    tree.link(b"d/g", b"d/f").unwrap();
    tree
}

/// What `edit` changes, one line a name.
fn changes(times: bool, edit: impl FnOnce(&mut Tree)) -> Vec<String> {
    let old = tree();
    let mut new = tree();
    edit(&mut new);
    compare(&old, &new, &BTreeSet::new(), times)
        .into_iter()
        .map(|change| {
            let path = String::from_utf8(change.path).unwrap();
            match change.fate {
                Fate::Added(_) => format!("+/{path}"),
                Fate::Removed(_) => format!("-/{path}"),
                Fate::Changed(_, _, aspects) => format!("~/{path} {aspects:?}"),
            }
        })
        .collect()
}

fn at(tree: &mut Tree, path: &str, change: impl FnOnce(&mut Inode)) {
    let ino = tree.lookup(path.as_bytes()).unwrap();
    tree.update(ino, change).unwrap();
}

#[test]
fn each_aspect_is_seen_alone() {
    assert_eq!(changes(true, |_| {}), [""; 0]);
    let mode = changes(false, |t| at(t, "d", |i| i.stat.mode = 0o700));
    assert_eq!(mode, ["~/d [Mode]"]);
    let root = changes(false, |t| at(t, "", |i| i.stat.gid = 7));
    assert_eq!(root, ["~/ [Owner]"]);
    let target = changes(false, |t| {
        at(t, "d/l", |i| i.kind = Kind::Symlink(b"g".to_vec()))
    });
    assert_eq!(target, ["~/d/l [Target]"]);
    let device = changes(false, |t| {
        at(t, "d/n", |i| i.kind = Kind::CharDev { major: 1, minor: 5 })
    });
    assert_eq!(device, ["~/d/n [Device]"]);
    let kind = changes(false, |t| {
        at(t, "d/n", |i| i.kind = Kind::BlockDev { major: 1, minor: 3 })
    });
    assert_eq!(kind, ["~/d/n [Type]"]);
    let xattr = changes(false, |t| {
        at(t, "d/l", |i| {
            i.xattrs.insert(b"user.a".to_vec(), b"1".to_vec());
        });
    });
    assert_eq!(xattr, ["~/d/l [Xattrs]"]);
    let flags = changes(false, |t| at(t, "d/l", |i| i.flags = InodeFlags::IMMUTABLE));
    assert_eq!(flags, ["~/d/l [Flags]"]);
    let time = |t: &mut Tree| {
        at(t, "d/l", |i| i.stat.mtime = Timestamp::from_secs(2));
    };
    assert_eq!(changes(false, time), [""; 0]);
    assert_eq!(changes(true, time), ["~/d/l [Time]"]);
    // One inode: both its names changed.
    let content = changes(false, |t| {
        at(t, "d/f", |i| i.kind = Kind::File(Content::bytes(*b"abd")));
    });
    assert_eq!(content, ["~/d/f [Content]", "~/d/g [Content]"]);
}

#[test]
fn names_of_an_inode_are_a_part_of_it() {
    let apart = changes(false, |t| {
        let inode = t.inode(t.lookup(b"d/f").unwrap());
        t.insert(b"d/g", inode).unwrap();
    });
    assert_eq!(apart, ["~/d/f [Links]", "~/d/g [Links]"]);
    let more = changes(false, |t| {
        t.link(b"h", b"d/f").unwrap();
    });
    assert_eq!(more, ["~/d/f [Links]", "~/d/g [Links]", "+/h"]);
    // Names swapped between groups of the same size.
    let moved = changes(false, |t| {
        t.link(b"d/l2", b"d/f").unwrap();
        assert!(t.remove(b"d/g"));
    });
    assert_eq!(moved, ["~/d/f [Links]", "-/d/g", "+/d/l2"]);
}

#[test]
fn what_comes_or_goes_comes_or_goes_whole() {
    let gone = changes(false, |t| assert!(t.remove(b"d")));
    assert_eq!(gone, ["-/d", "-/d/f", "-/d/g", "-/d/l", "-/d/n"]);
    let other = changes(false, |t| {
        t.insert(b"d", Inode::new(stat(0o644), Kind::Fifo)).unwrap();
    });
    assert_eq!(other, ["~/d [Type]", "-/d/f", "-/d/g", "-/d/l", "-/d/n"]);
}

#[test]
fn only_files_that_may_be_equal_are_looked_at() {
    let file = |size: u64, digest: bool| {
        let mut content = Content::bytes(vec![b'x'; usize::try_from(size).unwrap()]);
        if !digest {
            content.digest = None;
        }
        Kind::File(content)
    };
    let make = |digest: bool, sizes: [u64; 3]| {
        let mut tree = Tree::new(stat(0o755));
        for (name, size) in ["a", "b", "c"].iter().zip(sizes) {
            let inode = Inode::new(stat(0o644), file(size, digest));
            tree.insert(name.as_bytes(), inode).unwrap();
        }
        tree.link(b"z", b"a").unwrap();
        tree
    };
    let (old, new) = (make(false, [3, 0, 5]), make(true, [3, 0, 6]));
    let pairs = content_pairs(&old, &new);
    // `a` and `z` are one pair, the empty file and the one of another size are none.
    assert_eq!(pairs.len(), 1);
    assert!(content_pairs(&new, &new).is_empty());
    let (a, b) = (&old, &new);
    assert_eq!(compare(a, b, &BTreeSet::new(), false).len(), 1);
    assert_eq!(compare(a, b, &pairs.into_iter().collect(), false).len(), 3);
}

proptest! {
    #[test]
    fn a_tree_is_equal_to_itself_and_edits_are_seen(
        tree in tree_strategy(),
        edits in edits(),
    ) {
        let side = &tree;
        prop_assert_eq!(compare(side, side, &BTreeSet::new(), true), vec![]);
        let mut edited = tree.clone();
        apply_edits(&mut edited, &edits);
        let new = &edited;
        let forth = compare(side, new, &BTreeSet::new(), true);
        let back = compare(new, side, &BTreeSet::new(), true);
        prop_assert_eq!(forth.len(), back.len());
        for (f, b) in forth.iter().zip(&back) {
            prop_assert_eq!(&f.path, &b.path);
            prop_assert_eq!(f.fate.clone(), match b.fate.clone() {
                Fate::Added(x) => Fate::Removed(x),
                Fate::Removed(x) => Fate::Added(x),
                Fate::Changed(x, y, a) => Fate::Changed(y, x, a),
            });
        }
        // What is not named is the same in both.
        let named: BTreeSet<_> = forth.iter().map(|c| c.path.clone()).collect();
        for (path, ino) in tree.walk() {
            if !named.contains(&path) {
                let other = edited.lookup(&path).unwrap();
                prop_assert_eq!(tree.inode(ino).stat, edited.inode(other).stat);
                prop_assert_eq!(&tree.inode(ino).xattrs, &edited.inode(other).xattrs);
            }
        }
    }
}
