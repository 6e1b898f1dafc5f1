//! Life cycle policies: which old images are deprecated, disabled or deleted.
//!
//! [`LifecyclePolicy::from_json`] reads the document, as Image Builder's `CreateLifecyclePolicy` has it; [`LifecyclePolicy::plan`] says what it
//! would do to a state. Nothing is done here: who applies a plan makes one call of the API for each step, in order.
//!
//! What a plan never does: touch an image of another account, delete one that is protected, delete a snapshot that something else
//! needs, or leave a recipe with fewer usable images than the policy keeps. What it decided against is told, with the reason.
//!
//! Source: Image Builder API reference, `CreateLifecyclePolicy`; EC2 user guide, `deregister-ami`, `ami-deprecate`, `disable-an-ami`.

mod document;
mod plan;
#[cfg(test)]
mod tests;

pub use document::{
    Action, ActionType, AmiExclusions, ExclusionRules, Filter, IncludeResources, LastLaunched,
    LifecyclePolicy, MAX_POLICY_BYTES, PolicyDetail, PolicyError, RecipeSelection,
    ResourceSelection, TimeUnit,
};
pub use plan::{Kept, KeptSnapshot, LifecyclePlan, LifecycleStep};
