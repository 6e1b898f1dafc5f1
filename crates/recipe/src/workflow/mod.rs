//! Workflow documents, schema version 1.0: what the service does around a build, a test or a
//! distribution. They are checked and not run: here a build has one fixed order.
//! Source: Image Builder user guide, create a YAML workflow document.

pub(crate) mod actions;
pub(crate) mod condition;

use std::collections::BTreeMap;

use amiforge_types::{Diagnostics, Span};

use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Key, Node, NodeKind};
use crate::trace::Asked;
use crate::{suggest, yaml};
use actions::{ACTIONS, Action, Kind, SYSTEM_VARIABLES};

/// Which part of the making of an image a workflow is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Build,
    Test,
    Distribution,
}

impl Stage {
    /// From the `type` of the resource.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "BUILD" => Some(Self::Build),
            "TEST" => Some(Self::Test),
            "DISTRIBUTION" => Some(Self::Distribution),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Test => "test",
            Self::Distribution => "distribution",
        }
    }
}

/// Most steps of a document.
const MOST_STEPS: usize = 15;
/// The longest `timeoutSeconds` that the step table of the guide knows.
const DAY: i64 = 86_400;
/// The largest `payload` of a `WaitForAction`.
const MOST_PAYLOAD: usize = 16 << 10;

/// What references can name.
struct Names<'n> {
    parameters: BTreeMap<&'n str, &'n str>,
    /// The steps so far, with their action where it is known.
    steps: BTreeMap<&'n str, Option<&'static Action>>,
}

/// Checks a workflow document; `stage` is known where a resource says it.
pub(crate) fn check(document: &Node, stage: Option<Stage>, diags: &mut Diagnostics) {
    check_document(document, stage, &mut Cx::new(diags));
}

/// The same; what is asked for goes into the trace of `cx`.
pub(crate) fn check_document(document: &Node, stage: Option<Stage>, cx: &mut Cx<'_>) {
    yaml::deny_tags(document, cx);
    let Some(mut fields) = Fields::of(document, "a workflow document", cx) else {
        return;
    };
    fields.optional("name", cx, |n, cx| decode::limited(n, cx, 1024));
    fields.optional("description", cx, |n, cx| decode::limited(n, cx, 1024));
    fields.required("schemaVersion", cx, schema_version);
    let mut names = Names {
        parameters: BTreeMap::new(),
        steps: BTreeMap::new(),
    };
    if let Some(node) = fields.node("parameters", cx) {
        parameters(node, &mut names, cx);
    }
    fields.required("steps", cx, |n, cx| {
        steps(n, &mut names, stage, cx);
        Some(())
    });
    if let Some(node) = fields.node("outputs", cx) {
        outputs(node, &names, cx);
    }
    fields.deny_unknown(cx);
}

fn schema_version(node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    let text = decode::text(node, cx)?;
    cx.asks(node.span, || Asked::words(&["1.0", "1"]));
    if text != "1.0" && text != "1" && !node.is_opaque() {
        let message = format!("schema version {} is not supported", shown(&text));
        let help = Some("write `schemaVersion: 1.0`".to_owned());
        cx.error_help("unsupported-schema", node.span, message, help);
    }
    Some(())
}

fn parameters<'n>(node: &'n Node, names: &mut Names<'n>, cx: &mut Cx<'_>) {
    let Some(items) = decode::seq(node, cx) else {
        return;
    };
    for item in items {
        let Some(mut fields) = Fields::of(item, "a workflow parameter", cx) else {
            continue;
        };
        let name = fields.node("name", cx);
        let kind = fields.required("type", cx, |n, cx| {
            decode::choice(
                n,
                cx,
                &["string", "integer", "boolean", "stringList"].map(|k| (k, k)),
            )
        });
        if let (Some(default), Some(kind)) = (fields.node("default", cx), kind) {
            match kind {
                "integer" => {
                    decode::integer(default, cx, i64::MIN..=i64::MAX);
                }
                "boolean" => {
                    decode::boolean(default, cx);
                }
                "stringList" => {
                    decode::list(default, cx, decode::text);
                }
                _ => {
                    decode::text(default, cx);
                }
            }
        }
        fields.optional("description", cx, |n, cx| decode::limited(n, cx, 1024));
        fields.deny_unknown(cx);
        match name {
            None => fields.missing("name", cx),
            Some(node) => {
                if let Some(text) = unique(node, "parameter", &names.parameters, cx) {
                    names.parameters.insert(text, kind.unwrap_or("string"));
                }
            }
        }
    }
}

/// A name of 1 to 128 characters that is not there yet.
fn unique<'n, T>(
    node: &'n Node,
    what: &str,
    there: &BTreeMap<&'n str, T>,
    cx: &mut Cx<'_>,
) -> Option<&'n str> {
    decode::limited(node, cx, 128)?;
    let text = node.as_text()?;
    if there.contains_key(text) {
        let message = format!("the name `{text}` is taken by another {what}");
        cx.error("duplicate-name", node.span, message);
        return None;
    }
    Some(text)
}

fn steps<'n>(node: &'n Node, names: &mut Names<'n>, stage: Option<Stage>, cx: &mut Cx<'_>) {
    let Some(items) = decode::seq(node, cx) else {
        return;
    };
    if items.is_empty() && !node.is_opaque() {
        cx.error("empty-value", node.span, "`steps` has no entry");
    }
    if items.len() > MOST_STEPS {
        let message = format!(
            "a workflow has at most {MOST_STEPS} steps, this has {}",
            items.len()
        );
        cx.error("out-of-range", node.span, message);
    }
    // More say nothing new, and each looks at those before it.
    for item in items.iter().take(4 * MOST_STEPS) {
        step(item, names, stage, cx);
    }
}

fn step<'n>(node: &'n Node, names: &mut Names<'n>, stage: Option<Stage>, cx: &mut Cx<'_>) {
    let Some(mut fields) = Fields::of(node, "a workflow step", cx) else {
        return;
    };
    let name = fields.required("name", cx, |n, cx| {
        let text = unique(n, "step", &names.steps, cx)?;
        let fits = (3..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !fits && !n.is_opaque() {
            let message = format!("{} is not the name of a workflow step", shown(text));
            let help = Some("use 3 to 128 letters, digits and `_`".to_owned());
            cx.error_help("invalid-name", n.span, message, help);
        }
        Some(text)
    });
    let action = fields.required("action", cx, action);
    fields.optional("description", cx, |n, cx| decode::limited(n, cx, 1024));
    if let Some(condition) = fields.node("if", cx) {
        condition::check(condition, cx);
        references(condition, names, cx);
    }
    fields.optional("onFailure", cx, |n, cx| {
        decode::choice(n, cx, &[("Abort", ()), ("Continue", ())])
    });
    fields.optional("rollbackEnabled", cx, decode::boolean);
    fields.optional("timeoutSeconds", cx, |n, cx| timeout(n, action, cx));
    let inputs = fields.node("inputs", cx);
    fields.deny_unknown(cx);
    if let Some(action) = action {
        self::inputs(inputs, action, node.span, cx);
        on_stage(action, stage, fields.peek("action").unwrap_or(node), cx);
    }
    if let Some(inputs) = inputs {
        references(inputs, names, cx);
    }
    if let Some(name) = name {
        names.steps.insert(name, action);
    }
}

fn action(node: &Node, cx: &mut Cx<'_>) -> Option<&'static Action> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || {
        Asked::Choice(
            ACTIONS
                .iter()
                .map(|action| action.name.to_owned())
                .collect(),
        )
    });
    let found = ACTIONS.iter().find(|action| action.name == text);
    if found.is_none() && !node.is_opaque() {
        let names = ACTIONS.iter().map(|action| action.name);
        let help = suggest::did_you_mean(&text, names.clone())
            .unwrap_or_else(|| format!("actions are {}", names.collect::<Vec<_>>().join(", ")));
        let message = format!("there is no workflow action {}", shown(&text));
        cx.error_help("unknown-action", node.span, message, Some(help));
    }
    found
}

fn on_stage(action: &Action, stage: Option<Stage>, at: &Node, cx: &mut Cx<'_>) {
    let Some(stage) = stage else { return };
    if !action.stages.is_empty() && !action.stages.contains(&stage) {
        let message = format!(
            "`{}` cannot stand in a {} workflow",
            action.name,
            stage.name()
        );
        cx.error("wrong-stage", at.span, message);
    }
}

fn timeout(node: &Node, action: Option<&Action>, cx: &mut Cx<'_>) -> Option<()> {
    // Of an action that is not known, whatever one can get.
    let longest = || ACTIONS.iter().map(|action| action.most_minutes).max();
    let most = action.map_or_else(longest, |action| Some(action.most_minutes));
    let most = most.map_or(DAY, |minutes| minutes * 60);
    let seconds = decode::integer(node, cx, 1..=most.max(DAY))?;
    if seconds > most {
        let message = format!("the action gets at most {most} seconds, not {seconds}");
        let help = "the step table of the guide allows 86400, the page of the action less";
        cx.warning("aws-limit", node.span, message, help);
    }
    Some(())
}

fn inputs(node: Option<&Node>, action: &'static Action, step: Span, cx: &mut Cx<'_>) {
    static NONE: [(Key, Node); 0] = [];
    let given: &[(Key, Node)] = match node.map(|n| (n, &n.kind)) {
        None => &NONE,
        Some((_, NodeKind::Map(fields))) => fields,
        Some((node, _)) if node.is_opaque() || node.is_null() => &NONE,
        Some((node, _)) => {
            decode::wrong_type(node, "a mapping", cx);
            return;
        }
    };
    let span = node.map_or(step, |n| n.span);
    let what = format!("the action `{}`", action.name);
    for (key, value) in given {
        let (name, dynamic) = match key.text.strip_suffix(".$") {
            Some(name) => (name, true),
            None => (key.text.as_str(), false),
        };
        let Some(input) = action.inputs.iter().find(|input| input.name == name) else {
            let names = action.inputs.iter().map(|input| input.name);
            let help = suggest::did_you_mean(name, names.clone())
                .unwrap_or_else(|| format!("inputs: {}", names.collect::<Vec<_>>().join(", ")));
            let message = format!("{what} has no input {}", shown(name));
            cx.error_help("unknown-field", key.span, message, Some(help));
            continue;
        };
        let other = format!("{name}.$");
        if dynamic && given.iter().any(|(k, _)| k.text == name) {
            let message = format!("`{name}` and `{other}` cannot both be given");
            cx.error("conflicting-fields", key.span, message);
        }
        value_of(input.name, input.kind, dynamic, value, cx);
    }
    for input in action.inputs.iter().filter(|input| input.required) {
        let there = |key: &str| key.strip_suffix(".$").unwrap_or(key) == input.name;
        if !given.iter().any(|(key, _)| there(&key.text)) && !node.is_some_and(Node::is_opaque) {
            let message = format!("{what} needs the input `{}`", input.name);
            cx.error("missing-field", span, message);
        }
    }
    if action.name == "WaitForAction" {
        wait_for_action(given, cx);
    }
}

/// Who is told to act: a topic or a function, with at most 16 KiB.
fn wait_for_action(given: &[(Key, Node)], cx: &mut Cx<'_>) {
    let place = |name: &str| {
        let found = given
            .iter()
            .find(|(key, _)| key.text.strip_suffix(".$").unwrap_or(&key.text) == name);
        found.map(|(key, _)| key.span)
    };
    if let (Some(_), Some(span)) = (place("snsTopicArn"), place("lambdaFunctionName")) {
        let message = "only one of `snsTopicArn` and `lambdaFunctionName` can be given";
        cx.error("conflicting-fields", span, message);
    }
    let payload = given.iter().find(|(key, _)| key.text == "payload");
    let Some((_, payload)) = payload else { return };
    let Some(text) = payload.as_text().filter(|_| !payload.is_opaque()) else {
        return;
    };
    if text.len() > MOST_PAYLOAD {
        let message = format!(
            "a payload has at most {MOST_PAYLOAD} bytes, this {}",
            text.len()
        );
        cx.error("out-of-range", payload.span, message);
    }
}

fn value_of(name: &str, kind: Kind, dynamic: bool, value: &Node, cx: &mut Cx<'_>) {
    if dynamic {
        let Some(text) = decode::filled(value, cx) else {
            return;
        };
        if !text.starts_with("$.") && !text.contains("{{") && !value.is_opaque() {
            let message = format!("{} is not a reference", shown(&text));
            let help = format!(
                "write `{name}: …` for a plain value, or a path such as `$.stepOutputs.<step>.<output>`"
            );
            cx.error_help("invalid-reference", value.span, message, Some(help));
        }
        return;
    }
    match kind {
        Kind::Any => {}
        Kind::Text => {
            decode::filled(value, cx);
            if value.as_text().is_some_and(|text| text.starts_with("$.")) {
                let message = format!("`{name}` is given the path itself, not what it leads to");
                let help = format!("write the key as `{name}.$`");
                cx.warning("invalid-reference", value.span, message, &help);
            }
        }
        Kind::Bool => {
            if !value.as_text().is_some_and(|text| text.contains("$.")) {
                decode::boolean(value, cx);
            }
        }
        Kind::List => {
            decode::seq(value, cx);
        }
        Kind::Map => {
            Fields::of(value, "`parameters`", cx);
        }
        Kind::Choice(words) => {
            let words: Vec<(&str, ())> = words.iter().map(|word| (*word, ())).collect();
            decode::choice(value, cx, &words);
        }
    }
}

fn outputs(node: &Node, names: &Names<'_>, cx: &mut Cx<'_>) {
    let Some(items) = decode::seq(node, cx) else {
        return;
    };
    let mut seen: BTreeMap<&str, ()> = BTreeMap::new();
    for item in items {
        let Some(mut fields) = Fields::of(item, "a workflow output", cx) else {
            continue;
        };
        match fields.node("name", cx) {
            None => fields.missing("name", cx),
            Some(node) => {
                if let Some(name) = unique(node, "output", &seen, cx) {
                    seen.insert(name, ());
                }
            }
        }
        // A value may also be a reference under `value.$`, as inputs have it.
        let dynamic = fields.node("value.$", cx);
        cx.asks(item.span, || Asked::OneOf(vec!["value", "value.$"]));
        match fields.node("value", cx).or(dynamic) {
            None => fields.missing("value", cx),
            Some(value) => references(value, names, cx),
        }
        fields.deny_unknown(cx);
    }
}

/// Checks every reference in a value: a text that begins with `$.`, and `{{ $.… }}` inside others.
fn references(node: &Node, names: &Names<'_>, cx: &mut Cx<'_>) {
    match &node.kind {
        NodeKind::Seq(items) => items.iter().for_each(|n| references(n, names, cx)),
        NodeKind::Map(fields) => fields.iter().for_each(|(_, n)| references(n, names, cx)),
        NodeKind::Scalar(scalar) => {
            let text = scalar.text.as_str();
            if text.starts_with("$.") {
                reference(text, node, names, cx);
                return;
            }
            let mut rest = text;
            while let Some((_, after)) = rest.split_once("{{") {
                let Some((inner, next)) = after.split_once("}}") else {
                    return;
                };
                if inner.trim().starts_with("$.") {
                    reference(inner.trim(), node, names, cx);
                }
                rest = next;
            }
        }
    }
}

fn reference(path: &str, node: &Node, names: &Names<'_>, cx: &mut Cx<'_>) {
    let parts: Vec<&str> = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or(part))
        .collect();
    let fault = |message: String, help: Option<String>, cx: &mut Cx<'_>| {
        cx.error_help("unknown-reference", node.span, message, help);
    };
    match parts.as_slice() {
        ["$", "parameters", name, ..] => {
            if !names.parameters.contains_key(name) {
                let few = names.parameters.keys().copied().take(64);
                let help = suggest::did_you_mean(name, few);
                fault(format!("there is no parameter {}", shown(name)), help, cx);
            }
        }
        ["$", "stepOutputs", step, output, ..] => match names.steps.get(step) {
            None => {
                let help = suggest::did_you_mean(step, names.steps.keys().copied());
                let message = format!("there is no step {} before this one", shown(step));
                fault(message, help, cx);
            }
            Some(Some(action)) if !action.outputs.contains(output) => {
                let message = format!(
                    "`{step}` has no output {}; `{}` has {}",
                    shown(output),
                    action.name,
                    if action.outputs.is_empty() {
                        "none".to_owned()
                    } else {
                        action.outputs.join(", ")
                    }
                );
                let help = suggest::did_you_mean(output, action.outputs.iter().copied());
                fault(message, help, cx);
            }
            Some(_) => {}
        },
        ["$", "imagebuilder", name, ..] => {
            if !SYSTEM_VARIABLES.contains(name) {
                let help = suggest::did_you_mean(name, SYSTEM_VARIABLES.iter().copied());
                let message = format!("there is no variable {}", shown(name));
                fault(message, help, cx);
            }
        }
        ["$", "workflowOutputs", _, ..] => {}
        _ => {
            let help = "references begin with $.parameters, $.stepOutputs.<step>, $.imagebuilder or $.workflowOutputs";
            let message = format!("{} leads nowhere", shown(path));
            fault(message, Some(help.to_owned()), cx);
        }
    }
}
