//! What a recipe names from outside: its parent image and its components.

use std::collections::BTreeMap;
use std::fmt;

use amiforge_types::Span;

use crate::decode::{self, Cx, Fields};
use crate::node::Node;
use crate::suggest;
use crate::version::VersionPattern;

/// What an image starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParentImage {
    /// `debian:<suite>`: packages of the signed archive.
    Debian {
        /// The suite, for example `bookworm`.
        suite: String,
    },
}

impl fmt::Display for ParentImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { suite } => write!(f, "debian:{suite}"),
        }
    }
}

/// The kinds of parent that have a place in the design and no implementation yet.
const LATER: &[(&str, &str)] = &[
    ("oci", "an OCI image"),
    ("oci-layout", "an OCI layout folder"),
    ("tar", "a root file system archive"),
    ("disk", "a disk image"),
    ("image", "an image of the local catalog"),
    ("arn", "an AWS image"),
    ("ssm", "an SSM parameter"),
];

pub(super) fn parent_image(node: &Node, cx: &mut Cx<'_>) -> Option<ParentImage> {
    const HELP: &str = "write `debian:<suite>`, for example `debian:bookworm`";
    let text = decode::filled(node, cx)?;
    if text.chars().count() > 1024 {
        cx.error(
            "out-of-range",
            node.span,
            "a parent image has at most 1024 characters",
        );
        return None;
    }
    let (kind, rest) = text.split_once(':').unwrap_or((&text, ""));
    let later = LATER
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, what)| *what);
    let later = later.or((text == "scratch").then_some("an empty image"));
    let later = later.or(text.starts_with("ami-").then_some("an AMI id"));
    if let Some(what) = later {
        let message = format!("{what} as parent is not yet supported");
        cx.error_help(
            "unsupported-parent",
            node.span,
            message,
            Some(HELP.to_owned()),
        );
        return None;
    }
    if kind != "debian" {
        let known = LATER
            .iter()
            .map(|(name, _)| *name)
            .chain(["debian", "scratch"]);
        let help = suggest::did_you_mean(kind, known).unwrap_or_else(|| HELP.to_owned());
        let message = format!(
            "{} is not a known kind of parent image",
            decode::shown(&text)
        );
        cx.error_help("unknown-parent", node.span, message, Some(help));
        return None;
    }
    if !is_suite(rest) {
        let message = format!("{} is not the name of a suite", decode::shown(rest));
        cx.error_help("invalid-parent", node.span, message, Some(HELP.to_owned()));
        return None;
    }
    Some(ParentImage::Debian {
        suite: rest.to_owned(),
    })
}

/// A suite becomes part of URLs and cache paths, so it must be one plain path component.
pub(super) fn is_suite(text: &str) -> bool {
    let first = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'+'));
    first && rest && text.len() <= 64
}

/// One entry of `components`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentRef {
    /// Which component.
    pub source: ComponentSource,
    /// Given values by parameter name.
    pub parameters: BTreeMap<String, String>,
    /// Where `componentArn` stands.
    pub span: Span,
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
}

impl fmt::Display for ComponentSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Named { name, version } => write!(f, "{name}/{version}"),
        }
    }
}

/// Reads a text that names a component; `None` when it names none.
#[must_use]
pub fn component_source(text: &str) -> Option<ComponentSource> {
    let mut diags = amiforge_types::Diagnostics::new();
    let node = Node::text(Span::default(), text);
    source_of(&node, &mut Cx::new(&mut diags)).filter(|_| !diags.has_errors())
}

pub(super) fn component_ref(node: &Node, cx: &mut Cx<'_>) -> Option<ComponentRef> {
    let mut fields = Fields::of_either_case(node, "a component of the recipe", cx)?;
    let source = fields.required("componentArn", cx, |n, cx| {
        Some((source_of(n, cx)?, n.span))
    });
    let parameters = fields.optional("parameters", cx, parameters);
    fields.deny_unknown(cx);
    let (source, span) = source?;
    Some(ComponentRef {
        source,
        parameters: parameters?.unwrap_or_default(),
        span,
    })
}

fn source_of(node: &Node, cx: &mut Cx<'_>) -> Option<ComponentSource> {
    let text = decode::path(node, cx)?;
    if let Some(named) = text.strip_prefix("arn:") {
        return managed(named, node, cx);
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

/// `arn:<partition>:imagebuilder:<region>:aws:component/<name>/<version>[/<build>]`; only components
/// that Amazon manages have an equivalent in the local library.
fn managed(after_arn: &str, node: &Node, cx: &mut Cx<'_>) -> Option<ComponentSource> {
    let parts: Vec<&str> = after_arn.splitn(5, ':').collect();
    if let [_partition, "imagebuilder", _region, owner, resource] = parts.as_slice()
        && let Some(resource) = resource.strip_prefix("component/")
    {
        if *owner == "aws" || owner.starts_with("aws-") {
            return named(resource, node, cx);
        }
        let help = Some("point `componentArn` at a local copy of the document".to_owned());
        cx.error_help(
            "unsupported-component",
            node.span,
            "a component of an AWS account cannot be read here",
            help,
        );
        return None;
    }
    let message = "this is not the ARN of an Image Builder component";
    cx.error("invalid-component", node.span, message);
    None
}

/// `[{name, value: [text]}]`.
fn parameters(node: &Node, cx: &mut Cx<'_>) -> Option<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    let mut ok = true;
    for item in decode::seq(node, cx)? {
        match parameter(item, cx) {
            None => ok = false,
            Some((name, _, span)) if out.contains_key(&name) => {
                cx.error(
                    "duplicate-name",
                    span,
                    format!("parameter `{name}` is given twice"),
                );
                ok = false;
            }
            Some((name, value, _)) => {
                out.insert(name, value);
            }
        }
    }
    ok.then_some(out)
}

fn parameter(node: &Node, cx: &mut Cx<'_>) -> Option<(String, String, Span)> {
    let mut fields = Fields::of_either_case(node, "a component parameter", cx)?;
    let name = fields.required("name", cx, |n, cx| Some((decode::filled(n, cx)?, n.span)));
    let value = fields.required("value", cx, parameter_value);
    fields.deny_unknown(cx);
    let ((name, span), value) = (name?, value?);
    Some((name, value, span))
}

fn parameter_value(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
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
