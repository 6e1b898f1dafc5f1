//! `create-image`: the volumes of an instance become the snapshots of an image.

use std::collections::BTreeMap;
use std::sync::Arc;

use amiforge_ami::ec2::{CreateImageRequest, InstanceState, SnapshotContent, StateReason};
use amiforge_ami::{ImageId, SnapshotId, VolumeId};
use amiforge_store::ec2::{VolumeFile, VolumePoint, VolumeSnapshot};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::Order;
use super::desk::{Desk, Place, broken};
use super::instances::EndRequest;
use crate::error::{EngineError, ErrorKind};
use crate::settings::Engine;

/// An image that was made of an instance: the answer of `CreateImage`, and how it went.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedImage {
    /// The image.
    #[serde(rename = "ImageId")]
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
    /// Why they may still be: the guest then waits for somebody who thaws them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub still_frozen: Option<String>,
    /// False when the guest did not shut down in time, and was switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shut_down: Option<bool>,
    /// Why it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_shut_down: Option<String>,
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
        how: EndRequest,
    ) -> Result<CreatedImage, EngineError> {
        let desk = self.desk(place)?;
        let instance = desk.instance(&request.instance_id)?;
        let created =
            desk.transact(|state, fx| Ok(state.create_image(&desk.caller, request, fx)?))?;
        let image_id = created.image_id.clone();
        let live = instance.state == InstanceState::Running;
        let done = if live {
            let seconds = how.seconds(self);
            if !request.no_reboot {
                self.stage(
                    "shut down",
                    format!("{}, for at most {seconds} s", instance.instance_id),
                );
            }
            let order = Order::Image {
                image_id: image_id.clone(),
                no_reboot: request.no_reboot,
                seconds,
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
            Ok(answer) => {
                let text = |member: &str| answer[member].as_str().map(str::to_owned);
                Ok(CreatedImage {
                    image_id: image_id.to_string(),
                    blocks: answer["blocks"].as_u64().unwrap_or(0),
                    stored_blocks: answer["storedBlocks"].as_u64().unwrap_or(0),
                    frozen_file_systems: answer["frozenFileSystems"].as_u64(),
                    not_frozen: text("notFrozen"),
                    still_frozen: text("stillFrozen"),
                    shut_down: answer["shutDown"].as_bool(),
                    not_shut_down: text("notShutDown"),
                })
            }
            Err(error) => {
                let reason = StateReason {
                    code: "Server.InternalError".to_owned(),
                    message: error.with_causes(),
                };
                // Its process may have ended in the middle: the image is not left pending.
                let _ = desk.transact(|state, _| Ok(state.fail_image(&image_id, reason)?));
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
        Ok(fill(desk, image_id, &volumes, |take| take())?.with(&Value::Null))
    }
}

/// Fills the pending snapshots of an image from open volumes, and completes it. `around` calls what it is given once: that takes
/// the point in time of all volumes, and is quick; what is stored afterwards is of that point.
pub(super) fn fill(
    desk: &Desk<'_>,
    image_id: &ImageId,
    volumes: &[(VolumeId, Arc<VolumeFile>)],
    around: impl FnOnce(&mut dyn FnMut()),
) -> Result<Filled, EngineError> {
    let hold = desk.ec2.hold().map_err(broken)?;
    let state = desk.read()?;
    let image = state.images.get(image_id);
    let image = image
        .ok_or_else(|| EngineError::new(ErrorKind::Failed, format!("{image_id} is not there")))?;
    let wanted: BTreeMap<VolumeId, SnapshotId> = state
        .snapshots_of(image)
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
    desk.transact(|state, fx| Ok(state.complete_image(image_id, &contents, None, fx)?))?;
    for ((_, volume), snapshot) in volumes.iter().zip(&snapshots) {
        // The next snapshot costs more, and nothing else.
        if let Err(error) = volume.rebase(&hold, snapshot) {
            desk.engine
                .warn(format!("{}: {}", volume.id(), crate::error::chain(&error)));
        }
    }
    Ok(filled)
}
