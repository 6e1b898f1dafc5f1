//! `Outputs` and `Rules` of a template: nothing here is built from them, but what they name must be there.
//!
//! Source: CloudFormation user guide, Outputs, Rules, and rule-specific intrinsic functions.

use amiforge_types::{Diagnostic, Diagnostics, Severity};

use super::logical_id;
use super::resolve::{Resolver, call};
use crate::decode::{self, Cx, Fields, shown};
use crate::node::{Key, Node, NodeKind};
use crate::suggest;

/// Most outputs of a template (CloudFormation quota).
const MOST_OUTPUTS: usize = 200;

/// Functions of rules.
const OF_RULES: &[&str] = &[
    "And",
    "Contains",
    "EachMemberEquals",
    "EachMemberIn",
    "Equals",
    "Not",
    "Or",
    "RefAll",
    "ValueOf",
    "ValueOfAll",
];
/// How deep functions of rules may nest.
const MOST_NESTED: usize = 16;

/// Whether something makes names that the text does not show: a macro, or a loop over resources.
pub(super) fn has_macros(document: &Node, entries: &[(Key, Node)]) -> bool {
    let known = |node: &Node| node.as_text() == Some("AWS::LanguageExtensions");
    let transforms = document
        .get("Transform")
        .is_some_and(|node| match &node.kind {
            NodeKind::Seq(items) => !items.iter().all(known),
            _ => !known(node),
        });
    transforms || entries.iter().any(|(key, _)| key.text.starts_with("Fn::"))
}

/// Checks every output.
pub(super) fn outputs<'t>(section: &'t Node, resolver: &mut Resolver<'t, '_>) {
    let NodeKind::Map(entries) = &section.kind else {
        return;
    };
    if let Some((key, _)) = entries.get(MOST_OUTPUTS) {
        let count = entries.len();
        let message = format!("a template has at most {MOST_OUTPUTS} outputs, this has {count}");
        resolver.push(Diagnostic::error("out-of-range", key.span, message));
    }
    for (key, node) in entries.iter().take(MOST_OUTPUTS) {
        if !key.text.starts_with("Fn::") {
            logical_id(key, resolver);
            output(node, resolver);
        }
    }
}

fn output<'t>(node: &'t Node, resolver: &mut Resolver<'t, '_>) {
    let cx = &mut Cx::new(resolver.diags());
    let Some(mut fields) = Fields::of(node, "an output", cx) else {
        return;
    };
    fields.optional("Description", cx, |n, cx| decode::limited(n, cx, 1024));
    let condition = fields.node("Condition", cx);
    let value = fields.node("Value", cx);
    if value.is_none() {
        fields.missing("Value", cx);
    }
    let name = fields.node("Export", cx).and_then(|export| {
        let mut fields = Fields::of(export, "an export", cx)?;
        let name = fields.node("Name", cx);
        if name.is_none() {
            fields.missing("Name", cx);
        }
        fields.deny_unknown(cx);
        name
    });
    fields.deny_unknown(cx);
    if let Some(condition) = condition {
        resolver.named_condition(condition);
    }
    for value in [value, name].into_iter().flatten() {
        let before = std::mem::take(resolver.diags());
        resolver.node(value);
        let found = std::mem::replace(resolver.diags(), before);
        for problem in found.iter() {
            resolver.push(tolerant(problem.clone()));
        }
    }
}

/// A function that is not known here may be one of CloudFormation's, and nothing depends on its value.
fn tolerant(mut problem: Diagnostic) -> Diagnostic {
    if problem.code == "unsupported-intrinsic" {
        problem.severity = Severity::Warning;
    }
    problem
}

/// Checks every rule; `parameters` are the names of the template's.
pub(super) fn rules(section: &Node, parameters: &[String], diags: &mut Diagnostics) {
    let cx = &mut Cx::new(diags);
    let NodeKind::Map(entries) = &section.kind else {
        return;
    };
    for (_, node) in entries {
        let Some(mut fields) = Fields::of(node, "a rule", cx) else {
            continue;
        };
        if let Some(condition) = fields.node("RuleCondition", cx) {
            function(condition, parameters, 0, cx);
        }
        fields.required("Assertions", cx, |n, cx| {
            for one in decode::seq(n, cx)? {
                let Some(mut fields) = Fields::of(one, "an assertion", cx) else {
                    continue;
                };
                fields.required("Assert", cx, |n, cx| {
                    function(n, parameters, 0, cx);
                    Some(())
                });
                fields.optional("AssertDescription", cx, decode::text);
                fields.deny_unknown(cx);
            }
            Some(())
        });
        fields.deny_unknown(cx);
    }
}

fn function(node: &Node, parameters: &[String], level: usize, cx: &mut Cx<'_>) {
    if level > MOST_NESTED {
        let message = format!("functions of rules nest deeper than {MOST_NESTED} levels");
        cx.error("nested-too-deep", node.span, message);
        return;
    }
    let Some(call) = call(node) else {
        match &node.kind {
            NodeKind::Seq(items) => items
                .iter()
                .for_each(|item| function(item, parameters, level + 1, cx)),
            NodeKind::Map(_) => {
                let help = Some(format!(
                    "functions of rules: Fn::{}",
                    OF_RULES.join(", Fn::")
                ));
                cx.error_help(
                    "invalid-intrinsic",
                    node.span,
                    "this is no function of rules",
                    help,
                );
            }
            NodeKind::Scalar(_) => {}
        }
        return;
    };
    let named = match call.name {
        "Ref" => Some(call.arg),
        "ValueOf" => match &call.arg.kind {
            NodeKind::Seq(items) => items.first(),
            _ => None,
        },
        "RefAll" | "ValueOfAll" => return,
        name if OF_RULES.contains(&name) => {
            // The tag of a bare call was seen; what is below it is not.
            match &call.arg.kind {
                NodeKind::Seq(items) => items
                    .iter()
                    .for_each(|item| function(item, parameters, level + 1, cx)),
                _ if call.bare => {}
                _ => function(call.arg, parameters, level + 1, cx),
            }
            return;
        }
        name => {
            let help = suggest::did_you_mean(name, OF_RULES.iter().copied());
            let message = format!("{} is not a function of rules", shown(name));
            cx.error_help("unsupported-intrinsic", node.span, message, help);
            return;
        }
    };
    // Rules look at parameters only: there is nothing else yet.
    if let Some(name) = named.and_then(|node| match &node.kind {
        NodeKind::Scalar(scalar) => Some(scalar.text.as_str()),
        _ => None,
    }) && !name.starts_with("AWS::")
        && !parameters.iter().any(|there| there == name)
    {
        let help = suggest::did_you_mean(name, parameters.iter().map(String::as_str));
        let message = format!("the template has no parameter {}", shown(name));
        cx.error_help("unknown-reference", node.span, message, help);
    }
}
