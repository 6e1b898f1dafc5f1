use super::*;

const STEPS: &str = "\
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: One
        action: ExecuteBash
        timeoutSeconds: 60
        inputs:
          commands: ['echo one', 'echo two', 'echo three']
      - name: Two
        action: CreateFile
        inputs:
          - {path: /a, content: 'x', overwrite: true}
      - name: Quiet
        action: ExecuteBash
        disableLogging: true
        inputs: {commands: ['hidden before']}
";

/// What is told when texts of [`STEPS`] are replaced, in turn.
fn told(changes: &[(&str, &str)], secrets: &[&str]) -> Vec<String> {
    let mut text = STEPS.to_owned();
    for (from, to) in changes {
        assert_eq!(text.matches(from).count(), 1, "{from:?}");
        text = text.replace(from, to);
    }
    let parse = |text: &str| {
        let (component, problems) = parse_component(text);
        component.unwrap_or_else(|| panic!("{problems:?}"))
    };
    let secrets = Secrets(secrets.iter().map(|s| (*s).to_owned()).collect());
    step_lines(&parse(STEPS), &parse(&text), &secrets)
}

#[test]
fn what_differs_inside_a_step_is_told_with_both_values() {
    for (from, to, line) in [
        (
            "'echo one'",
            "'echo uno'",
            "step One: inputs.commands[0]: \"echo one\" -> \"echo uno\"",
        ),
        (
            "timeoutSeconds: 60",
            "timeoutSeconds: 90",
            "step One: timeoutSeconds: 60 -> 90",
        ),
        (
            "        timeoutSeconds: 60\n",
            "",
            "step One: timeoutSeconds is gone: 60",
        ),
        (
            "timeoutSeconds: 60",
            "timeoutSeconds: 60\n        onFailure: Ignore",
            "step One: onFailure is new: Ignore",
        ),
        // One in the middle is one, and the others stay what they are.
        (
            "'echo two', ",
            "",
            "step One: inputs.commands[1] is gone: \"echo two\"",
        ),
        (
            "'echo two', ",
            "'echo two', \"echo \\\"and\\e[2J\\\"\", ",
            "step One: inputs.commands[2] is new: \"echo \\\"and\\u{1b}[2J\\\"\"",
        ),
        (
            "content: 'x'",
            "content: \"x\\ny\"",
            "step Two: inputs[0].content line 1: x -> \"x\\ny\"",
        ),
        (
            "['hidden before']",
            "['hidden after']",
            "step Quiet: inputs.commands[0] differs",
        ),
        ("name: Two", "name: Zwei", "step Two is now called Zwei"),
    ] {
        assert_eq!(told(&[(from, to)], &[]), [line], "{from:?} -> {to:?}");
    }
    assert_eq!(told(&[], &[]), Vec::<String>::new());
    let long = format!("'echo {}'", "x".repeat(500));
    let lines = told(&[("'echo one'", &long)], &[]);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].len() < 200 && lines[0].contains("xx…\""),
        "{lines:?}"
    );
}

#[test]
fn steps_come_go_and_move() {
    let one = "      - name: One\n        action: ExecuteBash\n        timeoutSeconds: 60\n        inputs:\n          \
               commands: ['echo one', 'echo two', 'echo three']\n";
    assert_eq!(told(&[(one, "")], &[]), ["step One is gone"]);
    // Other than its name, something in it changed, too.
    assert_eq!(
        told(
            &[("name: Two", "name: Zwei"), ("path: /a", "path: /b")],
            &[]
        ),
        ["step Zwei is new", "step Two is gone"]
    );
    let moved = [
        (one, ""),
        (
            "      - name: Quiet\n",
            &*format!("{one}      - name: Quiet\n"),
        ),
    ];
    assert_eq!(
        told(&moved, &[]),
        ["the order of the steps changed: One, Two, Quiet -> Two, One, Quiet"]
    );
}

#[test]
fn much_is_counted_and_secrets_are_not_shown() {
    let commands = (0..9).map(|n| format!("'other {n}'")).collect::<Vec<_>>();
    let all = format!("[{}]", commands.join(", "));
    let lines = told(&[("['echo one', 'echo two', 'echo three']", &all)], &[]);
    assert_eq!(lines.len(), MOST + 1);
    assert_eq!(lines[MOST], "step One: and 5 more");

    let lines = told(&[("'echo one'", "'login pa55word now'")], &["pa55word"]);
    assert_eq!(
        lines,
        ["step One: inputs.commands[0]: \"echo one\" -> \"login ******** now\""]
    );
}

#[test]
fn lists_of_names_say_what_is_new_and_gone() {
    let names =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    for (before, after, told) in [
        ("a b", "b a", ""),
        ("a b", "a b c", "c is new"),
        ("a b", "d c", "d, c are new, a, b are gone"),
        (
            "",
            "1 2 3 4 5 6 7 8 9 10",
            "1, 2, 3, 4, 5, 6, 7, 8, 2 more are new",
        ),
    ] {
        assert_eq!(of_lists(&names(before), &names(after)), told);
    }
}
