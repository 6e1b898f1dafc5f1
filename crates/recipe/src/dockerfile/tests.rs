//! What fixtures cannot show: places in a file, line ends, and input that nobody wrote.

use proptest::prelude::*;

use super::{MAX_DOCKERFILE_BYTES, parse_dockerfile};

const FROM: &str = "FROM {{{ imagebuilder:parentImage }}}\n";

#[test]
fn line_ends_of_windows_and_a_byte_order_mark_change_nothing() {
    let unix = format!("{FROM}ENV A=b \\\n  C=d\nCMD x\n");
    let (expected, problems) = parse_dockerfile(&unix);
    assert!(problems.is_empty());
    let windows = unix.replace('\n', "\r\n");
    assert_eq!(parse_dockerfile(&windows).0, expected);
}

#[test]
fn a_problem_has_its_place_also_after_a_continuation() {
    let text = format!("{FROM}ENV A=b \\\n    # comment\n\n  C\n");
    let (_, problems) = parse_dockerfile(&text);
    let span = problems.iter().next().unwrap().span.unwrap();
    assert_eq!((span.start.line, span.start.column), (5, 3));
    assert_eq!(&text[span.start.offset..span.end.offset], "C");
}

#[test]
fn in_a_recipe_a_problem_has_its_place_in_the_file() {
    let recipe = "name: web\ncontainerType: DOCKER\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\n\
        targetRepository: {service: ECR, repositoryName: web}\ndockerfileTemplateData: |\n  \
        FROM {{{ imagebuilder:parentImage }}}\n  ENV A=b \\\n    C\n";
    let (_, problems) = crate::parse_container_recipe(recipe);
    let problem = problems.iter().next().unwrap();
    let start = problem.span.unwrap().start;
    assert_eq!((start.line, start.column), (9, 5), "{problem:?}");
    // In quotes there is one place for all of it.
    let quoted = recipe.replace(
        "|\n  FROM {{{ imagebuilder:parentImage }}}\n  ENV A=b \\\n    C\n",
        "\"FROM x\\nENV C\"\n",
    );
    let (_, problems) = crate::parse_container_recipe(&quoted);
    let problem = problems.iter().next().unwrap();
    assert_eq!(problem.span.unwrap().start.line, 6);
    assert!(problem.message.starts_with("line 2 of the document"));
}

#[test]
fn what_is_too_much_is_refused_and_not_made() {
    let long = format!("{FROM}{}", "#\n".repeat(MAX_DOCKERFILE_BYTES));
    assert!(parse_dockerfile(&long).0.is_none());
    let many = format!("{FROM}{}", "CMD x\n".repeat(5_000));
    let (file, problems) = parse_dockerfile(&many);
    assert!(file.is_none() && problems.iter().count() == 1);
    // So many problems are not all told.
    let wrong = format!("{FROM}{}", "X\n".repeat(4_000));
    assert!(parse_dockerfile(&wrong).1.iter().count() <= 50);
    let ports = format!("{FROM}EXPOSE 1-65535 1-65535/udp\n");
    assert!(parse_dockerfile(&ports).0.is_none());
}

#[test]
fn each_of_many_variables_sees_those_before_it() {
    let mut text = format!("{FROM}ARG a0=x");
    for n in 1..3_000 {
        text.push_str(&format!(" a{n}=$a{}", n - 1));
    }
    text.push_str("\nENV LAST=$a2999");
    for n in 0..2_000 {
        text.push_str(&format!(" e{n}=$a{n}"));
    }
    text.push_str("\nENV e1999=y e0=$e1999\n");
    let (file, problems) = parse_dockerfile(&text);
    assert!(problems.is_empty(), "{problems:?}");
    let env = file.unwrap().config.env;
    assert_eq!(env.len(), 2_002);
    let value = |at: usize| (env[at].0.as_str(), env[at].1.as_str());
    let found = [value(1), value(2), value(2_001)];
    assert_eq!(found, [("LAST", "x"), ("e0", "x"), ("e1999", "y")]);
}

proptest! {
    #[test]
    fn nothing_panics(text in "(FROM |ENV |CMD |LABEL |RUN |HEALTHCHECK |\\{\\{\\{|\\}\\}\\}|imagebuilder:components|A|=|\\$|\\{|\\}|\"|'|\\\\|`|:-|\\[|\\]|<<E|ä|\u{feff}| |\t|\n|\r){0,60}") {
        let (file, problems) = parse_dockerfile(&text);
        for problem in problems.iter().chain(file.iter().flat_map(|f| &f.unsupported)) {
            let span = problem.span.unwrap();
            prop_assert!(text.get(span.start.offset..span.end.offset).is_some(), "{problem:?}");
        }
    }
}
