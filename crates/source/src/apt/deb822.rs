//! Paragraphs of `Field: value` lines, as apt sources, Release files, package indices and control
//! files have them (deb822(5)).

/// Longest text of one paragraph that is read, in bytes.
pub(crate) const MAX_PARAGRAPH: usize = 1 << 20;

/// One paragraph: fields in the order of the text, values with their continuation lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paragraph<'a> {
    fields: Vec<(&'a str, &'a str)>,
    /// 1-based line of the first field.
    pub(crate) line: usize,
}

impl<'a> Paragraph<'a> {
    /// The value of a field, trimmed; continuation lines keep their leading blank.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| *v)
    }

    /// All fields in order.
    pub(crate) fn fields(&self) -> &[(&'a str, &'a str)] {
        &self.fields
    }
}

/// A text that is not in this format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub(crate) struct ParagraphError {
    pub(crate) line: usize,
    pub(crate) reason: &'static str,
}

/// Splits a text into paragraphs without copying it.
pub(crate) struct Paragraphs<'a> {
    rest: &'a str,
    line: usize,
    limit: usize,
}

impl<'a> Paragraphs<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            line: 0,
            limit: MAX_PARAGRAPH,
        }
    }

    /// Another limit for the length of a paragraph, in bytes.
    pub(crate) fn with_limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(line.strip_suffix('\r').unwrap_or(line))
    }
}

impl<'a> Iterator for Paragraphs<'a> {
    type Item = Result<Paragraph<'a>, ParagraphError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut paragraph = Paragraph::default();
        // The value under construction, as a range of the whole remaining text.
        let base = self.rest;
        let offset_of = |rest: &str| base.len() - rest.len();
        let mut open: Option<(&'a str, usize, usize)> = None;
        loop {
            let start = offset_of(self.rest);
            if start > self.limit {
                self.rest = "";
                return Some(Err(ParagraphError {
                    line: self.line,
                    reason: "paragraph too long",
                }));
            }
            let Some(line) = self.next_line() else { break };
            if line.trim().is_empty() {
                if open.is_some() || !paragraph.fields.is_empty() {
                    break;
                }
                continue;
            }
            if line.starts_with('#') {
                // A comment between lines of one value would break the range: close it there.
                continue;
            }
            if line.starts_with([' ', '\t']) {
                match &mut open {
                    Some((_, _, end)) => *end = start + line.len(),
                    None => {
                        return Some(Err(ParagraphError {
                            line: self.line,
                            reason: "continuation line without a field",
                        }));
                    }
                }
                continue;
            }
            let Some((name, value)) = line.split_once(':') else {
                return Some(Err(ParagraphError {
                    line: self.line,
                    reason: "expected `Field: value`",
                }));
            };
            if name.is_empty() || !name.bytes().all(|b| (33..=126).contains(&b)) {
                return Some(Err(ParagraphError {
                    line: self.line,
                    reason: "bad field name",
                }));
            }
            if let Some((name, from, to)) = open.take() {
                paragraph.fields.push((name, base[from..to].trim()));
            }
            if paragraph.line == 0 {
                paragraph.line = self.line;
            }
            open = Some((name, start + line.len() - value.len(), start + line.len()));
        }
        if let Some((name, from, to)) = open {
            paragraph.fields.push((name, base[from..to].trim()));
        }
        (!paragraph.fields.is_empty()).then_some(Ok(paragraph))
    }
}

/// The lines of a value, blanks around them and empty or comment lines removed.
pub(crate) fn value_lines(value: &str) -> impl Iterator<Item = &str> {
    value
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(str::trim)
        .filter(|l| !l.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_with_continuations_comments_and_blank_lines() {
        let text = "\n# head\nA: 1\nB: x\n y\n# inside\n\tz\n\n\nC:\n last";
        let all: Vec<_> = Paragraphs::new(text).map(|p| p.unwrap()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("a"), Some("1"));
        assert_eq!(
            value_lines(all[0].get("B").unwrap()).collect::<Vec<_>>(),
            ["x", "y", "z"]
        );
        assert_eq!(all[0].line, 3);
        assert_eq!(all[1].get("C"), Some("last"));
    }

    #[test]
    fn bad_lines_are_errors() {
        for text in [" x", "no colon", ": v", "a b: c"] {
            assert!(Paragraphs::new(text).next().unwrap().is_err(), "{text:?}");
        }
    }
}
