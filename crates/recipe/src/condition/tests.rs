use super::*;
use crate::actions::{ActionInputs, ActionKind};

/// A machine with one of each.
struct Machine;

impl Facts for Machine {
    type Error = String;

    fn binary_exists(&mut self, name: &str) -> Result<bool, String> {
        Ok(name == "bash")
    }

    fn file_exists(&mut self, path: &str) -> Result<bool, String> {
        if path == "/broken" {
            return Err("it is broken".to_owned());
        }
        Ok(path == "/file")
    }

    fn folder_exists(&mut self, path: &str) -> Result<bool, String> {
        Ok(path == "/folder")
    }

    fn digest(&mut self, algorithm: Algorithm, path: &str) -> Result<Option<Vec<u8>>, String> {
        Ok((path == "/file").then(|| vec![0xab; algorithm.digits() / 2]))
    }
}

fn parsed(text: &str) -> Option<Node> {
    crate::yaml::parse_node(text, &mut amiforge_types::Diagnostics::new())
}

fn holds(text: &str) -> Result<bool, String> {
    let node = parsed(text);
    let (inputs, problems) =
        ActionKind::Assert.decode(node.as_ref(), amiforge_types::Span::default());
    match inputs {
        Some(ActionInputs::Assert(assert)) => assert.condition.holds(&mut Machine),
        _ => Err(format!("{:?}", problems.into_sorted())),
    }
}

#[test]
fn every_operator() {
    let md5 = "AB".repeat(16);
    let sha512 = "ab".repeat(64);
    let digests = [
        format!("{{fileMD5Equals: {md5}, path: /file}}"),
        format!("{{path: /file, fileSHA512Equals: {sha512}}}"),
        format!("{{not: {{fileMD5Equals: {md5}, path: /none}}}}"),
    ];
    let yes = [
        "{stringIsEmpty: ''}",
        "{stringIsWhitespace: ' '}",
        "{stringEquals: Abc, value: aBC}",
        "{stringLessThan: b, value: A}",
        "{stringLessThanEquals: b, value: B}",
        "{value: b, stringGreaterThan: 9}",
        "{stringGreaterThanEquals: b, value: b}",
        "{patternMatches: '^[a-z]+$', value: ThisIsValue}",
        "{patternMatches: 'is', value: ThisIsValue}",
        "{numberEquals: 1.10, value: '+01.1'}",
        "{numberEquals: 1e3, value: 1000}",
        "{numberEquals: 0, value: -0.0}",
        "{numberLessThan: 2, value: 1}",
        "{numberLessThan: 1.1, value: 1.09}",
        "{numberLessThan: -1, value: -1.5}",
        "{numberLessThan: 0, value: -99999999999999999999999999999999.1}",
        "{numberLessThanEquals: 2, value: 2}",
        "{numberGreaterThan: 99999999999999999999998, value: 99999999999999999999999}",
        "{numberGreaterThanEquals: -2, value: 1}",
        "{binaryExists: bash}",
        "{fileExists: /file}",
        "{folderExists: /folder}",
        "{and: [{fileExists: /file}, {not: {fileExists: /none}}]}",
        "{or: [{fileExists: /file}, {fileExists: /broken}]}",
        "{not: [{folderExists: /file}]}",
    ];
    for text in yes.into_iter().chain(digests.iter().map(String::as_str)) {
        assert_eq!(holds(text), Ok(true), "{text}");
    }
}

#[test]
fn what_does_not_hold() {
    let no = [
        "{stringIsEmpty: ' '}",
        "{stringIsWhitespace: ''}",
        "{stringIsWhitespace: ' a'}",
        "{stringEquals: abc, value: 'abc '}",
        "{stringLessThan: A, value: b}",
        "{patternMatches: '^is$', value: ThisIsValue}",
        "{numberEquals: 1, value: one}",
        "{numberEquals: 1, value: ''}",
        "{numberLessThan: 1, value: NaN}",
        "{numberGreaterThan: 1, value: inf}",
        "{numberLessThan: 1, value: 2}",
        "{binaryExists: zsh}",
        "{fileExists: /folder}",
        "{folderExists: /file}",
        "{and: [{fileExists: /none}, {fileExists: /broken}]}",
        "{or: [{fileExists: /none}, {folderExists: /none}]}",
        "{not: {fileExists: /file}}",
    ];
    for text in no {
        assert_eq!(holds(text), Ok(false), "{text}");
    }
    let error = holds("{or: [{fileExists: /broken}, {fileExists: /file}]}");
    assert_eq!(error, Err("it is broken".to_owned()));
}

#[test]
fn conditions_are_shown_on_one_line() {
    let node = parsed("{and: [{not: {fileExists: /a}}, {or: [{numberLessThan: 2, value: 1}]}]}");
    let (inputs, _) = ActionKind::Assert.decode(node.as_ref(), amiforge_types::Span::default());
    let Some(ActionInputs::Assert(assert)) = inputs else {
        panic!("it is a condition")
    };
    assert_eq!(
        assert.condition.to_string(),
        r#"and [not fileExists "/a", or [numberLessThan "2" of value "1"]]"#
    );
}

#[test]
fn patterns_are_made_ready_when_the_step_runs() {
    for (pattern, problem) in [
        ("a(b", "unclosed group"),
        (r"\p{NoSuchScript}", "Unicode property not found"),
        ("(x{999}){999}", "exceeds size limit"),
    ] {
        let error = holds(&format!("{{patternMatches: '{pattern}', value: x}}")).unwrap_err();
        assert!(error.contains(problem), "{error}");
    }
    let many = vec!["{patternMatches: '(x{999}){999}', value: x}"; 10_000].join(", ");
    let text = format!(
        "{{schemaVersion: 1.0, phases: [{{name: build, steps: [{{name: A, action: Assert, inputs: {{or: [{many}]}}}}]}}]}}"
    );
    let (component, problems) = crate::parse_component(&text);
    assert!(component.is_some() && !problems.has_errors());
}
