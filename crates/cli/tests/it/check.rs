//! `build --check`: a second build that must be the same.

use std::path::Path;

use amiforge_testkit::{Env, Finished, finish};
use serde_json::Value;

use crate::tiny::Tiny;

/// Steps whose result must not depend on anything around them.
const STEADY: &str = "\
name: steady
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Surroundings
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e; mkdir /opt
              umask >/opt/umask; env | sort | grep -v -e ^SHLVL -e ^_= >/opt/environment; hostname >/opt/host
              touch /opt/now; mkdir /opt/many; for n in $(seq 50); do echo $n >/opt/many/$n; done
              ls /opt/many >/opt/order; date -d @0 >/opt/zone; echo $TMPDIR $HOME >/opt/temp
      - name: Last
        action: CreateFile
        inputs: [{path: /opt/last, content: text}]
";

/// Steps of which the second is another each time.
const UNSTEADY: &str = "\
name: unsteady
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Before
        action: ExecuteBash
        inputs: {commands: [mkdir /srv, echo same >/srv/same, sleep 0.1]}
      - name: Roll-dice
        action: ExecuteBash
        inputs:
          commands: [echo \"made at $(date +%s.%N)\" >/srv/made, head -c 16 /dev/urandom >/srv/dice]
      - name: After
        action: ExecuteBash
        inputs: {commands: [sleep 0.1, echo same >/srv/after, echo $$ >/srv/pid]}
";

fn check(env: &Env, recipe: &Path, more: &[&str]) -> Finished {
    finish(
        env.amiforge()
            .args(["build", "--check", "--out"])
            .args([&env.path("out"), recipe])
            .args(more),
    )
}

#[test]
fn a_build_that_depends_on_its_inputs_alone_is_the_same_again() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    env.write("steady.yaml", STEADY);
    let recipe = tiny.container("steadily", &["steady.yaml"], "");
    let report = check(&env, &recipe, &["--json"]).expect_code(0).json();
    assert_eq!(report["check"]["reproducible"], true, "{report:#}");
    let layers = report["check"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3, "{report:#}");
    let files = report["check"]["files"].as_array().unwrap();
    for name in ["manifest.json", "lock.json", "plan.json", "oci/index.json"] {
        assert!(
            files.iter().any(|file| file["file"] == name),
            "{name}: {report:#}"
        );
    }
    // Again, from the store: nothing of the second build is in it.
    let end = check(&env, &recipe, &[]).expect_code(0);
    assert!(
        end.stderr.contains("a second build is the same: 3 layers"),
        "{end}"
    );
    let left: Vec<_> = fs_err::read_dir(env.state().join("store/v1/tmp"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_build_that_does_not_is_told_by_layer_step_and_path() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    env.write("steady.yaml", STEADY);
    env.write("unsteady.yaml", UNSTEADY);
    let recipe = tiny.container("dice", &["steady.yaml", "unsteady.yaml"], "");
    let end = check(&env, &recipe, &[]).expect_code(1);
    for text in [
        "error: a second build is not the same",
        "of component unsteady",
        "/srv/dice (step Roll-dice): content from byte 0",
        "/srv/made (step Roll-dice): content from byte ",
        "/srv/pid (step After): content from byte ",
        "file oci/index.json: differs",
    ] {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
    for text in ["/srv/same", "/srv/after", "component steady"] {
        assert!(
            !end.stderr.contains(&format!("{text} ")),
            "`{text}` in\n{end}"
        );
    }
    let report = check(&env, &recipe, &["--json"]).expect_code(1).json();
    let layers = report["check"]["layers"].as_array().unwrap();
    let same: Vec<&Value> = layers.iter().map(|layer| &layer["same"]).collect();
    assert_eq!(same, [true, true, true, false], "{report:#}");
    let differences = layers[3]["differences"].as_array().unwrap();
    let paths: Vec<&str> = differences
        .iter()
        .map(|d| d["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["/srv/dice", "/srv/made", "/srv/pid"], "{report:#}");
}
