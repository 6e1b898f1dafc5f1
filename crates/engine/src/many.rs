//! `build` of several recipes at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::build::{BuildOutcome, BuildRequest, default_target};
use crate::error::{EngineError, ErrorKind};
use crate::event::EventSink;
use crate::look::threads;
use crate::settings::Engine;

/// What came of each recipe, in the order of the requests.
pub type Built = Vec<BuiltOne>;

/// What came of one of several recipes.
#[derive(Debug)]
pub struct BuiltOne {
    /// The image, or why there is none.
    pub outcome: Result<BuildOutcome, EngineError>,
    /// How long it took from when it was begun.
    pub took: Duration,
}

impl Engine {
    /// Builds several recipes, at most `at_once` at a time (by default, as many as there are processors), each into `<name>-<version>` below `folder`. What they have
    /// in common is made once, by whichever comes first. One that fails does not end the others. Images are
    /// booted one after the other. `sink` gives the events of the request of a number their place.
    ///
    /// # Errors
    /// Before anything is built: when a recipe cannot be used, or two have the same output folder.
    pub fn build_all(
        &self,
        requests: &[BuildRequest],
        folder: Option<PathBuf>,
        at_once: Option<usize>,
        sink: &dyn Fn(usize) -> Arc<dyn EventSink>,
    ) -> Result<Built, EngineError> {
        let folder = folder.unwrap_or_else(|| PathBuf::from("out"));
        let threads = at_once.unwrap_or_else(threads);
        let at_once = threads.clamp(1, requests.len().max(1));
        let mut builds = Vec::new();
        let mut reports = Vec::new();
        let mut targets = BTreeMap::new();
        for (number, request) in requests.iter().enumerate() {
            let engine = self.telling(sink(number));
            let recipe = match engine.load(&request.recipe) {
                Ok(recipe) => recipe,
                // All that is wrong, of all recipes.
                Err(EngineError::Documents(of_this)) => {
                    engine.tell_failure(&EngineError::Documents(of_this.clone()), None);
                    reports.extend(of_this);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let target = default_target(&folder, &recipe);
            let shown = request.recipe.recipe.display();
            if let Some(other) = targets.insert(target.clone(), shown.to_string()) {
                let what = format!("{other} and {shown} both go to {}", target.display());
                return Err(EngineError::new(ErrorKind::Invalid, what)
                    .with_hint("give the recipes different names or versions, or build them one after the other, each with its --out"));
            }
            let mut request = request.clone();
            // Of all together, as one build has them.
            request.jobs = Some((threads / at_once).max(1));
            builds.push((engine, request, recipe, target));
        }
        if !reports.is_empty() {
            return Err(EngineError::Documents(reports));
        }
        let waiting = Mutex::new(builds.into_iter().enumerate());
        let done: Mutex<BTreeMap<usize, BuiltOne>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while !self.interruption.is_requested() {
                        let next = waiting
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .next();
                        let Some((number, (engine, request, recipe, target))) = next else {
                            return;
                        };
                        let begun = Instant::now();
                        let outcome = engine.build_loaded(&request, recipe, &target);
                        let took = begun.elapsed();
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.insert(number, BuiltOne { outcome, took });
                    }
                });
            }
        });
        if self.interruption.is_requested() {
            return Err(EngineError::new(ErrorKind::Failed, "interrupted"));
        }
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(done.into_values().collect())
    }
}
