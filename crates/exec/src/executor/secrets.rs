//! Keeping secrets out of everything a run tells.

use serde_json::Value;

use super::Outputs;
use crate::event::{ChildEvent, Failure, StepResult};

/// What stands in a secret's place.
const MASK: &str = "********";

/// Shorter ones would turn any text into stars.
const SHORTEST: usize = 3;

/// The secrets of a run, the longest first: one may be a part of another.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    pub(super) fn of<'s>(values: impl Iterator<Item = &'s str>) -> Self {
        // Output comes line by line, and values are trimmed on their way.
        let mut all: Vec<String> = values
            .flat_map(|value| value.lines().chain([value]))
            .map(str::trim)
            .filter(|value| value.len() >= SHORTEST)
            .map(str::to_owned)
            .collect();
        all.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        all.dedup();
        Self(all)
    }

    fn text(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), MASK);
            }
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|v| self.value(v)),
            Value::Object(fields) => fields.iter_mut().for_each(|(_, v)| self.value(v)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    pub(super) fn event(&self, event: &mut ChildEvent) {
        if self.0.is_empty() {
            return;
        }
        match event {
            ChildEvent::Retry { reason: text, .. }
            | ChildEvent::Stdout { line: text }
            | ChildEvent::Stderr { line: text }
            | ChildEvent::Iteration { value: text, .. }
            | ChildEvent::Note { text } => self.text(text),
            ChildEvent::StepFinished { failure, .. } => {
                failure.iter_mut().for_each(|text| self.text(text));
            }
            ChildEvent::DocumentStarted { .. }
            | ChildEvent::PhaseStarted { .. }
            | ChildEvent::StepStarted { .. }
            | ChildEvent::PhaseFinished { .. }
            | ChildEvent::DocumentFinished { .. } => {}
        }
    }

    pub(super) fn result(&self, result: &mut StepResult) {
        if self.0.is_empty() {
            return;
        }
        self.text(&mut result.failure_message);
        self.value(&mut result.inputs);
        self.value(&mut result.repeat);
        let texts = result.outputs.iter_mut().flat_map(Outputs::values_mut);
        texts.for_each(|text| self.text(text));
    }

    pub(super) fn failure(&self, failure: &mut Failure) {
        self.text(&mut failure.command);
        self.text(&mut failure.reason);
        failure.tail.iter_mut().for_each(|line| self.text(line));
    }
}
