//! What the parser's complaints come from, as far as the lines around tell.

use amiforge_types::{Diagnostic, Position, Span};

const SPECIAL: &str = "put quotes around a text that starts with a special character or holds `: `";

/// The lines above that are looked at.
const MOST_LINES: usize = 200;

/// The problem of a text that is not YAML. `place` is where the parser stopped, which may be the start of what is wrong
/// or just behind it; `shift` bytes were cut off before the text.
pub(super) fn syntax(info: &str, text: &str, shift: usize, place: Position) -> Diagnostic {
    let lines = Lines::at(text, shift, place);
    let at = |span: Span, message: String| {
        Diagnostic::error("yaml-syntax", span, format!("not valid YAML: {message}"))
    };
    let here = Span {
        start: place,
        end: place,
    };
    let as_told = || at(here, info.to_owned());
    if info.contains("escape") || info.contains("hexadecimal") {
        return as_told().with_help(
            "between double quotes a backslash begins an escape: use single quotes, or write `\\\\`",
        );
    }
    let rest = &lines.line[lines.column..];
    if info.contains("quoted scalar") && rest.starts_with(['"', '\'']) {
        let quote = &rest[..1];
        let end = Position {
            column: place.column + 1,
            offset: place.offset + 1,
            ..place
        };
        let span = Span { start: place, end };
        let message = format!(
            "the `{quote}` that opens here is not closed before the lines of the value end"
        );
        let help = if quote == "'" {
            "write the closing `'`; one inside the text is written twice, `''`"
        } else {
            "write the closing `\"`; one inside the text is written `\\\"`"
        };
        return at(span, message).with_help(help);
    }
    if info.contains("trailing content after") {
        return behind_quotes(&lines, here, at);
    }
    if info.contains("simple key expect") {
        return no_colon(&lines, as_told());
    }
    if info.contains("block sequence entries are not allowed") {
        return as_told()
            .with_help("a list begins in the line below its key, each entry with `- `");
    }
    if rest.starts_with(['%', '@', '`']) {
        return as_told().with_help(SPECIAL);
    }
    if ["flow mapping", "flow sequence", "illegal placement"]
        .iter()
        .any(|part| info.contains(part))
    {
        return as_told().with_help(
            "separate entries with commas and close every bracket; a text that holds a comma or a bracket needs quotes there",
        );
    }
    if holds_colon(lines.line) {
        return as_told().with_help(SPECIAL);
    }
    if info.contains("mapping values are not allowed") {
        return too_deep(&lines, as_told());
    }
    if info.contains("did not find expected '-'")
        || info.contains("did not find expected key")
        || info.contains("invalid indentation")
    {
        return off_column(&lines, as_told());
    }
    as_told()
}

/// The line at a place, and those before it.
struct Lines<'t> {
    before: &'t str,
    line: &'t str,
    /// The place in the line, in bytes.
    column: usize,
    /// Number and first byte of the line in the file.
    number: u32,
    offset: usize,
}

impl<'t> Lines<'t> {
    fn at(text: &'t str, shift: usize, place: Position) -> Self {
        let offset = text.floor_char_boundary(place.offset.saturating_sub(shift));
        let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        Self {
            before: &text[..start],
            line,
            column: (offset - start).min(line.len()),
            number: place.line,
            offset: start + shift,
        }
    }

    /// The lines before, the nearest first: its number, its first byte and the line. Blank lines and comments are left out.
    fn above(&self) -> impl Iterator<Item = (u32, usize, &'t str)> {
        let (mut number, mut offset) = (self.number, self.offset);
        let lines = self.before.split_inclusive('\n').rev().take(MOST_LINES);
        lines
            .map(move |line| {
                number = number.saturating_sub(1);
                offset = offset.saturating_sub(line.len());
                (number, offset, line.trim_end())
            })
            .filter(|(_, _, line)| {
                let text = line.trim_start();
                !text.is_empty() && !text.starts_with('#')
            })
    }

    /// The column, from 0, in which the line begins.
    fn indent(&self) -> usize {
        indent_of(self.line)
    }
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Columns, from 0, in which keys and dashes of a line begin: `- - name: x` has three.
fn columns_of(line: &str) -> Vec<usize> {
    let mut columns = vec![indent_of(line)];
    let mut at = columns[0];
    while let Some(rest) = line[at..].strip_prefix("- ") {
        at = line.len() - rest.trim_start_matches(' ').len();
        columns.push(at);
    }
    columns
}

/// Whether the value of a line begins with a sign of YAML, or holds what looks like another key.
fn holds_colon(line: &str) -> bool {
    let value = line.trim_start().trim_start_matches("- ");
    value.split_once(": ").is_some_and(|(_, rest)| {
        rest.trim_start()
            .starts_with(['{', '%', '@', '`', '*', '&'])
            || rest.contains(": ")
    })
}

/// Something stands behind a text in quotes.
fn behind_quotes(
    lines: &Lines<'_>,
    here: Span,
    at: impl Fn(Span, String) -> Diagnostic,
) -> Diagnostic {
    let before = lines.line[..lines.column].trim_end();
    let Some(quote) = before
        .chars()
        .next_back()
        .filter(|c| matches!(c, '"' | '\''))
    else {
        let message = "something follows a text in quotes".to_owned();
        return at(here, message).with_help("put the quotes around the whole value");
    };
    // The quote that a value begins with; what is before it is a key, a dash or a bracket.
    let opens = |place: &usize| {
        let head = before[..*place].trim_end();
        *place + 1 < before.len() && (head.is_empty() || head.ends_with([':', '-', '[', '{', ',']))
    };
    let opened = before
        .match_indices(quote)
        .map(|(place, _)| place)
        .find(opens);
    let message = match opened {
        Some(place) => format!(
            "something follows the text in quotes that begins in column {}",
            before[..place].chars().count() + 1
        ),
        None => "something follows the text in quotes that ends before this".to_owned(),
    };
    let help = if quote == '\'' {
        "put the quotes around the whole value; a `'` inside single quotes is written twice, `''`"
    } else {
        "put the quotes around the whole value, single ones when it holds `\"`; between double quotes that is written `\\\"`"
    };
    at(here, message).with_help(help)
}

/// A line above has no colon where a key needs one; the parser tells it when the next one begins.
fn no_colon(lines: &Lines<'_>, told: Diagnostic) -> Diagnostic {
    const HELP: &str =
        "a line below a mapping is `key: value`; a text of several lines is indented below its key";
    let Some((number, offset, line)) = lines.above().next() else {
        return told.with_help(HELP);
    };
    if line.contains(": ") || line.ends_with(':') {
        return told.with_help(HELP);
    }
    let indent = indent_of(line);
    let place = |bytes: usize| Position {
        line: number,
        column: u32::try_from(line[..bytes].chars().count() + 1).unwrap_or(u32::MAX),
        offset: offset + bytes,
    };
    let span = Span {
        start: place(indent),
        end: place(line.len()),
    };
    let message = "not valid YAML: this is no `key: value`, as the lines around it are";
    let words: Vec<&str> = line.split_whitespace().collect();
    let help = match words.as_slice() {
        [key, _] if key.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            format!("write a colon and a blank behind the key: `{key}: `")
        }
        _ => HELP.to_owned(),
    };
    Diagnostic::error("yaml-syntax", span, message).with_help(help)
}

/// A key stands where a value goes on: deeper than the line above, which has a value already.
fn too_deep(lines: &Lines<'_>, told: Diagnostic) -> Diagnostic {
    let indent = lines.indent();
    let Some((number, _, above)) = lines.above().next() else {
        return told;
    };
    let key = columns_of(above).last().copied().unwrap_or(0);
    if indent > key && !above.ends_with(':') {
        return told.with_help(format!(
            "line {number} has its value already, and this line is indented deeper: begin it in column {}",
            key + 1
        ));
    }
    told.with_help(SPECIAL)
}

/// A line begins in a column in which nothing above it does, or with something else than what is there.
fn off_column(lines: &Lines<'_>, told: Diagnostic) -> Diagnostic {
    let indent = lines.indent();
    let text = lines.line.trim_start();
    if text.starts_with('-') && !text.starts_with("- ") && text.len() > 1 && !text.starts_with("--")
    {
        return told.with_help("a blank belongs between the `-` of an entry and what follows it");
    }
    // The levels that are open here: each line above says more of those that are to its left only.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut left = usize::MAX;
    for (_, _, line) in lines.above() {
        let columns = columns_of(line);
        let last = columns.len() - 1;
        for (number, column) in columns.iter().enumerate().rev() {
            if *column < left {
                open.push((*column, number < last));
                left = *column;
            }
        }
        if left == 0 {
            break;
        }
    }
    let nearest = |dashes: bool| {
        let columns = open.iter().filter(|(_, dash)| *dash == dashes);
        columns
            .map(|(column, _)| *column)
            .min_by_key(|column| column.abs_diff(indent))
    };
    let dash = text.starts_with("- ");
    let Some(column) = nearest(dash) else {
        return told.with_help(
            "begin the line in the same column as the lines above it that belong with it",
        );
    };
    let what = if dash {
        "entries of the list above begin"
    } else {
        "the fields above begin"
    };
    let (column, ours) = (column + 1, indent + 1);
    let help = match nearest(true) {
        Some(list) if !dash && list == indent => format!(
            "{what} in column {column}; in column {ours}, where this line does, entries of a list begin with `- `"
        ),
        _ => format!("{what} in column {column}, and this line in column {ours}: begin it there"),
    };
    told.with_help(help)
}
