//! Options of `apt.conf` (apt.conf(5)), as far as they concern fetching.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::hostconf::read_small;
use crate::SourceError;

/// Options by their full, lower-case name; of several values the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AptConfig {
    values: BTreeMap<String, String>,
}

impl AptConfig {
    /// Reads `etc/apt/apt.conf.d/*` in the order of their names, then `etc/apt/apt.conf`.
    pub(crate) fn read(host_root: &Path) -> Result<Self, SourceError> {
        let mut config = Self::default();
        let apt = host_root.join("etc/apt");
        let mut files = parts(&apt.join("apt.conf.d"), &["conf"], true)?;
        files.push(apt.join("apt.conf"));
        for path in files {
            if let Some(text) = read_small(&path)? {
                config
                    .parse(&text)
                    .map_err(|(line, reason)| SourceError::Config {
                        path,
                        line,
                        reason: reason.to_owned(),
                    })?;
            }
        }
        Ok(config)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values
            .get(&name.to_ascii_lowercase())
            .map(String::as_str)
    }

    /// A truth value as apt reads it.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)?.to_ascii_lowercase().as_str() {
            "yes" | "true" | "with" | "on" | "enable" | "1" => Some(true),
            "no" | "false" | "without" | "off" | "disable" | "0" => Some(false),
            _ => None,
        }
    }

    /// Reads one file. The error is its line and what is wrong.
    fn parse(&mut self, text: &str) -> Result<(), (usize, &'static str)> {
        let mut scopes: Vec<String> = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut chars = text.chars().peekable();
        let mut line = 1;
        let mut line_start = true;
        while let Some(c) = chars.next() {
            let at_start = std::mem::replace(&mut line_start, c == '\n');
            match c {
                '\n' => line += 1,
                '#' if at_start => {
                    // `#clear` removes options; nothing read here is ever set twice for that to matter.
                    while chars.next_if(|c| *c != '\n').is_some() {}
                }
                '/' if chars.peek() == Some(&'/') => {
                    while chars.next_if(|c| *c != '\n').is_some() {}
                }
                '/' if chars.peek() == Some(&'*') => {
                    let mut last = ' ';
                    loop {
                        let c = chars.next().ok_or((line, "comment without an end"))?;
                        line += usize::from(c == '\n');
                        if last == '*' && c == '/' {
                            break;
                        }
                        last = c;
                    }
                }
                '"' => {
                    let mut word = String::new();
                    loop {
                        match chars.next() {
                            Some('"') => break,
                            Some('\n') | None => {
                                return Err((line, "text without a closing quote"));
                            }
                            Some(c) => word.push(c),
                        }
                    }
                    words.push(word);
                }
                '{' => {
                    let name = words.first().cloned().unwrap_or_default();
                    words.clear();
                    let scope = match scopes.last() {
                        Some(parent) if !parent.is_empty() => format!("{parent}::{name}"),
                        _ => name,
                    };
                    if scopes.len() >= 32 {
                        return Err((line, "nested too deeply"));
                    }
                    scopes.push(scope);
                }
                '}' => {
                    self.set(scopes.last(), &mut words);
                    if scopes.pop().is_none() {
                        return Err((line, "`}` without `{`"));
                    }
                }
                ';' => self.set(scopes.last(), &mut words),
                c if c.is_whitespace() => {}
                c => {
                    let mut word = String::from(c);
                    while let Some(c) =
                        chars.next_if(|c| !c.is_whitespace() && !";{}\"".contains(*c))
                    {
                        word.push(c);
                    }
                    words.push(word);
                }
            }
        }
        if scopes.is_empty() {
            Ok(())
        } else {
            Err((line, "`{` without `}`"))
        }
    }

    fn set(&mut self, scope: Option<&String>, words: &mut Vec<String>) {
        let mut words = std::mem::take(words).into_iter();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            return;
        };
        let full = match scope {
            Some(scope) if !scope.is_empty() => format!("{scope}::{name}"),
            _ => name,
        };
        self.values.insert(full.to_ascii_lowercase(), value);
    }
}

/// Files of a `.d` folder that apt reads: by extension (or without one), sorted by name.
pub(crate) fn parts(
    dir: &Path,
    extensions: &[&str],
    bare: bool,
) -> Result<Vec<PathBuf>, SourceError> {
    let mut out = Vec::new();
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(e) => return Err(SourceError::io(dir, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| SourceError::io(dir, e))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let wanted = match name.rsplit_once('.') {
            Some((_, extension)) => extensions.contains(&extension),
            None => bare,
        };
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if wanted && plain && !name.starts_with('.') {
            out.push(entry.path());
        }
    }
    out.sort();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_and_flat_options() {
        let mut config = AptConfig::default();
        config
            .parse(
                "// a\nAcquire::Check-Valid-Until \"false\";\n/* b\n { */\nAcquire { http { Proxy \"p:1\"; }; };\n\
                 # c\nAPT::X { \"one\"; \"two\"; };\nAcquire::http::Proxy::h DIRECT;\nD::Post {\"x; y\";};",
            )
            .unwrap();
        assert_eq!(config.flag("acquire::check-valid-until"), Some(false));
        assert_eq!(config.get("Acquire::http::Proxy"), Some("p:1"));
        assert_eq!(config.get("Acquire::HTTP::Proxy::h"), Some("DIRECT"));
        for bad in ["A {", "}", "A \"x", "/* "] {
            assert!(AptConfig::default().parse(bad).is_err(), "{bad}");
        }
    }
}
