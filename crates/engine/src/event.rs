//! What an operation tells while it runs. The command line draws these as bars, plain lines or JSON.

mod schema;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use amiforge_types::Diagnostic;
use serde::Serialize;

pub use self::schema::EVENTS_VERSION;
pub(crate) use self::schema::event_schema;

/// One thing that happened. In JSON, `event` names the variant in kebab case.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
#[non_exhaustive]
pub enum Event {
    /// A part of the operation begins.
    Stage {
        /// Short name: `resolve`, `download`, `unpack`, `layout`, `emit`, `boot` …
        name: &'static str,
        /// What it works on, for people.
        detail: String,
    },
    /// How far a stage is.
    Progress {
        /// The stage's name.
        name: &'static str,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// `bytes` or a countable noun.
        unit: &'static str,
    },
    /// A layer is in the store already; nothing of it runs.
    LayerCached {
        /// Layer id.
        id: String,
        /// Title, for people.
        title: String,
    },
    /// A layer came from a shared cache, and is in the store.
    LayerFetched {
        /// Layer id.
        id: String,
        /// Title, for people.
        title: String,
        /// The cache, as `--cache-from` names it.
        from: String,
        /// Seconds it took.
        seconds: f64,
        /// Bytes of its file.
        bytes: u64,
    },
    /// A layer was put into a shared cache.
    LayerShared {
        /// Layer id.
        id: String,
        /// Title, for people.
        title: String,
        /// The cache, as `--cache-to` names it.
        to: String,
        /// Seconds it took.
        seconds: f64,
        /// Bytes that were put.
        bytes: u64,
    },
    /// A layer has to be made.
    LayerStarted {
        /// Layer id.
        id: String,
        /// Title, for people.
        title: String,
        /// Why it is not cached.
        reason: String,
    },
    /// A layer was made and is in the store.
    LayerFinished {
        /// Layer id.
        id: String,
        /// Title, for people.
        title: String,
        /// Seconds it took.
        seconds: f64,
        /// Bytes of its file.
        bytes: u64,
    },
    /// A step of a component begins.
    StepStarted {
        /// Component name.
        component: String,
        /// Phase name.
        phase: String,
        /// Step name.
        step: String,
        /// Action module.
        action: String,
    },
    /// A line that a step or script printed.
    Output {
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// The line, without its end.
        line: String,
    },
    /// A step of a component ended.
    StepFinished {
        /// Component name.
        component: String,
        /// Phase name.
        phase: String,
        /// Step name.
        step: String,
        /// `success`, `failed`, `skipped`, `ignoredFailure`.
        status: String,
        /// Seconds it took.
        seconds: f64,
        /// What went wrong, when something did.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// A shell is open, and has the terminal.
    ShellStarted {
        /// Where it is, for people.
        place: String,
        /// Why the build failed, when it was opened for that.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<String>,
    },
    /// The shell was left.
    ShellFinished {},
    /// A file of the output folder is complete.
    Artifact {
        /// File name in the output folder.
        file: String,
        /// Bytes of the file.
        bytes: u64,
        /// SHA-256, where asked for.
        sha256: Option<String>,
    },
    /// A boot begins.
    BootStarted {
        /// `bios` or `uefi`.
        firmware: String,
        /// `kvm` or `tcg`.
        acceleration: String,
        /// Seconds that it may take.
        limit_seconds: u64,
    },
    /// A boot got this far.
    Milestone {
        /// `bios` or `uefi`.
        firmware: String,
        /// Milestone name.
        milestone: String,
        /// Seconds since power-on.
        seconds: f64,
    },
    /// A boot ended.
    BootFinished {
        /// `bios` or `uefi`.
        firmware: String,
        /// Whether the proof holds.
        passed: bool,
        /// Seconds from power-on to power-off.
        seconds: f64,
    },
    /// Something the user should know.
    Warning {
        /// One sentence.
        message: String,
    },
    /// A document has a problem and is used all the same. In JSON it is a warning like others.
    #[serde(rename = "warning")]
    Problem {
        /// File, place, code and what is wrong, in one line.
        message: String,
        /// The file, as the user named it.
        #[serde(skip)]
        path: PathBuf,
        /// Its text, to show the place.
        #[serde(skip)]
        text: Arc<str>,
        /// The problem.
        #[serde(skip)]
        diagnostic: Diagnostic,
    },
    /// A build failed.
    Failed {
        /// What failed, with its causes.
        error: String,
        /// What can be done about it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
        /// What a build of it alone ends with.
        #[serde(rename = "exitCode")]
        exit_code: u8,
        /// Where its logs and plan are, where it came so far.
        folder: Option<String>,
    },
    /// Nothing had to be done.
    Unchanged {
        /// The output folder.
        out: String,
        /// What was found unchanged.
        detail: String,
    },
}

/// Takes events, from any thread.
pub trait EventSink: Send + Sync {
    /// Takes one.
    fn event(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> EventSink for F {
    fn event(&self, event: Event) {
        self(event);
    }
}
