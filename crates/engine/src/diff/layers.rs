//! Which layers two builds differ in, which input of each changed, and how many of the changed files are theirs.

use std::collections::BTreeMap;

use amiforge_plan::{InputChange, Plan, Reason, why};

use super::report::{FileChange, Happened, LayerChange, StepFiles};
use super::side::Side;
use crate::files::{MAX_JSON, read_file};
use crate::shown::shown;

/// Characters of a value of an input.
const SHOWN: usize = 200;

/// The layers that differ, the lowest first, and those with files that differ although their inputs are the same. Empty
/// unless both images are output folders with plans that can be read.
pub(super) fn layer_changes(a: &Side, b: &Side, files: &[FileChange]) -> Vec<LayerChange> {
    let (Some(old), Some(new)) = (plan_of(a), plan_of(b)) else {
        return Vec::new();
    };
    let why = why(&old, &new);
    let mut changes = Vec::new();
    for (layer, planned) in why.layers.iter().zip(&new.layers) {
        let (change, inputs, below) = match &layer.reason {
            Reason::Unchanged => (None, Vec::new(), false),
            Reason::New => (Some(Happened::Added), Vec::new(), false),
            Reason::Changed { inputs, parent } => {
                (Some(Happened::Changed), inputs.clone(), *parent)
            }
        };
        let b = Some(layer.id.to_string());
        let a = layer.old.map(|id| id.to_string());
        let component = new.component_of(planned).map(|c| shown(c.name.as_bytes()));
        let mut found = LayerChange {
            title: shown(layer.title.as_bytes()),
            component,
            change: change.unwrap_or(Happened::Changed),
            inputs: inputs.into_iter().map(escaped).collect(),
            below,
            files: 0,
            steps: Vec::new(),
            a,
            b,
        };
        found.count(files);
        // The same inputs, and not the same bytes: that is told, too.
        if change.is_some() || found.files > 0 {
            changes.push(found);
        }
    }
    let kept: Vec<_> = why.layers.iter().filter_map(|layer| layer.old).collect();
    for planned in old.layers.iter().filter(|layer| !kept.contains(&layer.id)) {
        let mut found = LayerChange {
            title: shown(planned.title.as_bytes()),
            component: old.component_of(planned).map(|c| shown(c.name.as_bytes())),
            change: Happened::Removed,
            inputs: Vec::new(),
            below: false,
            files: 0,
            steps: Vec::new(),
            a: Some(planned.id.to_string()),
            b: None,
        };
        found.count(files);
        changes.push(found);
    }
    changes
}

impl LayerChange {
    /// Counts the files that come from it, and their steps.
    fn count(&mut self, files: &[FileChange]) {
        let mut steps: BTreeMap<&str, usize> = BTreeMap::new();
        for file in files {
            let Some(layer) = &file.layer else { continue };
            if Some(layer) != self.a.as_ref() && Some(layer) != self.b.as_ref() {
                continue;
            }
            self.files += 1;
            if let Some(step) = &file.step {
                *steps.entry(step).or_default() += 1;
            }
        }
        let steps = steps.into_iter();
        self.steps = steps
            .map(|(step, files)| StepFiles {
                step: step.to_owned(),
                files,
            })
            .collect();
    }
}

fn escaped(change: InputChange) -> InputChange {
    let value = |text: Option<String>| {
        text.map(|text| match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}…", shown(text[..end].as_bytes())),
            None => shown(text.as_bytes()),
        })
    };
    InputChange {
        input: shown(change.input.as_bytes()),
        old: value(change.old),
        new: value(change.new),
    }
}

/// The plan of an output folder; what cannot be read explains nothing.
fn plan_of(side: &Side) -> Option<Plan> {
    let path = side.asked.join("plan.json");
    let bytes = side.asked.is_dir().then(|| read_file(&path, MAX_JSON))?;
    Plan::from_json(std::str::from_utf8(&bytes.ok()?).ok()?).ok()
}
