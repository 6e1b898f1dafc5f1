//! `ExecutePowerShell`: run commands or a script file in PowerShell.
//! Reference: AWSTOE action modules, ExecutePowerShell. Windows only.

use amiforge_types::Span;

use super::execute_bash::commands;
use super::{Inputs, required_inputs};
use crate::decode::{self, Cx, Fields, shown};
use crate::node::Node;
use crate::trace::Asked;

/// What PowerShell runs. Output: `stdout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecutePowerShell {
    /// Lines of one script.
    Commands(Vec<String>),
    /// A script file, whose name ends in `.ps1`.
    File(String),
}

impl Inputs for ExecutePowerShell {
    fn decode_inputs(inputs: Option<&Node>, step: Span, cx: &mut Cx<'_>) -> Option<Self> {
        let node = required_inputs(inputs, step, cx)?;
        let mut fields = Fields::of(node, "ExecutePowerShell", cx)?;
        let commands = fields.optional("commands", cx, commands);
        let file = fields.optional("file", cx, file);
        fields.deny_unknown(cx);
        cx.asks(node.span, || Asked::OneOf(vec!["commands", "file"]));
        let given = |name: &str| node.get(name).is_some();
        if given("commands") == given("file") {
            let message = "ExecutePowerShell needs one of the fields `commands` and `file`";
            cx.error("conflicting-fields", node.span, message);
            return None;
        }
        match (commands?, file?) {
            (Some(commands), _) => Some(Self::Commands(commands)),
            (None, file) => file.map(Self::File),
        }
    }
}

fn file(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = decode::path(node, cx)?;
    if !cx.defers(&path) && !path.to_ascii_lowercase().ends_with(".ps1") {
        let message = format!("{} does not end in `.ps1`", shown(&path));
        cx.error("invalid-path", node.span, message);
        return None;
    }
    Some(path)
}
