//! Image Builder and AWSTOE documents: text → spanned nodes → typed documents.
//!
//! Every reader here returns what it could understand together with *all* problems it saw, each
//! with its place, a stable code and, where there is one, a way out. Nothing is read from disk and
//! nothing is run; a relative path in a document stays the text the author wrote.
//!
//! ```
//! let text = "
//! schemaVersion: 1.0
//! phases:
//!   - name: build
//!     steps:
//!       - name: Hello
//!         action: ExecuteBash
//!         inputs: {commands: [echo hello]}
//! ";
//! let (component, problems) = amiforge_recipe::parse_component(text);
//! assert!(!problems.has_errors());
//! assert_eq!(component.unwrap().phases[0].steps[0].name, "Hello");
//! ```
//!
//! Entry points: [`parse_component`], [`parse_recipe`], [`parse_template`], [`parse_document`] (which
//! tells the kinds apart), and, at run time, [`Scope::resolve`] followed by [`Step::decode_inputs`].
//!
//! What is *not* here: files, resolution of parents and wildcards, content ids (`amiforge-plan`),
//! and running (`amiforge-exec`).
#![forbid(unsafe_code)]

pub mod actions;
mod builder;
mod codes;
mod component;
pub mod condition;
mod decode;
mod dockerfile;
mod export;
mod folded;
mod image_recipe;
mod inline;
mod json;
pub mod json_schema;
mod kind;
mod node;
mod reference;
mod resources;
mod scope;
mod suggest;
mod template;
mod trace;
mod user_config;
mod version;
mod workflow;
mod yaml;

pub use actions::{ActionInputs, ActionKind};
pub use builder::{MAX_ALIASED_BYTES, MAX_DEPTH, MAX_NODES};
pub use codes::{codes, explain, nearest_code};
pub use component::{
    Branch, Component, Constant, DELIMITERS, If, Loop, LoopOver, LoopValues, MAX_ITERATIONS,
    OnFailure, ParameterError, ParameterSpec, Phase, Step, parse_component,
};
pub use dockerfile::{
    ContainerConfig, Dockerfile, HealthCheck, MAX_DOCKERFILE_BYTES, parse_dockerfile,
};
pub use export::{
    ComponentTarget, ComponentUse, Export, ExportParent, ExportedFile, ExportedFolder,
    ExportedText, MOST_INLINE, OwnComponent, TemplateId, check_active, component_platform,
    components_of, left_of_template, read_resource, resource_name_of, secrets_of,
};
pub use image_recipe::{
    AmiforgeSettings, AptSettings, AptVariant, ArchivePlace, BlockDeviceMapping, BootMode,
    ComponentRef, ComponentSource, Container, DiskFormat, Ebs, Findings, Hygiene, ImageRecipe,
    OciReference, OutputFormat, ParameterPlace, ParentImage, RecipeSources, RootFilesystem,
    SecretName, SecretParameter, StepLimits, StepNetwork, VolumeType, instead_of_docker,
    instead_of_suite, parse_container_recipe, parse_infrastructure, parse_recipe, recipe_sources,
};
pub use json::check_json;
pub use kind::{Document, DocumentKind, detect_kind, kind_of, parse_document};
pub use node::{Key, Node, NodeKind, Scalar, Style};
pub use reference::{
    CONTEXT_KEYS, Chain, Piece, Reference, Side, has_secret, is_secret_key, pieces, secret_key,
    secret_mark,
};
pub use resources::{Resource, ResourceKind};
pub use scope::{Iteration, ResolveError, Scope, StepRecord};
pub use suggest::did_you_mean;
pub use template::{
    Template, TemplateError, TemplateResource, parse_template, parse_template_for_export,
};
pub use user_config::{ReferenceValue, SecretSource, UserConfig, parse_config};
pub use version::{Version, VersionParseError, VersionPattern};
pub use yaml::{MAX_DOCUMENT_BYTES, check_bytes, check_file, parse_node};
