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
    let out = tempfile::tempfile().unwrap();
    amiforge_store::harvest_plain(std::fs::File::open(dir.path()).unwrap(), &out).unwrap();
    let blob = Arc::new(FileBlob::from_file(out).unwrap());
    let mut blobs = BlobTable::new();
    let id = blobs.add(blob.clone());
    let (diff, _) = amiforge_tree::layer::read(&*blob, id).unwrap();
    let text = crate::common::dump_diff(&diff, &blobs);
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
