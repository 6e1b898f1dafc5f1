//! GNU tar and bsdtar extract an archive into an empty folder, and we read it: the same tree.

use std::path::Path;
use std::sync::Arc;

use amiforge_store::FileBlob;
use amiforge_tree::tar;
use amiforge_types::BlobTable;

use crate::common::{CLOCK, EVERYTHING, command, dump, dump_dir, sh};
use crate::tar::similar_asserts;

/// Our reading, without the root, which archives need not have.
fn ours(archive: &Path) -> String {
    let blob = Arc::new(FileBlob::open(archive).unwrap());
    let mut blobs = BlobTable::new();
    let id = blobs.add(blob.clone());
    let options = tar::ReadOptions {
        build_clock: CLOCK,
        limits: tar::Limits::DEFAULT,
    };
    let tree = tar::read_at(&*blob, id, &options).unwrap();
    without_root(&dump(&tree, &blobs))
}

fn without_root(dump: &str) -> String {
    dump.split_once('\n').unwrap().1.to_owned()
}

fn extracted(archive: &Path, tool: &str, options: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let out = amiforge_testkit::finish(
        command(tool)
            .args(options)
            .arg("-xpf")
            .arg(archive)
            .arg("-C")
            .arg(dir.path()),
    );
    assert_eq!(out.code(), 0, "{out}");
    without_root(&dump_dir(dir.path()))
}

#[test]
fn members_that_replace_one_another_end_as_both_tools_leave_them() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir in; cd in; t="tar --numeric-owner -rPf ../a.tar"
        echo one > f; ln f h; mkdir d e; echo x > d/in; ln -s d l; echo kept > target; ln -s target s
        $t f h d e l target s
        # A file again, with other bytes: the other name keeps the old ones.
        rm f; echo two > f; $t f; rm h; ln f h2; $t f h2
        # A link becomes a file, a file a link, an empty folder a file, a link to a folder a folder.
        rm s; echo now > s; $t s; rm target; ln -s f target; $t target
        rmdir e; echo e > e; $t e; rm l; mkdir l; echo own > l/own; $t l
        # A folder again: what is in it stays, its mode changes.
        chmod 0700 d; $t --no-recursion d; chmod 1777 d; $t --no-recursion d
        # Absolute, and with dots that mean nothing.
        echo abs > abs; $t --transform='s,^,/,' abs; $t --transform='s,^,./././dot/,' abs
        find . -exec touch -hd @1600000000 {} +"#,
    );
    let archive = dir.path().join("a.tar");
    let found = ours(&archive);
    // The times of folders that are made on the way, or written to, are the extraction's own.
    let plain = |dump: String| -> String {
        dump.lines()
            .map(|line| match line.split_once(" dir ") {
                Some((name, rest)) => {
                    let fields: Vec<_> = rest.split(' ').take(4).collect();
                    format!("{name} dir {}\n", fields.join(" "))
                }
                None => format!("{line}\n"),
            })
            .collect()
    };
    let found = plain(found);
    for part in [
        "/f file",
        "/h file",
        "/h2 hardlink -> /f",
        "/l dir",
        "/d/in file",
        "/dot/abs file",
    ] {
        assert!(found.contains(part), "{part} in\n{found}");
    }
    for tool in ["tar", "bsdtar"] {
        let expected = plain(extracted(&archive, tool, &["--numeric-owner"]));
        similar_asserts(&found, &expected, tool);
    }
}

#[test]
fn archives_of_bsdtar_are_read_as_it_extracts_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    sh(&root, EVERYTHING);
    sh(
        &root,
        // bsdtar writes -5.5 seconds as -6.5, and reads it as -5.5; of a name with `=` or `%` it makes two.
        r#"cp /etc/passwd /etc/group "$1/etc/"; touch -d @1500000000 "$1/etc"
        setfattr -x 'user.a=b%' "$1/empty"; touch -d @-5 "$1/empty""#,
    );
    for format in ["pax", "paxr", "gnutar", "ustar"] {
        let archive = dir.path().join(format!("{format}.tar"));
        if format == "ustar" {
            // What it has no room for.
            sh(
                &root,
                r#"cd "$1"; rm -rf deep longlink; chown 1:1 empty; chown -h 1:1 link; touch -d @1 empty"#,
            );
        }
        amiforge_testkit::run(
            command("bsdtar")
                .args([
                    "--format",
                    format,
                    "--numeric-owner",
                    "--xattrs",
                    "--acls",
                    "-cf",
                ])
                .arg(&archive)
                .arg("-C")
                .arg(&root)
                .arg("."),
        );
        let options = ["--numeric-owner", "--xattrs", "--acls", "-S"];
        similar_asserts(
            &ours(&archive),
            &extracted(&archive, "bsdtar", &options),
            format,
        );
    }
}

#[test]
fn a_folder_is_read_with_what_an_overlay_would_take_for_its_own() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir -p store/diff/opaque; mknod store/diff/gone c 0 0; echo x > store/diff/.wh.f
        setfattr -n trusted.overlay.opaque -v y store/diff/opaque; touch marked
        setfattr -n user.overlay.whiteout -v y marked; ln marked other; truncate -s 1M hole
        python3 -c 'import socket,sys; socket.socket(socket.AF_UNIX).bind("sock")'"#,
    );
    let (tree, blobs) = crate::common::folder(dir.path());
    let text = crate::common::dump(&tree, &blobs);
    for part in [
        "/store/diff/gone char 0644 0 0 0",
        "rdev=0:0",
        "/store/diff/.wh.f file",
        "xattr trusted.overlay.opaque=79",
        "/marked file",
        "xattr user.overlay.whiteout=79",
        "/other hardlink -> /marked",
        "/hole file 0644 0 0 1048576",
        "/sock socket",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

/// Path, size, and offset and length of each run.
type FileOfRuns = (Vec<u8>, u64, Vec<(u64, u64)>);

/// The runs of every file.
fn runs(tree: &amiforge_tree::Tree) -> Vec<FileOfRuns> {
    let files = tree.walk().into_iter().filter_map(|(path, ino)| {
        let file = tree.file(ino)?;
        let runs = file.extents().iter().map(|e| (e.offset, e.len)).collect();
        Some((path, file.size, runs))
    });
    files.collect()
}

#[test]
fn a_folder_is_what_its_layer_is() {
    let dir = tempfile::tempdir().unwrap();
    sh(dir.path(), crate::common::EVERYTHING);
    // Holes that count and holes that are too small to, at the start, inside and at the end; and the same as zeros.
    sh(
        dir.path(),
        r#"cd "$1"; mkdir holes; cd holes
        for at in 4096 65536 135168; do
            for hole in 32768 65536 262144; do
                file=$at-$hole; truncate -s $at $file; printf a >> $file
                truncate -s $((at + hole)) $file; printf b >> $file; truncate -s $((at + 3 * hole)) $file
                cp --sparse=never $file $file.full; touch -d @1500000000 $file $file.full
            done
        done; touch -d @1500000000 . .."#,
    );
    let (tree, blobs) = crate::common::folder(dir.path());
    let (diff, layer_blobs) = crate::common::harvested(dir.path(), &crate::common::options());
    let layer = amiforge_tree::Tree::from_layers(crate::common::ROOT, [&diff]).unwrap();
    assert_eq!(
        crate::common::dump(&tree, &blobs),
        crate::common::dump(&layer, &layer_blobs)
    );
    let all = runs(&tree);
    assert_eq!(all, runs(&layer));
    let full: Vec<_> = all
        .iter()
        .filter(|(path, ..)| path.ends_with(b".full"))
        .collect();
    assert_eq!(full.len(), 9);
    for (path, size, data) in full {
        let sparse = &path[..path.len() - 5];
        let (_, _, other) = all.iter().find(|(p, ..)| p == sparse).unwrap();
        assert_eq!(
            (data, *size > 0),
            (other, true),
            "{}",
            String::from_utf8_lossy(path)
        );
    }
}

#[test]
fn a_folder_lies_over_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    sh(
        dir.path(),
        r#"cd "$1"; mkdir -p etc/kept link; echo new > etc/file; echo below > link/below; echo a > a; ln a b"#,
    );
    let mut tree = amiforge_tree::Tree::new(crate::common::ROOT);
    let old = |text: &str| {
        let stat = amiforge_tree::Stat {
            mode: 0o600,
            ..crate::common::ROOT
        };
        let kind = amiforge_tree::Kind::File(amiforge_tree::Content::bytes(text.as_bytes()));
        amiforge_tree::Inode::new(stat, kind)
    };
    let folder = || amiforge_tree::Inode::new(crate::common::ROOT, amiforge_tree::Kind::Dir);
    for path in ["etc", "etc/kept"] {
        tree.insert(path.as_bytes(), folder()).unwrap();
    }
    for path in ["etc/file", "etc/kept/old", "a", "link"] {
        tree.insert(path.as_bytes(), old("old")).unwrap();
    }
    tree.link(b"other", b"a").unwrap();
    let (tree, blobs) = crate::common::folder_over(dir.path(), tree).unwrap();
    let text = crate::common::dump(&tree, &blobs);
    let line = |path: &str| {
        let found = text
            .lines()
            .find(|line| line.starts_with(&format!("{path} ")));
        found
            .unwrap_or_else(|| panic!("{path} in\n{text}"))
            .to_owned()
    };
    // Size 4 is the new text.
    assert!(line("/etc/file").contains("file 0644 0 0 4 "), "{text}");
    assert!(line("/etc/kept/old").contains("file 0600 0 0 3 "), "{text}");
    assert!(line("/link").contains("dir"), "{text}");
    assert!(line("/b").contains("hardlink -> /a"), "{text}");
    // The other name of a replaced file keeps it.
    assert!(line("/other").contains("file 0600 0 0 3 "), "{text}");
}

#[test]
fn a_folder_may_end_in_zeros() {
    for script in [
        "head -c 10 /dev/zero > z",
        "head -c 262144 /dev/urandom > z; head -c 5000 /dev/zero >> z",
    ] {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), &format!("cd \"$1\"; {script}"));
        let (tree, blobs) = crate::common::folder(dir.path());
        let ino = tree.lookup(b"z").unwrap();
        let amiforge_tree::Kind::File(content) = tree.inode(ino).kind else {
            panic!("not a file");
        };
        let expected =
            amiforge_tree::ContentHasher::of(&std::fs::read(dir.path().join("z")).unwrap());
        assert_eq!(
            content.content_digest(&blobs).unwrap(),
            expected,
            "{script}"
        );
    }
}

#[test]
fn a_folder_takes_no_folder_away() {
    for over in [
        "ln -s elsewhere etc",
        "echo file > etc",
        "echo a > a; ln a etc",
    ] {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), &format!("cd \"$1\"; {over}"));
        let mut tree = amiforge_tree::Tree::new(crate::common::ROOT);
        let folder = || amiforge_tree::Inode::new(crate::common::ROOT, amiforge_tree::Kind::Dir);
        tree.insert(b"etc", folder()).unwrap();
        tree.insert(b"etc/below", folder()).unwrap();
        let Err(error) = crate::common::folder_over(dir.path(), tree) else {
            panic!("{over}");
        };
        assert_eq!(
            error.to_string(),
            "\"etc\" would replace a folder that is not empty",
            "{over}"
        );
    }
}
