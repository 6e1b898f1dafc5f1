//! Reading a component document.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostics, Span};

use super::{
    Component, Constant, OnFailure, ParameterSpec, Phase, Step, check, conditional, repeat,
};
use crate::actions::ActionKind;
use crate::decode::{self, Cx, Fields, shown};
use crate::inline::Texts;
use crate::node::{Key, Node, NodeKind};
use crate::reference::{VARIABLE_NAME_CHARS, is_name};
use crate::trace::Asked;
use crate::{folded, suggest, yaml};

/// Default of `timeoutSeconds`.
const DEFAULT_TIMEOUT: u32 = 7_200;
/// The longest inline document of the service, in characters.
const SERVICE_INLINE_CHARS: usize = 16_000;

/// Reads a component document. The component is there exactly when no problem is an error.
#[must_use]
pub fn parse_component(text: &str) -> (Option<Component>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let component = yaml::parse_node(text, &mut diags)
        .and_then(|node| component(node, Texts::alone(text), &mut diags));
    (component.filter(|_| !diags.has_errors()), diags)
}

pub(crate) fn component(
    document: Node,
    text: Texts<'_>,
    diags: &mut Diagnostics,
) -> Option<Component> {
    let mut cx = Cx::new(diags);
    cx.source = text.source;
    decode_document(document, text.own, &mut cx)
}

/// The same; what is asked for goes into the trace of `cx`.
pub(crate) fn decode_document(document: Node, text: &str, cx: &mut Cx<'_>) -> Option<Component> {
    yaml::deny_tags(&document, cx);
    let mut fields = Fields::of(&document, "a component document", cx)?;
    let name = fields.optional("name", cx, decode::text);
    let description = fields.optional("description", cx, decode::text);
    let version = fields.required("schemaVersion", cx, schema_version);
    let mut names = BTreeMap::new();
    let parameters = fields.optional("parameters", cx, |n, cx| {
        declarations(n, cx, &mut names, parameter)
    });
    let constants = fields.optional("constants", cx, |n, cx| {
        declarations(n, cx, &mut names, constant)
    });
    let phases = fields.required("phases", cx, phases);
    fields.deny_unknown(cx);
    if text.chars().count() > SERVICE_INLINE_CHARS {
        let message = format!("the document is longer than {SERVICE_INLINE_CHARS} characters");
        cx.warning(
            "aws-limit",
            document.span,
            message,
            "the service takes it from S3 only; nothing changes here",
        );
    }
    check::references(&document, &names, cx);

    version?;
    Some(Component {
        name: name?,
        description: description?,
        parameters: parameters?.unwrap_or_default(),
        constants: constants?.unwrap_or_default(),
        phases: phases?,
        document: document.clone(),
    })
}

fn schema_version(node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    let text = decode::text(node, cx)?;
    cx.asks(node.span, || Asked::words(&["1.0", "1"]));
    // AWS's own examples write both.
    if text != "1.0" && text != "1" {
        let message = format!("schema version {} is not supported", shown(&text));
        cx.error_help(
            "unsupported-schema",
            node.span,
            message,
            Some("write `schemaVersion: 1.0`".to_owned()),
        );
        return None;
    }
    Some(())
}

/// A list of mappings with one key each: `- Name: {type: string, ...}`.
fn declarations<T>(
    node: &Node,
    cx: &mut Cx<'_>,
    names: &mut BTreeMap<String, Span>,
    one: fn(&Key, &Node, &mut Cx<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut out = Vec::new();
    let mut ok = true;
    for item in decode::seq(node, cx)? {
        let NodeKind::Map(fields) = &item.kind else {
            decode::wrong_type(item, "a mapping with the name as its key", cx);
            ok = false;
            continue;
        };
        if fields.len() != 1 {
            let help = "write `- Name: {type: string, ...}`, the fields indented below the name";
            let message = format!(
                "an entry declares exactly one name, this has {} keys",
                fields.len()
            );
            cx.error_help("wrong-type", item.span, message, Some(help.to_owned()));
            ok = false;
            continue;
        }
        cx.asks(item.span, || Asked::Named { most: 1 });
        for (key, value) in fields {
            check_variable_name(key, cx);
            if let Some(first) = names.get(&key.text) {
                let line = first.start.line;
                cx.error(
                    "duplicate-name",
                    key.span,
                    format!("`{}` is already declared in line {line}", key.text),
                );
            } else {
                names.insert(key.text.clone(), key.span);
            }
            match one(key, value, cx) {
                Some(declared) => out.push(declared),
                None => ok = false,
            }
        }
    }
    ok.then_some(out)
}

fn check_variable_name(key: &Key, cx: &mut Cx<'_>) {
    if !is_name(&key.text) || !VARIABLE_NAME_CHARS.contains(&key.text.len()) {
        let message = format!(
            "{} is not a name of a parameter or constant",
            shown(&key.text)
        );
        let help = Some("use 3 to 128 letters, digits, `_` and `-`".to_owned());
        cx.error_help("invalid-name", key.span, message, help);
    } else if is_no_text(&key.text) && is_plain(key.span, cx.source) {
        let message = format!(
            "the name `{0}` is no text for AWSTOE, which wants one",
            key.text
        );
        let help = format!("put quotes around it: `'{}'`", key.text);
        cx.warning("invalid-name", key.span, message, &help);
    }
}

/// Whether YAML takes this, without quotes, for a number, a boolean, null or a date.
fn is_no_text(text: &str) -> bool {
    let (mut digits, mut dashes) = (0, 0);
    for b in text.bytes() {
        digits += usize::from(b.is_ascii_digit());
        dashes += usize::from(b == b'-');
    }
    let number = digits > 0 && digits + usize::from(text.starts_with('-')) == text.len();
    let base = ["0x", "0o"].iter().any(|base| {
        text.strip_prefix(base)
            .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()))
    });
    let date = digits == 8 && dashes == 2 && text.len() == 10;
    let words = ["true", "false", "null"];
    number || base || date || words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a key stands without quotes; not known without the text.
fn is_plain(span: Span, source: &str) -> bool {
    source
        .get(span.start.offset..)
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
}

fn string_type(node: &Node, cx: &mut Cx<'_>) -> Option<()> {
    let text = decode::text(node, cx)?;
    cx.asks(node.span, || Asked::words(&["string"]));
    if text != "string" {
        let message = format!("type {} is not supported", shown(&text));
        cx.error_help(
            "unsupported-type",
            node.span,
            message,
            Some("write `type: string`".to_owned()),
        );
        return None;
    }
    Some(())
}

/// A plain `value:` with nothing after it is the empty text it looks like; so is a plain null.
fn value_text(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    if node.is_null() {
        Some(String::new())
    } else {
        decode::text(node, cx)
    }
}

fn parameter(key: &Key, node: &Node, cx: &mut Cx<'_>) -> Option<ParameterSpec> {
    let mut fields = Fields::of(node, "a parameter", cx)?;
    let kind = fields.required("type", cx, string_type);
    let default = fields.optional("default", cx, |n, cx| Some((value_text(n, cx)?, n.span)));
    let description = fields.optional("description", cx, decode::text);
    let allowed = fields.optional("allowedValues", cx, |n, cx| {
        decode::list(n, cx, decode::text)
    });
    fields.deny_unknown(cx);
    kind?;
    let (default, allowed_values) = (default?, allowed?);
    if let (Some((value, span)), Some(allowed)) = (&default, &allowed_values)
        && !allowed.contains(value)
    {
        cx.error(
            "invalid-choice",
            *span,
            format!("the default {} is not among `allowedValues`", shown(value)),
        );
        return None;
    }
    Some(ParameterSpec {
        name: key.text.clone(),
        default: default.map(|(value, _)| value),
        description: description?,
        allowed_values,
        span: key.span,
    })
}

fn constant(key: &Key, node: &Node, cx: &mut Cx<'_>) -> Option<Constant> {
    let mut fields = Fields::of(node, "a constant", cx)?;
    let kind = fields.required("type", cx, string_type);
    let value = fields.required("value", cx, value_text);
    fields.deny_unknown(cx);
    kind?;
    Some(Constant {
        name: key.text.clone(),
        value: value?,
        span: key.span,
    })
}

/// Phases or steps: `build: {…}` in place of `- name: build` with what is below it is told.
fn named<'n>(node: &'n Node, cx: &mut Cx<'_>) -> Option<&'n [Node]> {
    if let NodeKind::Map(fields) = &node.kind
        && let Some((
            key,
            Node {
                kind: NodeKind::Map(_) | NodeKind::Seq(_),
                ..
            },
        )) = fields.first()
        && is_name(&key.text)
        && !["steps", "inputs", "loop", "if"].contains(&key.text.as_str())
    {
        let help = format!("begin each entry with `- name: {}`", key.text);
        cx.error_help(
            "wrong-type",
            node.span,
            "expected a list, found a mapping",
            Some(help),
        );
        return None;
    }
    decode::seq(node, cx)
}

fn phases(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<Phase>> {
    let items = named(node, cx)?;
    let mut names = BTreeMap::new();
    let phases: Vec<Option<Phase>> = items
        .iter()
        .map(|item| phase(item, &mut names, cx))
        .collect();
    if items.is_empty() {
        cx.error("empty-value", node.span, "`phases` has no entry");
        return None;
    }
    let standard = ["build", "validate", "test"];
    if !names.is_empty() && !standard.iter().any(|s| names.contains_key(*s)) {
        cx.warning(
            "no-standard-phase",
            node.span,
            "no phase is called build, validate or test, so a build runs none of these steps",
            "name at least one phase `build`, `validate` or `test`",
        );
    }
    phases.into_iter().collect()
}

fn phase(node: &Node, names: &mut BTreeMap<String, Span>, cx: &mut Cx<'_>) -> Option<Phase> {
    let mut fields = Fields::of(node, "a phase", cx)?;
    let name = fields.required("name", cx, |n, cx| {
        Some((part_name(n, "phase", names, cx)?, n.span))
    });
    let steps = fields.required("steps", cx, steps);
    fields.deny_unknown(cx);
    let ((name, span), steps) = (name?, steps?);
    let known = ["build", "validate", "test", "container-host-test"];
    if !known.contains(&name.as_str())
        && let Some(near) = suggest::nearest(&name, known)
    {
        let message = format!("phase `{name}` is not run by a build");
        cx.warning(
            "unusual-phase",
            span,
            message,
            &format!("did you mean `{near}`?"),
        );
    }
    Some(Phase { name, steps, span })
}

/// The name of a phase, step or loop: part of references, so no dots and no blanks.
pub(super) fn part_name(
    node: &Node,
    what: &str,
    names: &mut BTreeMap<String, Span>,
    cx: &mut Cx<'_>,
) -> Option<String> {
    let text = decode::filled(node, cx)?;
    if !is_name(&text) || text.len() > 128 {
        let message = format!("{} is not a name of a {what}", shown(&text));
        let help = Some("use 1 to 128 letters, digits, `_` and `-`".to_owned());
        cx.error_help("invalid-name", node.span, message, help);
        return None;
    }
    if let Some(first) = names.get(&text) {
        let line = first.start.line;
        cx.error(
            "duplicate-name",
            node.span,
            format!("a {what} called `{text}` is already in line {line}"),
        );
        return None;
    }
    names.insert(text.clone(), node.span);
    Some(text)
}

fn steps(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<Step>> {
    let items = named(node, cx)?;
    let mut names = Names::default();
    let steps: Vec<Option<Step>> = items
        .iter()
        .map(|item| step(item, &mut names, cx))
        .collect();
    if items.is_empty() {
        // The service takes it.
        let help = "remove the phase";
        cx.warning(
            "empty-value",
            node.span,
            "`steps` has no entry, so the phase does nothing",
            help,
        );
    }
    steps.into_iter().collect()
}

/// Names in a phase so far.
#[derive(Default)]
struct Names {
    steps: BTreeMap<String, Span>,
    loops: BTreeMap<String, Span>,
}

fn step(node: &Node, names: &mut Names, cx: &mut Cx<'_>) -> Option<Step> {
    let mut fields = Fields::of(node, "a step", cx)?;
    let name = fields.required("name", cx, |n, cx| {
        Some((part_name(n, "step", &mut names.steps, cx)?, n.span))
    });
    let action = fields.required("action", cx, |n, cx| Some((action(n, cx)?, n.span)));
    let condition = fields.optional("if", cx, conditional::conditional);
    let repeat = fields.optional("loop", cx, |n, cx| repeat::repeat(n, &mut names.loops, cx));
    let nested = matches!(action, Some((ActionKind::ExecuteDocument, _)));
    let timeout = fields.optional("timeoutSeconds", cx, |n, cx| {
        let limit = timeout(n, cx)?;
        if nested && limit.is_some() {
            let message = "a step with ExecuteDocument has no timeout of its own";
            let help =
                Some("leave it out, or write -1; the steps of the document have theirs".to_owned());
            cx.error_help("conflicting-fields", n.span, message, help);
            return None;
        }
        Some(limit)
    });
    let on_failure = fields.optional("onFailure", cx, |n, cx| {
        decode::choice(
            n,
            cx,
            &[OnFailure::Abort, OnFailure::Continue, OnFailure::Ignore].map(|f| (f.name(), f)),
        )
    });
    let attempts = fields.optional("maxAttempts", cx, |n, cx| {
        let attempts = u32::try_from(decode::integer(n, cx, 1..=1_000_000)?).ok()?;
        if nested && attempts > 1 {
            let message = "a step with ExecuteDocument is tried once";
            let help = Some("leave it out; the steps of the document have their own".to_owned());
            cx.error_help("conflicting-fields", n.span, message, help);
            return None;
        }
        Some(attempts)
    });
    let disable_logging = fields.optional("disableLogging", cx, decode::boolean);
    let inputs = fields.node("inputs", cx);
    fields.refuse(
        "outputs",
        "outputs exist when a step has run; read them with `{{ phase.step.outputs.stdout }}`",
    );
    fields.deny_unknown(cx);
    let span = name.as_ref().map_or(node.span, |(_, span)| *span);
    if let Some((action, _)) = action {
        action.check(inputs, span, cx.diags);
        if matches!(
            action,
            ActionKind::ExecuteBash | ActionKind::ExecutePowerShell
        ) && let Some(NodeKind::Seq(commands)) =
            inputs.and_then(|n| n.get("commands")).map(|n| &n.kind)
        {
            let told = commands.iter().find_map(|n| folded::command(n, cx.source));
            told.into_iter().for_each(|problem| cx.diags.push(problem));
        }
    }
    let ((name, _), (action, action_span)) = (name?, action?);
    Some(Step {
        name,
        action,
        inputs: inputs.cloned(),
        timeout_seconds: timeout?.unwrap_or((!nested).then_some(DEFAULT_TIMEOUT)),
        max_attempts: attempts?.unwrap_or(1),
        on_failure: on_failure?.unwrap_or(OnFailure::Abort),
        disable_logging: disable_logging?.unwrap_or(false),
        condition: condition?,
        repeat: repeat?,
        span,
        action_span,
    })
}

fn action(node: &Node, cx: &mut Cx<'_>) -> Option<ActionKind> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || {
        Asked::Choice(
            ActionKind::ALL
                .iter()
                .map(|kind| kind.name().to_owned())
                .collect(),
        )
    });
    if let Some(kind) = ActionKind::from_name(&text) {
        return Some(kind);
    }
    let names: Vec<&str> = ActionKind::ALL.iter().map(|kind| kind.name()).collect();
    let help = suggest::did_you_mean(&text, names.iter().copied())
        .or_else(|| Some(format!("actions: {}", names.join(", "))));
    cx.error_help(
        "unknown-action",
        node.span,
        format!("there is no action {}", shown(&text)),
        help,
    );
    None
}

/// Seconds, or -1 for no limit.
#[allow(
    clippy::option_option,
    reason = "the inner option is the limit, the outer one success"
)]
fn timeout(node: &Node, cx: &mut Cx<'_>) -> Option<Option<u32>> {
    let seconds = decode::integer(node, cx, -1..=i64::from(u32::MAX))?;
    match seconds {
        -1 => Some(None),
        0 => {
            let help = Some("write -1 for no limit".to_owned());
            cx.error_help(
                "out-of-range",
                node.span,
                "a step cannot have 0 seconds",
                help,
            );
            None
        }
        seconds => u32::try_from(seconds).ok().map(Some),
    }
}
