//! The `if` of a step.
//! Reference: AWSTOE user guide, conditional constructs.

use amiforge_types::Diagnostics;

use crate::condition::{Condition, condition};
use crate::decode::{self, Cx};
use crate::node::{Key, Node, NodeKind};

/// Whether a step runs. Looked at once for a step, before its loop and whatever the attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct If {
    /// The condition as written, references included, without `then` and `else`.
    pub condition: Node,
    /// What follows when it is true.
    pub then: Branch,
    /// What follows when it is false.
    pub otherwise: Branch,
}

/// What a condition leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Branch {
    /// The step runs.
    Execute,
    /// The step does not run, and counts as successful.
    Skip,
    /// The step does not run, and counts as failed.
    Abort,
}

impl Branch {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Execute, Self::Skip, Self::Abort];

    /// The spelling of documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Execute => "Execute",
            Self::Skip => "Skip",
            Self::Abort => "Abort",
        }
    }
}

impl If {
    /// Decodes a condition that [`Scope::resolve`](crate::Scope::resolve) has resolved. `None` comes with at
    /// least one error.
    #[must_use]
    pub fn decode(resolved: &Node) -> (Option<Condition>, Diagnostics) {
        let mut diags = Diagnostics::new();
        let decoded = condition(resolved, &mut Cx::new(&mut diags));
        (decoded.filter(|_| !diags.has_errors()), diags)
    }
}

pub(super) fn conditional(node: &Node, cx: &mut Cx<'_>) -> Option<If> {
    // The guide's summary of the syntax has a list of one, its examples have a mapping.
    let node = match &node.kind {
        NodeKind::Seq(items) => match items.as_slice() {
            [one] => one,
            _ => {
                let message = format!(
                    "`if` takes one condition, this list has {} entries",
                    items.len()
                );
                let help = Some("join conditions in a list below `and` or `or`".to_owned());
                cx.error_help("several-conditions", node.span, message, help);
                return None;
            }
        },
        _ => node,
    };
    let mut branches = Branches::default();
    let mut condition_node = branches.take(node, cx);
    // Documents of AWS also write them below `not`.
    if let NodeKind::Map(fields) = &mut condition_node.kind
        && let Some((_, below)) = fields.iter_mut().find(|(key, _)| key.text == "not")
    {
        *below = branches.take(below, cx);
    }
    let resolved = !std::mem::replace(&mut cx.unresolved, true);
    let sound = condition(&condition_node, cx).is_some() && branches.sound;
    cx.unresolved = !resolved;
    sound.then_some(If {
        condition: condition_node,
        then: branches.then.unwrap_or(Branch::Execute),
        otherwise: branches.otherwise.unwrap_or(Branch::Skip),
    })
}

/// `then` and `else`, wherever they stand.
struct Branches {
    then: Option<Branch>,
    otherwise: Option<Branch>,
    sound: bool,
}

impl Default for Branches {
    fn default() -> Self {
        Self {
            then: None,
            otherwise: None,
            sound: true,
        }
    }
}

impl Branches {
    /// The mapping without the two.
    fn take(&mut self, node: &Node, cx: &mut Cx<'_>) -> Node {
        let NodeKind::Map(fields) = &node.kind else {
            return node.clone();
        };
        let rest = fields
            .iter()
            .filter(|(key, value)| !self.took(key, value, cx))
            .cloned()
            .collect();
        Node {
            kind: NodeKind::Map(rest),
            ..node.clone()
        }
    }

    fn took(&mut self, key: &Key, value: &Node, cx: &mut Cx<'_>) -> bool {
        let slot = match key.text.as_str() {
            "then" => &mut self.then,
            "else" => &mut self.otherwise,
            _ => return false,
        };
        if slot.is_some() {
            let message = format!("`{}` is given twice for one `if`", key.text);
            cx.error("duplicate-key", key.span, message);
            self.sound = false;
            return true;
        }
        let choices = Branch::ALL.map(|b| (b.name(), b));
        *slot = decode::choice(value, cx, &choices);
        self.sound &= slot.is_some();
        true
    }
}
