//! Containers on containers that were built here, and the difference between two.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, finish, run, tool};
use serde_json::{Value, json};

use crate::tiny::Tiny;

const BASE: &str = "\
FROM {{{ imagebuilder:parentImage }}}
ENV GREETING=hello PLACE=base
{{{ imagebuilder:components }}}
LABEL org.example.team=web org.example.stays=yes
EXPOSE 80
VOLUME /data
USER 12:34
WORKDIR /opt
STOPSIGNAL SIGINT
ENTRYPOINT [\"/usr/bin/env\"]
CMD [\"true\"]
";

const PLAIN: &str = "\
FROM {{{ imagebuilder:parentImage }}}
{{{ imagebuilder:components }}}
";

/// A container recipe of one component that runs `command`.
fn recipe(
    env: &Env,
    tiny: &Tiny<'_>,
    name: &str,
    parent: &str,
    dockerfile: &str,
    command: &str,
) -> PathBuf {
    env.write(
        format!("{name}-step.yaml"),
        format!(
            "name: step\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Run\n        \
             action: ExecuteBash\n        inputs: {{commands: [{}]}}\n",
            json!(command)
        ),
    );
    let dockerfile: String = dockerfile.lines().map(|l| format!("  {l}\n")).collect();
    let apt = match parent.starts_with("debian:") {
        true => format!(
            "amiforge:\n  apt: {{mirror: \"file://{}\", keyring: tiny.gpg, variant: essential}}\n",
            tiny.root().display()
        ),
        false => String::new(),
    };
    env.write(
        format!("{name}.yaml"),
        format!(
            "name: {name}\ncontainerType: DOCKER\nsemanticVersion: 1.0.0\nparentImage: {parent}\n\
             components:\n  - componentArn: ./{name}-step.yaml\n\
             targetRepository: {{service: ECR, repositoryName: {name}}}\n\
             dockerfileTemplateData: |\n{dockerfile}{apt}"
        ),
    )
}

fn build(env: &Env, name: &str) -> Finished {
    let recipe = env.path(format!("{name}.yaml"));
    let mut command = env.amiforge();
    command.args(["build", "--out"]).arg(env.path(name));
    finish(command.arg(recipe))
}

/// The configuration, by skopeo.
fn config(env: &Env, name: &str) -> Value {
    let image = format!("oci:{}:{name}:1.0.0", env.path(name).join("oci").display());
    let told = run(tool("skopeo").args(["inspect", "--config", &image])).json();
    told["config"].clone()
}

fn diff(env: &Env, a: &str, b: &Path, args: &[&str]) -> Finished {
    finish(
        env.amiforge()
            .arg("diff")
            .args(args)
            .arg(env.path(a))
            .arg(b),
    )
}

#[test]
fn a_container_goes_on_from_the_configuration_of_one_that_was_built_here() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    recipe(
        &env,
        &tiny,
        "base",
        "debian:tiny",
        BASE,
        "mkdir -p /data /opt",
    );
    build(&env, "base").expect_code(0);
    let base = config(&env, "base");
    assert_eq!(base["Volumes"], json!({"/data": {}}), "{base}");

    // All of it, and the variables are there for its steps.
    let seen = "test \"$GREETING $PLACE\" = 'hello base'";
    recipe(&env, &tiny, "child", "image:base/1.0.0", PLAIN, seen);
    build(&env, "child").expect_code(0);
    assert_eq!(config(&env, "child"), base);

    // What a Dockerfile says stands over it: a new entry point has no arguments of the old one.
    let over = format!(
        "{PLAIN}ENV PLACE=child\nLABEL org.example.team=ops\nUSER root\nEXPOSE 443\nENTRYPOINT [\"/bin/bash\"]\n"
    );
    recipe(&env, &tiny, "grandchild", "image:child/x.x.x", &over, seen);
    build(&env, "grandchild").expect_code(0);
    let mut expected = base.clone();
    let variables = expected["Env"].as_array_mut().unwrap();
    for variable in variables {
        if variable == "PLACE=base" {
            *variable = "PLACE=child".into();
        }
    }
    expected["Labels"]["org.example.team"] = "ops".into();
    expected["User"] = "root".into();
    expected["ExposedPorts"]["443/tcp"] = json!({});
    expected["Entrypoint"] = json!(["/bin/bash"]);
    expected.as_object_mut().unwrap().remove("Cmd");
    assert_eq!(config(&env, "grandchild"), expected);

    // Its layers may be in the store: without its configuration nobody knows how it is run.
    let manifest = fs_err::read(env.path("base/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let blob = manifest["configDigest"].as_str().unwrap();
    let blob = env.path("base/oci/blobs/sha256").join(blob);
    let whole = fs_err::read_to_string(&blob).unwrap();
    recipe(&env, &tiny, "late", "image:base/1.0.0", PLAIN, "true");
    fs_err::write(&blob, whole.replace("hello", "olleh")).unwrap();
    let end = build(&env, "late").expect_code(1);
    assert!(end.stderr.contains("is not as it was built"), "{end}");
    fs_err::remove_file(&blob).unwrap();
    let end = build(&env, "late").expect_code(1);
    for told in [
        "the configuration of image:base/1.0.0",
        "build base 1.0.0 again",
    ] {
        assert!(end.stderr.contains(told), "{end}");
    }
}

#[test]
fn the_difference_of_two_containers_names_layers_files_and_settings() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let first = "mkdir -p /opt /data; echo one >/opt/file; echo same >/opt/same; echo x >/opt/gone; chmod 600 /opt/same";
    let second = "mkdir -p /opt /data; echo two >/opt/file; echo same >/opt/same; echo y >/opt/new; chmod 600 /opt/same";
    recipe(&env, &tiny, "old", "debian:tiny", BASE, first);
    build(&env, "old").expect_code(0);
    let dockerfile = BASE
        .replace("PLACE=base", "MORE=1")
        .replace("team=web", "team=ops");
    recipe(&env, &tiny, "new", "debian:tiny", &dockerfile, second);
    build(&env, "new").expect_code(0);
    let new = env.path("new");

    let same = diff(&env, "old", &env.path("old"), &["--exit-code"]).expect_code(0);
    assert!(same.text().ends_with("no differences\n"), "{same}");
    let report = diff(&env, "old", &new, &["--json", "--exit-code"])
        .expect_code(1)
        .json();
    let files: Vec<String> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| {
            format!(
                "{} {} {} {}",
                f["path"], f["change"], f["component"], f["step"]
            )
            .replace('"', "")
        })
        .collect();
    assert_eq!(
        files,
        [
            "/opt/file changed step Run",
            "/opt/gone removed step Run",
            "/opt/new added step Run",
        ],
        "{report:#}"
    );
    assert_eq!(
        report["config"],
        json!([
            {"field": "Env MORE", "a": null, "b": "1"},
            {"field": "Env PLACE", "a": "base", "b": null},
            {"field": "Labels org.example.team", "a": "web", "b": "ops"},
        ])
    );
    assert_eq!(report["summary"]["config"], 3);
    assert_eq!(
        (&report["a"]["format"], &report["a"]["virtualBytes"]),
        (&json!("oci"), &Value::Null)
    );
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1, "{report:#}");
    assert_eq!(layers[0]["files"], 3);
    let inputs: Vec<&Value> = layers[0]["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["input"])
        .collect();
    assert!(inputs.contains(&&json!("step.Run")), "{inputs:?}");
    let text = diff(&env, "old", &new, &[]).expect_code(0).text();
    for line in [
        "\nconfiguration\n  + Env MORE 1\n  - Env PLACE base\n  ~ Labels org.example.team web → ops\n",
        "files: 1 added, 1 removed, 1 changed; 3 settings\n",
    ] {
        assert!(text.contains(line), "no {line:?} in\n{text}");
    }

    // The files are those that umoci unpacks.
    for name in ["old", "new"] {
        let image = format!("{}:{name}:1.0.0", env.path(name).join("oci").display());
        run(tool("umoci")
            .args(["raw", "unpack", "--rootless", "--image", &image])
            .arg(env.path(format!("{name}.files"))));
    }
    let [a, b] = ["old", "new"].map(|name| env.path(format!("{name}.files")));
    let told = finish(
        tool("diff")
            .args(["-rq", "--no-dereference"])
            .args([&a, &b]),
    )
    .expect_code(1);
    let told = told.text();
    assert_eq!(told.lines().count(), 3, "{told}");

    // A layout that is not that of its manifest.
    let index = fs_err::read(env.path("old/oci/index.json")).unwrap();
    fs_err::write(new.join("oci/index.json"), index).unwrap();
    for entry in fs_err::read_dir(env.path("old/oci/blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        fs_err::copy(
            entry.path(),
            new.join("oci/blobs/sha256").join(entry.file_name()),
        )
        .unwrap();
    }
    let end = diff(&env, "old", &new, &[]).expect_code(2);
    assert!(end.stderr.contains("it is not the image of oci-"), "{end}");
}

/// A layer that both images have as it is has no part in what another one above it does to its files.
#[test]
fn what_another_layer_hides_or_changes_is_not_the_doing_of_the_one_that_made_it() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    let document = |name: &str, command: &str| {
        env.write(
            format!("{name}.yaml"),
            format!(
                "name: {name}\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Run\n        \
                 action: ExecuteBash\n        inputs: {{commands: ['{command}']}}\n"
            ),
        );
    };
    document(
        "below",
        "mkdir -p /srv/all; echo 1 >/srv/one; echo 2 >/srv/two; echo 3 >/srv/all/three",
    );
    let documents = ["below.yaml", "above.yaml"];
    for (name, command) in [
        ("old", "echo"),
        ("new", "rm -r /srv/two /srv/all; echo other >/srv/one"),
    ] {
        document("above", command);
        tiny.container(name, &documents, "");
        let end = build(&env, name).expect_code(0);
        assert!(end.stderr.contains(" built; no test phases in "), "{end}");
    }
    let told = |a: &str, b: &str| {
        let report = diff(&env, a, &env.path(b), &["--json"])
            .expect_code(0)
            .json();
        let of = |list: &str, members: [&str; 3]| -> Vec<String> {
            let all = report[list].as_array().unwrap().iter();
            all.map(|one| {
                let [a, b, c] = members.map(|member| one[member].to_string());
                format!("{a} {b} {c}").replace('"', "")
            })
            .collect()
        };
        let files = of("files", ["path", "change", "component"]);
        let layers = of("layers", ["title", "change", "files"]);
        (files, layers)
    };
    for (a, b, change) in [("old", "new", "removed"), ("new", "old", "added")] {
        let (files, layers) = told(a, b);
        let expected = [
            format!("/srv/all {change} above"),
            format!("/srv/all/three {change} above"),
            "/srv/one changed above".to_owned(),
            format!("/srv/two {change} above"),
        ];
        assert_eq!(files, expected, "{a} {b}");
        assert_eq!(layers, ["above changed 4"], "{a} {b}");
    }
    let text = diff(&env, "old", &env.path("new"), &[]).text();
    assert!(!text.contains("the same inputs gave other bytes"), "{text}");
}
