//! Draws the problems of documents and the chain of an error.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::Path;

use amiforge_engine::{DocumentPlace, DocumentReport, EngineError};
use amiforge_types::{Diagnostic, Severity, Span};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Draws every problem of a document to standard error.
pub(crate) fn document(report: &DocumentReport) {
    let mut err = std::io::stderr().lock();
    for diagnostic in &report.diagnostics {
        let text = problem(&report.path, &report.text, diagnostic);
        // A closed standard error leaves nobody to tell.
        let _ = writeln!(err, "{text}");
    }
}

/// A problem of a document, for standard error, with an empty line after it.
pub(crate) fn problem(path: &Path, text: &str, diagnostic: &Diagnostic) -> String {
    format!("{}\n", renderer().render(&[group(path, text, diagnostic)]))
}

/// An error with the place of the document that it is about.
fn placed(place: &DocumentPlace, message: &str) -> String {
    let title = Level::ERROR.primary_title(message);
    let group = with_place(
        Group::with_title(title),
        &place.path,
        &place.text,
        place.span,
    );
    renderer().render(&[group])
}

fn renderer() -> Renderer {
    match std::io::stderr().is_terminal() {
        true => Renderer::styled(),
        false => Renderer::plain(),
    }
}

/// A source longer than this is shown as an excerpt around the problem, so that a report about a
/// huge file stays readable and cheap.
const EXCERPT: usize = 64 << 10;

fn group<'a>(path: &Path, text: &'a str, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(
        level
            .primary_title(diagnostic.message.as_str())
            .id(diagnostic.code),
    );
    if let Some(span) = diagnostic.span {
        group = with_place(group, path, text, span);
    } else {
        group = group.element(annotate_snippets::Origin::path(
            path.to_string_lossy().into_owned(),
        ));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// The line of a document that a message is about.
fn with_place<'a>(group: Group<'a>, path: &Path, text: &'a str, span: Span) -> Group<'a> {
    let mut start = floor(text, span.start.offset);
    let mut end = floor(text, span.end.offset).max(start);
    // One line is enough to see the place; a span over a whole block would draw all of it.
    if let Some(line_end) = text[start..end].find('\n') {
        end = start + line_end;
    }
    end = end.min(floor(text, start + 200));
    let mut source = text;
    let mut first_line = 1;
    if text.len() > EXCERPT {
        let from = floor(text, start.saturating_sub(200));
        let from = text[from..start]
            .find('\n')
            .map_or(from, |at| from + at + 1);
        source = &text[from..floor(text, end + 200)];
        first_line = span.start.line as usize - text[from..start].matches('\n').count();
        start -= from;
        end -= from;
    }
    group.element(
        Snippet::source(source)
            .line_start(first_line)
            .path(path.to_string_lossy().into_owned())
            .annotation(AnnotationKind::Primary.span(start..end)),
    )
}

fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A line that a foreign program printed, without what would drive the terminal: of a line that was
/// drawn over itself the last version, no escape sequences, no other control characters.
pub(crate) fn plain(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut shown = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // `ESC [ parameters final`; anything else is two characters long.
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| ('@'..='~').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            shown.push(c);
        }
    }
    shown
}

/// The same for a text of several lines.
pub(crate) fn plain_lines(text: &str) -> String {
    text.split('\n').map(plain).collect::<Vec<_>>().join("\n")
}

/// Prints an error: what failed, the causes, the hint.
pub(crate) fn error(error: &EngineError) {
    told(None, error);
}

/// The same of one of several recipes.
pub(crate) fn error_of(recipe: &str, error: &EngineError) {
    told(Some(recipe), error);
}

fn told(recipe: Option<&str>, error: &EngineError) {
    let mut err = std::io::stderr().lock();
    if error.is_told() {
        let _ = writeln!(err, "error: the build failed, as told before the shell");
        if let Some(hint) = error.hint() {
            let _ = writeln!(err, "  hint: {hint}");
        }
        return;
    }
    if let EngineError::Documents(reports) = error {
        drop(err);
        reports.iter().for_each(document);
        err = std::io::stderr().lock();
    }
    let of = recipe.map(|recipe| format!("{}: ", plain(recipe)));
    let message = format!(
        "{}{}",
        of.unwrap_or_default(),
        plain_lines(&error.to_string())
    );
    let _ = match error.place() {
        Some(place) => writeln!(err, "{}", placed(place, &message)),
        None => writeln!(err, "error: {message}"),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = writeln!(
            err,
            "  caused by: {}",
            plain_lines(&cause.to_string()).replace('\n', "\n    ")
        );
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        let _ = writeln!(err, "  hint: {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_line_cannot_drive_the_terminal() {
        for (line, shown) in [
            ("plain\ttext", "plain\ttext"),
            ("10%\r50%\rdone", "done"),
            ("dos\r", "dos"),
            ("\u{1b}[31;1mred\u{1b}[0m", "red"),
            ("\u{1b}c\u{7}\u{9b}2Jbell", "2Jbell"),
            ("cut \u{1b}[31", "cut "),
        ] {
            assert_eq!(plain(line), shown);
        }
        assert_eq!(plain_lines("a\r\nb\u{7}\n"), "a\nb\n");
    }
}
