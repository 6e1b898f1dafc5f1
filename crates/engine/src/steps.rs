//! What runs of component documents tell, as events of an operation, and how their failures are told at the end.

use std::time::Instant;

use amiforge_exec::{ChildEvent, Failure, RunResult};
use amiforge_recipe::Component;
use amiforge_types::Position;

use crate::event::Event;
use crate::settings::Engine;

/// Tells the events of runs, each under the name of the document that it is about.
pub(crate) struct Telling<'a> {
    engine: &'a Engine,
    /// What the outermost document is called; `None` for its own name.
    name: Option<&'a str>,
    /// What stands before names of documents.
    prefix: String,
    /// The documents that are open, the outermost first.
    open: Vec<String>,
    /// When the step at hand started.
    started: Instant,
}

impl<'a> Telling<'a> {
    /// Names documents as they name themselves.
    pub(crate) fn documents(engine: &'a Engine, prefix: String) -> Self {
        Self {
            engine,
            name: None,
            prefix,
            open: Vec::new(),
            started: Instant::now(),
        }
    }

    /// Names the outermost document `name`.
    pub(crate) fn component(engine: &'a Engine, name: &'a str) -> Self {
        Self {
            name: Some(name),
            ..Self::documents(engine, String::new())
        }
    }

    fn current(&self) -> String {
        let name = match (self.name, self.open.as_slice()) {
            (Some(name), [] | [_]) => name,
            (_, open) => open.last().map_or("", String::as_str),
        };
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn event(&mut self, event: ChildEvent) {
        let component = self.current();
        match event {
            ChildEvent::DocumentStarted { document } => self.open.push(document),
            ChildEvent::DocumentFinished { .. } => {
                self.open.pop();
            }
            ChildEvent::StepStarted {
                phase,
                step,
                action,
                ..
            } => {
                self.started = Instant::now();
                self.engine.emit(Event::StepStarted {
                    component,
                    phase,
                    step,
                    action,
                });
            }
            ChildEvent::Stdout { line } => self.engine.emit(Event::Output {
                stream: "stdout",
                line,
            }),
            ChildEvent::Stderr { line } => self.engine.emit(Event::Output {
                stream: "stderr",
                line,
            }),
            ChildEvent::StepFinished {
                phase,
                step,
                status,
                seconds,
                failure,
                ..
            } => self.engine.emit(Event::StepFinished {
                component,
                phase,
                step,
                status: serde_json::to_value(status)
                    .ok()
                    .and_then(|v| v.as_str().map(str::to_owned))
                    .unwrap_or_default(),
                seconds,
                failure,
            }),
            ChildEvent::Retry { attempt, reason } => self
                .engine
                .warn(format!("{component}: attempt {attempt}, since {reason}")),
            ChildEvent::Note { text } => self.engine.warn(format!("{component}: {text}")),
            _ => {}
        }
    }
}

/// Why a run failed: the step that ended it, and each that failed before, with its command and the end of its output.
/// `place` knows where a step stands in the file that its document is called by, if there is one.
pub(crate) fn failure_text(
    result: &RunResult,
    place: impl Fn(&Failure) -> Option<Position>,
) -> String {
    let Some(failure) = &result.failure else {
        return "the run failed".to_owned();
    };
    let one = |failure: &Failure| {
        // What a step runs by another's name is in another file.
        let at = Some(failure).filter(|f| f.within.is_empty());
        one(failure, at.and_then(&place))
    };
    let mut text = one(failure);
    for failure in &result.also {
        text.push_str("\n  also failed: ");
        text.push_str(&one(failure).replace('\n', "\n  "));
    }
    text
}

/// Where the step of a failure stands in its document.
pub(crate) fn place_in(component: &Component, failure: &Failure) -> Option<Position> {
    let steps = component.steps_of(&failure.phase);
    let (_, step) = steps.iter().find(|(name, _)| *name == failure.step)?;
    Some(step.span.start)
}

fn one(failure: &Failure, place: Option<Position>) -> String {
    let mut text = failure.to_string();
    if let Some(Position { line, column, .. }) = place
        && text.starts_with(&failure.document)
    {
        text.insert_str(failure.document.len(), &format!(":{line}:{column}"));
    }
    if failure.went_on {
        text.push_str(" (onFailure: Continue)");
    }
    if !failure.command.is_empty() {
        let command = failure.command.trim_end().replace('\n', "\n           ");
        text.push_str(&format!("\n  command: {command}"));
    }
    push_tail(&mut text, &failure.tail);
    text
}

/// The last lines of output, below a message.
pub(crate) fn push_tail(text: &mut String, tail: &[String]) {
    for line in tail {
        text.push_str("\n  | ");
        text.push_str(line);
    }
}
