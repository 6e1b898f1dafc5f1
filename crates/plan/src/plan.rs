//! The plan as data, and its ids.

use std::collections::BTreeMap;

use amiforge_types::{Digest, LayerId};
use serde::{Deserialize, Serialize};

use crate::json::canonical_json;

/// The version of `plan.json`. A reader refuses every other.
pub const SCHEMA_VERSION: u32 = 1;

/// What one build consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Digest of the layer ids, the components and the image's inputs. The build's seed.
    pub plan_id: Digest,
    /// The recipe.
    pub recipe: RecipeSummary,
    /// The parent image as the recipe asks for it.
    pub parent_image: String,
    /// What shapes the image without shaping a layer: volumes, boot mode, formats, tool version.
    pub image_inputs: BTreeMap<String, String>,
    /// From the parent upwards.
    pub layers: Vec<LayerPlan>,
    /// In the order of the recipe, those without a layer included.
    pub components: Vec<PlannedComponent>,
}

/// Which recipe a plan is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecipeSummary {
    /// Its name.
    pub name: String,
    /// Its version as written, wildcards included.
    pub version: String,
    /// Digest of its canonical form. Not part of any id: a changed description changes no image.
    pub digest: Digest,
}

/// One layer to make or to take from the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerPlan {
    /// Digest of `kind`, `parent` and `inputs`.
    pub id: LayerId,
    /// What makes the layer.
    pub kind: LayerKind,
    /// For people; part of no id.
    pub title: String,
    /// Everything that goes in, by name.
    pub inputs: BTreeMap<String, String>,
    /// The layer below.
    pub parent: Option<LayerId>,
}

/// What makes a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type", deny_unknown_fields)]
pub enum LayerKind {
    /// The parent's packages, unpacked.
    ParentUnpacked,
    /// The parent's packages, configured.
    ParentConfigured,
    /// Files that the parent brings: an archive, a disk, a layer of an image.
    #[serde(rename_all = "camelCase")]
    ParentImported {
        /// Which of the parent's, from below.
        index: usize,
    },
    /// The build phase of a component of the image that is the parent.
    ParentComponent,
    /// Packages that an imported parent lacks for a boot; empty when it lacks none.
    BootPackages,
    /// The build phase of a component.
    #[serde(rename_all = "camelCase")]
    Component {
        /// Position in [`Plan::components`].
        index: usize,
    },
}

/// A component of the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlannedComponent {
    /// What people call it.
    pub name: String,
    /// Its version; local documents have none.
    pub version: Option<String>,
    /// As the recipe names it.
    pub reference: String,
    /// Digest of the canonical document.
    pub digest: Digest,
    /// Every parameter with its value.
    pub parameters: BTreeMap<String, String>,
    /// Names of its phases in running order.
    pub phases: Vec<String>,
    /// The layer that its build phase makes; `None` without a build phase.
    pub layer: Option<LayerId>,
}

impl LayerKind {
    /// The word that goes into the layer's id. The position of a component does not: moving a
    /// layer changes its parent, and only that matters. A layer has the same id in the image that it was made
    /// for and in those that continue it.
    fn id_word(&self) -> &'static str {
        match self {
            Self::ParentUnpacked => "parent-unpacked",
            Self::ParentConfigured => "parent-configured",
            Self::ParentImported { .. } => "parent-imported",
            Self::BootPackages => "boot-packages",
            Self::Component { .. } | Self::ParentComponent => "component",
        }
    }
}

impl LayerPlan {
    /// The layer as one of a parent's, for an image that continues this one. Its id stays.
    #[must_use]
    pub fn of_parent(self) -> Self {
        let kind = match self.kind {
            LayerKind::Component { .. } => LayerKind::ParentComponent,
            kind => kind,
        };
        Self { kind, ..self }
    }

    /// A layer with its id computed.
    pub(crate) fn new(
        kind: LayerKind,
        title: String,
        inputs: BTreeMap<String, String>,
        parent: Option<LayerId>,
    ) -> Self {
        let id = layer_id(&kind, &inputs, parent);
        Self {
            id,
            kind,
            title,
            inputs,
            parent,
        }
    }

    /// True when the id is the one that the content gives.
    pub(crate) fn id_fits(&self) -> bool {
        self.id == layer_id(&self.kind, &self.inputs, self.parent)
    }
}

fn layer_id(
    kind: &LayerKind,
    inputs: &BTreeMap<String, String>,
    parent: Option<LayerId>,
) -> LayerId {
    let value = serde_json::json!({
        "format": "amiforge-layer-v1",
        "kind": kind.id_word(),
        "parent": parent.map(|p| p.to_string()),
        "inputs": inputs,
    });
    LayerId(Digest::of(&canonical_json(&value)))
}

impl Plan {
    /// The uppermost layer, which is the image's root file system.
    #[must_use]
    pub fn top(&self) -> Option<&LayerPlan> {
        self.layers.last()
    }

    /// The layer with this id.
    #[must_use]
    pub fn layer(&self, id: LayerId) -> Option<&LayerPlan> {
        self.layers.iter().find(|layer| layer.id == id)
    }

    /// The component whose build phase makes `layer`.
    #[must_use]
    pub fn component_of(&self, layer: &LayerPlan) -> Option<&PlannedComponent> {
        match layer.kind {
            LayerKind::Component { index } => self.components.get(index),
            _ => None,
        }
    }

    /// The id that the content gives; equal to [`Plan::plan_id`] unless somebody edited the plan.
    #[must_use]
    pub fn computed_id(&self) -> Digest {
        let components: Vec<_> = self
            .components
            .iter()
            .map(|c| serde_json::json!({"document": c.digest, "parameters": c.parameters}))
            .collect();
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| layer.id.to_string())
            .collect();
        let value = serde_json::json!({
            "format": "amiforge-plan-v1",
            "image": self.image_inputs,
            "layers": layers,
            "components": components,
        });
        Digest::of(&canonical_json(&value))
    }
}
