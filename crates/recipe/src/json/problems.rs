//! What is wrong with a text that is not JSON, in JSON's words.

use amiforge_types::{Diagnostic, Position, Span};

use super::{Failure, Open, Reader};
use crate::decode::shown;

const QUOTES: &str = "in JSON, texts and keys stand between double quotes";

type Refused<T> = Result<T, Failure>;

impl Reader<'_, '_, '_> {
    /// Where a comma or a closing bracket has to be, something else is.
    pub(super) fn no_separator<T>(&self, open: Open) -> Refused<T> {
        let (opening, closing) = open.brackets();
        let comment = self.is_comment();
        match self.rest.chars().next() {
            None => self.too_short(),
            Some(_) if comment => self.comment(),
            Some(c @ ('}' | ']')) => self.fail(
                self.ahead_span(1),
                format!(
                    "`{c}` cannot close the `{opening}` of line {}, column {}",
                    open.at.line, open.at.column
                ),
                &format!("write `{closing}`, or look for a bracket that is missing or too many"),
            ),
            Some(':') if !open.object => self.fail(
                self.ahead_span(1),
                "a colon stands in a list",
                "keys with values stand between `{` and `}`",
            ),
            Some(_) if self.ended == self.at => self.fail(
                self.ahead_span(1),
                "the value ends before this",
                "separate values with commas; a `\"` inside a string is written `\\\"`",
            ),
            Some(_) => self.fail(
                point(self.ended),
                "a comma is missing here",
                &format!("values are separated with commas, and `{closing}` ends the last one"),
            ),
        }
    }

    /// A comma after the last value.
    pub(super) fn superfluous<T>(&self, comma: Span) -> Refused<T> {
        let message = "a comma stands after the last value";
        self.yaml_has(
            comma,
            message,
            "remove it: in JSON a comma stands only between values",
        )
    }

    pub(super) fn after_the_end<T>(&self) -> Refused<T> {
        if self.is_comment() {
            return self.comment();
        }
        self.fail(
            self.ahead_span(1),
            "this stands after the end of the document",
            "a file holds one value; look for a bracket that is too many before it",
        )
    }

    /// The text ends inside a list or mapping, or there is none.
    pub(super) fn too_short<T>(&self) -> Refused<T> {
        let Some(open) = self.open.last() else {
            return self.fail(
                point(self.at),
                "the text ends where a value should stand",
                "",
            );
        };
        let (opening, closing) = open.brackets();
        let end = Position {
            column: open.at.column + 1,
            offset: open.at.offset + 1,
            ..open.at
        };
        self.fail(
            Span {
                start: open.at,
                end,
            },
            format!("this `{opening}` is not closed before the end of the text"),
            &format!("write `{closing}` where it ends"),
        )
    }

    pub(super) fn no_key<T>(&self) -> Refused<T> {
        let word = self.name_ahead();
        match self.rest.chars().next() {
            None => self.too_short(),
            Some(_) if self.is_comment() => self.comment(),
            Some('\'') => self.yaml_has(self.ahead_span(1), "a single quote begins a key", QUOTES),
            Some(_) if !word.is_empty() => self.yaml_has(
                self.ahead_span(word.len()),
                format!("the key {} stands without quotes", shown(word)),
                QUOTES,
            ),
            Some(',') => self.fail(
                self.ahead_span(1),
                "a comma stands where a key should",
                "remove it: one comma separates two fields",
            ),
            Some(_) => self.foreign("a key in double quotes"),
        }
    }

    pub(super) fn no_colon<T>(&self) -> Refused<T> {
        match self.rest.chars().next() {
            None => self.too_short(),
            Some(_) if self.is_comment() => self.comment(),
            Some(_) => self.fail(
                point(self.ended),
                "a colon is missing after this key",
                "a mapping has keys and values: `\"key\": \"value\"`",
            ),
        }
    }

    /// Where a value has to be, something else is.
    pub(super) fn no_value<T>(&self) -> Refused<T> {
        if self.is_comment() {
            return self.comment();
        }
        let word = self.ahead();
        let span = self.ahead_span(word.len());
        if self.open.is_empty() && word.starts_with(|c: char| c.is_alphanumeric() || c == '-') {
            let message = format!("{} begins no document", shown(word));
            let help = "a document in JSON begins with `{`; name the file `.yaml` if it is YAML";
            return self.yaml_has(span, message, help);
        }
        let Some(first) = word.chars().next() else {
            // A comma or a closing bracket.
            return self.fail(self.ahead_span(1), "a value is missing before this", "");
        };
        if first == '\'' {
            return self.yaml_has(self.ahead_span(1), "a single quote begins a text", QUOTES);
        }
        let like = match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some("true"),
            "false" | "no" | "off" => Some("false"),
            "null" | "none" | "nil" | "undefined" | "~" => Some("null"),
            _ => None,
        };
        if let Some(like) = like {
            let help = format!("write `{like}`, or put double quotes around a text");
            return self.yaml_has(span, format!("{} is no value of JSON", shown(word)), &help);
        }
        if first.is_ascii_digit() || matches!(first, '+' | '-' | '.') {
            let message = format!("{} is no number of JSON", shown(word));
            return self.yaml_has(span, message, "put double quotes around it");
        }
        if word.starts_with("{{") || first.is_alphabetic() || matches!(first, '_' | '/' | '$') {
            let message = format!("the text {} stands without quotes", shown(word));
            return self.yaml_has(span, message, QUOTES);
        }
        self.foreign("a value")
    }

    /// A character that must be escaped, in the string that begins at `start`.
    pub(super) fn control<T>(&self, c: char, start: Position) -> Refused<T> {
        match c {
            '\n' | '\r' => self.fail(
                self.span(start),
                "this string does not end in its line",
                "close it with `\"`; a line break inside a string is written `\\n`",
            ),
            '\t' => self.fail(
                self.ahead_span(1),
                "a tab stands inside a string",
                "write it as `\\t`",
            ),
            c => self.fail(
                self.ahead_span(1),
                format!(
                    "the character U+{:04X} stands inside a string",
                    u32::from(c)
                ),
                &format!("write it as `\\u{:04x}`", u32::from(c)),
            ),
        }
    }

    pub(super) fn unclosed_string<T>(&self, start: Position) -> Refused<T> {
        self.fail(
            self.span(start),
            "this string has no end",
            "close it with `\"`",
        )
    }

    pub(super) fn unknown_escape<T>(&self) -> Refused<T> {
        let mut chars = self.rest.chars();
        let escape: String = chars.by_ref().take(2).collect();
        if escape.ends_with(['\n', '\r']) {
            return self.fail(
                self.ahead_span(1),
                "a backslash cannot end a line inside a string",
                "a line break inside a string is written `\\n`",
            );
        }
        let help = match chars.as_str().get(..2) {
            _ if escape == "\\u" => "four hexadecimal digits follow `\\u`".to_owned(),
            Some(digits) if escape == "\\x" && digits.bytes().all(|b| b.is_ascii_hexdigit()) => {
                format!("write it as `\\u00{digits}`")
            }
            _ => "a backslash itself is written `\\\\`; the escapes are `\\\"` `\\\\` `\\/` `\\b` `\\f` `\\n` `\\r` `\\t` and `\\u` with four hexadecimal digits".to_owned(),
        };
        let message = format!("there is no escape `{}`", escape.escape_debug());
        // What `escape_debug` would double is the backslash.
        let message = message.replacen("\\\\", "\\", 1);
        self.fail(self.ahead_span(escape.len()), message, &help)
    }

    pub(super) fn half_of_a_pair<T>(&self) -> Refused<T> {
        self.fail(
            self.ahead_span(6),
            "this escape is half of a character",
            "characters beyond U+FFFF are two escapes, the first of `\\ud800` to `\\udbff`, then one of `\\udc00` to `\\udfff`",
        )
    }

    fn is_comment(&self) -> bool {
        self.rest.starts_with('#') || self.rest.starts_with("//") || self.rest.starts_with("/*")
    }

    fn comment<T>(&self) -> Refused<T> {
        let end = self.rest.find(['\n', '\r']).unwrap_or(self.rest.len());
        let help = if self.rest.starts_with('#') {
            "remove it, or name the file `.yaml`"
        } else {
            "remove it, or write it with `#` in a file named `.yaml`"
        };
        self.yaml_has(self.ahead_span(end), "JSON has no comments", help)
    }

    fn foreign<T>(&self, wanted: &str) -> Refused<T> {
        let Some(c) = self.rest.chars().next() else {
            return self.too_short();
        };
        let message = if c.is_ascii_graphic() {
            format!("`{c}` stands where {wanted} should")
        } else {
            format!(
                "the character U+{:04X} stands where {wanted} should",
                u32::from(c)
            )
        };
        let help = if c.is_whitespace() {
            "outside of strings JSON has blanks, tabs and line ends, and no other spaces"
        } else {
            ""
        };
        self.fail(self.ahead_span(c.len_utf8()), message, help)
    }

    /// What could be the name of a key.
    fn name_ahead(&self) -> &str {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    /// The place of the next bytes, which are of one line.
    fn ahead_span(&self, bytes: usize) -> Span {
        let text = &self.rest[..self.rest.ceil_char_boundary(bytes)];
        let columns = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let end = Position {
            column: self.at.column + columns,
            offset: self.at.offset + text.len(),
            ..self.at
        };
        Span {
            start: self.at,
            end,
        }
    }

    fn fail<T>(&self, span: Span, message: impl Into<String>, help: &str) -> Refused<T> {
        let message = format!("not valid JSON: {}", message.into());
        let problem = Diagnostic::error("json-syntax", span, message);
        let problem = if help.is_empty() {
            problem
        } else {
            problem.with_help(help)
        };
        Err(Failure::NotJson {
            problem,
            yaml_has: false,
        })
    }

    /// The same, of what stands in YAML by right.
    fn yaml_has<T>(&self, span: Span, message: impl Into<String>, help: &str) -> Refused<T> {
        self.fail(span, message, help)
            .map_err(|failure| match failure {
                Failure::NotJson { problem, .. } => Failure::NotJson {
                    problem,
                    yaml_has: true,
                },
                stopped @ Failure::Stopped => stopped,
            })
    }
}

fn point(at: Position) -> Span {
    Span { start: at, end: at }
}
