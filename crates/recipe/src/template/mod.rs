//! CloudFormation templates with resources of Image Builder.
//!
//! The resources of Image Builder are read with all references replaced by what is known before
//! deployment: parameters (given values, else defaults), mappings, conditions, pseudo parameters, and
//! resources of the same template, which a reference names by their logical id. What is known only when
//! the template is deployed stays open and passes every check ([`Style::Opaque`]). Resources of other
//! services are not looked at.
//!
//! Source: CloudFormation user guide, template anatomy and intrinsic functions.

mod base64;
mod open;
mod parameters;
mod resolve;
mod sections;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::{Diagnostic, Diagnostics, Severity, Span};

use crate::component::Component;
use crate::decode::{self, Cx, Fields, shown};
use crate::dockerfile::Dockerfile;
use crate::export::component_platform;
use crate::image_recipe::{self, ComponentSource, ImageRecipe};
use crate::inline::Inline;
use crate::node::{Key, Node, NodeKind, Style};
use crate::reference::has_secret;
use crate::resources::{self, ResourceKind};
use crate::{suggest, yaml};
pub(crate) use open::help as open_help;
pub(crate) use parameters::declared;
use resolve::{Resolver, Resource};

/// Most resources of a template (CloudFormation quota).
pub(crate) const MOST_RESOURCES: usize = 500;

/// Sections of a template.
pub(crate) const SECTIONS: &[&str] = &[
    "AWSTemplateFormatVersion",
    "Description",
    "Metadata",
    "Parameters",
    "Rules",
    "Mappings",
    "Conditions",
    "Transform",
    "Hooks",
    "Globals",
    "Resources",
    "Outputs",
];

/// What stands beside the properties of a resource.
pub(crate) const ATTRIBUTES: &[&str] = &[
    "Type",
    "Properties",
    "DependsOn",
    "Condition",
    "DeletionPolicy",
    "UpdateReplacePolicy",
    "UpdatePolicy",
    "CreationPolicy",
    "Metadata",
];

/// Begins the types of our resources.
pub(crate) const OURS: &str = "AWS::ImageBuilder::";

/// The resources of Image Builder in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// In the order of the template.
    pub resources: Vec<TemplateResource>,
    /// The names of the template's parameters.
    pub parameters: Vec<String>,
    /// Values of parameters with `NoEcho`, for which [`secret_mark`](crate::secret_mark)s stand in the resources.
    pub secrets: BTreeMap<String, String>,
}

/// One resource of Image Builder, its references replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateResource {
    /// The logical id.
    pub id: String,
    /// The type.
    pub kind: ResourceKind,
    /// Where the logical id stands.
    pub span: Span,
    /// Whether its condition holds; `None` when that is not known before deployment.
    pub active: Option<bool>,
    /// The properties.
    pub properties: Node,
    /// Of a component, its document as text.
    pub data: Option<String>,
    /// Of a resource that holds a document, what a build lacks where that has references whose value is not known before
    /// deployment.
    pub open: Vec<Diagnostic>,
    /// Of a component, its document when that has no errors.
    pub component: Option<Component>,
    /// Of a container recipe, its Dockerfile template when that has no errors and no open values.
    pub dockerfile: Option<Dockerfile>,
}

/// Why a template does not say which recipe to build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// There is no image recipe.
    #[error("the template has no recipe of an image or a container")]
    NoRecipe,
    /// There are several, and none was named.
    #[error("the template has several recipes: {}", .ids.join(", "))]
    Several {
        /// Their logical ids.
        ids: Vec<String>,
    },
    /// The name is not that of a resource.
    #[error("the template has no resource {name} of Image Builder; it has {}", .ids.join(", "))]
    Unknown {
        /// The name.
        name: String,
        /// The logical ids that there are.
        ids: Vec<String>,
    },
    /// The resource leads to no image recipe of the template.
    #[error("{id} is {what}; it leads to no recipe of this template")]
    NotARecipe {
        /// The logical id.
        id: String,
        /// What it is.
        what: &'static str,
    },
}

impl Template {
    /// The resource with a logical id.
    #[must_use]
    pub fn resource(&self, id: &str) -> Option<&TemplateResource> {
        self.resources.iter().find(|resource| resource.id == id)
    }

    /// The recipe that is meant: the one called `name`, the one that a pipeline or image called
    /// `name` is made from, or without a name the only one of an image, else the only one of a container.
    ///
    /// # Errors
    /// When that is none or several.
    pub fn recipe(&self, name: Option<&str>) -> Result<&TemplateResource, TemplateError> {
        let Some(name) = name else {
            let active = |kind| {
                let all = self.resources.iter();
                all.filter(move |r| r.kind == kind && r.active != Some(false))
            };
            // Images go first: that is what is built of a template with both when nothing is said.
            let mut images = active(ResourceKind::ImageRecipe).peekable();
            let mut recipes: Box<dyn Iterator<Item = &TemplateResource>> = match images.peek() {
                Some(_) => Box::new(images),
                None => Box::new(active(ResourceKind::ContainerRecipe)),
            };
            return match (recipes.next(), recipes.next()) {
                (None, _) => Err(TemplateError::NoRecipe),
                (Some(only), None) => Ok(only),
                (Some(first), Some(second)) => {
                    let ids = [first, second].into_iter().chain(recipes);
                    Err(TemplateError::Several {
                        ids: ids.map(|r| r.id.clone()).collect(),
                    })
                }
            };
        };
        let resource = self.resource(name).ok_or_else(|| TemplateError::Unknown {
            name: name.to_owned(),
            ids: self.resources.iter().map(|r| r.id.clone()).collect(),
        })?;
        if resource.is_recipe() {
            return Ok(resource);
        }
        let named = ["ImageRecipeArn", "ContainerRecipeArn"]
            .iter()
            .find_map(|name| resource.properties.get(name));
        named
            .and_then(Node::resource)
            .and_then(|(_, id)| self.resource(id))
            .filter(|r| r.is_recipe())
            .ok_or_else(|| TemplateError::NotARecipe {
                id: resource.id.clone(),
                what: resource.kind.with_article(),
            })
    }

    /// Stable bytes of the resources with their references replaced; see [`Node::canonical`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let key = |text: &str| Key {
            text: text.to_owned(),
            span: Span::default(),
        };
        let fields = self.resources.iter().map(|resource| {
            let kind = Node::text(resource.span, resource.kind.cfn_name());
            let fields = vec![
                (key("Type"), kind),
                (key("Properties"), resource.properties.clone()),
            ];
            (key(&resource.id), map(resource.span, fields))
        });
        map(Span::default(), fields.collect()).canonical()
    }
}

fn map(span: Span, fields: Vec<(Key, Node)>) -> Node {
    Node {
        span,
        kind: NodeKind::Map(fields),
        tag: None,
    }
}

impl TemplateResource {
    /// Whether it is a recipe: of an image or of a container.
    #[must_use]
    pub fn is_recipe(&self) -> bool {
        matches!(
            self.kind,
            ResourceKind::ImageRecipe | ResourceKind::ContainerRecipe
        )
    }

    /// The platform that a component is for: as it says, else as its actions are; `None` where neither is known.
    #[must_use]
    pub fn platform(&self) -> Option<&str> {
        let said = self.properties.get("Platform");
        let said = said
            .filter(|node| !node.is_opaque())
            .and_then(Node::as_text);
        said.or_else(|| self.component.as_ref().map(component_platform))
    }

    /// The recipe that this resource is, for a build: everything that it is made from must be known.
    /// The recipe is there exactly when no problem is an error.
    #[must_use]
    pub fn image_recipe(&self) -> (Option<ImageRecipe>, Diagnostics) {
        let mut diags = Diagnostics::new();
        let mut properties = self.properties.clone();
        let recipe = if self.kind == ResourceKind::ContainerRecipe {
            name_repository(&mut properties);
            let dockerfile = self.dockerfile.clone();
            image_recipe::template_container(properties.clone(), dockerfile, &mut diags)
        } else {
            image_recipe::template_recipe(properties.clone(), &mut diags)
        };
        if let NodeKind::Map(fields) = &properties.kind {
            for (key, value) in fields {
                if key.text != "Components" {
                    shown_secrets(value, &mut diags);
                }
                // What only AWS looks at may stay open.
                let open = may_stay_open(key, value);
                if key.text == "DockerfileTemplateData" && !value.as_text().is_some_and(has_secret)
                {
                    self.open.iter().for_each(|d| diags.push(d.clone()));
                } else if !open
                    && !matches!(
                        key.text.as_str(),
                        "Tags"
                            | "AmiTags"
                            | "Description"
                            | "AdditionalInstanceConfiguration"
                            | "InstanceConfiguration"
                            | "KmsKeyId"
                    )
                {
                    open_values(value, &mut diags);
                }
            }
        }
        (recipe.filter(|_| !diags.has_errors()), diags)
    }
}

/// Makes every text with a secret one that no check looks at, but in the components of a recipe, which have a use for it.
fn hide_secrets(node: &mut Node, is_recipe: bool) {
    match &mut node.kind {
        NodeKind::Seq(items) => items.iter_mut().for_each(|n| hide_secrets(n, false)),
        NodeKind::Map(fields) => fields
            .iter_mut()
            .filter(|(key, _)| !is_recipe || key.text != "Components")
            .for_each(|(_, n)| hide_secrets(n, false)),
        NodeKind::Scalar(scalar) if has_secret(&scalar.text) => scalar.style = Style::Opaque,
        NodeKind::Scalar(_) => {}
    }
}

/// A repository that deployment makes has no name before. It is only part of an image's name: the recipe's own does.
fn name_repository(properties: &mut Node) {
    let name = properties.get("Name").cloned();
    let NodeKind::Map(fields) = &mut properties.kind else {
        return;
    };
    let mut target = fields.iter_mut().filter(|f| f.0.text == "TargetRepository");
    if let Some((_, target)) = target.next()
        && let NodeKind::Map(fields) = &mut target.kind
    {
        for (key, value) in fields {
            if key.text == "RepositoryName"
                && value.is_opaque()
                && let Some(name) = &name
            {
                let span = value.span;
                *value = Node {
                    span,
                    ..name.clone()
                };
            }
        }
    }
}

/// Reports every secret that an image would show.
fn shown_secrets(node: &Node, diags: &mut Diagnostics) {
    match &node.kind {
        NodeKind::Seq(items) => items.iter().for_each(|n| shown_secrets(n, diags)),
        NodeKind::Map(fields) => fields.iter().for_each(|(_, n)| shown_secrets(n, diags)),
        NodeKind::Scalar(scalar) if has_secret(&scalar.text) => {
            let message =
                "a parameter with `NoEcho` can only be part of components and their parameters";
            diags.push(Diagnostic::error("conflicting-fields", node.span, message));
        }
        NodeKind::Scalar(_) => {}
    }
}

/// Whether a build gets on without the value of a field.
fn may_stay_open(key: &Key, value: &Node) -> bool {
    // A name that the user's configuration may know.
    let ssm = value.as_text().is_some_and(|text| text.starts_with("ssm:"));
    let parent = key.text == "ParentImage" && ssm;
    // Where the name of a repository is open, that of the recipe stands, which is looked at itself.
    parent || ["KmsKeyId", "SnapshotId", "RepositoryName"].contains(&key.text.as_str())
}

/// Reports every value that is not known before deployment and that a build needs.
fn open_values(node: &Node, diags: &mut Diagnostics) {
    match &node.kind {
        NodeKind::Seq(items) => items.iter().for_each(|n| open_values(n, diags)),
        NodeKind::Map(fields) => fields
            .iter()
            .filter(|(key, value)| !may_stay_open(key, value))
            .for_each(|(_, n)| open_values(n, diags)),
        NodeKind::Scalar(scalar) => {
            // Resources of this template are no open values.
            let is_open = scalar.style == Style::Opaque && !has_secret(&scalar.text);
            if is_open && node.resource().is_none() {
                let message = format!("{} has no value before deployment", shown(&scalar.text));
                let name = scalar
                    .text
                    .split_once("${")
                    .and_then(|(_, rest)| rest.split_once('}'));
                let help = open::help(name.map_or(&scalar.text, |(name, _)| name), false, None);
                diags.push(
                    Diagnostic::error("unresolved-value", node.span, message).with_help(help),
                );
            }
        }
    }
}

/// Reads a template. `given` are values of its parameters; names that it does not declare are ignored.
/// The template is there exactly when no problem is an error.
#[must_use]
pub fn parse_template(
    text: &str,
    given: &BTreeMap<String, String>,
) -> (Option<Template>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let template = yaml::parse_node(text, &mut diags)
        .and_then(|node| read(&node, text, given, Purpose::Build, &mut diags));
    (template.filter(|_| !diags.has_errors()), diags)
}

/// Reads a template of which nothing is assumed: pseudo parameters are open, save those that `given` has a value of.
#[must_use]
pub fn parse_template_for_export(
    text: &str,
    given: &BTreeMap<String, String>,
) -> (Option<Template>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let template = yaml::parse_node(text, &mut diags)
        .and_then(|node| read(&node, text, given, Purpose::Export, &mut diags));
    (template.filter(|_| !diags.has_errors()), diags)
}

/// Reads a template whatever else is wrong with it.
pub(crate) fn template(
    document: &Node,
    text: &str,
    given: &BTreeMap<String, String>,
    diags: &mut Diagnostics,
) -> Option<Template> {
    read(document, text, given, Purpose::Check, diags)
}

/// What a template is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To tell what is wrong with it.
    Check,
    /// To build of it.
    Build,
    /// To write it in another form: nothing is assumed of where it is deployed.
    Export,
}

fn read(
    document: &Node,
    text: &str,
    given: &BTreeMap<String, String>,
    purpose: Purpose,
    diags: &mut Diagnostics,
) -> Option<Template> {
    soften_duplicates(document, diags);
    if let Some(span) = first_alias(document, text) {
        let message = "CloudFormation takes no aliases (`*name`) in a template";
        let help = "write out what the anchor has; this one is the first";
        diags.push(Diagnostic::warning("aws-limit", span, message).with_help(help));
    }
    let mut found = Diagnostics::new();
    let mut cx = Cx::new(&mut found);
    let cx = &mut cx;
    let mut fields = Fields::of(document, "a template", cx)?;
    let mut section = |name: &'static str, cx: &mut Cx<'_>| {
        let node = fields.node(name, cx)?;
        if !matches!(node.kind, NodeKind::Map(_)) {
            decode::wrong_type(node, "a mapping", cx);
            return None;
        }
        Some(node)
    };
    let parameters = section("Parameters", cx);
    let mappings = section("Mappings", cx);
    let conditions = section("Conditions", cx);
    let resources = section("Resources", cx);
    let outputs = section("Outputs", cx);
    let rules = section("Rules", cx);
    for name in SECTIONS {
        fields.node(name, cx);
    }
    if fields.peek("Resources").is_none() {
        fields.missing("Resources", cx);
    }
    fields.deny_unknown(cx);
    if let Some(version) = fields.peek("AWSTemplateFormatVersion")
        && version.as_text() != Some("2010-09-09")
    {
        let help = Some("write `AWSTemplateFormatVersion: 2010-09-09`".to_owned());
        cx.error_help(
            "unsupported-schema",
            version.span,
            "there is one version of templates",
            help,
        );
    }
    let entries: &[(Key, Node)] = match resources.map(|n| &n.kind) {
        Some(NodeKind::Map(entries)) => entries,
        _ => &[],
    };
    if let Some((key, _)) = entries.get(MOST_RESOURCES) {
        let message = format!(
            "a template has at most {MOST_RESOURCES} resources, this has {}",
            entries.len()
        );
        cx.error("out-of-range", key.span, message);
        found.iter().for_each(|problem| diags.push(problem.clone()));
        return None;
    }
    let declared = parameters::declared(parameters, given, cx);
    let names: Vec<String> = declared.keys().map(|name| (*name).to_owned()).collect();
    let secrets = declared
        .iter()
        .filter_map(|(name, parameter)| Some(((*name).to_owned(), parameter.secret()?.to_owned())))
        .collect();
    if let Some(rules) = rules {
        sections::rules(rules, &names, cx.diags);
    }
    let mut resolver = Resolver::new(
        text,
        declared,
        mappings,
        conditions,
        by_id(entries),
        cx.diags,
    );
    if purpose == Purpose::Export {
        resolver.assume_nothing(given);
    }
    resolver.check_conditions();
    let mut list = Vec::new();
    for (key, node) in entries {
        list.extend(resource(key, node, text, &mut resolver));
    }
    if purpose == Purpose::Check {
        components_of_recipes(&list, resolver.diags());
    }
    if let (Some(outputs), false) = (outputs, sections::has_macros(document, entries)) {
        sections::outputs(outputs, &mut resolver);
    }
    let defaults = resolver.into_defaults();
    if let (true, Some(section)) = (list.is_empty() && !found.has_errors(), resources) {
        let message = "the template has no resource of Image Builder";
        let help = "resources of other services are not looked at";
        found.push(Diagnostic::warning("nothing-to-check", section.span, message).with_help(help));
    }
    for problem in found.iter() {
        diags.push(softened(problem.clone(), &defaults));
    }
    Some(Template {
        resources: list,
        parameters: names,
        secrets,
    })
}

/// Holds the recipes against the components that they name, and against secrets. A build tells the same, with what else
/// is given to it.
fn components_of_recipes(resources: &[TemplateResource], diags: &mut Diagnostics) {
    const MOST_REFERENCES: usize = 1000;
    const MOST_PROBLEMS: usize = 1000;
    let mut left = MOST_REFERENCES;
    for recipe in resources.iter().filter(|resource| resource.is_recipe()) {
        let NodeKind::Map(fields) = &recipe.properties.kind else {
            continue;
        };
        let mut shown = Diagnostics::new();
        for (_, value) in fields.iter().filter(|(key, _)| key.text != "Components") {
            shown_secrets(value, &mut shown);
        }
        for problem in shown.iter() {
            // AWS takes it, and shows the value.
            let severity = Severity::Warning;
            diags.push(Diagnostic {
                severity,
                ..problem.clone()
            });
        }
        let parent = recipe.properties.get("ParentImage");
        let parent = parent.filter(|p| !p.is_opaque()).and_then(Node::as_text);
        let is_debian = parent.is_some_and(|parent| parent.starts_with("debian:"));
        let Some(list) = recipe.properties.get("Components") else {
            continue;
        };
        // What is wrong with the list itself is told already.
        let mut told = Diagnostics::new();
        let mut cx = Cx::new(&mut told);
        cx.pascal = true;
        for reference in image_recipe::readable_components(list, &mut cx) {
            // Far above what a template of use has: the cost is that of references times parameters.
            left = match left.checked_sub(1) {
                Some(left) if diags.len() < MOST_PROBLEMS => left,
                _ => return,
            };
            if let ComponentSource::Named { name, .. } = &reference.source
                && resources.iter().any(|resource| resource.id == *name)
            {
                let message = format!("`{name}` is a text here, not the resource of this name");
                let help = format!("write `!Ref {name}`");
                diags.push(
                    Diagnostic::error("invalid-component", reference.span, message).with_help(help),
                );
            }
            let ComponentSource::Resource(id) = &reference.source else {
                continue;
            };
            let found = resources.iter().find(|resource| resource.id == *id);
            match found.and_then(TemplateResource::platform) {
                Some(other) if is_debian && other != "Linux" => {
                    diags.push(reference.elsewhere(id, other));
                }
                _ => {}
            }
            let Some(component) = found.and_then(|resource| resource.component.as_ref()) else {
                continue;
            };
            let name = component.name.as_deref().filter(|name| !name.is_empty());
            let problems = reference.given_problems(name.unwrap_or(id), component);
            for problem in problems.into_iter().take(MOST_PROBLEMS) {
                diags.push(problem);
            }
        }
    }
}

/// CloudFormation takes a key that stands twice, and the last one counts. In what is not looked at here, that is no error.
fn soften_duplicates(document: &Node, diags: &mut Diagnostics) {
    let NodeKind::Map(sections) = &document.kind else {
        return;
    };
    let place = sections.iter().position(|(key, _)| key.text == "Resources");
    let Some((place, NodeKind::Map(entries))) = place.map(|place| (place, &sections[place].1.kind))
    else {
        return;
    };
    let start = |key: &Key| key.span.start.offset;
    // A resource goes on to the next one, the last to the next section.
    let next = sections
        .get(place + 1)
        .map_or(usize::MAX, |(key, _)| start(key));
    let ends = entries.iter().skip(1).map(|(key, _)| start(key));
    let ends = ends.chain([next]);
    let others: Vec<std::ops::Range<usize>> = entries
        .iter()
        .zip(ends)
        .filter(|((_, node), _)| {
            let kind = node.get("Type").and_then(Node::as_text);
            kind.is_some_and(|kind| !kind.starts_with(OURS))
        })
        .map(|((key, _), end)| start(key)..end)
        .collect();
    let within = |place: Span| {
        others
            .iter()
            .any(|range| range.contains(&place.start.offset))
    };
    for mut problem in std::mem::take(diags).into_sorted() {
        if problem.code == "duplicate-key" && problem.span.is_some_and(within) {
            problem.severity = Severity::Warning;
        }
        diags.push(problem);
    }
}

/// The first value that came through an alias: it has the alias's place, and no other value begins with `*`.
fn first_alias(node: &Node, text: &str) -> Option<Span> {
    let here = text.get(node.span.start.offset..).unwrap_or_default();
    if here.starts_with('*') {
        return Some(node.span);
    }
    match &node.kind {
        NodeKind::Scalar(_) => None,
        NodeKind::Seq(items) => items.iter().find_map(|n| first_alias(n, text)),
        NodeKind::Map(fields) => fields.iter().find_map(|(_, n)| first_alias(n, text)),
    }
}

/// What references ask of the resources, by their logical ids.
fn by_id(entries: &[(Key, Node)]) -> BTreeMap<&str, Resource<'_>> {
    entries
        .iter()
        .map(|(key, node)| {
            let kind = node
                .get("Type")
                .and_then(Node::as_text)
                .and_then(|text| text.strip_prefix(OURS))
                .and_then(ResourceKind::from_cfn_name);
            let properties = node.get("Properties");
            (key.text.as_str(), Resource { kind, properties })
        })
        .collect()
}

/// What is wrong with the default of a parameter is no error of the template: who deploys it may give
/// another value.
fn softened(mut problem: Diagnostic, defaults: &BTreeSet<usize>) -> Diagnostic {
    let starts_at_default = problem
        .span
        .is_some_and(|span| defaults.contains(&span.start.offset));
    if problem.severity == Severity::Error && starts_at_default {
        problem.severity = Severity::Warning;
        problem.help = Some("the value comes from the default of a parameter".to_owned());
    }
    problem
}

/// Reads one resource when it is ours.
fn resource<'t>(
    key: &'t Key,
    node: &'t Node,
    text: &str,
    resolver: &mut Resolver<'t, '_>,
) -> Option<TemplateResource> {
    if let Some(function) = key.text.strip_prefix("Fn::") {
        let loops = function.starts_with("ForEach::");
        if !loops || mentions_ours(node) {
            let name = function.split(':').next().unwrap_or(function);
            let message = format!("`Fn::{name}` is not supported");
            let help = "write the resources out";
            let problem = Diagnostic::error("unsupported-intrinsic", key.span, message);
            resolver.push(problem.with_help(help));
        }
        return None;
    }
    let kind = node.get("Type").and_then(Node::as_text);
    let NodeKind::Map(attributes) = &node.kind else {
        let message = format!("expected a mapping, found {}", node.describe());
        resolver.push(Diagnostic::error("wrong-type", node.span, message));
        return None;
    };
    let Some(kind) = kind else {
        let message = format!("the resource `{}` needs the field `Type`", key.text);
        resolver.push(Diagnostic::error("missing-field", key.span, message));
        return None;
    };
    let name = kind.strip_prefix(OURS)?;
    let Some(kind) = ResourceKind::from_cfn_name(name) else {
        let names = ResourceKind::ALL.map(ResourceKind::cfn_name);
        let help = suggest::did_you_mean(name, names)
            .unwrap_or_else(|| format!("types after {OURS} are {}", names.join(", ")));
        let at = node.get("Type").map_or(node.span, |n| n.span);
        let message = format!(
            "there is no type of resource {}",
            shown(&format!("{OURS}{name}"))
        );
        resolver.push(Diagnostic::error("unknown-resource-type", at, message).with_help(help));
        return None;
    };
    logical_id(key, resolver);
    for (attribute, _) in attributes {
        if !ATTRIBUTES.contains(&attribute.text.as_str()) {
            let help = suggest::did_you_mean(&attribute.text, ATTRIBUTES.iter().copied())
                .unwrap_or_else(|| {
                    "fields of the resource itself stand below `Properties`".to_owned()
                });
            let message = format!("a resource has no attribute {}", shown(&attribute.text));
            resolver
                .push(Diagnostic::error("unknown-field", attribute.span, message).with_help(help));
        }
    }
    let active = match node.get("Condition") {
        None => Some(true),
        Some(condition) => resolver.named_condition(condition),
    };
    let raw = node.get("Properties");
    let mut properties = match raw {
        Some(raw) => resolver.node(raw)?,
        None => map(key.span, Vec::new()),
    };
    // Our settings, where CloudFormation lets anything stand.
    let settings = node.get("Metadata").and_then(|m| m.get("amiforge"));
    let is_recipe = matches!(
        kind,
        ResourceKind::ImageRecipe | ResourceKind::ContainerRecipe
    );
    hide_secrets(&mut properties, is_recipe);
    own_settings_in_properties(raw.filter(|_| is_recipe), resolver.diags());
    if let (true, Some(settings), NodeKind::Map(fields)) =
        (is_recipe, settings, &mut properties.kind)
    {
        let name = Key {
            text: "Amiforge".to_owned(),
            span: settings.span,
        };
        fields.push((name, resolver.node(settings)?));
    }
    let inline = raw
        .and_then(|raw| resources::inline_of(kind, raw))
        .and_then(|data| resolver.inline(data, text));
    if let Some(raw) = raw.and_then(|raw| resources::inline_of(kind, raw)) {
        forgotten_sub(raw, text, resolver.diags());
    }
    let open = open::problems(
        inline.as_ref(),
        resources::inline_of(kind, &properties),
        resolver,
    );
    let inner = if kind == ResourceKind::ImageRecipe {
        image_recipe::template_recipe(properties.clone(), resolver.diags());
        resources::Inner::default()
    } else {
        resources::check(kind, &properties, inline.as_ref(), true, resolver.diags())
    };
    Some(TemplateResource {
        id: key.text.clone(),
        kind,
        span: key.span,
        active,
        properties,
        data: inline.as_ref().map(Inline::text),
        open,
        component: inner.component,
        dockerfile: inner.dockerfile,
    })
}

/// Warns of the first `${AWS::…}` in a text whose references are not replaced: no shell has such a variable.
fn forgotten_sub(raw: &Node, text: &str, diags: &mut Diagnostics) {
    const START: &str = "${AWS::";
    let plain = raw.as_text().filter(|_| raw.tag.is_none());
    let Some((_, rest)) = plain.and_then(|plain| plain.split_once(START)) else {
        return;
    };
    // A script may write a template itself.
    let line = rest.split('\n').next().unwrap_or_default();
    let before = plain.map_or("", |plain| &plain[..plain.len() - rest.len()]);
    let line_before = before.rsplit('\n').next().unwrap_or_default();
    if [line_before, line]
        .iter()
        .any(|part| part.contains("!Sub") || part.contains("Fn::Sub"))
    {
        return;
    }
    let name = rest.split('}').next().unwrap_or_default();
    let name: String = name.chars().take_while(char::is_ascii_alphabetic).collect();
    let written = format!("{START}{name}");
    let message = format!("`{written}}}` stays as it is: only `!Sub` replaces it");
    let span = raw.span.of_part(text, &written, 0);
    let help = "write `!Sub` before the text, and `${!NAME}` for variables of a script in it";
    diags.push(Diagnostic::warning("foreign-reference", span, message).with_help(help));
}

/// Our settings among the properties work here, and only here.
fn own_settings_in_properties(raw: Option<&Node>, diags: &mut Diagnostics) {
    let Some(NodeKind::Map(fields)) = raw.map(|raw| &raw.kind) else {
        return;
    };
    if let Some((key, _)) = fields.iter().find(|(key, _)| key.text == "Amiforge") {
        let message = "CloudFormation refuses a resource with the property `Amiforge`";
        let help = "write the settings as `amiforge` below the resource's `Metadata`";
        diags.push(Diagnostic::warning("aws-limit", key.span, message).with_help(help));
    }
}

fn logical_id(key: &Key, resolver: &mut Resolver<'_, '_>) {
    let fits = !key.text.is_empty()
        && key.text.len() <= 255
        && key.text.bytes().all(|b| b.is_ascii_alphanumeric());
    if !fits {
        let message = format!("{} is not a logical id", shown(&key.text));
        resolver.push(
            Diagnostic::error("invalid-name", key.span, message)
                .with_help("use letters and digits only"),
        );
    }
}

/// True when a type of Image Builder stands anywhere in it.
fn mentions_ours(node: &Node) -> bool {
    match &node.kind {
        NodeKind::Scalar(scalar) => scalar.text.starts_with(OURS),
        NodeKind::Seq(items) => items.iter().any(mentions_ours),
        NodeKind::Map(fields) => fields.iter().any(|(_, value)| mentions_ours(value)),
    }
}

#[cfg(test)]
mod tests;
