//! The stream of events against its published schema, by a validator that is not ours.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

use amiforge_testkit::{Env, finish, venv_program, workspace_root};
use serde_json::Value;

use crate::tiny::Tiny;

/// Reads the schema's path from its argument and one line of the stream per line; prints what is wrong with any.
const JUDGE: &str = r#"
import json, sys
from jsonschema import Draft7Validator
schema = json.load(open(sys.argv[1]))
Draft7Validator.check_schema(schema)
for line in sys.stdin:
    for error in Draft7Validator(schema).iter_errors(json.loads(line)):
        print(line, error.message)
"#;

/// What the stream breaks of its schema.
fn judged(stream: &str) -> String {
    let mut child = std::process::Command::new(venv_program("python3"))
        .args(["-c", JUDGE])
        .arg(workspace_root().join("docs/schema/event.schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = stream.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

const COMPONENT: &str = "\
name: eventful
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Print
        action: ExecuteBash
        inputs: {commands: [echo out, echo err >&2]}
      - name: Fail
        action: ExecuteBash
        onFailure: Ignore
        inputs: {commands: [exit 3]}
";

#[test]
fn every_line_of_a_build_follows_the_published_schema() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    env.write("eventful.yaml", COMPONENT);
    let one = tiny.container("one", &["eventful.yaml"], "  secretParameters: [NoSuch]\n");
    let two = tiny.container("two", &["eventful.yaml"], "");
    let build = |recipes: &[&std::path::PathBuf], out: &str| {
        let mut command = env.amiforge();
        command.args(["build", "--events", "-", "--out"]);
        command.arg(env.path(out)).args(recipes);
        finish(&mut command).expect_code(0).text()
    };
    let mut all = String::new();
    let mut kinds = BTreeSet::new();
    for stream in [
        build(&[&one], "single"),
        build(&[&one], "single"),
        build(&[&one, &two], "both"),
    ] {
        let lines: Vec<Value> = stream
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(
            (&lines[0]["event"], &lines[0]["version"]),
            (&"stream".into(), &1.into())
        );
        assert_eq!(lines.last().unwrap()["event"], "result");
        let one = |kind: &str| lines.iter().filter(|line| line["event"] == kind).count();
        assert_eq!((one("stream"), one("result")), (1, 1));
        kinds.extend(
            lines
                .iter()
                .map(|line| line["event"].as_str().unwrap().to_owned()),
        );
        all.push_str(&stream);
    }
    for kind in [
        "artifact",
        "layer-cached",
        "layer-finished",
        "layer-started",
        "output",
        "progress",
        "result",
        "stage",
        "step-finished",
        "step-started",
        "stream",
        "unchanged",
        "warning",
    ] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
    assert!(all.contains(r#""recipe":"#));
    assert_eq!(judged(&all), "");
    // The judge judges.
    assert_ne!(judged(r#"{"event":"output","line":"x"}"#), "");
    assert_ne!(judged(r#"{"event":"no-such"}"#), "");
}
