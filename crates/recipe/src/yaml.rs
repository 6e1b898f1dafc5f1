//! Text → [`Node`]: the one module that names a YAML parser.
//!
//! YAML 1.2 with what documents of people need and no more: one document per text, text keys, no
//! merge keys. Scalars are not interpreted. Every foreign byte of a document comes through here;
//! the limits are [`MAX_DOCUMENT_BYTES`] and those of the builder.

mod faults;

use std::path::Path;

use amiforge_types::{Diagnostic, Diagnostics, Position, Span};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::builder::{Builder, Content, Stop};
use crate::decode::{Cx, shown};
use crate::json;
use crate::node::{Node, NodeKind, Scalar, Style};

/// The longest text that is read, in bytes. Callers that read files should stop there too.
///
/// The service itself wants documents beyond 64 KB in S3. The YAML scanner may hold every token of a
/// flow list at once, about a hundred bytes each, so this also bounds the memory.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// The text of a file's bytes, which has to be JSON where the file is called `.json`.
///
/// # Errors
/// As [`check_bytes`] and [`check_json`](crate::check_json).
pub fn check_file<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b str, Diagnostic> {
    let text = check_bytes(bytes)?;
    let named_json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    if named_json {
        json::check_json(text)?;
    }
    Ok(text)
}

/// The text of a file's bytes.
///
/// # Errors
/// One problem when there are too many bytes or they are not UTF-8, with the place of the first
/// wrong byte.
pub fn check_bytes(bytes: &[u8]) -> Result<&str, Diagnostic> {
    check_size(bytes.len())?;
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.valid_up_to(),
    };
    let before = String::from_utf8_lossy(&bytes[..valid]);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let start = Position {
        line: to_u32(before.matches('\n').count() + 1),
        column: to_u32(before[line_start..].chars().count() + 1),
        offset: valid,
    };
    let end = Position {
        column: start.column + 1,
        offset: valid + 1,
        ..start
    };
    let byte = bytes.get(valid).copied().unwrap_or_default();
    let utf16 = bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]);
    let help = if utf16 {
        "this looks like UTF-16; save the file as UTF-8"
    } else {
        "save the file as UTF-8"
    };
    let message = format!("byte 0x{byte:02x} at offset {valid} is not UTF-8");
    Err(Diagnostic::error("not-utf8", Span { start, end }, message).with_help(help))
}

fn check_size(bytes: usize) -> Result<(), Diagnostic> {
    if bytes <= MAX_DOCUMENT_BYTES {
        return Ok(());
    }
    let message = format!("the document is longer than {MAX_DOCUMENT_BYTES} bytes");
    Err(
        Diagnostic::error("document-too-large", start_of_text(), message)
            .with_help("a document describes an image; put large content into files that it names"),
    )
}

/// Reads one YAML or JSON document. `None` comes with an error; a tree may come with errors too
/// (duplicate keys).
pub fn parse_node(text: &str, diags: &mut Diagnostics) -> Option<Node> {
    if let Err(problem) = check_size(text.len()) {
        diags.push(problem);
        return None;
    }
    let stripped = text.strip_prefix('\u{feff}').unwrap_or(text);
    let shift = text.len() - stripped.len();
    let mut not_json = None;
    if json::may_be_json(stripped) {
        let mut found = Diagnostics::new();
        let mut builder = Builder::new(&mut found);
        let read = json::read(stripped, shift, &mut builder);
        let root = builder.finish();
        match read {
            Err(json::Failure::NotJson { problem, yaml_has }) => {
                not_json = Some((problem, yaml_has));
            }
            read => {
                found.iter().for_each(|problem| diags.push(problem.clone()));
                return root.filter(|_| read.is_ok());
            }
        }
    }
    let places = Places::new(stripped, shift);
    if let Some(problem) = control_character(stripped, &places) {
        let in_json = not_json.filter(|(_, yaml_has)| !yaml_has);
        diags.push(in_json.map_or(problem, |(problem, _)| problem));
        return None;
    }
    let mut found = Diagnostics::new();
    let mut reader = Reader {
        text: stripped,
        places,
        builder: Builder::new(&mut found),
        documents: 0,
    };
    let read = reader.run();
    let root = reader.builder.finish();
    // A tab is no fault of JSON, so what JSON has to say is the better answer; so is what neither of them has.
    let refused = |code: &str| found.iter().any(|problem| problem.code == code);
    let in_json = not_json.filter(|(_, yaml_has)| {
        refused("tab-indentation") || (!yaml_has && refused("yaml-syntax"))
    });
    match in_json {
        Some((problem, _)) => diags.push(problem),
        None => found.iter().for_each(|problem| diags.push(problem.clone())),
    }
    if read.is_err() {
        return None;
    }
    let root = root.filter(|node| !node.is_null());
    if root.is_none() {
        diags.push(Diagnostic::error(
            "empty-document",
            start_of_text(),
            "the document is empty",
        ));
    }
    root
}

/// Reports every explicit tag; no document kind has a use for one yet.
pub(crate) fn deny_tags(node: &Node, cx: &mut Cx<'_>) {
    if let Some(tag) = &node.tag {
        cx.error(
            "unsupported-tag",
            node.span,
            format!("the tag {} has no meaning here", shown(tag)),
        );
    }
    match &node.kind {
        NodeKind::Scalar(_) => {}
        NodeKind::Seq(items) => items.iter().for_each(|n| deny_tags(n, cx)),
        NodeKind::Map(fields) => fields.iter().for_each(|(_, n)| deny_tags(n, cx)),
    }
}

struct Reader<'t, 'd> {
    text: &'t str,
    places: Places<'t>,
    builder: Builder<'d>,
    documents: usize,
}

impl Reader<'_, '_> {
    fn run(&mut self) -> Result<(), Stop> {
        let mut parser = Parser::new_from_str(self.text);
        while let Some(next) = parser.next_event() {
            match next {
                Ok((event, span)) => {
                    let span = self.span(span.start, span.end);
                    self.event(event, span)?;
                }
                Err(error) => {
                    let problem = self.syntax_error(*error.marker(), error.info());
                    return self.builder.stop(problem);
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second document starts here; a file holds one";
                    return self.builder.stop(Diagnostic::error(
                        "multiple-documents",
                        span,
                        message,
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let (tag, text_tag) = local_tag(tag.as_deref());
                let style = match style {
                    ScalarStyle::Plain if !text_tag => Style::Plain,
                    _ => Style::Quoted,
                };
                let scalar = Scalar {
                    text: text.into_owned(),
                    style,
                };
                self.builder.scalar(scalar, span, anchor, tag)
            }
            Event::Alias(anchor) => self.builder.alias(anchor, span),
            Event::SequenceStart(anchor, tag) => {
                self.builder
                    .open(Content::seq(), span, anchor, local_tag(tag.as_deref()).0)
            }
            Event::MappingStart(anchor, tag) => {
                self.builder
                    .open(Content::map(), span, anchor, local_tag(tag.as_deref()).0)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.builder.close();
                Ok(())
            }
        }
    }

    fn span(&self, start: Marker, end: Marker) -> Span {
        let (start, end) = (self.places.of(start), self.places.of(end));
        // The scanner looks past a value before it knows that it has ended.
        let from = start.offset - self.places.shift;
        let to = (end.offset - self.places.shift).max(from);
        let trimmed = self.text[from..to].trim_end();
        if trimmed.is_empty() {
            return Span { start, end: start };
        }
        let mut place = start;
        for c in trimmed.chars() {
            place.offset += c.len_utf8();
            if c == '\n' {
                (place.line, place.column) = (place.line + 1, 1);
            } else {
                place.column += 1;
            }
        }
        Span { start, end: place }
    }

    fn syntax_error(&self, at: Marker, info: &str) -> Diagnostic {
        let place = self.places.of(at);
        let offset = (place.offset - self.places.shift).min(self.text.len());
        let line_start = self.text[..offset].rfind('\n').map_or(0, |i| i + 1);
        // A tab in the lines of an unquoted text, or right behind them, is told where the text begins.
        let in_plain = info.contains("plain scalar") && info.contains("tab");
        let lines = self.text[line_start..].split_inclusive('\n').enumerate();
        let lines = lines.take(if in_plain { usize::MAX } else { 1 });
        let mut here = line_start;
        for (number, line) in lines {
            let indent = &line[..line.len() - line.trim_start().len()];
            let Some(tab) = indent.find('\t').filter(|_| indent.len() < line.len()) else {
                here += line.len();
                continue;
            };
            let start = Position {
                line: place.line + to_u32(number),
                column: to_u32(tab + 1),
                offset: here + tab + self.places.shift,
            };
            let end = Position {
                column: start.column + 1,
                offset: start.offset + 1,
                ..start
            };
            return Diagnostic::error(
                "tab-indentation",
                Span { start, end },
                "a tab indents this line",
            )
            .with_help("YAML is indented with spaces");
        }
        let span = Span {
            start: place,
            end: place,
        };
        if info.contains("unknown anchor") {
            return Diagnostic::error(
                "unknown-alias",
                span,
                "this alias names an anchor that does not exist",
            )
            .with_help("put quotes around a text that starts with `*`");
        }
        if info.contains("recursion limit") {
            return Diagnostic::error("nested-too-deep", span, "lists and mappings nest too deep");
        }
        faults::syntax(info, self.text, self.places.shift, place)
    }
}

/// A tag to keep, and whether the tag says that a scalar is text. The tags of the core schema say
/// nothing that a field's own type does not say.
fn local_tag(tag: Option<&Tag>) -> (Option<String>, bool) {
    match tag {
        None => (None, false),
        Some(tag) if tag.handle == "!" && tag.suffix.is_empty() => (None, true),
        Some(tag) if tag.is_yaml_core_schema() => match tag.suffix.as_str() {
            "str" => (None, true),
            "int" | "float" | "bool" | "map" | "seq" => (None, false),
            other => (Some(format!("!!{other}")), false),
        },
        Some(tag) => (Some(format!("{}{}", tag.handle, tag.suffix)), false),
    }
}

/// Characters that YAML forbids (1.2.2, section 5.1); the parser would take NUL for the end.
fn control_character(text: &str, places: &Places<'_>) -> Option<Diagnostic> {
    let bad = |c: char| {
        matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{84}'
            | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
    };
    let (offset, c) = text.char_indices().find(|(_, c)| bad(*c))?;
    let line_start = text[..offset].rfind('\n').map_or(0, |i| i + 1);
    let start = Position {
        line: to_u32(text[..offset].matches('\n').count() + 1),
        column: to_u32(text[line_start..offset].chars().count() + 1),
        offset: offset + places.shift,
    };
    let end = Position {
        column: start.column + 1,
        offset: start.offset + c.len_utf8(),
        ..start
    };
    let message = format!(
        "the character U+{:04X} cannot stand in a document",
        u32::from(c)
    );
    let escape = match u32::from(c) {
        code @ 0..=0xff => format!("\\x{code:02x}"),
        code => format!("\\u{code:04x}"),
    };
    let help = format!("inside double quotes it can be written as the escape `{escape}`");
    Some(Diagnostic::error("control-character", Span { start, end }, message).with_help(help))
}

/// Turns the parser's character counts into byte offsets.
struct Places<'t> {
    text: &'t str,
    /// Bytes cut off before the text (a byte order mark).
    shift: usize,
    /// Byte offset of every 64th character; empty when every character is one byte.
    table: Vec<usize>,
}

impl<'t> Places<'t> {
    const STEP: usize = 64;

    fn new(text: &'t str, shift: usize) -> Self {
        let table = if text.is_ascii() {
            Vec::new()
        } else {
            text.char_indices()
                .step_by(Self::STEP)
                .map(|(offset, _)| offset)
                .collect()
        };
        Self { text, shift, table }
    }

    fn of(&self, marker: Marker) -> Position {
        let index = marker.index();
        let offset = if self.table.is_empty() {
            index.min(self.text.len())
        } else {
            match self.table.get(index / Self::STEP) {
                None => self.text.len(),
                Some(&base) => {
                    let mut rest = self.text[base..].char_indices();
                    rest.nth(index % Self::STEP)
                        .map_or(self.text.len(), |(o, _)| base + o)
                }
            }
        };
        Position {
            line: to_u32(marker.line().max(1)),
            column: to_u32(marker.col() + 1),
            offset: offset + self.shift,
        }
    }
}

fn start_of_text() -> Span {
    let start = Position {
        line: 1,
        column: 1,
        offset: 0,
    };
    Span { start, end: start }
}

/// Texts are shorter than [`MAX_DOCUMENT_BYTES`], so their counts fit.
fn to_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
