//! The built-in components on a real root, and their tests in a real guest.

use amiforge_testkit::{Env, finish};
use serde_json::json;

use crate::web::Web;

#[test]
fn components_of_the_library_are_listed_shown_and_named() {
    let env = Env::new();
    let listed = finish(env.amiforge().args(["component", "list", "--json"])).expect_code(0);
    let listed: serde_json::Value = listed.json();
    let names: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert!(names.len() > 20 && names.is_sorted(), "{names:?}");
    let show = |name: &str| finish(env.amiforge().args(["component", "show", name]));
    let text = show("update-linux").expect_code(0).text();
    assert!(text.contains("action: UpdateOS"), "{text}");
    let arn = "arn:aws:imagebuilder:eu-west-1:aws:component/update-linux/x.x.x";
    assert_eq!(show(arn).expect_code(0).text(), text);
    let end = show("update-lunix").expect_code(2);
    assert!(end.stderr.contains("component list"), "{}", end.stderr);

    // What is shown is a document like any other.
    env.write("shown.yaml", &text);
    finish(env.amiforge().arg("validate").arg(env.path("shown.yaml"))).expect_code(0);
    env.write(
        "recipe.yaml",
        "name: named\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\ncomponents:\n  \
         - componentArn: update-linux/2.x.x\n",
    );
    let end = finish(env.amiforge().arg("validate").arg(env.path("recipe.yaml"))).expect_code(2);
    let help = "the library has update-linux in version 1.0.0";
    assert!(end.stderr.contains(help), "{}", end.stderr);
}

#[test]
fn codes_are_explained() {
    let env = Env::new();
    let explain = |args: &[&str]| finish(env.amiforge().arg("explain").args(args));
    let all = explain(&[]).expect_code(0).text();
    assert!(all.lines().count() > 80, "{all}");
    assert!(
        explain(&["duplicate-key"])
            .expect_code(0)
            .text()
            .contains("twice")
    );
    let end = explain(&["duplicate-kei"]).expect_code(2);
    assert!(
        end.stderr.contains("did you mean `duplicate-key`?"),
        "{}",
        end.stderr
    );
}

#[test]
fn a_new_component_is_valid_and_never_overwritten() {
    let env = Env::new();
    let new = |name: &str| {
        let mut command = env.amiforge();
        command
            .args(["component", "new", name])
            .current_dir(env.path(""));
        finish(&mut command)
    };
    assert_eq!(new("my-web").expect_code(0).text(), "my-web.yaml\n");
    let end = finish(env.amiforge().arg("validate").arg(env.path("my-web.yaml"))).expect_code(0);
    assert!(!end.stderr.contains("warning"), "{}", end.stderr);
    new("my-web").expect_code(1);
    new("../my-web").expect_code(2);
}

#[test]
fn a_document_runs_on_the_machine_only_when_that_is_wanted() {
    let env = Env::new();
    env.write(
        "document.yaml",
        "name: here\nschemaVersion: 1.0\nparameters:\n  - Word: {type: string}\nphases:\n  \
         - name: build\n    steps:\n      \
         - {name: Say, action: ExecuteBash, inputs: {commands: ['echo {{ Word }}']}}\n      \
         - {name: Skip, action: ExecuteBash, if: {fileExists: /nowhere}, inputs: {commands: ['exit 1']}}\n  \
         - name: validate\n    steps:\n      \
         - {name: Fail, action: ExecuteBash, onFailure: Ignore, inputs: {commands: ['exit 3']}}\n",
    );
    let run = |args: &[&str]| {
        let mut command = env.amiforge();
        command.args(["component", "run", "document.yaml", "--param", "Word=hello"]);
        finish(command.args(args).current_dir(env.path("")))
    };
    let end = run(&[]).expect_code(2);
    assert!(end.stderr.contains("--live"), "{}", end.stderr);
    run(&["--live", "--param", "Nobody=x"]).expect_code(2);
    let end = run(&["--live", "--log-dir", "logs"]).expect_code(0);
    let summary: serde_json::Value = end.json();
    assert_eq!(summary["status"], "successWithIgnoredFailure");
    assert_eq!(
        (
            &summary["executedStepCount"],
            &summary["ignoredFailedStepCount"]
        ),
        (&2.into(), &1.into())
    );
    let logs = env.path("").join(summary["logUrl"].as_str().unwrap());
    let console = fs_err::read_to_string(logs.join("console.log")).unwrap();
    assert!(console.contains("Stdout: hello"), "{console}");
    let end = run(&["--live", "--phases", "validate", "--log-dir", "more"]).expect_code(0);
    assert!(
        end.text().contains("\"executedStepCount\": 1"),
        "{}",
        end.text()
    );
}

/// The events of a file of JSON lines.
fn events(path: &std::path::Path) -> Vec<serde_json::Value> {
    let text = fs_err::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with(r#"{"event":"stream","version":1,"#)
    );
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn steps_after_a_nested_document_are_told_of_the_outer_one() {
    let env = Env::new();
    let step = |name: &str| {
        format!("{{name: {name}, action: ExecuteBash, inputs: {{commands: ['true']}}}}")
    };
    let document = |steps: &[String]| {
        let steps = steps.join(", ");
        format!("{{schemaVersion: 1.0, phases: [{{name: build, steps: [{steps}]}}]}}")
    };
    let inner = env.write("inner.json", document(&[step("Inner")]));
    let nested = format!(
        "{{name: Nested, action: ExecuteDocument, inputs: {{document: '{}'}}}}",
        inner.display()
    );
    env.write(
        "outer.yaml",
        document(&[step("First"), nested, step("Last")]),
    );
    let mut command = env.amiforge();
    command.args(["component", "run", "outer.yaml", "--live"]);
    command.args(["--events", "events.json"]);
    let end = finish(command.current_dir(env.path(""))).expect_code(0);
    let told: Vec<(String, String)> = events(&env.path("events.json"))
        .iter()
        .filter(|event| event["event"] != "output")
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let document = text("component");
            let document = document.rsplit('/').next().unwrap_or_default().to_owned();
            (format!("{} {}", text("event"), text("step")), document)
        })
        .collect();
    let expected = [
        ("step-started First", "outer.yaml"),
        ("step-finished First", "outer.yaml"),
        ("step-started Nested", "outer.yaml"),
        ("step-started Inner", "inner.json"),
        ("step-finished Inner", "inner.json"),
        ("step-finished Nested", "outer.yaml"),
        ("step-started Last", "outer.yaml"),
        ("step-finished Last", "outer.yaml"),
    ];
    let expected: Vec<(String, String)> = expected
        .iter()
        .map(|(what, document)| ((*what).to_owned(), (*document).to_owned()))
        .collect();
    assert_eq!(told, expected);
    assert!(
        end.stderr.contains("step outer.yaml build/Last"),
        "{}",
        end.stderr
    );
}

#[test]
fn every_failure_of_a_run_is_told_with_its_reason() {
    let env = Env::new();
    env.write(
        "document.yaml",
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - {name: One, action: ExecuteBash, onFailure: Continue, inputs: {commands: ['echo of one; exit 3']}}\n      \
         - {name: Two, action: ExecuteBash, onFailure: Ignore, inputs: {commands: ['exit 4']}}\n      \
         - {name: Three, action: ExecuteBash, if: {fileExists: stop}, inputs: {commands: ['echo of three; exit 5']}}\n      \
         - {name: Four, action: ExecuteBash, onFailure: Continue, inputs: {commands: ['exit 6']}}\n",
    );
    let run = || {
        let mut command = env.amiforge();
        command.args(["component", "run", "document.yaml", "--live"]);
        command.current_dir(env.path(""));
        finish(&mut command).expect_code(1)
    };
    let end = run();
    let (_, error) = end.stderr.split_once("\nerror: ").unwrap();
    assert_eq!(
        error,
        "document.yaml:5:9: phase build, step One (ExecuteBash): bash ended with exit code 3 (onFailure: Continue)\n  \
         command: echo of one; exit 3\n  \
         | of one\n  \
         also failed: document.yaml:8:9: phase build, step Four (ExecuteBash): bash ended with exit code 6 (onFailure: Continue)\n    \
         command: exit 6\n"
    );
    let ignored = "build/Two failed and ignored after 0.0 s: bash ended with exit code 4\n";
    assert!(end.stderr.contains(ignored), "{}", end.stderr);
    let summary = end.json()["failureMessage"].clone();
    let summary = summary.as_str().unwrap();
    assert!(
        summary.contains("step One") && summary.contains("step Four"),
        "{summary}"
    );
    // A step that ends the run is what the error is about.
    env.write(
        "document.yaml",
        fs_err::read_to_string(env.path("document.yaml"))
            .unwrap()
            .replace("fileExists: stop", "folderExists: /"),
    );
    let end = run();
    let (_, error) = end.stderr.split_once("\nerror: ").unwrap();
    assert_eq!(
        error,
        "document.yaml:7:9: phase build, step Three (ExecuteBash): bash ended with exit code 5\n  \
         command: echo of three; exit 5\n  \
         | of three\n  \
         also failed: document.yaml:5:9: phase build, step One (ExecuteBash): bash ended with exit code 3 (onFailure: Continue)\n    \
         command: echo of one; exit 3\n    \
         | of one\n"
    );
}

#[test]
fn warnings_of_a_document_are_told_before_it_runs() {
    let env = Env::new();
    env.write(
        "document.yaml",
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - {name: One, action: ExecuteBash, inputs: {commands: ['echo {{.Names}}']}}\n",
    );
    let run = |args: &[&str]| {
        let mut command = env.amiforge();
        finish(command.args(args).current_dir(env.path(""))).expect_code(0)
    };
    let validated = run(&["validate", "document.yaml"]).stderr;
    assert!(validated.contains("warning["), "{validated}");
    let ran = run(&["component", "run", "document.yaml", "--live"]).stderr;
    assert!(ran.starts_with(&validated), "{ran}");
}

#[test]
fn standard_output_with_events_has_json_lines_only() {
    let env = Env::new();
    env.write(
        "document.yaml",
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - {name: One, action: ExecuteBash, inputs: {commands: ['echo {{.Names}}']}}\n",
    );
    let lines = |args: &[&str]| -> Vec<serde_json::Value> {
        let mut command = env.amiforge();
        let end = finish(command.args(args).current_dir(env.path(""))).expect_code(0);
        let text = end.text();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}\n{end}")))
            .collect()
    };
    let events = ["--events", "-"];
    let run = lines(
        &[
            &["component", "run", "document.yaml", "--live"],
            &events[..],
        ]
        .concat(),
    );
    let kinds: Vec<&str> = run.iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(
        kinds,
        [
            "stream",
            "warning",
            "step-started",
            "output",
            "step-finished",
            "result"
        ]
    );
    assert_eq!(run[5]["result"]["executedStepCount"], 1);
    let list = lines(&[&["component", "list"], &events[..]].concat());
    assert_eq!(
        list[0],
        json!({"event": "stream", "version": 1, "program": list[0]["program"]})
    );
    assert_eq!((list.len(), &list[1]["event"]), (2, &"result".into()));
    // What is no JSON goes elsewhere.
    let shown = lines(&[&["component", "show", "update-linux"], &events[..]].concat());
    assert!(shown.is_empty(), "{shown:?}");
}

#[test]
fn a_secret_of_the_configuration_is_used_and_left_nowhere() {
    const SECRET: &str = "canary-91c4d7";
    let env = Env::new();
    fs_err::create_dir_all(env.state()).unwrap();
    fs_err::write(
        env.state().join("config.yaml"),
        "references:\n  aws:ssm:/token: {env: WEB_TOKEN}\n  aws:ssm:/plain: plain-value\n",
    )
    .unwrap();
    env.write(
        "document.yaml",
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      \
         - {name: Print, action: ExecuteBash, inputs: {commands: ['echo {{ aws:ssm:/token }} {{ aws:ssm:/plain }}']}}\n      \
         - {name: Use, action: ExecuteBash, inputs: {commands: ['test {{ build.Print.outputs.stdout }} = x || exit 7 # {{ aws:ssm:/token }}']}}\n",
    );
    let run = |token: Option<&str>| {
        let mut command = env.amiforge();
        command.args([
            "component",
            "run",
            "document.yaml",
            "--live",
            "--log-dir",
            "logs",
        ]);
        command
            .args(["--events", "events.json"])
            .current_dir(env.path(""));
        command.envs(token.map(|token| ("WEB_TOKEN", token)));
        finish(&mut command)
    };
    let end = run(None).expect_code(2);
    assert!(
        end.stderr.contains("WEB_TOKEN is not set"),
        "{}",
        end.stderr
    );
    let end = run(Some(SECRET)).expect_code(1);
    assert!(end.text().contains("\"failed\""), "{}", end.text());
    assert!(
        end.stderr.contains("******** plain-value"),
        "{}",
        end.stderr
    );
    // Nothing that it printed or left holds it.
    let text = format!("{}{}", end.text(), end.stderr);
    assert!(!text.contains(SECRET), "{text}");
    let mut grep = std::process::Command::new("grep");
    let found = finish(grep.args(["-rlF", SECRET]).arg(env.path("")));
    assert_eq!((found.code(), found.text().as_str()), (1, ""));
}

/// Name, and parameter where it has one.
const COMPONENTS: &[(&str, &str)] = &[
    ("hello-world-linux", ""),
    ("update-linux", ""),
    ("python-3-linux", ""),
    (
        "install-package-from-repository",
        "Package=chrony openssh-server",
    ),
    ("reboot-linux", ""),
    ("stig-build-linux-high", "SetDoDConsentBanner=Yes"),
    ("amazon-cloudwatch-agent-linux", ""),
    ("aws-codedeploy-agent-linux", ""),
    ("aws-cli-version-2-linux", ""),
    ("simple-boot-test-linux", ""),
    ("apt-repository-test-linux", ""),
    ("chrony-time-configuration-test", ""),
    ("validate-ssh-host-key-generation-linux", ""),
    ("validate-ssh-public-key-linux", ""),
    ("validate-single-ssh-public-key-test-linux", ""),
    ("eni-attachment-test-linux", ""),
    ("ebs-volume-usage-test-linux", ""),
    ("inspector-test-linux", ""),
    ("reboot-test-linux", ""),
];

fn recipe(env: &Env, name: &str, components: &[(&str, &str)]) -> std::path::PathBuf {
    let mut text = format!(
        "name: {name}\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\nblockDeviceMappings:\n  \
         - deviceName: /dev/xvda\n    ebs: {{volumeSize: 3, volumeType: gp3}}\n\
         amiforge:\n  bootMode: legacy-bios\n  formats: [raw]\ncomponents:\n"
    );
    for (name, parameter) in components {
        text.push_str(&format!("  - componentArn: {name}/x.x.x\n"));
        if let Some((key, value)) = parameter.split_once('=') {
            text.push_str(&format!(
                "    parameters: [{{name: {key}, value: ['{value}']}}]\n"
            ));
        }
    }
    env.write(format!("{name}/recipe.yaml"), &text)
}

const TOKEN: &str = "canary-d0c7e5a1";
/// Leaves the token's digest in the image, and compares it on the instance.
const SECRET_DOCUMENT: &str = "\
name: secret
schemaVersion: 1.0
parameters:
  - Token: {type: string}
phases:
  - name: build
    steps:
      - name: Use
        action: ExecuteBash
        inputs:
          commands:
            - echo the token is {{ Token }}
            - printf %s '{{ Token }}' | sha256sum > /etc/token.sum
  - name: test
    steps:
      - name: Compare
        action: ExecuteBash
        inputs:
          commands:
            - test \"$(printf %s '{{ Token }}' | sha256sum)\" = \"$(cat /etc/token.sum)\"
";

#[test]
fn image_with_the_library_passes_its_own_tests_over_a_restart() {
    let env = Web::get().env();
    let recipe = recipe(&env, "library", COMPONENTS);
    // A secret on the same boot: it is used in the build and on the instance, and is nowhere afterwards.
    env.write("library/secret.yaml", SECRET_DOCUMENT);
    let text = fs_err::read_to_string(&recipe).unwrap();
    let text = text.replace("amiforge:\n", "amiforge:\n  secretParameters: [Token]\n")
        + "  - componentArn: ./secret.yaml\n";
    fs_err::write(&recipe, text).unwrap();
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(recipe)
        .args(["--param", &format!("Token={TOKEN}")])
        .arg("--out")
        .arg(env.path("out"));
    let end = finish(&mut command).expect_code(0);
    assert!(
        end.stderr.contains("the token is ********"),
        "{}",
        end.stderr
    );
    assert!(!end.stderr.contains(TOKEN) && !end.text().contains(TOKEN));
    let mut grep = std::process::Command::new("grep");
    let found = finish(grep.args(["-rlaF", TOKEN]).arg(env.path("")));
    assert_eq!((found.code(), found.text().as_str()), (1, ""));
    for line in ["is skipped: it needs AWS", "Hello World! Test."] {
        assert!(end.stderr.contains(line), "no {line:?} in\n{}", end.stderr);
    }
    let report = fs_err::read(env.path("out/boot-report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let run = &report["runs"]["bios"]["tests"]["run"];
    assert_eq!(run["status"], "success", "{run}");
    let documents = run["documents"].as_array().unwrap();
    assert_eq!(documents.len(), 12);
    let steps = documents[10]["phases"][0]["steps"].as_array().unwrap();
    let id = |step: usize| steps[step]["outputs"][0]["content"].as_str().unwrap();
    assert_eq!((id(0).len(), id(2).len()), (37, 37));
    assert_ne!(id(0), id(2));
    // The kernel started twice.
    let console = fs_err::read(env.path("out/console-bios.log")).unwrap();
    let console = String::from_utf8_lossy(&console);
    assert_eq!(console.matches("Linux version ").count(), 2);

    let inspect = |what: &str, path: &str| {
        let mut command = env.amiforge();
        command
            .arg("inspect")
            .arg(env.path("out"))
            .args([what, path]);
        finish(&mut command).expect_code(0).text()
    };
    assert!(inspect("cat", "/etc/login.defs").contains("\nUMASK 077\n"));
    assert!(inspect("cat", "/etc/sysctl.d/60-hardening.conf").contains("kptr_restrict = 1"));
    assert!(inspect("cat", "/etc/issue.net").contains("U.S. Government"));
    assert!(inspect("stat", "/etc/systemd/system/ctrl-alt-del.target").contains("/dev/null"));
}

#[test]
fn image_with_docker_and_java_has_them() {
    let env = Web::get().env();
    let components = [("docker-ce-linux", ""), ("amazon-corretto-17-headless", "")];
    let recipe = recipe(&env, "runtimes", &components);
    let mut command = env.amiforge();
    command
        .args(["build", "--no-test"])
        .arg(recipe)
        .arg("--out")
        .arg(env.path("out"));
    finish(&mut command).expect_code(0);
    let packages = fs_err::read_to_string(env.path("out/packages.json")).unwrap();
    for name in ["docker.io", "openjdk-17-jre-headless"] {
        assert!(packages.contains(&format!("\"{name}\"")), "no {name}");
    }
}
