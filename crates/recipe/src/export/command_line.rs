//! Files of the AWS command line: an input of each call, and a script that makes the calls in order.
//!
//! What is known only when the script runs stands as a mark in the inputs, which the script replaces: `"@<logical id>@"`
//! for the ARN of an earlier resource, `"@parent…@"` for a parent, and `@partition@` and `@region@` in the ARNs of
//! Amazon's components. A mark is replaced only as a whole value or at the beginning of one.

use serde_json::{Map, Value as Json, json};

use super::shapes::Field;
use super::terraform::pretty;
use super::value::{Group, Value};
use super::{Export, ExportedFile, ExportedFolder, Item, naming};
use crate::resources::ResourceKind;

/// How a type of resource is made and found.
struct Calls {
    /// The command that makes one.
    create: &'static str,
    /// Where its answer has the ARN.
    arn: &'static str,
    /// The command that lists them, the list in its answer, and whether it also lists those of others.
    list: Option<(&'static str, &'static str, bool)>,
}

const fn calls(kind: ResourceKind) -> Calls {
    let (create, arn, list) = match kind {
        ResourceKind::Component => (
            "create-component",
            "componentBuildVersionArn",
            Some(("list-components", "componentVersionList", true)),
        ),
        ResourceKind::ImageRecipe => (
            "create-image-recipe",
            "imageRecipeArn",
            Some(("list-image-recipes", "imageRecipeSummaryList", true)),
        ),
        ResourceKind::ContainerRecipe => (
            "create-container-recipe",
            "containerRecipeArn",
            Some(("list-container-recipes", "containerRecipeSummaryList", true)),
        ),
        ResourceKind::InfrastructureConfiguration => (
            "create-infrastructure-configuration",
            "infrastructureConfigurationArn",
            Some((
                "list-infrastructure-configurations",
                "infrastructureConfigurationSummaryList",
                false,
            )),
        ),
        ResourceKind::DistributionConfiguration => (
            "create-distribution-configuration",
            "distributionConfigurationArn",
            Some((
                "list-distribution-configurations",
                "distributionConfigurationSummaryList",
                false,
            )),
        ),
        ResourceKind::ImagePipeline => (
            "create-image-pipeline",
            "imagePipelineArn",
            Some(("list-image-pipelines", "imagePipelineList", false)),
        ),
        ResourceKind::Workflow => (
            "create-workflow",
            "workflowBuildVersionArn",
            Some(("list-workflows", "workflowVersionList", true)),
        ),
        ResourceKind::LifecyclePolicy => (
            "create-lifecycle-policy",
            "lifecyclePolicyArn",
            Some((
                "list-lifecycle-policies",
                "lifecyclePolicySummaryList",
                false,
            )),
        ),
        // Every call builds one; nothing is kept.
        ResourceKind::Image => ("create-image", "imageBuildVersionArn", None),
    };
    Calls { create, arn, list }
}

/// The beginning of the script; what follows are the calls.
const SCRIPT: &str = r#"set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
"#;

const FUNCTIONS: &str = r#"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# existing LIST-COMMAND OPTIONS…: the ARN of what is there, or nothing
existing() {
  found=$(aws imagebuilder "$@" --output json) || return
  if [ "$found" != null ]; then
    printf '%s\n' "$found" | tr -d '"'
  fi
}

# create COMMAND KEY FILE SED-SCRIPT: makes a resource; its ARN
create() {
  sed -e "$4" -- "$here/$3" > "$work/$3" || return
  aws imagebuilder "$1" --cli-input-json "file://$work/$3" --query "$2" --output text
}

# told WORD NAME ARN
told() {
  echo "$1 $3" >&2
  echo "$2 $3"
}
"#;

const AMAZON: &str = r#"
# The components of Amazon are those of this Region.
region=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
if [ -z "$region" ]; then
  echo "no Region: set AWS_REGION" >&2
  exit 2
fi
caller=$(aws sts get-caller-identity --query Arn --output text)
partition=$(printf '%s\n' "$caller" | cut -d : -f 2)
"#;

impl Export {
    /// `NN-create-….json` for each call, and `create.sh`.
    #[must_use]
    pub fn command_line(&self) -> ExportedFolder {
        let mut notes = self.notes_of("the API", Field::call_word);
        self.settings_left_out(&mut notes);
        let parents = self.parent_names(
            |tail| match tail {
                "" => "PARENT_IMAGE".to_owned(),
                tail => format!("PARENT_IMAGE_{}", naming::snake(tail).to_ascii_uppercase()),
            },
            |_| false,
        );
        let mut files = Vec::new();
        let mut script = String::from("#!/bin/sh\n");
        script.push_str("# Written by `amiforge export cli`. Makes these resources of EC2 Image Builder, each from the file with its\n");
        script.push_str("# input. What is there already, by name and version, is kept as it is, so that the script can run again.\n");
        script.push_str("# Prints the logical id and the ARN of each, a line each.\n");
        for note in &notes {
            script.push_str(&format!("# - {}\n", note.replace(['\n', '\r'], " ")));
        }
        script.push_str(SCRIPT);
        for (name, local) in parents.iter().zip(&self.parents) {
            script.push_str(&format!(
                "\n# {question}\n: \"${{{name}:?say what stands for {local} on AWS, for example {name}=ami-0123456789abcdef0}}\"\n\
                 case ${name} in\n  *[!A-Za-z0-9:/._-]*) echo \"{name}=${name}: not the name of an image\" >&2; exit 2 ;;\nesac\n",
                question = Self::parent_question(local),
            ));
        }
        if self.uses_amazon() {
            script.push_str(AMAZON);
        }
        script.push_str(FUNCTIONS);
        for (at, item) in self.items.iter().enumerate() {
            let calls = calls(item.kind);
            let path = format!("{:02}-{}-{}.json", at + 1, calls.create, item.label);
            let input = Json::Object(self.input(&item.fields));
            files.push(ExportedFile {
                path: path.clone(),
                text: pretty(&input),
                executable: false,
            });
            script.push_str(&self.call(item, &calls, &path, &parents));
        }
        files.push(ExportedFile {
            path: "create.sh".to_owned(),
            text: script,
            executable: true,
        });
        ExportedFolder { files, notes }
    }

    /// The lines of the script that make one resource.
    fn call(&self, item: &Item, calls: &Calls, path: &str, parents: &[String]) -> String {
        let variable = variable(item);
        let mut marks = Marks::default();
        self.marks(&item.fields, &mut marks);
        let mut edits = Vec::new();
        for place in marks.arns {
            if let Some(other) = self.items.get(place) {
                edits.push(format!(
                    "s|\\\"@{}@\\\"|\\\"${}\\\"|g",
                    other.id,
                    self::variable(other)
                ));
            }
        }
        for place in marks.parents {
            if let Some(name) = parents.get(place) {
                edits.push(format!("s|\\\"@parent{place}@\\\"|\\\"${name}\\\"|g"));
            }
        }
        if marks.amazon {
            edits.push(
                "s|\\\"arn:@partition@:imagebuilder:@region@:|\\\"arn:$partition:imagebuilder:$region:|g"
                    .to_owned(),
            );
        }
        let create = format!(
            "{variable}=$(create {} {} {path} \"{}\")",
            calls.create,
            calls.arn,
            edits.join("; ")
        );
        let shown = item.shown();
        let Some(query) = query(item, calls) else {
            return format!(
                "\n# {shown}: made anew by every run\n{create}\ntold created {} \"${variable}\"\n",
                item.id
            );
        };
        format!(
            "\n# {shown}\n{variable}=$(existing {query})\nif [ -n \"${variable}\" ]; then\n  \
             told kept {id} \"${variable}\"\nelse\n  {create}\n  told created {id} \"${variable}\"\nfi\n",
            id = item.id
        )
    }

    fn input(&self, group: &Group) -> Map<String, Json> {
        group
            .iter()
            .filter_map(|(field, value)| {
                let word = field.call_word()?;
                let json = match value {
                    Value::Text(text) | Value::Named(_, text) => json!(text),
                    Value::Bool(flag) => json!(flag),
                    Value::Int(number) => json!(number),
                    Value::Texts(texts) => json!(texts),
                    Value::Tags(tags) => {
                        let tags = tags.iter().map(|(k, v)| (k.clone(), json!(v)));
                        Json::Object(tags.collect())
                    }
                    Value::One(group) => Json::Object(self.input(group)),
                    Value::Many(groups) => {
                        let groups = groups.iter().map(|g| Json::Object(self.input(g)));
                        Json::Array(groups.collect())
                    }
                    Value::Arn(place) => {
                        let id = self.items.get(*place).map_or("", |item| &item.id);
                        json!(format!("@{id}@"))
                    }
                    Value::Amazon(name) => json!(format!(
                        "arn:@partition@:imagebuilder:@region@:aws:component/{name}/x.x.x"
                    )),
                    Value::Parent(place) => json!(format!("@parent{place}@")),
                };
                Some((word, json))
            })
            .collect()
    }

    fn marks(&self, group: &Group, marks: &mut Marks) {
        for (_, value) in group {
            match value {
                Value::Arn(place) => {
                    marks.arns.insert(*place);
                }
                Value::Parent(place) => {
                    marks.parents.insert(*place);
                }
                Value::Amazon(_) => marks.amazon = true,
                Value::One(group) => self.marks(group, marks),
                Value::Many(groups) => groups.iter().for_each(|group| self.marks(group, marks)),
                _ => {}
            }
        }
    }
}

/// What of an input is known only when the script runs.
#[derive(Default)]
struct Marks {
    arns: std::collections::BTreeSet<usize>,
    parents: std::collections::BTreeSet<usize>,
    amazon: bool,
}

/// The shell's variable with the ARN of a resource.
fn variable(item: &Item) -> String {
    format!("arn_of_{}", item.id)
}

/// The command that finds a resource that is there; none for one that is made by every run.
fn query(item: &Item, calls: &Calls) -> Option<String> {
    let (command, list, of_others) = calls.list?;
    let version = item.version();
    // The service chooses a number for every `x`, so that there is always a new one to make.
    if version.is_some_and(|version| version.contains('x')) {
        return None;
    }
    let owner = if of_others { " --owner Self" } else { "" };
    // Names have no quotes in them (the parser's rule for names of resources).
    let name = item.name();
    let version = version.map_or_else(String::new, |version| match item.kind {
        ResourceKind::Component | ResourceKind::Workflow => {
            format!(" && version=='{}'", normal(version))
        }
        _ => format!(" && ends_with(arn, '/{}')", normal(version)),
    });
    Some(format!(
        "{command}{owner} --query \"{list}[?name=='{name}'{version}].arn | [0]\""
    ))
}

/// A version without leading zeros, as the service gives it back.
fn normal(version: &str) -> String {
    version
        .parse::<crate::version::VersionPattern>()
        .map_or_else(|_| version.to_owned(), |version| version.to_string())
}
