//! From a path to a checked recipe with its components. Every problem of every document is found
//! in one go.

pub(crate) mod config;
mod files;
mod parameters;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use amiforge_exec::{External, Failure};
use amiforge_recipe::{
    Component, ComponentRef, ComponentSource, DocumentKind, ImageRecipe, ParentImage, ResourceKind,
    SecretParameter, SecretSource, StepLimits, StepNetwork, Template, TemplateError,
    VersionPattern, did_you_mean, instead_of_docker, kind_of, parse_component,
    parse_container_recipe, parse_document, parse_infrastructure, parse_recipe, parse_template,
    recipe_sources, secret_key,
};
use amiforge_types::{Diagnostic, Diagnostics, Digest, Position, Severity, Span};
use rayon::prelude::*;

use crate::error::{DocumentPlace, DocumentReport, EngineError, ErrorKind};
use crate::library;
use crate::settings::Engine;
use crate::sources::Sources;
use crate::steps::place_in;
use crate::variables::{self, Stage};
use files::unreadable;
pub(crate) use files::{folder_of, read, read_component, recipe_file};
pub(crate) use secrets::StepSecrets;

/// A recipe and how to read it.
#[derive(Clone, Debug)]
pub struct RecipeRequest {
    /// A file, or a folder with a `recipe.yaml`, `recipe.yml` or `recipe.json`.
    pub recipe: PathBuf,
    /// Of a template, the logical id of the recipe or of the pipeline that is built from it.
    pub resource: Option<String>,
    /// Values by parameter name or `component.parameter`, in the order given.
    pub parameters: Vec<(String, String)>,
    /// Use nothing but the cache.
    pub offline: bool,
    /// Where the values of secrets are, by their names, before what the configuration says.
    pub secrets: Vec<(String, SecretSource)>,
    /// The file of an infrastructure configuration, whose limits hold for the steps beside the recipe's own.
    pub infrastructure: Option<PathBuf>,
}

/// The kind of container recipes.
const CONTAINER_RECIPE: DocumentKind = DocumentKind::Resource(ResourceKind::ContainerRecipe);

/// A recipe that can be built.
pub(crate) struct LoadedRecipe {
    pub(crate) path: PathBuf,
    /// The text of its document, to show places of it.
    text: Arc<str>,
    pub(crate) recipe: ImageRecipe,
    pub(crate) components: Vec<LoadedComponent>,
    /// Folder that a relative path of the parent starts from: the recipe's, or that of the configuration.
    pub(crate) parent_dir: PathBuf,
    /// Values of secret parameters, by [`secret_key`].
    pub(crate) secrets: BTreeMap<String, String>,
    /// What steps find in files.
    pub(crate) step_secrets: StepSecrets,
}

/// A component of a recipe, with the value of every parameter.
pub(crate) struct LoadedComponent {
    pub(crate) name: String,
    /// Its version; a document of the user's own has none.
    pub(crate) version: Option<String>,
    /// As the recipe names it; part of messages and logs, never of an id.
    pub(crate) shown: String,
    /// Whether [`Self::shown`] is the path of its document, so that places in it can be looked at.
    pub(crate) is_file: bool,
    pub(crate) text: String,
    pub(crate) component: Component,
    pub(crate) parameters: BTreeMap<String, String>,
    /// Values of references to AWS.
    pub(crate) external: BTreeMap<String, External>,
    /// Documents that it runs by their ARN.
    pub(crate) library: BTreeMap<String, String>,
}

impl LoadedComponent {
    /// Where the step of a failure stands in the file of this component, if it is one and the step is its own.
    pub(crate) fn place_of(&self, failure: &Failure) -> Option<Position> {
        let own = self.is_file && failure.document == self.shown;
        own.then(|| place_in(&self.component, failure))?
    }

    /// The documents that it runs, by their names.
    pub(crate) fn files(&self) -> BTreeMap<String, Digest> {
        let digest = |text: &String| Digest::of(text.as_bytes());
        self.library
            .iter()
            .map(|(name, text)| (name.clone(), digest(text)))
            .collect()
    }

    /// Further inputs of its layer, by their names. A secret's value is none: it would show in the plan.
    pub(crate) fn inputs(&self, recipe: &ImageRecipe) -> BTreeMap<String, String> {
        let environment = self.environment(recipe, Stage::Building);
        let environment = environment
            .into_iter()
            .map(|(name, value)| (format!("environment.{name}"), value));
        let external = self.external.iter().map(|(name, value)| {
            let shown = if value.secret { "secret" } else { &value.value };
            (format!("reference.{name}"), shown.to_owned())
        });
        let lent = recipe.amiforge.secrets.iter();
        let lent = lent.map(|secret| (format!("secret.{}", secret.name), "lent".to_owned()));
        let network = recipe.amiforge.network;
        let network = (network != StepNetwork::default())
            .then(|| ("network".to_owned(), network.name().to_owned()));
        let own = environment.chain(external).chain(lent);
        own.chain(network).collect()
    }

    /// The variables that its steps find.
    pub(crate) fn environment(
        &self,
        recipe: &ImageRecipe,
        stage: Stage,
    ) -> BTreeMap<String, String> {
        let texts = self.library.values().map(String::as_str);
        let texts = texts.chain([self.text.as_str()]);
        let mut set =
            variables::environment(texts, &recipe.name, &recipe.version.to_string(), stage);
        // What the Dockerfile sets where the steps stand, or for a container of the image.
        let container = recipe.container.as_ref();
        if let Some(file) = container.and_then(|c| c.dockerfile.as_ref()) {
            let own: BTreeMap<String, String> = match stage {
                Stage::Building => file.step_env.clone(),
                Stage::Testing => file.config.env.iter().cloned().collect(),
            };
            for (name, value) in own {
                set.entry(name).or_insert(value);
            }
        }
        set
    }
}

impl LoadedRecipe {
    /// Folder that relative paths of the recipe start from.
    pub(crate) fn dir(&self) -> &Path {
        folder_of(&self.path)
    }

    /// Where it names its parent.
    pub(crate) fn parent_place(&self) -> DocumentPlace {
        DocumentPlace {
            path: self.path.clone(),
            text: self.text.clone(),
            span: self.recipe.parent_span,
        }
    }
}

/// Reads one recipe with its components.
struct Loader<'a> {
    request: &'a RecipeRequest,
    sources: &'a Sources,
    /// True when a build follows: what has no local equivalent is then an error.
    building: bool,
    /// Which of the request's parameters somebody took.
    used: Vec<bool>,
    /// Parameters that the recipe calls secret, and whether a component has them.
    marked: Vec<(SecretParameter, bool)>,
    /// Values of secret parameters, by [`secret_key`].
    secrets: BTreeMap<String, String>,
    /// True when the recipe's parent is an image of Linux; false when nothing is known of it.
    is_linux: bool,
    /// True when the configuration named the parent.
    parent_of_configuration: bool,
    /// The problems of the recipe itself.
    diagnostics: Diagnostics,
    /// The problems of the components.
    reports: Vec<DocumentReport>,
}

impl Engine {
    /// Reads a recipe and its components. Warnings are told as events.
    pub(crate) fn load(&self, request: &RecipeRequest) -> Result<LoadedRecipe, EngineError> {
        let sources = Sources::load(self.settings.config_file.as_deref())?;
        let (loaded, reports) = load_all(request, &sources, true)?;
        match loaded {
            Some(loaded) if !reports.iter().any(DocumentReport::has_errors) => {
                reports.iter().for_each(|report| self.warn_of(report));
                Ok(loaded)
            }
            _ => Err(EngineError::Documents(reports)),
        }
    }

    /// Reads a recipe as far as it can be: nothing is built of it, so what is missing or wrong by now does not matter.
    pub(crate) fn load_known(&self, request: &RecipeRequest) -> Result<LoadedRecipe, EngineError> {
        let sources = Sources::load(self.settings.config_file.as_deref())?;
        let (loaded, reports) = load_all(request, &sources, false)?;
        loaded.ok_or(EngineError::Documents(reports))
    }

    /// Checks documents of any kind; a recipe is checked together with its components. A file that
    /// cannot be read is a problem like others.
    pub fn validate(&self, files: &[PathBuf]) -> Result<Vec<DocumentReport>, EngineError> {
        let config = self.settings.config_file.as_deref();
        let sources = match Sources::load(config) {
            // Among the files it is one of them, and the others are checked without it.
            Err(EngineError::Documents(_))
                if files.iter().any(|file| Sources::empty(config).is_of(file)) =>
            {
                Sources::empty(config)
            }
            loaded => loaded?,
        };
        let found: Vec<Vec<DocumentReport>> = files
            .par_iter()
            .map(|file| {
                validate_file(file, &sources)
                    .into_iter()
                    .map(slim)
                    .collect()
            })
            .collect();
        let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
        let mut reports = Vec::new();
        for report in found.into_iter().flatten() {
            // Two names of one file are told once.
            let real = std::fs::canonicalize(&report.path).unwrap_or_else(|_| report.path.clone());
            if seen.insert(real) {
                reports.push(report);
            }
        }
        Ok(reports)
    }
}

/// Without the text when nothing of it is shown: of very many documents that is most.
fn slim(mut report: DocumentReport) -> DocumentReport {
    if report.diagnostics.is_empty() {
        report.text = String::new();
    }
    report
}

/// The problems of a file, and of the components when it is a recipe.
fn validate_file(file: &Path, sources: &Sources) -> Vec<DocumentReport> {
    let read = recipe_file(file).and_then(|path| {
        let text = read(&path)?;
        Ok((path, text))
    });
    let (path, text) = match read {
        Ok((path, Ok(text))) => (path, text),
        Ok((_, Err(report))) => return vec![report],
        Err(error) => return vec![unreadable(file, &error)],
    };
    // An empty one could be anything.
    if sources.is_of(&path) {
        return vec![config::report(&path, text)];
    }
    let (kind, _, diagnostics) = parse_document(&text);
    if kind == Some(DocumentKind::Configuration) {
        return vec![config::report(&path, text)];
    }
    if matches!(kind, Some(DocumentKind::ImageRecipe | CONTAINER_RECIPE)) {
        let request = RecipeRequest {
            recipe: path.clone(),
            resource: None,
            parameters: Vec::new(),
            offline: true,
            secrets: Vec::new(),
            infrastructure: None,
        };
        return match load_text(&request, path, text, sources, false) {
            Ok((_, reports)) => reports,
            Err(error) => vec![unreadable(file, &error)],
        };
    }
    vec![DocumentReport {
        path,
        kind,
        text,
        diagnostics: diagnostics.into_sorted(),
    }]
}

pub(crate) type Loaded = (Option<LoadedRecipe>, Vec<DocumentReport>);

fn load_all(
    request: &RecipeRequest,
    sources: &Sources,
    building: bool,
) -> Result<Loaded, EngineError> {
    let path = recipe_file(&request.recipe)?;
    match read(&path)? {
        Ok(text) => load_text(request, path, text, sources, building),
        Err(report) => Ok((None, vec![report])),
    }
}

pub(crate) fn load_text(
    request: &RecipeRequest,
    path: PathBuf,
    text: String,
    sources: &Sources,
    building: bool,
) -> Result<Loaded, EngineError> {
    let mut loader = Loader {
        request,
        sources,
        building,
        used: vec![false; request.parameters.len()],
        marked: Vec::new(),
        secrets: BTreeMap::new(),
        is_linux: false,
        parent_of_configuration: false,
        diagnostics: Diagnostics::new(),
        reports: Vec::new(),
    };
    let kind = kind_of(&text);
    let is_template = kind == Some(DocumentKind::Template);
    let is_container = kind == Some(CONTAINER_RECIPE);
    let is_recipe = matches!(
        kind,
        None | Some(
            DocumentKind::ImageRecipe
                | DocumentKind::Template
                | DocumentKind::Resource(ResourceKind::ImageRecipe | ResourceKind::ContainerRecipe)
        )
    );
    if let (false, Some(kind)) = (is_recipe, kind) {
        let message = format!(
            "{} is no recipe but another document: {}",
            path.display(),
            kind.name()
        );
        let hint = match kind {
            DocumentKind::Component => {
                "name it below `components:` of a recipe, or run it with `amiforge component run`"
            }
            _ => "a recipe has `parentImage` and `semanticVersion`",
        };
        return Err(EngineError::new(ErrorKind::Invalid, message).with_hint(hint));
    }
    let limits = match &request.infrastructure {
        Some(file) => loader.infrastructure(file)?,
        None => StepLimits::default(),
    };
    let (mut recipe, components) = if is_template {
        loader.template(&path, &text)?
    } else {
        if let Some(name) = &request.resource {
            let message = format!("--resource {name}: {} is no template", path.display());
            return Err(EngineError::new(ErrorKind::Invalid, message));
        }
        loader.recipe(&path, &text, is_container)
    };
    if let Some(recipe) = &mut recipe {
        recipe.amiforge.limits = recipe.amiforge.limits.and(limits);
    }
    loader.unused_marks();
    let step_secrets = loader.step_secrets(recipe.as_ref(), &path)?;
    let shown: Arc<str> = text.as_str().into();
    let own = DocumentReport {
        path: path.clone(),
        kind: Some(if is_template {
            DocumentKind::Template
        } else if is_container {
            CONTAINER_RECIPE
        } else {
            DocumentKind::ImageRecipe
        }),
        text,
        diagnostics: loader.diagnostics.into_sorted(),
    };
    let mut reports = loader.reports;
    reports.insert(0, own);
    if !reports.iter().any(DocumentReport::has_errors)
        && let Some(unused) = loader.used.iter().position(|used| !used)
    {
        let name = &request.parameters[unused].0;
        let what = if is_template {
            "neither the template nor a component"
        } else {
            "no component"
        };
        return Err(EngineError::new(
            ErrorKind::Invalid,
            format!("--param {name}: {what} has this parameter"),
        ));
    }
    let parent_dir = match loader.parent_of_configuration {
        true => sources.folder().to_owned(),
        false => folder_of(&path).to_owned(),
    };
    let loaded = recipe.map(|recipe| LoadedRecipe {
        parent_dir,
        path,
        text: shown,
        recipe,
        components,
        secrets: loader.secrets,
        step_secrets,
    });
    Ok((loaded, reports))
}

impl Loader<'_> {
    /// The limits of an infrastructure configuration; its problems are told with those of the recipe.
    fn infrastructure(&mut self, path: &Path) -> Result<StepLimits, EngineError> {
        let text = match read(path)? {
            Ok(text) => text,
            Err(report) => {
                self.reports.push(report);
                return Ok(StepLimits::default());
            }
        };
        let kind = DocumentKind::Resource(ResourceKind::InfrastructureConfiguration);
        if let Some(other) = kind_of(&text).filter(|found| *found != kind) {
            let message = format!(
                "{} is no infrastructure configuration but another document: {}",
                path.display(),
                other.name()
            );
            return Err(EngineError::new(ErrorKind::Invalid, message));
        }
        let (limits, diagnostics) = parse_infrastructure(&text);
        self.reports.push(DocumentReport {
            path: path.to_owned(),
            kind: Some(kind),
            text,
            diagnostics: diagnostics.into_sorted(),
        });
        Ok(limits.unwrap_or_default())
    }

    fn recipe(
        &mut self,
        path: &Path,
        text: &str,
        is_container: bool,
    ) -> (Option<ImageRecipe>, Vec<LoadedComponent>) {
        let (mut recipe, found) = if is_container {
            parse_container_recipe(text)
        } else {
            parse_recipe(text)
        };
        self.diagnostics = found;
        self.mark(recipe.as_ref());
        // Parent and components of a recipe with errors are checked too: one run tells all problems.
        let (references, unread) = match &recipe {
            Some(recipe) => (recipe.components.clone(), None),
            None => {
                let sources = recipe_sources(text);
                (sources.components, sources.parent)
            }
        };
        self.is_linux = recipe
            .as_ref()
            .is_some_and(|recipe| self.is_of_linux(recipe));
        let components = references
            .iter()
            .filter_map(|reference| self.component(folder_of(path), reference, None))
            .collect();
        match &mut recipe {
            Some(recipe) => {
                self.parent(recipe);
                self.dockerfile(recipe, false);
            }
            None => {
                if let (false, Some((ParentImage::Aws(text), span))) = (is_container, unread) {
                    self.stands_for_parent(&text, span, is_container);
                }
            }
        }
        (recipe, components)
    }

    /// What the Dockerfile template of a container recipe has and no build follows. Of a template
    /// of CloudFormation that was told as warnings, which now are errors.
    fn dockerfile(&mut self, recipe: &ImageRecipe, in_template: bool) {
        let Some(container) = &recipe.container else {
            return;
        };
        let Some(file) = &container.dockerfile else {
            let message = "the Dockerfile template at the URI is not fetched";
            let problem = Diagnostic::error("unsupported-instruction", container.span, message);
            self.missing(
                problem,
                "put its text into `dockerfileTemplateData`".to_owned(),
            );
            return;
        };
        if in_template {
            let mut kept = Diagnostics::new();
            let unsupported = |d: &Diagnostic| {
                let mut known = file.unsupported.iter();
                known.any(|u| u.span == d.span && u.message == d.message)
            };
            for d in self.diagnostics.iter().filter(|d| !unsupported(d)) {
                kept.push(d.clone());
            }
            self.diagnostics = kept;
        }
        for problem in &file.unsupported {
            let help = problem.help.clone().unwrap_or_default();
            self.missing(problem.clone(), help);
        }
        if !file.has_components && !recipe.components.is_empty() {
            let message = "the Dockerfile template has no place for the components";
            let problem = Diagnostic::error("unsupported-instruction", container.span, message);
            let help = "give `{{{ imagebuilder:components }}}` a line of its own".to_owned();
            self.missing(problem, help);
        }
    }

    /// The recipe that is meant of a template.
    fn template(
        &mut self,
        path: &Path,
        text: &str,
    ) -> Result<(Option<ImageRecipe>, Vec<LoadedComponent>), EngineError> {
        let given: BTreeMap<String, String> = self.request.parameters.iter().cloned().collect();
        let (template, found) = parse_template(text, &given);
        let Some(template) = template else {
            self.diagnostics = found;
            return Ok((None, Vec::new()));
        };
        for (at, (name, _)) in self.request.parameters.iter().enumerate() {
            self.used[at] |= template.parameters.contains(name);
        }
        let resource = template
            .recipe(self.request.resource.as_deref())
            .map_err(|error| {
                let failure =
                    EngineError::new(ErrorKind::Invalid, format!("{}: {error}", path.display()));
                match error {
                    TemplateError::Several { .. } => {
                        failure.with_hint("name the one to build: --resource NAME")
                    }
                    _ => failure,
                }
            })?;
        let secrets = template.secrets.iter();
        self.secrets
            .extend(secrets.map(|(name, value)| (secret_key(name), value.clone())));
        let (mut recipe, problems) = resource.image_recipe();
        self.diagnostics = problems;
        self.mark(recipe.as_ref());
        // Of what a build does not need, the errors do not count and the warnings are told.
        let warnings = found.into_sorted().into_iter();
        let told = |d: &Diagnostic| self.diagnostics.iter().any(|known| known == d);
        let more: Vec<Diagnostic> = warnings
            .filter(|d| d.severity == Severity::Warning && !told(d))
            .collect();
        more.into_iter().for_each(|d| self.diagnostics.push(d));
        self.is_linux = recipe
            .as_ref()
            .is_some_and(|recipe| self.is_of_linux(recipe));
        let components = match &recipe {
            Some(recipe) => recipe.components.clone(),
            None => Vec::new(),
        }
        .iter()
        .filter_map(|reference| self.component(folder_of(path), reference, Some(&template)))
        .collect();
        if let Some(recipe) = &mut recipe {
            self.parent(recipe);
            self.dockerfile(recipe, true);
        }
        Ok((recipe, components))
    }

    /// Whether what a recipe starts from is known here, where all images are of Linux.
    fn is_of_linux(&self, recipe: &ImageRecipe) -> bool {
        match &recipe.parent {
            ParentImage::Aws(text) => self.sources.parent(text).is_some(),
            _ => true,
        }
    }

    /// Puts what the configuration names in the place of a parent that only AWS has.
    fn parent(&mut self, recipe: &mut ImageRecipe) {
        let ParentImage::Aws(text) = &recipe.parent else {
            return;
        };
        let text = text.clone();
        let span = recipe.parent_span;
        if let Some(parent) = self.stands_for_parent(&text, span, recipe.container.is_some()) {
            recipe.parent = parent;
            self.parent_of_configuration = true;
        }
    }

    /// What the configuration names in the place of a parent; told when it names none.
    fn stands_for_parent(
        &mut self,
        text: &str,
        span: Span,
        is_container: bool,
    ) -> Option<ParentImage> {
        if let Some(parent) = self.sources.parent(text) {
            return Some(parent.clone());
        }
        let help = self
            .sources
            .lines_to_add("parents", text, "debian:bookworm");
        let what = match is_container {
            true => "an image of AWS or of a registry",
            false => "an image of AWS",
        };
        // Whoever knows Docker may have meant no name of AWS at all.
        let help = match instead_of_docker(text) {
            Some(instead) => format!("{instead}\n{help}"),
            None => help,
        };
        let message = format!("{text:?} is {what}, and nothing stands for it here");
        let problem = Diagnostic::error("unresolved-parent", span, message);
        self.missing(problem, help);
        None
    }

    /// An error where a build follows, else a warning: the document itself is right.
    fn missing(&mut self, mut problem: Diagnostic, help: String) {
        if !self.building {
            problem.severity = Severity::Warning;
        }
        self.diagnostics.push(problem.with_help(help));
    }

    fn component(
        &mut self,
        folder: &Path,
        reference: &ComponentRef,
        template: Option<&Template>,
    ) -> Option<LoadedComponent> {
        match &reference.source {
            ComponentSource::Path(relative) => self.file(folder, relative, reference),
            ComponentSource::Resource(id) => self.resource(template?, id, reference),
            ComponentSource::Arn(text) => match self.sources.component(text) {
                Some((ComponentSource::Path(relative), folder)) => {
                    self.file(folder, relative, reference)
                }
                Some((ComponentSource::Named { name, version }, _)) => {
                    let (name, version) = (name.clone(), *version);
                    self.library(&name, &version, reference)
                }
                _ if reference
                    .source
                    .managed()
                    .is_some_and(|(name, version)| library::find(&name, &version).is_some()) =>
                {
                    let (name, version) = reference.source.managed()?;
                    self.library(&name, &version, reference)
                }
                _ => {
                    // Another version of what the library has is better than nothing.
                    let known = reference.source.managed().filter(|(name, _)| {
                        library::library()
                            .iter()
                            .any(|document| document.name == *name)
                    });
                    let example = match known {
                        Some((name, _)) => format!("{name}/x.x.x"),
                        None => "components/web.yaml".to_owned(),
                    };
                    let help = self.sources.lines_to_add("components", text, &example);
                    let message =
                        format!("{text:?} is a component of AWS, and nothing stands for it here");
                    self.missing(
                        Diagnostic::error("unresolved-component", reference.span, message),
                        help,
                    );
                    None
                }
            },
            ComponentSource::Named { name, version } => self.library(name, version, reference),
        }
    }

    /// A component of the library.
    fn library(
        &mut self,
        name: &str,
        version: &VersionPattern,
        reference: &ComponentRef,
    ) -> Option<LoadedComponent> {
        let found = library::find(name, version);
        let Some((document, component)) = found.and_then(|d| Some((d, d.component()?))) else {
            let problem = unknown_component(reference.span, name, &version.to_string());
            self.diagnostics.push(problem);
            return None;
        };
        let version = document.version().map(|version| version.to_string());
        let shown = format!("{name}/{}", version.as_deref().unwrap_or_default());
        let text = document.text.to_owned();
        let mut loaded = self.finish(name.to_owned(), shown, text, component, reference, None)?;
        loaded.version = version;
        Some(loaded)
    }

    /// A component whose document is a file.
    fn file(
        &mut self,
        folder: &Path,
        relative: &str,
        reference: &ComponentRef,
    ) -> Option<LoadedComponent> {
        // Without the `./` in the middle: messages show this path.
        let path: PathBuf = folder.join(relative).components().collect();
        let text = match read(&path) {
            Ok(Ok(text)) => text,
            Ok(Err(report)) => {
                self.reports.push(report);
                return None;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |c| format!(": {c}"));
                self.diagnostics.push(Diagnostic::error(
                    "unknown-component",
                    reference.span,
                    format!("{error}{cause}"),
                ));
                return None;
            }
        };
        let (component, found) = parse_component(&text);
        let found = found.into_sorted();
        if !found.is_empty() && !self.reports.iter().any(|r| r.path == path) {
            self.reports.push(DocumentReport {
                path: path.clone(),
                kind: Some(DocumentKind::Component),
                text: text.clone(),
                diagnostics: found,
            });
        }
        let component = component?;
        let stem = path
            .file_stem()
            .map_or_else(|| "component".into(), |s| s.to_string_lossy().into_owned());
        let name = component
            .name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or(stem);
        let shown = relative.to_owned();
        let mut loaded = self.finish(name, shown, text, component, reference, None)?;
        loaded.is_file = true;
        Some(loaded)
    }

    /// A component of the same template.
    fn resource(
        &mut self,
        template: &Template,
        id: &str,
        reference: &ComponentRef,
    ) -> Option<LoadedComponent> {
        let resource = template.resource(id)?;
        if !resource.open.is_empty() {
            let open = resource.open.iter().cloned();
            open.for_each(|problem| self.diagnostics.push(problem));
            return None;
        }
        let (Some(text), Some(component)) = (&resource.data, &resource.component) else {
            let message = format!("the component `{id}` has no document in this template");
            let help = "only documents in `Data` are read; one at a `Uri` is not fetched";
            self.diagnostics.push(
                Diagnostic::error("unresolved-component", reference.span, message).with_help(help),
            );
            return None;
        };
        let name = component
            .name
            .clone()
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| id.to_owned());
        self.finish(
            name,
            id.to_owned(),
            text.clone(),
            component.clone(),
            reference,
            resource.platform(),
        )
    }

    /// The values of references to AWS.
    fn external(
        &mut self,
        name: &str,
        component: &Component,
        parameters: &BTreeMap<String, String>,
        reference: &ComponentRef,
    ) -> Option<BTreeMap<String, External>> {
        let variables = component.variables(parameters);
        let (found, missing) =
            match self
                .sources
                .external(component, &variables, &self.secrets, |phase| {
                    phase != "test"
                }) {
                Ok(found) => found,
                Err(error) => {
                    let problem = Diagnostic::error(
                        "unresolved-reference",
                        reference.span,
                        error.to_string(),
                    );
                    self.missing(
                        problem,
                        "the configuration says where the value is".to_owned(),
                    );
                    return None;
                }
            };
        for (text, place) in &missing {
            let line = place.start.line;
            let message = format!(
                "the component {name} refers to `{text}` in line {line}, which has no value here"
            );
            let help = self.sources.lines_to_add("references", text, "some value");
            let problem = Diagnostic::error("unresolved-reference", reference.span, message);
            self.missing(problem, help);
        }
        Some(found)
    }
}

fn unknown_component(span: Span, name: &str, version: &str) -> Diagnostic {
    let versions: Vec<String> = library::library()
        .iter()
        .filter(|document| document.name == name)
        .filter_map(|document| document.version().map(|v| v.to_string()))
        .collect();
    let names = library::library().iter().map(|document| document.name);
    let help = if versions.is_empty() {
        let list = "`amiforge component list` shows the library; a document of your own is named by its path, \
         for example ./components/web.yaml";
        match did_you_mean(name, names) {
            Some(meant) => format!("{meant} {list}"),
            None => list.to_owned(),
        }
    } else {
        format!("the library has {name} in version {}", versions.join(", "))
    };
    Diagnostic::error(
        "unknown-component",
        span,
        format!("there is no component {name}/{version} in the library"),
    )
    .with_help(help)
}
