//! Volumes by themselves: listed, made, attached to stopped instances and detached, deleted, and snapshots of them.

use std::sync::Arc;

use amiforge_ami::VolumeId;
use amiforge_ami::ec2::{
    AttachVolumeRequest, Attachment, CreateSnapshotRequest, CreateVolumeRequest,
    DescribeVolumesRequest, DescribeVolumesResult, DetachVolumeRequest, Filter, InstanceState,
    Pending, State,
};
use serde::Serialize;
use serde_json::Value;

use super::control::Order;
use super::create::fill;
use super::desk::{Desk, Place, Refused, broken, refusal};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::settings::Engine;

fn json(answer: impl Serialize) -> Result<Value, EngineError> {
    serde_json::to_value(answer).or_fail(ErrorKind::Internal, || "a volume".to_owned())
}

impl Desk<'_> {
    /// A volume as `CreateVolume` answers.
    fn describe_volume(&self, id: &VolumeId) -> Result<Value, EngineError> {
        let state = self.read()?;
        let volume = state.volumes.get(id);
        json(volume.map(|v| state.describe_volume(&self.caller, v)))
    }

    /// Changes an attachment, and describes it in the state that it has then.
    fn attachment(
        &self,
        id: &str,
        now: &str,
        change: impl FnOnce(&mut State, &super::desk::Now) -> Result<Attachment, Refused>,
    ) -> Result<Value, EngineError> {
        // An instance whose process was killed is stopped by now.
        self.settle()?;
        let described = self.transact(|state, fx| {
            let attachment = change(state, fx)?;
            let volume = id.parse::<VolumeId>().ok();
            let volume = volume.and_then(|id| state.volumes.get(&id));
            Ok(volume.map(|v| v.describe_attachment(&attachment, now)))
        })?;
        json(described)
    }
}

impl Engine {
    /// Volumes, in the shape of `DescribeVolumes`.
    pub fn volumes(
        &self,
        place: &Place,
        ids: &[String],
        filters: &[Filter],
    ) -> Result<DescribeVolumesResult, EngineError> {
        let desk = self.desk(place)?;
        // Volumes go and are free when an instance was lost.
        desk.settle()?;
        let request = DescribeVolumesRequest {
            volume_ids: ids.to_vec(),
            filters: filters.to_vec(),
            ..Default::default()
        };
        let state = desk.read()?;
        state
            .describe_volumes(&desk.caller, &request)
            .map_err(refusal)
    }

    /// Makes a volume, in the region's first zone when the request says none; nothing is copied for it. Gives `CreateVolume`'s answer.
    pub fn create_volume(
        &self,
        place: &Place,
        request: &CreateVolumeRequest,
    ) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        let mut request = request.clone();
        let zone = desk.caller.region.zone();
        request.availability_zone.get_or_insert(zone);
        let hold = desk.ec2.hold().map_err(broken)?;
        let (new, _making) = desk.transact(|state, fx| {
            let new = state.create_volume(&desk.caller, &request, fx)?;
            let making = desk.ec2.making(new.volume_id.as_str())?;
            Ok((new, making))
        })?;
        let id = &new.volume_id;
        let made = desk
            .make_volume(&hold, &new)
            .and_then(|()| desk.record(|state, _| Ok(state.volume_created(id)?)));
        if let Err(error) = made {
            // Nothing is kept of it. What cannot be told now, on a full disk, is found by the next command.
            let _ = desk.record(|state, _| Ok(state.volumes.remove(id)));
            let _ = desk.ec2.remove_volume(id);
            return Err(error);
        }
        desk.describe_volume(id)
    }

    /// Deletes a volume that is attached to nothing, and gives its room back.
    pub fn delete_volume(&self, place: &Place, id: &str) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let id = desk.transact(|state, _| Ok(state.delete_volume(&desk.caller, id)?))?;
        // One that is being read just now goes with the next collection.
        let _ = desk.ec2.remove_volume(&id);
        desk.collect();
        Ok(())
    }

    /// Attaches a volume to a stopped instance; gives `AttachVolume`'s answer.
    pub fn attach_volume(
        &self,
        place: &Place,
        request: &AttachVolumeRequest,
    ) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.attachment(&request.volume_id, "attached", |state, fx| {
            Ok(state.attach_volume(&desk.caller, request, fx)?)
        })
    }

    /// Detaches a volume of a stopped instance; gives `DetachVolume`'s answer.
    pub fn detach_volume(
        &self,
        place: &Place,
        request: &DetachVolumeRequest,
    ) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.attachment(&request.volume_id, "detached", |state, _| {
            Ok(state.detach_volume(&desk.caller, request)?)
        })
    }

    /// Makes a snapshot of a volume as it is, attached or not: of a running instance what the guest has written by now, as after a power
    /// cut. Gives `CreateSnapshot`'s answer.
    pub fn create_snapshot(
        &self,
        place: &Place,
        request: &CreateSnapshotRequest,
    ) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        desk.settle()?;
        let (id, volume, live, _making) = desk.transact(|state, fx| {
            let id = state.create_snapshot(&desk.caller, request, fx)?;
            let volume = state
                .snapshots
                .get(&id)
                .and_then(|s| s.volume_id.as_ref())
                .and_then(|v| state.volumes.get(v));
            let instance = volume
                .and_then(|v| v.attachment.as_ref())
                .and_then(|a| state.instances.get(&a.instance_id));
            let live = instance
                .filter(|i| i.state != InstanceState::Stopped)
                .map(|i| i.instance_id.clone());
            let volume = volume.map(|v| v.volume_id.clone());
            let making = desk.ec2.making(id.as_str())?;
            Ok((id, volume, live, making))
        })?;
        let work = Pending::Snapshot(id.clone());
        let filled = match (&live, volume) {
            // Its process has the volume open.
            (Some(instance), _) => {
                let order = Order::Snapshot {
                    snapshot_id: id.clone(),
                };
                desk.order(instance, &order).map(drop)
            }
            (None, Some(volume)) => desk
                .ec2
                .open_volume(&volume)
                .map_err(broken)
                .and_then(|open| fill(&desk, &work, &[(volume, Arc::new(open))], |take| take()))
                .map(drop),
            (None, None) => Ok(()),
        };
        if let Err(error) = filled {
            desk.fail(&work, &error);
            return Err(error);
        }
        let state = desk.read()?;
        let snapshot = state.snapshots.get(&id);
        json(snapshot.map(|s| state.describe_snapshot(&desk.caller, s)))
    }
}
