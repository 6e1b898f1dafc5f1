//! The schema of CloudFormation templates: their sections, and the properties of the resources of Image Builder.
//!
//! Anywhere in a resource a function may stand for a value. Editors show the short form of one (`!Ref Name`, `!If
//! [A, b, c]`) as what is behind the tag, so a text passes everywhere, and so does a list that begins with one.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::explore::{Definitions, Explorer, any_of, reference};
use super::{plain, texts};
use crate::image_recipe;
use crate::kind::DocumentKind;
use crate::resources::{self, ResourceKind};
use crate::template::{ATTRIBUTES, MOST_RESOURCES, OURS, SECTIONS, declared};

/// Name of the definition of what stands for a value.
const FUNCTION: &str = "function";

/// Functions that a resource may be full of.
const CALL: &str = "^(Ref|Condition|Fn::.+)$";

pub(super) fn document(defs: &mut Definitions) -> Value {
    defs.add(FUNCTION, function());
    let parameter = Explorer {
        decode: &|node, cx| {
            declared(Some(node), &BTreeMap::new(), cx);
        },
        unresolved: false,
        stops: &[],
        root: "",
    };
    let parameter = parameter.explore(&[super::explore::Step::Value], defs);
    let mut sections = Map::new();
    for name in SECTIONS {
        let schema = match *name {
            "AWSTemplateFormatVersion" => json!({ "enum": ["2010-09-09"] }),
            "Description" | "Hooks" | "Globals" | "Transform" => json!({}),
            "Parameters" => json!({ "type": "object", "additionalProperties": parameter }),
            "Resources" => resources_section(defs),
            _ => json!({ "type": "object" }),
        };
        sections.insert((*name).to_owned(), schema);
    }
    for (name, schema) in &mut sections {
        texts::describe(schema, "template", name);
    }
    json!({
        "type": "object",
        "description": texts::of("template", ""),
        "required": ["Resources"],
        "properties": sections,
        "additionalProperties": false,
    })
}

fn function() -> Value {
    json!({
        "anyOf": [
            { "type": "string" },
            { "type": "array", "items": [{ "type": ["string", "number"] }], "minItems": 2 },
            {
                "type": "object",
                "patternProperties": { CALL: { "description": texts::of("call", "") } },
                "additionalProperties": false,
                "minProperties": 1,
                "maxProperties": 1,
            },
        ],
    })
}

fn resources_section(defs: &mut Definitions) -> Value {
    let types: Vec<String> = ResourceKind::ALL
        .map(|kind| format!("{OURS}{}", kind.cfn_name()))
        .into();
    let mut attributes = Map::new();
    for name in ATTRIBUTES {
        let mut schema = match *name {
            "Type" => json!({ "anyOf": [
                { "enum": types },
                { "type": "string", "pattern": format!("^(?!{OURS})") },
            ] }),
            _ => json!({}),
        };
        texts::describe(&mut schema, "resource", name);
        attributes.insert((*name).to_owned(), schema);
    }
    let mut rules = Vec::new();
    for kind in ResourceKind::ALL {
        let mut own = Definitions::default();
        let properties = plain(&mut own, &|node, cx| {
            cx.pascal = true;
            match kind {
                ResourceKind::ImageRecipe => drop(image_recipe::fields(node.clone(), cx)),
                _ => drop(resources::check_fields(kind, node, cx)),
            }
        });
        rules.push(rule(kind, properties, own, defs));
    }
    let resource = json!({
        "type": "object",
        "description": texts::of("resource", ""),
        "required": ["Type"],
        "properties": attributes,
        "allOf": rules,
    });
    let resource = defs.add("resource", resource);
    json!({
        "type": "object",
        "maxProperties": MOST_RESOURCES,
        "patternProperties": { "^Fn::": { "description": texts::of("call", "") } },
        "additionalProperties": resource,
    })
}

/// `if` the type is this one, `then` the properties are these.
fn rule(kind: ResourceKind, properties: Value, own: Definitions, defs: &mut Definitions) -> Value {
    let name = kind.cfn_name();
    let renamed = |old: &str| format!("{name}-{old}");
    let mut top = open(properties, &renamed);
    let mut settings = None;
    let Value::Object(own) = own.into_value() else {
        return json!({});
    };
    for (old, schema) in own {
        let mut schema = open(schema, &renamed);
        // Of a template they stand beside the properties, where CloudFormation lets anything stand.
        if let Some(Value::Object(fields)) = schema.get_mut("properties")
            && let Some(found) = fields.remove("Amiforge")
        {
            settings = Some(found);
        }
        defs.add(&renamed(&old), schema);
    }
    let needs = top
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|path| path.rsplit('/').next())
        .is_some_and(|name| defs.demands(name));
    if let Value::Object(fields) = &mut top {
        fields.remove("description");
    }
    let mut allowed = Map::new();
    for attribute in ATTRIBUTES {
        let schema = match (*attribute, &settings) {
            ("Type", _) => continue,
            ("Properties", _) => any_of(vec![top.clone(), reference(FUNCTION)]),
            ("Metadata", Some(settings)) => json!({ "properties": { "amiforge": settings } }),
            _ => json!({}),
        };
        let mut schema = schema;
        texts::describe(&mut schema, "resource", attribute);
        allowed.insert((*attribute).to_owned(), schema);
    }
    allowed.insert(
        "Type".to_owned(),
        json!({ "description": DocumentKind::Resource(kind).name() }),
    );
    let mut then = json!({ "properties": allowed, "additionalProperties": false });
    if let (true, Some(fields)) = (needs, then.as_object_mut()) {
        fields.insert("required".to_owned(), json!(["Properties"]));
    }
    json!({
        "if": { "properties": { "Type": { "const": format!("{OURS}{name}") } }, "required": ["Type"] },
        "then": then,
    })
}

/// The schema where functions may stand for values, with other names of definitions.
fn open(schema: Value, renamed: &dyn Fn(&str) -> String) -> Value {
    let Value::Object(fields) = schema else {
        return schema;
    };
    let mut out = Map::new();
    for (keyword, value) in fields {
        let value = match (keyword.as_str(), value) {
            ("properties" | "patternProperties", Value::Object(named)) => named
                .into_iter()
                .map(|(name, schema)| (name, or_function(schema, renamed)))
                .collect(),
            ("items", schema @ Value::Object(_)) => or_function(schema, renamed),
            ("additionalProperties", schema @ Value::Object(_)) => or_function(schema, renamed),
            ("anyOf" | "allOf", Value::Array(list)) => {
                list.into_iter().map(|one| open(one, renamed)).collect()
            }
            ("$ref", Value::String(path)) => {
                let name = path.rsplit('/').next().unwrap_or_default();
                json!(format!("#/definitions/{}", renamed(name)))
            }
            (_, value) => value,
        };
        out.insert(keyword, value);
    }
    Value::Object(out)
}

fn or_function(schema: Value, renamed: &dyn Fn(&str) -> String) -> Value {
    let mut schema = open(schema, renamed);
    let Some(fields) = schema.as_object_mut() else {
        return schema;
    };
    let description = fields.remove("description");
    if fields.is_empty() {
        fields.extend(description.map(|text| ("description".to_owned(), text)));
        return schema;
    }
    let mut out = any_of(vec![schema, reference(FUNCTION)]);
    if let (Some(fields), Some(text)) = (out.as_object_mut(), description) {
        fields.insert("description".to_owned(), text);
    }
    out
}
