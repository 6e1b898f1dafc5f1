//! What is made when it is read: inode tables, directories, and rows of small files.
//!
//! With two million files these would take most of a gigabyte. Threads that write a disk read it in
//! pieces of a MiB, so making them costs each of them little, and several work at once.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use amiforge_disk::Make;
use amiforge_types::BlobTable;
use zerocopy::IntoBytes;

use super::BLOCK_SIZE;
use super::dir::Shape;
use super::geometry::{FIRST_INODE, INODE_SIZE};
use super::inode::RawInode;
use super::layout::Layout;
use super::scan::{Named, ROOT};

/// The part of `bytes` of the volume that lies in a buffer for the bytes from `at` on: where in the
/// buffer, and how many bytes of it come before.
fn overlap(bytes: Range<u64>, at: u64, len: usize) -> Option<(Range<usize>, u64)> {
    let start = bytes.start.max(at);
    let end = bytes.end.min(at + len as u64);
    let place = |byte: u64| usize::try_from(byte - at).ok();
    (start < end).then_some(())?;
    Some((place(start)?..place(end)?, start - bytes.start))
}

/// Fills `buf` with what comes after `skip` bytes of `bytes`.
fn copy_part(buf: &mut [u8], bytes: &[u8], skip: u64) {
    let skip = usize::try_from(skip).unwrap_or(0);
    buf.copy_from_slice(&bytes[skip..skip + buf.len()]);
}

/// Records of the inodes that belong to the file system.
#[derive(Debug)]
pub(super) struct Reserved(Vec<Option<RawInode>>);

impl Reserved {
    /// None yet.
    pub(super) fn new() -> Self {
        Self(vec![None; FIRST_INODE as usize])
    }

    pub(super) fn put(&mut self, number: u32, raw: &RawInode) {
        if let Some(place) = self.0.get_mut(number as usize) {
            *place = Some(raw.clone());
        }
    }
}

/// All inode tables, one after the other.
#[derive(Debug)]
pub(super) struct InodeTables {
    layout: Arc<Layout>,
    reserved: Reserved,
}

impl InodeTables {
    pub(super) fn new(layout: Arc<Layout>, reserved: Reserved) -> Self {
        Self { layout, reserved }
    }

    fn record(&self, number: u64) -> Option<RawInode> {
        if number == u64::from(ROOT) {
            return Some(self.layout.record(0, |_, _| {}));
        }
        let place = match number.checked_sub(u64::from(FIRST_INODE)) {
            None => return self.reserved.0.get(usize::try_from(number).ok()?)?.clone(),
            Some(index) => usize::try_from(index).ok()? + 1,
        };
        (place < self.layout.scan.len()).then(|| self.layout.record(place, |_, _| {}))
    }
}

impl Make for InodeTables {
    fn make(&self, buf: &mut [u8], offset: u64, _: &BlobTable) -> io::Result<()> {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        for index in offset / INODE_SIZE..end.div_ceil(INODE_SIZE) {
            let bytes = index * INODE_SIZE..(index + 1) * INODE_SIZE;
            let Some((place, skip)) = overlap(bytes, offset, buf.len()) else {
                continue;
            };
            if let Some(raw) = self.record(index + 1) {
                copy_part(&mut buf[place], raw.as_bytes(), skip);
            }
        }
        Ok(())
    }
}

/// A row of directories.
#[derive(Debug)]
pub(super) struct Folders {
    layout: Arc<Layout>,
    /// The first of them in the scan's list.
    first: usize,
}

impl Folders {
    pub(super) fn new(layout: Arc<Layout>, first: usize) -> Self {
        Self { layout, first }
    }
}

impl Make for Folders {
    fn make(&self, buf: &mut [u8], offset: u64, _: &BlobTable) -> io::Result<()> {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let scan = &self.layout.scan;
        for folder in scan.folders.iter().skip(self.first) {
            let place = folder.place as usize;
            if self.layout.placement.start(place) * BLOCK_SIZE >= end {
                break;
            }
            let runs = self.layout.mapping(place).runs;
            let blocks = || runs.iter().flat_map(|r| r.physical..r.physical + r.len);
            let bytes_of = |block: u64| block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE;
            if !blocks().any(|block| overlap(bytes_of(block), offset, buf.len()).is_some()) {
                continue;
            }
            let Some(shape) = scan.shape(folder) else {
                continue;
            };
            for (at, block) in blocks().enumerate() {
                if let Some((place, skip)) = overlap(bytes_of(block), offset, buf.len()) {
                    let bytes = shape.block(&**scan, self.layout.crc, at);
                    copy_part(&mut buf[place], &bytes, skip);
                }
            }
        }
        Ok(())
    }
}

/// One large directory, by bytes from its start. What makes a part of it cheap is the order of its names,
/// eight bytes each; its blocks would take several times that.
#[derive(Debug)]
pub(super) struct LargeFolder {
    layout: Arc<Layout>,
    shape: Shape<Named>,
}

impl LargeFolder {
    pub(super) fn new(layout: Arc<Layout>, shape: Shape<Named>) -> Self {
        Self { layout, shape }
    }
}

impl Make for LargeFolder {
    fn make(&self, buf: &mut [u8], offset: u64, _: &BlobTable) -> io::Result<()> {
        let end = offset + buf.len() as u64;
        for block in offset / BLOCK_SIZE..end.div_ceil(BLOCK_SIZE) {
            let bytes = block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE;
            let at = usize::try_from(block).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            if let Some((place, skip)) = overlap(bytes, offset, buf.len()) {
                let bytes = self.shape.block(&*self.layout.scan, self.layout.crc, at);
                copy_part(&mut buf[place], &bytes, skip);
            }
        }
        Ok(())
    }
}

/// A row of files, each one run of a blob.
#[derive(Debug)]
pub(super) struct SmallFiles {
    layout: Arc<Layout>,
    /// Place of the first of them.
    first: usize,
}

impl SmallFiles {
    pub(super) fn new(layout: Arc<Layout>, first: usize) -> Self {
        Self { layout, first }
    }
}

impl Make for SmallFiles {
    fn make(&self, buf: &mut [u8], offset: u64, blobs: &BlobTable) -> io::Result<()> {
        buf.fill(0);
        let end = offset + buf.len() as u64;
        let scan = &self.layout.scan;
        for place in self.first..scan.len() {
            let Some(file) = scan.file(place) else {
                continue;
            };
            if self.layout.placement.start(place) * BLOCK_SIZE >= end {
                break;
            }
            let runs = self.layout.mapping(place).runs;
            let (Some(run), [data]) = (runs.first(), file.extents()) else {
                continue;
            };
            let start = run.physical * BLOCK_SIZE;
            if let Some((part, skip)) = overlap(start..start + data.len, offset, buf.len()) {
                data.read_exact(blobs, &mut buf[part], skip)?;
            }
        }
        Ok(())
    }
}
