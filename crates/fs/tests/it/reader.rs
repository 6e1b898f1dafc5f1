//! Our writer, our reader, and our writer again; and our reader against `ext4-view`.

use std::path::Path;
use std::sync::Arc;

use amiforge_fs::ext4::{self, DataPlace, FileKind, Options, Plan, Reader, Size, TreeImport};
use amiforge_tree::{DumpContent, InodeFlags, Tree};
use amiforge_types::{BlobTable, MIB, ReadAt};

use crate::image::HostFile;
use crate::{compare, corpus, differential, image, tool};

/// The whole image as a tree, with the table that its data is in.
pub fn import(path: &Path) -> (TreeImport, BlobTable) {
    let source = HostFile::open(path);
    let mut blobs = BlobTable::new();
    let blob = blobs.add(Arc::clone(&source));
    let len = source.size();
    let reader = Reader::open(source, 0, len).unwrap();
    (reader.tree(blob, 0).unwrap(), blobs)
}

/// The text of a tree with the digests of all files.
pub fn dump(tree: &Tree, blobs: &BlobTable) -> String {
    tree.dump(DumpContent::Digest(blobs)).unwrap()
}

/// The first line that differs, for a message that can be read.
pub fn assert_same_dump(left: &str, right: &str) {
    let mut lines = left.lines().zip(right.lines());
    if let Some((a, b)) = lines.find(|(a, b)| a != b) {
        panic!("{a:.300}\n{b:.300}");
    }
    assert_eq!(left.lines().count(), right.lines().count());
}

/// Reads the image of `tree` back, finds the tree, and writes it again to the same bytes.
pub fn same_again(tree: &Tree, blobs: &BlobTable, options: &Options, first: &Plan, path: &Path) {
    let (found, disk) = import(path);
    assert!(found.left_out_lost_found || tree.lookup(b"lost+found").is_some());
    let mut wanted = tree.clone();
    wanted
        .update_all(|inode| inode.flags = differential::allowed(inode))
        .unwrap();
    assert_same_dump(&dump(&found.tree, &disk), &dump(&wanted, blobs));
    let plan = ext4::plan(&found.tree, options).unwrap();
    let before = image::blocks(&first.extents, blobs);
    let after = image::blocks(&plan.extents, &disk);
    assert_eq!(before.len(), after.len());
    let other = before
        .iter()
        .find(|(at, block)| after.get(at) != Some(block));
    assert_eq!(other.map(|(at, _)| at), None, "this block differs");
}

#[test]
fn write_read_write_gives_the_same_bytes() {
    let (mut tree, blobs) = corpus::everything();
    let options = corpus::options(Size::Volume(256 * MIB));
    let plan = ext4::plan(&tree, &options).unwrap();
    let made = image::write(&plan.extents, &blobs);
    // The root id of a capability means nothing in an image, and is not written.
    let ping = tree.lookup(b"xattr/ping").unwrap();
    tree.update(ping, |inode| {
        let value = inode.xattrs.get_mut(&b"security.capability"[..]);
        let value = value.unwrap();
        value.truncate(20);
        value[3] = 2;
    })
    .unwrap();
    same_again(&tree, &blobs, &options, &plan, &made.path);
    compare::with_view(&tree, &blobs, &made.path);
}

#[test]
fn runs_are_where_the_data_is() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &corpus::options(Size::Volume(256 * MIB))).unwrap();
    let made = image::write(&plan.extents, &blobs);
    let source = HostFile::open(&made.path);
    let reader = Reader::open(Arc::clone(&source), 0, source.size()).unwrap();
    for (path, holes) in [
        ("var/sparse", true),
        ("var/pieces", true),
        ("usr/bin/tool", false),
    ] {
        let runs = reader.data_runs(path.as_bytes()).unwrap();
        let size = reader.stat(path.as_bytes()).unwrap().size;
        let mut bytes = vec![0; size as usize];
        for run in &runs {
            let DataPlace::Disk(at) = run.place else {
                panic!("{path}: not on the disk");
            };
            let range = run.offset as usize..(run.offset + run.len) as usize;
            source.read_exact_at(&mut bytes[range], at).unwrap();
        }
        assert!(bytes == reader.read(path.as_bytes()).unwrap(), "{path}");
        let held: u64 = runs.iter().map(|run| run.len).sum();
        assert_eq!(held < size, holes, "{path}");
    }
    assert!(reader.data_runs(b"var/hole").unwrap().is_empty());
    assert!(reader.data_runs(b"var").is_err());
    let usage = reader.usage().unwrap();
    assert_eq!(
        (usage.blocks, usage.free_blocks),
        (plan.blocks, plan.free_blocks)
    );
    assert_eq!(
        (usage.inodes, usage.free_inodes),
        (plan.inodes, plan.free_inodes)
    );
}

#[test]
fn a_wrong_checksum_names_the_structure() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &corpus::options(Size::Volume(64 * MIB))).unwrap();
    let made = image::write(&plan.extents, &blobs);
    let image = std::fs::read(&made.path).unwrap();
    let open = |bytes: Vec<u8>| {
        let len = bytes.len() as u64;
        Reader::open(Arc::new(bytes), 0, len)
    };
    let message = |error: ext4::ReadError| {
        let mut text = String::new();
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = next {
            text = format!("{text}{error}\n");
            next = error.source();
        }
        text
    };
    let damaged = |at: usize| {
        let mut bytes = image.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    // Superblock, first group descriptor.
    let text = message(open(damaged(1024 + 0x78)).err().unwrap());
    assert!(text.contains("superblock: the checksum"), "{text}");
    let text = message(
        open(damaged(4096 + 40))
            .unwrap()
            .stat(b"etc")
            .err()
            .unwrap(),
    );
    assert!(text.contains("descriptor of group 0 in block 1"), "{text}");
    // The first block of a file of many pieces is an extent block of its tree; of a directory, names.
    let find = |what: &[u8]| image.windows(what.len()).position(|w| w == what).unwrap();
    let name = find(b"command-number-00399");
    let reader = open(damaged(name)).unwrap();
    let text = message(reader.list(b"usr/bin").err().unwrap());
    let place = format!("directory block {} of inode", name / 4096);
    assert!(text.contains(&place), "{text}");
    let xattr = find(&[b'c'; 300]);
    let reader = open(damaged(xattr)).unwrap();
    let text = message(reader.xattrs(b"xattr/many").err().unwrap());
    let place = format!("attribute block {} of inode", xattr / 4096);
    assert!(text.contains(&place), "{text}");
    assert!(reader.xattrs(b"xattr/few").is_ok());
}

#[test]
fn limits_and_what_cannot_be_are_refused() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &corpus::options(Size::Volume(256 * MIB))).unwrap();
    let made = image::write(&plan.extents, &blobs);
    let source = HostFile::open(&made.path);
    let reader = Reader::open(Arc::clone(&source), 0, source.size()).unwrap();
    let blob = BlobTable::new().add(source);
    let usual = ext4::TreeLimits::default();
    for limits in [
        ext4::TreeLimits {
            entries: 100,
            ..usual.clone()
        },
        ext4::TreeLimits {
            depth: 100,
            ..usual.clone()
        },
        ext4::TreeLimits {
            path_bytes: 5000,
            ..usual.clone()
        },
        ext4::TreeLimits {
            runs: 1000,
            ..usual.clone()
        },
        ext4::TreeLimits {
            inline_bytes: 1000,
            ..usual
        },
    ] {
        let result = reader.tree_within(blob, 0, &limits);
        assert!(
            matches!(result, Err(ext4::ReadError::TooMuch { .. })),
            "{limits:?}"
        );
    }
}

#[test]
fn flags_and_a_folder_with_two_names() {
    let (tree, blobs) = corpus::everything();
    let plan = ext4::plan(&tree, &corpus::options(Size::Volume(64 * MIB))).unwrap();
    let made = image::write(&plan.extents, &blobs);
    let at = made.path.to_string_lossy();
    tool::stdout(
        "debugfs",
        &["-w", "-R", "sif /etc/hostname flags 0x80030", &at],
    );
    let (found, _) = import(&made.path);
    let ino = found.tree.lookup(b"etc/hostname").unwrap();
    let flags = found.tree.inode(ino).flags;
    assert_eq!(flags, InodeFlags::IMMUTABLE | InodeFlags::APPEND_ONLY);
    tool::stdout("debugfs", &["-w", "-R", "ln /var /empty/again", &at]);
    let source = HostFile::open(&made.path);
    let reader = Reader::open(Arc::clone(&source), 0, source.size()).unwrap();
    let error = reader.tree(BlobTable::new().add(source), 0).unwrap_err();
    assert!(matches!(error, ext4::ReadError::Corrupt { .. }), "{error}");
    assert_eq!(reader.stat(b"empty/again/log").unwrap().kind, FileKind::Dir);
}

/// A source that counts what is read of it.
struct Counted(Arc<dyn ReadAt>, std::sync::atomic::AtomicU64);

impl ReadAt for Counted {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.1
            .fetch_add(buf.len() as u64, std::sync::atomic::Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn opening_a_tebibyte_reads_next_to_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let at = path.to_string_lossy();
    tool::stdout(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "64bit,^resize_inode,meta_bg",
            "-N",
            "100000",
            "-E",
            "lazy_itable_init=1,nodiscard",
            "-J",
            "size=4",
            &at,
            "1T",
        ],
    );
    let source = Arc::new(Counted(HostFile::open(&path), Default::default()));
    let len = source.size();
    let reader = Reader::open(Arc::clone(&source) as Arc<dyn ReadAt>, 0, len).unwrap();
    assert_eq!(reader.list(b"/").unwrap()[0].name, b"lost+found");
    let read = source.1.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 100_000, "{read} bytes were read");
}
