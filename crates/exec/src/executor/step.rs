//! One step: its condition, its attempts, its loop, and documents that run in it.

use std::io::Read as _;
use std::time::{Duration, Instant};

use amiforge_recipe::actions::{DocumentSource, ExecuteDocument, Reboot};
use amiforge_recipe::{
    Branch, If, Iteration, LoopValues, MAX_DOCUMENT_BYTES, OnFailure, ResolveError, Step,
    StepRecord, check_bytes,
};
use amiforge_types::{Diagnostics, Digest, Seed};

use super::journal::{Journal, Progress, StepDone};
use super::{Outputs, Run, aborts, now, over_all, read};
use crate::actions::{self, StepCx, StepError, Work};
use crate::event::{ChildEvent, DocumentSpec, Failure, RunResult, Status, StepResult};

/// Exit code with which a step asks for a restart and to be run again.
const REBOOT: i32 = 194;

/// Times a step may ask for that.
const MAX_RESTARTS: u32 = 8;

/// Documents below the outermost, one in the other (AWSTOE: ExecuteDocument).
const MAX_NESTED: usize = 3;

/// Bytes that the outputs of a loop take together.
const MAX_LOOP_OUTPUT: usize = 8 << 20;

/// How a step, or an attempt, ended.
enum Ended {
    Success,
    Skipped,
    Failed(Told),
    Restart,
}

/// How an iteration ended.
enum Once {
    Done(Vec<Outputs>),
    Failed(Told),
    /// The machine restarts, then this iteration runs again.
    RestartAgain,
    /// The machine restarts, then the next one runs.
    RestartNext,
}

/// Why something failed.
struct Told {
    reason: String,
    command: String,
    tail: Vec<String>,
    /// The iteration that failed, from 0.
    iteration: Option<u64>,
    /// False when another attempt would fail the same way.
    again: bool,
    /// Whether something was run.
    tried: bool,
    /// The failures of a document that ran in the step, the one that ended it first.
    nested: Vec<Failure>,
    /// What the action gave out before it failed.
    left: Vec<Outputs>,
}

impl Told {
    /// Nothing was run.
    fn before(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            command: String::new(),
            tail: Vec::new(),
            iteration: None,
            again: false,
            tried: false,
            nested: Vec::new(),
            left: Vec::new(),
        }
    }

    fn unresolved(error: &ResolveError) -> Self {
        let place = error.span().start;
        Self::before(format!(
            "line {}, column {}: {error}",
            place.line, place.column
        ))
    }

    fn undecoded(problems: Diagnostics) -> Self {
        let list: Vec<String> = problems
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect();
        Self::before(list.join("; "))
    }
}

impl Run<'_, '_> {
    /// The step's result; none when the machine is to restart first.
    pub(super) fn step(&mut self, phase: &str, step: &Step) -> Option<StepResult> {
        let place = format!("{}/{phase}/{}", self.place, step.name);
        if let Some(done) = self.stage.journal.done.get(&place).cloned() {
            self.scope.record(phase, &step.name, done.record);
            let ends = aborts(step, done.result.status);
            self.failures.add(ends, done.failures);
            return Some(done.result);
        }
        // Of documents that run in a step, the steps are not meant.
        if self.lineage.len() == 1 && self.stage.pauses_before(&place) {
            return None;
        }
        let clock = Instant::now();
        let mut progress = match self.stage.journal.begun.remove(&place) {
            Some(progress) => progress,
            None => {
                self.stage.tell(ChildEvent::StepStarted {
                    phase: phase.to_owned(),
                    step: step.name.clone(),
                    action: step.action.name().to_owned(),
                    timeout_seconds: step.timeout_seconds.map(u64::from),
                    max_attempts: step.max_attempts,
                });
                Progress::new(self.stage.machine.step_start())
            }
        };
        let uuid = self.uuid(&place);
        for (key, value) in [("phase", phase), ("step", &step.name), ("uuid", &uuid)] {
            self.scope.context.insert(key.to_owned(), value.to_owned());
        }
        let mut ended = self.carry_out(step, &place, &mut progress);
        let seconds = progress.seconds + clock.elapsed().as_secs_f64();
        if let Ended::Restart = ended {
            progress.seconds = seconds;
            let journal = &mut self.stage.journal;
            journal.begun.insert(place.clone(), progress);
            if journal.fits() {
                self.stage.interrupted = true;
                return None;
            }
            self.stage.interrupted = false;
            self.stage.close_below(self.lineage.len());
            let begun = self.stage.journal.begun.remove(&place);
            progress = begun.unwrap_or_else(|| Progress::new(now()));
            let limit = Journal::MAX_BYTES;
            let reason = format!(
                "the inputs and outputs so far have more than {limit} bytes, which is too much to \
                 keep over a restart"
            );
            ended = Ended::Failed(Told {
                tried: true,
                ..Told::before(reason)
            });
        }
        Some(self.finish(phase, step, place, progress, ended, seconds))
    }

    /// A UUID for a place, drawn from the id that steps see: the same inputs give the same one.
    fn uuid(&self, place: &str) -> String {
        let seen = self.scope.context.get("executionId");
        let id = seen.unwrap_or(&self.stage.spec.execution_id);
        Seed::new(Digest::of(id.as_bytes())).uuid(place).to_string()
    }

    /// Tells how the step ended and remembers it.
    fn finish(
        &mut self,
        phase: &str,
        step: &Step,
        place: String,
        progress: Progress,
        ended: Ended,
        seconds: f64,
    ) -> StepResult {
        let (status, told, made) = match ended {
            Ended::Skipped => (Status::Skipped, None, 0),
            Ended::Success | Ended::Restart => (Status::Success, None, progress.attempt),
            Ended::Failed(told) => {
                let status = if step.on_failure == OnFailure::Ignore {
                    Status::IgnoredFailure
                } else {
                    Status::Failed
                };
                let made = if told.tried { progress.attempt } else { 0 };
                (status, Some(told), made)
            }
        };
        // In a loop AWSTOE names the iterations only.
        let message = told.as_ref().map(|told| match told.iteration {
            Some(index) => format!("failed iterations: {index}"),
            None => told.reason.clone(),
        });
        let quiet = step.disable_logging;
        let shown = |value: Vec<serde_json::Value>| if quiet { Vec::new() } else { value };
        let repeat = step.repeat.as_ref().filter(|_| !quiet).map(|repeat| {
            let resolved = self.scope.resolve(&repeat.node);
            resolved.as_ref().unwrap_or(&repeat.node).to_json()
        });
        let mut result = StepResult {
            name: step.name.clone(),
            action: step.action.name().to_owned(),
            status,
            attempts: made,
            exit_code: progress.exit_code,
            start: progress.start,
            end: now(),
            failure_message: message.unwrap_or_default(),
            timeout_seconds: step.timeout_seconds.map_or(-1, i64::from),
            on_failure: step.on_failure.name().to_owned(),
            max_attempts: step.max_attempts,
            inputs: shown(progress.inputs.clone()).into(),
            outputs: if quiet {
                Vec::new()
            } else {
                progress.outputs.clone()
            },
            quiet,
            repeat: repeat.unwrap_or_default(),
            nested: progress.nested,
        };
        self.stage.secrets.result(&mut result);
        self.stage.tell(ChildEvent::StepFinished {
            phase: phase.to_owned(),
            step: step.name.clone(),
            status,
            exit_code: progress.exit_code,
            attempt: made,
            seconds,
            failure: told.as_ref().map(|told| told.reason.clone()),
        });
        let failures = match told {
            Some(told) if status == Status::Failed => {
                self.failures_of(phase, step, told, progress.exit_code)
            }
            _ => Vec::new(),
        };
        let record = StepRecord {
            inputs: progress.inputs,
            outputs: progress.outputs,
            skipped: status == Status::Skipped
                || progress.values.as_ref().is_some_and(LoopValues::is_empty),
        };
        self.scope.record(phase, &step.name, record.clone());
        let ends = aborts(step, status);
        let failures = self.failures.add(ends, failures);
        if self.stage.machine.restarts {
            self.stage.journal.forget_below(&place);
            let done = StepDone {
                result: result.clone(),
                record,
                failures,
            };
            self.stage.journal.done.insert(place, done);
        }
        result
    }

    /// The failures that a step adds to those of the run, the one to name first.
    fn failures_of(
        &self,
        phase: &str,
        step: &Step,
        told: Told,
        exit_code: Option<i32>,
    ) -> Vec<Failure> {
        let goes_on = step.on_failure == OnFailure::Continue;
        let mut all = told.nested;
        for failure in &mut all {
            let iteration = told.iteration.map(|index| format!(", iteration {index}"));
            let (document, name) = (&self.document.name, &step.name);
            let place = format!(
                "{document}: phase {phase}, step {name}{}",
                iteration.unwrap_or_default()
            );
            failure.within.insert(0, place);
        }
        // The step itself, unless a step of its document ended both.
        if all.first().is_none_or(|first| first.went_on && !goes_on) {
            let reason = match all.is_empty() {
                true => told.reason,
                false => "the document that it runs has failed".to_owned(),
            };
            let own = Failure {
                document: self.document.name.clone(),
                phase: phase.to_owned(),
                step: step.name.clone(),
                action: step.action.name().to_owned(),
                command: told.command,
                exit_code,
                reason,
                tail: told.tail,
                went_on: goes_on,
                within: Vec::new(),
            };
            all.insert(0, own);
        }
        for failure in &mut all {
            failure.went_on |= goes_on;
            self.stage.secrets.failure(failure);
        }
        all
    }

    fn carry_out(&mut self, step: &Step, place: &str, progress: &mut Progress) -> Ended {
        match self.branch(step, progress) {
            Ok(Branch::Execute) => {}
            Ok(Branch::Skip) => return Ended::Skipped,
            Ok(Branch::Abort) => {
                return Ended::Failed(Told::before("its condition led to `Abort`"));
            }
            Err(told) => return Ended::Failed(*told),
        }
        if let (None, Some(repeat)) = (&progress.values, &step.repeat) {
            match repeat.values(&self.scope) {
                Ok(values) => progress.values = Some(values),
                Err(error) => return Ended::Failed(Told::unresolved(&error)),
            }
        }
        loop {
            let begun = Instant::now();
            let spent = Duration::try_from_secs_f64(progress.spent).unwrap_or_default();
            let limit = step.timeout_seconds.map(u64::from).map(Duration::from_secs);
            let left = limit.map(|limit| limit.saturating_sub(spent));
            let deadline = left.and_then(|left| begun.checked_add(left));
            match self.attempt(step, place, progress, deadline) {
                Ended::Restart => {
                    progress.spent += begun.elapsed().as_secs_f64();
                    return Ended::Restart;
                }
                Ended::Failed(told) if told.again && progress.attempt < step.max_attempts => {
                    progress.again();
                    self.stage.journal.forget_below(place);
                    self.stage.tell(ChildEvent::Retry {
                        attempt: progress.attempt,
                        reason: told.reason,
                    });
                }
                ended => return ended,
            }
        }
    }

    /// What the condition leads to.
    fn branch(&mut self, step: &Step, progress: &mut Progress) -> Result<Branch, Box<Told>> {
        let Some(when) = &step.condition else {
            return Ok(Branch::Execute);
        };
        if let Some(branch) = progress.branch {
            return Ok(branch);
        }
        let resolved = self.scope.resolve(&when.condition);
        let resolved = resolved.map_err(|error| Box::new(Told::unresolved(&error)))?;
        let (condition, problems) = If::decode(&resolved);
        let condition = condition.ok_or_else(|| Box::new(Told::undecoded(problems)))?;
        let machine = self.stage.machine;
        let stage = &mut *self.stage;
        let mut sink = |event| stage.tell(event);
        let loud = !step.disable_logging;
        let dir = folder(self.document);
        let cx = StepCx::new(machine, &self.env, dir, None, loud, &mut sink);
        let holds = actions::holds(&condition, &cx)
            .map_err(|error| format!("its condition: {}", actions::chain(&error)))
            .map_err(|reason| Box::new(Told::before(reason)))?;
        let branch = if holds { when.then } else { when.otherwise };
        progress.branch = Some(branch);
        Ok(branch)
    }

    /// All iterations of the loop that are left, or the step once.
    fn attempt(
        &mut self,
        step: &Step,
        place: &str,
        progress: &mut Progress,
        deadline: Option<Instant>,
    ) -> Ended {
        let count = progress.values.as_ref().map_or(1, LoopValues::len);
        while progress.next < count {
            let iteration = self.iteration(step, progress);
            let looped = iteration.is_some();
            if looped && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                let seconds = step.timeout_seconds.unwrap_or_default();
                let reason = format!("the loop timed out after {seconds} seconds");
                return Ended::Failed(Told {
                    again: true,
                    tried: true,
                    ..Told::before(reason)
                });
            }
            if let Some(iteration) = &iteration
                && !step.disable_logging
            {
                self.stage.tell(ChildEvent::Iteration {
                    index: iteration.index,
                    value: iteration.value.clone(),
                });
            }
            self.scope.iteration = iteration;
            let once = self.once(step, place, progress, deadline);
            self.scope.iteration = None;
            match once {
                Once::Done(outputs) => {
                    if let Err(reason) = join(&mut progress.outputs, outputs) {
                        return Ended::Failed(Told {
                            tried: true,
                            ..Told::before(reason)
                        });
                    }
                    progress.next += 1;
                    progress.document = None;
                }
                Once::RestartNext => {
                    progress.next += 1;
                    return Ended::Restart;
                }
                Once::RestartAgain => return Ended::Restart,
                Once::Failed(mut told) => {
                    progress.failed_with(std::mem::take(&mut told.left));
                    if looped {
                        told.iteration = Some(progress.next);
                        told.reason = format!("iteration {}: {}", progress.next, told.reason);
                    }
                    return Ended::Failed(told);
                }
            }
        }
        Ended::Success
    }

    fn iteration(&self, step: &Step, progress: &Progress) -> Option<Iteration> {
        let value = progress.values.as_ref()?.get(progress.next)?;
        Some(Iteration {
            name: step.repeat.as_ref().and_then(|r| r.name.clone()),
            index: progress.next,
            value,
        })
    }

    /// The step's action, once.
    fn once(
        &mut self,
        step: &Step,
        place: &str,
        progress: &mut Progress,
        deadline: Option<Instant>,
    ) -> Once {
        let resolved = step.inputs.as_ref().map(|node| self.scope.resolve(node));
        let resolved = match resolved.transpose() {
            Ok(resolved) => resolved,
            Err(error) => return Once::Failed(Told::unresolved(&error)),
        };
        progress.inputs = StepRecord::of_inputs(resolved.as_ref()).inputs;
        let (inputs, problems) = step.decode_inputs(resolved.as_ref());
        let Some(inputs) = inputs else {
            return Once::Failed(Told::undecoded(problems));
        };
        let action = match actions::work(&inputs) {
            Work::Here(action) => action,
            Work::Document(inputs) => return self.nested(step, inputs, place, progress),
            Work::Restart(inputs) => return self.restart(inputs, progress),
        };
        loop {
            let machine = self.stage.machine;
            let secrets = self.stage.secrets.clone();
            let stage = &mut *self.stage;
            let mut sink = |event| stage.tell(event);
            let dir = folder(self.document);
            let loud = !step.disable_logging;
            let mut cx = StepCx::new(machine, &self.env, dir, deadline, loud, &mut sink);
            cx.secrets = Some(&secrets);
            // Before each attempt: a step may have removed it.
            let outcome = actions::prepare(machine.root, dir).and_then(|()| action.run(&mut cx));
            progress.exit_code = cx.exit_code;
            let limit = machine.held.reached(cx.crowded, cx.exit_code);
            let error = match outcome {
                Ok(outputs) => return Once::Done(outputs),
                Err(error) => error,
            };
            let (command, tail, left) = (cx.command, cx.tail, cx.left);
            if progress.exit_code == Some(REBOOT) && progress.restarts < MAX_RESTARTS {
                // Not a new attempt.
                progress.restarts += 1;
                let text =
                    format!("exit code {REBOOT} asks for a restart; then the step runs again");
                self.stage.tell(ChildEvent::Note { text });
                if self.stage.machine.restarts {
                    return Once::RestartAgain;
                }
                continue;
            }
            let mut reason = match (&error, step.timeout_seconds) {
                (StepError::TimedOut, Some(seconds)) => {
                    format!("timed out after {seconds} seconds")
                }
                _ if progress.exit_code == Some(REBOOT) => format!(
                    "exit code {REBOOT} asks for a restart, and the step has had {MAX_RESTARTS} already"
                ),
                _ => actions::chain(&error),
            };
            if let Some(limit) = limit {
                reason.push_str(&format!("; it reached {limit}"));
            }
            return Once::Failed(Told {
                command,
                tail,
                left,
                again: true,
                tried: true,
                ..Told::before(reason)
            });
        }
    }

    fn restart(&mut self, inputs: &Reboot, progress: &mut Progress) -> Once {
        if !self.stage.machine.restarts {
            let text = "nothing restarts here; the next step follows at once".to_owned();
            self.stage.tell(ChildEvent::Note { text });
            return Once::Done(Vec::new());
        }
        if progress.restarts >= MAX_RESTARTS {
            let reason = format!("the step has restarted the machine {MAX_RESTARTS} times already");
            return Once::Failed(Told {
                tried: true,
                ..Told::before(reason)
            });
        }
        progress.restarts += 1;
        let text = match inputs.delay_seconds {
            0 => "the machine restarts".to_owned(),
            seconds => format!("the machine restarts, without waiting for {seconds} seconds"),
        };
        self.stage.tell(ChildEvent::Note { text });
        Once::RestartNext
    }

    /// Another document, with its own steps.
    fn nested(
        &mut self,
        step: &Step,
        inputs: &ExecuteDocument,
        place: &str,
        progress: &mut Progress,
    ) -> Once {
        let not_run = |reason: String| Told {
            left: vec![outputs_of_none(&reason)],
            ..Told::before(reason)
        };
        if self.lineage.len() > MAX_NESTED {
            let reason = format!("documents are nested in more than {MAX_NESTED} levels");
            return Once::Failed(not_run(reason));
        }
        let name = inputs.document.to_string();
        // After a restart it is still the text that began, whatever became of the file.
        let known = progress.document.take().map(Ok);
        let text = match known.unwrap_or_else(|| self.text_of(inputs, !step.disable_logging)) {
            Ok(text) => text,
            Err(reason) => {
                return Once::Failed(Told {
                    again: true,
                    ..not_run(reason)
                });
            }
        };
        let digest = Digest::of(text.as_bytes());
        if self.lineage.contains(&digest) {
            let reason = format!("{name} is the document itself, or one that runs it");
            return Once::Failed(not_run(reason));
        }
        let document = DocumentSpec {
            name: name.clone(),
            text,
            parameters: inputs.parameters.clone(),
            earlier: Vec::new(),
            working_directory: self.document.working_directory.clone(),
        };
        let (component, scope) = match read(&document) {
            Ok(read) => read,
            Err(reason) => return Once::Failed(not_run(format!("{name}: {reason}"))),
        };
        let lineage = [self.lineage.as_slice(), &[digest]].concat();
        let place = format!("{place}/{}", progress.next);
        let execution_id = self.uuid(&place);
        let selected = |phase: &str| {
            inputs.phases.is_empty() || inputs.phases.iter().any(|selected| selected == phase)
        };
        let run = Run::new(&mut *self.stage, &document, scope, place, lineage);
        let (result, failures) = run.document(&component, &selected);
        if self.stage.interrupted {
            progress.document = Some(document.text);
            return Once::RestartAgain;
        }
        let mut all = failures.iter().cloned();
        let run = RunResult {
            execution_id,
            status: over_all(result.status),
            start: result.start,
            end: result.end,
            documents: vec![result],
            failure: all.next(),
            also: all.collect(),
            markers: Vec::new(),
        };
        let (outputs, reason) = (vec![outputs_of(&run)], run.failure_message());
        let failed = run.status == Status::Failed;
        progress.nested.push(run);
        if !failed {
            return Once::Done(outputs);
        }
        Once::Failed(Told {
            nested: failures,
            left: outputs,
            tried: true,
            ..Told::before(reason)
        })
    }

    /// The text of a document that a step names.
    fn text_of(&mut self, inputs: &ExecuteDocument, loud: bool) -> Result<String, String> {
        let limit = MAX_DOCUMENT_BYTES as u64;
        let machine = self.stage.machine;
        let dir = folder(self.document);
        let stage = &mut *self.stage;
        let library = &stage.spec.library;
        let secrets = stage.secrets.clone();
        let mut sink = |event| stage.tell(event);
        let mut cx = StepCx::new(machine, &self.env, dir, None, loud, &mut sink);
        cx.secrets = Some(&secrets);
        let (name, bytes) = match &inputs.document {
            DocumentSource::Path(path) => {
                let full = cx.full_path(path);
                let failed = |error: std::io::Error| format!("cannot read {full}: {error}");
                let file = machine.root.open(full.as_ref()).map_err(failed)?;
                let mut bytes = Vec::new();
                let mut file = file.take(limit + 1);
                file.read_to_end(&mut bytes).map_err(failed)?;
                (full, bytes)
            }
            DocumentSource::S3(uri) => {
                let owner = inputs.bucket_owner.as_deref();
                let bytes = actions::object_bytes(uri, owner, limit, &mut cx);
                let bytes = bytes.map_err(|error| actions::chain(&error))?;
                (uri.to_string(), bytes)
            }
            DocumentSource::Arn(name) => {
                let known = library.get(name).cloned();
                return known.ok_or_else(|| format!("there is no document {name} for this run"));
            }
        };
        let text = check_bytes(&bytes).map_err(|problem| format!("{name}:{problem}"))?;
        Ok(text.to_owned())
    }
}

/// Where the steps of a document run.
fn folder(document: &DocumentSpec) -> &str {
    document.working_directory.as_deref().unwrap_or("/")
}

/// The outputs of a run of a document, as AWSTOE has them.
fn outputs_of(run: &RunResult) -> Outputs {
    let summary = serde_json::to_value(run.summary(String::new())).unwrap_or_default();
    let fields = summary.as_object().into_iter().flatten();
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

/// What a step gives out whose document could not be run.
fn outputs_of_none(reason: &str) -> Outputs {
    let run = RunResult {
        execution_id: String::new(),
        status: Status::Failed,
        start: now(),
        end: now(),
        documents: Vec::new(),
        failure: None,
        also: Vec::new(),
        markers: Vec::new(),
    };
    let mut outputs = outputs_of(&run);
    outputs.insert("failureMessage".to_owned(), reason.to_owned());
    outputs
}

/// Adds the outputs of an iteration to those before it: values of a key stand below one another.
fn join(all: &mut Vec<Outputs>, more: Vec<Outputs>) -> Result<(), String> {
    for (index, outputs) in more.into_iter().enumerate() {
        if index == all.len() {
            all.push(outputs);
            continue;
        }
        for (key, value) in outputs {
            all[index]
                .entry(key)
                .and_modify(|joined| {
                    joined.push('\n');
                    joined.push_str(&value);
                })
                .or_insert(value);
        }
    }
    let bytes: usize = all.iter().flat_map(Outputs::values).map(String::len).sum();
    if bytes > MAX_LOOP_OUTPUT {
        return Err(format!(
            "the outputs have more than {MAX_LOOP_OUTPUT} bytes"
        ));
    }
    Ok(())
}
