//! Every code that a problem can have is explained, and nothing else is.

use std::collections::BTreeSet;
use std::path::Path;

use amiforge_recipe::{codes, explain, nearest_code};

/// Texts in quotes that stand where a code stands: the first argument of what makes a problem.
fn used(text: &str, found: &mut BTreeSet<String>) {
    const MAKERS: [&str; 6] = [
        "error(",
        "error_help(",
        "warning(",
        "Diagnostic::error(",
        "Diagnostic::warning(",
        "problem(",
    ];
    for maker in MAKERS {
        for (at, _) in text.match_indices(maker) {
            let rest = text[at + maker.len()..].trim_start();
            let quoted = rest.strip_prefix('"').and_then(|r| r.split_once('"'));
            if let Some((code, _)) = quoted
                && code.contains('-')
                && code
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                found.insert(code.to_owned());
            }
        }
    }
}

fn sources(dir: &Path, found: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            used(&std::fs::read_to_string(&path).unwrap(), found);
        }
    }
}

/// Codes in the expectations of the fixtures: `12:3: error[code]: …`.
fn expected(dir: &Path, found: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if path.is_dir() {
            expected(&path, found);
        } else if path.ends_with("diagnostics.txt") {
            for line in std::fs::read_to_string(&path).unwrap().lines() {
                let code = ["error[", "warning["].iter().find_map(|start| {
                    let (_, rest) = line.split_once(start)?;
                    Some(rest.split_once("]: ")?.0)
                });
                found.extend(code.filter(|_| !line.starts_with(' ')).map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_code_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    sources(&root.join("src"), &mut found);
    used(
        &std::fs::read_to_string(root.join("../engine/src/load.rs")).unwrap(),
        &mut found,
    );
    expected(&root.join("../../fixtures"), &mut found);
    let known: BTreeSet<String> = codes().map(str::to_owned).collect();
    assert!(codes().is_sorted_by(|a, b| a < b));
    let missing: Vec<_> = found.difference(&known).collect();
    assert!(missing.is_empty(), "not explained: {missing:?}");
    assert!(known.len() > 80);
    // One that no source names any more is of no use.
    let all = |dir: &Path| {
        let mut text = String::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(dir) = todo.pop() {
            for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
                match path.is_dir() {
                    true => todo.push(path),
                    false if path.ends_with("codes.rs") => {}
                    false => text.push_str(&std::fs::read_to_string(&path).unwrap()),
                }
            }
        }
        text
    };
    let text = all(&root.join("src")) + &all(&root.join("../engine/src"));
    let unused: Vec<_> = known
        .iter()
        .filter(|c| !text.contains(&format!("\"{c}\"")))
        .collect();
    assert!(unused.is_empty(), "of no use: {unused:?}");
}

#[test]
fn a_slip_leads_to_the_code_that_was_meant() {
    assert!(explain("duplicate-key").unwrap().contains("twice"));
    assert_eq!(explain("duplicate-keys"), None);
    assert_eq!(nearest_code("duplicate-keys"), Some("duplicate-key"));
    assert_eq!(nearest_code("something else"), None);
}
