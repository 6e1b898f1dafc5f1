use amiforge_recipe::{parse_component, parse_recipe};

use super::*;
use crate::{Reason, why};

const RECIPE: &str = "
name: demo
semanticVersion: 1.0.0
parentImage: debian:bookworm
components:
  - componentArn: ./one.yaml
  - componentArn: ./two.yaml
  - componentArn: ./test-only.yaml
blockDeviceMappings:
  - {deviceName: /dev/xvda, ebs: {volumeSize: 2, volumeType: gp3}}
amiTags: {Team: web}
amiforge: {bootMode: uefi, formats: [raw], seed: fixed}
";
const ONE: &str = "
schemaVersion: 1.0
parameters: [{Greeting: {type: string, default: hello}}]
phases: [{name: build, steps: [{name: A, action: ExecuteBash, inputs: {commands: ['echo {{ Greeting }}']}}]}]
";
const TWO: &str = "
schemaVersion: 1.0
phases:
  - {name: build, steps: [{name: A, action: UpdateOS}]}
  - {name: test, steps: [{name: A, action: UpdateOS}]}
";
const TEST_ONLY: &str = "
schemaVersion: 1.0
phases: [{name: test, steps: [{name: A, action: ExecuteBash, inputs: {commands: [ls]}}]}]
";

/// All that goes into a plan, so that a test can change one thing.
struct World {
    recipe: String,
    documents: [String; 3],
    parameters: BTreeMap<String, String>,
    files: BTreeMap<String, Digest>,
    values: BTreeMap<String, String>,
    arch: Arch,
    tool: &'static str,
    executor: &'static str,
    clock: Timestamp,
    parent: ResolvedParent,
    step_inputs: BTreeMap<String, String>,
    image_inputs: BTreeMap<String, String>,
    names: [&'static str; 3],
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

impl World {
    fn new() -> Self {
        Self {
            recipe: RECIPE.to_owned(),
            documents: [ONE, TWO, TEST_ONLY].map(str::to_owned),
            parameters: map(&[("Greeting", "hello")]),
            files: BTreeMap::from([("page.html".to_owned(), Digest::of(b"page"))]),
            values: map(&[("environment.IMAGE_VERSION", "1.0.0")]),
            arch: Arch::X86_64,
            tool: "1",
            executor: "1",
            clock: Timestamp::from_secs(1_000),
            parent: ResolvedParent::Packages {
                unpacked: map(&[("package.bash", "sha256:1")]),
                configured: map(&[("scripts", "1")]),
            },
            step_inputs: map(&[("variables", "1")]),
            image_inputs: map(&[("layout", "1")]),
            names: ["one", "two", "three"],
        }
    }

    fn packages(&mut self) -> (&mut BTreeMap<String, String>, &mut BTreeMap<String, String>) {
        match &mut self.parent {
            ResolvedParent::Packages {
                unpacked,
                configured,
            } => (unpacked, configured),
            _ => unreachable!(),
        }
    }

    fn plan(&self) -> Plan {
        let recipe = parse_recipe(&self.recipe);
        let recipe = recipe.0.unwrap_or_else(|| panic!("{:?}", recipe.1));
        let documents = self.documents.each_ref().map(|text| {
            let (component, problems) = parse_component(text);
            component.unwrap_or_else(|| panic!("{problems:?}"))
        });
        let components = documents
            .iter()
            .enumerate()
            .map(|(i, component)| ResolvedComponent {
                name: self.names[i].to_owned(),
                version: None,
                reference: format!("./{}.yaml", self.names[i]),
                component,
                parameters: if i == 0 {
                    self.parameters.clone()
                } else {
                    BTreeMap::new()
                },
                files: if i == 0 {
                    self.files.clone()
                } else {
                    BTreeMap::new()
                },
                values: if i == 0 {
                    self.values.clone()
                } else {
                    BTreeMap::new()
                },
            })
            .collect();
        let request = PlanRequest {
            recipe: &recipe,
            arch: self.arch,
            tool_version: self.tool,
            executor_version: self.executor,
            build_clock: Some(self.clock),
            parent: self.parent.clone(),
            components,
            step_inputs: self.step_inputs.clone(),
            image_inputs: self.image_inputs.clone(),
        };
        compile(&request).unwrap()
    }
}

fn ids(plan: &Plan) -> Vec<LayerId> {
    plan.layers.iter().map(|layer| layer.id).collect()
}

/// Index of the first layer that differs; the number of layers when none does.
fn first_changed(change: impl FnOnce(&mut World)) -> (usize, bool) {
    let mut world = World::new();
    let before = world.plan();
    change(&mut world);
    let after = world.plan();
    let (old, new) = (ids(&before), ids(&after));
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    // Below a changed layer nothing can stay.
    assert!(old[same..].iter().all(|id| !new[same..].contains(id)));
    (same, before.plan_id != after.plan_id)
}

#[test]
fn layers_stand_on_one_another() {
    let plan = World::new().plan();
    let titles: Vec<&str> = plan.layers.iter().map(|l| l.title.as_str()).collect();
    assert_eq!(
        titles,
        [
            "debian:bookworm, packages unpacked",
            "debian:bookworm, packages configured",
            "one",
            "two"
        ]
    );
    assert_eq!(plan.layers[0].parent, None);
    for pair in plan.layers.windows(2) {
        assert_eq!(pair[1].parent, Some(pair[0].id));
    }
    assert_eq!(plan.components[2].layer, None);
    assert_eq!(plan.components[1].phases, ["build", "test"]);
}

#[test]
fn every_input_changes_the_ids_from_its_layer_on() {
    type Change = (&'static str, usize, fn(&mut World));
    let changes: &[Change] = &[
        ("architecture", 0, |w| w.arch = Arch::Arm64),
        ("executor", 0, |w| w.executor = "2"),
        ("clock", 0, |w| w.clock = Timestamp::from_secs(1_001)),
        ("clock, by a nanosecond", 0, |w| w.clock.nanos = 1),
        ("package digest", 0, |w| {
            *w.packages().0 = map(&[("package.bash", "sha256:2")])
        }),
        ("one more package", 0, |w| {
            w.packages()
                .0
                .insert("package.curl".into(), "sha256:1".into());
        }),
        ("configuration", 1, |w| {
            *w.packages().1 = map(&[("scripts", "2")])
        }),
        ("first document", 2, |w| {
            w.documents[0] = ONE.replace("echo", "printf")
        }),
        ("parameter", 2, |w| {
            w.parameters = map(&[("Greeting", "Hello")])
        }),
        ("local file", 2, |w| {
            w.files.insert("page.html".into(), Digest::of(b"other"));
        }),
        ("file under another name", 2, |w| {
            w.files = BTreeMap::from([("index.html".to_owned(), Digest::of(b"page"))]);
        }),
        ("environment of its steps", 2, |w| {
            w.values = map(&[("environment.IMAGE_VERSION", "1.0.1")])
        }),
        ("what steps see", 2, |w| {
            w.step_inputs = map(&[("variables", "2")])
        }),
        ("working folder", 2, |w| {
            w.recipe.push_str("workingDirectory: /var/tmp\n")
        }),
        ("second document", 3, |w| {
            w.documents[1] = TWO.replace("UpdateOS", "ExecuteBash, inputs: {commands: [ls]}")
        }),
        ("order of components", 2, |w| w.documents.swap(0, 1)),
        ("test document", 4, |w| {
            w.documents[2] = TEST_ONLY.replace("[ls]", "[ls, ls]")
        }),
        ("volume size", 4, |w| {
            w.recipe = RECIPE.replace("volumeSize: 2", "volumeSize: 3")
        }),
        ("volume type", 4, |w| {
            w.recipe = RECIPE.replace("gp3", "gp2")
        }),
        ("volume flag", 4, |w| {
            w.recipe = RECIPE.replace("gp3", "gp3, deleteOnTermination: false")
        }),
        ("device", 4, |w| {
            w.recipe = RECIPE.replace("/dev/xvda", "/dev/sda1")
        }),
        ("one more volume", 4, |w| {
            w.recipe = RECIPE.replace(
                "amiTags",
                "  - {deviceName: /dev/sdb, noDevice: ''}\namiTags",
            );
        }),
        ("boot mode", 4, |w| {
            w.recipe = RECIPE.replace("uefi", "uefi-preferred")
        }),
        ("formats", 4, |w| {
            w.recipe = RECIPE.replace("[raw]", "[raw, qcow2]")
        }),
        ("compression", 4, |w| {
            w.recipe = RECIPE.replace("formats: [raw]", "formats: [raw, qcow2], compression: zstd")
        }),
        ("seed", 4, |w| w.recipe = RECIPE.replace("fixed", "other")),
        ("tags", 4, |w| w.recipe = RECIPE.replace("web}", "db}")),
        ("name", 4, |w| w.recipe = RECIPE.replace("demo", "demo2")),
        ("version", 4, |w| {
            w.recipe = RECIPE.replace("1.0.0", "1.0.1")
        }),
        ("tool version", 4, |w| w.tool = "2"),
        ("image input", 4, |w| {
            w.image_inputs = map(&[("layout", "2")])
        }),
    ];
    for (name, layer, change) in changes {
        assert_eq!(first_changed(change), (*layer, true), "{name}");
    }
}

#[test]
fn what_is_no_input_changes_nothing() {
    type Change = (&'static str, fn(&mut World));
    let changes: &[Change] = &[
        ("comments", |w| {
            w.documents[0] = format!("# comment\n{ONE}\n\n# more\n")
        }),
        ("white space", |w| {
            w.documents[1] = TWO.replace("{name: A, ", "{  name:   A,\n    ")
        }),
        ("quotes", |w| w.documents[1] = TWO.replace("1.0", "\"1.0\"")),
        ("field order", |w| {
            w.documents[2] = TEST_ONLY.replace(
                "name: A, action: ExecuteBash",
                "action: ExecuteBash, name: A",
            )
        }),
        ("line ends", |w| w.documents[0] = ONE.replace('\n', "\r\n")),
        ("recipe comments", |w| w.recipe.push_str("# comment\n")),
        ("recipe description", |w| {
            w.recipe.push_str("description: text\n")
        }),
        ("names of documents", |w| w.names = ["a", "b", "c"]),
    ];
    for (name, change) in changes {
        assert_eq!(first_changed(change), (4, false), "{name}");
    }
}

#[test]
fn why_names_the_input_with_both_values() {
    let mut world = World::new();
    let old = world.plan();
    world.parameters = map(&[("Greeting", "Hello")]);
    world.recipe = RECIPE.replace("volumeSize: 2", "volumeSize: 3");
    let new = world.plan();
    let report = why(&old, &new);
    let reasons: Vec<_> = report.layers.iter().map(|l| &l.reason).collect();
    assert_eq!(reasons[..2], [&Reason::Unchanged, &Reason::Unchanged]);
    let Reason::Changed {
        inputs,
        parent: false,
    } = reasons[2]
    else {
        panic!("{:?}", reasons[2])
    };
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0].input, "parameter.Greeting");
    assert_eq!(
        (inputs[0].old.as_deref(), inputs[0].new.as_deref()),
        (Some("hello"), Some("Hello"))
    );
    assert_eq!(
        reasons[3],
        &Reason::Changed {
            inputs: vec![],
            parent: true
        }
    );
    assert_eq!(report.image.len(), 1);
    assert_eq!(report.image[0].input, "volume./dev/xvda");
    assert!(report.removed.is_empty());
    let unchanged = why(&new, &new);
    assert!(
        unchanged
            .layers
            .iter()
            .all(|l| l.reason == Reason::Unchanged)
    );
    assert!(unchanged.image.is_empty());
}

#[test]
fn why_pairs_layers_by_component() {
    let mut world = World::new();
    let old = world.plan();
    world.names = ["fresh", "two", "three"];
    world.documents[0] = TWO.to_owned();
    let report = why(&old, &world.plan());
    assert_eq!(report.layers[2].reason, Reason::New);
    assert_eq!(
        report.layers[3].reason,
        Reason::Changed {
            inputs: vec![],
            parent: true
        }
    );
    assert_eq!(report.removed, ["one"]);
}

#[test]
fn plans_survive_being_stored() {
    let plan = World::new().plan();
    let text = plan.to_json().unwrap();
    assert_eq!(Plan::from_json(&text).unwrap(), plan);
    assert_eq!(Plan::from_json(&text).unwrap().to_json().unwrap(), text);
}

#[test]
fn damaged_plans_are_refused() {
    use crate::ReadError as E;
    let text = World::new().plan().to_json().unwrap();
    let read = |text: &str| Plan::from_json(text).map(|_| ()).unwrap_err();
    assert!(matches!(
        read(&text.replace("\"hello\"", "\"Hello\"")),
        E::WrongId { .. }
    ));
    assert!(
        matches!(read(&text.replace("\"volumeSize\\\":2", "\"volumeSize\\\":3")), E::WrongId { what } if what == "the plan")
    );
    assert!(matches!(
        read(&text.replace("\"schemaVersion\": 1", "\"schemaVersion\": 2")),
        E::Version { .. }
    ));
    assert!(matches!(
        read(&text.replace("\"planId\"", "\"planID\"")),
        E::Json(_)
    ));
    assert!(matches!(
        read(&text.replacen("{", "{\"extra\": 1,", 1)),
        E::Json(_)
    ));
    assert!(matches!(read(&text[..text.len() / 2]), E::Json(_)));
    assert!(matches!(read("[]"), E::Version { .. }));
    assert!(matches!(read(&" ".repeat(65 << 20)), E::TooLarge { .. }));

    let mut plan = World::new().plan();
    plan.layers.remove(1);
    assert!(matches!(
        read(&plan.to_json().unwrap()),
        E::BrokenChain { .. }
    ));
    let mut plan = World::new().plan();
    plan.components.clear();
    assert!(matches!(read(&plan.to_json().unwrap()), E::Dangling { .. }));
    let mut plan = World::new().plan();
    plan.layers.pop();
    assert!(matches!(read(&plan.to_json().unwrap()), E::Dangling { .. }));
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let recipe = parse_recipe(RECIPE).0.unwrap();
    let request = PlanRequest {
        recipe: &recipe,
        arch: Arch::X86_64,
        tool_version: "1",
        executor_version: "1",
        build_clock: None,
        parent: nothing(),
        components: Vec::new(),
        step_inputs: BTreeMap::new(),
        image_inputs: BTreeMap::new(),
    };
    assert_eq!(
        compile(&request),
        Err(CompileError::ComponentCount {
            recipe: 3,
            resolved: 0
        })
    );
    let recipe = parse_recipe("{name: demo, semanticVersion: 1.0.0, parentImage: 'debian:sid'}")
        .0
        .unwrap();
    let parent = ResolvedParent::Packages {
        unpacked: map(&[("arch", "x")]),
        configured: BTreeMap::new(),
    };
    let request = PlanRequest {
        recipe: &recipe,
        parent,
        ..request
    };
    assert_eq!(
        compile(&request),
        Err(CompileError::InputTaken {
            name: "arch".into()
        })
    );
}

fn nothing() -> ResolvedParent {
    ResolvedParent::Imported {
        layers: Vec::new(),
        boot: None,
    }
}

fn imported(title: &str, digest: &str) -> ImportedLayer {
    ImportedLayer {
        title: title.to_owned(),
        inputs: map(&[("content", digest)]),
    }
}

/// Kinds and titles of the layers.
fn kinds(plan: &Plan) -> Vec<(&LayerKind, &str)> {
    let layers = plan.layers.iter();
    layers.map(|l| (&l.kind, l.title.as_str())).collect()
}

#[test]
fn an_imported_parent_is_as_many_layers_as_it_has() {
    let mut case = World::new();
    case.parent = nothing();
    let empty = case.plan();
    assert_eq!(empty.layers[0].parent, None);
    assert_eq!(empty.layers[0].kind, LayerKind::Component { index: 0 });
    case.parent = ResolvedParent::Imported {
        layers: vec![imported("below", "1"), imported("above", "2")],
        boot: Some(map(&[("script", "1")])),
    };
    let plan = case.plan();
    let expected = [
        (&LayerKind::ParentImported { index: 0 }, "below"),
        (&LayerKind::ParentImported { index: 1 }, "above"),
        (
            &LayerKind::BootPackages,
            "debian:bookworm, packages for a boot",
        ),
    ];
    assert_eq!(kinds(&plan)[..3], expected);
    assert_eq!(plan.layers[3].parent, Some(plan.layers[2].id));
    // A layer that came twice is two.
    case.parent = ResolvedParent::Imported {
        layers: vec![imported("", "1"), imported("", "1")],
        boot: None,
    };
    let twice = case.plan();
    assert_eq!(twice.layers[0].id, plan.layers[0].id);
    assert_ne!(twice.layers[1].id, twice.layers[0].id);
    Plan::from_json(&plan.to_json().unwrap()).unwrap();
}

#[test]
fn an_image_that_is_continued_keeps_its_layers() {
    let mut case = World::new();
    let base = case.plan();
    case.documents = [ONE, ONE, TEST_ONLY].map(str::to_owned);
    case.parent = ResolvedParent::Continued {
        layers: base.layers.clone(),
        boot: None,
    };
    let plan = case.plan();
    let ids = |plan: &Plan| -> Vec<LayerId> { plan.layers.iter().map(|l| l.id).collect() };
    let count = base.layers.len();
    assert_eq!(ids(&plan)[..count], ids(&base));
    assert_eq!(plan.layers[count].kind, LayerKind::Component { index: 0 });
    assert_eq!(plan.layers[count - 1].kind, LayerKind::ParentComponent);
    assert_eq!(Plan::from_json(&plan.to_json().unwrap()).unwrap(), plan);
    // And what continues it can be continued.
    case.parent = ResolvedParent::Continued {
        layers: plan.layers.clone(),
        boot: None,
    };
    assert_eq!(ids(&case.plan())[..plan.layers.len()], ids(&plan));

    let mut layers = base.layers.clone();
    layers.remove(1);
    let recipe = parse_recipe(&case.recipe).0.unwrap();
    let broken = |layers| {
        let request = PlanRequest {
            recipe: &recipe,
            arch: Arch::X86_64,
            tool_version: "1",
            executor_version: "1",
            build_clock: None,
            parent: ResolvedParent::Continued { layers, boot: None },
            components: Vec::new(),
            step_inputs: BTreeMap::new(),
            image_inputs: BTreeMap::new(),
        };
        super::parent_layers(&request).unwrap_err()
    };
    assert!(matches!(broken(layers), CompileError::BrokenParent { .. }));
    let mut layers = base.layers.clone();
    layers[0].inputs.insert("more".to_owned(), String::new());
    assert!(matches!(broken(layers), CompileError::BrokenParent { .. }));
}

#[test]
fn what_changed_of_a_parent_is_told() {
    let mut case = World::new();
    let of = |digest: &str| ResolvedParent::Imported {
        layers: vec![imported("rootfs.tar", digest)],
        boot: Some(map(&[("script", "1")])),
    };
    case.parent = of("1");
    let old = case.plan();
    case.parent = of("2");
    let why = why(&old, &case.plan());
    let Reason::Changed { inputs, parent } = &why.layers[0].reason else {
        panic!("{why:?}");
    };
    assert_eq!(inputs.len(), 1);
    assert_eq!(inputs[0].input, "content");
    assert!(!parent);
}
