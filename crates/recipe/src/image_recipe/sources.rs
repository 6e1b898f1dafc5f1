//! The components that a recipe names.

use std::collections::BTreeMap;
use std::fmt;

use amiforge_types::{Diagnostics, Span};

use crate::decode::{self, Cx, Fields};
use crate::node::{Node, NodeKind};
use crate::resources::{ResourceKind, arn, parse_arn};
use crate::trace::Asked;
use crate::version::VersionPattern;

/// One entry of `components`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentRef {
    /// Which component.
    pub source: ComponentSource,
    /// Given values by parameter name.
    pub parameters: BTreeMap<String, String>,
    /// False when some of them could not be read.
    pub is_whole: bool,
    /// Where the names and values of `parameters` stand.
    pub places: BTreeMap<String, ParameterPlace>,
    /// Where `componentArn` stands.
    pub span: Span,
}

/// Where a parameter of a component is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParameterPlace {
    /// Its `name`.
    pub name: Span,
    /// Its `value`.
    pub value: Span,
    /// True when the value is not known before deployment.
    pub is_open: bool,
}

/// Which component a recipe means by `componentArn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentSource {
    /// A document, relative to the recipe's folder unless absolute.
    Path(String),
    /// A component of the library by name and version; `update-linux` alone means `x.x.x`.
    Named {
        /// Letters, digits, `-` and `_`.
        name: String,
        /// Which versions fit; the latest of them is meant.
        version: VersionPattern,
    },
    /// What only AWS has: an ARN as it is written. The user's configuration says which local component
    /// stands for it; without that, one that Amazon manages is looked for by name in the library.
    Arn(String),
    /// A component of the same template, by its logical id.
    Resource(String),
}

impl ComponentSource {
    /// Reads what the user's configuration names as component.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut diags = Diagnostics::new();
        let node = Node::text(Span::default(), text);
        match component_source(&node, &mut Cx::new(&mut diags)) {
            Some(Self::Arn(_)) => Err(format!(
                "{} is a name of AWS again; name a document or a component of the library",
                decode::shown(text)
            )),
            Some(source) => Ok(source),
            None => Err(diags
                .iter()
                .map(|problem| problem.message.clone())
                .collect::<Vec<_>>()
                .join("; ")),
        }
    }

    /// The name and version by which a text means a component of the library: `<name>`,
    /// `<name>/<version>`, or the ARN of one that Amazon manages.
    #[must_use]
    pub fn of_library(text: &str) -> Option<(String, VersionPattern)> {
        let mut diags = Diagnostics::new();
        let node = Node::text(Span::default(), text);
        match component_source(&node, &mut Cx::new(&mut diags))? {
            Self::Named { name, version } => Some((name, version)),
            source => source.managed(),
        }
    }

    /// Of the ARN of a component that Amazon manages, its name and version.
    #[must_use]
    pub fn managed(&self) -> Option<(String, VersionPattern)> {
        let Self::Arn(text) = self else { return None };
        let arn = parse_arn(text).ok().filter(|arn| arn.is_amazon())?;
        match arn.path.as_slice() {
            ["component", name, version, ..] => Some(((*name).to_owned(), version.parse().ok()?)),
            _ => None,
        }
    }
}

impl fmt::Display for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Named { name, version } => write!(f, "{name}/{version}"),
            Self::Arn(text) => f.write_str(text),
            Self::Resource(id) => f.write_str(id),
        }
    }
}

pub(super) fn component_ref(node: &Node, cx: &mut Cx<'_>) -> Option<ComponentRef> {
    let mut fields = Fields::of_either_case(node, "a component of the recipe", cx)?;
    let source = fields.required("componentArn", cx, |n, cx| {
        Some((component_source(n, cx)?, n.span))
    });
    let given = fields.node("parameters", cx);
    let given = given.map_or_else(Given::default, |node| parameters(node, cx));
    fields.deny_unknown(cx);
    let (source, span) = source?;
    let Given {
        values: parameters,
        places,
        is_whole,
    } = given;
    Some(ComponentRef {
        source,
        parameters,
        is_whole,
        places,
        span,
    })
}

fn component_source(node: &Node, cx: &mut Cx<'_>) -> Option<ComponentSource> {
    let text = decode::path(node, cx)?;
    if let Some((kind, id)) = node.resource() {
        if kind != ResourceKind::Component {
            let message = format!("`{id}` is {}, not a component", kind.with_article());
            cx.error("wrong-resource", node.span, message);
            return None;
        }
        return Some(ComponentSource::Resource(id.to_owned()));
    }
    if node.is_opaque() {
        return Some(ComponentSource::Arn(text));
    }
    if text.starts_with("arn:") {
        arn::component(node, cx)?;
        return Some(ComponentSource::Arn(text));
    }
    if text.contains("://") {
        let message = format!(
            "{} is a URL; a component is a local document or a name",
            decode::shown(&text)
        );
        cx.error("unsupported-component", node.span, message);
        return None;
    }
    let is_path = text.starts_with(['.', '/'])
        || [".yaml", ".yml", ".json"]
            .iter()
            .any(|end| text.to_ascii_lowercase().ends_with(end));
    if is_path {
        return Some(ComponentSource::Path(text));
    }
    named(&text, node, cx)
}

/// `<name>/<version>`, `<name>/<version>/<build>` or `<name>`.
fn named(text: &str, node: &Node, cx: &mut Cx<'_>) -> Option<ComponentSource> {
    let (name, rest) = text.split_once('/').unwrap_or((text, "x.x.x"));
    let version = rest
        .split_once('/')
        .map_or(rest, |(version, _build)| version);
    if !crate::reference::is_name(name) || name.len() > 128 {
        let help = "write a path such as `./components/web.yaml`, or `<name>/<version>` such as `update-linux/x.x.x`";
        let message = format!(
            "{} is neither a path nor a name and version",
            decode::shown(text)
        );
        cx.error_help(
            "invalid-component",
            node.span,
            message,
            Some(help.to_owned()),
        );
        return None;
    }
    match version.parse() {
        Ok(version) => Some(ComponentSource::Named {
            name: name.to_owned(),
            version,
        }),
        Err(error) => {
            let help =
                Some("a path starts with `./` or ends in `.yaml`, `.yml` or `.json`".to_owned());
            cx.error_help(
                "invalid-version",
                node.span,
                format!("version {}: {error}", decode::shown(version)),
                help,
            );
            None
        }
    }
}

/// Values and places by the parameters' names.
struct Given {
    values: BTreeMap<String, String>,
    places: BTreeMap<String, ParameterPlace>,
    /// False when some could not be read.
    is_whole: bool,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            places: BTreeMap::new(),
            is_whole: true,
        }
    }
}

/// `[{name, value: [text]}]`.
fn parameters(node: &Node, cx: &mut Cx<'_>) -> Given {
    let mut given = Given::default();
    let Some(items) = decode::seq(node, cx) else {
        given.is_whole = false;
        return given;
    };
    for item in items {
        let name = ["name", "Name"].iter().find_map(|key| item.get(key));
        let is_open = name.is_some_and(Node::is_opaque);
        match parameter(item, cx).filter(|_| !is_open) {
            None => given.is_whole = false,
            Some((name, _, place)) if given.values.contains_key(&name) => {
                cx.error(
                    "duplicate-name",
                    place.name,
                    format!("parameter `{name}` is given twice"),
                );
                given.is_whole = false;
            }
            Some((name, value, place)) => {
                given.places.insert(name.clone(), place);
                given.values.insert(name, value);
            }
        }
    }
    given
}

fn parameter(node: &Node, cx: &mut Cx<'_>) -> Option<(String, String, ParameterPlace)> {
    let mut fields = Fields::of_either_case(node, "a component parameter", cx)?;
    let name = fields.required("name", cx, |n, cx| Some((decode::filled(n, cx)?, n.span)));
    let value = fields.required("value", cx, |n, cx| {
        Some((parameter_value(n, cx)?, only_value(n)))
    });
    fields.deny_unknown(cx);
    let ((name, at), (text, value)) = (name?, value?);
    let place = ParameterPlace {
        name: at,
        value: value.span,
        is_open: value.is_opaque(),
    };
    Some((name, text, place))
}

/// The text in a list of one.
fn only_value(node: &Node) -> &Node {
    match &node.kind {
        NodeKind::Seq(items) => items.first().unwrap_or(node),
        _ => node,
    }
}

fn parameter_value(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    if node.is_opaque() {
        return decode::text(node, cx);
    }
    if node.as_text().is_some() {
        let help = Some("write the value as a list of one: `value: [\"...\"]`".to_owned());
        cx.error_help(
            "wrong-type",
            node.span,
            "a parameter's value is a list with one text",
            help,
        );
        return None;
    }
    let values = decode::list(node, cx, decode::text)?;
    cx.asks(node.span, || Asked::Items(1, 1));
    match <[String; 1]>::try_from(values) {
        Ok([value]) => Some(value),
        Err(values) => {
            let message = format!(
                "a parameter of type string takes exactly one value, found {}",
                values.len()
            );
            cx.error("wrong-type", node.span, message);
            None
        }
    }
}
