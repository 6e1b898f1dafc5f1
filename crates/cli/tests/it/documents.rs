//! Documents that cannot be used: every problem in one run, with its place, and exit code 2.

use std::path::Path;

use amiforge_testkit::{Env, Finished, finish, workspace_root};

use crate::tiny::planned_layers;

const RECIPE: &str = "\
name: bad-recipe
semanticVersion: 1.0.0
parentImage: debian:bookworm
components:
  - componentArn: ./missing.yaml
  - componentArn: ./steps.yaml
  - componentArn: no-such/x.x.x
blockDeviceMapings: []
amiforge:
  formtas: [raw]
";

const STEPS: &str = "\
name: steps
schemaVersion: 1.0
phases:
  - name: build
    steps:
      - name: First
        action: ExecuteBsh
        inputs:
          commands: [ls]
      - name: Second
        action: ExecuteBash
        inputs:
          comands: [ls]
";

#[track_caller]
fn says(end: &Finished, texts: &[&str]) {
    for text in texts {
        assert!(end.stderr.contains(text), "no `{text}` in\n{end}");
    }
}

/// The document as a user wrote it, its path given relative to the workspace or absolute.
fn validate(env: &Env, name: &str, text: impl AsRef<[u8]>) -> (String, Finished) {
    let path = env.write(name, text);
    let end = finish(env.amiforge().arg("validate").arg(&path));
    (path.display().to_string(), end)
}

#[test]
fn all_problems_of_a_recipe_and_its_components_are_told_at_once() {
    let env = Env::new();
    let recipe = env.write("recipe.yaml", RECIPE);
    let steps = env.write("steps.yaml", STEPS);
    for verb in ["validate", "plan", "build"] {
        let end = finish(env.amiforge().arg(verb).arg(&recipe)).expect_code(2);
        let at = |path: &Path, place: &str| format!("{}:{place}", path.display());
        says(
            &end,
            &[
                &at(&recipe, "5:19"),
                "missing.yaml",
                &at(&recipe, "7:19"),
                "no-such/x.x.x",
                &at(&recipe, "8:1"),
                "did you mean `blockDeviceMappings`?",
                &at(&recipe, "10:3"),
                "did you mean `formats`?",
                &at(&steps, "7:17"),
                "did you mean `ExecuteBash`?",
                &at(&steps, "13:11"),
                "did you mean `commands`?",
            ],
        );
        assert_eq!(end.text(), "", "no data on standard output\n{end}");
        assert!(
            !env.state().join("store").exists() || verb != "validate",
            "validating writes nothing"
        );
    }
}

#[test]
fn an_unknown_parent_is_told_with_its_place() {
    let env = Env::new();
    let recipe = env.write(
        "recipe.yaml",
        "name: some-image\nsemanticVersion: 1.0.0\nparentImage: plan9:bell\n",
    );
    let end = finish(env.amiforge().arg("build").arg(&recipe)).expect_code(2);
    says(
        &end,
        &[
            "plan9:bell",
            &format!("{}:3:14", recipe.display()),
            "debian:<suite>",
        ],
    );
}

#[test]
fn wrong_parameters_of_components_are_told_where_they_are_given() {
    let env = Env::new();
    env.write(
        "shades.yaml",
        "schemaVersion: 1.0\nconstants:\n  - Fixed: {type: string, value: y}\nparameters:\n  - Colour: {type: string, allowedValues: [red]}\n  - Size: {type: string}\nphases:\n  - name: build\n    steps:\n      - {name: A, action: ExecuteBash, inputs: {commands: ['echo {{ Colour }}']}}\n",
    );
    let recipe = env.write(
        "recipe.yaml",
        "name: image\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\ncomponents:\n  - componentArn: ./shades.yaml\n    parameters:\n      - {name: Colour, value: [green]}\n      - {name: Sise, value: [big]}\n      - {name: Fixed, value: [x]}\n",
    );
    let end = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(2);
    let at = |place: &str| format!("{}:{place}", recipe.display());
    says(
        &end,
        &[
            &at("7:32"),
            "\"green\" is not allowed",
            &at("5:19"),
            "`Size` has no default",
            &at("8:16"),
            "did you mean `Size`?",
            &at("9:16"),
            "`Fixed` is a constant",
        ],
    );
    assert!(!end.stderr.contains("no parameter Fixed"), "{end}");
    // Parameters that cannot be read hide nothing of the component.
    env.write("bad.yaml", "schemaVersion: 1.0\nphases: []\nstep: []\n");
    let text = "name: image\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\ncomponents:\n  - componentArn: ./bad.yaml\n    parameters:\n      - {name: Colour, value: green}\n  - componentArn: ./shades.yaml\n    parameters:\n      - {name: Colour, value: green}\n";
    let (path, end) = validate(&env, "unread.yaml", text);
    says(
        &end,
        &[
            &format!("{path}:7:31"),
            &format!("{path}:10:31"),
            "bad.yaml:3:1",
        ],
    );
    assert!(!end.stderr.contains("no value was given"), "{end}");
    // What --param gives stands nowhere in the recipe.
    let mut command = env.amiforge();
    let end = finish(
        command
            .args(["plan", "--param", "Colour=pink"])
            .arg(&recipe),
    )
    .expect_code(2);
    says(&end, &[&at("5:19"), "\"pink\" is not allowed"]);
}

#[test]
fn the_configuration_is_a_document_too() {
    let env = Env::new();
    let (_, end) = validate(&env, "config.yaml", "parents:\n  ami-1: debian:bookworm\n");
    end.expect_code(0);
    let text = "parents:\n  ami-1: debian:bookworm\ncomponent: {}\n";
    let (path, end) = validate(&env, "config.yaml", text);
    says(
        &end.expect_code(2),
        &[&format!("{path}:3:1"), "did you mean `components`?"],
    );
    // What it names is looked for.
    let text = "components:\n  a/1.0.0: ./nowhere.yaml\n  b/1.0.0: update-linx\nreferences:\n  aws:imds:iam/info: x\n  aws:ssm:/a: {envv: X}\n";
    let (path, end) = validate(&env, "config.yaml", text);
    let at = |place: &str| format!("{path}:{place}");
    says(
        &end.expect_code(2),
        &[
            &at("5:3"),
            "refused-reference",
            &at("6:16"),
            "did you mean `env`?",
        ],
    );
    let (_, end) = validate(
        &env,
        "config.yaml",
        text.split("references").next().unwrap(),
    );
    says(
        &end.expect_code(2),
        &[&at("2:12"), "nowhere.yaml", &at("3:12"), "update-linx"],
    );
    // The user's own may be empty.
    let own = env.state().join("config.yaml");
    std::fs::create_dir_all(env.state()).unwrap();
    std::fs::write(&own, "# nothing yet\n").unwrap();
    finish(env.amiforge().arg("validate").arg(&own)).expect_code(0);
    // Broken, it is told like any other, and the others are read beside it.
    std::fs::write(
        &own,
        "parents: {a: plan9}\ncomponents: {b: ./nowhere.yaml}\n",
    )
    .unwrap();
    let other = env.write("other.yaml", "schemaVersion: 2.0\nphases: []\n");
    let end = finish(env.amiforge().arg("validate").arg(&own).arg(&other)).expect_code(2);
    says(&end, &["config.yaml:1:14", "plan9", "unsupported-schema"]);
    std::fs::remove_file(&own).unwrap();
    let path = env.write("config.yaml", "parents:\n  ami-1: debian:bookworm\n");
    let mut command = env.amiforge();
    let end = finish(command.args(["export", "cloudformation"]).arg(&path)).expect_code(2);
    says(&end, &["config.yaml", "AWS has nothing like it"]);
}

#[test]
fn an_unknown_parameter_is_told_before_anything_is_fetched() {
    let env = Env::new();
    for (param, told) in [
        (
            "Greting=x",
            "--param Greting: no component has this parameter",
        ),
        ("Greeting", "--param Greeting: write NAME=VALUE"),
    ] {
        let end = finish(
            env.amiforge()
                .args(["build", "recipes/debian-web", "--param", param, "--out"])
                .arg(env.path("out")),
        )
        .expect_code(2);
        says(&end, &[told]);
        assert!(!env.state().join("cache").exists(), "{end}");
        assert!(!env.path("out").exists());
    }
}

#[test]
fn yaml_that_is_none_has_a_place() {
    let env = Env::new();
    let (path, end) = validate(
        &env,
        "tab.yaml",
        "name: image\n\tparentImage: debian:bookworm\n",
    );
    says(&end.expect_code(2), &["tab", &format!("{path}:2:1")]);

    let twice = "name: image\nsemanticVersion: 1.0.0\nname: other\nparentImage: debian:bookworm\n";
    let (path, end) = validate(&env, "twice.yaml", twice);
    says(
        &end.expect_code(2),
        &["the key \"name\" is already set", &format!("{path}:3:1")],
    );

    let (path, end) = validate(&env, "latin1.yaml", b"name: caf\xE9\n");
    says(&end.expect_code(2), &[&path]);
}

#[test]
fn hostile_yaml_ends_quickly() {
    let env = Env::new();
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..12 {
        let below = vec![format!("*a{}", level - 1); 9].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let deep = "[".repeat(100_000);
    let huge = "[".repeat(100_000_000);
    let blocks: String = (0..1000)
        .map(|n| format!("{}- \n", "  ".repeat(n)))
        .collect();
    for (name, text, told) in [
        ("bomb.yaml", &bomb, "aliases repeat too much"),
        ("deep.yaml", &deep, "nest deeper than"),
        ("huge.yaml", &huge, "longer than"),
        ("blocks.yaml", &blocks, "nest deeper than"),
    ] {
        let (path, end) = validate(&env, name, text);
        let end = end.expect_code(2);
        says(&end, &[told, &format!("{path}:1:")[..path.len() + 1]]);
        assert!(
            end.stderr.len() < 10_000,
            "{name}: a message, not the document"
        );
        // Measured: a few milliseconds each. Without limits the bomb alone would take the memory of the host.
        assert!(end.took.as_secs() < 20, "{name} took {:?}", end.took);
    }
}

#[test]
fn valid_documents_are_named_on_standard_output() {
    let env = Env::new();
    let end = env.run(env.amiforge().args([
        "validate",
        "recipes/debian-web",
        "recipes/debian-minimal",
        "recipes/debian-web/components/web.yaml",
    ]));
    for name in [
        "debian-web/recipe.yaml",
        "debian-minimal/recipe.yaml",
        "web.yaml",
    ] {
        assert!(end.text().contains(&format!("{name}: valid")), "{end}");
    }
}

#[test]
fn a_document_named_twice_is_told_once() {
    let env = Env::new();
    let recipe = env.write("recipe.yaml", RECIPE);
    let steps = env.write("steps.yaml", STEPS);
    let again = env.path("").join(".").join("steps.yaml");
    let end = finish(
        env.amiforge()
            .arg("validate")
            .args([&recipe, &steps, &again]),
    );
    let end = end.expect_code(2);
    let told = end.stderr.matches("did you mean `ExecuteBash`?").count();
    assert_eq!(told, 1, "{end}");
}

#[test]
fn problems_as_json() {
    let env = Env::new();
    let steps = env.write("steps.yaml", STEPS);
    let end = finish(env.amiforge().args(["validate", "--json"]).arg(&steps)).expect_code(2);
    let json = end.json();
    let file = &json["files"][0];
    assert_eq!(file["path"], steps.display().to_string());
    assert_eq!(file["kind"], "component");
    assert_eq!(
        file["problems"][0],
        serde_json::json!({
            "severity": "error",
            "code": "unknown-action",
            "message": "there is no action \"ExecuteBsh\"",
            "line": 7,
            "column": 17,
            "endLine": 7,
            "endColumn": 27,
            "help": "did you mean `ExecuteBash`?"
        })
    );
    let codes: Vec<_> = file["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["code"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(codes, ["unknown-action", "missing-field", "unknown-field"]);
}

#[test]
fn usage_errors_have_exit_code_2() {
    let env = Env::new();
    for args in [
        &["frobnicate"][..],
        &["build"],
        &["build", "no-such-recipe"],
        &["build", "recipes/debian-web", "--jobs", "0"],
        &["disk", "assemble", "--rootfs", "x"],
    ] {
        let end = finish(env.amiforge().args(args)).expect_code(2);
        assert!(!end.stderr.is_empty() && end.stdout.is_empty(), "{end}");
    }
}

/// Every file has its entry, whatever is wrong with it; warnings alone are no failure.
#[test]
fn json_names_every_file() {
    let env = Env::new();
    let text = "name: x\nsemanticVersion: 1.0.0\n";
    let unknown = env.write("unknown.yaml", text);
    let warned = env.write(
        "aws.yaml",
        "name: aws\nsemanticVersion: 1.0.0\nparentImage: ami-0123456789abcdef0\n",
    );
    let missing = env.path("missing.yaml");
    let end = finish(
        env.amiforge()
            .args(["validate", "--json"])
            .args([&unknown, &warned, &missing]),
    )
    .expect_code(2);
    let json = end.json();
    let files = json["files"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    assert!(files[0]["kind"].is_null());
    assert_eq!(files[0]["problems"][0]["code"], "unknown-document");
    assert_eq!(files[1]["kind"], "image-recipe");
    assert_eq!(files[1]["problems"][0]["severity"], "warning");
    assert_eq!(files[2]["problems"][0]["code"], "unreadable");
    assert!(files[2]["problems"][0]["line"].is_null());
    finish(env.amiforge().args(["validate", "--json"]).arg(&warned)).expect_code(0);
}

#[test]
fn what_only_aws_has_is_named_with_the_lines_to_add() {
    let env = Env::new();
    let parent = "arn:aws:imagebuilder:eu-west-1:aws:image/debian-12-x86/x.x.x";
    let component = "arn:aws:imagebuilder:eu-west-1:123456789012:component/web/1.2.3/4";
    let recipe = env.write(
        "recipe.yaml",
        format!(
            "name: aws\nsemanticVersion: 1.0.0\nparentImage: {parent}\ncomponents:\n  - componentArn: {component}\n"
        ),
    );
    let config = env.state().join("config.yaml");
    let told = finish(env.amiforge().arg("plan").arg(&recipe)).expect_code(2);
    says(
        &told,
        &[
            &config.display().to_string(),
            &format!("{parent}: debian:bookworm"),
            &format!("{component}: components/web.yaml"),
        ],
    );
    // As a document it is right.
    finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(0);

    // A component of the configuration lies beside it; its problems are told as those of any other.
    fs_err::create_dir_all(env.state()).unwrap();
    fs_err::write(env.state().join("steps.yaml"), STEPS).unwrap();
    let pattern = "arn:aws:imagebuilder:eu-west-1:123456789012:component/web/1.x.x";
    fs_err::write(
        &config,
        format!("parents:\n  {parent}: debian:bookworm\ncomponents:\n  {pattern}: steps.yaml\n"),
    )
    .unwrap();
    let end = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(2);
    says(&end, &["steps.yaml:7:17", "did you mean `ExecuteBash`?"]);

    fs_err::write(&config, "parents:\n  ami-1: ami-2\n").unwrap();
    let end = finish(env.amiforge().arg("validate").arg(&recipe)).expect_code(2);
    says(&end, &["config.yaml:2:10", "name of AWS again"]);
}

const TEMPLATE: &str = "\
Parameters:
  Parent: {Type: String}
  Greeting: {Type: String, Default: hello}
Resources:
  Web:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: web
      Version: 1.0.0
      Platform: Linux
      Data: !Sub |
        schemaVersion: 1.0
        phases:
          - name: build
            steps:
              - {name: Greet, action: ExecuteBash, inputs: {commands: ['echo ${Greeting}']}}
  One:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties:
      Name: one
      Version: 1.0.0
      ParentImage: !Ref Parent
      Components: [{ComponentArn: !Ref Web}]
  Two:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: {Name: two, Version: 1.0.0, ParentImage: debian:bookworm}
";

/// What `validate` warns of in a template is told by `plan` and `build` too.
#[test]
fn the_warnings_of_a_template_are_told_when_it_is_built() {
    let env = Env::new();
    let text = TEMPLATE.replace("echo ${Greeting}", "echo ${Greeting} {{.Names}}");
    let template = env.write("template.yaml", text);
    let warning = &["warning[foreign-reference]", "template.yaml:16:90"];
    says(
        &finish(env.amiforge().arg("validate").arg(&template)).expect_code(0),
        warning,
    );
    let args = [
        "plan",
        "--offline",
        "--resource",
        "One",
        "--param",
        "Parent=x",
    ];
    says(
        &finish(env.amiforge().args(args).arg(&template)).expect_code(2),
        warning,
    );
    // Of one that can be planned, too, drawn the same way and once.
    let validated = finish(env.amiforge().arg("validate").arg(&template));
    let mut plan = env.amiforge();
    plan.args(["plan", "--offline", "--resource", "One"]);
    let planned = finish(
        plan.args(["--param", "Parent=debian:bookworm"])
            .arg(&template),
    );
    assert!(!planned.stderr.contains("cannot be used"), "{planned}");
    says(&planned, &[validated.stderr.trim_end()]);
    assert_eq!(planned.stderr.matches("warning").count(), 1, "{planned}");
}

#[test]
fn a_template_says_what_it_needs_to_be_built() {
    let env = Env::new();
    let template = env.write("template.yaml", TEMPLATE);
    finish(env.amiforge().arg("validate").arg(&template)).expect_code(0);
    let plan = |args: &[&str]| finish(env.amiforge().arg("plan").arg(&template).args(args));
    for (args, told) in [
        (&[][..], &["One, Two", "--resource NAME"][..]),
        (
            &["--resource", "Three"],
            &["no resource Three", "Web, One, Two"],
        ),
        (&["--resource", "Web"], &["Web is a component"]),
        (
            &["--resource", "One"],
            &["template.yaml:22:20", "${Parent}", "--param NAME=VALUE"],
        ),
        (
            &[
                "--resource",
                "One",
                "--param",
                "Parent=ami-0123456789abcdef0",
            ],
            &["nothing stands for it here"],
        ),
        (
            &["--resource", "Two", "--param", "Parnt=x"],
            &["--param Parnt: neither the template nor a component has this parameter"],
        ),
    ] {
        says(&plan(args).expect_code(2), told);
    }
    let recipe = env.write("recipe.yaml", RECIPE);
    let end = finish(
        env.amiforge()
            .arg("plan")
            .arg(&recipe)
            .args(["--resource", "One"]),
    );
    says(&end.expect_code(2), &["is no template"]);
}

/// The plan of a template's recipe is that of the same recipe with its component in a file.
#[test]
fn a_template_gives_the_layers_of_the_same_recipe() {
    let env = Env::new();
    let tiny = crate::tiny::Tiny::new(&env, &[("base", "1.0", "base")]);
    let mirror = format!("file://{}", tiny.root().display());
    let recipe = tiny.recipe(&mirror, "[base]");
    let component = fs_err::read_to_string(env.path("component.yaml")).unwrap();
    let inline: String = component
        .lines()
        .map(|l| format!("        {l}\n"))
        .collect();
    let template = env.write(
        "template.yaml",
        format!(
            "Parameters:\n  Suite: {{Type: String}}\nResources:\n  Nothing:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: nothing\n      Version: 1.0.0\n      Platform: Linux\n      Data: |\n{inline}\x20\x20Recipe:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Metadata:\n      amiforge:\n        formats: [raw]\n        apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential, packages: [base]}}\n    Properties:\n      Name: tiny\n      Version: 1.0.0\n      ParentImage: !Sub 'debian:${{Suite}}'\n      Components: [{{ComponentArn: !GetAtt Nothing.Arn}}]\n      BlockDeviceMappings: [{{DeviceName: /dev/xvda, Ebs: {{VolumeSize: 1, VolumeType: gp3}}}}]\n"
        ),
    );
    let of_recipe = planned_layers(&env, &recipe, &[]);
    assert_eq!(of_recipe.len(), 3);
    let args = ["--param", "Suite=tiny"];
    assert_eq!(planned_layers(&env, &template, &args), of_recipe);
}

/// A secret parameter decides no id and stands in no plan; where the recipe shows it, that is an error.
#[test]
fn a_secret_parameter_is_in_no_plan() {
    let env = Env::new();
    let tiny = crate::tiny::Tiny::new(&env, &[("base", "1.0", "base")]);
    let recipe = tiny.recipe(&format!("file://{}", tiny.root().display()), "[base]");
    let component = fs_err::read_to_string(env.path("component.yaml")).unwrap();
    let component = component
        .replace("phases:", "parameters:\n  - Token: {type: string}\nphases:")
        .replace("\"true\"", "'echo {{ Token }}'");
    fs_err::write(env.path("component.yaml"), component).unwrap();
    let text = fs_err::read_to_string(&recipe).unwrap();
    let text = text.replace(
        "amiforge:\n",
        "amiforge:\n  secretParameters: [Token, Tokem]\n",
    );
    fs_err::write(&recipe, &text).unwrap();
    let plan = |args: &[&str]| {
        let mut command = env.amiforge();
        finish(command.args(["plan", "--json"]).arg(&recipe).args(args))
    };
    let one = plan(&["--param", "Token=canary-1"]).expect_code(0);
    says(&one, &["warning[undeclared-parameter]", "Tokem"]);
    let two = plan(&["--param", "Token=canary-2"]).expect_code(0);
    assert_eq!(one.json(), two.json());
    assert!(!one.text().contains("canary"), "{}", one.text());
    // As the configuration has it, and as it has it not.
    plan(&[]).expect_code(2);
    let config = env.state().join("config.yaml");
    fs_err::write(
        &config,
        "references:\n  secret:nothing.Token: {file: token}\n",
    )
    .unwrap();
    says(
        &plan(&[]).expect_code(2),
        &["secret:nothing.Token", "has no value"],
    );
    fs_err::write(env.state().join("token"), "canary-3\n").unwrap();
    assert_eq!(plan(&[]).expect_code(0).json(), one.json());
    let shown = text.replace(
        "./component.yaml\n",
        "./component.yaml\n    parameters: [{name: Token, value: [canary-4]}]\n",
    );
    fs_err::write(&recipe, shown).unwrap();
    let end = plan(&[]).expect_code(2);
    says(
        &end,
        &[
            "shows the value of the secret parameter Token",
            "secret:nothing.Token",
        ],
    );
}

/// The same of a template, whose secret is given to a parameter of its own name.
#[test]
fn a_secret_of_a_template_is_in_no_plan() {
    let env = Env::new();
    let tiny = crate::tiny::Tiny::new(&env, &[("base", "1.0", "base")]);
    let mirror = format!("file://{}", tiny.root().display());
    let template = env.write(
        "template.yaml",
        format!(
            "Parameters:\n  Token: {{Type: String, NoEcho: true}}\nResources:\n  Web:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: web\n      Version: 1.0.0\n      Platform: Linux\n      Data: |\n        schemaVersion: 1.0\n        parameters:\n          - Token: {{type: string, allowedValues: [canary-1, canary-2]}}\n        phases:\n          - name: build\n            steps:\n              - {{name: Run, action: ExecuteBash, inputs: {{commands: ['echo {{{{ Token }}}}']}}}}\n  Recipe:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Metadata:\n      amiforge:\n        apt: {{mirror: \"{mirror}\", keyring: tiny.gpg, variant: essential, packages: [base]}}\n    Properties:\n      Name: tiny\n      Version: 1.0.0\n      ParentImage: debian:tiny\n      Components: [{{ComponentArn: !GetAtt Web.Arn, Parameters: [{{Name: Token, Value: [!Ref Token]}}]}}]\n"
        ),
    );
    let plan = |token: &str| {
        let mut command = env.amiforge();
        command.args(["plan", "--json"]).arg(&template);
        finish(command.args(["--param", &format!("Token={token}")])).expect_code(0)
    };
    let (one, two) = (plan("canary-1"), plan("canary-2"));
    assert_eq!(one.json(), two.json());
    let shown = format!("{}{}", one.text(), one.stderr);
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn schemas_are_printed_as_they_are_published() {
    let env = Env::new();
    let schema = |kind: &str| finish(env.amiforge().args(["schema", kind]));
    let kinds = env.run(env.amiforge().arg("schema")).text();
    let folder = workspace_root().join("docs/schema");
    let published = fs_err::read_dir(&folder).unwrap().count();
    assert_eq!(kinds.lines().count(), published, "{kinds}");
    for line in kinds.lines() {
        let kind = line.split_whitespace().next().unwrap();
        let text = fs_err::read_to_string(folder.join(format!("{kind}.schema.json"))).unwrap();
        assert_eq!(schema(kind).expect_code(0).text(), text, "{kind}");
    }
    says(
        &schema("recipe").expect_code(2),
        &["no schema of \"recipe\"", "amiforge schema"],
    );
}
