//! Terraform configuration in its JSON syntax, and the documents of components and workflows beside it.
//!
//! JSON, since every text can be written in it without a grammar of expressions of our own: only the two marks that begin
//! a template in a string are escaped. See [decision 41](../../../../docs/decisions/0041-terraform-in-json.md).

use serde_json::{Map, Value as Json, json};

use super::shapes::{Field, Kind};
use super::value::{Group, Value, text_of};
use super::{Export, ExportedFile, ExportedFolder, Item};
use crate::resources::ResourceKind;

/// The provider whose schema the words are those of.
const PROVIDER: &str = "hashicorp/aws";
/// The first that has a Region attribute called `region`.
const PROVIDER_VERSION: &str = ">= 6.0";

impl Export {
    /// `main.tf.json`, and a file for each document.
    #[must_use]
    pub fn terraform(&self) -> ExportedFolder {
        let mut notes = self.notes_of("Terraform's provider", Field::terraform_word);
        self.settings_left_out(&mut notes);
        let names = self.parent_names(
            |tail| match tail {
                "" => "parent_image".to_owned(),
                tail => format!("parent_image_{}", super::naming::snake(tail)),
            },
            |_| false,
        );
        let mut files = Vec::new();
        let mut resources: Map<String, Json> = Map::new();
        for item in &self.items {
            item.terraform_notes(&mut notes);
            let mut body = self.block(item, &item.fields, &names, &mut files);
            // Without it the provider cannot replace a recipe that a pipeline still names.
            if item.kind == ResourceKind::ImagePipeline {
                let recipes = ["imageRecipeArn", "containerRecipeArn"].iter();
                let recipes: Vec<Json> = recipes
                    .filter_map(|word| match super::get(&item.fields, word)? {
                        Value::Arn(place) => Some(json!(self.address(*place)?)),
                        _ => None,
                    })
                    .collect();
                if !recipes.is_empty() {
                    body.insert(
                        "lifecycle".to_owned(),
                        json!({"replace_triggered_by": recipes}),
                    );
                }
            }
            let of_type = resources
                .entry(terraform_type(item.kind))
                .or_insert_with(|| json!({}));
            if let Json::Object(of_type) = of_type {
                of_type.insert(item.label.clone(), Json::Object(body));
            }
        }
        let mut head = vec!["Written by `amiforge export terraform`.".to_owned()];
        head.extend(notes.iter().cloned());
        let mut document = Map::new();
        document.insert("//".to_owned(), json!(head));
        document.insert(
            "terraform".to_owned(),
            json!({"required_providers": {"aws": {"source": PROVIDER, "version": PROVIDER_VERSION}}}),
        );
        if !names.is_empty() {
            let variables = names.iter().zip(&self.parents).map(|(name, local)| {
                let question = escaped(&Self::parent_question(local));
                (
                    name.clone(),
                    json!({"type": "string", "description": question}),
                )
            });
            document.insert("variable".to_owned(), Json::Object(variables.collect()));
        }
        if self.uses_amazon() {
            document.insert(
                "data".to_owned(),
                json!({"aws_partition": {"current": {}}, "aws_region": {"current": {}}}),
            );
        }
        document.insert("resource".to_owned(), Json::Object(resources));
        files.push(ExportedFile {
            path: "main.tf.json".to_owned(),
            text: pretty(&Json::Object(document)),
            executable: false,
        });
        ExportedFolder { files, notes }
    }

    fn block(
        &self,
        item: &Item,
        group: &Group,
        parents: &[String],
        files: &mut Vec<ExportedFile>,
    ) -> Map<String, Json> {
        let mut out = Map::new();
        for (field, value) in group {
            let Some(word) = field.terraform_word() else {
                continue;
            };
            let json = match (field.kind, value) {
                (Kind::Merged(_), Value::One(inner)) => {
                    out.extend(self.block(item, inner, parents, files));
                    continue;
                }
                (Kind::Document, Value::Text(text)) => {
                    let folder = match item.kind {
                        ResourceKind::Component => "components",
                        _ => "workflows",
                    };
                    let path = format!("{folder}/{}.yaml", item.label);
                    files.push(ExportedFile {
                        path: path.clone(),
                        text: text.clone(),
                        executable: false,
                    });
                    json!(format!("${{file(\"${{path.module}}/{path}\")}}"))
                }
                (Kind::Mark, _) => json!(true),
                (Kind::Single, Value::Texts(texts)) => {
                    json!(escaped(texts.first().map_or("", String::as_str)))
                }
                (_, Value::Text(text) | Value::Named(_, text)) => json!(escaped(text)),
                (_, Value::Bool(flag)) => json!(flag),
                (_, Value::Int(number)) => json!(number),
                (_, Value::Texts(texts)) => {
                    json!(texts.iter().map(|text| escaped(text)).collect::<Vec<_>>())
                }
                (_, Value::Tags(tags)) => {
                    let tags = tags.iter().map(|(k, v)| (escaped(k), json!(escaped(v))));
                    Json::Object(tags.collect())
                }
                (_, Value::One(inner)) => Json::Object(self.block(item, inner, parents, files)),
                (_, Value::Many(groups)) => {
                    let mut blocks = Vec::new();
                    for group in groups {
                        blocks.push(Json::Object(self.block(item, group, parents, files)));
                    }
                    Json::Array(blocks)
                }
                (_, Value::Arn(place)) => {
                    json!(format!(
                        "${{{}.arn}}",
                        self.address(*place).unwrap_or_default()
                    ))
                }
                (_, Value::Amazon(name)) => json!(format!(
                    "arn:${{data.aws_partition.current.partition}}:imagebuilder:${{data.aws_region.current.region}}:aws:component/{name}/x.x.x"
                )),
                (_, Value::Parent(place)) => {
                    let name = parents.get(*place).map_or("", String::as_str);
                    json!(format!("${{var.{name}}}"))
                }
            };
            out.insert(word, json);
        }
        out
    }

    /// How expressions call a resource.
    fn address(&self, place: usize) -> Option<String> {
        let item = self.items.get(place)?;
        Some(format!("{}.{}", terraform_type(item.kind), item.label))
    }
}

impl Item {
    /// What the provider demands and a document may lack.
    fn terraform_notes(&self, notes: &mut Vec<String>) {
        let recipe = matches!(
            self.kind,
            ResourceKind::ImageRecipe | ResourceKind::ContainerRecipe
        );
        if recipe && super::get(&self.fields, "components").is_none() {
            notes.push(format!(
                "{} has no component; Terraform's provider demands one",
                self.shown()
            ));
        }
        if self.kind == ResourceKind::Workflow
            && text_of(&self.fields, "type") == Some("DISTRIBUTION")
        {
            notes.push(format!(
                "{} is of type DISTRIBUTION, which Terraform's provider refuses",
                self.shown()
            ));
        }
        if has_empty_or_several(&self.fields) {
            notes.push(format!(
                "{} has a parameter whose value is empty or several texts; Terraform's provider takes one text that is not empty",
                self.shown()
            ));
        }
        let role = text_of(&self.fields, "executionRole");
        if role.is_some_and(|role| !role.starts_with("arn:")) {
            notes.push(format!(
                "`executionRole` of {} is a name; Terraform's provider takes the role's ARN",
                self.shown()
            ));
        }
    }
}

fn has_empty_or_several(group: &Group) -> bool {
    group
        .iter()
        .any(|(field, value)| match (field.kind, value) {
            (Kind::Single, Value::Texts(texts)) => {
                texts.len() != 1 || texts.iter().any(String::is_empty)
            }
            (_, Value::One(group)) => has_empty_or_several(group),
            (_, Value::Many(groups)) => groups.iter().any(has_empty_or_several),
            _ => false,
        })
}

const fn type_word(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Component => "component",
        ResourceKind::ImageRecipe => "image_recipe",
        ResourceKind::ContainerRecipe => "container_recipe",
        ResourceKind::InfrastructureConfiguration => "infrastructure_configuration",
        ResourceKind::DistributionConfiguration => "distribution_configuration",
        ResourceKind::ImagePipeline => "image_pipeline",
        ResourceKind::Image => "image",
        ResourceKind::Workflow => "workflow",
        ResourceKind::LifecyclePolicy => "lifecycle_policy",
    }
}

fn terraform_type(kind: ResourceKind) -> String {
    format!("aws_imagebuilder_{}", type_word(kind))
}

/// A text that Terraform takes as it is: strings of its JSON are templates.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace("%{", "%%{")
}

/// JSON for people, with a line break at its end.
pub(super) fn pretty(json: &Json) -> String {
    format!("{json:#}\n")
}
