//! Keeping secrets out of everything a run tells.

use serde_json::Value;

use super::Outputs;
use crate::event::{ChildEvent, Failure, StepResult};

/// What stands in a secret's place.
const MASK: &str = "********";

/// Shorter ones would turn any text into stars.
const SHORTEST: usize = 3;

/// What messages end with where they cut a text.
const CUTS: [&str; 2] = ["\"...", "…"];

/// Masks the beginning of a secret where a message was cut in its middle.
fn cut_short(text: &mut String, secret: &str) {
    for cut in CUTS {
        let mut from = 0;
        while let Some(at) = text[from..].find(cut).map(|i| from + i) {
            let before = &text[..at];
            let ends = secret.char_indices().map(|(i, _)| i).rev();
            let shown = ends
                .filter(|end| *end >= SHORTEST)
                .find(|end| before.ends_with(&secret[..*end]));
            from = match shown {
                Some(shown) => {
                    text.replace_range(at - shown..at, MASK);
                    at - shown + MASK.len() + cut.len()
                }
                None => at + cut.len(),
            };
        }
    }
}

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
            // As messages quote it, too.
            .flat_map(|value| [value.to_owned(), value.escape_debug().to_string()])
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
            cut_short(text, secret);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let mut text = text.to_owned();
        Secrets::of(["to\"ken-0123456789", "ab"].into_iter()).text(&mut text);
        text
    }

    #[test]
    fn whole_quoted_and_cut_secrets_are_masked() {
        assert_eq!(masked("a to\"ken-0123456789 b"), "a ******** b");
        assert_eq!(
            masked(r#"value "to\"ken-0123456789" is"#),
            r#"value "********" is"#
        );
        assert_eq!(masked("run to\"ken-01…"), "run ********…");
        assert_eq!(
            masked("\"x to\\\"ken-0\"... and on…"),
            "\"x ********\"... and on…"
        );
        // Too short to be told from any text.
        assert_eq!(masked("ab to… x"), "ab to… x");
    }
}
