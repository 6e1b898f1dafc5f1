//! JSON Schemas of the documents, for editors (draft 7, which is the one that all of them know).
//!
//! They are made by running the decoders and noting what they ask for (`explore`): so a schema has every
//! field that is read, and no other. Words for people are in `texts`.
//!
//! A schema is wider than the decoder: what fields demand of each other and the forms of texts are left to
//! `amiforge validate`. It must never refuse what the decoder takes.

mod conditions;
mod explore;
mod template;
mod texts;

use amiforge_types::Span;
use serde_json::{Map, Value, json};

use crate::actions::ActionKind;
use crate::decode::{Cx, capitalized};
use crate::kind::DocumentKind;
use crate::node::Node;
use crate::resources::{self, ResourceKind};
use crate::workflow::actions::{ACTIONS, Action, Input, Kind};
use crate::{component, image_recipe, user_config, workflow};
use explore::{Definitions, Explorer, Step, Stop, any_of};

/// The kinds that have a schema: all, an image recipe once.
#[must_use]
pub fn kinds() -> Vec<DocumentKind> {
    let resources = ResourceKind::ALL
        .into_iter()
        .filter(|kind| *kind != ResourceKind::ImageRecipe)
        .map(DocumentKind::Resource);
    [DocumentKind::Component, DocumentKind::ImageRecipe]
        .into_iter()
        .chain(resources)
        .chain([
            DocumentKind::Workflow,
            DocumentKind::Template,
            DocumentKind::Configuration,
        ])
        .collect()
}

/// The schema of a kind as a document; nothing when it cannot be written.
#[must_use]
pub fn schema(kind: DocumentKind) -> Option<String> {
    let mut defs = Definitions::default();
    let root = match kind {
        DocumentKind::Component => component_document(&mut defs),
        DocumentKind::ImageRecipe | DocumentKind::Resource(ResourceKind::ImageRecipe) => {
            plain(&mut defs, &|node, cx| {
                image_recipe::fields(node.clone(), cx);
            })
        }
        DocumentKind::Resource(kind) => plain(&mut defs, &|node, cx| {
            resources::check_fields(kind, node, cx);
        }),
        DocumentKind::Workflow => workflow_document(&mut defs),
        DocumentKind::Template => template::document(&mut defs),
        DocumentKind::Configuration => plain(&mut defs, &|node, cx| {
            user_config::decode_config(node, cx);
        }),
    };
    let mut schema = Map::new();
    let dialect = "http://json-schema.org/draft-07/schema#";
    schema.insert("$schema".to_owned(), json!(dialect));
    schema.insert("title".to_owned(), json!(capitalized(kind.name())));
    schema.extend(defs.resolved(root));
    schema.insert("definitions".to_owned(), defs.into_value());
    let mut text = serde_json::to_string_pretty(&schema).ok()?;
    text.push('\n');
    Some(text)
}

fn plain(defs: &mut Definitions, decode: &dyn Fn(&Node, &mut Cx<'_>)) -> Value {
    let explorer = Explorer {
        decode,
        unresolved: false,
        stops: &[],
        root: "",
    };
    explorer.explore(&[], defs)
}

/// `if` the field `action` is `name`, `then` the inputs are these.
fn inputs_of(name: &str, inputs: &Value, needed: bool) -> Value {
    let mut then = json!({ "properties": { "inputs": inputs } });
    if let Some(fields) = then.as_object_mut().filter(|_| needed) {
        fields.insert("required".to_owned(), json!(["inputs"]));
    }
    json!({
        "if": { "properties": { "action": { "const": name } }, "required": ["action"] },
        "then": then,
    })
}

fn component_document(defs: &mut Definitions) -> Value {
    let step = [
        Step::Field("phases".into()),
        Step::Item,
        Step::Field("steps".into()),
        Step::Item,
    ];
    let condition = [&step[..], &[Step::Field("if".into())]].concat();
    let stops: [Stop<'_>; 1] = [(&condition, "if")];
    conditions::of_components(defs);
    let explorer = Explorer {
        decode: &|node, cx| {
            component::decode_document(node.clone(), "", cx);
        },
        unresolved: false,
        stops: &stops,
        root: "",
    };
    let root = explorer.explore(&[], defs);
    let mut rules = Vec::new();
    for action in ActionKind::ALL {
        let explorer = Explorer {
            decode: &|node, cx| {
                action.decode_cx(Some(node), Span::default(), cx);
            },
            unresolved: true,
            stops: match action {
                ActionKind::Assert => &[(&[], "condition")],
                _ => &[],
            },
            root: action.name(),
        };
        let inputs = explorer.explore(&[], defs);
        let needed = action.decode(None, Span::default()).0.is_none();
        rules.push(inputs_of(action.name(), &inputs, needed));
    }
    defs.extend("step", "allOf", rules);
    root
}

fn workflow_document(defs: &mut Definitions) -> Value {
    let condition = [
        Step::Field("steps".into()),
        Step::Item,
        Step::Field("if".into()),
    ];
    conditions::of_workflows(defs);
    let explorer = Explorer {
        decode: &|node, cx| workflow::check_document(node, None, cx),
        unresolved: false,
        stops: &[(&condition, "condition")],
        root: "",
    };
    let root = explorer.explore(&[], defs);
    let rules = ACTIONS.iter().map(|action| {
        let needed = action.inputs.iter().any(|input| input.required);
        let inputs = defs.add(action.name, workflow_inputs(action));
        inputs_of(action.name, &inputs, needed)
    });
    let rules = rules.collect();
    defs.extend("workflow-step", "allOf", rules);
    root
}

/// Inputs from the table; each may also be a path to a value, with `.$` behind its name.
fn workflow_inputs(action: &Action) -> Value {
    let mut properties = Map::new();
    let mut demands = Vec::new();
    for input in action.inputs {
        let mut schema = workflow_input(input);
        texts::describe(&mut schema, action.name, input.name);
        properties.insert(input.name.to_owned(), schema);
        let dynamic = format!("{}.$", input.name);
        let mut schema = json!({ "type": "string", "minLength": 1 });
        texts::describe(&mut schema, action.name, input.name);
        texts::note(
            &mut schema,
            "Here a path to the value, such as `$.stepOutputs.<step>.<output>`.",
        );
        if input.required {
            demands.push(json!({ "anyOf": [
                { "required": [input.name] },
                { "required": [&dynamic] },
            ] }));
        }
        properties.insert(dynamic, schema);
    }
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    let Some(fields) = schema.as_object_mut() else {
        return schema;
    };
    if demands.is_empty() {
        return any_of(vec![schema, json!({ "type": "null" })]);
    }
    fields.insert("allOf".to_owned(), Value::Array(demands));
    schema
}

fn workflow_input(input: &Input) -> Value {
    match input.kind {
        Kind::Text => json!({ "type": ["string", "number", "boolean"], "minLength": 1 }),
        Kind::Bool => any_of(vec![
            json!({ "type": "boolean" }),
            json!({ "type": "string", "pattern": r"^(true|True|TRUE|false|False|FALSE)$|\$\." }),
        ]),
        Kind::List => json!({ "type": "array" }),
        Kind::Map => json!({ "type": "object" }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Any => json!({}),
    }
}
