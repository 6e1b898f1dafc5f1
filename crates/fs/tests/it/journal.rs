//! Images whose journal has to be replayed: what our reader sees is what e2fsck makes of them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use amiforge_fs::ext4::{ReadError, Reader};

use crate::image::HostFile;
use crate::reader::{assert_same_dump, dump, import};
use crate::{corpus, tool};

fn open(image: &Path) -> Result<Reader, ReadError> {
    let source = HostFile::open(image);
    let len = source.size();
    Reader::open(source, 0, len)
}

/// The tree in a dirty image equals the one that e2fsck leaves in a copy of it.
fn as_after_e2fsck(image: &Path) -> String {
    assert!(open(image).unwrap().is_recovered());
    let (found, blobs) = import(image);
    let dirty = dump(&found.tree, &blobs);
    let copy = image.with_extension("copy");
    tool::stdout(
        "cp",
        &[
            "--sparse=always",
            &image.to_string_lossy(),
            &copy.to_string_lossy(),
        ],
    );
    let out = tool::run("e2fsck", &["-fy", &copy.to_string_lossy()]);
    assert!(out.status.code().is_some_and(|code| code < 4), "{out:?}");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("ecovering journal"), "{text}");
    let (found, blobs) = import(&copy);
    assert_same_dump(&dirty, &dump(&found.tree, &blobs));
    dirty
}

#[test]
fn transactions_of_debugfs_with_all_checksums() {
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    fs::create_dir(&host).unwrap();
    for name in ["first", "second", "third"] {
        fs::write(host.join(name), corpus::noise(8192, 1)).unwrap();
    }
    let image = tmp.path().join("image");
    let (at, from) = (
        image.to_string_lossy().into_owned(),
        host.to_string_lossy().into_owned(),
    );
    // The second file's new content begins with the journal's magic number and has to be escaped.
    let (plain, magic, late) = (
        tmp.path().join("p"),
        tmp.path().join("m"),
        tmp.path().join("l"),
    );
    fs::write(&plain, corpus::noise(4096, 2)).unwrap();
    let escaped = [&[0xC0, 0x3B, 0x39, 0x98][..], &corpus::noise(4092, 3)].concat();
    fs::write(&magic, &escaped).unwrap();
    fs::write(&late, corpus::noise(4096, 4)).unwrap();
    // The old checksum over a whole transaction leaves revoked blocks out, but not with debugfs.
    for (features, journal, revokes) in [
        ("64bit,metadata_csum", "-c -v 3", true),
        ("64bit,metadata_csum", "-c -v 2", true),
        ("^64bit,metadata_csum", "-c -v 3", true),
        ("^64bit,metadata_csum", "-c -v 2", true),
        ("64bit,^metadata_csum", "-c", false),
        ("64bit,^metadata_csum", "", true),
        ("^64bit,^metadata_csum", "", true),
    ] {
        println!("{features} {journal}");
        let _ = fs::remove_file(&image);
        tool::stdout(
            "mke2fs",
            &[
                "-q", "-F", "-t", "ext4", "-b", "4096", "-O", features, "-d", &from, &at, "32M",
            ],
        );
        let reader = open(&image).unwrap();
        let block = |name: &str| {
            let runs = reader.data_runs(name.as_bytes()).unwrap();
            match runs[0].place {
                amiforge_fs::ext4::DataPlace::Disk(at) => at / 4096,
                ref other => panic!("{other:?}"),
            }
        };
        let (a, b, c) = (block("first"), block("second"), block("third"));
        let script = tmp.path().join("script");
        // Third: written, then revoked in a later transaction: keeps what it had. First: written,
        // revoked, and written again.
        let (both, revoke) = match revokes {
            true => (format!("{a},{c}"), format!("jw -r {c},{a}\n")),
            false => (a.to_string(), String::new()),
        };
        fs::write(
            &script,
            format!(
                "jo {journal}\njw -b {both} {p}\njw -b {b} {m}\n{revoke}jw -b {a} {l}\njc\n",
                p = plain.display(),
                m = magic.display(),
                l = late.display(),
            ),
        )
        .unwrap();
        fs::write(
            &plain,
            [corpus::noise(4096, 2), corpus::noise(4096, 5)].concat(),
        )
        .unwrap();
        tool::stdout("debugfs", &["-w", "-f", &script.to_string_lossy(), &at]);
        let reader = open(&image).unwrap();
        assert!(
            reader.read(b"second").unwrap()[..4096] == escaped,
            "{features} {journal}"
        );
        assert!(
            reader.read(b"third").unwrap() == corpus::noise(8192, 1),
            "{features} {journal}"
        );
        let first = reader.read(b"first").unwrap();
        assert!(
            first[..4096] == corpus::noise(4096, 4),
            "{features} {journal}"
        );
        as_after_e2fsck(&image);
        if journal.contains("-c") {
            a_damaged_log_is_refused(&image, b);
        }
    }
}

/// Damages the logged version of the second file, where there are checksums.
fn a_damaged_log_is_refused(image: &Path, block: u64) {
    let mut bytes = fs::read(image).unwrap();
    let wanted = corpus::noise(4092, 3);
    let found: Vec<usize> = (0..bytes.len() / 4096)
        .filter(|n| bytes[n * 4096 + 4..(n + 1) * 4096] == wanted[..])
        .collect();
    assert_eq!(
        found.len(),
        1,
        "the new content is in the journal only, not in {block}"
    );
    bytes[found[0] * 4096 + 2000] ^= 1;
    let len = bytes.len() as u64;
    let error = Reader::open(std::sync::Arc::new(bytes), 0, len)
        .err()
        .unwrap();
    let ReadError::Open(fault) = error else {
        panic!("{error}");
    };
    assert!(fault.to_string().starts_with("journal block"), "{fault}");
}

#[test]
fn an_image_that_was_copied_while_mounted() {
    // Only root may mount; elsewhere the transactions of debugfs have to do.
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root || !Path::new("/dev/loop-control").exists() {
        return;
    }
    let tmp = tempfile::tempdir().unwrap();
    let image = tmp.path().join("image");
    let point = tmp.path().join("mnt");
    fs::create_dir(&point).unwrap();
    let (disk, at) = (image.to_string_lossy(), point.to_string_lossy());
    for (options, mount) in [
        (&["-t", "ext4"][..], "loop,commit=300"),
        (
            &["-t", "ext4", "-O", "^metadata_csum,^64bit"],
            "loop,commit=300",
        ),
        (&["-t", "ext3"], "loop,commit=300,data=journal"),
    ] {
        let _ = fs::remove_file(&image);
        let mut args = vec!["-q", "-F", "-b", "4096"];
        args.extend(options);
        args.extend([&*disk, "64M"]);
        tool::stdout("mke2fs", &args);
        tool::stdout("mount", &["-o", mount, &disk, &at]);
        let dirty = tmp.path().join("dirty");
        let work = || -> std::io::Result<()> {
            for round in 0..4 {
                for i in 0..400 {
                    fs::write(
                        point.join(format!("file-{i}")),
                        corpus::noise(900 + i, round),
                    )?;
                }
                fs::create_dir_all(point.join(format!("dir-{round}/a/b/c")))?;
                for i in 0..150 {
                    fs::remove_file(point.join(format!("file-{i}")))?;
                }
                // Into the log, and for the last time not into its place.
                fs::File::open(point.join("file-399"))?.sync_all()?;
            }
            tool::stdout("cp", &["--sparse=always", &disk, &dirty.to_string_lossy()]);
            Ok(())
        };
        let done = work();
        tool::stdout("umount", &[&at]);
        done.unwrap();
        let text = as_after_e2fsck(&dirty);
        assert!(
            text.contains("/file-399 file") && text.contains("/dir-3/a/b/c dir"),
            "{mount}"
        );
    }
}
