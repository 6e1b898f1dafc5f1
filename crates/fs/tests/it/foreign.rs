//! Images of other makers: what mke2fs and debugfs wrote, our reader must give back.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use amiforge_fs::ext4::{FileKind, ReadError, Reader};
use amiforge_types::Digest;

use crate::image::HostFile;
use crate::{corpus, reader, tool};

/// A folder with what an ordinary user can make, and much of it.
fn folder(at: &Path) {
    let put = |path: &str, bytes: &[u8]| fs::write(at.join(path), bytes).unwrap();
    for dir in ["etc", "big", "deep", "sparse", "empty"] {
        fs::create_dir_all(at.join(dir)).unwrap();
    }
    put("etc/hostname", b"foreign\n");
    put("etc/zero", b"");
    put("etc/tiny", b"0123456789");
    put("etc/hundred", &corpus::noise(100, 3));
    put("etc/block", &corpus::noise(4096, 1));
    put("etc/odd", &corpus::noise(300_001, 2));
    for i in 0..700 {
        put(
            &format!("big/a name of some length, so that blocks fill, number {i}"),
            format!("{i}").as_bytes(),
        );
    }
    let mut deep = at.join("deep");
    for _ in 0..60 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("bottom"), b"found").unwrap();
    for (name, len) in [("short", 3), ("fast", 59), ("slow", 60), ("long", 900)] {
        let target: String = "xy/".chars().cycle().take(len).collect();
        symlink(target, at.join(format!("etc/link-{name}"))).unwrap();
    }
    fs::hard_link(at.join("etc/odd"), at.join("etc/odd-again")).unwrap();
    fs::set_permissions(at.join("etc/block"), fs::Permissions::from_mode(0o4751)).unwrap();
    // Pieces apart from each other: a tree of extents, or indirect blocks of all levels.
    let sparse = fs::File::create(at.join("sparse/pieces")).unwrap();
    for i in 0..160_u64 {
        let piece = corpus::noise(1024, i as u32);
        std::os::unix::fs::FileExt::write_all_at(&sparse, &piece, i * i * 400 / 1024 * 1024)
            .unwrap();
    }
    // mke2fs 1.47.0 forgets a hole at the end of a file, so there is none.
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", 12_000_000).unwrap();
}

/// Makes an image of the folder, with more than files can say put in by debugfs.
fn make(image: &Path, from: &Path, options: &[&str], size: &str) {
    let (image, from) = (image.to_string_lossy(), from.to_string_lossy());
    let mut args = vec!["-q", "-F", "-d", &from, "-E", "lazy_itable_init=1"];
    args.extend(options);
    args.extend([&*image, size]);
    tool::stdout("mke2fs", &args);
}

fn open(image: &Path) -> Reader {
    let source = HostFile::open(image);
    let len = source.size();
    Reader::open(source, 0, len).unwrap()
}

/// Every path of the folder, compared with what the reader says about it.
fn compare(reader: &Reader, host: &Path) {
    let mut stack = vec![PathBuf::new()];
    let mut numbers: BTreeMap<u64, u32> = BTreeMap::new();
    while let Some(path) = stack.pop() {
        let on_host = host.join(&path);
        let name = format!("/{}", path.display());
        let meta = fs::symlink_metadata(&on_host).unwrap();
        let stat = reader
            .stat(name.as_bytes())
            .unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
        if !path.as_os_str().is_empty() {
            assert_eq!(u32::from(stat.mode), meta.mode() & 0o7777, "{name}");
            assert_eq!((stat.uid, stat.gid), (meta.uid(), meta.gid()), "{name}");
            assert_eq!(stat.mtime.secs, meta.mtime(), "{name}");
        }
        if meta.is_dir() {
            let mut wanted: Vec<Vec<u8>> = Vec::new();
            for entry in fs::read_dir(&on_host).unwrap() {
                let entry = entry.unwrap();
                wanted.push(entry.file_name().as_encoded_bytes().to_vec());
                stack.push(path.join(entry.file_name()));
            }
            wanted.sort();
            let found: Vec<_> = reader
                .list(name.as_bytes())
                .unwrap_or_else(|e| panic!("{name}: {}", chain(&e)))
                .into_iter()
                .map(|e| e.name)
                .filter(|n| n != b"lost+found")
                .collect();
            assert_eq!(found, wanted, "{name}");
        } else if meta.is_symlink() {
            let target = fs::read_link(&on_host).unwrap();
            assert_eq!(
                reader.read_link(name.as_bytes()).unwrap(),
                target.as_os_str().as_encoded_bytes(),
                "{name}"
            );
        } else {
            assert_eq!(stat.size, meta.len(), "{name}");
            assert_eq!(u64::from(stat.nlink), meta.nlink(), "{name}");
            let known = numbers.entry(meta.ino()).or_insert(stat.ino);
            assert_eq!(*known, stat.ino, "{name}");
            let bytes = reader
                .read(name.as_bytes())
                .unwrap_or_else(|e| panic!("{name}: {}", chain(&e)));
            assert!(bytes == fs::read(&on_host).unwrap(), "{name}: other bytes");
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Feature sets that mke2fs can make, with a size that holds the folder.
const MAKES: [(&[&str], &str); 29] = [
    (&["-t", "ext2"], "64M"),
    (&["-t", "ext2", "-b", "1024"], "64M"),
    (&["-t", "ext2", "-b", "1024", "-r", "0"], "64M"),
    (&["-t", "ext3", "-b", "1024"], "64M"),
    (&["-t", "ext3", "-b", "4096"], "64M"),
    (&["-t", "ext4", "-b", "1024"], "64M"),
    (&["-t", "ext4", "-b", "2048"], "64M"),
    (&["-t", "ext4", "-b", "4096"], "64M"),
    (&["-t", "ext4", "-b", "65536"], "512M"),
    (&["-t", "ext4", "-b", "4096", "-I", "128"], "64M"),
    (&["-t", "ext4", "-b", "4096", "-I", "1024"], "64M"),
    (&["-t", "ext4", "-b", "1024", "-O", "^64bit"], "64M"),
    (&["-t", "ext4", "-b", "4096", "-O", "^metadata_csum"], "64M"),
    (
        &[
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "^metadata_csum,uninit_bg,^64bit",
        ],
        "64M",
    ),
    (
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,uninit_bg"],
        "64M",
    ),
    (
        &["-t", "ext4", "-b", "4096", "-O", "metadata_csum_seed"],
        "64M",
    ),
    (
        &["-t", "ext4", "-b", "1024", "-O", "meta_bg,^resize_inode"],
        "200M",
    ),
    (
        &[
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "meta_bg,^resize_inode,^flex_bg",
        ],
        "200M",
    ),
    (&["-t", "ext4", "-b", "1024", "-O", "sparse_super2"], "200M"),
    (
        &[
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "^sparse_super,^resize_inode",
        ],
        "200M",
    ),
    (&["-t", "ext4", "-b", "4096", "-O", "inline_data"], "64M"),
    (
        &["-t", "ext4", "-b", "4096", "-O", "bigalloc", "-C", "16384"],
        "256M",
    ),
    // The first block is 0, and the superblock in block 1.
    (&["-t", "ext4", "-b", "1024", "-O", "bigalloc"], "300M"),
    (
        &[
            "-t",
            "ext4",
            "-b",
            "1024",
            "-O",
            "bigalloc,meta_bg,^resize_inode",
        ],
        "300M",
    ),
    (
        &["-t", "ext4", "-b", "1024", "-O", "bigalloc,inline_data"],
        "64M",
    ),
    (
        &["-t", "ext4", "-b", "1024", "-O", "^extents,^64bit"],
        "64M",
    ),
    (
        &[
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "large_dir,ea_inode,quota,project",
        ],
        "64M",
    ),
    (&["-t", "ext4", "-b", "1024", "-O", "^filetype"], "64M"),
    (
        &[
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "mmp,^has_journal",
            "-G",
            "4",
        ],
        "64M",
    ),
];

#[test]
fn images_of_mke2fs_with_all_features_read_as_the_folder() {
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    fs::create_dir(&host).unwrap();
    folder(&host);
    let image = tmp.path().join("image");
    for (options, size) in MAKES {
        println!("mke2fs {options:?}");
        let _ = fs::remove_file(&image);
        make(&image, &host, options, size);
        compare(&open(&image), &host);
        // With all directories sorted and indexed.
        let out = tool::run("e2fsck", &["-fyD", &image.to_string_lossy()]);
        assert!(out.status.code().is_some_and(|code| code < 4), "{out:?}");
        compare(&open(&image), &host);
        counts_agree(&image);
    }
}

/// The free counts of e2fsprogs.
fn counts_agree(image: &Path) {
    let usage = open(image).usage().unwrap();
    let text = tool::text("dumpe2fs", &["-h", &image.to_string_lossy()]);
    let field = |name: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(usage.block_size, field("Block size:"));
    assert_eq!(usage.blocks, field("Block count:"));
    assert_eq!(usage.free_blocks, field("Free blocks:"));
    assert_eq!(usage.inodes, field("Inode count:"));
    assert_eq!(usage.free_inodes, field("Free inodes:"));
}

/// A file that is larger than what its inode has, and has nothing else, is a hole behind that.
#[test]
fn files_in_inodes_may_end_with_a_hole() {
    const SIZE: u64 = 5 << 20;
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("hole"), b"").unwrap();
    let hole = fs::OpenOptions::new().write(true).open(host.join("hole"));
    hole.unwrap().set_len(SIZE).unwrap();
    fs::write(host.join("text"), b"begins").unwrap();
    let image = tmp.path().join("image");
    make(&image, &host, &["-t", "ext4", "-O", "inline_data"], "64M");
    let at = image.to_string_lossy();
    tool::stdout(
        "debugfs",
        &["-w", "-R", &format!("sif text size {SIZE}"), &at],
    );
    let out = tool::run("e2fsck", &["-fn", &at]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");

    let disk = open(&image);
    let (found, blobs) = reader::import(&image);
    let text = reader::dump(&found.tree, &blobs);
    for (name, begin) in [("hole", &b""[..]), ("text", b"begins")] {
        let stat = tool::text("debugfs", &["-R", &format!("stat {name}"), &at]);
        assert!(stat.contains("Size of inline data: 60"), "{stat}");
        assert!(stat.contains(&format!("Size: {SIZE}")), "{stat}");
        // debugfs gives what is in the inode, the kernel zeros behind it.
        let told = tool::stdout("debugfs", &["-R", &format!("cat {name}"), &at]);
        assert_eq!((&told[..begin.len()], told.len()), (begin, 60), "{name}");
        let mut bytes = told;
        bytes.resize(usize::try_from(SIZE).unwrap(), 0);
        assert!(disk.read(name.as_bytes()).unwrap() == bytes, "{name}");
        assert!(
            text.contains(&Digest::of(&bytes).hex()),
            "{name} in the tree: {text}"
        );
    }
    // A directory or a link is what it has, and no more.
    tool::stdout("debugfs", &["-w", "-R", "mkdir d", &at]);
    tool::stdout("debugfs", &["-w", "-R", "sif d size 4096", &at]);
    let error = chain(&open(&image).list(b"/d").unwrap_err());
    assert!(error.contains("larger than the data"), "{error}");
}

#[test]
fn every_directory_hash_finds_every_name() {
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    fs::create_dir_all(host.join("d")).unwrap();
    let names: Vec<String> = (0..1500)
        .map(|i| format!("d/n\u{e4}me {i} \u{20ac}"))
        .collect();
    for name in &names {
        fs::write(host.join(name), b"").unwrap();
    }
    let image = tmp.path().join("image");
    for algorithm in ["legacy", "half_md4", "tea"] {
        let _ = fs::remove_file(&image);
        make(&image, &host, &["-t", "ext4", "-b", "1024"], "32M");
        let at = image.to_string_lossy();
        tool::stdout("tune2fs", &["-E", &format!("hash_alg={algorithm}"), &at]);
        for flags in ["signed_directory_hash", "unsigned_directory_hash"] {
            tool::stdout(
                "debugfs",
                &[
                    "-w",
                    "-R",
                    &format!("ssv flags {}", if flags.starts_with('s') { 1 } else { 2 }),
                    &at,
                ],
            );
            let out = tool::run("e2fsck", &["-fyD", &at]);
            assert!(out.status.code().is_some_and(|code| code < 4), "{out:?}");
            let reader = open(&image);
            assert!(reader.stat(b"/d").unwrap().flags & 0x1000 != 0, "no index");
            for name in &names {
                assert!(
                    reader.stat(name.as_bytes()).is_ok(),
                    "{algorithm} {flags} {name}"
                );
            }
            assert!(matches!(
                reader.stat(b"/d/none"),
                Err(ReadError::NotFound(_))
            ));
            let found = reader.list(b"/d").unwrap();
            assert_eq!(found.len(), names.len(), "{algorithm} {flags}");
        }
    }
}

#[test]
fn what_debugfs_adds_is_seen() {
    let tmp = tempfile::tempdir().unwrap();
    let image = tmp.path().join("image");
    let big = tmp.path().join("value");
    fs::write(&big, corpus::noise(2000, 1)).unwrap();
    let huge = tmp.path().join("huge");
    // More than a block holds beside its headers, so it goes into an inode of its own.
    fs::write(&huge, corpus::noise(4096, 2)).unwrap();
    let script = tmp.path().join("script");
    let acl = tmp.path().join("acl");
    let list = corpus::acl(&[
        (1, 7, u32::MAX),
        (2, 5, 1000),
        (4, 5, u32::MAX),
        (16, 7, u32::MAX),
        (32, 5, u32::MAX),
    ]);
    fs::write(&acl, &list).unwrap();
    let commands = format!(
        "write {big} f\nmknod c c 5 1\nmknod b b 259 65000\nmknod p p\n\
         ea_set f user.small one\nea_set -f {big} f user.big\nea_set -f {huge} f user.huge\n\
         ea_set -f {acl} f system.posix_acl_access\nea_set f trusted.t two\n\
         sif f flags 0x80030\nsif f uid 70000\nsif f gid 4000000000\n\
         sif f mtime 19011225030405\nsif f atime 21500102030405\nsif f ctime 20390102030405\n",
        big = big.display(),
        huge = huge.display(),
        acl = acl.display(),
    );
    fs::write(&script, commands).unwrap();
    tool::stdout(
        "mke2fs",
        &[
            "-q",
            "-t",
            "ext4",
            "-b",
            "4096",
            "-O",
            "ea_inode",
            &image.to_string_lossy(),
            "32M",
        ],
    );
    tool::stdout(
        "debugfs",
        &[
            "-w",
            "-f",
            &script.to_string_lossy(),
            &image.to_string_lossy(),
        ],
    );
    let out = tool::run("e2fsck", &["-fy", &image.to_string_lossy()]);
    assert!(out.status.code().is_some_and(|code| code < 4), "{out:?}");
    let reader = open(&image);
    let stat = reader.stat(b"f").unwrap();
    assert_eq!((stat.uid, stat.gid), (70_000, 4_000_000_000));
    assert_eq!(stat.flag_letters(), "iae");
    // Seconds of the dates above, as `date -u +%s -d` counts them.
    assert_eq!(stat.mtime.secs, -2_146_510_555);
    assert_eq!(stat.atime.secs, 5_680_379_045);
    assert_eq!(stat.ctime.secs, 2_177_550_245);
    let xattrs = reader.xattrs(b"f").unwrap();
    let get = |name: &str| xattrs[name.as_bytes()].clone();
    assert_eq!(get("user.small"), b"one");
    assert_eq!(get("trusted.t"), b"two");
    assert_eq!(get("user.big"), corpus::noise(2000, 1));
    let (huge, wanted) = (get("user.huge"), corpus::noise(4096, 2));
    let same = huge.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    assert_eq!((huge.len(), same), (wanted.len(), wanted.len()));
    assert_eq!(get("system.posix_acl_access"), list);
    assert_eq!(xattrs.len(), 5);
    assert_eq!(reader.stat(b"c").unwrap().rdev, Some((5, 1)));
    assert_eq!(reader.stat(b"b").unwrap().rdev, Some((259, 65_000)));
    assert_eq!(reader.stat(b"p").unwrap().kind, FileKind::Fifo);
    assert_eq!(reader.stat(b"p").unwrap().rdev, None);
}

#[test]
fn block_maps_of_all_levels() {
    let tmp = tempfile::tempdir().unwrap();
    let host = tmp.path().join("host");
    fs::create_dir(&host).unwrap();
    let file = fs::File::create(host.join("far")).unwrap();
    // Direct, and the first and last block under each level of indirect blocks of 1024 bytes.
    let blocks = [0, 11, 12, 267, 268, 65_803, 65_804, 131_340, 200_000];
    for block in blocks {
        let piece = corpus::noise(1024, block as u32);
        std::os::unix::fs::FileExt::write_all_at(&file, &piece, block * 1024).unwrap();
    }
    let image = tmp.path().join("image");
    make(&image, &host, &["-t", "ext2", "-b", "1024"], "8M");
    let reader = open(&image);
    let runs = reader.data_runs(b"far").unwrap();
    let covered: Vec<u64> = runs
        .iter()
        .flat_map(|run| run.offset / 1024..(run.offset + run.len) / 1024)
        .collect();
    assert_eq!(covered, blocks);
    let mut buf = [0; 3072];
    for block in blocks {
        let at = (block * 1024).saturating_sub(1024);
        let len = reader.read_at(b"far", at, &mut buf).unwrap();
        let skip = (block * 1024 - at) as usize;
        assert!(buf[skip..skip + 1024] == corpus::noise(1024, block as u32));
        assert_eq!(len, buf.len().min((200_001 * 1024 - at) as usize));
    }
}
