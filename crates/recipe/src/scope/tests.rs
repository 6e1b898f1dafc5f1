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
        Err(ResolveError::NoVariable { .. })
    ));
    let error = resolve("{{ context:region }}").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`context:region` has no value in this run"
    );
    let error = resolve("{{ aws:ssm:/a/b }}").unwrap_err();
    assert_eq!(error.to_string(), "`aws:ssm:/a/b` has no value in this run");
}

#[test]
fn the_world_outside_and_the_loop_have_values() {
    let mut scope = scope();
    let pairs = |list: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    };
    scope.environment = pairs(&[("My.Var (x)", "e")]);
    scope.context = pairs(&[("region", "r")]);
    scope.external = pairs(&[
        ("aws:ssm:/a", "s"),
        ("aws:imds:mac", "i"),
        ("aws:ssm:/b", "t"),
    ]);
    scope.variables.insert("Path".to_owned(), "/b".to_owned());
    let resolve = |scope: &Scope, text: &str| scope.resolve_text(text, Span::default()).unwrap();
    let text = "{{ env:My.Var (x) }}{{context:region}}{{aws:ssm:/a}}{{ aws:imds:mac }}{{ aws:ssm:resolve(Path) }}{{ aws:ssm:resolve(aws:ssm:/a) }}";
    assert_eq!(resolve(&scope, text), "ersits");

    let text = "{{ loop.index }}{{ each.value }}{{ other.value }}";
    assert_eq!(resolve(&scope, text), text);
    scope.iteration = Some(Iteration {
        name: Some("each".to_owned()),
        index: 3,
        value: "{{ Name }}".to_owned(),
    });
    assert_eq!(resolve(&scope, text), "3{{ Name }}{{ other.value }}");
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

#[test]
fn secrets_are_put_in_where_their_marks_are() {
    let mark = crate::secret_mark("web.Token");
    let mut scope = Scope::new(BTreeMap::from([("Token".to_owned(), format!("<{mark}>"))]));
    let text = format!("{{{{ Token }}}} {mark}");
    let failed = scope.resolve_text(&text, Span::default()).unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("`secret:web.Token` has no value"),
        "{failed}"
    );
    scope
        .external
        .insert(crate::secret_key("web.Token"), "{{ Token }}".to_owned());
    let resolved = scope.resolve_text(&text, Span::default());
    assert_eq!(resolved.as_deref(), Ok("<{{ Token }}> {{ Token }}"));
}
