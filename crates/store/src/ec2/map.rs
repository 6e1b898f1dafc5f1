//! Block maps, version 1: which blocks a volume consists of. All numbers are little-endian.
//!
//! ```text
//! 0    8    "AMIFBMAP"
//! 8    4    version, 1
//! 12   4    1 = encrypted, 0 = plain
//! 16   8    bytes of the volume, 1 to 2^46
//! 24   4    bytes of a block, 524288
//! 28   4    number n of entries
//! 32   32   data key id; zeros when plain
//! 64   36n  entries by rising block number: number (4), address (32)
//! end  32   when encrypted: HMAC-SHA256 of all before under a sub-key of the data key
//! ```
//!
//! The file's name is the SHA-256 of the whole. Blocks that no entry names are zeros. The last block is padded with zeros.

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;

use amiforge_types::Digest;
use rustix::fs::FlockOperation;

use super::files::{open_regular, read_open, write_private};
use super::{BLOCK_BYTES, DataKey, Ec2, Ec2Error, MAX_VOLUME_BYTES};
use crate::lock::take;

const MAGIC: &[u8; 8] = b"AMIFBMAP";
const VERSION: u32 = 1;
const HEADER: usize = 64;
const ENTRY: usize = 36;
const PROOF: usize = 32;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) address: [u8; 32],
}

/// The blocks of a volume at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    digest: Digest,
    bytes: u64,
    data_key: Option<Digest>,
    entries: Vec<Entry>,
}

impl BlockMap {
    /// The map's own digest, its name in the store.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes of the volume.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The data key that the blocks are encrypted under; `None` when they lie in the open.
    #[must_use]
    pub fn data_key(&self) -> Option<Digest> {
        self.data_key
    }

    /// Numbers of the blocks that are stored, rising; all others are zeros.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.entries.iter().map(|entry| entry.index)
    }

    /// The address of a block: equal for equal bytes under the same data key. `None` for zeros.
    #[must_use]
    pub fn address(&self, index: u32) -> Option<Digest> {
        self.position(index)
            .ok()
            .map(|at| Digest::from_bytes(self.entries[at].address))
    }

    /// Numbers of the blocks that differ between two maps, rising. Blocks under different data keys always do.
    #[must_use]
    pub fn diff(&self, other: &Self) -> Vec<u32> {
        let (mut a, mut b) = (&self.entries[..], &other.entries[..]);
        let mut out = Vec::new();
        loop {
            match (a.split_first(), b.split_first()) {
                (None, None) => return out,
                (Some((x, rest)), y) if y.is_none_or(|(y, _)| x.index < y.index) => {
                    out.push(x.index);
                    a = rest;
                }
                (Some((x, rest)), Some((y, other_rest))) if x.index == y.index => {
                    if x.address != y.address || self.data_key != other.data_key {
                        out.push(x.index);
                    }
                    (a, b) = (rest, other_rest);
                }
                (_, Some((y, rest))) => {
                    out.push(y.index);
                    b = rest;
                }
                // Covered: the second arm takes it.
                (Some(_), None) => return out,
            }
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the entry of a block is, or would be.
    pub(super) fn position(&self, index: u32) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&index, |entry| entry.index)
    }

    /// The bytes of a map and its digest. Entries have to rise, and lie within the volume.
    pub(super) fn write(bytes: u64, entries: &[Entry], key: Option<&DataKey>) -> (Vec<u8>, Digest) {
        let mut out = Vec::with_capacity(HEADER + ENTRY * entries.len() + PROOF);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::from(key.is_some()).to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&u32::try_from(BLOCK_BYTES).unwrap_or(0).to_le_bytes());
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(key.map_or([0; 32], |key| *key.id().as_bytes()).as_slice());
        for entry in entries {
            out.extend_from_slice(&entry.index.to_le_bytes());
            out.extend_from_slice(&entry.address);
        }
        if let Some(key) = key {
            let proof = key.map_proof(&out);
            out.extend_from_slice(&proof);
        }
        let digest = Digest::of(&out);
        (out, digest)
    }

    /// Reads a map. Its proof is checked only with the key.
    pub(super) fn parse(
        bytes: &[u8],
        digest: Digest,
        key: Option<&DataKey>,
    ) -> Result<Self, String> {
        let header = Header::parse(bytes.get(..HEADER).ok_or("cut short")?)?;
        if bytes.len() as u64 != header.file_len() {
            return Err(format!(
                "{} bytes instead of {}",
                bytes.len(),
                header.file_len()
            ));
        }
        if Digest::of(bytes) != digest {
            return Err("its digest is another one".to_owned());
        }
        let body_len = HEADER + ENTRY * header.count as usize;
        if let (Some(id), Some(key)) = (header.data_key, key)
            && key.id() == id
            && !key.is_map_proof(&bytes[..body_len], &bytes[body_len..])
        {
            return Err("it was not written under its data key".to_owned());
        }
        let (raw, _) = bytes[HEADER..body_len].as_chunks::<ENTRY>();
        let mut entries = Vec::with_capacity(raw.len());
        let blocks = header.bytes.div_ceil(BLOCK_BYTES);
        let mut next = 0;
        for raw in raw {
            let (index, address) = raw.split_at(4);
            let index = u32::from_le_bytes(index.try_into().unwrap_or_default());
            if u64::from(index) < next || u64::from(index) >= blocks {
                return Err(format!("block {index} is out of place"));
            }
            next = u64::from(index) + 1;
            let address = address.try_into().unwrap_or([0; 32]);
            entries.push(Entry { index, address });
        }
        Ok(Self {
            digest,
            bytes: header.bytes,
            data_key: header.data_key,
            entries,
        })
    }
}

struct Header {
    bytes: u64,
    count: u32,
    data_key: Option<Digest>,
}

/// A version other than ours, before anything else of the file is believed.
fn version_of(bytes: &[u8]) -> Option<u32> {
    (bytes.get(..8)? == MAGIC).then_some(())?;
    Some(u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?))
}

impl Header {
    fn parse(raw: &[u8]) -> Result<Self, String> {
        let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap_or_default());
        if &raw[..8] != MAGIC {
            return Err("not a block map".to_owned());
        }
        if word(8) != VERSION || word(12) > 1 {
            return Err(format!("version {}, kind {}", word(8), word(12)));
        }
        let bytes = u64::from_le_bytes(raw[16..24].try_into().unwrap_or_default());
        if !(1..=MAX_VOLUME_BYTES).contains(&bytes) {
            return Err(format!("a volume of {bytes} bytes"));
        }
        if u64::from(word(24)) != BLOCK_BYTES {
            return Err(format!("blocks of {} bytes", word(24)));
        }
        let count = word(28);
        if u64::from(count) > bytes.div_ceil(BLOCK_BYTES) {
            return Err(format!("{count} blocks in a volume of {bytes} bytes"));
        }
        let id = Digest::from_bytes(raw[32..64].try_into().unwrap_or([0; 32]));
        let encrypted = word(12) == 1;
        if !encrypted && id != Digest::from_bytes([0; 32]) {
            return Err("a plain map with a data key".to_owned());
        }
        Ok(Self {
            bytes,
            count,
            data_key: encrypted.then_some(id),
        })
    }

    fn file_len(&self) -> u64 {
        let proof = if self.data_key.is_some() { PROOF } else { 0 };
        (HEADER + proof) as u64 + ENTRY as u64 * u64::from(self.count)
    }
}

/// A map whose file is kept from being collected.
#[derive(Debug)]
pub(super) struct OpenMap {
    pub(super) map: BlockMap,
    /// Has a shared lock.
    _file: File,
}

impl Ec2 {
    /// Reads a block map.
    ///
    /// # Errors
    /// [`Ec2Error::NoMap`], [`Ec2Error::Version`], [`Ec2Error::Damaged`].
    pub fn map(&self, map: &Digest) -> Result<BlockMap, Ec2Error> {
        self.lock_map(map, None).map(|open| open.map)
    }

    /// Numbers of the blocks that differ between two maps, rising; see [`BlockMap::diff`].
    pub fn diff(&self, a: &Digest, b: &Digest) -> Result<Vec<u32>, Ec2Error> {
        Ok(self.map(a)?.diff(&self.map(b)?))
    }

    pub(super) fn map_path(&self, map: &Digest) -> PathBuf {
        self.dir("maps").join(map.hex())
    }

    /// Reads a map and keeps it from being collected.
    pub(super) fn lock_map(
        &self,
        digest: &Digest,
        key: Option<&DataKey>,
    ) -> Result<OpenMap, Ec2Error> {
        let path = self.map_path(digest);
        let none = || Ec2Error::NoMap {
            path: path.clone(),
            map: *digest,
        };
        let Some(file) = open_regular(&path)? else {
            return Err(none());
        };
        take(&file, FlockOperation::LockShared)
            .map_err(|e| Ec2Error::io("lock", &path)(e.into()))?;
        // The collection removes the name before it lets go of the lock.
        if !crate::session::is_same_file(&file, &path) {
            return Err(none());
        }
        let bytes = self.read_map_file(&file, digest)?;
        let map =
            BlockMap::parse(&bytes, *digest, key).map_err(|what| Ec2Error::damaged(&path, what))?;
        Ok(OpenMap { map, _file: file })
    }

    fn read_map_file(&self, file: &File, digest: &Digest) -> Result<Vec<u8>, Ec2Error> {
        let path = self.map_path(digest);
        let mut head = [0; HEADER];
        // The header alone says how long the rest may be.
        (&mut &*file)
            .read_exact(&mut head)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => Ec2Error::damaged(&path, "cut short"),
                _ => Ec2Error::io("read", &path)(e),
            })?;
        if let Some(found) = version_of(&head).filter(|found| *found != VERSION) {
            return Err(Ec2Error::Version {
                path,
                found: found.into(),
                known: VERSION.into(),
            });
        }
        let header = Header::parse(&head).map_err(|what| Ec2Error::damaged(&path, what))?;
        let rest = read_open(file, &path, header.file_len())?;
        Ok([&head[..], &rest].concat())
    }

    /// Gives a map its name, unless it has one: the file of an equal map stays, since readers have locks on it.
    pub(super) fn put_map(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Ec2Error> {
        let path = self.map_path(digest);
        if let Some(file) = open_regular(&path)?
            && read_open(&file, &path, bytes.len() as u64).is_ok_and(|there| there == bytes)
        {
            return Ok(());
        }
        write_private(self.session().dir(), &path, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u32, byte: u8) -> Entry {
        Entry {
            index,
            address: [byte; 32],
        }
    }

    fn map(entries: &[Entry]) -> BlockMap {
        let (bytes, digest) = BlockMap::write(100 * BLOCK_BYTES - 5, entries, None);
        BlockMap::parse(&bytes, digest, None).unwrap()
    }

    #[test]
    fn differences_come_from_both_sides() {
        let a = map(&[entry(1, 1), entry(2, 2), entry(5, 5), entry(99, 9)]);
        let b = map(&[entry(0, 1), entry(2, 2), entry(5, 6), entry(7, 7)]);
        assert_eq!(a.diff(&b), [0, 1, 5, 7, 99]);
        assert_eq!(b.diff(&a), [0, 1, 5, 7, 99]);
        assert!(a.diff(&a).is_empty());
        assert_eq!(map(&[]).diff(&a), [1, 2, 5, 99]);
        assert_eq!(a.diff(&map(&[])), [1, 2, 5, 99]);
    }

    #[test]
    fn bad_maps_are_refused() {
        let (good, digest) = BlockMap::write(100 * BLOCK_BYTES, &[entry(3, 1), entry(99, 2)], None);
        assert_eq!(
            BlockMap::parse(&good, digest, None)
                .unwrap()
                .blocks()
                .collect::<Vec<_>>(),
            [3, 99]
        );
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            BlockMap::parse(&bad, Digest::of(&bad), None).unwrap_err()
        };
        assert_eq!(with(0, b"X"), "not a block map");
        assert_eq!(with(8, &[2]), "version 2, kind 0");
        assert_eq!(with(16, &[0; 8]), "a volume of 0 bytes");
        assert_eq!(
            with(16, &[255; 8]),
            "a volume of 18446744073709551615 bytes"
        );
        assert_eq!(with(24, &[1]), "blocks of 524289 bytes");
        assert_eq!(with(28, &[200]), "200 blocks in a volume of 52428800 bytes");
        assert_eq!(with(28, &[3]), "136 bytes instead of 172");
        assert_eq!(with(12, &[1]), "136 bytes instead of 168");
        assert_eq!(with(40, &[1]), "a plain map with a data key");
        assert_eq!(with(64, &[99]), "block 99 is out of place");
        assert_eq!(with(100, &[100]), "block 100 is out of place");
        assert_eq!(
            BlockMap::parse(&good[..50], digest, None).unwrap_err(),
            "cut short"
        );
        assert_eq!(
            BlockMap::parse(&good, Digest::of(b""), None).unwrap_err(),
            "its digest is another one"
        );
    }
}
