//! Recipe + what it resolved to → plan.

use std::collections::BTreeMap;

use amiforge_recipe::{BlockDeviceMapping, Component, Container, ImageRecipe};
use amiforge_types::{Arch, Compression, Digest, LayerId, Timestamp};
use serde_json::{Value, json};

use crate::json::{canonical_json, digest_text};
use crate::plan::{LayerKind, LayerPlan, Plan, PlannedComponent, RecipeSummary, SCHEMA_VERSION};

/// Everything a plan is made from. What is text here goes into ids as it is, so it must not name
/// the host: no paths of the store, no times of the wall clock.
#[derive(Clone, Debug)]
pub struct PlanRequest<'r> {
    /// The recipe.
    pub recipe: &'r ImageRecipe,
    /// The architecture of the image.
    pub arch: Arch,
    /// The version of amiforge; an input of the image.
    pub tool_version: &'r str,
    /// The version of what runs steps and harvests their results; an input of every layer.
    pub executor_version: &'r str,
    /// The time that files get which the build itself makes; an input of every layer.
    /// `None` lets the newest time among the parent's files be the clock: a function of inputs that
    /// are named anyway.
    pub build_clock: Option<Timestamp>,
    /// What the recipe's parent resolved to.
    pub parent: ResolvedParent,
    /// One per entry of the recipe's `components`, in that order.
    pub components: Vec<ResolvedComponent<'r>>,
    /// Further inputs of every component's layer, for example variables that steps can see.
    pub step_inputs: BTreeMap<String, String>,
    /// Further inputs of the image.
    pub image_inputs: BTreeMap<String, String>,
}

/// What a parent resolved to: the layers that it becomes. Inputs go by name, their values are usually digests.
#[derive(Clone, Debug)]
pub enum ResolvedParent {
    /// Packages (`package.<name>` → `sha256:...`).
    Packages {
        /// What decides the bytes of the unpacked layer.
        unpacked: BTreeMap<String, String>,
        /// What decides, besides, the bytes of the configured layer.
        configured: BTreeMap<String, String>,
    },
    /// Files that come as they are.
    Imported {
        /// The layers, the lowest first; none of a parent without files.
        layers: Vec<ImportedLayer>,
        /// What decides the layer of the packages for a boot; `None` where the image needs none.
        boot: Option<BTreeMap<String, String>>,
    },
    /// The layers of an image, continued.
    Continued {
        /// As the plan of that image has them, the lowest first.
        layers: Vec<LayerPlan>,
        /// As in [`ResolvedParent::Imported`].
        boot: Option<BTreeMap<String, String>>,
    },
}

/// A layer of a parent that comes as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedLayer {
    /// For people; part of no id.
    pub title: String,
    /// What decides its bytes.
    pub inputs: BTreeMap<String, String>,
}

/// A component with everything it needs.
#[derive(Clone, Debug)]
pub struct ResolvedComponent<'r> {
    /// What people call it.
    pub name: String,
    /// Its version; local documents have none.
    pub version: Option<String>,
    /// As the recipe names it.
    pub reference: String,
    /// The document.
    pub component: &'r Component,
    /// Every parameter with its value, see [`Component::resolve_parameters`].
    pub parameters: BTreeMap<String, String>,
    /// Files and documents that the document names, by the name it uses.
    pub files: BTreeMap<String, Digest>,
    /// Further inputs of its layer, by their whole names: `environment.<name>` of variables that its steps
    /// find, `reference.<name>` of values from outside.
    pub values: BTreeMap<String, String>,
}

/// The request contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Not every component of the recipe was resolved.
    #[error("the recipe has {recipe} components, {resolved} were resolved")]
    ComponentCount {
        /// Entries of the recipe.
        recipe: usize,
        /// Entries of the request.
        resolved: usize,
    },
    /// The layers of the parent do not stand on one another.
    #[error("the layers of the parent do not stand on one another, at {title:?}")]
    BrokenParent {
        /// Title of the first that does not.
        title: String,
    },
    /// A caller's input has a name that this crate uses.
    #[error("the input name {name:?} is taken")]
    InputTaken {
        /// The name.
        name: String,
    },
}

/// Makes the plan.
///
/// # Errors
/// [`CompileError`] when the request does not fit its recipe.
pub fn compile(request: &PlanRequest<'_>) -> Result<Plan, CompileError> {
    let recipe = request.recipe;
    if recipe.components.len() != request.components.len() {
        return Err(CompileError::ComponentCount {
            recipe: recipe.components.len(),
            resolved: request.components.len(),
        });
    }
    let mut layers = parent_layers(request)?;
    let mut components = Vec::new();
    for (index, resolved) in request.components.iter().enumerate() {
        let below = layers.last().map(|layer| layer.id);
        let layer = match resolved.component.phase("build") {
            Some(_) => Some(component_layer(request, index, resolved, below)?),
            None => None,
        };
        components.push(PlannedComponent {
            name: resolved.name.clone(),
            version: resolved.version.clone(),
            reference: resolved.reference.clone(),
            digest: resolved.component.digest(),
            parameters: resolved.parameters.clone(),
            phases: resolved
                .component
                .phases
                .iter()
                .map(|p| p.name.clone())
                .collect(),
            layer: layer.as_ref().map(|layer| layer.id),
        });
        layers.extend(layer);
    }
    let mut plan = Plan {
        schema_version: SCHEMA_VERSION,
        plan_id: Digest::of(b""),
        recipe: RecipeSummary {
            name: recipe.name.clone(),
            version: recipe.version.to_string(),
            digest: recipe.digest(),
        },
        parent_image: recipe.parent.to_string(),
        image_inputs: image_inputs(request)?,
        layers,
        components,
    };
    plan.plan_id = plan.computed_id();
    Ok(plan)
}

fn parent_layers(request: &PlanRequest<'_>) -> Result<Vec<LayerPlan>, CompileError> {
    let parent = &request.recipe.parent;
    let (mut layers, boot) = match &request.parent {
        ResolvedParent::Packages {
            unpacked,
            configured,
        } => {
            let mut layers = Vec::new();
            let title = format!("{parent}, packages unpacked");
            push(
                request,
                &mut layers,
                LayerKind::ParentUnpacked,
                title,
                unpacked,
            )?;
            let title = format!("{parent}, packages configured");
            push(
                request,
                &mut layers,
                LayerKind::ParentConfigured,
                title,
                configured,
            )?;
            (layers, &None)
        }
        ResolvedParent::Imported { layers: all, boot } => {
            let mut layers = Vec::new();
            for (index, imported) in all.iter().enumerate() {
                let kind = LayerKind::ParentImported { index };
                push(
                    request,
                    &mut layers,
                    kind,
                    imported.title.clone(),
                    &imported.inputs,
                )?;
            }
            (layers, boot)
        }
        ResolvedParent::Continued { layers, boot } => {
            let mut below = None;
            for layer in layers {
                if layer.parent != below || !layer.id_fits() {
                    let title = layer.title.clone();
                    return Err(CompileError::BrokenParent { title });
                }
                below = Some(layer.id);
            }
            let layers = layers.iter().cloned().map(LayerPlan::of_parent);
            (layers.collect(), boot)
        }
    };
    if let Some(boot) = boot {
        let title = format!("{parent}, packages for a boot");
        push(request, &mut layers, LayerKind::BootPackages, title, boot)?;
    }
    Ok(layers)
}

/// Adds a layer of the parent over those that are there.
fn push(
    request: &PlanRequest<'_>,
    layers: &mut Vec<LayerPlan>,
    kind: LayerKind,
    title: String,
    own: &BTreeMap<String, String>,
) -> Result<(), CompileError> {
    let mut inputs = common_inputs(request);
    add(&mut inputs, own)?;
    let below = layers.last().map(|layer| layer.id);
    layers.push(LayerPlan::new(kind, title, inputs, below));
    Ok(())
}

/// Inputs of every layer.
fn common_inputs(request: &PlanRequest<'_>) -> BTreeMap<String, String> {
    [
        ("arch", request.arch.to_string()),
        ("buildClock", clock_text(request.build_clock)),
        ("executor", request.executor_version.to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn component_layer(
    request: &PlanRequest<'_>,
    index: usize,
    resolved: &ResolvedComponent<'_>,
    below: Option<LayerId>,
) -> Result<LayerPlan, CompileError> {
    let mut inputs = common_inputs(request);
    let mut own = resolved.component.build_inputs();
    if let Some(folder) = &request.recipe.working_directory {
        own.insert("workingDirectory".to_owned(), folder.clone());
    }
    own.extend(
        resolved
            .parameters
            .iter()
            .map(|(name, value)| (format!("parameter.{name}"), value.clone())),
    );
    own.extend(resolved.values.clone());
    own.extend(
        resolved
            .files
            .iter()
            .map(|(name, digest)| (format!("file.{name}"), digest_text(*digest))),
    );
    add(&mut inputs, &own)?;
    add(&mut inputs, &request.step_inputs)?;
    let version = resolved
        .version
        .as_ref()
        .map(|v| format!(" {v}"))
        .unwrap_or_default();
    let title = format!("{}{version}", resolved.name);
    Ok(LayerPlan::new(
        LayerKind::Component { index },
        title,
        inputs,
        below,
    ))
}

fn image_inputs(request: &PlanRequest<'_>) -> Result<BTreeMap<String, String>, CompileError> {
    let recipe = request.recipe;
    let settings = &recipe.amiforge;
    if let Some(container) = &recipe.container {
        return container_inputs(request, container);
    }
    let formats: Vec<&str> = settings.formats.iter().map(|f| f.name()).collect();
    let mut inputs: BTreeMap<String, String> = [
        ("arch", request.arch.to_string()),
        ("bootMode", settings.boot_mode.name().to_owned()),
        ("buildClock", clock_text(request.build_clock)),
        ("formats", formats.join(",")),
        ("name", recipe.name.clone()),
        ("rootDeviceName", recipe.root_device_name().to_owned()),
        ("rootFilesystem", settings.root_filesystem.name().to_owned()),
        ("tags", text_of(&json!(recipe.ami_tags))),
        ("toolVersion", request.tool_version.to_owned()),
        ("version", recipe.version.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for mapping in &recipe.block_device_mappings {
        inputs.insert(
            format!("volume.{}", mapping.device_name),
            text_of(&volume(mapping)),
        );
    }
    // Absent for the default, as before there was a choice.
    if settings.compression != Compression::None {
        inputs.insert("compression".to_owned(), settings.compression.to_string());
    }
    if let Some(seed) = &settings.seed {
        inputs.insert("seed".to_owned(), seed.clone());
    }
    // Keys that may log in stay where they are allowed.
    if !settings.hygiene.allow.is_empty() {
        inputs.insert("hygieneAllow".to_owned(), settings.hygiene.allow.join(" "));
    }
    add(&mut inputs, &request.image_inputs)?;
    Ok(inputs)
}

/// What decides a container image besides its layers.
fn container_inputs(
    request: &PlanRequest<'_>,
    container: &Container,
) -> Result<BTreeMap<String, String>, CompileError> {
    let recipe = request.recipe;
    let template = canonical_json(&json!(container.dockerfile));
    let mut inputs: BTreeMap<String, String> = [
        ("arch", request.arch.to_string()),
        ("buildClock", clock_text(request.build_clock)),
        ("compression", recipe.amiforge.compression.to_string()),
        ("containerType", "DOCKER".to_owned()),
        ("dockerfile", digest_text(Digest::of(&template))),
        ("name", recipe.name.clone()),
        ("repository", container.repository.clone()),
        ("tags", text_of(&json!(recipe.tags))),
        ("toolVersion", request.tool_version.to_owned()),
        ("version", recipe.version.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(description) = &recipe.description {
        inputs.insert("description".to_owned(), description.clone());
    }
    add(&mut inputs, &request.image_inputs)?;
    Ok(inputs)
}

/// A mapping in EC2's words, absent fields left out.
fn volume(mapping: &BlockDeviceMapping) -> Value {
    let Some(ebs) = &mapping.ebs else {
        return json!({"virtualName": mapping.virtual_name, "noDevice": mapping.no_device});
    };
    let fields = [
        ("volumeSize", json!(ebs.volume_size)),
        ("volumeType", json!(ebs.volume_type.map(|t| t.name()))),
        ("deleteOnTermination", json!(ebs.delete_on_termination)),
        ("encrypted", json!(ebs.encrypted)),
        ("iops", json!(ebs.iops)),
        ("throughput", json!(ebs.throughput)),
        ("kmsKeyId", json!(ebs.kms_key_id)),
        ("snapshotId", json!(ebs.snapshot_id)),
    ];
    let present = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(
        present
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn text_of(value: &Value) -> String {
    String::from_utf8_lossy(&canonical_json(value)).into_owned()
}

/// Exact to the nanosecond, unlike the form for people.
fn clock_text(clock: Option<Timestamp>) -> String {
    match clock {
        None => "newest package".to_owned(),
        Some(clock) if clock.nanos == 0 => clock.secs.to_string(),
        Some(clock) => format!("{}.{:09}", clock.secs, clock.nanos),
    }
}

fn add(
    inputs: &mut BTreeMap<String, String>,
    more: &BTreeMap<String, String>,
) -> Result<(), CompileError> {
    for (name, value) in more {
        if inputs.insert(name.clone(), value.clone()).is_some() {
            return Err(CompileError::InputTaken { name: name.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
