//! Writing YAML that readers of YAML 1.1 (CloudFormation, PyYAML) and 1.2 take for the same.
//!
//! Texts stand bare only where no reader can take them for anything else: quotes cost nothing, and `no`, `1.10` and
//! `2026-01-01` are three types in three readers. A text of several lines is a literal block, byte for byte, or, where a block
//! cannot hold it, a line in double quotes.

/// A value to write.
pub(super) enum Yaml {
    /// A text, quoted as needed.
    Text(String),
    /// A number, `true` or `false`.
    Bare(String),
    /// A text behind a tag, such as `!Sub`.
    Tagged(&'static str, String),
    Seq(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// The document with these fields.
pub(super) fn document(fields: &[(String, Yaml)]) -> String {
    let mut out = String::new();
    map(fields, 0, false, &mut out);
    out
}

/// Fields, each on lines of its own; the first is written where the cursor is if `inline`.
fn map(fields: &[(String, Yaml)], indent: usize, inline: bool, out: &mut String) {
    for (at, (key, value)) in fields.iter().enumerate() {
        if at > 0 || !inline {
            blanks(indent, out);
        }
        out.push_str(&scalar(key));
        out.push(':');
        match value {
            Yaml::Map(inner) if !inner.is_empty() => {
                out.push('\n');
                map(inner, indent + 2, false, out);
            }
            Yaml::Seq(items) if !items.is_empty() => {
                out.push('\n');
                seq(items, indent + 2, out);
            }
            other => {
                out.push(' ');
                leaf(other, indent + 2, out);
            }
        }
    }
}

fn seq(items: &[Yaml], indent: usize, out: &mut String) {
    for item in items {
        blanks(indent, out);
        match item {
            Yaml::Map(inner) if !inner.is_empty() => {
                out.push_str("- ");
                map(inner, indent + 2, true, out);
            }
            Yaml::Seq(inner) if !inner.is_empty() => {
                out.push_str("-\n");
                seq(inner, indent + 2, out);
            }
            other => {
                out.push_str("- ");
                leaf(other, indent + 2, out);
            }
        }
    }
}

/// What fits behind a key, with the end of its line.
fn leaf(value: &Yaml, indent: usize, out: &mut String) {
    match value {
        Yaml::Text(text) if is_block(text) => return block(text, indent, out),
        Yaml::Text(text) => out.push_str(&scalar(text)),
        Yaml::Bare(text) => out.push_str(text),
        Yaml::Tagged(tag, text) => {
            out.push_str(tag);
            out.push(' ');
            out.push_str(&scalar(text));
        }
        // Those with content have lines of their own.
        Yaml::Seq(_) => out.push_str("[]"),
        Yaml::Map(_) => out.push_str("{}"),
    }
    out.push('\n');
}

fn blanks(count: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', count));
}

/// A text on one line.
fn scalar(text: &str) -> String {
    if is_bare(text) {
        text.to_owned()
    } else if text.chars().all(is_printable) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        double_quoted(text)
    }
}

/// Words that some reader takes for no text (YAML 1.1, types bool and null).
const NO_TEXTS: &[&str] = &["true", "false", "yes", "no", "on", "off", "null", "y", "n"];

/// True when no reader takes the text for anything but text.
fn is_bare(text: &str) -> bool {
    // What begins with a letter is no number, date, null or document marker.
    let starts = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'/');
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_./ :@+()".contains(&b));
    starts
        && plain
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !NO_TEXTS.contains(&text.to_ascii_lowercase().as_str())
}

/// A character that may stand in a line of any style.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

/// True when a literal block holds the text byte for byte, and is worth it.
fn is_block(text: &str) -> bool {
    let mut lines = text.split('\n');
    let last = lines.next_back().unwrap_or_default();
    let whole: Vec<&str> = lines.collect();
    let first = text.split('\n').find(|line| !line.is_empty());
    !whole.is_empty()
        && text
            .chars()
            .all(|c| c == '\n' || c == '\t' || is_printable(c))
        // Readers differ in what they make of these.
        && first.is_some_and(|line| !line.trim().is_empty() && !line.starts_with('\t'))
        && whole
            .iter()
            .rev()
            .find(|line| !line.is_empty())
            .is_some_and(|line| !line.trim().is_empty())
        && (last.is_empty() || !last.trim().is_empty())
}

/// A literal block (YAML 1.2, section 8.1.2), with the end of its last line.
fn block(text: &str, indent: usize, out: &mut String) {
    let body = text.trim_end_matches('\n');
    out.push('|');
    // Blanks and empty lines at the start are content, not indentation.
    if text.starts_with([' ', '\n']) {
        out.push('2');
    }
    match text.len() - body.len() {
        0 => out.push('-'),
        1 => {}
        _ => out.push('+'),
    }
    out.push('\n');
    for line in body.split('\n') {
        if !line.is_empty() {
            blanks(indent, out);
            out.push_str(line);
        }
        out.push('\n');
    }
    out.extend(std::iter::repeat_n(
        '\n',
        (text.len() - body.len()).saturating_sub(1),
    ));
}

/// Double quotes with the escapes that YAML 1.1 has too.
fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => match u32::from(c) {
                code @ ..=0xff => out.push_str(&format!("\\x{code:02x}")),
                code @ ..=0xffff => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use amiforge_types::Diagnostics;
    use proptest::prelude::*;

    use super::*;
    use crate::node::Node;
    use crate::yaml::parse_node;

    fn written(text: &str) -> String {
        let entry = |key: &str| (key.to_owned(), Yaml::text(text));
        let item = Yaml::Map(vec![entry("in"), ("after".to_owned(), Yaml::text("x"))]);
        document(&[
            entry("first"),
            ("list".to_owned(), Yaml::Seq(vec![Yaml::text(text), item])),
            entry("last"),
        ])
    }

    /// What our own reader makes of it; the tests of the command ask PyYAML too.
    fn comes_back(text: &str) {
        let yaml = written(text);
        let mut diags = Diagnostics::new();
        let node = parse_node(&yaml, &mut diags)
            .unwrap_or_else(|| panic!("{text:?} as\n{yaml}\n{diags:?}"));
        let list = node.get("list").unwrap();
        let crate::node::NodeKind::Seq(items) = &list.kind else {
            panic!("{yaml}")
        };
        let found = [
            node.get("first"),
            node.get("last"),
            items.first(),
            items.get(1).and_then(|item| item.get("in")),
        ];
        for node in found {
            let node: &Node = node.unwrap_or_else(|| panic!("{text:?} as\n{yaml}"));
            assert_eq!(node.as_text(), Some(text), "as\n{yaml}");
        }
    }

    #[test]
    fn texts_come_back_as_they_were() {
        for text in [
            "",
            " ",
            "x",
            "x ",
            " x",
            "yes",
            "No",
            "null",
            "~",
            "1.0",
            "0755",
            "1e3",
            "0x1f",
            "2026-01-01",
            "12:30:45",
            "a: b",
            "a:b",
            "a #b",
            "#a",
            "- a",
            "-",
            "a:",
            "*a",
            "&a",
            "!a",
            "%a",
            "@a",
            "`a",
            "|",
            ">",
            "{a",
            "[a",
            "a,b",
            "'a'",
            "\"a\"",
            "it's",
            "a\\b",
            "<<",
            "=",
            "...",
            "---",
            "\t",
            "a\tb",
            "\u{feff}a",
            "\u{85}",
            "\u{2028}",
            "é",
            "😀",
            "\0",
            "\u{7f}",
            "\n",
            "\n\n",
            "a\n",
            "a\nb",
            "a\n\n",
            "\na",
            "\n\n a\n",
            "  a\nb\n",
            "a\r\nb\r\n",
            "a \n b\n",
            "a\n \n",
            "a\n  ",
            "a\n\tb\n",
            "\ta\n",
            "# a\nb\n",
            "a\n\n\nb",
            "a\n---\nb\n",
            "{{ x }}",
            "{{ x }}\n{{ y }}\n",
            "a\n\u{2028}b\n",
            "a\n   \nb\n",
            "   \na\n",
            "a\n   \n\n",
        ] {
            comes_back(text);
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "[ -~\n\t]{0,40}") {
            comes_back(&text);
        }

        #[test]
        fn any_characters_come_back(text in "\\PC{0,20}(\n\\PC{0,20}){0,3}") {
            comes_back(&text);
        }
    }

    #[test]
    fn documents_are_blocks() {
        assert_eq!(
            document(&[("Data".to_owned(), Yaml::text("name: web\n\nphases: []\n"))]),
            "Data: |\n  name: web\n\n  phases: []\n"
        );
    }
}
