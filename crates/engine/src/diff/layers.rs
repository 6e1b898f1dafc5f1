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
    match (plan_of(a), plan_of(b)) {
        (Some(old), Some(new)) => changes(&old, &new, files, |id| b.shares(a, id)),
        _ => Vec::new(),
    }
}

/// `shared` knows which layers, by their ids, are of the same bytes in both.
fn changes(
    old: &Plan,
    new: &Plan,
    files: &[FileChange],
    shared: impl Fn(&str) -> bool,
) -> Vec<LayerChange> {
    let why = why(old, new);
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
        let other_bytes = || !found.b.as_deref().is_some_and(&shared);
        if change.is_some() || (found.files > 0 && other_bytes()) {
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
            Some((end, _)) => format!("{}…", shown(&text.as_bytes()[..end])),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use amiforge_plan::{PlanRequest, ResolvedComponent, ResolvedParent, compile};
    use amiforge_recipe::{parse_component, parse_recipe};
    use amiforge_types::Arch;

    use super::*;

    /// A recipe of components by name and command, over packages.
    fn plan(packages: &str, components: &[(&str, &str)]) -> Plan {
        let mut text = String::from(
            "name: test\nsemanticVersion: 1.0.0\nparentImage: debian:tiny\ncomponents:\n",
        );
        let mut documents = Vec::new();
        for (name, command) in components {
            text.push_str(&format!("  - componentArn: ./{name}.yaml\n"));
            let document = format!(
                "schemaVersion: 1.0\nphases: [{{name: build, steps: [{{name: Run, action: ExecuteBash, inputs: {{commands: [\"{command}\"]}}}}]}}]\n"
            );
            documents.push(parse_component(&document).0.unwrap());
        }
        let (recipe, problems) = parse_recipe(&text);
        let recipe = recipe.unwrap_or_else(|| panic!("{problems:?}"));
        let one = |value: &str| BTreeMap::from([("packages".to_owned(), value.to_owned())]);
        let components = components.iter().zip(&documents);
        let components = components
            .map(|((name, _), component)| ResolvedComponent {
                name: (*name).to_owned(),
                version: None,
                reference: format!("./{name}.yaml"),
                component,
                parameters: BTreeMap::new(),
                files: BTreeMap::new(),
                values: BTreeMap::new(),
            })
            .collect();
        compile(&PlanRequest {
            recipe: &recipe,
            arch: Arch::X86_64,
            tool_version: "0",
            executor_version: "0",
            build_clock: None,
            parent: ResolvedParent::Packages {
                unpacked: one(packages),
                configured: one("scripts"),
            },
            components,
            step_inputs: BTreeMap::new(),
            image_inputs: BTreeMap::new(),
        })
        .unwrap()
    }

    fn file(path: &str, layer: &str, step: Option<&str>) -> FileChange {
        FileChange {
            path: path.to_owned(),
            change: Happened::Changed,
            aspects: vec!["content"],
            a: None,
            b: None,
            package: None,
            conffile: false,
            layer: Some(layer.to_owned()),
            component: None,
            step: step.map(str::to_owned),
        }
    }

    #[test]
    fn layers_say_which_input_changed_and_count_their_files() {
        let old = plan("1", &[("same", "true"), ("mine", "old"), ("gone", "true")]);
        let new = plan("1", &[("same", "true"), ("mine", "new"), ("more", "true")]);
        let id = |plan: &Plan, at: usize| plan.layers[at].id.to_string();
        let files = [
            file("/a", &id(&new, 3), Some("Run")),
            file("/b", &id(&new, 3), None),
            file("/c", &id(&old, 4), None),
            // Of a layer with the same inputs.
            file("/d", &id(&new, 2), Some("Run")),
        ];
        let found = changes(&old, &new, &files, |_| false);
        let told: Vec<_> = found
            .iter()
            .map(|l| (l.title.as_str(), l.change, l.inputs.len(), l.below, l.files))
            .collect();
        assert_eq!(
            told,
            [
                ("same", Happened::Changed, 0, false, 1),
                ("mine", Happened::Changed, 1, false, 2),
                ("more", Happened::Added, 0, false, 0),
                ("gone", Happened::Removed, 0, false, 1),
            ]
        );
        assert_eq!(found[0].a, found[0].b);
        // A layer of the same bytes has no part in it, whatever of it is hidden.
        let same = id(&new, 2);
        let without = changes(&old, &new, &files, |id| id == same);
        let titles: Vec<_> = without.iter().map(|l| l.title.as_str()).collect();
        assert_eq!(titles, ["mine", "more", "gone"]);
        assert_eq!(found[1].inputs[0].input, "step.Run");
        assert_eq!(found[1].a, Some(id(&old, 3)));
        assert_eq!(found[1].b, Some(id(&new, 3)));
        let step = StepFiles {
            step: "Run".to_owned(),
            files: 1,
        };
        assert_eq!(found[1].steps, [step]);

        // Other packages: every layer above differs for that reason alone.
        let new = plan("2", &[("same", "true"), ("mine", "old"), ("gone", "true")]);
        let found = changes(&old, &new, &[], |_| false);
        assert_eq!(found.len(), 5);
        assert_eq!((found[0].inputs.len(), found[0].below), (1, false));
        assert!(found[1..].iter().all(|l| l.inputs.is_empty() && l.below));
        assert!(changes(&old, &old, &[], |_| false).is_empty());
    }
}
