use super::*;

fn node(text: &str) -> Node {
    let mut diags = Diagnostics::new();
    let node = parse_node(text, &mut diags);
    assert!(diags.is_empty(), "{diags:?} in {text:?}");
    node.unwrap()
}

fn code(text: &str) -> &'static str {
    let mut diags = Diagnostics::new();
    let _node = parse_node(text, &mut diags);
    diags.iter().next().map_or("", |d| d.code)
}

fn cut<'t>(text: &'t str, node: &Node) -> &'t str {
    &text[node.span.start.offset..node.span.end.offset]
}

#[test]
fn spans_cut_out_what_was_written() {
    let text = "# ü\nplain: some text   # comment\nquoted: 'it''s'\ndouble: \"é\\n\"\nblock: |\n  one\n  two\n\nlast: [a,  {b: c}]\n";
    let root = node(text);
    let value = |key: &str| cut(text, root.get(key).unwrap());
    assert_eq!(value("plain"), "some text");
    assert_eq!(value("quoted"), "'it''s'");
    assert_eq!(value("double"), "\"é\\n\"");
    assert!(value("block").ends_with("two"), "{:?}", value("block"));
    assert_eq!(value("last"), "[");
    let NodeKind::Seq(items) = &root.get("last").unwrap().kind else {
        panic!()
    };
    assert_eq!(cut(text, &items[0]), "a");
    assert_eq!(cut(text, items[1].get("b").unwrap()), "c");
    assert_eq!(cut(text, &root), "plain");
}

#[test]
fn scalars_keep_their_text() {
    let root = node("[0755, 1.10, yes, ~, '', !!str null, \"null\", !!int 07]");
    assert_eq!(
        root.to_json(),
        serde_json::json!(["0755", "1.10", "yes", null, "", "null", "null", "07"])
    );
}

#[test]
fn json_is_read_as_json() {
    let text = "{\n\t\"a\": [1, -0.5e+3, true, null, {}, []],\t\"b\": \"\\ud83d\\ude80\\/\"\n}";
    assert_eq!(
        node(text).to_json(),
        serde_json::json!({"a": ["1", "-0.5e+3", "true", null, {}, []], "b": "🚀/"})
    );
    // Opens like JSON, and is YAML.
    assert_eq!(node("{\"a\": b}").to_json(), serde_json::json!({"a": "b"}));
    assert_eq!(
        node("[\"a\", b] # comment").to_json(),
        serde_json::json!(["a", "b"])
    );
    assert_eq!(code("{\n\t\"a\": 1,\n\t\"a\": 2\n}"), "duplicate-key");
    for bad in [
        "{\n\t\"a\" 1}",
        "{\n\t\"a\": \"\\ud83d\"}",
        "{\n\t\"a\": [01x}",
        "{\n\t\"a\": 1",
        "{\n\t\"a\": 1} x",
    ] {
        assert!(
            matches!(code(bad), "json-syntax" | "yaml-syntax"),
            "{bad:?} gave {:?}",
            code(bad)
        );
    }
}

#[test]
fn json_agrees_with_serde_json_on_what_is_json() {
    let words = [
        "0",
        "-0",
        "00",
        "1.",
        ".5",
        "1e5",
        "1e",
        "-",
        "+1",
        "1E-2",
        "nul",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\tb\"",
        "[1,]",
        "[,]",
        "{\"a\":}",
        "{\"a\"}",
    ];
    for word in words {
        let text = format!("[\"x\", {word}]");
        let mut diags = Diagnostics::new();
        let mut builder = Builder::new(&mut diags);
        let ours = json::read(&text, 0, &mut builder).is_ok();
        assert_eq!(
            ours,
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{text}"
        );
    }
}

#[test]
fn a_line_separator_is_no_line_break_for_places() {
    let text = "a: b\u{2028}c\nd: e\n";
    let root = node(text);
    assert_eq!(cut(text, root.get("d").unwrap()), "e");
}

#[test]
fn wrong_bytes_have_a_place() {
    let problem = check_bytes(b"ok\nab\xc3\xa9\xff").unwrap_err();
    let start = problem.span.unwrap().start;
    assert_eq!(
        (problem.code, start.line, start.column, start.offset),
        ("not-utf8", 2, 4, 7)
    );
}

#[test]
fn limits_hold_at_the_border() {
    let depth = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    use crate::builder::MAX_DEPTH;
    assert_eq!(code(&depth(MAX_DEPTH)), "");
    assert_eq!(code(&depth(MAX_DEPTH + 1)), "nested-too-deep");
    assert_eq!(code(&format!("x{}", depth(3).replace('[', "- "))), "");
    let alias = |n: usize| format!("a: &a {}\nb: {{c: *a}}", depth(n));
    assert_eq!(code(&alias(MAX_DEPTH - 2)), "");
    assert_eq!(code(&alias(MAX_DEPTH - 1)), "nested-too-deep");
}

#[test]
fn what_is_no_yaml_is_told_with_where_it_comes_from() {
    for (text, place, part) in [
        (
            "schemaVersion: 1.0\nname: \"an open text\nphases:\n  - name: build\n",
            "2:7",
            "the `\"` that opens here is not closed",
        ),
        (
            "name: x\ndescription: 'open\n",
            "2:14",
            "the `'` that opens here is not closed",
        ),
        (
            "commands:\n  - 'echo it's fine'\n  - b\n",
            "2:14",
            "that begins in column 5 | put the quotes around the whole value; a `'` inside",
        ),
        (
            "commands:\n  - \"echo\" two\n",
            "2:12",
            "that begins in column 5 | put the quotes around the whole value, single ones",
        ),
        (
            "steps:\n  - name: A\n   action: B\n",
            "3:4",
            "the fields above begin in column 5, and this line in column 4",
        ),
        (
            "name: A\naction: B\n  inputs:\n    a: b\n",
            "3:9",
            "line 2 has its value already, and this line is indented deeper: begin it in column 1",
        ),
        (
            "phases:\n  - name: build\n steps:\n",
            "3:2",
            "the fields above begin in column 1",
        ),
        (
            "schemaVersion: 1.0\n phases:\n",
            "2:8",
            "line 1 has its value already",
        ),
        (
            "- name: A\n  action ExecuteBash\n  inputs: x\n",
            "2:3",
            "this is no `key: value`, as the lines around it are | write a colon and a blank behind the key: `action: `",
        ),
        (
            "x:\n   commands:\n     - a\n    - b\n",
            "4:5",
            "entries of the list above begin in column 6, and this line in column 5",
        ),
        (
            "phases:\n  - name: build\n    steps: []\n  name: x\n",
            "4:3",
            "the fields above begin in column 5; in column 3, where this line does, entries of a list",
        ),
        (
            "steps:\n  - name: A\n  -name: B\n",
            "3:3",
            "a blank belongs between the `-`",
        ),
        ("a: [b, c\nd: e\n", "2:2", "close every bracket"),
        ("a: - b\n", "1:4", "a list begins in the line below its key"),
        ("- @x\n", "1:3", "put quotes around a text that starts with"),
        (
            "- a: `x`\n",
            "1:6",
            "put quotes around a text that starts with",
        ),
    ] {
        let mut diags = Diagnostics::new();
        parse_node(text, &mut diags);
        let problem = diags.iter().next().expect(text);
        assert_eq!(problem.code, "yaml-syntax");
        let told = format!(
            "{problem} | {}",
            problem.help.as_deref().unwrap_or_default()
        );
        assert!(
            told.starts_with(place) && told.contains(part),
            "{text}{told}"
        );
    }
}

/// A line or many lines of what the search for a cause looks at.
#[test]
fn to_look_for_the_cause_of_bad_yaml_ends_soon() {
    for text in [
        format!("- name: A\n{} -x: y\n", "  - a\n".repeat(100_000)),
        format!("- '{}' x\n", "a' '".repeat(200_000)),
        format!("{}: x\n y\n", "- ".repeat(60)),
        format!("a: b\n{}c: d\n", " ".repeat(500_000)),
        format!("é: b\n{}c d: \"\n", "- é\n".repeat(100_000)),
    ] {
        let mut diags = Diagnostics::new();
        parse_node(&text, &mut diags);
        assert!(!diags.is_empty());
    }
}
