//! Reading documents that are exported together.

use amiforge_types::{Diagnostic, Diagnostics};

use crate::component::Component;
use crate::decode::Cx;
use crate::image_recipe::{ComponentRef, component_list};
use crate::inline::Inline;
use crate::node::{Node, NodeKind};
use crate::resources::{self, Resource, ResourceKind};
use crate::template::Template;
use crate::yaml;

use super::naming;

/// Fields that name another resource.
const REFERENCES: &[(&str, ResourceKind)] = &[
    ("imageRecipeArn", ResourceKind::ImageRecipe),
    ("containerRecipeArn", ResourceKind::ContainerRecipe),
    (
        "infrastructureConfigurationArn",
        ResourceKind::InfrastructureConfiguration,
    ),
    (
        "distributionConfigurationArn",
        ResourceKind::DistributionConfiguration,
    ),
    ("workflowArn", ResourceKind::Workflow),
];

/// Reads a document that is one resource. Where the ARN of another is wanted, the name of one of `known` may
/// stand. The resource is there exactly when no problem is an error.
#[must_use]
pub fn read_resource(
    kind: ResourceKind,
    text: &str,
    known: &[(ResourceKind, String)],
) -> (Option<Resource>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let Some(mut document) = yaml::parse_node(text, &mut diags) else {
        return (None, diags);
    };
    yaml::deny_tags(&document, &mut Cx::new(&mut diags));
    names_to_references(&mut document, kind, known);
    let inline =
        resources::inline_of(kind, &document).and_then(|node| Inline::of_scalar(node, text));
    let inner = resources::check(kind, &document, inline.as_ref(), false, &mut diags);
    let resource = Resource {
        kind,
        component: inner.component,
        document,
    };
    (Some(resource).filter(|_| !diags.has_errors()), diags)
}

fn names_to_references(node: &mut Node, of: ResourceKind, known: &[(ResourceKind, String)]) {
    let NodeKind::Map(fields) = &mut node.kind else {
        return;
    };
    for (key, value) in fields {
        let mut first = key.text.chars();
        let lower: String = first
            .next()
            .map(|c| c.to_ascii_lowercase())
            .into_iter()
            .chain(first)
            .collect();
        if lower == "workflows"
            && let NodeKind::Seq(items) = &mut value.kind
        {
            items
                .iter_mut()
                .for_each(|item| names_to_references(item, of, known));
        }
        let wanted = REFERENCES.iter().find(|(name, _)| *name == lower);
        // A configuration's own ARN says which one is updated.
        let Some((_, kind)) = wanted.filter(|(_, kind)| *kind != of) else {
            continue;
        };
        let found = value.as_text().and_then(|text| {
            known
                .iter()
                .find(|(k, name)| k == kind && (name == text || naming::slug(name) == text))
        });
        if let Some((kind, name)) = found {
            *value = value.clone().naming(*kind, name);
        }
    }
}

/// The name of a resource, whatever else is wrong with it.
#[must_use]
pub fn resource_name_of(text: &str) -> Option<String> {
    let node = yaml::parse_node(text, &mut Diagnostics::new())?;
    let name = node.get("name").or_else(|| node.get("Name"))?;
    name.as_text().map(ToOwned::to_owned)
}

/// The components that a recipe names, as far as they can be read.
#[must_use]
pub fn components_of(document: &Node) -> Vec<ComponentRef> {
    let mut diags = Diagnostics::new();
    let components = document
        .get("components")
        .or_else(|| document.get("Components"));
    components
        .and_then(|node| component_list(node, &mut Cx::new(&mut diags)))
        .unwrap_or_default()
}

/// Parameters of components whose values a recipe keeps secret.
#[must_use]
pub fn secrets_of(document: &Node) -> Vec<String> {
    let settings = ["amiforge", "Amiforge"]
        .iter()
        .find_map(|key| document.get(key));
    match settings
        .and_then(|settings| settings.get("secretParameters"))
        .map(|names| &names.kind)
    {
        Some(NodeKind::Seq(names)) => names
            .iter()
            .filter_map(|name| Some(name.as_text()?.to_owned()))
            .collect(),
        _ => Vec::new(),
    }
}

/// What a template has and an export of it has not, a line each: resources of other services, outputs, and what
/// stands beside the properties of a resource.
#[must_use]
pub fn left_of_template(text: &str) -> Vec<String> {
    let mut left = Vec::new();
    let Some(node) = yaml::parse_node(text, &mut Diagnostics::new()) else {
        return left;
    };
    let entries = |node: Option<&Node>| match node.map(|node| &node.kind) {
        Some(NodeKind::Map(entries)) => entries.clone(),
        _ => Vec::new(),
    };
    for (id, resource) in entries(node.get("Resources")) {
        let id = &id.text;
        let of = resource.get("Type").and_then(Node::as_text).unwrap_or("");
        if !of.starts_with("AWS::ImageBuilder::") {
            left.push(format!("the resource {id} ({of})"));
            continue;
        }
        for (attribute, value) in entries(Some(&resource)) {
            match attribute.text.as_str() {
                "DependsOn"
                | "DeletionPolicy"
                | "UpdateReplacePolicy"
                | "UpdatePolicy"
                | "CreationPolicy" => left.push(format!("`{}` of {id}", attribute.text)),
                "Metadata" => {
                    let others = entries(Some(&value)).into_iter();
                    for (key, _) in others.filter(|(key, _)| key.text != "amiforge") {
                        left.push(format!("`Metadata.{}` of {id}", key.text));
                    }
                }
                _ => {}
            }
        }
    }
    for section in ["Outputs", "Rules", "Description", "Metadata", "Transform"] {
        if node.get(section).is_some() {
            left.push(format!("the section `{section}`"));
        }
    }
    left
}

/// Reports references of a resource to others of its template that are not made, since their conditions do not hold.
pub fn check_active(node: &Node, template: &Template, diags: &mut Diagnostics) {
    if let Some((_, id)) = node.resource() {
        let active = template.resource(id).and_then(|resource| resource.active);
        if active == Some(false) {
            let message = format!("this names `{id}`, whose condition does not hold");
            diags.push(Diagnostic::error("unresolved-value", node.span, message));
        }
        return;
    }
    match &node.kind {
        NodeKind::Seq(items) => items
            .iter()
            .for_each(|item| check_active(item, template, diags)),
        NodeKind::Map(fields) => fields
            .iter()
            .for_each(|(_, item)| check_active(item, template, diags)),
        NodeKind::Scalar(_) => {}
    }
}

/// The platform that a component's actions are for: Windows when some exist only there, and none only elsewhere.
#[must_use]
pub fn component_platform(component: &Component) -> &'static str {
    let steps = || component.phases.iter().flat_map(|phase| &phase.steps);
    let of_windows = steps().any(|step| !step.action.is_on("Linux"));
    let of_linux = steps().any(|step| !step.action.is_on("Windows"));
    if of_windows && !of_linux {
        "Windows"
    } else {
        "Linux"
    }
}
