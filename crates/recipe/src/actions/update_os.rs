//! `UpdateOS`: install updates through the package manager.
//! Reference: AWSTOE action modules, UpdateOS.

use amiforge_types::Span;

use super::Inputs;
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// Updates every installed package, or those in `include`; never those in `exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateOs {
    /// Package names; empty means all.
    pub include: Vec<String>,
    /// Package names to leave alone.
    pub exclude: Vec<String>,
}

impl Inputs for UpdateOs {
    fn decode_inputs(inputs: Option<&Node>, _step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        // AWS's own documents leave the inputs out.
        let Some(node) = inputs.filter(|node| !node.is_null()) else {
            return Some(Self::default());
        };
        let mut fields = Fields::of(node, "UpdateOS", cx)?;
        let include = fields.optional("include", cx, |n, cx| decode::list(n, cx, decode::filled));
        let exclude = fields.optional("exclude", cx, |n, cx| decode::list(n, cx, decode::filled));
        fields.deny_unknown(cx);
        Some(Self {
            include: include?.unwrap_or_default(),
            exclude: exclude?.unwrap_or_default(),
        })
    }
}
