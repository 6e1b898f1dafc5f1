//! Images: listed, registered, copied, shared, retired, exported.

use std::path::{Path, PathBuf};

use amiforge_ami::ec2::{
    CopyImageRequest, CreateTagsRequest, DeleteTag, DeleteTagsRequest, DeprecateImageRequest,
    DeregisterImageRequest, Deregistered, DescribeImagesRequest, DescribeImagesResult, EbsRequest,
    Effects as _, Image, ImageRequest, ImageState, LaunchPermission, LaunchPermissionRequest,
    MappingRequest, ModifySnapshotRequest, ProtectImageRequest, Region, RegisterImageRequest,
    RootDevice, Snapshot, SnapshotContent, SnapshotPermission, StateReason, Tag, Tags,
    VolumePermissionChanges, VolumePermissionRequest,
};
use amiforge_ami::{ImageId, MappingTarget, SnapshotId};
use amiforge_store::ec2::{BLOCK_BYTES, BlockMap, MapInfo};
use amiforge_types::{Digest, GIB, Hasher, ReadAt, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use super::control::Order;
use super::desk::{Desk, Now, Place, broken, refusal};
use super::instance_store::location;
use crate::diskfiles::OutputRequest;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::look::open_disk;
use crate::settings::Engine;

/// Which images to list.
#[derive(Clone, Debug, Default)]
pub struct ImagesRequest {
    /// As of the API.
    pub describe: DescribeImagesRequest,
    /// What lies in the recycle bin instead.
    pub recycle_bin: bool,
}

/// To whom an image is opened or closed.
#[derive(Clone, Debug, Default)]
pub struct ShareRequest {
    /// The image.
    pub image: String,
    /// Grantees.
    pub grantees: Vec<LaunchPermissionRequest>,
    /// Whether their permission is taken away.
    pub remove: bool,
    /// Its snapshots, too.
    pub snapshots: bool,
}

/// What is done with an image, and says nothing more.
#[derive(Clone, Debug)]
pub enum ImageChange {
    /// Deprecate it at a time.
    Deprecate(String),
    /// Do not.
    Undeprecate,
    /// Take it out of use.
    Disable,
    /// Use it again.
    Enable,
    /// Protect it against deregistration, for a day longer than it is on if so.
    Protect(bool),
    /// Do not.
    Unprotect,
    /// Bring it back from the recycle bin.
    Restore,
}

/// An image that was changed.
#[derive(Clone, Debug)]
pub struct ChangedImage {
    /// The image.
    pub image_id: String,
    /// Until when it cannot be deregistered, although its protection was taken off.
    pub protected_until: Option<Timestamp>,
}

/// A disk that is to become an image.
#[derive(Clone, Debug)]
pub struct RegisterDisk {
    /// The disk file.
    pub disk: PathBuf,
    /// Name of the image.
    pub name: String,
    /// How it boots.
    pub boot_mode: String,
    /// Tags.
    pub tags: Vec<Tag>,
}

impl RegisterDisk {
    /// The request for the image, once its root is this snapshot.
    fn register(&self, snapshot: &SnapshotId) -> RegisterImageRequest {
        RegisterImageRequest {
            name: self.name.clone(),
            architecture: Some("x86_64".to_owned()),
            virtualization_type: Some("hvm".to_owned()),
            root_device_name: Some("/dev/xvda".to_owned()),
            boot_mode: Some(self.boot_mode.clone()),
            ena_support: Some(true),
            block_device_mappings: vec![MappingRequest {
                device_name: "/dev/xvda".to_owned(),
                ebs: Some(EbsRequest {
                    snapshot_id: Some(snapshot.to_string()),
                    volume_type: Some("gp3".to_owned()),
                    delete_on_termination: Some(true),
                    ..Default::default()
                }),
                ..Default::default()
            }],
            tag_specifications: tags_for("image", &self.tags),
            ..Default::default()
        }
    }
}

/// What a snapshot holds; without a map, for a trial, nothing.
fn content_of(snapshot: &SnapshotId, made: Option<&MapInfo>) -> SnapshotContent {
    SnapshotContent {
        snapshot_id: snapshot.clone(),
        map: made.map_or_else(|| Digest::of(b""), |m| m.map),
        blocks: made.map_or(0, |m| m.blocks),
        changed_blocks: made.map_or(0, |m| m.changed),
    }
}

/// An image that was deregistered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeregisteredImage {
    /// The image.
    #[serde(skip)]
    pub image_id: String,
    /// True.
    pub r#return: bool,
    /// What became of its snapshots, when they were to go, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete_snapshot_results: Vec<Value>,
}

/// The content digest of a plain map: that of the first `bytes` of its volume, which are whole blocks but for the last.
pub(super) fn content_digest(map: &BlockMap, bytes: u64) -> Digest {
    let zero = Digest::of(&vec![0; usize::try_from(BLOCK_BYTES).unwrap_or(0)]);
    let mut hasher = Hasher::new();
    let count = u32::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX);
    for index in 0..count {
        hasher.update(map.address(index).unwrap_or(zero).as_bytes());
    }
    hasher.finish()
}

impl Desk<'_> {
    /// The region that an image to be copied is in: by its id, else the one that is asked when the caller has one of that name there, else
    /// that of who says none.
    fn region_of(&self, text: &str) -> Result<String, EngineError> {
        let state = self.read()?;
        let id: Result<ImageId, _> = text.parse();
        if let Some(image) = id.ok().and_then(|id| state.images.get(&id)) {
            return Ok(image.region.to_string());
        }
        if !self.named(&state, text).is_empty() {
            return Ok(self.caller.region.to_string());
        }
        let home = self.engine.settings.region.clone();
        Ok(home.unwrap_or_else(|| Region::local().to_string()))
    }

    /// Deregisters an image, and forgets the build it came of: by its name that would be made an image again. Its folder stays, and the
    /// room of its snapshots until the next [`Desk::collect`].
    pub(super) fn deregister(
        &self,
        image_id: &str,
        snapshots: bool,
    ) -> Result<Deregistered, EngineError> {
        let request = DeregisterImageRequest {
            image_id: image_id.to_owned(),
            delete_associated_snapshots: snapshots,
            ..Default::default()
        };
        let done =
            self.transact(|state, fx| Ok(state.deregister_image(&self.caller, &request, fx)?))?;
        self.store
            .remove_image(image_id)
            .or_fail(ErrorKind::Failed, || "the catalog".to_owned())?;
        Ok(done)
    }

    pub(super) fn image(&self, text: &str) -> Result<Image, EngineError> {
        let id = self.image_id(text)?;
        let state = self.read()?;
        state
            .image_of(&self.caller, &id, &Now::new())
            .map_err(refusal)
            .cloned()
    }
}

impl Engine {
    /// Images that can be seen, in the shape of `DescribeImages`; builds that nothing was done with yet among them.
    pub fn images(
        &self,
        place: &Place,
        request: &ImagesRequest,
    ) -> Result<DescribeImagesResult, EngineError> {
        let desk = self.desk(place)?;
        let mut state = desk.read()?;
        let fx = Now::new();
        state.expire(fx.now());
        if request.recycle_bin {
            let images = state.images_in_bin(&desk.caller);
            let images = images
                .into_iter()
                .map(|i| state.describe_image(&desk.caller, i, fx.now()))
                .collect();
            return Ok(DescribeImagesResult {
                images: Some(images),
                ..Default::default()
            });
        }
        desk.add_builds(&mut state)?;
        state
            .describe_images(&desk.caller, &request.describe, &fx)
            .map_err(refusal)
    }

    /// One image, in the shape of `DescribeImages`; its owner is also shown who else may launch it (`DescribeImageAttribute`), and make
    /// volumes of its snapshots (`DescribeSnapshotAttribute`).
    pub fn image(&self, place: &Place, image: &str) -> Result<Value, EngineError> {
        let desk = self.desk(place)?;
        let image = desk.image(image)?;
        let state = desk.read()?;
        let described = state.describe_image(&desk.caller, &image, Self::wall_clock());
        let mut value = serde_json::to_value(described)
            .or_fail(ErrorKind::Internal, || "an image".to_owned())?;
        if image.owner == desk.caller.account {
            let permissions = image.launch_permissions.iter().map(|p| match p {
                LaunchPermission::All => json!({ "Group": "all" }),
                LaunchPermission::UserId(id) => json!({ "UserId": id }),
                LaunchPermission::OrganizationArn(arn) => json!({ "OrganizationArn": arn }),
                LaunchPermission::OrganizationalUnitArn(arn) => {
                    json!({ "OrganizationalUnitArn": arn })
                }
            });
            value["LaunchPermissions"] = permissions.collect();
            let snapshots = state.snapshots_of(&image).map(|snapshot| {
                let permissions = snapshot.permissions.iter().map(|p| match p {
                    SnapshotPermission::All => json!({ "Group": "all" }),
                    SnapshotPermission::UserId(id) => json!({ "UserId": id }),
                });
                json!({
                    "SnapshotId": snapshot.snapshot_id,
                    "CreateVolumePermissions": permissions.collect::<Value>(),
                })
            });
            value["Snapshots"] = snapshots.collect();
        }
        Ok(value)
    }

    /// Registers an image from snapshots, or of a bundle.
    pub fn register_image(
        &self,
        place: &Place,
        request: &RegisterImageRequest,
    ) -> Result<ImageId, EngineError> {
        let desk = self.desk(place)?;
        let mut request = request.clone();
        let mut facts = None;
        if let Some(path) = &mut request.image_location {
            *path = location(path)?;
            facts = Some(desk.bundle_facts(Path::new(path))?);
        }
        desk.transact(|state, fx| {
            Ok(state.register_image(&desk.caller, &request, facts.as_ref(), fx)?)
        })
    }

    /// Makes a disk file the root of a new image.
    pub fn register_disk(
        &self,
        place: &Place,
        request: &RegisterDisk,
    ) -> Result<ImageId, EngineError> {
        let desk = self.desk(place)?;
        let (_, disk, _) = open_disk(&request.disk)?;
        let gib = u32::try_from(disk.size().div_ceil(GIB)).unwrap_or(u32::MAX);
        let hold = desk.ec2.hold().map_err(broken)?;
        let text = format!("Imported from {}", request.disk.display());
        let text: String = text.chars().take(255).collect();
        let (snapshot, encryption, _making) = desk.transact(|state, fx| {
            let id = state.import_snapshot(&desk.caller, gib, Some(&text), Tags::new(), fx)?;
            // What is wrong with the image is said before a disk is read for it.
            let mut trial = state.clone();
            trial.complete_snapshot(&content_of(&id, None), fx)?;
            trial.register_image(&desk.caller, &request.register(&id), None, fx)?;
            let encryption = state.snapshots.get(&id).and_then(|s| s.encryption.clone());
            let making = desk.ec2.making(id.as_str())?;
            Ok((id, encryption, making))
        })?;
        let made = (|| {
            let key = encryption
                .as_ref()
                .map(|e| desk.ec2.create_data_key(&hold, e))
                .transpose()
                .map_err(broken)?;
            desk.ec2
                .import(&hold, &*disk, u64::from(gib) * GIB, key.as_ref(), None)
                .map_err(broken)
        })();
        let made = match made {
            Ok(made) => made,
            Err(error) => {
                let why = error.with_causes();
                // What cannot be told now, on a full disk, is found by the next command.
                let _ = desk.record(|state, _| Ok(state.fail_snapshot(&snapshot, &why)?));
                return Err(error);
            }
        };
        let content = content_of(&snapshot, Some(&made));
        let register = request.register(&snapshot);
        let done = desk.transact(|state, fx| {
            state.complete_snapshot(&content, fx)?;
            Ok(state.register_image(&desk.caller, &register, None, fx)?)
        });
        if done.is_err() {
            // A disk that no image came of is not kept.
            let _ = desk.transact(|state, _| Ok(state.snapshots.remove(&snapshot)));
        }
        done
    }

    /// Copies an image into the region.
    pub fn copy_image(
        &self,
        place: &Place,
        request: &CopyImageRequest,
    ) -> Result<ImageId, EngineError> {
        let mut wanted = request.clone();
        let desk = self.desk(place)?;
        if wanted.source_region.is_empty() {
            wanted.source_region = desk.region_of(&wanted.source_image_id)?;
        }
        // The name of an image is that of its own region.
        let source = self.desk(&Place {
            region: Some(wanted.source_region.clone()),
            ..place.clone()
        })?;
        wanted.source_image_id = source.image_id(&wanted.source_image_id)?;
        if wanted.name.is_empty() {
            let state = desk.read()?;
            let id: Result<ImageId, _> = wanted.source_image_id.parse();
            wanted.name = id
                .ok()
                .and_then(|id| state.images.get(&id))
                .map(|i| i.name.clone())
                .unwrap_or_default();
        }
        let hold = desk.ec2.hold().map_err(broken)?;
        let (copied, sources, _making) = desk.transact(|state, fx| {
            let copied = state.copy_image(&desk.caller, &wanted, fx)?;
            let sources: Vec<Snapshot> = copied
                .snapshots
                .iter()
                .filter_map(|c| state.snapshots.get(&c.from).cloned())
                .collect();
            // A repeated request has its maker already.
            let making = (copied.state == ImageState::Pending && !copied.repeated)
                .then(|| desk.ec2.making(copied.image_id.as_str()))
                .transpose()?;
            Ok((copied, sources, making))
        })?;
        match copied.state {
            ImageState::Failed => {
                let state = desk.read()?;
                let why = state
                    .images
                    .get(&copied.image_id)
                    .and_then(|i| i.state_reason.clone());
                let why = why.map_or_else(String::new, |r| r.message);
                return Err(EngineError::new(
                    ErrorKind::Failed,
                    format!("{}: the copy failed: {why}", copied.image_id),
                ));
            }
            ImageState::Pending if !copied.repeated => {}
            _ => return Ok(copied.image_id),
        }
        let contents: Result<Vec<SnapshotContent>, EngineError> = copied
            .snapshots
            .iter()
            .filter_map(|copy| Some((copy, copy.reencrypt.as_ref()?)))
            .map(|(copy, encryption)| {
                let from = sources.iter().find(|s| s.snapshot_id == copy.from);
                let from = from.ok_or_else(|| {
                    EngineError::new(ErrorKind::Failed, format!("{} is not there", copy.from))
                })?;
                self.stage("encrypt", copy.to.to_string());
                desk.encrypt_anew(&hold, from, &copy.to, encryption)
            })
            .collect();
        let bundle = copied.bundle.as_ref();
        let bundle = bundle.map(|_| desk.copy_bundle(&hold, &copied.image_id));
        let filled = contents.and_then(|contents| Ok((contents, bundle.transpose()?)));
        let done = filled.and_then(|(contents, location)| {
            desk.record(|state, fx| {
                Ok(state.complete_image(&copied.image_id, &contents, location.as_deref(), fx)?)
            })
        });
        match done {
            Ok(()) => Ok(copied.image_id),
            Err(error) => {
                let code = match copied.bundle {
                    Some(_) => "Client.InvalidManifest",
                    None => "Client.InvalidKey",
                };
                let reason = StateReason {
                    code: code.to_owned(),
                    message: error.with_causes(),
                };
                // What cannot be told now, on a full disk, is found by the next command.
                let _ = desk.record(|state, _| Ok(state.fail_image(&copied.image_id, reason)?));
                Err(error)
            }
        }
    }

    /// Deregisters an image; with its snapshots, when asked for.
    pub fn deregister_image(
        &self,
        place: &Place,
        image: &str,
        snapshots: bool,
    ) -> Result<DeregisteredImage, EngineError> {
        let desk = self.desk(place)?;
        let image_id = desk.image_id(image)?;
        let of_bundle = desk
            .image(&image_id)
            .is_ok_and(|i| i.root_device_type == RootDevice::InstanceStore);
        let done = desk.deregister(&image_id, snapshots)?;
        // A copy of a bundle is nobody's any more; one that its owner has stays.
        if snapshots || of_bundle {
            desk.collect();
        }
        let results = done.delete_snapshot_results.iter();
        let results =
            results.map(|(id, code)| json!({ "SnapshotId": id, "ReturnCode": code.as_str() }));
        Ok(DeregisteredImage {
            image_id,
            r#return: true,
            delete_snapshot_results: results.collect(),
        })
    }

    /// Opens an image to others, or closes it; gives its id.
    pub fn share_image(
        &self,
        place: &Place,
        request: &ShareRequest,
    ) -> Result<ImageId, EngineError> {
        let desk = self.desk(place)?;
        let id = desk.image_id(&request.image)?;
        let mut still = Vec::new();
        let none = Vec::new();
        let (add, remove) = match request.remove {
            false => (&request.grantees, &none),
            true => (&none, &request.grantees),
        };
        desk.transact(|state, fx| {
            state.modify_launch_permission(&desk.caller, &id, add, remove, false, fx)?;
            if request.snapshots {
                let image = state.image_of(&desk.caller, &id, fx)?.clone();
                let snapshots: Vec<SnapshotId> = state
                    .snapshots_of(&image)
                    .map(|s| s.snapshot_id.clone())
                    .collect();
                let grantees: Vec<VolumePermissionRequest> = request
                    .grantees
                    .iter()
                    .map(|g| VolumePermissionRequest {
                        user_id: g.user_id.clone(),
                        group: g.group.clone(),
                    })
                    .filter(|g| g.user_id.is_some() || g.group.is_some())
                    .collect();
                let changes = match request.remove {
                    false => VolumePermissionChanges {
                        add: grantees,
                        remove: Vec::new(),
                    },
                    true => VolumePermissionChanges {
                        add: Vec::new(),
                        remove: grantees,
                    },
                };
                for snapshot in snapshots {
                    let request = ModifySnapshotRequest {
                        snapshot_id: snapshot.to_string(),
                        create_volume_permission: Some(changes.clone()),
                        ..Default::default()
                    };
                    state.modify_snapshot(&desk.caller, &request)?;
                }
            } else if request.remove {
                let image = state.image_of(&desk.caller, &id, fx)?;
                let open = state.snapshots_of(image);
                still.extend(
                    open.filter(|s| !s.permissions.is_empty())
                        .map(|s| s.snapshot_id.to_string()),
                );
            }
            Ok(())
        })?;
        if !still.is_empty() {
            self.warn(format!(
                "still open to others, who can copy what is in them: {} (`--with-snapshots` closes them, too)",
                still.join(", ")
            ));
        }
        id.parse().or_fail(ErrorKind::Internal, || id.clone())
    }

    /// Opens a snapshot to others, or closes it.
    pub fn share_snapshot(
        &self,
        place: &Place,
        id: &str,
        grantees: &[VolumePermissionRequest],
        remove: bool,
    ) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let (add, gone) = match remove {
            false => (grantees.to_vec(), Vec::new()),
            true => (Vec::new(), grantees.to_vec()),
        };
        let request = ModifySnapshotRequest {
            snapshot_id: id.to_owned(),
            create_volume_permission: Some(VolumePermissionChanges { add, remove: gone }),
            ..Default::default()
        };
        desk.transact(|state, _| Ok(state.modify_snapshot(&desk.caller, &request)?))
    }

    /// Changes an image; gives its id, and until when it is protected after all.
    pub fn change_image(
        &self,
        place: &Place,
        image: &str,
        change: &ImageChange,
    ) -> Result<ChangedImage, EngineError> {
        let desk = self.desk(place)?;
        let image_id = match change {
            // It is not among what can be seen.
            ImageChange::Restore => desk.image_id_in_bin(image)?,
            _ => desk.image_id(image)?,
        };
        let plain = ImageRequest {
            image_id: image_id.clone(),
            ..Default::default()
        };
        let caller = &desk.caller;
        let mut protected_until = None;
        desk.transact(|state, fx| {
            match change {
                ImageChange::Deprecate(at) => {
                    let request = DeprecateImageRequest {
                        image_id: image_id.clone(),
                        deprecate_at: at.clone(),
                        ..Default::default()
                    };
                    state.deprecate_image(caller, &request, fx).map(drop)?;
                }
                ImageChange::Undeprecate => state.undeprecate_image(caller, &plain, fx)?,
                ImageChange::Disable => state.disable_image(caller, &plain, fx)?,
                ImageChange::Enable => state.enable_image(caller, &plain, fx)?,
                ImageChange::Protect(with_cooldown) => {
                    let request = ProtectImageRequest {
                        image_id: image_id.clone(),
                        with_cooldown: *with_cooldown,
                        ..Default::default()
                    };
                    state.protect_image(caller, &request, fx).map(drop)?;
                }
                ImageChange::Unprotect => {
                    protected_until = state.unprotect_image(caller, &plain, fx)?.until();
                }
                ImageChange::Restore => state.restore_image(caller, &plain)?,
            }
            Ok(())
        })?;
        Ok(ChangedImage {
            image_id,
            protected_until,
        })
    }

    /// Sets tags of a resource, or removes them.
    pub fn tag(
        &self,
        place: &Place,
        id: &str,
        set: &[Tag],
        remove: &[String],
    ) -> Result<(), EngineError> {
        let desk = self.desk(place)?;
        let id = match id.split_once('-').map(|(kind, _)| kind) {
            Some("snap" | "vol" | "i") => id.to_owned(),
            _ => desk.image_id(id)?,
        };
        desk.transact(|state, fx| {
            if !set.is_empty() {
                let request = CreateTagsRequest {
                    resources: vec![id.clone()],
                    tags: set.to_vec(),
                    ..Default::default()
                };
                state.create_tags(&desk.caller, &request, fx)?;
            }
            if !remove.is_empty() {
                let tags = remove
                    .iter()
                    .map(|key| DeleteTag {
                        key: key.clone(),
                        value: None,
                    })
                    .collect();
                let request = DeleteTagsRequest {
                    resources: vec![id.clone()],
                    tags,
                    ..Default::default()
                };
                state.delete_tags(&desk.caller, &request, fx)?;
            }
            Ok(())
        })?;
        if let Ok(instance) = id.parse::<amiforge_ami::InstanceId>() {
            // One that does not run reads them when it starts.
            let _ = desk.folder(&instance).ask(&Order::Tags);
        }
        Ok(())
    }

    /// Writes the volumes of an image as disk files: the root to the file that is named, others beside it.
    pub fn export_image(
        &self,
        place: &Place,
        image: &str,
        out: &Path,
    ) -> Result<Vec<PathBuf>, EngineError> {
        let desk = self.desk(place)?;
        let image = desk.image(image)?;
        let state = desk.read()?;
        let mut written = Vec::new();
        let mut disks: Vec<(Box<dyn ReadAt>, PathBuf)> = Vec::new();
        if image.root_device_type == RootDevice::InstanceStore {
            disks.push((desk.root_of(&image, out)?, out.to_owned()));
        }
        for mapping in &image.block_device_mappings {
            let MappingTarget::Ebs(ebs) = &mapping.target else {
                continue;
            };
            let Some(id) = &ebs.snapshot_id else { continue };
            let snapshot = match state.snapshots.get(id) {
                Some(snapshot) if image.owner == desk.caller.account => snapshot,
                // Whoever may launch a shared image may not read its storage.
                _ => desk.snapshot(&state, id.as_str())?,
            };
            let file = if mapping.device_name == image.root_device_name {
                out.to_owned()
            } else {
                let (stem, extension) = (
                    out.file_stem().unwrap_or_default(),
                    out.extension().unwrap_or_default(),
                );
                let name = format!(
                    "{}-{}.{}",
                    stem.to_string_lossy(),
                    mapping.device_name.short(),
                    extension.to_string_lossy()
                );
                out.with_file_name(name)
            };
            disks.push((Box::new(desk.reader(&state, snapshot)?), file));
        }
        desk.no_dry_run()?;
        for (reader, file) in disks {
            self.write_disk(reader, &OutputRequest::plain(&file))?;
            written.push(file);
        }
        Ok(written)
    }
}

/// Tags for what a request makes.
pub(super) fn tags_for(kind: &str, tags: &[Tag]) -> Vec<amiforge_ami::ec2::TagSpecification> {
    if tags.is_empty() {
        return Vec::new();
    }
    vec![amiforge_ami::ec2::TagSpecification {
        resource_type: kind.to_owned(),
        tags: tags.to_vec(),
    }]
}
