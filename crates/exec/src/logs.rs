//! The log folder that AWSTOE leaves behind, made of the events and the result of a run.
//!
//! ```text
//! <log directory>/TOE_<YYYY-MM-DD_HH-MM-SS>_UTC-0_<execution id>/
//!     D0__<base name of the document>    a copy of each document
//!     console.log                        what went to the console, one time-stamped line each
//!     application.log                    the same with debug lines
//!     detailedoutput.json                every phase and step with times, inputs and outputs
//!     chaining.json                      what later steps could refer to
//! ```
//!
//! Names, keys, their order and the 4-space indent are those seen in logs of the real tool.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use amiforge_types::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::event::{
    ChildEvent, DocumentResult, PhaseResult, RunResult, RunSpec, Status, StepResult,
};
use crate::executor::now;

/// Writes one log folder. Feed it every [`ChildEvent`] of the run, then the result.
#[derive(Debug)]
pub struct ToeLog {
    dir: PathBuf,
    console: BufWriter<File>,
    application: BufWriter<File>,
    /// The first write that failed; later ones are not tried, and [`ToeLog::finish`] returns it.
    broken: Option<io::Error>,
}

impl ToeLog {
    /// Makes the folder below `log_dir` (which is made when missing) with copies of the documents.
    ///
    /// # Errors
    /// When the folder exists or cannot be written.
    pub fn create(log_dir: &Path, run: &RunSpec) -> io::Result<Self> {
        let stamp = utc(now()).strftime("%Y-%m-%d_%H-%M-%S").to_string();
        let dir = log_dir.join(format!(
            "TOE_{stamp}_UTC-0_{}",
            file_name(&run.execution_id)
        ));
        fs_err::create_dir_all(log_dir)?;
        fs_err::create_dir(&dir)?;
        for (number, document) in run.documents.iter().enumerate() {
            let base = document.name.rsplit('/').next().unwrap_or_default();
            fs_err::write(
                dir.join(format!("D{number}__{}", file_name(base))),
                &document.text,
            )?;
        }
        let open = |name: &str| {
            let path = dir.join(name);
            File::create(&path)
                .map(BufWriter::new)
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
        };
        Ok(Self {
            console: open("console.log")?,
            application: open("application.log")?,
            dir,
            broken: None,
        })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Adds what happened.
    pub fn event(&mut self, event: &ChildEvent) {
        match event {
            ChildEvent::DocumentStarted { document } => self.line(&format!("Document {document}")),
            ChildEvent::PhaseStarted { phase } => self.line(&format!("Phase {phase}")),
            ChildEvent::StepStarted {
                step,
                action,
                timeout_seconds,
                max_attempts,
                ..
            } => {
                self.line(&format!("Step {step}"));
                self.debug(&format!("Action {action}"));
                self.debug(&format!("MaxAttempts set to {max_attempts}"));
                match timeout_seconds {
                    Some(seconds) => self.debug(&format!("Timeout set to {seconds} seconds")),
                    None => self.debug("No timeout is set"),
                }
                self.debug(&format!("Attempt 1/{max_attempts}"));
            }
            ChildEvent::Retry { attempt, reason } => {
                self.line(&format!("Attempt failed: {reason}"));
                self.debug(&format!("Attempt {attempt}"));
            }
            ChildEvent::Iteration { index, value } => {
                self.line(&format!("Iteration {index}: {value}"));
            }
            ChildEvent::Stdout { line } => self.line(&format!("Stdout: {line}")),
            ChildEvent::Stderr { line } => self.line(&format!("Stderr: {line}")),
            ChildEvent::Note { text } => self.line(text),
            ChildEvent::Fetched { .. } => {}
            ChildEvent::StepFinished {
                exit_code,
                failure,
                step,
                status,
                ..
            } => {
                if let Some(code) = exit_code {
                    self.line(&format!("ExitCode {code}"));
                }
                if let Some(failure) = failure {
                    self.line(&format!("Step {step} failed: {failure}"));
                }
                self.debug(&format!("Step {step} ended with status {}", status.word()));
            }
            ChildEvent::PhaseFinished { phase, status } => {
                self.debug(&format!(
                    "Phase {phase} ended with status {}",
                    status.word()
                ));
            }
            ChildEvent::DocumentFinished { document, status } => {
                self.debug(&format!(
                    "Document {document} ended with status {}",
                    status.word()
                ));
            }
        }
    }

    /// Writes the JSON files and closes the logs.
    ///
    /// # Errors
    /// The first write that failed, also of an earlier [`ToeLog::event`].
    pub fn finish(mut self, result: &RunResult) -> io::Result<()> {
        if result.status.is_ok() {
            self.line("TOE has completed execution successfully");
        } else {
            let why = result.failure_message();
            self.line(&format!("TOE has completed execution with failure: {why}"));
        }
        if let Some(error) = self.broken {
            return Err(error);
        }
        self.console.flush()?;
        self.application.flush()?;
        write_json(&self.dir.join("detailedoutput.json"), &Detailed::of(result))?;
        let chaining: Vec<ChainDocument<'_>> =
            result.documents.iter().map(ChainDocument::of).collect();
        write_json(&self.dir.join("chaining.json"), &chaining)
    }

    fn line(&mut self, text: &str) {
        let time = now_text();
        let written = writeln!(self.console, "{time} {text}")
            .and_then(|()| writeln!(self.application, "{time} {text}"));
        self.note(written);
    }

    fn debug(&mut self, text: &str) {
        let written = writeln!(self.application, "{} Debug {text}", now_text());
        self.note(written);
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            self.broken.get_or_insert(error);
        }
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, formatter,
    ))?;
    bytes.push(b'\n');
    fs_err::write(path, bytes)
}

fn utc(at: Timestamp) -> jiff::Timestamp {
    let nanos = i32::try_from(at.nanos).unwrap_or(0);
    jiff::Timestamp::new(at.secs, nanos).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// RFC 3339 with nanoseconds.
fn now_text() -> String {
    format!("{:.9}", utc(now()))
}

/// A name that stays inside its folder.
fn file_name(text: &str) -> String {
    let safe: String = text
        .chars()
        .take(128)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    if safe.is_empty() {
        "_".to_owned()
    } else {
        safe
    }
}

fn step_word(status: Status) -> &'static str {
    if status == Status::IgnoredFailure {
        "ignoredFailure"
    } else {
        status.word()
    }
}

/// Inputs and outputs are strings that hold JSON.
fn nested(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Detailed<'a> {
    execution_id: &'a str,
    status: &'static str,
    start_time: String,
    end_time: String,
    failure_message: String,
    documents: Vec<DetailedDocument<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailedDocument<'a> {
    name: &'a str,
    file_path: &'a str,
    status: &'static str,
    description: &'a str,
    start_time: String,
    end_time: String,
    failure_message: String,
    phases: Vec<DetailedPhase<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailedPhase<'a> {
    name: &'a str,
    status: &'static str,
    start_time: String,
    end_time: String,
    failure_message: String,
    steps: Vec<DetailedStep<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DetailedStep<'a> {
    name: &'a str,
    status: &'static str,
    failure_message: &'a str,
    timeout_seconds: i64,
    on_failure: &'a str,
    max_attempts: u32,
    action: &'a str,
    start_time: String,
    end_time: String,
    inputs: String,
    outputs: String,
    #[serde(rename = "loop")]
    repeat: Value,
    detailed_output: Value,
}

impl<'a> Detailed<'a> {
    fn of(run: &'a RunResult) -> Self {
        Self {
            execution_id: &run.execution_id,
            status: run.status.word(),
            start_time: run.start.to_string(),
            end_time: run.end.to_string(),
            failure_message: run.failure_message(),
            documents: run
                .documents
                .iter()
                .map(|d| DetailedDocument::of(d, run))
                .collect(),
        }
    }
}

impl<'a> DetailedDocument<'a> {
    fn of(document: &'a DocumentResult, run: &RunResult) -> Self {
        // Nothing runs after a document that failed.
        let failed = document.status == Status::Failed;
        Self {
            name: &document.name,
            file_path: &document.file,
            status: document.status.word(),
            description: &document.description,
            start_time: document.start.to_string(),
            end_time: document.end.to_string(),
            failure_message: if failed {
                run.failure_message()
            } else {
                String::new()
            },
            phases: document
                .phases
                .iter()
                .filter(|p| p.selected)
                .map(DetailedPhase::of)
                .collect(),
        }
    }
}

impl<'a> DetailedPhase<'a> {
    fn of(phase: &'a PhaseResult) -> Self {
        let failed = phase.steps.iter().filter(|s| s.status == Status::Failed);
        let failed: Vec<String> = failed
            .map(|s| format!("step {}: {}", s.name, s.failure_message))
            .collect();
        Self {
            name: &phase.name,
            status: phase.status.word(),
            start_time: phase.start.to_string(),
            end_time: phase.end.to_string(),
            failure_message: failed.join("; "),
            steps: phase.steps.iter().map(DetailedStep::of).collect(),
        }
    }
}

impl<'a> DetailedStep<'a> {
    fn of(step: &'a StepResult) -> Self {
        Self {
            name: &step.name,
            status: step_word(step.status),
            failure_message: &step.failure_message,
            timeout_seconds: step.timeout_seconds,
            on_failure: &step.on_failure,
            max_attempts: step.max_attempts,
            action: &step.action,
            start_time: step.start.to_string(),
            end_time: step.end.to_string(),
            inputs: nested(&step.inputs),
            outputs: nested(&step.outputs),
            repeat: step.repeat.clone(),
            detailed_output: match step.nested.as_slice() {
                [] => Value::Null,
                runs => serde_json::to_value(runs.iter().map(Detailed::of).collect::<Vec<_>>())
                    .unwrap_or_default(),
            },
        }
    }
}

#[derive(Serialize)]
struct ChainDocument<'a> {
    phases: Vec<ChainPhase<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChainPhase<'a> {
    name: &'a str,
    is_selected: bool,
    steps: Vec<ChainStep<'a>>,
}

#[derive(Serialize)]
struct ChainStep<'a> {
    name: &'a str,
    inputs: String,
    outputs: String,
    #[serde(rename = "loop")]
    repeat: Value,
    documents: Value,
}

impl<'a> ChainDocument<'a> {
    fn of(document: &'a DocumentResult) -> Self {
        let step = |s: &'a StepResult| ChainStep {
            name: &s.name,
            inputs: nested(&s.inputs),
            outputs: nested(&s.outputs),
            repeat: s.repeat.clone(),
            documents: match s.nested.as_slice() {
                [] => Value::Null,
                runs => {
                    let documents = runs.iter().flat_map(|r| &r.documents);
                    serde_json::to_value(documents.map(ChainDocument::of).collect::<Vec<_>>())
                        .unwrap_or_default()
                }
            },
        };
        let phase = |p: &'a PhaseResult| ChainPhase {
            name: &p.name,
            is_selected: p.selected,
            steps: p.steps.iter().map(step).collect(),
        };
        Self {
            phases: document.phases.iter().map(phase).collect(),
        }
    }
}
