//! `build A B C`: side by side, with what they share made once. Container recipes, which take no boot.

use amiforge_testkit::{Env, finish};
use serde_json::Value;

use crate::tiny::Tiny;

fn component(env: &Env, name: &str, command: &str) {
    env.write(
        format!("{name}.yaml"),
        format!(
            "name: {name}\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Run\n        \
             action: ExecuteBash\n        inputs: {{commands: ['{command}']}}\n"
        ),
    );
}

#[test]
fn what_recipes_share_is_made_once_and_one_that_fails_ends_no_other() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    component(&env, "shared", "sleep 1; echo shared >/shared");
    let names = ["one", "two", "three"];
    let recipes = names.map(|name| {
        component(&env, &format!("own-{name}"), &format!("echo {name} >/own"));
        tiny.container(name, &["shared.yaml", &format!("own-{name}.yaml")], "")
    });
    component(&env, "own-two", "echo two; exit 3");
    let build = |more: &[&str]| {
        let mut command = env.amiforge();
        command
            .arg("build")
            .args(&recipes)
            .arg("--out")
            .arg(env.path("out"));
        finish(command.args(["--jobs", "3"]).args(more))
    };

    let events = env.path("events");
    let end = build(&["--json", "--events", &events.to_string_lossy()]).expect_code(1);
    let report = end.json();
    let told: Vec<&Value> = report.as_array().unwrap().iter().collect();
    assert_eq!(told.len(), 3, "{report:#}");
    for (at, name) in names.iter().enumerate() {
        assert!(
            told[at]["recipe"]
                .as_str()
                .unwrap()
                .ends_with(&format!("/{name}.yaml"))
        );
        let made = env.path(format!("out/{name}-1.0.0/manifest.json")).exists();
        assert_eq!(made, *name != "two");
        assert_eq!(told[at]["error"].is_string(), *name == "two", "{report:#}");
    }
    // At the end once more in short, with the time that each took by itself.
    let lines: Vec<&str> = end.stderr.lines().rev().take(2).collect();
    assert!(
        lines[0].starts_with("2 built, 1 failed: ") && lines[0].ends_with("/two.yaml"),
        "{end}"
    );
    assert!(
        lines[1].starts_with("   failed ")
            && lines[1].contains("/two.yaml after ")
            && lines[1].ends_with(
                ": ./own-two.yaml:6:9: phase build, step Run (ExecuteBash): bash ended with exit code 3"
            ),
        "{end}"
    );
    assert!(
        end.stderr.contains("/two.yaml: ") && end.stderr.contains("exit code 3"),
        "{end}"
    );

    // The parent's two layers and the shared component once, and three of their own.
    let text = fs_err::read_to_string(&events).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let of = |event: &str, title: &str| -> Vec<&str> {
        let found = lines.iter().filter(|line| line["event"] == event);
        let found = found.filter(|line| line["title"].as_str().is_some_and(|t| t.contains(title)));
        found.map(|line| line["recipe"].as_str().unwrap()).collect()
    };
    for title in ["unpacked", "configured", "shared"] {
        assert_eq!(of("layer-started", title).len(), 1, "{title}: {text}");
        assert_eq!(of("layer-cached", title).len(), 2, "{title}: {text}");
    }
    let failed: Vec<&Value> = lines.iter().filter(|l| l["event"] == "failed").collect();
    assert_eq!(failed.len(), 1, "{text}");
    for member in ["error", "hint", "exitCode", "recipe"] {
        assert_eq!(failed[0][member], told[1][member], "{member}");
    }
    let own = of("layer-started", "own-one");
    assert!(own.len() == 1 && own[0].ends_with("/one.yaml"), "{own:?}");

    // Alone, it is the same object, and the stream ends with the failure and its folder.
    let mut command = env.amiforge();
    command.arg("build").arg(&recipes[1]).arg("--json");
    command.arg("--out").arg(env.path("out/two-1.0.0"));
    let end = finish(command.arg("--events").arg(&events)).expect_code(1);
    assert_eq!(&end.json(), told[1], "{end}");
    assert!(end.stderr.contains("error: ./own-two.yaml:6:9: "), "{end}");
    let text = fs_err::read_to_string(&events).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let folder = env.path("out/two-1.0.0.failed");
    assert_eq!(
        (&last["event"], &last["folder"], &last["exitCode"]),
        (
            &"failed".into(),
            &folder.display().to_string().into(),
            &1.into()
        )
    );
    assert!(folder.join("plan.json").is_file());

    // Mended, only that is made; the results come in the order of the recipes.
    component(&env, "own-two", "echo two >/own");
    let end = build(&[]).expect_code(0);
    let text = end.text();
    let folders: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit('/').next())
        .collect();
    assert_eq!(folders, ["one-1.0.0", "two-1.0.0", "three-1.0.0"]);
    assert_eq!(end.stderr.matches(" step own-").count(), 1, "{end}");
    assert!(end.stderr.ends_with("\n1 built, 2 unchanged\n"), "{end}");

    // Asked to make all again, they make what they share again once.
    let end = build(&["--rebuild"]).expect_code(0);
    assert_eq!(end.stderr.matches(" step shared ").count(), 1, "{end}");
    assert_eq!(end.stderr.matches(" step own-").count(), 3, "{end}");

    // Two that would have one folder, and documents with errors: before anything is built.
    let mut command = env.amiforge();
    let end = finish(command.arg("build").args([&recipes[0], &recipes[0]])).expect_code(2);
    assert!(end.stderr.contains("both go to out/one-1.0.0"), "{end}");
    env.write("own-one.yaml", "schemaVersion: 2.0\n");
    env.write("own-three.yaml", "schemaVersion: 3.0\n");
    let end = build(&[]).expect_code(2);
    for told in ["own-one.yaml", "own-three.yaml"] {
        assert!(end.stderr.contains(told), "{end}");
    }
    assert!(!end.stderr.contains(" step "), "{end}");
    let mut command = env.amiforge();
    let end = finish(
        command
            .arg("build")
            .args(&recipes)
            .arg("--shell-on-failure"),
    )
    .expect_code(2);
    assert!(end.stderr.contains("one recipe at a time"), "{end}");
}
