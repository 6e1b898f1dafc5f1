//! What the actions that copy and move have in common.

use super::wildcard;
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// From where to where. `*` is a wildcard in the last part of `source` only; a `destination` that
/// ends in `/` is a folder and keeps the source's name, and several matches need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// What to copy or move, or several by wildcard.
    pub source: String,
    /// Where to; folders above it are created.
    pub destination: String,
    /// False: an existing target is an error. True (default): it is replaced.
    pub overwrite: bool,
}

impl Transfer {
    pub(super) fn decode(
        fields: &mut Fields<'_>,
        cx: &mut Cx<'_>,
        source: fn(&Node, &mut Cx<'_>) -> Option<String>,
    ) -> Option<Self> {
        let source = fields.required("source", cx, source);
        let destination = fields.required("destination", cx, decode::path);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        Some(Self {
            source: source?,
            destination: destination?,
            overwrite: overwrite?.unwrap_or(true),
        })
    }
}

/// A path of files, perhaps with a wildcard.
pub(super) fn files(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = decode::path(node, cx)?;
    wildcard(&path, node.span, cx).then_some(path)
}

/// A path of folders, perhaps with a wildcard; a `/` at the end changes nothing.
pub(super) fn folders(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = decode::path(node, cx)?;
    let trimmed = path.trim_end_matches('/');
    wildcard(trimmed, node.span, cx).then(|| {
        // `/` itself has nothing left.
        let kept = if trimmed.is_empty() { "/" } else { trimmed };
        kept.to_owned()
    })
}
