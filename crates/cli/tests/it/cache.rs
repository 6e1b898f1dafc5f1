//! `cache list`, `gc` and `why` on the store of two builds of a container recipe, which take no boot.

use std::path::Path;
use std::time::Duration;

use amiforge_testkit::{Env, Finished, Running, finish};
use serde_json::Value;

use crate::tiny::Tiny;

fn component(env: &Env, command: &str) {
    env.write(
        "component.yaml",
        format!(
            "name: one\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Run\n        \
             action: ExecuteBash\n        inputs: {{commands: ['{command}']}}\n"
        ),
    );
}

fn build(env: &Env, recipe: &Path, out: &str) -> Finished {
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(recipe)
        .arg("--out")
        .arg(env.path(out));
    finish(&mut command)
}

fn cache(env: &Env, args: &[&str]) -> Finished {
    let mut command = env.amiforge();
    command.arg("cache").args(args);
    finish(&mut command)
}

fn layers(report: &Value) -> Vec<&Value> {
    report["layers"].as_array().unwrap().iter().collect()
}

#[test]
fn what_nobody_needs_goes_and_what_is_used_stays() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    component(&env, "echo one >/one");
    let recipe = tiny.container("tiny", &["component.yaml"], "");
    build(&env, &recipe, "out1").expect_code(0);
    component(&env, "echo two >/two");
    let why = cache(&env, &["why", recipe.to_str().unwrap()]).expect_code(0);
    let told = "step Run: inputs.commands[0]: \"echo one >/one\" -> \"echo two >/two\"";
    assert!(why.text().contains(told), "{why}");
    build(&env, &recipe, "out2").expect_code(0);

    // Unpacked and configured parent, and a layer of each component.
    let report = cache(&env, &["list", "--json"]).expect_code(0).json();
    let all = layers(&report);
    assert_eq!(all.len(), 4, "{report:#}");
    let of_images: Vec<usize> = all
        .iter()
        .map(|layer| layer["images"].as_array().unwrap().len())
        .collect();
    assert_eq!(of_images.iter().sum::<usize>(), 6, "{report:#}");
    let last: Vec<&str> = all
        .iter()
        .filter(|layer| layer["recipes"][0] == "tiny")
        .map(|layer| layer["title"].as_str().unwrap())
        .collect();
    assert_eq!(last.len(), 3, "{report:#}");
    assert!(report["downloads"]["files"].as_u64().unwrap() >= 2);

    // As long as their files are there, the images of the catalog keep their layers.
    let none = cache(&env, &["gc", "--keep", "0"]);
    assert_eq!(none.code(), 2, "neither a time nor a size");
    let none = cache(&env, &["gc", "--keep", "0B", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(none["keptForImages"], 4);
    assert!(layers(&none).is_empty());
    // Which images these are, and what lets them go: of a container its folder.
    let bytes: u64 = all.iter().map(|l| l["bytes"].as_u64().unwrap()).sum();
    assert_eq!(none["keptForImagesBytes"], bytes);
    let holders = none["heldBy"].as_array().unwrap();
    assert_eq!(holders.len(), 2, "{none:#}");
    for holder in holders {
        assert_eq!(holder["name"], "tiny");
        assert_eq!(holder["layers"], 3);
        let (all, alone) = (&holder["bytes"], &holder["aloneBytes"]);
        assert!(0 < alone.as_u64().unwrap() && alone.as_u64() < all.as_u64());
        let out = holder["out"].as_str().unwrap();
        assert_eq!(holder["release"], format!("rm -r {out}"));
    }
    for args in [
        &["gc", "--keep", "0B", "--dry-run"][..],
        &["gc", "--keep", "0B"],
    ] {
        let told = cache(&env, args).expect_code(0);
        for holder in holders {
            let release = holder["release"].as_str().unwrap();
            assert!(told.text().contains(release), "{told}");
        }
        let all = "4 layers of";
        let stay = "stay: 2 images of the catalog have them";
        assert!(
            told.text().contains(all) && told.text().contains(stay),
            "{told}"
        );
    }

    // Without the first image its own layer goes; what both have stays.
    fs_err::remove_dir_all(env.path("out1")).unwrap();
    let dry = cache(&env, &["gc", "--keep", "0B", "--dry-run", "--json"])
        .expect_code(0)
        .json();
    let gone = cache(&env, &["gc", "--keep", "0B", "--json"])
        .expect_code(0)
        .json();
    let ids = |report: &Value| -> Vec<String> {
        layers(report)
            .iter()
            .map(|layer| layer["id"].to_string())
            .collect()
    };
    assert_eq!(ids(&dry), ids(&gone));
    assert_eq!(ids(&gone).len(), 1);
    let left = cache(&env, &["list", "--json"]).expect_code(0).json();
    assert_eq!(layers(&left).len(), 3);

    // What is built into the folder of another image takes its place: the layers are not those of both.
    component(&env, "echo three >/three");
    build(&env, &recipe, "out2").expect_code(0);
    let held = cache(&env, &["gc", "--keep", "0B", "--dry-run", "--json"]);
    let held = held.expect_code(0).json();
    assert_eq!(held["heldBy"].as_array().unwrap().len(), 1, "{held:#}");
    cache(&env, &["gc", "--keep", "0B"]).expect_code(0);

    // It is made again when it is wanted.
    component(&env, "echo one >/one");
    let again = build(&env, &recipe, "out1").expect_code(0);
    assert!(
        again.stderr.contains("/1 ") || again.stderr.contains(" one "),
        "{again}"
    );
    assert_eq!(
        layers(&cache(&env, &["list", "--json"]).expect_code(0).json()).len(),
        4
    );
}

#[test]
fn a_running_build_keeps_its_layers_and_downloads() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    component(
        &env,
        "echo waiting; while ! test -e /tmp/never; do sleep 0.1; done",
    );
    let recipe = tiny.container("tiny", &["component.yaml"], "");
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(&recipe)
        .arg("--out")
        .arg(env.path("out"));
    let mut running = Running::spawn(&mut command);
    running.wait_for_stderr("waiting", Duration::from_secs(120));
    let kept = cache(&env, &["gc", "--keep", "0h", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(kept["inUse"], 2, "{kept:#}");
    assert_eq!(kept["downloadsInUse"], true);
    assert_eq!(kept["inUseLayers"].as_array().unwrap().len(), 2);
    let told = cache(&env, &["gc", "--keep", "0h"]).expect_code(0);
    let stay = "stay: a build that runs uses them (";
    assert!(told.text().contains(stay), "{told}");
    assert!(layers(&kept).is_empty());
    let _ended = running.kill9();

    // It is gone, whatever way it went.
    let gone = cache(&env, &["gc", "--keep", "0h", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(layers(&gone).len(), 2, "{gone:#}");
    assert!(gone["downloads"]["files"].as_u64().unwrap() >= 2);
    let roots = fs_err::read_dir(env.state().join("store/v1/roots")).unwrap();
    assert_eq!(roots.count(), 0);
    component(&env, "true");
    build(&env, &recipe, "out").expect_code(0);
}
