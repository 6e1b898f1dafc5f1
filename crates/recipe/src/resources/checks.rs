//! Rules of resources that no table holds: what values demand of each other.

use std::collections::BTreeMap;

use super::arn;
use crate::decode::{self, Cx, Fields};
use crate::node::{Node, NodeKind};

/// Any text, also none.
pub(crate) fn any_text(node: &Node, cx: &mut Cx<'_>) {
    decode::text(node, cx);
}

/// A Region can have one entry.
pub(crate) fn regions_once(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    let Some(NodeKind::Seq(items)) = fields.peek("distributions").map(|n| &n.kind) else {
        return;
    };
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for item in items {
        let region = item.get("region").or_else(|| item.get("Region"));
        let Some(region) = region.filter(|n| !n.is_opaque()) else {
            continue;
        };
        let Some(text) = region.as_text() else {
            continue;
        };
        if let Some(line) = seen.insert(text, region.span.start.line) {
            let message = format!("the Region {text} has an entry in line {line} already");
            cx.error("duplicate-name", region.span, message);
        }
    }
}

/// Only test workflows run beside each other.
pub(crate) fn parallel_tests_only(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    let Some(workflow) = fields.peek("workflowArn").filter(|n| !n.is_opaque()) else {
        return;
    };
    let stage = workflow
        .as_text()
        .and_then(|text| arn::parse(text).ok())
        .and_then(|arn| arn.path.get(1).copied());
    if stage.is_some_and(|stage| stage != "test") && fields.peek("parallelGroup").is_some() {
        cx.error(
            "conflicting-fields",
            fields.place("parallelGroup"),
            "only test workflows can be in a parallel group",
        );
    }
}

/// Custom workflows run under a role that has to be given.
pub(crate) fn role_of_workflows(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    let workflows = match fields.peek("workflows").map(|n| &n.kind) {
        Some(NodeKind::Seq(items)) => !items.is_empty(),
        _ => false,
    };
    if workflows && fields.peek("executionRole").is_none() {
        let name = fields.spelled("executionRole");
        cx.warning(
            "missing-field",
            fields.place("workflows"),
            format!("`workflows` without `{name}`"),
            "the service starts workflows under the role that this field names",
        );
    }
}

/// An image is made from a recipe and an infrastructure, or by starting a pipeline.
pub(crate) fn image_source(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    if fields.is_unknown() || fields.peek("imagePipelineExecutionSettings").is_some() {
        return;
    }
    let given = ["imageRecipeArn", "containerRecipeArn"].map(|name| fields.peek(name));
    if given.iter().flatten().any(|node| node.may_be_absent()) {
        return;
    }
    match given.map(|node| node.is_some()) {
        [true, true] => cx.error(
            "conflicting-fields",
            fields.place("containerRecipeArn"),
            "an image is made from one recipe, not from two",
        ),
        [false, false] => {
            let names = ["imageRecipeArn", "containerRecipeArn"].map(|n| fields.spelled(n));
            let message = format!("an image needs one of `{}` and `{}`", names[0], names[1]);
            cx.error("missing-field", fields.span(), message);
        }
        _ => {}
    }
    if fields.peek("infrastructureConfigurationArn").is_none() {
        fields.missing("infrastructureConfigurationArn", cx);
    }
}

/// `unit` and `retainAtLeast` belong to filters by age.
pub(crate) fn filter_by_age(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    let kind = fields.peek("type").filter(|n| !n.is_opaque());
    match kind.and_then(Node::as_text) {
        Some("AGE") if fields.peek("unit").is_none() => fields.missing("unit", cx),
        Some("COUNT") => {
            for name in ["unit", "retainAtLeast"] {
                if fields.peek(name).is_some() {
                    let message =
                        format!("`{}` belongs to a filter of type AGE", fields.spelled(name));
                    cx.error("conflicting-fields", fields.place(name), message);
                }
            }
        }
        _ => {}
    }
}

/// A filter by count belongs to the action `DELETE`.
///
/// Source: user guide, `image-lifecycle-rules`: of the three rules, only deletion is by age or by count.
pub(crate) fn count_deletes(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    let kind = |of: &str| {
        let object = fields.peek(of)?;
        let kind = object.get("type").or_else(|| object.get("Type"))?;
        Some(kind).filter(|n| !n.is_opaque())
    };
    let (Some(action), Some(filter)) = (kind("action"), kind("filter")) else {
        return;
    };
    if let Some(verb @ ("DEPRECATE" | "DISABLE")) = action.as_text()
        && filter.as_text() == Some("COUNT")
    {
        let help = "write a filter of type AGE, with `value` and `unit`";
        cx.error_help(
            "conflicting-fields",
            filter.span,
            format!("{verb} goes by age: a filter of type COUNT belongs to DELETE"),
            Some(help.to_owned()),
        );
    }
}
