//! Volumes: what an instance writes, over the blocks of the snapshot it was made from.
//!
//! `volumes/<volume>/` holds `volume.json` (size, base map, encryption, layers) and for each layer `data-<n>` and `mask-<n>`.
//! A layer is what was written since a point in time: to read a grain, the newest layer that has it is asked, then the base. Making a snapshot puts a new
//! layer on top, so that those below stand still while they are stored and writing goes on; afterwards they go, and the new map is
//! the base.
//!
//! **What a crash leaves.** Data is durable before the masks that speak of it: [`VolumeFile::flush`] takes a copy of the masks, syncs the data, and only
//! then writes the copy. The other way round a crash of the host could leave a mask without its data, and what was durable in the
//! base would read as zeros. As a disk has it, what was written before a flush that succeeded stays; of what was written since, each grain is
//! old or new.

mod layer;
mod meta;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use amiforge_ami::VolumeId;
use amiforge_ami::ec2::Encryption;
use amiforge_types::{Digest, ReadAt};
use rustix::fs::FlockOperation;

use self::layer::{GRAIN, GRAINS, Layer, data_path, low_bits, mask_path};
use self::meta::{BaseMeta, Meta};
use super::crypt::SECTOR;
use super::import::{DataBlocks, Import};
use super::{
    BLOCK_BYTES, Check, DataKey, Ec2, Ec2Error, Hold, MAX_VOLUME_BYTES, MapInfo, SnapshotReader,
};
use crate::atomic::sync_dir;
use crate::lock::take;
use crate::session::is_same_file;

/// Writers of blocks with the same remainder wait for one another.
const STRIPES: usize = 64;

/// What a new volume starts from.
#[derive(Clone, Copy, Debug)]
pub struct VolumeBase<'a> {
    /// The map of a snapshot.
    pub map: Digest,
    /// The data key of its blocks.
    pub key: Option<&'a DataKey>,
}

/// What is known of a volume without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Bytes of the volume.
    pub bytes: u64,
    /// The map below what was written.
    pub base: Option<Digest>,
    /// Encryption of that map.
    pub base_encryption: Option<Encryption>,
    /// Encryption of what is written.
    pub encryption: Option<Encryption>,
    /// Bytes that its files take on the disk of the host.
    pub stored_bytes: u64,
}

/// A snapshot of a volume: stored, and the base of the volume after [`VolumeFile::rebase`].
#[derive(Clone, Copy, Debug)]
pub struct VolumeSnapshot {
    /// The map, in figures; `changed` counts against the volume's base.
    pub info: MapInfo,
    /// The newest layer that is in it.
    covers: u64,
}

/// Layers over a base.
#[derive(Clone, Debug)]
struct Stack {
    base: Option<Arc<SnapshotReader>>,
    key: Option<DataKey>,
    bytes: u64,
    /// The newest last, which is written to; at least one, but in a copy that a snapshot is made of.
    layers: Vec<Arc<Layer>>,
}

/// A volume, open for reading and writing from any number of threads. No other opening can be at the same time. Dropping it flushes
/// nothing: as with a disk whose plug is pulled, what was not flushed may be lost.
#[derive(Debug)]
pub struct VolumeFile {
    ec2: Ec2,
    id: VolumeId,
    dir: PathBuf,
    /// Has an exclusive lock on the folder.
    _lock: File,
    /// Writers hold it for reading: whoever has it for writing knows that none is under way.
    stack: RwLock<Stack>,
    stripes: [RwLock<()>; STRIPES],
    /// The file; whoever changes layers holds it.
    meta: Mutex<Meta>,
    flushing: Mutex<()>,
    flush_failed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_volume_size(bytes: u64) -> bool {
    (GRAIN..=MAX_VOLUME_BYTES).contains(&bytes) && bytes.is_multiple_of(GRAIN)
}

/// Locks a folder; `None` when another has it or it is not there.
pub(super) fn lock_folder(dir: &Path) -> Result<Option<File>, Ec2Error> {
    let flags = rustix::fs::OFlags::RDONLY
        | rustix::fs::OFlags::DIRECTORY
        | rustix::fs::OFlags::NOFOLLOW
        | rustix::fs::OFlags::CLOEXEC;
    let folder = match rustix::fs::open(dir, flags, rustix::fs::Mode::empty()) {
        Ok(folder) => File::from(folder),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(Ec2Error::io("open", dir)(e.into())),
    };
    let taken = take(&folder, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| Ec2Error::io("lock", dir)(e.into()))?;
    Ok((taken && is_same_file(&folder, dir)).then_some(folder))
}

impl Ec2 {
    fn volume_dir(&self, volume: &VolumeId) -> PathBuf {
        self.dir("volumes").join(volume.as_str())
    }

    /// Ids of all volumes that have a folder, sorted.
    pub fn volumes(&self) -> Result<Vec<VolumeId>, Ec2Error> {
        let dir = self.dir("volumes");
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(Ec2Error::io("list", &dir))? {
            let name = entry.map_err(Ec2Error::io("list", &dir))?.file_name();
            out.extend(name.to_str().and_then(|name| name.parse::<VolumeId>().ok()));
        }
        out.sort();
        Ok(out)
    }

    /// What is known of a volume, open or not.
    ///
    /// # Errors
    /// [`Ec2Error::NoVolume`].
    pub fn volume_info(&self, volume: &VolumeId) -> Result<VolumeInfo, Ec2Error> {
        use std::os::unix::fs::MetadataExt as _;
        let dir = self.volume_dir(volume);
        let meta = Meta::read(&dir, volume)?.ok_or_else(|| no_volume(volume, &dir))?;
        let stored = |path: PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512);
        let layers = meta.layers.iter();
        Ok(VolumeInfo {
            bytes: meta.bytes,
            stored_bytes: layers
                .map(|n| stored(data_path(&dir, *n)) + stored(mask_path(&dir, *n)))
                .sum(),
            base: meta.base.as_ref().map(|base| base.map),
            base_encryption: meta.base.and_then(|base| base.encryption),
            encryption: meta.encryption,
        })
    }

    /// Makes a volume of `bytes`: zeros, or what a snapshot holds and zeros after its end. What is written goes encrypted under
    /// `key`, if there is one; the base may have another key, or none. Costs the same for any size.
    ///
    /// The record of the volume is to be written before `hold` ends.
    ///
    /// # Errors
    /// [`Ec2Error::Size`] unless `bytes` is a multiple of 4096 that holds the snapshot; [`Ec2Error::VolumeExists`]; those of [`Ec2::open`].
    pub fn create_volume(
        &self,
        _hold: &Hold,
        volume: &VolumeId,
        bytes: u64,
        base: Option<VolumeBase<'_>>,
        key: Option<&DataKey>,
    ) -> Result<VolumeFile, Ec2Error> {
        let size = |rule| Ec2Error::Size {
            what: format!("the volume {volume}"),
            bytes,
            rule,
        };
        if !is_volume_size(bytes) {
            return Err(size("a multiple of 4096, up to 64 TiB"));
        }
        let reader = base
            .map(|base| self.open(&base.map, base.key, Check::Encrypted))
            .transpose()?;
        if reader.as_ref().is_some_and(|base| base.size() > bytes) {
            return Err(size("at least that of its snapshot"));
        }
        let dir = self.volume_dir(volume);
        if dir.symlink_metadata().is_ok() {
            return Err(Ec2Error::VolumeExists(volume.clone()));
        }
        let temp = self.temp_path("volume");
        super::make_private(&temp)?;
        let base = base.map(|base| BaseMeta {
            map: base.map,
            encryption: base.key.map(|key| key.encryption().clone()),
        });
        let encryption = key.map(|key| key.encryption().clone());
        let meta = Meta::new(volume.clone(), bytes, base, encryption);
        let made = || {
            let layer = Layer::create(&temp, meta.layers[0], bytes)?;
            meta.write(self, &temp)?;
            let lock = lock_folder(&temp)?.ok_or_else(|| Ec2Error::VolumeInUse(volume.clone()))?;
            // A folder that came meanwhile has files in it, and is not replaced.
            fs_err::rename(&temp, &dir).map_err(|e| match e.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                    Ec2Error::VolumeExists(volume.clone())
                }
                _ => Ec2Error::io("rename a temporary folder to", &dir)(e),
            })?;
            sync_dir(&self.dir("volumes"))?;
            // Opened by the path that it has now, for the messages.
            drop(layer);
            Layer::open(&dir, meta.layers[0], bytes).map(|layer| (lock, layer))
        };
        let (lock, layer) = made().inspect_err(|_| {
            // Else it goes with the session.
            let _ = std::fs::remove_dir_all(&temp);
        })?;
        let stack = Stack {
            base: reader.map(Arc::new),
            key: key.cloned(),
            bytes,
            layers: vec![Arc::new(layer)],
        };
        Ok(self.volume_file(volume, dir, lock, meta, stack))
    }

    /// Opens a volume for reading and writing; its data keys are opened with the key store.
    ///
    /// # Errors
    /// [`Ec2Error::NoVolume`], [`Ec2Error::VolumeInUse`], those of [`Ec2::open`] and [`Ec2::open_data_key`], and what makes its files unreadable.
    pub fn open_volume(&self, volume: &VolumeId) -> Result<VolumeFile, Ec2Error> {
        let dir = self.volume_dir(volume);
        let Some(lock) = lock_folder(&dir)? else {
            return Err(if dir.is_dir() {
                Ec2Error::VolumeInUse(volume.clone())
            } else {
                no_volume(volume, &dir)
            });
        };
        let meta = Meta::read(&dir, volume)?.ok_or_else(|| no_volume(volume, &dir))?;
        remove_strays(&dir, &meta)?;
        let open_key = |e: &Encryption| self.open_data_key(e);
        let key = meta.encryption.as_ref().map(open_key).transpose()?;
        let mut base = None;
        if let Some(BaseMeta { map, encryption }) = &meta.base {
            let base_key = match encryption {
                same if *same == meta.encryption => key.clone(),
                Some(other) => Some(open_key(other)?),
                None => None,
            };
            base = Some(Arc::new(self.open(
                map,
                base_key.as_ref(),
                Check::Encrypted,
            )?));
        }
        let layers = meta.layers.iter();
        let stack = Stack {
            layers: layers
                .map(|n| Layer::open(&dir, *n, meta.bytes).map(Arc::new))
                .collect::<Result<_, _>>()?,
            base,
            key,
            bytes: meta.bytes,
        };
        if stack
            .base
            .as_ref()
            .is_some_and(|base| base.size() > meta.bytes)
        {
            return Err(Ec2Error::damaged(
                dir.join("volume.json"),
                "its base is larger",
            ));
        }
        Ok(self.volume_file(volume, dir, lock, meta, stack))
    }

    fn volume_file(
        &self,
        volume: &VolumeId,
        dir: PathBuf,
        lock: File,
        meta: Meta,
        stack: Stack,
    ) -> VolumeFile {
        VolumeFile {
            ec2: self.clone(),
            id: volume.clone(),
            dir,
            _lock: lock,
            stack: RwLock::new(stack),
            stripes: std::array::from_fn(|_| RwLock::new(())),
            meta: Mutex::new(meta),
            flushing: Mutex::new(()),
            flush_failed: AtomicBool::new(false),
        }
    }

    /// Removes a volume's files; content when there are none.
    ///
    /// # Errors
    /// [`Ec2Error::VolumeInUse`].
    pub fn remove_volume(&self, volume: &VolumeId) -> Result<(), Ec2Error> {
        let dir = self.volume_dir(volume);
        let Some(_lock) = lock_folder(&dir)? else {
            return if dir.is_dir() {
                Err(Ec2Error::VolumeInUse(volume.clone()))
            } else {
                Ok(())
            };
        };
        // Whole or not at all.
        let gone = self.temp_path("volume");
        fs_err::rename(&dir, &gone).map_err(Ec2Error::io("remove", &dir))?;
        sync_dir(&self.dir("volumes"))?;
        std::fs::remove_dir_all(&gone).map_err(Ec2Error::io("remove", gone))
    }

    /// The map and the data keys that a volume needs.
    pub(super) fn volume_needs(
        &self,
        volume: &VolumeId,
    ) -> Result<(Option<Digest>, Vec<Encryption>), Ec2Error> {
        let dir = self.volume_dir(volume);
        let Some(meta) = Meta::read(&dir, volume)? else {
            return Ok((None, Vec::new()));
        };
        let mut keys = Vec::from_iter(meta.encryption);
        let map = meta.base.as_ref().map(|base| base.map);
        keys.extend(meta.base.and_then(|base| base.encryption));
        Ok((map, keys))
    }
}

fn no_volume(volume: &VolumeId, dir: &Path) -> Ec2Error {
    Ec2Error::NoVolume {
        volume: volume.clone(),
        path: dir.to_owned(),
    }
}

/// Removes the files of layers that `volume.json` does not name: a kill between its writing and theirs left them.
fn remove_strays(dir: &Path, meta: &Meta) -> Result<(), Ec2Error> {
    for entry in std::fs::read_dir(dir).map_err(Ec2Error::io("list", dir))? {
        let entry = entry.map_err(Ec2Error::io("list", dir))?;
        let name = entry.file_name();
        let generation = name
            .to_str()
            .and_then(|name| name.strip_prefix("data-").or(name.strip_prefix("mask-")))
            .and_then(|n| n.parse::<u64>().ok());
        if generation.is_some_and(|n| !meta.layers.contains(&n)) {
            let path = entry.path();
            std::fs::remove_file(&path).map_err(Ec2Error::io("remove", path))?;
        }
    }
    Ok(())
}

impl Stack {
    /// Fills `buf`, which lies within the volume.
    fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<(), Ec2Error> {
        while !buf.is_empty() {
            let block = offset / BLOCK_BYTES;
            let room = (block + 1) * BLOCK_BYTES - offset;
            let len = usize::try_from(room).map_or(buf.len(), |room| room.min(buf.len()));
            let (piece, rest) = buf.split_at_mut(len);
            self.read_block(block, piece, offset)?;
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }

    /// Fills `buf`, which lies within a block: run by run of grains that one layer has.
    fn read_block(&self, block: u64, mut buf: &mut [u8], mut offset: u64) -> Result<(), Ec2Error> {
        let mut above = 0;
        let mut owners: Vec<(Option<&Layer>, u128)> = Vec::new();
        for layer in self.layers.iter().rev() {
            let mask = layer.mask(block) & !above;
            if mask != 0 {
                owners.push((Some(layer), mask));
                above |= mask;
            }
        }
        owners.push((None, !above));
        while !buf.is_empty() {
            let grain = u32::try_from(offset % BLOCK_BYTES / GRAIN).unwrap_or(0);
            let Some((owner, mask)) = owners.iter().find(|(_, mask)| mask >> grain & 1 == 1) else {
                return Ok(());
            };
            let run = (mask >> grain).trailing_ones();
            let end = block * BLOCK_BYTES + u64::from(grain + run) * GRAIN;
            let len = usize::try_from(end - offset).map_or(buf.len(), |len| len.min(buf.len()));
            let (piece, rest) = buf.split_at_mut(len);
            match owner {
                Some(layer) => layer.read(self.key.as_ref(), piece, offset)?,
                None => self.read_base(piece, offset)?,
            }
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }

    fn read_base(&self, buf: &mut [u8], offset: u64) -> Result<(), Ec2Error> {
        let size = self.base.as_ref().map_or(0, |base| base.size());
        let there = usize::try_from(size.saturating_sub(offset))
            .map_or(buf.len(), |there| there.min(buf.len()));
        let (data, rest) = buf.split_at_mut(there);
        rest.fill(0);
        match &self.base {
            Some(base) if !data.is_empty() => base.read(data, offset),
            _ => Ok(()),
        }
    }

    /// Whether the base has the block.
    fn base_has(&self, block: u64) -> bool {
        let index = u32::try_from(block).unwrap_or(u32::MAX);
        self.base
            .as_ref()
            .is_some_and(|base| base.map().position(index).is_ok())
    }

    /// Blocks that were written to, rising.
    fn written(&self) -> Vec<u32> {
        let layers = self.layers.iter();
        let mut blocks: Vec<u32> = layers
            .flat_map(|layer| layer.blocks())
            .filter_map(|block| u32::try_from(block).ok())
            .collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }
}

impl ReadAt for Stack {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.bytes, buf.len() as u64, offset)?;
        Ok(self.read(buf, offset)?)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let has =
            |block: u64| self.base_has(block) || self.layers.iter().any(|l| l.mask(block) != 0);
        let end = self.bytes.div_ceil(BLOCK_BYTES);
        let first = offset / BLOCK_BYTES;
        let Some(start) = (first..end).find(|block| has(*block)) else {
            return Ok(None);
        };
        let until = (start..end).find(|block| !has(*block)).unwrap_or(end);
        let range = (start * BLOCK_BYTES).max(offset)..(until * BLOCK_BYTES).min(self.bytes);
        Ok((range.start < range.end).then_some(range))
    }
}

fn check_range(bytes: u64, len: u64, offset: u64) -> io::Result<()> {
    if offset.checked_add(len).is_none_or(|end| end > bytes) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

impl VolumeFile {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &VolumeId {
        &self.id
    }

    /// Bytes of the volume.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stack().bytes
    }

    fn stack(&self) -> RwLockReadGuard<'_, Stack> {
        self.stack.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn stack_alone(&self) -> RwLockWriteGuard<'_, Stack> {
        self.stack.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `buf` from `offset`; past the end is [`io::ErrorKind::UnexpectedEof`].
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let stack = self.stack();
        check_range(stack.bytes, buf.len() as u64, offset)?;
        if stack.key.is_none() {
            return Ok(stack.read(buf, offset)?);
        }
        // An encrypted grain that was a hole must not be seen half written: its other half would decrypt to something.
        for (block, range) in pieces(offset, buf.len() as u64) {
            let from = usize::try_from(range.start - offset).unwrap_or(0);
            let until = usize::try_from(range.end - offset).unwrap_or(0);
            let _some = self.stripe(block).read();
            stack.read_block(block, &mut buf[from..until], range.start)?;
        }
        Ok(())
    }

    fn stripe(&self, block: u64) -> &RwLock<()> {
        &self.stripes[usize::try_from(block).unwrap_or(0) % STRIPES]
    }

    /// Writes all of `buf` at `offset`, both of any alignment; past the end is [`io::ErrorKind::UnexpectedEof`]. It is durable after the
    /// next [`VolumeFile::flush`].
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let stack = self.stack();
        check_range(stack.bytes, buf.len() as u64, offset)?;
        for (block, range) in pieces(offset, buf.len() as u64) {
            let from = usize::try_from(range.start - offset).unwrap_or(0);
            let until = usize::try_from(range.end - offset).unwrap_or(0);
            self.write_block(&stack, block, &buf[from..until], range.start)?;
        }
        Ok(())
    }

    /// Writes what lies within one block.
    fn write_block(
        &self,
        stack: &Stack,
        block: u64,
        piece: &[u8],
        offset: u64,
    ) -> Result<(), Ec2Error> {
        let Some(top) = stack.layers.last() else {
            return Ok(());
        };
        let end = offset + piece.len() as u64;
        let grains = offset / GRAIN * GRAIN..end.next_multiple_of(GRAIN);
        let _one = self.stripe(block).write();
        let mask = top.mask(block);
        let has = |at: u64| mask >> (at % BLOCK_BYTES / GRAIN) & 1 == 1;
        // Grains of which a part is written are completed, unless they are there and lie in the open.
        let whole = stack.key.is_some();
        let from = if whole || !has(grains.start) {
            grains.start
        } else {
            offset
        };
        let until = if whole || !has(grains.end - GRAIN) {
            grains.end
        } else {
            end
        };
        if from == offset && until == end && !whole {
            top.write(piece, offset)?;
        } else {
            let at = |offset: u64| usize::try_from(offset - from).unwrap_or(0);
            let mut buf = vec![0; at(until)];
            stack.read(&mut buf[..at(offset)], from)?;
            buf[at(offset)..at(end)].copy_from_slice(piece);
            stack.read(&mut buf[at(end)..], end)?;
            if let Some(key) = &stack.key {
                key.encrypt_sectors(from / GRAIN, &mut buf);
            }
            top.write(&buf, from)?;
        }
        top.set(block, bits(&grains));
        Ok(())
    }

    /// Makes a range zero; whole grains of 4096 bytes take no room then.
    pub fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
        let stack = self.stack();
        check_range(stack.bytes, len, offset)?;
        for (block, range) in pieces(offset, len) {
            let inner = range.start.next_multiple_of(GRAIN)..range.end / GRAIN * GRAIN;
            if inner.start >= inner.end {
                let zeros = [0; 2 * SECTOR];
                let len = usize::try_from(range.end - range.start).unwrap_or(0);
                self.write_block(&stack, block, &zeros[..len], range.start)?;
                continue;
            }
            for edge in [range.start..inner.start, inner.end..range.end] {
                let zeros = [0; SECTOR];
                let len = usize::try_from(edge.end - edge.start).unwrap_or(0);
                if len > 0 {
                    self.write_block(&stack, block, &zeros[..len], edge.start)?;
                }
            }
            self.punch(&stack, block, &inner)?;
        }
        Ok(())
    }

    /// Makes whole grains of a block zero.
    fn punch(&self, stack: &Stack, block: u64, range: &Range<u64>) -> Result<(), Ec2Error> {
        let Some(top) = stack.layers.last() else {
            return Ok(());
        };
        let _one = self.stripe(block).write();
        // Where nothing is, nothing has to be hidden.
        let bits = bits(range);
        let there = stack
            .layers
            .iter()
            .fold(0, |all, layer| all | layer.mask(block));
        if there & bits == 0 && !stack.base_has(block) {
            return Ok(());
        }
        top.punch(range.start, range.end - range.start)?;
        top.set(block, bits);
        Ok(())
    }

    /// Makes durable what was written before. After a sync that failed all do: what reached the disk is not known then.
    ///
    /// # Errors
    /// [`Ec2Error::FlushFailed`] after an earlier failure.
    pub fn flush(&self) -> Result<(), Ec2Error> {
        let _one = lock(&self.flushing);
        if self.flush_failed.load(Ordering::Relaxed) {
            return Err(Ec2Error::FlushFailed(self.dir.clone()));
        }
        let layers = self.stack().layers.clone();
        // Masks as they are before the data is synced: what they speak of is written.
        let pages: Vec<_> = layers.iter().map(|layer| layer.dirty_pages()).collect();
        if let Err(e) = layers.iter().try_for_each(|layer| layer.sync_data()) {
            self.flush_failed.store(true, Ordering::Relaxed);
            return Err(e);
        }
        for (layer, some) in layers.iter().zip(&pages) {
            if let Err(e) = layer.write_pages(some) {
                // A full disk may have room later.
                for (layer, pages) in layers.iter().zip(&pages) {
                    layer.mark_pages(pages);
                }
                return Err(e);
            }
        }
        let synced = layers.iter().zip(&pages).try_for_each(|(layer, pages)| {
            if pages.is_empty() {
                Ok(())
            } else {
                layer.sync_masks()
            }
        });
        if synced.is_err() {
            self.flush_failed.store(true, Ordering::Relaxed);
        }
        synced
    }

    /// Stores the volume as it is at one point in time during the call: what was written before is in it, and writing goes on
    /// meanwhile. Only blocks that were written to are read, unless the base is under another key.
    ///
    /// Write the record of the snapshot, then call [`VolumeFile::rebase`], then let go of the hold. Without the second the volume is whole, but the
    /// next snapshot costs the same again, and reading goes through one more layer.
    ///
    /// # Errors
    /// Those of [`Ec2::import`].
    pub fn snapshot(&self, hold: &Hold) -> Result<VolumeSnapshot, Ec2Error> {
        self.point()?.store(hold)
    }

    /// The volume as it is now, for a snapshot: quick, so that several volumes can be of one point in time. Writing goes on
    /// right after.
    ///
    /// # Errors
    /// When the files of the volume cannot be written.
    pub fn point(&self) -> Result<VolumePoint, Ec2Error> {
        Ok(VolumePoint {
            ec2: self.ec2.clone(),
            frozen: self.freeze()?,
        })
    }

    /// Puts an empty layer on top, unless there is one, and gives those below.
    fn freeze(&self) -> Result<Stack, Ec2Error> {
        let mut meta = lock(&self.meta);
        let without_top = |stack: &Stack| {
            let mut below = stack.clone();
            below.layers.pop();
            below
        };
        {
            let stack = self.stack_alone();
            if stack.layers.last().is_some_and(|top| top.is_empty()) {
                return Ok(without_top(&stack));
            }
        }
        let mut next = meta.clone();
        next.layers.push(meta.next);
        next.next += 1;
        // Named before anything is written to it: a kill here leaves it empty.
        let made = Layer::create(&self.dir, meta.next, meta.bytes).and_then(|layer| {
            sync_dir(&self.dir)?;
            next.write(&self.ec2, &self.dir)?;
            Ok(Arc::new(layer))
        });
        let layer = made.inspect_err(|_| {
            // An error may also come after the file was replaced: then it names the layer, which stays.
            if Meta::read(&self.dir, &self.id).is_ok_and(|there| there.as_ref() == Some(&*meta)) {
                self.remove_layer(meta.next);
            }
        })?;
        *meta = next;
        let mut stack = self.stack_alone();
        stack.layers.push(layer);
        Ok(without_top(&stack))
    }

    fn remove_layer(&self, generation: u64) {
        for path in [
            data_path(&self.dir, generation),
            mask_path(&self.dir, generation),
        ] {
            // Else the next opening removes it.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Makes a snapshot of this volume its base, and lets go of the layers that are in it. Nothing that is read changes. Content when a
    /// later one was first.
    ///
    /// # Errors
    /// [`Ec2Error::NoMap`] when the map is gone: `hold` has to be the one of the snapshot.
    pub fn rebase(&self, _hold: &Hold, snapshot: &VolumeSnapshot) -> Result<(), Ec2Error> {
        let mut meta = lock(&self.meta);
        let key = self.stack().key.clone();
        let covered = |generation: &u64| *generation <= snapshot.covers;
        if !meta.layers.iter().any(covered) {
            return Ok(());
        }
        let map = &snapshot.info.map;
        let base = Arc::new(self.ec2.open(map, key.as_ref(), Check::Encrypted)?);
        let mut next = meta.clone();
        next.layers.retain(|generation| !covered(generation));
        next.base = Some(BaseMeta {
            map: *map,
            encryption: meta.encryption.clone(),
        });
        next.write(&self.ec2, &self.dir)?;
        let gone: Vec<u64> = meta.layers.iter().copied().filter(|n| covered(n)).collect();
        *meta = next;
        let mut stack = self.stack_alone();
        stack.layers.retain(|layer| !covered(&layer.generation));
        stack.base = Some(base);
        drop(stack);
        for generation in gone {
            self.remove_layer(generation);
        }
        Ok(())
    }
}

/// A volume at one point in time.
#[derive(Debug)]
pub struct VolumePoint {
    ec2: Ec2,
    frozen: Stack,
}

impl VolumePoint {
    /// Stores it, as [`VolumeFile::snapshot`] does.
    ///
    /// # Errors
    /// Those of [`Ec2::import`].
    pub fn store(&self, hold: &Hold) -> Result<VolumeSnapshot, Ec2Error> {
        let frozen = &self.frozen;
        let covers = frozen.layers.last().map_or(0, |layer| layer.generation);
        let base = frozen.base.as_ref().map(|base| base.map());
        let base = base.filter(|map| map.data_key() == frozen.key.as_ref().map(DataKey::id));
        let import = Import {
            ec2: &self.ec2,
            source: frozen,
            bytes: frozen.bytes,
            key: frozen.key.as_ref(),
            base,
            keep_rest: true,
        };
        let info = if base.is_some() || frozen.base.is_none() {
            import.run(hold, frozen.written().into_iter().map(Ok))?
        } else {
            import.run(hold, DataBlocks::new(frozen))?
        };
        Ok(VolumeSnapshot { info, covers })
    }
}

/// The volume as it is while it is read: whoever needs one point in time makes a snapshot.
impl ReadAt for VolumeFile {
    fn size(&self) -> u64 {
        self.bytes()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.stack().next_data(offset)
    }
}

/// A range in pieces, each within one block.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, Range<u64>)> {
    let end = offset + len;
    let blocks = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
    blocks.filter(move |_| len > 0).map(move |block| {
        let start = (block * BLOCK_BYTES).max(offset);
        (block, start..((block + 1) * BLOCK_BYTES).min(end))
    })
}

/// The bits of whole grains within one block.
fn bits(range: &Range<u64>) -> u128 {
    let first = u32::try_from(range.start % BLOCK_BYTES / GRAIN).unwrap_or(0);
    let count = u32::try_from((range.end - range.start) / GRAIN).unwrap_or(0);
    debug_assert!(first + count <= GRAINS);
    low_bits(count) << first
}
