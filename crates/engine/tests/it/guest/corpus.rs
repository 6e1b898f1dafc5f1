//! A tree with everything that a file system can hold, and what a kernel must see of it.

use std::collections::BTreeMap;

use amiforge_disk::Extents;
use amiforge_image::{BootMode, ImageSpec, assemble};
use amiforge_tree::{Content, DataExtent, DataSource, Inode, Kind, Tree};
use amiforge_types::{Arch, BlobTable, Digest, GIB, Hasher, MIB, Seed, Timestamp};
use serde_json::{Value, json};

use super::everything::{self, dir, file, stat};

const BLOCK: u64 = 4096;
/// Name of the folder of this many names.
pub(crate) const LARGE: (&str, usize) = ("large", 20_000);

/// The tree: what the tests of `amiforge-fs` have, and more of it.
pub(crate) fn tree() -> (Tree, BlobTable) {
    let (mut tree, blobs) = everything::everything();
    let mut put = |path: &[u8], inode: Inode| {
        tree.insert(path, inode).unwrap();
    };
    put(LARGE.0.as_bytes(), dir());
    for i in 0..LARGE.1 {
        // Every hundredth has content: names are what this is about.
        let bytes = if i % 100 == 0 { &b"content\n"[..] } else { b"" };
        put(
            format!("{}/file {i} of the large folder", LARGE.0).as_bytes(),
            file(bytes),
        );
    }
    put(b"edge", dir());
    for (name, secs, nanos) in [
        ("before 1970", -1, 1),
        ("first", -(1 << 31), 0),
        ("after 2038", (1 << 31) + 5, 999_999_999),
        ("last", (1 << 34) - (1 << 31) - 1, 7),
    ] {
        let mut inode = file(name.as_bytes());
        inode.stat.mtime = Timestamp { secs, nanos };
        put(format!("edge/{name}").as_bytes(), inode);
    }
    let mut owned = file(b"owner");
    (owned.stat.uid, owned.stat.gid) = (u32::MAX - 1, u32::MAX - 1);
    put(b"edge/largest ids", owned);
    let run = |offset: u64, text: &[u8]| DataExtent {
        offset,
        len: text.len() as u64,
        source: DataSource::Bytes(text.into()),
    };
    let content = Content {
        size: 6 * GIB + 1,
        extents: vec![
            run(0, b"start"),
            run(5 * GIB - 3, b"across blocks"),
            run(6 * GIB, b"!"),
        ],
        digest: None,
    };
    put(
        b"edge/sparse 6 GiB",
        Inode::new(stat(0o600), Kind::File(content)),
    );
    // More runs than a leaf of the extent tree holds, each of one block.
    let pieces = (0..3000).map(|i| run(i * 3 * BLOCK, b"piece")).collect();
    let content = Content {
        size: 3000 * 3 * BLOCK,
        extents: pieces,
        digest: None,
    };
    put(
        b"edge/fragments",
        Inode::new(stat(0o600), Kind::File(content)),
    );
    (tree, blobs)
}

/// It as a disk, by the code behind `disk assemble --boot none` (which reads a tar, and tar has no
/// sockets).
pub(crate) fn disk(tree: Tree, blobs: &BlobTable) -> Extents {
    let mut spec = ImageSpec::new(
        BootMode::None,
        Arch::X86_64,
        Seed::new(Digest::of(b"corpus")),
        Timestamp::from_secs(1_700_000_000),
    );
    // Room for more inodes too: one for every 16 KiB.
    spec.headroom = 512 * MIB;
    assemble(tree, &spec, blobs).unwrap().extents
}

/// What `tree.py` must find: path in hexadecimal, then the inode. Blocks are not in it.
pub(crate) fn expected(tree: &Tree, blobs: &BlobTable) -> BTreeMap<String, Value> {
    let mut links: BTreeMap<_, u64> = BTreeMap::new();
    for (_, ino) in tree.walk() {
        *links.entry(ino).or_default() += 1;
    }
    tree.walk()
        .into_iter()
        .map(|(path, ino)| {
            let inode = tree.inode(ino);
            let mut out = json!({
                "mode": inode.stat.mode, "uid": inode.stat.uid, "gid": inode.stat.gid,
                "mtime": [inode.stat.mtime.secs, inode.stat.mtime.nanos],
                "nlink": links[&ino],
            });
            let kind = match &inode.kind {
                Kind::Dir => {
                    let names = tree.children(ino).unwrap();
                    let below = names.inodes().filter(|ino| tree.is_dir(*ino)).count();
                    // The root has lost+found too.
                    out["nlink"] = json!(2 + below + usize::from(path.is_empty()));
                    "dir"
                }
                Kind::File(content) => {
                    out["size"] = json!(content.size);
                    out["data"] = json!(data_digest(content, blobs));
                    "file"
                }
                Kind::Symlink(target) => {
                    out["target"] = json!(hex(target));
                    "link"
                }
                Kind::CharDev { major, minor } => {
                    out["device"] = json!([major, minor]);
                    "char"
                }
                Kind::BlockDev { major, minor } => {
                    out["device"] = json!([major, minor]);
                    "block"
                }
                Kind::Fifo => "fifo",
                Kind::Socket => "socket",
            };
            out["kind"] = json!(kind);
            if !inode.xattrs.is_empty() {
                let pairs = inode
                    .xattrs
                    .iter()
                    .map(|(n, v)| (hex(n), json!(hex(&as_stored(n, v)))));
                out["xattrs"] = Value::Object(pairs.collect());
            }
            (hex(&path), out)
        })
        .collect()
}

/// Fewest and most 512-byte sectors that a file of the tree may take: its data, and at most the
/// blocks of its extent tree and one of attributes.
pub(crate) fn sectors(content: &Content) -> std::ops::RangeInclusive<u64> {
    let blocks = blocks(content).len() as u64;
    let runs = content.extents.len() as u64;
    blocks * 8..=(blocks + 2 + runs / 300) * 8
}

/// Numbers of the blocks that hold data.
fn blocks(content: &Content) -> std::collections::BTreeSet<u64> {
    content
        .extents
        .iter()
        .flat_map(|run| run.offset / BLOCK..(run.offset + run.len).div_ceil(BLOCK))
        .collect()
}

/// As `data_digest` of `tree.py`.
fn data_digest(content: &Content, blobs: &BlobTable) -> String {
    let mut hasher = Hasher::new();
    for index in blocks(content) {
        let start = index * BLOCK;
        let mut block = vec![0; 4096];
        for run in &content.extents {
            let from = run.offset.max(start);
            let to = (run.offset + run.len).min(start + BLOCK);
            if from < to {
                let range =
                    usize::try_from(from - start).unwrap()..usize::try_from(to - start).unwrap();
                run.read_exact(blobs, &mut block[range], from - run.offset)
                    .unwrap();
            }
        }
        if block.iter().any(|b| *b != 0) {
            hasher.update(&index.to_le_bytes());
            hasher.update(&block);
        }
    }
    hasher.finish().hex()
}

/// A capability that is bound to a user namespace is stored as one that holds everywhere: the
/// namespace was the build's.
fn as_stored(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut value = value.to_vec();
    if name == b"security.capability" && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
