//! The parent `image:`: an image of the catalog. Its own layers are continued where the store has them; else the
//! root file system of its disk is imported.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amiforge_ami::{ContainerManifest, Manifest};
use amiforge_plan::{LayerPlan, Plan, ResolvedParent};
use amiforge_recipe::{Version, VersionPattern, did_you_mean};
use amiforge_store::{CatalogImage, Store};
use amiforge_types::{Digest, LayerId};
use serde_json::Value;

use super::disk::{DiskRequest, ResolvedDisk};
use super::{Boot, LockedParent};
use crate::container::LAYOUT_DIR;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::files::{MAX_JSON, read_file};
use crate::layers::store_context;
use crate::look::disk_file;
use crate::settings::Engine;

/// An image of the catalog.
#[derive(Debug)]
pub(crate) struct ResolvedImage {
    pub(super) image_id: String,
    pub(super) version: String,
    name: String,
    /// Whether it boots by itself.
    is_machine: bool,
    /// Of a container, the file with its configuration.
    config: Option<ConfigFile>,
    pub(super) from: From,
}

/// The configuration of a container that was built here, in its output folder.
#[derive(Debug)]
struct ConfigFile {
    path: PathBuf,
    digest: Digest,
    /// What to do when it is not there.
    again: String,
}

/// What the image's files come from.
#[derive(Debug)]
pub(super) enum From {
    /// Its layers, the lowest first.
    Layers(Vec<LayerPlan>),
    /// Its disk.
    Disk(Box<ResolvedDisk>),
}

/// What the manifest of either kind says.
struct Facts {
    plan_id: Digest,
    /// Of an image with a disk, the digest of each; those of containers are of their archives.
    layers: Vec<(LayerId, Option<Digest>)>,
    /// Content digest of the root volume; containers have none.
    disk: Option<Digest>,
    /// Digest of a container's configuration.
    config: Option<Digest>,
}

impl ResolvedImage {
    /// The layers that it becomes.
    pub(super) fn planned(&self, boot: Boot) -> ResolvedParent {
        let boot = boot.filter(|_| !self.is_machine);
        match &self.from {
            From::Layers(layers) => ResolvedParent::Continued {
                layers: layers.clone(),
                boot,
            },
            From::Disk(disk) => ResolvedParent::Imported {
                layers: vec![disk.layer()],
                boot,
            },
        }
    }

    pub(super) fn locked(&self) -> LockedParent {
        LockedParent::Image {
            image_id: self.image_id.clone(),
            version: self.version.clone(),
            from: match self.from {
                From::Layers(_) => "layers",
                From::Disk(_) => "disk",
            }
            .to_owned(),
        }
    }

    pub(super) fn shown(&self) -> String {
        format!("image:{}/{}@{}", self.name, self.version, self.image_id)
    }

    /// What is told to who asks for every layer to be made again.
    pub(super) fn kept_by_rebuild(&self) -> String {
        let kept = match &self.from {
            From::Layers(layers) => format!("the {} layers of", layers.len()),
            From::Disk(_) => "the files on the disk of".to_owned(),
        };
        format!(
            "--rebuild: {kept} the parent {} stay as they are; to make them again, build {} with --rebuild first, then this one",
            self.shown(),
            self.name
        )
    }

    /// How the container is run, as its configuration says it; `None` of a machine.
    pub(super) fn run(&self) -> Result<Option<Value>, EngineError> {
        let Some(file) = &self.config else {
            return Ok(None);
        };
        let context = || format!("the configuration of {} cannot be read", self.shown());
        let bytes = read_file(&file.path, MAX_JSON).map_err(|error| {
            let hint = Some(file.again.clone());
            EngineError::wrap(ErrorKind::Failed, context(), error, hint)
        })?;
        if Digest::of(&bytes) != file.digest {
            let message = format!(
                "{}: {} is not as it was built",
                context(),
                file.path.display()
            );
            return Err(EngineError::new(ErrorKind::Failed, message).with_hint(file.again.clone()));
        }
        let config: Value = serde_json::from_slice(&bytes).or_fail(ErrorKind::Failed, context)?;
        Ok(Some(config["config"].clone()))
    }
}

impl Engine {
    /// The newest image that fits, or that of the lock.
    pub(super) fn resolve_image(
        &self,
        store: &Store,
        name: &str,
        version: VersionPattern,
        locked: Option<&LockedParent>,
    ) -> Result<ResolvedImage, EngineError> {
        let images = store.images().or_fail(ErrorKind::Failed, store_context)?;
        let asked = format!("image:{name}/{version}");
        let builds = match locked {
            Some(LockedParent::Image { image_id, .. }) => {
                vec![locked_image(&images, image_id, &asked)?]
            }
            _ => newest(store, &images, name, version, &asked)?,
        };
        if let [image] = builds[..] {
            return self.resolve_build(store, image, &asked);
        }
        self.newest_usable(store, &builds, &asked)
    }

    /// The newest of several builds of one version, newest first, that still is what was built.
    fn newest_usable(
        &self,
        store: &Store,
        builds: &[&CatalogImage],
        asked: &str,
    ) -> Result<ResolvedImage, EngineError> {
        let count = builds.len();
        let mut refused: Vec<(&str, EngineError)> = Vec::new();
        for image in builds {
            let found = of_folder(image)
                .and_then(|()| self.resolve_build(store, image, asked))
                .and_then(|found| found.run().map(|_| found));
            match found {
                Ok(found) => {
                    let mut told = format!(
                        "{asked}: {} of {} is taken, the newest of {count} builds of that version",
                        image.image_id,
                        image.path.display()
                    );
                    if !refused.is_empty() {
                        told.push_str(&format!(
                            " that can be used (not {}, which {} newer)",
                            refused
                                .iter()
                                .map(|(id, _)| *id)
                                .collect::<Vec<_>>()
                                .join(", "),
                            if refused.len() == 1 { "is" } else { "are" }
                        ));
                    }
                    self.stage("parent", told);
                    return Ok(found);
                }
                Err(error) => refused.push((image.image_id.as_str(), error)),
            }
        }
        let mut message =
            format!("cannot use the parent {asked}: none of its {count} builds is as it was built");
        for (id, error) in &refused {
            message.push_str(&format!("\n  {id}: {}", error.with_causes()));
        }
        let hint = builds
            .first()
            .map_or_else(String::new, |image| again(image));
        Err(EngineError::new(ErrorKind::Failed, message).with_hint(hint))
    }

    /// An image of the catalog, if it still is what was built.
    fn resolve_build(
        &self,
        store: &Store,
        image: &CatalogImage,
        asked: &str,
    ) -> Result<ResolvedImage, EngineError> {
        let context = || format!("cannot use the parent {asked}");
        let facts = facts(image).ok_or_else(|| {
            let message = format!(
                "{}: the manifest of {} cannot be read",
                context(),
                image.image_id
            );
            EngineError::new(ErrorKind::Failed, message).with_hint(again(image))
        })?;
        let plan = self.plan_of(store, image, facts.plan_id);
        let layers = plan.and_then(|plan| whole(store, plan, &facts.layers));
        let from = match (layers, facts.disk) {
            (Some(layers), _) => From::Layers(layers),
            (None, Some(digest)) => {
                let disk = self.disk_of(image, digest, asked)?;
                self.warn(format!(
                    "{asked}: the store no longer has all layers of {}; its disk is imported",
                    image.image_id
                ));
                From::Disk(Box::new(disk))
            }
            (None, None) => {
                let message = format!(
                    "{}: the store no longer has all layers of the container image {}",
                    context(),
                    image.image_id
                );
                return Err(EngineError::new(ErrorKind::Failed, message).with_hint(again(image)));
            }
        };
        Ok(ResolvedImage {
            image_id: image.image_id.clone(),
            version: image.version.clone(),
            name: image.name.clone(),
            is_machine: facts.disk.is_some(),
            config: facts.config.map(|digest| ConfigFile {
                path: config_path(&image.path, digest),
                digest,
                again: again(image),
            }),
            from,
        })
    }

    /// The plan that an image was built from: of its folder, else of the last build of its recipe.
    fn plan_of(&self, store: &Store, image: &CatalogImage, plan_id: Digest) -> Option<Plan> {
        let text = std::fs::read_to_string(image.path.join("plan.json"));
        let of_folder = text.ok().and_then(|text| Plan::from_json(&text).ok());
        of_folder
            .filter(|plan| plan.plan_id == plan_id)
            .or_else(|| self.last_plan(store, &image.name))
            .filter(|plan| plan.plan_id == plan_id)
    }

    /// The disk of an image, which must still be the one that was built.
    fn disk_of(
        &self,
        image: &CatalogImage,
        digest: Digest,
        asked: &str,
    ) -> Result<ResolvedDisk, EngineError> {
        let context = || format!("cannot use the parent {asked}");
        let path = disk_file(&image.path).map_err(|error| {
            EngineError::wrap(ErrorKind::Failed, context(), error, Some(again(image)))
        })?;
        let disk = self.resolve_disk(DiskRequest {
            asked: asked.to_owned(),
            path,
            format: None,
            partition: None,
            sha256: None,
            choose: "",
        })?;
        if disk.content_digest == digest {
            return Ok(disk);
        }
        let message = format!(
            "{}: the disk in {} is not the one that was built: its content digest is {}, the catalog says {digest}",
            context(),
            image.path.display(),
            disk.content_digest
        );
        Err(EngineError::new(ErrorKind::Failed, message).with_hint(again(image)))
    }
}

/// The layers of a plan, if the store has each as the image has it.
fn whole(
    store: &Store,
    plan: Plan,
    records: &[(LayerId, Option<Digest>)],
) -> Option<Vec<LayerPlan>> {
    let ids: Vec<LayerId> = plan.layers.iter().map(|layer| layer.id).collect();
    let as_recorded = |(id, digest): &(LayerId, Option<Digest>)| {
        // One that cannot be read counts as none.
        let info = store.layer_info(*id).ok().flatten();
        info.is_some_and(|info| digest.is_none_or(|digest| info.digest == digest))
    };
    let whole = records.iter().map(|(id, _)| *id).eq(ids) && records.iter().all(as_recorded);
    whole.then_some(plan.layers)
}

/// The configuration of a container in its output folder.
fn config_path(out: &Path, digest: Digest) -> PathBuf {
    out.join(LAYOUT_DIR).join("blobs/sha256").join(digest.hex())
}

fn again(image: &CatalogImage) -> String {
    format!("build {} {} again", image.name, image.version)
}

fn facts(image: &CatalogImage) -> Option<Facts> {
    let bytes = serde_json::to_vec(&image.manifest).ok()?;
    if let Ok(manifest) = Manifest::from_json(&bytes) {
        let root = &manifest.root_device_name;
        let volume = manifest.volumes.iter().find(|v| v.device == *root)?;
        return Some(Facts {
            plan_id: manifest.plan_id,
            disk: Some(volume.content_digest),
            config: None,
            layers: manifest
                .layers
                .iter()
                .map(|layer| (layer.id, Some(layer.digest)))
                .collect(),
        });
    }
    let manifest = ContainerManifest::from_json(&bytes).ok()?;
    Some(Facts {
        plan_id: manifest.plan_id,
        layers: manifest.layers.iter().map(|l| (l.id, None)).collect(),
        disk: None,
        config: Some(manifest.config_digest),
    })
}

/// The builds of the newest version that fits, the one that was finished last first.
fn newest<'i>(
    store: &Store,
    images: &'i [CatalogImage],
    name: &str,
    version: VersionPattern,
    asked: &str,
) -> Result<Vec<&'i CatalogImage>, EngineError> {
    let invalid = |text: String| EngineError::new(ErrorKind::Invalid, text);
    let of_name: Vec<(Version, &CatalogImage)> = images
        .iter()
        .filter(|image| image.name == name)
        .filter_map(|image| Some((image.version.parse().ok()?, image)))
        .collect();
    let latest = version.latest(of_name.iter().map(|(version, _)| *version));
    let Some(latest) = latest else {
        let have: BTreeSet<Version> = of_name.iter().map(|(version, _)| *version).collect();
        let have: Vec<String> = have.iter().map(ToString::to_string).collect();
        let hint = match have.is_empty() {
            false => format!("there is {}", have.join(", ")),
            true => {
                let names = images.iter().map(|image| image.name.as_str());
                let build = "build it first: `amiforge build` puts every image into the catalog";
                did_you_mean(name, names).unwrap_or_else(|| build.to_owned())
            }
        };
        return Err(invalid(format!("the catalog has no {asked}")).with_hint(hint));
    };
    let mut builds: Vec<&CatalogImage> = of_name
        .iter()
        .filter(|(version, _)| *version == latest)
        .map(|(_, image)| *image)
        .collect();
    builds.sort_by_cached_key(|image| {
        let id = image.image_id.clone();
        std::cmp::Reverse((store.image_finished(&id), id))
    });
    Ok(builds)
}

/// Whether the folder of an image still is its own: a later build may have been written into it.
fn of_folder(image: &CatalogImage) -> Result<(), EngineError> {
    let failed = |text: String| EngineError::new(ErrorKind::Failed, text);
    let path = image.path.join("manifest.json");
    // Without a folder there still may be all layers.
    let Ok(bytes) = read_file(&path, MAX_JSON) else {
        return Ok(());
    };
    match crate::build::built_id(&bytes) {
        Some(id) if id == image.image_id => Ok(()),
        Some(id) => Err(failed(format!(
            "its folder {} holds {id} now",
            image.path.display()
        ))),
        None => Err(failed(format!("{} is no manifest", path.display()))),
    }
}

fn locked_image<'i>(
    images: &'i [CatalogImage],
    image_id: &str,
    asked: &str,
) -> Result<&'i CatalogImage, EngineError> {
    let found = images.iter().find(|image| image.image_id == image_id);
    found.ok_or_else(|| {
        let message = format!("--locked: {asked} was {image_id}, which the catalog no longer has");
        EngineError::new(ErrorKind::Invalid, message)
            .with_hint("build without --locked to take the image that the catalog has now")
    })
}
