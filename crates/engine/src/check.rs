//! `build --check`: a second build from the same inputs, made to differ from the first in all that must not matter, and
//! compared with it byte by byte.
//!
//! The second is made by a process of its own (`__again`), in a store that has nothing of the first but its lock, its
//! downloads and, where an image of the catalog is continued, that image's layers.

mod compare;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use amiforge_exec::Helper;
use amiforge_plan::{LayerKind, Plan};
use amiforge_recipe::SecretSource;
use amiforge_store::{Home, Store};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use self::compare::{compare_files, compare_layers};
use crate::build::{BuildOutcome, BuildRequest};
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::event::Event;
use crate::layers::Scratch;
use crate::load::RecipeRequest;
use crate::lock::LOCK_FILE;
use crate::settings::{Engine, Settings};
use crate::shared::CacheRequest;

pub use self::compare::{CheckedFile, CheckedLayer, Difference};

/// The argument with which a program is asked to make the second build: see [`again_main`].
pub const AGAIN_ARG: &str = "__again";

/// What the second build has in another way than the first.
const PERTURBED: [&str; 9] = [
    "clock",
    "time zone",
    "locale",
    "file mode mask",
    "home folder",
    "temporary folder",
    "store and output paths",
    "processors and jobs",
    "process ids of steps",
];
/// Differences of a layer that the text shows.
const SHOWN: usize = 10;

/// How a second build compares.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    /// Whether everything is the same.
    pub reproducible: bool,
    /// What was done in another way.
    pub perturbed: Vec<&'static str>,
    /// The layers, the lowest first.
    pub layers: Vec<CheckedLayer>,
    /// The files of the output folder that a build decides; logs and reports of boots have times in them.
    pub files: Vec<CheckedFile>,
}

impl CheckReport {
    /// For people: what differs, from below, or that nothing does.
    #[must_use]
    pub fn text(&self) -> String {
        if self.reproducible {
            return format!(
                "a second build is the same: {} layers and {} files, with another {}",
                self.layers.len(),
                self.files.len(),
                self.perturbed.join(", ")
            );
        }
        let mut text = String::from("a second build is not the same");
        for layer in self.layers.iter().filter(|layer| !layer.same) {
            let name = match &layer.component {
                Some(component) => format!("component {component}"),
                None => layer.title.clone(),
            };
            text.push_str(&format!("\n  layer {} of {name}", &layer.id[..12]));
            for difference in layer.differences.iter().take(SHOWN) {
                text.push_str(&format!("\n    {}", difference.text()));
            }
            let more = layer.differences.len().saturating_sub(SHOWN);
            if more > 0 {
                text.push_str(&format!("\n    and {more} more"));
            }
        }
        for file in self.files.iter().filter(|file| !file.same) {
            text.push_str(&format!("\n  file {}: {}", file.file, file.what));
        }
        text
    }
}

/// What the process of the second build is told, on its standard input.
#[derive(Serialize, Deserialize)]
struct Job {
    recipe: PathBuf,
    resource: Option<String>,
    parameters: Vec<(String, String)>,
    secrets: Vec<(String, SecretSource)>,
    infrastructure: Option<PathBuf>,
    offline: bool,
    store: PathBuf,
    cache: PathBuf,
    config: Option<PathBuf>,
    lock: PathBuf,
    out: PathBuf,
    jobs: usize,
}

impl Engine {
    /// Builds a recipe, then builds it again under other circumstances and compares. The boot proof is of the first.
    ///
    /// # Errors
    /// As of a build; a second one that fails is an error, one that differs is not.
    pub fn build_checked(
        &self,
        request: &BuildRequest,
    ) -> Result<(BuildOutcome, CheckReport), EngineError> {
        let outcome = self.build(request)?;
        let store = self.open_store()?;
        let context = || "the second build cannot be made".to_owned();
        let text = fs_err::read_to_string(outcome.out.join("plan.json"))
            .or_fail(ErrorKind::Failed, context)?;
        let plan = Plan::from_json(&text).or_fail(ErrorKind::Internal, context)?;
        let sandbox = self.chosen_sandbox(&store)?;
        let place = Scratch::new(&store, &sandbox, "check")?;
        let home = Home {
            store: place.dir.join("another/place/store"),
            cache: self.settings.home.cache.clone(),
        };
        fs_err::create_dir_all(&home.store).or_fail(ErrorKind::Failed, context)?;
        let second = Store::open(&home).or_fail(ErrorKind::Failed, context)?;
        lend(&store, &second, &plan)?;
        self.stage("check", "the same again, under other circumstances");
        let out = place.dir.join("out");
        self.again(request, &outcome, &home, &place, &out)?;
        self.stage("check", "comparing");
        let layers = compare_layers(&store, &second, &plan)?;
        let files = compare_files(&outcome.out, &out)?;
        let reproducible = layers.iter().all(|l| l.same) && files.iter().all(|f| f.same);
        let report = CheckReport {
            reproducible,
            perturbed: PERTURBED.to_vec(),
            layers,
            files,
        };
        Ok((outcome, report))
    }

    /// Runs the second build to its end.
    fn again(
        &self,
        request: &BuildRequest,
        first: &BuildOutcome,
        home: &Home,
        scratch: &Scratch,
        out: &Path,
    ) -> Result<(), EngineError> {
        let context = || "the second build cannot be made".to_owned();
        let (place, way) = (&scratch.dir, scratch.sandbox.way().as_str());
        // Another path to the same files: there are logins and credentials.
        let user = place.join("somebody");
        if let Some(own) = crate::settings::variable("HOME") {
            std::os::unix::fs::symlink(own, &user).or_fail(ErrorKind::Failed, context)?;
        }
        let temp = place.join("other temporary files");
        fs_err::create_dir(&temp).or_fail(ErrorKind::Failed, context)?;
        let recipe = &request.recipe;
        let job = Job {
            recipe: recipe.recipe.clone(),
            resource: recipe.resource.clone(),
            parameters: recipe.parameters.clone(),
            secrets: recipe.secrets.clone(),
            infrastructure: recipe.infrastructure.clone(),
            offline: recipe.offline,
            store: home.store.clone(),
            cache: home.cache.clone(),
            config: self.settings.config_file.clone(),
            lock: first.out.join(LOCK_FILE),
            out: out.to_owned(),
            jobs: match request.jobs {
                Some(1) => 2,
                _ => 1,
            },
        };
        let job = serde_json::to_vec(&job).or_fail(ErrorKind::Internal, context)?;
        let mut command = Command::new(&self.settings.helper.program);
        command
            .arg(AGAIN_ARG)
            .env("TZ", "Asia/Kathmandu")
            .env("LC_ALL", "tr_TR.UTF-8")
            .env("LANG", "tr_TR.UTF-8")
            .env("LANGUAGE", "tr")
            .env("HOME", &user)
            .env("USER", "somebody")
            .env("LOGNAME", "somebody")
            .env("TMPDIR", &temp)
            .env("AMIFORGE_SANDBOX", way)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().or_fail(ErrorKind::Failed, context)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&job).or_fail(ErrorKind::Failed, context)?;
        }
        let done = child
            .wait_with_output()
            .or_fail(ErrorKind::Failed, context)?;
        if done.status.success() {
            return Ok(());
        }
        let told = String::from_utf8_lossy(&done.stderr);
        let message = format!("the second build failed\n{}", told.trim_end());
        Err(EngineError::new(ErrorKind::Failed, message))
    }
}

/// What an image that is continued brings into a second store: its entry and its layers.
fn lend(store: &Store, second: &Store, plan: &Plan) -> Result<(), EngineError> {
    let context = || "the parent cannot be put into a second store".to_owned();
    if !plan.parent_image.starts_with("image:") {
        return Ok(());
    }
    for image in store.images().or_fail(ErrorKind::Failed, context)? {
        second
            .put_image(&image)
            .or_fail(ErrorKind::Failed, context)?;
    }
    // The layers of the recipe's own components are made again.
    for layer in &plan.layers {
        let own = matches!(layer.kind, LayerKind::Component { .. });
        if !own && store.has_layer(layer.id) {
            let (from, to) = (store.layer_path(layer.id), second.layer_path(layer.id));
            fs_err::copy(from, to).or_fail(ErrorKind::Failed, context)?;
            let key = layer.id.to_string();
            for kind in crate::shared::WITH_LAYERS {
                let record = store.get_record(kind, &key);
                if let Some(record) = record.or_fail(ErrorKind::Failed, context)? {
                    let put = second.put_record(kind, &key, &record);
                    put.or_fail(ErrorKind::Failed, context)?;
                }
            }
        }
    }
    Ok(())
}

/// Plays the process of the second build; `amiforge` calls it when its only argument is [`AGAIN_ARG`].
#[must_use]
pub fn again_main(agent: &'static [u8]) -> ExitCode {
    match again(agent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.with_causes();
            if let EngineError::Documents(reports) = &error {
                let problems = reports.iter().flat_map(|report| &report.diagnostics);
                problems.for_each(|problem| text.push_str(&format!("\n{problem}")));
            }
            let _ = writeln!(std::io::stderr(), "{text}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn again(agent: &'static [u8]) -> Result<(), EngineError> {
    let context = || "the second build cannot be made".to_owned();
    // It ends with whoever started it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .or_fail(ErrorKind::Internal, context)?;
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o077));
    let job: Job =
        serde_json::from_reader(std::io::stdin().lock()).or_fail(ErrorKind::Internal, context)?;
    if job.jobs == 1 {
        one_processor();
    }
    // The clock is another one as soon as its seconds are.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let quiet = |event: Event| {
        if let Event::Warning { message } = event {
            let _ = writeln!(std::io::stderr(), "warning: {message}");
        }
    };
    let helper = Helper::new("/proc/self/exe");
    let mut settings = Settings::from_environment(Arc::new(quiet), helper, agent)?;
    settings.home = Home {
        store: job.store,
        cache: job.cache,
    };
    settings.config_file = job.config;
    settings.perturbed = true;
    let engine = Engine::new(settings);
    engine.build(&BuildRequest {
        recipe: RecipeRequest {
            recipe: job.recipe,
            resource: job.resource,
            parameters: job.parameters,
            offline: job.offline,
            secrets: job.secrets,
            infrastructure: job.infrastructure,
        },
        out: Some(job.out),
        test: false,
        locked: true,
        lock: Some(job.lock),
        rebuild: false,
        jobs: Some(job.jobs),
        boot_timeout_seconds: None,
        shell_on_failure: None,
        caches: CacheRequest::default(),
    })?;
    Ok(())
}

/// Leaves this process, and what it starts, one of its processors.
fn one_processor() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(all) = sched_getaffinity(None) else {
        return;
    };
    let Some(first) = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)) else {
        return;
    };
    let mut one = CpuSet::new();
    one.set(first);
    // Where it may not, the number of jobs is another all the same.
    let _ = sched_setaffinity(None, &one);
}
