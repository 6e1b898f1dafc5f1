use super::*;

fn only(text: &str) -> Option<Reference> {
    match pieces(text).as_slice() {
        [Piece::Reference(source, reference)] if *source == text => Some(reference.clone()),
        _ => None,
    }
}

fn chain(phase: &str, step: &str, side: Side, index: Option<usize>, key: &str) -> Reference {
    let [phase, step, key] = [phase, step, key].map(str::to_owned);
    Reference::Chain(Chain {
        phase,
        step,
        side,
        index,
        key,
    })
}

#[test]
fn marks_stand_for_secrets_wherever_they_are() {
    let mark = secret_mark("web.Token");
    let text = format!("a{mark}b{{{{ Name }}}}{mark}");
    let secret = Piece::Reference(&mark, Reference::Secret("web.Token".into()));
    let name = Piece::Reference("{{ Name }}", Reference::Variable("Name".into()));
    assert_eq!(
        pieces(&text),
        [
            Piece::Literal("a"),
            secret.clone(),
            Piece::Literal("b"),
            name,
            secret
        ]
    );
    let foreign = format!("{{{{ \"{mark}\" | quote }}}}");
    let pieces_of_it = pieces(&foreign);
    assert!(pieces_of_it.contains(&Piece::Reference(
        &mark,
        Reference::Secret("web.Token".into())
    )));
    // One that does not end is text.
    let open = &mark[..mark.len() - 1];
    assert_eq!(pieces(open), [Piece::Literal(open)]);
}

#[test]
fn every_form_is_read() {
    let cases = [
        ("{{ Name }}", Reference::Variable("Name".into())),
        ("{{Name}}", Reference::Variable("Name".into())),
        (
            "{{\tmy-name_1 \n}}",
            Reference::Variable("my-name_1".into()),
        ),
        (
            "{{ build.A.inputs.path }}",
            chain("build", "A", Side::Inputs, None, "path"),
        ),
        (
            "{{ build.A.inputs[0].path }}",
            chain("build", "A", Side::Inputs, Some(0), "path"),
        ),
        (
            "{{ my-phase.step_2.outputs[12].stdout }}",
            chain("my-phase", "step_2", Side::Outputs, Some(12), "stdout"),
        ),
        ("{{ loop.index }}", Reference::LoopIndex(None)),
        ("{{ loop.value }}", Reference::LoopValue(None)),
        (
            "{{ each.value }}",
            Reference::LoopValue(Some("each".into())),
        ),
        (
            "{{ env:ProgramFiles(x86) }}",
            Reference::Environment("ProgramFiles(x86)".into()),
        ),
        ("{{ context:date }}", Reference::Context("date".into())),
        ("{{ aws:ssm:/a/b }}", Reference::Aws("aws:ssm:/a/b".into())),
        (
            "{{ aws:imds:instance-id }}",
            Reference::Aws("aws:imds:instance-id".into()),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(only(text), Some(expected), "{text}");
    }
}

#[test]
fn everything_else_is_foreign() {
    for text in [
        "{{}}",
        "{{ }}",
        "{{ ab }}",
        "{{.Names}}",
        "{{ if x }}",
        "{{ a.b }}",
        "{{ a.b.c }}",
        "{{ a.b.c.d }}",
        "{{ a.b.outputs[].c }}",
        "{{ a.b.outputs[-1].c }}",
        "{{ a.b.outputs[1.c }}",
        "{{ a..outputs.c }}",
        "{{ a.b.outputs[99999999999999999999999].c }}",
        "{{ env: }}",
        "{{ Größe }}",
        "{{ aws:s3:x }}",
    ] {
        assert_eq!(pieces(text), [Piece::Foreign(text)], "{text}");
    }
    let long = format!("{{{{ {} }}}}", "x".repeat(129));
    assert_eq!(pieces(&long), [Piece::Foreign(long.as_str())]);
}

#[test]
fn openings_without_end_are_text() {
    assert_eq!(pieces("a {{ b"), [Piece::Literal("a {{ b")]);
    assert_eq!(pieces("a }} b"), [Piece::Literal("a }} b")]);
    assert_eq!(pieces(""), []);
    // The last opening before the closing counts.
    let inner = Piece::Reference("{{ Name }}", Reference::Variable("Name".into()));
    assert_eq!(
        pieces("{{ x {{ Name }}"),
        [Piece::Literal("{{ x "), inner.clone()]
    );
    assert_eq!(
        pieces("<{{ Name }}{{ Name }}>"),
        [
            Piece::Literal("<"),
            inner.clone(),
            inner,
            Piece::Literal(">")
        ]
    );
}
