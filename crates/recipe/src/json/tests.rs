use amiforge_types::Diagnostics;

use super::check_json;
use crate::yaml::parse_node;

/// Where, what, help.
fn told(text: &str) -> String {
    let problem = check_json(text).expect_err(text);
    assert_eq!(problem.code, "json-syntax");
    let shown = problem.to_string();
    let (place, message) = shown
        .split_once(" error[json-syntax]: not valid JSON: ")
        .unwrap();
    // Places lie in the text.
    let span = problem.span.unwrap();
    assert!(text.get(span.start.offset..span.end.offset).is_some());
    let help = problem
        .help
        .map_or(String::new(), |help| format!(" | {help}"));
    format!("{place} {message}{help}")
}

#[test]
fn what_is_not_json_is_told_in_words_of_json() {
    for (text, expected) in [
        ("{\"a\": 1,}", "1:8: a comma stands after the last value"),
        ("[1,\n]", "1:3: a comma stands after the last value"),
        ("{\"a\": 1\n \"b\": 2}", "1:8: a comma is missing here"),
        ("[\"a\" \"b\"]", "1:5: a comma is missing here"),
        ("{\"a\": \"x\"y\"}", "1:10: the value ends before this"),
        (
            "{\"a\": 1 # one\n}",
            "1:9: JSON has no comments | remove it, or name the file `.yaml`",
        ),
        ("// all\n{\"a\": 1}", "1:1: JSON has no comments"),
        ("{\"a\": /* b */ 1}", "1:7: JSON has no comments"),
        ("{\"a\": 1} // end", "1:10: JSON has no comments"),
        ("{'a': 1}", "1:2: a single quote begins a key"),
        ("{\"a\": 'b'}", "1:7: a single quote begins a text"),
        ("{name: 1}", "1:2: the key \"name\" stands without quotes"),
        (
            "{\"a\": build}",
            "1:7: the text \"build\" stands without quotes",
        ),
        (
            "{\"a\": {{ Name }}}",
            "1:8: `{` stands where a key in double quotes should",
        ),
        (
            "{\"a\": yes}",
            "1:7: \"yes\" is no value of JSON | write `true`",
        ),
        (
            "{\"a\": None}",
            "1:7: \"None\" is no value of JSON | write `null`",
        ),
        (
            "{\"a\": 0755}",
            "1:7: \"0755\" is no number of JSON | put double quotes around it",
        ),
        ("{\"a\": }", "1:7: a value is missing before this"),
        ("[1,,2]", "1:4: a value is missing before this"),
        ("{\"a\" 1}", "1:5: a colon is missing after this key"),
        ("{\"a\"}", "1:5: a colon is missing after this key"),
        (
            "{\n \"a\": [1, 2\n}",
            "3:1: `}` cannot close the `[` of line 2, column 7 | write `]`",
        ),
        (
            "{\n \"a\": [1, 2]\n",
            "1:1: this `{` is not closed before the end of the text | write `}`",
        ),
        (
            "{\"a\": [1,",
            "1:7: this `[` is not closed before the end of the text",
        ),
        (
            "{\"a\":",
            "1:1: this `{` is not closed before the end of the text",
        ),
        (
            "{\"a\": \"b\n}",
            "1:7: this string does not end in its line",
        ),
        ("{\"a\": \"b", "1:7: this string has no end"),
        (
            "{\"a\": \"b\tc\"}",
            "1:9: a tab stands inside a string | write it as `\\t`",
        ),
        (
            "{\"a\": \"b\u{7}c\"}",
            "1:9: the character U+0007 stands inside a string | write it as `\\u0007`",
        ),
        (
            "{\"a\": \"\\x07\"}",
            "1:8: there is no escape `\\x` | write it as `\\u0007`",
        ),
        (
            "{\"a\": \"C:\\dir\"}",
            "1:10: there is no escape `\\d` | a backslash itself is written `\\\\`",
        ),
        (
            "{\"a\": \"\\ud83d\"}",
            "1:8: this escape is half of a character",
        ),
        (
            "{\"a\": 1}}",
            "1:9: this stands after the end of the document",
        ),
        (
            "{\"a\":\u{a0}1}",
            "1:6: the character U+00A0 stands where a value should",
        ),
        ("[1: 2]", "1:2: \"1:\" is no number of JSON"),
        ("[\"a\": 2]", "1:5: a colon stands in a list"),
        (
            "name: x\n",
            "1:1: \"name:\" begins no document | a document in JSON begins with `{`",
        ),
        (
            "\u{feff}{\"é\": 1,}",
            "1:8: a comma stands after the last value",
        ),
    ] {
        let found = told(text);
        assert!(found.starts_with(expected), "{text:?}: {found}");
    }
}

#[test]
fn what_is_json_passes_whatever_else_is_wrong_with_it() {
    for text in [
        "",
        " \n",
        "\u{feff}{\"a\": 1}\r\n",
        "{\"a\": 1, \"a\": 2}",
        "{\"a\": [\t1.5e3, -0, true, null, \"\\ud83d\\ude00\\u0000\"]}",
        &"[".repeat(100_000),
    ] {
        assert_eq!(check_json(text), Ok(()), "{text:?}");
    }
}

/// What JSON and YAML both refuse is told in JSON's words when it begins like JSON; the rest in YAML's.
#[test]
fn without_the_name_the_beginning_tells_whose_words_are_used() {
    let codes = |text: &str| {
        let mut diags = Diagnostics::new();
        parse_node(text, &mut diags);
        diags.iter().map(|p| p.code).collect::<Vec<_>>()
    };
    assert_eq!(codes("{\"a\": 1\n \"b\": 2}"), ["json-syntax"]);
    assert_eq!(codes("{\"a\": [1}"), ["json-syntax"]);
    assert_eq!(codes("{\"a\": b, \"c\": [1}"), ["yaml-syntax"]);
    assert!(codes("{\"a\": b, # c\n 'c': 1,}").is_empty());
}
