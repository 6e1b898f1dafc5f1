//! A tree against what an independent reader finds in the image.

use std::path::Path;

use amiforge_fs::ext4::{FileKind, Reader};
use amiforge_tree::{Content, DataSource, Ino, Kind, Tree};
use amiforge_types::BlobTable;

use crate::image::HostFile;

/// The bytes of a file, holes as zeros.
pub fn content(content: &Content, blobs: &BlobTable) -> Vec<u8> {
    let mut out = vec![0; content.size as usize];
    for run in &content.extents {
        let range = run.offset as usize..(run.offset + run.len) as usize;
        match &run.source {
            DataSource::Bytes(bytes) => out[range].copy_from_slice(bytes),
            DataSource::Blob { id, offset } => {
                blobs
                    .get(*id)
                    .unwrap()
                    .read_exact_at(&mut out[range], *offset)
                    .unwrap();
            }
        }
    }
    out
}

pub fn kind(kind: &Kind) -> FileKind {
    match kind {
        Kind::Dir(_) => FileKind::Dir,
        Kind::File(_) => FileKind::File,
        Kind::Symlink(_) => FileKind::Symlink,
        Kind::CharDev { .. } => FileKind::CharDev,
        Kind::BlockDev { .. } => FileKind::BlockDev,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
    }
}

/// Reads the whole image back through `ext4-view` and compares it with the tree: names, types,
/// modes, owners, times, link targets, and bytes of files up to 64 MiB.
pub fn with_reader(tree: &Tree, blobs: &BlobTable, image: &Path) {
    let source = HostFile::open(image);
    let size = source.size();
    let reader = Reader::open(source, 0, size).unwrap();
    let mut stack = vec![(b"/".to_vec(), Ino::ROOT)];
    while let Some((path, ino)) = stack.pop() {
        // The reader takes paths of up to 4096 bytes, as Linux does.
        if path.len() > 4000 {
            continue;
        }
        let shown = String::from_utf8_lossy(&path).into_owned();
        let inode = tree.inode(ino);
        let found = reader
            .stat(&path)
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(found.kind, kind(&inode.kind), "{shown}");
        assert_eq!(found.mode, inode.stat.mode, "{shown}");
        assert_eq!(
            (found.uid, found.gid),
            (inode.stat.uid, inode.stat.gid),
            "{shown}"
        );
        assert_eq!(found.mtime, inode.stat.mtime, "{shown}");
        assert_eq!(found.crtime, Some(inode.stat.mtime), "{shown}");
        match &inode.kind {
            Kind::Dir(children) => {
                let mut wanted: Vec<_> = children.keys().cloned().collect();
                if ino == Ino::ROOT && !children.contains_key(b"lost+found".as_slice()) {
                    wanted.push(b"lost+found".to_vec());
                    wanted.sort();
                }
                let names: Vec<_> = reader
                    .list(&path)
                    .unwrap()
                    .into_iter()
                    .map(|e| e.name)
                    .collect();
                assert_eq!(names, wanted, "{shown}");
                for (name, child) in children {
                    let mut below = path.clone();
                    if below != b"/" {
                        below.push(b'/');
                    }
                    below.extend_from_slice(name);
                    stack.push((below, *child));
                }
            }
            Kind::File(wanted) => {
                assert_eq!(found.size, wanted.size, "{shown}");
                if wanted.size <= 64 << 20 {
                    assert!(
                        reader.read(&path).unwrap() == content(wanted, blobs),
                        "{shown}: other bytes"
                    );
                }
            }
            Kind::Symlink(target) => {
                assert_eq!(&reader.read_link(&path).unwrap(), target, "{shown}")
            }
            _ => assert_eq!(found.size, 0, "{shown}"),
        }
    }
}
