//! What of a run is done, so that another process goes on from there after a restart of the machine.
//!
//! Places are paths such as `0/build/Install`: number of the document, phase, step. Below a step that
//! runs documents they go on: `0/build/Nested/2/build/Inner` is in its third iteration (or its first:
//! a step without a loop has one).

use std::collections::BTreeMap;

use amiforge_recipe::{Branch, LoopValues, StepRecord};
use amiforge_types::Timestamp;
use serde::{Deserialize, Serialize};

use super::Outputs;
use crate::event::{Failure, RunResult, StepResult};

/// Plain data: it crosses pipes, and a host may keep it while a guest restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Journal {
    /// When the run, its documents and their phases started, by place.
    pub(crate) started: BTreeMap<String, Timestamp>,
    /// When documents and phases ended.
    pub(crate) ended: BTreeMap<String, Timestamp>,
    /// Steps that have ended.
    pub(crate) done: BTreeMap<String, StepDone>,
    /// Steps that have begun: the one that is interrupted, and those it is nested in.
    pub(crate) begun: BTreeMap<String, Progress>,
    /// The process id that was given last, where a run stops that would have gone on by itself: ids are what steps may see.
    pub(crate) last_pid: u32,
}

/// A step that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StepDone {
    pub(crate) result: StepResult,
    /// What references to it name.
    pub(crate) record: StepRecord,
    /// Its failures, when they count; several when a document ran in it.
    pub(crate) failures: Vec<Failure>,
}

/// How far a step has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Progress {
    pub(crate) start: Timestamp,
    /// What its condition led to; looked at once.
    pub(crate) branch: Option<Branch>,
    /// The values of its loop; fixed when it starts.
    pub(crate) values: Option<LoopValues>,
    /// The number of the attempt, from 1.
    pub(crate) attempt: u32,
    /// Restarts so far.
    pub(crate) restarts: u32,
    /// The iteration at hand, from 0.
    pub(crate) next: u64,
    /// The inputs of the last iteration.
    pub(crate) inputs: Vec<serde_json::Value>,
    /// What the iterations so far gave out, joined.
    pub(crate) outputs: Vec<Outputs>,
    /// Runs of other documents that have ended.
    pub(crate) nested: Vec<RunResult>,
    /// Exit code of the last command that ended by itself.
    pub(crate) exit_code: Option<i32>,
    /// Seconds spent before the restart.
    pub(crate) seconds: f64,
    /// Those of the attempt at hand.
    pub(crate) spent: f64,
    /// The text of the document that runs in it.
    pub(crate) document: Option<String>,
}

impl Progress {
    pub(crate) fn new(start: Timestamp) -> Self {
        Self {
            start,
            branch: None,
            values: None,
            attempt: 1,
            restarts: 0,
            next: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            nested: Vec::new(),
            exit_code: None,
            seconds: 0.0,
            spent: 0.0,
            document: None,
        }
    }

    /// Keeps what an action gave out before it failed: references can name it. In a loop only the iterations
    /// that succeeded count; where none did, every value is the empty text.
    pub(crate) fn failed_with(&mut self, left: Vec<Outputs>) {
        if self.values.is_none() {
            self.outputs = left;
        } else if self.outputs.is_empty() {
            self.outputs = left;
            let values = self.outputs.iter_mut().flat_map(Outputs::values_mut);
            values.for_each(String::clear);
        }
    }

    /// Forgets what an attempt did.
    pub(crate) fn again(&mut self) {
        self.attempt += 1;
        self.next = 0;
        self.spent = 0.0;
        self.document = None;
        self.inputs = Vec::new();
        self.outputs = Vec::new();
        self.nested = Vec::new();
    }
}

impl Journal {
    /// What it may take as JSON: a line of the guest's link, and some room.
    pub(crate) const MAX_BYTES: usize = 3 << 20;

    /// Whether it can be kept over a restart.
    pub(crate) fn fits(&self) -> bool {
        serde_json::to_vec(self).is_ok_and(|json| json.len() <= Self::MAX_BYTES)
    }

    /// True before anything has run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.started.is_empty()
    }

    /// When the run started; `None` before anything has run.
    pub(crate) fn run_started(&mut self) -> Option<&mut Timestamp> {
        self.started.get_mut("")
    }

    /// Names of the outermost steps of the first document's phase that have ended, in no order.
    pub(crate) fn steps_done(&self, phase: &str) -> Vec<&str> {
        let below = format!("0/{phase}/");
        let places = self.done.keys();
        places.filter_map(|at| at.strip_prefix(&below)).collect()
    }

    /// When the place was reached first; `now` the first time.
    pub(crate) fn start(&mut self, place: &str, now: Timestamp) -> Timestamp {
        *self.started.entry(place.to_owned()).or_insert(now)
    }

    /// Forgets what is nested in a step.
    pub(crate) fn forget_below(&mut self, place: &str) {
        let below = format!("{place}/");
        self.started.retain(|at, _| !at.starts_with(&below));
        self.ended.retain(|at, _| !at.starts_with(&below));
        self.done.retain(|at, _| !at.starts_with(&below));
        self.begun.retain(|at, _| !at.starts_with(&below));
    }
}
