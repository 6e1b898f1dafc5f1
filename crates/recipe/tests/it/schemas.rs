//! The published JSON Schemas, judged by a validator that is not ours: Python's `jsonschema`, on documents
//! that PyYAML reads.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use amiforge_recipe::json_schema::{kinds, schema};
use amiforge_recipe::{DocumentKind, parse_component, parse_config, parse_document, parse_recipe};
use amiforge_testkit::{venv_program, workspace_root};
use amiforge_types::{Diagnostics, Severity};
use serde_json::{Value, json};

fn path(kind: DocumentKind) -> PathBuf {
    workspace_root().join(format!("docs/schema/{}.schema.json", kind.id()))
}

#[test]
fn published_schemas_are_those_of_the_decoders() {
    for kind in kinds() {
        let made = schema(kind).unwrap();
        if std::env::var_os("AMIFORGE_BLESS").is_some() {
            fs::write(path(kind), &made).unwrap();
        }
        let published = fs::read_to_string(path(kind)).unwrap_or_default();
        assert!(
            published == made,
            "docs/schema/{}.schema.json is not what the decoder takes now: cargo xtask schema",
            kind.id()
        );
    }
}

/// Reads `[schema, document]` lines: a path, and a document's text or what JSON has of it. Prints for each a
/// list of problems, or null where PyYAML cannot read the text.
const JUDGE: &str = r#"
import json, re, sys, yaml
from jsonschema import Draft7Validator

class Loader(yaml.SafeLoader):
    pass

# YAML 1.2, as editors read it: no times, and `yes` is a text.
Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool",
    re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))

# The functions of CloudFormation in their short form, as editors have them: the tag is not seen.
def tagged(loader, _, node):
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True)

Loader.add_multi_constructor("!", tagged)

validators = {}
for line in sys.stdin:
    name, document = json.loads(line)
    if name not in validators:
        schema = json.load(open(name))
        Draft7Validator.check_schema(schema)
        validators[name] = Draft7Validator(schema)
    if isinstance(document, str):
        try:
            # Keys and numbers as JSON has them.
            document = json.loads(json.dumps(yaml.load(document, Loader)))
        except (yaml.YAMLError, ValueError, TypeError):
            print("null")
            continue
    problems = validators[name].iter_errors(document)
    print(json.dumps([e.json_path + ": " + e.message[:200] for e in problems]))
"#;

/// The validator's problems with each document; `None` for text that PyYAML cannot read.
fn judge(documents: &[(DocumentKind, Value)]) -> Vec<Option<Vec<String>>> {
    let mut child = Command::new(venv_program("python3"))
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<String> = documents
        .iter()
        .map(|(kind, document)| json!([path(*kind), document]).to_string())
        .collect();
    let feeder = std::thread::spawn(move || {
        for line in lines {
            writeln!(stdin, "{line}").unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert!(output.status.success());
    let verdicts: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(verdicts.len(), documents.len());
    verdicts
}

/// What our own decoder of the kind says.
fn problems(kind: DocumentKind, text: &str) -> Diagnostics {
    match kind {
        DocumentKind::Configuration => parse_config(text).1,
        DocumentKind::Component => parse_component(text).1,
        DocumentKind::ImageRecipe => parse_recipe(text).1,
        _ => {
            let (found, _, problems) = parse_document(text);
            if found == Some(kind) {
                problems
            } else {
                // Broken beyond recognition; nothing is claimed of it.
                let mut unknown = Diagnostics::new();
                unknown.push(amiforge_types::Diagnostic::error(
                    "unknown-document",
                    amiforge_types::Span::default(),
                    "it is no longer known for what it is",
                ));
                unknown
            }
        }
    }
}

fn folder(kind: DocumentKind) -> Option<&'static str> {
    Some(match kind.id() {
        "component" => "components",
        "image-recipe" => "recipes",
        "component-resource" => "component-resources",
        "container-recipe" => "container-recipes",
        "infrastructure-configuration" => "infrastructure-configurations",
        "distribution-configuration" => "distribution-configurations",
        "image-pipeline" => "image-pipelines",
        "image" => "images",
        "workflow-resource" => "workflow-resources",
        "lifecycle-policy" => "lifecycle-policies",
        "workflow" => "workflows",
        "template" => "templates",
        "config" => return None,
        other => panic!("where are the fixtures of {other}?"),
    })
}

/// Name, kind and text of every fixture in `ok` or `err` that is text.
fn fixtures(side: &str) -> Vec<(String, DocumentKind, String)> {
    let mut all = Vec::new();
    for kind in kinds() {
        let Some(folder) = folder(kind) else { continue };
        for case in crate::fixtures::cases(&format!("{folder}/{side}")) {
            if let Ok(text) = String::from_utf8(crate::fixtures::document(&case)) {
                let case = case.display().to_string();
                let name = case.rsplit_once("fixtures/").map_or("", |(_, name)| name);
                all.push((name.to_owned(), kind, text));
            }
        }
    }
    all
}

const CONFIG: &str = "
parents:
  arn:aws:imagebuilder:eu-central-1:aws:image/debian-12-x86/x.x.x: debian:bookworm
components:
references:
  aws:ssm:/web/domain: example.org
  aws:ssm:/web/port: 8080
  aws:ssm:/web/token: {env: WEB_TOKEN}
  aws:imds:placement/region: {file: region.txt}
";

#[test]
fn good_documents_are_valid() {
    let mut good = fixtures("ok");
    good.push((
        "config".to_owned(),
        DocumentKind::Configuration,
        CONFIG.to_owned(),
    ));
    for folder in ["recipes", "crates/engine/library"] {
        let files = files_below(&workspace_root().join(folder));
        for path in files
            .iter()
            .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        {
            let text = fs::read_to_string(path).unwrap();
            if let (Some(kind), Some(_), _) = parse_document(&text) {
                good.push((path.display().to_string(), kind, text));
            }
        }
    }
    let documents: Vec<_> = good
        .iter()
        .map(|(_, kind, text)| (*kind, json!(text)))
        .collect();
    let verdicts = judge(&documents);
    let mut failed = Vec::new();
    let mut read = 0;
    for ((name, _, _), verdict) in good.iter().zip(verdicts) {
        match verdict {
            Some(problems) if problems.is_empty() => read += 1,
            Some(problems) => failed.push(format!("{name}: {problems:#?}")),
            // PyYAML knows YAML 1.1; what it cannot read is not a matter of schemas.
            None => {}
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(read * 10 > good.len() * 9, "{read} of {}", good.len());
}

fn files_below(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if entry.is_dir() {
            all.extend(files_below(&entry));
        } else {
            all.push(entry);
        }
    }
    all.sort();
    all
}

/// Codes of problems that a schema is there to find.
const STRUCTURAL: &[&str] = &[
    "unknown-field",
    "missing-field",
    "wrong-type",
    "invalid-choice",
    "unknown-action",
    "unsupported-schema",
    "unsupported-type",
    "unknown-operator",
];

/// Fixtures whose only structural problems are of a sort that schemas here leave to `validate`.
const LEFT_TO_VALIDATE: &[(&str, &str)] = &[
    (
        "components/err/merge-key",
        "PyYAML merges `<<` before the schema sees it",
    ),
    (
        "component-resources/err/quoted",
        "the problem is in the document inside a text",
    ),
    (
        "templates/err/inline-documents",
        "the problem is in the document inside a text",
    ),
];

#[test]
fn bad_documents_are_invalid_when_their_structure_is_bad() {
    let bad: Vec<_> = fixtures("err")
        .into_iter()
        .filter(|(_, kind, text)| {
            problems(*kind, text)
                .iter()
                .any(|p| p.severity == Severity::Error && STRUCTURAL.contains(&p.code))
        })
        .collect();
    let documents: Vec<_> = bad
        .iter()
        .map(|(_, kind, text)| (*kind, json!(text)))
        .collect();
    let passed: Vec<&str> = bad
        .iter()
        .zip(judge(&documents))
        .filter(|(_, verdict)| verdict.as_ref().is_some_and(Vec::is_empty))
        .map(|((name, _, _), _)| name.as_str())
        .collect();
    let known: Vec<&str> = LEFT_TO_VALIDATE.iter().map(|(name, _)| *name).collect();
    assert_eq!(passed, known);
    assert!(bad.len() > 40, "{}", bad.len());
}

/// Changes one thing at a time in good documents. What the validator refuses, the decoder has to refuse too;
/// and keys, missing fields and types that the decoder refuses, the validator should.
#[test]
fn schema_and_decoder_agree_on_changed_documents() {
    let mut changed = Vec::new();
    for (name, kind, text) in fixtures("ok") {
        let Some(node) = amiforge_recipe::parse_node(&text, &mut Diagnostics::new()) else {
            continue;
        };
        let document = typed(node.to_json());
        if problems(kind, &document.to_string()).has_errors() {
            // JSON has no tags.
            assert!(text.contains(": !"), "{name}");
            continue;
        }
        let mut places = Vec::new();
        pointers(&document, &mut String::new(), &mut places);
        for (number, pointer) in places.iter().enumerate() {
            // Not all of them: the validator takes its time.
            if number % 7 != name.len() % 7 {
                continue;
            }
            for change in [
                json!({ "surprise": "x" }),
                json!(["x"]),
                json!("x"),
                json!("{{ build.a.outputs.stdout }}"),
                Value::Null,
            ] {
                let mut copy = document.clone();
                *copy.pointer_mut(pointer).unwrap() = change;
                changed.push((format!("{name}{pointer}"), kind, copy));
            }
            let mut copy = document.clone();
            if let Some(Value::Object(fields)) = copy.pointer_mut(pointer) {
                fields.insert("surprise".to_owned(), json!("x"));
                changed.push((format!("{name}{pointer}/surprise"), kind, copy));
            }
            let mut copy = document.clone();
            let (above, key) = pointer.rsplit_once('/').unwrap_or_default();
            if let Some(Value::Object(fields)) = copy.pointer_mut(above) {
                fields.remove(&key.replace("~1", "/").replace("~0", "~"));
                changed.push((format!("{name}{pointer} removed"), kind, copy));
            }
        }
    }
    let documents: Vec<_> = changed
        .iter()
        .map(|(_, kind, doc)| (*kind, doc.clone()))
        .collect();
    let mut false_alarms = Vec::new();
    let mut missed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut found = 0;
    for ((name, kind, document), verdict) in changed.iter().zip(judge(&documents)) {
        let verdict = match document {
            Value::String(_) => continue,
            _ => verdict.unwrap(),
        };
        let own = problems(*kind, &document.to_string());
        let errors: Vec<&str> = own
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .map(|p| p.code)
            .collect();
        if errors.is_empty() && !verdict.is_empty() {
            false_alarms.push(format!("{name}: {verdict:?}"));
        }
        let structural = errors.iter().find(|code| STRUCTURAL.contains(*code));
        if let Some(code) = structural {
            found += 1;
            if verdict.is_empty() {
                missed.entry(code).or_default().push(name);
            }
        }
    }
    assert!(false_alarms.is_empty(), "{}", false_alarms.join("\n"));
    let misses: usize = missed.values().map(Vec::len).sum();
    assert!(misses * 50 < found, "{misses} of {found}: {missed:#?}");
    assert!(found > 500, "{found}");
}

/// Numbers and truths, which our tree keeps as texts, as JSON has them.
fn typed(value: Value) -> Value {
    match value {
        Value::String(text) => match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            plain => match plain.parse::<i64>() {
                Ok(number) if number.to_string() == plain => json!(number),
                _ => Value::String(text),
            },
        },
        Value::Array(items) => Value::Array(items.into_iter().map(typed).collect()),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(k, v)| (k, typed(v))).collect())
        }
        other => other,
    }
}

fn pointers(value: &Value, at: &mut String, out: &mut Vec<String>) {
    let length = at.len();
    out.push(at.clone());
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                at.push('/');
                at.push_str(&name.replace('~', "~0").replace('/', "~1"));
                pointers(field, at, out);
                at.truncate(length);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                at.push_str(&format!("/{index}"));
                pointers(item, at, out);
                at.truncate(length);
            }
        }
        _ => {}
    }
}
