//! The state, blocks, volumes and keys of EC2.

#![allow(
    clippy::cast_possible_truncation,
    reason = "tests run where usize has 64 bits"
)]

mod blocks;
mod bundles;
mod crash;
mod hostile;
mod keys;
mod state;
mod volume;

use std::path::{Path, PathBuf};

use amiforge_ami::ec2::{AccountId, Encryption, Key, KeyId, KeyManager, KeyState, Region};
use amiforge_ami::ec2::{Snapshot, SnapshotState, Volume, VolumeState};
use amiforge_ami::{CreationDate, SnapshotId, VolumeId, VolumeType};
use amiforge_store::ec2::{DataKey, Ec2, MapInfo};
use amiforge_store::{Home, Store};

pub(crate) const BLOCK: u64 = 512 << 10;
pub(crate) const GRAIN: u64 = 4096;

/// A store in a folder of its own.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ec2: Ec2,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    /// In memory.
    pub(crate) fn fast() -> Self {
        Self::in_dir(fast_dir())
    }

    fn in_dir(dir: tempfile::TempDir) -> Self {
        let ec2 = open(dir.path());
        Self { dir, ec2 }
    }

    pub(crate) fn again(&self) -> Ec2 {
        open(self.dir.path())
    }
}

/// A folder in memory where there is one: what does not ask the disk need not wait for it.
pub(crate) fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

pub(crate) fn open(home: &Path) -> Ec2 {
    Store::open(&Home::below(home)).unwrap().ec2().unwrap()
}

/// Numbers that look random, the same in each run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        let mut out = vec![0; usize::try_from(len).unwrap()];
        self.fill(&mut out);
        out
    }
}

pub(crate) fn key_id(n: u8) -> KeyId {
    format!("00000000-0000-4000-8000-0000000000{n:02x}")
        .parse()
        .unwrap()
}

pub(crate) fn snapshot_id(n: u64) -> SnapshotId {
    SnapshotId::random(n.into())
}

pub(crate) fn volume_id(n: u64) -> VolumeId {
    VolumeId::random(n.into())
}

pub(crate) fn date() -> CreationDate {
    serde_json::from_str("\"2026-11-28T12:00:00.000Z\"").unwrap()
}

pub(crate) fn snapshot(n: u64, info: &MapInfo, key: Option<&DataKey>) -> Snapshot {
    Snapshot {
        snapshot_id: snapshot_id(n),
        owner: AccountId::local(),
        region: Region::local(),
        volume_id: None,
        description: None,
        state: SnapshotState::Completed,
        start_time: date(),
        volume_size: 1,
        encryption: key.map(|key| key.encryption().clone()),
        map: Some(info.map),
        state_message: None,
        completion_time: None,
        product_codes: Vec::new(),
        other_tags: Default::default(),
        blocks: info.blocks,
        changed_blocks: info.changed,
        parent: None,
        tags: Default::default(),
        permissions: Default::default(),
        bin: None,
    }
}

pub(crate) fn volume(n: u64, encryption: Option<Encryption>) -> Volume {
    Volume {
        volume_id: volume_id(n),
        owner: AccountId::local(),
        region: Region::local(),
        availability_zone: Region::local().zone(),
        size: 1,
        volume_type: VolumeType::Gp3,
        iops: None,
        throughput: None,
        snapshot_id: None,
        base: None,
        encryption,
        state: VolumeState::Available,
        attachment: None,
        create_time: date(),
        tags: Default::default(),
    }
}

pub(crate) fn key(n: u8) -> Key {
    Key {
        key_id: key_id(n),
        owner: AccountId::local(),
        region: Region::local(),
        manager: KeyManager::Customer,
        state: KeyState::Enabled,
        aliases: Default::default(),
        description: String::new(),
        creation_date: date(),
        deletion_date: None,
        version: 1,
        grants: Default::default(),
    }
}

/// A data key under a key that is made.
pub(crate) fn data_key(ec2: &Ec2, n: u8) -> DataKey {
    let hold = ec2.hold().unwrap();
    ec2.keys().create(&key_id(n)).unwrap();
    ec2.generate_data_key(&hold, &key_id(n)).unwrap()
}

/// All files below a folder.
pub(crate) fn all_files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(all_files(&path));
        } else {
            out.push(path);
        }
    }
    out
}

/// Files below a folder that hold the bytes.
pub(crate) fn files_with(dir: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let mut starts = bytes.iter().enumerate().filter(|(_, b)| **b == needle[0]);
        starts.any(|(at, _)| bytes[at..].starts_with(needle))
    };
    all_files(dir).into_iter().filter(holds).collect()
}

/// What a source holds.
pub(crate) fn content(source: &dyn amiforge_types::ReadAt) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(source.size()).unwrap()];
    source.read_exact_at(&mut out, 0).unwrap();
    out
}

/// The same by way of its holes.
pub(crate) fn content_of_data(source: &dyn amiforge_types::ReadAt) -> Vec<u8> {
    let mut out = vec![0; usize::try_from(source.size()).unwrap()];
    let mut at = 0;
    while let Some(range) = source.next_data(at).unwrap() {
        assert!(range.start >= at && range.start < range.end && range.end <= source.size());
        let (from, until) = (
            usize::try_from(range.start).unwrap(),
            usize::try_from(range.end).unwrap(),
        );
        source
            .read_exact_at(&mut out[from..until], range.start)
            .unwrap();
        at = range.end;
    }
    out
}
