//! Properties over random input.

use amiforge_recipe::{
    Piece, Scope, check_bytes, parse_component, parse_document, parse_recipe, pieces,
};
use amiforge_types::Span;
use proptest::prelude::*;

/// Fragments from which documents are made; glued at random they get deep into the readers.
const WORDS: &[&str] = &[
    "schemaVersion",
    "phases",
    "name",
    "steps",
    "action",
    "inputs",
    "commands",
    "parentImage",
    "ebs",
    "volumeSize",
    "components",
    "componentArn",
    "amiforge",
    "apt",
    "ExecuteBash",
    "CreateFile",
    "path",
    "permissions",
    "0755",
    "{{ Name }}",
    "{{ build.A.outputs.stdout }}",
    "{{",
    "}}",
    ": ",
    ":",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "'",
    "\"",
    "|",
    "|\n",
    ">",
    "&a ",
    "*a",
    "<<",
    "!!str ",
    "!Ref ",
    "#",
    "---",
    "...",
    "\t",
    "\r\n",
    "~",
    "null",
    "é",
    "🚀",
    "\u{feff}",
    "?",
    "%",
    "@",
    "-1",
    "x.x.x",
    "debian:bookworm",
];

fn document() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS), 0..80).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1500) })]

    #[test]
    fn readers_answer_whatever_the_text(text in document()) {
        let (component, problems) = parse_component(&text);
        prop_assert_eq!(component.is_none(), problems.has_errors());
        let (recipe, problems) = parse_recipe(&text);
        prop_assert_eq!(recipe.is_none(), problems.has_errors());
        let (_, any, problems) = parse_document(&text);
        prop_assert_eq!(any.is_none(), problems.has_errors());
        for problem in problems.iter() {
            if let Some(span) = problem.span {
                prop_assert!(text.get(span.start.offset..span.end.offset).is_some(), "{:?} in {:?}", problem, text);
            }
        }
    }

    #[test]
    fn readers_answer_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(text) = check_bytes(&bytes) {
            let _any = parse_document(text);
        }
    }

    #[test]
    fn pieces_put_together_are_the_text(text in document()) {
        let mut whole = String::new();
        for piece in pieces(&text) {
            whole.push_str(match piece {
                Piece::Literal(t) | Piece::Foreign(t) | Piece::Reference(t, _) => t,
            });
        }
        prop_assert_eq!(whole, text);
    }

    /// What a value brings in is never looked at again.
    #[test]
    fn resolving_is_a_single_pass(value in document(), before in "[a-z ]{0,9}") {
        let mut scope = Scope::default();
        scope.variables.insert("Name".to_owned(), value.clone());
        let resolved = scope.resolve_text(&format!("{before}{{{{ Name }}}}!"), Span::default());
        prop_assert_eq!(resolved.unwrap(), format!("{before}{value}!"));
    }

    /// Any text, written as a JSON string, comes back as it was.
    #[test]
    fn json_strings_come_back(text in any::<String>()) {
        let document = serde_json::json!({"schemaVersion": "1.0", "description": text, "phases": [
            {"name": "build", "steps": [{"name": "A", "action": "UpdateOS"}]}]});
        let (component, problems) = parse_component(&document.to_string());
        prop_assert!(component.is_some(), "{:?}", problems);
        prop_assert_eq!(component.unwrap().description.unwrap(), text);
    }
}
