//! GNU tar and our reader and writer see the same tree.

use std::path::Path;
use std::sync::Arc;

use amiforge_store::FileBlob;
use amiforge_tree::{Tree, tar};
use amiforge_types::BlobTable;

use crate::common::{
    CLOCK, EVERYTHING, command, dump, dump_diff, dump_dir, harvested, options, sh,
};

const READ: tar::ReadOptions = tar::ReadOptions {
    build_clock: CLOCK,
    limits: tar::Limits::DEFAULT,
};

fn in_place(path: &Path) -> (Tree, BlobTable) {
    let blob = Arc::new(FileBlob::open(path).unwrap());
    let mut blobs = BlobTable::new();
    let id = blobs.add(blob.clone());
    (tar::read_at(&*blob, id, &READ).unwrap(), blobs)
}

fn streamed(path: &Path) -> (Tree, BlobTable) {
    let mut spool = tempfile::tempfile().unwrap();
    let tree =
        tar::read_stream(&mut std::fs::File::open(path).unwrap(), &mut spool, &READ).unwrap();
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(FileBlob::from_file(spool).unwrap()));
    (tree.into_tree(id), blobs)
}

fn everything() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    sh(&dir.path().join("root"), EVERYTHING);
    // GNU tar writes the host's names into access control lists; they mean what the archive's own
    // user database says, so the host's goes in.
    sh(
        &dir.path().join("root"),
        r#"cp /etc/passwd /etc/group "$1/etc/"; touch -d @1500000000 "$1/etc""#,
    );
    dir
}

/// Two programs look at one directory: GNU tar through its archive, and the harvest.
#[test]
fn archives_of_gnu_tar_are_read_as_the_directory_is() {
    let dir = everything();
    let root = dir.path().join("root");
    let expected = dump_dir(&root);
    assert!(
        expected.contains("security.capability=0100000200200000"),
        "{expected}"
    );
    assert!(expected.contains("4294967294"), "{expected}");
    let pax = ["--format=pax", "--xattrs", "--xattrs-include=*", "--acls"];
    for sparse in [
        "",
        "--sparse-version=0.0",
        "--sparse-version=0.1",
        "--sparse-version=1.0",
    ] {
        let archive = dir.path().join("a.tar");
        let mut tar = command("tar");
        tar.args(pax)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg("--numeric-owner");
        // Without atime and ctime the archive is the shorter kind of PAX.
        tar.args(["--pax-option=delete=atime,delete=ctime", "--sort=name"]);
        if !sparse.is_empty() {
            tar.args(["-S", sparse]);
        }
        amiforge_testkit::run(tar.arg("."));
        for (tree, blobs) in [in_place(&archive), streamed(&archive)] {
            similar_asserts(&dump(&tree, &blobs), &expected, sparse);
        }
        if !sparse.is_empty() {
            let (tree, _) = in_place(&archive);
            let ino = tree.lookup(b"sparse").unwrap();
            let amiforge_tree::Kind::File(content) = &tree.inode(ino).kind else {
                panic!()
            };
            assert!(content.data_len() < 16 << 10, "{sparse}: holes were lost");
        }
    }
}

#[test]
fn old_formats_keep_what_they_can() {
    let dir = everything();
    let root = dir.path().join("root");
    // What these formats have no room for.
    sh(
        &root,
        "cd \"$1\"; touch -d @1 empty; chown 1:1 empty; chown -h 1:1 link; rm -rf deep longlink; find . -exec touch -hd @1700000000 {} +",
    );
    let expected: String = dump_dir(&root)
        .lines()
        .map(|line| line.split(" xattr ").next().unwrap().to_owned() + "\n")
        .collect();
    for format in ["gnu", "oldgnu", "ustar", "v7"] {
        let archive = dir.path().join("a.tar");
        let mut tar = command("tar");
        tar.arg(format!("--format={format}"))
            .arg("-cf")
            .arg(&archive)
            .arg("--numeric-owner")
            .arg("-C")
            .arg(&root);
        match format {
            "gnu" | "oldgnu" => {
                tar.arg("-S").arg(".");
            }
            // No sparse files in ustar, and no devices in v7.
            "v7" => {
                tar.args([
                    "--exclude=./null",
                    "--exclude=./disk",
                    "--exclude=./pipe",
                    ".",
                ]);
            }
            _ => {
                tar.arg(".");
            }
        }
        amiforge_testkit::run(&mut tar);
        let expected: String = match format {
            "v7" => expected
                .lines()
                .filter(|l| {
                    !["/null ", "/disk ", "/pipe "]
                        .iter()
                        .any(|n| l.starts_with(n))
                })
                .map(|l| l.to_owned() + "\n")
                .collect(),
            _ => expected.clone(),
        };
        let (tree, blobs) = in_place(&archive);
        similar_asserts(&dump(&tree, &blobs), &expected, format);
    }
}

#[test]
fn long_names_of_the_gnu_format_are_read() {
    let dir = everything();
    let root = dir.path().join("root");
    let archive = dir.path().join("a.tar");
    amiforge_testkit::run(
        command("tar")
            .arg("--format=gnu")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .args(["deep", "longlink"]),
    );
    let (tree, blobs) = in_place(&archive);
    let text = dump(&tree, &blobs);
    assert_eq!(text.lines().filter(|l| l.len() > 250).count(), 4, "{text}");
    assert!(text.contains("/hard hardlink -> /deep/ddd"), "{text}");
}

#[test]
fn compressed_by_the_real_tools() {
    let dir = everything();
    let root = dir.path().join("root");
    let archive = dir.path().join("a.tar");
    amiforge_testkit::run(
        command("tar")
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg("."),
    );
    let (tree, blobs) = in_place(&archive);
    let expected = dump(&tree, &blobs);
    for (tool, extension) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        amiforge_testkit::run(command(tool).arg("-k").arg(&archive));
        let (tree, blobs) = streamed(&dir.path().join(format!("a.tar.{extension}")));
        similar_asserts(&dump(&tree, &blobs), &expected, tool);
    }
}

#[test]
fn gnu_tar_extracts_what_we_write() {
    let dir = everything();
    let root = dir.path().join("root");
    let (diff, blobs) = harvested(&root, &options());
    let tree = Tree::from_layers(crate::common::ROOT, [&diff]).unwrap();
    let archive = dir.path().join("ours.tar");
    let mut out = std::io::BufWriter::new(std::fs::File::create(&archive).unwrap());
    let summary = tar::write(&tree, &blobs, &mut out).unwrap();
    drop(out);
    assert_eq!(summary.sockets_skipped, 0);
    let back = dir.path().join("back");
    std::fs::create_dir(&back).unwrap();
    let output = amiforge_testkit::run(
        command("tar")
            .args([
                "--xattrs",
                "--xattrs-include=*",
                "--acls",
                "--numeric-owner",
                "-p",
                "-S",
                "-xf",
            ])
            .arg(&archive)
            .arg("-C")
            .arg(&back),
    );
    assert_eq!(output.text(), "");
    similar_asserts(&dump_dir(&back), &dump_diff(&diff, &blobs), "extracted");
}

/// Compares dumps and shows only the lines that differ.
pub(crate) fn similar_asserts(found: &str, expected: &str, what: &str) {
    let missing: Vec<_> = expected
        .lines()
        .filter(|l| !found.lines().any(|f| f == *l))
        .collect();
    let extra: Vec<_> = found
        .lines()
        .filter(|l| !expected.lines().any(|e| e == *l))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{what}\nmissing: {missing:#?}\nextra: {extra:#?}"
    );
    assert_eq!(found, expected, "{what}: order");
}

/// bsdtar keeps inode flags, GNU tar does not know them.
#[test]
fn inode_flags_go_to_bsdtar_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    sh(
        &root,
        r#"cd "$1"; mkdir d; echo x > d/a; echo y > d/b; echo z > c; chattr +d d/a; chattr +A d d/b
           bsdtar --format=pax --fflags -cf ../made.tar ."#,
    );
    let (tree, blobs) = in_place(&dir.path().join("made.tar"));
    let shown = dump(&tree, &blobs);
    assert_eq!(shown, dump_dir(&root));
    assert_eq!(shown.matches(" flags=").count(), 3, "{shown}");
    let mut ours = std::fs::File::create(dir.path().join("ours.tar")).unwrap();
    tar::write(&tree, &blobs, &mut ours).unwrap();
    let out = command("bsdtar")
        .args(["-cf", "-", "--format=mtree", "--options=!all,flags"])
        .arg(format!("@{}", dir.path().join("ours.tar").display()))
        .output()
        .unwrap();
    let list = String::from_utf8_lossy(&out.stdout).into_owned();
    for line in [
        "./d flags=noatime",
        "./d/a flags=nodump",
        "./d/b flags=noatime",
        "./c\n",
    ] {
        assert!(list.contains(line), "{line} in {list}");
    }
}
