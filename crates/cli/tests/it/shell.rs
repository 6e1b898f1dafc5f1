//! `shell` and `build --shell-on-failure`, on container recipes, which take no boot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use amiforge_testkit::{Env, Finished, finish, run, tool};

use crate::tiny::Tiny;

const COMPONENT: &str = "\
name: web
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: Good
        action: ExecuteBash
        inputs: {commands: [echo good > /good, rm /usr/share/tiny-a, echo left > /tmp/left]}
      - name: Bad
        action: ExecuteBash
        inputs: {commands: [echo bad > /bad, echo why >&2, exit 7]}
      - name: Never
        action: ExecuteBash
        inputs: {commands: [echo never > /never]}
";

/// A recipe of this component and, before it, one that only makes a file.
fn recipe(env: &Env, tiny: &Tiny<'_>, component: &str) -> PathBuf {
    env.write("web.yaml", component);
    env.write(
        "base.yaml",
        "name: base\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Make\n        \
         action: CreateFile\n        inputs: [{path: /base, content: base}]\n",
    );
    tiny.container("tiny", &["base.yaml", "web.yaml"], "")
}

fn build(env: &Env, recipe: &Path) -> Command {
    let mut command = env.amiforge();
    command
        .arg("build")
        .arg(recipe)
        .arg("--out")
        .arg(env.path("out"));
    command
}

/// Runs `script` by the image's shell at a place.
fn shell(env: &Env, recipe: &Path, place: &[&str], script: &str) -> Finished {
    let mut command = env.amiforge();
    command.arg("shell").arg(recipe).args(place);
    finish(command.args(["--", "sh", "-c", script]))
}

#[test]
fn any_state_can_be_entered_and_nothing_stays() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let recipe = recipe(&env, &tiny, COMPONENT);
    let none = shell(&env, &recipe, &["--failed"], "true").expect_code(1);
    assert!(
        none.stderr.contains("no failed build of the recipe tiny"),
        "{none}"
    );

    let end = finish(&mut build(&env, &recipe)).expect_code(1);
    let hint = format!("amiforge shell {} --failed", recipe.display());
    assert!(end.stderr.contains(&hint), "{end}");

    // What failed is known by its step and place, until it builds.
    for verb in [&["plan", "--why"][..], &["cache", "why"]] {
        let why = finish(env.amiforge().args(verb).arg(&recipe))
            .expect_code(0)
            .text();
        let told = "failed last time at web, build phase, step Bad (./web.yaml:9:9)\n";
        assert!(why.contains(told), "{why}");
    }

    // What the failed run had changed, as tar reads it: without what was there before, with what it removed.
    let mut list = tool("tar");
    list.args(["--zstd", "-tf"])
        .arg(env.path("out.failed/changes.tar.zst"));
    let list = run(&mut list).text();
    for (name, is_there) in [
        ("good", true),
        ("bad", true),
        ("usr/share/.wh.tiny-a", true),
        ("never", false),
        ("base", false),
    ] {
        assert_eq!(
            list.lines().any(|line| line == name),
            is_there,
            "{name}: {list}"
        );
    }

    let script = "cat /base /good /bad; ls /usr/share/tiny-a /never";
    let failed = shell(&env, &recipe, &["--failed"], script).expect_code(1);
    assert_eq!(String::from_utf8_lossy(&failed.stdout), "basegood\nbad\n");
    assert!(failed.stderr.contains("/never: No such file"), "{failed}");
    // Nothing that a shell does stays.
    shell(&env, &recipe, &["--failed"], "rm /good; echo >/new").expect_code(0);
    shell(
        &env,
        &recipe,
        &["--failed"],
        "test -e /good && test ! -e /new",
    )
    .expect_code(0);

    // The state after a component, and after a step of one; also where a step before it fails.
    let after = |place: &str, script: &str| shell(&env, &recipe, &["--after", place], script);
    after("base", "test -e /base && test ! -e /good").expect_code(0);
    after(
        "web/Good",
        "test -e /good && test ! -e /bad && grep left /tmp/left",
    )
    .expect_code(0);
    let bad = after("web/Never", "test -e /bad && test ! -e /never").expect_code(0);
    assert!(bad.stderr.contains("step Bad (ExecuteBash)"), "{bad}");
    for (place, told) in [
        ("wob", "the recipe has base, web"),
        ("web/Wrong", "it has Good, Bad, Never"),
    ] {
        let end = after(place, "true").expect_code(2);
        assert!(end.stderr.contains(told), "{end}");
    }
    assert_eq!(after("base", "exit 9").code(), 1);

    // When it is mended, the finished image is entered, and the failure is still there to look at.
    fs_err::write(env.path("web.yaml"), COMPONENT.replace("exit 7", "exit 0")).unwrap();
    shell(&env, &recipe, &[], "test -e /never").expect_code(0);
    shell(&env, &recipe, &["--failed"], "test ! -e /never").expect_code(0);
    let mut gc = env.amiforge();
    let gc = finish(gc.args(["cache", "gc", "--keep", "0h", "--json"])).expect_code(0);
    assert_eq!(gc.json()["failures"]["files"], 1);
    let gone = shell(&env, &recipe, &["--failed"], "true").expect_code(1);
    assert!(gone.stderr.contains("not in the store any more"), "{gone}");
}

#[test]
fn a_failed_build_opens_a_shell() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let recipe = recipe(&env, &tiny, COMPONENT);
    let told = env.write("told", "cat /good /bad /tmp/left; exit 3\n");
    let mut command = build(&env, &recipe);
    let events = env.path("events");
    command
        .arg("--shell-on-failure")
        .arg("--events")
        .arg(&events)
        .stdin(Stdio::from(fs_err::File::open(told).unwrap().into_file()));
    let end = finish(&mut command).expect_code(1);
    assert_eq!(
        String::from_utf8_lossy(&end.stdout),
        "good\nbad\nleft\n",
        "{end}"
    );
    // Why it failed stands before the shell, and only there; after it, how to go on.
    let (before, after) = end.stderr.split_once("    shell web, build phase").unwrap();
    let error = "error: ./web.yaml:9:9: phase build, step Bad (ExecuteBash)";
    assert!(before.contains(error), "{end}");
    assert!(!after.contains("step Bad (ExecuteBash)"), "{end}");
    assert!(after.starts_with(", step Bad (./web.yaml:9:9); "), "{end}");
    assert!(
        after.contains("\nerror: the build failed, as told before the shell\n"),
        "{end}"
    );
    assert!(
        after.contains(&format!("amiforge shell {} --failed", recipe.display())),
        "{end}"
    );
    // Programs and the folder get all of it at the end, too.
    let events = fs_err::read_to_string(events).unwrap();
    assert!(
        events
            .lines()
            .last()
            .unwrap()
            .contains("phase build, step Bad"),
        "{events}"
    );
    let failure = fs_err::read_to_string(env.path("out.failed/failure.txt")).unwrap();
    assert!(failure.contains("phase build, step Bad"), "{failure}");

    // The same of steps that need no sandbox, and of a validate phase.
    let files = "name: web\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Make\n        \
                 action: CreateFile\n        inputs: [{path: /made, content: made}]\n      - name: Bad\n        \
                 action: ReadFile\n        inputs: [{path: /not/there}]\n";
    let validate = "name: web\nschemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Make\n        \
                    action: CreateFile\n        inputs: [{path: /made, content: made}]\n  - name: validate\n    \
                    steps:\n      - name: Look\n        action: ExecuteBash\n        \
                    inputs: {commands: [echo looked > /looked, exit 1]}\n";
    for (component, script, output) in [
        (files, "cat /made /base\n", "madebase"),
        (validate, "cat /made /looked\n", "madelooked\n"),
    ] {
        env.write("web.yaml", component);
        let told = env.write("told", script);
        let mut command = build(&env, &recipe);
        command
            .arg("--shell-on-failure")
            .stdin(Stdio::from(fs_err::File::open(told).unwrap().into_file()));
        let end = finish(&mut command).expect_code(1);
        assert_eq!(String::from_utf8_lossy(&end.stdout), output, "{end}");
        shell(&env, &recipe, &["--failed"], script).expect_code(0);
    }
}

#[test]
fn output_that_nobody_takes_ends_the_command() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let recipe = recipe(&env, &tiny, &COMPONENT.replace("exit 7", "exit 0"));
    let piped = |rest: &str| {
        let program = env.amiforge();
        let variables = program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?)));
        let line = format!(
            "'{}' shell '{}' -- {rest}",
            program.get_program().display(),
            recipe.display()
        );
        finish(tool("sh").args(["-c", &line]).envs(variables))
    };
    // Endless, unless it is told that its reader is gone.
    let end = piped("yes | head -1").expect_code(0);
    assert_eq!(end.stdout, b"y\n");
    let end = piped("echo lost >/dev/full").expect_code(1);
    assert!(end.stderr.contains("output of the shell was lost"), "{end}");
}

#[test]
fn on_a_terminal_the_shell_has_one_of_its_own() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[("tiny-a", "1.0", "a")]);
    let recipe = recipe(&env, &tiny, &COMPONENT.replace("exit 7", "exit 0"));
    let inner = format!(
        "stty rows 33 cols 101; exec '{}' shell '{}'",
        amiforge_testkit::amiforge_binary().display(),
        recipe.display()
    );
    let typed = env.write("typed", "tty; stty size; echo T=$TERM\nexit 4\n");
    let mut command = env.amiforge();
    let variables: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command = tool("script");
    command
        .args(["-qec", &inner, "/dev/null"])
        .envs(variables)
        .env("TERM", "vt100")
        .stdin(Stdio::from(fs_err::File::open(typed).unwrap().into_file()));
    // A person's shell ends with the status of whatever was typed last.
    let end = finish(&mut command).expect_code(0);
    for told in ["/dev/pts/0", "33 101", "T=vt100"] {
        assert!(
            String::from_utf8_lossy(&end.stdout).contains(told),
            "{told}: {end}"
        );
    }
}

/// A template of two container recipes, one of which fails in a component with a secret.
fn template(env: &Env, tiny: &Tiny<'_>) -> PathBuf {
    let mirror = format!("file://{}", tiny.root().display());
    let recipe = |id: &str, name: &str| {
        format!(
            "  {id}:\n    Type: AWS::ImageBuilder::ContainerRecipe\n    Metadata:\n      amiforge:\n        \
             secrets: [tok]\n        \
             apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential}}\n    Properties:\n      \
             Name: {name}\n      Version: 1.0.0\n      ContainerType: DOCKER\n      ParentImage: debian:tiny\n      \
             TargetRepository: {{Service: ECR, RepositoryName: tiny}}\n      \
             Components: [{{ComponentArn: !GetAtt Bad.Arn, Parameters: [{{Name: Pass, Value: [!Ref Pass]}}]}}]\n      \
             DockerfileTemplateData: \"FROM {{{{{{ imagebuilder:parentImage }}}}}}\\n{{{{{{ imagebuilder:components }}}}}}\\n\"\n"
        )
    };
    let text = format!(
        "Parameters:\n  Env: {{Type: String}}\n  Pass: {{Type: String, NoEcho: true}}\nResources:\n  Bad:\n    \
         Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: bad\n      Version: 1.0.0\n      \
         Platform: Linux\n      Data: |\n        schemaVersion: 1.0\n        parameters:\n          - Pass: {{type: string}}\n        \
         phases:\n          - name: build\n            steps:\n              - name: Bad\n                \
         action: ExecuteBash\n                inputs:\n                  commands:\n                    \
         - 'grep -q tok- /run/secrets/tok && echo made >/made && exit 7'\n{}{}",
        recipe("One", "one"),
        recipe("Two", "!Sub 'two-${Env}'")
    );
    env.write("my templates/both.yaml", text)
}

/// What a failure says to enter is enough, wherever it is entered: no options, variables or secrets are missing.
#[test]
fn the_command_of_a_failure_enters_as_it_is_printed() {
    let env = Env::new();
    let tiny = Tiny::with_shell(&env, &[]);
    fs_err::create_dir_all(env.path("my templates")).unwrap();
    let template = template(&env, &tiny);
    fs_err::copy(env.path("tiny.gpg"), env.path("my templates/tiny.gpg")).unwrap();
    let mut command = env.amiforge();
    command
        .current_dir(env.path("my templates"))
        .env("TOKEN", "tok-1234567")
        .args(["build", "both.yaml", "--resource", "Two", "--out"])
        .arg(env.path("out"))
        .args(["--param", "Env=a b", "--param", "Pass=canary-word"])
        .args(["--secret", "tok=env:TOKEN"]);
    let end = finish(&mut command).expect_code(1);
    let failure = fs_err::read_to_string(env.path("out.failed/failure.txt")).unwrap();
    for text in [&end.stderr, &failure] {
        assert!(!text.contains("canary-word"), "{text}");
    }
    let line = failure
        .lines()
        .map(str::trim)
        .find(|line| line.contains("amiforge shell "))
        .unwrap();
    let expected = format!(
        "AMIFORGE_HOME={} amiforge shell '{}' --failed --resource Two --param 'Env=a b' --param 'Pass=***'",
        env.state().display(),
        template.display()
    );
    assert_eq!(line, expected);
    assert!(end.stderr.contains(line), "{end}");

    // As a person does it: somewhere else, with nothing of the build's environment.
    let binary = amiforge_testkit::amiforge_binary();
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut again = tool("sh");
    again
        .args(["-c", &format!("{line} -- cat /made")])
        .current_dir("/")
        .env("PATH", path);
    let entered = finish(&mut again).expect_code(0);
    assert_eq!(entered.text(), "made\n", "{entered}");
    let told = "the secrets of the recipe (tok) are not in this shell";
    assert!(entered.stderr.contains(told), "{entered}");
}
