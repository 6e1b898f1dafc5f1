//! `create-image`: the volumes of an instance become the snapshots of an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use amiforge_ami::ec2::{
    CreateImageRequest, InstanceState, Pending, Snapshot, SnapshotContent, StateReason,
};
use amiforge_ami::{ImageId, SnapshotId, VolumeId};
use amiforge_store::ec2::{Making, VolumeFile, VolumePoint, VolumeSnapshot};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::Order;
use super::desk::{Desk, Place, broken};
use super::instances::EndRequest;
use crate::error::{EngineError, ErrorKind};
use crate::settings::Engine;

/// An image that was made of an instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedImage {
    /// The image.
    pub image_id: String,
    /// Blocks of 512 KiB that its snapshots consist of.
    pub blocks: u64,
    /// Blocks that the store lacked: what was read and written.
    pub stored_blocks: u64,
    /// How many file systems were frozen by the guest's agent meanwhile; absent when the machine was off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_file_systems: Option<u64>,
    /// Why they could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_frozen: Option<String>,
    /// False when the guest did not shut down in time, and was switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shut_down: Option<bool>,
}

/// What snapshots took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filled {
    blocks: u64,
    stored_blocks: u64,
}

impl Filled {
    /// As the answer to an order, with what else there is to say.
    pub(super) fn with(self, more: &Value) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let (Some(value), Some(more)) = (value.as_object_mut(), more.as_object()) {
            value.extend(more.clone());
        }
        value
    }
}

impl Engine {
    /// Makes an image of an instance. It is shut down cleanly for it and started again, unless `no_reboot` says that its
    /// volumes are to be taken as they are.
    pub fn create_image(
        &self,
        place: &Place,
        request: &CreateImageRequest,
    ) -> Result<CreatedImage, EngineError> {
        let desk = self.desk(place)?;
        let instance = desk.instance(&request.instance_id)?;
        let (created, _making) = desk.transact(|state, fx| {
            let created = state.create_image(&desk.caller, request, fx)?;
            let making = desk.ec2.making(created.image_id.as_str())?;
            Ok((created, making))
        })?;
        let image_id = created.image_id.clone();
        let live = instance.state == InstanceState::Running;
        let done = if live {
            let order = Order::Image {
                image_id: image_id.clone(),
                no_reboot: request.no_reboot,
                seconds: EndRequest::default().seconds(self),
            };
            desk.order(&instance.instance_id, &order)
        } else {
            self.of_stopped(
                &desk,
                &image_id,
                &created
                    .snapshots
                    .iter()
                    .map(|s| s.volume_id.clone())
                    .collect::<Vec<_>>(),
            )
        };
        match done {
            Ok(answer) => Ok(CreatedImage {
                image_id: image_id.to_string(),
                blocks: answer["blocks"].as_u64().unwrap_or(0),
                stored_blocks: answer["storedBlocks"].as_u64().unwrap_or(0),
                frozen_file_systems: answer["frozenFileSystems"].as_u64(),
                not_frozen: answer["notFrozen"].as_str().map(str::to_owned),
                shut_down: answer["shutDown"].as_bool(),
            }),
            Err(error) => {
                // Its process may have ended in the middle: the image is not left pending.
                desk.fail(&Pending::Image(image_id), &error);
                Err(error)
            }
        }
    }

    fn of_stopped(
        &self,
        desk: &Desk<'_>,
        image_id: &ImageId,
        ids: &[VolumeId],
    ) -> Result<Value, EngineError> {
        let mut volumes = Vec::new();
        for id in ids {
            volumes.push((
                id.clone(),
                Arc::new(desk.ec2.open_volume(id).map_err(broken)?),
            ));
        }
        let work = Pending::Image(image_id.clone());
        Ok(fill(desk, &work, &volumes, |take| take())?.with(&Value::Null))
    }
}

impl Desk<'_> {
    /// The process of an instance takes part in making something of it: from now on that does not fail when the command goes that
    /// asked for it.
    pub(super) fn join(&self, work: &Pending) -> Result<Making, EngineError> {
        let making = self.ec2.making(work.id()).map_err(broken)?;
        if self.read()?.pending_works().contains(work) {
            return Ok(making);
        }
        Err(EngineError::new(
            ErrorKind::Failed,
            format!(
                "{} is not pending any more: the command that asked for it has ended",
                work.id()
            ),
        ))
    }

    /// Says that something came to nothing, if it is pending still.
    pub(super) fn fail(&self, work: &Pending, error: &EngineError) {
        let message = error.with_causes();
        // What cannot be told now, on a full disk, is found by the next command.
        let _ = self.record(|state, _| {
            match work {
                Pending::Image(id) => {
                    let code = "Server.InternalError".to_owned();
                    state.fail_image(id, StateReason { code, message })?;
                }
                Pending::Snapshot(id) => state.fail_snapshot(id, &message)?,
                Pending::Volume(id) => state.fail_volume(id)?,
            }
            Ok(())
        });
    }
}

/// Fills what is pending from open volumes, the snapshots of an image or one by itself, and completes it. `around` calls what it is given
/// once: that takes the point in time of all volumes, and is quick; what is stored afterwards is of that point.
pub(super) fn fill(
    desk: &Desk<'_>,
    work: &Pending,
    volumes: &[(VolumeId, Arc<VolumeFile>)],
    around: impl FnOnce(&mut dyn FnMut()),
) -> Result<Filled, EngineError> {
    let hold = desk.ec2.hold().map_err(broken)?;
    let state = desk.read()?;
    let gone = || EngineError::new(ErrorKind::Failed, format!("{} is not there", work.id()));
    let snapshots: Vec<&Snapshot> = match work {
        Pending::Image(id) => state
            .snapshots_of(state.images.get(id).ok_or_else(gone)?)
            .collect(),
        Pending::Snapshot(id) => vec![state.snapshots.get(id).ok_or_else(gone)?],
        Pending::Volume(_) => Vec::new(),
    };
    let wanted: BTreeMap<VolumeId, SnapshotId> = snapshots
        .into_iter()
        .filter(|s| s.map.is_none())
        .filter_map(|s| Some((s.volume_id.clone()?, s.snapshot_id.clone())))
        .collect();
    let volumes: Vec<_> = volumes
        .iter()
        .filter(|(id, _)| wanted.contains_key(id))
        .collect();
    let mut points = Vec::new();
    around(&mut || points = volumes.iter().map(|(_, v)| v.point()).collect());
    let points: Vec<VolumePoint> = points
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(broken)?;
    if points.len() != volumes.len() {
        return Err(EngineError::new(
            ErrorKind::Internal,
            "no point in time was taken",
        ));
    }
    let made = points.iter().map(|point| point.store(&hold));
    let mut filled = Filled::default();
    let mut contents = Vec::new();
    let mut snapshots: Vec<VolumeSnapshot> = Vec::new();
    for ((id, _), made) in volumes.iter().zip(made) {
        let snapshot = made.map_err(broken)?;
        filled.blocks += snapshot.info.blocks;
        filled.stored_blocks += snapshot.info.stored;
        contents.push(SnapshotContent {
            snapshot_id: wanted[id].clone(),
            map: snapshot.info.map,
            blocks: snapshot.info.blocks,
            changed_blocks: snapshot.info.changed,
        });
        snapshots.push(snapshot);
    }
    desk.record(|state, fx| {
        match (work, contents.as_slice()) {
            (Pending::Image(id), contents) => state.complete_image(id, contents, None, fx)?,
            (_, [content]) => state.complete_snapshot(content, fx)?,
            // Its volume is none of the instance that was asked: it stays pending, and who asked says that it failed.
            _ => return Ok(false),
        }
        Ok(true)
    })?
    .then_some(())
    .ok_or_else(|| {
        EngineError::new(
            ErrorKind::Failed,
            format!("{}: its volume is not here", work.id()),
        )
    })?;
    for ((_, volume), snapshot) in volumes.iter().zip(&snapshots) {
        // The next snapshot costs more, and nothing else.
        if let Err(error) = volume.rebase(&hold, snapshot) {
            desk.engine
                .warn(format!("{}: {}", volume.id(), crate::error::chain(&error)));
        }
    }
    Ok(filled)
}
