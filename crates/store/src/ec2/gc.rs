//! Collecting what no record names, and what the store holds in figures.
//!
//! One transaction finds out what is live. Volumes, maps and packs that nothing names go at once; then it forgets the blocks that no
//! live map has, and when that is durable, their bytes go: dead packs whole, dead slots as holes. A kill in between leaves bytes that no row
//! names, which the next collection finds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use amiforge_ami::ec2::{Encryption, Snapshot, SnapshotState, State};
use amiforge_types::Digest;
use rusqlite::{Transaction, params};
use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom, fallocate, seek};

use super::files::open_regular;
use super::import::enter_pack;
use super::pack::{PackEntry, PackFile, SLOTS_AT, read_index, slot_offset};
use super::{BLOCK, BLOCK_BYTES, Ec2, Ec2Error};
use crate::lock::take;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blocks that no map had.
    pub blocks: u64,
    /// Packs that had no block left, or that were left by a kill.
    pub packs: u64,
    /// Maps that no record named.
    pub maps: u64,
    /// Folders of volumes that no record named.
    pub volumes: u64,
    /// Data keys that no record named.
    pub data_keys: u64,
    /// Bytes that the disk got back.
    pub bytes: u64,
}

/// What the store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks.
    pub blocks: u64,
    /// Packs that they lie in.
    pub packs: u64,
    /// Bytes that the packs take on the disk.
    pub pack_bytes: u64,
    /// Bytes that the volumes take on the disk.
    pub volume_bytes: u64,
}

/// A map that can go, with its lock.
struct DeadMap {
    path: PathBuf,
    _lock: File,
}

/// What is needed.
struct Live {
    maps: BTreeSet<Digest>,
    /// Of these, maps that may be missing: their snapshots came to nothing, or their volumes have others by now.
    loose: BTreeSet<Digest>,
    data_keys: BTreeSet<Encryption>,
}

impl Ec2 {
    /// Removes what no record needs: blocks of no map, maps of no snapshot or volume, folders of no volume, data keys of
    /// neither. Whatever a record in the recycle bin names stays, and so do maps that are being read and volumes that are open.
    /// `None`, and nothing done, while somebody makes something ([`Ec2::hold`]).
    ///
    /// # Errors
    /// A map of a live record that cannot be read: then nothing is removed.
    pub fn gc(&self) -> Result<Option<Collected>, Ec2Error> {
        let Some(_alone) = self.hold_alone()? else {
            return Ok(None);
        };
        let mut done = Collected::default();
        let fail = self.db().error("write");
        self.packs().forget();
        self.sweep_makers()?;
        self.db().write(|transaction| {
            let (state, _) = self.load(transaction)?;
            let mut live = named(&state);
            let mut dead_volumes = Vec::new();
            for volume in self.volumes()? {
                if !state.volumes.contains_key(&volume)
                    && let Some(dead) = self.lock_dead_volume(&volume)?
                {
                    dead_volumes.push(dead);
                    continue;
                }
                let (map, keys) = self.volume_needs(&volume)?;
                live.maps.extend(map);
                live.loose.retain(|loose| Some(*loose) != map);
                live.data_keys.extend(keys);
            }
            let dead_maps = self.lock_dead_maps(&mut live)?;
            let addresses = self.live_addresses(&live)?;
            // What needs no change of the database goes first: on a full disk this makes the room that the change needs.
            self.remove(dead_volumes, dead_maps, &mut done)?;
            let slots = self.slots(transaction).map_err(self.db().error("read"))?;
            self.sweep_packs(&slots, &mut done)?;
            done.blocks = forget_blocks(transaction, &addresses).map_err(&fail)?;
            done.data_keys = forget_data_keys(transaction, &live.data_keys).map_err(&fail)?;
            Ok::<_, Ec2Error>(())
        })?;
        if done.blocks > 0 {
            let fail = self.db().error("read");
            let slots = self.db().read(|t| self.slots(t).map_err(&fail))?;
            self.sweep_packs(&slots, &mut done)?;
        }
        Ok(Some(done))
    }

    /// Removes volumes and maps that no record names.
    fn remove(
        &self,
        volumes: Vec<(PathBuf, File)>,
        maps: Vec<DeadMap>,
        done: &mut Collected,
    ) -> Result<(), Ec2Error> {
        for (path, _lock) in volumes {
            // Whole or not at all.
            let gone = self.temp_path("volume");
            fs_err::rename(&path, &gone).map_err(Ec2Error::io("remove", &path))?;
            done.bytes += bytes_below(&gone);
            done.volumes += 1;
            std::fs::remove_dir_all(&gone).map_err(Ec2Error::io("remove", &gone))?;
        }
        for DeadMap { path, _lock } in maps {
            done.bytes += disk_bytes(&path);
            done.maps += 1;
            std::fs::remove_file(&path).map_err(Ec2Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// A volume's folder and its lock, unless somebody has the volume open.
    fn lock_dead_volume(
        &self,
        volume: &amiforge_ami::VolumeId,
    ) -> Result<Option<(PathBuf, File)>, Ec2Error> {
        let dir = self.dir("volumes").join(volume.as_str());
        Ok(super::volume::lock_folder(&dir)?.map(|lock| (dir, lock)))
    }

    /// Locks the maps that can go; those that somebody reads are live.
    fn lock_dead_maps(&self, live: &mut Live) -> Result<Vec<DeadMap>, Ec2Error> {
        let dir = self.dir("maps");
        let mut dead = Vec::new();
        for (path, name) in files(&dir)? {
            let Some(digest) = name.parse::<Digest>().ok().filter(|d| d.hex() == name) else {
                continue;
            };
            if live.maps.contains(&digest) {
                continue;
            }
            let Some(file) = open_regular(&path)? else {
                continue;
            };
            let free = take(&file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|e| Ec2Error::io("lock", &path)(e.into()))?;
            if free {
                dead.push(DeadMap { path, _lock: file });
            } else {
                live.maps.insert(digest);
            }
        }
        Ok(dead)
    }

    /// The addresses of all blocks of live maps.
    fn live_addresses(&self, live: &Live) -> Result<HashSet<[u8; 32]>, Ec2Error> {
        let mut out = HashSet::new();
        for digest in &live.maps {
            match self.map(digest) {
                Ok(map) => out.extend(map.entries().iter().map(|entry| entry.address)),
                Err(Ec2Error::NoMap { .. }) if live.loose.contains(digest) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// Removes the packs that the database does not know, and makes holes of the slots that it does not know. What it does not
    /// know now is not there for the next transaction, either: nothing is being made.
    fn sweep_packs(
        &self,
        known: &HashMap<String, BTreeSet<u32>>,
        done: &mut Collected,
    ) -> Result<(), Ec2Error> {
        let dir = self.dir("packs");
        for (path, name) in files(&dir)? {
            let Some((stem, end)) = name.rsplit_once('.') else {
                continue;
            };
            match (known.get(stem), end) {
                (None, "pack" | "index") => {
                    done.bytes += disk_bytes(&path);
                    done.packs += u64::from(end == "pack");
                    std::fs::remove_file(&path).map_err(Ec2Error::io("remove", &path))?;
                }
                (Some(slots), "pack") => done.bytes += punch_dead(&path, slots)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The slots in use of each pack, by its name.
    fn slots(
        &self,
        transaction: &Transaction<'_>,
    ) -> rusqlite::Result<HashMap<String, BTreeSet<u32>>> {
        let mut out = HashMap::new();
        let mut ids = HashMap::new();
        let mut packs = transaction.prepare("SELECT id, name FROM packs")?;
        let mut rows = packs.query([])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(1)?;
            ids.insert(row.get::<_, i64>(0)?, name.clone());
            out.insert(name, BTreeSet::new());
        }
        let mut blocks = transaction.prepare("SELECT pack, slot FROM blocks")?;
        let mut rows = blocks.query([])?;
        while let Some(row) = rows.next()? {
            let name = ids.get(&row.get::<_, i64>(0)?);
            if let Some(slots) = name.and_then(|name| out.get_mut(name)) {
                slots.insert(row.get(1)?);
            }
        }
        Ok(out)
    }

    /// What the store holds.
    pub fn usage(&self) -> Result<Usage, Ec2Error> {
        let fail = self.db().error("read");
        let (blocks, packs) = self.db().read(|transaction| {
            let count = |sql| transaction.query_row(sql, [], |row| row.get::<_, i64>(0));
            Ok((
                count("SELECT count(*) FROM blocks").map_err(&fail)?,
                count("SELECT count(*) FROM packs").map_err(&fail)?,
            ))
        })?;
        let mut usage = Usage {
            blocks: blocks.unsigned_abs(),
            packs: packs.unsigned_abs(),
            ..Usage::default()
        };
        for (path, _) in files(&self.dir("packs"))? {
            usage.pack_bytes += disk_bytes(&path);
        }
        for volume in self.volumes()? {
            usage.volume_bytes += bytes_below(&self.dir("volumes").join(volume.as_str()));
        }
        Ok(usage)
    }

    /// For each of these maps, how many of its blocks no other of them has: what removing it alone would free.
    pub fn own_blocks(&self, maps: &BTreeSet<Digest>) -> Result<BTreeMap<Digest, u64>, Ec2Error> {
        let mut users: HashMap<[u8; 32], Option<Digest>> = HashMap::new();
        for digest in maps {
            let map = self.map(digest)?;
            for entry in map.entries() {
                users
                    .entry(entry.address)
                    .and_modify(|user| {
                        if *user != Some(*digest) {
                            *user = None;
                        }
                    })
                    .or_insert(Some(*digest));
            }
        }
        let mut own: BTreeMap<Digest, u64> = maps.iter().map(|map| (*map, 0)).collect();
        for digest in users.into_values().flatten() {
            *own.entry(digest).or_default() += 1;
        }
        Ok(own)
    }

    /// How many different blocks these maps have together.
    pub fn distinct_blocks(&self, maps: &BTreeSet<Digest>) -> Result<u64, Ec2Error> {
        let mut addresses = HashSet::new();
        for digest in maps {
            let map = self.map(digest)?;
            addresses.extend(map.entries().iter().map(|entry| entry.address));
        }
        Ok(addresses.len() as u64)
    }

    /// Enters the packs that the database does not know, from the index beside each: for a database that was lost. Plain blocks are compared with
    /// their addresses, slots that were collected are left out. Gives the number of blocks that are new, or `None` while somebody makes something.
    pub fn reindex(&self) -> Result<Option<u64>, Ec2Error> {
        let Some(_alone) = self.hold_alone()? else {
            return Ok(None);
        };
        let fail = self.db().error("read");
        let known = self.db().read(|t| self.slots(t).map_err(&fail))?;
        let before = self.usage()?.blocks;
        for (path, name) in files(&self.dir("packs"))? {
            let Some(stem) = name
                .strip_suffix(".pack")
                .filter(|n| !known.contains_key(*n))
            else {
                continue;
            };
            let entries = read_index(&path.with_extension("index"))?;
            let pack = PackFile::open(path)?;
            let mut whole = Vec::new();
            for (slot, entry) in (0..).zip(entries) {
                if is_whole(&pack, slot, &entry)? {
                    whole.push((slot, entry));
                }
            }
            let fail = self.db().error("write");
            self.db()
                .write(|t| enter_pack(t, stem, &whole).map_err(&fail))?;
        }
        Ok(Some(self.usage()?.blocks - before))
    }
}

/// For estimates of cost.
impl amiforge_ami::ec2::cost::Blocks for Ec2 {
    fn distinct(&self, snapshots: &[&Snapshot]) -> Option<u64> {
        let maps = snapshots.iter().filter_map(|snapshot| snapshot.map);
        self.distinct_blocks(&maps.collect()).ok()
    }
}

/// Whether a slot has its block still.
fn is_whole(pack: &PackFile, slot: u32, entry: &PackEntry) -> Result<bool, Ec2Error> {
    let start = slot_offset(slot);
    match seek(&pack.file, SeekFrom::Hole(start)) {
        Ok(hole) if hole < start + BLOCK_BYTES => return Ok(false),
        Err(rustix::io::Errno::NXIO) => return Ok(false),
        _ => {}
    }
    if entry.seal.is_some() {
        return Ok(true);
    }
    let mut block = vec![0; BLOCK];
    pack.read(slot, 0, &mut block)?;
    Ok(*Digest::of(&block).as_bytes() == entry.address)
}

/// What the records name.
fn named(state: &State) -> Live {
    let mut live = Live {
        maps: BTreeSet::new(),
        loose: BTreeSet::new(),
        data_keys: BTreeSet::new(),
    };
    let mut firm = BTreeSet::new();
    for snapshot in state.snapshots.values() {
        live.data_keys.extend(snapshot.encryption.clone());
        let Some(map) = snapshot.map else { continue };
        match snapshot.state {
            SnapshotState::Pending | SnapshotState::Error => live.loose.insert(map),
            SnapshotState::Completed | SnapshotState::Recoverable => firm.insert(map),
        };
    }
    for volume in state.volumes.values() {
        live.data_keys.extend(volume.encryption.clone());
        // What it was made from; what it needs now, its folder says.
        live.loose.extend(volume.base);
    }
    live.maps = &firm | &live.loose;
    live.loose.retain(|map| !firm.contains(map));
    live
}

/// Forgets the blocks that are not live, and packs without any.
fn forget_blocks(transaction: &Transaction<'_>, live: &HashSet<[u8; 32]>) -> rusqlite::Result<u64> {
    let mut dead = Vec::new();
    let mut query = transaction.prepare("SELECT address FROM blocks")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let address = row.get_ref(0)?.as_blob()?;
        let is_live = <&[u8; 32]>::try_from(address).is_ok_and(|a| live.contains(a));
        if !is_live {
            dead.push(address.to_vec());
        }
    }
    let mut delete = transaction.prepare("DELETE FROM blocks WHERE address = ?1")?;
    for address in &dead {
        delete.execute(params![address])?;
    }
    if !dead.is_empty() {
        transaction.execute(
            "DELETE FROM packs WHERE id NOT IN (SELECT pack FROM blocks)",
            [],
        )?;
    }
    Ok(dead.len() as u64)
}

fn forget_data_keys(
    transaction: &Transaction<'_>,
    live: &BTreeSet<Encryption>,
) -> rusqlite::Result<u64> {
    let live: HashSet<(&[u8], &str)> = live
        .iter()
        .map(|e| (&e.data_key_id.as_bytes()[..], e.key_id.as_str()))
        .collect();
    let mut dead = Vec::new();
    let mut query = transaction.prepare("SELECT id, key FROM data_keys")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (id, key): (Vec<u8>, String) = (row.get(0)?, row.get(1)?);
        if !live.contains(&(&id[..], key.as_str())) {
            dead.push((id, key));
        }
    }
    let mut delete = transaction.prepare("DELETE FROM data_keys WHERE id = ?1 AND key = ?2")?;
    for (id, key) in &dead {
        delete.execute(params![id, key])?;
    }
    Ok(dead.len() as u64)
}

/// Makes holes of the slots that are not in use; gives the bytes that the disk got back.
fn punch_dead(path: &Path, slots: &BTreeSet<u32>) -> Result<u64, Ec2Error> {
    let before = disk_bytes(path);
    let meta = std::fs::metadata(path).map_err(Ec2Error::io("look at", path))?;
    let count = u32::try_from((meta.len().saturating_sub(SLOTS_AT)) / BLOCK_BYTES).unwrap_or(0);
    if count as usize <= slots.len() {
        return Ok(0);
    }
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(Ec2Error::io("open", path))?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut slot = 0;
    while slot < count {
        let end = slots
            .range(slot..)
            .next()
            .map_or(count, |used| count.min(*used));
        if slot < end {
            let (from, until) = (slot_offset(slot), slot_offset(end));
            match fallocate(&file, flags, from, until - from) {
                // A file system without holes keeps the bytes until the whole pack goes.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(e) => return Err(Ec2Error::io("punch a hole into", path)(e.into())),
            }
        }
        slot = end + 1;
    }
    Ok(before.saturating_sub(disk_bytes(path)))
}

/// Files of a folder with their names, those of other hands left out.
fn files(dir: &Path) -> Result<Vec<(PathBuf, String)>, Ec2Error> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Ec2Error::io("list", dir))? {
        let entry = entry.map_err(Ec2Error::io("list", dir))?;
        if let Some(name) = entry.file_name().to_str() {
            out.push((entry.path(), name.to_owned()));
        }
    }
    out.sort();
    Ok(out)
}

fn disk_bytes(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

fn bytes_below(dir: &Path) -> u64 {
    files(dir).map_or(0, |files| {
        files.iter().map(|(path, _)| disk_bytes(path)).sum()
    })
}
