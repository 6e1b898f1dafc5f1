//! What a run of component documents tells while it runs, and what it says at the end.
//!
//! The same types cross two pipes as JSON: out of the sandbox, and out of a guest over its serial
//! port. Names of statuses follow AWSTOE (user guide, `toe-use-documents.html`).

use std::collections::BTreeMap;

use amiforge_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

/// How a step, phase, document or run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Everything succeeded.
    Success,
    /// Not run, because its condition said so or the phase was not asked for.
    Skipped,
    /// A step failed and its `onFailure` was `Ignore`: counts as success.
    IgnoredFailure,
    /// Failed.
    Failed,
}

impl Status {
    /// The word of AWSTOE's files. `success` is what real logs hold; the others follow it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Skipped => "skipped",
            Self::IgnoredFailure => "successWithIgnoredFailure",
            Self::Failed => "failed",
        }
    }

    /// False for [`Status::Failed`] only.
    #[must_use]
    pub fn is_ok(self) -> bool {
        self != Self::Failed
    }
}

/// One thing that happened, in order. Lines carry no final newline and are at most
/// [`MAX_LINE`](crate::MAX_LINE) bytes; what is not UTF-8 is replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "event",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum ChildEvent {
    /// A document starts.
    DocumentStarted {
        /// Name as given in [`DocumentSpec::name`].
        document: String,
    },
    /// A phase of the current document starts.
    PhaseStarted {
        /// Phase name.
        phase: String,
    },
    /// A step starts (once, whatever the number of attempts).
    StepStarted {
        /// Phase name.
        phase: String,
        /// Step name.
        step: String,
        /// Action module.
        action: String,
        /// Seconds for each attempt, `None` without limit.
        timeout_seconds: Option<u64>,
        /// Attempts at most.
        max_attempts: u32,
    },
    /// An attempt after the first one starts.
    Retry {
        /// Number of this attempt, from 2.
        attempt: u32,
        /// Why the one before failed.
        reason: String,
    },
    /// An iteration of the step's loop starts.
    Iteration {
        /// From 0.
        index: u64,
        /// What `loop.value` is.
        value: String,
    },
    /// A line of standard output of the current step or script.
    Stdout {
        /// The line.
        line: String,
    },
    /// A line of standard error of the current step or script.
    Stderr {
        /// The line.
        line: String,
    },
    /// A remark of the executor itself.
    Note {
        /// One sentence.
        text: String,
    },
    /// A step has a file from elsewhere. For programs: the lock, not the logs.
    Fetched {
        /// What it is.
        #[serde(flatten)]
        download: Download,
    },
    /// A step ended.
    StepFinished {
        /// Phase name.
        phase: String,
        /// Step name.
        step: String,
        /// How.
        status: Status,
        /// Exit code of its last command, when it ran one that ended by itself.
        exit_code: Option<i32>,
        /// Attempts made.
        attempt: u32,
        /// Wall-clock seconds over all attempts.
        seconds: f64,
        /// What went wrong, when something did.
        failure: Option<String>,
    },
    /// A phase ended.
    PhaseFinished {
        /// Phase name.
        phase: String,
        /// How.
        status: Status,
    },
    /// A document ended.
    DocumentFinished {
        /// Name as given.
        document: String,
        /// How.
        status: Status,
    },
}

/// A file that a step brought in from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Download {
    /// Its address as it may be shown: without user and password, secrets masked. Of a step without logging,
    /// `hidden:` and the beginning of the address' SHA-256.
    pub source: String,
    /// Of the file.
    pub sha256: Digest,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// True: its step has a checksum of its own, which the file has met.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checked: bool,
}

impl Download {
    /// How the address of a download is told, before secrets are masked.
    #[must_use]
    pub fn shown_source(address: &str, loud: bool) -> String {
        match loud {
            true => address.to_owned(),
            // Nothing of a step without logging is shown.
            false => format!("hidden:{}", &Digest::of(address.as_bytes()).hex()[..32]),
        }
    }
}

/// One component document to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentSpec {
    /// Path or name, for messages and logs.
    pub name: String,
    /// The YAML or JSON text.
    pub text: String,
    /// Parameter values by name; parameters the document does not declare are ignored, as AWSTOE does.
    pub parameters: BTreeMap<String, String>,
    /// Results of phases that an earlier run of the same document finished: what references to
    /// their steps resolve to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<PhaseResult>,
    /// Folder that the steps run in, an absolute path; made when it is missing. `None` is `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
}

/// How a shell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShellResult {
    /// Its exit code; `None` when a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// What to run. The same in a sandbox and in a guest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSpec {
    /// Id of this run: part of the log folder's name, `context:executionId`.
    pub execution_id: String,
    /// The documents, run in this order.
    pub documents: Vec<DocumentSpec>,
    /// Phases to run, in whatever order: each document runs its own in its own order.
    pub phases: Vec<String>,
    /// Environment of the steps beside the fixed base (see `docs/sandbox.md`); wins over it.
    pub env: BTreeMap<String, String>,
    /// The time that `context:date` and `context:dateTime` show and `SOURCE_DATE_EPOCH` holds. A
    /// test in a guest may give the real time.
    pub clock: Timestamp,
    /// Values of `context:` references that the caller knows better: `accountId`, `region`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub context: BTreeMap<String, String>,
    /// Values of references to the world outside, by the reference: `aws:ssm:/path`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub external: BTreeMap<String, External>,
    /// Documents that `ExecuteDocument` names and that are no files of the machine, by that name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub library: BTreeMap<String, String>,
    /// The step of the document after which the run ends, as if nothing followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A value from the world outside.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// The value.
    pub value: String,
    /// True: it is shown nowhere.
    pub secret: bool,
}

impl std::fmt::Debug for External {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = if self.secret { "********" } else { &self.value };
        f.debug_struct("External").field("value", &value).finish()
    }
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// As in [`RunSpec`].
    pub execution_id: String,
    /// `Success`, `IgnoredFailure` or `Failed`.
    pub status: Status,
    /// Wall-clock start: no file that the run wrote is older.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
    /// One per document that was started.
    pub documents: Vec<DocumentResult>,
    /// Why it failed: the failure that ended it, else the first one that was not ignored.
    pub failure: Option<Failure>,
    /// The others that were not ignored, in order, with the last lines of their output only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Failure>,
    /// Which of [`CLEANUP_MARKERS`] it left where no layer has them: in `/tmp`, or in a working directory on a mount point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub markers: Vec<String>,
}

/// Names of the empty files that keep a part of a machine from the clean-up of Image Builder
/// (`imagebuilder/latest/userguide/security-best-practices.html`).
pub const CLEANUP_MARKERS: &[&str] = &[
    "skip_cleanup_cloudinit_files",
    "skip_cleanup_instance_files",
    "skip_cleanup_instance_log_files",
    "skip_cleanup_ssh_files",
    "skip_cleanup_ssm_log_files",
    "skip_cleanup_toe_files",
];

/// A run in a few numbers: what AWSTOE prints at its end, and what a step that ran a document gives out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Steps that ran, whatever came of them.
    pub executed_step_count: usize,
    /// As in [`RunResult`].
    pub execution_id: String,
    /// Steps that failed.
    pub failed_step_count: usize,
    /// Every failure that was not ignored, else empty.
    pub failure_message: String,
    /// Steps that failed and were ignored.
    pub ignored_failed_step_count: usize,
    /// Where the logs are.
    pub log_url: String,
    /// `success`, `successWithIgnoredFailure` or `failed`.
    pub status: &'static str,
}

impl RunResult {
    /// Every failure that was not ignored, the one that ended the run first; empty where there is none.
    #[must_use]
    pub fn failure_message(&self) -> String {
        const MOST: usize = 20;
        let all: Vec<&Failure> = self.failure.iter().chain(&self.also).collect();
        let told = all.iter().take(MOST).map(ToString::to_string);
        let more = all.len().saturating_sub(MOST);
        let more = (more > 0).then(|| format!("and {more} more"));
        told.chain(more).collect::<Vec<_>>().join("; ")
    }

    /// Cuts texts until the result as JSON has at most so many bytes: those that steps were given and gave out first,
    /// then what was run within them and what failed beside the first.
    pub fn fit(&mut self, bytes: usize) {
        let fits =
            |result: &Self| serde_json::to_string(result).is_ok_and(|json| json.len() <= bytes);
        for most in [64 << 10, 4 << 10, 256, 0] {
            if fits(self) {
                return;
            }
            self.cut(most);
        }
        if !fits(self) {
            self.also.clear();
            let phases = self.documents.iter_mut().flat_map(|d| &mut d.phases);
            phases
                .flat_map(|p| &mut p.steps)
                .for_each(|step| step.nested.clear());
        }
        if !fits(self) {
            self.documents.clear();
        }
    }

    fn cut(&mut self, most: usize) {
        for failure in &mut self.also {
            failure.tail.iter_mut().for_each(|line| shorten(line, most));
        }
        let phases = self.documents.iter_mut().flat_map(|d| &mut d.phases);
        for step in phases.flat_map(|p| &mut p.steps) {
            shorten(&mut step.failure_message, most.max(256));
            shorten_all(&mut step.inputs, most);
            shorten_all(&mut step.repeat, most);
            let outputs = step.outputs.iter_mut().flat_map(BTreeMap::values_mut);
            outputs.for_each(|text| shorten(text, most));
            step.nested.iter_mut().for_each(|run| run.cut(most));
        }
    }

    /// The run in a few numbers. Steps of nested documents do not count.
    #[must_use]
    pub fn summary(&self, log_url: String) -> RunSummary {
        let phases = self.documents.iter().flat_map(|d| &d.phases);
        let all: Vec<Status> = phases.flat_map(|p| &p.steps).map(|s| s.status).collect();
        let count = |wanted: Status| all.iter().filter(|status| **status == wanted).count();
        RunSummary {
            executed_step_count: all.len() - count(Status::Skipped),
            execution_id: self.execution_id.clone(),
            failed_step_count: count(Status::Failed),
            failure_message: self.failure_message(),
            ignored_failed_step_count: count(Status::IgnoredFailure),
            log_url,
            status: self.status.word(),
        }
    }
}

/// Cuts a text to so many bytes and a sign that something is missing.
fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
}

fn shorten_all(value: &mut serde_json::Value, most: usize) {
    match value {
        serde_json::Value::String(text) => shorten(text, most),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|v| shorten_all(v, most)),
        serde_json::Value::Object(fields) => {
            fields.values_mut().for_each(|v| shorten_all(v, most));
        }
        _ => {}
    }
}

/// What one document came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentResult {
    /// `name` of the document, else empty.
    pub name: String,
    /// Name as given in [`DocumentSpec::name`].
    pub file: String,
    /// `description` of the document, else empty.
    pub description: String,
    /// How it ended.
    pub status: Status,
    /// Wall-clock start.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
    /// The phases of the document, also those not asked for (with [`Status::Skipped`] and no steps run).
    pub phases: Vec<PhaseResult>,
}

/// What one phase came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseResult {
    /// Phase name.
    pub name: String,
    /// Whether the run asked for it.
    pub selected: bool,
    /// How it ended.
    pub status: Status,
    /// Wall-clock start.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
    /// The steps that were reached.
    pub steps: Vec<StepResult>,
}

/// What one step came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepResult {
    /// Step name.
    pub name: String,
    /// Action module.
    pub action: String,
    /// How it ended.
    pub status: Status,
    /// Attempts made.
    pub attempts: u32,
    /// Exit code of its last command, when it ran one that ended by itself.
    pub exit_code: Option<i32>,
    /// Wall-clock start.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
    /// What went wrong, else empty.
    pub failure_message: String,
    /// Seconds for each attempt, `-1` without limit.
    pub timeout_seconds: i64,
    /// `Abort`, `Continue` or `Ignore`.
    pub on_failure: String,
    /// Attempts at most.
    pub max_attempts: u32,
    /// The resolved inputs, as a list (map-shaped inputs are a list of one).
    pub inputs: serde_json::Value,
    /// The outputs, one map per entry of the inputs (execution modules: one map).
    pub outputs: Vec<BTreeMap<String, String>>,
    /// `disableLogging` of the step: its inputs and outputs stay out of the logs.
    pub quiet: bool,
    /// Its `loop` with references resolved, else null.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub repeat: serde_json::Value,
    /// Runs of other documents in it, one per iteration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<RunResult>,
}

/// Where and why a run failed: enough to act on without opening a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{}{document}: {}{reason}", around(.within), of_step(.phase, .step, .action))]
pub struct Failure {
    /// Name as given in [`DocumentSpec::name`].
    pub document: String,
    /// Phase name; empty, as step and action, when it failed before any step.
    pub phase: String,
    /// Step name.
    pub step: String,
    /// Action module.
    pub action: String,
    /// The command or the path it was about.
    pub command: String,
    /// Exit code, when a command ran and ended by itself.
    pub exit_code: Option<i32>,
    /// One sentence.
    pub reason: String,
    /// The last lines it wrote, standard output and error as they came.
    pub tail: Vec<String>,
    /// Whether the run went on after it (`onFailure: Continue`).
    #[serde(default)]
    pub went_on: bool,
    /// The steps that ran its document, the outermost first: `document: phase, step`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<String>,
}

fn of_step(phase: &str, step: &str, action: &str) -> String {
    if step.is_empty() {
        return String::new();
    }
    format!("phase {phase}, step {step} ({action}): ")
}

fn around(within: &[String]) -> String {
    within.iter().map(|step| format!("{step}: ")).collect()
}

/// What a script came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptResult {
    /// Exit code; `None` when a signal or the timeout ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// True when the timeout ended it.
    pub timed_out: bool,
    /// The last lines it wrote, standard output and error as they came.
    pub tail: Vec<String>,
    /// Wall-clock start: files it wrote are not older.
    pub start: Timestamp,
    /// Wall-clock end.
    pub end: Timestamp,
}

impl ScriptResult {
    /// True when the script ended by itself with code 0.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.exit_code == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(output: usize, nested: Vec<RunResult>) -> StepResult {
        StepResult {
            name: "One".to_owned(),
            action: "ExecuteBash".to_owned(),
            status: Status::Failed,
            attempts: 1,
            exit_code: Some(1),
            start: Timestamp::default(),
            end: Timestamp::default(),
            failure_message: "exit code 1".to_owned(),
            timeout_seconds: -1,
            on_failure: "Abort".to_owned(),
            max_attempts: 1,
            inputs: serde_json::json!([{"commands": ["é".repeat(output / 4)]}]),
            outputs: vec![BTreeMap::from([(
                "stdout".to_owned(),
                "é".repeat(output / 2),
            )])],
            quiet: false,
            repeat: serde_json::Value::Null,
            nested,
        }
    }

    fn run(steps: Vec<StepResult>) -> RunResult {
        let failure = |tail: usize| Failure {
            document: "d".to_owned(),
            phase: "test".to_owned(),
            step: "One".to_owned(),
            action: "ExecuteBash".to_owned(),
            command: String::new(),
            exit_code: Some(1),
            reason: "exit code 1".to_owned(),
            tail: vec!["x".repeat(tail)],
            went_on: false,
            within: Vec::new(),
        };
        RunResult {
            execution_id: "e".to_owned(),
            status: Status::Failed,
            start: Timestamp::default(),
            end: Timestamp::default(),
            documents: vec![DocumentResult {
                name: String::new(),
                file: "d".to_owned(),
                description: String::new(),
                status: Status::Failed,
                start: Timestamp::default(),
                end: Timestamp::default(),
                phases: vec![PhaseResult {
                    name: "test".to_owned(),
                    selected: true,
                    status: Status::Failed,
                    start: Timestamp::default(),
                    end: Timestamp::default(),
                    steps,
                }],
            }],
            failure: Some(failure(1000)),
            also: (0..30).map(|_| failure(1000)).collect(),
            markers: Vec::new(),
        }
    }

    #[test]
    fn a_failure_before_any_step_names_none() {
        let mut failure = run(Vec::new()).failure.unwrap();
        failure.within = vec!["top: build, Call".to_owned()];
        let told = "top: build, Call: d: phase test, step One (ExecuteBash): exit code 1";
        assert_eq!(failure.to_string(), told);
        failure.within.clear();
        failure.phase.clear();
        failure.step.clear();
        failure.action.clear();
        assert_eq!(failure.to_string(), "d: exit code 1");
    }

    #[test]
    fn a_result_that_fits_stays_whole_and_one_that_does_not_keeps_why_it_failed() {
        let small = run(vec![step(1000, Vec::new())]);
        let mut fitted = small.clone();
        fitted.fit(1 << 20);
        assert_eq!(fitted, small);

        let big = || step(4 << 20, Vec::new());
        for steps in [
            vec![big()],
            (0..40)
                .map(|_| step(100_000, vec![run(vec![big()])]))
                .collect(),
            (0..20_000).map(|_| step(10, Vec::new())).collect(),
        ] {
            let mut result = run(steps);
            let failure = result.failure.clone();
            result.fit(1 << 20);
            assert!(serde_json::to_string(&result).unwrap().len() <= 1 << 20);
            assert_eq!(result.failure, failure);
        }
        let text = run(Vec::new()).failure_message();
        assert!(text.ends_with("; and 11 more"), "{text}");
    }
}
