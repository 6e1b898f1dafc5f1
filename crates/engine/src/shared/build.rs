//! What a build does with its caches.

use amiforge_plan::Plan;
use amiforge_store::Store;
use amiforge_types::BlobTable;

use crate::build::BuildRequest;
use crate::error::EngineError;
use crate::layers::{Made, VALIDATED, Work, key_of, validated_on};
use crate::load::LoadedRecipe;
use crate::look::threads;
use crate::settings::Engine;

impl Engine {
    /// Makes the layers, or takes them from store and caches.
    pub(crate) fn make_shared_layers(
        &self,
        request: &BuildRequest,
        work: &Work<'_>,
    ) -> Result<Made, EngineError> {
        let of = (work.store, work.recipe, work.plan);
        let how = (work.offline, work.jobs);
        let made = self.with_caches(&request.caches, of, how, |shared| {
            self.make_layers(&work.with(shared))
        })??;
        let all = work.plan.layers.len();
        let stored = all - made.built - made.fetched;
        if made.fetched > 0 {
            let detail = format!(
                "{} from shared caches, {stored} from the store, {} made",
                made.fetched, made.built
            );
            self.stage("layers", detail);
        } else if made.built == 0 {
            self.stage("layers", format!("all {all} from the store, no step runs"));
        }
        Ok(made)
    }

    /// Hands over what a cache lacks of a build that has nothing to do.
    pub(crate) fn share_all(
        &self,
        request: &BuildRequest,
        store: &Store,
        recipe: &LoadedRecipe,
        plan: &Plan,
    ) -> Result<(), EngineError> {
        if request.caches.to.is_none() {
            return Ok(());
        }
        let caches = super::CacheRequest {
            from: Vec::new(),
            ..request.caches.clone()
        };
        let how = (request.recipe.offline, request.jobs.unwrap_or_else(threads));
        self.with_caches(&caches, (store, recipe, plan), how, |shared| {
            let Some(shared) = shared else { return Ok(()) };
            for (at, layer) in plan.layers.iter().enumerate() {
                let mut blobs = BlobTable::new();
                let stored = store.layer(layer.id, &mut blobs);
                // A damaged one is told by the build that needs it.
                let Ok(Some(stored)) = stored else { continue };
                self.offer_clean(shared, recipe, (at, layer, false), (&stored, &blobs))?;
                for index in validated_on(plan, at) {
                    let key = key_of(recipe, plan, at, index);
                    if let Ok(Some(_)) = store.get_record(VALIDATED, &key) {
                        let title = &plan.components[index].name;
                        shared.offer_validated(at, &key, title, false);
                    }
                }
            }
            Ok(())
        })?
    }
}
