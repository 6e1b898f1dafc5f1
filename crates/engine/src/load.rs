//! From a path to a checked recipe with its components. Every problem of every document is found
//! in one go.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use amiforge_recipe::{
    Component, ComponentRef, ComponentSource, DocumentKind, ImageRecipe, MAX_DOCUMENT_BYTES,
    ParameterError, check_bytes, parse_component, parse_document, parse_recipe, recipe_components,
};
use amiforge_types::{Diagnostic, Diagnostics};
use fs_err as fs;

use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::library;
use crate::settings::Engine;
use crate::variables::{self, Stage};

/// A recipe and how to read it.
#[derive(Clone, Debug)]
pub struct RecipeRequest {
    /// A file, or a folder with a `recipe.yaml`, `recipe.yml` or `recipe.json`.
    pub recipe: PathBuf,
    /// Values by parameter name or `component.parameter`, in the order given.
    pub parameters: Vec<(String, String)>,
    /// Use nothing but the cache.
    pub offline: bool,
}

/// A recipe that can be built.
pub(crate) struct LoadedRecipe {
    pub(crate) path: PathBuf,
    pub(crate) recipe: ImageRecipe,
    pub(crate) components: Vec<LoadedComponent>,
}

/// A component of a recipe, with the value of every parameter.
pub(crate) struct LoadedComponent {
    pub(crate) name: String,
    /// Its version; a document of the user's own has none.
    pub(crate) version: Option<String>,
    /// As the recipe names it; part of messages and logs, never of an id.
    pub(crate) shown: String,
    pub(crate) text: String,
    pub(crate) component: Component,
    pub(crate) parameters: BTreeMap<String, String>,
}

impl LoadedComponent {
    /// The variables that its steps find.
    pub(crate) fn environment(
        &self,
        recipe: &ImageRecipe,
        stage: Stage,
    ) -> BTreeMap<String, String> {
        let library = library::needed_by(&self.component);
        let texts = library.values().map(String::as_str);
        let texts = texts.chain([self.text.as_str()]);
        variables::environment(texts, &recipe.name, &recipe.version.to_string(), stage)
    }
}

impl LoadedRecipe {
    /// Folder that relative paths of the recipe start from.
    pub(crate) fn dir(&self) -> &Path {
        folder_of(&self.path)
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// The text of a document; what is not text at all is a diagnostic of it.
fn read(path: &Path) -> Result<Result<String, DocumentReport>, EngineError> {
    let context = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    // Opening a named pipe would wait for its writer, and a device has no end.
    let metadata = fs::metadata(path).or_fail(ErrorKind::Invalid, context)?;
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
    Ok(match check_bytes(&bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(diagnostic) => Err(DocumentReport {
            path: path.to_owned(),
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
        text,
        diagnostics: diagnostics.into_sorted(),
    };
    Ok((report, component))
}

/// The recipe file that a path means.
fn recipe_file(path: &Path) -> Result<PathBuf, EngineError> {
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

/// Whether two names are of one file.
fn is_same(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    a == b || real(a).is_some_and(|a| real(b) == Some(a))
}

impl Engine {
    /// Reads a recipe and its components. Warnings are told as events.
    pub(crate) fn load(&self, request: &RecipeRequest) -> Result<LoadedRecipe, EngineError> {
        let (loaded, reports) = self.load_all(request)?;
        match loaded {
            Some(loaded) if !reports.iter().any(DocumentReport::has_errors) => {
                for report in &reports {
                    for diagnostic in &report.diagnostics {
                        self.warn(format!("{}:{diagnostic}", report.path.display()));
                    }
                }
                Ok(loaded)
            }
            _ => Err(EngineError::Documents(reports)),
        }
    }

    fn load_all(
        &self,
        request: &RecipeRequest,
    ) -> Result<(Option<LoadedRecipe>, Vec<DocumentReport>), EngineError> {
        let path = recipe_file(&request.recipe)?;
        let text = match read(&path)? {
            Ok(text) => text,
            Err(report) => return Ok((None, vec![report])),
        };
        let (recipe, mut diagnostics) = parse_recipe(&text);
        let mut reports = Vec::new();
        let mut components = Vec::new();
        let mut used = vec![false; request.parameters.len()];
        // The components of a recipe with errors are checked too: one run tells all problems.
        let references = match &recipe {
            Some(recipe) => recipe.components.clone(),
            None => recipe_components(&text),
        };
        for reference in &references {
            components.extend(load_component(
                &path,
                reference,
                request,
                &mut used,
                &mut diagnostics,
                &mut reports,
            )?);
        }
        let own = DocumentReport {
            path: path.clone(),
            text,
            diagnostics: diagnostics.into_sorted(),
        };
        reports.insert(0, own);
        if !reports.iter().any(DocumentReport::has_errors)
            && let Some(unused) = used.iter().position(|used| !used)
        {
            let name = &request.parameters[unused].0;
            return Err(EngineError::new(
                ErrorKind::Invalid,
                format!("--param {name}: no component has this parameter"),
            ));
        }
        let loaded = recipe.map(|recipe| LoadedRecipe {
            path,
            recipe,
            components,
        });
        Ok((loaded, reports))
    }

    /// Checks documents of any kind; a recipe is checked together with its components.
    pub fn validate(&self, files: &[PathBuf]) -> Result<Vec<DocumentReport>, EngineError> {
        let mut reports: Vec<DocumentReport> = Vec::new();
        let mut add = |report: DocumentReport| {
            if !reports.iter().any(|r| is_same(&r.path, &report.path)) {
                reports.push(report);
            }
        };
        for file in files {
            let path = recipe_file(file)?;
            let text = match read(&path)? {
                Ok(text) => text,
                Err(report) => {
                    add(report);
                    continue;
                }
            };
            let (kind, _, diagnostics) = parse_document(&text);
            if kind == Some(DocumentKind::ImageRecipe) {
                let request = RecipeRequest {
                    recipe: path,
                    parameters: Vec::new(),
                    offline: true,
                };
                self.load_all(&request)?.1.into_iter().for_each(&mut add);
            } else {
                add(DocumentReport {
                    path,
                    text,
                    diagnostics: diagnostics.into_sorted(),
                });
            }
        }
        Ok(reports)
    }
}

fn load_component(
    recipe_path: &Path,
    reference: &ComponentRef,
    request: &RecipeRequest,
    used: &mut [bool],
    diagnostics: &mut Diagnostics,
    reports: &mut Vec<DocumentReport>,
) -> Result<Option<LoadedComponent>, EngineError> {
    let Some(Found {
        path,
        text,
        shown,
        version,
    }) = find(recipe_path, reference, diagnostics, reports)?
    else {
        return Ok(None);
    };
    let (component, found) = parse_component(&text);
    let found = found.into_sorted();
    if !found.is_empty() && !reports.iter().any(|r| r.path == path) {
        reports.push(DocumentReport {
            path: path.clone(),
            text: text.clone(),
            diagnostics: found,
        });
    }
    let Some(component) = component else {
        return Ok(None);
    };
    let stem = path
        .file_stem()
        .map_or_else(|| "component".into(), |s| s.to_string_lossy().into_owned());
    let name = component
        .name
        .clone()
        .filter(|n| !n.is_empty())
        .unwrap_or(stem);
    for unknown in component.undeclared(&reference.parameters) {
        diagnostics.push(Diagnostic::warning(
            "undeclared-parameter",
            reference.span,
            format!("the component {name} has no parameter {unknown}; the value is ignored"),
        ));
    }
    let mut given = reference.parameters.clone();
    for (at, (key, value)) in request.parameters.iter().enumerate() {
        let own = key
            .strip_prefix(&name)
            .and_then(|rest| rest.strip_prefix('.'))
            .unwrap_or(key);
        if component.parameters.iter().any(|p| p.name == own) {
            given.insert(own.to_owned(), value.clone());
            used[at] = true;
        }
    }
    match component.resolve_parameters(&given) {
        Ok(parameters) => Ok(Some(LoadedComponent {
            name,
            version,
            shown,
            text,
            component,
            parameters,
        })),
        Err(error) => {
            diagnostics.push(parameter_problem(reference, &name, &error));
            Ok(None)
        }
    }
}

/// The document that a recipe names.
struct Found {
    path: PathBuf,
    text: String,
    /// As the recipe names it.
    shown: String,
    version: Option<String>,
}

fn find(
    recipe_path: &Path,
    reference: &ComponentRef,
    diagnostics: &mut Diagnostics,
    reports: &mut Vec<DocumentReport>,
) -> Result<Option<Found>, EngineError> {
    let relative = match &reference.source {
        ComponentSource::Path(path) => path,
        ComponentSource::Named { name, version } => {
            let Some(document) = library::find(name, version) else {
                diagnostics.push(unknown_component(reference, name, &version.to_string()));
                return Ok(None);
            };
            let version = document.version().map(|version| version.to_string());
            let shown = format!("{name}/{}", version.as_deref().unwrap_or_default());
            return Ok(Some(Found {
                path: PathBuf::from(&shown),
                text: document.text.to_owned(),
                shown,
                version,
            }));
        }
    };
    // Without the `./` in the middle: messages show this path.
    let path: PathBuf = folder_of(recipe_path).join(relative).components().collect();
    let text = match read(&path) {
        Ok(Ok(text)) => text,
        Ok(Err(report)) => {
            reports.push(report);
            return Ok(None);
        }
        Err(error) => {
            let cause =
                std::error::Error::source(&error).map_or_else(String::new, |c| format!(": {c}"));
            diagnostics.push(Diagnostic::error(
                "unknown-component",
                reference.span,
                format!("{error}{cause}"),
            ));
            return Ok(None);
        }
    };
    Ok(Some(Found {
        path,
        text,
        shown: relative.clone(),
        version: None,
    }))
}

fn unknown_component(reference: &ComponentRef, name: &str, version: &str) -> Diagnostic {
    let versions: Vec<String> = library::library()
        .iter()
        .filter(|document| document.name == name)
        .filter_map(|document| document.version().map(|v| v.to_string()))
        .collect();
    let help = if versions.is_empty() {
        "`amiforge component list` shows the library; a document of your own is named by its path, \
         for example ./components/web.yaml"
            .to_owned()
    } else {
        format!("the library has {name} in version {}", versions.join(", "))
    };
    Diagnostic::error(
        "unknown-component",
        reference.span,
        format!("there is no component {name}/{version} in the library"),
    )
    .with_help(help)
}

fn parameter_problem(
    reference: &ComponentRef,
    component: &str,
    error: &ParameterError,
) -> Diagnostic {
    Diagnostic::error(
        "invalid-parameter",
        reference.span,
        format!("component {component}: {error}"),
    )
    .with_help("give the value in the recipe's `parameters`, or with --param")
}
