//! The image of a container recipe: its layers and documents as an OCI image layout, and its tests.

mod cleaned;

use std::collections::BTreeMap;

use amiforge_ami::{
    ContainerKind, ContainerLayer, ContainerManifest, ContainerTest, CreationDate, ParentImage,
    SCHEMA_VERSION, ToolInfo,
};
use amiforge_oci::{Healthcheck, History, ImageConfig, LAYOUT, LayerBlob, LayerFormat, RunConfig};
use amiforge_plan::{LayerKind, Plan};
use amiforge_recipe::{Container, ContainerConfig, Dockerfile};
use amiforge_tree::tar::write_changes;
use amiforge_types::{Arch, Compression, Digest, Timestamp};

use crate::build::{Sums, component_records};
use crate::compress::{BlobError, compressed};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::layers::{Made, Ran, Work};
use crate::load::LoadedRecipe;
use crate::output::OutFolder;
use crate::parent::Parent;
use crate::plans::TOOL_VERSION;
use crate::settings::Engine;

/// Folder of the layout in the output folder.
pub(crate) const LAYOUT_DIR: &str = "oci";

/// What a build of a container hands in.
pub(crate) struct ContainerBuild<'a> {
    pub(crate) recipe: &'a LoadedRecipe,
    pub(crate) container: &'a Container,
    pub(crate) version: &'a str,
    pub(crate) parent: &'a Parent,
    pub(crate) plan: &'a Plan,
    pub(crate) made: &'a Made,
    pub(crate) folder: &'a OutFolder,
    pub(crate) jobs: usize,
}

impl Engine {
    /// Writes the layout and describes it. The tests are the caller's.
    pub(crate) fn write_container(
        &self,
        build: &ContainerBuild<'_>,
    ) -> Result<(ContainerManifest, Sums), EngineError> {
        let recipe = &build.recipe.recipe;
        let dockerfile = build.container.dockerfile.as_ref().ok_or_else(|| {
            EngineError::new(ErrorKind::Internal, "the recipe has no Dockerfile template")
        })?;
        let context = || "cannot write the OCI image layout".to_owned();
        let blobs = build.folder.path(LAYOUT_DIR).join("blobs/sha256");
        fs_err::create_dir_all(&blobs).or_fail(ErrorKind::Failed, context)?;
        let mut sums: Sums = Vec::new();
        let mut layers = Vec::new();
        for (planned, stored) in build.plan.layers.iter().zip(&build.made.layers) {
            self.stage("layer", format!("write {}", planned.title));
            let part = blobs.join("part");
            let mut file = fs_err::File::create(&part)
                .or_fail(ErrorKind::Failed, context)?
                .into_file();
            let diff = cleaned::cleaned(&stored.diff);
            let mut sockets = 0;
            let compression = recipe.amiforge.compression;
            let written = compressed::<BlobError>(&mut file, compression, build.jobs, |sink| {
                sockets = write_changes(&diff, &build.made.blobs, sink)?.sockets_skipped;
                Ok(())
            })
            .or_fail(ErrorKind::Failed, || {
                format!("cannot write the layer {:?} of the image", planned.title)
            })?;
            if sockets > 0 {
                self.warn(format!(
                    "{}: {sockets} sockets are left out, which layers of containers cannot hold",
                    planned.title
                ));
            }
            let name = written.digest.hex();
            fs_err::rename(&part, blobs.join(&name)).or_fail(ErrorKind::Failed, context)?;
            sums.push((blob_path(&written.digest), Some(written.digest)));
            self.emit(Event::Artifact {
                file: blob_path(&written.digest),
                bytes: written.bytes,
                sha256: Some(name.clone()),
            });
            layers.push(LayerBlob {
                format: format_of(compression),
                digest: written.digest,
                size: written.bytes,
                diff_id: written.plain,
            });
        }
        let clock = build.made.clock;
        let reference = amiforge_oci::reference(&build.container.repository, build.version);
        let config = image_config(build.plan, dockerfile, clock);
        let annotations = annotations(build, clock);
        let image = amiforge_oci::image(&config, &layers, &annotations, &reference);
        for (digest, bytes) in [&image.config, &image.manifest] {
            build.folder.write(&blob_path(digest), bytes)?;
        }
        build
            .folder
            .write(&format!("{LAYOUT_DIR}/index.json"), &image.index)?;
        build
            .folder
            .write(&format!("{LAYOUT_DIR}/oci-layout"), LAYOUT)?;
        let manifest = ContainerManifest {
            schema_version: SCHEMA_VERSION,
            kind: ContainerKind::Container,
            image_id: ContainerManifest::id_of(&image.manifest.0),
            name: recipe.name.clone(),
            version: build.version.to_owned(),
            architecture: Arch::X86_64,
            os: "linux".to_owned(),
            creation_date: CreationDate::new(clock),
            layout: LAYOUT_DIR.to_owned(),
            reference,
            digest: image.manifest.0,
            config_digest: image.config.0,
            parent_image: parent_image(build),
            components: component_records(build.plan),
            layers: build
                .plan
                .layers
                .iter()
                .zip(&layers)
                .zip(&build.made.ran)
                .map(|((planned, blob), ran)| ContainerLayer {
                    id: planned.id,
                    media_type: blob.format.media_type().to_owned(),
                    digest: blob.digest,
                    bytes: blob.size,
                    diff_id: blob.diff_id,
                    ran: ran.as_ref().map(Ran::shown),
                })
                .collect(),
            recipe_digest: build.plan.recipe.digest,
            plan_id: build.plan.plan_id,
            tool: ToolInfo {
                name: "amiforge".to_owned(),
                version: TOOL_VERSION.to_owned(),
            },
            tests: Vec::new(),
            tags: recipe.tags.clone(),
        };
        Ok((manifest, sums))
    }

    /// Runs the test phases, as the service does: in a container of the image. Those that need the host of
    /// one are named.
    pub(crate) fn test_container(
        &self,
        work: &Work<'_>,
        made: &Made,
    ) -> Result<Vec<ContainerTest>, EngineError> {
        let mut tests = Vec::new();
        let ran = self.test_components(work, made)?;
        for (index, component) in work.recipe.components.iter().enumerate() {
            if ran.contains(&index) {
                tests.push(ContainerTest {
                    component: component.name.clone(),
                    phase: "test".to_owned(),
                    outcome: "passed".to_owned(),
                    reason: None,
                });
            }
            if component.component.phase("container-host-test").is_some() {
                let reason = "it needs a host that runs containers";
                self.warn(format!(
                    "{}: the phase container-host-test is skipped: {reason}",
                    component.name
                ));
                tests.push(ContainerTest {
                    component: component.name.clone(),
                    phase: "container-host-test".to_owned(),
                    outcome: "skipped".to_owned(),
                    reason: Some(reason.to_owned()),
                });
            }
        }
        Ok(tests)
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("{LAYOUT_DIR}/blobs/sha256/{}", digest.hex())
}

fn format_of(compression: Compression) -> LayerFormat {
    match compression {
        Compression::None => LayerFormat::Tar,
        Compression::Zlib(_) => LayerFormat::Gzip,
        Compression::Zstd(_) => LayerFormat::Zstd,
    }
}

fn parent_image(build: &ContainerBuild<'_>) -> ParentImage {
    ParentImage {
        asked: build.recipe.recipe.parent.to_string(),
        resolved: build.parent.shown(),
    }
}

/// Annotations of the manifest, of those that the image-spec names.
fn annotations(build: &ContainerBuild<'_>, clock: Timestamp) -> BTreeMap<String, String> {
    let recipe = &build.recipe.recipe;
    let author = build.container.dockerfile.as_ref();
    let author = author.and_then(|file| file.author.clone());
    [
        ("authors", author),
        ("base.name", Some(recipe.parent.to_string())),
        ("created", Some(clock.to_string())),
        ("description", recipe.description.clone()),
        ("title", Some(recipe.name.clone())),
        ("version", Some(build.version.to_owned())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?)))
    .collect()
}

fn image_config(plan: &Plan, dockerfile: &Dockerfile, clock: Timestamp) -> ImageConfig {
    let layer = |title: &str| History {
        created: clock,
        created_by: title.to_owned(),
        comment: Some("amiforge".to_owned()),
        empty_layer: false,
    };
    let instruction = |text: &String| History {
        created: clock,
        created_by: text.clone(),
        comment: None,
        empty_layer: true,
    };
    let is_component = |kind: &LayerKind| matches!(kind, LayerKind::Component { .. });
    let parents = plan.layers.iter().filter(|l| !is_component(&l.kind));
    let components = plan.layers.iter().filter(|l| is_component(&l.kind));
    let [before, after] = &dockerfile.instructions;
    ImageConfig {
        created: clock,
        author: dockerfile.author.clone(),
        architecture: Arch::X86_64,
        run: run_config(&dockerfile.config),
        history: parents
            .map(|l| layer(&l.title))
            .chain(before.iter().map(instruction))
            .chain(components.map(|l| layer(&format!("component {}", l.title))))
            .chain(after.iter().map(instruction))
            .collect(),
    }
}

fn run_config(config: &ContainerConfig) -> RunConfig {
    let env = config.env.iter();
    RunConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: env.map(|(name, value)| format!("{name}={value}")).collect(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.clone(),
        working_dir: config.working_directory.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        shell: config.shell.clone(),
    }
}
