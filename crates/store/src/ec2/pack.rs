//! Pack files, version 1: blocks one after the other. All numbers are little-endian.
//!
//! ```text
//! <name>.pack    0     8   "AMIFPACK"
//!                8     4   version, 1
//!                12    4   bytes of a slot, 524288
//!                16    16  the name, as bytes
//!                4096      slots: whole blocks; a hole where the collection of garbage took one
//! <name>.index   0     8   "AMIFPIDX"
//!                8     4   version, 1
//!                12    4   number n of slots
//!                16    16  the name
//!                32    64n entries in order of their slots: address (32), 1 = encrypted (4), seal (28; zeros when plain)
//!                end   32  SHA-256 of all before
//! ```
//!
//! The name is random, 32 hex digits, never used again. A pack never changes but for the holes.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use amiforge_types::Digest;

use super::crypt::{SEAL, random};
use super::files::{open_regular, read_limited, temp_file};
use super::{BLOCK, BLOCK_BYTES, Ec2Error, MAX_VOLUME_BYTES};
use crate::atomic::sync_dir;

const MAGIC: &[u8; 8] = b"AMIFPACK";
const INDEX_MAGIC: &[u8; 8] = b"AMIFPIDX";
const VERSION: u32 = 1;
pub(super) const SLOTS_AT: u64 = 4096;
const INDEX_HEADER: usize = 32;
const INDEX_ENTRY: usize = 64;
/// Open packs that are remembered: each is a file descriptor.
const REMEMBERED: usize = 256;

/// Where a slot begins in its file.
pub(super) fn slot_offset(slot: u32) -> u64 {
    SLOTS_AT + u64::from(slot) * BLOCK_BYTES
}

/// A block of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PackEntry {
    pub(super) address: [u8; 32],
    pub(super) seal: Option<[u8; SEAL]>,
}

/// A pack being written, by several threads at their slots.
pub(super) struct PackWriter {
    temp: tempfile::NamedTempFile,
    temp_dir: PathBuf,
    name: [u8; 16],
    entries: Vec<PackEntry>,
}

/// A pack that is durable under its name, but not in the database: it is removed again when this is dropped.
pub(super) struct PlacedPack {
    pub(super) name: String,
    /// With their slots.
    pub(super) entries: Vec<(u32, PackEntry)>,
    files: Vec<PathBuf>,
}

impl PackWriter {
    pub(super) fn create(temp_dir: &Path) -> Result<Self, Ec2Error> {
        let temp = temp_file(temp_dir)?;
        let mut name = [0; 16];
        random(&mut name)?;
        let mut header = Vec::with_capacity(32);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&u32::try_from(BLOCK).unwrap_or(0).to_le_bytes());
        header.extend_from_slice(&name);
        header.resize(4096, 0);
        temp.as_file()
            .write_all_at(&header, 0)
            .map_err(Ec2Error::io("write", temp.path()))?;
        Ok(Self {
            temp,
            temp_dir: temp_dir.to_owned(),
            name,
            entries: Vec::new(),
        })
    }

    /// The slot of a new block.
    pub(super) fn add(&mut self, address: [u8; 32]) -> u32 {
        let slot = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries.push(PackEntry {
            address,
            seal: None,
        });
        slot
    }

    pub(super) fn set_seal(&mut self, slot: u32, seal: [u8; SEAL]) {
        self.entries[slot as usize].seal = Some(seal);
    }

    /// Writes a whole block to its slot.
    pub(super) fn write(&self, slot: u32, block: &[u8]) -> Result<(), Ec2Error> {
        self.temp
            .as_file()
            .write_all_at(block, slot_offset(slot))
            .map_err(Ec2Error::io("write", self.temp.path()))
    }

    /// Makes the pack durable in `dir`, its index first.
    pub(super) fn place(self, dir: &Path) -> Result<PlacedPack, Ec2Error> {
        use std::fmt::Write as _;
        let mut name = String::new();
        for byte in self.name {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let index = write_index(&self.name, &self.entries);
        self.temp
            .as_file()
            .sync_data()
            .map_err(Ec2Error::io("sync", self.temp.path()))?;
        let mut placed = PlacedPack {
            name,
            entries: (0..).zip(self.entries).collect(),
            files: Vec::new(),
        };
        let temp_index = temp_file(&self.temp_dir)?;
        temp_index
            .as_file()
            .write_all_at(&index, 0)
            .and_then(|()| temp_index.as_file().sync_all())
            .map_err(Ec2Error::io("write", temp_index.path()))?;
        for (temp, end) in [(temp_index, "index"), (self.temp, "pack")] {
            let path = dir.join(format!("{}.{end}", placed.name));
            temp.persist_noclobber(&path)
                .map_err(|e| Ec2Error::io("rename a temporary file to", &path)(e.error))?;
            placed.files.push(path);
        }
        sync_dir(dir)?;
        Ok(placed)
    }
}

impl PlacedPack {
    /// The database knows it.
    pub(super) fn keep(mut self) {
        self.files.clear();
    }
}

impl Drop for PlacedPack {
    fn drop(&mut self) {
        for path in &self.files {
            // Else the next collection does.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn write_index(name: &[u8; 16], entries: &[PackEntry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INDEX_HEADER + INDEX_ENTRY * entries.len() + 32);
    out.extend_from_slice(INDEX_MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(
        &u32::try_from(entries.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    out.extend_from_slice(name);
    for entry in entries {
        out.extend_from_slice(&entry.address);
        out.extend_from_slice(&u32::from(entry.seal.is_some()).to_le_bytes());
        out.extend_from_slice(&entry.seal.unwrap_or([0; SEAL]));
    }
    let sum = Digest::of(&out);
    out.extend_from_slice(sum.as_bytes());
    out
}

/// Reads the index beside a pack.
pub(super) fn read_index(path: &Path) -> Result<Vec<PackEntry>, Ec2Error> {
    let limit =
        INDEX_HEADER as u64 + 32 + INDEX_ENTRY as u64 * MAX_VOLUME_BYTES.div_ceil(BLOCK_BYTES);
    let damaged = |what: &str| Ec2Error::damaged(path, what);
    let bytes = read_limited(path, limit)?.ok_or_else(|| damaged("it is missing"))?;
    let (body, sum) = bytes.split_at(bytes.len().saturating_sub(32));
    let head = body
        .get(..INDEX_HEADER)
        .ok_or_else(|| damaged("cut short"))?;
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
    if &head[..8] != INDEX_MAGIC {
        return Err(damaged("not the index of a pack"));
    }
    if word(8) != VERSION {
        return Err(Ec2Error::Version {
            path: path.to_owned(),
            found: word(8).into(),
            known: VERSION.into(),
        });
    }
    let (raw, rest) = body[INDEX_HEADER..].as_chunks::<INDEX_ENTRY>();
    if raw.len() != word(12) as usize || !rest.is_empty() || Digest::of(body).as_bytes() != sum {
        return Err(damaged("its length or checksum is wrong"));
    }
    let entry = |raw: &[u8; INDEX_ENTRY]| PackEntry {
        address: raw[..32].try_into().unwrap_or([0; 32]),
        seal: (raw[32] == 1).then(|| raw[36..].try_into().unwrap_or([0; SEAL])),
    };
    Ok(raw.iter().map(entry).collect())
}

/// A pack that is open for reading.
#[derive(Debug)]
pub(super) struct PackFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

impl PackFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, Ec2Error> {
        let Some(file) = open_regular(&path)? else {
            return Err(Ec2Error::damaged(path, "it is missing"));
        };
        let mut head = [0; 16];
        if let Err(e) = file.read_exact_at(&mut head, 0) {
            return Err(match e.kind() {
                std::io::ErrorKind::UnexpectedEof => Ec2Error::damaged(path, "cut short"),
                _ => Ec2Error::io("read", path)(e),
            });
        }
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default());
        if &head[..8] != MAGIC {
            return Err(Ec2Error::damaged(path, "not a pack"));
        }
        if word(8) != VERSION {
            return Err(Ec2Error::Version {
                path,
                found: word(8).into(),
                known: VERSION.into(),
            });
        }
        if u64::from(word(12)) != BLOCK_BYTES {
            return Err(Ec2Error::damaged(
                path,
                format!("slots of {} bytes", word(12)),
            ));
        }
        Ok(Self { path, file })
    }

    /// Fills `buf` from within a slot.
    pub(super) fn read(&self, slot: u32, offset: u64, buf: &mut [u8]) -> Result<(), Ec2Error> {
        self.file
            .read_exact_at(buf, slot_offset(slot) + offset)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => {
                    Ec2Error::damaged(&self.path, format!("it ends before slot {slot} does"))
                }
                _ => Ec2Error::io("read", &self.path)(e),
            })
    }
}

/// Open packs by their numbers in the database.
#[derive(Debug, Default)]
pub(super) struct PackFiles {
    open: RwLock<HashMap<u32, Arc<PackFile>>>,
}

impl PackFiles {
    pub(super) fn get(
        &self,
        id: u32,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<Arc<PackFile>, Ec2Error> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&id) {
            return Ok(file.clone());
        }
        drop(open);
        let file = Arc::new(PackFile::open(path())?);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= REMEMBERED {
            open.clear();
        }
        open.insert(id, file.clone());
        Ok(file)
    }

    /// Lets go of all files, so that those which were removed free their room.
    pub(super) fn forget(&self) {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
