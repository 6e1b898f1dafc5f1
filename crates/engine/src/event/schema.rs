//! The stream of events as documents have it: one table, from which the JSON Schema and the page of
//! `docs/formats/events.md` are made.

use serde_json::{Map, Value, json};

/// Version of the stream, which its first line says.
pub const EVENTS_VERSION: u32 = 1;

/// A kind of event.
pub(super) struct Kind {
    /// What `event` says.
    pub(super) name: &'static str,
    /// For people.
    text: &'static str,
    pub(super) fields: &'static [Field],
}

/// A member of an event.
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its type in JSON; `any` is all of them.
    kind: &'static str,
    /// Whether each event of the kind has it.
    pub(super) always: bool,
    text: &'static str,
}

const fn field(name: &'static str, kind: &'static str, text: &'static str) -> Field {
    Field {
        name,
        kind,
        always: true,
        text,
    }
}

const COMPONENT: Field = field("component", "string", "the document that it is of");
const PHASE: Field = field("phase", "string", "its phase");
const STEP: Field = field("step", "string", "its step");
const ID: Field = field("id", "string", "id of the layer, 64 hexadecimal digits");
const TITLE: Field = field("title", "string", "what people call the layer");
const FIRMWARE: Field = field("firmware", "string", "`bios` or `uefi`");

/// Every kind, in the order of a build.
pub(super) const KINDS: &[Kind] = &[
    Kind {
        name: "stream",
        text: "The first line, and only that.",
        fields: &[
            field("version", "integer", "version of the stream: 1"),
            field("program", "string", "`amiforge` and its version"),
        ],
    },
    Kind {
        name: "stage",
        text: "A part of the operation begins.",
        fields: &[
            field(
                "name",
                "string",
                "`resolve`, `download`, `unpack`, `layers`, `layout`, `emit`, `check`, `wait` …",
            ),
            field("detail", "string", "what it works on, for people"),
        ],
    },
    Kind {
        name: "progress",
        text: "How far a stage is. Sent often.",
        fields: &[
            field("name", "string", "the stage"),
            field("done", "integer", "units done"),
            field("total", "integer", "units in all"),
            field(
                "unit",
                "string",
                "`bytes`, or a countable noun: `packages`, `layers`",
            ),
        ],
    },
    Kind {
        name: "layer-cached",
        text: "A layer is in the store; nothing of it runs.",
        fields: &[ID, TITLE],
    },
    Kind {
        name: "layer-fetched",
        text: "A layer came from a shared cache, and is in the store.",
        fields: &[
            ID,
            TITLE,
            field("from", "string", "the cache, as `--cache-from` names it"),
            field("seconds", "number", "how long that took"),
            field("bytes", "integer", "length of its file"),
        ],
    },
    Kind {
        name: "layer-shared",
        text: "A layer was put into a shared cache.",
        fields: &[
            ID,
            TITLE,
            field("to", "string", "the cache, as `--cache-to` names it"),
            field("seconds", "number", "how long that took"),
            field("bytes", "integer", "bytes that were put"),
        ],
    },
    Kind {
        name: "layer-started",
        text: "A layer has to be made.",
        fields: &[
            ID,
            TITLE,
            field(
                "reason",
                "string",
                "why: the input that changed, for people",
            ),
        ],
    },
    Kind {
        name: "step-started",
        text: "A step of a component begins.",
        fields: &[
            COMPONENT,
            PHASE,
            STEP,
            field("action", "string", "its action module"),
        ],
    },
    Kind {
        name: "output",
        text: "A line that a step or script printed, secrets masked.",
        fields: &[
            field("stream", "string", "`stdout` or `stderr`"),
            field(
                "line",
                "string",
                "the line without its end; at most 16 KiB, a longer one comes as several",
            ),
        ],
    },
    Kind {
        name: "step-finished",
        text: "A step ended.",
        fields: &[
            COMPONENT,
            PHASE,
            STEP,
            field(
                "status",
                "string",
                "`success`, `failed`, `skipped` or `ignoredFailure`",
            ),
            field("seconds", "number", "how long it took"),
            Field {
                name: "failure",
                kind: "string",
                always: false,
                text: "what went wrong, when something did",
            },
        ],
    },
    Kind {
        name: "shell-started",
        text: "A shell is open and has the terminal.",
        fields: &[
            field("place", "string", "where it is, for people"),
            Field {
                name: "failure",
                kind: "string",
                always: false,
                text: "why the build failed, when it was opened for that",
            },
        ],
    },
    Kind {
        name: "shell-finished",
        text: "The shell was left.",
        fields: &[],
    },
    Kind {
        name: "layer-finished",
        text: "A layer was made and is in the store.",
        fields: &[
            ID,
            TITLE,
            field("seconds", "number", "how long it took"),
            field("bytes", "integer", "size of its file in the store"),
        ],
    },
    Kind {
        name: "artifact",
        text: "A file of the output is complete.",
        fields: &[
            field(
                "file",
                "string",
                "its name in the output folder, or its path",
            ),
            field("bytes", "integer", "its length"),
            field(
                "sha256",
                "string or null",
                "its SHA-256, where there is one",
            ),
        ],
    },
    Kind {
        name: "boot-started",
        text: "A boot begins.",
        fields: &[
            FIRMWARE,
            field("acceleration", "string", "`kvm` or `tcg`"),
            Field {
                name: "limitSeconds",
                kind: "integer",
                always: false,
                text: "how long it may take; earlier releases did not say",
            },
        ],
    },
    Kind {
        name: "milestone",
        text: "A boot got this far.",
        fields: &[
            FIRMWARE,
            field("milestone", "string", "its name"),
            field("seconds", "number", "since power-on"),
        ],
    },
    Kind {
        name: "boot-finished",
        text: "A boot ended.",
        fields: &[
            FIRMWARE,
            field("passed", "boolean", "whether the proof holds"),
            field("seconds", "number", "from power-on to power-off"),
        ],
    },
    Kind {
        name: "warning",
        text: "Something the user should know; also a problem of a document that is used all the same.",
        fields: &[field("message", "string", "one sentence")],
    },
    Kind {
        name: "unchanged",
        text: "Nothing had to be done.",
        fields: &[
            field("out", "string", "the output folder"),
            field("detail", "string", "what was found unchanged"),
        ],
    },
    Kind {
        name: "failed",
        text: "A build failed, and nothing more of it follows. Not told of one that was interrupted.",
        fields: &[
            field("error", "string", "what failed, with its causes"),
            Field {
                name: "hint",
                kind: "string",
                always: false,
                text: "what can be done about it",
            },
            field("exitCode", "integer", "what a build of it alone ends with"),
            field(
                "folder",
                "string or null",
                "where its logs and plan are, where it came so far",
            ),
        ],
    },
    Kind {
        name: "result",
        text: "With `--events -`: what the command would print with `--json`. The last line, unless the command fails.",
        fields: &[field("result", "any", "depends on the command")],
    },
];

/// Fields that an event of any kind may have.
const ANYWHERE: &[Field] = &[Field {
    name: "recipe",
    kind: "string",
    always: false,
    text: "of a build of several recipes, the one that it is of, as the command line names it",
}];

/// The JSON Schema of one line of the stream.
#[must_use]
pub(crate) fn event_schema() -> String {
    let mut choices = Vec::new();
    for kind in KINDS {
        let mut properties = Map::new();
        properties.insert("event".to_owned(), json!({ "const": kind.name }));
        let mut required = vec!["event"];
        for field in kind.fields.iter().chain(ANYWHERE) {
            let mut property = Map::new();
            property.insert("description".to_owned(), plain(field.text));
            match field.kind {
                "any" => None,
                "string or null" => property.insert("type".to_owned(), json!(["string", "null"])),
                kind => property.insert("type".to_owned(), kind.into()),
            };
            if field.kind == "integer" {
                property.insert("minimum".to_owned(), 0.into());
            }
            properties.insert(field.name.to_owned(), property.into());
            if field.always {
                required.push(field.name);
            }
        }
        choices.push(json!({
            "title": kind.name,
            "description": plain(kind.text),
            "type": "object",
            "properties": properties,
            "required": required,
        }));
    }
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "event of amiforge",
        "description": format!("One line of `--events`, version {EVENTS_VERSION}. Kinds and members may be added within a version.").replace('`', ""),
        "oneOf": choices,
    });
    let text = serde_json::to_string_pretty(&schema);
    format!("{}\n", text.unwrap_or_default())
}

fn plain(text: &str) -> Value {
    text.replace('`', "").into()
}

/// The kinds as a table of `docs/formats/events.md`.
#[cfg(test)]
pub(super) fn event_table() -> String {
    let row = |field: &Field| {
        let may = if field.always { "" } else { ", not always" };
        format!("`{}` ({}{may}): {}", field.name, field.kind, field.text)
    };
    let mut text = String::from("| `event` | When | Members |\n| --- | --- | --- |\n");
    for kind in KINDS {
        let fields: Vec<String> = kind.fields.iter().map(row).collect();
        text.push_str(&format!(
            "| `{}` | {} | {} |\n",
            kind.name,
            kind.text,
            fields.join("; ")
        ));
    }
    let fields: Vec<String> = ANYWHERE.iter().map(row).collect();
    text.push_str(&format!("| any | | {} |\n", fields.join("; ")));
    text
}
