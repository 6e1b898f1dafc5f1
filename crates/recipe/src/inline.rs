//! Documents that stand inside a document: the `data` of a component or workflow.
//!
//! The inner text is read where it stands. All of the outer text that is not part of it becomes blank,
//! so that line numbers and places in messages are those of the file. Where references of a template are
//! replaced inside the text, places behind them are counted back. A text that is not written line by line
//! (in quotes, joined from parts) has one place: that of its scalar.

use amiforge_types::{Diagnostic, Diagnostics, Position, Span};

use crate::node::{Node, NodeKind, Scalar, Style};
use crate::{folded, yaml};

/// Surrounds the name of what is not known before deployment, inside a text that is read as YAML.
/// Private-use characters: YAML lets them pass, and nobody writes them.
const OPEN: char = '\u{e0f1}';
const CLOSE: char = '\u{e0f2}';

/// A document inside a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inline<'t> {
    /// The inner text, as it will be read.
    text: String,
    place: Place<'t>,
    /// True for a folded block, which has lost its lines.
    folded: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place<'t> {
    /// Blanks, then the inner text with its lines where they stand in the file.
    Lines {
        padded: String,
        /// The outer text.
        outer: &'t str,
        edits: Vec<Edit>,
    },
    /// All of it stands at one place.
    Whole(Span),
}

/// A reference that was replaced. Behind it, padded and outer text run in step again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edit {
    /// Where the value begins and ends in the padded text.
    padded: (usize, usize),
    /// Where the reference begins and ends in the outer text.
    outer: (usize, usize),
}

/// The text of a document.
#[derive(Clone, Copy)]
pub(crate) struct Texts<'t> {
    /// The text alone.
    pub(crate) own: &'t str,
    /// What places are of: the same, or more.
    pub(crate) source: &'t str,
}

impl<'t> Texts<'t> {
    /// Of a document that stands alone.
    pub(crate) fn alone(text: &'t str) -> Self {
        Self {
            own: text,
            source: text,
        }
    }
}

/// A part of a text whose references are replaced.
pub(crate) struct Piece {
    /// The text, or the name of what is not known.
    pub(crate) text: String,
    /// False when the text is only the name of something unknown.
    pub(crate) known: bool,
    /// How many bytes of the template's text the part stands for.
    pub(crate) source_bytes: usize,
    /// True for text that was not replaced.
    pub(crate) verbatim: bool,
}

impl<'t> Inline<'t> {
    /// The document that a scalar holds; `None` when the node is no text.
    pub(crate) fn of_scalar(node: &Node, outer: &'t str) -> Option<Self> {
        let text = node.as_text().filter(|_| !node.is_opaque())?;
        let piece = Piece {
            text: text.to_owned(),
            known: true,
            source_bytes: text.len(),
            verbatim: true,
        };
        Some(Self::of_pieces(node.span, text, &[piece], outer))
    }

    /// The document made of `pieces`, which together stand for the whole text of a scalar.
    pub(crate) fn of_pieces(span: Span, source: &str, pieces: &[Piece], outer: &'t str) -> Self {
        let text = pieces.iter().map(Piece::render).collect();
        let place = lines(span, source, pieces, outer).unwrap_or(Place::Whole(span));
        let folded = folded::is_folded(span, outer);
        Self {
            text,
            place,
            folded,
        }
    }

    /// The inner text, with `${Name}` for what is not known.
    pub(crate) fn text(&self) -> String {
        cleaned(&self.text)
    }

    /// True when something in the text is not known before deployment.
    pub(crate) fn is_open(&self) -> bool {
        self.text.contains(OPEN)
    }

    /// What in the text is not known before deployment, each name once and of many the first, with its place in the file.
    pub(crate) fn open(&self) -> Vec<(String, Span)> {
        const MOST: usize = 20;
        let mut found: Vec<(String, Span)> = Vec::new();
        let mut add = |text: &str, place: &dyn Fn() -> Span| {
            let name = text.split(CLOSE).next().unwrap_or_default();
            if found.len() < MOST && found.iter().all(|(known, _)| known != name) {
                found.push((name.to_owned(), place()));
            }
        };
        match &self.place {
            Place::Whole(span) => {
                let names = self.text.split(OPEN).skip(1);
                names.for_each(|name| add(name, &|| *span));
            }
            Place::Lines {
                padded,
                outer,
                edits,
            } => {
                for edit in edits {
                    let value = padded.get(edit.padded.0..edit.padded.1);
                    if let Some(name) = value.and_then(|value| value.strip_prefix(OPEN)) {
                        let at = |offset| Position::in_text(outer, offset);
                        add(name, &|| Span {
                            start: at(edit.outer.0),
                            end: at(edit.outer.1),
                        });
                    }
                }
            }
        }
        found
    }

    /// Reads the text and hands its tree to `check`, then tells the problems by
    /// their place in the file.
    pub(crate) fn read(
        &self,
        check: impl FnOnce(Node, Texts<'_>, &mut Diagnostics),
    ) -> Diagnostics {
        let mut found = Diagnostics::new();
        let text = match &self.place {
            Place::Lines { padded, .. } => padded,
            Place::Whole(_) => &self.text,
        };
        if let Some(mut node) = yaml::parse_node(text, &mut found) {
            mark_unknown(&mut node);
            let texts = Texts {
                own: &self.text,
                source: text,
            };
            check(node, texts, &mut found);
        }
        let mut out = Diagnostics::new();
        for problem in found.iter() {
            out.push(self.placed(problem));
        }
        if let (Place::Whole(span), true) = (&self.place, self.folded && found.has_errors()) {
            out.push(folded::joined("this document", *span));
        }
        out
    }

    /// Hands the text to `check` and tells the problems by their place in the file. For texts that are no
    /// YAML.
    pub(crate) fn check(&self, check: impl FnOnce(&str, &mut Diagnostics)) -> Diagnostics {
        let mut found = Diagnostics::new();
        check(&self.text, &mut found);
        let mut out = Diagnostics::new();
        for problem in found.iter() {
            out.push(self.lifted(problem));
        }
        out
    }

    /// A problem of the text by itself, by its place in the file.
    pub(crate) fn lifted(&self, problem: &Diagnostic) -> Diagnostic {
        let mut problem = problem.clone();
        if let (Place::Lines { padded, .. }, Some(span)) = (&self.place, &mut problem.span) {
            // Line for line the same, with blanks before each; the lines before the text are blank.
            let count = |text: &str| text.matches('\n').count();
            let skipped = count(padded).saturating_sub(count(&self.text));
            let lift = |at: Position| {
                let line = usize::try_from(at.line).unwrap_or(usize::MAX);
                let own = self.text.split('\n').nth(line.saturating_sub(1));
                let mut start = 0;
                let mut place = at;
                for (number, outer) in padded.split('\n').enumerate() {
                    if number + 1 == line.saturating_add(skipped) {
                        let own = own.unwrap_or_default().len();
                        let before = outer.len().saturating_sub(own);
                        let inside = at.offset.saturating_sub(
                            self.text[..at.offset.min(self.text.len())]
                                .rfind('\n')
                                .map_or(0, |n| n + 1),
                        );
                        let offset = (start + before + inside).min(padded.len());
                        place = Position::in_text(padded, offset);
                        break;
                    }
                    start += outer.len() + 1;
                }
                place
            };
            *span = Span {
                start: lift(span.start),
                end: lift(span.end),
            };
        }
        self.placed(&problem)
    }

    fn placed(&self, problem: &Diagnostic) -> Diagnostic {
        let mut problem = problem.clone();
        problem.message = cleaned(&problem.message);
        problem.help = problem.help.map(|help| cleaned(&help));
        match &self.place {
            Place::Whole(span) => {
                if let Some(inner) = problem.span {
                    let line = inner.start.line;
                    problem.message = format!("line {line} of the document: {}", problem.message);
                }
                problem.span = Some(*span);
            }
            Place::Lines { outer, edits, .. } => {
                if let Some(span) = &mut problem.span {
                    *span = Span {
                        start: back(span.start, outer, edits),
                        end: back(span.end, outer, edits),
                    };
                    if span.end < span.start {
                        span.end = span.start;
                    }
                }
            }
        }
        problem
    }
}

impl Piece {
    fn render(&self) -> String {
        if self.known {
            self.text.clone()
        } else {
            format!("{OPEN}{}{CLOSE}", self.text)
        }
    }
}

/// The place in the outer text of a place in the padded one.
fn back(place: Position, outer: &str, edits: &[Edit]) -> Position {
    let Some(edit) = edits.iter().rev().find(|e| e.padded.0 <= place.offset) else {
        return place;
    };
    let offset = if place.offset < edit.padded.1 {
        edit.outer.0
    } else {
        edit.outer.1 + (place.offset - edit.padded.1)
    };
    Position::in_text(outer, offset.min(outer.len()))
}

/// The lines of a literal block scalar, blank elsewhere; `None` when it is none.
fn lines<'t>(span: Span, source: &str, pieces: &[Piece], outer: &'t str) -> Option<Place<'t>> {
    let content = block_start(span, outer, '|')?;
    // Where each line of the scalar's text stands in the outer text.
    let mut starts: Vec<(usize, usize)> = Vec::new();
    let (mut inner, mut at) = (0, content);
    for line in source.split('\n') {
        let rest = outer.get(at..)?;
        let raw = rest.split('\n').next().unwrap_or_default();
        let shown = raw.strip_suffix('\r').unwrap_or(raw);
        // The last line of a text that ends with a line break is no line of the file.
        if line.is_empty() && inner == source.len() {
            starts.push((inner, at.min(outer.len())));
            break;
        }
        let indent = shown.len().checked_sub(line.len());
        let indent = match indent {
            Some(indent) if shown.get(indent..) == Some(line) => indent,
            // Blank lines may be shorter than the indentation.
            _ if line.is_empty() && shown.trim().is_empty() => shown.len(),
            _ => return None,
        };
        starts.push((inner, at + indent));
        inner += line.len() + 1;
        at += raw.len() + 1;
    }
    let outer_of = |offset: usize| {
        let line = starts.partition_point(|(start, _)| *start <= offset);
        let (start, place) = starts.get(line.checked_sub(1)?)?;
        Some(place + (offset - start))
    };
    let mut padded = blank(outer.get(..content)?);
    let mut edits = Vec::new();
    let mut offset = 0;
    let mut here = content;
    for piece in pieces {
        let (from, to) = (offset, offset + piece.source_bytes);
        if piece.verbatim {
            // Line by line, each with the blanks that stand before it in the file.
            let mut at = from;
            for line in piece.text.split('\n') {
                let place = outer_of(at)?;
                padded.push_str(&blank(outer.get(here..place)?));
                padded.push_str(line);
                here = place + line.len();
                at += line.len() + 1;
            }
        } else {
            let place = outer_of(from)?;
            padded.push_str(&blank(outer.get(here..place)?));
            let start = padded.len();
            padded.push_str(&piece.render());
            here = place + piece.source_bytes;
            edits.push(Edit {
                padded: (start, padded.len()),
                outer: (place, here),
            });
        }
        offset = to;
    }
    Some(Place::Lines {
        padded,
        outer,
        edits,
    })
}

/// Spaces for everything but line breaks, byte by byte.
fn blank(text: &str) -> String {
    text.bytes()
        .map(|b| if b == b'\n' { '\n' } else { ' ' })
        .collect()
}

/// Where the first line of a block scalar begins, when one with this indicator (`|` or `>`) stands at `span`: at its
/// indicator or its tag, or at its first character.
pub(crate) fn block_start(span: Span, outer: &str, indicator: char) -> Option<usize> {
    let rest = outer.get(span.start.offset..)?;
    let header = rest.split('\n').next()?;
    if let Some(after) = opens_block(header.trim_start(), indicator) {
        return after.then(|| span.start.offset + header.len() + 1);
    }
    // Nothing but blanks, and blank lines, may come before the first character.
    let mut end = outer.get(..span.start.offset)?.rfind('\n')?;
    if !outer.get(end..span.start.offset)?.trim().is_empty() {
        return None;
    }
    loop {
        let start = outer.get(..end)?.rfind('\n').map_or(0, |at| at + 1);
        let line = outer.get(start..end)?;
        if !line.trim().is_empty() {
            let sign = line.rfind(indicator)?;
            // `a>` is a text; the indicator stands alone.
            let apart = line[..sign].is_empty() || line[..sign].ends_with([' ', '\t']);
            let opens = opens_block(&line[sign..], indicator) == Some(true);
            return (apart && opens).then_some(end + 1);
        }
        end = start.checked_sub(1)?;
    }
}

/// Whether a line begins with what may stand before a block scalar (tag, anchor) or its indicator, and
/// then whether nothing but its header is on it.
fn opens_block(line: &str, indicator: char) -> Option<bool> {
    let mut word = line;
    while word.starts_with(['!', '&']) {
        let Some((_, rest)) = word.split_once(' ') else {
            return Some(false);
        };
        word = rest.trim_start();
    }
    let Some(sign) = word.strip_prefix(indicator) else {
        return (word.len() < line.len()).then_some(false);
    };
    let rest = sign.trim_start_matches(['+', '-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let comment = rest.trim();
    Some(comment.is_empty() || (comment.starts_with('#') && rest.starts_with([' ', '\t'])))
}

/// Makes every scalar opaque that holds something unknown.
fn mark_unknown(node: &mut Node) {
    match &mut node.kind {
        NodeKind::Scalar(Scalar { text, style }) if text.contains(OPEN) => {
            *text = cleaned(text);
            *style = Style::Opaque;
        }
        NodeKind::Scalar(_) => {}
        NodeKind::Seq(items) => items.iter_mut().for_each(mark_unknown),
        NodeKind::Map(fields) => fields.iter_mut().for_each(|(key, value)| {
            key.text = cleaned(&key.text);
            mark_unknown(value);
        }),
    }
}

/// With `${Name}` for what is not known.
fn cleaned(text: &str) -> String {
    if text.contains(OPEN) {
        text.replace(OPEN, "${").replace(CLOSE, "}")
    } else {
        text.to_owned()
    }
}
