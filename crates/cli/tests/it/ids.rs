//! What a layer's id covers: every input is changed in turn, and exactly the layer it belongs to, and those above, are
//! missed; `plan --why` and `cache why` name it. And what must not matter does not.
//!
//! The architecture and the version of what runs steps, which the command line cannot change, are in `plan`'s own tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use amiforge_testkit::{Env, finish, run, tool, workspace_root};
use serde_json::Value;

use crate::tiny::{Tiny, planned_layers};
use crate::web::steps;

const LOWER: &str = "\
name: lower
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Make
        action: ExecuteBash
        inputs: {commands: ['echo lower >/lower']}
";
const MIDDLE: &str = "\
name: middle
description: Says things
schemaVersion: 1.0
parameters:
  - Greeting: {type: string, default: hello, description: What is said}
constants:
  - Port: {type: string, value: 80}
phases:
  - name: build
    steps:
      - name: Write
        action: CreateFile
        inputs:
          - {path: /greeting, content: '{{ Greeting }} {{ Port }} {{ aws:ssm:/site }}'}
      - name: Run
        action: ExecuteBash
        timeoutSeconds: 60
        onFailure: Abort
        maxAttempts: 2
        inputs:
          commands:
            - echo one >/one
            - test -n '{{ aws:ssm:/token }}'
      - name: Each
        loop: {name: Turn, forEach: [a, b]}
        action: ExecuteBash
        inputs: {commands: ['echo {{ Turn.value }} >>/turns']}
      - name: Perhaps
        if: {stringIsEmpty: '', then: Execute, else: Skip}
        action: ExecuteBash
        inputs: {commands: ['echo perhaps >/perhaps']}
      - name: Last
        action: ExecuteBash
        inputs: {commands: ['true']}
  - name: validate
    steps:
      - name: Look
        action: ExecuteBash
        inputs: {commands: ['test -f /one']}
  - name: test
    steps:
      - name: Try
        action: ExecuteBash
        inputs: {commands: ['test -f /turns']}
";
const UPPER: &str = "\
name: upper
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Version
        action: ExecuteBash
        inputs: {commands: ['echo $IMAGE_VERSION >/version']}
";
const CONFIG: &str = "references:\n  aws:ssm:/site: here\n  aws:ssm:/token: {env: TOKEN}\n";

/// The number of the first layer of a component, above the two of the parent.
const COMPONENTS: usize = 2;

struct World<'e> {
    env: &'e Env,
    tiny: Tiny<'e>,
    recipe: PathBuf,
    files: Vec<(PathBuf, String)>,
}

impl<'e> World<'e> {
    fn new(env: &'e Env) -> Self {
        let tiny = Tiny::with_shell(env, &[("tiny-a", "1.0", "a")]);
        let documents = ["lower.yaml", "middle.yaml", "upper.yaml"];
        let recipe = tiny.container("tiny", &documents, "");
        let mut world = Self {
            env,
            tiny,
            files: Vec::new(),
            recipe: recipe.clone(),
        };
        for (name, text) in documents.iter().zip([LOWER, MIDDLE, UPPER]) {
            world.files.push((env.path(name), text.to_owned()));
        }
        world
            .files
            .push((env.state().join("config.yaml"), CONFIG.to_owned()));
        let text = fs_err::read_to_string(&recipe).unwrap();
        world.files.push((recipe, text));
        world.restore();
        world
    }

    fn restore(&self) {
        for (path, text) in &self.files {
            fs_err::write(path, text).unwrap();
        }
    }

    /// Replaces a text that is there once in a file.
    #[track_caller]
    fn replace(&self, file: &str, from: &str, to: &str) {
        let found = self.files.iter().find(|(path, _)| path.ends_with(file));
        let (path, text) = found.unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}");
        fs_err::write(path, text.replace(from, to)).unwrap();
    }

    fn amiforge(&self) -> Command {
        let mut command = self.env.amiforge();
        command.env("TOKEN", "confidential");
        command
    }

    fn plan_of(command: &mut Command) -> Vec<Value> {
        let plan = finish(command).expect_code(0).json();
        plan["layers"].as_array().unwrap().clone()
    }

    fn plan(&self) -> Vec<Value> {
        Self::plan_of(self.amiforge().args(["plan", "--json"]).arg(&self.recipe))
    }

    /// Exactly the layers from `first` on are missed, and both ways of asking say `why`, or in words `words`.
    #[track_caller]
    fn missed(
        &self,
        what: &str,
        layers: &[Value],
        why_text: Option<&str>,
        (first, why, words): (usize, &str, &str),
    ) {
        let words = if words.is_empty() { why } else { words };
        for (at, layer) in layers.iter().enumerate() {
            let told: Vec<&str> = layer["why"]
                .as_array()
                .unwrap()
                .iter()
                .map(|w| w.as_str().unwrap())
                .collect();
            assert_eq!(layer["cached"], at < first, "{what}: {layer:#}");
            let expected = match at {
                at if at < first => "unchanged since the last build",
                at if at > first => "a layer below it changed",
                _ => why,
            };
            assert!(
                told.iter().any(|line| line.starts_with(expected)),
                "{what}: no {expected:?} in {told:#?}"
            );
            let reasons = layer["reasons"].as_array().unwrap();
            let expected = if at == first { words } else { expected };
            assert!(
                reasons
                    .iter()
                    .any(|line| line.as_str().unwrap().starts_with(expected)),
                "{what}: no {expected:?} in {reasons:#?}"
            );
            // A step is told of by what differs in it, never by digests.
            assert!(
                words == why || !reasons.iter().any(|l| l.to_string().contains("sha256:")),
                "{what}: {reasons:#?}"
            );
            // An input of all components is one of those above, too; anything else is not.
            assert!(
                at <= first || told.len() == 1 || told[0].starts_with(why),
                "{what}: {told:#?}"
            );
        }
        if let Some(text) = why_text {
            let made = text.lines().filter(|line| line.starts_with("build "));
            assert!(text.contains(words), "{what}: {text}");
            assert_eq!(made.count(), layers.len() - first, "{what}: {text}");
        }
    }

    fn why_text(&self) -> String {
        let mut command = self.amiforge();
        finish(command.args(["cache", "why"]).arg(&self.recipe))
            .expect_code(0)
            .text()
    }
}

/// A file, what is replaced in it, by what; the first layer that is missed, how its line begins, and how the line for
/// people, where that is another.
type Change<'t> = (&'t str, &'t str, &'t str, usize, &'t str, &'t str);

const CHANGES: &[Change<'_>] = &[
    // Of the recipe.
    (
        "tiny.yaml",
        "containerType: DOCKER",
        "containerType: DOCKER\nworkingDirectory: /srv",
        2,
        "workingDirectory is new: /srv",
        "",
    ),
    (
        "tiny.yaml",
        "  - componentArn: ./lower.yaml\n",
        "",
        2,
        "a layer below it changed",
        "",
    ),
    (
        "tiny.yaml",
        "  - componentArn: ./lower.yaml\n  - componentArn: ./middle.yaml\n",
        "  - componentArn: ./middle.yaml\n  - componentArn: ./lower.yaml\n",
        2,
        "a layer below it changed",
        "",
    ),
    (
        "tiny.yaml",
        "./middle.yaml\n",
        "./middle.yaml\n    parameters: [{name: Greeting, value: [bye]}]\n",
        3,
        "parameter.Greeting changed: hello -> bye",
        "",
    ),
    (
        "tiny.yaml",
        "semanticVersion: 1.0.0",
        "semanticVersion: 1.0.1",
        4,
        "environment.IMAGE_VERSION changed: 1.0.0 -> 1.0.1",
        "",
    ),
    (
        "tiny.yaml",
        "imagebuilder:parentImage }}}\\n",
        "imagebuilder:parentImage }}}\\nENV MORE=yes\\n",
        2,
        "environment.MORE is new: yes",
        "",
    ),
    // Of the configuration.
    (
        "config.yaml",
        ": here",
        ": there",
        3,
        "reference.aws:ssm:/site changed: here -> there",
        "",
    ),
    (
        "config.yaml",
        "/token: {env: TOKEN}",
        "/token: open",
        3,
        "reference.aws:ssm:/token changed: secret -> open",
        "",
    ),
    // Of components.
    (
        "lower.yaml",
        "echo lower",
        "echo  lower",
        2,
        "step.Make changed: sha256:",
        "step Make: inputs.commands[0]: \"echo lower >/lower\" -> \"echo  lower >/lower\"",
    ),
    (
        "middle.yaml",
        "default: hello",
        "default: bye",
        3,
        "parameter.Greeting changed: hello -> bye",
        "",
    ),
    (
        "middle.yaml",
        "Greeting: {type: string, default: hello, description: What is said}",
        "Other: {type: string, default: hello}\n  - Greeting: {type: string, default: hello}",
        3,
        "parameter.Other is new: hello",
        "",
    ),
    (
        "middle.yaml",
        "value: 80",
        "value: 8080",
        3,
        "constant.Port changed: 80 -> 8080",
        "",
    ),
    (
        "middle.yaml",
        "path: /greeting",
        "path: /greetings",
        3,
        "step.Write changed: sha256:",
        "step Write: inputs[0].path: \"/greeting\" -> \"/greetings\"",
    ),
    (
        "middle.yaml",
        "'{{ Greeting }} ",
        "'{{ Greeting }}: ",
        3,
        "step.Write changed: sha256:",
        "step Write: inputs[0].content: \"{{ Greeting }} {{ Port }} {{ aws:ssm:/site }}\" -> \"{{ Greeting }}: {{ Port }} {{ aws:ssm:/site }}\"",
    ),
    (
        "middle.yaml",
        "action: CreateFile",
        "action: AppendFile",
        3,
        "step.Write changed: sha256:",
        "step Write: action: CreateFile -> AppendFile",
    ),
    (
        "middle.yaml",
        "timeoutSeconds: 60",
        "timeoutSeconds: 61",
        3,
        "step.Run changed: sha256:",
        "step Run: timeoutSeconds: 60 -> 61",
    ),
    (
        "middle.yaml",
        "timeoutSeconds: 60\n        ",
        "",
        3,
        "step.Run changed: sha256:",
        "step Run: timeoutSeconds is gone: 60",
    ),
    (
        "middle.yaml",
        "onFailure: Abort",
        "onFailure: Ignore",
        3,
        "step.Run changed: sha256:",
        "step Run: onFailure: Abort -> Ignore",
    ),
    (
        "middle.yaml",
        "maxAttempts: 2",
        "maxAttempts: 3",
        3,
        "step.Run changed: sha256:",
        "step Run: maxAttempts: 2 -> 3",
    ),
    (
        "middle.yaml",
        "- echo one >/one\n            - test -n '{{ aws:ssm:/token }}'",
        "- test -n '{{ aws:ssm:/token }}'\n            - echo one >/one",
        3,
        "step.Run changed: sha256:",
        "step Run: inputs.commands[0]: \"echo one >/one\" -> \"test -n '{{ aws:ssm:/token }}'\"",
    ),
    (
        "middle.yaml",
        "forEach: [a, b]",
        "forEach: [b, a]",
        3,
        "step.Each changed: sha256:",
        "step Each: loop.forEach[0]: a -> b",
    ),
    (
        "middle.yaml",
        "forEach: [a, b]",
        "forEach: [a, b, c]",
        3,
        "step.Each changed: sha256:",
        "step Each: loop.forEach[2] is new: c",
    ),
    (
        "middle.yaml",
        "stringIsEmpty: ''",
        "stringIsEmpty: x",
        3,
        "step.Perhaps changed: sha256:",
        "step Perhaps: if.stringIsEmpty: \"\" -> x",
    ),
    (
        "middle.yaml",
        "else: Skip",
        "else: Abort",
        3,
        "step.Perhaps changed: sha256:",
        "step Perhaps: if.else: Skip -> Abort",
    ),
    (
        "middle.yaml",
        "name: Last",
        "name: Final",
        3,
        "steps changed: Write, Run, Each, Perhaps, Last -> Write, Run, Each, Perhaps, Final",
        "step Last is now called Final",
    ),
    (
        "middle.yaml",
        "      - name: Last\n        action: ExecuteBash\n        inputs: {commands: ['true']}\n",
        "",
        3,
        "step.Last is gone: sha256:",
        "step Last is gone",
    ),
    (
        "middle.yaml",
        "commands: ['true']}\n",
        "commands: ['true']}\n      - name: More\n        action: ExecuteBash\n        inputs: {commands: ['true']}\n",
        3,
        "step.More is new: sha256:",
        "step More is new",
    ),
    (
        "upper.yaml",
        "/version",
        "/release",
        4,
        "step.Version changed: sha256:",
        "step Version: inputs.commands[0]: \"echo $IMAGE_VERSION >/version\" -> \"echo $IMAGE_VERSION >/release\"",
    ),
];

/// The same where no layer is missed.
const SAME: &[(&str, &str, &str)] = &[
    // The same packages, which are there anyway.
    (
        "tiny.yaml",
        "variant: essential",
        "variant: essential, packages: [tiny-a]",
    ),
    ("tiny.yaml", "name: tiny\n", "# A comment\nname: 'tiny'\n"),
    (
        "tiny.yaml",
        "name: tiny\ncontainerType: DOCKER\n",
        "containerType: \"DOCKER\"\nname: tiny\n",
    ),
    (
        "tiny.yaml",
        "containerType: DOCKER",
        "containerType: DOCKER\ndescription: Of this and that",
    ),
    (
        "tiny.yaml",
        "containerType: DOCKER",
        "containerType: DOCKER\ntags: {Team: web}",
    ),
    ("tiny.yaml", "repositoryName: tiny", "repositoryName: other"),
    (
        "tiny.yaml",
        "imagebuilder:components }}}\\n",
        "imagebuilder:components }}}\\nLABEL of=me\\n",
    ),
    (
        "tiny.yaml",
        "amiforge:\n",
        "amiforge:\n  compression: zstd\n  hygiene: {findings: warning}\n",
    ),
    (
        "config.yaml",
        "references:",
        "# What stands here\nparents: {ami-1: scratch}\nreferences:",
    ),
    ("config.yaml", "env: TOKEN", "env: OTHER_TOKEN"),
    (
        "lower.yaml",
        "name: lower\nschemaVersion: 1.0\n",
        "schemaVersion: '1.0'\nname: lower\n",
    ),
    (
        "lower.yaml",
        "commands: ['echo lower >/lower']",
        "commands: [ \"echo lower >/lower\" ]",
    ),
    (
        "middle.yaml",
        "description: Says things",
        "description: Says other things # and more",
    ),
    ("middle.yaml", "description: Says things\n", ""),
    (
        "middle.yaml",
        "description: What is said",
        "description: Said",
    ),
    (
        "middle.yaml",
        "default: hello,",
        "default: hello, allowedValues: [hello, bye],",
    ),
    ("middle.yaml", "test -f /one", "test -e /one"),
    ("middle.yaml", "test -f /turns", "test -e /turns"),
    (
        "middle.yaml",
        "{name: Turn, forEach: [a, b]}",
        "\n          forEach:\n            - a\n            - b\n          name: Turn",
    ),
    (
        "middle.yaml",
        "        timeoutSeconds: 60\n        onFailure: Abort\n",
        "        onFailure: Abort\n\n        timeoutSeconds: 60 # a minute\n",
    ),
    ("upper.yaml", "name: upper\n", "\u{feff}name: upper\r\n"),
];

#[test]
fn every_input_is_covered_and_named_and_nothing_else_is() {
    let env = Env::new();
    let world = World::new(&env);
    let out = env.path("out");
    let mut build = world.amiforge();
    build
        .env("OTHER_TOKEN", "other")
        .arg("build")
        .arg(&world.recipe)
        .arg("--out")
        .arg(&out);
    let end = finish(&mut build).expect_code(0);
    assert_eq!(steps(&end).len(), 9, "{end}");
    let base = world.plan();
    assert_eq!(base.len(), COMPONENTS + 3);
    let ids =
        |layers: &[Value]| -> Vec<String> { layers.iter().map(|l| l["id"].to_string()).collect() };

    let mut seen = std::collections::BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, (file, from, to, first, why, words)) in CHANGES.iter().enumerate() {
        let what = format!("{file}: {from:?} -> {to:?}");
        let all = std::panic::AssertUnwindSafe(|| {
            world.replace(file, from, to);
            let layers = world.plan();
            // The other way of asking is the same operation: of some is enough.
            let text = (number % 5 == 0).then(|| world.why_text());
            world.missed(&what, &layers, text.as_deref(), (*first, why, words));
            ids(&layers)
        });
        match std::panic::catch_unwind(all) {
            Ok(ids) => {
                // No two changes come to the same, but a value is a value, wherever it comes from.
                let other = seen.insert(ids, what.clone());
                wrong.extend(other.filter(|_| !why.starts_with("parameter.Greeting")));
            }
            Err(_) => wrong.push(what),
        }
        world.restore();
    }
    assert_eq!(wrong, Vec::<String>::new());

    // By options and the environment.
    let greeting = ["--param", "middle.Greeting=bye"];
    let layers = World::plan_of(
        world
            .amiforge()
            .args(["plan", "--json"])
            .args(greeting)
            .arg(&world.recipe),
    );
    let text = finish(
        world
            .amiforge()
            .args(["cache", "why"])
            .args(greeting)
            .arg(&world.recipe),
    )
    .text();
    world.missed(
        "--param",
        &layers,
        Some(&text),
        (3, "parameter.Greeting changed: hello -> bye", ""),
    );
    let epoch = ("SOURCE_DATE_EPOCH", "1700000000");
    let layers = World::plan_of(
        world
            .amiforge()
            .args(["plan", "--json"])
            .env(epoch.0, epoch.1)
            .arg(&world.recipe),
    );
    let clock = "buildClock changed: newest package -> 1700000000";
    for layer in &layers {
        assert_eq!(
            (&layer["cached"], &layer["why"][0]),
            (&false.into(), &clock.into())
        );
    }

    let hit = |what: &str, command: &mut Command| {
        let layers = World::plan_of(command);
        assert_eq!(ids(&layers), ids(&base), "{what}");
        assert!(layers.iter().all(|layer| layer["cached"] == true), "{what}");
    };
    let plan = |recipe: &Path| {
        let mut command = world.amiforge();
        command
            .env("OTHER_TOKEN", "other")
            .args(["plan", "--json"])
            .arg(recipe);
        command
    };
    for (file, from, to) in SAME {
        let what = format!("{file}: {from:?} -> {to:?}");
        let same = std::panic::AssertUnwindSafe(|| {
            world.replace(file, from, to);
            hit(&what, &mut plan(&world.recipe));
        });
        if std::panic::catch_unwind(same).is_err() {
            wrong.push(what);
        }
        world.restore();
    }
    assert_eq!(wrong, Vec::<String>::new());
    // Who asks, where and when.
    for (name, value) in [
        ("TZ", "Pacific/Auckland"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("LANG", "de_DE"),
        ("HOME", "/nowhere"),
        ("USER", "somebody"),
        ("TOKEN", "another secret"),
        ("COLUMNS", "20"),
    ] {
        hit(name, plan(&world.recipe).env(name, value));
    }
    hit(
        "cwd",
        plan(Path::new("tiny.yaml")).current_dir(env.path("")),
    );
    let copy = env.path("else where");
    fs_err::create_dir(&copy).unwrap();
    for file in [
        "lower.yaml",
        "middle.yaml",
        "upper.yaml",
        "tiny.yaml",
        "tiny.gpg",
    ] {
        fs_err::copy(env.path(file), copy.join(file)).unwrap();
    }
    hit("path", &mut plan(&copy.join("tiny.yaml")));
    let around = |script: &str| {
        let inner = plan(&world.recipe);
        let mut command = env.command("sh");
        command
            .args(["-c", script, "sh"])
            .arg(inner.get_program())
            .args(inner.get_args());
        command.env("TOKEN", "x");
        command
    };
    hit("umask", &mut around("umask 077; exec \"$@\""));
    hit("one processor", &mut around("exec taskset -c 0 \"$@\""));
    run(tool("find").arg(env.path("")).args([
        "-name",
        "*.yaml",
        "-exec",
        "touch",
        "-d",
        "2001-01-01",
        "{}",
        "+",
    ]));
    run(tool("chmod").arg("600").arg(env.path("middle.yaml")));
    hit("times and modes of documents", &mut plan(&world.recipe));
    // With other threads, and into another folder: no step but those of the test phase, which looks at the result.
    let mut build = world.amiforge();
    build
        .arg("build")
        .arg(&world.recipe)
        .args(["--jobs", "1", "--no-test"]);
    let end = finish(build.arg("--out").arg(env.path("out2"))).expect_code(0);
    assert_eq!(steps(&end), Vec::<String>::new(), "{end}");

    // A package of another version, or another content of the same.
    for (version, content, why) in [
        ("1.1", "a", "package.tiny-a changed: 1.0 sha256:"),
        ("1.0", "b", "package.tiny-a changed: 1.0 sha256:"),
    ] {
        world.tiny.publish(&[("tiny-a", version, content)]);
        world.missed(
            "package",
            &world.plan(),
            Some(&world.why_text()),
            (0, why, ""),
        );
    }
}

#[test]
fn what_failed_and_which_packages_came_is_said_in_words() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let documents = ["lower.yaml", "upper.yaml"];
    let recipe = tiny.container("tiny", &documents, "");
    env.write("lower.yaml", LOWER);
    env.write(
        "upper.yaml",
        UPPER.replace("echo $IMAGE_VERSION >/version", "exit 3"),
    );
    let build = || {
        let mut command = env.amiforge();
        command.arg("build").arg(&recipe);
        command.arg("--out").arg(env.path("out"));
        command
    };
    let plan = || {
        let mut command = env.amiforge();
        World::plan_of(command.args(["plan", "--json"]).arg(&recipe))
    };
    assert_eq!(plan()[3]["reasons"], serde_json::json!(["never built"]));
    let end = finish(&mut build()).expect_code(1);
    // Where the step stands, as `validate` shows places.
    assert!(
        end.stderr.contains(
            "error: ./upper.yaml:6:9: phase build, step Version (ExecuteBash): bash ended with exit code 3"
        ),
        "{end}"
    );
    let layers = plan();
    assert_eq!(layers[2]["reasons"], serde_json::json!(["in the store"]));
    let failed = serde_json::json!([
        "failed last time at upper, build phase, step Version (./upper.yaml:6:9)"
    ]);
    assert_eq!(layers[3]["reasons"], failed);

    env.write("upper.yaml", UPPER);
    finish(&mut build()).expect_code(0);
    env.write("upper.yaml", UPPER.replace("/version", "/nowhere/version"));
    finish(&mut build()).expect_code(1);
    let expected = serde_json::json!([
        "step Version: inputs.commands[0]: \"echo $IMAGE_VERSION >/version\" -> \
         \"echo $IMAGE_VERSION >/nowhere/version\"",
        "failed last time at upper, build phase, step Version (./upper.yaml:6:9)",
    ]);
    assert_eq!(plan()[3]["reasons"], expected);

    let text = fs_err::read_to_string(&recipe).unwrap();
    let text = text.replace(
        "variant: essential",
        "variant: essential, include: [tiny-b]",
    );
    fs_err::write(&recipe, text).unwrap();
    tiny.publish(&[("tiny-a", "1.0", "a"), ("tiny-b", "1.0", "b")]);
    let layers = plan();
    let expected = serde_json::json!([
        "what configures the packages changed: amiforge.apt.include: tiny-b is new; \
         packages: tiny-b is new",
        "a layer below it changed",
    ]);
    assert_eq!(layers[1]["reasons"], expected);
}

#[test]
fn what_is_made_of_layers_is_no_input_of_them() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("tiny-a", "1.0", "a")]);
    let mirror = format!("file://{}", tiny.root().display());
    let recipe = tiny.recipe(&mirror, "[tiny-a]");
    let text = fs_err::read_to_string(&recipe).unwrap();
    let base = planned_layers(&env, &recipe, &[]);
    for (from, to) in [
        ("volumeSize: 1", "volumeSize: 9"),
        ("volumeType: gp3", "volumeType: gp2"),
        ("/dev/xvda", "/dev/sda1"),
        ("formats: [raw]", "formats: [qcow2]"),
        (
            "formats: [raw]",
            "formats: [raw, qcow2]\n  compression: zstd",
        ),
        ("formats: [raw]", "formats: [raw]\n  seed: other"),
        (
            "formats: [raw]",
            "formats: [raw]\n  rootFilesystem: {type: ext4, profile: legacy}",
        ),
        ("name: tiny", "name: other"),
        (
            "name: tiny",
            "name: tiny\ntags: {A: b}\namiTags: {C: d}\ndescription: E",
        ),
        ("1.0.0", "2.0.0"),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs_err::write(&recipe, text.replace(from, to)).unwrap();
        assert_eq!(
            planned_layers(&env, &recipe, &[]),
            base,
            "{from:?} -> {to:?}"
        );
    }

    // An imported archive: what it is, not where, of what age or mode.
    let layers = |path: &str| {
        let recipe = env.write(
            "imported.yaml",
            text.replace("debian:tiny", &format!("tar:{path}"))
                .replace("amiforge:", "# amiforge:")
                .replace("  formats", "#  formats")
                .replace("  apt", "#  apt"),
        );
        let text = fs_err::read_to_string(&recipe).unwrap();
        let text = text.replace("name: tiny\n", "name: tiny\ncontainerType: DOCKER\n\
            targetRepository: {service: ECR, repositoryName: tiny}\n\
            dockerfileTemplateData: \"FROM {{{ imagebuilder:parentImage }}}\\n{{{ imagebuilder:components }}}\\n\"\n");
        let cut = text.find("blockDeviceMappings").unwrap();
        fs_err::write(&recipe, &text[..cut]).unwrap();
        planned_layers(&env, &recipe, &[])
    };
    let pack = |name: &str, content: &str| {
        fs_err::create_dir_all(env.path("files")).unwrap();
        fs_err::write(env.path("files/file"), content).unwrap();
        let args = ["--sort=name", "--mtime=@1", "--owner=0", "--group=0", "-cf"];
        run(tool("tar")
            .args(args)
            .arg(env.path(name))
            .arg("-C")
            .arg(env.path("files"))
            .arg("."));
    };
    pack("a.tar", "one");
    let one = layers("a.tar");
    fs_err::copy(env.path("a.tar"), env.path("b.tar")).unwrap();
    run(tool("touch")
        .args(["-d", "2001-01-01"])
        .arg(env.path("b.tar")));
    run(tool("chmod").arg("600").arg(env.path("b.tar")));
    assert_eq!(layers("b.tar"), one);
    pack("a.tar", "two");
    let two = layers("a.tar");
    assert!(one.iter().zip(&two).all(|(a, b)| a != b), "{one:?} {two:?}");
}

/// The ids that everybody gets who builds the shipped recipes from the same lock: neither the machine nor its sources of
/// packages, its store, its folders or its user have a part in them.
#[test]
fn plans_of_the_shipped_recipes_have_the_same_ids_everywhere() {
    let root = workspace_root();
    let golden = root.join("fixtures/recipes/plans/ids.txt");
    let env = Env::new();
    let mut ids = String::new();
    let mut recipes: Vec<_> = fs_err::read_dir(root.join("recipes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("recipe.yaml").is_file())
        .collect();
    recipes.sort();
    assert!(recipes.len() >= 2, "{recipes:?}");
    for recipe in recipes {
        let name = recipe.file_name().unwrap().to_str().unwrap();
        run(tool("cp").arg("-r").arg(&recipe).arg(env.path("")));
        let lock = root.join("fixtures/recipes/locks/bookworm.json");
        fs_err::copy(lock, env.path(name).join("lock.json")).unwrap();
        let mut command = env.amiforge();
        command
            .args(["plan", "--locked", "--offline", "--json"])
            .arg(env.path(name));
        let plan = finish(&mut command).expect_code(0).json();
        ids.push_str(&format!("{name} {}\n", plan["planId"].as_str().unwrap()));
        for layer in plan["layers"].as_array().unwrap() {
            let (id, title) = (&layer["id"], &layer["title"]);
            ids.push_str(&format!(
                "  {} {}\n",
                id.as_str().unwrap(),
                title.as_str().unwrap()
            ));
        }
    }
    if std::env::var_os("AMIFORGE_BLESS").is_some() {
        fs_err::write(&golden, &ids).unwrap();
    }
    assert_eq!(
        ids,
        fs_err::read_to_string(&golden).unwrap_or_default(),
        "if the change is meant, run with AMIFORGE_BLESS=1"
    );
}
