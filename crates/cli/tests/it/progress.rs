//! What a person sees while a build runs: folded on a terminal, every line in a pipe, nothing with `--quiet`.

use amiforge_testkit::{Env, finish, tool};

use crate::tiny::Tiny;

const COMPONENT: &str = "\
name: talkative
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Well
        action: ExecuteBash
        inputs: {commands: ['echo all-is-well; echo and-more']}
      - name: Badly
        action: ExecuteBash
        onFailure: Ignore
        inputs: {commands: ['echo about-to-fail; exit 3']}
";

#[test]
fn output_is_folded_on_a_terminal_and_shown_of_steps_that_fail() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    env.write("talkative.yaml", COMPONENT);
    let recipe = tiny.container("talks", &["talkative.yaml"], "");
    let terminal = |more: &str| {
        let inner = format!(
            "stty rows 40 cols 160; exec '{}' build '{}' --rebuild --out '{}' {more}",
            amiforge_testkit::amiforge_binary().display(),
            recipe.display(),
            env.path("out").display()
        );
        let command = env.amiforge();
        let variables = command.get_envs();
        let variables: Vec<_> = variables
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        let mut script = tool("script");
        script
            .args(["-qec", &inner, "/dev/null"])
            .envs(variables)
            .env("TERM", "vt100");
        finish(&mut script).expect_code(0).text()
    };
    let shown = terminal("");
    for text in [
        "talkative build/Well in ",
        "(2 lines)",
        "          | about-to-fail",
        "talkative build/Badly failed and ignored",
        "layers 0 of 3 from the store, 3 made (",
        "2 steps) in ",
        "files oci ",
        "finished ",
    ] {
        assert!(shown.contains(text), "no `{text}` in\n{shown}");
    }
    assert!(!shown.contains("          | all-is-well"), "{shown}");
    let shown = terminal("--plain");
    assert!(shown.contains("          | all-is-well"), "{shown}");

    let build = |more: &[&str]| {
        let mut command = env.amiforge();
        command.arg("build").arg(&recipe);
        command.arg("--out").arg(env.path("out")).args(more);
        finish(&mut command).expect_code(0)
    };
    let end = build(&["--rebuild"]);
    assert!(end.stderr.contains("          | all-is-well"), "{end}");
    let end = build(&[]);
    assert!(
        end.stderr.contains("layers 3 of 3 from the store\n"),
        "{end}"
    );
    assert!(end.stderr.contains(" unchanged in "), "{end}");
    assert_eq!(build(&["--quiet"]).stderr, "");
}
