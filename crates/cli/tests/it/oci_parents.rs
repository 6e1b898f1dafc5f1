//! Images that start from an OCI image: made by umoci, pushed by skopeo, served by Debian's registry.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, RegistryServer, RegistrySettings, finish, run, tool};
use serde_json::json;

use crate::containers::{build, json as read_json};
use crate::tiny::fill;
use crate::web::{steps, verify_sums};

const STEP: &str = "\
name: step
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Change
        action: ExecuteBash
        inputs:
          commands:
            - |
              set -e
              test \"$BASE\" = yes; test \"$(pwd)\" = /
              cat /opt/base /opt/again >/opt/seen; rm /opt/away
  - name: test
    steps:
      - name: Look
        action: ExecuteBash
        inputs:
          commands: [test \"$MORE\" = yes-more; test -f /opt/seen]
";

/// A layout with `base`, of two layers.
fn base(env: &Env) -> PathBuf {
    let layout = env.path("layout");
    let image = format!("{}:base", layout.display());
    let bundle = env.path("base");
    run(tool("umoci").args(["init", "--layout"]).arg(&layout));
    run(tool("umoci").args(["new", "--image", &image]));
    unpack(&image, &bundle);
    let root = bundle.join("rootfs");
    fill(&root);
    let sh = |script: &str| run(tool("sh").args(["-ec", script]).current_dir(&root));
    sh("mkdir opt; echo base >opt/base; ln opt/base opt/again; echo a >opt/away; echo g >opt/gone");
    let pack = || {
        run(tool("umoci")
            .args(["repack", "--image", &image])
            .arg(&bundle))
    };
    pack();
    fs_err::remove_dir_all(&bundle).unwrap();
    unpack(&image, &bundle);
    sh("rm opt/gone; echo second >opt/second");
    pack();
    run(tool("umoci")
        .args(["config", "--image", &image])
        .args([
            "--config.env",
            "PATH=/usr/bin:/bin",
            "--config.env",
            "BASE=yes",
        ])
        .args(["--config.cmd", "bash", "--config.workingdir", "/srv"])
        .args([
            "--config.label",
            "of=base",
            "--config.exposedports",
            "80/tcp",
        ]));
    layout
}

fn unpack(image: &str, bundle: &Path) {
    run(tool("umoci")
        .args(["unpack", "--rootless", "--image", image])
        .arg(bundle));
}

fn recipe(env: &Env, name: &str, parent: &str) -> PathBuf {
    env.write("step.yaml", STEP);
    env.write(
        name,
        format!(
            "name: over base\ncontainerType: DOCKER\nsemanticVersion: 1.0.x\nparentImage: {parent}\n\
             components:\n  - componentArn: ./step.yaml\n\
             targetRepository: {{service: ECR, repositoryName: team/over}}\n\
             dockerfileTemplateData: |\n  FROM {{{{{{ imagebuilder:parentImage }}}}}}\n  \
             {{{{{{ imagebuilder:components }}}}}}\n  ENV MORE=$BASE-more\n  LABEL by=over\n  WORKDIR sub\n"
        ),
    )
}

#[test]
fn a_container_stands_on_an_image_of_a_registry() {
    let env = Env::new();
    let layout = base(&env);
    // A time in the two seconds that a run starts in is taken for the run's own, and becomes the build's clock: a parent
    // that is just being made would be told apart from its own steps no more.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let server = RegistryServer::start(&RegistrySettings::default());
    server.push(
        &format!("oci:{}:base", layout.display()),
        "team/base:1",
        &[],
    );
    let parent = format!("{}/team/base", server.host());
    let recipe_file = recipe(&env, "over.yaml", &format!("oci:{parent}:1"));
    finish(env.amiforge().arg("validate").arg(&recipe_file)).expect_code(0);
    let end = build(&env, &recipe_file, &[]).expect_code(0);
    let out = env.path("out");
    verify_sums(&out);
    assert!(end.stderr.contains("2 layers"), "{end}");

    // The files, by umoci: the parent's, but for what the component did.
    let image = format!("{}:team/over:1.0.0", out.join("oci").display());
    unpack(&image, &env.path("over"));
    let root = env.path("over/rootfs");
    let differences = finish(
        tool("diff")
            .args(["-rq", "--no-dereference", "base/rootfs", "over/rootfs"])
            .current_dir(env.path("")),
    );
    let differences = differences.text();
    let lines: Vec<&str> = differences.lines().collect();
    let expected = [
        "Only in base/rootfs/opt: away",
        "Only in over/rootfs/opt: seen",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        fs_err::read_to_string(root.join("opt/seen")).unwrap(),
        "base\nbase\n"
    );

    // The configuration, by skopeo: the Dockerfile stands over the parent's.
    let config = run(tool("skopeo").args(["inspect", "--config", &format!("oci:{image}")])).json();
    assert_eq!(
        config["config"],
        json!({
            "ExposedPorts": {"80/tcp": {}},
            "Env": ["PATH=/usr/bin:/bin", "BASE=yes", "MORE=yes-more"],
            "Cmd": ["bash"],
            "WorkingDir": "/srv/sub",
            "Labels": {"of": "base", "by": "over"}
        })
    );

    // What it was made from, as skopeo names it.
    let digest = run(tool("skopeo")
        .args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"])
        .arg(format!("docker://{parent}:1")))
    .text();
    let manifest = read_json(out.join("manifest.json"));
    let resolved = format!("{parent}@{}", digest.trim());
    assert_eq!(
        manifest["parentImage"],
        json!({"asked": format!("oci:{parent}:1"), "resolved": resolved})
    );
    let lock = read_json(out.join("lock.json"));
    assert_eq!(
        (&lock["format"], &lock["resolved"]["type"]),
        (&json!(3), &json!("oci"))
    );
    assert_eq!(lock["resolved"]["layers"].as_array().unwrap().len(), 2);

    // Again: nothing to do. A layout with the same image is the same layers.
    let again = build(&env, &recipe_file, &[]).expect_code(0);
    assert_eq!(steps(&again), Vec::<String>::new());
    let by_layout = recipe(&env, "layout.yaml", "oci-layout:layout:base");
    let plan = finish(env.amiforge().args(["plan", "--json"]).arg(&by_layout)).expect_code(0);
    for layer in plan.json()["layers"].as_array().unwrap() {
        assert_eq!(layer["cached"], true, "{layer}");
    }

    // From nothing but the lock and the downloads, without a registry: the same bytes.
    let absent = recipe(&env, "absent.yaml", &format!("oci:{parent}:2"));
    let refused = build(&env, &absent, &[]).expect_code(1);
    assert!(
        refused.stderr.contains("does not have the tag 2"),
        "{refused}"
    );
    drop(server);
    let sums = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
    fs_err::copy(out.join("lock.json"), env.path("lock.json")).unwrap();
    for args in [&["--locked", "--offline"][..], &["--offline"]] {
        fs_err::remove_dir_all(env.state().join("store")).unwrap();
        build(&env, &recipe_file, args).expect_code(0);
        let fresh = fs_err::read_to_string(out.join("SHA256SUMS")).unwrap();
        let blobs = |sums: &str| -> Vec<String> {
            let lines = sums.lines().filter(|l| l.contains("  oci/"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(blobs(&fresh), blobs(&sums));
    }
    // The lock is of this recipe alone.
    let other = build(&env, &by_layout, &["--locked"]).expect_code(2);
    assert!(other.stderr.contains("does not fit the recipe"), "{other}");
}

/// A tag that moved is told in words: digests as far as they differ, and how many layers came and went.
#[test]
fn a_tag_that_moved_is_told_by_lock_update() {
    let env = Env::new();
    let layout = base(&env);
    let server = RegistryServer::start(&RegistrySettings::default());
    let push = || {
        let from = format!("oci:{}:base", layout.display());
        server.push(&from, "team/base:1", &[]);
    };
    push();
    let parent = format!("{}/team/base:1", server.host());
    let recipe = recipe(&env, "over.yaml", &format!("oci:{parent}"));
    let update = |args: &[&str]| {
        let mut command = env.amiforge();
        finish(command.args(["lock", "update"]).args(args).arg(&recipe))
    };
    update(&[]).expect_code(0);
    let old = read_json(env.path("lock.json"))["resolved"].clone();

    let image = format!("{}:base", layout.display());
    let bundle = env.path("base");
    fs_err::remove_dir_all(&bundle).unwrap();
    unpack(&image, &bundle);
    fs_err::write(bundle.join("rootfs/opt/third"), "third").unwrap();
    run(tool("umoci")
        .args(["repack", "--image", &image])
        .arg(&bundle));
    run(tool("umoci").args(["config", "--image", &image, "--config.env", "BASE=no"]));
    push();
    let end = update(&[]).expect_code(0);
    let new = read_json(env.path("lock.json"))["resolved"].clone();
    let text = end.text();
    let digest = |of: &serde_json::Value| of.as_str().unwrap()[..12].to_owned();
    for line in [
        format!(
            "changed    manifest: {} -> {}\n",
            digest(&old["manifest"]),
            digest(&new["manifest"])
        ),
        format!(
            "changed    config: {} -> {}\n",
            digest(&old["config"]["digest"]),
            digest(&new["config"]["digest"])
        ),
        "changed    layers: 2 -> 3, 1 came, 0 went\n".to_owned(),
        "changed    run: Env\n".to_owned(),
    ] {
        assert!(text.contains(&line), "no `{line}` in\n{end}");
    }
    for cut in ["{", "[", "…"] {
        assert!(!text.contains(cut), "{end}");
    }
}
