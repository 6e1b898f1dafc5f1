//! What `plan --why` and `cache why` say of a plan besides its layers, and after builds that failed.

use std::path::Path;

use amiforge_testkit::{Env, Finished, finish};
use serde_json::{Value, json};

use crate::shared_cache::small;
use crate::tiny::Tiny;
use crate::web::names;

fn build(env: &Env, recipe: &Path) -> Finished {
    let mut command = env.amiforge();
    command.arg("build").arg(recipe);
    finish(command.arg("--no-test").arg("--out").arg(env.path("out")))
}

fn plan(env: &Env, recipe: &Path) -> Value {
    let mut command = env.amiforge();
    let end = finish(command.args(["plan", "--json"]).arg(recipe));
    end.expect_code(0).json()
}

/// Both commands say these lines below the plan's id, and nothing else.
#[track_caller]
fn below_the_plan(env: &Env, recipe: &Path, lines: &[&str]) {
    for verb in [&["plan", "--why"][..], &["cache", "why"]] {
        let mut command = env.amiforge();
        let text = finish(command.args(verb).arg(recipe)).expect_code(0).text();
        let (_, below) = text.split_once("\nplan   ").unwrap();
        let told: Vec<&str> = below.lines().skip(1).map(str::trim_start).collect();
        assert_eq!(told, lines, "{text}");
    }
    assert_eq!(plan(env, recipe)["reasons"], json!(lines));
}

#[test]
fn what_is_gone_moved_or_of_the_image_alone_is_told() {
    let env = Env::new();
    let recipe = small(&env, &["one", "two", "three"]);
    build(&env, &recipe).expect_code(0);
    below_the_plan(&env, &recipe, &[]);

    small(&env, &["two", "one", "three"]);
    let order = "the order of the components changed: one, two, three -> two, one, three";
    below_the_plan(&env, &recipe, &[order]);
    small(&env, &["one", "three"]);
    below_the_plan(&env, &recipe, &["two is gone"]);
    small(&env, &["three", "one"]);
    let order = "the order of the components changed: one, three -> three, one";
    below_the_plan(&env, &recipe, &["two is gone", order]);

    // A component that only looks has no layer that could tell.
    small(&env, &["one", "two", "three", "looks"]);
    let looks = |path: &str| reads(&env, "looks", "test", path);
    looks("/one");
    below_the_plan(&env, &recipe, &["looks, which has no layer, is new"]);
    build(&env, &recipe).expect_code(0);
    looks("/two");
    below_the_plan(&env, &recipe, &["looks, which has no layer, changed"]);
    let layers = plan(&env, &recipe);
    for layer in layers["layers"].as_array().unwrap() {
        assert_eq!(layer["reasons"], json!(["unchanged since the last build"]));
    }
    looks("/one");
    let text = fs_err::read_to_string(&recipe).unwrap();
    fs_err::write(&recipe, format!("{text}description: Other\n")).unwrap();
    let told = "of the image, description is new: Other";
    below_the_plan(&env, &recipe, &[told]);
}

/// A component whose one step reads a file, which may be missing.
fn reads(env: &Env, name: &str, phase: &str, path: &str) {
    env.write(
        format!("{name}.yaml"),
        format!(
            "name: {name}\nschemaVersion: 1.0\nphases:\n  - name: {phase}\n    steps:\n      \
             - {{name: Missing, action: ReadFile, inputs: [{{path: {path}}}]}}\n"
        ),
    );
}

#[test]
fn of_a_recipe_that_never_succeeded_the_input_that_changed_is_told() {
    let env = Env::new();
    let recipe = small(&env, &["one", "two"]);
    let good = fs_err::read_to_string(env.path("one.yaml")).unwrap();
    let two = |path: &str| reads(&env, "two", "build", path);
    two("/nowhere");
    let reasons = |at: usize| plan(&env, &recipe)["layers"][at]["reasons"].clone();
    assert_eq!(
        [reasons(0), reasons(1)],
        [json!(["never built"]), json!(["never built"])]
    );
    build(&env, &recipe).expect_code(1);
    let place = "at two, build phase, step Missing (./two.yaml:6:9)";
    let failed = format!("failed last time {place}");
    let before = format!("failed last time, with other inputs, {place}");
    assert_eq!(
        [reasons(0), reasons(1)],
        [json!(["in the store"]), json!([failed])]
    );
    below_the_plan(&env, &recipe, &[]);

    env.write("one.yaml", good.replace("content: text", "content: other"));
    let edited = "step Write: inputs[0].content: text -> other";
    assert_eq!(reasons(0), json!([edited]));
    assert_eq!(reasons(1), json!(["a layer below it changed", before]));
    let end = build(&env, &recipe).expect_code(1);
    assert!(end.stderr.contains(edited), "{end}");

    // Compared with the last attempt, not with the first.
    two("/elsewhere");
    let edited = "step Missing: inputs[0].path: \"/nowhere\" -> \"/elsewhere\"";
    assert_eq!(reasons(0), json!(["in the store"]));
    assert_eq!(reasons(1), json!([edited, before]));
    let end = build(&env, &recipe).expect_code(1);
    assert!(end.stderr.contains(edited), "{end}");

    // Once it is built, that is what counts.
    two("/one");
    let tried = env.state().join("store/v1/records/tried-plan");
    assert_eq!(names(&tried).len(), 1);
    build(&env, &recipe).expect_code(0);
    assert_eq!(names(&tried).len(), 0);
    two("/nowhere");
    let edited = "step Missing: inputs[0].path: \"/one\" -> \"/nowhere\"";
    assert_eq!(reasons(1), json!([edited]));
}

#[test]
fn a_volume_of_another_size_is_told_of_a_machine_image() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let mirror = format!("file://{}", tiny.root().display());
    let recipe = tiny.recipe(&mirror, "[tiny-a]");
    let component = fs_err::read_to_string(env.path("component.yaml")).unwrap();
    env.write(
        "component.yaml",
        component.replace("\"true\"", "\"exit 3\""),
    );
    build(&env, &recipe).expect_code(1);
    below_the_plan(&env, &recipe, &[]);
    let text = fs_err::read_to_string(&recipe).unwrap();
    fs_err::write(&recipe, text.replace("volumeSize: 1", "volumeSize: 2")).unwrap();
    let reasons = plan(&env, &recipe)["reasons"].clone();
    let told: Vec<&str> = reasons
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("of the image, volume./dev/xvda changed: "),
        "{told:?}"
    );
}
