//! Documents and resolved inputs → a [`Plan`]: layers with content ids, and why an id changed.
//!
//! Everything that can change a layer's bytes is one named input of that layer, as text. Its id is
//! the digest of its kind, its parent's id and those inputs, so the same question that finds a
//! layer in the store ("do I have this id?") also explains a rebuild ("which input differs?").
//!
//! ```
//! # use std::collections::BTreeMap;
//! # use amiforge_plan::{PlanRequest, ResolvedParent, compile};
//! # use amiforge_types::{Arch, Timestamp};
//! let recipe = "{name: demo, semanticVersion: 1.0.0, parentImage: 'debian:bookworm'}";
//! let recipe = amiforge_recipe::parse_recipe(recipe).0.unwrap();
//! let request = PlanRequest {
//!     recipe: &recipe,
//!     arch: Arch::X86_64,
//!     tool_version: "0.0.0",
//!     executor_version: "1",
//!     build_clock: Some(Timestamp::from_secs(1_700_000_000)),
//!     parent: ResolvedParent::Packages {
//!         unpacked: BTreeMap::from([("packages".to_owned(), "sha256:...".to_owned())]),
//!         configured: BTreeMap::new(),
//!     },
//!     components: Vec::new(),
//!     step_inputs: BTreeMap::new(),
//!     image_inputs: BTreeMap::new(),
//! };
//! let plan = compile(&request).unwrap();
//! assert_eq!(plan.layers.len(), 2);
//! ```
//!
//! What is *not* here: resolving (the caller hands in what parents and components resolved to),
//! and looking into the store.
#![forbid(unsafe_code)]

mod compile;
mod json;
mod plan;
mod why;

pub use compile::{
    CompileError, ImportedLayer, PlanRequest, ResolvedComponent, ResolvedParent, compile,
};
pub use json::{ReadError, canonical_json};
pub use plan::{LayerKind, LayerPlan, Plan, PlannedComponent, RecipeSummary, SCHEMA_VERSION};
pub use why::{InputChange, LayerWhy, OrderChange, Reason, Why, why};
