//! The resources of Image Builder besides the image recipe: the inputs of the API's `Create…` calls
//! (camelCase), or the properties of CloudFormation's `AWS::ImageBuilder::…` (PascalCase).
//!
//! Nothing here is built from them but what an image needs; so they are checked against [`tables`] and
//! kept as they were read.

pub(crate) mod arn;
mod checks;
pub(crate) mod forms;
pub(crate) mod schedule;
pub(crate) mod schema;
pub(crate) mod tables;
mod timezone;

use amiforge_types::{Diagnostic, Diagnostics, Severity};

use crate::component::Component;
use crate::decode::{Cx, Fields};
use crate::dockerfile::Dockerfile;
use crate::inline::Inline;
use crate::node::{Node, NodeKind};
use crate::workflow::{self, Stage};
use crate::yaml;

pub(crate) use arn::parse as parse_arn;

/// A type of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ResourceKind {
    /// A component with its document.
    Component,
    /// An image recipe.
    ImageRecipe,
    /// A container recipe.
    ContainerRecipe,
    /// What the build machine is.
    InfrastructureConfiguration,
    /// Where images go.
    DistributionConfiguration,
    /// Recipe, infrastructure, distribution and schedule.
    ImagePipeline,
    /// One build of a recipe.
    Image,
    /// A workflow with its document.
    Workflow,
    /// When old images go.
    LifecyclePolicy,
}

impl ResourceKind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Component,
        Self::ImageRecipe,
        Self::ContainerRecipe,
        Self::InfrastructureConfiguration,
        Self::DistributionConfiguration,
        Self::ImagePipeline,
        Self::Image,
        Self::Workflow,
        Self::LifecyclePolicy,
    ];

    /// CloudFormation's name, after `AWS::ImageBuilder::`.
    #[must_use]
    pub const fn cfn_name(self) -> &'static str {
        match self {
            Self::Component => "Component",
            Self::ImageRecipe => "ImageRecipe",
            Self::ContainerRecipe => "ContainerRecipe",
            Self::InfrastructureConfiguration => "InfrastructureConfiguration",
            Self::DistributionConfiguration => "DistributionConfiguration",
            Self::ImagePipeline => "ImagePipeline",
            Self::Image => "Image",
            Self::Workflow => "Workflow",
            Self::LifecyclePolicy => "LifecyclePolicy",
        }
    }

    /// The kind with this name after `AWS::ImageBuilder::`.
    #[must_use]
    pub fn from_cfn_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.cfn_name() == name)
    }

    /// What people call it.
    #[must_use]
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Component => "a component",
            Self::ImageRecipe => "an image recipe",
            Self::ContainerRecipe => "a container recipe",
            Self::InfrastructureConfiguration => "an infrastructure configuration",
            Self::DistributionConfiguration => "a distribution configuration",
            Self::ImagePipeline => "an image pipeline",
            Self::Image => "an image",
            Self::Workflow => "a workflow",
            Self::LifecyclePolicy => "a lifecycle policy",
        }
    }

    /// The first part of an ARN's path.
    const fn arn_word(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::ImageRecipe => "image-recipe",
            Self::ContainerRecipe => "container-recipe",
            Self::InfrastructureConfiguration => "infrastructure-configuration",
            Self::DistributionConfiguration => "distribution-configuration",
            Self::ImagePipeline => "image-pipeline",
            Self::Image => "image",
            Self::Workflow => "workflow",
            Self::LifecyclePolicy => "lifecycle-policy",
        }
    }

    /// What follows the account in an ARN.
    const fn arn_form(self) -> &'static str {
        match self {
            Self::Component => "component/<name>/<version>",
            Self::ImageRecipe => "image-recipe/<name>/<version>",
            Self::ContainerRecipe => "container-recipe/<name>/<version>",
            Self::InfrastructureConfiguration => "infrastructure-configuration/<name>",
            Self::DistributionConfiguration => "distribution-configuration/<name>",
            Self::ImagePipeline => "image-pipeline/<name>",
            Self::Image => "image/<name>/<version>",
            Self::Workflow => "workflow/<build|test|distribution>/<name>/<version>",
            Self::LifecyclePolicy => "lifecycle-policy/<name>",
        }
    }

    /// The table of its fields; the image recipe is decoded instead.
    pub(crate) const fn table(self) -> Option<&'static schema::Object> {
        Some(match self {
            Self::ImageRecipe => return None,
            Self::Component => &tables::COMPONENT,
            Self::ContainerRecipe => &tables::CONTAINER_RECIPE,
            Self::InfrastructureConfiguration => &tables::INFRASTRUCTURE,
            Self::DistributionConfiguration => &tables::DISTRIBUTION,
            Self::ImagePipeline => &tables::PIPELINE,
            Self::Image => &tables::IMAGE,
            Self::Workflow => &tables::WORKFLOW,
            Self::LifecyclePolicy => &tables::LIFECYCLE_POLICY,
        })
    }
}

/// A resource without errors, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its type.
    pub kind: ResourceKind,
    /// Of a component with an inline document, that document.
    pub component: Option<Component>,
    /// Its fields.
    pub document: Node,
}

impl Resource {
    /// Stable bytes of the document; see [`Node::canonical`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        self.document.canonical()
    }
}

/// Reads a document that is one resource. `text` is the whole document.
pub(crate) fn resource(
    kind: ResourceKind,
    document: Node,
    text: &str,
    diags: &mut Diagnostics,
) -> Option<Resource> {
    yaml::deny_tags(&document, &mut Cx::new(diags));
    let inline = inline_of(kind, &document).and_then(|node| Inline::of_scalar(node, text));
    let inner = check(kind, &document, inline.as_ref(), false, diags);
    Some(Resource {
        kind,
        component: inner.component,
        document,
    })
}

/// The field that holds a document.
pub(crate) fn inline_of(kind: ResourceKind, document: &Node) -> Option<&Node> {
    let names = match kind {
        ResourceKind::Component | ResourceKind::Workflow => ["data", "Data"],
        ResourceKind::ContainerRecipe => ["dockerfileTemplateData", "DockerfileTemplateData"],
        _ => return None,
    };
    names.iter().find_map(|name| document.get(name))
}

/// What stands inside a resource, without errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inner {
    pub(crate) component: Option<Component>,
    pub(crate) dockerfile: Option<Dockerfile>,
}

/// Reads a Dockerfile template; what is right and not supported is told as `severity`, or not at all.
pub(crate) fn dockerfile(
    inline: &Inline<'_>,
    unsupported: Option<Severity>,
    diags: &mut Diagnostics,
) -> Option<Dockerfile> {
    if inline.is_open() {
        // Nothing can be said of its lines before their values are known.
        return None;
    }
    let mut file = None;
    let found = inline.check(|text, found| file = crate::dockerfile::dockerfile(text, found));
    found.iter().for_each(|problem| diags.push(problem.clone()));
    let mut file: Dockerfile = file.filter(|_| !found.has_errors())?;
    for problem in &mut file.unsupported {
        *problem = inline.lifted(problem);
        if let Some(severity) = unsupported {
            let mut told = problem.clone();
            told.severity = severity;
            diags.push(told);
        }
    }
    Some(file)
}

/// Checks the fields of a resource; of one that holds a document, that text comes back too.
pub(crate) fn check_fields<'n>(
    kind: ResourceKind,
    node: &'n Node,
    cx: &mut Cx<'_>,
) -> Option<(Fields<'n>, Option<String>)> {
    let fields = schema::check(node, kind.table()?, cx)?;
    if !matches!(kind, ResourceKind::Component | ResourceKind::Workflow) {
        return None;
    }
    let data = fields.peek("data")?;
    if matches!(data.kind, NodeKind::Map(_)) {
        let name = fields.spelled("data");
        let message = format!("`{name}` is the document as a text, found a mapping");
        let help = Some(format!("write `{name}: |` and the document below it"));
        cx.error_help("wrong-type", data.span, message, help);
        return Some((fields, None));
    }
    let text = crate::decode::limited(data, cx, 16_000);
    Some((fields, text))
}

/// Checks the fields of a resource, with the document that stands in it.
pub(crate) fn check(
    kind: ResourceKind,
    node: &Node,
    inline: Option<&Inline<'_>>,
    pascal: bool,
    diags: &mut Diagnostics,
) -> Inner {
    if kind == ResourceKind::ContainerRecipe {
        if let Some(table) = kind.table() {
            let mut cx = Cx::new(diags);
            cx.pascal = pascal;
            if let Some(fields) = schema::check(node, table, &mut cx) {
                crate::image_recipe::warn_of_container(&fields, &mut cx);
            }
        }
        let dockerfile = inline.and_then(|i| dockerfile(i, Some(Severity::Warning), diags));
        return Inner {
            component: None,
            dockerfile,
        };
    }
    Inner {
        component: with_document(kind, node, inline, pascal, diags),
        dockerfile: None,
    }
}

fn with_document(
    kind: ResourceKind,
    node: &Node,
    inline: Option<&Inline<'_>>,
    pascal: bool,
    diags: &mut Diagnostics,
) -> Option<Component> {
    let mut cx = Cx::new(diags);
    cx.pascal = pascal;
    let (fields, text) = check_fields(kind, node, &mut cx)?;
    let is_script = fields.peek("format").is_some();
    let (Some(inline), Some(_), false) = (inline, text, is_script) else {
        return None;
    };
    let stage = fields.peek("type").and_then(Node::as_text);
    let platform = fields.peek("platform").and_then(Node::as_text);
    let mut component = None;
    let found = inline.read(|node, text, found| match kind {
        ResourceKind::Component => {
            component = crate::component::component(node, text, found);
            if let (Some(component), Some(platform)) = (&component, platform) {
                elsewhere(component, platform, found);
            }
        }
        _ => workflow::check(&node, stage.and_then(Stage::from_name), found),
    });
    let failed = found.has_errors();
    found.iter().for_each(|problem| diags.push(problem.clone()));
    component.filter(|_| !failed)
}

/// Warns of steps whose actions the component's platform has not.
fn elsewhere(component: &Component, platform: &str, diags: &mut Diagnostics) {
    let steps = component.phases.iter().flat_map(|phase| &phase.steps);
    for step in steps.filter(|step| !step.action.is_on(platform)) {
        let message = format!(
            "there is no action `{}` on {platform}, the platform of this component",
            step.action.name()
        );
        let help = "the step fails when it is reached";
        let warning = Diagnostic::warning("wrong-platform", step.action_span, message);
        diags.push(warning.with_help(help));
    }
}
