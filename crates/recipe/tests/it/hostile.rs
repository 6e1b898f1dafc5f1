//! Documents that want to do harm get one clear error, soon.
#![allow(clippy::disallowed_types, reason = "the test measures time")]

use std::time::{Duration, Instant};

use amiforge_recipe::{
    MAX_DOCUMENT_BYTES, check_bytes, parse_component, parse_document, parse_recipe,
};

/// The codes of the problems; each reader must come back within a time that a debug build on a
/// busy machine keeps, and that anything quadratic in the limits does not.
fn codes(text: &str) -> Vec<&'static str> {
    let before = Instant::now();
    let (component, problems) = parse_component(text);
    let (recipe, _) = parse_recipe(text);
    let _any = parse_document(text);
    let took = before.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(component.is_none() && recipe.is_none());
    problems.iter().map(|p| p.code).collect()
}

#[test]
fn a_hundred_megabytes_are_refused_unread() {
    let nested = "[".repeat(100 << 20);
    let before = Instant::now();
    assert_eq!(codes(&nested), ["document-too-large"]);
    let problem = check_bytes(nested.as_bytes()).unwrap_err();
    assert_eq!(problem.code, "document-too-large");
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[test]
fn nesting_is_limited() {
    for nested in ["[", "{a: ", "- ", "{\"a\":["] {
        let text = nested.repeat(MAX_DOCUMENT_BYTES / nested.len());
        assert_eq!(codes(&text), ["nested-too-deep"], "{nested:?}");
    }
    assert_eq!(codes(&"? ".repeat(MAX_DOCUMENT_BYTES / 2)), ["complex-key"]);
    let mut block = String::new();
    for depth in 0..1_000 {
        block.push_str(&" ".repeat(depth));
        block.push_str("a:\n");
    }
    assert_eq!(codes(&block), ["nested-too-deep"]);
}

#[test]
fn alias_bombs_are_limited() {
    let mut values = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..20 {
        let again = format!("*a{}, ", i - 1).repeat(9);
        values.push_str(&format!("a{i}: &a{i} [{again}]\n"));
    }
    assert_eq!(codes(&values), ["alias-limit"]);

    let mut bytes = format!("a: &a '{}'\nb:\n", "x".repeat(100_000));
    bytes.push_str(&"  - *a\n".repeat(100_000));
    assert_eq!(codes(&bytes), ["alias-limit"]);

    // Each level wraps the one before: depth without text.
    let mut deep = String::from("a0: &a0 [x]\n");
    for i in 1..200 {
        deep.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert_eq!(codes(&deep), ["nested-too-deep"]);
}

#[test]
fn many_values_are_limited() {
    assert_eq!(
        codes(&"- x\n".repeat(MAX_DOCUMENT_BYTES / 4)),
        ["document-too-large"]
    );
    assert_eq!(
        codes(&format!("[{}]", "x,".repeat(MAX_DOCUMENT_BYTES / 2 - 4))),
        ["document-too-large"]
    );
}

#[test]
fn wide_mappings_are_not_quadratic() {
    let mut text = String::from("schemaVersion: 1.0\nphases: []\n");
    for i in 0..90_000 {
        text.push_str(&format!("k{i}: v\n"));
    }
    let codes = codes(&text);
    assert!(codes.contains(&"unknown-field"));
    assert!(codes.len() < 100, "{}", codes.len());
}

#[test]
fn many_braces_are_not_quadratic() {
    for braces in [
        "{{",
        "{{ a {{ b }}",
        "{{}}",
        "{{{",
        "}}",
        "{{ phase.step.outputs[99999999999999999999999].x }}",
    ] {
        let text = braces.repeat(MAX_DOCUMENT_BYTES / braces.len() / 2);
        let text = format!(
            "schemaVersion: 1.0\nphases: [{{name: build, steps: [{{name: A, action: ExecuteBash, inputs: {{commands: ['{text}'], x: 1}}}}]}}]\n"
        );
        assert!(codes(&text).len() < 100);
    }
}

#[test]
fn many_references_are_not_quadratic_and_hide_no_error() {
    for reference in [
        "{{.Names}}",
        "{{ build.A.stdout }}",
        "{{ loop.values }}",
        "{{ loop.value }}",
    ] {
        let many = format!("{reference} ").repeat(20_000);
        let text = format!(
            "schemaVersion: 1.0\nconstants: [Many: {{type: string, value: '{many}'}}]\nphases: [{{name: build, steps: [{{name: A, action: ExecuteBash, inputs: {{commands: ['{many}', '{{{{ Undeclared }}}}']}}}}]}}]\n"
        );
        let codes = codes(&text);
        assert!(codes.len() < 150, "{}", codes.len());
        assert!(codes.contains(&"undeclared-name"), "{reference}");
    }
}

#[test]
fn many_duplicates_are_reported_a_few_times() {
    let codes = codes(&"a: b\n".repeat(90_000));
    assert!(codes.len() < 200, "{}", codes.len());
    assert_eq!(codes[0], "duplicate-key");
}

#[test]
fn long_names_do_not_slow_the_search_for_what_was_meant() {
    let name = "x".repeat(1 << 19);
    let codes = codes(&format!("{name}: 1\nschemaVersion: 1.0\nphases: []\n"));
    assert!(
        codes.contains(&"unknown-field") || codes.contains(&"yaml-syntax"),
        "{codes:?}"
    );
}
