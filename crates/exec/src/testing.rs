//! For tests: one step on the live root of the test machine, which works below a temporary folder.

use std::collections::BTreeMap;
use std::time::Duration;

use amiforge_types::Timestamp;

use crate::net::Patience;
use crate::{ChildEvent, DocumentSpec, Outside, RunResult, RunSpec, Status, StepResult};

/// What a step came to.
pub(crate) struct Ran {
    pub(crate) result: RunResult,
    pub(crate) events: Vec<ChildEvent>,
}

/// Tries without a pause, and little time for silence.
pub(crate) fn impatient() -> Outside {
    Outside {
        patience: Patience {
            pause: Duration::ZERO,
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(20),
            bytes: 1 << 20,
            ..Patience::default()
        },
        ..Outside::default()
    }
}

/// Runs one step with these fields and inputs (YAML, one line each).
pub(crate) fn step(fields: &str, inputs: &[String], outside: &Outside) -> Ran {
    step_in(fields, inputs, outside, &[])
}

/// The same with variables.
pub(crate) fn step_in(
    fields: &str,
    inputs: &[String],
    outside: &Outside,
    env: &[(&str, &str)],
) -> Ran {
    let entries: String = inputs
        .iter()
        .map(|entry| format!("          - {{{entry}}}\n"))
        .collect();
    let text = format!(
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Step\n        \
         {fields}\n        inputs:\n{entries}"
    );
    let spec = RunSpec {
        execution_id: "1".to_owned(),
        documents: vec![DocumentSpec {
            name: "test.yaml".to_owned(),
            text,
            parameters: BTreeMap::new(),
            earlier: Vec::new(),
            working_directory: None,
        }],
        phases: vec!["build".to_owned()],
        env: env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        clock: Timestamp::from_secs(1_700_000_000),
        ..RunSpec::default()
    };
    let mut events = Vec::new();
    let result = crate::run_here(&spec, outside, &mut |event| events.push(event));
    Ran { result, events }
}

impl Ran {
    pub(crate) fn step(&self) -> &StepResult {
        match self.result.documents[0]
            .phases
            .first()
            .and_then(|p| p.steps.first())
        {
            Some(step) => step,
            None => panic!("{:?}", self.result.failure),
        }
    }

    /// Panics unless it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(
            self.result.status,
            Status::Success,
            "{:?}",
            self.result.failure
        );
        self
    }

    /// Why it failed.
    #[track_caller]
    pub(crate) fn reason(&self) -> &str {
        match &self.result.failure {
            Some(failure) => &failure.reason,
            None => panic!("it succeeded: {:?}", self.step()),
        }
    }

    /// Remarks of the executor.
    pub(crate) fn notes(&self) -> Vec<&str> {
        self.events
            .iter()
            .filter_map(|event| match event {
                ChildEvent::Note { text } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}
