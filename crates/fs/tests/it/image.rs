//! Extents to a file on the host.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_disk::Extents;
use amiforge_types::{BlobTable, ReadAt};

/// A folder with an image in it.
pub struct Image {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
}

/// Longest file that ext4 takes, where the temporary folder may be; tmpfs takes longer ones.
const LONGEST_ON_EXT4: u64 = (1 << 44) - 4096;

/// Writes extents into a sparse file.
pub fn write(extents: &Extents, blobs: &BlobTable) -> Image {
    let folder = match extents.size() > LONGEST_ON_EXT4 {
        true => tempfile::tempdir_in("/dev/shm").unwrap(),
        false => tempfile::tempdir().unwrap(),
    };
    let path = folder.path().join("disk.img");
    write_to(&path, extents, blobs);
    Image { folder, path }
}

pub fn write_to(path: &Path, extents: &Extents, blobs: &BlobTable) {
    let file = File::create(path).unwrap();
    file.set_len(extents.size()).unwrap();
    for extent in extents.list() {
        let mut done = 0;
        let mut buf = vec![0; 1 << 20];
        while done < extent.len {
            let n = (extent.len - done).min(1 << 20) as usize;
            extent.read_exact(blobs, &mut buf[..n], done).unwrap();
            if buf[..n].iter().any(|b| *b != 0) {
                file.write_all_at(&buf[..n], extent.offset + done).unwrap();
            }
            done += n as u64;
        }
    }
}

/// All blocks of 4096 bytes that are not zero, in whatever pieces the extents give them.
pub fn blocks(extents: &Extents, blobs: &BlobTable) -> BTreeMap<u64, Vec<u8>> {
    let mut out: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for extent in extents.list() {
        let mut at = extent.offset;
        while at < extent.end() {
            let (block, skip) = (at / 4096, (at % 4096) as usize);
            let len = (extent.end() - at).min(4096 - skip as u64) as usize;
            let from = at - extent.offset;
            let part = &mut out.entry(block).or_insert_with(|| vec![0; 4096])[skip..skip + len];
            extent.read_exact(blobs, part, from).unwrap();
            at += len as u64;
        }
    }
    out.retain(|_, block| block.iter().any(|b| *b != 0));
    out
}

/// A file of the host as a source.
pub struct HostFile(File, u64);

impl HostFile {
    pub fn open(path: &Path) -> Arc<dyn ReadAt> {
        let file = File::open(path).unwrap();
        let size = file.metadata().unwrap().len();
        Arc::new(Self(file, size))
    }
}

impl ReadAt for HostFile {
    fn size(&self) -> u64 {
        self.1
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}
