//! Small combinators from [`Node`] to typed values. Each reports every problem and goes on.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostic, Diagnostics, Span};

use crate::node::{Key, Node, NodeKind, Style};
use crate::reference;
use crate::suggest;
use crate::trace::{Asked, Trace};

/// What decoding carries along: where problems go, and how far the text is resolved.
pub(crate) struct Cx<'d> {
    /// Collects the problems.
    pub(crate) diags: &'d mut Diagnostics,
    /// True while references are not resolved yet: a scalar that holds one passes every check of
    /// its content, because the content is not known.
    pub(crate) unresolved: bool,
    /// True inside a template, where only CloudFormation's spelling of fields counts.
    pub(crate) pascal: bool,
    /// The text that spans are places of; empty when it is not known.
    pub(crate) source: &'d str,
    /// Where decoders leave what they ask for, when somebody wants to know.
    pub(crate) trace: Option<&'d mut Trace>,
}

impl<'d> Cx<'d> {
    pub(crate) fn new(diags: &'d mut Diagnostics) -> Self {
        Self {
            diags,
            unresolved: false,
            pascal: false,
            source: "",
            trace: None,
        }
    }

    /// Leaves in the trace, if there is one, what is asked of the value at `span`.
    pub(crate) fn asks(&mut self, span: Span, asked: impl FnOnce() -> Asked) {
        let deferred = self.unresolved;
        if let Some(trace) = &mut self.trace {
            trace.push(span, deferred, asked());
        }
    }

    pub(crate) fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.diags.push(Diagnostic::error(code, span, message));
    }

    pub(crate) fn error_help(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        self.diags.push(Diagnostic {
            help,
            ..Diagnostic::error(code, span, message)
        });
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: &str,
    ) {
        self.diags
            .push(Diagnostic::warning(code, span, message).with_help(help));
    }

    /// True when `text` cannot be checked before it is resolved.
    pub(crate) fn defers(&self, text: &str) -> bool {
        self.unresolved && reference::has_reference(text)
    }
}

/// The items of a list.
pub(crate) fn seq<'n>(node: &'n Node, cx: &mut Cx<'_>) -> Option<&'n [Node]> {
    match &node.kind {
        NodeKind::Seq(items) => {
            cx.asks(node.span, || Asked::List);
            Some(items)
        }
        _ if node.is_opaque() => Some(&[]),
        _ => {
            wrong_type(node, "a list", cx);
            None
        }
    }
}

/// A list with every item decoded; `None` when any item failed.
pub(crate) fn list<T>(
    node: &Node,
    cx: &mut Cx<'_>,
    mut item: impl FnMut(&Node, &mut Cx<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = seq(node, cx)?;
    let decoded: Vec<Option<T>> = items.iter().map(|n| item(n, cx)).collect();
    decoded.into_iter().collect()
}

/// Any text, also empty; a plain null is not text.
pub(crate) fn text(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    cx.asks(node.span, || Asked::Text);
    match node.as_text() {
        Some(text) => Some(text.to_owned()),
        None => {
            wrong_type(node, "text", cx);
            None
        }
    }
}

/// Text with at least one character.
pub(crate) fn filled(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = text(node, cx)?;
    cx.asks(node.span, || Asked::Filled);
    if text.is_empty() && !node.is_opaque() {
        cx.error("empty-value", node.span, "this must not be empty");
        return None;
    }
    Some(text)
}

/// A path of the image: not empty, no NUL character.
pub(crate) fn path(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = filled(node, cx)?;
    if text.contains('\0') {
        cx.error(
            "invalid-path",
            node.span,
            "a path cannot contain a NUL character",
        );
        return None;
    }
    Some(text)
}

/// Text of 1 to `most` characters.
pub(crate) fn limited(node: &Node, cx: &mut Cx<'_>, most: usize) -> Option<String> {
    let text = filled(node, cx)?;
    cx.asks(node.span, || Asked::AtMost(most));
    let count = text.chars().count();
    if count > most {
        let message = format!("this has {count} characters, at most {most} are allowed");
        cx.error("out-of-range", node.span, message);
        return None;
    }
    Some(text)
}

/// 3 to 128 of letters, digits, `-`, `_`; spaces only inside.
pub(crate) fn resource_name(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    const HELP: &str = "use 3 to 128 letters, digits, `-`, `_`, and spaces inside";
    let text = filled(node, cx)?;
    cx.asks(node.span, || Asked::Hint(HELP));
    if !is_resource_name(&text) && !node.is_opaque() {
        let message = format!("{} is not a resource name", shown(&text));
        cx.error_help("invalid-name", node.span, message, Some(HELP.to_owned()));
        return None;
    }
    Some(text)
}

/// 3 to 128 letters, digits, `-`, `_`, and spaces inside.
pub(crate) fn is_resource_name(text: &str) -> bool {
    let allowed = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b' '));
    allowed && (3..=128).contains(&text.len()) && text.trim() == text
}

/// A version, or a pattern of versions. `None` also for a value that is not known before deployment.
pub(crate) fn parsed<T>(node: &Node, cx: &mut Cx<'_>, help: &'static str) -> Option<T>
where
    T: std::str::FromStr<Err = crate::version::VersionParseError>,
{
    let text = filled(node, cx)?;
    cx.asks(node.span, || Asked::Hint(help));
    if node.is_opaque() {
        return None;
    }
    match text.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            let message = format!("version {}: {error}", shown(&text));
            cx.error_help("invalid-version", node.span, message, Some(help.to_owned()));
            None
        }
    }
}

/// At most so many tags: a mapping of names to values.
pub(crate) fn tag_map(
    node: &Node,
    cx: &mut Cx<'_>,
    most: usize,
) -> Option<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    if node.is_opaque() {
        return Some(out);
    }
    let NodeKind::Map(fields) = &node.kind else {
        // Most services take lists of Key and Value in CloudFormation; this one does not.
        let message = format!(
            "expected a mapping of tag names to values, found {}",
            node.describe()
        );
        let help = matches!(node.kind, NodeKind::Seq(_))
            .then(|| "write `<name>: <value>`, not a list of `Key` and `Value`".to_owned());
        cx.error_help("wrong-type", node.span, message, help);
        return None;
    };
    cx.asks(node.span, || Asked::Named { most });
    let mut ok = true;
    if fields.len() > most {
        cx.error(
            "out-of-range",
            node.span,
            format!(
                "at most {most} tags are allowed, these are {}",
                fields.len()
            ),
        );
        ok = false;
    }
    for (key, value) in fields {
        let (chars, name) = (key.text.chars().count(), shown(&key.text));
        let legal = key
            .text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c));
        if !(1..=128).contains(&chars) || !legal || key.text.starts_with("aws:") {
            let help = "use 1 to 128 of letters, digits, space and _.:/=+-@; `aws:` at the start is reserved";
            cx.error_help(
                "invalid-name",
                key.span,
                format!("{name} is not a tag name"),
                Some(help.to_owned()),
            );
            ok = false;
        }
        match text(value, cx) {
            Some(text) if text.chars().count() > 256 && !value.is_opaque() => {
                cx.error(
                    "out-of-range",
                    value.span,
                    "a tag's value has at most 256 characters",
                );
                ok = false;
            }
            Some(text) => {
                out.insert(key.text.clone(), text);
            }
            None => ok = false,
        }
    }
    ok.then_some(out)
}

/// `true` or `false` in the spellings of YAML 1.2, also when quoted.
pub(crate) fn boolean(node: &Node, cx: &mut Cx<'_>) -> Option<bool> {
    let text = text(node, cx)?;
    cx.asks(node.span, || Asked::Bool);
    match text.as_str() {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        other if cx.defers(other) => Some(false),
        _ if node.is_opaque() => Some(true),
        other if cx.pascal && is_plain(node) && yaml_11(other).is_some() => yaml_11(other),
        other => {
            let help = match other.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "1" => Some("write `true`".to_owned()),
                "no" | "off" | "n" | "0" => Some("write `false`".to_owned()),
                _ => None,
            };
            cx.error_help(
                "wrong-type",
                node.span,
                format!("expected true or false, found {}", shown(other)),
                help,
            );
            None
        }
    }
}

fn is_plain(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Scalar(scalar) if scalar.style == Style::Plain)
}

/// What YAML 1.1, which CloudFormation reads, takes for a boolean beside the words of 1.2.
pub(crate) fn yaml_11(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// A decimal integer within `range`.
pub(crate) fn integer(
    node: &Node,
    cx: &mut Cx<'_>,
    range: std::ops::RangeInclusive<i64>,
) -> Option<i64> {
    let text = text(node, cx)?;
    cx.asks(node.span, || Asked::Int(*range.start(), *range.end()));
    if cx.defers(&text) || node.is_opaque() {
        return Some(*range.start());
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        cx.error(
            "wrong-type",
            node.span,
            format!("expected a whole number, found {}", shown(&text)),
        );
        return None;
    }
    match text.parse() {
        Ok(number) if range.contains(&number) => Some(number),
        _ => {
            let (from, to) = (range.start(), range.end());
            cx.error(
                "out-of-range",
                node.span,
                format!("{} is not within {from} to {to}", shown(&text)),
            );
            None
        }
    }
}

/// One of a few names; on a miss the names are listed, the nearest first suggested.
pub(crate) fn choice<T: Copy>(node: &Node, cx: &mut Cx<'_>, choices: &[(&str, T)]) -> Option<T> {
    let text = text(node, cx)?;
    cx.asks(node.span, || {
        Asked::Choice(choices.iter().map(|(name, _)| (*name).to_owned()).collect())
    });
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    if cx.defers(&text) || node.is_opaque() {
        return choices.first().map(|(_, value)| *value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let help = suggest::did_you_mean(&text, names.iter().copied());
    let all = names
        .iter()
        .map(|n| format!("`{n}`"))
        .collect::<Vec<_>>()
        .join(", ");
    cx.error_help(
        "invalid-choice",
        node.span,
        format!("{} is not one of {all}", shown(&text)),
        help,
    );
    None
}

/// The text in quotes, shortened for messages.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        format!("{text:?}")
    } else {
        format!("{:?}...", text.chars().take(MOST).collect::<String>())
    }
}

/// Reports that `node` is not `expected`.
pub(crate) fn wrong_type(node: &Node, expected: &str, cx: &mut Cx<'_>) {
    let fixed = |help: &str| Some(help.to_owned());
    let help = match (expected, &node.kind) {
        _ if node.is_null() => Some("leave the field out, or give it a value".to_owned()),
        ("a list", NodeKind::Map(fields)) => match fields.first() {
            Some((key, _)) if key.text.chars().count() <= 40 => Some(format!(
                "begin each entry with `- `, here `- {}:`",
                key.text.escape_debug()
            )),
            _ => fixed("put `- ` before each entry"),
        },
        ("a list", NodeKind::Scalar(_)) => fixed("put `- ` before each entry"),
        ("text", NodeKind::Map(_)) => fixed("put quotes around a text that holds `: `"),
        ("text", NodeKind::Seq(_)) => fixed("put quotes around a text that starts with `[`"),
        _ => None,
    };
    let message = format!("expected {expected}, found {}", node.describe());
    cx.error_help("wrong-type", node.span, message, help);
}

/// Reads the fields of a mapping and remembers which were asked for.
pub(crate) struct Fields<'n> {
    span: Span,
    fields: &'n [(Key, Node)],
    known: Vec<&'static str>,
    what: &'static str,
    spelling: Spelling,
    /// Names with the other word that each is also known by.
    aliases: Vec<(&'static str, &'static str)>,
    /// Names that are no fields here.
    refused: Vec<Refused>,
    /// Nothing is known of the mapping, so nothing is missing in it.
    opaque: bool,
}

/// A name that people take for a field.
struct Refused {
    name: &'static str,
    /// What it is instead, for the message; the usual message without.
    is: Option<&'static str>,
    /// What to do.
    help: &'static str,
}

/// How the fields of a mapping are spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As asked for.
    Exact,
    /// As asked for, or with an upper-case first letter.
    Either,
    /// With an upper-case first letter.
    Pascal,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, which is a `what` (named in messages).
    pub(crate) fn of(node: &'n Node, what: &'static str, cx: &mut Cx<'_>) -> Option<Self> {
        let opaque = node.is_opaque();
        let of = |fields| Self {
            span: node.span,
            fields,
            known: Vec::new(),
            what,
            spelling: Spelling::Exact,
            aliases: Vec::new(),
            refused: Vec::new(),
            opaque,
        };
        match &node.kind {
            NodeKind::Map(fields) => {
                cx.asks(node.span, || Asked::Mapping(what));
                Some(of(fields))
            }
            _ if opaque => Some(of(&[])),
            _ => {
                wrong_type(node, "a mapping", cx);
                None
            }
        }
    }

    /// Like [`Fields::of`], and `Name` is read where `name` is asked for: the API spells fields
    /// in camelCase, CloudFormation in PascalCase.
    pub(crate) fn of_either_case(
        node: &'n Node,
        what: &'static str,
        cx: &mut Cx<'_>,
    ) -> Option<Self> {
        let spelling = if cx.pascal {
            Spelling::Pascal
        } else {
            Spelling::Either
        };
        cx.asks(node.span, || match spelling {
            Spelling::Pascal => Asked::PascalCase,
            _ => Asked::EitherCase,
        });
        Some(Self {
            spelling,
            ..Self::of(node, what, cx)?
        })
    }

    fn matches(&self, key: &str, name: &str) -> bool {
        match self.spelling {
            Spelling::Exact => key == name,
            Spelling::Either => key == name || is_pascal_of(key, name),
            Spelling::Pascal => is_pascal_of(key, name),
        }
    }

    /// The node of a field, present or not, null or not.
    pub(crate) fn node(&mut self, name: &'static str, cx: &mut Cx<'_>) -> Option<&'n Node> {
        self.known.push(name);
        cx.asks(self.span, || Asked::Field(name));
        let mut found: Option<&'n (Key, Node)> = None;
        for field in self.fields {
            if !self.matches(&field.0.text, name) {
                continue;
            }
            if let Some(first) = found {
                duplicate(&first.0, &field.0, cx);
            } else {
                found = Some(field);
            }
        }
        found.map(|(_, value)| value)
    }

    /// The node of a field that the API has and CloudFormation has not.
    pub(crate) fn of_api(&mut self, name: &'static str, cx: &mut Cx<'_>) -> Option<&'n Node> {
        if !cx.pascal {
            return self.node(name, cx);
        }
        self.refused.push(Refused {
            name,
            is: Some("a field of the API, not of CloudFormation"),
            help: "leave it out: CloudFormation refuses a template that has it",
        });
        None
    }

    /// The node of a field, without asking for it.
    pub(crate) fn peek(&self, name: &str) -> Option<&'n Node> {
        self.fields
            .iter()
            .find(|(key, _)| self.matches(&key.text, name))
            .map(|(_, value)| value)
    }

    /// The place of a field's key, else that of the mapping.
    pub(crate) fn place(&self, name: &str) -> Span {
        self.fields
            .iter()
            .find(|(key, _)| self.matches(&key.text, name))
            .map_or(self.span, |(key, _)| key.span)
    }

    /// True when there are fields that nobody asked for.
    pub(crate) fn has_others(&self) -> bool {
        let known = |key: &str| self.known.iter().any(|name| self.matches(key, name));
        self.fields.iter().any(|(key, _)| !known(&key.text))
    }

    /// The place of the mapping.
    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// True when nothing is known of the mapping.
    pub(crate) fn is_unknown(&self) -> bool {
        self.opaque
    }

    /// True when the mapping or the value of one of its fields is not known before deployment.
    pub(crate) fn is_opaque(&self) -> bool {
        self.opaque || self.fields.iter().any(|(_, value)| value.is_opaque())
    }

    /// A field's name as it is spelled here.
    pub(crate) fn spelled(&self, name: &str) -> String {
        match self.spelling {
            Spelling::Pascal => capitalized(name),
            _ => name.to_owned(),
        }
    }

    /// Says that `alias` is read as `name` if `name` is absent; call before reading `name`.
    pub(crate) fn aliased(
        &mut self,
        name: &'static str,
        alias: &'static str,
        cx: &mut Cx<'_>,
    ) -> Option<&'n Node> {
        self.aliases.push((name, alias));
        cx.asks(self.span, || Asked::Alias(name, alias));
        if self.spelling == Spelling::Pascal {
            self.known.push(alias);
            cx.asks(self.span, || Asked::Field(alias));
            return self
                .fields
                .iter()
                .find(|(k, _)| k.text == alias)
                .map(|(_, value)| value);
        }
        let main = self
            .fields
            .iter()
            .find(|(k, _)| self.matches(&k.text, name));
        let other = self.fields.iter().find(|(k, _)| k.text == alias);
        if let (Some(first), Some(second)) = (main, other) {
            duplicate(&first.0, &second.0, cx);
        }
        let found = self.node(name, cx);
        self.known.push(alias);
        found.or_else(|| other.map(|(_, value)| value))
    }

    /// A field that must be there.
    pub(crate) fn required<T>(
        &mut self,
        name: &'static str,
        cx: &mut Cx<'_>,
        decode: impl FnOnce(&'n Node, &mut Cx<'_>) -> Option<T>,
    ) -> Option<T> {
        match self.node(name, cx) {
            Some(node) => decode(node, cx),
            None => {
                self.missing(name, cx);
                None
            }
        }
    }

    /// A field that may be missing. `Some(None)` is absent, `None` is present and wrong.
    #[allow(
        clippy::option_option,
        reason = "absent and wrong differ: `?` must pass the first"
    )]
    pub(crate) fn optional<T>(
        &mut self,
        name: &'static str,
        cx: &mut Cx<'_>,
        decode: impl FnOnce(&'n Node, &mut Cx<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.node(name, cx) {
            Some(node) => decode(node, cx).map(Some),
            None => Some(None),
        }
    }

    /// Reports a missing field.
    pub(crate) fn missing(&self, name: &str, cx: &mut Cx<'_>) {
        if self.opaque {
            return;
        }
        cx.asks(self.span, || Asked::Missing(name.to_owned()));
        let name = self.spelled(name);
        cx.error(
            "missing-field",
            self.span,
            format!("{} needs the field `{name}`", self.what),
        );
    }

    /// Reports a missing field by the very word that is wanted.
    pub(crate) fn missing_word(&self, name: &str, cx: &mut Cx<'_>) {
        if !self.opaque {
            cx.asks(self.span, || Asked::Missing(name.to_owned()));
            let message = format!("{} needs the field `{name}`", self.what);
            cx.error("missing-field", self.span, message);
        }
    }

    /// Gives the help for a field that people take for one.
    pub(crate) fn refuse(&mut self, name: &'static str, help: &'static str) {
        self.refused.push(Refused {
            name,
            is: None,
            help,
        });
    }

    /// Reports the fields that nobody asked for; of very many, the first.
    pub(crate) fn deny_unknown(&self, cx: &mut Cx<'_>) {
        const MOST: usize = 20;
        cx.asks(self.span, || Asked::Closed);
        // What is read under another name in a template is known by that name.
        let known = |key: &str| {
            self.known
                .iter()
                .any(|name| self.matches(key, name) || key == *name && is_upper(name))
        };
        let mut unknown = self
            .fields
            .iter()
            .map(|(key, _)| key)
            .filter(|key| !known(&key.text))
            .peekable();
        if unknown.peek().is_none() {
            return;
        }
        // A field already present cannot be what was meant.
        let present = |name: &str| {
            self.fields
                .iter()
                .any(|(key, _)| self.matches(&key.text, name))
        };
        let free: Vec<String> = self
            .known
            .iter()
            .filter(|name| !present(name))
            .map(|name| self.spelled(name))
            .collect();
        let mut names: Vec<String> = self.known.iter().map(|name| self.spelled(name)).collect();
        names.sort_unstable();
        names.dedup();
        let all = format!("known fields: {}", names.join(", "));
        for key in unknown.by_ref().take(MOST) {
            // CloudFormation's word in the spelling of the API is the API's other word.
            let is_pascal = self.spelling == Spelling::Pascal;
            let alias = self
                .aliases
                .iter()
                .map(|(name, alias)| {
                    if is_pascal {
                        (alias, name)
                    } else {
                        (name, alias)
                    }
                })
                .find(|(_, other)| other.eq_ignore_ascii_case(&key.text))
                .map(|(name, _)| format!("did you mean `{name}`?"));
            let mut refused = self.refused.iter();
            let refused = refused.find(|refused| self.matches(&key.text, refused.name));
            let meant = refused
                .map(|refused| refused.help.to_owned())
                .or(alias)
                .or_else(|| suggest::did_you_mean(&key.text, free.iter().map(String::as_str)));
            let message = match refused.and_then(|refused| refused.is) {
                Some(is) => format!("`{}` is {is}", key.text),
                None => format!("{} has no field {}", self.what, shown(&key.text)),
            };
            cx.error_help(
                "unknown-field",
                key.span,
                message,
                Some(meant.unwrap_or_else(|| all.clone())),
            );
        }
        if let Some(key) = unknown.next() {
            let more = unknown.count() + 1;
            cx.error(
                "unknown-field",
                key.span,
                format!(
                    "{} has {more} more fields that it should not have",
                    self.what
                ),
            );
        }
    }
}

fn duplicate(first: &Key, second: &Key, cx: &mut Cx<'_>) {
    let (line, column) = (first.span.start.line, first.span.start.column);
    cx.error(
        "duplicate-key",
        second.span,
        format!(
            "`{}` repeats `{}` of line {line}, column {column}",
            second.text, first.text
        ),
    );
}

fn is_upper(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

fn is_pascal_of(key: &str, name: &str) -> bool {
    let (mut key, mut name) = (key.chars(), name.chars());
    match (key.next(), name.next()) {
        (Some(k), Some(n)) => {
            n.is_ascii_lowercase() && k == n.to_ascii_uppercase() && key.as_str() == name.as_str()
        }
        _ => false,
    }
}

/// With a capital first letter: CloudFormation's spelling of a name of the API.
pub(crate) fn capitalized(name: &str) -> String {
    let mut chars = name.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
