//! Layers of OCI images over each other (image-spec 1.1, layer.md).

use super::*;
use crate::tar::{Changed, read_changes};

fn dir(name: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'5').seal()
}

fn hard(name: &str, to: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'1').link(to.as_bytes()).seal()
}

fn symlink(name: &str, to: &str) -> Vec<u8> {
    Block::new(name.as_bytes(), b'2').link(to.as_bytes()).seal()
}

/// Applies archives in order.
fn layers(archives: &[Vec<u8>]) -> Result<(Tree, BlobTable), TarError> {
    let stat = crate::Stat {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: OPTIONS.build_clock,
    };
    let (mut tree, mut spool, mut spooled) = (Tree::new(stat), Vec::new(), 0);
    for bytes in archives {
        let changed = read_changes(tree, &mut bytes.as_slice(), &mut spool, spooled, &OPTIONS)?;
        Changed {
            tree,
            spool_bytes: spooled,
            ..
        } = changed;
        assert_eq!(spooled, spool.len() as u64);
    }
    let mut blobs = BlobTable::new();
    tree.assign_blob(blobs.add(Arc::new(spool)));
    Ok((tree, blobs))
}

/// The names that two layers leave, with the text of files.
#[track_caller]
fn left(lower: &[Vec<u8>], upper: &[Vec<u8>]) -> String {
    let (tree, blobs) = layers(&[archive(lower), archive(upper)]).unwrap();
    let mut out = Vec::new();
    for (path, ino) in tree.walk().into_iter().skip(1) {
        let name = String::from_utf8(path).unwrap();
        out.push(match tree.inode(ino).kind {
            Kind::File(content) => {
                let bytes = content.read_to_vec(&blobs, 1 << 20).unwrap();
                format!("{name}={}", String::from_utf8(bytes).unwrap())
            }
            Kind::Dir => format!("{name}/"),
            _ => name,
        });
    }
    out.join(" ")
}

fn refused(lower: &[Vec<u8>], upper: &[Vec<u8>]) -> TarErrorKind {
    layers(&[archive(lower), archive(upper)]).unwrap_err().kind
}

#[test]
fn names_go_with_what_is_below_them() {
    let lower = [file("d/a", "1"), file("d/b/c", "2"), file("e", "3")];
    assert_eq!(left(&lower, &[file("d/.wh.a", "")]), "d/ d/b/ d/b/c=2 e=3");
    assert_eq!(left(&lower, &[file(".wh.d", "")]), "e=3");
    // What is not there, or below a file, goes without a word.
    let nothing = [file(".wh.x", ""), file("x/.wh.y", ""), file("e/.wh.y", "")];
    assert_eq!(left(&lower, &nothing), "d/ d/a=1 d/b/ d/b/c=2 e=3");
    // One that has data or is a hard link, as AUFS wrote them, is one all the same.
    let odd = [file("d/.wh.a", "data"), hard(".wh.e", "d/.wh.a")];
    assert_eq!(left(&lower, &odd), "d/ d/b/ d/b/c=2");
}

#[test]
fn what_the_layer_brings_stays_in_either_order() {
    let lower = [file("d/a", "1"), file("d/k/l", "2"), file("f", "3")];
    for (whiteout, expected) in [
        ("d/.wh..wh..opq", "d/ d/k/ d/k/n=5 d/n=4 f=3"),
        (".wh.d", "d/ d/k/ d/k/n=5 d/n=4 f=3"),
        (".wh.f", "d/ d/a=1 d/k/ d/k/l=2 d/k/n=5 d/n=4"),
    ] {
        let mut upper = [file("d/n", "4"), file("d/k/n", "5"), file(whiteout, "")];
        assert_eq!(left(&lower, &upper), expected);
        upper.rotate_right(1);
        assert_eq!(left(&lower, &upper), expected);
    }
    // Names it gives to a file of the layers below are its own.
    let links = [
        hard("d/l", "f"),
        file("d/.wh..wh..opq", ""),
        file(".wh.f", ""),
    ];
    assert_eq!(left(&lower, &links), "d/ d/l=3");
    // A directory that it names again, even an empty one.
    let named = [dir("d/k"), file("d/.wh..wh..opq", "")];
    assert_eq!(left(&lower, &named), "d/ d/k/ f=3");
    // The root may be opaque as well.
    assert_eq!(
        left(&lower, &[file("new", ""), file(".wh..wh..opq", "")]),
        "new="
    );
}

#[test]
fn types_change() {
    let lower = [file("d/a", "1"), symlink("l", "d"), file("f", "2")];
    let upper = [file("d", "now"), dir("f"), dir("l"), file("l/x", "3")];
    assert_eq!(left(&lower, &upper), "d=now f/ l/ l/x=3");
    assert_eq!(left(&lower, &[hard("d", "f")]), "d=2 f=2 l");
    // A link of a layer below is followed, as on a disk.
    assert_eq!(left(&lower, &[file("l/x", "3")]), "d/ d/a=1 d/x=3 f=2 l");
    assert_eq!(left(&lower, &[file("l/.wh.a", "")]), "d/ f=2 l");
    // But what the layer itself put is not replaced by something else.
    let own = [file("d/b", ""), file("d", "")];
    assert!(matches!(
        refused(&lower, &own),
        TarErrorKind::ReplacesDirectory
    ));
}

#[test]
fn marks_that_mean_nothing_are_refused() {
    let lower = [file("a", "")];
    for name in [".wh.", "d/.wh..", ".wh...", "..", "../.wh.a", "d/../.wh.a"] {
        let kind = refused(&lower, &[file(name, "")]);
        assert!(matches!(kind, TarErrorKind::Name(_)), "{name}: {kind:?}");
    }
    for member in [
        file(".wh.d/x", ""),
        file(".wh..wh.plnk", ""),
        dir(".wh.a"),
        symlink(".wh.a", "x"),
    ] {
        let kind = refused(&lower, &[member]);
        assert!(matches!(kind, TarErrorKind::Unsupported(_)), "{kind:?}");
    }
}

#[test]
fn an_end_that_is_missing_is_the_digests_affair() {
    let whole = [file("a", "text"), file("b", "more")].concat();
    for cut in [0, 512 - 4] {
        let (tree, blobs) = layers(&[whole[..whole.len() - cut].to_vec()]).unwrap();
        assert_eq!(text_of(&tree, &blobs, "b"), "more");
    }
    // A member that is cut is none.
    for cut in [512 - 3, 512, 512 + 100] {
        let error = layers(&[whole[..whole.len() - cut].to_vec()]).unwrap_err();
        assert!(matches!(error.kind, TarErrorKind::Truncated), "{error:?}");
    }
    let error = layers(&[pax(&[("path", b"x")])]).unwrap_err();
    assert!(matches!(error.kind, TarErrorKind::Truncated), "{error:?}");
}

#[test]
fn many_whiteouts_over_a_large_tree_end() {
    let lower: Vec<Vec<u8>> = (0..20_000).map(|n| file(&format!("f{n}"), "")).collect();
    // Each looks at all names that its own layer has, which none of them hides.
    let mut upper = lower.clone();
    upper.extend((0..4000).map(|_| file(".wh..wh..opq", "")));
    let kind = refused(&lower, &upper);
    assert!(matches!(kind, TarErrorKind::Limit { .. }), "{kind:?}");
}

/// A member of one of few names, so that they meet.
fn any_member() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let part = prop::sample::select(vec!["a", "b", "c"]);
    let path = prop::collection::vec(part, 1..4);
    (path, 0..4_u8).prop_map(|(path, kind)| {
        let (name, above) = path.split_last().unwrap();
        let above: String = above.iter().map(|p| format!("{p}/")).collect();
        match kind {
            0 => (
                false,
                file(&format!("{above}{name}"), &format!("{above}{name}")),
            ),
            1 => (false, dir(&format!("{above}{name}"))),
            2 => (true, file(&format!("{above}.wh.{name}"), "")),
            _ => (true, file(&format!("{above}.wh..wh..opq"), "")),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whiteouts hide what is below: it is the same as doing all of them first.
    #[test]
    fn the_order_of_whiteouts_does_not_matter(
        lower in prop::collection::vec(any_member(), 0..8),
        upper in prop::collection::vec(any_member(), 0..8),
    ) {
        let plain = |all: &[(bool, Vec<u8>)], whiteouts: bool| -> Vec<Vec<u8>> {
            let some = all.iter().filter(|(is, _)| *is == whiteouts);
            some.map(|(_, member)| member.clone()).collect()
        };
        let lower = archive(&plain(&lower, false));
        let as_is: Vec<Vec<u8>> = upper.iter().map(|(_, member)| member.clone()).collect();
        let first = [plain(&upper, true), plain(&upper, false)].concat();
        let read = |upper: &[Vec<u8>]| layers(&[lower.clone(), archive(upper)]);
        // Without a whiteout done yet, a name may be in the way of another.
        if let (Ok((a, of_a)), Ok((b, of_b))) = (read(&as_is), read(&first)) {
            let show = |tree: &Tree, blobs: &BlobTable| -> Vec<String> {
                let texts = tree.walk().into_iter().map(|(path, ino)| {
                    let text = match tree.inode(ino).kind {
                        Kind::File(content) => content.read_to_vec(blobs, 1 << 10).unwrap(),
                        _ => b"/".to_vec(),
                    };
                    String::from_utf8([path, text].join(&b'=')).unwrap()
                });
                texts.collect()
            };
            prop_assert_eq!(show(&a, &of_a), show(&b, &of_b));
        }
    }

    /// Whatever bytes an archive of changes has, what is read is a tree that a layer can say.
    #[test]
    fn changed_bytes_are_read_or_refused(
        members in prop::collection::vec(any_member(), 1..8),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let bytes = archive(&members.into_iter().map(|(_, member)| member).collect::<Vec<_>>());
        let mut changed = bytes.clone();
        for (at, byte) in changes {
            let at = at.index(changed.len());
            changed[at] = byte;
        }
        for block in changed.chunks_exact_mut(512).filter(|b| b[257..262] == *b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        if let Ok((tree, _)) = layers(&[bytes, changed]) {
            let diff = crate::LayerDiff::from_tree(&tree);
            let stat = tree.stat(crate::Ino::ROOT);
            let again = Tree::from_layers(stat, [&diff]).unwrap();
            prop_assert_eq!(again.walk().len(), tree.walk().len());
        }
    }
}
