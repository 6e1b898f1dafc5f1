//! Reading an image recipe.

use std::collections::BTreeMap;

use amiforge_types::Diagnostics;

use super::{AmiforgeSettings, BlockDeviceMapping, ImageRecipe, devices, settings, sources};
use crate::decode::{self, Cx, Fields};
use crate::node::{Node, NodeKind};
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

/// The components that a recipe names, whatever else is wrong with it: so that the problems of a
/// recipe and of its components can be told in one run. [`parse_recipe`] tells the recipe's own.
#[must_use]
pub fn recipe_components(text: &str) -> Vec<super::ComponentRef> {
    let mut diags = Diagnostics::new();
    let Some(document) = yaml::parse_node(text, &mut diags) else {
        return Vec::new();
    };
    let mut cx = Cx::new(&mut diags);
    Fields::of_either_case(&document, "an image recipe", &mut cx)
        .and_then(|mut fields| fields.optional("components", &mut cx, components))
        .flatten()
        .unwrap_or_default()
}

pub(crate) fn recipe(document: Node, diags: &mut Diagnostics) -> Option<ImageRecipe> {
    let mut cx = Cx::new(diags);
    let cx = &mut cx;
    yaml::deny_tags(&document, cx);
    let mut fields = Fields::of_either_case(&document, "an image recipe", cx)?;
    let name = fields.required("name", cx, resource_name);
    let description = fields.optional("description", cx, |n, cx| limited(n, cx, 1024));
    let version_node = fields.aliased("semanticVersion", "Version", cx);
    if version_node.is_none() {
        fields.missing("semanticVersion", cx);
    }
    let version = version_node.and_then(|n| version(n, cx));
    let parent = fields.required("parentImage", cx, |n, cx| {
        Some((sources::parent_image(n, cx)?, n.span))
    });
    let components = fields.optional("components", cx, components);
    let mappings = fields.optional("blockDeviceMappings", cx, devices::mappings);
    let working_directory = fields.optional("workingDirectory", cx, working_directory);
    let tags = fields.optional("tags", cx, tag_map);
    let ami_tags = fields.optional("amiTags", cx, tag_map);
    let amiforge = fields.optional("amiforge", cx, settings::settings);
    // Read and refused rather than called unknown: they are real fields of the API.
    for (name, why) in [
        (
            "additionalInstanceConfiguration",
            "the build machine has no user data or agent to configure",
        ),
        ("amiWatermarks", "watermarks exist only in AWS"),
    ] {
        if let Some(node) = fields.node(name, cx) {
            cx.warning(
                "ignored-field",
                node.span,
                format!("`{name}` has no effect here"),
                why,
            );
        }
    }
    // Of the API call, not of the recipe.
    let _token = fields.node("clientToken", cx);
    fields.deny_unknown(cx);

    if let Some(Some(mappings)) = &mappings {
        check_root(mappings, cx);
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

fn limited(node: &Node, cx: &mut Cx<'_>, most: usize) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let count = text.chars().count();
    if count > most {
        cx.error(
            "out-of-range",
            node.span,
            format!("this has {count} characters, at most {most} are allowed"),
        );
        return None;
    }
    Some(text)
}

/// 3 to 128 of letters, digits, `-`, `_`; spaces only inside.
fn resource_name(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    let allowed = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b' '));
    if !allowed || !(3..=128).contains(&text.len()) || text.trim() != text {
        let message = format!("{} is not a resource name", decode::shown(&text));
        let help = Some("use 3 to 128 letters, digits, `-`, `_`, and spaces inside".to_owned());
        cx.error_help("invalid-name", node.span, message, help);
        return None;
    }
    Some(text)
}

fn version(node: &Node, cx: &mut Cx<'_>) -> Option<VersionPattern> {
    let text = decode::filled(node, cx)?;
    match text.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            let help =
                Some("write three numbers, as in `1.0.0`, or `x` for trailing ones".to_owned());
            cx.error_help(
                "invalid-version",
                node.span,
                format!("version {}: {error}", decode::shown(&text)),
                help,
            );
            None
        }
    }
}

fn components(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<super::ComponentRef>> {
    let components = decode::list(node, cx, sources::component_ref)?;
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

fn working_directory(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = decode::path(node, cx)?;
    if !path.starts_with('/') {
        cx.error(
            "invalid-path",
            node.span,
            format!("{} is not an absolute path", decode::shown(&path)),
        );
        return None;
    }
    Some(path)
}

fn tag_map(node: &Node, cx: &mut Cx<'_>) -> Option<BTreeMap<String, String>> {
    // CloudFormation may also write a list of Key and Value for some resources, not for these.
    let NodeKind::Map(fields) = &node.kind else {
        decode::wrong_type(node, "a mapping of tag names to values", cx);
        return None;
    };
    let mut out = BTreeMap::new();
    let mut ok = true;
    if fields.len() > 50 {
        cx.error(
            "out-of-range",
            node.span,
            format!("at most 50 tags are allowed, these are {}", fields.len()),
        );
        ok = false;
    }
    for (key, value) in fields {
        let (chars, name) = (key.text.chars().count(), decode::shown(&key.text));
        let legal = key
            .text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " _.:/=+-@".contains(c));
        if !(1..=128).contains(&chars) || !legal || key.text.starts_with("aws:") {
            let help = "use 1 to 128 of letters, digits, space and _.:/=+-@; `aws:` at the start is reserved";
            cx.error_help(
                "invalid-name",
                key.span,
                format!("{name} is not a tag name"),
                Some(help.to_owned()),
            );
            ok = false;
        }
        match decode::text(value, cx) {
            Some(text) if text.chars().count() > 256 => {
                cx.error(
                    "out-of-range",
                    value.span,
                    "a tag's value has at most 256 characters",
                );
                ok = false;
            }
            Some(text) => {
                out.insert(key.text.clone(), text);
            }
            None => ok = false,
        }
    }
    ok.then_some(out)
}
