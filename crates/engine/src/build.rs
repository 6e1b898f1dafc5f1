//! `build`: from a recipe to an output folder that was proven to boot.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use amiforge_ami::{
    Artifact, BootMode, ComponentRecord, ContainerManifest, CreationDate, LayerRecord, Manifest,
    ManifestSpec, ParentImage, PartitionInfo, VolumeInfo, register_image_request,
    run_instances_mappings,
};
use amiforge_exec::DocumentSpec;
use amiforge_plan::Plan;
use amiforge_recipe::{Hygiene, ImageRecipe, RootFilesystem};
use amiforge_store::{CatalogImage, Store};
use amiforge_tree::Tree;
use amiforge_types::{Arch, Digest, GIB, LayerId, Seed};
use serde::{Deserialize, Serialize};

use crate::assemble::BootChoice;
use crate::container::{ContainerBuild, LAYOUT_DIR};
use crate::disks::Formats;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::layers::{CHANGES_FILE, Made, Ran, ShellAccess, Work, store_context};
use crate::load::{LoadedRecipe, RecipeRequest};
use crate::lock::{Besides, LOCK_FILE, LockPins};
use crate::look::threads;
use crate::output::{FAILURE_FILE, OutFolder};
use crate::parent::Parent;
use crate::plans::{TOOL_VERSION, record_key};
use crate::prove::{ComponentsFile, DOCUMENTS_FILE, FirmwareChoice, Subject};
use crate::settings::Engine;
use crate::shared::CacheRequest;

/// Kind of the records that say what an output folder held when it was finished.
const OUTPUT: &str = "output";

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The recipe.
    pub recipe: RecipeRequest,
    /// The output folder; `./out/<name>-<version>` when absent.
    pub out: Option<PathBuf>,
    /// Boot the result and run its test phases.
    pub test: bool,
    /// Take the packages of `lock.json`, beside the recipe or in the output folder.
    pub locked: bool,
    /// With `locked`: the lock itself, wherever it is.
    pub lock: Option<PathBuf>,
    /// Make every layer again.
    pub rebuild: bool,
    /// Threads.
    pub jobs: Option<usize>,
    /// Limit of a boot.
    pub boot_timeout_seconds: Option<u64>,
    /// Opens a shell where a phase of a component fails.
    pub shell_on_failure: Option<Arc<ShellAccess>>,
    /// Shared caches.
    pub caches: CacheRequest,
}

/// What a build came to.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildOutcome {
    /// `ami-…`
    pub image_id: String,
    /// The output folder.
    pub out: PathBuf,
    /// Layers that were made; the others came from the store or a shared cache.
    pub layers_built: usize,
    /// Layers that came from a shared cache.
    pub layers_fetched: usize,
    /// Layers in all.
    pub layers: usize,
    /// True when the folder already held exactly this build.
    pub unchanged: bool,
    /// Whether it was tested and nothing failed: a machine image was booted under each firmware that it promises and ran its
    /// test phases, of a container the test phases ran. True, too, of a container that has none.
    pub proven: bool,
    /// Whether there was nothing that could be proven: a container none of whose components has a validate or test
    /// phase.
    pub untestable: bool,
}

/// Writes why a build failed, and how to come back to it, beside its logs: whoever gets the folder from a pipeline may have
/// nothing else. What cannot be written is missing, since the failure itself is the news.
fn write_failure(folder: &Path, error: &EngineError, command: Option<&str>) {
    let mut text = format!("{}\n", error.with_causes());
    if let Some(hint) = error.hint() {
        text.push_str(&format!("hint: {hint}\n"));
    }
    if let Some(command) = command {
        text.push_str(&format!(
            "\nA shell where it stopped, on the machine and with the store of the build:\n  {command}\n\
             Elsewhere, the files that the failed run had changed:\n  tar --zstd -tvf {CHANGES_FILE}\n"
        ));
    }
    let _ = std::fs::write(folder.join(FAILURE_FILE), text);
}

/// `<name>-<version>` in a folder.
pub(crate) fn default_target(folder: &Path, recipe: &LoadedRecipe) -> PathBuf {
    let version = recipe.recipe.version.first();
    folder.join(format!(
        "{}-{version}",
        recipe.recipe.name.replace(' ', "-")
    ))
}

/// SHA-256 by file name; none for what is too large and too empty to hash.
pub(crate) type Sums = Vec<(String, Option<Digest>)>;

/// What an output folder held when it was finished; `record version 1`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutputRecord {
    version: u32,
    plan_id: Digest,
    proven: bool,
    /// What its hygiene was held against; of one that was made before that, nothing.
    #[serde(default)]
    hygiene: String,
    /// Size, inode, change time in ns, by file name.
    files: BTreeMap<String, (u64, u64, i128)>,
}

impl Engine {
    /// Builds a recipe.
    pub fn build(&self, request: &BuildRequest) -> Result<BuildOutcome, EngineError> {
        let recipe = self
            .load(&request.recipe)
            .inspect_err(|error| self.tell_failure(error, None))?;
        let target = match &request.out {
            Some(out) => out.clone(),
            None => default_target(Path::new("out"), &recipe),
        };
        self.build_loaded(request, recipe, &target)
    }

    /// Builds a recipe into the folder `target`. A failure is the last event.
    pub(crate) fn build_loaded(
        &self,
        request: &BuildRequest,
        recipe: LoadedRecipe,
        target: &Path,
    ) -> Result<BuildOutcome, EngineError> {
        let mut left = None;
        self.build_in(request, recipe, target, &mut left)
            .inspect_err(|error| self.tell_failure(error, left.as_deref()))
    }

    /// Tells that a build failed, and where its logs are.
    pub(crate) fn tell_failure(&self, error: &EngineError, folder: Option<&Path>) {
        // Nothing failed, and whoever asked for the end knows.
        if self.interruption.is_requested() {
            return;
        }
        self.emit(Event::Failed {
            error: error.with_causes(),
            hint: error.hint().map(str::to_owned),
            exit_code: error.exit_code(),
            folder: folder.map(|folder| folder.display().to_string()),
        });
    }

    /// `left` becomes the folder of the failure.
    fn build_in(
        &self,
        request: &BuildRequest,
        recipe: LoadedRecipe,
        target: &Path,
        left: &mut Option<PathBuf>,
    ) -> Result<BuildOutcome, EngineError> {
        let store = self.open_store()?;
        self.clear_leftovers(&store);
        let _downloads = store
            .use_downloads()
            .or_fail(ErrorKind::Failed, store_context)?;
        let version = recipe.recipe.version.first().to_string();
        let offline = request.recipe.offline;
        let (parent, pins) = if request.locked {
            let locked =
                self.locked(&recipe, &store, (request.lock.as_deref(), target), offline)?;
            (locked.parent, Some(locked.pins))
        } else {
            (self.resolve_parent(&recipe, &store, offline, None)?, None)
        };
        let recipe = self.over_parent(recipe, &parent)?;
        let plan = self.compile(&recipe, &parent)?;
        let ids: Vec<LayerId> = plan.layers.iter().map(|layer| layer.id).collect();
        let _used = store
            .use_layers(&ids, SystemTime::now())
            .or_fail(ErrorKind::Failed, store_context)?;
        if let (Some(pins), false) = (&pins, request.rebuild) {
            crate::lock::pinned_layers(&store, &plan, pins)?;
        }
        let hygiene = &recipe.recipe.amiforge.hygiene;
        if !request.rebuild
            && let Some(outcome) = self.unchanged(&store, target, &plan, &recipe, request.test)?
        {
            self.forget_failed(&store, &plan.recipe.name)?;
            self.forget_tried(&store, &plan.recipe.name)?;
            crate::output::forget_failed(target);
            self.share_all(request, &store, &recipe, &plan)?;
            return Ok(outcome);
        }
        let folder = OutFolder::begin(target, &self.interruption())?;
        let result = self.build_into(
            request,
            &recipe,
            &store,
            (&parent, pins.as_ref()),
            &plan,
            &version,
            &folder,
        );
        if result.is_err() && !self.interruption.is_requested() {
            self.keep_tried(&store, &recipe, &plan);
        }
        match result {
            Ok((built_image, (built, fetched), proven)) => {
                let out = folder.commit()?;
                crate::output::forget_failed(target);
                self.keep_output(&store, &out, &plan, hygiene, proven)?;
                self.keep_plan(&store, &recipe, &plan)?;
                self.forget_failed(&store, &plan.recipe.name)?;
                let image = built_image.registered(&out)?;
                self.register(&store, &image)?;
                Ok(BuildOutcome {
                    image_id: image.image_id,
                    out,
                    layers_built: built,
                    layers_fetched: fetched,
                    layers: plan.layers.len(),
                    unchanged: false,
                    proven,
                    untestable: untestable(&recipe),
                })
            }
            // Nothing failed that the logs could tell of.
            Err(error) if self.interruption.is_requested() => Err(error),
            Err(error) => match folder.fail().inspect(|failed| *left = Some(failed.clone())) {
                Some(failed) => {
                    let entered = failed.join(CHANGES_FILE).is_file();
                    let command = entered.then(|| self.failed_shell(&request.recipe, &recipe));
                    write_failure(&failed, &error, command.as_deref());
                    let mut hint = format!("logs and plan are in {}", failed.display());
                    if let Some(command) = command {
                        hint.push_str(&format!(
                            ", with the files that the failed run had changed; to look around where it stopped: {command}"
                        ));
                    }
                    if let Some(known) = error.hint() {
                        hint = format!("{known}; {hint}");
                    }
                    Err(error.with_hint(hint))
                }
                None => Err(error),
            },
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the one body of `build`, apart only so that its failure can keep the logs"
    )]
    fn build_into(
        &self,
        request: &BuildRequest,
        recipe: &LoadedRecipe,
        store: &Store,
        (parent, pins): (&Parent, Option<&LockPins>),
        plan: &Plan,
        version: &str,
        folder: &OutFolder,
    ) -> Result<(BuiltImage, (usize, usize), bool), EngineError> {
        let internal = |what: &'static str| move || format!("cannot write {what}");
        folder.write(
            "plan.json",
            plan.to_json()
                .or_fail(ErrorKind::Internal, internal("plan.json"))?
                .as_bytes(),
        )?;
        let lock = |besides: &Besides| {
            let lock = crate::lock::lock_json(&recipe.recipe.parent, parent, besides)
                .or_fail(ErrorKind::Internal, internal("lock.json"))?;
            folder.write(LOCK_FILE, &lock)
        };
        // Of a build that fails, too.
        lock(&Besides::default())?;
        let logs = folder.path("logs");
        fs_err::create_dir(&logs).or_fail(ErrorKind::Failed, internal("logs"))?;
        let documents: Vec<DocumentSpec> = recipe
            .components
            .iter()
            .map(|c| DocumentSpec {
                name: c.shown.clone(),
                text: c.text.clone(),
                parameters: c.parameters.clone(),
                earlier: Vec::new(),
                working_directory: recipe.recipe.working_directory.clone(),
            })
            .collect();
        folder.write(
            DOCUMENTS_FILE,
            &json(&ComponentsFile::new(documents.clone()))
                .or_fail(ErrorKind::Internal, internal(DOCUMENTS_FILE))?,
        )?;
        let jobs = request.jobs.unwrap_or_else(threads);
        let work = Work {
            store,
            recipe,
            parent,
            plan,
            rebuild: request.rebuild,
            offline: request.recipe.offline,
            jobs,
            epoch: self.settings.source_date_epoch,
            logs,
            pins,
            shell: request.shell_on_failure.as_deref(),
            shared: None,
        };
        let made = self.make_shared_layers(request, &work)?;
        lock(&crate::lock::besides(store, plan)?)?;
        let tree = self.image_tree(&work, &made)?;
        self.hygiene(&work, &made, &tree, recipe.recipe.container.is_some())?;
        let packages = crate::parent::installed_packages(&tree, &made.blobs)?;
        let agent = packages.iter().any(|p| p.name == "cloud-init");
        folder.write(
            "packages.json",
            &json(&packages).or_fail(ErrorKind::Internal, internal("packages.json"))?,
        )?;

        let built = (made.built, made.fetched);
        if let Some(container) = &recipe.recipe.container {
            let (mut manifest, sums) = self.write_container(&ContainerBuild {
                recipe,
                container,
                version,
                parent,
                plan,
                made: &made,
                folder,
                jobs,
            })?;
            if request.test {
                manifest.tests = self.test_container(&work, &made)?;
            }
            folder.write("manifest.json", &manifest.to_json())?;
            folder.write_sums(&sums)?;
            let image = BuiltImage::Container(Box::new(manifest));
            return Ok((image, built, request.test));
        }
        let (mut manifest, sums) = self.write_disks(
            recipe, store, version, parent, plan, tree, made, folder, jobs,
        )?;
        folder.write("manifest.json", &manifest.to_json())?;
        folder.write(
            "block-device-mappings.json",
            &run_instances_mappings(&manifest),
        )?;
        folder.write("register-image.json", &register_image_request(&manifest))?;

        let mut proven = false;
        if request.test {
            let subject = Subject {
                manifest: &manifest,
                dir: folder.dir(),
                logs: folder.dir(),
                documents,
                components: &recipe.components,
                agent,
                clock: self.settings.now,
                offline: request.recipe.offline,
                secrets: &recipe.secrets,
            };
            // One that panicked has left nothing that could be wrong.
            let _alone = self
                .boots
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let (report, failures) =
                self.prove(&subject, FirmwareChoice::All, request.boot_timeout_seconds)?;
            folder.write("boot-report.json", &report.to_json())?;
            if !failures.is_empty() || !report.passed {
                return Err(EngineError::new(
                    ErrorKind::Failed,
                    format!("the boot proof failed\n{}", failures.join("\n")),
                ));
            }
            manifest.boot_proof = report.boot_proof("boot-report.json");
            folder.write("manifest.json", &manifest.to_json())?;
            proven = true;
        }
        folder.write_sums(&sums)?;
        Ok((BuiltImage::Ami(Box::new(manifest)), built, proven))
    }

    /// Lays the disk out once and writes it in every format, with the manifest of the result.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call site; a struct would name the same nine things"
    )]
    fn write_disks(
        &self,
        recipe: &LoadedRecipe,
        store: &Store,
        version: &str,
        parent: &Parent,
        plan: &Plan,
        tree: Tree,
        made: Made,
        folder: &OutFolder,
        jobs: usize,
    ) -> Result<(Manifest, Sums), EngineError> {
        let image_recipe: &ImageRecipe = &recipe.recipe;
        let volumes = crate::volumes::of_recipe(image_recipe)?;
        let seed = match &image_recipe.amiforge.seed {
            Some(text) => Seed::new(Digest::of(text.as_bytes())),
            None => Seed::new(plan.plan_id),
        };
        let boot_mode = crate::volumes::boot_mode(image_recipe.amiforge.boot_mode);
        let records = layer_records(&made);
        let Made {
            layers,
            mut blobs,
            clock,
            ..
        } = made;
        self.stage("layout", format!("{} files", tree.slots()));
        let padded = layers.iter().map(|layer| layer.blob).collect();
        let mut spec = crate::assemble::image_spec(
            volumes.root_gib.map(|gib| u64::from(gib) * GIB),
            boot_mode_choice(boot_mode),
            seed,
            clock,
            padded,
        );
        let root = image_recipe.amiforge.root_filesystem;
        spec.root_profile = crate::assemble::root_profile(root == RootFilesystem::Ext4Legacy);
        let disk = crate::assemble::lay_out(tree, &spec, &mut blobs)?;

        let formats = Formats {
            names: &image_recipe.amiforge.formats,
            compression: image_recipe.amiforge.compression,
        };
        let earlier = earlier_file(store, folder, "disk.qcow2");
        let root = self.write_root(
            folder,
            &volumes.root,
            formats,
            (&disk.extents, &blobs),
            jobs,
            earlier.as_deref(),
        )?;
        let further = volumes.further();
        let written = self.write_further(folder, &further, formats, jobs)?;
        let size = disk.extents.size();
        let mut infos = vec![VolumeInfo {
            device: volumes.root.clone(),
            size,
            partitions: disk.partitions.iter().map(partition_info).collect(),
            content_digest: root.content_digest,
        }];
        let mut artifacts = root.artifacts;
        for (volume, written) in further.into_iter().zip(written) {
            infos.push(VolumeInfo {
                device: volume.device,
                size: volume.bytes,
                partitions: Vec::new(),
                content_digest: written.content_digest,
            });
            artifacts.extend(written.artifacts);
        }
        let sums = artifacts
            .iter()
            .map(|a: &Artifact| (a.file.clone(), a.sha256))
            .collect();
        let manifest = Manifest::new(ManifestSpec {
            name: image_recipe.name.clone(),
            version: version.to_owned(),
            architecture: Arch::X86_64,
            boot_mode,
            root_device_name: volumes.root.clone(),
            ena_support: true,
            imds_v2: true,
            tpm_v2: false,
            creation_date: CreationDate::new(clock),
            volumes: infos,
            block_device_mappings: volumes.with_root_size(size),
            artifacts,
            parent_image: ParentImage {
                asked: image_recipe.parent.to_string(),
                resolved: parent.shown(),
            },
            components: component_records(plan),
            layers: records,
            recipe_digest: plan.recipe.digest,
            plan_id: plan.plan_id,
            tool_version: TOOL_VERSION.to_owned(),
            tags: image_recipe.ami_tags.clone(),
        })
        .or_fail(ErrorKind::Invalid, || {
            "the recipe describes an image that EC2 would refuse".to_owned()
        })?;
        Ok((manifest, sums))
    }

    /// The folder, when it still holds exactly what this plan made.
    fn unchanged(
        &self,
        store: &Store,
        target: &Path,
        plan: &Plan,
        recipe: &LoadedRecipe,
        test: bool,
    ) -> Result<Option<BuildOutcome>, EngineError> {
        let Ok(target) = std::path::absolute(target) else {
            return Ok(None);
        };
        let Some(record) = output_record(store, &target) else {
            return Ok(None);
        };
        if record.plan_id != plan.plan_id
            || (test && !record.proven)
            || record.hygiene != crate::hygiene::key(&recipe.recipe.amiforge.hygiene)
            || files_of(&target) != record.files
        {
            return Ok(None);
        }
        let Ok(bytes) = std::fs::read(target.join("manifest.json")) else {
            return Ok(None);
        };
        let Some(image_id) = built_id(&bytes) else {
            return Ok(None);
        };
        for layer in &plan.layers {
            self.emit(Event::LayerCached {
                id: layer.id.to_string(),
                title: layer.title.clone(),
            });
        }
        self.emit(Event::Unchanged {
            out: target.display().to_string(),
            detail: format!("same plan {}, no step ran", &plan.plan_id.hex()[..12]),
        });
        Ok(Some(BuildOutcome {
            image_id,
            out: target,
            layers_built: 0,
            layers_fetched: 0,
            layers: plan.layers.len(),
            unchanged: true,
            proven: record.proven,
            untestable: untestable(recipe),
        }))
    }

    fn keep_output(
        &self,
        store: &Store,
        out: &Path,
        plan: &Plan,
        hygiene: &Hygiene,
        proven: bool,
    ) -> Result<(), EngineError> {
        let context = || "cannot write the build record".to_owned();
        let record = OutputRecord {
            version: 1,
            plan_id: plan.plan_id,
            proven,
            hygiene: crate::hygiene::key(hygiene),
            files: files_of(out),
        };
        let value = serde_json::to_value(record).or_fail(ErrorKind::Internal, context)?;
        store
            .put_record(OUTPUT, &record_key(&out.to_string_lossy()), &value)
            .or_fail(ErrorKind::Failed, context)
    }

    fn register(&self, store: &Store, image: &CatalogImage) -> Result<(), EngineError> {
        store.put_image(image).or_fail(ErrorKind::Failed, || {
            "cannot register the image in the catalog".to_owned()
        })
    }

    /// The store of this environment.
    pub(crate) fn open_store(&self) -> Result<Store, EngineError> {
        let store = Store::open(&self.settings.home).or_fail(ErrorKind::Environment, || {
            format!(
                "cannot open the store {}",
                self.settings.home.store.display()
            )
        })?;
        self.interruption.watch(store.session_dir());
        Ok(store)
    }
}

/// Whether a build of a recipe can prove nothing: a container is not booted, and none of its components looks at it.
fn untestable(recipe: &LoadedRecipe) -> bool {
    let looks = |phase| {
        let mut components = recipe.components.iter();
        components.any(|c| c.component.phase(phase).is_some())
    };
    recipe.recipe.container.is_some() && !looks("validate") && !looks("test")
}

/// What a build made.
enum BuiltImage {
    Ami(Box<Manifest>),
    Container(Box<ContainerManifest>),
}

impl BuiltImage {
    /// Its entry in the catalog.
    fn registered(&self, out: &Path) -> Result<CatalogImage, EngineError> {
        let (image_id, name, version, manifest) = match self {
            Self::Ami(m) => (
                m.image_id.as_str(),
                &m.name,
                &m.version,
                serde_json::to_value(m),
            ),
            Self::Container(m) => (
                m.image_id.as_str(),
                &m.name,
                &m.version,
                serde_json::to_value(m),
            ),
        };
        Ok(CatalogImage {
            image_id: image_id.to_owned(),
            name: name.clone(),
            version: version.clone(),
            path: out.to_owned(),
            manifest: manifest.or_fail(ErrorKind::Internal, || {
                "the manifest cannot be written".to_owned()
            })?,
        })
    }
}

/// The id of the image whose manifest this is, of either kind.
pub(crate) fn built_id(bytes: &[u8]) -> Option<String> {
    if let Ok(manifest) = Manifest::from_json(bytes) {
        return Some(manifest.image_id.as_str().to_owned());
    }
    let manifest = ContainerManifest::from_json(bytes).ok()?;
    Some(manifest.image_id)
}

/// The components of a plan, as manifests have them.
pub(crate) fn component_records(plan: &Plan) -> Vec<ComponentRecord> {
    let record = |c: &amiforge_plan::PlannedComponent| ComponentRecord {
        name: c.name.clone(),
        version: c.version.clone().unwrap_or_else(|| "0.0.0".to_owned()),
        digest: c.digest,
        parameters: c
            .parameters
            .iter()
            .map(|(k, v)| (k.clone(), vec![v.clone()]))
            .collect(),
        layer: c.layer,
    };
    plan.components.iter().map(record).collect()
}

fn layer_records(made: &Made) -> Vec<LayerRecord> {
    made.layers
        .iter()
        .zip(&made.ran)
        .map(|(l, ran)| LayerRecord {
            id: l.id,
            digest: l.info.digest,
            bytes: l.info.bytes,
            ran: ran.as_ref().map(Ran::shown),
        })
        .collect()
}

fn boot_mode_choice(mode: BootMode) -> BootChoice {
    match mode {
        BootMode::LegacyBios => BootChoice::Bios,
        BootMode::Uefi => BootChoice::Uefi,
        BootMode::UefiPreferred => BootChoice::Hybrid,
    }
}

/// Files of a finished folder, so that a change shows without reading gigabytes.
/// What the folder at an absolute path held when a build finished it.
fn output_record(store: &Store, target: &Path) -> Option<OutputRecord> {
    let key = record_key(&target.to_string_lossy());
    let record = store.get_record(OUTPUT, &key).ok()??;
    let record: OutputRecord = serde_json::from_value(record).ok()?;
    (record.version == 1).then_some(record)
}

/// A file of the folder that is to be replaced, if it is still as the build before left it: what somebody else
/// compressed has no say in the bytes of this one.
fn earlier_file(store: &Store, folder: &OutFolder, name: &str) -> Option<PathBuf> {
    let path = folder.replaces(name);
    let target = path.parent()?;
    let record = output_record(store, target)?;
    (files_of(target).get(name)? == record.files.get(name)?).then_some(path)
}

fn files_of(dir: &Path) -> BTreeMap<String, (u64, u64, i128)> {
    let mut files = files_in(dir, "");
    // The layout of a container has its data further down.
    for below in ["", "blobs/sha256/"] {
        let below = format!("{LAYOUT_DIR}/{below}");
        files.extend(files_in(&dir.join(&below), &below));
    }
    files
}

fn files_in(dir: &Path, prefix: &str) -> BTreeMap<String, (u64, u64, i128)> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let meta = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
            Some((
                format!("{prefix}{}", entry.file_name().to_string_lossy()),
                (meta.len(), meta.ino(), changed),
            ))
        })
        .collect()
}

fn json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn partition_info(part: &amiforge_disk::PartitionInfo) -> PartitionInfo {
    let fs = part.file_system.as_ref();
    PartitionInfo {
        number: part.slot,
        offset: part.offset(),
        size: part.len_bytes(),
        type_guid: part.type_guid,
        guid: part.guid,
        name: Some(part.name.clone()).filter(|n| !n.is_empty()),
        filesystem: fs.map(|f| f.kind.name().to_owned()),
        uuid: fs.and_then(|f| f.uuid.clone()),
        label: fs.and_then(|f| f.label.clone()),
    }
}
