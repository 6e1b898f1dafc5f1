//! The `Parameters` of a template and the values they have.

use std::collections::BTreeMap;

use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Node, NodeKind};
use crate::suggest;
use crate::trace::Asked;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(super) value: Value,
    /// True when nobody gave the value.
    pub(super) is_default: bool,
    /// `NoEcho`: the value may be shown nowhere.
    pub(super) is_secret: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    List(Vec<String>),
    /// Not known before deployment; what stands for it in messages.
    Unknown(String),
}

/// Types of parameters; those with a colon at the end go on.
const TYPES: &[&str] = &[
    "String",
    "Number",
    "CommaDelimitedList",
    "List<String>",
    "List<Number>",
    "AWS::EC2::",
    "AWS::Route53::",
    "AWS::SSM::Parameter::",
    "List<AWS::",
];

/// The same for JSON Schemas.
const TYPE_PATTERN: &str = "^(String$|Number$|CommaDelimitedList$|List<(String|Number)>$|List<AWS::|AWS::EC2::|AWS::Route53::|AWS::SSM::Parameter::)";

/// Every declared parameter with its value.
pub(crate) fn declared<'n>(
    node: Option<&'n Node>,
    given: &BTreeMap<String, String>,
    cx: &mut Cx<'_>,
) -> BTreeMap<&'n str, Parameter> {
    let Some(NodeKind::Map(entries)) = node.map(|n| &n.kind) else {
        return BTreeMap::new();
    };
    entries
        .iter()
        .filter_map(|(key, node)| {
            let name = key.text.as_str();
            Some((name, parameter(name, node, given.get(name), cx)?))
        })
        .collect()
}

fn parameter(
    name: &str,
    node: &Node,
    given: Option<&String>,
    cx: &mut Cx<'_>,
) -> Option<Parameter> {
    let mut fields = Fields::of(node, "a parameter of the template", cx)?;
    let kind = fields.required("Type", cx, kind).unwrap_or_default();
    let default = fields.optional("Default", cx, default).flatten();
    let allowed = fields
        .optional("AllowedValues", cx, |n, cx| {
            decode::list(n, cx, decode::text)
        })
        .flatten();
    let mut limit = |name, cx: &mut Cx<'_>| {
        fields
            .optional(name, cx, |n, cx| {
                let text = decode::text(n, cx)?;
                let number: Option<f64> = text.parse().ok();
                if number.is_none() {
                    decode::wrong_type(n, "a number", cx);
                }
                number
            })
            .flatten()
    };
    let lengths = (limit("MinLength", cx), limit("MaxLength", cx));
    let values = (limit("MinValue", cx), limit("MaxValue", cx));
    let no_echo = fields.optional("NoEcho", cx, decode::boolean);
    let is_secret = no_echo.flatten() == Some(true);
    for free in ["Description", "ConstraintDescription"] {
        fields.optional(free, cx, decode::text);
    }
    let pattern = fields
        .optional("AllowedPattern", cx, decode::text)
        .flatten();
    for (name, (least, most)) in [("Length", lengths), ("Value", values)] {
        if let (Some(least), Some(most)) = (least, most)
            && least > most
        {
            let message = format!("`Min{name}` is above `Max{name}`: no value fits");
            cx.error("out-of-range", fields.span(), message);
        }
    }
    fields.deny_unknown(cx);

    let is_default = given.is_none();
    let text = given.or(default.as_ref());
    if let Some(text) = text {
        let mut faults = Vec::new();
        if let Some(allowed) = allowed.as_ref().filter(|all| !all.contains(text)) {
            // Lists are compared value by value.
            let fits = is_list(&kind)
                && text
                    .split(',')
                    .all(|one| allowed.iter().any(|a| a == one.trim()));
            if !fits {
                faults.push(format!("is not one of {}", allowed.join(", ")));
            }
        }
        if kind == "Number" && text.trim().parse::<f64>().is_err() {
            faults.push("is not a number".to_owned());
        }
        if let Some(pattern) = pattern.as_deref().and_then(whole) {
            let parts: Vec<&str> = if is_list(&kind) {
                text.split(',').map(str::trim).collect()
            } else {
                vec![text]
            };
            if !parts.into_iter().all(|part| pattern.is_match(part)) {
                faults.push("does not match `AllowedPattern`".to_owned());
            }
        }
        let within = |number: f64, (least, most): (Option<f64>, Option<f64>)| {
            least.is_none_or(|l| number >= l) && most.is_none_or(|m| number <= m)
        };
        // Lengths of texts are far below what a float holds exactly.
        let length = u32::try_from(text.chars().count()).map_or(f64::INFINITY, f64::from);
        if !within(length, lengths) {
            faults.push("is too short or too long".to_owned());
        }
        if let Ok(number) = text.trim().parse::<f64>()
            && kind == "Number"
            && !within(number, values)
        {
            faults.push("is too small or too large".to_owned());
        }
        let at = fields.peek("Default").filter(|_| is_default);
        for fault in faults {
            let what = if is_default { "default" } else { "value" };
            let span = at.map_or(node.span, |n| n.span);
            let shown = match is_secret {
                true => "(not shown)".to_owned(),
                false => shown(text),
            };
            let message = format!("the {what} {shown} of parameter `{name}` {fault}");
            if is_default && text.is_empty() {
                let help = "who deploys the template has to give a value";
                cx.warning("invalid-parameter", span, message, help);
            } else {
                cx.error("invalid-parameter", span, message);
            }
        }
    }
    let unknown = || Value::Unknown(format!("${{{name}}}"));
    let value = match text {
        None => unknown(),
        // The value is the name of a parameter of Systems Manager, which has the value proper.
        Some(path) if kind.starts_with("AWS::SSM::Parameter::Value<") => {
            Value::Unknown(format!("ssm:{path}"))
        }
        Some(_) if is_secret && is_list(&kind) => unknown(),
        Some(text) if is_list(&kind) => {
            Value::List(text.split(',').map(|one| one.trim().to_owned()).collect())
        }
        Some(text) => Value::Text(text.clone()),
    };
    Some(Parameter {
        value,
        is_default,
        is_secret,
    })
}

/// A pattern that all of a value has to match. CloudFormation has Java's; what only those can say (a look ahead,
/// a reference back) is not checked, nor is a pattern that would take much memory or that means something else there.
fn whole(pattern: &str) -> Option<regex::Regex> {
    const MOST_BYTES: usize = 1 << 20;
    if has_set_operation(pattern) {
        return None;
    }
    regex::RegexBuilder::new(&format!(r"\A(?:{pattern})\z"))
        .size_limit(MOST_BYTES)
        .build()
        .ok()
}

/// Whether a class of characters has `--`, `~~` or `&&`: here operations of sets, in Java two characters, a range
/// from `-`, or an operation of another precedence.
fn has_set_operation(pattern: &str) -> bool {
    let mut depth = 0_usize;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '[' => {
                depth += 1;
                chars.next_if_eq(&'^');
                // The first one is a character.
                chars.next_if_eq(&']');
            }
            ']' => depth = depth.saturating_sub(1),
            '-' | '~' | '&' if depth > 0 && chars.peek() == Some(&c) => return true,
            _ => {}
        }
    }
    false
}

fn is_list(kind: &str) -> bool {
    kind == "CommaDelimitedList" || kind.starts_with("List<")
}

impl Parameter {
    /// The text to keep from everybody. An empty one is none: templates say so that nothing was given.
    pub(super) fn secret(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) if self.is_secret && !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// A scalar, or for lists also written as one.
fn default(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    match &node.kind {
        NodeKind::Seq(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(Node::as_text).collect();
            texts.map(|texts| texts.join(","))
        }
        NodeKind::Scalar(scalar) => Some(scalar.text.clone()),
        NodeKind::Map(_) => decode::text(node, cx),
    }
}

fn kind(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || Asked::Pattern(TYPE_PATTERN));
    let known = TYPES
        .iter()
        .any(|known| text == *known || (known.ends_with("::") && text.starts_with(known)));
    if !known {
        let help = suggest::did_you_mean(&text, TYPES.iter().copied());
        let message = format!("{} is not a type of parameter", shown(&text));
        cx.error_help("invalid-choice", node.span, message, help);
    }
    Some(text)
}
