use super::*;
use std::collections::BTreeMap;

fn read(text: &str, given: &[(&str, &str)]) -> (Template, Vec<Diagnostic>) {
    let given: BTreeMap<String, String> = given
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    let (template, diags) = parse_template(text, &given);
    let problems = diags.into_sorted();
    (template.unwrap_or_else(|| panic!("{problems:?}")), problems)
}

/// The properties of a recipe, whose value for a field is `value`, with the rest of a template.
fn recipe_name(value: &str, rest: &str, given: &[(&str, &str)]) -> String {
    let text = format!(
        "Resources:\n  R:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: {value}\n      Version: 1.0.0\n      ParentImage: debian:bookworm\n{rest}"
    );
    let (template, _) = read(&text, given);
    let properties = &template.resource("R").unwrap().properties;
    let name = properties.get("Name").unwrap();
    let open = if name.is_opaque() { "open " } else { "" };
    format!("{open}{}", name.as_text().unwrap())
}

#[test]
fn references_are_replaced_by_what_is_known() {
    let parameters = "Parameters:\n  Env: {Type: String, Default: dev}\n  Open: {Type: String}\n  Names: {Type: CommaDelimitedList, Default: 'one, two'}\nMappings:\n  M: {dev: {name: small}, prod: {name: large}}\nConditions:\n  IsProd: !Equals [!Ref Env, prod]\n  IsOpen: !Equals [!Ref Open, x]\n";
    for (value, expected) in [
        ("plain", "plain"),
        ("!Ref Env", "dev"),
        ("{Ref: Env}", "dev"),
        ("!Sub 'web-${Env}'", "web-dev"),
        ("!Sub ['web-${A}-${Env}', {A: !Ref Env}]", "web-dev-dev"),
        ("!Sub 'web-${Open}'", "open web-${Open}"),
        ("!Join ['-', [web, !Ref Env, 'x']]", "web-dev-x"),
        ("!Join ['-', !Ref Names]", "one-two"),
        ("!Select [1, !Ref Names]", "two"),
        ("!Select ['0', !Split ['_', 'web_x']]", "web"),
        ("!FindInMap [M, !Ref Env, name]", "small"),
        ("!If [IsProd, large, small]", "small"),
        ("!If [IsOpen, large, small]", "open ${Fn::If}"),
        ("{'Fn::If': [IsProd, large, small]}", "small"),
        ("!Base64 abc", "YWJj"),
        ("!ImportValue x", "open ${Fn::ImportValue}"),
        ("!Sub 'in-${AWS::Region}'", "in-us-east-1"),
    ] {
        // A name has three characters or more, or the recipe would be none.
        assert_eq!(recipe_name(value, parameters, &[]), expected, "{value}");
    }
    assert_eq!(
        recipe_name("!If [IsProd, large, small]", parameters, &[("Env", "prod")]),
        "large"
    );
    assert_eq!(
        recipe_name("!Sub 'web-${Open}'", parameters, &[("Open", "x")]),
        "web-x"
    );
}

const TWO: &str = "\
Resources:
  Hello:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: hello
      Version: 1.0.0
      Platform: Linux
      Data: !Sub |
        schemaVersion: 1.0
        phases:
          - name: build
            steps:
              - name: Say
                action: ExecuteBash
                inputs: {commands: ['echo ${AWS::Region} ${!HOME}']}
  One:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties:
      Name: one
      Version: 1.0.0
      ParentImage: debian:bookworm
      Components:
        - ComponentArn: !Ref Hello
  Two:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: {Name: two, Version: 1.0.0, ParentImage: !Ref Parent}
  Pipe:
    Type: AWS::ImageBuilder::ImagePipeline
    Properties:
      Name: pipe
      ImageRecipeArn: !GetAtt Two.Arn
      InfrastructureConfigurationArn: !Ref Infra
  Infra:
    Type: AWS::ImageBuilder::InfrastructureConfiguration
    Properties: {Name: infra, InstanceProfileName: !Ref Profile}
  Profile:
    Type: AWS::IAM::InstanceProfile
Parameters:
  Parent: {Type: String}
";

#[test]
fn a_recipe_is_chosen_by_name_or_by_being_the_only_one() {
    let (template, problems) = read(TWO, &[]);
    assert_eq!(problems, []);
    let id = |name: Option<&str>| template.recipe(name).map(|r| r.id.clone());
    assert_eq!(id(Some("One")).unwrap(), "One");
    assert_eq!(id(Some("Pipe")).unwrap(), "Two");
    assert!(matches!(id(None), Err(TemplateError::Several { ids }) if ids == ["One", "Two"]));
    assert!(matches!(
        id(Some("Hello")),
        Err(TemplateError::NotARecipe { .. })
    ));
    assert!(matches!(
        id(Some("Nobody")),
        Err(TemplateError::Unknown { .. })
    ));
}

#[test]
fn inline_documents_are_read_with_their_references_replaced() {
    let (template, _) = read(TWO, &[]);
    let hello = template.resource("Hello").unwrap();
    assert!(hello.component.is_some());
    assert!(
        hello
            .data
            .as_ref()
            .unwrap()
            .contains("echo us-east-1 ${HOME}")
    );
}

#[test]
fn a_build_needs_values_that_a_check_does_not() {
    let (template, _) = read(TWO, &[]);
    let (recipe, problems) = template.recipe(Some("Two")).unwrap().image_recipe();
    assert!(recipe.is_none());
    assert_eq!(
        problems.iter().map(|p| p.code).collect::<Vec<_>>(),
        ["unresolved-value"]
    );
    let (template, _) = read(TWO, &[("Parent", "debian:trixie")]);
    let (recipe, problems) = template.recipe(Some("Two")).unwrap().image_recipe();
    assert!(problems.is_empty());
    assert_eq!(recipe.unwrap().parent.to_string(), "debian:trixie");
}

#[test]
fn problems_of_inline_documents_stand_where_the_text_stands() {
    let text = "\
Parameters:
  Long: {Type: String, Default: a-very-long-value-indeed}
Resources:
  C:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: broken
      Version: 1.0.0
      Platform: Linux
      Data:
        Fn::Sub: |
          schemaVersion: 1.0
          phases:
            - name: build
              steps:
                - {name: '${Long}-x', action: ExecuteBsh}
                - name: Two
                  acton: ExecuteBash
";
    let (_, diags) = parse_template(text, &BTreeMap::new());
    for problem in diags.iter() {
        let span = problem.span.unwrap();
        let found = &text[span.start.offset..span.end.offset];
        let line = text[..span.start.offset].matches('\n').count() + 1;
        assert_eq!(span.start.line as usize, line, "{problem}");
        match problem.code {
            "unknown-action" => assert_eq!(found, "ExecuteBsh"),
            "unknown-field" => assert_eq!(found, "acton"),
            _ => {}
        }
    }
    let codes: Vec<_> = diags.iter().map(|p| p.code).collect();
    assert!(
        codes.contains(&"unknown-action") && codes.contains(&"unknown-field"),
        "{codes:?}"
    );
}

#[test]
fn conditions_that_go_in_circles_end() {
    let text = "Conditions:\n  A: !Not [!Condition B]\n  B: !Or [!Condition A, !Condition A]\nResources: {}\n";
    let (template, diags) = parse_template(text, &BTreeMap::new());
    assert!(template.is_none());
    assert!(diags.iter().any(|p| p.code == "circular-reference"));
}

#[test]
fn references_that_repeat_much_are_refused() {
    let mut text = format!(
        "Parameters:\n  A: {{Type: String, Default: {}}}\nResources:\n",
        "x".repeat(100_000)
    );
    text.push_str(
        "  C:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Data: !Sub '",
    );
    text.push_str(&"${A}".repeat(100_000));
    text.push_str("'\n");
    let (_, diags) = parse_template(&text, &BTreeMap::new());
    assert!(diags.iter().any(|p| p.code == "document-too-large"));
}

#[test]
fn hostile_templates_end_soon() {
    let mut chain = String::from("Conditions:\n");
    for n in 0..30_000 {
        chain.push_str(&format!("  C{n}: !Not [!Condition C{}]\n", n + 1));
    }
    chain.push_str("Resources: {}\n");
    let mut names = String::from("Parameters:\n");
    for n in 0..15_000 {
        names.push_str(&format!("  Name{n}: {{Type: String}}\n"));
    }
    names.push_str("Resources:\n  R:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Tags:\n");
    for n in 0..15_000 {
        names.push_str(&format!("        t{n}: !Ref Nme{n}\n"));
    }
    let mut texts = String::from(
        "Resources:\n  R:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Description: !Sub |\n",
    );
    for n in 0..25_000 {
        texts.push_str(&format!("        ${{Nothing}} ${{R.Nothing{n}}}\n"));
    }
    let mut circle = String::from("Resources:\n");
    for n in 0..400 {
        circle.push_str(&format!(
            "  R{n}:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    Properties:\n      InstanceProfileName: a\n      Name: !Sub '"
        ));
        circle.push_str(&format!("${{R{}.Name}}", n / 5 * 5 + (n + 1) % 5).repeat(100));
        circle.push_str("'\n");
    }
    for (text, code) in [
        (chain, "nested-too-deep"),
        (names, "unknown-reference"),
        (texts, "unknown-reference"),
        (circle, "circular-reference"),
    ] {
        let (_, diags) = parse_template(&text, &BTreeMap::new());
        assert!(diags.iter().any(|p| p.code == code), "{code}");
        assert!(diags.len() < 1_000, "{}", diags.len());
    }
}

#[test]
fn a_parameter_with_no_echo_is_nowhere_but_in_its_list() {
    let text = "Parameters:\n  Token: {Type: String, NoEcho: true, Default: hunter2}\n  Empty: {Type: String, NoEcho: true, Default: ''}\nConditions:\n  Same: !Equals [!Ref Token, hunter2]\n  None: !Equals [!Ref Empty, '']\nResources:\n  C:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: web\n      Version: 1.0.0\n      Platform: Linux\n      Description: !If [Same, same, other]\n      ChangeDescription: !If [None, none, some]\n      Data: !Sub |\n        schemaVersion: 1.0\n        phases:\n          - name: build\n            steps:\n              - {name: Run, action: ExecuteBash, inputs: {commands: [echo ${Token}]}}\n";
    let (template, problems) = read(text, &[]);
    assert!(problems.is_empty(), "{problems:?}");
    let secrets = BTreeMap::from([("Token".to_owned(), "hunter2".to_owned())]);
    assert_eq!(template.secrets, secrets);
    let resource = template.resource("C").unwrap();
    let field = |name| resource.properties.get(name).and_then(Node::as_text);
    assert_eq!(field("Description"), Some("same"));
    assert_eq!(field("ChangeDescription"), Some("none"));
    let data = resource.data.as_deref().unwrap();
    assert!(data.contains(&crate::secret_mark("Token")), "{data}");
    assert!(!format!("{:?}", template.resources).contains("hunter2"));
    let component = resource.component.as_ref().unwrap();
    let wanted: Vec<String> = component
        .external(&BTreeMap::new(), |_| true)
        .into_keys()
        .collect();
    assert_eq!(wanted, ["secret:Token"]);

    let wrong = text.replace(
        "Type: String, NoEcho: true, Default: hunter2",
        "Type: Number, NoEcho: true, Default: hunter2",
    );
    let (_, diags) = parse_template(&wrong, &BTreeMap::new());
    let messages = format!("{:?}", diags.into_sorted());
    assert!(
        messages.contains("(not shown) of parameter `Token` is not a number"),
        "{messages}"
    );
    assert!(!messages.contains("hunter2"), "{messages}");
}

#[test]
fn a_repository_without_a_name_yet_takes_the_recipes_for_a_build() {
    let text = "Resources:\n  Repo: {Type: AWS::ECR::Repository}\n  R:\n    Type: AWS::ImageBuilder::ContainerRecipe\n    Properties:\n      Name: web\n      Version: 1.0.0\n      ContainerType: DOCKER\n      ParentImage: debian:bookworm\n      TargetRepository: {Service: ECR, RepositoryName: !Ref Repo}\n      DockerfileTemplateData: 'FROM {{{ imagebuilder:parentImage }}}'\n";
    let build = |text: &str| {
        let (template, _) = read(text, &[]);
        template.resource("R").unwrap().image_recipe()
    };
    let (recipe, problems) = build(text);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(recipe.unwrap().container.unwrap().repository, "web");
    // A name that is known stays, and the recipe's own has to be known.
    let known = text.replace("!Ref Repo", "front");
    let recipe = build(&known).0.unwrap();
    assert_eq!(recipe.container.unwrap().repository, "front");
    let open = text.replace("Name: web", "Name: !Ref Repo");
    let (recipe, problems) = build(&open);
    assert_eq!(recipe, None);
    let codes: Vec<_> = problems.iter().map(|p| p.code).collect();
    assert_eq!(codes, ["unresolved-value"]);
}

#[test]
fn a_secret_cannot_be_part_of_an_image() {
    let text = "Parameters:\n  Token: {Type: String, NoEcho: true, Default: hunter2}\nResources:\n  R:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: !Sub 'web-${Token}'\n      Version: 1.0.0\n      ParentImage: debian:bookworm\n      Tags: {token: !Ref Token}\n";
    let (template, _) = read(text, &[]);
    let (recipe, problems) = template.resource("R").unwrap().image_recipe();
    assert_eq!(recipe, None);
    let problems = problems.into_sorted();
    let lines: Vec<_> = problems
        .iter()
        .map(|p| (p.code, p.span.map(|s| s.start.line)))
        .collect();
    assert_eq!(
        lines,
        [
            ("conflicting-fields", Some(7)),
            ("conflicting-fields", Some(10))
        ]
    );
}

#[test]
fn a_secret_passes_every_check_of_what_it_is_a_part_of() {
    let text = "Parameters:\n  Topic: {Type: String, NoEcho: true, Default: 'a:b'}\nResources:\n  I:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    Properties:\n      Name: web\n      InstanceProfileName: web\n      SnsTopicArn: !Ref Topic\n      SubnetId: !Select [1, !Split [':', !Ref Topic]]\n";
    let (template, problems) = read(text, &[]);
    assert!(problems.is_empty(), "{problems:?}");
    let properties = &template.resource("I").unwrap().properties;
    assert!(properties.get("SnsTopicArn").unwrap().is_opaque());
}

#[test]
fn keys_that_stand_twice_are_errors_where_they_are_read_only() {
    let text = "Resources:\n  Role:\n    Type: AWS::IAM::Role\n    Properties:\n      Path: /\n      Name: a\n      Path: /\n  Recipe:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: abc\n      Version: 1.0.0\n      ParentImage: debian:bookworm\n      Name: def\n  Topic:\n    Type: AWS::SNS::Topic\n    Properties: {A: 1, A: 2}\nOutputs: {}\nOutputs: {}\n";
    let (_, problems) = parse_template(text, &BTreeMap::new());
    let told: Vec<_> = problems
        .iter()
        .map(|p| (p.severity, p.span.unwrap().start.line))
        .collect();
    assert_eq!(
        told,
        [
            (Severity::Warning, 7),
            (Severity::Error, 14),
            (Severity::Warning, 17),
            (Severity::Error, 19)
        ]
    );
}

#[test]
fn a_parent_that_systems_manager_names_is_left_to_the_configuration() {
    let template = |parent: &str| {
        format!(
            "Parameters:\n  Parent:\n    Type: AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>\n    Default: /aws/debian/12\nResources:\n  R:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: demo\n      Version: 1.0.0\n      ParentImage: {parent}\n"
        )
    };
    for parent in ["!Ref Parent", "'{{resolve:ssm:/aws/debian/12:3}}'"] {
        let (template, _) = read(&template(parent), &[]);
        let (recipe, problems) = template.resource("R").unwrap().image_recipe();
        let problems = problems.into_sorted();
        let recipe = recipe.unwrap_or_else(|| panic!("{parent}: {problems:?}"));
        assert_eq!(recipe.parent.to_string(), "ssm:/aws/debian/12");
    }
}

#[test]
fn dynamic_references_in_a_document_are_open_where_they_stand() {
    let text = "\
Parameters:
  Stage: {Type: String, Default: dev}
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
              - name: one
                action: ExecuteBash
                inputs:
                  commands:
                    - echo ${Stage} {{resolve:ssm:/${Stage}/version}} ${AWS::StackId}
                    - echo {{ resolve:ssm:x }} {{resolve:ssm:/${Stage}/version}} {{resolve:s3cr{t}}
                    - echo {{ nowhere }}
";
    for text in [
        text.to_owned(),
        text.replace("!Sub ", "").replace("${Stage}", "dev"),
    ] {
        let (_, diags) = parse_template(&text, &BTreeMap::new());
        let problems = diags.into_sorted();
        let places: Vec<_> = problems
            .iter()
            .filter(|p| p.code == "undeclared-name")
            .map(|p| {
                let at = p.span.unwrap().start;
                (at.line, at.column)
            })
            .collect();
        assert_eq!(places, [(21, 28)], "{problems:#?}");
    }
    let known = text.replace("{{ nowhere }}", "x");
    let (template, _) = read(&known, &[]);
    let open = &template.resource("Web").unwrap().open;
    let told: Vec<_> = open
        .iter()
        .map(|p| {
            let span = p.span.unwrap();
            (
                p.message.as_str(),
                span.start.line,
                &known[span.start.offset..span.end.offset],
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (
                "`{{resolve:ssm:/dev/version}}` has no value before deployment",
                19,
                "{{resolve:ssm:/${Stage}/version}}"
            ),
            (
                "`${AWS::StackId}` has no value before deployment",
                19,
                "${AWS::StackId}"
            ),
        ]
    );
    // What is known stands in the text, with what is not as CloudFormation writes it.
    let resource = template.resource("Web").unwrap();
    let data = resource.data.as_deref().unwrap();
    assert!(
        data.contains("echo dev ${resolve:ssm:/dev/version} ${AWS::StackId}\n"),
        "{data}"
    );
    assert!(data.contains("{{ resolve:ssm:x }}"), "{data}");
}

#[test]
fn very_many_components_with_very_many_parameters_end_soon() {
    let mut text = String::from(
        "Resources:\n  C:\n    Type: AWS::ImageBuilder::Component\n    Properties:\n      Name: web\n      Version: 1.0.0\n      Platform: Linux\n      Data: |\n        schemaVersion: 1.0\n        parameters:\n",
    );
    for n in 0..300 {
        text.push_str(&format!("          - Param{n}: {{type: string}}\n"));
    }
    text.push_str("        phases: [{name: build, steps: [{name: One, action: Reboot}]}]\n  R:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Properties:\n      Name: web\n      Version: 1.0.0\n      ParentImage: debian:bookworm\n      Components:\n");
    text.push_str(&"        - ComponentArn: !Ref C\n".repeat(20_000));
    let (_, _, diags) = crate::parse_document(&text);
    let codes: std::collections::BTreeSet<_> = diags.iter().map(|p| p.code).collect();
    assert!(codes.contains("invalid-parameter"), "{codes:?}");
    assert!(diags.len() < 3_000, "{}", diags.len());
}
