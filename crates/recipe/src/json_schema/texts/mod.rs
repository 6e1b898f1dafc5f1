//! What an editor shows for a field: one table for each kind of document.

mod actions;
mod component;
mod recipe;
mod resources;
mod template;
mod workflow;

use serde_json::{Value, json};

/// Of one definition: its name, what it is, and its fields.
struct Texts {
    definition: &'static str,
    whole: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const fn of_definition(
    definition: &'static str,
    whole: &'static str,
    fields: &'static [(&'static str, &'static str)],
) -> Texts {
    Texts {
        definition,
        whole,
        fields,
    }
}

fn all() -> impl Iterator<Item = &'static Texts> {
    [
        actions::TEXTS,
        component::TEXTS,
        recipe::TEXTS,
        resources::TEXTS,
        template::TEXTS,
        workflow::TEXTS,
    ]
    .into_iter()
    .flatten()
}

/// Fields that say the same wherever they stand.
static ANYWHERE: &[(&str, &str)] = &[
    ("accountId", "The AWS account, 12 digits."),
    (
        "clientToken",
        "Makes a repeated call harmless; belongs to the call, not to the resource.",
    ),
    ("changeDescription", "What is new in this version."),
    (
        "containerRecipeArn",
        "The ARN of the container recipe; an alternative to `imageRecipeArn`.",
    ),
    ("description", "What it is for, in words."),
    (
        "distributionConfigurationArn",
        "The ARN of the distribution configuration.",
    ),
    ("dryRun", "The service only checks the request."),
    (
        "enhancedImageMetadataEnabled",
        "The service lists the packages of the image. Default: true.",
    ),
    (
        "executionRole",
        "Name or ARN of the IAM role that the service acts under.",
    ),
    (
        "imageRecipeArn",
        "The ARN of the image recipe; an alternative to `containerRecipeArn`.",
    ),
    (
        "imageScanningConfiguration",
        "Whether Amazon Inspector looks for vulnerabilities.",
    ),
    (
        "imageTestsConfiguration",
        "Whether the test phases run, and for how long.",
    ),
    (
        "infrastructureConfigurationArn",
        "The ARN of the infrastructure configuration.",
    ),
    (
        "kmsKeyId",
        "The KMS key that encrypts it: id, ARN or alias.",
    ),
    ("name", "Its name."),
    ("status", "Whether it is in force. Default: ENABLED."),
    (
        "tags",
        "Names and values, as a mapping; a list of `Key` and `Value` is not taken.",
    ),
    (
        "workflows",
        "Workflows that run instead of the service's own. They need `executionRole`.",
    ),
];

/// The text of a field, or with `""` of the definition itself.
pub(super) fn of(definition: &str, field: &str) -> Option<&'static str> {
    let texts = all().find(|texts| texts.definition == definition);
    if field.is_empty() {
        return texts
            .map(|texts| texts.whole)
            .filter(|text| !text.is_empty());
    }
    let own = texts.map_or(&[][..], |texts| texts.fields).iter();
    own.chain(ANYWHERE)
        .find(|(name, _)| *name == field)
        .map(|(_, text)| *text)
}

/// Puts the text of a field before what its schema says of itself.
pub(super) fn describe(schema: &mut Value, definition: &str, field: &str) {
    let (Some(text), Value::Object(fields)) = (of(definition, field), schema) else {
        return;
    };
    let text = match fields.get("description").and_then(Value::as_str) {
        Some(note) => format!("{text} {note}"),
        None => text.to_owned(),
    };
    fields.insert("description".to_owned(), json!(text));
}

/// Adds a sentence to what a schema says of itself.
pub(super) fn note(schema: &mut Value, note: &str) {
    if let Value::Object(fields) = schema {
        let text = match fields.get("description").and_then(Value::as_str) {
            Some(text) => format!("{text} {note}"),
            None => note.to_owned(),
        };
        fields.insert("description".to_owned(), json!(text));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{kinds, schema};
    use super::*;

    #[test]
    fn no_definition_has_two_tables() {
        let names: Vec<&str> = all().map(|texts| texts.definition).collect();
        let once: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), once.len());
    }

    /// Every field can be hovered over, and every text is shown somewhere.
    #[test]
    fn every_field_has_a_text_and_every_text_a_field() {
        let mut shown = String::new();
        let mut silent = Vec::new();
        for kind in kinds() {
            let text = schema(kind).unwrap();
            let parsed: Value = serde_json::from_str(&text).unwrap();
            fields(&parsed, kind.id(), &mut silent);
            shown.push_str(&text);
        }
        assert!(silent.is_empty(), "{silent:#?}");
        let quoted = |text: &str| json!(text).to_string().trim_matches('"').to_owned();
        let unused: Vec<&str> = all()
            .flat_map(|texts| {
                texts
                    .fields
                    .iter()
                    .map(|(_, text)| *text)
                    .chain([texts.whole])
            })
            .chain(ANYWHERE.iter().map(|(_, text)| *text))
            .filter(|text| !shown.contains(&quoted(text)))
            .collect();
        assert!(unused.is_empty(), "{unused:#?}");
    }

    fn fields(schema: &Value, at: &str, silent: &mut Vec<String>) {
        for keyword in ["properties", "patternProperties", "definitions"] {
            let named = schema.get(keyword).and_then(Value::as_object);
            for (name, field) in named.into_iter().flatten() {
                let at = format!("{at}/{name}");
                // A condition about `action` has no need of words.
                let rule = at.ends_with("then/inputs");
                if keyword != "definitions" && field.get("description").is_none() && !rule {
                    silent.push(at.clone());
                }
                fields(field, &at, silent);
            }
        }
        for keyword in ["items", "additionalProperties", "then"] {
            if let Some(below) = schema.get(keyword) {
                fields(below, &format!("{at}/{keyword}"), silent);
            }
        }
        for keyword in ["allOf", "anyOf"] {
            let list = schema.get(keyword).and_then(Value::as_array);
            for below in list.into_iter().flatten() {
                fields(below, at, silent);
            }
        }
    }
}
