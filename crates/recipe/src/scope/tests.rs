use amiforge_types::Diagnostics;

use super::*;
use crate::{ActionInputs, ActionKind};

fn node(text: &str) -> Node {
    let mut diags = Diagnostics::new();
    let node = crate::parse_node(text, &mut diags);
    assert!(diags.is_empty(), "{diags:?}");
    node.unwrap()
}

fn scope() -> Scope {
    let mut scope = Scope::new(BTreeMap::from([("Name".to_owned(), "value".to_owned())]));
    let mut record = StepRecord::of_inputs(Some(&node(
        "[{path: /a, list: [x, 'y']}, {path: /b, none: ~}]",
    )));
    record.outputs = vec![BTreeMap::from([(
        "stdout".to_owned(),
        "{{ Name }}".to_owned(),
    )])];
    scope.record("build", "A", record);
    let skipped = StepRecord {
        skipped: true,
        ..StepRecord::default()
    };
    scope.record("build", "Skipped", skipped);
    scope
}

fn resolve(text: &str) -> Result<String, ResolveError> {
    scope().resolve_text(text, Span::default())
}

#[test]
fn values_are_put_in_once() {
    assert_eq!(resolve("<{{ Name }}>").as_deref(), Ok("<value>"));
    assert_eq!(
        resolve("{{ build.A.outputs.stdout }}").as_deref(),
        Ok("{{ Name }}")
    );
    assert_eq!(
        resolve("{{ build.A.outputs[0].stdout }}").as_deref(),
        Ok("{{ Name }}")
    );
    assert_eq!(resolve("{{ build.A.inputs.path }}").as_deref(), Ok("/a"));
    assert_eq!(resolve("{{ build.A.inputs[1].path }}").as_deref(), Ok("/b"));
    assert_eq!(resolve("{{ build.A.inputs[1].none }}").as_deref(), Ok(""));
    assert_eq!(
        resolve("{{ build.A.inputs.list }}").as_deref(),
        Ok(r#"["x","y"]"#)
    );
    assert_eq!(
        resolve("{{ build.Skipped.outputs.stdout }}").as_deref(),
        Ok("")
    );
    assert_eq!(
        resolve("{{.Go}} {{ loop.index }} {{ open").as_deref(),
        Ok("{{.Go}} {{ loop.index }} {{ open")
    );
}

#[test]
fn what_has_no_value_is_an_error() {
    assert!(
        matches!(resolve("{{ Other }}"), Err(ResolveError::Undeclared { name, .. }) if name == "Other")
    );
    assert!(matches!(
        resolve("{{ build.B.outputs.stdout }}"),
        Err(ResolveError::NotRun { .. })
    ));
    assert!(matches!(
        resolve("{{ test.A.outputs.stdout }}"),
        Err(ResolveError::NotRun { .. })
    ));
    let error = resolve("{{ build.A.outputs.stderr }}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`build.A.outputs.stderr` has no value: the step gave stdout"
    );
    assert!(matches!(
        resolve("{{ build.A.outputs[1].stdout }}"),
        Err(ResolveError::NoSuchKey { .. })
    ));
    assert!(matches!(
        resolve("{{ build.A.inputs[2].path }}"),
        Err(ResolveError::NoSuchKey { .. })
    ));
    assert!(matches!(
        resolve("{{ env:HOME }}"),
        Err(ResolveError::Unsupported { .. })
    ));
}

#[test]
fn a_resolved_tree_is_decoded_with_its_places() {
    let inputs = node("\n- path: '{{ Name }}'\n  permissions: 06{{ Name }}\n");
    let mut scope = scope();
    scope.variables.insert("Name".to_owned(), "44".to_owned());
    let resolved = scope.resolve(&inputs).unwrap();
    let (decoded, problems) =
        ActionKind::SetFilePermissions.decode(Some(&resolved), Span::default());
    assert!(problems.is_empty(), "{problems:?}");
    let Some(ActionInputs::SetFilePermissions(entries)) = decoded else {
        panic!("{decoded:?}")
    };
    assert_eq!(
        (entries[0].path.as_str(), entries[0].permissions.0),
        ("44", 0o644)
    );

    scope.variables.insert("Name".to_owned(), "99".to_owned());
    let resolved = scope.resolve(&inputs).unwrap();
    let (decoded, problems) =
        ActionKind::SetFilePermissions.decode(Some(&resolved), Span::default());
    assert_eq!(decoded, None);
    let problem = &problems.into_sorted()[0];
    assert_eq!(
        (problem.code, problem.span.unwrap().start.line),
        ("invalid-mode", 3)
    );
}

#[test]
fn a_null_value_put_in_stays_text() {
    let mut scope = scope();
    scope.variables.insert("Name".to_owned(), "null".to_owned());
    let resolved = scope
        .resolve(&node(
            "{commands: ['{{ Name }}', \"{{ Name }}\", 'x{{ Name }}']}",
        ))
        .unwrap();
    assert_eq!(
        resolved.to_json(),
        serde_json::json!({"commands": ["null", "null", "xnull"]})
    );
}

#[test]
fn a_scope_survives_being_stored() {
    let text = serde_json::to_string(&scope()).unwrap();
    assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), scope());
}

#[test]
fn values_that_multiply_are_limited() {
    let mut scope = scope();
    scope
        .variables
        .insert("Name".to_owned(), "x".repeat(1 << 20));
    let many = |n: usize| node(&format!("- '{}'\n", "{{ Name }}".repeat(8)).repeat(n));
    assert!(scope.resolve(&many(8)).is_ok());
    assert!(
        matches!(scope.resolve(&many(9)), Err(ResolveError::TooMuch { span }) if span.start.line == 9)
    );
}
