//! Runs phases of component documents on the live root `/`.
//!
//! Semantics after the AWSTOE user guide (`toe-use-documents.html`, `toe-action-modules.html`):
//! phases in document order, attempts with a fresh deadline each, `onFailure`, exit code 194,
//! chaining of outputs. Where the guide is silent, `docs/adding/action.md` says what was decided.

pub(crate) mod accounts;
mod limits;
pub(crate) mod process;
mod reaper;
mod script;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use amiforge_recipe::{Component, OnFailure, Scope, Step, StepRecord, parse_component};
use amiforge_types::Timestamp;

use crate::actions::{self, Outputs, StepCx, StepError};
use crate::event::{
    ChildEvent, DocumentResult, DocumentSpec, Failure, PhaseResult, RunResult, RunSpec, Status,
    StepResult,
};
use crate::outside::Outside;

pub(crate) use limits::Held;
pub(crate) use script::run_script;

/// Exit code with which a step asks for a reboot and to be run again.
const REBOOT: i32 = 194;

/// Times a step may ask for that.
const MAX_REBOOTS: u32 = 8;

/// Where events go.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(ChildEvent);

/// Runs `spec` on the live root of the calling process, which should be root there: in the
/// sandbox's child, in a guest, or on a machine that is to be changed.
///
/// A document that cannot be read, or a parameter without value, is a failure in the result.
pub fn run(spec: &RunSpec, outside: &Outside, sink: &mut dyn FnMut(ChildEvent)) -> RunResult {
    run_held(spec, &Held::default(), outside, sink)
}

/// The same with limits for the commands.
pub(crate) fn run_held(
    spec: &RunSpec,
    held: &Held,
    outside: &Outside,
    sink: Sink<'_>,
) -> RunResult {
    let start = start_time();
    let mut documents = Vec::new();
    let mut failure = None;
    for document in &spec.documents {
        sink(ChildEvent::DocumentStarted {
            document: document.name.clone(),
        });
        let (result, failed) = match read(document) {
            Ok((component, scope)) => Run {
                spec,
                document,
                held,
                outside,
                sink: &mut *sink,
                scope,
                failure: None,
            }
            .document(&component),
            Err(reason) => unreadable(document, reason),
        };
        sink(ChildEvent::DocumentFinished {
            document: document.name.clone(),
            status: result.status,
        });
        let stop = result.status == Status::Failed;
        documents.push(result);
        failure = failed;
        if stop {
            break;
        }
    }
    let status = documents
        .iter()
        .map(|d| d.status)
        .max()
        .unwrap_or(Status::Success);
    RunResult {
        execution_id: spec.execution_id.clone(),
        status: over_all(status),
        start,
        end: now(),
        documents,
        failure,
    }
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

fn unreadable(document: &DocumentSpec, reason: String) -> (DocumentResult, Option<Failure>) {
    let at = now();
    let result = DocumentResult {
        name: String::new(),
        file: document.name.clone(),
        description: String::new(),
        status: Status::Failed,
        start: at,
        end: at,
        phases: Vec::new(),
    };
    let failure = Failure {
        document: document.name.clone(),
        phase: String::new(),
        step: String::new(),
        action: String::new(),
        command: String::new(),
        exit_code: None,
        reason,
        tail: Vec::new(),
    };
    (result, Some(failure))
}

/// A run has no `Skipped`: nothing to do is success.
fn over_all(status: Status) -> Status {
    if status == Status::Skipped {
        Status::Success
    } else {
        status
    }
}

struct Run<'a> {
    spec: &'a RunSpec,
    document: &'a DocumentSpec,
    held: &'a Held,
    outside: &'a Outside,
    sink: Sink<'a>,
    scope: Scope,
    failure: Option<Failure>,
}

impl Run<'_> {
    fn document(mut self, component: &Component) -> (DocumentResult, Option<Failure>) {
        let start = now();
        let mut phases = Vec::new();
        let mut aborted = false;
        for phase in &component.phases {
            let selected = self.spec.phases.contains(&phase.name);
            if aborted || !selected {
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
            .max();
        let result = DocumentResult {
            name: component.name.clone().unwrap_or_default(),
            file: self.document.name.clone(),
            description: component.description.clone().unwrap_or_default(),
            status: status.unwrap_or(Status::Success),
            start,
            end: now(),
            phases,
        };
        (result, self.failure)
    }

    /// The result, and whether nothing more may run.
    fn phase(&mut self, name: &str, steps: &[Step]) -> (PhaseResult, bool) {
        let start = now();
        (self.sink)(ChildEvent::PhaseStarted {
            phase: name.to_owned(),
        });
        let mut results = Vec::new();
        let mut abort = false;
        for step in steps {
            let result = self.step(name, step);
            abort = result.status == Status::Failed && step.on_failure == OnFailure::Abort;
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
        (self.sink)(ChildEvent::PhaseFinished {
            phase: name.to_owned(),
            status,
        });
        (
            PhaseResult {
                name: name.to_owned(),
                selected: true,
                status,
                start,
                end: now(),
                steps: results,
            },
            abort,
        )
    }

    fn step(&mut self, phase: &str, step: &Step) -> StepResult {
        let start = now();
        let clock = Instant::now();
        (self.sink)(ChildEvent::StepStarted {
            phase: phase.to_owned(),
            step: step.name.clone(),
            action: step.action.name().to_owned(),
            timeout_seconds: step.timeout_seconds.map(u64::from),
            max_attempts: step.max_attempts,
        });
        let mut record = StepRecord::default();
        let attempts = self.attempts(step, &mut record);
        let Attempts {
            made,
            exit_code,
            outcome,
        } = attempts;
        let (status, message) = match &outcome {
            Ok(_) => (Status::Success, None),
            Err(told) if step.on_failure == OnFailure::Ignore => {
                (Status::IgnoredFailure, Some(told.reason.clone()))
            }
            Err(told) => (Status::Failed, Some(told.reason.clone())),
        };
        match outcome {
            Ok(outputs) => record.outputs = outputs,
            Err(told) if status == Status::Failed && self.failure.is_none() => {
                self.failure = Some(Failure {
                    document: self.document.name.clone(),
                    phase: phase.to_owned(),
                    step: step.name.clone(),
                    action: step.action.name().to_owned(),
                    command: told.command,
                    exit_code,
                    reason: told.reason,
                    tail: told.tail,
                });
            }
            Err(_) => {}
        }
        (self.sink)(ChildEvent::StepFinished {
            phase: phase.to_owned(),
            step: step.name.clone(),
            status,
            exit_code,
            attempt: made,
            seconds: clock.elapsed().as_secs_f64(),
            failure: message.clone(),
        });
        let quiet = step.disable_logging;
        let result = StepResult {
            name: step.name.clone(),
            action: step.action.name().to_owned(),
            status,
            attempts: made,
            exit_code,
            start,
            end: now(),
            failure_message: message.unwrap_or_default(),
            timeout_seconds: step.timeout_seconds.map_or(-1, i64::from),
            on_failure: step.on_failure.name().to_owned(),
            max_attempts: step.max_attempts,
            inputs: if quiet {
                serde_json::Value::Array(Vec::new())
            } else {
                record.inputs.clone().into()
            },
            outputs: if quiet {
                Vec::new()
            } else {
                record.outputs.clone()
            },
            quiet,
        };
        self.scope.record(phase, &step.name, record);
        result
    }

    fn attempts(&mut self, step: &Step, record: &mut StepRecord) -> Attempts {
        let failed = |reason: String| Told {
            reason,
            command: String::new(),
            tail: Vec::new(),
        };
        let resolved = match step
            .inputs
            .as_ref()
            .map(|node| self.scope.resolve(node))
            .transpose()
        {
            Ok(resolved) => resolved,
            Err(e) => {
                let place = e.span().start;
                let reason = format!("line {}, column {}: {e}", place.line, place.column);
                return Attempts {
                    made: 0,
                    exit_code: None,
                    outcome: Err(failed(reason)),
                };
            }
        };
        *record = StepRecord::of_inputs(resolved.as_ref());
        let (inputs, problems) = step.decode_inputs(resolved.as_ref());
        let Some(inputs) = inputs else {
            let list: Vec<String> = problems
                .into_sorted()
                .iter()
                .map(ToString::to_string)
                .collect();
            return Attempts {
                made: 0,
                exit_code: None,
                outcome: Err(failed(list.join("; "))),
            };
        };
        let dir = self.document.working_directory.as_deref();
        let env = environment(self.spec, dir);
        let dir = dir.unwrap_or("/");
        let (mut made, mut reboots) = (1, 0);
        loop {
            let deadline = step
                .timeout_seconds
                .and_then(|s| Instant::now().checked_add(Duration::from_secs(u64::from(s))));
            let mut cx = StepCx {
                env: &env,
                dir,
                held: self.held,
                outside: self.outside,
                deadline,
                loud: !step.disable_logging,
                sink: &mut *self.sink,
                exit_code: None,
                command: String::new(),
                tail: Vec::new(),
                crowded: false,
            };
            // Before each attempt: a step may have removed it.
            let outcome = actions::prepare(dir).and_then(|()| actions::run(&inputs, &mut cx));
            let exit_code = cx.exit_code;
            let limit = self.held.reached(cx.crowded, exit_code);
            let told = match outcome {
                Ok(outputs) => {
                    return Attempts {
                        made,
                        exit_code,
                        outcome: Ok(outputs),
                    };
                }
                Err(error) => {
                    let reason = match (&error, step.timeout_seconds) {
                        (StepError::TimedOut, Some(seconds)) => {
                            format!("timed out after {seconds} seconds")
                        }
                        _ => actions::chain(&error),
                    };
                    let reason = match limit {
                        Some(limit) => format!("{reason}; it reached {limit}"),
                        None => reason,
                    };
                    Told {
                        reason,
                        command: cx.command,
                        tail: cx.tail,
                    }
                }
            };
            if exit_code == Some(REBOOT) && reboots < MAX_REBOOTS {
                // There is nothing to reboot here that the step could notice: run it again afresh,
                // as AWSTOE does after the reboot. This is not a new attempt.
                reboots += 1;
                let text = format!(
                    "exit code {REBOOT} asks for a reboot; the step is run again without one"
                );
                (self.sink)(ChildEvent::Note { text });
                continue;
            }
            if made >= step.max_attempts {
                return Attempts {
                    made,
                    exit_code,
                    outcome: Err(told),
                };
            }
            made += 1;
            (self.sink)(ChildEvent::Retry {
                attempt: made,
                reason: told.reason,
            });
        }
    }
}

struct Attempts {
    made: u32,
    exit_code: Option<i32>,
    outcome: Result<Vec<Outputs>, Told>,
}

struct Told {
    reason: String,
    command: String,
    tail: Vec<String>,
}

/// The environment of every command: nothing of the host's, and the same on every machine.
fn environment(spec: &RunSpec, dir: Option<&str>) -> BTreeMap<String, String> {
    let mut env = base_environment();
    // Where the service runs components, one of its own reads this.
    env.extend(dir.map(|dir| ("WORKING_DIRECTORY".to_owned(), dir.to_owned())));
    env.insert("SOURCE_DATE_EPOCH".into(), spec.clock.secs.to_string());
    env.extend(spec.env.iter().map(|(k, v)| (k.clone(), v.clone())));
    env
}

/// See `docs/sandbox.md`.
fn base_environment() -> BTreeMap<String, String> {
    [
        ("DEBIAN_FRONTEND", "noninteractive"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "root"),
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("SHELL", "/bin/sh"),
        ("TZ", "UTC0"),
        ("USER", "root"),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
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
