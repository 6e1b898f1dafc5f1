//! The `loop` of a step.
//! Reference: AWSTOE user guide, looping constructs.

use std::collections::BTreeMap;

use amiforge_types::Span;

use super::decode::part_name;
use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Node, NodeKind};
use crate::scope::{ResolveError, Scope};
use crate::trace::Asked;

/// Iterations that a loop has at most.
pub const MAX_ITERATIONS: u64 = 1_000_000;

/// How often a step runs, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loop {
    /// What references call the loop by, besides `loop`.
    pub name: Option<String>,
    /// What it runs over.
    pub over: LoopOver,
    /// The mapping below `loop` as written.
    pub node: Node,
}

/// What a loop runs over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoopOver {
    /// `for`: the numbers from `start` to `end`, which is one of them if it is met.
    Range {
        /// The first number.
        start: i64,
        /// Where it ends.
        end: i64,
        /// What is added each time, not 0 and towards `end`.
        update_by: i64,
    },
    /// `forEach` with a list: texts as written, references included.
    List(Vec<Node>),
    /// `forEach` with a text to be cut.
    Delimited {
        /// The text as written, references included.
        list: Node,
        /// Where it is cut; one of [`DELIMITERS`].
        delimiter: char,
    },
}

/// Characters that may cut a list.
pub const DELIMITERS: &[char] = &['.', ',', ';', ':', '\n', '\t', ' ', '-', '_'];

/// The values of a loop, one per iteration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LoopValues {
    /// Numbers.
    Range {
        /// The first.
        start: i64,
        /// The distance of two.
        step: i64,
        /// How many.
        count: u64,
    },
    /// Texts.
    List(Vec<String>),
}

impl LoopValues {
    /// How many iterations there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Range { count, .. } => *count,
            Self::List(list) => list.len() as u64,
        }
    }

    /// True for none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of an iteration, from 0.
    #[must_use]
    pub fn get(&self, index: u64) -> Option<String> {
        match self {
            Self::Range { start, step, count } if index < *count => {
                let value = i128::from(*start) + i128::from(*step) * i128::from(index);
                Some(value.to_string())
            }
            Self::Range { .. } => None,
            Self::List(list) => list.get(usize::try_from(index).ok()?).cloned(),
        }
    }
}

impl Loop {
    /// The values, fixed when the loop starts. A text without characters is an empty list; items are
    /// not trimmed, and an empty one is an iteration.
    ///
    /// # Errors
    /// The first reference without a value, or more than [`MAX_ITERATIONS`] values.
    pub fn values(&self, scope: &Scope) -> Result<LoopValues, ResolveError> {
        let resolved = |node: &Node| match node.as_text() {
            Some(text) => scope.resolve_text(text, node.span),
            None => Ok(String::new()),
        };
        let list = match &self.over {
            LoopOver::Range {
                start,
                end,
                update_by,
            } => {
                return Ok(LoopValues::Range {
                    start: *start,
                    step: *update_by,
                    count: count(*start, *end, *update_by),
                });
            }
            // As one tree, which has one limit.
            LoopOver::List(items) => {
                let list = Node {
                    kind: NodeKind::Seq(items.clone()),
                    ..self.node.clone()
                };
                match scope.resolve(&list)?.kind {
                    NodeKind::Seq(items) => {
                        let texts = items.iter().map(|n| n.as_text().unwrap_or_default());
                        texts.map(str::to_owned).collect()
                    }
                    NodeKind::Scalar(_) | NodeKind::Map(_) => Vec::new(),
                }
            }
            LoopOver::Delimited { list, delimiter } => {
                let text = resolved(list)?;
                let most = usize::try_from(MAX_ITERATIONS).unwrap_or(usize::MAX);
                if text.matches(*delimiter).take(most).count() == most {
                    return Err(ResolveError::TooMany { span: list.span });
                }
                if text.is_empty() {
                    Vec::new()
                } else {
                    text.split(*delimiter).map(str::to_owned).collect()
                }
            }
        };
        Ok(LoopValues::List(list))
    }
}

/// Numbers from `start` to `end`; `update_by` is not 0 and leads there.
fn count(start: i64, end: i64, update_by: i64) -> u64 {
    let steps = (i128::from(end) - i128::from(start)) / i128::from(update_by);
    u64::try_from(steps + 1).unwrap_or(u64::MAX)
}

/// `names` are those of the phase's loops so far.
pub(super) fn repeat(
    node: &Node,
    names: &mut BTreeMap<String, Span>,
    cx: &mut Cx<'_>,
) -> Option<Loop> {
    let mut fields = Fields::of(node, "a loop", cx)?;
    let name = fields.optional("name", cx, |n, cx| part_name(n, "loop", names, cx));
    let range = fields.optional("for", cx, range);
    let each = fields.optional("forEach", cx, for_each);
    let both = node
        .get("for")
        .zip(node.get("forEach"))
        .map(|(_, second)| second.span);
    let neither = node.get("for").is_none() && node.get("forEach").is_none();
    cx.asks(node.span, || Asked::OneOf(vec!["for", "forEach"]));
    fields.deny_unknown(cx);
    if let Some(span) = both {
        cx.error(
            "conflicting-fields",
            span,
            "a loop has `for` or `forEach`, not both",
        );
        return None;
    }
    if neither {
        cx.error(
            "missing-field",
            node.span,
            "a loop needs the field `for` or `forEach`",
        );
        return None;
    }
    Some(Loop {
        name: name?,
        over: range?.or(each?)?,
        node: node.clone(),
    })
}

fn range(node: &Node, cx: &mut Cx<'_>) -> Option<LoopOver> {
    let mut fields = Fields::of(node, "`for`", cx)?;
    let number = |n: &Node, cx: &mut Cx<'_>| decode::integer(n, cx, i64::MIN..=i64::MAX);
    let start = fields.required("start", cx, number);
    let end = fields.required("end", cx, number);
    let update_by = fields.required("updateBy", cx, |n, cx| Some((number(n, cx)?, n.span)));
    fields.deny_unknown(cx);
    let (start, end, (update_by, span)) = (start?, end?, update_by?);
    let ends = update_by != 0 && (start == end || (start < end) == (update_by > 0));
    if !ends {
        let message = format!("from {start} by {update_by} the loop never ends at {end}");
        let help = if update_by == 0 {
            "`updateBy` is 1 or another number that is not 0"
        } else {
            "the sign of `updateBy` is that of the way from `start` to `end`"
        };
        cx.error_help("endless-loop", span, message, Some(help.to_owned()));
        return None;
    }
    let iterations = count(start, end, update_by);
    if iterations > MAX_ITERATIONS {
        let message = format!(
            "the loop has {iterations} iterations, and no more than {MAX_ITERATIONS} can be"
        );
        cx.error("out-of-range", node.span, message);
        return None;
    }
    Some(LoopOver::Range {
        start,
        end,
        update_by,
    })
}

fn for_each(node: &Node, cx: &mut Cx<'_>) -> Option<LoopOver> {
    match &node.kind {
        NodeKind::Seq(_) => {
            let items = decode::list(node, cx, |n, cx| {
                // A plain `-` with nothing after it is the empty text.
                if n.is_null() {
                    return Some(Node::text(n.span, ""));
                }
                decode::text(n, cx).map(|_| n.clone())
            })?;
            Some(LoopOver::List(items))
        }
        NodeKind::Map(_) => delimited(node, cx),
        NodeKind::Scalar(_) => {
            let help = "write a list of texts, or `{list: \"a,b\", delimiter: \",\"}`".to_owned();
            let message = format!(
                "expected a list, or a mapping with `list`, found {}",
                node.describe()
            );
            cx.error_help("wrong-type", node.span, message, Some(help));
            None
        }
    }
}

fn delimited(node: &Node, cx: &mut Cx<'_>) -> Option<LoopOver> {
    let mut fields = Fields::of(node, "`forEach`", cx)?;
    let list = fields.required("list", cx, |n, cx| {
        if n.is_null() {
            return Some(Node::text(n.span, ""));
        }
        decode::text(n, cx).map(|_| n.clone())
    });
    let delimiter = fields.optional("delimiter", cx, delimiter);
    fields.deny_unknown(cx);
    Some(LoopOver::Delimited {
        list: list?,
        delimiter: delimiter?.unwrap_or(','),
    })
}

fn delimiter(node: &Node, cx: &mut Cx<'_>) -> Option<char> {
    let text = decode::text(node, cx)?;
    cx.asks(node.span, || {
        Asked::Choice(DELIMITERS.iter().map(ToString::to_string).collect())
    });
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(one), None) if DELIMITERS.contains(&one) => Some(one),
        _ => {
            let all: Vec<String> = DELIMITERS
                .iter()
                .map(|c| format!("{:?}", c.to_string()))
                .collect();
            let message = format!("{} cannot be a delimiter", shown(&text));
            let help = format!("use one of {}", all.join(" "));
            cx.error_help("invalid-choice", node.span, message, Some(help));
            None
        }
    }
}
