//! What a second build does again: nothing that has not changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use amiforge_testkit::{Env, check, disk, run, tool, workspace_root};

use crate::web::{Web, build, names, steps, verify_sums};

fn content_digest(out: &Path) -> String {
    let bytes = fs_err::read(out.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    manifest["volumes"][0]["contentDigest"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn image_an_unchanged_recipe_runs_no_step() {
    let web = Web::get();
    let env = web.env();
    let recipe = workspace_root().join("recipes/debian-web");
    let out = env.path("out");

    let elsewhere = env.run(&mut build(&env, &recipe, &out));
    assert_eq!(steps(&elsewhere), Vec::<String>::new(), "{elsewhere}");
    assert!(elsewhere.stderr.contains("no step runs"), "{elsewhere}");
    assert_eq!(
        elsewhere.stderr.matches("   cached ").count(),
        3,
        "{elsewhere}"
    );
    verify_sums(&out);
    assert_eq!(content_digest(&out), content_digest(&web.out()));

    let same = env.run(&mut build(&env, &recipe, &out));
    assert!(
        same.stderr.contains("no step ran") && same.stderr.contains("unchanged"),
        "{same}"
    );
    assert_eq!(steps(&same), Vec::<String>::new(), "{same}");
    assert_eq!(same.stdout, elsewhere.stdout);

    // Not proven is not the same as proven: asking for the test must not be answered from the record.
    // And a folder that was tampered with is not taken for the finished one.
    fs_err::write(out.join("packages.json"), "[]").unwrap();
    let mended = env.run(&mut build(&env, &recipe, &out));
    assert!(!mended.stderr.contains("unchanged"), "{mended}");
    verify_sums(&out);
    assert_eq!(
        names(&env.state().join("store/v1/tmp")),
        Vec::<String>::new()
    );
}

/// A program with owner, group, setgid bit and a file capability, and a file with a parameter's text.
const EXTRA: &str = "\
name: extra
schemaVersion: 1.0
parameters:
  - Note:
      type: string
      default: first
      description: What the note says
phases:
  - name: build
    steps:
      - name: Tool
        action: ExecuteBash
        inputs:
          commands:
            - set -e
            - cp /bin/true /usr/local/bin/net-tool
            - chown daemon:shadow /usr/local/bin/net-tool
            - chmod 2750 /usr/local/bin/net-tool
            - |
              python3 -c 'import os; os.setxattr(\"/usr/local/bin/net-tool\", \"security.capability\", bytes.fromhex(\"0100000200200000000000000000000000000000\"))'
      - name: Note
        action: CreateFile
        inputs:
          - path: /etc/note
            content: \"{{ Note }}\"
  - name: validate
    steps:
      - name: NoteIsThere
        action: ExecuteBash
        inputs:
          commands:
            - grep -qx '{{ Note }}' /etc/note
            - echo gone > /etc/left-by-validate
";

/// The component and the layer that `diff` names for the program that a component brings.
fn who_changed(env: &Env, a: &Path, b: &Path) -> Vec<(String, String)> {
    let end = env.run(env.amiforge().arg("diff").arg(a).arg(b).arg("--json"));
    let report = end.json();
    let text = |file: &serde_json::Value, key: &str| file[key].as_str().unwrap().to_owned();
    let files = report["files"].as_array().unwrap().iter();
    // The layer explains itself: a step of it changed, and the file is of that step.
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1, "{layers:#?}");
    assert_eq!(layers[0]["component"], "extra");
    assert_eq!(layers[0]["inputs"][0]["input"], "step.Tool");
    assert_eq!(layers[0]["steps"][0]["step"], "Tool", "{layers:#?}");
    files
        .filter(|file| file["path"] == "/usr/local/bin/net-tool")
        .map(|file| (text(file, "component"), text(file, "layer")))
        .collect()
}

/// The id of the uppermost layer.
fn last_layer(out: &Path) -> String {
    let bytes = fs_err::read(out.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers.last().unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn image_a_changed_component_reruns_and_what_follows() {
    let web = Web::get();
    let env = web.env();
    let from = workspace_root().join("recipes/debian-web");
    let text = fs_err::read_to_string(from.join("recipe.yaml")).unwrap();
    let text = text.replace(
        "blockDeviceMappings:",
        "  - componentArn: ./components/extra.yaml\nblockDeviceMappings:",
    );
    let text = text.replace("amiforge:\n", "amiforge:\n  compression: zstd\n");
    let recipe = env.write("recipe/recipe.yaml", text);
    let component = fs_err::read(from.join("components/web.yaml")).unwrap();
    env.write("recipe/components/web.yaml", component);
    env.write("recipe/components/extra.yaml", EXTRA);
    let out = env.path("out");
    let plan = |more: &[&str]| {
        env.run(
            env.amiforge()
                .args(["plan", "--offline", "--why"])
                .arg(&recipe)
                .args(more),
        )
        .text()
    };

    // A component more: the layers below it stay.
    let first = env.run(&mut build(&env, &recipe, &out));
    let ran = |name: &str| format!("extra {name}");
    assert_eq!(
        steps(&first),
        [
            ran("build/Tool (ExecuteBash)"),
            ran("build/Note (CreateFile)"),
            ran("validate/NoteIsThere (ExecuteBash)")
        ],
        "{first}"
    );
    assert_eq!(first.stderr.matches("   cached ").count(), 3, "{first}");

    let raw = out.join("disk.raw");
    let qcow2 = out.join("disk.qcow2");
    check::qemu_img_check(&qcow2, "qcow2");
    check::qemu_img_compare(&raw, "raw", &qcow2, "qcow2");
    let info = check::qemu_img_info(&qcow2, "qcow2");
    assert_eq!(
        info["format-specific"]["data"]["compression-type"], "zstd",
        "{info}"
    );
    let sizes = [&raw, &qcow2].map(|file| fs_err::metadata(file).unwrap().blocks());
    assert!(sizes[1] < sizes[0] / 2, "{sizes:?}");
    let root = disk::partitions(&raw)[0].extract(&raw, &env.path("root"));
    check::e2fsck(&root);
    let stat = String::from_utf8_lossy(&check::debugfs(&root, "stat /usr/local/bin/net-tool"))
        .into_owned();
    assert!(
        stat.contains("Mode:  02750") && stat.contains("User:     1   Group:    42"),
        "{stat}"
    );
    let attrs = String::from_utf8_lossy(&check::debugfs(&root, "ea_list /usr/local/bin/net-tool"))
        .into_owned();
    // Version 2 with the effective bit and CAP_NET_RAW, no id of a namespace in it.
    assert!(
        attrs.contains(
            "security.capability (20) = 01 00 00 02 00 20 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
        ),
        "{attrs}"
    );
    assert_eq!(check::ext4_cat(&root, "/etc/note"), b"first");
    let etc = String::from_utf8_lossy(&check::debugfs(&root, "ls -p /etc")).into_owned();
    assert!(
        !etc.contains("left-by-validate"),
        "validate works on a copy that is thrown away"
    );

    let why = plan(&[]);
    assert_eq!(why.matches("cached ").count(), 4, "{why}");
    assert_eq!(
        why.matches("unchanged since the last build").count(),
        4,
        "{why}"
    );

    let earlier = env.path("earlier");
    run(tool("cp")
        .args(["-a", "--sparse=always"])
        .arg(&out)
        .arg(&earlier));

    // Another text of the last component: it alone.
    env.write(
        "recipe/components/extra.yaml",
        EXTRA.replace("cp /bin/true", "cp /bin/false"),
    );
    let why = plan(&[]);
    let (below, own) = why.split_once("build  ").unwrap_or_else(|| panic!("{why}"));
    assert_eq!(
        below.matches("unchanged since the last build").count(),
        3,
        "{why}"
    );
    let told = "step Tool: inputs.commands[1]: \"cp /bin/true /usr/local/bin/net-tool\" -> \"cp /bin/false /usr/local/bin/net-tool\"";
    assert!(own.contains("extra") && own.contains(told), "{why}");
    let second = env.run(&mut build(&env, &recipe, &out));
    assert_eq!(steps(&second).len(), 3, "{second}");
    assert_eq!(second.stderr.matches("   cached ").count(), 3, "{second}");
    assert_ne!(content_digest(&out), content_digest(&web.out()));
    assert_eq!(
        who_changed(&env, &earlier, &out),
        [("extra".to_owned(), last_layer(&out))]
    );

    // The qcow2 took over what was compressed before; compressed anew it is the same.
    let anew = env.path("anew");
    env.run(&mut build(&env, &recipe, &anew));
    let bytes = |out: &Path| fs_err::read(out.join("disk.qcow2")).unwrap();
    assert!(bytes(&out) == bytes(&anew));
    assert!(bytes(&out) != bytes(&earlier));

    // Another value of its parameter.
    let why = plan(&["--param", "Note=second"]);
    assert!(
        why.contains("Note") && why.matches("cached ").count() == 3,
        "{why}"
    );
    env.run(build(&env, &recipe, &out).args(["--param", "extra.Note=second"]));
    let note = env.run(
        env.amiforge()
            .arg("inspect")
            .arg(&out)
            .args(["cat", "/etc/note"]),
    );
    assert_eq!(note.text(), "second");

    // Another value for the component below: it, and what follows.
    let why = plan(&["--param", "Greeting=Good day", "--param", "Note=second"]);
    assert!(
        why.contains("Greeting") && why.contains("a layer below it changed"),
        "{why}"
    );
    assert_eq!(why.matches("cached ").count(), 2, "{why}");
}

#[test]
fn image_events_are_json_lines() {
    let web = Web::get();
    let env = web.env();
    let recipe = crate::web::recipe(&env, EXTRA);
    let end = env
        .run(build(&env, &recipe, &env.path("out")).args(["--events", "-", "--quiet", "--json"]));
    let text = end.text();
    // Nothing but lines of JSON; the last one is the result.
    let mut values: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}\n{end}")))
        .collect();
    let result = values.pop().unwrap();
    assert_eq!(result["event"], "result", "{result}");
    assert!(
        result["result"]["imageId"]
            .as_str()
            .is_some_and(|id| id.starts_with("ami-")),
        "{result}"
    );
    let kinds: Vec<&str> = values
        .iter()
        .map(|v| v["event"].as_str().unwrap())
        .collect();
    for kind in [
        "stage",
        "layer-cached",
        "layer-started",
        "step-started",
        "step-finished",
        "layer-finished",
        "artifact",
    ] {
        assert!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    assert!(!kinds.contains(&"result"), "one result: {kinds:?}");
    assert_eq!(end.stderr, "", "--quiet");

    let file = env.path("events.jsonl");
    env.run(
        build(&env, &recipe, &env.path("out"))
            .arg("--events")
            .arg(&file),
    );
    let text = fs_err::read_to_string(&file).unwrap();
    assert!(
        text.lines()
            .last()
            .is_some_and(|l| l.contains("\"event\":\"unchanged\"")),
        "{text}"
    );
}
