//! Folded blocks (`>`): YAML joins their lines with blanks, which texts of several lines seldom want.

use amiforge_types::{Diagnostic, Span};

use crate::inline::block_start;
use crate::node::{Node, NodeKind, Style};

/// Whether a folded block stands at `span`, which begins at its sign or at its first character.
pub(crate) fn is_folded(span: Span, source: &str) -> bool {
    block_start(span, source, '>').is_some()
}

/// That a text loses its lines.
pub(crate) fn joined(what: &str, span: Span) -> Diagnostic {
    let message =
        format!("{what} stands in a folded block (`>`), which joins its lines with blanks");
    Diagnostic::warning("folded-script", span, message)
        .with_help("write `|` in place of `>` to keep the lines")
}

/// The problem of a command in a folded block whose lines are commands of their own.
pub(crate) fn command(node: &Node, source: &str) -> Option<Diagnostic> {
    let quoted = matches!(&node.kind, NodeKind::Scalar(s) if s.style == Style::Quoted);
    if !quoted {
        return None;
    }
    let block = source.get(block_start(node.span, source, '>')?..node.span.end.offset)?;
    let mut base = None;
    let mut last: Option<&str> = None;
    let mut quote = None;
    for line in block.lines() {
        let inside = quote.is_some();
        quote = open_quote(quote, line);
        let text = line.trim();
        let indent = line.len() - line.trim_start().len();
        // A blank line is a line break, and lines that are indented more are kept.
        if text.is_empty() || indent > *base.get_or_insert(indent) {
            last = None;
            continue;
        }
        if !inside && last.is_some_and(|previous| begins_anew(previous, text)) {
            return Some(joined("this script", node.span));
        }
        last = Some(text);
    }
    None
}

/// Whether a line can only be meant as a command of its own after another one.
fn begins_anew(previous: &str, line: &str) -> bool {
    // After a comment everything is part of it.
    if previous.starts_with('#') || line.starts_with('#') {
        return true;
    }
    let goes_on = previous.ends_with([';', '&', '|', '(', '{', '\\'])
        || ["then", "do", "else"].contains(&last_word(previous));
    if goes_on {
        return false;
    }
    // Alone on a line, nothing else than these.
    const KEYWORDS: [&str; 7] = ["do", "done", "else", "esac", "fi", "then", "}"];
    const COMMANDS: [&str; 12] = [
        "case", "cd", "echo", "elif", "export", "for", "function", "if", "set", "source", "sudo",
        "while",
    ];
    // What these take is a command itself.
    const CARRIERS: [&str; 9] = [
        "chroot", "docker", "env", "kubectl", "nohup", "podman", "ssh", "su", "xargs",
    ];
    let (word, head) = (first_word(line).trim_end_matches(';'), first_word(previous));
    // A word alone may as well be a package: `apt-get install -y`, `sudo`.
    let has_more = line.split_whitespace().nth(1).is_some();
    let again = word.len() > 1 && !word.starts_with('-') && word == head;
    let command = COMMANDS.contains(&word) && !CARRIERS.contains(&head);
    KEYWORDS.contains(&word) || (has_more && (again || command))
}

/// The quote that is open after a line, when `quote` was before it.
fn open_quote(mut quote: Option<char>, line: &str) -> Option<char> {
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('"') | None, '\\') => {
                chars.next();
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            // A comment, with an apostrophe perhaps.
            (None, '#') => break,
            _ => {}
        }
    }
    quote
}

fn first_word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

fn last_word(line: &str) -> &str {
    line.split_whitespace().next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> bool {
        let node = crate::yaml::parse_node(text, &mut amiforge_types::Diagnostics::new()).unwrap();
        let NodeKind::Seq(items) = &node.kind else {
            panic!("{node:?}");
        };
        command(&items[0], text).is_some()
    }

    #[test]
    fn lines_that_are_commands_are_told_from_one_long_command() {
        for text in [
            "- >\n  apt-get update\n  apt-get install -y nginx\n",
            "- >-\n  # first\n  ls\n",
            "-  >+\n\n  set -e\n  cd /srv\n",
            "- > # what to do\n  set -e\n  cd /srv\n",
            "- >2\n  if true; then\n  ls\n  fi\n",
            "- >\r\n  mkdir /srv\r\n  echo done\r\n",
            "-\n  >\n  mkdir /srv\n  sudo ls\n",
        ] {
            assert!(told(text), "{text}");
        }
        for text in [
            "- |\n  apt-get update\n  apt-get install -y nginx\n",
            "- >\n  apt-get install -y\n  nginx\n  curl\n",
            "- >\n  apt-get install -y\n  curl\n  sudo\n",
            "- >\n  pip install --upgrade\n  pip\n  setuptools\n",
            "- >\n  ssh host\n  sudo systemctl restart x\n",
            "- >\n  aws ssm send-command\n  --parameters commands=\"\n  sudo yum update -y\"\n",
            "- >\n  echo 'line one\n  echo two'\n",
            "- >-\n  apt-get update &&\n  apt-get install -y nginx\n",
            "- >\n  ls\n\n  ls\n",
            "- >\n  curl -o x\n  -L https://example.com\n",
            "- 'ls >\n  echo a\n  echo b'\n",
            "- ls >\n  echo a\n  echo b\n",
            "- 'a>\n\n  echo a\n  echo b'\n",
            "- >\n  ls\n    echo a\n",
            "- echo '\n\n  a'\n",
        ] {
            assert!(!told(text), "{text}");
        }
    }
}
