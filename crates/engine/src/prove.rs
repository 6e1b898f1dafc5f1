//! The boot proof: an instance of the finished image, unmodified, under each firmware it promises.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use amiforge_ami::{Firmware, Manifest};
use amiforge_disk::Extents;
use amiforge_exec::protocol::{Hello, Reply, Request, VERSION};
use amiforge_exec::{DocumentSpec, External, Journal, Outside, RunResult, RunSpec};
use amiforge_fs::fat::{self, FatFile};
use amiforge_types::{BlobTable, Digest, MIB, Timestamp};
use amiforge_vm::{
    Acceleration, Accelerator, BootHooks, BootOptions, BootReport, BootRun, BootSpec, BoxError,
    GuestLink, Milestone, QemuTools, SessionError, SessionOutcome, VmError, Volume, VolumeSource,
};
use serde::{Deserialize, Serialize};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::files::{MAX_JSON, read_file};
use crate::library;
use crate::load::LoadedComponent;
use crate::look::{open_disk, read_manifest, threads};
use crate::parent::InstalledPackage;
use crate::settings::Engine;
use crate::sources::Sources;
use crate::steps::{Telling, failure_text};
use crate::variables::{self, Stage};

/// Limit for a boot with hardware acceleration; without it, it is scaled.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// A guest under hardware acceleration reaches its kernel within seconds of its start, or never: some
/// hosts run the probe's few instructions and hang in a kernel's.
const KERNEL_LIMIT: Duration = Duration::from_secs(60);
/// How long the acceleration probe may take.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);
/// Kind and version of the record that keeps what the acceleration probe found.
const ACCELERATION: &str = "acceleration";
const ACCELERATION_VERSION: u32 = 1;
/// Name of the component documents in the output folder.
pub(crate) const DOCUMENTS_FILE: &str = "components.json";
/// The only `schemaVersion` of it that is written and read.
const COMPONENTS_VERSION: u32 = 1;

/// `components.json`: the documents of an image, so that its test phases can run again without the recipe.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComponentsFile {
    schema_version: u32,
    /// In the order of the recipe.
    components: Vec<DocumentSpec>,
}

impl ComponentsFile {
    pub(crate) fn new(components: Vec<DocumentSpec>) -> Self {
        Self {
            schema_version: COMPONENTS_VERSION,
            components,
        }
    }
}

/// Which firmware to test under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirmwareChoice {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
    /// Every one the image's boot mode promises.
    All,
}

/// What to test.
#[derive(Clone, Debug)]
pub struct TestRequest {
    /// An output folder, its manifest, or an image id or `name/version` of the catalog.
    pub image: PathBuf,
    /// Under what.
    pub firmware: FirmwareChoice,
    /// Limit of a boot; the default is 300 s, scaled without hardware acceleration.
    pub timeout_seconds: Option<u64>,
}

/// What a test found.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct TestReport {
    report: BootReport,
}

impl TestReport {
    /// True when every run passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.passed
    }

    /// The firmwares and whether they passed.
    #[must_use]
    pub fn verdicts(&self) -> Vec<(String, bool)> {
        self.report
            .runs
            .iter()
            .map(|(f, run)| (f.to_string(), run.passed))
            .collect()
    }
}

/// What a boot proof works on.
pub(crate) struct Subject<'a> {
    pub(crate) manifest: &'a Manifest,
    /// Folder of the artefacts.
    pub(crate) dir: &'a Path,
    /// Folder for the console logs.
    pub(crate) logs: &'a Path,
    /// The components, whose test phases run.
    pub(crate) documents: Vec<DocumentSpec>,
    /// The same as they were read, while they are known.
    pub(crate) components: &'a [LoadedComponent],
    /// Whether the image can start the agent: it has cloud-init.
    pub(crate) agent: bool,
    /// Time given to the documents as `context:date`.
    pub(crate) clock: Timestamp,
    /// Whether the steps may fetch nothing.
    pub(crate) offline: bool,
    /// Values of secret parameters, by their keys; later only the configuration has them.
    pub(crate) secrets: &'a BTreeMap<String, String>,
}

impl Engine {
    /// Boots an existing output and runs its test phases.
    pub fn test(&self, request: &TestRequest) -> Result<TestReport, EngineError> {
        let (dir, wanted) = self.output_dir(&request.image)?;
        let context = || format!("cannot test {}", dir.display());
        let manifest = read_manifest(&dir).or_fail(ErrorKind::Invalid, context)?;
        if let Some(wanted) = wanted.filter(|id| *id != manifest.image_id.as_str()) {
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "{wanted}: its folder {} holds {} now",
                    dir.display(),
                    manifest.image_id
                ),
            )
            .with_hint("name the folder to test what is in it"));
        }
        let components = dir.join(DOCUMENTS_FILE);
        let documents = match read_file(&components, MAX_JSON) {
            Ok(bytes) => {
                let context = || format!("{} cannot be used", components.display());
                let file: ComponentsFile =
                    serde_json::from_slice(&bytes).or_fail(ErrorKind::Invalid, context)?;
                if file.schema_version != COMPONENTS_VERSION {
                    return Err(EngineError::new(
                        ErrorKind::Invalid,
                        format!(
                            "{}: schema version {}, this release reads {COMPONENTS_VERSION}",
                            components.display(),
                            file.schema_version
                        ),
                    ));
                }
                file.components
            }
            Err(error) if error.is_absent() => Vec::new(),
            Err(error) => return Err(error).or_fail(ErrorKind::Invalid, context),
        };
        let list = dir.join("packages.json");
        let packages: Vec<InstalledPackage> = match read_file(&list, MAX_JSON) {
            Ok(bytes) => serde_json::from_slice(&bytes).or_fail(ErrorKind::Invalid, || {
                format!("{} cannot be used", list.display())
            })?,
            Err(error) if error.is_absent() => Vec::new(),
            Err(error) => return Err(error).or_fail(ErrorKind::Invalid, context),
        };
        let logs = tempfile::tempdir().or_fail(ErrorKind::Failed, context)?;
        let subject = Subject {
            manifest: &manifest,
            dir: &dir,
            logs: logs.path(),
            documents,
            components: &[],
            agent: packages.iter().any(|p| p.name == "cloud-init"),
            clock: self.settings.now,
            offline: false,
            secrets: &BTreeMap::new(),
        };
        let (report, failures) = self.prove(&subject, request.firmware, request.timeout_seconds)?;
        for failure in failures {
            self.warn(failure);
        }
        Ok(TestReport { report })
    }

    /// The folder that a name means, and the image that it has to hold when an entry of the catalog
    /// says so.
    fn output_dir(&self, image: &Path) -> Result<(PathBuf, Option<String>), EngineError> {
        if image.is_dir() {
            return Ok((image.to_owned(), None));
        }
        if image.file_name().is_some_and(|n| n == "manifest.json") && image.is_file() {
            let dir = image
                .parent()
                .filter(|p| !p.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            return Ok((dir.to_owned(), None));
        }
        let unknown = || {
            EngineError::new(
                ErrorKind::Invalid,
                format!(
                    "{}: neither an output folder nor an image of the catalog",
                    image.display()
                ),
            )
            .with_hint("name the folder that `amiforge build` wrote")
        };
        let id = image.to_str().ok_or_else(unknown)?;
        let store = self.open_store()?;
        let found = if id.starts_with("ami-") {
            store.image(id)
        } else if let Some((name, version)) = id.split_once('/') {
            store.image_by_name(name, version)
        } else {
            return Err(unknown());
        };
        let found = found.or_fail(ErrorKind::Invalid, || {
            format!("{id} cannot be looked up in the catalog")
        })?;
        let found = found.ok_or_else(unknown)?;
        Ok((found.path, Some(found.image_id)))
    }

    /// Boots the subject under the firmwares. What failed is in the report and told in the list;
    /// an error means that it could not be tried.
    pub(crate) fn prove(
        &self,
        subject: &Subject<'_>,
        choice: FirmwareChoice,
        timeout_seconds: Option<u64>,
    ) -> Result<(BootReport, Vec<String>), EngineError> {
        let manifest = subject.manifest;
        let wanted: Vec<Firmware> = match choice {
            FirmwareChoice::Bios => vec![Firmware::Bios],
            FirmwareChoice::Uefi => vec![Firmware::Uefi],
            FirmwareChoice::All => [Firmware::Bios, Firmware::Uefi]
                .into_iter()
                .filter(|f| manifest.boot_mode.allows(*f))
                .collect(),
        };
        let tests = subject.documents.iter().any(has_test_phase);
        if tests && !subject.agent {
            return Err(EngineError::new(
                ErrorKind::Failed,
                "the recipe has test phases, but the image has no cloud-init to start the test agent with",
            )
            .with_hint("add cloud-init to the image's packages, or build with --no-test"));
        }
        let tools = QemuTools::find()
            .or_fail(ErrorKind::Environment, || {
                "the image cannot be booted here".to_owned()
            })
            .map_err(|e| {
                e.with_hint(
                    "install QEMU and OVMF (Debian: qemu-system-x86 ovmf), or build with --no-test",
                )
            })?;
        if wanted.contains(&Firmware::Uefi) {
            tools
                .ovmf()
                .or_fail(ErrorKind::Environment, || {
                    "the image cannot be booted under UEFI here".to_owned()
                })
                .map_err(|e| e.with_hint("install OVMF (Debian: ovmf)"))?;
        }
        let acceleration = self.acceleration(&tools)?;
        let limit =
            timeout_seconds.map_or_else(|| acceleration.scale(BOOT_LIMIT), Duration::from_secs);
        let seed = if subject.agent {
            Some(self.seed_disk(manifest)?)
        } else {
            None
        };
        // Overlays and sockets; the handler of ctrl-C removes them, too.
        let scratch = tempfile::Builder::new()
            .prefix("amiforge-")
            .tempdir()
            .or_fail(ErrorKind::Failed, || {
                "no folder for the machine's temporary files".to_owned()
            })?;
        let _watched = self.interruption().guard(scratch.path());
        // Two guests at once when there is a processor for each; they do not share anything.
        let together = threads() >= 2 && wanted.len() > 1;
        let one = |firmware: Firmware| {
            let cpus = u32::try_from(threads())
                .unwrap_or(1)
                .div_euclid(if together { 2 } else { 1 })
                .clamp(1, 2);
            let options = BootOptions {
                memory_mib: 1024,
                cpus,
                acceleration: acceleration.clone(),
                timeout: limit,
                power_off_timeout: acceleration.scale(POWER_OFF_LIMIT),
                required: vec![Milestone::Target],
                seed: seed.clone(),
                console_log: subject.logs.join(format!("console-{firmware}.log")),
                temp_parent: scratch.path().to_owned(),
                cancel: Arc::new(AtomicBool::new(false)),
            };
            let without = Acceleration::tcg(&tools, "KVM did not get a guest to its kernel");
            let tcg = BootOptions {
                timeout: timeout_seconds
                    .map_or_else(|| without.scale(BOOT_LIMIT), Duration::from_secs),
                power_off_timeout: without.scale(POWER_OFF_LIMIT),
                acceleration: without,
                ..options.clone()
            };
            let outcome = self.boot(subject, &tools, firmware, options)?;
            // An accelerator that passed the probe and then fails real guests says nothing of the image.
            if outcome.1.is_some()
                && outcome.0.accelerator != tcg.acceleration.accelerator
                && outcome.0.reached(Milestone::Kernel).is_none()
            {
                self.warn(format!(
                    "{firmware}: {}; trying again without it",
                    tcg.acceleration.reason
                ));
                let acceleration = tcg.acceleration.clone();
                let again = self.boot(subject, &tools, firmware, tcg)?;
                // Then it was not the image, and the next boot need not find out again.
                if again.0.reached(Milestone::Kernel).is_some() {
                    self.keep_acceleration(&acceleration)?;
                }
                return Ok(again);
            }
            Ok(outcome)
        };
        let outcomes: Vec<_> = if together {
            std::thread::scope(|scope| {
                let threads: Vec<_> = wanted.iter().map(|f| scope.spawn(|| one(*f))).collect();
                threads
                    .into_iter()
                    .map(|t| {
                        t.join().unwrap_or_else(|_| {
                            Err(EngineError::new(
                                ErrorKind::Internal,
                                "a boot thread panicked",
                            ))
                        })
                    })
                    .collect()
            })
        } else {
            wanted.iter().map(|f| one(*f)).collect()
        };
        let mut report = BootReport::new(manifest.image_id.clone());
        let mut failures = Vec::new();
        for outcome in outcomes {
            let (run, failure) = outcome?;
            failures.extend(failure);
            report.add(run);
        }
        Ok((report, failures))
    }

    fn boot(
        &self,
        subject: &Subject<'_>,
        tools: &QemuTools,
        firmware: Firmware,
        options: BootOptions,
    ) -> Result<(BootRun, Option<String>), EngineError> {
        let context = || format!("boot under {firmware}");
        self.emit(Event::BootStarted {
            firmware: firmware.to_string(),
            acceleration: options.acceleration.accelerator.as_str().to_owned(),
            limit_seconds: options.timeout.as_secs(),
        });
        let accelerated = options.acceleration.accelerator != Accelerator::Tcg;
        // Only a console that stays where the caller finds it is worth naming.
        let kept = (subject.logs == subject.dir).then(|| options.console_log.clone());
        let spec = BootSpec::from_manifest(subject.manifest, subject.dir, firmware, options)
            .or_fail(ErrorKind::Failed, context)?;
        let milestone = |milestone: Milestone, at: Duration| {
            self.emit(Event::Milestone {
                firmware: firmware.to_string(),
                milestone: milestone.as_str().to_owned(),
                seconds: at.as_secs_f64(),
            });
        };
        let hooks = BootHooks {
            digest: &volume_digest,
            milestone: &milestone,
        };
        let result = amiforge_vm::boot(tools, &spec, &hooks, &mut |link| {
            if accelerated {
                link.wait_for(Milestone::Kernel, KERNEL_LIMIT)?;
            }
            self.session(subject, firmware, link)
        });
        let (run, failure) = match result {
            Ok(run) => {
                let failure =
                    (!run.passed).then(|| format!("{firmware}: {}", test_failure(&run, subject)));
                (run, failure)
            }
            Err(error) => {
                let Some(run) = error.run().cloned() else {
                    let kind = if matches!(error, VmError::Tool(_)) {
                        ErrorKind::Environment
                    } else {
                        ErrorKind::Failed
                    };
                    return Err(error).or_fail(kind, context);
                };
                (run, Some(boot_failure(&error, kept.as_deref())))
            }
        };
        self.emit(Event::BootFinished {
            firmware: firmware.to_string(),
            passed: run.passed,
            seconds: run.seconds,
        });
        Ok((run, failure))
    }

    fn session(
        &self,
        subject: &Subject<'_>,
        firmware: Firmware,
        link: &mut GuestLink<'_>,
    ) -> Result<SessionOutcome, SessionError> {
        if !subject.agent {
            link.wait_for(Milestone::Target, link.remaining())?;
            return Ok(SessionOutcome {
                passed: true,
                tests: serde_json::Value::Null,
            });
        }
        let hello = hello(link, None)?;
        link.mark(Milestone::Agent);
        if hello.version != VERSION {
            return Err(SessionError::Other(
                format!("the agent speaks version {}, not {VERSION}", hello.version).into(),
            ));
        }
        if hello.efi != (firmware == Firmware::Uefi) {
            return Err(SessionError::Other(
                format!("the guest says that it was not started by {firmware}").into(),
            ));
        }
        let documents: Vec<DocumentSpec> = subject
            .documents
            .iter()
            .filter(|d| has_test_phase(d))
            .cloned()
            .collect();
        let mut tests = serde_json::json!({ "guest": hello });
        let mut passed = true;
        if !documents.is_empty() {
            let texts = documents.iter().map(|document| document.text.as_str());
            let Manifest {
                name,
                version,
                image_id: id,
                ..
            } = &subject.manifest;
            let run = RunSpec {
                execution_id: format!("test-{firmware}-{id}"),
                phases: vec!["test".to_owned()],
                env: variables::environment(texts, name, version, Stage::Testing),
                clock: subject.clock,
                context: variables::execution_id(Digest::of(id.as_str().as_bytes())),
                external: self.external_of(&documents, subject.secrets)?,
                library: library_of(&documents),
                until: None,
                documents,
            };
            let outside = self.outside_of_guest(&run.documents, subject.offline);
            let result = self.run_in(firmware, &hello, run, outside, link)?;
            passed = result.status.is_ok();
            tests["run"] =
                serde_json::to_value(&result).map_err(|e| SessionError::Other(e.into()))?;
        }
        link.wait_for(Milestone::Target, link.remaining())?;
        send(link, &Request::Poweroff)?;
        Ok(SessionOutcome { passed, tests })
    }

    /// Values of the documents' references to AWS; what has none fails when a step needs it.
    fn external_of(
        &self,
        documents: &[DocumentSpec],
        secrets: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, External>, SessionError> {
        let other = |error: EngineError| SessionError::Other(error.into());
        let sources = Sources::load(self.settings.config_file.as_deref()).map_err(other)?;
        let mut all = BTreeMap::new();
        for document in documents {
            if let Some(component) = amiforge_recipe::parse_component(&document.text).0 {
                let variables = component.variables(&document.parameters);
                let found =
                    sources.external(&component, &variables, secrets, |phase| phase == "test");
                all.extend(found.map_err(other)?.0);
            }
        }
        Ok(all)
    }

    /// Runs in the guest, with the restarts that steps want.
    fn run_in(
        &self,
        firmware: Firmware,
        first: &Hello,
        run: RunSpec,
        outside: Option<Outside>,
        link: &mut GuestLink<'_>,
    ) -> Result<RunResult, SessionError> {
        let mut boot = first.boot_id.clone();
        let mut request = Request::Run(run.clone());
        let mut telling = Telling::documents(self, format!("{firmware} "));
        loop {
            // The agent of each boot is another process.
            if let Some(outside) = &outside {
                send(link, &Request::Lend(outside.clone()))?;
            }
            send(link, &request)?;
            let journal = match self.follow(link, &mut telling)? {
                Followed::Result(result) => return Ok(*result),
                Followed::Restart(journal) => journal,
            };
            link.begin_restart()?;
            send(link, &Request::Restart)?;
            boot = hello(link, Some(&boot))?.boot_id;
            link.end_restart()?;
            let run = run.clone();
            request = Request::Resume { run, journal };
        }
    }

    fn follow(
        &self,
        link: &mut GuestLink<'_>,
        telling: &mut Telling<'_>,
    ) -> Result<Followed, SessionError> {
        loop {
            let timeout = link.remaining();
            let Ok(reply) = serde_json::from_value::<Reply>(link.recv(timeout)?) else {
                continue;
            };
            match reply {
                Reply::Event { event } => telling.event(event),
                Reply::Result { result } => return Ok(Followed::Result(result)),
                Reply::Restart { journal } => return Ok(Followed::Restart(journal)),
                Reply::Error { message } => return Err(SessionError::Other(message.into())),
                Reply::Hello(_) => {}
                Reply::Bye => {
                    return Err(SessionError::Other(
                        "the agent went away during the tests".into(),
                    ));
                }
            }
        }
    }

    /// The accelerator of this host: proven once, remembered for this QEMU and kernel.
    pub(crate) fn acceleration(&self, tools: &QemuTools) -> Result<Acceleration, EngineError> {
        let store = self.open_store()?;
        if let Ok(Some(record)) = store.get_record(ACCELERATION, "probe")
            && record["version"] == ACCELERATION_VERSION
            && let Ok(found) = Acceleration::deserialize(&record["probe"])
            && found.still_valid(tools)
        {
            return Ok(found);
        }
        self.stage("probe", "hardware acceleration");
        let found = amiforge_vm::probe_acceleration(tools, PROBE_LIMIT)
            .or_fail(ErrorKind::Environment, || {
                "the acceleration probe did not run".to_owned()
            })?;
        self.keep_acceleration(&found)?;
        Ok(found)
    }

    /// Remembers what is known of this host's acceleration.
    fn keep_acceleration(&self, found: &Acceleration) -> Result<(), EngineError> {
        let context = || "cannot keep the outcome of the acceleration probe".to_owned();
        let probe = serde_json::to_value(found).or_fail(ErrorKind::Internal, context)?;
        self.open_store()?
            .put_record(
                ACCELERATION,
                "probe",
                &serde_json::json!({ "version": ACCELERATION_VERSION, "probe": probe }),
            )
            .or_fail(ErrorKind::Failed, context)
    }

    /// A FAT disk that cloud-init's NoCloud data source finds; it starts the agent that lies on it.
    fn seed_disk(&self, manifest: &Manifest) -> Result<Vec<u8>, EngineError> {
        const USER_DATA: &str = "#cloud-config\n\
            bootcmd:\n\
            \x20 - [sh, -c, 'mkdir -p /run/amiforge && mount -o ro LABEL=CIDATA /run/amiforge && \
            systemd-run --no-block --collect --unit=amiforge-agent --property=Type=exec /run/amiforge/amiforge-agent']\n";
        let id = manifest.image_id.as_str();
        let files = [
            FatFile::new(
                "meta-data",
                format!("instance-id: {id}\nlocal-hostname: amiforge\n").into_bytes(),
            ),
            FatFile::new("user-data", USER_DATA.as_bytes().to_vec()),
            FatFile::new("amiforge-agent", self.settings.agent.to_vec()),
        ];
        let size = (self.settings.agent.len() as u64 + 4 * MIB)
            .next_multiple_of(MIB)
            .max(8 * MIB);
        let context = || "cannot make the seed disk".to_owned();
        let extents = fat::build(
            &files,
            &fat::Options {
                size,
                volume_id: 0x0A31_F09E,
                label: "CIDATA".to_owned(),
                clock: Timestamp::from_secs(0),
                hidden_sectors: 0,
            },
        )
        .or_fail(ErrorKind::Internal, context)?;
        flatten(&extents).or_fail(ErrorKind::Internal, context)
    }
}

/// How a run in a guest went on.
enum Followed {
    Result(Box<RunResult>),
    Restart(Journal),
}

fn send(link: &mut GuestLink<'_>, request: &Request) -> Result<(), SessionError> {
    let request = serde_json::to_value(request).map_err(|e| SessionError::Other(e.into()))?;
    let timeout = link.remaining();
    Ok(link.send(&request, timeout)?)
}

/// The agent's greeting, of another boot than `before`.
fn hello(link: &mut GuestLink<'_>, before: Option<&str>) -> Result<Hello, SessionError> {
    loop {
        let timeout = link.remaining();
        if let Ok(Reply::Hello(hello)) = serde_json::from_value(link.recv(timeout)?)
            && before != Some(hello.boot_id.as_str())
        {
            return Ok(hello);
        }
    }
}

/// The bytes of a small disk.
fn flatten(extents: &Extents) -> std::io::Result<Vec<u8>> {
    let mut out = vec![0; usize::try_from(extents.size()).map_err(std::io::Error::other)?];
    let blobs = BlobTable::new();
    for extent in extents.list() {
        let at = usize::try_from(extent.offset).map_err(std::io::Error::other)?;
        let len = usize::try_from(extent.len).map_err(std::io::Error::other)?;
        extent.read_exact(&blobs, &mut out[at..at + len], 0)?;
    }
    Ok(out)
}

/// The documents that these run by their ARN.
fn library_of(documents: &[DocumentSpec]) -> BTreeMap<String, String> {
    let needed = documents.iter().filter_map(|document| {
        let component = amiforge_recipe::parse_component(&document.text).0?;
        Some(library::needed_by(&component, &document.parameters))
    });
    needed.flatten().collect()
}

fn has_test_phase(document: &DocumentSpec) -> bool {
    amiforge_recipe::parse_component(&document.text)
        .0
        .is_some_and(|c| c.phase("test").is_some())
}

fn volume_digest(volume: &Volume) -> Result<Digest, BoxError> {
    match &volume.source {
        VolumeSource::File { path, .. } => {
            let (_, disk, _) = open_disk(path)?;
            Ok(amiforge_disk::content_digest(&*disk, threads())?)
        }
        VolumeSource::Empty => Ok(amiforge_disk::content_digest(&Vec::<u8>::new(), 1)?),
    }
}

/// What the test phases said, in a few lines.
fn test_failure(run: &BootRun, subject: &Subject<'_>) -> String {
    match RunResult::deserialize(&run.tests["run"]) {
        Ok(result) => format!(
            "test failed: {}",
            failure_text(&result, |failure| {
                let mut components = subject.components.iter();
                components.find_map(|component| component.place_of(failure))
            })
        ),
        Err(_) => "test failed".to_owned(),
    }
}

fn boot_failure(error: &VmError, log: Option<&Path>) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    for line in error.console_tail() {
        text.push_str("\n  | ");
        text.push_str(line);
    }
    if let Some(log) = log {
        text.push_str(&format!(
            "\n  the whole console: {}",
            log.file_name().unwrap_or_default().to_string_lossy()
        ));
    }
    text
}
