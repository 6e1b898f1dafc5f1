//! Component documents without an image: a run on the machine that one is on or on a folder, and a first
//! document.

mod folder;
mod mounts;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use amiforge_exec::{DocumentSpec, RunResult, RunSpec, ToeLog, works_on_files};
use amiforge_recipe::{Component, ComponentSource, DocumentKind, did_you_mean};
use amiforge_types::{Digest, Timestamp};
use fs_err as fs;

use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::library;
use crate::load::read_component;
use crate::settings::Engine;
use crate::sources::Sources;
use crate::steps::{Telling, failure_text, place_in};
use crate::variables;

use self::folder::Folder;

/// Documents to run.
#[derive(Clone, Debug)]
pub struct ComponentRequest {
    /// Paths of documents, or components of the library as `<name>/<version>`.
    pub documents: Vec<PathBuf>,
    /// The root of the file system to change.
    pub root: PathBuf,
    /// Whether that may be the machine itself.
    pub live: bool,
    /// Phases to run; empty for all.
    pub phases: Vec<String>,
    /// Values by parameter name, in the order given.
    pub parameters: Vec<(String, String)>,
    /// Where the folder of logs is made.
    pub log_dir: PathBuf,
}

/// What a first document is made from.
const STARTER: &str = include_str!("../starter.yaml");

/// Name, text, component and parameters.
type Document = (String, String, Component, BTreeMap<String, String>);

impl Engine {
    /// Runs documents on the machine itself, or in a sandbox on a folder that holds a root file system.
    ///
    /// # Errors
    /// When a document or parameter is wrong, or the logs cannot be written. A step that fails is a
    /// result, beside the folder of its logs.
    pub fn run_components(
        &self,
        request: &ComponentRequest,
    ) -> Result<(RunResult, PathBuf), EngineError> {
        let here = is_this_machine(&request.root)?;
        if here && !request.live {
            let message = "this changes the machine that you are on".to_owned();
            return Err(EngineError::new(ErrorKind::Invalid, message)
                .with_hint("say --live if that is what you want"));
        }
        let documents = self.documents(request)?;
        let outside = self.outside_here(documents.iter().map(|(_, _, component, _)| component));
        let mut specs = Vec::new();
        let (mut phases, mut needed) = (request.phases.clone(), BTreeMap::new());
        let sources = Sources::load(self.settings.config_file.as_deref())?;
        let mut external = BTreeMap::new();
        let (mut on_files, mut known) = (true, BTreeSet::new());
        for (name, text, component, parameters) in documents {
            needed.extend(library::needed_by(&component, &parameters));
            let variables = component.variables(&parameters);
            let all = request.phases.is_empty();
            let wanted = |phase: &str| all || request.phases.iter().any(|p| p == phase);
            external.extend(
                sources
                    .external(&component, &variables, &BTreeMap::new(), wanted)?
                    .0,
            );
            known.extend(component.phases.iter().map(|phase| phase.name.clone()));
            let run = component.phases.iter().filter(|phase| wanted(&phase.name));
            on_files &= run.into_iter().all(|phase| works_on_files(&phase.steps));
            if request.phases.is_empty() {
                phases.extend(component.phases.iter().map(|phase| phase.name.clone()));
            }
            specs.push(DocumentSpec {
                name,
                text,
                parameters,
                earlier: Vec::new(),
                working_directory: None,
            });
        }
        if let Some(unknown) = request.phases.iter().find(|name| !known.contains(*name)) {
            let message = format!("--phases {unknown}: no document has this phase");
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            let hint = did_you_mean(unknown, names.iter().copied());
            let hint = hint.unwrap_or_else(|| format!("there are {}", names.join(", ")));
            return Err(EngineError::new(ErrorKind::Invalid, message).with_hint(hint));
        }
        let now = self.settings.now;
        let seed = format!("{}.{} {}", now.secs, now.nanos, std::process::id());
        let context = variables::execution_id(Digest::of(seed.as_bytes()));
        let run = RunSpec {
            execution_id: context["executionId"].clone(),
            documents: specs,
            phases,
            clock: Timestamp { nanos: 0, ..now },
            external,
            library: needed,
            until: None,
            ..RunSpec::default()
        };
        let mut folder = match here {
            true => None,
            false => Some(Folder::open(self, request, on_files)?),
        };
        let logs = || "cannot write the logs".to_owned();
        let mut log = ToeLog::create(&request.log_dir, &run).or_fail(ErrorKind::Failed, logs)?;
        let dir = log.dir().to_owned();
        let mut telling = Telling::documents(self, String::new());
        let mut on_event = |event| {
            log.event(&event);
            telling.event(event);
        };
        let result = match &mut folder {
            None => amiforge_exec::run_here(&run, &outside, &mut on_event),
            Some(folder) => folder.run(&run, &outside, &mut on_event)?,
        };
        // Kept first: whatever becomes of the folder, what the steps did is told.
        log.finish(&result).or_fail(ErrorKind::Failed, logs)?;
        if let Some(folder) = &mut folder {
            folder.bring(&result)?;
        }
        Ok((result, dir))
    }

    /// Why a run failed: each step that did, its command, and the end of its output. Nothing for one that did not.
    #[must_use]
    pub fn failure_of(&self, result: &RunResult) -> Option<EngineError> {
        let failed = !result.status.is_ok();
        failed.then(|| {
            let text = failure_text(result, |failure| {
                let path = Path::new(&failure.document);
                let (_, component) = path.is_file().then(|| read_component(path))?.ok()?;
                place_in(&component?, failure)
            });
            EngineError::new(ErrorKind::Failed, text)
        })
    }

    /// Name, text, component and parameters of each document.
    fn documents(&self, request: &ComponentRequest) -> Result<Vec<Document>, EngineError> {
        let (mut found, mut reports, mut warned) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = vec![false; request.parameters.len()];
        for path in &request.documents {
            let (name, report, component) = document(path)?;
            let text = report.text.clone();
            let Some(component) = component.filter(|_| !report.has_errors()) else {
                reports.push(report);
                continue;
            };
            let mut given = BTreeMap::new();
            for (at, (key, value)) in request.parameters.iter().enumerate() {
                if component.parameters.iter().any(|p| p.name == *key) {
                    given.insert(key.clone(), value.clone());
                    used[at] = true;
                }
            }
            let parameters = component
                .resolve_parameters(&given)
                .or_fail(ErrorKind::Invalid, || name.clone())
                .map_err(|e| e.with_hint("give it with --param NAME=VALUE"))?;
            found.push((name, text, component, parameters));
            warned.push(report);
        }
        if !reports.is_empty() {
            return Err(EngineError::Documents(reports));
        }
        if let Some(unused) = used.iter().position(|used| !used) {
            let name = &request.parameters[unused].0;
            let message = format!("--param {name}: no document has this parameter");
            return Err(EngineError::new(ErrorKind::Invalid, message));
        }
        warned.iter().for_each(|report| self.warn_of(report));
        Ok(found)
    }

    /// Writes a document to start from. Nothing that exists is overwritten.
    ///
    /// # Errors
    /// When the name is none, or the file exists or cannot be written.
    pub fn new_component(&self, name: &str) -> Result<PathBuf, EngineError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > 128 || !name.chars().all(plain) {
            let message = format!("{name:?} is not a name of a component");
            return Err(EngineError::new(ErrorKind::Invalid, message)
                .with_hint("use letters, digits, `-` and `_`"));
        }
        let path = PathBuf::from(format!("{name}.yaml"));
        let context = || format!("cannot write {}", path.display());
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .or_fail(ErrorKind::Failed, context)?;
        let text = STARTER.replace("NAME", name);
        std::io::Write::write_all(&mut file, text.as_bytes())
            .or_fail(ErrorKind::Failed, context)?;
        Ok(path)
    }
}

/// Whether a folder is the root of the machine itself, whatever the way there.
fn is_this_machine(root: &Path) -> Result<bool, EngineError> {
    use std::os::unix::fs::MetadataExt as _;
    let context = || format!("--root {}", root.display());
    let given = fs::metadata(root).or_fail(ErrorKind::Invalid, context)?;
    if !given.is_dir() {
        let message = format!("--root {}: not a folder", root.display());
        return Err(EngineError::new(ErrorKind::Invalid, message));
    }
    let own = fs::metadata("/").or_fail(ErrorKind::Failed, context)?;
    Ok((given.dev(), given.ino()) == (own.dev(), own.ino()))
}

/// A document of the library, or of a file.
fn document(path: &Path) -> Result<(String, DocumentReport, Option<Component>), EngineError> {
    let name = path.to_string_lossy().into_owned();
    if !path.exists()
        && let Some((name, version)) = ComponentSource::of_library(&name)
        && let Some(document) = library::find(&name, &version)
    {
        let (component, _) = amiforge_recipe::parse_component(document.text);
        let report = DocumentReport {
            path: PathBuf::from(&name),
            kind: Some(DocumentKind::Component),
            text: document.text.to_owned(),
            diagnostics: Vec::new(),
        };
        return Ok((name, report, component));
    }
    let (report, component) = read_component(path)?;
    Ok((name, report, component))
}
