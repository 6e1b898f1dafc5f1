use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_types::{Diagnostic, Span};
use serde_json::Value;

use super::Event;
use super::schema::{KINDS, event_schema, event_table};

fn samples() -> Vec<Event> {
    let text = || "text".to_owned();
    let (id, title, firmware) = (text, text, text);
    let all = vec![
        Event::Stage {
            name: "resolve",
            detail: text(),
        },
        Event::Progress {
            name: "download",
            done: 1,
            total: 2,
            unit: "bytes",
        },
        Event::LayerCached {
            id: id(),
            title: title(),
        },
        Event::LayerFetched {
            id: id(),
            title: title(),
            from: text(),
            seconds: 1.0,
            bytes: 1,
        },
        Event::LayerShared {
            id: id(),
            title: title(),
            to: text(),
            seconds: 1.0,
            bytes: 1,
        },
        Event::LayerStarted {
            id: id(),
            title: title(),
            reason: text(),
        },
        Event::LayerFinished {
            id: id(),
            title: title(),
            seconds: 1.0,
            bytes: 1,
        },
        Event::StepStarted {
            component: text(),
            phase: text(),
            step: text(),
            action: text(),
        },
        Event::Output {
            stream: "stdout",
            line: text(),
        },
        Event::StepFinished {
            component: text(),
            phase: text(),
            step: text(),
            status: text(),
            seconds: 1.0,
            failure: Some(text()),
        },
        Event::ShellStarted {
            place: text(),
            failure: Some(text()),
        },
        Event::ShellFinished {},
        Event::Artifact {
            file: text(),
            bytes: 1,
            sha256: None,
        },
        Event::BootStarted {
            firmware: firmware(),
            acceleration: text(),
            limit_seconds: 1,
        },
        Event::Milestone {
            firmware: firmware(),
            milestone: text(),
            seconds: 1.0,
        },
        Event::BootFinished {
            firmware: firmware(),
            passed: true,
            seconds: 1.0,
        },
        Event::Warning { message: text() },
        Event::Problem {
            message: text(),
            path: PathBuf::new(),
            text: Arc::from(""),
            diagnostic: Diagnostic::error("code", Span::default(), "message"),
        },
        Event::Failed {
            error: text(),
            hint: Some(text()),
            exit_code: 1,
            folder: None,
        },
        Event::Unchanged {
            out: text(),
            detail: text(),
        },
    ];
    // One of a new kind belongs above, and into the table.
    for event in &all {
        match event {
            Event::Stage { .. }
            | Event::Progress { .. }
            | Event::LayerCached { .. }
            | Event::LayerFetched { .. }
            | Event::LayerShared { .. }
            | Event::LayerStarted { .. }
            | Event::LayerFinished { .. }
            | Event::StepStarted { .. }
            | Event::Output { .. }
            | Event::StepFinished { .. }
            | Event::ShellStarted { .. }
            | Event::ShellFinished {}
            | Event::Artifact { .. }
            | Event::BootStarted { .. }
            | Event::Milestone { .. }
            | Event::BootFinished { .. }
            | Event::Warning { .. }
            | Event::Problem { .. }
            | Event::Failed { .. }
            | Event::Unchanged { .. } => {}
        }
    }
    all
}

#[test]
fn the_table_has_every_event_with_its_members_and_no_other() {
    let mut seen = BTreeSet::from(["stream", "result"]);
    for event in samples() {
        let value = serde_json::to_value(&event).unwrap();
        let name = value["event"].as_str().unwrap();
        let kind = KINDS.iter().find(|kind| kind.name == name);
        let kind = kind.unwrap_or_else(|| panic!("{name} is not in the table"));
        let members = value.as_object().unwrap().keys().filter(|k| *k != "event");
        let members: BTreeSet<&str> = members.map(String::as_str).collect();
        let fields: BTreeSet<&str> = kind.fields.iter().map(|field| field.name).collect();
        assert_eq!(members, fields, "{name}");
        seen.insert(kind.name);
    }
    let kinds: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(kinds, seen);
    assert_eq!(kinds.len(), KINDS.len());
}

/// A published text, written when `AMIFORGE_BLESS` asks for it.
fn published(path: &str, now: &dyn Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    let now = now(&was);
    if std::env::var_os("AMIFORGE_BLESS").is_some() {
        std::fs::write(&path, &now).unwrap();
    } else {
        assert!(was == now, "{} is old: cargo xtask schema", path.display());
    }
}

#[test]
fn published_descriptions_are_those_of_the_table() {
    published("docs/schema/event.schema.json", &|_| event_schema());
    published("docs/formats/events.md", &|was| {
        let marks = ("<!-- kinds -->\n", "<!-- end of kinds -->");
        let (head, rest) = was.split_once(marks.0).unwrap();
        let (_, tail) = rest.split_once(marks.1).unwrap();
        format!("{head}{}{}{}{tail}", marks.0, event_table(), marks.1)
    });
    let schema: Value = serde_json::from_str(&event_schema()).unwrap();
    assert_eq!(schema["oneOf"].as_array().unwrap().len(), KINDS.len());
}
