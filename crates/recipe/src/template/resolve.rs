//! Intrinsic functions: references of a template are replaced by what they lead to.

mod attribute;
mod conditions;
mod dynamic;

use std::collections::{BTreeMap, BTreeSet};

use amiforge_types::{Diagnostic, Diagnostics, Span};
use attribute::Names;

use super::base64::base64;
use super::open;
use super::parameters::{self, Parameter};
use super::value::{Part, Text, Value};
use crate::decode::shown;
use crate::inline::{Inline, Piece};
use crate::node::{Key, Node, NodeKind, Scalar, Style};
use crate::reference::{has_secret, secret_mark};
use crate::resources::ResourceKind;
use crate::suggest;

/// How many bytes all replaced texts may have together.
const MOST_BYTES: usize = 8 << 20;

/// How many problems with references are told, and for how many of them a near name is looked for.
const MOST_PROBLEMS: usize = 200;
const MOST_GUESSES: usize = 50;
/// How deep conditions may name each other.
const MOST_NESTED: usize = 64;

/// What a template knows of where it is deployed, and what is assumed.
const PSEUDO: &[(&str, &str)] = &[
    ("AWS::AccountId", "123456789012"),
    ("AWS::Partition", "aws"),
    ("AWS::Region", "us-east-1"),
    ("AWS::StackName", "amiforge"),
    ("AWS::URLSuffix", "amazonaws.com"),
];
/// Pseudo parameters without a value that could be assumed.
const OPEN_PSEUDO: &[&str] = &["AWS::StackId", "AWS::NotificationARNs"];
const NO_VALUE: &str = "AWS::NoValue";

/// Functions whose value is known only when the template is deployed.
const OPEN: &[&str] = &["GetAZs", "ImportValue", "Cidr", "Length", "ToJsonString"];
/// Functions that have a value here.
const KNOWN: &[&str] = &[
    "Ref",
    "GetAtt",
    "Sub",
    "Join",
    "If",
    "FindInMap",
    "Select",
    "Split",
    "Base64",
];
/// Functions of conditions.
const LOGICAL: &[&str] = &["Equals", "And", "Or", "Not"];

/// What references ask of a resource of the template.
#[derive(Clone, Copy)]
pub(super) struct Resource<'t> {
    /// The type, where it is ours.
    pub(super) kind: Option<ResourceKind>,
    /// The properties as they are written.
    pub(super) properties: Option<&'t Node>,
}

/// Where a reference stands.
#[derive(Clone, Copy)]
struct Site<'t> {
    /// The value that it is, or that it is in.
    span: Span,
    /// The text of `!Sub` that it is in, and where in that.
    within: Option<(&'t Node, usize)>,
}

impl Site<'_> {
    fn of(span: Span) -> Self {
        Self { span, within: None }
    }
}

/// Replaces references.
pub(super) struct Resolver<'t, 'd> {
    /// The template.
    text: &'t str,
    parameters: BTreeMap<&'t str, Parameter>,
    mappings: Option<&'t Node>,
    conditions: Option<&'t Node>,
    resources: BTreeMap<&'t str, Resource<'t>>,
    names: Names<'t>,
    diags: &'d mut Diagnostics,
    verdicts: BTreeMap<&'t str, Option<bool>>,
    /// Conditions that are being looked at, to find circles.
    open: BTreeSet<&'t str>,
    /// Where values stand that come from defaults of parameters.
    defaults: BTreeSet<usize>,
    /// Values are only compared, so secret ones are taken as they are.
    comparing: bool,
    /// Given values of pseudo parameters, when none is assumed.
    pseudo: Option<BTreeMap<String, String>>,
    bytes: usize,
    problems: usize,
}

/// A call of a function.
pub(super) struct Call<'t> {
    pub(super) name: &'t str,
    pub(super) arg: &'t Node,
    /// True when the function is the tag of `arg`, which then is no call itself.
    pub(super) bare: bool,
}

/// The call that a node is.
pub(super) fn call(node: &Node) -> Option<Call<'_>> {
    if let Some(name) = node.tag.as_deref().and_then(|tag| tag.strip_prefix('!')) {
        return Some(Call {
            name,
            arg: node,
            bare: true,
        });
    }
    let NodeKind::Map(fields) = &node.kind else {
        return None;
    };
    let [(key, arg)] = fields.as_slice() else {
        return None;
    };
    let name = match key.text.as_str() {
        "Ref" | "Condition" => key.text.as_str(),
        other => other.strip_prefix("Fn::")?,
    };
    Some(Call {
        name,
        arg,
        bare: false,
    })
}

impl<'t, 'd> Resolver<'t, 'd> {
    pub(super) fn new(
        text: &'t str,
        parameters: BTreeMap<&'t str, Parameter>,
        mappings: Option<&'t Node>,
        conditions: Option<&'t Node>,
        resources: BTreeMap<&'t str, Resource<'t>>,
        diags: &'d mut Diagnostics,
    ) -> Self {
        Self {
            text,
            parameters,
            mappings,
            conditions,
            resources,
            names: Names::default(),
            diags,
            verdicts: BTreeMap::new(),
            open: BTreeSet::new(),
            defaults: BTreeSet::new(),
            comparing: false,
            pseudo: None,
            bytes: 0,
            problems: 0,
        }
    }

    /// Leaves pseudo parameters open that have no value in `given`.
    pub(super) fn assume_nothing(&mut self, given: &BTreeMap<String, String>) {
        self.pseudo = Some(given.clone());
    }

    /// What to do about a name that has no value before deployment.
    pub(super) fn help_of_open(&self, name: &str) -> String {
        let is_parameter = self.parameters.contains_key(name);
        open::help(name, self.pseudo.is_some(), Some(is_parameter))
    }

    pub(super) fn push(&mut self, problem: Diagnostic) {
        self.diags.push(problem);
    }

    pub(super) fn diags(&mut self) -> &mut Diagnostics {
        self.diags
    }

    pub(super) fn into_defaults(self) -> BTreeSet<usize> {
        self.defaults
    }

    fn error(&mut self, code: &'static str, span: Span, message: String, help: Option<String>) {
        self.problems += 1;
        if self.problems > MOST_PROBLEMS {
            return;
        }
        self.diags.push(Diagnostic {
            help,
            ..Diagnostic::error(code, span, message)
        });
    }

    /// The name that was meant, as long as few were wrong: a search costs as much as there are names.
    fn guess<'a>(&self, wrong: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
        (self.problems < MOST_GUESSES)
            .then(|| suggest::did_you_mean(wrong, names))
            .flatten()
    }

    /// The value of a node, its references replaced; `None` when it is `AWS::NoValue`.
    pub(super) fn node(&mut self, node: &'t Node) -> Option<Node> {
        let value = self.value(node);
        self.finish(value, node.span)
    }

    fn finish(&mut self, value: Value<'t>, span: Span) -> Option<Node> {
        let (mut node, from_default) = value.into_node(span)?;
        // A dynamic reference may also have come through a parameter or been put together.
        if let NodeKind::Scalar(scalar) = &node.kind
            && scalar.style != Style::Opaque
            && dynamic::is_in(&scalar.text)
        {
            node = Node::opaque(span, dynamic::shown(&scalar.text));
        }
        if from_default {
            self.defaults.insert(span.start.offset);
        }
        Some(node)
    }

    /// The document that a `Data` property holds.
    pub(super) fn inline<'x>(&mut self, node: &'t Node, outer: &'x str) -> Option<Inline<'x>> {
        // What is wrong with the references was told when the property itself was replaced.
        let before = std::mem::take(self.diags);
        let value = match (&node.kind, call(node)) {
            // Each dynamic reference in it is open, not all of it.
            (NodeKind::Scalar(scalar), None) if dynamic::is_in(&scalar.text) => {
                let mut parts = Vec::new();
                verbatim(&scalar.text, &mut parts);
                Value::Text(Text {
                    parts,
                    source: Some(node),
                    names: None,
                })
            }
            _ => self.value(node),
        };
        *self.diags = before;
        match value {
            Value::Node(found) => Inline::of_scalar(&found, outer),
            Value::Text(text) => {
                let parts = dynamic::split(text.parts).into_iter();
                let pieces: Vec<Piece> = parts.map(|part| part.piece).collect();
                let unknown = !pieces.iter().any(|piece| piece.known);
                let source = text.source.unwrap_or(node);
                (!unknown).then(|| {
                    Inline::of_pieces(source.span, source_text(text.source), &pieces, outer)
                })
            }
            Value::Absent | Value::Unknown { .. } => None,
        }
    }

    fn value(&mut self, node: &'t Node) -> Value<'t> {
        match call(node) {
            Some(call) if call.name != "Condition" || call.bare => self.function(&call, node.span),
            _ => self.plain(node),
        }
    }

    /// The value of a call's argument.
    fn argument(&mut self, call: &Call<'t>) -> Value<'t> {
        if call.bare {
            self.plain(call.arg)
        } else {
            self.value(call.arg)
        }
    }

    /// The value of a node that is no call, or whose tag was seen.
    fn plain(&mut self, node: &'t Node) -> Value<'t> {
        let kind = match &node.kind {
            NodeKind::Scalar(scalar) => return scalar_value(scalar, node),
            NodeKind::Seq(items) => {
                NodeKind::Seq(items.iter().filter_map(|item| self.node(item)).collect())
            }
            NodeKind::Map(fields) => {
                let mut out: Vec<(Key, Node)> = Vec::with_capacity(fields.len());
                for (key, value) in fields {
                    out.extend(self.node(value).map(|value| (key.clone(), value)));
                }
                NodeKind::Map(out)
            }
        };
        Value::Node(Node {
            span: node.span,
            kind,
            tag: None,
        })
    }

    fn function(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        match call.name {
            "Ref" => match text_of(call.arg) {
                Some(name) => self.reference(name, Site::of(span)),
                None => self.malformed("Ref", "a name", span),
            },
            "GetAtt" => self.attribute(call, span),
            "Sub" => self.substitute(call, span),
            "Join" => self.join(call, span),
            "If" => self.choose(call, span),
            "FindInMap" => self.find(call, span),
            "Select" => self.select(call, span),
            "Split" => self.split(call, span),
            "Base64" => {
                let value = self.argument(call).into_plain();
                // Encoded, a secret could not be told from other text.
                value.filter(|text| !has_secret(text)).map_or_else(
                    || Value::unknown("${Fn::Base64}"),
                    |text| Value::text(vec![Part::known(base64(text.as_bytes()))]),
                )
            }
            name if OPEN.contains(&name) => {
                self.argument(call);
                Value::unknown(format!("${{Fn::{name}}}"))
            }
            name if LOGICAL.contains(&name) || name == "Condition" => {
                let message = format!("`{name}` can stand in conditions only");
                self.error("unsupported-intrinsic", span, message, None);
                Value::unknown(format!("${{Fn::{name}}}"))
            }
            name => {
                let known = KNOWN.iter().chain(OPEN).chain(LOGICAL).copied();
                let help = match name {
                    "Transform" => {
                        Some("amiforge runs no macros; write out what the macro makes".to_owned())
                    }
                    _ => suggest::did_you_mean(name, known),
                };
                let message = if name == "Transform" {
                    "`Fn::Transform` is not supported".to_owned()
                } else {
                    format!("the function {} is not supported", shown(name))
                };
                self.error("unsupported-intrinsic", span, message, help);
                Value::unknown(format!("${{{name}}}"))
            }
        }
    }

    fn malformed(&mut self, name: &str, wanted: &str, span: Span) -> Value<'t> {
        let message = format!("`{name}` takes {wanted}");
        self.error("invalid-intrinsic", span, message, None);
        Value::unknown(format!("${{{name}}}"))
    }

    /// `!Ref name`, or `${name}`.
    fn reference(&mut self, name: &'t str, site: Site<'t>) -> Value<'t> {
        let span = site.span;
        if name == NO_VALUE {
            return Value::Absent;
        }
        if let Some((_, value)) = PSEUDO.iter().find(|(pseudo, _)| *pseudo == name) {
            return match &self.pseudo {
                None => Value::text(vec![Part::known(*value)]),
                Some(given) => given.get(name).map_or_else(
                    || Value::unknown(format!("${{{name}}}")),
                    |value| Value::text(vec![Part::known(value)]),
                ),
            };
        }
        if OPEN_PSEUDO.contains(&name) {
            return Value::unknown(format!("${{{name}}}"));
        }
        if let Some(parameter) = self.parameters.get(name) {
            let from_default = parameter.is_default;
            return match &parameter.value {
                parameters::Value::Text(text) => {
                    let text = match parameter.secret() {
                        Some(_) if !self.comparing => secret_mark(name),
                        _ => text.clone(),
                    };
                    let mut part = Part::known(text);
                    part.from_default = from_default;
                    Value::text(vec![part])
                }
                parameters::Value::List(items) => {
                    if from_default {
                        self.defaults.insert(span.start.offset);
                    }
                    let items: Vec<Node> =
                        items.iter().map(|item| Node::text(span, item)).collect();
                    let empty = matches!(items.as_slice(), [one] if one.as_text() == Some(""));
                    if empty {
                        return Value::unknown(format!("${{{name}}}"));
                    }
                    Value::Node(Node {
                        span,
                        kind: NodeKind::Seq(items),
                        tag: None,
                    })
                }
                parameters::Value::Unknown(shown) => Value::unknown(shown.clone()),
            };
        }
        match self.resources.get_key_value(name) {
            Some((id, resource)) => match resource.kind {
                Some(kind) => Value::resource(kind, id),
                None => Value::unknown(format!("${{{name}}}")),
            },
            None => self.nowhere(name, name, site),
        }
    }

    /// The place of a reference itself, where its text is written so. To look for it takes a while, so it is not looked
    /// for where nothing more is told.
    fn place(&self, site: Site<'_>) -> Span {
        let within = site.within.filter(|_| self.problems < MOST_PROBLEMS);
        let within =
            within.and_then(|(node, at)| Some((node, text_of(node)?.split_at_checked(at)?)));
        let Some((node, (before, from))) = within else {
            return site.span;
        };
        let end = from.find('}').map_or(from.len(), |end| end + 1);
        let written = &from[..end];
        let number = before.matches(written).count();
        node.span.of_part(self.text, written, number)
    }

    /// `written` is what stands between the braces of `!Sub`: the name, or that and an attribute.
    fn nowhere(&mut self, name: &str, written: &str, site: Site<'_>) -> Value<'t> {
        let names = self.parameters.keys().chain(self.resources.keys()).copied();
        let pseudo = PSEUDO.iter().map(|(name, _)| *name).chain([NO_VALUE]);
        // What no name can be belongs to a script.
        let is_name =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b':');
        let help = is_name
            .then(|| self.guess(name, names.chain(pseudo)))
            .flatten();
        let literal =
            || format!("in `!Sub`, `${{!{written}}}` stands for `${{{written}}}` of a script");
        let help = help.or_else(|| site.within.map(|_| literal()));
        let message = format!("the template has no parameter or resource {}", shown(name));
        let span = self.place(site);
        self.error("unknown-reference", span, message, help);
        Value::unknown(format!("${{{name}}}"))
    }

    /// `!Sub text`, or `[text, {name: value}]`.
    fn substitute(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let (source, own) = match &call.arg.kind {
            NodeKind::Scalar(_) => (call.arg, None),
            NodeKind::Seq(items) => match items.as_slice() {
                [source, own] if matches!(own.kind, NodeKind::Map(_)) => (source, Some(own)),
                [source] => (source, None),
                _ => return self.malformed("Fn::Sub", "a text, or a text and a mapping", span),
            },
            NodeKind::Map(_) => {
                return self.malformed("Fn::Sub", "a text, or a text and a mapping", span);
            }
        };
        let NodeKind::Scalar(Scalar { text, .. }) = &source.kind else {
            return self.malformed("Fn::Sub", "a text, or a text and a mapping", span);
        };
        let mut parts: Vec<Part> = Vec::new();
        let mut names = None;
        let mut rest = text.as_str();
        while let Some(at) = rest.find("${") {
            let after = &rest[at + 2..];
            let Some(end) = after.find('}') else { break };
            let name = &after[..end];
            verbatim(&rest[..at], &mut parts);
            let source_bytes = end + 3;
            let (value, named) = match name.strip_prefix('!') {
                Some(literal) => (vec![Part::known(format!("${{{literal}}}"))], None),
                None => {
                    let at = text.len() - rest.len() + at;
                    let within = Some((source, at));
                    self.variable(name.trim(), own, Site { span, within })
                }
            };
            let whole = source_bytes == text.len();
            names = named.filter(|_| whole);
            let count = value.len();
            for (n, mut part) in value.into_iter().enumerate() {
                // The reference as a whole stands for its parts; the last of them closes it.
                part.piece.verbatim = false;
                part.piece.source_bytes = if n + 1 == count { source_bytes } else { 0 };
                self.bytes += part.piece.text.len();
                parts.push(part);
            }
            if count == 0 {
                let mut part = Part::known("");
                part.piece.source_bytes = source_bytes;
                parts.push(part);
            }
            rest = &after[end + 1..];
            if self.bytes > MOST_BYTES {
                let message = format!("references repeat more than {MOST_BYTES} bytes");
                self.error("document-too-large", span, message, None);
                return Value::unknown("${Fn::Sub}");
            }
        }
        verbatim(rest, &mut parts);
        Value::Text(Text {
            parts,
            source: Some(source),
            names,
        })
    }

    /// The parts that `${name}` stands for.
    fn variable(
        &mut self,
        name: &'t str,
        own: Option<&'t Node>,
        site: Site<'t>,
    ) -> (Vec<Part>, Option<(ResourceKind, &'t str)>) {
        let value = match own.and_then(|own| own.get(name)) {
            Some(node) => self.value(node),
            None => match name.split_once('.') {
                Some((id, attribute)) => self.attribute_of(id, attribute, site),
                None => self.reference(name, site),
            },
        };
        match value {
            Value::Text(text) => (text.parts, text.names),
            Value::Node(node) => {
                let texts = list_texts(&node);
                (vec![Part::known(texts.join(","))], None)
            }
            Value::Unknown { shown, .. } => (vec![Part::unknown(&shown)], None),
            Value::Absent => (Vec::new(), None),
        }
    }

    /// The entries of a function's argument list, when there are as many as wanted.
    fn arguments(
        &mut self,
        call: &Call<'t>,
        counts: std::ops::RangeInclusive<usize>,
        wanted: &str,
        span: Span,
    ) -> Option<&'t [Node]> {
        match &call.arg.kind {
            NodeKind::Seq(items) if counts.contains(&items.len()) => Some(items),
            _ => {
                self.malformed(&format!("Fn::{}", call.name), wanted, span);
                None
            }
        }
    }

    fn join(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let unknown = Value::unknown("${Fn::Join}");
        let Some([delimiter, list]) = self.arguments(call, 2..=2, "a delimiter and a list", span)
        else {
            return unknown;
        };
        let delimiter = match &delimiter.kind {
            NodeKind::Scalar(scalar) => scalar.text.as_str(),
            _ => {
                return self.malformed("Fn::Join", "a delimiter and a list", span);
            }
        };
        let mut parts = Vec::new();
        let add = |resolver: &mut Self, more: Vec<Part>, parts: &mut Vec<Part>| {
            if !parts.is_empty() {
                parts.push(Part::known(delimiter));
            }
            resolver.bytes += delimiter.len();
            for part in more {
                resolver.bytes += part.piece.text.len();
                parts.push(part);
            }
        };
        if let (NodeKind::Seq(items), None) = (&list.kind, call_of_list(list)) {
            for item in items {
                let value = self.value(item);
                if let Value::Node(node) = &value
                    && matches!(node.kind, NodeKind::Seq(_))
                {
                    for text in list_texts(node) {
                        add(self, vec![Part::known(text)], &mut parts);
                    }
                    continue;
                }
                if let Some(more) = value.into_parts() {
                    add(self, more, &mut parts);
                }
            }
        } else {
            match self.value(list) {
                Value::Node(node) if matches!(node.kind, NodeKind::Seq(_)) => {
                    if node.has_opaque() {
                        return unknown;
                    }
                    for text in list_texts(&node) {
                        add(self, vec![Part::known(text)], &mut parts);
                    }
                }
                Value::Unknown { .. } => return unknown,
                _ => return self.malformed("Fn::Join", "a delimiter and a list", span),
            }
        }
        if self.bytes > MOST_BYTES {
            let message = format!("references repeat more than {MOST_BYTES} bytes");
            self.error("document-too-large", span, message, None);
            return unknown;
        }
        Value::text(parts)
    }

    /// `!If [condition, then, else]`.
    fn choose(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let wanted = "a condition and two values";
        let Some([condition, then, other]) = self.arguments(call, 3..=3, wanted, span) else {
            return Value::unknown("${Fn::If}");
        };
        match self.named_condition(condition) {
            Some(true) => self.value(then),
            Some(false) => self.value(other),
            None => {
                // Both are looked at for the sake of their references.
                let absent = [self.value(then), self.value(other)]
                    .iter()
                    .any(|value| matches!(value, Value::Absent));
                Value::Unknown {
                    shown: "${Fn::If}".to_owned(),
                    maybe: absent,
                }
            }
        }
    }

    fn find(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let unknown = Value::unknown("${Fn::FindInMap}");
        let wanted = "a mapping and two keys";
        let Some(args) = self.arguments(call, 3..=4, wanted, span) else {
            return unknown;
        };
        let mut here = self.mappings;
        for (n, arg) in args.iter().take(3).enumerate() {
            let literal = text_of(arg).is_some() && call_of_list(arg).is_none();
            let Some(key) = self.value(arg).into_plain() else {
                return unknown;
            };
            let below = here.and_then(|node| node.get(&key));
            if below.is_none() && literal && args.len() == 3 {
                let message = match n {
                    0 => format!("the template has no mapping {}", shown(&key)),
                    _ => format!("the mapping has no key {}", shown(&key)),
                };
                let names: Vec<&str> = match here.map(|node| &node.kind) {
                    Some(NodeKind::Map(fields)) => {
                        fields.iter().map(|(key, _)| key.text.as_str()).collect()
                    }
                    _ => Vec::new(),
                };
                let help = self.guess(&key, names);
                self.error("unknown-reference", arg.span, message, help);
                return unknown;
            }
            // A key that follows from where the template is deployed may fit elsewhere.
            let Some(below) = below else { return unknown };
            here = Some(below);
        }
        match here.map(|node| (node, &node.kind)) {
            Some((_, NodeKind::Scalar(scalar))) => {
                Value::text(vec![Part::known(scalar.text.clone())])
            }
            Some((node, NodeKind::Seq(_))) => {
                let found = self.plain(node);
                match found {
                    Value::Node(node) => Value::Node(Node { span, ..node }),
                    other => other,
                }
            }
            _ => self.malformed("Fn::FindInMap", wanted, span),
        }
    }

    fn select(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let unknown = Value::unknown("${Fn::Select}");
        let Some([index, list]) = self.arguments(call, 2..=2, "an index and a list", span) else {
            return unknown;
        };
        let index = self.value(index).into_plain();
        let Value::Node(node) = self.value(list) else {
            return unknown;
        };
        let (Some(index), NodeKind::Seq(items)) = (index, node.kind) else {
            return unknown;
        };
        let count = items.len();
        let found = index
            .trim()
            .parse::<usize>()
            .ok()
            .and_then(|index| items.into_iter().nth(index));
        match found {
            Some(item) => Value::Node(Node { span, ..item }),
            None => {
                let message = format!("{} is not an index of a list of {count}", shown(&index));
                self.error("invalid-intrinsic", span, message, None);
                unknown
            }
        }
    }

    fn split(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let unknown = Value::unknown("${Fn::Split}");
        let Some([delimiter, text]) = self.arguments(call, 2..=2, "a delimiter and a text", span)
        else {
            return unknown;
        };
        let delimiter = self.value(delimiter).into_plain();
        let text = self.value(text).into_plain();
        // A secret is not cut: its mark has other characters.
        let text = text.filter(|text| !has_secret(text));
        let (Some(delimiter), Some(text)) = (delimiter, text) else {
            return unknown;
        };
        self.bytes += text.len();
        if delimiter.is_empty() || self.bytes > MOST_BYTES {
            return self.malformed("Fn::Split", "a delimiter and a text", span);
        }
        Value::Node(Node {
            span,
            kind: NodeKind::Seq(
                text.split(&delimiter)
                    .map(|part| Node::text(span, part))
                    .collect(),
            ),
            tag: None,
        })
    }
}

/// A scalar that is no reference, and not one that CloudFormation fetches when it deploys.
fn scalar_value<'t>(scalar: &Scalar, node: &Node) -> Value<'t> {
    if dynamic::is_in(&scalar.text) {
        return Value::unknown(dynamic::shown(&scalar.text));
    }
    Value::Node(Node {
        tag: None,
        ..node.clone()
    })
}

fn verbatim(text: &str, parts: &mut Vec<Part>) {
    if !text.is_empty() {
        let mut part = Part::known(text);
        part.piece.source_bytes = text.len();
        part.piece.verbatim = true;
        parts.push(part);
    }
}

/// The text of a scalar, whatever tag it has.
fn text_of(node: &Node) -> Option<&str> {
    match &node.kind {
        NodeKind::Scalar(Scalar { text, style }) if *style != Style::Opaque => Some(text),
        _ => None,
    }
}

fn source_text(node: Option<&Node>) -> &str {
    node.and_then(text_of).unwrap_or_default()
}

/// The call that a list is by its tag.
fn call_of_list(node: &Node) -> Option<Call<'_>> {
    call(node)
}

/// The texts of a list of scalars, or that of one scalar.
fn list_texts(node: &Node) -> Vec<String> {
    match &node.kind {
        NodeKind::Seq(items) => items.iter().flat_map(list_texts).collect(),
        NodeKind::Scalar(scalar) => vec![scalar.text.clone()],
        NodeKind::Map(_) => Vec::new(),
    }
}
