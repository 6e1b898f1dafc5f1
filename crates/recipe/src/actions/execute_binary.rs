//! `ExecuteBinary`: run a program without a shell.
//! Reference: AWSTOE action modules, ExecuteBinary.

use amiforge_types::Span;

use super::{Inputs, required_inputs};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// Runs `path` with `arguments`; a name without a slash is looked up in `PATH`. Output: `stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteBinary {
    /// The program.
    pub path: String,
    /// Its arguments, without the program's own name.
    pub arguments: Vec<String>,
}

impl Inputs for ExecuteBinary {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        let mut fields = Fields::of(node, "ExecuteBinary", cx)?;
        let path = fields.required("path", cx, decode::path);
        let arguments = fields.optional("arguments", cx, |n, cx| decode::list(n, cx, decode::text));
        fields.deny_unknown(cx);
        Some(Self {
            path: path?,
            arguments: arguments?.unwrap_or_default(),
        })
    }
}
