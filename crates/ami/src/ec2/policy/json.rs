//! JSON with places, for policy documents: every value knows where it stands, so that a problem and a decision can name a
//! line. Duplicate members are refused, as IAM does.
//!
//! Source: RFC 8259.

use amiforge_types::{Diagnostic, Position, Span};

/// Largest policy document, in bytes. IAM's own limits are lower (10 KiB inline, 20 KiB of most resource policies).
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Deepest nesting of lists and maps; a policy needs six.
const MAX_DEPTH: u32 = 16;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// A member of a map.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Member>),
}

impl Value {
    /// What kind of value it is, for messages.
    pub(super) const fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "an object",
        }
    }
}

/// Reads one document.
///
/// # Errors
/// The first problem of its syntax, with its place.
pub(super) fn parse(text: &str) -> Result<Node, Diagnostic> {
    if text.len() > MAX_BYTES {
        return Err(Diagnostic {
            span: None,
            ..Diagnostic::error(
                "policy-too-large",
                Span::default(),
                format!(
                    "a policy document has at most {MAX_BYTES} bytes, this one {}",
                    text.len()
                ),
            )
        });
    }
    let mut parser = Parser {
        text,
        at: Position {
            line: 1,
            column: 1,
            offset: if text.starts_with('\u{feff}') { 3 } else { 0 },
        },
    };
    parser.space();
    let node = parser.value(0)?;
    parser.space();
    match parser.peek() {
        None => Ok(node),
        Some(_) => Err(parser.problem("there is something after the document")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: Position,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at.offset..].chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at.offset += c.len_utf8();
        if c == '\n' {
            self.at.line += 1;
            self.at.column = 1;
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.bump();
        }
    }

    fn problem(&self, message: impl Into<String>) -> Diagnostic {
        let span = Span {
            start: self.at,
            end: self.at,
        };
        Diagnostic::error("policy-syntax", span, message)
    }

    fn expected(&self, what: &str) -> Diagnostic {
        match self.peek() {
            Some(c) => self.problem(format!("expected {what}, found {c:?}")),
            None => self.problem(format!("expected {what}, found the end of the document")),
        }
    }

    fn value(&mut self, depth: u32) -> Result<Node, Diagnostic> {
        if depth > MAX_DEPTH {
            return Err(self.problem(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let start = self.at;
        let value = match self.peek() {
            Some('{') => self.map(depth)?,
            Some('[') => self.list(depth)?,
            Some('"') => Value::Text(self.string()?),
            Some('t') => self.word("true", Value::Bool(true))?,
            Some('f') => self.word("false", Value::Bool(false))?,
            Some('n') => self.word("null", Value::Null)?,
            Some('-' | '0'..='9') => self.number()?,
            _ => return Err(self.expected("a value")),
        };
        Ok(Node {
            span: Span {
                start,
                end: self.at,
            },
            value,
        })
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Diagnostic> {
        if !self.text[self.at.offset..].starts_with(word) {
            return Err(self.expected("a value"));
        }
        for _ in word.chars() {
            self.bump();
        }
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), Diagnostic> {
        if !matches!(self.peek(), Some('0'..='9')) {
            return Err(self.expected("a digit"));
        }
        while matches!(self.peek(), Some('0'..='9')) {
            self.bump();
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, Diagnostic> {
        let from = self.at.offset;
        if self.peek() == Some('-') {
            self.bump();
        }
        if self.peek() == Some('0') {
            self.bump();
        } else {
            self.digits()?;
        }
        if self.peek() == Some('.') {
            self.bump();
            self.digits()?;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.bump();
            if matches!(self.peek(), Some('+' | '-')) {
                self.bump();
            }
            self.digits()?;
        }
        Ok(Value::Number(self.text[from..self.at.offset].to_owned()))
    }

    fn list(&mut self, depth: u32) -> Result<Value, Diagnostic> {
        self.bump();
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(']') {
            self.bump();
            return Ok(Value::List(items));
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(',') => self.bump(),
                Some(']') => {
                    self.bump();
                    return Ok(Value::List(items));
                }
                _ => return Err(self.expected("`,` or `]`")),
            };
        }
    }

    fn map(&mut self, depth: u32) -> Result<Value, Diagnostic> {
        self.bump();
        let mut members: Vec<Member> = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        self.space();
        if self.peek() == Some('}') {
            self.bump();
            return Ok(Value::Map(members));
        }
        loop {
            self.space();
            let start = self.at;
            if self.peek() != Some('"') {
                return Err(self.expected("the name of a member, in double quotes"));
            }
            let key = self.string()?;
            let key_span = Span {
                start,
                end: self.at,
            };
            if !keys.insert(key.clone()) {
                return Err(Diagnostic::error(
                    "policy-syntax",
                    key_span,
                    format!("{key:?} stands twice in one object"),
                ));
            }
            self.space();
            if self.peek() != Some(':') {
                return Err(self.expected("`:`"));
            }
            self.bump();
            self.space();
            let node = self.value(depth + 1)?;
            members.push(Member {
                key,
                key_span,
                node,
            });
            self.space();
            match self.peek() {
                Some(',') => self.bump(),
                Some('}') => {
                    self.bump();
                    return Ok(Value::Map(members));
                }
                _ => return Err(self.expected("`,` or `}`")),
            };
        }
    }

    fn string(&mut self) -> Result<String, Diagnostic> {
        self.bump();
        let mut out = String::new();
        loop {
            match self.peek() {
                None => return Err(self.expected("`\"`")),
                Some('"') => {
                    self.bump();
                    return Ok(out);
                }
                Some('\\') => out.push(self.escape()?),
                Some(c) if u32::from(c) < 0x20 => {
                    return Err(self.problem("a control character in a string is escaped"));
                }
                Some(c) => {
                    self.bump();
                    out.push(c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Diagnostic> {
        let start = self.at;
        self.bump();
        let plain = match self.peek() {
            Some(c @ ('"' | '\\' | '/')) => c,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                self.bump();
                let high = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&high)
                    && self.text[self.at.offset..].starts_with("\\u")
                {
                    self.bump();
                    self.bump();
                    let low = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&low) {
                        self.at = start;
                        return Err(self.problem("half of a surrogate pair"));
                    }
                    0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                } else {
                    high
                };
                return char::from_u32(code).ok_or_else(|| {
                    self.at = start;
                    self.problem("half of a surrogate pair")
                });
            }
            _ => return Err(self.expected("an escape of JSON")),
        };
        self.bump();
        Ok(plain)
    }

    fn hex4(&mut self) -> Result<u32, Diagnostic> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(16)) else {
                return Err(self.expected("four hex digits"));
            };
            self.bump();
            code = code * 16 + digit;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_have_a_place() {
        for (text, place, message) in [
            ("", (1, 1), "end of the document"),
            ("{", (1, 2), "the name of a member"),
            ("{\n  \"a\" 1}", (2, 7), "expected `:`"),
            ("{\"a\":1,}", (1, 8), "the name of a member"),
            ("[1 2]", (1, 4), "`,` or `]`"),
            ("[1,]", (1, 4), "a value"),
            ("{\"a\":1,\n\"a\":2}", (2, 1), "stands twice"),
            ("\"\\x\"", (1, 3), "an escape"),
            ("\"a\nb\"", (1, 3), "control character"),
            ("\"\\ud800\"", (1, 2), "surrogate"),
            ("\"\\ud800\\u0041\"", (1, 2), "surrogate"),
            ("\"ä\" x", (1, 5), "after the document"),
            ("01", (1, 2), "after the document"),
            ("1.", (1, 3), "a digit"),
            ("nul", (1, 1), "a value"),
            ("'a'", (1, 1), "a value"),
        ] {
            let found = parse(text).unwrap_err();
            let start = found.span.unwrap().start;
            assert_eq!((start.line, start.column), place, "{text}: {found}");
            assert!(found.message.contains(message), "{text}: {found}");
        }
        let deep = "[".repeat(100_000);
        let found = parse(&deep[..60_000]).unwrap_err();
        assert!(found.message.contains("deeper"), "{found}");
        assert_eq!(parse(&deep).unwrap_err().code, "policy-too-large");
    }

    #[test]
    fn values_are_read() {
        let text = "\u{feff} {\"a\": [true, false, null, -1.5e3, \"\\u00e4\\ud83d\\ude00\\n\\/\"]}";
        let Value::Map(members) = parse(text).unwrap().value else {
            panic!("a map");
        };
        let Value::List(items) = &members[0].node.value else {
            panic!("a list");
        };
        assert!(matches!(items[0].value, Value::Bool(true)));
        assert!(matches!(items[1].value, Value::Bool(false)));
        assert!(matches!(items[2].value, Value::Null));
        assert!(matches!(&items[3].value, Value::Number(n) if n == "-1.5e3"));
        assert!(matches!(&items[4].value, Value::Text(t) if t == "ä😀\n/"));
        assert_eq!(members[0].key_span.start.column, 3);
    }
}
