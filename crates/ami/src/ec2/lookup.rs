//! Finding a resource that a request names: what the caller may not see is not there.

use super::check::{Api, image_id, instance_id, no_snapshot, snapshot_id};
use super::{AccountId, Caller, Effects, Image, Instance, Region, Snapshot, SnapshotState, State};
use crate::{CreationDate, SnapshotId};

impl State {
    /// The caller's instance of this id. `InvalidInstanceID.Malformed`, `InvalidInstanceID.NotFound`.
    pub fn instance_of(&self, caller: &Caller, id: &str) -> Api<&Instance> {
        self.own_instance(caller, &instance_id(id)?)
    }

    /// The image of this id that the caller sees. `InvalidAMIID.Malformed`, `InvalidAMIID.NotFound`.
    pub fn image_of(&self, caller: &Caller, id: &str, fx: &dyn Effects) -> Api<&Image> {
        self.seen_image(caller, &image_id(id)?, fx)
    }

    /// The snapshot of this id, in any region, whose blocks the caller may read. `InvalidSnapshotID.Malformed`,
    /// `InvalidSnapshot.NotFound`; the keys of an encrypted one have to be usable, too.
    pub fn readable_snapshot(&self, caller: &Caller, id: &str) -> Api<&Snapshot> {
        let id = snapshot_id(id)?;
        let snapshot = self
            .snapshots
            .get(&id)
            .filter(|s| s.readable_by(&caller.account));
        let snapshot = snapshot.ok_or_else(|| no_snapshot(id.as_str()))?;
        if let Some(encryption) = &snapshot.encryption {
            self.key_usable(&caller.account, &encryption.key_id)?;
        }
        Ok(snapshot)
    }
}

impl Snapshot {
    /// A complete snapshot of a volume of this size, in GiB, without blocks.
    #[must_use]
    pub fn completed(
        id: SnapshotId,
        owner: AccountId,
        region: Region,
        size: u32,
        at: CreationDate,
    ) -> Self {
        let mut snapshot = Self::new(id, owner, region);
        snapshot.state = SnapshotState::Completed;
        snapshot.start_time = at;
        snapshot.completion_time = Some(at);
        snapshot.volume_size = size;
        snapshot
    }
}
