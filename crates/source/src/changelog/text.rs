//! The text of a changelog (deb-changelog(5)).
//!
//! ```text
//! package (version) distributions; urgency=medium
//!
//!   * change details
//!     more details
//!
//!  -- name <address>  date
//! ```

use super::ChangelogEntry;

/// Longest line, in characters: what is longer is no text for people.
const MAX_LINE: usize = 2000;

/// Most lines of one entry.
const MAX_LINES: usize = 5000;

/// The entries, in the order of the text. What is in no entry is passed over, as dpkg does; so are entries without an end, of
/// which the text may have lost more.
pub(crate) fn parse(text: &str) -> Vec<ChangelogEntry> {
    let mut entries = Vec::new();
    let mut open: Option<ChangelogEntry> = None;
    for line in text.lines() {
        if let Some(entry) = heading(line) {
            open = Some(entry);
            continue;
        }
        let Some(entry) = &mut open else { continue };
        if let Some(rest) = line.strip_prefix(" -- ") {
            let (maintainer, date) = rest.split_once(">  ").unwrap_or((rest, ""));
            entry.maintainer = plain(maintainer);
            if !date.is_empty() {
                entry.maintainer.push('>');
            }
            entry.date = plain(date.trim());
            let is_blank = |line: &String| line.is_empty();
            while entry.changes.first().is_some_and(is_blank) {
                entry.changes.remove(0);
            }
            while entry.changes.last().is_some_and(is_blank) {
                entry.changes.pop();
            }
            entries.extend(open.take());
        } else if entry.changes.len() < MAX_LINES {
            entry.changes.push(plain(line.trim_end()));
        }
    }
    entries
}

fn heading(line: &str) -> Option<ChangelogEntry> {
    let (source, rest) = line.split_once(" (")?;
    let (version, rest) = rest.split_once(')')?;
    let (distributions, settings) = rest.split_once(';')?;
    let word = |text: &str, also: &[u8]| {
        let known = |b: u8| b.is_ascii_alphanumeric() || also.contains(&b);
        !text.is_empty() && text.bytes().all(known)
    };
    let is_heading = word(source, b"-+.")
        && word(version, b"-+.~:")
        && distributions
            .split_ascii_whitespace()
            .all(|name| word(name, b"-+."));
    if !is_heading || distributions.trim().is_empty() {
        return None;
    }
    let mut settings = settings.split(',').filter_map(|pair| pair.split_once('='));
    let urgency = settings
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("urgency"))
        .map(|(_, value)| plain(value.trim()));
    Some(ChangelogEntry {
        source: source.to_owned(),
        version: version.to_owned(),
        distributions: distributions.trim().to_owned(),
        urgency,
        changes: Vec::new(),
        maintainer: String::new(),
        date: String::new(),
    })
}

/// A line that can do nothing to a terminal: what drives one, moves the direction of reading or does not show is a
/// replacement character.
fn plain(line: &str) -> String {
    let mut out = String::new();
    for (n, c) in line.chars().enumerate() {
        if n >= MAX_LINE {
            out.push('…');
            break;
        }
        match c {
            '\t' => out.push_str("        "),
            c if c.is_control() || is_hidden(c) => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

/// Zero width, line separators, and marks of reading direction.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}
