//! Small combinators from [`Node`] to typed values. Each reports every problem and goes on.

use amiforge_types::{Diagnostic, Diagnostics, Span};

use crate::node::{Key, Node, NodeKind};
use crate::reference;
use crate::suggest;

/// What decoding carries along: where problems go, and how far the text is resolved.
pub(crate) struct Cx<'d> {
    /// Collects the problems.
    pub(crate) diags: &'d mut Diagnostics,
    /// True while references are not resolved yet: a scalar that holds one passes every check of
    /// its content, because the content is not known.
    pub(crate) unresolved: bool,
}

impl<'d> Cx<'d> {
    pub(crate) fn new(diags: &'d mut Diagnostics) -> Self {
        Self {
            diags,
            unresolved: false,
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
        NodeKind::Seq(items) => Some(items),
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
    if text.is_empty() {
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

/// `true` or `false` in the spellings of YAML 1.2, also when quoted.
pub(crate) fn boolean(node: &Node, cx: &mut Cx<'_>) -> Option<bool> {
    let text = text(node, cx)?;
    match text.as_str() {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        other if cx.defers(other) => Some(false),
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

/// A decimal integer within `range`.
pub(crate) fn integer(
    node: &Node,
    cx: &mut Cx<'_>,
    range: std::ops::RangeInclusive<i64>,
) -> Option<i64> {
    let text = text(node, cx)?;
    if cx.defers(&text) {
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
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    if cx.defers(&text) {
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
    cx.error(
        "wrong-type",
        node.span,
        format!("expected {expected}, found {}", node.describe()),
    );
}

/// Reads the fields of a mapping and remembers which were asked for.
pub(crate) struct Fields<'n> {
    span: Span,
    fields: &'n [(Key, Node)],
    known: Vec<&'static str>,
    what: &'static str,
    either_case: bool,
}

impl<'n> Fields<'n> {
    /// The fields of `node`, which is a `what` (named in messages).
    pub(crate) fn of(node: &'n Node, what: &'static str, cx: &mut Cx<'_>) -> Option<Self> {
        match &node.kind {
            NodeKind::Map(fields) => Some(Self {
                span: node.span,
                fields,
                known: Vec::new(),
                what,
                either_case: false,
            }),
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
        Some(Self {
            either_case: true,
            ..Self::of(node, what, cx)?
        })
    }

    fn matches(&self, key: &str, name: &str) -> bool {
        key == name || (self.either_case && is_pascal_of(key, name))
    }

    /// The node of a field, present or not, null or not.
    pub(crate) fn node(&mut self, name: &'static str, cx: &mut Cx<'_>) -> Option<&'n Node> {
        self.known.push(name);
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

    /// Says that `alias` is read as `name` if `name` is absent; call before reading `name`.
    pub(crate) fn aliased(
        &mut self,
        name: &'static str,
        alias: &'static str,
        cx: &mut Cx<'_>,
    ) -> Option<&'n Node> {
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
        cx.error(
            "missing-field",
            self.span,
            format!("{} needs the field `{name}`", self.what),
        );
    }

    /// Reports the fields that nobody asked for; of very many, the first.
    pub(crate) fn deny_unknown(&self, cx: &mut Cx<'_>) {
        const MOST: usize = 20;
        let known = |key: &str| self.known.iter().any(|name| self.matches(key, name));
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
        let free: Vec<&str> = self
            .known
            .iter()
            .copied()
            .filter(|name| !present(name))
            .collect();
        let mut names = self.known.clone();
        names.sort_unstable();
        let all = format!("known fields: {}", names.join(", "));
        for key in unknown.by_ref().take(MOST) {
            let meant = suggest::did_you_mean(&key.text, free.iter().copied());
            let message = format!("{} has no field {}", self.what, shown(&key.text));
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

fn is_pascal_of(key: &str, name: &str) -> bool {
    let (mut key, mut name) = (key.chars(), name.chars());
    match (key.next(), name.next()) {
        (Some(k), Some(n)) => {
            n.is_ascii_lowercase() && k == n.to_ascii_uppercase() && key.as_str() == name.as_str()
        }
        _ => false,
    }
}
