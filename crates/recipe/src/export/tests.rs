use amiforge_types::Diagnostics;

use super::*;
use crate::{Resource, parse_document, parse_recipe};

const RECIPE: &str = "
name: web server
semanticVersion: 1.0.0
parentImage: debian:bookworm
components:
  - componentArn: ./web.yaml
    parameters: [{name: Greeting, value: ['hi']}]
  - componentArn: update-linux/x.x.x
blockDeviceMappings:
  - deviceName: /dev/xvda
    ebs: {volumeSize: 8, volumeType: gp3, deleteOnTermination: true}
  - {deviceName: /dev/sdb, noDevice: ''}
amiTags: {Purpose: 'no'}
amiforge: {formats: [qcow2], apt: {checkValidUntil: false}, limits: {processes: 512}}
";

fn own(name: &str, text: &str) -> OwnComponent {
    OwnComponent {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        platform: "Linux",
        description: None,
        text: text.to_owned(),
        uri: None,
    }
}

/// The recipe with a component of its own and one of Amazon.
fn web(parent: ExportParent) -> Export {
    let recipe = parse_recipe(RECIPE).0.unwrap();
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    let place = export.component(&own("web", "name: web\nphases: ${HOME}\n"), &mut diags);
    let uses = [
        ComponentUse {
            target: ComponentTarget::Own(place),
            parameters: [("Greeting".to_owned(), "hi %{x}".to_owned())].into(),
        },
        ComponentUse {
            target: ComponentTarget::Amazon("update-linux".to_owned()),
            parameters: BTreeMap::new(),
        },
    ];
    export.recipe(None, &recipe.document, &uses, parent, &mut diags);
    assert!(diags.is_empty(), "{diags:?}");
    export
}

fn asked() -> ExportParent {
    ExportParent::Asked("debian:bookworm".to_owned())
}

#[test]
fn a_template_has_the_recipe_and_its_components() {
    let mut export = web(asked());
    export.link();
    let template = export.cloudformation();
    assert_eq!(template.notes, [] as [String; 0]);
    assert_eq!(
        template.text,
        "\
AWSTemplateFormatVersion: '2010-09-09'
Parameters:
  ParentImage:
    Type: String
    Description: 'What stands for debian:bookworm on AWS: the id of an AMI, the ARN of an image, or ssm: and the name of a parameter'
Resources:
  WebComponent:
    Type: AWS::ImageBuilder::Component
    Properties:
      Name: web
      Version: '1.0.0'
      Platform: Linux
      Data: |
        name: web
        phases: ${HOME}
  WebServerRecipe:
    Type: AWS::ImageBuilder::ImageRecipe
    Metadata:
      amiforge:
        formats:
          - qcow2
        apt:
          checkValidUntil: false
        limits:
          processes: 512
    Properties:
      Name: web server
      Version: '1.0.0'
      ParentImage: !Ref ParentImage
      Components:
        - ComponentArn: !GetAtt WebComponent.Arn
          Parameters:
            - Name: Greeting
              Value:
                - 'hi %{x}'
        - ComponentArn: !Sub 'arn:${AWS::Partition}:imagebuilder:${AWS::Region}:aws:component/update-linux/x.x.x'
      BlockDeviceMappings:
        - DeviceName: /dev/xvda
          Ebs:
            VolumeSize: 8
            VolumeType: gp3
            DeleteOnTermination: true
        - DeviceName: /dev/sdb
          NoDevice: ''
      AmiTags:
        Purpose: 'no'
"
    );
}

#[test]
fn a_parent_of_aws_needs_no_parameter() {
    let mut export = web(ExportParent::Named("ami-0123456789abcdef0".to_owned()));
    export.link();
    let text = export.cloudformation().text;
    assert!(text.contains("ParentImage: ami-0123456789abcdef0"));
    assert!(!text.contains("Parameters:\n  ParentImage"));
    assert!(!export.command_line().files[2].text.contains("PARENT_IMAGE"));
}

#[test]
fn terraform_takes_texts_as_they_are() {
    let mut export = web(asked());
    export.link();
    let folder = export.terraform();
    let paths: Vec<_> = folder.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(paths, ["components/web.yaml", "main.tf.json"]);
    assert_eq!(folder.files[0].text, "name: web\nphases: ${HOME}\n");
    assert_eq!(
        folder.notes,
        [
            "the `amiforge` settings of image recipe `web server` are left out: only amiforge has them"
        ]
    );
    let main: serde_json::Value = serde_json::from_str(&folder.files[1].text).unwrap();
    let resource = &main["resource"];
    assert_eq!(
        resource["aws_imagebuilder_component"]["web"]["data"],
        "${file(\"${path.module}/components/web.yaml\")}"
    );
    let recipe = &resource["aws_imagebuilder_image_recipe"]["web_server"];
    assert_eq!(recipe["parent_image"], "${var.parent_image}");
    assert_eq!(recipe["version"], "1.0.0");
    let component = &recipe["component"][0];
    assert_eq!(
        component["component_arn"],
        "${aws_imagebuilder_component.web.arn}"
    );
    assert_eq!(component["parameter"][0]["value"], "hi %%{x}");
    assert_eq!(recipe["block_device_mapping"][1]["no_device"], true);
    assert_eq!(main["data"]["aws_region"]["current"], serde_json::json!({}));
}

#[test]
fn a_script_replaces_what_only_it_knows() {
    let mut export = web(asked());
    export.link();
    let folder = export.command_line();
    let paths: Vec<_> = folder.files.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "01-create-component-web.json",
            "02-create-image-recipe-web_server.json",
            "create.sh"
        ]
    );
    let input: serde_json::Value = serde_json::from_str(&folder.files[1].text).unwrap();
    assert_eq!(input["parentImage"], "@parent0@");
    assert_eq!(input["components"][0]["componentArn"], "@WebComponent@");
    assert_eq!(input["blockDeviceMappings"][1]["noDevice"], "");
    let script = &folder.files[2];
    assert!(script.executable);
    assert!(
        script
            .text
            .contains("s|\\\"@WebComponent@\\\"|\\\"$arn_of_WebComponent\\\"|g")
    );
}

/// Whatever kinds and ids there are: resources come after those that they name.
#[test]
fn names_and_arns_of_the_same_export_become_references() {
    let known = [
        (ResourceKind::ImageRecipe, "web server".to_owned()),
        (
            ResourceKind::InfrastructureConfiguration,
            "machines".to_owned(),
        ),
    ];
    let pipeline = "
name: nightly
imageRecipeArn: web server
infrastructureConfigurationArn: arn:aws:imagebuilder:eu-central-1:123456789012:infrastructure-configuration/machines
distributionConfigurationArn: arn:aws:imagebuilder:eu-central-1:123456789012:distribution-configuration/elsewhere
";
    let (resource, diags) = read_resource(ResourceKind::ImagePipeline, pipeline, &known);
    assert!(diags.is_empty(), "{diags:?}");
    let infrastructure = "name: machines\ninstanceProfileName: profile\n";
    let (machines, _) = read_resource(
        ResourceKind::InfrastructureConfiguration,
        infrastructure,
        &known,
    );
    let mut diags = Diagnostics::new();
    // The pipeline comes first: the order of the files does not matter.
    let mut export = Export::new();
    let add = |export: &mut Export, resource: Resource, diags: &mut Diagnostics| {
        export.resource(resource.kind, None, &resource.document, &[], diags);
    };
    add(&mut export, resource.unwrap(), &mut diags);
    let recipe = parse_recipe(RECIPE).0.unwrap();
    let place = export.component(&own("web", "x"), &mut diags);
    let uses = [ComponentUse {
        target: ComponentTarget::Own(place),
        parameters: BTreeMap::new(),
    }];
    export.recipe(None, &recipe.document, &uses, asked(), &mut diags);
    add(&mut export, machines.unwrap(), &mut diags);
    export.link();
    let ids: Vec<&str> = export.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "WebComponent",
            "MachinesInfrastructure",
            "WebServerRecipe",
            "NightlyPipeline"
        ]
    );
    let text = export.cloudformation().text;
    for line in [
        "ComponentArn: !GetAtt WebComponent.Arn",
        "ImageRecipeArn: !GetAtt WebServerRecipe.Arn",
        "InfrastructureConfigurationArn: !GetAtt MachinesInfrastructure.Arn",
        "distribution-configuration/elsewhere",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    let main = &export.terraform().files[1].text;
    assert!(main.contains("\"aws_imagebuilder_image_recipe.web_server\""));
    // A name that nobody has is no ARN.
    let (none, diags) = read_resource(ResourceKind::ImagePipeline, pipeline, &[]);
    assert!(none.is_none() && diags.has_errors());
}

#[test]
fn another_version_of_an_exported_resource_stays_and_is_told() {
    let mut export = web(asked());
    let pipeline = |version: &str| {
        let text = format!(
            "name: nightly {}\nimageRecipeArn: arn:aws:imagebuilder:eu-central-1:123456789012:image-recipe/web-server/{version}\n\
             infrastructureConfigurationArn: arn:aws:imagebuilder:eu-central-1:123456789012:infrastructure-configuration/machines\n",
            version.replace('.', "-")
        );
        read_resource(ResourceKind::ImagePipeline, &text, &[])
            .0
            .unwrap()
            .document
    };
    let mut diags = Diagnostics::new();
    for version in ["1.x.x", "2.0.0"] {
        let kind = ResourceKind::ImagePipeline;
        export.resource(kind, None, &pipeline(version), &[], &mut diags);
    }
    export.link();
    let template = export.cloudformation();
    assert_eq!(template.notes.len(), 1, "{:?}", template.notes);
    assert!(template.notes[0].contains("image-recipe/web-server/2.0.0"));
    assert_eq!(
        template.text.matches("!GetAtt WebServerRecipe.Arn").count(),
        1
    );
}

#[test]
fn what_a_format_does_not_know_is_told() {
    let read = |text: &str| {
        let (_, document, _) = parse_document(text);
        match document {
            Some(crate::Document::Resource(resource)) => *resource,
            other => panic!("{other:?}"),
        }
    };
    let distribution = read(
        "name: all\ndistributions:\n  - region: eu-central-1\n    s3ExportConfiguration: {roleName: r, diskImageFormat: RAW, s3Bucket: b}\nclientToken: x\n",
    );
    let mut diags = Diagnostics::new();
    let mut export = Export::new();
    export.resource(
        distribution.kind,
        None,
        &distribution.document,
        &[],
        &mut diags,
    );
    export.link();
    let left = |field: &str, format: &str| {
        format!(
            "`{field}` of distribution configuration `all` is left out: {format} has no such field"
        )
    };
    assert_eq!(
        export.cloudformation().notes,
        [
            left("distributions.s3ExportConfiguration", "CloudFormation"),
            left("clientToken", "CloudFormation")
        ]
    );
    assert_eq!(
        export.terraform().notes,
        [left("clientToken", "Terraform's provider")]
    );
    assert_eq!(export.command_line().notes, [] as [String; 0]);
    assert!(diags.is_empty());
}

#[test]
fn a_document_that_is_too_long_needs_a_place_in_s3() {
    let long = "x".repeat(MOST_INLINE + 1);
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    export.component(&own("web", &long[1..]), &mut diags);
    assert!(diags.is_empty());
    export.component(&own("long", &long), &mut diags);
    let problem = diags.iter().next().unwrap();
    assert_eq!(problem.code, "out-of-range");
    assert!(
        problem
            .help
            .as_deref()
            .unwrap()
            .contains("--uri long=s3://BUCKET/KEY")
    );

    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    let uri = Some("s3://bucket/long.yaml".to_owned());
    export.component(
        &OwnComponent {
            uri,
            ..own("long", &long)
        },
        &mut diags,
    );
    assert!(diags.is_empty());
    let text = export.cloudformation().text;
    assert!(text.contains("Uri: s3://bucket/long.yaml\n"));
    assert!(!text.contains("Data:"));
}

#[test]
fn names_are_made_legal_and_unique_and_told() {
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    for name in ["web", "web", "Größe"] {
        export.component(&own(name, "x"), &mut diags);
    }
    let ids: Vec<(&str, &str)> = export
        .items
        .iter()
        .map(|item| (item.name(), item.id.as_str()))
        .collect();
    assert_eq!(
        ids,
        [
            ("web", "WebComponent"),
            ("web-2", "Web2Component"),
            ("Gr--e", "GrEComponent")
        ]
    );
    assert_eq!(export.notes.len(), 2);
}

#[test]
fn an_update_of_something_has_no_name_to_make_it_by() {
    let text = "infrastructureConfigurationArn: arn:aws:imagebuilder:eu-central-1:123456789012:infrastructure-configuration/machines\ninstanceProfileName: profile\n";
    let kind = ResourceKind::InfrastructureConfiguration;
    let resource = read_resource(kind, text, &[]).0.unwrap();
    let mut diags = Diagnostics::new();
    Export::new().resource(kind, None, &resource.document, &[], &mut diags);
    assert_eq!(diags.iter().next().unwrap().code, "missing-field");
}

#[test]
fn several_local_parents_are_several_questions() {
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    for (at, suite) in ["bookworm", "trixie", "bookworm"].iter().enumerate() {
        let text =
            format!("name: {suite} {at}\nsemanticVersion: 1.0.0\nparentImage: debian:{suite}\n");
        let recipe = parse_recipe(&text).0.unwrap();
        let parent = ExportParent::Asked(format!("debian:{suite}"));
        export.recipe(None, &recipe.document, &[], parent, &mut diags);
    }
    export.link();
    let text = export.cloudformation().text;
    assert_eq!(text.matches("!Ref ParentImageBookworm").count(), 2);
    assert_eq!(text.matches("!Ref ParentImageTrixie").count(), 1);
    let script = &export.command_line().files[3].text;
    assert!(script.contains("${PARENT_IMAGE_TRIXIE:?"));
}

/// Each document may be inside its limit, and all of them too much for one call.
#[test]
fn a_template_that_only_s3_can_hand_over_is_told() {
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    for name in ["one", "two", "three"] {
        export.component(&own(name, &"x".repeat(MOST_INLINE)), &mut diags);
    }
    export.link();
    assert_eq!(export.cloudformation().notes, [] as [String; 0]);
    export.component(&own("four", &"x".repeat(MOST_INLINE)), &mut diags);
    let notes = export.cloudformation().notes;
    assert!(
        matches!(notes.as_slice(), [only] if only.contains("--s3-bucket")),
        "{notes:?}"
    );
}

/// Two templates call their resources alike and mean their own.
#[test]
fn resources_of_templates_mean_those_of_their_own_template() {
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    for (template, name) in ["one", "two"].iter().enumerate() {
        let text = format!(
            "Resources:
  Pipeline:
    Type: AWS::ImageBuilder::ImagePipeline
    Properties: {{Name: {name}, ImageRecipeArn: !Ref Recipe, InfrastructureConfigurationArn: !Ref Two}}
  Recipe:
    Type: AWS::ImageBuilder::ImageRecipe
    Properties: {{Name: {name}, Version: 1.0.0, ParentImage: ami-0123456789abcdef0}}
  Two:
    Type: AWS::ImageBuilder::InfrastructureConfiguration
    Properties: {{Name: {name} machines, InstanceProfileName: two}}
"
        );
        let read = crate::parse_template_for_export(&text, &BTreeMap::new()).0;
        for resource in read.unwrap().resources {
            let id = TemplateId {
                template,
                id: resource.id,
            };
            let document = &resource.properties;
            export.resource(resource.kind, Some(&id), document, &[], &mut diags);
        }
    }
    assert!(diags.is_empty(), "{diags:?}");
    export.link();
    let text = export.cloudformation().text;
    for one in [
        "Name: one\n      ImageRecipeArn: !GetAtt Recipe.Arn\n      InfrastructureConfigurationArn: !GetAtt Two.Arn",
        "Name: two\n      ImageRecipeArn: !GetAtt Recipe2.Arn\n      InfrastructureConfigurationArn: !GetAtt Two2.Arn",
    ] {
        assert!(text.contains(one), "{text}");
    }
}

#[test]
fn a_resource_is_exported_once() {
    let text = "name: machines\ninstanceProfileName: profile\n";
    let kind = ResourceKind::InfrastructureConfiguration;
    let resource = read_resource(kind, text, &[]).0.unwrap();
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    export.resource(kind, None, &resource.document, &[], &mut diags);
    assert!(diags.is_empty(), "{diags:?}");
    export.resource(kind, None, &resource.document, &[], &mut diags);
    assert_eq!(diags.iter().next().unwrap().code, "duplicate-name");
}

#[test]
fn the_question_for_a_parent_has_an_id_of_its_own() {
    let mut export = web(asked());
    let text = "name: machines\ninstanceProfileName: profile\n";
    let kind = ResourceKind::InfrastructureConfiguration;
    let resource = read_resource(kind, text, &[]).0.unwrap();
    let id = TemplateId {
        template: 0,
        id: "ParentImage".to_owned(),
    };
    let mut diags = Diagnostics::new();
    export.resource(kind, Some(&id), &resource.document, &[], &mut diags);
    export.link();
    let text = export.cloudformation().text;
    assert!(text.contains("Parameters:\n  ParentImage2:\n"), "{text}");
    assert!(text.contains("ParentImage: !Ref ParentImage2\n"), "{text}");
}

/// The problems that the resources of a template have when they are exported.
fn problems(resources: &str, given: &[(&str, &str)]) -> Vec<Diagnostic> {
    let text = format!(
        "Parameters:
  Token: {{Type: String, NoEcho: true, Default: hunter2}}
  Subnet: {{Type: 'AWS::SSM::Parameter::Value<String>', Default: /net/subnet}}
Resources:
  Role: {{Type: 'AWS::IAM::InstanceProfile'}}
{resources}"
    );
    let given = given
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
    let (template, found) = crate::parse_template_for_export(&text, &given.collect());
    let template = template.unwrap_or_else(|| panic!("{found:?}"));
    let (mut export, mut diags) = (Export::new(), Diagnostics::new());
    for resource in template.resources {
        let document = &resource.properties;
        export.resource(resource.kind, None, document, &[], &mut diags);
    }
    diags.into_sorted()
}

fn infrastructure(field: &str) -> String {
    format!(
        "  Machines:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    Properties: {{Name: machines, {field}}}\n"
    )
}

#[test]
fn what_only_a_stack_knows_or_nobody_may_see_is_not_written() {
    let profile = "InstanceProfileName: profile";
    for (field, word) in [
        (format!("{profile}, Description: !Ref Token"), "NoEcho"),
        (
            format!("{profile}, Description: !Sub 'a ${{Token}}'"),
            "NoEcho",
        ),
        (
            format!("{profile}, ResourceTags: {{a: !Ref Token}}"),
            "NoEcho",
        ),
        (
            format!("{profile}, Description: !Sub '${{AWS::Region}}'"),
            "AWS::Region",
        ),
        (
            format!("{profile}, SubnetId: !Ref Subnet"),
            "ssm:/net/subnet",
        ),
        ("InstanceProfileName: !Ref Role".to_owned(), "${Role}"),
    ] {
        let found = problems(&infrastructure(&field), &[]);
        let [only] = found.as_slice() else {
            panic!("{field}: {found:?}");
        };
        assert_eq!(only.code, "unresolved-value", "{field}");
        assert!(only.message.contains(word), "{field}: {only:?}");
        assert!(!format!("{only:?}").contains("__amiforge"), "{only:?}");
    }
    let field = format!("{profile}, Description: !Sub '${{AWS::Region}}'");
    let given = [("AWS::Region", "eu-central-1")];
    assert_eq!(problems(&infrastructure(&field), &given), []);
}

#[test]
fn secrets_are_not_written_into_documents_and_settings() {
    let component = "  Web:\n    Type: AWS::ImageBuilder::Component\n    Properties: {Name: web, Version: 1.0.0, Platform: Linux, Data: !Sub 'schemaVersion: 1.0\n\n      phases: [{name: build, steps: [{name: A, action: ExecuteBash, inputs: {commands: [\"echo ${Token}\"]}}]}]'}\n";
    let recipe = "  Recipe:\n    Type: AWS::ImageBuilder::ImageRecipe\n    Metadata: {amiforge: {apt: {keyring: !Ref Token}}}\n    Properties: {Name: web, Version: 1.0.0, ParentImage: !Sub 'ssm:/images/base', Components: [{ComponentArn: !Ref Web, Parameters: [{Name: A, Value: [!Ref Token]}]}]}\n";
    let found = problems(component, &[]);
    assert!(
        matches!(found.as_slice(), [only] if only.code == "unresolved-value"),
        "{found:?}"
    );
    let found = problems(&format!("{component}{recipe}"), &[]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|d| d.message.contains("NoEcho")));
}

#[test]
fn what_an_export_leaves_of_a_template_is_listed() {
    let text = "Resources:\n  Role: {Type: 'AWS::IAM::Role'}\n  Machines:\n    Type: AWS::ImageBuilder::InfrastructureConfiguration\n    DependsOn: Role\n    DeletionPolicy: Retain\n    Metadata: {amiforge: {}, other: {}}\nOutputs: {}\n";
    assert_eq!(
        left_of_template(text),
        [
            "the resource Role (AWS::IAM::Role)",
            "`DependsOn` of Machines",
            "`DeletionPolicy` of Machines",
            "`Metadata.other` of Machines",
            "the section `Outputs`"
        ]
    );
}
