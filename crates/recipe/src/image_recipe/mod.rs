//! Image recipes: the API's `CreateImageRecipe` input (camelCase) or CloudFormation's
//! `AWS::ImageBuilder::ImageRecipe` properties (PascalCase), plus our one key `amiforge`.

mod container;
mod decode;
mod devices;
mod given;
mod hygiene;
mod limits;
mod parents;
mod settings;
mod sources;
mod unused;

use std::collections::BTreeMap;

use amiforge_types::{Digest, Span};

use crate::decode::Cx;
use crate::node::Node;
use crate::version::VersionPattern;

pub(crate) use container::template_container;
pub(crate) use container::warn_of_container;
pub use container::{Container, parse_container_recipe};
pub use decode::{RecipeSources, parse_recipe, recipe_sources};
pub(crate) use decode::{fields, recipe, template_recipe};
pub use devices::{BlockDeviceMapping, Ebs, VolumeType};
pub use hygiene::{Findings, Hygiene};
pub use limits::{StepLimits, parse_infrastructure};
pub use parents::{
    ArchivePlace, DiskFormat, OciReference, ParentImage, instead_of_docker, instead_of_suite,
};
pub(crate) use settings::is_secret_name;
pub use settings::{
    AmiforgeSettings, AptSettings, AptVariant, BootMode, OutputFormat, RootFilesystem, SecretName,
    SecretParameter, StepNetwork,
};
pub use sources::{ComponentRef, ComponentSource, ParameterPlace};

/// An image recipe without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecipe {
    /// 3 to 128 letters, digits, `-`, `_`, and spaces inside.
    pub name: String,
    /// Free text, 1 to 1,024 characters.
    pub description: Option<String>,
    /// The version; `x` parts are chosen by the build.
    pub version: VersionPattern,
    /// What the image starts from.
    pub parent: ParentImage,
    /// Where the parent is named.
    pub parent_span: Span,
    /// In running order; at most 20.
    pub components: Vec<ComponentRef>,
    /// The volumes, in the order of the recipe; empty means one default root volume.
    pub block_device_mappings: Vec<BlockDeviceMapping>,
    /// The folder that components run in.
    pub working_directory: Option<String>,
    /// Tags of the recipe.
    pub tags: BTreeMap<String, String>,
    /// Tags of the resulting image.
    pub ami_tags: BTreeMap<String, String>,
    /// Of a container recipe, what only it has; its disks and formats mean nothing.
    pub container: Option<Container>,
    /// The settings below `amiforge`; the defaults when the key is absent.
    pub amiforge: AmiforgeSettings,
    /// The whole document as it was read.
    pub document: Node,
}

impl ImageRecipe {
    /// Stable bytes of the document; see [`Node::canonical`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        self.document.canonical()
    }

    /// The digest of [`ImageRecipe::canonical`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// The mapping of the root volume: that of `/dev/xvda` or `/dev/sda1`, else the first EBS
    /// volume.
    #[must_use]
    pub fn root_mapping(&self) -> Option<&BlockDeviceMapping> {
        devices::root(&self.block_device_mappings)
    }

    /// The device of the root volume; `/dev/xvda` when the recipe maps none.
    #[must_use]
    pub fn root_device_name(&self) -> &str {
        self.root_mapping()
            .map_or("/dev/xvda", |mapping| &mapping.device_name)
    }
}

/// Checks the mappings of another resource.
pub(crate) fn block_device_mappings(node: &Node, cx: &mut Cx<'_>) {
    devices::mappings(node, cx);
}

/// Checks our settings of a container recipe.
pub(crate) fn container_settings(node: &Node, cx: &mut Cx<'_>) {
    settings::container_settings(node, cx);
}

/// Checks the settings of an infrastructure configuration.
pub(crate) fn infrastructure_settings(node: &Node, cx: &mut Cx<'_>) {
    limits::infrastructure_settings(node, cx);
}

/// Checks the components of another resource.
pub(crate) fn component_refs(node: &Node, cx: &mut Cx<'_>) {
    decode::components(node, cx);
}

/// Those components of a recipe that can be read.
pub(crate) fn readable_components(node: &Node, cx: &mut Cx<'_>) -> Vec<ComponentRef> {
    let entries = crate::decode::seq(node, cx).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| sources::component_ref(entry, cx))
        .collect()
}

/// The components of another resource, decoded.
pub(crate) fn component_list(node: &Node, cx: &mut Cx<'_>) -> Option<Vec<ComponentRef>> {
    decode::components(node, cx)
}

#[cfg(test)]
mod tests;
