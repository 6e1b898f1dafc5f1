//! Runs phases of component documents on the live root `/`.
//!
//! Semantics after the AWSTOE user guide (`toe-use-documents.html`, `toe-action-modules.html`):
//! phases in document order, attempts with a fresh deadline each, `onFailure`, exit code 194,
//! chaining of outputs. Where the guide is silent, `docs/adding/action.md` says what was decided.

pub(crate) mod accounts;
mod failures;
mod journal;
mod lent_files;
pub(crate) mod limits;
mod pause;
pub(crate) mod process;
pub(crate) mod processes;
mod reaper;
mod script;
mod secrets;
mod shell;
mod step;
mod surroundings;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use amiforge_recipe::{Component, OnFailure, Scope, Step, StepRecord, parse_component};
use amiforge_types::{Digest, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use serde::{Deserialize, Serialize};

use crate::actions::{self, Outputs};
use crate::event::{
    CLEANUP_MARKERS, ChildEvent, DocumentResult, DocumentSpec, Failure, PhaseResult, RunResult,
    RunSpec, Status,
};
use crate::outside::Outside;
use crate::root::{Live, Root, TreeRoot};
use crate::spec::MOUNT_POINTS;

pub use journal::Journal;
pub use lent_files::NOT_IN_MEMORY;
pub(crate) use limits::Held;
pub(crate) use script::run_script;
pub(crate) use shell::{open_terminal, run_shell};

use failures::Failures;
use lent_files::LentFiles;
use pause::Pauses;
pub(crate) use secrets::Secrets;

/// Where events go.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(ChildEvent);

/// How far a run came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Executed {
    /// What it came to; while a restart is due, so far.
    pub result: RunResult,
    /// The machine is to restart now, and the run to go on with this.
    pub restart: Option<Journal>,
    /// No step wants that: the run stops between two, as it was told.
    #[serde(default)]
    pub paused: bool,
}

/// Runs `spec` on the live root of the calling process, which should be root there: in the
/// sandbox's child, in a guest, or on a machine that is to be changed. Where a step wants a restart,
/// the run goes on without one.
///
/// A document that cannot be read, or a parameter without value, is a failure in the result.
pub fn run(spec: &RunSpec, outside: &Outside, sink: &mut dyn FnMut(ChildEvent)) -> RunResult {
    let held = Held::default();
    let machine = Machine {
        restarts: false,
        ..Machine::live(outside, &held)
    };
    execute(spec, machine, Journal::default(), sink).result
}

/// The same on a machine that can restart. The journal is empty at first, and after a restart that
/// of the run before it.
pub fn run_until_restart(
    spec: &RunSpec,
    outside: &Outside,
    journal: Journal,
    sink: &mut dyn FnMut(ChildEvent),
) -> Executed {
    execute(
        spec,
        Machine::live(outside, &Held::default()),
        journal,
        sink,
    )
}

/// Whether steps of a phase need nothing but files, so that [`run_on_tree`] can run them.
#[must_use]
pub fn works_on_files(steps: &[Step]) -> bool {
    steps
        .iter()
        .all(|step| actions::works_on_files(step.action))
}

/// Runs `spec`, whose steps should need nothing but files, on a tree: without a sandbox, and without changing
/// anything else. Where it comes to something else the root says so, and the result means nothing.
pub fn run_on_tree(
    spec: &RunSpec,
    root: &TreeRoot<'_>,
    sink: &mut dyn FnMut(ChildEvent),
) -> RunResult {
    let machine = Machine {
        root,
        restarts: false,
        held: &Held::default(),
        outside: &Outside::default(),
        pause_after: None,
    };
    execute(spec, machine, Journal::default(), sink).result
}

/// What steps run on, and what they may use of it.
#[derive(Clone, Copy)]
pub(crate) struct Machine<'a> {
    /// What file actions work on.
    pub(crate) root: &'a dyn Root,
    /// Limits of the commands.
    pub(crate) held: &'a Held,
    pub(crate) outside: &'a Outside,
    /// Whether whoever called us restarts the machine when we ask for it.
    pub(crate) restarts: bool,
    /// How long steps run before there is a stop, as if for a restart; `None`: there is none.
    pub(crate) pause_after: Option<Duration>,
}

impl<'a> Machine<'a> {
    /// The one that the calling process is on; it can restart.
    pub(crate) fn live(outside: &'a Outside, held: &'a Held) -> Self {
        Self {
            root: &Live,
            held,
            outside,
            restarts: true,
            pause_after: None,
        }
    }
}

impl Machine<'_> {
    /// When a step starts: by the clock that files get their times from, and at a tick of it, so that no file of the step
    /// is older and none of the steps before is as young.
    fn step_start(&self) -> Timestamp {
        if !self.restarts {
            return now();
        }
        // It lags; some kernels give some files the exact time.
        let before = now();
        let until = Instant::now() + LONGEST_WAIT;
        let mut start = file_clock();
        while start <= before && Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
            start = file_clock();
        }
        start
    }
}

/// Two ticks at 100 Hz, and some more.
const LONGEST_WAIT: Duration = Duration::from_millis(25);

/// The clock that the kernel takes the times of files from (clock_gettime(2), `CLOCK_REALTIME_COARSE`).
fn file_clock() -> Timestamp {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    Timestamp {
        secs: now.tv_sec,
        nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
    }
}

/// The same on any machine.
pub(crate) fn execute(
    spec: &RunSpec,
    machine: Machine<'_>,
    mut journal: Journal,
    sink: Sink<'_>,
) -> Executed {
    let start = journal.start("", start_time());
    let secrets = spec.external.values().filter(|value| value.secret);
    let lent = &machine.outside.secrets;
    let files: Vec<Cow<'_, str>> = lent.values().map(|v| String::from_utf8_lossy(v)).collect();
    // People look at secrets in this form, too.
    let coded: Vec<String> = lent.values().map(|v| BASE64.encode(v)).collect();
    let coded = coded.iter().map(|text| text.trim_end_matches('='));
    let mut stage = Stage {
        spec,
        machine,
        secrets: Rc::new(Secrets::of(
            secrets
                .map(|value| value.value.as_str())
                .chain(files.iter().map(AsRef::as_ref))
                .chain(coded),
        )),
        journal,
        sink,
        open: Vec::new(),
        interrupted: false,
        pauses: machine.pause_after.map(Pauses::new),
        paused: false,
    };
    let mut documents = Vec::new();
    let mut failures = Vec::new();
    let lent = LentFiles::put(lent);
    for (number, document) in spec.documents.iter().enumerate() {
        let place = number.to_string();
        let refused = lent.as_ref().err().cloned();
        let (result, failed) = match refused.map_or_else(|| read(document), Err) {
            Ok((component, scope)) => {
                let lineage = vec![Digest::of(document.text.as_bytes())];
                let selected = |name: &str| spec.phases.iter().any(|phase| phase == name);
                Run::new(&mut stage, document, scope, place, lineage)
                    .document(&component, &selected)
            }
            Err(reason) => unreadable(document, reason, &mut stage),
        };
        let stop = stage.interrupted || result.status == Status::Failed;
        documents.push(result);
        failures = failed;
        if stop {
            let others = spec.documents.iter().skip(number + 1);
            let left = if stage.interrupted { 0 } else { usize::MAX };
            for other in others.take(left) {
                let text = format!("{} is not run, since {} failed", other.name, document.name);
                stage.tell(ChildEvent::Note { text });
            }
            break;
        }
    }
    drop(lent);
    if stage.interrupted {
        // What is done is in the journal.
        documents.clear();
        failures.clear();
    }
    let status = documents.iter().map(|d| d.status).max();
    let mut failures = failures.into_iter();
    let result = RunResult {
        execution_id: spec.execution_id.clone(),
        status: over_all(status.unwrap_or(Status::Success)),
        start,
        end: now(),
        documents,
        failure: failures.next(),
        also: failures.collect(),
        markers: markers_left(spec, machine.root),
    };
    Executed {
        result,
        restart: stage.interrupted.then_some(stage.journal),
        paused: stage.paused,
    }
}

/// The markers in `/tmp`, and in working directories that no layer has either.
fn markers_left(spec: &RunSpec, root: &dyn Root) -> Vec<String> {
    let own = spec.documents.iter();
    let own = own.filter_map(|document| document.working_directory.as_deref().map(Path::new));
    let unkept = own.filter(|folder| MOUNT_POINTS.iter().any(|point| folder.starts_with(point)));
    let folders: Vec<&Path> = unkept.chain([Path::new("/tmp")]).collect();
    let is_there = |name: &str| {
        let mut paths = folders.iter().map(|folder| folder.join(name));
        paths.any(|path| root.metadata(&path).is_ok())
    };
    let left = CLEANUP_MARKERS.iter().filter(|name| is_there(name));
    left.map(|name| (*name).to_owned()).collect()
}

/// The text as a component with its variables, or why not.
fn read(document: &DocumentSpec) -> Result<(Component, Scope), String> {
    let (component, problems) = parse_component(&document.text);
    let component = component
        .filter(|_| !problems.has_errors())
        .ok_or_else(|| {
            let list: Vec<String> = problems
                .into_sorted()
                .iter()
                .map(ToString::to_string)
                .collect();
            format!("the document has errors: {}", list.join("; "))
        })?;
    let parameters = component
        .resolve_parameters(&document.parameters)
        .map_err(|e| e.to_string())?;
    let mut scope = Scope::new(component.variables(&parameters));
    for phase in &document.earlier {
        for step in &phase.steps {
            let record = StepRecord {
                inputs: step.inputs.as_array().cloned().unwrap_or_default(),
                outputs: step.outputs.clone(),
                skipped: step.status == Status::Skipped,
            };
            scope.record(&phase.name, &step.name, record);
        }
    }
    Ok((component, scope))
}

fn unreadable(
    document: &DocumentSpec,
    reason: String,
    stage: &mut Stage<'_>,
) -> (DocumentResult, Vec<Failure>) {
    let (at, name) = (now(), document.name.clone());
    stage.tell(ChildEvent::DocumentStarted {
        document: name.clone(),
    });
    stage.tell(ChildEvent::DocumentFinished {
        document: name.clone(),
        status: Status::Failed,
    });
    let result = DocumentResult {
        name: String::new(),
        file: name.clone(),
        description: String::new(),
        status: Status::Failed,
        start: at,
        end: at,
        phases: Vec::new(),
    };
    let failure = Failure {
        document: name,
        phase: String::new(),
        step: String::new(),
        action: String::new(),
        command: String::new(),
        exit_code: None,
        reason,
        tail: Vec::new(),
        went_on: false,
        within: Vec::new(),
    };
    (result, vec![failure])
}

/// Whether nothing may run after a step that ended so.
fn aborts(step: &Step, status: Status) -> bool {
    status == Status::Failed && step.on_failure == OnFailure::Abort
}

/// A run has no `Skipped`: nothing to do is success.
fn over_all(status: Status) -> Status {
    if status == Status::Skipped {
        Status::Success
    } else {
        status
    }
}

/// What a run and those nested in it share.
struct Stage<'a> {
    spec: &'a RunSpec,
    machine: Machine<'a>,
    secrets: Rc<Secrets>,
    journal: Journal,
    sink: Sink<'a>,
    /// Names of the documents that have started and not ended, the outermost first.
    open: Vec<String>,
    /// A restart is due: nothing more may run.
    interrupted: bool,
    /// When there is a stop that no step wants.
    pauses: Option<Pauses>,
    /// There is one.
    paused: bool,
}

impl Stage<'_> {
    fn tell(&mut self, mut event: ChildEvent) {
        self.secrets.event(&mut event);
        (self.sink)(event);
    }

    /// Whether the run stops before the step at a place; from then on nothing more may run.
    fn pauses_before(&mut self, place: &str) -> bool {
        let is_due = self.pauses.as_mut().is_some_and(Pauses::is_due)
            && !self.journal.begun.contains_key(place)
            // Whoever goes on from here would not try again what has failed.
            && self.journal.done.values().all(|done| done.failures.is_empty())
            && self.journal.fits();
        self.interrupted |= is_due;
        self.paused |= is_due;
        is_due
    }

    /// Ends the documents that are open below the first `depth`: a restart was due in them that cannot be.
    fn close_below(&mut self, depth: usize) {
        while self.open.len() > depth
            && let Some(document) = self.open.pop()
        {
            let status = Status::Failed;
            self.tell(ChildEvent::DocumentFinished { document, status });
        }
    }
}

/// One document.
struct Run<'s, 'a> {
    stage: &'s mut Stage<'a>,
    document: &'s DocumentSpec,
    env: BTreeMap<String, String>,
    scope: Scope,
    /// Where it is in the run; see [`journal`].
    place: String,
    /// Digests of this document and of those it is nested in, the outermost first.
    lineage: Vec<Digest>,
    failures: Failures,
}

impl<'s, 'a> Run<'s, 'a> {
    fn new(
        stage: &'s mut Stage<'a>,
        document: &'s DocumentSpec,
        mut scope: Scope,
        place: String,
        lineage: Vec<Digest>,
    ) -> Self {
        let env = surroundings::environment(stage.spec, document.working_directory.as_deref());
        scope.environment = env.clone();
        scope.context = surroundings::context(stage.spec, stage.machine.root);
        let external = stage.spec.external.iter();
        scope.external = external
            .map(|(k, v)| (k.clone(), v.value.clone()))
            .collect();
        Self {
            stage,
            document,
            env,
            scope,
            place,
            lineage,
            failures: Failures::default(),
        }
    }

    /// The document's result, and its failures, the one that ended it first.
    fn document(
        mut self,
        component: &Component,
        selected: &dyn Fn(&str) -> bool,
    ) -> (DocumentResult, Vec<Failure>) {
        let name = self.document.name.clone();
        self.stage.open.push(name.clone());
        if !self.stage.journal.started.contains_key(&self.place) {
            self.stage.tell(ChildEvent::DocumentStarted {
                document: name.clone(),
            });
        }
        let start = self.stage.journal.start(&self.place, now());
        let mut phases = Vec::new();
        let mut aborted = false;
        for phase in &component.phases {
            let selected = selected(&phase.name);
            if aborted || !selected || self.stage.interrupted {
                let at = now();
                let (name, status) = (phase.name.clone(), Status::Skipped);
                phases.push(PhaseResult {
                    name,
                    selected,
                    status,
                    start: at,
                    end: at,
                    steps: Vec::new(),
                });
                continue;
            }
            let (result, abort) = self.phase(&phase.name, &phase.steps);
            phases.push(result);
            aborted = abort;
        }
        let status = phases
            .iter()
            .map(|p| p.status)
            .filter(|s| *s != Status::Skipped)
            .max()
            .unwrap_or(Status::Success);
        let place = self.place.clone();
        if !self.stage.interrupted {
            self.stage.open.pop();
        }
        let end = self.end(
            &place,
            |document| ChildEvent::DocumentFinished { document, status },
            &name,
        );
        let result = DocumentResult {
            name: component.name.clone().unwrap_or_default(),
            file: name,
            description: component.description.clone().unwrap_or_default(),
            status,
            start,
            end,
            phases,
        };
        (result, self.failures.into_list())
    }

    /// The result, and whether nothing more may run.
    fn phase(&mut self, name: &str, steps: &[Step]) -> (PhaseResult, bool) {
        let place = format!("{}/{name}", self.place);
        if !self.stage.journal.started.contains_key(&place) {
            self.stage.tell(ChildEvent::PhaseStarted {
                phase: name.to_owned(),
            });
        }
        let start = self.stage.journal.start(&place, now());
        let mut results = Vec::new();
        let mut abort = false;
        for step in steps {
            let Some(result) = self.step(name, step) else {
                break;
            };
            // Of documents that run in a step, the steps are not meant.
            let last =
                self.lineage.len() == 1 && self.stage.spec.until.as_ref() == Some(&step.name);
            abort = last || aborts(step, result.status);
            results.push(result);
            if abort {
                break;
            }
        }
        let status = over_all(
            results
                .iter()
                .map(|s| s.status)
                .max()
                .unwrap_or(Status::Success),
        );
        let end = self.end(
            &place,
            |phase| ChildEvent::PhaseFinished { phase, status },
            name,
        );
        (
            PhaseResult {
                name: name.to_owned(),
                selected: true,
                status,
                start,
                end,
                steps: results,
            },
            abort,
        )
    }

    /// When a document or phase ended; told the first time, and not while a restart is due.
    fn end(
        &mut self,
        place: &str,
        event: impl FnOnce(String) -> ChildEvent,
        name: &str,
    ) -> Timestamp {
        if self.stage.interrupted {
            return now();
        }
        if let Some(end) = self.stage.journal.ended.get(place) {
            return *end;
        }
        self.stage.tell(event(name.to_owned()));
        let end = now();
        self.stage.journal.ended.insert(place.to_owned(), end);
        end
    }
}

/// A time that no file written from now on is older than: the kernel stamps files with a clock
/// that lags by up to one tick (at most 10 ms).
pub(crate) fn start_time() -> Timestamp {
    let Timestamp { secs, nanos } = now();
    match nanos.checked_sub(20_000_000) {
        Some(nanos) => Timestamp { secs, nanos },
        None => Timestamp {
            secs: secs - 1,
            nanos: nanos + 980_000_000,
        },
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let now = jiff::Timestamp::now().as_nanosecond();
    Timestamp {
        secs: i64::try_from(now.div_euclid(1_000_000_000)).unwrap_or(0),
        nanos: u32::try_from(now.rem_euclid(1_000_000_000)).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
