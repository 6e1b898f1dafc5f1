//! `disk assemble`, `disk info` and `inspect` on small trees, against the outside checkers.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, check, disk, finish, run, tool};

fn tree(env: &Env) -> PathBuf {
    let root = env.path("tree");
    for dir in ["bin", "etc", "var/empty"] {
        fs_err::create_dir_all(root.join(dir)).unwrap();
    }
    env.write("tree/bin/tool", vec![0x5A; 300_000]);
    fs_err::set_permissions(
        root.join("bin/tool"),
        std::fs::Permissions::from_mode(0o4755),
    )
    .unwrap();
    symlink("tool", root.join("bin/sh")).unwrap();
    env.write("tree/etc/motd", "welcome\n");
    fs_err::hard_link(root.join("etc/motd"), root.join("etc/issue")).unwrap();
    root
}

fn tar(env: &Env, root: &Path) -> PathBuf {
    let tar = env.path("tree.tar");
    run(tool("tar")
        .args(["--owner=daemon:1", "--group=shadow:42", "-C"])
        .arg(root)
        .arg("-cf")
        .arg(&tar)
        .arg("."));
    tar
}

/// A disk without a boot loader from `rootfs`.
fn assemble(env: &Env, rootfs: &Path, out: &[&Path], more: &[&str]) -> Finished {
    let mut command = env.amiforge();
    command
        .args(["disk", "assemble", "--boot", "none", "--rootfs"])
        .arg(rootfs)
        .args(more);
    for out in out {
        command.arg("--out").arg(out);
    }
    finish(&mut command)
}

/// Checks the whole disk, and returns its root file system in a file.
fn checked(env: &Env, raw: &Path) -> PathBuf {
    check::sgdisk_verify(raw);
    let parts = disk::partitions(raw);
    assert_eq!(parts.len(), 1, "{parts:?}");
    let root = parts[0].extract(raw, &env.path("root.ext4"));
    check::e2fsck(&root);
    root
}

fn debugfs_stat(image: &Path, path: &str) -> String {
    String::from_utf8_lossy(&check::debugfs(image, &format!("stat {path}"))).into_owned()
}

#[test]
fn a_tar_becomes_the_same_disk_in_two_formats() {
    let env = Env::new();
    let root = tree(&env);
    let tar = tar(&env, &root);
    let (raw, qcow2) = (env.path("disk.raw"), env.path("disk.qcow2"));
    let end = assemble(&env, &tar, &[&raw, &qcow2], &["--checksums", "full"]).expect_code(0);
    // Standard output is what `sha256sum -c` reads.
    let sums = env.write("sums", end.text());
    run(tool("sha256sum").args(["-c", "--strict"]).arg(&sums));

    let ext4 = checked(&env, &raw);
    let stat = debugfs_stat(&ext4, "/bin/tool");
    assert!(stat.contains("Mode:  04755"), "{stat}");
    assert!(stat.contains("User:     1   Group:    42"), "{stat}");
    assert!(stat.contains("Size: 300000"), "{stat}");
    assert!(debugfs_stat(&ext4, "/bin/sh").contains("Fast link dest: \"tool\""));
    assert!(debugfs_stat(&ext4, "/etc/issue").contains("Links: 2"));
    assert_eq!(check::ext4_cat(&ext4, "/etc/motd"), b"welcome\n");

    check::qemu_img_check(&qcow2, "qcow2");
    check::qemu_img_compare(&raw, "raw", &qcow2, "qcow2");
    let info = |file: &Path| {
        env.run(env.amiforge().args(["disk", "info", "--json"]).arg(file))
            .json()
    };
    let (a, b) = (info(&raw), info(&qcow2));
    assert_eq!(a["contentDigest"], b["contentDigest"]);
    assert_eq!(
        (a["format"].as_str(), b["format"].as_str()),
        (Some("raw"), Some("qcow2"))
    );
    assert_eq!(a["partitions"][0]["fileSystem"]["kind"], "ext4");
    assert_eq!(
        a["virtualBytes"],
        check::qemu_img_info(&qcow2, "qcow2")["virtual-size"]
    );
}

#[test]
fn a_folder_and_compressed_tars_give_the_files_of_the_tar() {
    let env = Env::new();
    let root = tree(&env);
    let tar = tar(&env, &root);
    let raw = env.path("disk.raw");
    assemble(&env, &root, &[&raw], &["--size", "64MiB"]).expect_code(0);
    let ext4 = checked(&env, &raw);
    assert!(debugfs_stat(&ext4, "/bin/tool").contains("Mode:  04755"));
    assert!(debugfs_stat(&ext4, "/etc/issue").contains("Links: 2"));
    assert_eq!(fs_err::metadata(&raw).unwrap().len(), 64 << 20);

    let mut digests = Vec::new();
    for (flag, ext) in [
        ("", "tar"),
        ("--gzip", "tar.gz"),
        ("--xz", "tar.xz"),
        ("--zstd", "tar.zst"),
    ] {
        let packed = env.path(format!("packed.{ext}"));
        if flag.is_empty() {
            fs_err::copy(&tar, &packed).unwrap();
        } else {
            let program = flag.trim_start_matches("--");
            let bytes = run(tool(program).args(["-c"]).arg(&tar)).stdout;
            fs_err::write(&packed, bytes).unwrap();
        }
        let raw = env.path(format!("{ext}.raw"));
        let json = assemble(&env, &packed, &[&raw], &["--json"])
            .expect_code(0)
            .json();
        checked(&env, &raw);
        digests.push(json["contentDigest"].as_str().unwrap().to_owned());
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

/// `tar` of everything below a folder but the names in `without`, whose own names stay.
fn packed(env: &Env, from: &str, without: &str, name: &str) -> PathBuf {
    let root = env.path(from);
    let found = run(tool("find").arg(&root).args([
        "-mindepth",
        "1",
        "-not",
        "-name",
        without,
        "-printf",
        "%P\\n",
    ]));
    let out = env.path(name);
    run(tool("tar")
        .args([
            "--owner=0",
            "--group=0",
            "--auto-compress",
            "--no-recursion",
            "-C",
        ])
        .arg(&root)
        .arg("-cf")
        .arg(&out)
        .args(String::from_utf8(found.stdout).unwrap().lines()));
    out
}

#[test]
fn several_root_file_systems_are_what_tar_extracts_over_one_another() {
    let env = Env::new();
    tree(&env);
    fs_err::create_dir_all(env.path("tree/only-a-parent")).unwrap();
    fs_err::set_permissions(
        env.path("tree/only-a-parent"),
        std::fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    env.write("tree/only-a-parent/below", "first\n");
    symlink("var", env.path("tree/data")).unwrap();
    // A file over a file of two names, a file over a link, through a link, a folder that has other rights,
    // and one that the archive does not have.
    env.write("upper/etc/motd", "second\n");
    env.write("upper/bin/sh", "a shell\n");
    env.write("upper/only-a-parent/more", "more\n");
    fs_err::set_permissions(
        env.path("upper/etc"),
        std::fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    env.write("third/data/through", "through a link\n");
    let layers = [
        packed(&env, "tree", "", "tree.tar.gz"),
        packed(&env, "upper", "only-a-parent", "upper.tar"),
        packed(&env, "third", "data", "third.tar.zst"),
    ];

    let wanted = env.path("wanted");
    fs_err::create_dir(&wanted).unwrap();
    for layer in &layers {
        run(tool("tar")
            .args(["--keep-directory-symlink", "-p", "-C"])
            .arg(&wanted)
            .arg("-xf")
            .arg(layer));
    }
    let raw = env.path("disk.raw");
    let mut command = env.amiforge();
    command.args(["disk", "assemble", "--boot", "none", "--out"]);
    command.arg(&raw);
    for layer in &layers {
        command.arg("--rootfs").arg(layer);
    }
    finish(&mut command).expect_code(0);
    let ext4 = checked(&env, &raw);
    let found = env.path("found");
    fs_err::create_dir(&found).unwrap();
    check::debugfs(&ext4, &format!("rdump / {}", found.display()));
    fs_err::remove_dir(found.join("lost+found")).unwrap();
    run(tool("diff")
        .args(["-r", "--no-dereference"])
        .arg(&wanted)
        .arg(&found));
    for path in ["etc", "etc/motd", "etc/issue", "only-a-parent", "bin/tool"] {
        let meta = fs_err::symlink_metadata(wanted.join(path)).unwrap();
        let told = format!("Mode:  0{:03o}", meta.permissions().mode() & 0o7777);
        let stat = debugfs_stat(&ext4, &format!("/{path}"));
        assert!(stat.contains(&told), "{path} {told}: {stat}");
    }
    // The file that two names led to has one left.
    assert!(debugfs_stat(&ext4, "/etc/issue").contains("Links: 1"));
}

#[test]
fn inodes_and_features_are_those_asked_for() {
    let env = Env::new();
    let root = tree(&env);
    let header = |more: &[&str]| {
        let raw = env.path("disk.raw");
        assemble(&env, &root, &[&raw], &[&["--size", "64MiB"], more].concat()).expect_code(0);
        let ext4 = checked(&env, &raw);
        let text = run(tool("dumpe2fs").arg("-h").arg(&ext4)).stdout;
        String::from_utf8(text).unwrap()
    };
    let line = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().trim().to_owned()
    };
    let plain = header(&[]);
    assert!(line(&plain, "Filesystem features:").contains("metadata_csum"));
    let legacy = header(&["--filesystem-profile", "legacy"]);
    let features = line(&legacy, "Filesystem features:");
    assert!(!features.contains("metadata_csum"), "{features}");
    assert!(
        features.contains("64bit") && features.contains("extent"),
        "{features}"
    );
    let many = header(&["--inodes", "8000"]);
    assert_eq!(line(&many, "Inode count:"), "8000");
    // Fewer than the files need.
    let raw = env.path("few.raw");
    let end = assemble(&env, &root, &[&raw], &["--inodes", "12"]).expect_code(1);
    assert!(end.stderr.contains("12 were asked for"), "{end}");
    assert!(!raw.exists());
}

#[test]
fn looking_into_a_disk() {
    let env = Env::new();
    let root = tree(&env);
    let (raw, qcow2) = (env.path("disk.raw"), env.path("disk.qcow2"));
    assemble(&env, &root, &[&raw, &qcow2], &[]).expect_code(0);
    for image in [&raw, &qcow2] {
        let inspect = |args: &[&str]| finish(env.amiforge().arg("inspect").arg(image).args(args));
        let names: Vec<String> = inspect(&["ls", "/bin", "--json"])
            .expect_code(0)
            .json()
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["sh", "tool"]);
        assert_eq!(
            inspect(&["cat", "/bin/tool"]).expect_code(0).stdout,
            vec![0x5A; 300_000]
        );
        assert_eq!(
            inspect(&["cat", "/etc/motd"]).expect_code(0).text(),
            "welcome\n"
        );
        let stat = inspect(&["stat", "/bin/sh", "--json"])
            .expect_code(0)
            .json();
        assert_eq!(
            (stat["kind"].as_str(), stat["target"].as_str()),
            (Some("symbolic link"), Some("tool"))
        );
        let stat = inspect(&["stat", "/bin/tool"]).expect_code(0).text();
        assert!(stat.contains("mode   4755"), "{stat}");

        for (args, told) in [
            (&["ls", "/nope"][..], "/nope"),
            (&["cat", "/bin"], "directory"),
            (&["--partition", "7", "ls"], "there is no partition 7"),
        ] {
            let end = inspect(args);
            assert!(
                [1, 2].contains(&end.code()) && end.stderr.contains(told),
                "{end}"
            );
            assert!(end.stdout.is_empty(), "{end}");
        }
    }
}

#[test]
fn what_cannot_be_assembled_leaves_nothing() {
    let env = Env::new();
    let root = tree(&env);
    let tar_file = tar(&env, &root);
    let before = |dir: &Path| {
        let mut names: Vec<_> = fs_err::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let evil = env.path("evil.tar");
    run(tool("tar")
        .args(["-P", "--transform=s,.*,../../evil,", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&evil)
        .arg("etc/motd"));
    let cut = env.path("cut.tar");
    let bytes = fs_err::read(&tar_file).unwrap();
    fs_err::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    env.write("text", "this is not an archive\n".repeat(100));
    fs_err::create_dir(env.path("out")).unwrap();

    for (rootfs, out, code, told) in [
        (
            tar_file.clone(),
            "disk.vhdx",
            2,
            "\"vhdx\" is not a disk format",
        ),
        (tar_file.clone(), "disk", 2, "is not a disk format"),
        (
            evil,
            "disk.raw",
            1,
            "the name \"../../evil\" is not allowed",
        ),
        (cut, "disk.raw", 1, "cut short"),
        (env.path("text"), "disk.raw", 1, "tar archive"),
        (env.path("missing.tar"), "disk.raw", 2, "missing.tar"),
        (tar_file, "no/such/disk.raw", 1, "no/such"),
    ] {
        let end = assemble(&env, &rootfs, &[&env.path("out").join(out)], &[]).expect_code(code);
        assert!(end.stderr.contains(told), "no `{told}` in\n{end}");
        assert_eq!(
            before(&env.path("out")),
            Vec::<std::ffi::OsString>::new(),
            "{end}"
        );
    }
    assert!(!env.path("../evil").exists());
}

#[test]
fn a_volume_too_small_is_told_what_the_content_needs() {
    let env = Env::new();
    let root = tree(&env);
    // Not zero, or it would be a hole and need no room.
    env.write("tree/big", vec![1; 40 << 20]);
    let raw = env.path("disk.raw");
    let end = assemble(&env, &root, &[&raw], &["--size", "16MiB"]).expect_code(1);
    assert!(end.stderr.contains("the volume has 16 MiB"), "{end}");
    assert!(!raw.exists());
    // What it says is true: the number it names is enough.
    let need = end
        .stderr
        .split_once(" bytes)")
        .and_then(|(before, _)| before.rsplit_once('('))
        .map(|(_, number)| number.to_owned())
        .unwrap_or_else(|| panic!("no number of bytes in\n{end}"));
    assemble(&env, &root, &[&raw], &["--size", &need]).expect_code(0);
    checked(&env, &raw);
}

#[test]
fn a_damaged_qcow2_is_refused() {
    let env = Env::new();
    let root = tree(&env);
    let qcow2 = env.path("disk.qcow2");
    assemble(&env, &root, &[&qcow2], &[]).expect_code(0);
    let bytes = fs_err::read(&qcow2).unwrap();
    for (name, content) in [
        ("cut.qcow2", &bytes[..bytes.len() / 2]),
        ("header.qcow2", &bytes[..40]),
        ("empty.qcow2", &bytes[..0]),
        ("zeros.qcow2", &[0; 65536]),
    ] {
        let file = env.write(name, content);
        for args in [&["disk", "info"][..], &["inspect"]] {
            let mut command = env.amiforge();
            command.args(args).arg(&file);
            if args.len() == 1 {
                command.arg("ls");
            }
            let end = finish(&mut command).expect_code(1);
            assert!(end.stderr.contains(name), "{end}");
        }
    }
    // A file named inside an image is never opened.
    let backed = env.path("backed.qcow2");
    run(tool("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(&qcow2)
        .arg(&backed));
    let end = finish(env.amiforge().args(["disk", "info"]).arg(&backed)).expect_code(1);
    assert!(end.stderr.contains("backing"), "{end}");
}

#[test]
fn a_full_disk_leaves_no_half_disk() {
    let env = Env::new();
    let root = tree(&env);
    env.write("tree/big", vec![1; 8 << 20]);
    let small = amiforge_testkit::SmallDisk::new(4 << 20);
    let raw = small.path().join("disk.raw");
    let end = assemble(&env, &root, &[&raw], &[]).expect_code(1);
    assert!(end.stderr.contains("No space left"), "{end}");
    assert!(
        end.stderr.contains(&small.path().display().to_string()),
        "the error names the place\n{end}"
    );
    assert_eq!(fs_err::read_dir(small.path()).unwrap().count(), 0, "{end}");
}
