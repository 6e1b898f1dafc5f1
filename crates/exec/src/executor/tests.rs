//! The executor on the live root of the test machine: only commands that change nothing outside a
//! temporary folder.

use super::*;
use crate::ToeLog;

fn run_text(text: &str, parameters: &[(&str, &str)]) -> (RunResult, Vec<ChildEvent>) {
    let parameters = parameters
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let spec = RunSpec {
        execution_id: "00000000-0000-1000-8000-000000000001".to_owned(),
        documents: vec![DocumentSpec {
            name: "/docs/test.yaml".to_owned(),
            text: text.to_owned(),
            parameters,
            earlier: Vec::new(),
            working_directory: None,
        }],
        phases: vec!["build".to_owned()],
        env: BTreeMap::from([("EXTRA".to_owned(), "yes".to_owned())]),
        clock: Timestamp::from_secs(1_700_000_000),
        ..RunSpec::default()
    };
    let mut events = Vec::new();
    let result = run(&spec, &Outside::default(), &mut |event| events.push(event));
    (result, events)
}

fn steps(result: &RunResult) -> Vec<(&str, Status, u32, Option<i32>)> {
    result.documents[0].phases[0]
        .steps
        .iter()
        .map(|s| (s.name.as_str(), s.status, s.attempts, s.exit_code))
        .collect()
}

#[test]
fn a_secret_is_used_and_shown_nowhere() {
    const SECRET: &str = "canary-7f3a";
    let text = "
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Print
        action: ExecuteBash
        inputs: {commands: ['echo before {{ aws:ssm:/token }} after; echo err-{{ aws:ssm:/token }} >&2']}
      - name: Use
        action: ExecuteBash
        loop: {forEach: ['{{ aws:ssm:/token }}']}
        inputs: {commands: ['[ \"{{ loop.value }}\" = canary\"\"-7f3a ] && echo {{ build.Print.outputs.stdout }} | wc -w']}
      - name: Fail
        action: ExecuteBinary
        onFailure: Continue
        inputs: {path: '/nowhere/{{ aws:ssm:/token }}'}
      - name: Last
        action: ExecuteBash
        inputs: {commands: ['exit 3 # {{ aws:ssm:/token }}']}
";
    let external = crate::External {
        value: SECRET.to_owned(),
        secret: true,
    };
    let spec = RunSpec {
        execution_id: "1".to_owned(),
        documents: vec![DocumentSpec {
            name: "doc.yaml".to_owned(),
            text: text.to_owned(),
            parameters: BTreeMap::new(),
            earlier: Vec::new(),
            working_directory: None,
        }],
        phases: vec!["build".to_owned()],
        external: BTreeMap::from([("aws:ssm:/token".to_owned(), external)]),
        ..RunSpec::default()
    };
    assert!(!format!("{spec:?}").contains(SECRET));
    let dir = tempfile::tempdir().unwrap();
    let mut log = ToeLog::create(dir.path(), &spec).unwrap();
    let mut events = Vec::new();
    let result = run(&spec, &Outside::default(), &mut |event| {
        log.event(&event);
        events.push(event);
    });
    let folder = log.dir().to_owned();
    log.finish(&result).unwrap();
    let told = serde_json::to_string(&(&events, &result)).unwrap();
    assert!(!told.contains(SECRET), "{told}");
    for file in fs_err::read_dir(folder).unwrap() {
        let text = fs_err::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(SECRET), "{text}");
    }
    let steps = &result.documents[0].phases[0].steps;
    assert_eq!(steps[0].outputs[0]["stdout"], "before ******** after");
    assert_eq!(steps[1].outputs[0]["stdout"].trim(), "3");
    assert!(steps[2].failure_message.contains("/nowhere/********"));
    assert_eq!(steps[3].exit_code, Some(3));
}

#[test]
fn chains_outputs_parameters_and_constants() {
    let (result, events) = run_text(
        "
name: chain
schemaVersion: 1.0
parameters:
  - Greeting: {type: string, default: hello}
constants:
  - Mark: {type: string, value: '!'}
phases:
  - name: other
    steps:
      - {name: Never, action: ExecuteBash, inputs: {commands: ['exit 1']}}
  - name: build
    steps:
      - name: One
        action: ExecuteBash
        inputs: {commands: ['x={{ Greeting }}', 'echo \"$x{{Mark}}\"', 'echo second']}
      - name: Two
        action: ExecuteBinary
        inputs: {path: printf, arguments: ['%s|%s', '{{ build.One.outputs.stdout }}', '{{build.One.inputs.commands}}']}
",
        &[("Greeting", "hej"), ("Unknown", "x")],
    );
    assert_eq!(result.status, Status::Success, "{:?}", result.failure);
    let two = &result.documents[0].phases[1].steps[1];
    assert!(
        two.outputs[0]["stdout"].starts_with("hej!\nsecond|"),
        "{two:?}"
    );
    assert!(events.contains(&ChildEvent::Stdout {
        line: "hej!".to_owned()
    }));
    assert_eq!(result.documents[0].phases[0].status, Status::Skipped);
}

#[test]
fn a_failure_says_where_what_and_quotes_the_end() {
    let (result, _) = run_text(
        "
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Fine
        action: ExecuteBash
        inputs: {commands: ['true']}
      - name: Bad
        action: ExecuteBash
        inputs: {commands: ['for i in $(seq 100); do echo line $i; done', 'echo sorry >&2; exit 3']}
      - name: After
        action: ExecuteBash
        inputs: {commands: ['true']}
",
        &[],
    );
    let failure = result.failure.as_ref().unwrap();
    assert_eq!(result.status, Status::Failed);
    assert_eq!(
        (
            failure.step.as_str(),
            failure.action.as_str(),
            failure.exit_code
        ),
        ("Bad", "ExecuteBash", Some(3))
    );
    assert!(failure.command.contains("echo sorry"));
    assert!(
        failure.tail.iter().any(|l| l == "sorry") && failure.tail.iter().any(|l| l == "line 100"),
        "{:?}",
        failure.tail
    );
    assert_eq!(steps(&result).len(), 2, "nothing runs after an abort");
}

#[test]
fn attempts_and_on_failure() {
    let temp = tempfile::tempdir().unwrap();
    let count = temp.path().join("count");
    let text = format!(
        "
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Third
        action: ExecuteBash
        maxAttempts: 3
        inputs: {{commands: ['echo x >> {0}', 'test $(wc -l < {0}) = 3']}}
      - name: Ignored
        action: ExecuteBash
        onFailure: Ignore
        inputs: {{commands: ['exit 4']}}
      - name: Continued
        action: ExecuteBash
        onFailure: Continue
        inputs: {{commands: ['exit 5']}}
      - name: Slow
        action: ExecuteBash
        onFailure: Continue
        timeoutSeconds: 1
        maxAttempts: 2
        inputs: {{commands: ['sleep 100']}}
      - name: Last
        action: ExecuteBash
        inputs: {{commands: ['true']}}
",
        count.display()
    );
    let (result, events) = run_text(&text, &[]);
    assert_eq!(
        steps(&result),
        [
            ("Third", Status::Success, 3, Some(0)),
            ("Ignored", Status::IgnoredFailure, 1, Some(4)),
            ("Continued", Status::Failed, 1, Some(5)),
            ("Slow", Status::Failed, 2, None),
            ("Last", Status::Success, 1, Some(0)),
        ]
    );
    assert_eq!(result.failure.unwrap().step, "Continued");
    assert_eq!(
        events
            .iter()
            .filter(|e| matches!(e, ChildEvent::Retry { .. }))
            .count(),
        3
    );
    let slow = &result.documents[0].phases[0].steps[3];
    assert_eq!(slow.failure_message, "timed out after 1 seconds");
}

#[test]
fn a_step_that_asks_for_a_reboot_is_run_again() {
    let temp = tempfile::tempdir().unwrap();
    let mark = temp.path().join("mark");
    let text = format!(
        "{{schemaVersion: 1.0, phases: [{{name: build, steps: [{{name: R, action: ExecuteBash, inputs: {{commands: ['test -e {0} || {{ touch {0}; exit 194; }}']}}}}]}}]}}",
        mark.display()
    );
    let (result, _) = run_text(&text, &[]);
    assert_eq!(steps(&result), [("R", Status::Success, 1, Some(0))]);
    let always = "{schemaVersion: 1.0, phases: [{name: build, steps: [{name: R, action: ExecuteBash, inputs: {commands: ['exit 194']}}]}]}";
    assert_eq!(
        steps(&run_text(always, &[]).0),
        [("R", Status::Failed, 1, Some(194))]
    );
}

#[test]
fn the_environment_is_ours() {
    let (result, _) = run_text(
        "{schemaVersion: 1.0, phases: [{name: build, steps: [{name: E, action: ExecuteBash, inputs: {commands: ['env; umask; pwd']}}]}]}",
        &[],
    );
    let stdout = &result.documents[0].phases[0].steps[0].outputs[0]["stdout"];
    let mut names: Vec<&str> = stdout
        .lines()
        .filter_map(|l| Some(l.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    names.retain(|n| !["_", "SHLVL", "PWD", "OLDPWD"].contains(n));
    assert_eq!(
        names,
        [
            "DEBIAN_FRONTEND",
            "EXTRA",
            "HOME",
            "LANG",
            "LOGNAME",
            "PATH",
            "SHELL",
            "SOURCE_DATE_EPOCH",
            "TZ",
            "USER"
        ]
    );
    assert!(stdout.ends_with("0022\n/"), "{stdout}");
}

#[test]
fn silent_steps_stay_out_of_everything() {
    let (result, events) = run_text(
        "{schemaVersion: 1.0, phases: [{name: build, steps: [{name: S, action: ExecuteBash, disableLogging: true, inputs: {commands: ['echo s3cret; exit 1']}}]}]}",
        &[],
    );
    let temp = tempfile::tempdir().unwrap();
    let spec = RunSpec {
        execution_id: "x".into(),
        documents: Vec::new(),
        phases: Vec::new(),
        env: BTreeMap::new(),
        clock: Timestamp::default(),
        ..RunSpec::default()
    };
    let mut log = ToeLog::create(temp.path(), &spec).unwrap();
    events.iter().for_each(|e| log.event(e));
    let dir = log.dir().to_owned();
    log.finish(&result).unwrap();
    for name in [
        "console.log",
        "application.log",
        "detailedoutput.json",
        "chaining.json",
    ] {
        let text = fs_err::read_to_string(dir.join(name)).unwrap();
        assert!(
            !text.is_empty() && !text.contains("s3cret"),
            "{name}: {text}"
        );
    }
    assert!(!format!("{result:?}").contains("s3cret"));
}

#[test]
fn bad_documents_and_parameters_are_failures_with_a_place() {
    let (result, _) = run_text(
        "schemaVersion: 1.0\nphases:\n  - name: build\n    steps: [{name: A, action: Nope}]\n",
        &[],
    );
    let reason = result.failure.unwrap().reason;
    assert!(reason.contains("4:") && reason.contains("Nope"), "{reason}");
    let no_value = "{schemaVersion: 1.0, parameters: [{Need: {type: string}}], phases: [{name: build, steps: [{name: S, action: ExecuteBash, inputs: {commands: ['true']}}]}]}";
    assert!(
        run_text(no_value, &[])
            .0
            .failure
            .unwrap()
            .reason
            .contains("Need")
    );
}

#[test]
fn the_log_folder_has_the_shape_of_the_real_tool() {
    let (result, events) = run_text(
        "{name: doc, schemaVersion: 1.0, phases: [{name: build, steps: [{name: Hi, action: ExecuteBash, inputs: {commands: ['echo hi']}}]}]}",
        &[],
    );
    let temp = tempfile::tempdir().unwrap();
    let spec = RunSpec {
        execution_id: result.execution_id.clone(),
        documents: vec![DocumentSpec {
            name: "/a/b c.yaml".into(),
            text: "x".into(),
            parameters: BTreeMap::new(),
            earlier: Vec::new(),
            working_directory: None,
        }],
        phases: Vec::new(),
        env: BTreeMap::new(),
        clock: Timestamp::default(),
        ..RunSpec::default()
    };
    let mut log = ToeLog::create(&temp.path().join("logs"), &spec).unwrap();
    events.iter().for_each(|e| log.event(e));
    let dir = log.dir().to_owned();
    log.finish(&result).unwrap();
    let name = dir.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("TOE_20") && name.ends_with("_UTC-0_00000000-0000-1000-8000-000000000001"),
        "{name}"
    );
    assert!(dir.join("D0__b_c.yaml").is_file());
    let console = fs_err::read_to_string(dir.join("console.log")).unwrap();
    assert!(
        console.contains(" Stdout: hi\n")
            && console.ends_with(" TOE has completed execution successfully\n")
    );
    let detailed = fs_err::read_to_string(dir.join("detailedoutput.json")).unwrap();
    assert!(
        detailed.starts_with("{\n    \"executionId\": \""),
        "{detailed}"
    );
    let value: serde_json::Value = serde_json::from_str(&detailed).unwrap();
    let step = &value["documents"][0]["phases"][0]["steps"][0];
    assert_eq!(step["inputs"], r#"[{"commands":["echo hi"]}]"#);
    assert_eq!(step["outputs"], r#"[{"stdout":"hi"}]"#);
    assert_eq!(step["status"], "success");
}

#[test]
fn content_is_printed_when_asked_and_never_of_a_silent_step() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("text");
    fs_err::write(&path, "one\ntwo\n").unwrap();
    let read = |options: &str| {
        let text = format!(
            "{{schemaVersion: 1.0, phases: [{{name: build, steps: [{{name: R, action: ReadFile{options}: [{{path: {0}}}, {{path: {0}, printFileContent: true}}]}}]}}]}}",
            path.display()
        );
        let (result, events) = run_text(&text, &[]);
        assert_eq!(steps(&result), [("R", Status::Success, 1, None)]);
        let lines: Vec<String> = events
            .into_iter()
            .filter_map(|event| match event {
                ChildEvent::Stdout { line } => Some(line),
                _ => None,
            })
            .collect();
        let outputs = result.documents[0].phases[0].steps[0].outputs.clone();
        (lines, outputs)
    };
    let (lines, outputs) = read(", inputs");
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(outputs.len(), 2);
    assert_eq!(outputs[0]["content"], "one\ntwo\n");
    let (lines, outputs) = read(", disableLogging: true, inputs");
    assert!(
        lines.is_empty() && outputs.is_empty(),
        "{lines:?} {outputs:?}"
    );
}

#[test]
fn a_silent_assertion_does_not_say_what_it_compared() {
    let assert = |options: &str| {
        let text = format!(
            "{{schemaVersion: 1.0, phases: [{{name: build, steps: [{{name: A, action: Assert{options}: {{stringEquals: s3cret, value: other}}}}]}}]}}"
        );
        run_text(&text, &[]).0
    };
    let reason = |result: &RunResult| result.failure.as_ref().unwrap().reason.clone();
    assert_eq!(
        reason(&assert(", inputs")),
        "the condition is false: stringEquals \"s3cret\" of value \"other\""
    );
    let silent = assert(", disableLogging: true, inputs");
    assert_eq!(reason(&silent), "the condition is false");
    assert!(!format!("{silent:?}").contains("s3cret"));
}

/// The result of `build` with these steps, one a line.
fn run_steps(steps: &str) -> RunResult {
    let list: String = steps
        .lines()
        .map(|step| format!("      - {{{}}}\n", step.trim()))
        .collect();
    let text = format!("schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n{list}");
    run_text(&text, &[]).0
}

#[test]
fn the_step_that_ended_the_run_is_named_first_and_the_others_after_it() {
    let ended = run_steps(
        "name: One, action: ExecuteBash, onFailure: Continue, inputs: {commands: ['echo of one; exit 3']}
         name: Two, action: ExecuteBash, onFailure: Ignore, inputs: {commands: ['exit 4']}
         name: Three, action: ExecuteBash, inputs: {commands: ['echo of three; exit 5']}",
    );
    let failure = ended.failure.as_ref().unwrap();
    assert_eq!((failure.step.as_str(), failure.went_on), ("Three", false));
    assert_eq!(failure.tail, ["of three"]);
    assert_eq!(ended.also.len(), 1);
    assert_eq!(
        (ended.also[0].step.as_str(), ended.also[0].went_on),
        ("One", true)
    );
    assert_eq!(ended.also[0].tail, ["of one"]);
    assert_eq!(
        ended.summary(String::new()).failure_message,
        "/docs/test.yaml: phase build, step Three (ExecuteBash): bash ended with exit code 5; \
         /docs/test.yaml: phase build, step One (ExecuteBash): bash ended with exit code 3"
    );
    // To its end: the first to fail comes first.
    let went_on = run_steps(
        "name: One, action: ExecuteBash, onFailure: Continue, inputs: {commands: ['exit 3']}
         name: Two, action: ExecuteBash, onFailure: Continue, inputs: {commands: ['exit 4']}
         name: Three, action: ExecuteBash, inputs: {commands: ['true']}",
    );
    assert_eq!(went_on.status, Status::Failed);
    assert_eq!(went_on.failure.unwrap().step, "One");
    assert_eq!(went_on.also[0].step, "Two");
}

#[test]
fn failures_of_a_nested_document_are_those_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let step = |name: &str, more: &str| {
        format!("{{name: {name}, action: ExecuteBash{more}, inputs: {{commands: ['exit 3']}}}}")
    };
    let write = |name: &str, steps: &[String]| {
        let path = dir.path().join(name);
        let list = steps.join(", ");
        let text = format!("{{schemaVersion: 1.0, phases: [{{name: build, steps: [{list}]}}]}}");
        fs_err::write(&path, text).unwrap();
        path.display().to_string()
    };
    let go_on = ", onFailure: Continue";
    let aborts = write("aborts", &[step("A", go_on), step("B", "")]);
    let goes_on = write("goes-on", &[step("C", go_on)]);
    let run = |document: &str, more: &str| {
        let result = run_steps(&format!(
            "name: Outer, action: ExecuteDocument{more}, inputs: {{document: '{document}'}}"
        ));
        let all = result.failure.iter().chain(&result.also);
        all.map(|f| (f.step.clone(), f.went_on)).collect::<Vec<_>>()
    };
    let named = |list: &[(&str, bool)]| -> Vec<(String, bool)> {
        list.iter().map(|(n, w)| ((*n).to_owned(), *w)).collect()
    };
    assert_eq!(run(&aborts, ""), named(&[("B", false), ("A", true)]));
    assert_eq!(run(&aborts, go_on), named(&[("B", true), ("A", true)]));
    // No step of the document ended the run.
    assert_eq!(run(&goes_on, ""), named(&[("Outer", false), ("C", true)]));
    assert_eq!(run(&goes_on, go_on), named(&[("C", true)]));
}

#[test]
fn what_a_failed_command_wrote_can_be_referred_to() {
    let result = run_steps(
        "name: Some, action: ExecuteBash, onFailure: Ignore, inputs: {commands: ['echo some; echo err >&2; exit 3']}
         name: None, action: ExecuteBinary, onFailure: Ignore, inputs: {path: /nowhere}
         name: Late, action: ExecuteBash, onFailure: Ignore, timeoutSeconds: 1, inputs: {commands: ['echo late; sleep 60']}
         name: Loop, action: ExecuteBash, onFailure: Ignore, loop: {forEach: [a, b]}, inputs: {commands: ['echo {{ loop.value }}; test {{ loop.value }} = a']}
         name: Never, action: ExecuteBash, onFailure: Ignore, loop: {forEach: [a, b]}, inputs: {commands: ['echo {{ loop.value }}; exit 1']}
         name: Again, action: ExecuteBash, onFailure: Ignore, maxAttempts: 2, inputs: {commands: ['echo once; exit 1']}
         name: Use, action: ExecuteBash, inputs: {commands: ['echo \"<{{ build.Some.outputs.stdout }}|{{ build.Some.outputs[0].stdout }}|{{ build.None.outputs.stdout }}|{{ build.Late.outputs.stdout }}|{{ build.Loop.outputs.stdout }}|{{ build.Never.outputs.stdout }}|{{ build.Again.outputs.stdout }}>\"']}",
    );
    assert_eq!(
        result.status,
        Status::IgnoredFailure,
        "{:?}",
        result.failure
    );
    let last = result.documents[0].phases[0].steps.last().unwrap();
    assert_eq!(last.outputs[0]["stdout"], "<some|some||late|a||once>");
}

#[test]
fn a_failed_action_without_output_has_none_to_refer_to() {
    let result = run_steps(
        "name: Read, action: ReadFile, onFailure: Continue, inputs: [{path: /nowhere}]
         name: Use, action: ExecuteBash, inputs: {commands: ['echo {{ build.Read.outputs.content }}']}",
    );
    let failure = result.failure.unwrap();
    assert_eq!(failure.step, "Use");
    assert!(failure.reason.contains("output"), "{}", failure.reason);
}
