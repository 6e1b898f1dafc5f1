//! Which step of a component last changed each file of its layer: for `build --check` and `diff`, which can do without.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use amiforge_exec::RunResult;
use amiforge_store::Store;
use amiforge_types::LayerId;
use serde::{Deserialize, Serialize};

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::shown::path as shown_path;

use super::store_context;

/// Kind of the records, by layer id.
pub(crate) const STEPS: &str = "steps";
const VERSION: u32 = 1;
/// Files of a layer whose step is told.
const MOST: usize = 50_000;

/// What steps changed; `record version 1`.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Touched {
    version: u32,
    /// The one step that the component has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only: Option<String>,
    /// Steps in their order, and the files that each was the last to change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    name: String,
    /// As reports show them.
    paths: Vec<String>,
}

impl Touched {
    /// By the times of a run and of the files that it left in `upper`. What cannot be read is left out, and what the first
    /// `done` steps changed: an earlier run did these.
    pub(super) fn of(run: &RunResult, upper: Option<&Path>, done: usize) -> Self {
        let phases = run.documents.iter().flat_map(|document| &document.phases);
        let steps: Vec<(String, i128)> = phases
            .filter(|phase| phase.selected)
            .flat_map(|phase| &phase.steps)
            .map(|step| (step.name.clone(), nanos(step.start.secs, step.start.nanos)))
            .collect();
        let mut touched = Self {
            version: VERSION,
            ..Self::default()
        };
        match (steps.as_slice(), upper) {
            ([(only, _)], _) => touched.only = Some(only.clone()),
            ([_, _, ..], Some(upper)) => {
                let mut paths: BTreeMap<usize, Vec<String>> = BTreeMap::new();
                let mut left = MOST;
                walk(upper, &mut Vec::new(), &mut left, &mut |path, changed| {
                    // Steps start by the clock of files, and at its ticks.
                    let begun = steps.iter().rposition(|(_, start)| *start <= changed);
                    if let Some(step) = begun.filter(|step| *step >= done) {
                        paths.entry(step).or_default().push(shown_path(path));
                    }
                });
                let named = paths.into_iter().map(|(at, mut paths)| {
                    paths.sort();
                    let name = steps[at].0.clone();
                    Step { name, paths }
                });
                touched.steps = named.collect();
            }
            _ => {}
        }
        touched
    }

    /// The step that a path, as reports show it, came from.
    pub(crate) fn step(&self, path: &str) -> Option<&str> {
        let found = self.steps.iter().find(|step| {
            let found = step.paths.binary_search_by(|p| p.as_str().cmp(path));
            found.is_ok()
        });
        let only = self.only.as_deref();
        only.or_else(|| found.map(|step| step.name.as_str()))
    }

    /// What is known of a layer.
    pub(crate) fn read(store: &Store, layer: LayerId) -> Self {
        let record = store.get_record(STEPS, &layer.to_string());
        let record = record.ok().flatten();
        let touched: Option<Self> = record.and_then(|value| serde_json::from_value(value).ok());
        touched
            .filter(|touched| touched.version == VERSION)
            .unwrap_or_default()
    }

    pub(super) fn keep(&self, store: &Store, layer: LayerId) -> Result<(), EngineError> {
        let value = serde_json::to_value(self).or_fail(ErrorKind::Internal, store_context)?;
        store
            .put_record(STEPS, &layer.to_string(), &value)
            .or_fail(ErrorKind::Failed, store_context)
    }
}

fn nanos(secs: i64, nanos: u32) -> i128 {
    i128::from(secs) * 1_000_000_000 + i128::from(nanos)
}

/// Everything below a folder with the time of its last change. Links are not followed, and what may not be read is
/// passed over.
fn walk(folder: &Path, below: &mut Vec<u8>, left: &mut usize, found: &mut dyn FnMut(&[u8], i128)) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let Some(rest) = left.checked_sub(1) else {
            return;
        };
        *left = rest;
        let Ok(meta) = entry.metadata() else { continue };
        let length = below.len();
        if length > 0 {
            below.push(b'/');
        }
        below.extend_from_slice(entry.file_name().as_bytes());
        let ns = u32::try_from(meta.ctime_nsec()).unwrap_or(0);
        found(below, nanos(meta.ctime(), ns));
        if meta.is_dir() {
            walk(&entry.path(), below, left, found);
        }
        below.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_the_step_of_a_path() {
        let step = |name: &str, paths: &[&str]| Step {
            name: name.to_owned(),
            paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        };
        let touched = Touched {
            version: VERSION,
            only: None,
            steps: vec![step("One", &["/a", "/b"]), step("Two", &["/c"])],
        };
        assert_eq!(touched.step("/c"), Some("Two"));
        assert_eq!(touched.step("/b"), Some("One"));
        assert_eq!(touched.step("/d"), None);
        let value = serde_json::to_value(&touched).unwrap();
        assert_eq!(serde_json::from_value::<Touched>(value).unwrap(), touched);
        let only = Touched {
            only: Some("All".to_owned()),
            ..Touched::default()
        };
        assert_eq!(only.step("/anything"), Some("All"));
    }
}
