//! What the documents of a build said, kept beside its plan, which has but their digests.

use amiforge_plan::Plan;
use amiforge_store::Store;
use amiforge_types::Digest;
use serde::{Deserialize, Serialize};

use super::record_key;
use crate::error::{Contextual, EngineError, ErrorKind};
use crate::load::LoadedRecipe;

const VERSION: u32 = 1;

/// Bytes of all texts of a record. What does not fit is left out, and then told of by its digest.
const MOST: usize = 1 << 20;

/// The documents of a plan. They are those of `components.json`: with marks where secrets go, and without any value of
/// one.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Documents {
    version: u32,
    /// The plan that they are of.
    plan_id: Digest,
    /// One for each component of the plan; none where the text was too large.
    texts: Vec<Option<String>>,
    /// The packages that the recipe asks for.
    #[serde(default)]
    pub(super) asked: Asked,
}

/// What a recipe says of the packages of its parent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Asked {
    pub(super) variant: String,
    pub(super) include: Vec<String>,
    pub(super) packages: Vec<String>,
}

impl Asked {
    pub(super) fn of(recipe: &LoadedRecipe) -> Self {
        let apt = &recipe.recipe.amiforge.apt;
        Self {
            variant: apt.variant.name().to_owned(),
            include: apt.include.clone(),
            packages: apt.packages.clone().unwrap_or_default(),
        }
    }
}

impl Documents {
    fn of(recipe: &LoadedRecipe, plan: &Plan) -> Self {
        let texts = fitting(recipe.components.iter().map(|c| c.text.as_str()), MOST);
        Self {
            version: VERSION,
            plan_id: plan.plan_id,
            texts,
            asked: Asked::of(recipe),
        }
    }

    /// The text of a component by its number in the plan.
    pub(super) fn text(&self, index: usize) -> Option<&str> {
        self.texts.get(index)?.as_deref()
    }

    /// Those of a plan that was kept, in records of a kind; one that is missing, unreadable or of another plan counts as none.
    pub(super) fn of_plan(store: &Store, kind: &str, plan: &Plan) -> Option<Self> {
        let key = record_key(&plan.recipe.name);
        let record = store.get_record(kind, &key).ok()??;
        let found: Self = serde_json::from_value(record).ok()?;
        (found.version == VERSION && found.plan_id == plan.plan_id).then_some(found)
    }

    /// Keeps those of a plan.
    pub(super) fn keep(
        store: &Store,
        kind: &str,
        recipe: &LoadedRecipe,
        plan: &Plan,
    ) -> Result<(), EngineError> {
        let context = || "cannot write the documents of the build".to_owned();
        let record =
            serde_json::to_value(Self::of(recipe, plan)).or_fail(ErrorKind::Internal, context)?;
        store
            .put_record(kind, &record_key(&plan.recipe.name), &record)
            .or_fail(ErrorKind::Failed, context)
    }
}

/// The texts that fit into `room` bytes together, each where it was.
fn fitting<'t>(texts: impl Iterator<Item = &'t str>, mut room: usize) -> Vec<Option<String>> {
    texts
        .map(|text| {
            room = room.checked_sub(text.len())?;
            Some(text.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_what_follows_still_fits() {
        let kept = fitting(["four", "much too long", "two", ""].into_iter(), 8);
        let kept: Vec<_> = kept.iter().map(Option::as_deref).collect();
        assert_eq!(kept, [Some("four"), None, Some("two"), Some("")]);
    }
}
