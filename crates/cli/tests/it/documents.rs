//! Documents that cannot be used: every problem in one run, with its place, and exit code 2.

use std::path::Path;

use amiforge_testkit::{Env, Finished, finish};

const RECIPE: &str = "\
name: bad-recipe
semanticVersion: 1.0.0
parentImage: debian:bookworm
components:
  - componentArn: ./missing.yaml
  - componentArn: ./steps.yaml
  - componentArn: no-such/x.x.x
blockDeviceMapings: []
amiforge:
  formtas: [raw]
";

const STEPS: &str = "\
name: steps
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: First
        action: ExecuteBsh
        inputs:
          commands: [ls]
      - name: Second
        action: ExecuteBash
        inputs:
          comands: [ls]
";

#[track_caller]
fn says(end: &Finished, texts: &[&str]) {
    for text in texts {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
}

/// The document as a user wrote it, its path given relative to the workspace or absolute.
fn validate(env: &Env, name: &str, text: impl AsRef<[u8]>) -> (String, Finished) {
    let path = env.write(name, text);
    let end = finish(env.amiforge().arg("validate").arg(&path));
    (path.display().to_string(), end)
}

#[test]
fn all_problems_of_a_recipe_and_its_components_are_told_at_once() {
    let env = Env::new();
    let recipe = env.write("recipe.yaml", RECIPE);
    let steps = env.write("steps.yaml", STEPS);
    for verb in ["validate", "plan", "build"] {
        let end = finish(env.amiforge().arg(verb).arg(&recipe)).expect_code(2);
        let at = |path: &Path, place: &str| format!("{}:{place}", path.display());
        says(
            &end,
            &[
                &at(&recipe, "5:19"),
                "missing.yaml",
                &at(&recipe, "7:19"),
                "no-such/x.x.x",
                &at(&recipe, "8:1"),
                "did you mean `blockDeviceMappings`?",
                &at(&recipe, "10:3"),
                "did you mean `formats`?",
                &at(&steps, "7:17"),
                "did you mean `ExecuteBash`?",
                &at(&steps, "13:11"),
                "did you mean `commands`?",
            ],
        );
        assert_eq!(end.text(), "", "no data on standard output\n{end}");
        assert!(
            !env.state().join("store").exists() || verb != "validate",
            "validating writes nothing"
        );
    }
}

#[test]
fn an_unknown_parent_is_told_with_its_place() {
    let env = Env::new();
    let recipe = env.write(
        "recipe.yaml",
        "name: some-image\nsemanticVersion: 1.0.0\nparentImage: plan9:bell\n",
    );
    let end = finish(env.amiforge().arg("build").arg(&recipe)).expect_code(2);
    says(
        &end,
        &[
            "plan9:bell",
            &format!("{}:3:14", recipe.display()),
            "debian:<suite>",
        ],
    );
}

#[test]
fn an_unknown_parameter_is_told_before_anything_is_fetched() {
    let env = Env::new();
    for (param, told) in [
        (
            "Greting=x",
            "--param Greting: no component has this parameter",
        ),
        ("Greeting", "--param Greeting: write NAME=VALUE"),
    ] {
        let end = finish(
            env.amiforge()
                .args(["build", "recipes/debian-web", "--param", param, "--out"])
                .arg(env.path("out")),
        )
        .expect_code(2);
        says(&end, &[told]);
        assert!(!env.state().join("cache").exists(), "{end}");
        assert!(!env.path("out").exists());
    }
}

#[test]
fn yaml_that_is_none_has_a_place() {
    let env = Env::new();
    let (path, end) = validate(
        &env,
        "tab.yaml",
        "name: image\n\tparentImage: debian:bookworm\n",
    );
    says(&end.expect_code(2), &["tab", &format!("{path}:1:")]);

    let twice = "name: image\nsemanticVersion: 1.0.0\nname: other\nparentImage: debian:bookworm\n";
    let (path, end) = validate(&env, "twice.yaml", twice);
    says(
        &end.expect_code(2),
        &["the key \"name\" is already set", &format!("{path}:3:1")],
    );

    let (path, end) = validate(&env, "latin1.yaml", b"name: caf\xE9\n");
    says(&end.expect_code(2), &[&path]);
}

#[test]
fn hostile_yaml_ends_quickly() {
    let env = Env::new();
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let deep = "[".repeat(100_000);
    let huge = "[".repeat(100_000_000);
    let blocks: String = (0..1000)
        .map(|n| format!("{}- \n", "  ".repeat(n)))
        .collect();
    for (name, text, told) in [
        ("bomb.yaml", &bomb, "aliases repeat too much"),
        ("deep.yaml", &deep, "nest deeper than"),
        ("huge.yaml", &huge, "longer than"),
        ("blocks.yaml", &blocks, "nest deeper than"),
    ] {
        let (path, end) = validate(&env, name, text);
        let end = end.expect_code(2);
        says(&end, &[told, &format!("{path}:1:")[..path.len() + 1]]);
        assert!(
            end.stderr.len() < 10_000,
            "{name}: a message, not the document"
        );
        // Measured: a few milliseconds each. Without limits the bomb alone would take the memory of the host.
        assert!(end.took.as_secs() < 20, "{name} took {:?}", end.took);
    }
}

#[test]
fn valid_documents_are_named_on_standard_output() {
    let env = Env::new();
    let end = env.run(env.amiforge().args([
        "validate",
        "recipes/debian-web",
        "recipes/debian-minimal",
        "recipes/debian-web/components/web.yaml",
    ]));
    for name in [
        "debian-web/recipe.yaml",
        "debian-minimal/recipe.yaml",
        "web.yaml",
    ] {
        assert!(end.text().contains(&format!("{name}: valid")), "{end}");
    }
}

#[test]
fn a_document_named_twice_is_told_once() {
    let env = Env::new();
    let recipe = env.write("recipe.yaml", RECIPE);
    let steps = env.write("steps.yaml", STEPS);
    let again = env.path("").join(".").join("steps.yaml");
    let end = finish(
        env.amiforge()
            .arg("validate")
            .args([&recipe, &steps, &again]),
    );
    let end = end.expect_code(2);
    let told = end.stderr.matches("did you mean `ExecuteBash`?").count();
    assert_eq!(told, 1, "{end}");
}

#[test]
fn problems_as_json() {
    let env = Env::new();
    let steps = env.write("steps.yaml", STEPS);
    let end = finish(env.amiforge().args(["validate", "--json"]).arg(&steps)).expect_code(2);
    let json = end.json();
    assert_eq!(json[0]["valid"], false);
    let codes: Vec<_> = json[0]["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["code"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes, ["unknown-action", "missing-field", "unknown-field"]);
}

#[test]
fn usage_errors_have_exit_code_2() {
    let env = Env::new();
    for args in [
        &["frobnicate"][..],
        &["build"],
        &["build", "no-such-recipe"],
        &["build", "recipes/debian-web", "--jobs", "0"],
        &["disk", "assemble", "--rootfs", "x"],
    ] {
        let end = finish(env.amiforge().args(args)).expect_code(2);
        assert!(!end.stderr.is_empty() && end.stdout.is_empty(), "{end}");
    }
}
