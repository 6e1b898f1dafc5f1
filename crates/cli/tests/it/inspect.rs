//! `inspect` on images that other tools made, without partitions and with.

use std::os::unix::fs::symlink;
use std::path::Path;

use amiforge_testkit::{Env, Finished, finish, run, tool};

fn inspect(env: &Env, image: &Path, args: &[&str]) -> Finished {
    finish(env.amiforge().arg("inspect").arg(image).args(args))
}

#[test]
fn an_image_of_mke2fs_shows_links_attributes_and_flags() {
    let env = Env::new();
    let host = env.path("host");
    fs_err::create_dir_all(host.join("a/b/c")).unwrap();
    env.write("host/a/file", "content\n");
    env.write("host/a/b/c/deep", "deep\n");
    fs_err::hard_link(host.join("a/file"), host.join("a/other")).unwrap();
    symlink("file", host.join("a/link")).unwrap();
    let image = env.path("disk.img");
    run(tool("mke2fs")
        .args(["-q", "-F", "-t", "ext3", "-d"])
        .arg(&host)
        .arg(&image)
        .arg("16M"));
    for request in [
        "ea_set /a/file user.note hello",
        "sif /a/file flags 0x10",
        "sif /a/file mode 0104750",
    ] {
        run(tool("debugfs").args(["-w", "-R", request]).arg(&image));
    }
    // mknod takes a name in the current directory, not a path.
    let commands = env.write("commands", "cd /a\nmknod device b 8 1\n");
    run(tool("debugfs").args(["-w", "-f"]).arg(commands).arg(&image));

    let stat = inspect(&env, &image, &["stat", "/a/file", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(stat["nlink"], 2);
    assert_eq!(stat["mode"], "4750");
    assert_eq!(stat["flags"], "i");
    assert_eq!(stat["xattrs"][0]["name"], "user.note");
    assert_eq!(stat["xattrs"][0]["text"], "hello");
    let other = inspect(&env, &image, &["stat", "/a/other", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(stat["inode"], other["inode"]);
    let text = inspect(&env, &image, &["stat", "/a/file"])
        .expect_code(0)
        .text();
    for line in ["links  2", "flags  i", "xattr  user.note=hello"] {
        assert!(
            text.lines().any(|l| l == line),
            "{line:?} is not in\n{text}"
        );
    }

    let list = inspect(&env, &image, &["ls", "-l", "/a"])
        .expect_code(0)
        .text();
    let line = |name: &str| list.lines().find(|l| l.ends_with(name)).unwrap();
    assert!(line(" file").starts_with("-rwsr-x---@   2 "), "{list}");
    assert!(line(" b").starts_with("drwx"), "{list}");
    assert!(
        line(" link -> file").starts_with("lrwxrwxrwx    1 "),
        "{list}"
    );
    assert!(
        line(" device").starts_with("b") && line(" device").contains(" 8:1 "),
        "{list}"
    );

    let drawn = inspect(&env, &image, &["tree", "/a"]).expect_code(0).text();
    let wanted = "\
├── b/
│   └── c/
│       └── deep
├── device
├── file
├── link -> file
└── other = file
";
    assert_eq!(drawn, wanted);
    let drawn = inspect(&env, &image, &["tree", "/a", "--depth", "1", "--json"])
        .expect_code(0)
        .json();
    let paths: Vec<&str> = drawn
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["b", "device", "file", "link", "other"]);
    assert_eq!(drawn[4]["hardLinkTo"], "file");
}

#[test]
fn a_fat_volume_is_drawn() {
    let env = Env::new();
    let image = env.path("disk.img");
    let host = env.path("EFI");
    fs_err::create_dir_all(host.join("BOOT")).unwrap();
    env.write("EFI/BOOT/a long name.efi", vec![7; 5000]);
    run(tool("mkfs.vfat")
        .args(["-C", "-F", "16"])
        .arg(&image)
        .arg("16384"));
    run(tool("mcopy")
        .args(["-s", "-i"])
        .arg(&image)
        .arg(&host)
        .arg("::/"));
    let drawn = inspect(&env, &image, &["tree"]).expect_code(0).text();
    assert_eq!(
        drawn,
        "└── EFI/\n    └── BOOT/\n        └── a long name.efi\n"
    );
    let bytes = inspect(&env, &image, &["cat", "/EFI/BOOT/a long name.efi"]).expect_code(0);
    assert_eq!(bytes.stdout, vec![7; 5000]);
    let list = inspect(&env, &image, &["ls", "-l", "/efi/boot"])
        .expect_code(0)
        .text();
    assert!(
        list.contains("5000") && list.ends_with("a long name.efi\n"),
        "{list}"
    );
}
