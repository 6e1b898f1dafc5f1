use std::io::Write;
use std::process::{Command, Stdio};

use amiforge_testkit::{venv_program, workspace_root};
use serde_json::{Value, json};

use crate::example;

/// Reads the schema's path from its argument and one instance per line; prints the errors of each.
const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft7Validator
schema = json.load(open(sys.argv[1]))
Draft7Validator.check_schema(schema)
for line in sys.stdin:
    errors = Draft7Validator(schema).iter_errors(json.loads(line))
    print(json.dumps(sorted(e.json_path + ": " + e.message for e in errors)))
"#;

fn validate(instances: &[Value]) -> Vec<Vec<String>> {
    let mut child = Command::new(venv_program("python3"))
        .args(["-c", VALIDATE])
        .arg(workspace_root().join("docs/schema/manifest.schema.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for instance in instances {
        writeln!(stdin, "{instance}").unwrap();
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn manifests_follow_the_published_schema() {
    let good: Value = serde_json::from_slice(&example::manifest().to_json()).unwrap();
    let broken = |pointer: &str, value: Value| {
        let mut copy = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = if parent.is_empty() {
            &mut copy
        } else {
            copy.pointer_mut(parent).unwrap()
        };
        match value {
            Value::Null => parent.as_object_mut().unwrap().remove(key),
            value => parent
                .as_object_mut()
                .unwrap()
                .insert(key.to_owned(), value),
        };
        copy
    };
    let bad = [
        broken("/imageId", json!("ami-123")),
        broken("/schemaVersion", json!(2)),
        broken("/volumes/0/contentDigest", Value::Null),
        broken("/blockDeviceMappings/0/ebs/volumeType", json!("gp9")),
        broken("/blockDeviceMappings/0/virtualName", json!("ephemeral0")),
        broken("/surprise", json!(true)),
    ];
    let mut all = vec![good];
    all.extend(bad);
    let errors = validate(&all);
    assert_eq!(errors[0], [] as [String; 0]);
    for (instance, errors) in all.iter().zip(&errors).skip(1) {
        assert!(!errors.is_empty(), "the schema accepts {instance}");
    }
}

/// The other direction: whatever the schema describes, the example has.
#[test]
fn the_schema_describes_nothing_that_is_not_written() {
    let text =
        std::fs::read_to_string(workspace_root().join("docs/schema/manifest.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let manifest: Value = serde_json::from_slice(&example::manifest().to_json()).unwrap();
    let described: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
    let written: Vec<_> = manifest.as_object().unwrap().keys().collect();
    assert_eq!(described, written, "top-level members and their order");
    let text = String::from_utf8(example::manifest().to_json()).unwrap();
    for (name, def) in schema["definitions"].as_object().unwrap() {
        for key in def["properties"]
            .as_object()
            .into_iter()
            .flat_map(|p| p.keys())
        {
            assert!(
                text.contains(&format!("{key:?}:")),
                "definitions/{name} has {key}, which the example never writes"
            );
        }
    }
}
