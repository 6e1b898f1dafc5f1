//! ext4 against e2fsprogs, `ext4-view`, the kernel and GRUB.

use std::sync::Arc;

use amiforge_disk::ExtentData;
use amiforge_fs::ext4::{self, Ext4Error, Options, Plan, Reader, Size};
use amiforge_tree::{Content, DataExtent, DataSource, Inode, Kind, Stat, Tree};
use amiforge_types::{BlobTable, GIB, MIB, Timestamp};

use crate::corpus::{self, options};
use crate::image::{self, Image};
use crate::tool::{self, debugfs};
use crate::{compare, differential};

fn planned(tree: &Tree, size: u64) -> Plan {
    ext4::plan(tree, &options(Size::Volume(size))).unwrap()
}

fn made(tree: &Tree, blobs: &BlobTable, size: u64) -> Image {
    let image = image::write(&planned(tree, size).extents, blobs);
    tool::e2fsck(&image.path);
    image
}

#[test]
fn everything_survives() {
    let (tree, blobs) = corpus::everything();
    let image = made(&tree, &blobs, 256 * MIB);
    compare::with_reader(&tree, &blobs, &image.path);
    let (tree, blobs) = corpus::wide();
    let image = made(&tree, &blobs, 256 * MIB);
    differential::with_mkext4(&tree, &blobs, &image.path);
}

#[test]
fn debugfs_sees_what_the_tree_says() {
    let (mut tree, blobs) = corpus::everything();
    let odd = |secs, nanos| {
        let stat = Stat {
            mtime: Timestamp { secs, nanos },
            ..corpus::stat(0o644)
        };
        Inode::new(stat, Kind::File(Content::default()))
    };
    tree.insert(b"etc/1969", odd(-5, 123_456_789)).unwrap();
    tree.insert(b"etc/2040", odd(2_208_988_800, 1)).unwrap();
    tree.insert(b"etc/1901", odd(i64::from(i32::MIN), 999_999_999))
        .unwrap();
    tree.insert(b"etc/2446", odd((1 << 34) - (1 << 31) - 1, 0))
        .unwrap();
    let image = made(&tree, &blobs, 256 * MIB);
    let stat = |path: &str| debugfs(&image.path, &format!("stat {path}"));

    for (path, low, extra) in [
        ("1969", 0xFFFF_FFFB_u32, 123_456_789_u32 << 2),
        ("2040", 2_208_988_800, 1 << 2 | 1),
        ("1901", 0x8000_0000, 999_999_999 << 2),
        ("2446", 0x7FFF_FFFF, 3),
    ] {
        let text = stat(&format!("/etc/{path}"));
        for field in ["ctime", "atime", "mtime", "crtime"] {
            let wanted = format!("{field}: 0x{low:08x}:{extra:08x}");
            assert!(text.contains(&wanted), "{path}: no {wanted} in\n{text}");
        }
    }
    let tool = stat("/usr/bin/tool");
    assert!(
        tool.contains("Links: 3")
            && tool.contains("Mode:  04755")
            && tool.contains("Size: 1000001"),
        "{tool}"
    );
    assert!(
        stat("/dev/null").contains("Device major/minor number: 01:03"),
        "{}",
        stat("/dev/null")
    );
    assert!(
        stat("/dev/disk").contains("Device major/minor number: 259:1048575"),
        "{}",
        stat("/dev/disk")
    );
    assert!(stat("/dev/pipe").contains("Type: FIFO"));
    assert!(stat("/dev/sock").contains("Type: socket"));
    let tmp = stat("/var/tmp");
    assert!(
        tmp.contains("User: -294967296")
            && tmp.contains("Group: 70000")
            && tmp.contains("Mode:  01777"),
        "{tmp}"
    );
    let hole = stat("/var/hole");
    assert!(
        hole.contains("Size: 1073741824") && hole.contains("Blockcount: 0"),
        "{hole}"
    );
    assert!(stat("/etc/link-fast").contains("Fast link dest: \"xy/xy"));

    let list = debugfs(&image.path, "ls -l /lost+found");
    assert_eq!(
        list.lines().filter(|l| l.contains("13-Sep-2020")).count(),
        2,
        "{list}"
    );
    assert!(
        stat("/lost+found").contains("Size: 16384"),
        "{}",
        stat("/lost+found")
    );

    let attributes = debugfs(&image.path, "ea_list /xattr/many");
    for wanted in [
        "user.comment (300)",
        "user.a (40)",
        "75 73 65 72 2e 63 61 66 c3 a9  (77)",
        "trusted.md5 (16)",
        "security.ima (33)",
    ] {
        assert!(attributes.contains(wanted), "{wanted} in {attributes}");
    }
    assert!(debugfs(&image.path, "ea_list /xattr/few").contains("user.empty (0)"));
    // Version 2 of both: an on-disk list converted by debugfs, a capability without the root id.
    let capability = debugfs(&image.path, "ea_get -x /xattr/ping security.capability");
    assert!(
        capability.contains("01 00 00 02 00 20 00 00"),
        "{capability}"
    );
    let acl = debugfs(&image.path, "ea_list /xattr/journal");
    let disk = "(36) = 01 00 00 00 01 00 07 00 02 00 05 00 e8 03 00 00 04 00 05 00 08 00 07 00 04 00 00 00 10 00 07 00";
    assert!(
        acl.contains(&format!("system.posix_acl_access {disk}")),
        "{acl}"
    );
    assert!(
        acl.contains(&format!("system.posix_acl_default {disk}")),
        "{acl}"
    );

    // Every file's bytes, through the writer's reference implementation.
    let out = image.folder.path().join("dump");
    for (path, name) in [
        ("/usr/bin/tool", "tool"),
        ("/var/sparse", "sparse"),
        ("/var/pieces", "pieces"),
    ] {
        debugfs(&image.path, &format!("dump {path} {}", out.display()));
        let ino = tree.lookup(path.as_bytes()).unwrap();
        let Kind::File(content) = &tree.inode(ino).kind else {
            panic!("{name}")
        };
        assert!(
            std::fs::read(&out).unwrap() == compare::content(content, &blobs),
            "{path}"
        );
    }
    let rdump = image.folder.path().join("rdump");
    std::fs::create_dir(&rdump).unwrap();
    debugfs(&image.path, &format!("rdump /usr {}", rdump.display()));
    for i in [0, 13, 699] {
        let text = std::fs::read(rdump.join(format!("usr/bin/command-number-{i:05}"))).unwrap();
        assert_eq!(text, format!("command {i}\n").into_bytes());
    }
}

#[test]
fn hashes_are_those_of_debugfs() {
    // The hash decides where a name is looked for: e2fsck compares each leaf's range with it, and
    // the kernel finds names through it. Names of all lengths, with signed bytes among them.
    let mut tree = corpus::tree();
    for len in 1..=255_usize {
        let name: Vec<u8> = (0..len)
            .map(|i| b"abc\x80\xff-\xc3\xa9z~"[(i * i + len) % 10])
            .collect();
        tree.insert(&name, corpus::file(b"")).unwrap();
    }
    let image = made(&tree, &BlobTable::new(), 32 * MIB);
    let stat = debugfs(&image.path, "stat /");
    assert!(stat.contains("Flags: 0x81000"), "{stat}");
    let dump = debugfs(&image.path, "htree_dump /");
    assert!(
        dump.contains("Hash Version: 1") && dump.contains("Indirect levels: 0"),
        "{dump}"
    );
    let shown = debugfs(
        &image.path,
        "dx_hash -h half_md4 -s deadbeef-0102-4304-8506-0708090a0b0c lost+found",
    );
    let hash = shown
        .split_whitespace()
        .find(|w| w.starts_with("0x"))
        .unwrap();
    assert!(dump.contains(hash), "{hash} of {shown} is not in\n{dump}");
    compare::with_reader(&tree, &BlobTable::new(), &image.path);
}

#[test]
fn grub_reads_it() {
    let (tree, blobs) = corpus::everything();
    let image = made(&tree, &blobs, 256 * MIB);
    for path in [
        "usr/bin/tool",
        "usr/bin/command-number-00123",
        "var/pieces",
        "etc/block+1",
    ] {
        let bytes = tool::stdout(
            "grub-fstest",
            &[
                &image.path.to_string_lossy(),
                "cat",
                &format!("(loop0)/{path}"),
            ],
        );
        let ino = tree.lookup(path.as_bytes()).unwrap();
        let Kind::File(content) = &tree.inode(ino).kind else {
            panic!("{path}")
        };
        assert!(bytes == compare::content(content, &blobs), "{path}");
    }
}

#[test]
fn same_input_same_bytes_wherever_data_is() {
    let (tree, all) = corpus::everything();
    let a = planned(&tree, 256 * MIB);
    let again = planned(&tree, 256 * MIB);
    let blocks = |plan: &Plan| image::blocks(&plan.extents, &all);
    assert!(blocks(&a) == blocks(&again));
    // The same files from memory or from a blob lie at the same places under the same metadata.
    let bytes: Arc<[u8]> = corpus::noise(100_000, 3).into();
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(Arc::clone(&bytes)));
    let with = |content: Content| {
        let mut tree = corpus::tree();
        tree.insert(b"f", Inode::new(corpus::stat(0o644), Kind::File(content)))
            .unwrap();
        let image = image::write(&planned(&tree, 16 * MIB).extents, &blobs);
        std::fs::read(&image.path).unwrap()
    };
    assert!(with(Content::bytes(bytes)) == with(Content::blob(id, 0, 100_000)));
}

#[test]
fn neighbours_in_a_padded_blob_become_one_extent() {
    let mut blob = Vec::new();
    let mut tree = corpus::tree();
    let mut contents = Vec::new();
    for i in 0..300_u32 {
        // Too large to be small files, of which rows become one extent wherever they are.
        let bytes = corpus::noise(70_001 + (i as usize * 977) % 20_000, i);
        contents.push((blob.len() as u64, bytes.len() as u64));
        blob.extend_from_slice(&bytes);
        blob.resize(blob.len().next_multiple_of(4096), 0);
    }
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(blob));
    for (i, (offset, len)) in contents.iter().enumerate() {
        let inode = Inode::new(
            corpus::stat(0o644),
            Kind::File(Content::blob(id, *offset, *len)),
        );
        tree.insert(format!("{i:03}").as_bytes(), inode).unwrap();
    }
    let runs = |options: &Options| {
        let plan = ext4::plan(&tree, options).unwrap();
        let count = plan
            .extents
            .list()
            .iter()
            .filter(|e| matches!(e.data, ExtentData::Blob { .. }))
            .count();
        (plan, count)
    };
    let plain = options(Size::Volume(64 * MIB));
    let padded = Options {
        padded_blobs: [id].into(),
        ..plain.clone()
    };
    let (a, many) = runs(&plain);
    let (b, one) = runs(&padded);
    assert_eq!((many > 250, one), (true, 1));
    let (a, b) = (
        image::write(&a.extents, &blobs),
        image::write(&b.extents, &blobs),
    );
    assert!(std::fs::read(&a.path).unwrap() == std::fs::read(&b.path).unwrap());
    tool::e2fsck(&b.path);
    compare::with_reader(&tree, &blobs, &b.path);
}

#[test]
fn extent_trees_of_depth_zero_to_two() {
    // 4 runs fit the inode, 1,360 a tree of one level, 500,000 need two.
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(corpus::noise(8192, 5)));
    let mut tree = corpus::tree();
    for count in [4_u64, 5, 340, 341, 1360, 1361, 5000] {
        let run = |i| DataExtent {
            offset: i * 8192,
            len: 4096,
            source: DataSource::Blob {
                id,
                offset: i % 4096,
            },
        };
        let content = Content {
            size: count * 8192,
            extents: (0..count).map(run).collect(),
            digest: None,
        };
        let inode = Inode::new(corpus::stat(0o644), Kind::File(content));
        tree.insert(format!("runs-{count}").as_bytes(), inode)
            .unwrap();
    }
    let image = made(&tree, &blobs, 256 * MIB);
    for (count, depth) in [(4, 0), (5, 1), (1360, 1), (1361, 2), (5000, 2)] {
        let dump = debugfs(&image.path, &format!("dump_extents /runs-{count}"));
        let last = dump.lines().rev().find(|l| l.contains('/')).unwrap();
        let levels: u64 = last
            .split('/')
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(levels, depth, "{count}: {dump}");
    }
    compare::with_reader(&tree, &blobs, &image.path);
}

#[test]
fn a_file_of_5_gib_with_holes() {
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(corpus::noise(1 << 20, 9)));
    let run = |offset, len| DataExtent {
        offset,
        len,
        source: DataSource::Blob { id, offset: 0 },
    };
    let content = Content {
        size: 5 * GIB + 1,
        extents: vec![
            run(0, 10),
            run(GIB, 1 << 20),
            run(4 * GIB - 100, 200),
            run(5 * GIB, 1),
        ],
        digest: None,
    };
    let mut tree = corpus::tree();
    tree.insert(b"big", Inode::new(corpus::stat(0o644), Kind::File(content)))
        .unwrap();
    let image = made(&tree, &blobs, 64 * MIB);
    let source = image::HostFile::open(&image.path);
    let len = source.size();
    let reader = Reader::open(source, 0, len).unwrap();
    let mut buf = [0; 300];
    assert_eq!(
        reader.read_at(b"/big", 4 * GIB - 150, &mut buf).unwrap(),
        300
    );
    assert_eq!(buf[..50], [0; 50]);
    assert_eq!(buf[50..250], corpus::noise(1 << 20, 9)[..200]);
    assert_eq!(buf[250..], [0; 50]);
    assert_eq!(reader.read_at(b"/big", 5 * GIB - 1, &mut buf).unwrap(), 2);
    assert_eq!(reader.read_at(b"/big", 5 * GIB + 1, &mut buf).unwrap(), 0);
}

#[test]
fn a_whole_gibibyte_crosses_groups() {
    // Longer than one extent may be, and than a group is.
    struct Pattern;
    impl amiforge_types::ReadAt for Pattern {
        fn size(&self) -> u64 {
            GIB
        }
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            buf.fill(0);
            let range = offset..offset + buf.len() as u64;
            for at in (5..GIB).step_by(16 << 20).filter(|at| range.contains(at)) {
                buf[(at - offset) as usize] = 1;
            }
            Ok(())
        }
    }
    let mut blobs = BlobTable::new();
    let id = blobs.add(Arc::new(Pattern));
    let mut tree = corpus::tree();
    tree.insert(
        b"big",
        Inode::new(
            corpus::stat(0o644),
            Kind::File(Content::blob(id, 0, GIB - 7)),
        ),
    )
    .unwrap();
    let plan = planned(&tree, 2 * GIB);
    assert!(
        plan.extents.list().len() < 60,
        "{}",
        plan.extents.list().len()
    );
    let image = image::write(&plan.extents, &blobs);
    tool::e2fsck(&image.path);
    let source = image::HostFile::open(&image.path);
    let len = source.size();
    let reader = Reader::open(source, 0, len).unwrap();
    let mut buf = [9; 8];
    for at in (0..GIB - 8).step_by(16 << 20) {
        reader.read_at(b"/big", at, &mut buf).unwrap();
        assert_eq!(buf, [0, 0, 0, 0, 0, 1, 0, 0], "{at}");
    }
}

#[test]
fn a_directory_of_100000_names() {
    let mut tree = corpus::tree();
    tree.insert(b"d", corpus::dir()).unwrap();
    for i in 0..100_000 {
        let name =
            format!("d/some rather long file name so that there are two levels of index {i}");
        tree.insert(name.as_bytes(), corpus::file(b"")).unwrap();
    }
    let image = made(&tree, &BlobTable::new(), GIB);
    let dump = debugfs(&image.path, "htree_dump /d");
    assert!(dump.contains("Indirect levels: 1"), "{}", &dump[..400]);
    let source = image::HostFile::open(&image.path);
    let len = source.size();
    let reader = Reader::open(source, 0, len).unwrap();
    let names: Vec<_> = reader
        .list(b"/d")
        .unwrap()
        .into_iter()
        .map(|e| e.name)
        .collect();
    let wanted: Vec<_> = tree
        .children(tree.lookup(b"d").unwrap())
        .unwrap()
        .names()
        .map(<[u8]>::to_vec)
        .collect();
    assert!(names == wanted);
    // Found by hash, not by scanning.
    for name in wanted.iter().step_by(9973) {
        assert_eq!(
            reader
                .stat(&[b"/d/", name.as_slice()].concat())
                .unwrap()
                .size,
            0
        );
    }
}

#[test]
fn more_than_65000_subdirectories() {
    let mut tree = corpus::tree();
    tree.insert(b"few", corpus::dir()).unwrap();
    tree.insert(b"many", corpus::dir()).unwrap();
    for i in 0..64_998 {
        tree.insert(format!("few/{i}").as_bytes(), corpus::dir())
            .unwrap();
    }
    for i in 0..64_999 {
        tree.insert(format!("many/{i}").as_bytes(), corpus::dir())
            .unwrap();
    }
    let image = made(&tree, &BlobTable::new(), 2 * GIB);
    assert!(debugfs(&image.path, "stat /few").contains("Links: 65000"));
    assert!(debugfs(&image.path, "stat /many").contains("Links: 1 "));
}

#[test]
fn nesting_of_3000_directories() {
    let mut tree = corpus::tree();
    let mut path = Vec::new();
    for _ in 0..3000 {
        path.extend_from_slice(b"/dd");
        tree.insert(&path, corpus::dir()).unwrap();
    }
    made(&tree, &BlobTable::new(), 64 * MIB);
}

#[test]
fn an_existing_lost_found_is_kept() {
    let mut tree = corpus::tree();
    tree.insert(b"aaa", corpus::file(b"first")).unwrap();
    tree.insert(b"lost+found", Inode::new(corpus::stat(0o750), Kind::Dir))
        .unwrap();
    tree.insert(b"lost+found/#12", corpus::file(b"found"))
        .unwrap();
    let blobs = BlobTable::new();
    let image = made(&tree, &blobs, 16 * MIB);
    assert!(debugfs(&image.path, "stat /lost+found").starts_with("Inode: 11 "));
    compare::with_reader(&tree, &blobs, &image.path);

    let mut tree = corpus::tree();
    tree.insert(b"lost+found", corpus::file(b"a file of that name"))
        .unwrap();
    let plan = planned(&tree, 16 * MIB);
    let image = image::write(&plan.extents, &blobs);
    assert!(debugfs(&image.path, "stat /lost+found").contains("Type: regular"));
    compare::with_reader(&tree, &blobs, &image.path);
}

#[test]
fn nothing_but_extents_is_needed() {
    // On a medium full of 0xD1 that is zeroed only where no extent is, the image is the same: no
    // two extents overlap and none is shorter than its data.
    let (tree, blobs) = corpus::everything();
    let plan = planned(&tree, 128 * MIB);
    let clean = image::write(&plan.extents, &blobs);
    let mut poisoned = vec![0xD1; 128 << 20];
    let mut end = 0;
    for extent in plan.extents.list() {
        poisoned[end as usize..extent.offset as usize].fill(0);
        let range = extent.offset as usize..extent.end() as usize;
        extent.read_exact(&blobs, &mut poisoned[range], 0).unwrap();
        end = extent.end();
    }
    poisoned[end as usize..].fill(0);
    assert!(poisoned == std::fs::read(&clean.path).unwrap());
}

#[test]
fn what_cannot_be_stored_is_named() {
    let fails = |change: &dyn Fn(&mut Tree)| {
        let mut tree = corpus::tree();
        tree.insert(b"d", corpus::dir()).unwrap();
        change(&mut tree);
        ext4::plan(&tree, &options(Size::Volume(16 * MIB))).unwrap_err()
    };
    let add = |inode: Inode| {
        move |t: &mut Tree| {
            t.insert(b"d/x", inode.clone()).unwrap();
        }
    };
    let path = b"/d/x".to_vec();
    let kind = |kind| add(Inode::new(corpus::stat(0o644), kind));
    let x =
        |name: &str, value: &[u8]| add(corpus::with_xattrs(corpus::file(b""), &[(name, value)]));

    assert_eq!(
        fails(&kind(Kind::Symlink(vec![]))),
        Ext4Error::BadSymlink {
            path: path.clone(),
            len: 0
        }
    );
    assert_eq!(
        fails(&kind(Kind::Symlink(vec![b'x'; 4096]))),
        Ext4Error::BadSymlink {
            path: path.clone(),
            len: 4096
        }
    );
    assert_eq!(
        fails(&kind(Kind::CharDev {
            major: 4096,
            minor: 0
        })),
        Ext4Error::BadDevice {
            path: path.clone(),
            major: 4096,
            minor: 0
        }
    );
    let huge = Content {
        size: 1 << 45,
        extents: vec![],
        digest: None,
    };
    assert_eq!(
        fails(&kind(Kind::File(huge))),
        Ext4Error::FileTooLarge {
            path: path.clone(),
            size: 1 << 45
        }
    );
    let run = |offset, len| DataExtent {
        offset,
        len,
        source: DataSource::Bytes(vec![0; len as usize].into()),
    };
    let overlap = Content {
        size: 100,
        extents: vec![run(0, 50), run(49, 5)],
        digest: None,
    };
    assert_eq!(
        fails(&kind(Kind::File(overlap))),
        Ext4Error::BadContent {
            path: path.clone(),
            offset: 49
        }
    );
    let outside = Content {
        size: 100,
        extents: vec![run(90, 11)],
        digest: None,
    };
    assert_eq!(
        fails(&kind(Kind::File(outside))),
        Ext4Error::BadContent {
            path: path.clone(),
            offset: 90
        }
    );
    let name = b"gnu.translator".to_vec();
    assert_eq!(
        fails(&x("gnu.translator", b"")),
        Ext4Error::XattrName {
            path: path.clone(),
            name
        }
    );
    let name = b"system.posix_acl_access".to_vec();
    assert_eq!(
        fails(&x("system.posix_acl_access", b"????")),
        Ext4Error::XattrValue {
            path: path.clone(),
            name
        }
    );
    let name = b"security.capability".to_vec();
    assert_eq!(
        fails(&x("security.capability", b"?")),
        Ext4Error::XattrValue {
            path: path.clone(),
            name
        }
    );
    assert_eq!(
        fails(&x("user.big", &[1; 5000])),
        Ext4Error::XattrSpace {
            path: path.clone(),
            size: 5000 + 20,
            limit: 4060
        }
    );
    let text = fails(&x("user.big", &[1; 5000])).to_string();
    assert!(
        text.starts_with("/d/x: ") && text.contains("5020 bytes"),
        "{text}"
    );
    assert!(ext4_holds(&[1; 4040]) && !ext4_holds(&[1; 4041]));
    let label = Options {
        label: "seventeen bytes!!".into(),
        ..options(Size::Volume(16 * MIB))
    };
    assert!(matches!(
        ext4::plan(&corpus::tree(), &label),
        Err(Ext4Error::Label(_))
    ));
}

/// Whether a file can have an attribute of this value beside the inode.
fn ext4_holds(value: &[u8]) -> bool {
    let mut tree = corpus::tree();
    let inode = corpus::with_xattrs(corpus::file(b""), &[("user.big", value)]);
    tree.insert(b"x", inode).unwrap();
    match ext4::plan(&tree, &options(Size::Volume(16 * MIB))) {
        Ok(plan) => {
            tool::e2fsck(&image::write(&plan.extents, &BlobTable::new()).path);
            true
        }
        Err(Ext4Error::XattrSpace { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_reader_follows_nothing_at_the_end() {
    let mut tree = corpus::tree();
    tree.insert(b"usr", corpus::dir()).unwrap();
    tree.insert(b"usr/lib", corpus::dir()).unwrap();
    tree.insert(b"usr/lib/os-release", corpus::file(b"ID=x\n"))
        .unwrap();
    tree.insert(
        b"lib",
        Inode::new(corpus::stat(0o777), Kind::Symlink(b"usr/lib".to_vec())),
    )
    .unwrap();
    tree.insert(
        b"etc",
        Inode::new(
            corpus::stat(0o777),
            Kind::Symlink(b"../../../usr/lib".to_vec()),
        ),
    )
    .unwrap();
    tree.insert(
        b"loop",
        Inode::new(corpus::stat(0o777), Kind::Symlink(b"loop".to_vec())),
    )
    .unwrap();
    let image = made(&tree, &BlobTable::new(), 16 * MIB);
    let source = image::HostFile::open(&image.path);
    let len = source.size();
    let reader = Reader::open(Arc::clone(&source), 0, len).unwrap();
    assert_eq!(reader.uuid(), options(Size::Volume(0)).uuid);
    assert_eq!(reader.label(), b"corpus");
    assert_eq!(reader.read(b"lib/os-release").unwrap(), b"ID=x\n");
    assert_eq!(reader.read(b"/etc/os-release").unwrap(), b"ID=x\n");
    assert_eq!(
        reader.resolve(b"/etc/os-release").unwrap(),
        b"/usr/lib/os-release"
    );
    assert!(matches!(
        reader.read(b"/lib"),
        Err(ext4::ReadError::NotAFile {
            kind: ext4::FileKind::Symlink,
            ..
        })
    ));
    assert!(matches!(
        reader.list(b"/lib"),
        Err(ext4::ReadError::NotADirectory(_))
    ));
    assert!(matches!(
        reader.read(b"/usr"),
        Err(ext4::ReadError::NotAFile {
            kind: ext4::FileKind::Dir,
            ..
        })
    ));
    assert!(matches!(
        reader.stat(b"/nothing"),
        Err(ext4::ReadError::NotFound(_))
    ));
    assert!(matches!(
        reader.read_link(b"/usr"),
        Err(ext4::ReadError::NotASymlink(_))
    ));
    assert!(reader.resolve(b"/loop").is_err());
    assert!(matches!(
        reader.stat(b"/a\0b"),
        Err(ext4::ReadError::BadPath(_))
    ));
    assert!(matches!(
        Reader::open(Arc::clone(&source), 1 << 20, 1 << 20),
        Err(ext4::ReadError::Open(_))
    ));
    assert!(matches!(
        Reader::open(source, 0, len + 1),
        Err(ext4::ReadError::Open(_))
    ));
}
