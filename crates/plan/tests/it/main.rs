//! The plan of every shipped recipe, with a made-up parent: the diff of these files is the blast
//! radius of a change. `AMIFORGE_BLESS=1` writes them.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read recipes; the library does not read files; a test may panic"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use amiforge_plan::{Plan, PlanRequest, ResolvedComponent, ResolvedParent, compile};
use amiforge_recipe::{Component, ComponentSource, parse_component, parse_recipe};
use amiforge_types::{Arch, Timestamp};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn plan_of(folder: &Path) -> Plan {
    let text = fs::read_to_string(folder.join("recipe.yaml")).unwrap();
    let (recipe, problems) = parse_recipe(&text);
    let recipe = recipe.unwrap_or_else(|| panic!("{problems:?}"));
    let documents: Vec<(String, Component)> = recipe
        .components
        .iter()
        .map(|reference| {
            let ComponentSource::Path(path) = &reference.source else {
                panic!("{}", reference.source)
            };
            let (component, problems) =
                parse_component(&fs::read_to_string(folder.join(path)).unwrap());
            (
                path.clone(),
                component.unwrap_or_else(|| panic!("{problems:?}")),
            )
        })
        .collect();
    let components = documents
        .iter()
        .zip(&recipe.components)
        .map(|((path, component), reference)| ResolvedComponent {
            name: Path::new(path)
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            version: None,
            reference: path.clone(),
            component,
            parameters: component.resolve_parameters(&reference.parameters).unwrap(),
            files: BTreeMap::new(),
            values: BTreeMap::new(),
        })
        .collect();
    let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    compile(&PlanRequest {
        recipe: &recipe,
        arch: Arch::X86_64,
        tool_version: "0.0.0",
        executor_version: "golden",
        build_clock: Some(Timestamp::from_secs(1_700_000_000)),
        parent: ResolvedParent::Packages {
            unpacked: one("packages", "golden"),
            configured: one("scripts", "golden"),
        },
        components,
        step_inputs: BTreeMap::new(),
        image_inputs: BTreeMap::new(),
    })
    .unwrap()
}

#[test]
fn plans_of_the_shipped_recipes() {
    let mut folders: Vec<PathBuf> = fs::read_dir(root().join("recipes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("recipe.yaml").is_file())
        .collect();
    folders.sort();
    assert!(folders.len() >= 2, "{folders:?}");
    let golden = root().join("fixtures/recipes/plans");
    for folder in folders {
        let text = plan_of(&folder).to_json().unwrap();
        let path = golden
            .join(folder.file_name().unwrap())
            .with_extension("json");
        if std::env::var_os("AMIFORGE_BLESS").is_some() {
            fs::create_dir_all(&golden).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            text,
            expected,
            "{}: if the change is meant, run with AMIFORGE_BLESS=1",
            path.display()
        );
    }
}
