//! Rules about Rust files: length, content, unsafe code, registries, one module per hidden choice.

use super::{Findings, Repo};

const MAX_LINES: usize = 900;

/// What no committed source says. Spelled in parts, as this file is checked too.
const FORBIDDEN: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "mend it, or write down why it stays"),
    (concat!("TO", "DO"), "do it, or file it"),
    (concat!("assert!(", "true"), "an assertion that cannot fail"),
];

/// The mark of a test that the runner skips.
const SKIPPED: &str = concat!("#[ign", "ore");

/// Libraries that one file alone may name, so that the choice can turn.
const HIDDEN: &[&str] = &["saphyr_parser"];

/// Crates that may hold unsafe code.
const UNSAFE: &[&str] = &["crates/sys/"];

pub(super) fn check(repo: &Repo, findings: &mut Findings) {
    for (path, text) in repo.texts(".rs") {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            findings.push(format!(
                "{path}: {lines} lines, more than {MAX_LINES}; split it by noun"
            ));
        }
        for (number, line) in text.lines().enumerate() {
            for (word, why) in FORBIDDEN {
                if line.contains(word) {
                    findings.push(format!("{path}:{}: `{word}`: {why}", number + 1));
                }
            }
        }
        skipped_tests(path, text, findings);
        if is_crate_root(path) {
            if !UNSAFE.iter().any(|dir| path.starts_with(dir))
                && !text.contains("#![forbid(unsafe_code)]")
            {
                findings.push(format!("{path}: a crate root says #![forbid(unsafe_code)]"));
            }
            if !text.starts_with("//!") {
                findings.push(format!("{path}: a crate root opens with its documentation"));
            }
            if !text
                .lines()
                .any(|l| !l.trim().is_empty() && !l.starts_with("//") && !l.starts_with("#!"))
            {
                findings.push(format!("{path}: the crate is empty"));
            }
        }
        registries(path, text, findings);
    }
    for library in HIDDEN {
        let users: Vec<_> = repo
            .texts(".rs")
            .filter(|(path, text)| {
                !path.starts_with("xtask/") && text.contains(&format!("{library}::"))
            })
            .map(|(path, _)| path)
            .collect();
        if users.len() > 1 {
            findings.push(format!(
                "{library} is named in more than one file: {}",
                users.join(", ")
            ));
        }
    }
}

fn is_crate_root(path: &str) -> bool {
    let inside = path
        .strip_prefix("crates/")
        .and_then(|p| p.split_once('/'))
        .map(|(_, p)| p);
    matches!(inside, Some("src/lib.rs" | "src/main.rs")) || path == "xtask/src/main.rs"
}

/// A test that the runner skips never runs, unless another one starts it as its child process and says so.
fn skipped_tests(path: &str, text: &str, findings: &mut Findings) {
    for (at, mark) in text.match_indices(SKIPPED) {
        let runner = text[at + mark.len()..]
            .strip_prefix(" = \"run by ")
            .and_then(|rest| rest.split('"').next());
        if !runner.is_some_and(|name| text.contains(&format!("fn {name}("))) {
            let line = text[..at].lines().count() + 1;
            findings.push(format!(
                "{path}:{line}: a skipped test says `run by <test of this file>`"
            ));
        }
    }
}

/// A list whose comment says "sorted by name" is.
fn registries(path: &str, text: &str, findings: &mut Findings) {
    let mut announced = false;
    let mut name = String::new();
    let mut entries: Option<Vec<String>> = None;
    for line in text.lines() {
        let line = line.trim();
        if let Some(list) = &mut entries {
            let (part, end) = line
                .split_once("];")
                .map_or((line, false), |(part, _)| (part, true));
            list.extend(names(part));
            if end {
                report_unsorted(path, &name, list, findings);
                entries = None;
            }
        } else if line.starts_with("///") {
            announced |= line.contains("sorted by name");
        } else if announced && (line.contains("static ") || line.contains("const ")) {
            announced = false;
            name = line.split([':', '=']).next().unwrap_or_default().to_owned();
            let Some((_, rest)) = line.split_once("= &[").or_else(|| line.split_once("= [")) else {
                continue;
            };
            match rest.split_once("];") {
                Some((all, _)) => {
                    report_unsorted(path, &name, &names(all).collect::<Vec<_>>(), findings)
                }
                None => entries = Some(names(rest).collect()),
            }
        } else if !line.starts_with("#[") {
            announced = false;
        }
    }
}

fn names(part: &str) -> impl Iterator<Item = String> {
    let code = part.split("//").next().unwrap_or_default();
    let last = |entry: &str| entry.rsplit("::").next().unwrap_or_default().to_owned();
    let entries = code
        .split(',')
        .map(|e| e.trim().trim_start_matches('&'))
        .filter(|e| !e.is_empty());
    entries.map(last).collect::<Vec<_>>().into_iter()
}

fn report_unsorted(path: &str, name: &str, entries: &[String], findings: &mut Findings) {
    if let Some(pair) = entries.windows(2).find(|pair| pair[0] > pair[1]) {
        findings.push(format!(
            "{path}: {name} is not sorted: {} stands before {}",
            pair[0], pair[1]
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Findings {
        let mut found = Findings::new();
        check(&Repo::of(&[(path, text)]), &mut found);
        found
    }

    #[test]
    fn long_files_and_forbidden_words_are_found() {
        assert_eq!(findings("crates/x/src/a.rs", &"\n".repeat(901)).len(), 1);
        assert_eq!(findings("crates/x/src/a.rs", &"\n".repeat(900)).len(), 0);
        let text = FORBIDDEN
            .iter()
            .map(|(word, _)| format!("{word}\n"))
            .collect::<String>();
        assert_eq!(findings("crates/x/src/a.rs", &text).len(), FORBIDDEN.len());
    }

    #[test]
    fn a_skipped_test_names_who_runs_it() {
        let text =
            |reason: &str| format!("{SKIPPED}{reason}]\nfn child() {{}}\nfn parent() {{}}\n");
        assert_eq!(findings("crates/x/src/a.rs", &text("")).len(), 1);
        assert_eq!(
            findings("crates/x/src/a.rs", &text(" = \"run by nobody\"")).len(),
            1
        );
        assert_eq!(
            findings("crates/x/src/a.rs", &text(" = \"run by parent\"")).len(),
            0
        );
    }

    #[test]
    fn crate_roots_are_documented_safe_and_not_empty() {
        assert_eq!(
            findings("crates/x/src/lib.rs", "//! Doc.\n#![forbid(unsafe_code)]\n").len(),
            1
        );
        assert_eq!(findings("crates/x/src/lib.rs", "pub mod a;\n").len(), 2);
        assert_eq!(
            findings(
                "crates/x/src/lib.rs",
                "//! Doc.\n#![forbid(unsafe_code)]\nmod a;\n"
            )
            .len(),
            0
        );
        assert_eq!(
            findings("crates/sys/src/lib.rs", "//! Doc.\nmod a;\n").len(),
            0
        );
    }

    #[test]
    fn unsorted_registries_are_found() {
        let list = |entries: &str| {
            format!("/// All, sorted by name.\npub static ALL: &[&dyn A] = &[{entries}];\n")
        };
        assert_eq!(
            findings("crates/x/src/a.rs", &list("&Copy, &Create")).len(),
            0
        );
        assert_eq!(
            findings("crates/x/src/a.rs", &list("&Create, &Copy")).len(),
            1
        );
        assert_eq!(
            findings(
                "crates/x/src/a.rs",
                &list("\n    &m::Copy,\n    &a::Create, // why\n")
            )
            .len(),
            0
        );
        assert_eq!(
            findings(
                "crates/x/src/a.rs",
                &list("\n    &a::Create,\n    &m::Copy,\n")
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_hidden_library_has_one_user() {
        let mut found = Findings::new();
        let text = "use saphyr_parser::Parser;";
        check(&Repo::of(&[("crates/x/src/a.rs", text)]), &mut found);
        assert_eq!(found.len(), 0);
        check(
            &Repo::of(&[("crates/x/src/a.rs", text), ("crates/x/src/b.rs", text)]),
            &mut found,
        );
        assert_eq!(found.len(), 1);
    }
}
