//! Problems found in documents, as plain data. The command line draws them; libraries never print.

use std::fmt;

/// A place in a text: 1-based line and column (in characters), 0-based byte offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Position {
    /// 1-based line.
    pub line: u32,
    /// 1-based column, counted in characters.
    pub column: u32,
    /// 0-based offset in bytes.
    pub offset: usize,
}

impl Position {
    /// The place of a byte of a text; one beyond its end is the end, one inside a character that character. A byte order
    /// mark takes no column.
    #[must_use]
    pub fn in_text(text: &str, offset: usize) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before[start..].trim_start_matches('\u{feff}');
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: count(before.matches('\n').count() + 1),
            column: count(line.chars().count() + 1),
            offset: before.len(),
        }
    }
}

/// A half-open range of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
pub struct Span {
    /// First character.
    pub start: Position,
    /// Just past the last character.
    pub end: Position,
}

impl Span {
    /// The place of a part of what stands in this range of `text`, of those that look the same the one with this number,
    /// from 0; the whole range where it is not written so, such as between quotes with escapes.
    #[must_use]
    pub fn of_part(self, text: &str, part: &str, number: usize) -> Self {
        let Self { start, end } = self;
        let within = text.get(start.offset..end.offset).unwrap_or_default();
        let Some((at, _)) = within.match_indices(part).nth(number) else {
            return self;
        };
        let at = start.offset + at;
        Self {
            start: Position::in_text(text, at),
            end: Position::in_text(text, at + part.len()),
        }
    }
}

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document can be used; the user should know.
    Warning,
    /// The document cannot be used.
    Error,
}

/// One problem in one document.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Stable kebab-case code, for example `unknown-field`.
    pub code: &'static str,
    /// One sentence without a final stop.
    pub message: String,
    /// Where; `None` when the problem is of the whole document.
    pub span: Option<Span>,
    /// What the user can do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            span: Some(span),
            help: None,
        }
    }

    /// A warning at `span`.
    pub fn warning(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    /// Adds the help line.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.severity == Severity::Error {
            "error"
        } else {
            "warning"
        };
        if let Some(span) = self.span {
            write!(f, "{}:{}: ", span.start.line, span.start.column)?;
        }
        write!(f, "{kind}[{}]: {}", self.code, self.message)
    }
}

/// Collects the problems of one document in the order they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// An empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a problem.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.list.push(diagnostic);
    }

    /// True when at least one is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|d| d.severity == Severity::Error)
    }

    /// All problems, by place in the text.
    #[must_use]
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|d| d.span.map(|s| s.start));
        self.list
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems in the order they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }
}
