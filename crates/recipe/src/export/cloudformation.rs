//! One CloudFormation template with all resources.

use super::shapes::{Field, Kind};
use super::value::{Group, Value};
use super::yaml_text::{self, Yaml};
use super::{Export, ExportedText, Item};
use crate::node::{Node, NodeKind, Style};

/// What CloudFormation replaces by itself wherever it stands in a text.
const DYNAMIC: &str = "{{resolve:";

/// Most bytes of a template that is not fetched from S3 (CloudFormation quota).
const MOST_BODY: usize = 51_200;

impl Export {
    /// A template in YAML. Our own settings stand in the `Metadata` of a recipe, where our reader looks for them.
    #[must_use]
    pub fn cloudformation(&self) -> ExportedText {
        let mut notes = self.notes_of("CloudFormation", Field::cfn_word);
        // Parameters and resources share their ids.
        let names = self.parent_names(
            |tail| format!("ParentImage{}", super::naming::pascal(tail)),
            |name| self.items.iter().any(|item| item.id == name),
        );
        let mut sections = vec![(
            "AWSTemplateFormatVersion".to_owned(),
            Yaml::text("2010-09-09"),
        )];
        if !names.is_empty() {
            let parameters = names.iter().zip(&self.parents).map(|(name, local)| {
                let fields = vec![
                    ("Type".to_owned(), Yaml::text("String")),
                    (
                        "Description".to_owned(),
                        Yaml::text(Self::parent_question(local)),
                    ),
                ];
                (name.clone(), Yaml::Map(fields))
            });
            sections.push(("Parameters".to_owned(), Yaml::Map(parameters.collect())));
        }
        let resources = self.items.iter().map(|item| {
            let mut fields = vec![(
                "Type".to_owned(),
                Yaml::text(format!("AWS::ImageBuilder::{}", item.kind.cfn_name())),
            )];
            if let Some(settings) = &item.settings {
                let settings = vec![("amiforge".to_owned(), plain(settings))];
                fields.push(("Metadata".to_owned(), Yaml::Map(settings)));
            }
            let properties = self.properties(&item.fields, &names);
            fields.push(("Properties".to_owned(), Yaml::Map(properties)));
            if has_dynamic(&item.fields) {
                notes.push(format!(
                    "{} has a text with `{DYNAMIC}`, which CloudFormation replaces when it deploys",
                    item.shown()
                ));
            }
            (item.id.clone(), Yaml::Map(fields))
        });
        sections.push(("Resources".to_owned(), Yaml::Map(resources.collect())));
        let text = yaml_text::document(&sections);
        if text.len() > MOST_BODY {
            notes.push(format!(
                "the template has {} bytes; above {MOST_BODY} CloudFormation fetches it from S3: aws cloudformation deploy --s3-bucket BUCKET",
                text.len()
            ));
        }
        ExportedText { text, notes }
    }

    fn properties(&self, group: &Group, parents: &[String]) -> Vec<(String, Yaml)> {
        group
            .iter()
            .filter_map(|(field, value)| {
                let word = field.cfn_word()?;
                Some((word, self.yaml(field, value, parents)))
            })
            .collect()
    }

    fn yaml(&self, field: &Field, value: &Value, parents: &[String]) -> Yaml {
        let texts = |texts: &[String]| Yaml::Seq(texts.iter().map(Yaml::text).collect());
        match value {
            Value::Text(text) | Value::Named(_, text) => Yaml::text(text),
            Value::Bool(flag) => Yaml::Bare(flag.to_string()),
            Value::Int(number) => Yaml::Bare(number.to_string()),
            Value::Texts(list) => texts(list),
            Value::Tags(tags) => {
                let tags = tags.iter().map(|(k, v)| (k.clone(), Yaml::text(v)));
                Yaml::Map(tags.collect())
            }
            Value::One(group) => Yaml::Map(self.properties(group, parents)),
            Value::Many(groups) => {
                let maps = groups
                    .iter()
                    .map(|g| Yaml::Map(self.properties(g, parents)));
                Yaml::Seq(maps.collect())
            }
            Value::Arn(place) => Yaml::Tagged("!GetAtt", format!("{}.Arn", self.id_of(*place))),
            Value::Amazon(name) => Yaml::Tagged(
                "!Sub",
                format!(
                    "arn:${{AWS::Partition}}:imagebuilder:${{AWS::Region}}:aws:component/{name}/x.x.x"
                ),
            ),
            Value::Parent(place) => match (field.kind, parents.get(*place)) {
                (Kind::Text, Some(name)) => Yaml::Tagged("!Ref", name.clone()),
                _ => Yaml::text(""),
            },
        }
    }

    fn id_of(&self, place: usize) -> &str {
        self.items.get(place).map_or("", |item: &Item| &item.id)
    }
}

/// A value of ours as it was read: what is bare and a number or a flag stays bare.
fn plain(node: &Node) -> Yaml {
    match &node.kind {
        NodeKind::Scalar(scalar) => {
            let text = scalar.text.as_str();
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            // A leading zero is octal for some.
            let number = digits && (1..=9).contains(&text.len()) && !text.starts_with('0');
            let bare = matches!(text, "true" | "false" | "0") || number;
            if scalar.is_null() {
                Yaml::Bare("null".to_owned())
            } else if scalar.style == Style::Plain && bare {
                Yaml::Bare(text.to_owned())
            } else {
                Yaml::text(text)
            }
        }
        NodeKind::Seq(items) => Yaml::Seq(items.iter().map(plain).collect()),
        NodeKind::Map(fields) => {
            let fields = fields.iter().map(|(k, v)| (k.text.clone(), plain(v)));
            Yaml::Map(fields.collect())
        }
    }
}

fn has_dynamic(group: &Group) -> bool {
    let is = |text: &String| text.contains(DYNAMIC);
    group.iter().any(|(_, value)| match value {
        Value::Text(text) => is(text),
        Value::Texts(texts) => texts.iter().any(is),
        Value::Tags(tags) => tags.iter().any(|(_, text)| is(text)),
        Value::One(group) => has_dynamic(group),
        Value::Many(groups) => groups.iter().any(has_dynamic),
        _ => false,
    })
}
