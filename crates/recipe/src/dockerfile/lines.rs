//! From text to instructions: parser directives, comments, continuations, here-documents.
//! Reference: Dockerfile reference, "Format", "Parser directives", "Here-Documents".

use amiforge_types::{Position, Span};

/// Most instructions that are read.
const MOST_INSTRUCTIONS: usize = 4096;

/// An instruction with its continuations put together.
#[derive(Debug)]
pub(super) struct Line {
    /// Without the blanks around it.
    pub(super) text: String,
    /// Where parts of it stand: offset in `text`, offset in the Dockerfile.
    places: Vec<(usize, usize)>,
}

impl Line {
    /// The place in the Dockerfile of a part of the line.
    pub(super) fn span(&self, source: &str, start: usize, end: usize) -> Span {
        // Of the last character, then one on: what follows may stand on another line.
        let before = self.text.get(..end).unwrap_or(&self.text);
        let last = before.chars().next_back().map_or(0, char::len_utf8);
        let end = self.source_offset(before.len() - last) + last;
        let start = self.source_offset(start);
        Span {
            start: Position::in_text(source, start),
            end: Position::in_text(source, end.max(start)),
        }
    }

    fn source_offset(&self, at: usize) -> usize {
        let part = self.places.partition_point(|(start, _)| *start <= at);
        let (start, place) = part
            .checked_sub(1)
            .and_then(|n| self.places.get(n))
            .copied()
            .unwrap_or_default();
        place + at.saturating_sub(start)
    }
}

/// The instructions, and with which character lines are continued.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    pub(super) escape: char,
    /// The place of a directive that is wrong, and what is wrong with it.
    pub(super) bad_directive: Option<(Span, String)>,
    /// There are more than are read.
    pub(super) too_many: bool,
}

/// Physical lines with the offsets at which they begin, without line ends.
fn physical(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split('\n').map(move |line| {
        let start = at;
        at += line.len() + 1;
        (start, line.strip_suffix('\r').unwrap_or(line))
    })
}

/// Cuts a Dockerfile into its instructions.
pub(super) fn lines(text: &str) -> Lines {
    let mut out = Lines {
        lines: Vec::new(),
        escape: '\\',
        bad_directive: None,
        too_many: false,
    };
    directives(text, &mut out);
    let mut open: Option<Line> = None;
    let mut heredocs: Vec<Heredoc> = Vec::new();
    for (start, line) in physical(text) {
        if let Some(heredoc) = heredocs.first() {
            if heredoc.ends_at(line) {
                heredocs.remove(0);
            }
            continue;
        }
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            // Also between a line and what continues it.
            continue;
        }
        let (mut content, continued) = uncontinued(line, out.escape);
        let mut start = start;
        let current = open.get_or_insert_with(|| {
            let blanks = content.len() - content.trim_start().len();
            content = &content[blanks..];
            start += blanks;
            Line {
                text: String::new(),
                places: Vec::new(),
            }
        });
        current.places.push((current.text.len(), start));
        current.text.push_str(content);
        if continued {
            continue;
        }
        if let Some(line) = open.take() {
            heredocs = heredocs_of(&line.text);
            push(line, &mut out);
        }
    }
    if let Some(line) = open {
        push(line, &mut out);
    }
    out
}

fn push(mut line: Line, out: &mut Lines) {
    line.text.truncate(line.text.trim_end().len());
    if line.text.is_empty() {
        return;
    }
    if out.lines.len() == MOST_INSTRUCTIONS {
        out.too_many = true;
        return;
    }
    out.lines.push(line);
}

/// The line without the character that continues it, and whether it has one. Two of them are none.
fn uncontinued(line: &str, escape: char) -> (&str, bool) {
    let end = line.trim_end_matches([' ', '\t']);
    match end.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

/// `# escape=…` and the like, at the very top.
fn directives(text: &str, out: &mut Lines) {
    let mut seen: Vec<String> = Vec::new();
    for (start, line) in physical(text) {
        let line = line.strip_prefix('\u{feff}').unwrap_or(line);
        let Some((name, value)) = line
            .trim_start()
            .strip_prefix('#')
            .and_then(|rest| rest.split_once('='))
        else {
            return;
        };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if !matches!(name.as_str(), "escape" | "syntax" | "check") {
            return;
        }
        let span = || Span {
            start: Position::in_text(text, start),
            end: Position::in_text(text, start + line.len()),
        };
        if seen.contains(&name) {
            out.bad_directive = Some((span(), format!("the directive `{name}` stands twice")));
            return;
        }
        if name == "escape" {
            match value {
                "\\" => out.escape = '\\',
                "`" => out.escape = '`',
                _ => {
                    let message = "lines are continued with `\\` or a backtick, nothing else";
                    out.bad_directive = Some((span(), message.to_owned()));
                    return;
                }
            }
        }
        seen.push(name);
    }
}

/// What ends a here-document.
struct Heredoc {
    word: String,
    /// Tabs before it do not count.
    tabs: bool,
}

impl Heredoc {
    fn ends_at(&self, line: &str) -> bool {
        let line = if self.tabs {
            line.trim_start_matches('\t')
        } else {
            line
        };
        line == self.word
    }
}

/// The here-documents that an instruction begins. Only these three take any.
fn heredocs_of(text: &str) -> Vec<Heredoc> {
    let word = text.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"]
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name))
    {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("<<") {
        rest = after;
        // `<<<` is a here-string of the shell.
        if before.ends_with('<') || after.starts_with('<') {
            continue;
        }
        let (tabs, after) = match after.strip_prefix('-') {
            Some(after) => (true, after),
            None => (false, after),
        };
        let (quote, after) = match after.chars().next() {
            Some(quote @ ('"' | '\'')) => (Some(quote), &after[1..]),
            _ => (None, after),
        };
        let len = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        let (word, tail) = after.split_at(len);
        if word.is_empty()
            || word.starts_with(|c: char| c.is_ascii_digit())
            || quote.is_some_and(|quote| !tail.starts_with(quote))
        {
            continue;
        }
        found.push(Heredoc {
            word: word.to_owned(),
            tabs,
        });
    }
    found
}
