//! Reading an image recipe.

use amiforge_types::Diagnostics;

use super::{
    AmiforgeSettings, BlockDeviceMapping, ImageRecipe, devices, parents, settings, sources, unused,
};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;
use crate::resources::schema::Rule;
use crate::resources::tables;
use crate::version::VersionPattern;
use crate::yaml;

/// Most components of a recipe, build and test together (Image Builder quota).
const MOST_COMPONENTS: usize = 20;

/// Reads an image recipe. The recipe is there exactly when no problem is an error.
#[must_use]
pub fn parse_recipe(text: &str) -> (Option<ImageRecipe>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let recipe = yaml::parse_node(text, &mut diags).and_then(|node| recipe(node, &mut diags));
    (recipe.filter(|_| !diags.has_errors()), diags)
}

/// What a recipe is made from, whatever else is wrong with it.
#[derive(Clone, Debug, Default)]
pub struct RecipeSources {
    /// The parent of an image with its place.
    pub parent: Option<(super::ParentImage, amiforge_types::Span)>,
    /// The components that could be read.
    pub components: Vec<super::ComponentRef>,
}

/// What a recipe is made from: so that the problems of a recipe, its parent and its components can be told in one
/// run. [`parse_recipe`] tells the recipe's own.
#[must_use]
pub fn recipe_sources(text: &str) -> RecipeSources {
    let mut diags = Diagnostics::new();
    let document = yaml::parse_node(text, &mut diags);
    let cx = &mut Cx::new(&mut diags);
    let Some(mut fields) = document
        .as_ref()
        .and_then(|document| Fields::of_either_case(document, "an image recipe", cx))
    else {
        return RecipeSources::default();
    };
    let parent = fields.node("parentImage", cx);
    let list = fields.node("components", cx);
    RecipeSources {
        parent: parent.and_then(|node| Some((parents::parent_image(node, cx)?, node.span))),
        components: list.map_or_else(Vec::new, |node| super::readable_components(node, cx)),
    }
}

pub(crate) fn recipe(document: Node, diags: &mut Diagnostics) -> Option<ImageRecipe> {
    let mut cx = Cx::new(diags);
    yaml::deny_tags(&document, &mut cx);
    fields(document, &mut cx)
}

/// Reads the properties of a template's recipe, whose references are replaced.
pub(crate) fn template_recipe(properties: Node, diags: &mut Diagnostics) -> Option<ImageRecipe> {
    let mut cx = Cx::new(diags);
    cx.pascal = true;
    fields(properties, &mut cx)
}

/// Reads a recipe; what is asked for goes into the trace of `cx`.
pub(crate) fn fields(document: Node, cx: &mut Cx<'_>) -> Option<ImageRecipe> {
    let mut fields = Fields::of_either_case(&document, "an image recipe", cx)?;
    let name = fields.required("name", cx, decode::resource_name);
    let description = fields.optional("description", cx, |n, cx| decode::limited(n, cx, 1024));
    let version_node = fields.aliased("semanticVersion", "Version", cx);
    match version_node {
        None if cx.pascal => fields.missing_word("Version", cx),
        None => fields.missing("semanticVersion", cx),
        Some(_) => {}
    }
    let version = version_node.and_then(|n| {
        let help = "write three numbers, as in `1.0.0`, or `x` for trailing ones";
        decode::parsed::<VersionPattern>(n, cx, help)
    });
    let parent = fields.required("parentImage", cx, |n, cx| {
        Some((parents::parent_image(n, cx)?, n.span))
    });
    let components = fields.optional("components", cx, components);
    let mappings = fields.optional("blockDeviceMappings", cx, devices::mappings);
    let working_directory = fields.optional("workingDirectory", cx, working_directory);
    let tags = fields.optional("tags", cx, |n, cx| decode::tag_map(n, cx, 50));
    let ami_tags = fields.optional("amiTags", cx, |n, cx| decode::tag_map(n, cx, 50));
    let amiforge = fields.optional("amiforge", cx, settings::settings);
    // Read and refused rather than called unknown: they are real fields of the API.
    let additional = fields.node("additionalInstanceConfiguration", cx);
    let watermarks = fields.of_api("amiWatermarks", cx);
    for (node, what, why, rule) in [
        (
            additional,
            "additionalInstanceConfiguration",
            "the build machine has no user data or agent to configure",
            &Rule::Object(&tables::ADDITIONAL_INSTANCE_CONFIGURATION),
        ),
        (
            watermarks,
            "amiWatermarks",
            "watermarks exist only in AWS",
            &tables::AMI_WATERMARKS,
        ),
    ] {
        if let Some(node) = node {
            rule.check(node, cx);
            let message = format!("`{what}` has no effect here");
            cx.warning("ignored-field", node.span, message, why);
        }
    }
    // Of the API call, not of the recipe.
    fields.of_api("clientToken", cx);
    fields.deny_unknown(cx);

    if let Some(Some(mappings)) = &mappings {
        check_root(mappings, cx);
    }
    if let Some((parent, _)) = &parent {
        unused::warn(document.get("amiforge"), parent, true, cx);
    }
    let ((parent, parent_span), amiforge) =
        (parent?, amiforge?.unwrap_or_else(AmiforgeSettings::default));
    Some(ImageRecipe {
        name: name?,
        description: description?,
        version: version?,
        parent,
        parent_span,
        components: components?.unwrap_or_default(),
        block_device_mappings: mappings?.unwrap_or_default(),
        working_directory: working_directory?,
        tags: tags?.unwrap_or_default(),
        ami_tags: ami_tags?.unwrap_or_default(),
        container: None,
        amiforge,
        document: document.clone(),
    })
}

/// The root volume must be one that EC2 boots from.
fn check_root(mappings: &[BlockDeviceMapping], cx: &mut Cx<'_>) {
    let Some(root) = devices::root(mappings) else {
        return;
    };
    let name = &root.device_name;
    match &root.ebs {
        None => cx.error(
            "invalid-device",
            root.span,
            format!("the root device `{name}` must be an EBS volume"),
        ),
        Some(ebs) => {
            if let Some(kind) = ebs.volume_type.filter(|t| !t.is_bootable()) {
                let message = format!(
                    "the root device `{name}` cannot boot from a volume of type {}",
                    kind.name()
                );
                let help = Some("use gp3, gp2, io1, io2 or standard".to_owned());
                cx.error_help("unbootable-volume", root.span, message, help);
            }
        }
    }
}

pub(crate) fn components(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<super::ComponentRef>> {
    let components = decode::list(node, cx, sources::component_ref)?;
    if components.is_empty() && !node.is_opaque() {
        // CloudFormation and the API take a list without entries only by leaving the field out.
        let help = "leave `components` out when there is none";
        cx.error_help(
            "empty-value",
            node.span,
            "this list has no entry",
            Some(help.to_owned()),
        );
        return None;
    }
    if components.len() > MOST_COMPONENTS {
        let message = format!(
            "a recipe has at most {MOST_COMPONENTS} components, this has {}",
            components.len()
        );
        cx.warning(
            "aws-limit",
            node.span,
            message,
            "the image can be built here, but not by the service",
        );
    }
    Some(components)
}

pub(crate) fn working_directory(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = decode::path(node, cx)?;
    if !node.is_opaque() && !path.starts_with('/') && !is_on_a_drive(&path) {
        cx.error(
            "invalid-path",
            node.span,
            format!("{} is not an absolute path", decode::shown(&path)),
        );
        return None;
    }
    Some(path)
}

/// `C:\folder`: the recipe is for Windows.
fn is_on_a_drive(path: &str) -> bool {
    matches!(path.as_bytes(), [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
}
