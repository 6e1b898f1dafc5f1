//! Helpers of this crate's tests.

use std::io;
use std::sync::Mutex;

use amiforge_types::{BlobTable, ReadAt, WriteAt};

use crate::{Extents, emit::read_extent};

/// The bytes of a disk, the slow and obvious way.
pub(crate) fn flatten(extents: &Extents, blobs: &BlobTable) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(extents.size()).unwrap()];
    for e in extents.list() {
        let range = usize::try_from(e.offset).unwrap()..usize::try_from(e.end()).unwrap();
        read_extent(&e.data, 0, &mut out[range], blobs).unwrap();
    }
    out
}

/// A target in memory; what is never written keeps what `set_len` made.
#[derive(Default)]
pub(crate) struct Memory(pub(crate) Mutex<Vec<u8>>);

impl Memory {
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl WriteAt for Memory {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        if bytes.len() < start + buf.len() {
            bytes.resize(start + buf.len(), 0);
        }
        bytes[start..start + buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0
            .lock()
            .unwrap()
            .resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.lock().unwrap().len() as u64
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.lock().unwrap().read_exact_at(buf, offset)
    }
}
