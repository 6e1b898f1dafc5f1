//! Volumes of all sizes: limits, growth, and the cheapness of empty space.

use std::fs::OpenOptions;

use amiforge_fs::ext4::{self, Ext4Error, Size};
use amiforge_types::{BlobTable, GIB, MIB};

use crate::corpus::{self, options};
use crate::{compare, image, tool};

#[test]
fn volumes_from_16_mib_to_1_tib() {
    let (tree, blobs) = corpus::everything();
    let mut small = corpus::tree();
    small.insert(b"file", corpus::file(b"content")).unwrap();
    // Around the borders of groups, flex groups, journals and backups; odd tails.
    let sizes = [
        16 * MIB,
        16 * MIB + 4095,
        100 * MIB,
        128 * MIB - 4096,
        128 * MIB,
        128 * MIB + 4096,
        129 * MIB,
        130 * MIB,
        256 * MIB + 40 * 4096,
        400 * MIB,
        1300 * MIB,
        2 * GIB,
        2 * GIB + 5 * MIB,
        2 * GIB + 100 * MIB,
        8 * GIB,
        100 * GIB,
        1 << 40,
    ];
    for size in sizes {
        let (tree, blobs) = if size < 64 * MIB {
            (&small, &BlobTable::new())
        } else {
            (&tree, &blobs)
        };
        let plan = ext4::plan(tree, &options(Size::Volume(size))).unwrap();
        assert_eq!(plan.extents.size(), size);
        assert!(
            plan.size <= size && plan.size + 8 * MIB + 50 * 4096 > size,
            "{size}: {}",
            plan.size
        );
        let metadata = plan.extents.data_len();
        assert!(
            metadata < 16 * MIB + size / 4096,
            "{size}: {metadata} bytes to write"
        );
        let image = image::write(&plan.extents, blobs);
        tool::e2fsck(&image.path);
        let disk = image.path.to_string_lossy();
        let summary = tool::text("dumpe2fs", &["-h", &disk]);
        let field = |name: &str| -> u64 {
            let line = summary
                .lines()
                .find(|l| l.starts_with(name))
                .unwrap_or_else(|| panic!("{name}"));
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        if plan.blocks > 32_768 {
            // The copy is whole: its checksum is right, and it says where it is.
            let copy = [
                "-h",
                "-o",
                "superblock=32768",
                "-o",
                "blocksize=4096",
                &disk,
            ];
            let text = tool::text("dumpe2fs", &copy);
            assert!(
                text.contains("Block count:") && !text.contains("checksum error"),
                "{text}"
            );
            let bytes = std::fs::File::open(&image.path).unwrap();
            let mut group = [0; 2];
            std::os::unix::fs::FileExt::read_exact_at(&bytes, &mut group, 32_768 * 4096 + 0x5A)
                .unwrap();
            assert_eq!(group, [1, 0]);
        }
        assert_eq!(field("Block count:"), plan.blocks);
        assert_eq!(field("Free blocks:"), plan.free_blocks);
        assert_eq!(field("Inode count:"), plan.inodes);
        assert_eq!(field("Free inodes:"), plan.free_inodes);
        if size < 200 * MIB {
            compare::with_reader(tree, blobs, &image.path);
        }
    }
}

#[test]
fn features_and_geometry_are_those_of_mke2fs() {
    let ours = {
        let plan = ext4::plan(&corpus::tree(), &options(Size::Volume(1300 * MIB))).unwrap();
        let image = image::write(&plan.extents, &BlobTable::new());
        tool::text("dumpe2fs", &["-h", &image.path.to_string_lossy()])
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reference");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1300 * MIB)
        .unwrap();
    // What Debian 12's /etc/mke2fs.conf gives to ext4.
    let features = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
                    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
    let disk = path.to_string_lossy();
    tool::stdout(
        "mke2fs",
        &[
            "-q", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-O", features, &disk,
        ],
    );
    let theirs = tool::text("dumpe2fs", &["-h", &disk]);
    for name in [
        "Filesystem features:",
        "Filesystem flags:",
        "Default mount options:",
        "Filesystem state:",
        "Errors behavior:",
        "Inode count:",
        "Block count:",
        "Reserved block count:",
        "First block:",
        "Block size:",
        "Fragment size:",
        "Group descriptor size:",
        "Reserved GDT blocks:",
        "Blocks per group:",
        "Inodes per group:",
        "Inode blocks per group:",
        "Flex block group size:",
        "Maximum mount count:",
        "First inode:",
        "Inode size:",
        "Required extra isize:",
        "Desired extra isize:",
        "Journal inode:",
        "Default directory hash:",
        "Journal backup:",
        "Checksum type:",
        "Total journal blocks:",
        "Max transaction length:",
    ] {
        let pick = |text: &str| {
            text.lines()
                .find(|l| l.starts_with(name))
                .map(str::to_owned)
        };
        assert_eq!(pick(&ours), pick(&theirs), "{name}");
        assert!(pick(&ours).is_some(), "{name} is not in\n{ours}");
    }
}

#[test]
fn grows_offline_from_1300_mib_to_40_gib() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &options(Size::Volume(1300 * MIB))).unwrap();
    let image = image::write(&plan.extents, &blobs);
    OpenOptions::new()
        .write(true)
        .open(&image.path)
        .unwrap()
        .set_len(40 * GIB)
        .unwrap();
    tool::e2fsck(&image.path);
    let out = tool::text("resize2fs", &[&image.path.to_string_lossy()]);
    tool::e2fsck(&image.path);
    let summary = tool::text("dumpe2fs", &["-h", &image.path.to_string_lossy()]);
    assert!(
        summary.contains(&format!("{}\n", 40 * GIB / 4096)),
        "{out}{summary}"
    );
    assert!(!summary.contains("meta_bg"), "{summary}");
    compare::with_reader(&tree, &blobs, &image.path);
}

#[test]
fn too_small_says_what_would_do() {
    let (tree, blobs) = corpus::everything();
    let mut big = corpus::tree();
    for i in 0..60 {
        big.insert(
            format!("{i}").as_bytes(),
            corpus::file(&corpus::noise(1_000_000, i)),
        )
        .unwrap();
    }
    for (tree, blobs) in [(&tree, &blobs), (&big, &BlobTable::new())] {
        let least = ext4::minimum_size(tree, &options(Size::Volume(0))).unwrap();
        for size in [0, 8 * MIB, least / 2, least / 8 * 7] {
            match ext4::plan(tree, &options(Size::Volume(size))) {
                Err(Ext4Error::TooSmall {
                    size: given,
                    needed,
                }) => {
                    assert_eq!(given, size);
                    let plan = ext4::plan(tree, &options(Size::Volume(needed))).unwrap();
                    tool::e2fsck(&image::write(&plan.extents, blobs).path);
                }
                other => panic!("{size}: {other:?}"),
            }
        }
        let plan = ext4::plan(tree, &options(Size::Minimum { free: 0 })).unwrap();
        assert_eq!((plan.extents.size(), plan.size), (least, least));
        let image = image::write(&plan.extents, blobs);
        tool::e2fsck(&image.path);
        compare::with_reader(tree, blobs, &image.path);
    }
}

#[test]
fn minimum_leaves_the_free_space_asked_for() {
    let (tree, blobs) = corpus::everything();
    for free in [0, 1, 10 * MIB, 130 * MIB, 3 * GIB] {
        let plan = ext4::plan(&tree, &options(Size::Minimum { free })).unwrap();
        let left = plan.free_blocks * 4096;
        assert!(left >= free, "{free}: {left}");
        assert!(free == 0 || left < free + 8 * MIB, "{free}: {left}");
        tool::e2fsck(&image::write(&plan.extents, &blobs).path);
    }
}

#[test]
fn more_inodes_than_the_ratio_gives() {
    let mut tree = corpus::tree();
    for i in 0..20_000 {
        tree.insert(format!("{i}").as_bytes(), corpus::file(b""))
            .unwrap();
    }
    let plan = ext4::plan(&tree, &options(Size::Volume(64 * MIB))).unwrap();
    assert!(plan.free_inodes > 1000, "{}", plan.free_inodes);
    tool::e2fsck(&image::write(&plan.extents, &BlobTable::new()).path);
    // One group holds 32,768 inodes at most: more of them need a larger volume.
    for i in 20_000..40_000 {
        tree.insert(format!("{i}").as_bytes(), corpus::file(b""))
            .unwrap();
    }
    let Err(Ext4Error::TooSmall { needed, .. }) =
        ext4::plan(&tree, &options(Size::Volume(100 * MIB)))
    else {
        panic!("40,000 inodes in one group");
    };
    let plan = ext4::plan(&tree, &options(Size::Volume(needed))).unwrap();
    tool::e2fsck(&image::write(&plan.extents, &BlobTable::new()).path);
}
