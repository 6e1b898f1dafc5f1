//! What a user sees of archives and folders that mean harm, or that are more than they look.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, check, disk, finish, run, tool};

/// One member: header and data.
fn member(name: &str, kind: u8, link: &str, size: u64, data: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0004755\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000012\0");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000007\0");
    put(337, b"0000000\0");
    put(148, b"        ");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut out = block.to_vec();
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    member(name, b'0', "", data.len() as u64, data)
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut out = members.concat();
    out.resize(out.len() + 1024, 0);
    out
}

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

/// The root file system of a disk, checked.
fn root_of(env: &Env, raw: &Path) -> PathBuf {
    let root = disk::partitions(raw)[0].extract(raw, &env.path("root.ext4"));
    check::e2fsck(&root);
    root
}

fn stat(root: &Path, path: &str) -> String {
    String::from_utf8_lossy(&check::debugfs(root, &format!("stat \"{path}\""))).into_owned()
}

#[test]
fn what_is_refused_says_which_entry_and_where() {
    let env = Env::new();
    let out = env.path("out");
    fs_err::create_dir(&out).unwrap();
    let first = file("etc/motd", b"hello");
    for (name, bad, told) in [
        (
            "up",
            file("../../evil", b"x"),
            "the name \"../../evil\" is not allowed",
        ),
        (
            "hard",
            member("h", b'1', "/etc/shadow", 0, b""),
            "\"/etc/shadow\" is not an earlier file",
        ),
        (
            "through",
            file("etc/motd/x", b"x"),
            "\"etc/motd\" is not a directory",
        ),
        (
            "claimed",
            member("big", b'0', "", 0o77_777_777_777, b""),
            "cut short",
        ),
        ("checksum", vec![1; 512], "checksum does not match"),
    ] {
        let bytes = archive(&[first.clone(), bad]);
        let plain = env.write(format!("{name}.tar"), &bytes);
        let packed = env.path(format!("{name}.tar.gz"));
        let gzip = run(tool("gzip").arg("-c").arg(&plain)).stdout;
        fs_err::write(&packed, gzip).unwrap();
        for rootfs in [&plain, &packed] {
            let end = assemble(&env, rootfs, &[&out.join("d.raw")], &[]).expect_code(1);
            for part in [told, "entry 2 at byte 1024", &rootfs.display().to_string()] {
                assert!(end.stderr.contains(part), "no `{part}` in\n{end}");
            }
            assert_eq!(fs_err::read_dir(&out).unwrap().count(), 0, "{end}");
        }
    }
    let bzip2 = env.write("a.tar.bz2", b"BZh91AY&SY and more");
    let end = assemble(&env, &bzip2, &[&out.join("d.raw")], &[]).expect_code(1);
    assert!(end.stderr.contains(&bzip2.display().to_string()), "{end}");
    assert_eq!(fs_err::read_dir(&out).unwrap().count(), 0, "{end}");
}

#[test]
fn a_bomb_ends_at_the_size_of_the_disk() {
    let env = Env::new();
    let out = env.path("out");
    fs_err::create_dir(&out).unwrap();
    let zeros = vec![0; 40 << 20];
    let plain = env.write(
        "bomb.tar",
        archive(&[file("a", b"x"), file("bomb", &zeros), file("more", &zeros)]),
    );
    for (program, ext) in [("gzip", "gz"), ("zstd", "zst"), ("xz", "xz")] {
        let packed = env.path(format!("bomb.tar.{ext}"));
        fs_err::write(&packed, run(tool(program).arg("-c").arg(&plain)).stdout).unwrap();
        let end =
            assemble(&env, &packed, &[&out.join("d.raw")], &["--size", "64MiB"]).expect_code(1);
        for part in [
            "entry 3 at byte 41944576",
            "more than 67108864 bytes of file data",
            "the size of the disk",
        ] {
            assert!(end.stderr.contains(part), "no `{part}` in\n{end}");
        }
        assert_eq!(fs_err::read_dir(&out).unwrap().count(), 0, "{end}");
    }
}

#[test]
fn whiteouts_and_names_that_look_alike_are_kept() {
    let env = Env::new();
    let names = ["README", "readme", "caf\u{e9}", "cafe\u{301}"];
    let mut members: Vec<_> = names
        .iter()
        .map(|name| file(name, name.as_bytes()))
        .collect();
    members.push(file(".wh.README", b""));
    members.push(file("null-not", b""));
    members.push(member("loop0", b'4', "", 0, b""));
    let tar = env.write("a.tar", archive(&members));
    let (raw, qcow2) = (env.path("a.raw"), env.path("a.qcow2"));
    let end = assemble(&env, &tar, &[&raw, &qcow2], &[]).expect_code(0);
    assert!(end.stderr.contains("1 names start with `.wh.`"), "{end}");
    check::qemu_img_compare(&raw, "raw", &qcow2, "qcow2");
    let root = root_of(&env, &raw);
    for name in names {
        assert_eq!(check::ext4_cat(&root, &format!("/{name}")), name.as_bytes());
    }
    assert!(stat(&root, "/.wh.README").contains("Type: regular"));
    let device = stat(&root, "/loop0");
    assert!(
        device.contains("Type: block special") && device.contains("Mode:  04755"),
        "{device}"
    );
    assert!(device.contains("07:00"), "{device}");
}

#[test]
fn several_members_frames_and_streams_are_one_archive() {
    let env = Env::new();
    let bytes = archive(&[
        file("a", b"1"),
        file("b", &vec![7; 100_000]),
        file("c", b"3"),
    ]);
    let plain = env.write("plain.tar", &bytes);
    let raw = env.path("plain.raw");
    assemble(&env, &plain, &[&raw], &[]).expect_code(0);
    let expected = check::debugfs(&root_of(&env, &raw), "ls -l /");
    for (program, ext) in [("gzip", "gz"), ("zstd", "zst"), ("xz", "xz")] {
        // Cut in the middle of a member and packed as several files one behind the other.
        let mut packed = Vec::new();
        for (i, part) in bytes.chunks(bytes.len() / 3).enumerate() {
            let part = env.write(format!("part{i}"), part);
            packed.extend(run(tool(program).arg("-c").arg(&part)).stdout);
        }
        let tar = env.write(format!("many.tar.{ext}"), &packed);
        let raw = env.path(format!("{ext}.raw"));
        assemble(&env, &tar, &[&raw], &[]).expect_code(0);
        let root = root_of(&env, &raw);
        assert_eq!(check::debugfs(&root, "ls -l /"), expected, "{program}");
        assert_eq!(check::ext4_cat(&root, "/b"), vec![7; 100_000], "{program}");
        // The same cut short.
        let cut = env.write(format!("cut.tar.{ext}"), &packed[..packed.len() - 20]);
        let end = assemble(&env, &cut, &[&env.path("cut.raw")], &[]).expect_code(1);
        assert!(end.stderr.contains("tar archive, entry"), "{end}");
    }
}

#[test]
fn a_folder_comes_with_everything_that_is_in_it() {
    let env = Env::new();
    let root = env.path("root");
    fs_err::create_dir(&root).unwrap();
    run(tool("bash").current_dir(&root).args([
        "-euc",
        r#"umask 022; mkdir d; echo x > d/f; ln d/f d/g; chown 1234:4321 d/f; chmod 4711 d/f
        setfattr -n user.a -v 1 d; setfacl -m u:77:rwx d; setfacl -d -m g:78:r d
        truncate -s 64M hole; echo end >> hole; mknod white c 0 0; mkfifo p
        setfattr -n trusted.overlay.opaque -v y d
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("s")'"#,
    ]));
    let raw = env.path("a.raw");
    assemble(&env, &root, &[&raw], &[]).expect_code(0);
    let image = root_of(&env, &raw);
    let f = stat(&image, "/d/f");
    assert!(
        f.contains("User:  1234   Group:  4321") && f.contains("Links: 2") && f.contains("04711"),
        "{f}"
    );
    for (path, part) in [
        ("/white", "Type: character special"),
        ("/p", "Type: FIFO"),
        ("/s", "Type: socket"),
        ("/hole", "Size: 67108868"),
        ("/d", "user.a (1) = \"1\""),
        ("/d", "system.posix_acl_access"),
        ("/d", "system.posix_acl_default"),
        ("/d", "trusted.overlay.opaque (1) = \"y\""),
    ] {
        let text = stat(&image, path);
        assert!(text.contains(part), "no `{part}` for {path} in\n{text}");
    }
    assert!(
        stat(&image, "/hole").contains("Blockcount: 8\n"),
        "holes stay holes"
    );

    // Root reads everything, so it is an ordinary user that meets a file of somebody else.
    let closed = env.path("closed");
    run(tool("bash")
        .args([
            "-euc",
            r#"mkdir -p "$1"; echo secret > "$1/secret"; chmod 0600 "$1/secret""#,
            "bash",
        ])
        .arg(&closed));
    for path in [
        env.path(""),
        env.path("home"),
        env.path("state"),
        env.path("tmp"),
    ] {
        run(tool("chmod").arg("0777").arg(&path));
    }
    let mut command = tool("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg("env")
        .arg(format!("AMIFORGE_HOME={}", env.state().display()))
        .arg(format!("HOME={}", env.path("home").display()))
        .arg(amiforge_testkit::amiforge_binary())
        .args(["disk", "assemble", "--boot", "none", "--rootfs"])
        .arg(&closed)
        .arg("--out")
        .arg(env.path("tmp/out.raw"));
    let end = finish(&mut command).expect_code(1);
    for part in [
        "cannot open \"secret\"",
        "Permission denied",
        "from a tar archive made by root",
    ] {
        assert!(end.stderr.contains(part), "no `{part}` in\n{end}");
    }
    assert_eq!(fs_err::read_dir(env.path("tmp")).unwrap().count(), 0);
}
