//! Reading a snapshot.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use amiforge_types::{Digest, ReadAt};
use rayon::prelude::*;
use rusqlite::{OptionalExtension as _, params};

use super::crypt::SEAL;
use super::map::OpenMap;
use super::{BLOCK, BLOCK_BYTES, BlockMap, DataKey, Ec2, Ec2Error};

/// How many blocks are looked up at once: a query costs less than beginning a transaction for it.
const LOOK_UP: usize = 32;

/// Whether blocks are compared with their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Each block the first time that it is read, whole: for whatever leaves the store.
    FirstRead,
    /// Only encrypted blocks, which are authenticated the first time that they are read: for guests.
    Encrypted,
}

/// Where a block lies.
#[derive(Debug)]
struct Place {
    pack: u32,
    slot: u32,
    name: String,
    seal: Option<[u8; SEAL]>,
    /// Found whole.
    checked: AtomicBool,
}

/// A snapshot as a source of bytes, which knows its holes. Its blocks are not collected while it is open.
#[derive(Debug)]
pub struct SnapshotReader {
    ec2: Ec2,
    open: OpenMap,
    key: Option<DataKey>,
    check: Check,
    /// As many as the map has entries.
    places: Vec<OnceLock<Place>>,
}

thread_local! {
    /// A block to check in; kept, since its pages cost more than the check.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Ec2 {
    /// Opens a snapshot by its map. `key` is the data key that the blocks are encrypted under, if they are.
    ///
    /// # Errors
    /// [`Ec2Error::NoMap`], [`Ec2Error::NeedsKey`], [`Ec2Error::OtherKey`], and what makes the map unreadable.
    pub fn open(
        &self,
        map: &Digest,
        key: Option<&DataKey>,
        check: Check,
    ) -> Result<SnapshotReader, Ec2Error> {
        let open = self.lock_map(map, key)?;
        let what = || format!("the map {map}");
        match (open.map.data_key(), key) {
            (Some(_), None) => return Err(Ec2Error::NeedsKey { what: what() }),
            (id, Some(key)) if id != Some(key.id()) => {
                return Err(Ec2Error::OtherKey {
                    what: what(),
                    given: key.id(),
                });
            }
            _ => {}
        }
        let mut places = Vec::new();
        places.resize_with(open.map.entries().len(), OnceLock::new);
        Ok(SnapshotReader {
            ec2: self.clone(),
            open,
            key: key.cloned(),
            check,
            places,
        })
    }

    /// Reads all blocks of a map and compares them with their addresses; gives their number.
    ///
    /// # Errors
    /// [`Ec2Error::NoBlock`], [`Ec2Error::BadBlock`], and those of [`Ec2::open`].
    pub fn verify(&self, map: &Digest, key: Option<&DataKey>) -> Result<u64, Ec2Error> {
        self.open(map, key, Check::FirstRead)?.verify()
    }
}

impl SnapshotReader {
    /// The map.
    #[must_use]
    pub fn map(&self) -> &BlockMap {
        &self.open.map
    }

    /// Reads all blocks and compares them with their addresses; gives their number.
    pub fn verify(&self) -> Result<u64, Ec2Error> {
        (0..self.places.len())
            .into_par_iter()
            .try_for_each(|at| self.whole(at, |_| ()))?;
        Ok(self.places.len() as u64)
    }

    /// Where the block of an entry lies.
    fn place(&self, at: usize) -> Result<&Place, Ec2Error> {
        if let Some(place) = self.places[at].get() {
            return Ok(place);
        }
        let entries = self.open.map.entries();
        let until = (at + LOOK_UP).min(entries.len());
        let db = self.ec2.db();
        let fail = db.error("read");
        db.read(|transaction| {
            let mut query = transaction
                .prepare_cached("SELECT b.pack, b.slot, b.seal, p.name FROM blocks b JOIN packs p ON p.id = b.pack WHERE b.address = ?1")
                .map_err(&fail)?;
            for (entry, place) in entries[at..until].iter().zip(&self.places[at..until]) {
                if place.get().is_some() {
                    continue;
                }
                let found = query
                    .query_row(params![&entry.address[..]], |row| {
                        Ok((
                            row.get::<_, u32>(0)?,
                            row.get::<_, u32>(1)?,
                            row.get::<_, Option<Vec<u8>>>(2)?,
                            row.get::<_, String>(3)?,
                        ))
                    })
                    .optional()
                    .map_err(&fail)?;
                let Some((pack, slot, seal, name)) = found else {
                    continue;
                };
                let bad = |what: &str| {
                    let address = Digest::from_bytes(entry.address);
                    Ec2Error::damaged(db.path(), format!("the block {address} has {what}"))
                };
                let seal = seal
                    .map(|seal| <[u8; SEAL]>::try_from(seal).map_err(|_| bad("a bad seal")))
                    .transpose()?;
                if seal.is_some() != self.open.map.data_key().is_some() {
                    return Err(bad("a seal where there is none, or none"));
                }
                if name.len() != 32 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(bad("a bad pack"));
                }
                // Another thread may have been first, with the same.
                let _ = place.set(Place {
                    pack,
                    slot,
                    name,
                    seal,
                    checked: AtomicBool::new(false),
                });
            }
            Ok(())
        })?;
        self.places[at].get().ok_or_else(|| Ec2Error::NoBlock {
            map: self.open.map.digest(),
            index: entries[at].index,
        })
    }

    fn pack(&self, place: &Place) -> Result<std::sync::Arc<super::pack::PackFile>, Ec2Error> {
        self.ec2.packs().get(place.pack, || {
            self.ec2.dir("packs").join(format!("{}.pack", place.name))
        })
    }

    /// Reads a block whole, decrypts and checks it, and shows it.
    fn whole<T>(&self, at: usize, show: impl FnOnce(&[u8]) -> T) -> Result<T, Ec2Error> {
        let place = self.place(at)?;
        let pack = self.pack(place)?;
        let entry = self.open.map.entries()[at];
        SCRATCH.with_borrow_mut(|block| {
            block.resize(BLOCK, 0);
            pack.read(place.slot, 0, block)?;
            let whole = match (&self.key, &place.seal) {
                (Some(key), Some(seal)) => key.unseal(&entry.address, seal, block),
                _ => *Digest::of(block).as_bytes() == entry.address,
            };
            if !whole {
                return Err(Ec2Error::BadBlock {
                    path: pack.path.clone(),
                    map: self.open.map.digest(),
                    index: entry.index,
                    slot: place.slot,
                });
            }
            place.checked.store(true, Ordering::Relaxed);
            Ok(show(block))
        })
    }

    /// Fills `buf` from within the block of an entry.
    fn part(&self, at: usize, offset: usize, buf: &mut [u8]) -> Result<(), Ec2Error> {
        let place = self.place(at)?;
        let must = place.seal.is_some() || self.check == Check::FirstRead;
        if must && !place.checked.load(Ordering::Relaxed) {
            return self.whole(at, |block| {
                buf.copy_from_slice(&block[offset..offset + buf.len()]);
            });
        }
        self.pack(place)?.read(place.slot, offset as u64, buf)?;
        if let (Some(key), Some(seal)) = (&self.key, &place.seal) {
            key.unseal_part(seal, offset, buf);
        }
        Ok(())
    }

    /// The same as [`ReadAt::read_exact_at`], with our errors.
    pub(super) fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<(), Ec2Error> {
        while !buf.is_empty() {
            let within = usize::try_from(offset % BLOCK_BYTES).unwrap_or(0);
            let (piece, rest) = buf.split_at_mut(buf.len().min(BLOCK - within));
            let index = u32::try_from(offset / BLOCK_BYTES).unwrap_or(u32::MAX);
            match self.open.map.position(index) {
                Ok(at) => self.part(at, within, piece)?,
                Err(_) => piece.fill(0),
            }
            offset += piece.len() as u64;
            buf = rest;
        }
        Ok(())
    }
}

impl ReadAt for SnapshotReader {
    fn size(&self) -> u64 {
        self.open.map.bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size())
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.read(buf, offset)?)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        if offset >= self.size() {
            return Ok(None);
        }
        let entries = self.open.map.entries();
        let first = u32::try_from(offset / BLOCK_BYTES).unwrap_or(u32::MAX);
        let (Ok(at) | Err(at)) = self.open.map.position(first);
        let run = &entries[at..];
        let Some(start) = run.first() else {
            return Ok(None);
        };
        let blocks = (start.index..)
            .zip(run)
            .take_while(|(index, entry)| *index == entry.index)
            .count() as u64;
        let start = u64::from(start.index) * BLOCK_BYTES;
        let end = (start + blocks * BLOCK_BYTES).min(self.size());
        Ok(Some(start.max(offset)..end))
    }
}
