//! The `if` of a workflow step.
//! Source: Image Builder user guide, conditional statements in workflow documents.

use crate::decode::{self, Cx, shown};
use crate::node::{Key, Node, NodeKind};
use crate::suggest;

/// Levels of `and`, `or` and `not`, and entries of one of them.
const MOST_LEVELS: usize = 4;
const MOST_BRANCHES: usize = 10;

const NUMBERS: &[&str] = &[
    "numberEquals",
    "numberGreaterThan",
    "numberGreaterThanEquals",
    "numberLessThan",
    "numberLessThanEquals",
];

/// Operators that compare `value` with their operand.
pub(crate) fn comparisons() -> impl Iterator<Item = &'static str> {
    NUMBERS
        .iter()
        .copied()
        .chain(["booleanEquals", "stringEquals"])
}

/// Operators that join conditions.
pub(crate) const LOGICAL: [&str; 3] = ["and", "or", "not"];

pub(super) fn check(node: &Node, cx: &mut Cx<'_>) {
    condition(node, 0, cx);
}

fn condition(node: &Node, level: usize, cx: &mut Cx<'_>) {
    if node.is_opaque() {
        return;
    }
    let NodeKind::Map(fields) = &node.kind else {
        decode::wrong_type(node, "a condition: a mapping with one operator", cx);
        return;
    };
    let mut operators = fields.iter().filter(|(key, _)| key.text != "value");
    let Some((key, operand)) = operators.next() else {
        cx.error("missing-field", node.span, "a condition needs an operator");
        return;
    };
    if let Some((second, _)) = operators.next() {
        let message = format!(
            "a condition has one operator, this has `{}` and `{}`",
            key.text, second.text
        );
        let help = Some("combine conditions with `and` or `or`".to_owned());
        cx.error_help("conflicting-fields", second.span, message, help);
    }
    let value = node.get("value");
    match key.text.as_str() {
        name if LOGICAL.contains(&name) => {
            if level >= MOST_LEVELS {
                let message = format!("conditions nest deeper than {MOST_LEVELS} levels");
                cx.error("nested-too-deep", key.span, message);
                return;
            }
            branches(key, operand, level, cx);
        }
        "stringEquals" => compare(key, operand, value, cx),
        "booleanEquals" => {
            compare(key, operand, value, cx);
            for node in [Some(operand), value].into_iter().flatten() {
                let plain = node.as_text().filter(|text| !text.contains("$."));
                let Some(text) = plain.filter(|_| !node.is_opaque()) else {
                    continue;
                };
                if !["true", "false"]
                    .iter()
                    .any(|word| text.eq_ignore_ascii_case(word))
                {
                    let message = format!("expected true or false, found {}", shown(text));
                    cx.error("wrong-type", node.span, message);
                }
            }
        }
        name if NUMBERS.contains(&name) => {
            compare(key, operand, value, cx);
            let plain = operand.as_text().filter(|text| !text.contains("$."));
            if plain.is_some_and(|text| text.parse::<f64>().is_err()) && !operand.is_opaque() {
                decode::wrong_type(operand, "a number", cx);
            }
        }
        name => {
            let known = comparisons().chain(LOGICAL);
            let help = suggest::did_you_mean(name, known);
            let message = format!("there is no operator {} in workflows", shown(name));
            cx.error_help("unknown-operator", key.span, message, help);
        }
    }
}

fn branches(key: &Key, operand: &Node, level: usize, cx: &mut Cx<'_>) {
    let not = key.text == "not";
    match &operand.kind {
        NodeKind::Map(_) if not => condition(operand, level + 1, cx),
        NodeKind::Seq(items) => {
            if items.is_empty() || (not && items.len() != 1) {
                let wanted = if not { "one condition" } else { "conditions" };
                let message = format!("`{}` takes {wanted}, found {}", key.text, items.len());
                cx.error("wrong-type", operand.span, message);
            }
            if items.len() > MOST_BRANCHES {
                let message = format!(
                    "`{}` takes at most {MOST_BRANCHES} conditions, found {}",
                    key.text,
                    items.len()
                );
                cx.error("out-of-range", operand.span, message);
            }
            items.iter().for_each(|item| condition(item, level + 1, cx));
        }
        _ if operand.is_opaque() => {}
        _ => decode::wrong_type(operand, "a list of conditions", cx),
    }
}

fn compare(key: &Key, operand: &Node, value: Option<&Node>, cx: &mut Cx<'_>) {
    decode::text(operand, cx);
    match value {
        None => {
            let message = format!("`{}` needs `value`", key.text);
            cx.error("missing-field", key.span, message);
        }
        Some(value) => {
            decode::text(value, cx);
        }
    }
}
