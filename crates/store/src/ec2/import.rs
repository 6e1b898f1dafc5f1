//! Storing blocks: only those that the store lacks.
//!
//! The order that makes a kill harmless: the pack is durable, then one transaction says where its blocks lie, then the map
//! gets its name, then the caller writes the record that names the map. Whatever was made before a kill is garbage that no record names.

use std::collections::HashSet;

use amiforge_types::{Digest, ReadAt};
use rayon::prelude::*;
use rusqlite::{Transaction, params};

use super::crypt::is_zero;
use super::map::Entry;
use super::pack::{PackEntry, PackWriter, PlacedPack};
use super::{BLOCK, BLOCK_BYTES, BlockMap, Check, DataKey, Ec2, Ec2Error, Hold, MAX_VOLUME_BYTES};

/// Blocks in memory at once for each thread.
const BATCH_PER_THREAD: usize = 8;
/// Blocks in memory at once: 64 MiB.
const MAX_BATCH: usize = 128;

/// A map that was stored, in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// The map.
    pub map: Digest,
    /// Bytes of the volume.
    pub bytes: u64,
    /// Blocks that are not zeros.
    pub blocks: u64,
    /// Blocks that differ from the base, also those that are zeros now; without a base, all.
    pub changed: u64,
    /// Blocks that the store lacked.
    pub stored: u64,
}

/// One block on its way.
struct Moving {
    block: Vec<u8>,
    index: u32,
    /// `None` for zeros.
    address: Option<[u8; 32]>,
    /// Its slot when it is new.
    slot: Option<u32>,
}

impl Ec2 {
    /// Stores a volume of `bytes` from a source, which may be shorter (the rest is zeros) and whose holes cost nothing. Blocks are encrypted
    /// under `key`, if there is one. Figures are counted against `base`.
    ///
    /// Nothing names the result yet: write the record that does before `hold` ends.
    ///
    /// # Errors
    /// [`Ec2Error::Size`], [`Ec2Error::Source`]; a full disk ([`Ec2Error::is_disk_full`]) leaves nothing.
    pub fn import(
        &self,
        hold: &Hold,
        source: &dyn ReadAt,
        bytes: u64,
        key: Option<&DataKey>,
        base: Option<&Digest>,
    ) -> Result<MapInfo, Ec2Error> {
        check_size("the volume", bytes)?;
        if source.size() > bytes {
            return Err(Ec2Error::Size {
                what: "the volume".to_owned(),
                bytes,
                rule: "at least that of what is stored",
            });
        }
        let base = base.map(|base| self.lock_map(base, key)).transpose()?;
        let base = base.as_ref().map(|base| &base.map);
        let import = Import {
            ec2: self,
            source,
            bytes,
            key,
            base,
            keep_rest: false,
        };
        import.run(hold, DataBlocks::new(source))
    }

    /// Stores the blocks of a map again under another data key, or in the open. Each is checked when it is read.
    ///
    /// # Errors
    /// Those of [`Ec2::open`] and [`Ec2::import`].
    pub fn reencrypt(
        &self,
        hold: &Hold,
        map: &Digest,
        from: Option<&DataKey>,
        to: Option<&DataKey>,
    ) -> Result<MapInfo, Ec2Error> {
        let source = self.open(map, from, Check::FirstRead)?;
        self.import(hold, &source, source.size(), to, None)
    }
}

pub(super) fn check_size(what: &str, bytes: u64) -> Result<(), Ec2Error> {
    if (1..=MAX_VOLUME_BYTES).contains(&bytes) {
        return Ok(());
    }
    Err(Ec2Error::Size {
        what: what.to_owned(),
        bytes,
        rule: "1 byte to 64 TiB",
    })
}

/// The numbers of the blocks of a source that may hold anything, rising.
pub(super) struct DataBlocks<'a> {
    source: &'a dyn ReadAt,
    next: u64,
    /// Blocks from `next` to here have data.
    until: u64,
}

impl<'a> DataBlocks<'a> {
    pub(super) fn new(source: &'a dyn ReadAt) -> Self {
        Self {
            source,
            next: 0,
            until: 0,
        }
    }
}

impl Iterator for DataBlocks<'_> {
    type Item = Result<u32, Ec2Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.until {
            let offset = self.next * BLOCK_BYTES;
            match self.source.next_data(offset) {
                Ok(Some(data)) if data.start < data.end => {
                    self.next = self.next.max(data.start / BLOCK_BYTES);
                    self.until = data.end.div_ceil(BLOCK_BYTES);
                }
                Ok(_) => return None,
                Err(source) => {
                    self.next = u64::MAX / BLOCK_BYTES;
                    return Some(Err(Ec2Error::Source { offset, source }));
                }
            }
        }
        let index = u32::try_from(self.next).ok()?;
        self.next += 1;
        Some(Ok(index))
    }
}

/// One import.
pub(super) struct Import<'a> {
    pub(super) ec2: &'a Ec2,
    pub(super) source: &'a dyn ReadAt,
    pub(super) bytes: u64,
    pub(super) key: Option<&'a DataKey>,
    pub(super) base: Option<&'a BlockMap>,
    /// Blocks that are not looked at are those of the base (under the same key), not zeros.
    pub(super) keep_rest: bool,
}

/// What the import has come to.
struct Progress {
    writer: Option<PackWriter>,
    /// New blocks by address.
    new: HashSet<[u8; 32]>,
    /// Blocks that the store had.
    known: Vec<[u8; 32]>,
    entries: Vec<Entry>,
    changed: u64,
}

impl Import<'_> {
    /// Stores the blocks of these numbers, which rise.
    pub(super) fn run(
        &self,
        _hold: &Hold,
        mut indexes: impl Iterator<Item = Result<u32, Ec2Error>>,
    ) -> Result<MapInfo, Ec2Error> {
        let batch = (BATCH_PER_THREAD * rayon::current_num_threads()).min(MAX_BATCH);
        let mut progress = Progress {
            writer: None,
            new: HashSet::new(),
            known: Vec::new(),
            entries: Vec::new(),
            changed: 0,
        };
        let mut moving: Vec<Moving> = Vec::new();
        let mut base = self.base.map_or(&[][..], BlockMap::entries);
        loop {
            let mut count = 0;
            while count < batch {
                let Some(index) = indexes.next().transpose()? else {
                    break;
                };
                if count == moving.len() {
                    moving.push(Moving {
                        block: vec![0; BLOCK],
                        index,
                        address: None,
                        slot: None,
                    });
                }
                moving[count].index = index;
                count += 1;
            }
            if count == 0 {
                break;
            }
            let moving = &mut moving[..count];
            moving.par_iter_mut().try_for_each(|m| self.load(m))?;
            self.sort_out(moving, &mut base, &mut progress)?;
            self.write(moving, &mut progress)?;
        }
        self.pass_base(&mut base, u32::MAX, &mut progress);
        self.finish(progress)
    }

    /// Reads a block and computes its address.
    fn load(&self, moving: &mut Moving) -> Result<(), Ec2Error> {
        let offset = u64::from(moving.index) * BLOCK_BYTES;
        let len = self.source.size().saturating_sub(offset).min(BLOCK_BYTES);
        let (data, rest) = moving
            .block
            .split_at_mut(usize::try_from(len).unwrap_or(BLOCK));
        self.source
            .read_exact_at(data, offset)
            .map_err(|source| Ec2Error::Source { offset, source })?;
        rest.fill(0);
        moving.address = (!is_zero(&moving.block)).then(|| match self.key {
            Some(key) => key.address(&moving.block),
            None => *Digest::of(&moving.block).as_bytes(),
        });
        Ok(())
    }

    /// Takes the base's entries below `index`.
    fn pass_base(&self, base: &mut &[Entry], index: u32, progress: &mut Progress) {
        while let Some((entry, rest)) = base.split_first()
            && entry.index < index
        {
            if self.keep_rest {
                progress.entries.push(*entry);
            } else {
                progress.changed += 1;
            }
            *base = rest;
        }
    }

    /// Finds out which blocks are new.
    fn sort_out(
        &self,
        moving: &mut [Moving],
        base: &mut &[Entry],
        progress: &mut Progress,
    ) -> Result<(), Ec2Error> {
        let same_key = self
            .base
            .is_some_and(|base| base.data_key() == self.key.map(DataKey::id));
        let db = self.ec2.db();
        let fail = db.error("read");
        db.read(|transaction| {
            for m in moving {
                self.pass_base(base, m.index, progress);
                let before = match base.split_first() {
                    Some((entry, rest)) if entry.index == m.index => {
                        *base = rest;
                        Some(entry.address)
                    }
                    _ => None,
                };
                m.slot = None;
                let Some(address) = m.address else {
                    progress.changed += u64::from(before.is_some());
                    continue;
                };
                let index = m.index;
                progress.entries.push(Entry { index, address });
                if same_key && before == Some(address) {
                    // Of a live map, since it is locked.
                    continue;
                }
                progress.changed += 1;
                if progress.new.contains(&address) {
                    continue;
                }
                if has_block(transaction, &address).map_err(&fail)? {
                    progress.known.push(address);
                    continue;
                }
                if progress.writer.is_none() {
                    let dir = self.ec2.session().dir();
                    progress.writer = Some(PackWriter::create(dir)?);
                }
                if let Some(writer) = &mut progress.writer {
                    let slot = writer.add(address);
                    progress.new.insert(address);
                    m.slot = Some(slot);
                }
            }
            Ok(())
        })
    }

    /// Encrypts and writes the new ones.
    fn write(&self, moving: &mut [Moving], progress: &mut Progress) -> Result<(), Ec2Error> {
        let Some(writer) = &mut progress.writer else {
            return Ok(());
        };
        let shared = &*writer;
        let seals = moving
            .par_iter_mut()
            .filter_map(|m| Some((m.slot?, m.address?, &mut m.block)))
            .map(|(slot, address, block)| {
                let seal = self.key.map(|key| key.seal(&address, block)).transpose()?;
                shared.write(slot, block)?;
                Ok(seal.map(|seal| (slot, seal)))
            })
            .collect::<Result<Vec<_>, Ec2Error>>()?;
        for (slot, seal) in seals.into_iter().flatten() {
            writer.set_seal(slot, seal);
        }
        Ok(())
    }

    fn finish(&self, progress: Progress) -> Result<MapInfo, Ec2Error> {
        let Progress {
            writer,
            new,
            known,
            entries,
            changed,
        } = progress;
        let placed = writer
            .map(|writer| writer.place(&self.ec2.dir("packs")))
            .transpose()?;
        if let Some(placed) = placed {
            let entered = self.enter(&placed, &known);
            // An error may also come after the commit: then the pack has to stay.
            if entered.is_ok() || self.may_know(&placed.name) {
                placed.keep();
            }
            entered?;
        }
        let (bytes, map) = BlockMap::write(self.bytes, &entries, self.key);
        self.ec2.put_map(&map, &bytes)?;
        Ok(MapInfo {
            map,
            bytes: self.bytes,
            blocks: entries.len() as u64,
            changed,
            stored: new.len() as u64,
        })
    }

    /// Says in the database where the new blocks lie. The others are still there, since nothing is collected while the import is held;
    /// this is where it would show that somebody does not keep to that.
    fn enter(&self, placed: &PlacedPack, known: &[[u8; 32]]) -> Result<(), Ec2Error> {
        let db = self.ec2.db();
        let fail = db.error("write");
        db.write(|transaction| {
            for address in known {
                if !has_block(transaction, address).map_err(&fail)? {
                    let address = Digest::from_bytes(*address);
                    return Err(Ec2Error::damaged(
                        db.path(),
                        format!("the block {address} went while it was in use"),
                    ));
                }
            }
            enter_pack(transaction, &placed.name, &placed.entries).map_err(&fail)
        })
    }
}

impl Import<'_> {
    /// Whether the database has a pack, or does not say.
    fn may_know(&self, name: &str) -> bool {
        let db = self.ec2.db();
        let found = db.read(|transaction| {
            transaction
                .prepare_cached("SELECT 1 FROM packs WHERE name = ?1")
                .and_then(|mut query| query.exists(params![name]))
                .map_err(db.error("read"))
        });
        found.unwrap_or(true)
    }
}

fn has_block(transaction: &Transaction<'_>, address: &[u8; 32]) -> rusqlite::Result<bool> {
    transaction
        .prepare_cached("SELECT 1 FROM blocks WHERE address = ?1")?
        .exists(params![&address[..]])
}

/// Adds a pack and those of its blocks that are not elsewhere.
pub(super) fn enter_pack(
    transaction: &Transaction<'_>,
    name: &str,
    entries: &[(u32, PackEntry)],
) -> rusqlite::Result<()> {
    transaction.execute("INSERT INTO packs(name) VALUES (?1)", params![name])?;
    let pack = transaction.last_insert_rowid();
    let mut put = transaction.prepare_cached(
        "INSERT OR IGNORE INTO blocks(address, pack, slot, seal) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for (slot, entry) in entries {
        let seal = entry.seal.as_ref().map(|seal| &seal[..]);
        put.execute(params![&entry.address[..], pack, slot, seal])?;
    }
    Ok(())
}
