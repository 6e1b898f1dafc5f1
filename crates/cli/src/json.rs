//! What `validate --json` prints, for editors and other programs, and `build --json` of several recipes.

use std::path::Path;

use amiforge_engine::{BuildOutcome, CheckReport, DocumentReport, EngineError};
use amiforge_types::{Diagnostic, Severity};
use serde::Serialize;

/// All files, those without problems too.
#[derive(Serialize)]
pub(crate) struct Validation<'a> {
    files: Vec<File<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    path: &'a Path,
    /// `null` when it could not be told.
    kind: Option<&'static str>,
    problems: Vec<Problem<'a>>,
}

/// Lines and columns count from 1, columns in characters; the end is just past the last one. All four
/// are `null` when the problem is of the whole file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    severity: Severity,
    code: &'static str,
    message: &'a str,
    line: Option<u32>,
    column: Option<u32>,
    end_line: Option<u32>,
    end_column: Option<u32>,
    help: Option<&'a str>,
}

impl<'a> Validation<'a> {
    pub(crate) fn of(reports: &'a [DocumentReport]) -> Self {
        let files = reports.iter().map(|report| File {
            path: &report.path,
            kind: report.kind.map(|kind| kind.id()),
            problems: report.diagnostics.iter().map(problem).collect(),
        });
        Self {
            files: files.collect(),
        }
    }
}

fn problem(diagnostic: &Diagnostic) -> Problem<'_> {
    let (start, end) = (
        diagnostic.span.map(|span| span.start),
        diagnostic.span.map(|span| span.end),
    );
    Problem {
        severity: diagnostic.severity,
        code: diagnostic.code,
        message: &diagnostic.message,
        line: start.map(|place| place.line),
        column: start.map(|place| place.column),
        end_line: end.map(|place| place.line),
        end_column: end.map(|place| place.column),
        help: diagnostic.help.as_deref(),
    }
}

/// A build with `--check`.
#[derive(Serialize)]
pub(crate) struct Checked {
    #[serde(flatten)]
    pub(crate) outcome: BuildOutcome,
    pub(crate) check: CheckReport,
}

/// What came of one of several recipes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BuiltRecipe {
    recipe: String,
    #[serde(flatten)]
    outcome: Option<BuildOutcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// What a build of it alone would end with.
    exit_code: u8,
}

impl BuiltRecipe {
    pub(crate) fn of(recipe: String, outcome: Result<BuildOutcome, EngineError>) -> Self {
        let (outcome, error) = match outcome {
            Ok(outcome) => (Some(outcome), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            recipe,
            outcome,
            hint: error.as_ref().and_then(|e| e.hint().map(str::to_owned)),
            exit_code: error.as_ref().map_or(0, EngineError::exit_code),
            error: error.map(|e| e.with_causes()),
        }
    }
}
