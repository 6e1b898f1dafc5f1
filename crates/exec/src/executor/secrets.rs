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
pub(crate) struct Secrets(Vec<String>);

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

    pub(crate) fn text(&self, text: &mut String) {
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
            ChildEvent::Fetched { download } => self.text(&mut download.source),
            ChildEvent::StepFinished { failure, .. } => {
                failure.iter_mut().for_each(|text| self.text(text));
            }
            // A document that a step runs may be named by a secret.
            ChildEvent::DocumentStarted { document }
            | ChildEvent::DocumentFinished { document, .. } => self.text(document),
            ChildEvent::PhaseStarted { .. }
            | ChildEvent::StepStarted { .. }
            | ChildEvent::PhaseFinished { .. } => {}
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
        // What is in the documents was masked when it ended; they are named from here.
        for run in &mut result.nested {
            run.documents
                .iter_mut()
                .for_each(|d| self.text(&mut d.file));
            let failures = run.failure.iter_mut().chain(&mut run.also);
            failures.for_each(|failure| self.failure(failure));
        }
    }

    pub(super) fn failure(&self, failure: &mut Failure) {
        self.text(&mut failure.document);
        failure.within.iter_mut().for_each(|step| self.text(step));
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
    fn documents_named_by_a_secret_are_told_without_it() {
        let secrets = Secrets::of(["s3cr3t-name"].into_iter());
        let document = || "/srv/s3cr3t-name/inner.yaml".to_owned();
        let mut started = ChildEvent::DocumentStarted {
            document: document(),
        };
        secrets.event(&mut started);
        let mut failure = Failure {
            document: document(),
            phase: "build".to_owned(),
            step: "One".to_owned(),
            action: "ExecuteBash".to_owned(),
            command: "cat s3cr3t-name".to_owned(),
            exit_code: Some(1),
            reason: "no s3cr3t-name".to_owned(),
            tail: vec!["s3cr3t-name".to_owned()],
            went_on: false,
            within: Vec::new(),
        };
        secrets.failure(&mut failure);
        let told = format!("{started:?} {failure:?} {failure}");
        assert!(!told.contains("s3cr3t"), "{told}");
        assert!(told.contains("/srv/********/inner.yaml"), "{told}");
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
