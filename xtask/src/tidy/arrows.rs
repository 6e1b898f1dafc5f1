//! Crates may use only what the table in ARCHITECTURE.md lets them use; pure ones are fenced.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::{Findings, Repo};
use crate::util::{cargo, stdout};

/// Crates of the registry that do I/O; a pure crate uses none of them.
const EFFECTS: &[&str] = &[
    "fs-err",
    "tempfile",
    "rustix",
    "libc",
    "nix",
    "ureq",
    "rand",
    "getrandom",
    "fastrand",
    "indicatif",
    "tracing-subscriber",
];

/// The pattern that all fences follow.
const FENCE: &str = "crates/types/clippy.toml";

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    may_use: BTreeSet<String>,
    pure: bool,
}

pub(super) fn check(repo: &Repo, findings: &mut Findings) -> Result<()> {
    let table = table(
        repo.text("ARCHITECTURE.md")
            .context("ARCHITECTURE.md is missing")?,
    );
    let metadata =
        stdout(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--locked"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let mut seen = BTreeSet::new();
    for package in metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?
    {
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let folder = manifest
            .trim_end_matches("/Cargo.toml")
            .rsplit('/')
            .next()
            .unwrap_or_default();
        if !manifest.ends_with(&format!("/crates/{folder}/Cargo.toml")) {
            continue;
        }
        seen.insert(folder.to_owned());
        match table.get(folder) {
            Some(row) => check_package(repo, folder, package, row, findings),
            None => findings.push(format!(
                "crates/{folder}: not in the table of ARCHITECTURE.md"
            )),
        }
    }
    let gone = table.keys().filter(|name| !seen.contains(*name));
    findings.extend(
        gone.map(|name| format!("ARCHITECTURE.md: the table has `{name}`, the workspace has not")),
    );
    Ok(())
}

fn check_package(
    repo: &Repo,
    folder: &str,
    package: &serde_json::Value,
    row: &Row,
    findings: &mut Findings,
) {
    let manifest = format!("crates/{folder}/Cargo.toml");
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        // Tests may use anything (a test compares with an independent reader, say).
        if dependency["kind"] == "dev" {
            continue;
        }
        let name = dependency["name"].as_str().unwrap_or_default();
        if dependency["path"].is_string() {
            let used = name.strip_prefix("amiforge-").unwrap_or("cli");
            if !row.may_use.contains(used) {
                findings.push(format!(
                    "{manifest}: `{folder}` may not use `{used}` (see the table in ARCHITECTURE.md)"
                ));
            }
        } else if row.pure && EFFECTS.contains(&name) {
            findings.push(format!(
                "{manifest}: `{folder}` is pure and may not use {name}"
            ));
        }
        // Most libraries are called like their package; `md-5` and a few others leave the dash out.
        let words = [name.replace('-', "_"), name.replace('-', "")];
        let inside = format!("crates/{folder}/");
        let named = repo.texts(".rs").any(|(path, text)| {
            path.starts_with(&inside) && words.iter().any(|w| mentions(text, w))
        });
        if !named {
            findings.push(format!("{manifest}: {name} is not used"));
        }
    }
    if row.pure {
        let fence = format!("crates/{folder}/clippy.toml");
        if repo.text(&fence) != repo.text(FENCE) {
            findings.push(format!(
                "{fence}: a pure crate has the same fence as {FENCE}"
            ));
        }
    }
}

/// Whether `word` stands in the text as a word of its own.
fn mentions(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].chars().next_back().is_some_and(part)
            && !text[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Reads the table `| Crate | Owns | May use | Pure |`; a dash in "May use" is nothing.
fn table(text: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let lines = text
        .lines()
        .skip_while(|l| !(l.starts_with("| Crate |") && l.contains("May use")));
    for line in lines.skip(2).take_while(|l| l.starts_with('|')) {
        if let [name, _owns, may_use, pure] = line
            .trim_matches('|')
            .split('|')
            .map(str::trim)
            .collect::<Vec<_>>()[..]
        {
            let may_use = may_use
                .split_whitespace()
                .map(|w| w.trim_matches('`'))
                .filter(|w| *w != "–")
                .map(str::to_owned);
            rows.insert(
                name.trim_matches('`').to_owned(),
                Row {
                    may_use: may_use.collect(),
                    pure: pure == "yes",
                },
            );
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "text\n| Crate | Owns | May use | Pure |\n| --- | --- | --- | --- |\n\
        | `types` | units | – | yes |\n| `fs` | ext4 | types tree | yes |\n| `vm` | QEMU | types | no |\n\nmore | text\n";

    fn package(dependencies: serde_json::Value) -> serde_json::Value {
        serde_json::json!({ "dependencies": dependencies })
    }

    #[test]
    fn the_table_is_read() {
        let rows = table(TABLE);
        assert_eq!(rows.keys().collect::<Vec<_>>(), ["fs", "types", "vm"]);
        assert_eq!(
            rows["fs"],
            Row {
                may_use: ["types".to_owned(), "tree".to_owned()].into(),
                pure: true
            }
        );
        assert_eq!(
            rows["types"],
            Row {
                may_use: BTreeSet::new(),
                pure: true
            }
        );
        assert!(!rows["vm"].pure);
    }

    #[test]
    fn arrows_effects_and_fences_are_held() {
        let repo = Repo::of(&[
            (FENCE, "fence"),
            ("crates/fs/clippy.toml", "gap"),
            (
                "crates/fs/src/lib.rs",
                "use amiforge_vm::X; use fs_err::File; use amiforge_types::Y; use crc32c::z;",
            ),
        ]);
        let dependencies = serde_json::json!([
            { "name": "amiforge-vm", "path": "/x", "kind": null },
            { "name": "amiforge-types", "path": "/x", "kind": null },
            { "name": "amiforge-store", "path": "/x", "kind": "dev" },
            { "name": "fs-err", "kind": null },
            { "name": "crc32c", "kind": null },
            { "name": "crc32", "kind": null },
        ]);
        let mut findings = Findings::new();
        check_package(
            &repo,
            "fs",
            &package(dependencies),
            &table(TABLE)["fs"],
            &mut findings,
        );
        assert_eq!(
            findings,
            [
                "crates/fs/Cargo.toml: `fs` may not use `vm` (see the table in ARCHITECTURE.md)",
                "crates/fs/Cargo.toml: `fs` is pure and may not use fs-err",
                "crates/fs/Cargo.toml: crc32 is not used",
                "crates/fs/clippy.toml: a pure crate has the same fence as crates/types/clippy.toml",
            ]
        );
    }
}
