//! What holds of every state, whatever was done to it.

use std::collections::BTreeSet;

use super::{
    ImageState, InstanceState, RootDevice, SnapshotPermission, SnapshotState, State, VolumeState,
};
use crate::MappingTarget;

impl State {
    /// Every rule of a good state that this one breaks, one sentence each; empty when there is none.
    ///
    /// Records are under their ids; of an image that is not gone every snapshot is there, and complete when the image is
    /// available; names are unique in account and region; volumes and instances name one another; nothing is shared that is
    /// under a default key; what lies in the recycle bin is marked so.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        let mut bad = Vec::new();
        self.check_images(&mut bad);
        self.check_snapshots(&mut bad);
        self.check_volumes(&mut bad);
        self.check_instances(&mut bad);
        self.check_keys(&mut bad);
        bad
    }

    fn check_images(&self, bad: &mut Vec<String>) {
        let mut names = BTreeSet::new();
        for (id, image) in &self.images {
            if *id != image.image_id {
                bad.push(format!("image {} is filed under {id}", image.image_id));
            }
            if image.bin.is_some() && image.state != ImageState::Deregistered {
                bad.push(format!(
                    "{id} lies in the recycle bin and is not deregistered"
                ));
            }
            if matches!(image.state, ImageState::Deregistered | ImageState::Failed) {
                continue;
            }
            if !names.insert((&image.owner, &image.region, &image.name)) {
                bad.push(format!(
                    "{id}: {} is the name of another image, too",
                    image.name
                ));
            }
            if image.state != ImageState::Available && image.is_public() {
                bad.push(format!("{id} is public and not available"));
            }
            let mut root = image.root_device_type == RootDevice::InstanceStore;
            for (i, mapping) in image.block_device_mappings.iter().enumerate() {
                let device = &mapping.device_name;
                if image.block_device_mappings[..i]
                    .iter()
                    .any(|m| m.device_name.clashes(device))
                {
                    bad.push(format!("{id}: {device} is mapped twice"));
                }
                let MappingTarget::Ebs(volume) = &mapping.target else {
                    continue;
                };
                for error in volume.check() {
                    bad.push(format!("{id}: {device}: {error}"));
                }
                let Some(snapshot_id) = &volume.snapshot_id else {
                    continue;
                };
                root |= *device == image.root_device_name;
                let Some(snapshot) = self.snapshots.get(snapshot_id) else {
                    bad.push(format!("{id}: {device}: there is no {snapshot_id}"));
                    continue;
                };
                if snapshot.owner != image.owner || snapshot.region != image.region {
                    bad.push(format!(
                        "{id}: {snapshot_id} is of another account or region"
                    ));
                }
                if snapshot.bin.is_some() {
                    bad.push(format!("{id}: {snapshot_id} lies in the recycle bin"));
                }
                if image.state != ImageState::Pending && snapshot.state != SnapshotState::Completed
                {
                    bad.push(format!("{id}: {snapshot_id} is not complete"));
                }
                if volume.volume_size < snapshot.volume_size {
                    bad.push(format!("{id}: {device} is smaller than {snapshot_id}"));
                }
                if let Some(encryption) = &snapshot.encryption
                    && !image.launch_permissions.is_empty()
                    && (self.under_default_key(encryption) || image.is_public())
                {
                    bad.push(format!("{id} is shared and {snapshot_id} cannot be"));
                }
            }
            if !root {
                bad.push(format!("{id} has no root"));
            }
        }
    }

    fn check_snapshots(&self, bad: &mut Vec<String>) {
        for (id, snapshot) in &self.snapshots {
            if *id != snapshot.snapshot_id {
                bad.push(format!(
                    "snapshot {} is filed under {id}",
                    snapshot.snapshot_id
                ));
            }
            let binned = snapshot.state == SnapshotState::Recoverable;
            if binned != snapshot.bin.is_some() {
                bad.push(format!("{id}: state and recycle bin disagree"));
            }
            let whole = matches!(
                snapshot.state,
                SnapshotState::Completed | SnapshotState::Recoverable
            );
            if whole != snapshot.map.is_some() {
                bad.push(format!("{id}: state and block map disagree"));
            }
            if let Some(encryption) = &snapshot.encryption
                && !snapshot.permissions.is_empty()
                && (self.under_default_key(encryption)
                    || snapshot.permissions.contains(&SnapshotPermission::All))
            {
                bad.push(format!("{id} is shared and cannot be"));
            }
        }
    }

    fn check_volumes(&self, bad: &mut Vec<String>) {
        for (id, volume) in &self.volumes {
            if *id != volume.volume_id {
                bad.push(format!("volume {} is filed under {id}", volume.volume_id));
            }
            if volume.snapshot_id.is_some() && volume.base.is_none() {
                bad.push(format!("{id} is of a snapshot and has no base"));
            }
            if (volume.state == VolumeState::InUse) != volume.attachment.is_some() {
                bad.push(format!("{id}: state and attachment disagree"));
            }
            if let Some(attachment) = &volume.attachment {
                let there = self
                    .instances
                    .get(&attachment.instance_id)
                    .is_some_and(|i| {
                        i.volumes
                            .iter()
                            .any(|v| v.volume_id == *id && v.device == attachment.device)
                    });
                if !there {
                    bad.push(format!(
                        "{id} is attached to {}, which does not have it",
                        attachment.instance_id
                    ));
                }
            }
        }
    }

    fn check_instances(&self, bad: &mut Vec<String>) {
        for (id, instance) in &self.instances {
            if *id != instance.instance_id {
                bad.push(format!(
                    "instance {} is filed under {id}",
                    instance.instance_id
                ));
            }
            for attached in &instance.volumes {
                let there = self.volumes.get(&attached.volume_id).is_some_and(|v| {
                    v.attachment
                        .as_ref()
                        .is_some_and(|a| a.instance_id == *id && a.device == attached.device)
                });
                if !there {
                    bad.push(format!(
                        "{id} has {}, which is not attached to it",
                        attached.volume_id
                    ));
                }
            }
            let terminated = instance.state == InstanceState::Terminated;
            if terminated != instance.terminated.is_some() {
                bad.push(format!("{id}: state and time of termination disagree"));
            }
            if terminated && !(instance.volumes.is_empty() && instance.ephemeral.is_empty()) {
                bad.push(format!("{id} is terminated and has volumes"));
            }
            let stored = instance.root_device_type == RootDevice::InstanceStore;
            if stored
                && matches!(
                    instance.state,
                    InstanceState::Stopping | InstanceState::Stopped
                )
            {
                bad.push(format!(
                    "{id} is stopped, with its root in the instance store"
                ));
            }
            // Of a stopped one the root may be detached.
            let rootless = terminated
                || stored
                || matches!(
                    instance.state,
                    InstanceState::Stopped | InstanceState::ShuttingDown
                );
            let root = instance
                .volumes
                .iter()
                .position(|v| v.device == instance.root_device_name);
            match root {
                Some(0) => {}
                Some(_) => bad.push(format!("{id}: its root is not the first volume")),
                None if rootless => {}
                None => bad.push(format!("{id} has no root")),
            }
        }
    }

    fn check_keys(&self, bad: &mut Vec<String>) {
        let mut aliases = BTreeSet::new();
        for (id, key) in &self.keys {
            if *id != key.key_id {
                bad.push(format!("key {} is filed under {id}", key.key_id));
            }
            for alias in &key.aliases {
                if !aliases.insert((&key.owner, &key.region, alias)) {
                    bad.push(format!("{id}: {alias} is an alias of another key, too"));
                }
            }
        }
    }
}
