//! Snapshots: listed, compared, copied, exported, shared, deleted, and checked block by block.

use std::collections::BTreeSet;
use std::path::Path;

use amiforge_ami::SnapshotId;
use amiforge_ami::ec2::{
    CopySnapshotRequest, DescribeSnapshotsResult, Encryption, Filter, Snapshot, SnapshotContent,
    SnapshotRequest, State, TagSpecification,
};
use amiforge_store::ec2::{Check, Hold, SnapshotReader};
use amiforge_types::ByteSize;
use serde::Serialize;

use super::desk::{Desk, Place, Refused, broken, refusal};
use crate::diskfiles::OutputRequest;
use crate::error::{EngineError, ErrorKind};
use crate::settings::Engine;

/// Which blocks differ between two snapshots.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotDiff {
    /// Bytes of a block.
    pub block_size: u64,
    /// Numbers of the blocks that differ.
    pub changed_blocks: Vec<u32>,
}

/// What a check of all blocks of a snapshot found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotCheck {
    /// The snapshot.
    pub snapshot_id: SnapshotId,
    /// Blocks that were read.
    pub blocks: u64,
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
}

impl Desk<'_> {
    /// A snapshot that the caller may read.
    pub(super) fn snapshot<'s>(
        &self,
        state: &'s State,
        id: &str,
    ) -> Result<&'s Snapshot, EngineError> {
        state.readable_snapshot(&self.caller, id).map_err(refusal)
    }

    /// The bytes of a snapshot.
    pub(super) fn reader(&self, snapshot: &Snapshot) -> Result<SnapshotReader, EngineError> {
        let key = self.data_key(snapshot.encryption.as_ref())?;
        let map = snapshot.map.ok_or_else(|| {
            EngineError::new(
                ErrorKind::Failed,
                format!("{}: it is not complete", snapshot.snapshot_id),
            )
        })?;
        self.ec2
            .open(&map, key.as_ref(), Check::FirstRead)
            .map_err(broken)
    }

    /// Encrypts the blocks of a snapshot under a key, as the content of another one.
    pub(super) fn encrypt_anew(
        &self,
        hold: &Hold,
        from: &Snapshot,
        to: &SnapshotId,
        encryption: &Encryption,
    ) -> Result<SnapshotContent, EngineError> {
        let old = self.data_key(from.encryption.as_ref())?;
        let new = self.ec2.create_data_key(hold, encryption).map_err(broken)?;
        let map = from.map.ok_or_else(|| {
            EngineError::new(
                ErrorKind::Failed,
                format!("{}: it is not complete", from.snapshot_id),
            )
        })?;
        let made = self
            .ec2
            .reencrypt(hold, &map, old.as_ref(), Some(&new))
            .map_err(broken)?;
        Ok(SnapshotContent {
            snapshot_id: to.clone(),
            map: made.map,
            blocks: made.blocks,
            changed_blocks: made.changed,
        })
    }
}

impl Engine {
    /// Snapshots that can be seen, in the shape of `DescribeSnapshots`.
    pub fn snapshots(
        &self,
        place: &Place,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<DescribeSnapshotsResult, EngineError> {
        let desk = self.desk(place)?;
        let mut state = desk.read()?;
        state.expire(Self::wall_clock());
        let request = amiforge_ami::ec2::DescribeSnapshotsRequest {
            snapshot_ids: ids.to_vec(),
            filters: filters.to_vec(),
            ..Default::default()
        };
        state
            .describe_snapshots(&desk.caller, &request)
            .map_err(refusal)
    }

    /// Which blocks differ between two snapshots.
    pub fn snapshot_diff(
        &self,
        place: &Place,
        a: &str,
        b: &str,
    ) -> Result<SnapshotDiff, EngineError> {
        let desk = self.desk(place)?;
        let state = desk.read()?;
        let map = |id: &str| -> Result<_, EngineError> {
            let snapshot = desk.snapshot(&state, id)?;
            snapshot.map.ok_or_else(|| {
                EngineError::new(ErrorKind::Failed, format!("{id}: it is not complete"))
            })
        };
        let changed_blocks = desk.ec2.diff(&map(a)?, &map(b)?).map_err(broken)?;
        Ok(SnapshotDiff {
            block_size: amiforge_store::ec2::BLOCK_BYTES,
            changed_blocks,
        })
    }

    /// Writes a snapshot as a disk file.
    pub fn snapshot_export(&self, place: &Place, id: &str, out: &Path) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let state = desk.read()?;
        let snapshot = desk.snapshot(&state, id)?;
        let reader = desk.reader(snapshot)?;
        self.write_disk(Box::new(reader), &OutputRequest::plain(out))
            .map(drop)
    }

    /// Copies a snapshot into the region; gives the id of the copy.
    pub fn snapshot_copy(
        &self,
        place: &Place,
        id: &str,
        source_region: Option<&str>,
        encrypted: bool,
        key: Option<&str>,
    ) -> Result<SnapshotId, EngineError> {
        let desk = self.desk(place)?;
        let request = CopySnapshotRequest {
            source_snapshot_id: id.to_owned(),
            source_region: source_region
                .unwrap_or(desk.caller.region.as_str())
                .to_owned(),
            encrypted: encrypted.then_some(true),
            kms_key_id: key.map(str::to_owned),
            tag_specifications: Vec::<TagSpecification>::new(),
            ..Default::default()
        };
        let hold = desk.ec2.hold().map_err(broken)?;
        let (copied, from, _making) = desk.transact(|state, fx| {
            let copied = state.copy_snapshot(&desk.caller, &request, fx)?;
            let from = copied
                .copy
                .as_ref()
                .and_then(|c| state.snapshots.get(&c.from))
                .cloned();
            let making = desk.ec2.making(copied.snapshot_id.as_str())?;
            Ok((copied, from, making))
        })?;
        if let (Some(copy), Some(from)) = (&copied.copy, from)
            && let Some(encryption) = &copy.reencrypt
        {
            let content = desk.encrypt_anew(&hold, &from, &copy.to, encryption);
            match content {
                Ok(content) => {
                    desk.transact(|state, fx| Ok(state.complete_snapshot(&content, fx)?))?
                }
                Err(error) => {
                    let why = error.with_causes();
                    // What cannot be told now, on a full disk, is found by the next command.
                    let _ = desk.record(|state, _| Ok(state.fail_snapshot(&copy.to, &why)?));
                    return Err(error);
                }
            }
        }
        Ok(copied.snapshot_id)
    }

    /// Deletes a snapshot, and gives the room of its blocks back unless something is being made just now.
    pub fn snapshot_delete(&self, place: &Place, id: &str) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let request = SnapshotRequest {
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        desk.transact(|state, fx| {
            Ok::<_, Refused>(
                state
                    .delete_snapshot(&desk.caller, &request, fx)?
                    .then_some(()),
            )
        })?;
        desk.collect();
        Ok(())
    }

    /// Brings a snapshot back from the recycle bin.
    pub fn snapshot_restore(&self, place: &Place, id: &str) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let request = SnapshotRequest {
            snapshot_id: id.to_owned(),
            ..Default::default()
        };
        desk.transact(|state, _| Ok(state.restore_snapshot(&desk.caller, &request)?))
    }

    /// Reads every block of snapshots, all of them when none is named.
    pub fn snapshot_verify(
        &self,
        place: &Place,
        ids: &[String],
    ) -> Result<Vec<SnapshotCheck>, EngineError> {
        let desk = self.desk(place)?;
        let state = desk.read()?;
        let wanted: Vec<&Snapshot> = if ids.is_empty() {
            state
                .snapshots
                .values()
                .filter(|s| {
                    s.map.is_some()
                        && s.owner == desk.caller.account
                        && s.region == desk.caller.region
                })
                .collect()
        } else {
            ids.iter()
                .map(|id| desk.snapshot(&state, id))
                .collect::<Result<_, _>>()?
        };
        let mut checked = BTreeSet::new();
        let mut found = Vec::new();
        for snapshot in wanted {
            if !checked.insert(snapshot.snapshot_id.clone()) {
                continue;
            }
            let outcome = desk
                .reader(snapshot)
                .and_then(|reader| reader.verify().map_err(broken));
            let problems = match outcome {
                Ok(_) => Vec::new(),
                Err(error) => vec![error.with_causes()],
            };
            found.push(SnapshotCheck {
                snapshot_id: snapshot.snapshot_id.clone(),
                blocks: snapshot.blocks,
                problems,
            });
        }
        Ok(found)
    }

    /// Gives the room of blocks back that nothing refers to; says how much that is.
    pub fn snapshot_gc(&self, place: &Place) -> Result<String, EngineError> {
        let desk = self.desk(place)?;
        if place.dry_run {
            return Ok("nothing was done".to_owned());
        }
        let collected = desk.ec2.gc().map_err(broken)?;
        Ok(match collected {
            Some(collected) => format!("{} given back", ByteSize(collected.bytes)),
            None => "nothing: snapshots are being made just now".to_owned(),
        })
    }
}
