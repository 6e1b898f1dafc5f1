//! `export`: what is written is read back by those who know better: our own planner, PyYAML, cfn-lint, botocore's
//! validator, the AWS command line against a service that keeps what it is sent, shellcheck, and the schema of
//! Terraform's provider.

use std::path::{Path, PathBuf};

use amiforge_testkit::{Env, Finished, finish, run, tool, venv_program, workspace_root};
use serde_json::Value;

use crate::tiny::{Tiny, planned_layers};

/// The judges, in one Python program.
const JUDGES: &str = "crates/cli/tests/it/export/judges.py";
/// What stands for AWS when the script runs.
const SERVICE: &str = "crates/cli/tests/it/export/service.py";
/// Arguments of Terraform's provider.
const SCHEMA: &str = "fixtures/terraform/provider-aws-6.62.0.json";

/// Documents of every kind that mean each other, as users have them, in a folder of their own.
fn documents(env: &Env) -> Vec<PathBuf> {
    env.write(
        "components/web.yaml",
        "name: Web server\ndescription: >\n  A page\nschemaVersion: 1.0\nparameters:\n  - Greeting: {type: string, default: hi}\nphases:\n  - name: build\n    steps:\n      - name: Page\n        action: ExecuteBash\n        inputs:\n          commands:\n            - |\n              set -e\n              echo \"{{ Greeting }} ${HOME} %{x}\" > /srv/page\n",
    );
    let recipe = env.write(
        "recipe.yaml",
        "name: web server\nsemanticVersion: 1.2.0\nparentImage: debian:bookworm\ndescription: 'yes'\ncomponents:\n  - componentArn: ./components/web.yaml\n    parameters: [{name: Greeting, value: ['${hello} \"there\"']}]\n  - componentArn: update-linux/x.x.x\nblockDeviceMappings:\n  - deviceName: /dev/xvda\n    ebs: {volumeSize: 8, volumeType: gp3, iops: 3000, throughput: 125, encrypted: true, deleteOnTermination: true}\n  - {deviceName: /dev/sdb, virtualName: ephemeral0}\n  - {deviceName: /dev/sdc, noDevice: ''}\nworkingDirectory: /tmp\namiTags: {Purpose: web, 'team:x': 'no'}\ntags: {a: '1.0'}\nadditionalInstanceConfiguration: {systemsManagerAgent: {uninstallAfterBuild: true}, userDataOverride: eA==}\namiWatermarks: [mark]\namiforge: {formats: [qcow2]}\n",
    );
    let infrastructure = env.write(
        "infrastructure.yaml",
        "name: machines\ninstanceProfileName: EC2InstanceProfileForImageBuilder\ninstanceTypes: [t3.micro]\nsecurityGroupIds: [sg-0123456789abcdef0]\nsubnetId: subnet-0123456789abcdef0\nterminateInstanceOnFailure: false\nlogging: {s3Logs: {s3BucketName: logs, s3KeyPrefix: images/}}\nresourceTags: {team: base}\ninstanceMetadataOptions: {httpTokens: required, httpPutResponseHopLimit: 2}\n",
    );
    let pipeline = env.write(
        "pipeline.yaml",
        "name: nightly\nimageRecipeArn: web server\ninfrastructureConfigurationArn: machines\ndistributionConfigurationArn: everywhere\nschedule: {scheduleExpression: 'cron(30 2 ? * mon-fri *)', timezone: Europe/Berlin, autoDisablePolicy: {failureCount: 3}}\nimageTestsConfiguration: {imageTestsEnabled: true, timeoutMinutes: 60}\nworkflows:\n  - {workflowArn: 'arn:aws:imagebuilder:eu-central-1:aws:workflow/build/build-image/x.x.x', onFailure: ABORT}\n  - {workflowArn: test image, parameters: [{name: level, value: [high]}]}\nexecutionRole: arn:aws:iam::123456789012:role/builder\nimageTags: {role: web}\n",
    );
    let fixture = |path: &str| workspace_root().join("fixtures").join(path);
    vec![
        // The pipeline first: the order of the files does not matter.
        pipeline,
        recipe,
        infrastructure,
        fixture("distribution-configurations/ok/all/document.yaml"),
        fixture("workflow-resources/ok/inline/document.yaml"),
        fixture("container-recipes/ok/all/document.yaml"),
        fixture("lifecycle-policies/ok/all/document.yaml"),
        fixture("component-resources/ok/inline/document.yaml"),
    ]
}

fn export(env: &Env, format: &str, files: &[PathBuf], more: &[&str]) -> Finished {
    let mut command = env.amiforge();
    command.args(["export", format]).args(files).args(more);
    finish(&mut command)
}

/// Panics with what a judge has to say.
fn judged(env: &Env, args: &[&str]) -> Value {
    let mut command = env.command(venv_program("python3"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    run(command.arg(JUDGES).args(args)).json()
}

fn as_str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn templates_are_right_for_cfn_lint_and_botocore() {
    let env = Env::new();
    let files = documents(&env);
    let template = env.path("out/template.yaml");
    let end = export(
        &env,
        "cloudformation",
        &files,
        &["--out", as_str(&template)],
    )
    .expect_code(0);
    assert_eq!(end.text(), format!("{}\n", template.display()));
    let note = "`distributions.s3ExportConfiguration` of distribution configuration `everywhere` is left out: CloudFormation has no such field";
    assert!(end.stderr.contains(note), "{end}");
    let found = judged(&env, &["cloudformation", as_str(&template)]);
    assert_eq!(found["lint"], serde_json::json!([]), "{found:#}");
    assert_eq!(found["requests"], serde_json::json!([]), "{found:#}");
    let resources = &found["template"]["Resources"];
    // PyYAML reads the document byte for byte.
    assert_eq!(
        resources["WebServerComponent"]["Properties"]["Data"],
        fs_err::read_to_string(env.path("components/web.yaml")).unwrap()
    );
    let recipe = &resources["WebServerRecipe"]["Properties"];
    assert_eq!(recipe["Description"], "yes");
    assert_eq!(recipe["AmiTags"]["team:x"], "no");
    assert_eq!(recipe["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"], 8);
    let pipeline = &resources["NightlyPipeline"]["Properties"];
    let get = |of: &str| serde_json::json!({"Fn::GetAtt": format!("{of}.Arn")});
    assert_eq!(pipeline["ImageRecipeArn"], get("WebServerRecipe"));
    assert_eq!(
        pipeline["InfrastructureConfigurationArn"],
        get("MachinesInfrastructure")
    );
    assert_eq!(
        pipeline["DistributionConfigurationArn"],
        get("EverywhereDistribution")
    );
    assert_eq!(
        pipeline["Workflows"][1]["WorkflowArn"],
        get("TestImageWorkflow")
    );
    // The same documents give the same bytes, and our own reader takes them.
    let again = export(&env, "cloudformation", &files, &[]).expect_code(0);
    assert_eq!(again.stdout, fs_err::read(&template).unwrap());
    finish(env.amiforge().arg("validate").arg(&template)).expect_code(0);
}

/// What CloudFormation reads is what the user wrote: PyYAML reads YAML 1.1, as CloudFormation does.
#[test]
fn texts_stay_what_they_are_for_readers_of_yaml_1_1() {
    let env = Env::new();
    let texts = [
        "yes",
        "No",
        "on",
        "~",
        "null",
        "",
        " ",
        "x ",
        " x",
        "1.10",
        "0755",
        "1e3",
        "0x1f",
        "1_000",
        "12:30:45",
        "2026-01-01",
        "<<",
        "=",
        "---",
        "...",
        "- a",
        "? a",
        "a: b",
        "a #b",
        "#a",
        "a:",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "|",
        ">",
        "{a}",
        "[a",
        "a, b",
        "'a'",
        "\"a\"",
        "it's \"so\"",
        "a\\b\\n",
        "\t",
        "a\tb",
        "a\nb",
        "a\n\n",
        "\n a\n",
        "a \n b\r\n",
        "é 😀",
        "\u{85}\u{2028}\u{feff}",
        "{{ x }}",
        "\u{7f}",
    ];
    let half = texts.len() / 2;
    let tags = |texts: &[&str]| {
        let tags = texts.iter().enumerate();
        let tags = tags.map(|(at, text)| (format!("t{at}"), Value::from(*text)));
        Value::Object(tags.collect())
    };
    // Line ends and an indentation that a block scalar cannot have.
    let component = "\r\n# first\r\nschemaVersion: 1.0\r\nphases:\r\n  - name: build\r\n    steps:\r\n      - {name: A, action: Reboot}\r\n";
    env.write("crlf.yaml", component);
    let indented = component.replace("\r\n", "\n  ");
    env.write("indented.yaml", &indented);
    let recipe = serde_json::json!({
        "name": "texts", "semanticVersion": "1.0.0", "parentImage": "debian:bookworm",
        "components": [{"componentArn": "./crlf.yaml"}, {"componentArn": "./indented.yaml"}],
        "tags": tags(&texts[..half]), "amiTags": tags(&texts[half..]),
    });
    let recipe = [env.write("recipe.json", recipe.to_string())];
    let template = env.path("template.yaml");
    export(
        &env,
        "cloudformation",
        &recipe,
        &["--out", as_str(&template)],
    )
    .expect_code(0);
    let found = judged(&env, &["cloudformation", as_str(&template)]);
    let resources = &found["template"]["Resources"];
    let properties = &resources["TextsRecipe"]["Properties"];
    assert_eq!(properties["Tags"], tags(&texts[..half]));
    assert_eq!(properties["AmiTags"], tags(&texts[half..]));
    assert_eq!(resources["CrlfComponent"]["Properties"]["Data"], component);
    assert_eq!(
        resources["IndentedComponent"]["Properties"]["Data"],
        *indented
    );
}

/// What is shipped and what the fixtures have, alone.
#[test]
fn shipped_recipes_and_fixtures_are_exported() {
    let env = Env::new();
    let root = workspace_root();
    let mut files = vec![
        root.join("recipes/debian-web"),
        root.join("recipes/debian-minimal"),
    ];
    for kind in [
        "recipes",
        "infrastructure-configurations",
        "distribution-configurations",
        "image-pipelines",
        "container-recipes",
        "lifecycle-policies",
        "images",
        "component-resources",
        "workflow-resources",
    ] {
        let folder = root.join("fixtures").join(kind).join("ok");
        for case in fs_err::read_dir(folder).unwrap() {
            let case = case.unwrap().path();
            let document = ["document.yaml", "document.json"].map(|name| case.join(name));
            files.extend(document.into_iter().filter(|path| path.exists()));
        }
    }
    let mut templates = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let out = env.path(format!("{at}.yaml"));
        let end = export(
            &env,
            "cloudformation",
            std::slice::from_ref(file),
            &["--out", as_str(&out)],
        );
        // Fixtures name components that are not there.
        let text = fs_err::read_to_string(if file.is_dir() {
            file.join("recipe.yaml")
        } else {
            file.clone()
        })
        .unwrap();
        let names = ["./components/", "/abs/"];
        if names.iter().any(|name| text.contains(name)) && !file.is_dir() {
            end.expect_code(2);
            continue;
        }
        end.expect_code(0);
        templates.push(out.to_str().unwrap().to_owned());
    }
    assert!(templates.len() > 15, "{templates:?}");
    let mut args = vec!["cloudformation"];
    args.extend(templates.iter().map(String::as_str));
    let found = judged(&env, &args);
    assert_eq!(found["requests"], serde_json::json!([]), "{found:#}");
    // One fixture has a volume that EC2 takes and Image Builder does not, of which `validate` warns.
    let lint: Vec<&str> = found["lint"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        matches!(lint.as_slice(), [only] if only.ends_with("20000 is greater than the maximum of 16000")),
        "{lint:#?}"
    );
}

/// The plan of an exported template is that of the recipe.
#[test]
fn an_exported_template_gives_the_layers_of_its_recipe() {
    let env = Env::new();
    let tiny = Tiny::new(&env, &[("base", "1.0", "base")]);
    let mirror = format!("file://{}", tiny.root().display());
    let recipe = tiny.recipe(&mirror, "[base]");
    let text = fs_err::read_to_string(&recipe).unwrap();
    // A built-in component, which AWS has too.
    let text = text.replace(
        "blockDeviceMappings:",
        "  - componentArn: hello-world-linux/x.x.x\nblockDeviceMappings:",
    );
    fs_err::write(&recipe, text).unwrap();
    let template = env.path("template.yaml");
    for more in [&[][..], &["--own-library", "--force"]] {
        let mut args = vec!["--out", as_str(&template)];
        args.extend(more);
        export(&env, "cloudformation", std::slice::from_ref(&recipe), &args).expect_code(0);
        let of_recipe = planned_layers(&env, &recipe, &[]);
        assert_eq!(of_recipe.len(), 4);
        let args = [
            "--resource",
            "TinyRecipe",
            "--param",
            "ParentImage=debian:tiny",
        ];
        assert_eq!(planned_layers(&env, &template, &args), of_recipe);
    }
}

/// The script, run by a shell with the real AWS command line, makes everything once.
#[test]
fn the_script_makes_every_resource_once() {
    let env = Env::new();
    let files = documents(&env);
    let folder = env.path("calls");
    export(&env, "cli", &files, &["--out", as_str(&folder)]).expect_code(0);
    let script = folder.join("create.sh");
    run(tool("shellcheck").arg(&script));

    let mut service = env.command(venv_program("python3"));
    let log = env.path("calls.json");
    service.arg(SERVICE).arg(&log).arg(env.path("port"));
    let service = amiforge_testkit::Running::spawn(&mut service);
    let port = wait_for(&env.path("port"));
    let create = |parent: Option<&str>| {
        let mut command = env.command("sh");
        let path = format!(
            "{}:{}",
            venv_program("aws").parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        command
            .env("PATH", path)
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_MAX_ATTEMPTS", "1")
            .arg(&script);
        if let Some(parent) = parent {
            command.env("PARENT_IMAGE", parent);
        }
        finish(&mut command)
    };
    let unasked = create(None);
    assert_ne!(unasked.code(), 0);
    assert!(unasked.stderr.contains("debian:bookworm"), "{unasked}");
    let hostile = create(Some("ami-1|w x")).expect_code(2);
    assert!(hostile.stderr.contains("not the name of an image"));

    let first = create(Some("ami-0123456789abcdef0")).expect_code(0);
    let lines: Vec<String> = first.text().lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.len(), 9, "{first}");
    assert!(lines[0].starts_with("WebServerComponent arn:aws:imagebuilder:"));
    assert_eq!(first.stderr.matches("created arn:").count(), 9, "{first}");

    let calls: Value = serde_json::from_slice(&fs_err::read(&log).unwrap()).unwrap();
    let sent = |call: &str| {
        let list = calls.as_array().unwrap();
        list.iter().find(|c| c["call"] == call).unwrap()["input"].clone()
    };
    let recipe = sent("CreateImageRecipe");
    assert_eq!(recipe["parentImage"], "ami-0123456789abcdef0");
    let components = &recipe["components"];
    let own = lines[0].split_once(' ').unwrap().1;
    assert_eq!(components[0]["componentArn"], own);
    assert_eq!(
        components[0]["parameters"][0]["value"][0],
        "${hello} \"there\""
    );
    assert_eq!(
        components[1]["componentArn"],
        "arn:aws:imagebuilder:eu-central-1:aws:component/update-linux/x.x.x"
    );
    assert_eq!(
        sent("CreateComponent")["data"],
        fs_err::read_to_string(env.path("components/web.yaml")).unwrap()
    );
    let pipeline = sent("CreateImagePipeline");
    for (field, word) in [
        ("imageRecipeArn", "WebServerRecipe"),
        ("infrastructureConfigurationArn", "MachinesInfrastructure"),
        ("distributionConfigurationArn", "EverywhereDistribution"),
    ] {
        let arn = lines
            .iter()
            .find_map(|line| line.strip_prefix(&format!("{word} ")));
        assert_eq!(pipeline[field].as_str(), arn, "{field}");
    }

    // Again: only the container recipe is new, whose version has an `x`.
    let again = create(Some("ami-0123456789abcdef0")).expect_code(0);
    assert_eq!(again.stderr.matches("kept arn:").count(), 8, "{again}");
    assert_eq!(again.stderr.matches("created arn:").count(), 1, "{again}");
    drop(service);

    let found = judged(&env, &["cli", as_str(&folder)]);
    assert_eq!(found["requests"], serde_json::json!([]), "{found:#}");
}

/// What a file says once it is there and whole.
fn wait_for(path: &Path) -> String {
    for _ in 0..600 {
        match fs_err::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
    panic!("{} is not written", path.display());
}

#[test]
fn terraform_has_the_words_of_the_provider() {
    let env = Env::new();
    let files = documents(&env);
    let folder = env.path("terraform");
    let end = export(&env, "terraform", &files, &["--out", as_str(&folder)]).expect_code(0);
    for note in [
        "`amiWatermarks` of image recipe `web server` is left out: Terraform's provider has no such field",
        "`schedule.autoDisablePolicy` of image pipeline `nightly` is left out",
        "the `amiforge` settings of image recipe `web server` are left out: only amiforge has them",
    ] {
        assert!(end.stderr.contains(note), "no {note} in\n{end}");
    }
    assert_eq!(
        fs_err::read(folder.join("components/web_server.yaml")).unwrap(),
        fs_err::read(env.path("components/web.yaml")).unwrap()
    );
    let main = fs_err::read(folder.join("main.tf.json")).unwrap();
    let main: Value = serde_json::from_slice(&main).unwrap();
    let schema = fs_err::read(workspace_root().join(SCHEMA)).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let mut problems = Vec::new();
    let resources = main["resource"].as_object().unwrap();
    assert_eq!(resources.len(), 8);
    for (kind, named) in resources {
        for (name, body) in named.as_object().unwrap() {
            let mut body = body.as_object().unwrap().clone();
            body.remove("lifecycle");
            block(
                &format!("{kind}.{name}"),
                &Value::Object(body),
                &schema["resources"][kind],
                &mut problems,
            );
        }
    }
    assert_eq!(problems, [] as [String; 0]);
    let recipe = &resources["aws_imagebuilder_image_recipe"]["web_server"];
    assert_eq!(
        recipe["component"][0]["parameter"][0]["value"],
        "$${hello} \"there\""
    );
    assert_eq!(
        recipe["systems_manager_agent"]["uninstall_after_build"],
        true
    );
    assert_eq!(recipe["user_data_base64"], "eA==");
    let pipeline = &resources["aws_imagebuilder_image_pipeline"]["nightly"];
    assert_eq!(
        pipeline["image_recipe_arn"],
        "${aws_imagebuilder_image_recipe.web_server.arn}"
    );
}

/// Checks a block against its schema: `name` or `name*` (required) → a type, or a block's own schema.
fn block(path: &str, body: &Value, schema: &Value, problems: &mut Vec<String>) {
    let (Some(body), Some(schema)) = (body.as_object(), schema.as_object()) else {
        problems.push(format!("{path} is no block"));
        return;
    };
    for (key, value) in body {
        let path = format!("{path}.{key}");
        let of = schema.get(key).or_else(|| schema.get(&format!("{key}*")));
        let fits = match of {
            None => {
                problems.push(format!("{path}: the provider has no such argument"));
                continue;
            }
            Some(Value::Object(_)) => {
                let one = std::slice::from_ref(value);
                for body in value.as_array().map_or(one, Vec::as_slice) {
                    block(&path, body, of.unwrap(), problems);
                }
                true
            }
            Some(of) => match of.as_str().unwrap() {
                "string" => value.is_string(),
                // A flag that may also be absent is a string for the provider, which takes `true` for it.
                "flag" => value.is_boolean(),
                "bool" => value.is_boolean(),
                "number" => value.is_i64(),
                "strings" => value
                    .as_array()
                    .is_some_and(|v| v.iter().all(Value::is_string)),
                "map" => value
                    .as_object()
                    .is_some_and(|m| m.values().all(Value::is_string)),
                other => panic!("{other} in the schema"),
            },
        };
        if !fits {
            problems.push(format!("{path}: {value} is not {}", of.unwrap()));
        }
    }
    for key in schema.keys().filter_map(|key| key.strip_suffix('*')) {
        if !body.contains_key(key) {
            problems.push(format!("{path} lacks {key}"));
        }
    }
}

#[test]
fn templates_are_exported_with_their_references() {
    let env = Env::new();
    let template = env.write(
        "template.yaml",
        "Parameters:\n  Suite: {Type: String}\n  Subnet: {Type: String}\nResources:\n  Web:\n    Type: AWS::ImageBuilder::Component\n    Properties: {Name: web, Version: 1.0.0, Platform: Linux, Data: !Sub 'schemaVersion: 1.0\n\n      phases: [{name: build, steps: [{name: A, action: ExecuteBash, inputs: {commands: [\"echo ${Suite}\"]}}]}]'}\n  Recipe:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties: {Name: web, Version: 1.0.0, ParentImage: ami-0123456789abcdef0, Components: [{ComponentArn: !Ref Web}]}\n  Machines:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    Properties: {Name: machines, InstanceProfileName: profile, SubnetId: !Ref Subnet}\n  Nightly:\n    Type: AWS::ImageBuilder::ImagePipeline\n    Properties: {Name: nightly, ImageRecipeArn: !GetAtt Recipe.Arn, InfrastructureConfigurationArn: !Ref Machines}\n",
    );
    let files = [template];
    let out = env.path("tf");
    let out = ["--out", as_str(&out)];
    let with = |params: &[&str]| {
        let mut args = out.to_vec();
        args.extend(params);
        export(&env, "terraform", &files, &args)
    };
    let end = with(&["--param", "Suite=x"]).expect_code(2);
    assert!(end.stderr.contains("unresolved-value"), "{end}");
    assert!(!env.path("tf").exists(), "nothing is written");
    with(&["--param", "Suite=x", "--param", "Subnet=subnet-1"]).expect_code(0);
    let main = fs_err::read(env.path("tf/main.tf.json")).unwrap();
    let main: Value = serde_json::from_slice(&main).unwrap();
    let resource = &main["resource"];
    assert_eq!(
        resource["aws_imagebuilder_image_recipe"]["web"]["component"][0]["component_arn"],
        "${aws_imagebuilder_component.web.arn}"
    );
    assert_eq!(
        resource["aws_imagebuilder_infrastructure_configuration"]["machines"]["subnet_id"],
        "subnet-1"
    );
    assert_eq!(
        resource["aws_imagebuilder_image_pipeline"]["nightly"]["infrastructure_configuration_arn"],
        "${aws_imagebuilder_infrastructure_configuration.machines.arn}"
    );
    let component = fs_err::read_to_string(env.path("tf/components/web.yaml")).unwrap();
    assert!(component.contains("echo x"), "{component}");
}

#[test]
fn files_of_others_are_not_overwritten() {
    let env = Env::new();
    let files = [workspace_root().join("recipes/debian-web")];
    let folder = env.path("calls");
    env.write("calls/create.sh", "mine\n");
    let out = ["--out", as_str(&folder)];
    let end = export(&env, "cli", &files, &out).expect_code(2);
    assert!(
        end.stderr
            .contains("create.sh is there with another content")
    );
    let names = || {
        let entries = fs_err::read_dir(&folder).unwrap();
        entries.map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names(), ["create.sh"], "nothing was written");
    let end = export(&env, "cli", &files, &["--out", as_str(&folder), "--force"]).expect_code(0);
    assert_eq!(end.text().lines().count(), 3);
    // What is there already is no obstacle.
    export(&env, "cli", &files, &out).expect_code(0);
    assert_eq!(names().len(), 3);
    let end = export(&env, "cli", &files, &[]).expect_code(2);
    assert!(end.stderr.contains("--out DIR"));
}

#[test]
fn what_cannot_be_exported_says_what_to_do() {
    let env = Env::new();
    let line = "            - echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n";
    env.write(
        "long.yaml",
        format!(
            "schemaVersion: 1.0\nphases:\n  - name: build\n    steps:\n      - name: Long\n        action: ExecuteBash\n        inputs:\n          commands:\n{}",
            line.repeat(200)
        ),
    );
    let recipe = env.write(
        "recipe.yaml",
        "name: long\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\ncomponents: [{componentArn: ./long.yaml}]\n",
    );
    let files = [recipe];
    let end = export(&env, "cloudformation", &files, &[]).expect_code(2);
    assert!(end.stderr.contains("--uri long=s3://BUCKET/KEY"), "{end}");
    let uri = ["--uri", "long=s3://bucket/long.yaml"];
    let end = export(&env, "cloudformation", &files, &uri).expect_code(0);
    assert!(end.text().contains("Uri: s3://bucket/long.yaml"), "{end}");
    let uri = [uri[0], uri[1], "--uri", "other=s3://bucket/x"];
    let end = export(&env, "cloudformation", &files, &uri).expect_code(2);
    assert!(end.stderr.contains("--uri other"), "{end}");

    let workflow = workspace_root().join("fixtures/workflows/ok/build/document.yaml");
    let end = export(&env, "cloudformation", &[workflow], &[]).expect_code(2);
    assert!(
        end.stderr.contains("`data` of a workflow resource"),
        "{end}"
    );
    let bad = env.write(
        "bad.yaml",
        "name: x\nsemanticVersion: 1\nparentImage: plan9:x\n",
    );
    let end = export(&env, "cloudformation", &[bad], &[]).expect_code(2);
    assert!(
        end.stderr.contains("plan9:x") && end.stdout.is_empty(),
        "{end}"
    );
}

#[test]
fn parents_have_the_name_that_the_configuration_knows() {
    let env = Env::new();
    let files = [workspace_root().join("recipes/debian-web")];
    let text = |more: &[&str]| export(&env, "cloudformation", &files, more).expect_code(0);
    assert!(text(&[]).text().contains("ParentImage: !Ref ParentImage"));
    let given = text(&["--parent", "ami-0123456789abcdef0"]);
    assert!(given.text().contains("ParentImage: ami-0123456789abcdef0"));
    let of_aws = [workspace_root().join("fixtures/recipes/ok/parent-ami/document.yaml")];
    let parent = ["--parent", "ami-0000000000000000f"];
    let end = export(&env, "cloudformation", &of_aws, &parent).expect_code(0);
    assert!(end.stderr.contains("--parent is not for it"), "{end}");
    assert!(!end.text().contains("ami-0000000000000000f"), "{end}");
    let arn = "arn:aws:imagebuilder:eu-west-1:aws:image/debian-12-x86/x.x.x";
    env.write(
        "state/config.yaml",
        format!("parents:\n  {arn}: debian:bookworm\n  ami-0123456789abcdef0: debian:trixie\n"),
    );
    let known = text(&[]);
    assert!(
        known.text().contains(&format!("ParentImage: {arn}\n")),
        "{known}"
    );
    assert!(known.stderr.contains("as your configuration has it"));
    // A value of a component's parameter goes with it.
    let end = text(&["--param", "Greeting=good morning"]);
    assert!(end.text().contains("- good morning\n"), "{end}");
    let end = export(&env, "cloudformation", &files, &["--param", "Greting=x"]).expect_code(2);
    assert!(end.stderr.contains("--param Greting"), "{end}");
}

/// A component with a required parameter, for recipes beside it.
fn login(env: &Env) {
    env.write(
        "login.yaml",
        "name: login\nschemaVersion: 1.0\nparameters:\n  - Pass: {type: string}\nphases:\n  - name: build\n    steps:\n      - name: A\n        action: ExecuteBash\n        inputs: {commands: ['echo \"{{ Pass }}\"']}\n",
    );
}

#[test]
fn secret_parameters_are_left_out_and_told() {
    let env = Env::new();
    login(&env);
    let recipe = env.write(
        "recipe.yaml",
        "name: web\nsemanticVersion: 1.0.0\nparentImage: debian:bookworm\ncomponents: [{componentArn: ./login.yaml}]\namiforge: {secretParameters: [Pass]}\n",
    );
    let files = [recipe];
    let told = "the parameter Pass of component login is left out of recipe web";
    for name in ["Pass", "login.Pass"] {
        let given = format!("{name}=hunter2");
        let end = export(&env, "cloudformation", &files, &["--param", &given]).expect_code(0);
        assert!(!end.text().contains("hunter2"), "{end}");
        assert!(end.stderr.contains(told), "{end}");
    }
    env.write(
        "state/config.yaml",
        "references:\n  secret:login.Pass: {env: LOGIN_PASS}\n",
    );
    let end = export(&env, "cloudformation", &files, &[]).expect_code(0);
    assert!(end.stderr.contains(told), "{end}");
}

#[test]
fn recipes_of_containers_and_of_templates_are_checked() {
    let env = Env::new();
    login(&env);
    let container = env.write(
        "container.yaml",
        "name: web\nsemanticVersion: 1.0.0\ncontainerType: DOCKER\nparentImage: debian:bookworm\ncomponents: [{componentArn: ./login.yaml}]\ntargetRepository: {service: ECR, repositoryName: web}\ndockerfileTemplateData: |\n  FROM {{{ imagebuilder:parentImage }}}\n  {{{ imagebuilder:environments }}}\n  {{{ imagebuilder:components }}}\n",
    );
    let template = env.write(
        "template.yaml",
        "Resources:\n  Recipe:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties: {Name: web, Version: 1.0.0, ParentImage: 'debian:bookworm', Components: [{ComponentArn: ./login.yaml}]}\n",
    );
    for file in [container, template.clone()] {
        let files = [file];
        let end = export(&env, "cloudformation", &files, &[]).expect_code(2);
        assert!(end.stderr.contains("invalid-parameter"), "{end}");
        let end = export(&env, "cloudformation", &files, &["--param", "Pass=x"]).expect_code(0);
        assert!(
            end.text().contains("Value:\n                - x\n"),
            "{end}"
        );
    }
    // The parent of a template is asked for like that of a recipe.
    let files = [template];
    let parent = ["--param", "Pass=x", "--parent", "ami-0123456789abcdef0"];
    let end = export(&env, "cloudformation", &files, &parent[..2]).expect_code(0);
    assert!(
        end.text().contains("ParentImage: !Ref ParentImage"),
        "{end}"
    );
    let end = export(&env, "cloudformation", &files, &parent).expect_code(0);
    assert!(
        end.text().contains("ParentImage: ami-0123456789abcdef0"),
        "{end}"
    );
}

#[test]
fn what_a_template_has_beside_its_resources_is_told() {
    let env = Env::new();
    let template = env.write(
        "template.yaml",
        "Conditions:\n  Here: !Equals [!Ref 'AWS::Region', eu-central-1]\nResources:\n  Role: {Type: 'AWS::IAM::InstanceProfile'}\n  Machines:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    Condition: Here\n    DependsOn: Role\n    Properties: {Name: machines, InstanceProfileName: profile, Description: !Sub 'in ${AWS::Region}'}\n  Others:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    Properties: {Name: others, InstanceProfileName: profile}\nOutputs:\n  Arn: {Value: !Ref Machines}\n",
    );
    // One file named twice is one document.
    let files = [template.clone(), template];
    let end = export(&env, "cloudformation", &files, &[]).expect_code(2);
    assert!(end.stderr.contains("whether `Machines` is made"), "{end}");
    let with = |region: &str| {
        let given = format!("AWS::Region={region}");
        export(&env, "cloudformation", &files, &["--param", &given]).expect_code(0)
    };
    let end = with("eu-central-1");
    assert!(
        end.text().contains("Description: in eu-central-1\n"),
        "{end}"
    );
    let left = "the resource Role (AWS::IAM::InstanceProfile), `DependsOn` of Machines, the section `Outputs`";
    assert!(end.stderr.contains(left), "{end}");
    let end = with("us-west-2");
    assert!(!end.text().contains("Machines"), "{end}");
    assert!(end.stderr.contains("its condition does not hold"), "{end}");
}
