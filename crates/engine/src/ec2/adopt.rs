//! Images that were built here, taken into the state: their disks become snapshots.
//!
//! A build leaves its result in a folder, and an entry in the catalog. It becomes an image of the state when something is
//! first done with it: its disks are read once, checked against the content digests of the manifest, and their
//! blocks kept. From then on the image does not need the folder.

use std::path::{Path, PathBuf};

use amiforge_ami::ec2::{
    AccountId, AdoptImage, Caller, Image, ImageState, Region, Snapshot, State, Tags,
};
use amiforge_ami::{
    ArtifactFormat, BlockDeviceMapping, CreationDate, DeviceName, ImageId, Manifest, MappingTarget,
    SnapshotId, VolumeInfo,
};
use amiforge_store::ec2::Hold;
use amiforge_types::{Digest, GIB, Timestamp};

use super::desk::{Desk, Now, broken};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::look::{open_disk, read_manifest};

/// A build that is not in the state yet.
pub(super) struct Built {
    pub(super) manifest: Manifest,
    dir: PathBuf,
}

impl Desk<'_> {
    /// The image that a text names: an id, the name of an image of the caller, `NAME/VERSION` of a build, or the folder
    /// of one. Builds are taken into the state.
    pub(super) fn image_id(&self, text: &str) -> Result<String, EngineError> {
        if let Some(built) = self.built(text)? {
            let state = self.read()?;
            let id = built.manifest.image_id.clone();
            // In another account or region than the first that had it, its image has another id.
            let name = built.manifest.ami_name();
            let known = state.images.values().find(|i| {
                i.state != ImageState::Deregistered
                    && i.owner == self.caller.account
                    && i.region == self.caller.region
                    && (i.image_id == id
                        || (i.name == name
                            && i.build
                                .as_ref()
                                .is_some_and(|b| b.plan_id == built.manifest.plan_id)))
            });
            return match known {
                Some(image) => Ok(image.image_id.to_string()),
                None => Ok(self.adopt(&built)?.to_string()),
            };
        }
        if text.starts_with("ami-") {
            return Ok(text.to_owned());
        }
        let state = self.read()?;
        self.only_one(&state, text, self.named(&state, text))
    }

    /// The caller's images of a name in its region. Those that failed only count where no other has it.
    pub(super) fn named<'s>(&self, state: &'s State, name: &str) -> Vec<&'s Image> {
        let all: Vec<&Image> = state
            .images
            .values()
            .filter(|i| {
                i.name == name
                    && i.bin.is_none()
                    && i.state != ImageState::Deregistered
                    && i.region == self.caller.region
                    && i.owner == self.caller.account
            })
            .collect();
        let whole = |i: &&Image| i.state != ImageState::Failed;
        if all.iter().any(whole) {
            all.into_iter().filter(whole).collect()
        } else {
            all
        }
    }

    /// The image in the recycle bin that a text names: by its id or its name.
    pub(super) fn image_id_in_bin(&self, text: &str) -> Result<String, EngineError> {
        if text.starts_with("ami-") {
            return Ok(text.to_owned());
        }
        let state = self.read()?;
        let found = state.images_in_bin(&self.caller);
        let found = found.into_iter().filter(|i| i.name == text).collect();
        self.only_one(&state, text, found)
    }

    fn only_one(
        &self,
        state: &State,
        text: &str,
        found: Vec<&Image>,
    ) -> Result<String, EngineError> {
        if let [image] = found[..] {
            return Ok(image.image_id.to_string());
        }
        let ids = |images: &[&Image]| {
            let ids: Vec<&str> = images.iter().map(|i| i.image_id.as_str()).collect();
            ids.join(", ")
        };
        if !found.is_empty() {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!("{text} is the name of several images: {}", ids(&found)),
            )
            .with_hint("say which, by its id"));
        }
        let now = Now::new();
        let others: Vec<&Image> = state
            .images
            .values()
            .filter(|i| i.name == text && i.owner != self.caller.account)
            .filter(|i| {
                state
                    .image_of(&self.caller, i.image_id.as_str(), &now)
                    .is_ok()
            })
            .collect();
        if !others.is_empty() {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "{text} is the name of another account's image: {}",
                    ids(&others)
                ),
            )
            .with_hint("images of others are named by their ids"));
        }
        Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{text}: neither an image id, the name of an image, NAME/VERSION of a build, nor an output folder"),
        )
        .with_hint("`amiforge image list` shows the images"))
    }

    /// The build that a text names, when it is one that the state does not have.
    fn built(&self, text: &str) -> Result<Option<Built>, EngineError> {
        let path = Path::new(text);
        let folder = match path.file_name() {
            Some(name) if name == "manifest.json" => path.parent().map(Path::to_owned),
            _ if path.join("manifest.json").is_file() => Some(path.to_owned()),
            _ => None,
        };
        if let Some(dir) = folder {
            return self.load(dir, None).map(Some);
        }
        let context = || format!("{text} cannot be looked up in the catalog");
        let found = if text.starts_with("ami-") {
            let state = self.read()?;
            let id: Result<ImageId, _> = text.parse();
            if id.is_ok_and(|id| state.images.contains_key(&id)) {
                return Ok(None);
            }
            // By its id a build is an image like others: the account's that has builds.
            if self.caller.account != AccountId::local() || self.caller.region != Region::local() {
                return Ok(None);
            }
            self.store.image(text).or_fail(ErrorKind::Failed, context)?
        } else if let Some((name, version)) = text.split_once('/') {
            self.store
                .image_by_name(name, version)
                .or_fail(ErrorKind::Invalid, context)?
        } else {
            None
        };
        match found {
            Some(found) => {
                let id: Result<ImageId, _> = found.image_id.parse();
                let state = self.read()?;
                // The folder may be gone by now; the state has what it needs.
                if let Ok(id) = id
                    && let Some(image) = state.images.get(&id)
                    && image.state != ImageState::Deregistered
                {
                    let manifest = manifest_of(&found.manifest)?;
                    return Ok(Some(Built {
                        manifest,
                        dir: found.path,
                    }));
                }
                self.load(found.path, Some(found.image_id)).map(Some)
            }
            None => Ok(None),
        }
    }

    fn load(&self, dir: PathBuf, wanted: Option<String>) -> Result<Built, EngineError> {
        let context = || format!("{} holds no image that can be run", dir.display());
        let manifest = read_manifest(&dir)
            .or_fail(ErrorKind::Invalid, context)
            .map_err(|e| {
                e.with_hint("name a folder that `amiforge build` wrote, or build the image again")
            })?;
        if let Some(wanted) = wanted.filter(|id| *id != manifest.image_id.as_str()) {
            return Err(EngineError::new(
                ErrorKind::Failed,
                format!(
                    "{wanted}: its folder {} holds {} now",
                    dir.display(),
                    manifest.image_id
                ),
            )
            .with_hint("build it again, or name the folder"));
        }
        Ok(Built { manifest, dir })
    }

    /// Adds the builds of the catalog that the state does not have, as images of the default account and region with their snapshots,
    /// whose blocks are nowhere yet: for lists and plans.
    pub(super) fn add_builds(&self, state: &mut State) -> Result<(), EngineError> {
        let images = self
            .store
            .images()
            .or_fail(ErrorKind::Failed, || "cannot read the catalog".to_owned())?;
        let mut shadow = State::default();
        for image in images {
            let Ok(manifest) = manifest_of(&image.manifest) else {
                continue;
            };
            let dir = image.path;
            if state.images.contains_key(&manifest.image_id) || !dir.join("manifest.json").is_file()
            {
                continue;
            }
            let mut snapshots = records(&manifest);
            for (_, snapshot) in &mut snapshots {
                // An image is only of snapshots that are complete, as these will be.
                snapshot.map = Some(Digest::of(b""));
            }
            let request = AdoptImage {
                manifest: &manifest,
                snapshots,
                tags: Tags::new(),
                built: built_at(&dir),
            };
            let caller = Caller {
                account: AccountId::local(),
                region: Region::local(),
            };
            let mut fx = Now::new();
            match shadow.adopt_image(&caller, &request, &mut fx) {
                Ok(adopted) => {
                    let image = shadow.images.remove(&adopted.image_id);
                    state.images.extend(image.map(|i| (adopted.image_id, i)));
                }
                Err(error) => self.engine.warn(format!(
                    "the build {} in {} cannot be an image: {error}",
                    manifest.image_id,
                    dir.display()
                )),
            }
        }
        for (id, mut snapshot) in shadow.snapshots {
            snapshot.map = None;
            state.snapshots.entry(id).or_insert(snapshot);
        }
        Ok(())
    }

    fn adopt(&self, built: &Built) -> Result<ImageId, EngineError> {
        if self.dry_run {
            return Err(EngineError::new(
                ErrorKind::Failed,
                format!("{} is a build that nothing was done with yet: there is no image to try a request on", built.manifest.image_id),
            )
            .with_hint("do something with it first, for example `amiforge image show`"));
        }
        let manifest = &built.manifest;
        let hold = self.ec2.hold().map_err(broken)?;
        let mut snapshots = records(manifest);
        for (device, snapshot) in &mut snapshots {
            self.import(&hold, built, device, snapshot)?;
        }
        let adopted = self.transact(|state, fx| {
            let request = AdoptImage {
                manifest,
                snapshots: snapshots.clone(),
                tags: Tags::new(),
                built: built_at(&built.dir),
            };
            Ok(state.adopt_image(&self.caller, &request, fx)?)
        })?;
        drop(hold);
        Ok(adopted.image_id)
    }

    /// Keeps the blocks of a volume of a build.
    fn import(
        &self,
        hold: &Hold,
        built: &Built,
        device: &DeviceName,
        snapshot: &mut Snapshot,
    ) -> Result<(), EngineError> {
        let manifest = &built.manifest;
        let artifact = [ArtifactFormat::Raw, ArtifactFormat::Qcow2]
            .iter()
            .find_map(|format| {
                manifest
                    .artifacts
                    .iter()
                    .find(|a| a.device == *device && a.format == *format)
            });
        let gone = |file: &str| {
            EngineError::new(
                ErrorKind::Failed,
                format!(
                    "{}: the disk of {device}, {file}, is not in {}",
                    manifest.image_id,
                    built.dir.display()
                ),
            )
            .with_hint("build it again")
        };
        let Some(artifact) = artifact else {
            return Err(gone("raw or qcow2"));
        };
        let path = built.dir.join(&artifact.file);
        if !path.is_file() {
            return Err(gone(&artifact.file));
        }
        self.engine.stage("adopt", path.display().to_string());
        let (_, disk, _) = open_disk(&path)?;
        let bytes = u64::from(snapshot.volume_size) * GIB;
        let made = self
            .ec2
            .import(hold, &*disk, bytes, None, None)
            .map_err(broken)?;
        let map = self.ec2.map(&made.map).map_err(broken)?;
        let volume = manifest.volume(device);
        if let Some(volume) = volume
            && super::images::content_digest(&map, volume.size) != volume.content_digest
        {
            return Err(EngineError::new(
                ErrorKind::Failed,
                format!(
                    "{}: its content is not what was built: it was changed",
                    path.display()
                ),
            )
            .with_hint(
                "build it again, or `amiforge image register --disk` to make another image of it",
            ));
        }
        snapshot.map = Some(made.map);
        snapshot.blocks = made.blocks;
        snapshot.changed_blocks = made.changed;
        Ok(())
    }
}

/// When a build was made: the time of its folder's manifest. The date in it is the same whenever it is built, and says nothing of its age.
fn built_at(dir: &Path) -> Option<CreationDate> {
    let time = std::fs::metadata(dir.join("manifest.json"))
        .and_then(|file| file.modified())
        .ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    let secs = i64::try_from(since.as_secs()).ok()?;
    Some(CreationDate::new(Timestamp::from_secs(secs)))
}

fn manifest_of(value: &serde_json::Value) -> Result<Manifest, EngineError> {
    Manifest::from_json(value.to_string().as_bytes()).or_fail(ErrorKind::Failed, || {
        "an entry of the catalog is no manifest of a machine image".to_owned()
    })
}

/// The snapshots of a build's volumes, without their blocks.
fn records(manifest: &Manifest) -> Vec<(DeviceName, Snapshot)> {
    let record = |mapping: &BlockDeviceMapping| {
        let MappingTarget::Ebs(ebs) = &mapping.target else {
            return None;
        };
        let volume = manifest.volume(&mapping.device_name)?;
        let root = mapping.device_name == manifest.root_device_name;
        if VolumeInfo::is_empty(volume) && !root {
            return None;
        }
        let gib = u32::try_from(volume.size.div_ceil(GIB)).unwrap_or(u32::MAX);
        let id = ebs
            .snapshot_id
            .clone()
            .unwrap_or_else(|| SnapshotId::from_digest(&volume.content_digest));
        let (account, region) = (AccountId::local(), Region::local());
        let mut snapshot = Snapshot::completed(id, account, region, gib, manifest.creation_date);
        snapshot.description = Some(format!("Built by amiforge for {}", manifest.image_id));
        Some((mapping.device_name.clone(), snapshot))
    };
    manifest
        .block_device_mappings
        .iter()
        .filter_map(record)
        .collect()
}
