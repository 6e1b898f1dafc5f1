//! Dynamic references: `{{resolve:service:key}}`, which CloudFormation replaces when it deploys.
//! Source: CloudFormation user guide, dynamic references.

use std::ops::Range;

use super::Part;
use crate::inline::Piece;

/// Begins a dynamic reference.
const START: &str = "{{resolve:";
const END: &str = "}}";

/// Whether a text holds one.
pub(super) fn is_in(text: &str) -> bool {
    text.contains(START) && !references(text).is_empty()
}

/// What stands for a text that holds one. One to a parameter of Systems Manager that is all of the text says the same
/// as `ssm:`.
pub(super) fn shown(text: &str) -> String {
    let parameter = text
        .strip_prefix(START)
        .and_then(|rest| rest.strip_suffix(END))
        .and_then(|rest| rest.strip_prefix("ssm:"));
    match parameter {
        // Without the version that may follow.
        Some(name) => format!("ssm:{}", name.split(':').next().unwrap_or(name)),
        None => {
            let first = references(text).into_iter().next();
            let first = first.and_then(|range| text.get(range)).unwrap_or_default();
            format!("${{{}}}", name(first))
        }
    }
}

/// The parts of a text with every dynamic reference as one unknown part. References may be put together from parts
/// themselves: `{{resolve:ssm:/${Stage}/version}}`.
pub(super) fn split(parts: Vec<Part>) -> Vec<Part> {
    let joined: String = parts.iter().map(|part| part.piece.text.as_str()).collect();
    let references = references(&joined);
    if references.is_empty() {
        return parts;
    }
    let mut out: Vec<Part> = Vec::new();
    let mut coming = references.into_iter().peekable();
    // Whether the last part is the beginning of a reference.
    let mut open = false;
    let mut start = 0;
    for part in parts {
        let end = start + part.piece.text.len();
        let mut at = start;
        // A replaced part stands for its bytes of the source as a whole: its last piece takes them.
        let mut bytes_left = part.piece.source_bytes;
        loop {
            let inside = coming.peek().is_some_and(|range| range.start <= at);
            let until = match coming.peek() {
                Some(range) if inside => range.end.min(end),
                Some(range) => range.start.min(end),
                None => end,
            };
            let text = &joined[at..until];
            let bytes = match part.piece.verbatim {
                true => text.len(),
                false if until == end => std::mem::take(&mut bytes_left),
                false => 0,
            };
            let inside = inside && !text.is_empty();
            match out.last_mut().filter(|_| open) {
                Some(last) => {
                    last.piece.text.push_str(text);
                    last.piece.source_bytes += bytes;
                    last.from_default |= part.from_default;
                }
                None => out.push(Part {
                    piece: Piece {
                        text: text.to_owned(),
                        known: part.piece.known && !inside,
                        source_bytes: bytes,
                        verbatim: part.piece.verbatim && !inside,
                    },
                    from_default: part.from_default,
                }),
            }
            at = until;
            open |= inside;
            if open && coming.peek().is_some_and(|range| range.end == at) {
                if let Some(last) = out.last_mut() {
                    last.piece.text = name(&last.piece.text);
                }
                open = false;
                coming.next();
            }
            if at == end {
                break;
            }
        }
        start = end;
    }
    out
}

/// Without the braces around it.
fn name(reference: &str) -> String {
    let bare = reference.strip_prefix("{{");
    let bare = bare.and_then(|rest| rest.strip_suffix(END));
    bare.unwrap_or(reference).to_owned()
}

/// Where references stand. What has blanks, quotes or braces in it is none.
fn references(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(START) {
        let start = from + at;
        let inner = start + START.len();
        let wrong = |c: char| c.is_whitespace() || "{}'\"\\".contains(c);
        let end = text[inner..].find(wrong).map(|at| inner + at);
        match end {
            Some(end) if end > inner && text[end..].starts_with(END) => {
                from = end + END.len();
                found.push(start..from);
            }
            _ => from = inner,
        }
    }
    found
}
