//! What is exported, between the documents and what is written: the fields of each resource with typed values
//! and with names of other resources in the place of their ARNs.

use amiforge_types::{Diagnostic, Diagnostics};

use super::shapes::{Field, Kind, Shape};
use crate::decode::shown;
use crate::node::{Node, NodeKind};
use crate::resources::ResourceKind;

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
            && let Some(value) = value_of(value, field.kind, diags)
        {
            out.push((field, value));
        }
    }
    out
}

fn value_of(node: &Node, kind: Kind, diags: &mut Diagnostics) -> Option<Value> {
    if let Some((kind, name)) = node.resource() {
        return Some(Value::Named(kind, name.to_owned()));
    }
    if node.is_opaque() {
        // A parameter of Systems Manager is a name that AWS takes.
        let ssm = node.as_text().filter(|text| text.starts_with("ssm:"));
        if ssm.is_none() {
            open(node, diags);
        }
        return ssm.map(|text| Value::Text(text.to_owned()));
    }
    Some(match kind {
        Kind::Text | Kind::Document | Kind::Arn(_) => Value::Text(text(node, diags)?),
        Kind::Mark => Value::Text(String::new()),
        Kind::Bool => Value::Bool(text(node, diags)?.eq_ignore_ascii_case("true")),
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
        NodeKind::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    }
}

/// Reports a value of a template that is not known before it is deployed.
fn open(node: &Node, diags: &mut Diagnostics) {
    let text = match &node.kind {
        NodeKind::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    let message = format!("{} has no value before deployment", shown(text));
    let help = "give parameters of the template a value: --param NAME=VALUE";
    diags.push(Diagnostic::error("unresolved-value", node.span, message).with_help(help));
}
