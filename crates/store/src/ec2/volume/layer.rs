//! What was written to a volume since a point in time: a data file and a mask file.
//!
//! ```text
//! data-<n>  as long as the volume, sparse; each grain of 4,096 bytes lies where the volume has it
//! mask-<n>  0     8   "AMIFMASK"
//!           8     4   version, 1
//!           12    4   bytes of a grain, 4096
//!           16    8   generation n
//!           24    8   bytes of the volume
//!           4096      for each block of 512 KiB a mask of 128 bits, little-endian: bit g = its grain g is in data
//! ```
//!
//! Bits only ever come. They are kept in memory, and written by [`Layer::flush`] after the data that they speak of is durable.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

use super::super::crypt::SECTOR;
use super::super::files::open_regular;
use super::super::{BLOCK_BYTES, DataKey, Ec2Error};

/// Bytes of a grain.
pub(super) const GRAIN: u64 = 4096;
pub(super) const GRAINS: u32 = 128;
const _: () = assert!(GRAIN * GRAINS as u64 == BLOCK_BYTES && SECTOR as u64 == GRAIN);

const MAGIC: &[u8; 8] = b"AMIFMASK";
const VERSION: u32 = 1;
const HEADER: u64 = 4096;
const PAGE_LEN: usize = 4096;
const PAGE: u64 = PAGE_LEN as u64;
/// Masks on a page of the file.
const PER_PAGE: u64 = PAGE / 16;

/// The masks of 128 MiB.
#[derive(Debug)]
struct Page {
    /// Two words for each block, the lower first.
    words: [AtomicU64; PAGE_LEN / 8],
    /// Not as on the disk.
    dirty: AtomicBool,
}

impl Page {
    fn new() -> Box<Self> {
        Box::new(Self {
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            dirty: AtomicBool::new(false),
        })
    }
}

/// One layer, open.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) generation: u64,
    bytes: u64,
    data: File,
    data_path: PathBuf,
    mask: File,
    mask_path: PathBuf,
    /// Made when the first of their blocks is written to.
    pages: Vec<OnceLock<Box<Page>>>,
    /// A grain is in data.
    any: AtomicBool,
    /// A hole cannot be punched on this file system.
    no_holes: AtomicBool,
}

pub(super) fn data_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("data-{generation}"))
}

pub(super) fn mask_path(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("mask-{generation}"))
}

fn pages_of(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES).div_ceil(PER_PAGE)
}

fn make(path: &Path, len: u64, head: &[u8]) -> Result<File, Ec2Error> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(Ec2Error::io("create", path))?;
    file.set_len(len)
        .and_then(|()| file.write_all_at(head, 0))
        .and_then(|()| file.sync_all())
        .map_err(Ec2Error::io("write", path))?;
    Ok(file)
}

/// A file that is there, for reading and writing.
fn open_writable(path: &Path, len: u64) -> Result<File, Ec2Error> {
    let Some(reading) = open_regular(path)? else {
        return Err(Ec2Error::damaged(path, "it is missing"));
    };
    let found = reading
        .metadata()
        .map_err(Ec2Error::io("look at", path))?
        .len();
    if found != len {
        return Err(Ec2Error::damaged(
            path,
            format!("{found} bytes instead of {len}"),
        ));
    }
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0))
        .open(path)
        .map_err(Ec2Error::io("open", path))
}

impl Layer {
    /// Makes an empty layer; its files are durable, their names when the folder is synced.
    pub(super) fn create(dir: &Path, generation: u64, bytes: u64) -> Result<Self, Ec2Error> {
        let (data_path, mask_path) = (data_path(dir, generation), mask_path(dir, generation));
        let mut head = Vec::with_capacity(32);
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&u32::try_from(GRAIN).unwrap_or(0).to_le_bytes());
        head.extend_from_slice(&generation.to_le_bytes());
        head.extend_from_slice(&bytes.to_le_bytes());
        let data = make(&data_path, bytes, &[])?;
        let mask = make(&mask_path, HEADER + PAGE * pages_of(bytes), &head)?;
        Ok(Self::with(
            generation,
            bytes,
            (data, data_path),
            (mask, mask_path),
        ))
    }

    fn with(
        generation: u64,
        bytes: u64,
        (data, data_path): (File, PathBuf),
        (mask, mask_path): (File, PathBuf),
    ) -> Self {
        let mut pages = Vec::new();
        pages.resize_with(usize::try_from(pages_of(bytes)).unwrap_or(0), OnceLock::new);
        Self {
            generation,
            bytes,
            data,
            data_path,
            mask,
            mask_path,
            pages,
            any: AtomicBool::new(false),
            no_holes: AtomicBool::new(false),
        }
    }

    /// Opens a layer. Pages of the mask file that are holes cost nothing.
    pub(super) fn open(dir: &Path, generation: u64, bytes: u64) -> Result<Self, Ec2Error> {
        let (data_path, mask_path) = (data_path(dir, generation), mask_path(dir, generation));
        let data = open_writable(&data_path, bytes)?;
        let mask_len = HEADER + PAGE * pages_of(bytes);
        let mask = open_writable(&mask_path, mask_len)?;
        let mut head = [0; 32];
        mask.read_exact_at(&mut head, 0)
            .map_err(Ec2Error::io("read", &mask_path))?;
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
        let long = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap_or_default());
        if &head[..8] != MAGIC {
            return Err(Ec2Error::damaged(mask_path, "not a mask file"));
        }
        if word(8) != VERSION {
            return Err(Ec2Error::Version {
                path: mask_path,
                found: word(8).into(),
                known: VERSION.into(),
            });
        }
        if u64::from(word(12)) != GRAIN || long(16) != generation || long(24) != bytes {
            return Err(Ec2Error::damaged(mask_path, "it belongs to another layer"));
        }
        let layer = Self::with(generation, bytes, (data, data_path), (mask, mask_path));
        layer.load()?;
        Ok(layer)
    }

    fn load(&self) -> Result<(), Ec2Error> {
        let end = HEADER + PAGE * self.pages.len() as u64;
        let mut at = HEADER;
        while at < end {
            // A file system without holes gives the same offset back, and one without the call an error.
            let data = match seek(&self.mask, SeekFrom::Data(at)) {
                Ok(data) => data.max(at),
                Err(Errno::NXIO) => break,
                Err(_) => at,
            };
            at = data / PAGE * PAGE;
            if at >= end {
                break;
            }
            let mut raw = [0; PAGE_LEN];
            self.mask
                .read_exact_at(&mut raw, at)
                .map_err(Ec2Error::io("read", &self.mask_path))?;
            let number = (at - HEADER) / PAGE;
            if raw.iter().any(|byte| *byte != 0) {
                let page = Page::new();
                let (words, _) = raw.as_chunks::<8>();
                for (word, raw) in page.words.iter().zip(words) {
                    word.store(u64::from_le_bytes(*raw), Ordering::Relaxed);
                }
                let _ = self.pages[usize::try_from(number).unwrap_or(0)].set(page);
                self.any.store(true, Ordering::Relaxed);
            }
            at += PAGE;
        }
        // No bit past the end.
        let blocks = self.bytes.div_ceil(BLOCK_BYTES);
        for block in blocks - 1..PER_PAGE * self.pages.len() as u64 {
            let grains = (self.bytes / GRAIN).saturating_sub(block * u64::from(GRAINS));
            let allowed = u32::try_from(grains.min(GRAINS.into())).map_or(0, low_bits);
            if self.mask(block) & !allowed != 0 {
                return Err(Ec2Error::damaged(
                    &self.mask_path,
                    format!("block {block} has grains past the end"),
                ));
            }
        }
        Ok(())
    }

    fn page(&self, block: u64) -> &OnceLock<Box<Page>> {
        &self.pages[usize::try_from(block / PER_PAGE).unwrap_or(usize::MAX)]
    }

    /// Which grains of a block are in data.
    pub(super) fn mask(&self, block: u64) -> u128 {
        let Some(page) = self.page(block).get() else {
            return 0;
        };
        let at = usize::try_from(block % PER_PAGE).unwrap_or(0) * 2;
        // Acquire: whoever sees a bit sees the data that was written before it was set.
        let low = page.words[at].load(Ordering::Acquire);
        let high = page.words[at + 1].load(Ordering::Acquire);
        u128::from(low) | u128::from(high) << 64
    }

    /// Sets bits, after their grains were written.
    pub(super) fn set(&self, block: u64, bits: u128) {
        let page = self.page(block).get_or_init(Page::new);
        let at = usize::try_from(block % PER_PAGE).unwrap_or(0) * 2;
        let (low, high) = (bits & u128::from(u64::MAX), bits >> 64);
        let mut changed = false;
        for (word, bits) in page.words[at..].iter().zip([low, high]) {
            let bits = u64::try_from(bits).unwrap_or(0);
            changed |= bits & !word.load(Ordering::Relaxed) != 0
                && word.fetch_or(bits, Ordering::AcqRel) & bits != bits;
        }
        if changed {
            page.dirty.store(true, Ordering::Release);
            self.any.store(true, Ordering::Release);
        }
    }

    /// Whether nothing was ever written.
    pub(super) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    /// Numbers of the blocks with any grain in data, rising.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> + '_ {
        let pages = (0u64..).zip(&self.pages);
        pages
            .filter(|(_, page)| page.get().is_some())
            .flat_map(|(number, _)| number * PER_PAGE..(number + 1) * PER_PAGE)
            .filter(|block| self.mask(*block) != 0)
    }

    /// Reads what is in data, in whole grains when it is encrypted.
    pub(super) fn read(
        &self,
        key: Option<&DataKey>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<(), Ec2Error> {
        let fail = |e| Ec2Error::io("read", &self.data_path)(e);
        let Some(key) = key else {
            return self.data.read_exact_at(buf, offset).map_err(fail);
        };
        let first = offset / GRAIN;
        if offset.is_multiple_of(GRAIN) && (buf.len() as u64).is_multiple_of(GRAIN) {
            self.data.read_exact_at(buf, offset).map_err(fail)?;
            key.decrypt_sectors(first, buf);
            return Ok(());
        }
        let end = (offset + buf.len() as u64).next_multiple_of(GRAIN);
        let mut grains = vec![0; usize::try_from(end - first * GRAIN).unwrap_or(0)];
        self.data
            .read_exact_at(&mut grains, first * GRAIN)
            .map_err(fail)?;
        key.decrypt_sectors(first, &mut grains);
        let from = usize::try_from(offset - first * GRAIN).unwrap_or(0);
        buf.copy_from_slice(&grains[from..from + buf.len()]);
        Ok(())
    }

    /// Writes to data, which is encrypted already if it is to be.
    pub(super) fn write(&self, buf: &[u8], offset: u64) -> Result<(), Ec2Error> {
        self.data
            .write_all_at(buf, offset)
            .map_err(Ec2Error::io("write", &self.data_path))
    }

    /// Makes whole grains zero.
    pub(super) fn punch(&self, offset: u64, len: u64) -> Result<(), Ec2Error> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        while !self.no_holes.load(Ordering::Relaxed) {
            match fallocate(&self.data, flags, offset, len) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    self.no_holes.store(true, Ordering::Relaxed);
                }
                Err(e) => return Err(Ec2Error::io("punch a hole into", &self.data_path)(e.into())),
            }
        }
        let zeros = [0; 64 << 10];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(zeros.len() as u64);
            self.write(&zeros[..usize::try_from(n).unwrap_or(0)], offset + done)?;
            done += n;
        }
        Ok(())
    }

    /// The pages that are not as on the disk, as they are now.
    pub(super) fn dirty_pages(&self) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        for (number, page) in (0u64..).zip(&self.pages) {
            let Some(page) = page.get() else { continue };
            // Before the bits are read: one that comes meanwhile marks the page again.
            if page.dirty.swap(false, Ordering::AcqRel) {
                let words = page.words.iter();
                let raw = words.flat_map(|word| word.load(Ordering::Acquire).to_le_bytes());
                out.push((number, raw.collect()));
            }
        }
        out
    }

    pub(super) fn sync_data(&self) -> Result<(), Ec2Error> {
        self.data
            .sync_data()
            .map_err(Ec2Error::io("sync", &self.data_path))
    }

    /// Writes pages whose data is durable.
    pub(super) fn write_pages(&self, pages: &[(u64, Vec<u8>)]) -> Result<(), Ec2Error> {
        for (number, raw) in pages {
            self.mask
                .write_all_at(raw, HEADER + PAGE * number)
                .map_err(Ec2Error::io("write", &self.mask_path))?;
        }
        Ok(())
    }

    /// Says again that pages are not as on the disk.
    pub(super) fn mark_pages(&self, pages: &[(u64, Vec<u8>)]) {
        for (number, _) in pages {
            if let Some(page) = self.page(number * PER_PAGE).get() {
                page.dirty.store(true, Ordering::Release);
            }
        }
    }

    pub(super) fn sync_masks(&self) -> Result<(), Ec2Error> {
        self.mask
            .sync_data()
            .map_err(Ec2Error::io("sync", &self.mask_path))
    }
}

/// The lowest `count` bits, 0 to 128.
pub(super) fn low_bits(count: u32) -> u128 {
    match count {
        0 => 0,
        n if n >= GRAINS => u128::MAX,
        n => (1 << n) - 1,
    }
}
