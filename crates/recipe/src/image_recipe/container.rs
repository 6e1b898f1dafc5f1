//! Container recipes: the API's `CreateContainerRecipe` input or CloudFormation's
//! `AWS::ImageBuilder::ContainerRecipe`, plus our one key `amiforge`.
//!
//! The fields are checked against their table, as those of all resources; this takes from them what a build
//! needs.

use amiforge_types::{Diagnostics, Span};

use super::{AmiforgeSettings, ImageRecipe, decode as recipe, parents, settings, unused};
use crate::decode::{self, Cx, Fields};
use crate::dockerfile::Dockerfile;
use crate::inline::Inline;
use crate::node::Node;
use crate::resources::schema;
use crate::resources::{self, ResourceKind, tables};
use crate::version::VersionPattern;
use crate::yaml;

/// What only container recipes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The repository that the service would push to; part of the image's name.
    pub repository: String,
    /// The Dockerfile template; `None` when it is at a URI, which is not fetched.
    pub dockerfile: Option<Dockerfile>,
    /// Where the template or its URI stands.
    pub span: Span,
}

/// Reads a container recipe. The recipe is there exactly when no problem is an error; what its Dockerfile
/// has and no build follows is in [`Dockerfile::unsupported`], and no problem yet.
#[must_use]
pub fn parse_container_recipe(text: &str) -> (Option<ImageRecipe>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let recipe = yaml::parse_node(text, &mut diags).and_then(|document| {
        yaml::deny_tags(&document, &mut Cx::new(&mut diags));
        let inline = resources::inline_of(ResourceKind::ContainerRecipe, &document)
            .and_then(|node| Inline::of_scalar(node, text));
        let dockerfile = inline.and_then(|inline| resources::dockerfile(&inline, None, &mut diags));
        fields(document, dockerfile, false, &mut diags)
    });
    (recipe.filter(|_| !diags.has_errors()), diags)
}

/// The same of a template's resource, whose Dockerfile was read before.
pub(crate) fn template_container(
    properties: Node,
    dockerfile: Option<Dockerfile>,
    diags: &mut Diagnostics,
) -> Option<ImageRecipe> {
    fields(properties, dockerfile, true, diags)
}

/// Tells of settings that have no effect.
pub(crate) fn warn_of_container(fields: &Fields<'_>, cx: &mut Cx<'_>) {
    // What is wrong with the parent is told elsewhere.
    let mut quiet = Diagnostics::new();
    let parent = fields
        .peek("parentImage")
        .and_then(|node| parents::container_parent(node, &mut Cx::new(&mut quiet)));
    if let Some(parent) = parent {
        unused::warn(fields.peek("amiforge"), &parent, false, cx);
    }
}

fn fields(
    document: Node,
    dockerfile: Option<Dockerfile>,
    pascal: bool,
    diags: &mut Diagnostics,
) -> Option<ImageRecipe> {
    let mut cx = Cx::new(diags);
    cx.pascal = pascal;
    let fields = schema::check(&document, &tables::CONTAINER_RECIPE, &mut cx)?;
    // What the table has told is not told again.
    let mut found = Diagnostics::new();
    let cx = &mut Cx::new(&mut found);
    cx.pascal = pascal;
    let name = fields
        .peek("name")
        .and_then(|n| decode::resource_name(n, cx));
    let version = ["semanticVersion", "SemanticVersion", "Version"]
        .iter()
        .find_map(|name| document.get(name))
        .and_then(|n| decode::parsed::<VersionPattern>(n, cx, ""));
    let parent = fields
        .peek("parentImage")
        .and_then(|n| Some((parents::container_parent(n, cx)?, n.span)));
    let components = fields.peek("components").map(|n| recipe::components(n, cx));
    let working_directory = fields
        .peek("workingDirectory")
        .map(|n| recipe::working_directory(n, cx));
    let description = fields
        .peek("description")
        .and_then(|n| decode::limited(n, cx, 1024));
    let tags = fields.peek("tags").and_then(|n| decode::tag_map(n, cx, 50));
    let amiforge = fields
        .peek("amiforge")
        .map(|n| settings::container_settings(n, cx));
    warn_of_container(&fields, cx);
    let repository = fields.peek("targetRepository").and_then(|n| {
        let name = n
            .get("repositoryName")
            .or_else(|| n.get("RepositoryName"))?;
        decode::filled(name, cx)
    });
    let template = ["dockerfileTemplateData", "dockerfileTemplateUri"]
        .iter()
        .find_map(|name| fields.peek(name));
    let span = template.map_or(document.span, |n| n.span);
    for problem in found.iter() {
        if !diags.iter().any(|known| known.span == problem.span) {
            diags.push(problem.clone());
        }
    }
    let (parent, parent_span) = parent?;
    Some(ImageRecipe {
        name: name?,
        description,
        version: version?,
        parent,
        parent_span,
        components: components.unwrap_or_else(|| Some(Vec::new()))?,
        block_device_mappings: Vec::new(),
        working_directory: working_directory.map_or(Some(None), |path| path.map(Some))?,
        tags: tags.unwrap_or_default(),
        ami_tags: std::collections::BTreeMap::new(),
        container: Some(Container {
            repository: repository?,
            dockerfile,
            span,
        }),
        amiforge: amiforge.unwrap_or_else(|| Some(AmiforgeSettings::of_container()))?,
        document: document.clone(),
    })
}
