//! Telling the kinds of document apart.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostic, Diagnostics};

use crate::component::{self, Component};
use crate::decode::Cx;
use crate::image_recipe::{self, ImageRecipe};
use crate::inline::Texts;
use crate::node::{Key, Node, NodeKind};
use crate::resources::{self, Resource, ResourceKind};
use crate::template::{self, Template};
use crate::{suggest, user_config, workflow, yaml};

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DocumentKind {
    /// An AWSTOE component document.
    Component,
    /// An Image Builder image recipe.
    ImageRecipe,
    /// Another resource of Image Builder.
    Resource(ResourceKind),
    /// A workflow document.
    Workflow,
    /// A CloudFormation template.
    Template,
    /// The user's configuration.
    Configuration,
}

impl DocumentKind {
    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Component => "component document",
            Self::ImageRecipe | Self::Resource(ResourceKind::ImageRecipe) => "image recipe",
            Self::Workflow => "workflow document",
            Self::Template => "CloudFormation template",
            Self::Configuration => "configuration of amiforge",
            Self::Resource(kind) => match kind {
                ResourceKind::Component => "component resource",
                ResourceKind::ContainerRecipe => "container recipe",
                ResourceKind::InfrastructureConfiguration => "infrastructure configuration",
                ResourceKind::DistributionConfiguration => "distribution configuration",
                ResourceKind::ImagePipeline => "image pipeline",
                ResourceKind::Image => "image",
                ResourceKind::Workflow => "workflow resource",
                ResourceKind::LifecyclePolicy => "lifecycle policy",
                ResourceKind::ImageRecipe => "image recipe",
            },
        }
    }

    /// One word, for programs.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::ImageRecipe | Self::Resource(ResourceKind::ImageRecipe) => "image-recipe",
            Self::Workflow => "workflow",
            Self::Template => "template",
            Self::Configuration => "config",
            Self::Resource(kind) => match kind {
                ResourceKind::Component => "component-resource",
                ResourceKind::ContainerRecipe => "container-recipe",
                ResourceKind::InfrastructureConfiguration => "infrastructure-configuration",
                ResourceKind::DistributionConfiguration => "distribution-configuration",
                ResourceKind::ImagePipeline => "image-pipeline",
                ResourceKind::Image => "image",
                ResourceKind::Workflow => "workflow-resource",
                ResourceKind::LifecyclePolicy => "lifecycle-policy",
                ResourceKind::ImageRecipe => "image-recipe",
            },
        }
    }
}

/// A document of any kind, without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Document {
    /// An AWSTOE component document.
    Component(Component),
    /// An Image Builder image recipe.
    ImageRecipe(Box<ImageRecipe>),
    /// Another resource of Image Builder.
    Resource(Box<Resource>),
    /// A workflow document, as it was read.
    Workflow(Node),
    /// A CloudFormation template.
    Template(Box<Template>),
    /// The user's configuration, as it was read.
    Configuration(Node),
}

impl Document {
    /// Stable bytes of the document; see [`Node::canonical`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        match self {
            Self::Component(component) => component.canonical(),
            Self::ImageRecipe(recipe) => recipe.canonical(),
            Self::Resource(resource) => resource.canonical(),
            Self::Workflow(node) | Self::Configuration(node) => node.canonical(),
            Self::Template(template) => template.canonical(),
        }
    }
}

/// Fields of a kind, with what each says for it: 4 where no other kind has the field, 1 where several have.
struct Signature {
    kind: DocumentKind,
    fields: &'static [(&'static str, u32)],
}

const fn of(kind: DocumentKind, fields: &'static [(&'static str, u32)]) -> Signature {
    Signature { kind, fields }
}

const SIGNATURES: &[Signature] = &[
    of(
        DocumentKind::Template,
        &[
            ("AWSTemplateFormatVersion", 9),
            ("Resources", 9),
            ("Mappings", 3),
            ("Outputs", 2),
            ("Conditions", 3),
            ("Transform", 3),
        ],
    ),
    of(
        DocumentKind::Component,
        &[("phases", 8), ("schemaVersion", 2), ("constants", 4)],
    ),
    of(
        DocumentKind::Workflow,
        &[("steps", 5), ("schemaVersion", 2), ("outputs", 1)],
    ),
    of(
        DocumentKind::ImageRecipe,
        &[
            ("parentImage", 3),
            ("semanticVersion", 1),
            ("version", 1),
            ("components", 2),
            ("blockDeviceMappings", 4),
            ("additionalInstanceConfiguration", 4),
            ("amiTags", 3),
            ("amiWatermarks", 4),
            ("workingDirectory", 1),
            ("amiforge", 8),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::ContainerRecipe),
        &[
            ("containerType", 6),
            ("dockerfileTemplateData", 6),
            ("dockerfileTemplateUri", 6),
            ("targetRepository", 6),
            ("instanceConfiguration", 4),
            ("platformOverride", 4),
            ("imageOsVersionOverride", 4),
            ("amiforge", 8),
            ("parentImage", 2),
            ("components", 1),
            ("semanticVersion", 1),
            ("version", 1),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::Component),
        &[
            ("data", 2),
            ("uri", 2),
            ("platform", 4),
            ("supportedOsVersions", 4),
            ("changeDescription", 2),
            ("semanticVersion", 1),
            ("version", 1),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::Workflow),
        &[
            ("data", 2),
            ("uri", 2),
            ("type", 3),
            ("changeDescription", 2),
            ("semanticVersion", 1),
            ("version", 1),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::InfrastructureConfiguration),
        &[
            ("instanceProfileName", 6),
            ("infrastructureConfigurationArn", 1),
            ("instanceTypes", 4),
            ("securityGroupIds", 4),
            ("subnetId", 4),
            ("terminateInstanceOnFailure", 4),
            ("keyPair", 3),
            ("snsTopicArn", 3),
            ("instanceMetadataOptions", 4),
            ("resourceTags", 3),
            ("logging", 2),
            ("placement", 2),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::DistributionConfiguration),
        &[("distributions", 8)],
    ),
    of(
        DocumentKind::Resource(ResourceKind::ImagePipeline),
        &[
            ("imageRecipeArn", 3),
            ("containerRecipeArn", 3),
            ("infrastructureConfigurationArn", 3),
            ("distributionConfigurationArn", 2),
            ("imageTestsConfiguration", 1),
            ("enhancedImageMetadataEnabled", 1),
            ("imagePipelineArn", 6),
            ("schedule", 4),
            ("status", 2),
            ("name", 1),
            ("workflows", 1),
            ("description", 1),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::Image),
        &[
            ("imageRecipeArn", 3),
            ("containerRecipeArn", 3),
            ("infrastructureConfigurationArn", 3),
            ("distributionConfigurationArn", 2),
            ("imageTestsConfiguration", 1),
            ("enhancedImageMetadataEnabled", 1),
            ("workflows", 1),
            ("clientToken", 1),
        ],
    ),
    of(
        DocumentKind::Resource(ResourceKind::LifecyclePolicy),
        &[
            ("policyDetails", 6),
            ("resourceSelection", 6),
            ("resourceType", 4),
            ("executionRole", 1),
            ("status", 1),
        ],
    ),
];

/// Less says too little, in halves: fields that several kinds have.
const LEAST: u32 = 5;

impl Signature {
    /// How much the keys speak for this kind. A key with a slip counts half.
    fn score(&self, keys: &[(Key, Node)]) -> u32 {
        let names = || self.fields.iter().map(|(name, _)| *name);
        keys.iter()
            .map(|(key, _)| {
                let exact = self
                    .fields
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(&key.text));
                match exact {
                    Some((_, weight)) => weight * 2,
                    // Short words are like many others.
                    None if key.text.len() < 5 => 0,
                    None => suggest::nearest(&key.text, names())
                        .and_then(|near| self.fields.iter().find(|(name, _)| *name == near))
                        .map_or(0, |(_, weight)| *weight),
                }
            })
            .sum()
    }
}

/// The kinds by how much speaks for them, best first; those without anything left out.
fn ranking(node: &Node) -> Vec<(u32, DocumentKind)> {
    let NodeKind::Map(fields) = &node.kind else {
        return Vec::new();
    };
    // More keys say nothing more, and each is compared with all.
    let fields = fields.get(..64).unwrap_or(fields);
    let mut scores: Vec<(u32, DocumentKind)> = SIGNATURES
        .iter()
        .map(|signature| (signature.score(fields), signature.kind))
        .filter(|(score, _)| *score > 0)
        .collect();
    scores.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
    scores
}

/// Whether it maps names of AWS to what stands for them here: no other kind of document has such mappings. Or it has
/// nothing but the sections of a configuration, perhaps with a slip in one.
fn is_configuration(node: &Node) -> bool {
    const SECTIONS: [&str; 4] = ["parents", "components", "references", "cacheTrust"];
    let NodeKind::Map(fields) = &node.kind else {
        return false;
    };
    let is_map = |node: &Node| matches!(node.kind, NodeKind::Map(_));
    let maps = |name: &str| node.get(name).is_some_and(is_map);
    // A list of components alone may as well be a part of a recipe.
    let is_section = |(key, value): &(Key, Node)| match suggest::nearest(&key.text, SECTIONS) {
        Some("components") => is_map(value) || value.is_null(),
        near => near.is_some(),
    };
    let only_sections =
        (1..=SECTIONS.len()).contains(&fields.len()) && fields.iter().all(is_section);
    maps("parents") || maps("references") || only_sections
}

/// The kind a document means to be, by its fields.
#[must_use]
pub fn detect_kind(node: &Node) -> Option<DocumentKind> {
    if is_configuration(node) {
        return Some(DocumentKind::Configuration);
    }
    if has_limits_alone(node) {
        return Some(DocumentKind::Resource(
            ResourceKind::InfrastructureConfiguration,
        ));
    }
    match ranking(node).as_slice() {
        [(best, kind), rest @ ..] if *best >= LEAST => {
            let even: Vec<DocumentKind> = rest
                .iter()
                .filter(|(score, _)| score == best)
                .map(|(_, kind)| *kind)
                .collect();
            // What makes an image is a pipeline when it has a name or a schedule, and then scores more.
            let (pipeline, image) = (
                DocumentKind::Resource(ResourceKind::ImagePipeline),
                DocumentKind::Resource(ResourceKind::Image),
            );
            match even.as_slice() {
                [] => Some(*kind),
                [other] if (*kind, *other) == (pipeline, image) => Some(image),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Whether nothing but limits of steps is said, which a recipe may have too, beside what it is made of.
fn has_limits_alone(node: &Node) -> bool {
    const BESIDE: [&str; 4] = ["name", "description", "tags", "amiforge"];
    let is_beside = |(key, _): &(Key, Node)| {
        BESIDE
            .iter()
            .any(|name| name.eq_ignore_ascii_case(&key.text))
    };
    let only = |node: &Node, own: &dyn Fn(&(Key, Node)) -> bool| match &node.kind {
        NodeKind::Map(fields) => !fields.is_empty() && fields.iter().all(own),
        _ => false,
    };
    let limits = |node: &Node| only(node, &|(key, _)| key.text == "limits");
    node.get("amiforge").is_some_and(limits) && only(node, &is_beside)
}

/// The kind of a document, when it can be told, whatever else is wrong with it.
#[must_use]
pub fn kind_of(text: &str) -> Option<DocumentKind> {
    let node = yaml::parse_node(text, &mut Diagnostics::new())?;
    detect_kind(&node)
}

/// Reads a document of whichever kind it is. The document is there exactly when no problem is an
/// error; the kind is there when it could be told.
#[must_use]
pub fn parse_document(text: &str) -> (Option<DocumentKind>, Option<Document>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let Some(node) = yaml::parse_node(text, &mut diags) else {
        return (None, None, diags);
    };
    let kind = detect_kind(&node);
    let document = match kind {
        Some(DocumentKind::Component) => {
            component::component(node, Texts::alone(text), &mut diags).map(Document::Component)
        }
        Some(DocumentKind::ImageRecipe | DocumentKind::Resource(ResourceKind::ImageRecipe)) => {
            image_recipe::recipe(node, &mut diags).map(|r| Document::ImageRecipe(Box::new(r)))
        }
        Some(DocumentKind::Resource(kind)) => resources::resource(kind, node, text, &mut diags)
            .map(|resource| Document::Resource(Box::new(resource))),
        Some(DocumentKind::Workflow) => {
            workflow::check(&node, None, &mut diags);
            Some(Document::Workflow(node))
        }
        Some(DocumentKind::Template) => {
            template::template(&node, text, &BTreeMap::new(), &mut diags)
                .map(|template| Document::Template(Box::new(template)))
        }
        Some(DocumentKind::Configuration) => {
            user_config::decode_config(&node, &mut Cx::new(&mut diags));
            Some(Document::Configuration(node))
        }
        None => {
            diags.push(unknown(&node));
            None
        }
    };
    (kind, document.filter(|_| !diags.has_errors()), diags)
}

/// Says that the kind cannot be told, and which were the nearest.
fn unknown(node: &Node) -> Diagnostic {
    let ranking = ranking(node);
    let nearest: Vec<&str> = match ranking.first() {
        None => Vec::new(),
        Some((best, _)) => ranking
            .iter()
            .filter(|(score, _)| score == best)
            .map(|(_, kind)| kind.name())
            .collect(),
    };
    let fragment = match &node.kind {
        NodeKind::Map(fields) => fields.iter().any(|(_, value)| {
            value
                .get("Type")
                .and_then(Node::as_text)
                .is_some_and(|kind| kind.starts_with("AWS::"))
        }),
        _ => false,
    };
    let message = "this is no document that amiforge knows";
    let is_step = |node: &Node| node.get("action").is_some() && node.get("name").is_some();
    let steps = match &node.kind {
        NodeKind::Seq(items) => items.first().is_some_and(is_step),
        _ => is_step(node) || node.get("steps").is_some(),
    };
    let help = if steps && node.get("schemaVersion").is_none() {
        "steps stand below `phases:` and `steps:` of a component document".to_owned()
    } else if fragment {
        "resources of a template stand below `Resources:`".to_owned()
    } else if nearest.is_empty() {
        "a component has `schemaVersion` and `phases`, a recipe `parentImage` and `semanticVersion`, a template `Resources`".to_owned()
    } else {
        format!(
            "it is most like {}, but has too few fields to tell",
            nearest.join(" or ")
        )
    };
    Diagnostic::error("unknown-document", node.span, message).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Option<DocumentKind> {
        parse_document(text).0
    }

    #[test]
    fn kinds_are_told_by_their_fields() {
        use DocumentKind as D;
        use ResourceKind as R;
        for (text, expected) in [
            ("schemaVersion: 1.0\nphases: []\n", Some(D::Component)),
            ("schemaVersion: 1.0\nsteps: []\n", Some(D::Workflow)),
            ("ParentImage: x\n", Some(D::ImageRecipe)),
            (
                "name: x\nparentImge: x\nsemanticVersion: 1.0.0\n",
                Some(D::ImageRecipe),
            ),
            (
                "name: x\nsemanticVersion: 1.0.0\nparentImage: x\ncomponents: []\ncontainerType: DOCKER\n",
                Some(D::Resource(R::ContainerRecipe)),
            ),
            (
                "name: x\nsemanticVersion: 1.0.0\nplatform: Linux\ndata: x\n",
                Some(D::Resource(R::Component)),
            ),
            (
                "name: x\nsemanticVersion: 1.0.0\ntype: TEST\ndata: x\n",
                Some(D::Resource(R::Workflow)),
            ),
            (
                "Name: x\nInstanceProfileName: x\n",
                Some(D::Resource(R::InfrastructureConfiguration)),
            ),
            (
                "name: x\namiforge: {limits: {processes: 10}}\n",
                Some(D::Resource(R::InfrastructureConfiguration)),
            ),
            (
                "name: x\namiforge: {limits: {processes: 10}, formats: [raw]}\n",
                None,
            ),
            ("name: x\namiforge: {}\n", None),
            (
                "name: x\ndistributions: []\n",
                Some(D::Resource(R::DistributionConfiguration)),
            ),
            (
                "name: x\nimageRecipeArn: x\ninfrastructureConfigurationArn: x\n",
                Some(D::Resource(R::ImagePipeline)),
            ),
            (
                "imageRecipeArn: x\ninfrastructureConfigurationArn: x\nclientToken: x\n",
                Some(D::Resource(R::Image)),
            ),
            (
                "name: x\npolicyDetails: []\n",
                Some(D::Resource(R::LifecyclePolicy)),
            ),
            ("Parameters: {}\nResources: {}\n", Some(D::Template)),
            ("parents: {a: 'debian:bookworm'}\n", Some(D::Configuration)),
            ("components: {a: ./a.yaml}\n", Some(D::Configuration)),
            ("components: [a]\n", None),
            ("components:\n", Some(D::Configuration)),
            ("parents: []\n", Some(D::Configuration)),
            ("parrents: {a: 'debian:bookworm'}\n", Some(D::Configuration)),
            ("parent: x\ntitle: y\n", None),
            ("name: x\n", None),
            ("name: x\nversion: 1.0.0\n", None),
            ("- a\n", None),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn the_nearest_kind_of_an_unknown_document_is_told() {
        let help = |text: &str| {
            let (_, _, diags) = parse_document(text);
            diags
                .iter()
                .next()
                .and_then(|d| d.help.clone())
                .unwrap_or_default()
        };
        assert!(help("semanticVersion: 1.0.0\nname: x\n").contains("most like"));
        assert!(help("a: {Type: 'AWS::S3::Bucket'}\n").contains("below `Resources:`"));
        assert!(help("x: y\n").contains("parentImage"));
    }
}
