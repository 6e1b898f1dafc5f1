//! What is exported, between the documents and what is written: the fields of each resource with typed values
//! and with names of other resources in the place of their ARNs.

use amiforge_types::{Diagnostic, Diagnostics};

use super::shapes::{Field, Kind, Shape};
use crate::decode::{shown, yaml_11};
use crate::node::{Node, NodeKind};
use crate::reference::has_secret;
use crate::resources::ResourceKind;
use crate::template::open_help;

/// Fields in the order of their shape.
pub(super) type Group = Vec<(&'static Field, Value)>;

/// The value of a field.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Bool(bool),
    Int(i64),
    Texts(Vec<String>),
    Tags(Vec<(String, String)>),
    One(Group),
    Many(Vec<Group>),
    /// The ARN of a resource of the export, by its place.
    Arn(usize),
    /// The same by its name, until it is looked up.
    Named(ResourceKind, String),
    /// The newest version of a component of Amazon, by its name.
    Amazon(String),
    /// The parent that is asked for, by its place.
    Parent(usize),
}

/// The value of a field by its word in the API.
pub(super) fn get<'g>(group: &'g Group, api: &str) -> Option<&'g Value> {
    group
        .iter()
        .find(|(field, _)| field.api == api)
        .map(|(_, value)| value)
}

/// The text of a field by its word in the API.
pub(super) fn text_of<'g>(group: &'g Group, api: &str) -> Option<&'g str> {
    match get(group, api)? {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// Reads a mapping that has been checked.
pub(super) fn group(node: &Node, shape: &'static Shape, diags: &mut Diagnostics) -> Group {
    let NodeKind::Map(entries) = &node.kind else {
        open(node, diags);
        return Group::new();
    };
    let mut out = Group::new();
    for field in shape.fields {
        let found = entries
            .iter()
            .find(|(key, value)| field.is_spelled(&key.text) && !value.is_null());
        if let Some((_, value)) = found
            && let Some(value) = value_of(value, field, diags)
        {
            out.push((field, value));
        }
    }
    out
}

fn value_of(node: &Node, field: &Field, diags: &mut Diagnostics) -> Option<Value> {
    if let Some((kind, name)) = node.resource() {
        return Some(Value::Named(kind, name.to_owned()));
    }
    if node.is_opaque() {
        // The name of a parameter of Systems Manager is taken where an image is wanted, and nowhere else.
        let image = matches!(field.api, "parentImage" | "image");
        let ssm = node.as_text().filter(|text| image && is_ssm(text));
        if ssm.is_none() {
            open(node, diags);
        }
        return ssm.map(|text| Value::Text(text.to_owned()));
    }
    Some(match field.kind {
        Kind::Text | Kind::Document | Kind::Arn(_) => Value::Text(text(node, diags)?),
        Kind::Mark => Value::Text(String::new()),
        Kind::Bool => {
            let text = text(node, diags)?;
            Value::Bool(text.eq_ignore_ascii_case("true") || yaml_11(&text) == Some(true))
        }
        Kind::Int => match text(node, diags)?.parse() {
            Ok(number) => Value::Int(number),
            Err(_) => return None,
        },
        Kind::Texts | Kind::Single => Value::Texts(
            items(node)
                .iter()
                .filter_map(|item| text(item, diags))
                .collect(),
        ),
        Kind::Tags => {
            let NodeKind::Map(entries) = &node.kind else {
                return None;
            };
            let tags = entries
                .iter()
                .filter_map(|(key, value)| Some((key.text.clone(), text(value, diags)?)));
            Value::Tags(tags.collect())
        }
        Kind::One(shape) | Kind::Merged(shape) => Value::One(group(node, shape, diags)),
        Kind::Many(shape) => Value::Many(
            items(node)
                .iter()
                .map(|item| group(item, shape, diags))
                .collect(),
        ),
    })
}

fn items(node: &Node) -> &[Node] {
    match &node.kind {
        NodeKind::Seq(items) => items,
        _ => &[],
    }
}

fn text(node: &Node, diags: &mut Diagnostics) -> Option<String> {
    if node.is_opaque() {
        open(node, diags);
        return None;
    }
    match &node.kind {
        NodeKind::Scalar(scalar) if has_secret(&scalar.text) => {
            secret(node, diags);
            None
        }
        NodeKind::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    }
}

/// True for the name of a parameter of Systems Manager, without anything that is put together.
fn is_ssm(text: &str) -> bool {
    text.strip_prefix("ssm:")
        .is_some_and(|name| !name.contains("${") && !has_secret(name))
}

/// Reports everything in our own settings that cannot be written.
pub(super) fn settings(node: &Node, diags: &mut Diagnostics) {
    match &node.kind {
        NodeKind::Seq(items) => items.iter().for_each(|item| settings(item, diags)),
        NodeKind::Map(fields) => fields.iter().for_each(|(_, item)| settings(item, diags)),
        NodeKind::Scalar(_) => {
            text(node, diags);
        }
    }
}

/// Reports the value of a parameter that is never shown: a file is read by whoever can.
fn secret(node: &Node, diags: &mut Diagnostics) {
    let message =
        "a parameter with `NoEcho` has no place in an export, whose files show every value";
    let help = "let the step fetch the value on AWS, from Secrets Manager or Systems Manager";
    diags.push(Diagnostic::error("unresolved-value", node.span, message).with_help(help));
}

/// Reports a value of a template that is not known before it is deployed.
fn open(node: &Node, diags: &mut Diagnostics) {
    let text = match &node.kind {
        NodeKind::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    if has_secret(text) {
        return secret(node, diags);
    }
    let message = format!("{} has no value before deployment", shown(text));
    let name = text
        .split_once("${")
        .and_then(|(_, rest)| rest.split_once('}'));
    let help = open_help(name.map_or(text, |(name, _)| name), true, None);
    diags.push(Diagnostic::error("unresolved-value", node.span, message).with_help(help));
}
