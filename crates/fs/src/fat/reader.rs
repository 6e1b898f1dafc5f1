//! Looking into a FAT volume.
//!
//! This is our own reader: `fatfs`, which writes our volumes, overflows and recurses without end on
//! damaged ones. Layout by Microsoft's FAT specification.

use std::io;
use std::sync::Arc;

use amiforge_types::{ReadAt, Timestamp};

use super::FatError;
use super::entry::{self, Slot};
use crate::window::Window;

/// Most bytes of a directory: 65,536 slots.
const MAX_DIR: u64 = 65_536 * 32;
/// Deepest path that is followed; a damaged volume may hold itself.
const MAX_DEPTH: usize = 64;
/// Bytes of the allocation table that are read at once.
const PAGE: u64 = 4096;
const FAT16_FROM: u64 = 4085;
const FAT32_FROM: u64 = 65_525;

/// What is known of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// True for a directory.
    pub directory: bool,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Last modification, read as UTC; `None` for the root, which has none.
    pub mtime: Option<Timestamp>,
}

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The long name, or the short one where there is no other. Slashes and control characters, which
    /// only a damaged volume has, are replaced.
    pub name: String,
    /// What it leads to.
    pub stat: Stat,
}

/// A FAT volume, opened for reading. Paths have `/` between names; case does not matter.
pub struct Reader {
    window: Window,
    kind: Kind,
    label: String,
    volume_id: u32,
    /// Offsets and lengths in bytes.
    fat: u64,
    root: Root,
    data: u64,
    cluster_len: u64,
    clusters: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the root directory is.
enum Root {
    Fixed { offset: u64, len: u64 },
    Cluster(u64),
}

/// What a path leads to.
enum Found {
    Root,
    Slot(Slot),
}

/// A damaged volume, for the source of an error.
fn damaged() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

impl Reader {
    /// Opens the volume in `len` bytes of `source` from `offset` on.
    pub fn open(source: Arc<dyn ReadAt>, offset: u64, len: u64) -> Result<Self, FatError> {
        let window = Window::new(source, offset, len).map_err(FatError::Open)?;
        let mut boot = [0; 512];
        window.read_exact_at(&mut boot, 0).map_err(FatError::Open)?;
        Self::with_boot_sector(window, &boot).ok_or_else(|| FatError::Open(damaged()))
    }

    fn with_boot_sector(window: Window, boot: &[u8; 512]) -> Option<Self> {
        let word = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let long = |at: usize| word(at) | word(at + 2) << 16;
        let (sector, per_cluster, reserved, fats) =
            (word(11), u64::from(boot[13]), word(14), u64::from(boot[16]));
        let fat_sectors = if word(22) != 0 { word(22) } else { long(36) };
        let sectors = if word(19) != 0 { word(19) } else { long(32) };
        let sane = boot[510..] == [0x55, 0xAA]
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && matches!(fats, 1..=4)
            && fat_sectors > 0;
        if !sane {
            return None;
        }
        // All factors are below 2^32, so nothing here overflows.
        let root_len = word(17) * 32;
        let root = (reserved + fats * fat_sectors) * sector;
        let data = root + root_len.next_multiple_of(sector);
        let cluster_len = per_cluster * sector;
        let clusters = (sectors * sector).checked_sub(data)? / cluster_len;
        // Makers use FAT32 on volumes that the specification finds too small for it; as with Linux, the
        // place of the table's length decides. Below that the number of clusters does.
        let (kind, bits) = match clusters {
            0 => return None,
            _ if word(22) == 0 => (Kind::Fat32, 32),
            n if n < FAT16_FROM => (Kind::Fat12, 12),
            n if n < FAT32_FROM => (Kind::Fat16, 16),
            _ => (Kind::Fat32, 32),
        };
        // No more clusters than the table has room for.
        let clusters = clusters.min((fat_sectors * sector * 8 / bits).checked_sub(2)?);
        let extended = if kind == Kind::Fat32 { 66 } else { 38 };
        let (volume_id, label) = match boot[extended] {
            0x29 => (
                long(extended + 1),
                entry::ascii(&boot[extended + 5..extended + 16]),
            ),
            0x28 => (long(extended + 1), String::new()),
            _ => (0, String::new()),
        };
        Some(Self {
            window,
            kind,
            label,
            volume_id: u32::try_from(volume_id).ok()?,
            fat: reserved * sector,
            root: if kind == Kind::Fat32 {
                Root::Cluster(long(44))
            } else {
                Root::Fixed {
                    offset: root,
                    len: root_len,
                }
            },
            data,
            cluster_len,
            clusters,
        })
    }

    /// The volume label, without its padding.
    #[must_use]
    pub fn label(&self) -> String {
        self.label.clone()
    }

    /// The volume serial number.
    #[must_use]
    pub fn volume_id(&self) -> u32 {
        self.volume_id
    }

    /// `FAT12`, `FAT16` or `FAT32`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Fat12 => "FAT12",
            Kind::Fat16 => "FAT16",
            Kind::Fat32 => "FAT32",
        }
    }

    /// The names in a directory, sorted, without `.` and `..`.
    pub fn list(&self, path: &str) -> Result<Vec<DirEntry>, FatError> {
        let found = self.find(path)?;
        let mut out: Vec<_> = self
            .slots(&found, path)?
            .into_iter()
            .map(|slot| DirEntry {
                stat: stat_of(&slot),
                name: slot.name,
            })
            .collect();
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// What a path leads to.
    pub fn stat(&self, path: &str) -> Result<Stat, FatError> {
        Ok(match self.find(path)? {
            Found::Root => Stat {
                directory: true,
                size: 0,
                mtime: None,
            },
            Found::Slot(slot) => stat_of(&slot),
        })
    }

    /// Reads a part of a file. Fewer bytes than `buf` has are returned only at the file's end.
    pub fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, FatError> {
        let slot = self.file(path)?;
        let left = usize::try_from(slot.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(buf.len());
        if len > 0 {
            let failed = |source| FatError::Read {
                path: path.to_owned(),
                source,
            };
            let runs = self.chain(slot.cluster, slot.size).map_err(failed)?;
            self.copy(&runs, offset, &mut buf[..len]).map_err(failed)?;
        }
        Ok(len)
    }

    /// Reads a whole file. Files end at 4 GiB, the limit of the format.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, FatError> {
        let slot = self.file(path)?;
        if slot.size == 0 {
            return Ok(Vec::new());
        }
        let failed = |source| FatError::Read {
            path: path.to_owned(),
            source,
        };
        // The chain is as long as the size says before anything of that size is allocated.
        let runs = self.chain(slot.cluster, slot.size).map_err(failed)?;
        let mut out = vec![0; usize::try_from(slot.size).map_err(|_| failed(damaged()))?];
        self.copy(&runs, 0, &mut out).map_err(failed)?;
        Ok(out)
    }

    fn file(&self, path: &str) -> Result<Slot, FatError> {
        match self.find(path)? {
            Found::Slot(slot) if !slot.directory => Ok(slot),
            _ => Err(FatError::IsADirectory(path.to_owned())),
        }
    }

    fn find(&self, path: &str) -> Result<Found, FatError> {
        let parts = path
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".");
        let mut found = Found::Root;
        for (depth, part) in parts.enumerate() {
            if depth >= MAX_DEPTH {
                return Err(FatError::BadPath(path.to_owned()));
            }
            let wanted = part.to_uppercase();
            let slot = self.slots(&found, path)?.into_iter().find(|slot| {
                slot.name.to_uppercase() == wanted || slot.short.to_uppercase() == wanted
            });
            found = Found::Slot(slot.ok_or_else(|| FatError::NotFound(path.to_owned()))?);
        }
        Ok(found)
    }

    /// The names in what was found, without `.` and `..`.
    fn slots(&self, found: &Found, path: &str) -> Result<Vec<Slot>, FatError> {
        let bytes = match (found, &self.root) {
            (Found::Root, Root::Fixed { offset, len }) => self.bytes(*offset, *len),
            (Found::Root, Root::Cluster(cluster)) => self.directory(*cluster),
            (Found::Slot(slot), _) if slot.directory => self.directory(slot.cluster),
            (Found::Slot(_), _) => return Err(FatError::NotADirectory(path.to_owned())),
        };
        let bytes = bytes.map_err(|source| FatError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut slots = entry::parse(&bytes);
        if self.kind != Kind::Fat32 {
            // The upper half is something else there.
            for slot in &mut slots {
                slot.cluster &= 0xFFFF;
            }
        }
        Ok(slots)
    }

    fn bytes(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut out = vec![0; usize::try_from(len.min(MAX_DIR)).map_err(|_| damaged())?];
        self.window.read_exact_at(&mut out, offset)?;
        Ok(out)
    }

    /// All clusters of a directory, whose length only its chain tells.
    fn directory(&self, first: u64) -> io::Result<Vec<u8>> {
        let mut table = Table {
            reader: self,
            page: None,
        };
        let mut out = Vec::new();
        let mut cluster = first;
        while (out.len() as u64) < MAX_DIR {
            out.extend(self.bytes(self.offset(cluster)?, self.cluster_len)?);
            match table.next(cluster)? {
                Some(next) => cluster = next,
                None => return Ok(out),
            }
        }
        Err(damaged())
    }

    /// Where a file of `size` bytes lies: runs of clusters as (byte offset, bytes).
    fn chain(&self, first: u64, size: u64) -> io::Result<Vec<(u64, u64)>> {
        let mut table = Table {
            reader: self,
            page: None,
        };
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let count = size.div_ceil(self.cluster_len);
        if count > self.clusters {
            return Err(damaged());
        }
        let mut cluster = Some(first);
        for _ in 0..count {
            let this = cluster.ok_or_else(damaged)?;
            let offset = self.offset(this)?;
            match runs.last_mut() {
                Some((start, len)) if *start + *len == offset => *len += self.cluster_len,
                _ => runs.push((offset, self.cluster_len)),
            }
            cluster = table.next(this)?;
        }
        Ok(runs)
    }

    /// Fills `buf` with what lies `from` bytes into the runs.
    fn copy(&self, runs: &[(u64, u64)], from: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut skip = from;
        let mut done = 0;
        for (offset, len) in runs {
            if skip >= *len {
                skip -= len;
                continue;
            }
            let part = usize::try_from(len - skip)
                .unwrap_or(usize::MAX)
                .min(buf.len() - done);
            self.window
                .read_exact_at(&mut buf[done..done + part], offset + skip)?;
            (done, skip) = (done + part, 0);
        }
        if done < buf.len() {
            Err(damaged())
        } else {
            Ok(())
        }
    }

    /// Byte offset of a cluster that exists.
    fn offset(&self, cluster: u64) -> io::Result<u64> {
        match cluster.checked_sub(2) {
            Some(index) if index < self.clusters => Ok(self.data + index * self.cluster_len),
            _ => Err(damaged()),
        }
    }
}

fn stat_of(slot: &Slot) -> Stat {
    let size = if slot.directory { 0 } else { slot.size };
    Stat {
        directory: slot.directory,
        size,
        mtime: Some(slot.mtime),
    }
}

/// The first allocation table, a page at a time.
struct Table<'r> {
    reader: &'r Reader,
    page: Option<(u64, Vec<u8>)>,
}

impl Table<'_> {
    /// The cluster after `cluster`, `None` at the end of the chain.
    fn next(&mut self, cluster: u64) -> io::Result<Option<u64>> {
        let (value, end) = match self.reader.kind {
            Kind::Fat12 => {
                let at = cluster + cluster / 2;
                let pair = self.byte(at)? | self.byte(at + 1)? << 8;
                (
                    if cluster.is_multiple_of(2) {
                        pair & 0xFFF
                    } else {
                        pair >> 4
                    },
                    0xFF8,
                )
            }
            Kind::Fat16 => (
                self.byte(2 * cluster)? | self.byte(2 * cluster + 1)? << 8,
                0xFFF8,
            ),
            Kind::Fat32 => {
                let mut value = 0;
                for index in (0..4).rev() {
                    value = value << 8 | self.byte(4 * cluster + index)?;
                }
                (value & 0x0FFF_FFFF, 0x0FFF_FFF8)
            }
        };
        Ok((value < end).then_some(value))
    }

    fn byte(&mut self, at: u64) -> io::Result<u64> {
        let start = at / PAGE * PAGE;
        if self.page.as_ref().is_none_or(|(page, _)| *page != start) {
            let left = self
                .reader
                .window
                .len()
                .saturating_sub(self.reader.fat + start);
            self.page = Some((
                start,
                self.reader.bytes(self.reader.fat + start, left.min(PAGE))?,
            ));
        }
        let byte = self
            .page
            .as_ref()
            .and_then(|(_, bytes)| bytes.get(usize::try_from(at - start).ok()?));
        byte.map(|b| u64::from(*b)).ok_or_else(damaged)
    }
}
