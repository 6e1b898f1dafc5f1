//! Strict JSON (RFC 8259) → [`Builder`] events.
//!
//! Nearly all JSON is YAML, but tabs between values and escaped surrogate pairs, which people's
//! tools write, are not. So text that is JSON is read as JSON, and everything else as YAML. A file whose
//! name says that it is JSON has to be JSON: [`check_json`].

mod problems;

use amiforge_types::{Diagnostic, Diagnostics, Position, Span};

use crate::builder::{Builder, Content, Stop};
use crate::node::{Scalar, Style};
use crate::yaml::MAX_DOCUMENT_BYTES;

/// Why a text was not read to its end.
pub(crate) enum Failure {
    /// It is not JSON; what was built is of no use.
    NotJson {
        problem: Diagnostic,
        /// Whether YAML has what stands there: a comment, a text without double quotes, a comma at the end.
        yaml_has: bool,
    },
    /// It is JSON, and a limit or a wrong key was reported.
    Stopped,
}

impl From<Stop> for Failure {
    fn from(_: Stop) -> Self {
        Self::Stopped
    }
}

/// True when the text opens as JSON does: a bracket, then a string, a bracket or the end.
/// YAML's flow style may open in the same way.
pub(crate) fn may_be_json(text: &str) -> bool {
    let text = text.trim_start_matches(is_blank);
    let Some(rest) = text.strip_prefix(['{', '[']) else {
        return false;
    };
    rest.trim_start_matches(is_blank)
        .starts_with(['"', '{', '}', '[', ']'])
}

/// Looks whether a text that says to be JSON, by the name of its file, is that.
///
/// # Errors
/// The first problem with its grammar. A text with nothing but blanks passes: that it is empty is told by
/// whoever reads it.
pub fn check_json(text: &str) -> Result<(), Diagnostic> {
    let stripped = text.strip_prefix('\u{feff}').unwrap_or(text);
    // What is beyond the limits is left for the reader.
    if stripped.trim_start_matches(is_blank).is_empty() || text.len() > MAX_DOCUMENT_BYTES {
        return Ok(());
    }
    let mut limits = Diagnostics::new();
    match read(
        stripped,
        text.len() - stripped.len(),
        &mut Builder::new(&mut limits),
    ) {
        Err(Failure::NotJson { problem, .. }) => Err(problem),
        Ok(()) | Err(Failure::Stopped) => Ok(()),
    }
}

/// Reads one JSON text; `shift` bytes were cut off before it.
pub(crate) fn read(text: &str, shift: usize, builder: &mut Builder<'_>) -> Result<(), Failure> {
    let start = Position {
        line: 1,
        column: 1,
        offset: shift,
    };
    Reader {
        rest: text,
        at: start,
        ended: start,
        open: Vec::new(),
        builder,
    }
    .run()
}

/// A list or mapping that is open, and where its bracket stands.
#[derive(Clone, Copy)]
struct Open {
    object: bool,
    at: Position,
}

impl Open {
    fn brackets(self) -> (char, char) {
        if self.object { ('{', '}') } else { ('[', ']') }
    }
}

struct Reader<'t, 'b, 'd> {
    rest: &'t str,
    at: Position,
    /// Where the last value ended.
    ended: Position,
    open: Vec<Open>,
    builder: &'b mut Builder<'d>,
}

impl<'t> Reader<'t, '_, '_> {
    fn run(mut self) -> Result<(), Failure> {
        loop {
            // Here a value stands next.
            self.value()?;
            // After a value: separators and closing brackets, until another value must follow.
            loop {
                self.ended = self.at;
                self.blanks();
                let Some(open) = self.open.last().copied() else {
                    return if self.rest.is_empty() {
                        Ok(())
                    } else {
                        self.after_the_end()
                    };
                };
                match self.rest.chars().next() {
                    Some(',') => {
                        let comma = self.at;
                        self.skip(1);
                        let comma = self.span(comma);
                        self.blanks();
                        if self.rest.starts_with(['}', ']']) {
                            return self.superfluous(comma);
                        }
                        if open.object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(c) if c == open.brackets().1 => {
                        self.skip(1);
                        self.open.pop();
                        self.builder.close();
                    }
                    _ => return self.no_separator(open),
                }
            }
        }
    }

    /// A scalar, or everything up to the first scalar or empty list or mapping.
    fn value(&mut self) -> Result<(), Failure> {
        loop {
            self.blanks();
            let start = self.at;
            match self.rest.chars().next() {
                Some('{') => {
                    self.skip(1);
                    self.builder
                        .open(Content::map(), self.span(start), 0, None)?;
                    self.blanks();
                    if self.rest.starts_with('}') {
                        self.skip(1);
                        self.builder.close();
                        return Ok(());
                    }
                    self.open.push(Open {
                        object: true,
                        at: start,
                    });
                    self.key()?;
                }
                Some('[') => {
                    self.skip(1);
                    self.builder
                        .open(Content::seq(), self.span(start), 0, None)?;
                    self.blanks();
                    if self.rest.starts_with(']') {
                        self.skip(1);
                        self.builder.close();
                        return Ok(());
                    }
                    self.open.push(Open {
                        object: false,
                        at: start,
                    });
                }
                Some('"') => return self.string(),
                Some(_) => return self.word(),
                None => return self.too_short(),
            }
        }
    }

    fn key(&mut self) -> Result<(), Failure> {
        if !self.rest.starts_with('"') {
            return self.no_key();
        }
        self.string()?;
        self.ended = self.at;
        self.blanks();
        if !self.rest.starts_with(':') {
            return self.no_colon();
        }
        self.skip(1);
        Ok(())
    }

    /// `true`, `false`, `null` or a number; the text is kept.
    fn word(&mut self) -> Result<(), Failure> {
        let start = self.at;
        let word = self.ahead();
        if !matches!(word, "true" | "false" | "null") && !is_number(word) {
            return self.no_value();
        }
        self.skip(word.len());
        let scalar = Scalar {
            text: word.to_owned(),
            style: Style::Plain,
        };
        Ok(self.builder.scalar(scalar, self.span(start), 0, None)?)
    }

    /// The text up to the next blank, comma or closing bracket.
    fn ahead(&self) -> &'t str {
        let end = self
            .rest
            .find(|c: char| is_blank(c) || ",]}".contains(c))
            .unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    fn string(&mut self) -> Result<(), Failure> {
        let start = self.at;
        self.skip(1);
        let mut text = String::new();
        loop {
            let plain = self
                .rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .unwrap_or(self.rest.len());
            text.push_str(&self.rest[..plain]);
            self.skip(plain);
            match self.rest.chars().next() {
                Some('"') => break,
                Some('\\') => text.push(self.escape()?),
                Some(c) => return self.control(c, start),
                None => return self.unclosed_string(start),
            }
        }
        self.skip(1);
        let scalar = Scalar {
            text,
            style: Style::Quoted,
        };
        Ok(self.builder.scalar(scalar, self.span(start), 0, None)?)
    }

    fn escape(&mut self) -> Result<char, Failure> {
        let simple = match self.rest.as_bytes().get(1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return self.unknown_escape(),
        };
        self.skip(2);
        Ok(simple)
    }

    /// `\uXXXX`, or two of them that make one character (RFC 8259, section 7).
    fn unicode_escape(&mut self) -> Result<char, Failure> {
        let Some(first) = hex4(self.rest) else {
            return self.unknown_escape();
        };
        let (code, bytes) = match (first, self.rest.get(6..).and_then(hex4)) {
            (0xD800..=0xDBFF, Some(second @ 0xDC00..=0xDFFF)) => {
                (0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00), 12)
            }
            _ => (first, 6),
        };
        let Some(c) = char::from_u32(code) else {
            return self.half_of_a_pair();
        };
        self.skip(bytes);
        Ok(c)
    }

    fn blanks(&mut self) {
        let end = self.rest.find(|c| !is_blank(c)).unwrap_or(self.rest.len());
        self.skip(end);
    }

    /// Steps over `bytes` of the text.
    fn skip(&mut self, bytes: usize) {
        let (done, rest) = self.rest.split_at(bytes);
        for c in done.chars() {
            if c == '\n' {
                (self.at.line, self.at.column) = (self.at.line + 1, 1);
            } else {
                self.at.column += 1;
            }
        }
        self.at.offset += bytes;
        self.rest = rest;
    }

    fn span(&self, start: Position) -> Span {
        Span {
            start,
            end: self.at,
        }
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// The value of `\uXXXX` at the start of `text`.
fn hex4(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// RFC 8259, section 6.
fn is_number(word: &str) -> bool {
    fn digits(text: &str) -> usize {
        text.bytes().take_while(u8::is_ascii_digit).count()
    }
    let rest = word.strip_prefix('-').unwrap_or(word);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.starts_with('0')) {
        return false;
    }
    let mut rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;
