use super::*;
use crate::actions::ActionKind;

fn component(text: &str) -> Component {
    let (component, problems) = parse_component(text);
    component.unwrap_or_else(|| panic!("{problems:?}"))
}

const DOCUMENT: &str = "
schemaVersion: 1.0
parameters:
  - Level: {type: string, default: High, allowedValues: [High, Low]}
  - Needed: {type: string}
constants:
  - Fixed: {type: string, value: 1.10}
phases:
  - name: build
    steps:
      - {name: A, action: ExecuteBash, timeoutSeconds: -1, inputs: {commands: [ls]}}
";

fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn parameters_take_what_is_given_then_the_default() {
    let document = component(DOCUMENT);
    let resolved = document
        .resolve_parameters(&given(&[("Needed", "x"), ("Other", "y")]))
        .unwrap();
    assert_eq!(resolved, given(&[("Level", "High"), ("Needed", "x")]));
    let variables = document.variables(&resolved);
    assert_eq!(
        variables,
        given(&[("Level", "High"), ("Needed", "x"), ("Fixed", "1.10")])
    );
    let given_names = given(&[("Needed", "x"), ("Other", "y")]);
    assert_eq!(
        document.undeclared(&given_names).collect::<Vec<_>>(),
        ["Other"]
    );
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let document = component(DOCUMENT);
    let error = |pairs: &[(&str, &str)]| document.resolve_parameters(&given(pairs)).unwrap_err();
    assert_eq!(
        error(&[]),
        ParameterError::NoValue {
            name: "Needed".into()
        }
    );
    assert!(matches!(
        error(&[("Needed", ""), ("Level", "high")]),
        ParameterError::NotAllowed { .. }
    ));
    assert!(matches!(
        error(&[("Needed", ""), ("Fixed", "2")]),
        ParameterError::IsConstant { .. }
    ));
}

#[test]
fn defaults_of_a_step() {
    let document = component(DOCUMENT);
    let step = &document.phases[0].steps[0];
    assert_eq!(step.timeout_seconds, None);
    assert_eq!(
        (step.max_attempts, step.on_failure, step.disable_logging),
        (1, OnFailure::Abort, false)
    );
    let other = component(&DOCUMENT.replace("timeoutSeconds: -1, ", ""));
    assert_eq!(other.phases[0].steps[0].timeout_seconds, Some(7_200));
}

#[test]
fn layout_does_not_change_the_digest_and_content_does() {
    let digest = |text: &str| component(text).digest();
    let base = digest(DOCUMENT);
    let same = [
        DOCUMENT.replace("phases:", "# a comment\n\nphases:"),
        DOCUMENT.replace("\n", "\r\n"),
        DOCUMENT.replace("1.10", "'1.10'"),
        DOCUMENT.replace("[High, Low]", "[\n        High,\n        \"Low\"]"),
        format!("\u{feff}{DOCUMENT}"),
    ];
    for text in same {
        assert_eq!(digest(&text), base, "{text}");
    }
    let different = [
        DOCUMENT.replace("1.10", "1.1"),
        DOCUMENT.replace("[High, Low]", "[Low, High]"),
        DOCUMENT.replace("[ls]", "['ls ']"),
        DOCUMENT.replace(
            "Needed: {type: string}",
            "Needed: {type: string, default: }",
        ),
        DOCUMENT.replace("timeoutSeconds: -1, ", ""),
    ];
    for text in different {
        assert_ne!(digest(&text), base, "{text}");
    }
}

#[test]
fn the_catalogue_is_the_thirty_actions_of_the_reference_in_order() {
    let all: Vec<&str> = ActionKind::ALL.iter().map(|k| k.name()).collect();
    assert!(all.is_sorted_by(|a, b| a < b));
    assert_eq!(all.len(), 30);
}
