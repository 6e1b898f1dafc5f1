//! The parents `oci:<reference>` and `oci-layout:<path>`: an image as one layer.

use std::collections::BTreeMap;

use amiforge_oci::RunConfig;
use amiforge_plan::ImportedLayer;
use amiforge_recipe::{ContainerConfig, HealthCheck, ParentImage};
use amiforge_source::SourceEvent;
use amiforge_source::oci::{
    CredentialFiles, OciContext, OciPlace, OciRequest, Reference, ResolvedOci,
};
use amiforge_tree::layer::LayerInfo;
use amiforge_types::{Arch, LayerId};

use super::debian::source_error;
use super::{LockedParent, Parent, unsupported};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::layers::Work;
use crate::load::LoadedRecipe;
use crate::look::threads;
use crate::settings::Engine;

/// Most bytes of the layers of an image, and again of their archives.
const MOST_BYTES: u64 = 64 << 30;

impl Engine {
    /// What the recipe's parent is now, or what the lock says it is.
    pub(super) fn resolve_oci(
        &self,
        recipe: &LoadedRecipe,
        offline: bool,
        locked: Option<&LockedParent>,
    ) -> Result<ResolvedOci, EngineError> {
        let parent = &recipe.recipe.parent;
        let request = request(recipe)?;
        let invalid = || format!("the lock of {parent} cannot be used");
        if let Some(LockedParent::Oci(lock)) = locked {
            lock.check().or_fail(ErrorKind::Invalid, invalid)?;
            let unlike = lock.unlike(&request);
            return match unlike.is_empty() {
                true => Ok((**lock).clone()),
                false => Err(EngineError::new(
                    ErrorKind::Invalid,
                    format!("{}: {}", invalid(), unlike.join("; ")),
                )),
            };
        }
        self.with_oci(offline, threads(), MOST_BYTES, |ctx| {
            amiforge_source::oci::resolve(&request, ctx)
                .map_err(|error| source_error(error, format!("cannot resolve {parent}")))
        })
    }

    /// Makes the layer of the image's files.
    pub(super) fn unpack_oci(
        &self,
        work: &Work<'_>,
        resolved: &ResolvedOci,
        id: LayerId,
    ) -> Result<LayerInfo, EngineError> {
        let request = request(work.recipe)?;
        let context = || {
            format!(
                "cannot unpack {} into the store {}",
                work.recipe.recipe.parent,
                work.store.path().display()
            )
        };
        super::keep_unpacked(work, id, context, |spool, blobs| {
            // What is unpacked fits the disk, and leaves something of it.
            let room = rustix::fs::fstatvfs(&spool)
                .map_err(std::io::Error::from)
                .or_fail(ErrorKind::Failed, context)?;
            let room = room.f_bavail.saturating_mul(room.f_frsize) / 10 * 9;
            self.with_oci(work.offline, work.jobs, MOST_BYTES.min(room), |ctx| {
                let fetched = amiforge_source::oci::fetch(&request, resolved, ctx)
                    .map_err(|error| source_error(error, "cannot fetch the layers".to_owned()))?;
                self.stage("unpack", format!("{} layers", resolved.layers.len()));
                amiforge_source::oci::unpack(resolved, &fetched, spool, blobs, ctx)
                    .map_err(|error| source_error(error, context()))
            })
        })
    }

    pub(crate) fn with_oci<R>(
        &self,
        offline: bool,
        jobs: usize,
        max_bytes: u64,
        work: impl FnOnce(&OciContext<'_>) -> R,
    ) -> R {
        let events = |event: SourceEvent| self.source_event(event);
        let cache = self.settings.home.downloads();
        let files = CredentialFiles {
            paths: self.settings.logins.clone(),
        };
        let credentials = |reference: &Reference| files.find(reference);
        work(&OciContext {
            base: self.context(&cache, &events, offline, jobs),
            credentials: &credentials,
            max_bytes,
        })
    }

    /// A container recipe whose Dockerfile stands over the configuration of its parent, where that has one.
    pub(crate) fn over_parent(
        &self,
        mut recipe: LoadedRecipe,
        parent: &Parent,
    ) -> Result<LoadedRecipe, EngineError> {
        let container = recipe.recipe.container.as_mut();
        let Some(file) = container.and_then(|c| c.dockerfile.as_mut()) else {
            return Ok(recipe);
        };
        let (run, shown) = match parent {
            Parent::Oci(resolved) => (Some(resolved.run.clone()), resolved.pinned()),
            Parent::Image(image) => (image.run()?, image.shown()),
            Parent::Debian(_) | Parent::Tar(_) | Parent::Disk(_) | Parent::Scratch => {
                (None, String::new())
            }
        };
        let Some(run) = run else {
            return Ok(recipe);
        };
        let fail = |reason: String| EngineError::new(ErrorKind::Invalid, reason);
        let run =
            RunConfig::from_json(&run).map_err(|reason| fail(format!("{shown}: {reason}")))?;
        *file = file.over(container_config(run)).map_err(|problems| {
            let texts: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
            fail(format!("the Dockerfile over {shown}: {}", texts.join("; ")))
        })?;
        Ok(recipe)
    }
}

fn request(recipe: &LoadedRecipe) -> Result<OciRequest, EngineError> {
    let place = match &recipe.recipe.parent {
        ParentImage::Oci(reference) => {
            let text = reference.to_string();
            let reference = text.parse();
            let context = || format!("oci:{text} is not the name of an image");
            OciPlace::Registry(reference.or_fail(ErrorKind::Invalid, context)?)
        }
        ParentImage::OciLayout { path, tag } => OciPlace::Layout {
            path: recipe.parent_dir.join(path),
            asked: path.clone(),
            tag: tag.clone(),
        },
        other => return Err(unsupported(other)),
    };
    Ok(OciRequest {
        place,
        arch: Arch::X86_64,
    })
}

/// What decides the bytes of the image's layer.
pub(super) fn imported(resolved: &ResolvedOci) -> ImportedLayer {
    let layers = resolved.layers.iter().enumerate();
    let mut inputs: BTreeMap<String, String> = layers
        .map(|(at, layer)| {
            (
                format!("archive.{:03}", at + 1),
                format!("sha256:{}", layer.diff_id),
            )
        })
        .collect();
    inputs.insert("created".to_owned(), resolved.newest.to_string());
    ImportedLayer {
        title: format!("{}, files", resolved.reference),
        inputs,
    }
}

fn container_config(run: RunConfig) -> ContainerConfig {
    let pair = |text: String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text, String::new()),
    };
    ContainerConfig {
        user: run.user,
        exposed_ports: run.exposed_ports,
        env: run.env.into_iter().map(pair).collect(),
        entrypoint: run.entrypoint,
        cmd: run.cmd,
        volumes: run.volumes,
        working_directory: run.working_dir,
        labels: run.labels,
        stop_signal: run.stop_signal,
        healthcheck: run.healthcheck.map(|check| HealthCheck {
            test: check.test,
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        shell: run.shell,
    }
}
