//! Finds out what a decoder takes, by running it on small documents.
//!
//! For every place it tries a text, nothing, a mapping and a list there, with only what leads to it around
//! it, and reads in the [`Trace`] what the decoder asks of each. Where it asks for fields or entries, those
//! are the next places.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::{Diagnostics, Position, Severity, Span};
use serde_json::{Map, Value, json};

use super::texts;
use crate::decode::{Cx, capitalized};
use crate::node::{Key, Node, NodeKind, Scalar, Style};
use crate::trace::{Asked, Heard, Trace};

/// A text whose content is not known, in every way that decoders know of.
const UNKNOWN: &str = "{{ build.probe.outputs.stdout }}";
/// A name that an author could give.
const AUTHORS: &str = "aws:ssm:/probe";
/// What a text with a reference looks like.
pub(super) const REFERENCE: &str = r"\{\{.*\}\}";

/// Where a value came from: the value itself, what is in it, and the keys of that.
const LEAF: Span = place(1);
const BELOW: Span = place(2);
const KEY: Span = place(3);

const fn place(line: u32) -> Span {
    let at = Position {
        line,
        column: 0,
        offset: 0,
    };
    Span { start: at, end: at }
}

/// A step from a value to one in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The field of a mapping.
    Field(Cow<'static, str>),
    /// The entry of a list.
    Item,
    /// The value of a name that is the author's.
    Value,
}

/// What stands at a place instead of what would be found there.
pub(super) type Stop<'a> = (&'a [Step], &'a str);

/// A decoder, and what is known of the places in its documents.
pub(super) struct Explorer<'a> {
    pub(super) decode: &'a dyn Fn(&Node, &mut Cx<'_>),
    /// Whether references are still in place.
    pub(super) unresolved: bool,
    /// Places with a definition of their own.
    pub(super) stops: &'a [Stop<'a>],
    /// What the root is, for the texts.
    pub(super) root: &'a str,
}

/// The definitions of a schema.
#[derive(Default)]
pub(super) struct Definitions(BTreeMap<String, Value>);

impl Definitions {
    /// Adds one and gives the reference to it. What is there already in the same form is used again.
    pub(super) fn add(&mut self, name: &str, schema: Value) -> Value {
        let mut free = name.to_owned();
        let mut number = 2;
        while self.0.get(&free).is_some_and(|there| *there != schema) {
            free = format!("{name}-{number}");
            number += 1;
        }
        let reference = reference(&free);
        self.0.insert(free, schema);
        reference
    }

    /// The definition that a reference names, taken out, or the schema itself.
    pub(super) fn resolved(&mut self, schema: Value) -> Map<String, Value> {
        let named = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| path.rsplit('/').next())
            .and_then(|name| self.0.remove(name));
        match named.unwrap_or(schema) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }

    /// Adds to the list `key` of a definition.
    pub(super) fn extend(&mut self, name: &str, key: &str, more: Vec<Value>) {
        if let Some(Value::Object(fields)) = self.0.get_mut(name) {
            let list = fields.entry(key).or_insert_with(|| json!([]));
            if let Value::Array(list) = list {
                list.extend(more);
            }
        }
    }

    /// Whether the mapping that this is has to have something in it.
    pub(super) fn demands(&self, name: &str) -> bool {
        let schema = self.0.get(name);
        schema.is_some_and(|s| s.get("required").is_some() || s.get("allOf").is_some())
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0.into_iter().collect())
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{name}") })
}

/// What a run found out about the leaf.
struct Run {
    heard: Vec<Heard>,
    /// Codes of errors at the leaf and at keys in it.
    errors: Vec<(Span, String)>,
}

impl Run {
    fn failed(&self, at: Span, code: &str) -> bool {
        self.errors
            .iter()
            .any(|(span, error)| *span == at && error == code)
    }

    fn missing(&self) -> BTreeSet<&str> {
        self.heard
            .iter()
            .filter_map(|one| match &one.asked {
                Asked::Missing(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    fn asks(&self, asked: &Asked) -> bool {
        self.heard.iter().any(|one| one.asked == *asked)
    }
}

fn scalar(text: &str, style: Style, span: Span) -> Node {
    Node {
        span,
        kind: NodeKind::Scalar(Scalar {
            text: text.to_owned(),
            style,
        }),
        tag: None,
    }
}

fn unknown(span: Span) -> Node {
    scalar(UNKNOWN, Style::Opaque, span)
}

fn container(kind: NodeKind, span: Span) -> Node {
    Node {
        span,
        kind,
        tag: None,
    }
}

fn field(name: &str, value: Node, span: Span) -> (Key, Node) {
    let text = name.to_owned();
    (Key { text, span }, value)
}

impl Explorer<'_> {
    fn run(&self, path: &[Step], leaf: NodeKind) -> Run {
        let mut node = container(leaf, LEAF);
        for step in path.iter().rev() {
            let name = match step {
                Step::Item => {
                    node = container(NodeKind::Seq(vec![node]), Span::default());
                    continue;
                }
                Step::Field(name) => name.as_ref(),
                Step::Value => AUTHORS,
            };
            let fields = vec![field(name, node, Span::default())];
            node = container(NodeKind::Map(fields), Span::default());
        }
        let (mut diags, mut trace) = (Diagnostics::new(), Trace::default());
        let mut cx = Cx::new(&mut diags);
        cx.unresolved = self.unresolved;
        cx.trace = Some(&mut trace);
        (self.decode)(&node, &mut cx);
        Run {
            heard: trace.of(LEAF),
            errors: diags
                .iter()
                .filter(|d| d.severity == Severity::Error)
                .filter_map(|d| Some((d.span?, d.code.to_string())))
                .collect(),
        }
    }

    /// What may stand at a place.
    pub(super) fn explore(&self, path: &[Step], defs: &mut Definitions) -> Value {
        if let Some((_, name)) = self.stops.iter().find(|(stop, _)| *stop == path) {
            return reference(name);
        }
        let text = self.run(path, unknown(LEAF).kind);
        let map = self.run(path, NodeKind::Map(Vec::new()));
        let list = self.run(path, NodeKind::Seq(vec![unknown(BELOW)]));
        let (mut forms, mut notes) = (Vec::new(), Vec::new());
        if let Some(schema) = self.text(path, &text, &mut notes) {
            forms.push(schema);
        }
        if list.asks(&Asked::List) {
            forms.push(self.list(path, &list, &mut notes, defs));
        }
        if let Some(most) = named(&map).or_else(|| self.named(path)) {
            forms.push(self.author_named(path, most, &mut notes, defs));
        } else if let Some(what) = what(&map) {
            let name = self.definition(what);
            let schema = self.object(path, &name, &map, defs);
            forms.push(defs.add(&name, schema));
        }
        if forms.is_empty() {
            return json!({});
        }
        let nothing = self.run(path, scalar("", Style::Plain, LEAF).kind);
        if !nothing.errors.iter().any(|(span, _)| *span == LEAF) {
            forms.push(json!({ "type": "null" }));
        }
        let mut schema = any_of(forms);
        if !notes.is_empty() {
            texts::note(&mut schema, &notes.join(" "));
        }
        schema
    }

    /// The name of a mapping's definition.
    fn definition(&self, what: &str) -> String {
        if what == "an entry of `inputs`" {
            return format!("{}-entry", self.root);
        }
        slug(what)
    }

    /// Some mappings say only with a name in them that names are the author's.
    fn named(&self, path: &[Step]) -> Option<usize> {
        let fields = vec![field(AUTHORS, unknown(BELOW), KEY)];
        named(&self.run(path, NodeKind::Map(fields)))
    }

    fn text(&self, path: &[Step], run: &Run, notes: &mut Vec<String>) -> Option<Value> {
        if run.heard.is_empty() {
            return None;
        }
        let mut limits = Map::new();
        let mut forms = Vec::new();
        for one in &run.heard {
            match &one.asked {
                Asked::Filled => {
                    limits.insert("minLength".to_owned(), json!(1));
                }
                Asked::AtMost(most) if *most < usize::MAX => {
                    notes.push(format!("At most {most} characters."));
                    limits.insert("maxLength".to_owned(), json!(most));
                }
                Asked::Pattern(pattern) => {
                    limits.insert("pattern".to_owned(), json!(pattern));
                }
                Asked::Hint(hint) => notes.push(sentence(hint)),
                Asked::Bool => {
                    forms.push(json!({ "type": "boolean" }));
                    let words = "^(true|True|TRUE|false|False|FALSE)$";
                    forms.push(json!({ "type": "string", "pattern": words }));
                }
                Asked::Int(least, most) => {
                    let (schema, note) = range(*least, *most);
                    notes.extend(note);
                    forms.push(schema);
                    forms.push(json!({ "type": "string", "pattern": "^[-+]?[0-9]+$" }));
                }
                Asked::Number => forms.push(json!({ "type": ["number", "string"] })),
                Asked::Choice(words) => {
                    let mut all: Vec<Value> = words.iter().map(|word| json!(word)).collect();
                    // `1.0` is a number to others.
                    let mut numbers = words.iter().filter_map(|word| word.parse::<f64>().ok());
                    all.extend(numbers.next().map(|number| json!(number)));
                    forms.push(json!({ "enum": all }));
                }
                Asked::Usual(words) => {
                    forms.push(json!({ "enum": words }));
                    forms.push(json!({ "type": "string" }));
                }
                _ => {}
            }
        }
        if !forms.is_empty() {
            if run.heard.iter().any(|one| one.deferred) {
                forms.push(json!({ "type": "string", "pattern": REFERENCE }));
            }
            return Some(any_of(forms));
        }
        let plain = self.run(path, scalar("probe", Style::Plain, LEAF).kind);
        if plain.failed(LEAF, "wrong-type") {
            return None;
        }
        limits.insert("type".to_owned(), json!(["string", "number", "boolean"]));
        Some(Value::Object(limits))
    }

    fn list(
        &self,
        path: &[Step],
        run: &Run,
        notes: &mut Vec<String>,
        defs: &mut Definitions,
    ) -> Value {
        let items = self.explore(&below(path, Step::Item), defs);
        let mut schema = json!({ "type": "array", "items": items });
        let (mut least, mut most) = (0, usize::MAX);
        for one in &run.heard {
            if let Asked::Items(from, to) = one.asked {
                (least, most) = (from, to);
            }
        }
        let empty = self.run(path, NodeKind::Seq(Vec::new()));
        if empty.failed(LEAF, "empty-value") {
            least = least.max(1);
        }
        if let Some(fields) = schema.as_object_mut() {
            if least > 0 {
                fields.insert("minItems".to_owned(), json!(least));
            }
            if most < usize::MAX {
                fields.insert("maxItems".to_owned(), json!(most));
                notes.push(match (least, most) {
                    (1, 1) => "One entry.".to_owned(),
                    _ => format!("{least} to {most} entries."),
                });
            }
        }
        schema
    }

    fn author_named(
        &self,
        path: &[Step],
        most: usize,
        notes: &mut Vec<String>,
        defs: &mut Definitions,
    ) -> Value {
        let value = self.explore(&below(path, Step::Value), defs);
        let mut schema = json!({ "type": "object", "additionalProperties": value });
        let Some(fields) = schema.as_object_mut() else {
            return schema;
        };
        if most < usize::MAX {
            fields.insert("maxProperties".to_owned(), json!(most));
        }
        if most == 1 {
            fields.insert("minProperties".to_owned(), json!(1));
        } else if most < usize::MAX {
            notes.push(format!("At most {most}."));
        }
        schema
    }

    /// A mapping whose fields the decoder knows.
    fn object(&self, path: &[Step], definition: &str, run: &Run, defs: &mut Definitions) -> Value {
        let mut names: Vec<&'static str> = Vec::new();
        for one in &run.heard {
            match one.asked {
                Asked::Field(name) if !names.contains(&name) => names.push(name),
                _ => {}
            }
        }
        let mut required = run.missing();
        let (mut properties, mut patterns) = (Map::new(), Map::new());
        for name in names {
            let spellings = spellings(name, run);
            let Some((first, others)) = spellings.split_first() else {
                continue;
            };
            let alone = NodeKind::Map(vec![field(first, unknown(BELOW), KEY)]);
            let alone = self.run(path, alone);
            if alone.failed(KEY, "unknown-field") {
                continue;
            }
            // What is asked for whatever else is there has to be there.
            let missing = alone.missing();
            required.retain(|needed| *needed == name || missing.contains(needed));
            let step = Step::Field(first.clone().into());
            let mut schema = self.explore(&below(path, step), defs);
            texts::describe(&mut schema, definition, main_name(name, run));
            properties.insert(first.clone(), schema.clone());
            for other in others {
                patterns.insert(format!("^{other}$"), schema.clone());
            }
        }
        let mut demands = Vec::new();
        let mut plain = Vec::new();
        for name in required {
            match spellings(name, run).as_slice() {
                [one] => plain.push(one.clone()),
                several => demands.push(one_there(several)),
            }
        }
        for one in &run.heard {
            if let Asked::OneOf(names) = &one.asked {
                let all: Vec<String> = names.iter().flat_map(|n| spellings(n, run)).collect();
                demands.push(one_there(&all));
            }
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        if let Some(text) = texts::of(definition, "") {
            schema.insert("description".to_owned(), json!(text));
        }
        if !plain.is_empty() {
            schema.insert("required".to_owned(), json!(plain));
        }
        schema.insert("properties".to_owned(), Value::Object(properties));
        if !patterns.is_empty() {
            schema.insert("patternProperties".to_owned(), Value::Object(patterns));
        }
        if run.asks(&Asked::Closed) {
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
        if !demands.is_empty() {
            schema.insert("allOf".to_owned(), Value::Array(demands));
        }
        Value::Object(schema)
    }

    /// What a mapping that has the field `given` misses.
    pub(super) fn misses_with(&self, given: &'static str) -> Vec<String> {
        let fields = vec![field(given, unknown(BELOW), KEY)];
        let run = self.run(&[], NodeKind::Map(fields));
        run.missing().into_iter().map(str::to_owned).collect()
    }
}

fn named(run: &Run) -> Option<usize> {
    run.heard.iter().find_map(|one| match one.asked {
        Asked::Named { most } => Some(most),
        _ => None,
    })
}

fn what(run: &Run) -> Option<&'static str> {
    run.heard.iter().find_map(|one| match one.asked {
        Asked::Mapping(what) => Some(what),
        _ => None,
    })
}

/// Every way to write a field; the one that is offered first.
fn spellings(name: &str, run: &Run) -> Vec<String> {
    if run.asks(&Asked::PascalCase) {
        return vec![capitalized(name)];
    }
    let mut all = vec![name.to_owned()];
    if run.asks(&Asked::EitherCase) {
        all.push(capitalized(name));
    }
    for one in &run.heard {
        if let Asked::Alias(main, alias) = one.asked
            && main == name
        {
            all.push(alias.to_owned());
        }
    }
    all.dedup();
    all
}

/// What the API calls the field.
fn main_name(name: &'static str, run: &Run) -> &'static str {
    let mut aliases = run.heard.iter().filter_map(|one| match one.asked {
        Asked::Alias(main, alias) if alias == name => Some(main),
        _ => None,
    });
    aliases.next().unwrap_or(name)
}

fn one_there(names: &[String]) -> Value {
    let each: Vec<Value> = names
        .iter()
        .map(|name| json!({ "required": [name] }))
        .collect();
    json!({ "anyOf": each })
}

fn range(least: i64, most: i64) -> (Value, Option<String>) {
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("integer"));
    if least > i64::MIN {
        schema.insert("minimum".to_owned(), json!(least));
    }
    let note = (most < i64::from(u32::MAX)).then(|| format!("From {least} to {most}."));
    if most < i64::MAX {
        schema.insert("maximum".to_owned(), json!(most));
    }
    (Value::Object(schema), note)
}

pub(super) fn any_of(mut forms: Vec<Value>) -> Value {
    match (forms.len(), forms.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            forms.extend(last);
            json!({ "anyOf": forms })
        }
    }
}

fn below(path: &[Step], step: Step) -> Vec<Step> {
    let mut path = path.to_vec();
    path.push(step);
    path
}

/// `a block device mapping` → `block-device-mapping`.
fn slug(what: &str) -> String {
    let what = what.trim_start_matches("an ").trim_start_matches("a ");
    let what = what.trim_start_matches("the ");
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let slug: String = what.chars().filter(|c| *c != '`').map(word).collect();
    slug
}

/// `use 3 letters` → `Use 3 letters.`
fn sentence(text: &str) -> String {
    match text {
        "" => String::new(),
        text => capitalized(text) + ".",
    }
}
