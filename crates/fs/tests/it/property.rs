//! Random trees: clean for e2fsck, and read back equal.

use std::sync::Arc;

use amiforge_fs::ext4::{self, Inodes, Options, Profile, Size};
use amiforge_tree::{Content, DataExtent, DataSource, Inode, InodeFlags, Kind, Stat, Tree};
use amiforge_types::{BlobId, BlobTable, MIB, Timestamp};
use proptest::prelude::*;

use crate::{compare, corpus, differential, image, reader, tool};

const BLOB: usize = 1 << 18;

#[derive(Clone, Debug)]
enum Node {
    Dir,
    /// Gap before, length, and place in the blob (`None` for memory) of each run; hole at the end.
    File(Vec<(u64, u64, Option<u64>)>, u64),
    Symlink(usize),
    Device(u32, u32, bool),
    Fifo,
    Socket,
    Link(prop::sample::Index),
}

#[derive(Clone, Debug)]
struct Item {
    parent: prop::sample::Index,
    name: Vec<u8>,
    stat: Stat,
    node: Node,
    flags: InodeFlags,
    xattrs: Vec<(u8, usize, usize)>,
    /// Whether it begins a layer over all before.
    over: bool,
}

/// With `wide`, times of all eras.
fn item(wide: bool) -> impl Strategy<Value = Item> {
    let name = prop_oneof![
        4 => "[a-z]{1,3}".prop_map(String::into_bytes),
        2 => prop::collection::vec(any::<u8>().prop_filter("a name", |b| *b != 0 && *b != b'/'), 1..40),
        1 => (200_usize..=255, any::<u8>()).prop_map(|(len, b)| vec![if b == 0 || b == b'/' { b'x' } else { b }; len]),
    ];
    // ext4-view reads seconds of 31 bits in each era only.
    // Not the last era's first half: e2fsck takes it for a mistake of old kernels.
    let (low, eras) = if wide {
        (i64::from(i32::MIN), 3)
    } else {
        (0, 4)
    };
    let time = (low..i64::from(i32::MAX), 0_i64..eras, 0_u32..1_000_000_000).prop_map(
        |(secs, era, nanos)| Timestamp {
            secs: secs + (era << 32),
            nanos,
        },
    );
    let flags = prop_oneof![
        3 => Just(InodeFlags::NONE),
        1 => any::<u32>().prop_map(InodeFlags::from_bits_truncate),
    ];
    let stat =
        (0_u16..=0o7777, any::<u32>(), any::<u32>(), time).prop_map(|(mode, uid, gid, mtime)| {
            Stat {
                mode,
                uid,
                gid,
                mtime,
            }
        });
    let len = prop_oneof![1_u64..100, 4000_u64..4200, 1_u64..60_000];
    let gap = prop_oneof![3 => Just(0_u64), 1 => 1_u64..5000, 1 => 0_u64..3_000_000];
    let runs = prop::collection::vec(
        (gap, len, prop::option::of(0_u64..(BLOB as u64 - 60_000))),
        0..9,
    );
    let node = prop_oneof![
        4 => Just(Node::Dir),
        6 => (runs, prop_oneof![Just(0_u64), 1_u64..10_000_000]).prop_map(|(r, hole)| Node::File(r, hole)),
        2 => (1_usize..4095).prop_map(Node::Symlink),
        1 => (0_u32..4096, 0_u32..(1 << 20), any::<bool>()).prop_map(|(a, b, c)| Node::Device(a, b, c)),
        1 => (0_u32..256, 0_u32..256, any::<bool>()).prop_map(|(a, b, c)| Node::Device(a, b, c)),
        1 => Just(Node::Fifo),
        1 => Just(Node::Socket),
        2 => any::<prop::sample::Index>().prop_map(Node::Link),
    ];
    let xattrs = prop::collection::vec((0_u8..3, 1_usize..30, 0_usize..200), 0..4);
    (
        any::<prop::sample::Index>(),
        name,
        stat,
        node,
        flags,
        xattrs,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(parent, name, stat, node, flags, xattrs, over)| Item {
            parent,
            name,
            stat,
            node,
            flags,
            xattrs,
            over,
        })
}

fn build(items: &[Item], blob: BlobId, memory: &[u8]) -> Tree {
    let mut tree = corpus::tree();
    let mut dirs = vec![Vec::new()];
    let mut files: Vec<Vec<u8>> = Vec::new();
    for item in items {
        if item.over {
            tree.next_layer();
        }
        let mut path = item.parent.get(&dirs).clone();
        path.push(b'/');
        path.extend_from_slice(&item.name);
        if item.name == b"."
            || item.name == b".."
            || tree.lookup(&path).is_some()
            || path.len() > 3000
        {
            continue;
        }
        let kind = match &item.node {
            Node::Dir => Kind::Dir,
            Node::File(runs, hole) => {
                let mut content = Content::default();
                for (gap, len, place) in runs {
                    let offset = content.size + gap;
                    let source = match place {
                        Some(at) => DataSource::Blob {
                            id: blob,
                            offset: *at,
                        },
                        None => DataSource::Bytes(memory[..*len as usize].into()),
                    };
                    content.extents.push(DataExtent {
                        offset,
                        len: *len,
                        source,
                    });
                    content.size = offset + len;
                }
                content.size += hole;
                Kind::File(content)
            }
            Node::Symlink(len) => {
                Kind::Symlink(b"../usr/".iter().copied().cycle().take(*len).collect())
            }
            &Node::Device(major, minor, true) => Kind::CharDev { major, minor },
            &Node::Device(major, minor, false) => Kind::BlockDev { major, minor },
            Node::Fifo => Kind::Fifo,
            Node::Socket => Kind::Socket,
            Node::Link(target) => {
                if !files.is_empty() {
                    tree.link(&path, target.get(&files).as_slice()).unwrap();
                }
                continue;
            }
        };
        let is_dir = matches!(kind, Kind::Dir);
        let mut inode = Inode::new(item.stat, kind);
        inode.flags = item.flags;
        for (space, name, value) in &item.xattrs {
            let name = format!(
                "{}{}",
                ["user.", "trusted.", "security."][*space as usize],
                "n".repeat(*name)
            );
            inode.xattrs.insert(name.into_bytes(), vec![b'v'; *value]);
        }
        tree.insert(&path, inode).unwrap();
        if is_dir {
            dirs.push(path)
        } else {
            files.push(path)
        }
    }
    tree
}

/// The smallest file system that holds the tree, but not below what the options say.
fn plan(tree: &Tree, options: &Options) -> ext4::Plan {
    match ext4::plan(tree, options) {
        Err(ext4::Ext4Error::TooSmall { needed, .. }) => {
            let size = Size::Volume(needed);
            ext4::plan(
                tree,
                &Options {
                    size,
                    ..options.clone()
                },
            )
            .unwrap()
        }
        other => other.unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_trees(
        items in prop::collection::vec(item(false), 1..120),
        size in 4096_u64 * 4..60_000,
        padded in any::<bool>(),
        legacy in any::<bool>(),
    ) {
        let memory = corpus::noise(60_000, 1);
        // A blob whose runs are wherever they are cannot promise zeros after them, unless it is zero.
        let bytes = if padded { vec![0; BLOB] } else { corpus::noise(BLOB, 2) };
        let mut blobs = BlobTable::new();
        let blob = blobs.add(Arc::new(bytes));
        let tree = build(&items, blob, &memory);
        let options = Options {
            padded_blobs: padded.then_some(blob).into_iter().collect(),
            profile: if legacy { Profile::Legacy } else { Profile::Standard },
            ..corpus::options(Size::Volume(size * 4096))
        };
        let plan = plan(&tree, &options);
        prop_assert!(plan.size >= 16 * MIB);
        let image = image::write(&plan.extents, &blobs);
        tool::e2fsck(&image.path);
        compare::with_reader(&tree, &blobs, &image.path);
        compare::with_view(&tree, &blobs, &image.path);
        let whole = Options { size: Size::Volume(plan.extents.size()), profile: options.profile, ..corpus::options(Size::Volume(0)) };
        reader::same_again(&tree, &blobs, &whole, &plan, &image.path);
        let again = ext4::plan(&tree, &Options { size: Size::Volume(plan.extents.size()), ..options }).unwrap();
        prop_assert!(image::blocks(&again.extents, &blobs) == image::blocks(&plan.extents, &blobs));
    }

    #[test]
    fn random_trees_of_all_times(
        items in prop::collection::vec(item(true), 1..120),
        content_only in any::<bool>(),
    ) {
        let memory = corpus::noise(60_000, 1);
        let mut blobs = BlobTable::new();
        let blob = blobs.add(Arc::new(corpus::noise(BLOB, 2)));
        let tree = build(&items, blob, &memory);
        let options = Options {
            inodes: if content_only { Inodes::Content } else { Inodes::Count(1500) },
            ..corpus::options(Size::Volume(64 * MIB))
        };
        let image = image::write(&plan(&tree, &options).extents, &blobs);
        tool::e2fsck(&image.path);
        differential::with_mkext4(&tree, &blobs, &image.path);
    }
}
