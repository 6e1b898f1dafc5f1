//! A tree against what an independent reader finds in the image.

use std::collections::HashSet;
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
        Kind::Dir => FileKind::Dir,
        Kind::File(_) => FileKind::File,
        Kind::Symlink(_) => FileKind::Symlink,
        Kind::CharDev { .. } => FileKind::CharDev,
        Kind::BlockDev { .. } => FileKind::BlockDev,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
    }
}

/// Reads the whole image back through our reader and compares it with the tree: names, types,
/// modes, owners, times, link targets, and bytes of files up to 64 MiB.
pub fn with_reader(tree: &Tree, blobs: &BlobTable, image: &Path) {
    let source = HostFile::open(image);
    let size = source.size();
    let reader = Reader::open(source, 0, size).unwrap();
    let counts = tree.link_counts();
    let own_lost_found = tree.lookup(b"lost+found").is_none();
    let mut stack = vec![(b"/".to_vec(), Ino::ROOT)];
    while let Some((path, ino)) = stack.pop() {
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
        assert_eq!(
            (found.ctime, found.atime),
            (inode.stat.mtime, inode.stat.mtime),
            "{shown}"
        );
        let device = match inode.kind {
            Kind::CharDev { major, minor } | Kind::BlockDev { major, minor } => {
                Some((major, minor))
            }
            _ => None,
        };
        assert_eq!(found.rdev, device, "{shown}");
        let links = counts[ino.index()] + u32::from(ino == Ino::ROOT && own_lost_found);
        if found.kind != FileKind::Dir || links <= 65_000 {
            assert_eq!(found.nlink, links, "{shown}");
        } else {
            assert_eq!(found.nlink, 1, "{shown}");
        }
        match &inode.kind {
            Kind::Dir => {
                let children = tree.children(ino).unwrap();
                let mut wanted: Vec<_> = children.names().map(<[u8]>::to_vec).collect();
                if ino == Ino::ROOT && children.get(b"lost+found").is_none() {
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
                for (name, child) in children.iter() {
                    let mut below = path.clone();
                    if below != b"/" {
                        below.push(b'/');
                    }
                    below.extend_from_slice(name);
                    stack.push((below, child));
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

/// Reads everything back through `ext4-view`, which is not ours, and compares: names, types, modes,
/// owners, times that it takes (it refuses the second half of each era), targets, bytes.
pub fn with_view(tree: &Tree, blobs: &BlobTable, image: &Path) {
    let view = ext4_view::Ext4::load(Box::new(Foreign(HostFile::open(image)))).unwrap();
    let mut refused: HashSet<Vec<u8>> = HashSet::new();
    for (path, ino) in tree.walk() {
        let inode = tree.inode(ino);
        let full = [b"/", &path[..]].concat();
        // What it refuses it also does not go through.
        let parent = path.iter().rposition(|b| *b == b'/').map(|at| &path[..at]);
        let late = inode.stat.mtime.secs & 0x8000_0000 != 0;
        if late || parent.is_some_and(|parent| refused.contains(parent)) || path.len() > 4000 {
            refused.insert(path);
            continue;
        }
        let shown = String::from_utf8_lossy(&full);
        let at = ext4_view::Path::try_from(full.as_slice()).unwrap();
        let meta = view
            .symlink_metadata(at)
            .unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(meta.mode(), inode.stat.mode, "{shown}");
        assert_eq!(
            (meta.uid(), meta.gid()),
            (inode.stat.uid, inode.stat.gid),
            "{shown}"
        );
        let time = meta.modified();
        let wanted = inode.stat.mtime;
        assert_eq!(
            (time.seconds(), time.nanoseconds()),
            (wanted.secs, wanted.nanos),
            "{shown}"
        );
        match &inode.kind {
            Kind::File(wanted) if wanted.size <= 64 << 20 => {
                assert!(
                    view.read(at).unwrap() == content(wanted, blobs),
                    "{shown}: other bytes"
                );
            }
            Kind::Symlink(target) => {
                let found = view.read_link(at).unwrap();
                assert_eq!(AsRef::<[u8]>::as_ref(&found), &target[..], "{shown}");
            }
            Kind::Dir => {
                let children = tree.children(ino).unwrap();
                let names = view.read_dir(at).unwrap().filter(|entry| {
                    let entry = entry.as_ref().unwrap();
                    let name = entry.file_name();
                    let name: &[u8] = name.as_ref();
                    !matches!(name, b"." | b".." | b"lost+found")
                });
                let without = children.names().filter(|name| *name != b"lost+found");
                assert_eq!(names.count(), without.count(), "{shown}");
            }
            _ => {}
        }
    }
}

/// A source in the form that `ext4-view` wants.
struct Foreign(std::sync::Arc<dyn amiforge_types::ReadAt>);

impl ext4_view::Ext4Read for Foreign {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        Ok(self.0.read_exact_at(dst, start_byte)?)
    }
}
