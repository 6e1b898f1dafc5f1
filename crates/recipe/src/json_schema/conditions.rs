//! Conditions, which nest: of component documents and of workflows.

use serde_json::{Map, Value, json};

use super::explore::{Definitions, Explorer, Step, any_of, reference};
use super::texts;
use crate::component::Branch;
use crate::{condition, workflow};

/// Adds `condition`, which `Assert` takes, and `if`, which may also say what follows.
pub(super) fn of_components(defs: &mut Definitions) {
    let explorer = Explorer {
        decode: &|node, cx| {
            condition::condition(node, cx);
        },
        unresolved: true,
        stops: &[],
        root: "condition",
    };
    let joined = |name: &str| {
        let one = reference("condition");
        let list = if name == "not" {
            json!({ "type": "array", "items": one, "minItems": 1, "maxItems": 1 })
        } else {
            json!({ "type": "array", "items": one, "minItems": 1 })
        };
        any_of(if name == "not" {
            vec![one, list]
        } else {
            vec![list]
        })
    };
    let mut properties = Map::new();
    let mut needs = Map::new();
    for name in condition::operators() {
        let logical = condition::LOGICAL.contains(&name);
        let mut schema = if logical {
            joined(name)
        } else {
            explorer.explore(&[Step::Field(name.into())], defs)
        };
        texts::describe(&mut schema, "condition", name);
        properties.insert(name.to_owned(), schema);
        let beside = explorer.misses_with(name);
        if !beside.is_empty() {
            needs.insert(name.to_owned(), json!(beside));
        }
    }
    let operators: Vec<String> = properties.keys().cloned().collect();
    for name in ["value", "path"] {
        let mut schema = json!({ "type": ["string", "number", "boolean"] });
        texts::describe(&mut schema, "condition", name);
        properties.insert(name.to_owned(), schema);
    }
    let whole = |properties: Map<String, Value>, definition: &str| {
        let each: Vec<Value> = operators
            .iter()
            .map(|name| json!({ "required": [name] }))
            .collect();
        json!({
            "type": "object",
            "description": texts::of(definition, ""),
            "properties": properties,
            "additionalProperties": false,
            "dependencies": needs,
            "oneOf": each,
        })
    };
    defs.add("condition", whole(properties.clone(), "condition"));
    // AWS's own documents write what follows also below `not`.
    let branches = Branch::ALL.map(Branch::name);
    for name in ["then", "else"] {
        let mut schema = json!({ "enum": branches });
        texts::describe(&mut schema, "if", name);
        properties.insert(name.to_owned(), schema);
    }
    let negated = defs.add("negated", whole(properties.clone(), "condition"));
    let list =
        json!({ "type": "array", "items": reference("condition"), "minItems": 1, "maxItems": 1 });
    let mut not = any_of(vec![negated, list]);
    texts::describe(&mut not, "condition", "not");
    properties.insert("not".to_owned(), not);
    let one = whole(properties, "if");
    let list = json!({ "type": "array", "items": one, "minItems": 1, "maxItems": 1 });
    defs.add("if", any_of(vec![one, list]));
}

/// Adds `condition` of workflows.
pub(super) fn of_workflows(defs: &mut Definitions) {
    let mut properties = Map::new();
    let mut needs = Map::new();
    for name in workflow::condition::LOGICAL {
        let one = reference("condition");
        let mut list = json!({ "type": "array", "items": one, "minItems": 1, "maxItems": 10 });
        if name == "not" {
            list = json!({ "type": "array", "items": one, "minItems": 1, "maxItems": 1 });
            list = any_of(vec![one, list]);
        }
        texts::describe(&mut list, "condition", name);
        properties.insert(name.to_owned(), list);
    }
    for name in workflow::condition::comparisons() {
        let mut schema = json!({ "type": ["string", "number", "boolean"] });
        texts::describe(&mut schema, "condition", name);
        properties.insert(name.to_owned(), schema);
        needs.insert(name.to_owned(), json!(["value"]));
    }
    let each: Vec<Value> = properties
        .keys()
        .map(|name| json!({ "required": [name] }))
        .collect();
    let mut value = json!({ "type": ["string", "number", "boolean"] });
    texts::describe(&mut value, "condition", "value");
    properties.insert("value".to_owned(), value);
    defs.add(
        "condition",
        json!({
            "type": "object",
            "description": texts::of("condition", ""),
            "properties": properties,
            "additionalProperties": false,
            "dependencies": needs,
            "oneOf": each,
        }),
    );
}
