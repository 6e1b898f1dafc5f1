//! From paths to texts.

use std::io::Read;
use std::path::{Path, PathBuf};

use amiforge_recipe::{Component, DocumentKind, MAX_DOCUMENT_BYTES, check_file, parse_component};
use amiforge_types::{Diagnostic, Severity};
use fs_err as fs;

use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The text of a document; what is not text at all, or called JSON and not that, is a diagnostic of it.
pub(crate) fn read(path: &Path) -> Result<Result<String, DocumentReport>, EngineError> {
    let context = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    // Opening a named pipe would wait for its writer, and a device has no end.
    let metadata = std::fs::metadata(path).or_fail(ErrorKind::Invalid, context)?;
    if !metadata.is_file() && !is_pipe_of_ours(path) {
        return Err(EngineError::new(
            ErrorKind::Invalid,
            format!("{}: not a regular file", path.display()),
        ));
    }
    let file = fs::File::open(path).or_fail(ErrorKind::Invalid, context)?;
    // One byte more than is accepted shows that there is more, without reading all of it.
    file.take(MAX_DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .or_fail(ErrorKind::Invalid, context)?;
    Ok(match check_file(path, &bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(diagnostic) => Err(DocumentReport {
            path: path.to_owned(),
            kind: None,
            text: String::from_utf8_lossy(&bytes).into_owned(),
            diagnostics: vec![diagnostic],
        }),
    })
}

/// Whether a path names something the caller opened for us: `/dev/stdin`, or the `/dev/fd/63` of a
/// shell's `<(command)`. Whoever names these is the one who ends them.
fn is_pipe_of_ours(path: &Path) -> bool {
    path == Path::new("/dev/stdin") || path.starts_with("/dev/fd")
}

/// A document that should be a component, with its problems.
pub(crate) fn read_component(
    path: &Path,
) -> Result<(DocumentReport, Option<Component>), EngineError> {
    let text = match read(path)? {
        Ok(text) => text,
        Err(report) => return Ok((report, None)),
    };
    let (component, diagnostics) = parse_component(&text);
    let report = DocumentReport {
        path: path.to_owned(),
        kind: Some(DocumentKind::Component),
        text,
        diagnostics: diagnostics.into_sorted(),
    };
    Ok((report, component))
}

/// The recipe file that a path means.
pub(crate) fn recipe_file(path: &Path) -> Result<PathBuf, EngineError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    const NAMES: [&str; 3] = ["recipe.yaml", "recipe.yml", "recipe.json"];
    NAMES
        .iter()
        .map(|name| path.join(name))
        .find(|p| p.is_file())
        .ok_or_else(|| {
            EngineError::new(
                ErrorKind::Invalid,
                format!("{}: the folder has no recipe", path.display()),
            )
            .with_hint("name a recipe file, or put a recipe.yaml into the folder")
        })
}

/// What can be told of a file that cannot be read.
pub(super) fn unreadable(path: &Path, error: &EngineError) -> DocumentReport {
    let cause = std::error::Error::source(error).map_or_else(String::new, |c| format!(": {c}"));
    DocumentReport {
        path: path.to_owned(),
        kind: None,
        text: String::new(),
        diagnostics: vec![Diagnostic {
            severity: Severity::Error,
            code: "unreadable",
            message: format!("{error}{cause}"),
            span: None,
            help: error.hint().map(ToOwned::to_owned),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_json_by_name_has_to_be_json() {
        let dir = tempfile::tempdir().unwrap();
        let code = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            read(&path)
                .unwrap()
                .err()
                .map(|report| report.diagnostics[0].code)
        };
        let with_comma = "{\"schemaVersion\": \"1.0\", \"phases\": [],}\n";
        assert_eq!(code("a.json", with_comma), Some("json-syntax"));
        assert_eq!(code("a.JSON", with_comma), Some("json-syntax"));
        assert_eq!(code("a.yaml", with_comma), None);
        assert_eq!(code("b.json", "\u{feff}{\"phases\":\t[]}\r\n"), None);
    }
}
