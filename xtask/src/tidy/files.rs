//! Rules about all files: size, line ends, links in documents, fixtures with their expectations.

use std::collections::BTreeMap;

use super::{Findings, MAX_BYTES, Repo};

/// Documents with a fixed length.
const MAX_DOCUMENT_LINES: &[(&str, usize)] = &[("ARCHITECTURE.md", 200)];

pub(super) fn check(repo: &Repo, findings: &mut Findings) {
    for file in &repo.files {
        if file.bytes > MAX_BYTES {
            findings.push(format!(
                "{}: {} bytes; keep large data out of the repository",
                file.path, file.bytes
            ));
        }
        let code = file.path.ends_with(".rs")
            || file.path.ends_with(".toml")
            || file.path.ends_with(".md");
        if let Some(text) = file.text.as_deref().filter(|t| code && !t.is_empty()) {
            if !text.ends_with('\n') {
                findings.push(format!("{}: no line end at the end", file.path));
            }
            if text.contains('\r') {
                findings.push(format!("{}: carriage returns", file.path));
            }
        }
    }
    for (path, limit) in MAX_DOCUMENT_LINES {
        let lines = repo.text(path).map_or(0, |t| t.lines().count());
        if lines > *limit {
            findings.push(format!("{path}: {lines} lines, more than {limit}"));
        }
    }
    for (path, text) in repo.texts(".md") {
        for target in links(text) {
            let base = path.rsplit_once('/').map_or("", |(dir, _)| dir);
            if !repo.root.join(base).join(target).exists() {
                findings.push(format!("{path}: the link to {target} leads nowhere"));
            }
        }
    }
    fixtures(repo, findings);
}

/// Targets of links to files of the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](").filter_map(move |(at, _)| {
        let rest = &text[at + 2..];
        let target = rest[..rest.find(')')?].split('#').next()?;
        (!target.is_empty() && !target.contains("://") && !target.contains(' ')).then_some(target)
    })
}

/// In a folder of fixtures, what some cases have (an expectation), every case has: cases are files
/// `<case>.<kind>…` or folders, and the kinds of the folder's first complete case are the measure.
fn fixtures(repo: &Repo, findings: &mut Findings) {
    let mut folders: BTreeMap<&str, BTreeMap<&str, Vec<&str>>> = BTreeMap::new();
    for file in repo
        .files
        .iter()
        .filter(|f| f.path.starts_with("fixtures/"))
    {
        if let Some((folder, name)) = file.path.rsplit_once('/')
            && folder.ends_with("/err")
            && let Some((case, kind)) = name.split_once('.')
        {
            folders
                .entry(folder)
                .or_default()
                .entry(case)
                .or_default()
                .push(kind);
        }
    }
    for (folder, cases) in folders {
        for (case, kinds) in cases {
            if kinds.len() < 2 {
                findings.push(format!(
                    "{folder}/{case}.{}: has no expected diagnostics beside it",
                    kinds[0]
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_told_from_others() {
        let text = "[a](docs/a.md) [b](https://x.example/) [c](#part) [d](b.md#part) f](x y)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md", "b.md"]);
    }

    #[test]
    fn a_fixture_without_expectation_is_found() {
        let mut found = Findings::new();
        let good = ("fixtures/components/err/tab.yaml", "x");
        check(
            &Repo::of(&[good, ("fixtures/components/err/tab.expected", "y")]),
            &mut found,
        );
        assert_eq!(found, Findings::new());
        check(&Repo::of(&[good]), &mut found);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn long_documents_and_odd_line_ends_are_found() {
        let mut found = Findings::new();
        check(
            &Repo::of(&[
                ("ARCHITECTURE.md", &"x\n".repeat(201)),
                ("a.toml", "a\r\nb"),
            ]),
            &mut found,
        );
        assert_eq!(found.len(), 3);
    }
}
