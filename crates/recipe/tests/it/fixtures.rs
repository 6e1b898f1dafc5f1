//! Every folder in `fixtures/<kind>/{ok,err}/` holds a `document.*` and what it gives:
//! `diagnostics.txt`, and for good ones `canonical.json`. Adding a case is adding a folder; with
//! `AMIFORGE_BLESS=1` the expectations are written instead of compared.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use amiforge_recipe::{check_bytes, check_file, parse_component, parse_document, parse_recipe};
use amiforge_types::{Diagnostic, Severity};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(crate) fn cases(folder: &str) -> Vec<PathBuf> {
    let folder = root().join("fixtures").join(folder);
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "no case in {}", folder.display());
    cases
}

fn document_path(case: &Path) -> PathBuf {
    let files = fs::read_dir(case)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let documents: Vec<_> = files
        .filter(|path| path.file_stem().is_some_and(|s| s == "document"))
        .collect();
    assert_eq!(
        documents.len(),
        1,
        "{} needs exactly one document.*",
        case.display()
    );
    documents[0].clone()
}

pub(crate) fn document(case: &Path) -> Vec<u8> {
    fs::read(document_path(case)).unwrap()
}

fn print(problems: &[Diagnostic]) -> String {
    let mut out = String::new();
    for problem in problems {
        writeln!(out, "{problem}").unwrap();
        if let Some(help) = &problem.help {
            writeln!(out, "    help: {help}").unwrap();
        }
    }
    out
}

fn expect(path: &Path, actual: &str) -> Result<(), String> {
    if std::env::var_os("AMIFORGE_BLESS").is_some() {
        fs::write(path, actual).unwrap();
        return Ok(());
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected == actual {
        return Ok(());
    }
    Err(format!(
        "--- {}\n{expected}--- found\n{actual}",
        path.display()
    ))
}

/// Runs every case; `parse` gives the canonical form of a good document and the problems.
fn run(folder: &str, parse: impl Fn(&str) -> (Option<Vec<u8>>, Vec<Diagnostic>)) {
    let good = folder.ends_with("/ok");
    let mut failed = Vec::new();
    for case in cases(folder) {
        let bytes = document(&case);
        let (canonical, problems) = match check_file(&document_path(&case), &bytes) {
            Ok(text) => parse(text),
            Err(problem) => (None, vec![problem]),
        };
        let errors = problems.iter().any(|p| p.severity == Severity::Error);
        assert_eq!(
            canonical.is_some(),
            !errors,
            "{}: a document is there exactly without errors",
            case.display()
        );
        assert_eq!(errors, !good, "{}:\n{}", case.display(), print(&problems));
        check_spans(&bytes, &problems);
        failed.extend(expect(&case.join("diagnostics.txt"), &print(&problems)).err());
        if let Some(canonical) = canonical {
            let text = String::from_utf8(canonical).unwrap() + "\n";
            failed.extend(expect(&case.join("canonical.json"), &text).err());
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Every place lies in the text, on a character, and line and column agree with the offset.
fn check_spans(bytes: &[u8], problems: &[Diagnostic]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for problem in problems {
        let Some(span) = problem.span else { continue };
        assert!(span.start.offset <= span.end.offset, "{problem}");
        for place in [span.start, span.end] {
            let before = text
                .get(..place.offset)
                .unwrap_or_else(|| panic!("{problem}: {place:?}"));
            let before = before.strip_prefix('\u{feff}').unwrap_or(before);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
            assert_eq!(
                (place.line as usize, place.column as usize),
                (line, column),
                "{problem}: {place:?}"
            );
        }
    }
}

fn component(text: &str) -> (Option<Vec<u8>>, Vec<Diagnostic>) {
    let (component, problems) = parse_component(text);
    (component.map(|c| c.canonical()), problems.into_sorted())
}

fn recipe(text: &str) -> (Option<Vec<u8>>, Vec<Diagnostic>) {
    let (recipe, problems) = parse_recipe(text);
    (recipe.map(|r| r.canonical()), problems.into_sorted())
}

#[test]
fn good_components() {
    run("components/ok", component);
}

#[test]
fn bad_components() {
    run("components/err", component);
}

#[test]
fn good_recipes() {
    run("recipes/ok", recipe);
}

#[test]
fn bad_recipes() {
    run("recipes/err", recipe);
}

/// The kinds of document besides components and recipes: folder, and the kind as programs call it.
const KINDS: &[(&str, Option<&str>)] = &[
    ("component-resources", Some("component-resource")),
    ("container-recipes", Some("container-recipe")),
    (
        "distribution-configurations",
        Some("distribution-configuration"),
    ),
    ("image-pipelines", Some("image-pipeline")),
    ("images", Some("image")),
    (
        "infrastructure-configurations",
        Some("infrastructure-configuration"),
    ),
    ("lifecycle-policies", Some("lifecycle-policy")),
    ("templates", Some("template")),
    ("unknown-documents", None),
    ("workflow-resources", Some("workflow-resource")),
    ("workflows", Some("workflow")),
];

/// Reads a document whose kind has to be told from its content.
fn of_kind(text: &str, expected: Option<&str>) -> (Option<Vec<u8>>, Vec<Diagnostic>) {
    let (kind, document, problems) = parse_document(text);
    assert_eq!(kind.map(|kind| kind.id()), expected, "{text}");
    (document.map(|d| d.canonical()), problems.into_sorted())
}

#[test]
fn good_resources() {
    for (folder, kind) in KINDS.iter().filter(|(_, kind)| kind.is_some()) {
        run(&format!("{folder}/ok"), |text| of_kind(text, *kind));
    }
}

#[test]
fn bad_resources() {
    for (folder, kind) in KINDS {
        run(&format!("{folder}/err"), |text| of_kind(text, *kind));
    }
}

/// The kind of components and recipes is told from their content too.
#[test]
fn good_components_and_recipes_are_known_for_what_they_are() {
    for (folder, expected) in [
        ("components/ok", "component"),
        ("recipes/ok", "image-recipe"),
    ] {
        for case in cases(folder) {
            let bytes = document(&case);
            let (kind, _, _) = parse_document(check_bytes(&bytes).unwrap());
            assert_eq!(
                kind.map(|kind| kind.id()),
                Some(expected),
                "{}",
                case.display()
            );
        }
    }
}

/// The shipped recipes and the components that they name by path are free of problems.
#[test]
fn shipped_documents_have_no_problems() {
    let mut seen = 0;
    for folder in fs::read_dir(root().join("recipes"))
        .unwrap()
        .map(|e| e.unwrap().path())
    {
        let path = folder.join("recipe.yaml");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let (recipe, problems) = parse_recipe(&text);
        assert_eq!(print(&problems.into_sorted()), "", "{}", path.display());
        seen += 1;
        for component in recipe.unwrap().components {
            let amiforge_recipe::ComponentSource::Path(relative) = component.source else {
                continue;
            };
            let path = folder.join(relative);
            let (document, problems) = parse_component(&fs::read_to_string(&path).unwrap());
            assert_eq!(print(&problems.into_sorted()), "", "{}", path.display());
            document
                .unwrap()
                .resolve_parameters(&component.parameters)
                .unwrap();
        }
    }
    assert!(seen >= 2);
}
