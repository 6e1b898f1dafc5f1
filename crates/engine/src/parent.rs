//! The parent image: what the recipe names, resolved, and what is made of it.
//!
//! One variant of [`Parent`] for each kind, a file each. What a kind has to say: what goes into the plan
//! ([`Parent::planned`]), the lock ([`Parent::locked`]) and the manifest ([`Parent::shown`]), the build clock if it has one
//! ([`Parent::clock`]), and how its layers are made (`import_parent`).

mod boot;
mod debian;
mod disk;
mod file;
mod image;
mod installed;
mod mounts;
mod oci;
mod tar;

use std::collections::BTreeMap;
use std::fs::File;

use amiforge_plan::{ImportedLayer, LayerPlan, ResolvedParent};
use amiforge_recipe::ParentImage;
use amiforge_source::ResolvedDebian;
use amiforge_source::oci::ResolvedOci;
use amiforge_store::Store;
use amiforge_tree::LayerDiff;
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{BlobTable, Digest, LayerId, Timestamp};
use serde::{Deserialize, Serialize};

use self::disk::DiskRequest;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::Work;
use crate::load::LoadedRecipe;
use crate::settings::Engine;

pub(crate) use self::boot::{BootLock, BootPackage, asked as boot_asked};
pub(crate) use self::debian::{
    configure_script, debian_request, describe_host, shims, source_error,
};
pub(crate) use self::installed::{InstalledPackage, installed_packages};

/// What a parent resolved to.
#[derive(Debug)]
pub(crate) enum Parent {
    /// Packages.
    Debian(Box<ResolvedDebian>),
    /// An image of a registry or layout.
    Oci(Box<ResolvedOci>),
    /// An archive.
    Tar(tar::ResolvedTar),
    /// The root file system of a disk.
    Disk(disk::ResolvedDisk),
    /// An image of the catalog.
    Image(image::ResolvedImage),
    /// Nothing.
    Scratch,
}

/// What decides the layer of the packages for a boot; `None` where the image needs none.
type Boot = Option<BTreeMap<String, String>>;

/// What a lock says of a parent that is not of packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub(crate) enum LockedParent {
    /// An image of a registry or layout.
    Oci(Box<ResolvedOci>),
    /// An archive.
    Tar {
        /// Of the file.
        sha256: Digest,
    },
    /// The root file system of a disk.
    Disk {
        /// Of the whole disk, whatever the format of its file.
        content_digest: Digest,
        /// Its number; none on a disk without partitions.
        partition: Option<u32>,
    },
    /// An image of the catalog.
    Image {
        /// `ami-` and 17 hex digits.
        image_id: String,
        /// Its version.
        version: String,
        /// `layers` or `disk`: what its files came from.
        from: String,
    },
    /// Nothing.
    Scratch,
}

impl Engine {
    /// What the recipe's parent is now; of what can only be asked for by a name that moves, that of the lock. An error has
    /// the place where the recipe names it.
    pub(crate) fn resolve_parent(
        &self,
        recipe: &LoadedRecipe,
        store: &Store,
        offline: bool,
        locked: Option<&LockedParent>,
    ) -> Result<Parent, EngineError> {
        self.resolve_asked(recipe, store, offline, locked)
            .map_err(|error| error.at(|| recipe.parent_place()))
    }

    fn resolve_asked(
        &self,
        recipe: &LoadedRecipe,
        store: &Store,
        offline: bool,
        locked: Option<&LockedParent>,
    ) -> Result<Parent, EngineError> {
        let asked = &recipe.recipe.parent;
        self.may_use_network(!offline);
        self.stage("resolve", asked.to_string());
        match asked {
            ParentImage::Debian { .. } => {
                let resolved = self.resolve_debian(recipe, offline)?;
                Ok(Parent::Debian(Box::new(resolved)))
            }
            ParentImage::Oci(_) | ParentImage::OciLayout { .. } => {
                let resolved = self.resolve_oci(recipe, offline, locked)?;
                Ok(Parent::Oci(Box::new(resolved)))
            }
            ParentImage::Tar { place, sha256 } => {
                Ok(Parent::Tar(self.resolve_tar(recipe, place, *sha256)?))
            }
            ParentImage::Disk {
                path,
                format,
                partition,
                sha256,
            } => {
                let request = DiskRequest {
                    asked: asked.to_string(),
                    path: recipe.parent_dir.join(path),
                    format: *format,
                    partition: *partition,
                    sha256: *sha256,
                    choose: "name the one that is meant: `disk:<path>#partition=<number>`",
                };
                Ok(Parent::Disk(self.resolve_disk(request)?))
            }
            ParentImage::Image { name, version } => {
                let image = self.resolve_image(store, name, *version, locked)?;
                Ok(Parent::Image(image))
            }
            ParentImage::Scratch => Ok(Parent::Scratch),
            other => Err(unsupported(other)),
        }
    }

    /// Makes a layer of files that the parent brings; `index` as in
    /// [`ParentImported`](amiforge_plan::LayerKind::ParentImported).
    pub(crate) fn import_parent(
        &self,
        work: &Work<'_>,
        planned: &LayerPlan,
        _index: usize,
    ) -> Result<LayerInfo, EngineError> {
        match work.parent {
            Parent::Oci(resolved) => self.unpack_oci(work, resolved, planned.id),
            Parent::Tar(tar) => self.import_tar(work, tar, planned.id),
            Parent::Disk(disk) => self.import_disk(work, disk, planned.id),
            Parent::Image(image) => match &image.from {
                image::From::Disk(disk) => self.import_disk(work, disk, planned.id),
                image::From::Layers(_) => Err(gone(planned)),
            },
            Parent::Debian(_) | Parent::Scratch => Err(gone(planned)),
        }
    }
}

/// A kind of parent that no build follows.
pub(crate) fn unsupported(parent: &ParentImage) -> EngineError {
    let message = format!("{parent} is not supported as parent yet");
    EngineError::new(ErrorKind::Invalid, message)
}

/// A layer of the image that is the parent, which this recipe does not say how to make.
pub(crate) fn gone(planned: &LayerPlan) -> EngineError {
    let message = format!(
        "the layer {:?} of the parent is no longer in the store",
        planned.title
    );
    EngineError::new(ErrorKind::Failed, message)
        .with_hint("build the image that is the parent again, then this one")
}

/// Makes a layer of what `unpack` reads by way of a spool file on the disk of the store.
fn keep_unpacked(
    work: &Work<'_>,
    id: LayerId,
    context: impl Fn() -> String,
    unpack: impl FnOnce(File, &mut BlobTable) -> Result<LayerDiff, EngineError>,
) -> Result<LayerInfo, EngineError> {
    let dir = work
        .store
        .temp_dir("unpack")
        .or_fail(ErrorKind::Failed, &context)?;
    let spool = tempfile::tempfile_in(&dir).or_fail(ErrorKind::Failed, &context)?;
    let mut blobs = BlobTable::new();
    let diff = unpack(spool, &mut blobs)?;
    let info = work
        .store
        .put_layer(id, &diff, &blobs)
        .or_fail(ErrorKind::Failed, &context)?;
    let _ = std::fs::remove_dir(&dir);
    Ok(info)
}

impl Parent {
    /// The layers that it becomes. Whether an imported parent boots is only known once its files are read: a machine
    /// image always gets a layer for what it lacks, which may be empty.
    pub(crate) fn planned(&self, recipe: &LoadedRecipe) -> Result<ResolvedParent, EngineError> {
        let imported = |mut layer: ImportedLayer| {
            // What lies over the image's own programs while steps run on it, as a parent of packages names it.
            layer
                .inputs
                .insert("shims".to_owned(), debian::shims_input());
            Ok::<_, EngineError>(ResolvedParent::Imported {
                layers: vec![layer],
                boot: boot::inputs(recipe)?,
            })
        };
        Ok(match self {
            Self::Debian(resolved) => {
                let (unpacked, configured) = debian::inputs(resolved);
                ResolvedParent::Packages {
                    unpacked,
                    configured,
                }
            }
            Self::Oci(resolved) => imported(oci::imported(resolved))?,
            Self::Tar(tar) => imported(tar.layer())?,
            Self::Disk(disk) => imported(disk.layer())?,
            Self::Image(image) => image.planned(boot::inputs(recipe)?),
            Self::Scratch => ResolvedParent::Imported {
                layers: Vec::new(),
                boot: None,
            },
        })
    }

    /// The packages, where it is of packages.
    pub(crate) fn packages(&self) -> Option<&ResolvedDebian> {
        match self {
            Self::Debian(resolved) => Some(resolved),
            _ => None,
        }
    }

    /// What a lock says of it; `None` of packages, whose lock is [`ResolvedDebian`].
    pub(crate) fn locked(&self) -> Option<LockedParent> {
        match self {
            Self::Debian(_) => None,
            Self::Oci(resolved) => Some(LockedParent::Oci(resolved.clone())),
            Self::Tar(tar) => Some(LockedParent::Tar { sha256: tar.sha256 }),
            Self::Disk(disk) => Some(LockedParent::Disk {
                content_digest: disk.content_digest,
                partition: disk.partition,
            }),
            Self::Image(image) => Some(image.locked()),
            Self::Scratch => Some(LockedParent::Scratch),
        }
    }

    /// What it resolved to, as manifests have it.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Debian(resolved) => format!(
                "debian:{}@sha256:{}",
                resolved.codename,
                debian::digest(resolved)
            ),
            Self::Oci(resolved) => resolved.pinned(),
            Self::Tar(tar) => format!("tar@sha256:{}", tar.sha256),
            Self::Disk(disk) => format!("disk@sha256:{}", disk.content_digest),
            Self::Image(image) => image.shown(),
            Self::Scratch => "scratch".to_owned(),
        }
    }

    /// The build clock; `None` when it is the newest time of the lowest layer.
    pub(crate) fn clock(&self) -> Option<Timestamp> {
        match self {
            Self::Debian(_) | Self::Tar(_) | Self::Disk(_) | Self::Image(_) => None,
            // An image that is made to be the same each time may say 1970, and mean nothing by it.
            Self::Oci(resolved) => Some(resolved.newest).filter(|time| time.secs > 0),
            // Nothing in it has a time.
            Self::Scratch => Some(Timestamp::default()),
        }
    }

    /// What is told to who asks for every layer to be made again, and gets less.
    pub(crate) fn kept_by_rebuild(&self) -> Option<String> {
        match self {
            Self::Image(image) => Some(image.kept_by_rebuild()),
            _ => None,
        }
    }

    /// How many of the plan's layers, from below, are another image's: these are not made again.
    pub(crate) fn continued(&self) -> usize {
        match self {
            Self::Image(image) => match &image.from {
                image::From::Layers(layers) => layers.len(),
                image::From::Disk(_) => 0,
            },
            _ => 0,
        }
    }
}
