//! What the steps of a recipe are given, from the recipe to the guest.

use amiforge_testkit::{Env, finish};

use crate::tiny::Tiny;
use crate::web::{Web, build};

/// A recipe on the parent of the shared build, with more fields and one component.
fn recipe(env: &Env, component: &str, fields: &str, settings: &str) -> std::path::PathBuf {
    env.write("recipe/component.yaml", component);
    env.write(
        "recipe/recipe.yaml",
        format!(
            "name: steps\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\n{fields}\
             components:\n  - componentArn: ./component.yaml\n\
             blockDeviceMappings:\n  - deviceName: /dev/xvda\n    ebs: {{volumeSize: 2, volumeType: gp3}}\n\
             amiforge:\n  bootMode: legacy-bios\n  formats: [raw]\n{settings}"
        ),
    )
}

/// Says where it runs, in every phase; leaves a file there, and one that is all hole.
const WHERE: &str = "\
name: where
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Where
        action: ExecuteBash
        inputs:
          commands:
            - test \"$(pwd)\" = /opt/work
            - pwd > built
            - truncate -s 1T hole
      - name: File
        action: CreateFile
        inputs:
          - {path: by-action, content: text}
  - name: validate
    steps:
      - name: Where
        action: ExecuteBash
        inputs:
          commands: ['test \"$(pwd)\" = /opt/work && grep -x /opt/work built && touch validated']
  - name: test
    steps:
      - name: Where
        action: ExecuteBash
        inputs:
          commands:
            - 'set -e; test \"$(pwd)\" = /opt/work; grep -x /opt/work built; test -e by-action; test ! -e validated'
            - 'test $(stat -c %s hole) = 1099511627776'
";

#[test]
fn image_steps_of_all_phases_run_in_the_working_directory() {
    let web = Web::get();
    let env = web.env();
    let path = recipe(&env, WHERE, "workingDirectory: /opt/work\n", "");
    let out = env.path("out");
    let mut command = env.amiforge();
    command
        .args(["build", "--offline"])
        .arg(&path)
        .arg("--out")
        .arg(&out);
    env.run(&mut command);
    let listed = env.run(
        env.amiforge()
            .arg("inspect")
            .arg(&out)
            .args(["ls", "/opt/work"]),
    );
    let text = listed.text();
    assert!(
        text.contains("built") && text.contains("by-action") && !text.contains("validated"),
        "{text}"
    );
    // It is an input of the layer.
    recipe(&env, WHERE, "workingDirectory: /opt/elsewhere\n", "");
    let plan = env.run(
        env.amiforge()
            .args(["plan", "--why", "--offline"])
            .arg(&path),
    );
    assert!(plan.text().contains("workingDirectory"), "{plan}");
}

/// The well-known bomb, which may be over by itself sooner or later, and a step that needs more processes
/// than there are whether it is or not.
const BOMB: &str = "\
name: bomb
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Bomb
        action: ExecuteBash
        inputs:
          commands: ['bomb() { bomb | bomb & }; bomb']
      - name: After
        action: ExecuteBash
        inputs:
          commands: ['for i in {1..200}; do sleep 120 & done; wait']
";

#[test]
fn image_a_fork_bomb_fails_the_build_and_nothing_else() {
    let web = Web::get();
    let env = web.env();
    let path = recipe(&env, BOMB, "", "  limits: {processes: 64}\n");
    let out = env.path("out");
    let end = finish(&mut build(&env, &path, &out)).expect_code(1);
    assert!(
        end.stderr.contains("it reached the limit of 64 processes"),
        "{end}"
    );
    assert_eq!(env.processes(), Vec::<String>::new());
    assert!(!out.exists() && env.path("out.failed/logs").is_dir());
}

const TELLS: &str = "\
name: tells
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Tell
        action: ExecuteBash
        inputs: {commands: ['echo files $(ulimit -n) processes $(ulimit -u)']}
";

#[test]
fn the_smaller_limits_of_recipe_and_infrastructure_hold() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    env.write("tells.yaml", TELLS);
    let recipe = tiny.container(
        "limited",
        &["tells.yaml"],
        "  limits: {openFiles: 200, processes: 400}\n",
    );
    let infrastructure = |limits: &str| {
        env.write(
            "infrastructure.yaml",
            format!("name: builders\ninstanceProfileName: builder\ninstanceTypes: [m5.large]\namiforge:\n  limits: {limits}\n"),
        )
    };
    let build = |file: &std::path::Path| {
        let mut command = env.amiforge();
        command
            .arg("build")
            .arg(&recipe)
            .arg("--out")
            .arg(env.path("out"));
        finish(command.args(["--plain", "--infrastructure"]).arg(file))
    };
    let file = infrastructure("{openFiles: 300, processes: 100}");
    let end = build(&file).expect_code(0);
    assert!(end.stderr.contains("files 200 processes 100"), "{end}");
    // Limits are no input: nothing is made again.
    let end = build(&infrastructure("{processes: 90}")).expect_code(0);
    assert!(!end.stderr.contains("files 200"), "{end}");

    let end = build(&infrastructure("{processes: 1}")).expect_code(2);
    assert!(end.stderr.contains("infrastructure.yaml:5:23"), "{end}");
    let end = build(&recipe).expect_code(2);
    assert!(
        end.stderr
            .contains("is no infrastructure configuration but another document"),
        "{end}"
    );
}

/// A folder that has the build's time, a file put into it without a sandbox, and a step that looks for both.
const FOLDER: &str = "\
name: folder
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Make
        action: ExecuteBash
        inputs: {commands: ['mkdir -m 2750 /made']}
";
const FILE: &str = "\
name: file
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Write
        action: CreateFile
        inputs: [{path: /made/file, content: text}]
";
const LOOK: &str = "\
name: look
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Look
        action: ExecuteBash
        inputs: {commands: ['test \"$(cat /made/file) $(stat -c %a /made)\" = \"text 2750\"']}
";

#[test]
fn a_file_in_a_folder_that_did_not_change_is_there_for_later_steps() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    for (name, text) in [("folder", FOLDER), ("file", FILE), ("look", LOOK)] {
        env.write(format!("{name}.yaml"), text);
    }
    let recipe = tiny.container("three", &["folder.yaml", "file.yaml", "look.yaml"], "");
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(&recipe)
        .arg("--out")
        .arg(env.path("out"));
    finish(&mut command).expect_code(0);
}
