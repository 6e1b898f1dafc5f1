//! `ExecuteBash`: run commands in one bash script.
//! Reference: AWSTOE action modules, ExecuteBash.

use amiforge_types::Span;

use super::{Inputs, required_inputs};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// All commands go into one script, which runs as `bash <script>` without `-e`; the step's exit
/// code is the script's last status, its output `stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteBash {
    /// The lines of the script; an entry may hold several.
    pub commands: Vec<String>,
}

impl Inputs for ExecuteBash {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        let mut fields = Fields::of(node, "ExecuteBash", cx)?;
        let commands = fields.required("commands", cx, commands);
        fields.deny_unknown(cx);
        Some(Self {
            commands: commands?,
        })
    }
}

pub(super) fn commands(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<String>> {
    let commands = decode::list(node, cx, decode::text)?;
    if commands.is_empty() {
        cx.error(
            "empty-value",
            node.span,
            "`commands` has no entry, so the step would do nothing",
        );
        return None;
    }
    Some(commands)
}
