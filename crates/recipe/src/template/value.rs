//! What references of a template lead to, while they are replaced.

use amiforge_types::Span;

use crate::inline::Piece;
use crate::node::{Node, NodeKind};
use crate::resources::ResourceKind;

/// What a value of a template is.
pub(super) enum Value<'t> {
    /// `AWS::NoValue`: as if it were not there.
    Absent,
    /// A list, a mapping, or a scalar that holds no reference.
    Node(Node),
    /// A text put together from parts.
    Text(Text<'t>),
    /// Not known before deployment.
    Unknown {
        /// What stands for it in messages.
        shown: String,
        /// True when it may also be absent.
        maybe: bool,
    },
}

/// A text put together from parts.
pub(super) struct Text<'t> {
    pub(super) parts: Vec<Part>,
    /// The scalar that the parts stand for, one after the other.
    pub(super) source: Option<&'t Node>,
    /// The resource of this template that the text names.
    pub(super) names: Option<(ResourceKind, &'t str)>,
}

/// A part of a text.
pub(super) struct Part {
    pub(super) piece: Piece,
    /// True when the default of a parameter is in it.
    pub(super) from_default: bool,
}

impl Part {
    pub(super) fn known(text: impl Into<String>) -> Self {
        Self {
            piece: Piece {
                text: text.into(),
                known: true,
                source_bytes: 0,
                verbatim: false,
            },
            from_default: false,
        }
    }

    pub(super) fn unknown(shown: &str) -> Self {
        let bare = shown.strip_prefix("${").and_then(|s| s.strip_suffix('}'));
        let mut part = Self::known(bare.unwrap_or(shown));
        part.piece.known = false;
        part
    }
}

impl<'t> Value<'t> {
    pub(super) fn unknown(shown: impl Into<String>) -> Self {
        Self::Unknown {
            shown: shown.into(),
            maybe: false,
        }
    }

    pub(super) fn text(parts: Vec<Part>) -> Self {
        Self::Text(Text {
            parts,
            source: None,
            names: None,
        })
    }

    /// A resource of the template, by its logical id.
    pub(super) fn resource(kind: ResourceKind, id: &'t str) -> Self {
        Self::Text(Text {
            parts: vec![Part::unknown(id)],
            source: None,
            names: Some((kind, id)),
        })
    }

    /// The parts of a text; `None` for what is no text.
    pub(super) fn into_parts(self) -> Option<Vec<Part>> {
        match self {
            Self::Text(text) => Some(text.parts),
            Self::Unknown { shown, .. } => Some(vec![Part::unknown(&shown)]),
            Self::Node(node) => match &node.kind {
                NodeKind::Scalar(scalar) if node.is_opaque() => {
                    Some(vec![Part::unknown(&scalar.text)])
                }
                NodeKind::Scalar(scalar) => Some(vec![Part::known(scalar.text.clone())]),
                _ => None,
            },
            Self::Absent => None,
        }
    }

    /// The text, when all of it is known.
    pub(super) fn into_plain(self) -> Option<String> {
        let parts = self.into_parts()?;
        let known = parts.iter().all(|part| part.piece.known);
        known.then(|| parts.into_iter().map(|part| part.piece.text).collect())
    }

    /// The node to decode from, and whether the default of a parameter is in it.
    pub(super) fn into_node(self, span: Span) -> Option<(Node, bool)> {
        match self {
            Self::Absent => None,
            Self::Node(node) => Some((node, false)),
            Self::Unknown { shown, maybe } => {
                let node = Node::opaque(span, shown);
                Some((if maybe { node.maybe_absent() } else { node }, false))
            }
            Self::Text(text) => {
                let from_default = text.parts.iter().any(|part| part.from_default);
                let known = text.parts.iter().all(|part| part.piece.known);
                let joined: String = text.parts.iter().map(shown).collect();
                let node = match text.names {
                    Some((kind, id)) => Node::opaque(span, joined).naming(kind, id),
                    // An empty default means that a value has to be given.
                    None if !known || (joined.is_empty() && from_default) => {
                        Node::opaque(span, joined)
                    }
                    None => Node::text(span, joined),
                };
                Some((node, from_default))
            }
        }
    }
}

fn shown(part: &Part) -> String {
    match part.piece.known {
        true => part.piece.text.clone(),
        false if part.piece.text.starts_with("ssm:") => part.piece.text.clone(),
        false => format!("${{{}}}", part.piece.text),
    }
}
