//! What the options choose: features, number of inodes, inode flags.

use amiforge_fs::ext4::{self, Ext4Error, Inodes, Options, Profile, Size};
use amiforge_tree::{Inode, InodeFlags, Kind, Tree};
use amiforge_types::{BlobTable, GIB, MIB};

use crate::corpus::{self, options};
use crate::tool::{self, debugfs};
use crate::{compare, differential, image};

fn legacy(size: u64) -> Options {
    Options {
        profile: Profile::Legacy,
        ..options(Size::Volume(size))
    }
}

fn summary_of(path: &std::path::Path) -> String {
    tool::text("dumpe2fs", &["-h", &path.to_string_lossy()])
}

fn field(summary: &str, name: &str) -> String {
    let line = summary.lines().find(|l| l.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {summary}"));
    line[name.len()..].trim().to_owned()
}

/// A file system that mke2fs makes, with these arguments.
fn mke2fs(size: u64, args: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reference");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(size).unwrap();
    let disk = path.to_string_lossy();
    let common = ["-q", "-t", "ext4", "-b", "4096", "-I", "256"];
    tool::stdout("mke2fs", &[&common[..], args, &[&disk]].concat());
    summary_of(&path)
}

/// One of everything, and a directory with an index of two levels.
fn much() -> (Tree, BlobTable) {
    let (mut tree, blobs) = corpus::everything();
    tree.insert(b"big", corpus::dir()).unwrap();
    tree.insert(b"one", corpus::file(b"1")).unwrap();
    for i in 0..30_000 {
        let name = format!("big/{i:->200}");
        tree.link(name.as_bytes(), b"one").unwrap();
    }
    (tree, blobs)
}

#[test]
fn the_legacy_profile_has_no_checksums_and_is_clean() {
    let (tree, blobs) = much();
    for size in [100 * MIB, 128 * MIB, 1300 * MIB, 20 * GIB] {
        let plan = ext4::plan(&tree, &legacy(size)).unwrap();
        let image = image::write(&plan.extents, &blobs);
        tool::e2fsck(&image.path);
        let ours = summary_of(&image.path);
        let features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,\
                        flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize";
        let theirs = mke2fs(size, &["-i", "16384", "-O", features]);
        for name in [
            "Filesystem features:",
            "Filesystem flags:",
            "Inode count:",
            "Block count:",
            "Group descriptor size:",
            "Reserved GDT blocks:",
            "Inodes per group:",
        ] {
            assert_eq!(field(&ours, name), field(&theirs, name), "{name} at {size}");
        }
        assert!(!ours.contains("Checksum"), "{ours}");
        // debugfs complains here about missing checksums, also of what the kernel wrote.
        let disk = image.path.to_string_lossy();
        let dump = tool::text("debugfs", &["-R", "htree_dump /big", &disk]);
        assert!(dump.contains("Indirect levels: 1"), "{}", &dump[..400]);
        assert!(
            dump.contains("Number of entries (limit): 508"),
            "{}",
            &dump[..400]
        );
        compare::with_reader(&tree, &blobs, &image.path);
    }
}

/// mkext4 reads indexes with checksums only, so without one.
#[test]
fn a_second_reader_agrees_on_the_legacy_profile() {
    let mut tree = corpus::tree();
    for i in 0..40 {
        let inode = corpus::with_xattrs(
            corpus::file(&corpus::noise(i * 999, 1)),
            &[("user.a", &[1; 50]), ("user.b", &[2; 50])],
        );
        tree.insert(format!("{i}").as_bytes(), inode).unwrap();
    }
    let blobs = BlobTable::new();
    let plan = ext4::plan(&tree, &legacy(300 * MIB)).unwrap();
    let image = image::write(&plan.extents, &blobs);
    tool::e2fsck(&image.path);
    differential::with_mkext4(&tree, &blobs, &image.path);
}

#[test]
fn the_legacy_profile_grows() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &legacy(1300 * MIB)).unwrap();
    let image = image::write(&plan.extents, &blobs);
    let file = std::fs::OpenOptions::new().write(true).open(&image.path);
    file.unwrap().set_len(40 * GIB).unwrap();
    tool::stdout("resize2fs", &["-f", &image.path.to_string_lossy()]);
    tool::e2fsck(&image.path);
    compare::with_reader(&tree, &blobs, &image.path);
}

#[test]
fn the_number_of_inodes_is_as_asked_for() {
    let mut tree = corpus::tree();
    for i in 0..1000 {
        tree.insert(format!("{i}").as_bytes(), corpus::file(b""))
            .unwrap();
    }
    let with = |inodes, size| {
        let options = Options {
            inodes,
            ..options(Size::Volume(size))
        };
        ext4::plan(&tree, &options)
    };
    let made = |inodes, size| {
        let plan = with(inodes, size).unwrap();
        let image = image::write(&plan.extents, &BlobTable::new());
        tool::e2fsck(&image.path);
        let shown = field(&summary_of(&image.path), "Inode count:");
        assert_eq!(shown, plan.inodes.to_string());
        plan.inodes
    };
    for (count, size) in [(1_011, 64 * MIB), (5_000, 300 * MIB), (1_000_000, 40 * GIB)] {
        let theirs = mke2fs(size, &["-N", &count.to_string()]);
        let ours = made(Inodes::Count(count), size);
        assert_eq!(field(&theirs, "Inode count:"), ours.to_string());
    }
    // From the content: whatever the volume, the same but for rounding.
    for size in [64 * MIB, 2 * GIB] {
        let inodes = made(Inodes::Content, size);
        assert!((1011..1400).contains(&inodes), "{inodes} in {size}");
    }
    assert_eq!(made(Inodes::PerBytes(65_536), 2 * GIB), 32_768);
    assert!(matches!(
        with(Inodes::Count(1010), 64 * MIB),
        Err(Ext4Error::TooFewInodes {
            given: 1010,
            needed: 1011
        })
    ));
    // 100,000 take four groups: the error says how large a volume has them.
    let Err(Ext4Error::TooSmall { needed, .. }) = with(Inodes::Count(100_000), 64 * MIB) else {
        panic!("too many inodes for one group");
    };
    assert!(made(Inodes::Count(100_000), needed) >= 100_000);
    assert!(matches!(
        with(Inodes::Count(u64::MAX), GIB),
        Err(Ext4Error::TooManyInodes(_))
    ));
    assert!(matches!(
        with(Inodes::PerBytes(1000), GIB),
        Err(Ext4Error::InodeRatio(1000))
    ));
}

#[test]
fn inode_flags_are_those_of_chattr() {
    let mut tree = corpus::tree();
    let all = InodeFlags::from_bits_truncate(u32::MAX);
    let mut put = |path: &[u8], mut inode: Inode, flags| {
        inode.flags = flags;
        tree.insert(path, inode).unwrap();
    };
    let special = |kind| Inode::new(corpus::stat(0o600), kind);
    put(b"fixed", corpus::file(b"never"), InodeFlags::IMMUTABLE);
    put(
        b"log",
        corpus::file(b"more"),
        InodeFlags::APPEND_ONLY | InodeFlags::NO_DUMP,
    );
    put(
        b"sealed",
        corpus::dir(),
        InodeFlags::IMMUTABLE | InodeFlags::NO_ATIME,
    );
    put(b"file", corpus::file(b"all"), all);
    put(b"dir", corpus::dir(), all);
    put(b"fifo", special(Kind::Fifo), all);
    put(b"null", special(Kind::CharDev { major: 1, minor: 3 }), all);
    put(b"link", special(Kind::Symlink(b"file".to_vec())), all);
    let blobs = BlobTable::new();
    let plan = ext4::plan(&tree, &options(Size::Volume(16 * MIB))).unwrap();
    let image = image::write(&plan.extents, &blobs);
    tool::e2fsck(&image.path);
    for (path, flags) in [
        ("fixed", "0x80010"),
        ("log", "0x80060"),
        ("sealed", "0x80090"),
        ("file", "0x8c0ff"),
        ("dir", "0xbc0ff"),
        ("fifo", "0xc0"),
        ("null", "0xc0"),
        ("link", "0xc0"),
    ] {
        let shown = debugfs(&image.path, &format!("stat /{path}"));
        assert!(
            shown.contains(&format!("Flags: {flags}\n")),
            "{path}: {shown}"
        );
    }
    differential::with_mkext4(&tree, &blobs, &image.path);
}
