//! The spanned tree that every document is decoded from.
//!
//! Scalars keep the text the author wrote: `0755`, `1.10` and `yes` are those characters, and a
//! field that wants a number or a boolean reads it from them.

use amiforge_types::{Digest, Span};

use crate::resources::ResourceKind;

/// Begins the tag of a value that names a resource of the same template. No document can hold it, since
/// tags of documents begin with `!`.
const RESOURCE_TAG: &str = "resource:";
/// The tag of a value of a template that depends on a condition which is not known.
const MAYBE_TAG: &str = "maybe";

/// One value of a document with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where the value stands. A value that came through an alias has the place of the alias.
    pub span: Span,
    /// The value.
    pub kind: NodeKind,
    /// An explicit tag such as `!Ref`; `!!str` is folded into [`Style::Quoted`] instead.
    pub tag: Option<String>,
}

/// The three shapes of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Text.
    Scalar(Scalar),
    /// A list.
    Seq(Vec<Node>),
    /// Fields in the order of the document; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key's text.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A scalar: text as written, after YAML's unquoting and unfolding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scalar {
    /// The text.
    pub text: String,
    /// How it was written.
    pub style: Style,
}

/// How a scalar was written, as far as it can change its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: `null`, `~` and nothing at all mean null.
    Plain,
    /// In quotes, as a block, or tagged `!!str`: always text.
    Quoted,
    /// A value that a template gets only when it is deployed. The text stands for it in messages, and
    /// every check lets it pass.
    Opaque,
}

impl Node {
    /// A quoted text at `span`.
    #[must_use]
    pub fn text(span: Span, text: impl Into<String>) -> Self {
        Self {
            span,
            kind: NodeKind::Scalar(Scalar {
                text: text.into(),
                style: Style::Quoted,
            }),
            tag: None,
        }
    }

    /// The text of a scalar that is not null.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar(scalar) if !scalar.is_null() => Some(&scalar.text),
            _ => None,
        }
    }

    /// The value of a field, when this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            NodeKind::Map(fields) => fields.iter().find(|(k, _)| k.text == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// True for a plain `null`, `~` or empty scalar.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar(scalar) if scalar.is_null())
    }

    /// A value that is not known before deployment, at `span`; `shown` stands for it.
    #[must_use]
    pub fn opaque(span: Span, shown: impl Into<String>) -> Self {
        Self {
            span,
            kind: NodeKind::Scalar(Scalar {
                text: shown.into(),
                style: Style::Opaque,
            }),
            tag: None,
        }
    }

    /// True for a value that is not known before deployment.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        matches!(&self.kind, NodeKind::Scalar(scalar) if scalar.style == Style::Opaque)
    }

    /// The resource of the same template that this value names.
    pub(crate) fn resource(&self) -> Option<(ResourceKind, &str)> {
        let (kind, id) = self
            .tag
            .as_deref()?
            .strip_prefix(RESOURCE_TAG)?
            .split_once(':')?;
        Some((ResourceKind::from_cfn_name(kind)?, id))
    }

    /// Makes this value name a resource of the same template.
    pub(crate) fn naming(mut self, kind: ResourceKind, id: &str) -> Self {
        self.tag = Some(format!("{RESOURCE_TAG}{}:{id}", kind.cfn_name()));
        self
    }

    /// Makes this value one that may also be absent.
    pub(crate) fn maybe_absent(mut self) -> Self {
        self.tag = Some(MAYBE_TAG.to_owned());
        self
    }

    /// True for a value that may turn out to be absent.
    pub(crate) fn may_be_absent(&self) -> bool {
        self.tag.as_deref() == Some(MAYBE_TAG)
    }

    /// True when this or anything in it is not known before deployment.
    pub(crate) fn has_opaque(&self) -> bool {
        match &self.kind {
            NodeKind::Scalar(scalar) => scalar.style == Style::Opaque,
            NodeKind::Seq(items) => items.iter().any(Self::has_opaque),
            NodeKind::Map(fields) => fields.iter().any(|(_, value)| value.has_opaque()),
        }
    }

    /// What this is, for messages: `a mapping`, `a list`, `nothing`, `text`.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match &self.kind {
            NodeKind::Map(_) => "a mapping",
            NodeKind::Seq(_) => "a list",
            NodeKind::Scalar(scalar) if scalar.is_null() => "nothing",
            NodeKind::Scalar(_) => "text",
        }
    }

    /// The value as JSON: every scalar that is not null becomes a string with its text, fields
    /// keep the order of the document.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            NodeKind::Scalar(scalar) if scalar.is_null() => Value::Null,
            NodeKind::Scalar(scalar) => Value::String(scalar.text.clone()),
            NodeKind::Seq(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            NodeKind::Map(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(k, v)| (k.text.clone(), v.to_json()))
                    .collect(),
            ),
        }
    }

    /// Stable bytes of the value: compact JSON with sorted fields. Comments, white space between
    /// tokens, field order, quoting and anchors do not show; the text of scalars does.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_canonical(&mut out);
        out
    }

    /// The digest of [`Node::canonical`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    fn write_canonical(&self, out: &mut Vec<u8>) {
        match &self.kind {
            NodeKind::Scalar(scalar) if scalar.is_null() => out.extend_from_slice(b"null"),
            NodeKind::Scalar(scalar) => write_string(&scalar.text, out),
            NodeKind::Seq(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            NodeKind::Map(fields) => {
                let mut sorted: Vec<_> = fields.iter().collect();
                sorted.sort_by(|a, b| a.0.text.cmp(&b.0.text));
                out.push(b'{');
                for (i, (key, value)) in sorted.into_iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(&key.text, out);
                    out.push(b':');
                    value.write_canonical(out);
                }
                out.push(b'}');
            }
        }
    }
}

impl Scalar {
    /// True for a plain `null`, `~` or nothing (YAML 1.2, section 10.3.2).
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.style == Style::Plain
            && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}

/// A JSON string; the escapes are those of serde_json, which are fixed by its tests.
fn write_string(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(
        serde_json::Value::String(text.to_owned())
            .to_string()
            .as_bytes(),
    );
}
