//! What the fuzz targets reach of the readers that are not public; compiled for them alone.

use std::collections::BTreeSet;

use crate::apt::index::{self, Universe};
use crate::apt::release::Release;
use crate::apt::{deb822, relation};
use crate::solver::{self, Goal};

/// Reads a text as every kind of control file there is: paragraphs, a changelog, a Release file, an index. Of an
/// index that is read, its first package is resolved and put in order.
pub fn deb822(text: &str) {
    for paragraph in deb822::Paragraphs::new(text) {
        let Ok(paragraph) = paragraph else { break };
        for (_, value) in paragraph.fields() {
            let _ = relation::parse(value, "amd64");
            let _ = deb822::value_lines(value).count();
        }
    }
    let _ = crate::changelog::parse(text);
    let _ = Release::parse(text, "fuzz");
    let mut entries = Vec::new();
    if index::parse(text, "fuzz", "amd64", 0, &mut entries).is_err() {
        return;
    }
    let Some(first) = entries.first().map(|entry| entry.name) else {
        return;
    };
    let universe = Universe::new(entries, "amd64", |_| 500);
    let goal = Goal {
        wanted: vec![first],
        exclude: BTreeSet::new(),
        suites: vec!["fuzz"],
        arch: "amd64",
    };
    if let Ok(picked) = solver::solve(&universe, &goal) {
        let order = solver::installation_order(&universe, &picked, "amd64");
        assert_eq!(order.len(), picked.len(), "every package has its place");
    }
}

/// Reads a text as everything that a registry, a layout or a file of logins says.
pub fn oci(text: &str) {
    crate::oci::fuzz(text);
}
