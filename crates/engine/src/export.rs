//! `export`: documents written back as AWS takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use amiforge_recipe::{
    ComponentRef, ComponentSource, ComponentTarget, ComponentUse, DocumentKind, Export,
    ExportParent, ExportedFile, Node, NodeKind, OwnComponent, ParentImage, ResourceKind, Template,
    TemplateId, TemplateResource, check_active, component_platform, components_of, kind_of,
    left_of_template, parse_component, parse_document, parse_recipe, parse_template_for_export,
    read_resource, resource_name_of, secret_key, secrets_of,
};
use amiforge_types::{Diagnostic, Diagnostics, Severity};
use fs_err as fs;

use crate::diskfiles::Beside;
use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::library;
use crate::load::{RecipeRequest, folder_of, load_text, read, recipe_file};
use crate::settings::Engine;
use crate::sources::Sources;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One template.
    CloudFormation,
    /// A folder with `main.tf.json`.
    Terraform,
    /// A folder with `create.sh` and an input for each of its calls.
    CommandLine,
}

/// Documents to export, and how.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// What is written.
    pub format: ExportFormat,
    /// Recipes, other resources of Image Builder, component documents, templates.
    pub files: Vec<PathBuf>,
    /// Values by parameter name or `component.parameter`, in the order given.
    pub parameters: Vec<(String, String)>,
    /// What recipes start from on AWS, where theirs is none of AWS.
    pub parent: Option<String>,
    /// Built-in components become components of the user's own, instead of Amazon's being named.
    pub own_library: bool,
    /// Where in S3 the documents of components lie, by the components' names.
    pub uris: Vec<(String, String)>,
    /// The file of a template, which may be absent, or the folder of the other formats.
    pub out: Option<PathBuf>,
    /// Replace files that are there with another content.
    pub force: bool,
}

/// What was exported.
#[derive(Clone, Debug)]
pub enum Exported {
    /// A template that no file was named for.
    Text(String),
    /// The files written.
    Files(Vec<PathBuf>),
}

/// Codes of problems that only a build here has: something of AWS has no local equivalent.
const ONLY_OF_BUILDS: [&str; 6] = [
    "unresolved-parent",
    "unresolved-component",
    "unresolved-reference",
    "ignored-field",
    "unsupported-instruction",
    "ignored-instruction",
];

/// The version of a component of a document that is exported without a recipe.
const FIRST_VERSION: &str = "1.0.0";

/// One of the files, read.
struct Input {
    path: PathBuf,
    text: String,
    kind: DocumentKind,
}

/// Collects the resources of all files.
struct Collector<'r> {
    request: &'r ExportRequest,
    sources: Sources,
    export: Export,
    reports: Vec<DocumentReport>,
    /// Components of their own, by the document that they are made from.
    own: BTreeMap<PathBuf, usize>,
    used_parameters: Vec<bool>,
    used_uris: Vec<bool>,
    /// Whether something was said of `--parent`, or done with it.
    used_parent: bool,
    /// How many templates there were.
    templates: usize,
}

/// Where components are named.
struct Place<'a> {
    path: &'a Path,
    /// The version of the recipe, which components without one get.
    version: String,
    template: Option<&'a Template>,
    /// Parameters whose values nobody may see.
    secrets: Vec<String>,
    /// How notes call the recipe.
    recipe: String,
}

impl Engine {
    /// Writes documents back as AWS takes them. Notes on what is not as it was are told as events.
    ///
    /// # Errors
    /// When a document is wrong or cannot be exported, or a file is in the way.
    pub fn export(&self, request: &ExportRequest) -> Result<Exported, EngineError> {
        if request.format != ExportFormat::CloudFormation && request.out.is_none() {
            let message = "--out: this export is a folder of files".to_owned();
            return Err(EngineError::new(ErrorKind::Invalid, message)
                .with_hint("name the folder: --out DIR"));
        }
        let mut collector = Collector {
            request,
            sources: Sources::load(self.settings.config_file.as_deref())?,
            export: Export::new(),
            reports: Vec::new(),
            own: BTreeMap::new(),
            used_parameters: vec![false; request.parameters.len()],
            used_uris: vec![false; request.uris.len()],
            used_parent: false,
            templates: 0,
        };
        collector.collect()?;
        let Collector {
            mut export,
            reports,
            used_parameters,
            used_uris,
            ..
        } = collector;
        if reports.iter().any(DocumentReport::has_errors) {
            return Err(EngineError::Documents(reports));
        }
        let unused = |what: &str, used: &[bool], given: &[(String, String)]| {
            // Pseudo parameters are every template's, whether it asks for them or not.
            let mut given = used
                .iter()
                .zip(given)
                .filter(|(_, (name, _))| !name.starts_with("AWS::"));
            let (_, (name, _)) = given.find(|(used, _)| !**used)?;
            let message = format!("--{what} {name}: no document has this");
            Some(EngineError::new(ErrorKind::Invalid, message))
        };
        if let Some(error) = unused("param", &used_parameters, &request.parameters)
            .or_else(|| unused("uri", &used_uris, &request.uris))
        {
            return Err(error);
        }
        reports.iter().for_each(|report| self.warn_of(report));
        if export.is_empty() {
            let message = "there is nothing to export".to_owned();
            return Err(EngineError::new(ErrorKind::Invalid, message));
        }
        export.link();
        let (files, notes) = match (request.format, &request.out) {
            (ExportFormat::CloudFormation, out) => {
                let template = export.cloudformation();
                template.notes.iter().for_each(|note| self.warn(note));
                let Some(out) = out else {
                    return Ok(Exported::Text(template.text));
                };
                let file = ExportedFile {
                    path: String::new(),
                    text: template.text,
                    executable: false,
                };
                return self.write_export(vec![(out.clone(), file)], request.force);
            }
            (ExportFormat::Terraform, _) => {
                let folder = export.terraform();
                (folder.files, folder.notes)
            }
            (ExportFormat::CommandLine, _) => {
                let folder = export.command_line();
                (folder.files, folder.notes)
            }
        };
        notes.iter().for_each(|note| self.warn(note));
        let folder = request.out.clone().unwrap_or_default();
        let files = files
            .into_iter()
            .map(|file| (folder.join(&file.path), file));
        self.write_export(files.collect(), request.force)
    }

    /// Writes all files or, when one is in the way, none. Each appears whole, the last one last.
    fn write_export(
        &self,
        files: Vec<(PathBuf, ExportedFile)>,
        force: bool,
    ) -> Result<Exported, EngineError> {
        let mut todo = Vec::new();
        let mut paths = Vec::new();
        for (path, file) in files {
            paths.push(path.clone());
            if !is_same(&path, &file, force)? {
                todo.push((path, file));
            }
        }
        let mut ready = Vec::new();
        for (path, file) in todo {
            let context = || format!("cannot write {}", path.display());
            fs::create_dir_all(folder_of(&path)).or_fail(ErrorKind::Failed, context)?;
            let mut beside = Beside::new(&path, self)?;
            beside
                .fill(file.text.as_bytes(), file.executable)
                .or_fail(ErrorKind::Failed, context)?;
            ready.push((path, beside));
        }
        for (path, beside) in ready {
            beside.persist(&path)?;
        }
        Ok(Exported::Files(paths))
    }
}

/// Whether a file is there with this very content. One with another content is in the way, unless it may be replaced.
fn is_same(path: &Path, file: &ExportedFile, force: bool) -> Result<bool, EngineError> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(false);
    };
    if !meta.is_file() {
        let message = format!("--out: {} is there and is no file", path.display());
        return Err(EngineError::new(ErrorKind::Invalid, message));
    }
    let context = || format!("cannot read {}", path.display());
    let length = u64::try_from(file.text.len()).unwrap_or(u64::MAX);
    let same = meta.len() == length
        && fs::read(path).or_fail(ErrorKind::Failed, context)? == file.text.as_bytes();
    if same || force {
        return Ok(same);
    }
    let message = format!(
        "--out: {} is there with another content; nothing was written",
        path.display()
    );
    Err(EngineError::new(ErrorKind::Invalid, message)
        .with_hint("say --force to replace it, or name another place"))
}

impl Collector<'_> {
    fn collect(&mut self) -> Result<(), EngineError> {
        let mut inputs = Vec::new();
        let mut seen = BTreeSet::new();
        for file in &self.request.files {
            let Some(input) = self.input(file)? else {
                continue;
            };
            // Two names of one file are one document.
            let real = std::fs::canonicalize(&input.path).unwrap_or_else(|_| input.path.clone());
            if seen.insert(real) {
                inputs.push(input);
            }
        }
        // Names by which documents may mean each other.
        let known: Vec<(ResourceKind, String)> = inputs
            .iter()
            .filter_map(|input| {
                let kind = match input.kind {
                    DocumentKind::ImageRecipe => ResourceKind::ImageRecipe,
                    DocumentKind::Resource(kind) => kind,
                    _ => return None,
                };
                Some((kind, resource_name_of(&input.text)?))
            })
            .collect();
        for input in inputs {
            match input.kind {
                DocumentKind::ImageRecipe => self.recipe(input)?,
                DocumentKind::Resource(kind) => self.resource(kind, input, &known)?,
                DocumentKind::Component => self.document(&input),
                DocumentKind::Template => self.template(input)?,
                _ => {
                    let (message, help) = match input.kind {
                        DocumentKind::Configuration => (
                            "the configuration is of this machine, and AWS has nothing like it",
                            "name the recipe instead",
                        ),
                        _ => (
                            "a workflow document alone does not say what it is called and which stage it is of",
                            "put it into the `data` of a workflow resource with `name`, `semanticVersion` and `type`",
                        ),
                    };
                    let problem = Diagnostic {
                        severity: Severity::Error,
                        code: "unsupported-type",
                        message: message.to_owned(),
                        span: None,
                        help: Some(help.to_owned()),
                    };
                    self.report(&input, vec![problem]);
                }
            }
        }
        if let (Some(parent), false) = (&self.request.parent, self.used_parent) {
            self.export.note(format!(
                "--parent {parent} is not needed: no image recipe here starts from something that AWS does not know"
            ));
        }
        Ok(())
    }

    /// A file and what it is; when that cannot be told, a report.
    fn input(&mut self, file: &Path) -> Result<Option<Input>, EngineError> {
        let path = recipe_file(file)?;
        let text = match read(&path)? {
            Ok(text) => text,
            Err(report) => {
                self.reports.push(report);
                return Ok(None);
            }
        };
        let Some(kind) = kind_of(&text) else {
            let (kind, _, diagnostics) = parse_document(&text);
            self.reports.push(DocumentReport {
                path,
                kind,
                text,
                diagnostics: diagnostics.into_sorted(),
            });
            return Ok(None);
        };
        Ok(Some(Input { path, text, kind }))
    }

    fn report(&mut self, input: &Input, mut diagnostics: Vec<Diagnostic>) {
        diagnostics.retain(|problem| !ONLY_OF_BUILDS.contains(&problem.code));
        self.tell(DocumentReport {
            path: input.path.clone(),
            kind: Some(input.kind),
            text: input.text.clone(),
            diagnostics,
        });
    }

    /// Keeps what was not told before: the check of a recipe and its export see the same document.
    fn tell(&mut self, mut report: DocumentReport) {
        report.diagnostics.retain(|problem| {
            let of_file = self.reports.iter().filter(|told| told.path == report.path);
            !ONLY_OF_BUILDS.contains(&problem.code)
                && !of_file
                    .flat_map(|told| &told.diagnostics)
                    .any(|told| told == problem)
        });
        self.reports.push(report);
    }

    /// A recipe with the documents that it names.
    fn recipe(&mut self, input: Input) -> Result<(), EngineError> {
        let (recipe, _) = parse_recipe(&input.text);
        let Some(recipe) = recipe else {
            return self.check(&input, None, Vec::new());
        };
        let place = Place {
            path: &input.path,
            version: recipe.version.first().to_string(),
            template: None,
            secrets: secrets_of(&recipe.document),
            recipe: recipe.name.clone(),
        };
        let mut found = Diagnostics::new();
        let mut used = Vec::new();
        let uses = self.uses(&place, &recipe.components, &mut used, &mut found);
        self.check(&input, None, used)?;
        let parent = self.parent(&recipe.parent);
        self.keyring(&recipe.amiforge.apt.keyring, &input.path);
        self.export
            .recipe(None, &recipe.document, &uses, parent, &mut found);
        self.report(&input, found.into_sorted());
        Ok(())
    }

    /// Checks a recipe as `validate` does, with the values of the parameters that its components have. `resource`
    /// says which one of a template.
    fn check(
        &mut self,
        input: &Input,
        resource: Option<String>,
        used: Vec<usize>,
    ) -> Result<(), EngineError> {
        let given = used
            .into_iter()
            .filter_map(|at| self.request.parameters.get(at).cloned());
        let request = RecipeRequest {
            secrets: Vec::new(),
            infrastructure: None,
            recipe: input.path.clone(),
            resource,
            parameters: given.collect(),
            offline: true,
        };
        let (path, text) = (input.path.clone(), input.text.clone());
        let (_, reports) = load_text(&request, path, text, &self.sources, false)?;
        reports.into_iter().for_each(|report| self.tell(report));
        Ok(())
    }

    /// A relative path of our own settings does not lead there from elsewhere.
    fn keyring(&mut self, keyring: &Option<String>, recipe: &Path) {
        let Some(keyring) = keyring.as_deref().filter(|path| !path.starts_with('/')) else {
            return;
        };
        let same_folder = self.request.out.as_deref().is_some_and(|out| {
            let real = |path: &Path| std::fs::canonicalize(folder_of(path)).ok();
            real(out).is_some() && real(out) == real(recipe)
        });
        if self.request.format == ExportFormat::CloudFormation && !same_folder {
            self.export.note(format!(
                "`amiforge.apt.keyring` ({keyring}) starts in the folder of the template: put the file there"
            ));
        }
    }

    /// What a recipe starts from on AWS: its own name for it, the one that was given, one that the configuration has
    /// for the same local parent, else somebody has to say.
    fn parent(&mut self, parent: &ParentImage) -> ExportParent {
        self.used_parent = true;
        if let ParentImage::Aws(text) = parent {
            if self.request.parent.is_some() {
                self.export.note(format!(
                    "a recipe starts from {text}, which AWS knows: --parent is not for it"
                ));
            }
            return ExportParent::Named(text.clone());
        }
        if let Some(text) = &self.request.parent {
            return ExportParent::Named(text.clone());
        }
        let names = self.sources.names_of_parent(parent);
        let Some(name) = names.first() else {
            return ExportParent::Asked(parent.to_string());
        };
        self.export.note(format!(
            "{name} stands for {parent}, as your configuration has it{}",
            match names.len() {
                1 => "",
                _ => "; it has more names for it, this is the first",
            }
        ));
        ExportParent::Named((*name).to_owned())
    }

    /// The components of a recipe. `used` gets the places of the parameters that they declare.
    fn uses(
        &mut self,
        place: &Place<'_>,
        components: &[ComponentRef],
        used: &mut Vec<usize>,
        found: &mut Diagnostics,
    ) -> Vec<ComponentUse> {
        let mut uses = Vec::new();
        for reference in components {
            let Some((target, component, name)) = self.target(place, reference, found) else {
                continue;
            };
            let mut parameters = reference.parameters.clone();
            let mut hidden = BTreeSet::new();
            for (at, (key, value)) in self.request.parameters.iter().enumerate() {
                let own = key
                    .strip_prefix(&name)
                    .and_then(|rest| rest.strip_prefix('.'))
                    .unwrap_or(key);
                let declares = |c: &amiforge_recipe::Component| {
                    c.parameters.iter().any(|parameter| parameter.name == own)
                };
                if component.as_ref().is_some_and(declares) {
                    if place.secrets.iter().any(|secret| secret == own) {
                        hidden.insert(own.to_owned());
                    } else {
                        parameters.insert(own.to_owned(), value.clone());
                    }
                    used.push(at);
                    if let Some(used) = self.used_parameters.get_mut(at) {
                        *used = true;
                    }
                }
            }
            let configured = |own: &&String| {
                let declares = component
                    .as_ref()
                    .is_some_and(|c| c.parameters.iter().any(|parameter| parameter.name == **own));
                declares
                    && self
                        .sources
                        .has_value(&secret_key(&format!("{name}.{own}")))
            };
            hidden.extend(place.secrets.iter().filter(configured).cloned());
            for own in hidden {
                self.export.note(format!(
                    "the parameter {own} of component {name} is left out of recipe {}: its value is secret, and a file \
                     shows it; give it on AWS, or let the step fetch it there",
                    place.recipe
                ));
            }
            if let ComponentTarget::Amazon(name) = &target
                && !parameters.is_empty()
            {
                self.export.note(format!(
                    "{name} has parameters here; Amazon's component of this name may call them otherwise"
                ));
            }
            uses.push(ComponentUse { target, parameters });
        }
        used.sort_unstable();
        used.dedup();
        uses
    }

    /// Which component a reference means on AWS, its document where that is known, and its name here.
    fn target(
        &mut self,
        place: &Place<'_>,
        reference: &ComponentRef,
        found: &mut Diagnostics,
    ) -> Option<(ComponentTarget, Option<amiforge_recipe::Component>, String)> {
        let version = place.version.as_str();
        match &reference.source {
            ComponentSource::Path(relative) => {
                let file: PathBuf = folder_of(place.path).join(relative).components().collect();
                // What cannot be read is told by the check of the recipe.
                let text = read(&file).ok()?.ok()?;
                let (place, component, name) = self.file(&file, &text, version, found)?;
                Some((ComponentTarget::Own(place), Some(component), name))
            }
            ComponentSource::Named {
                name,
                version: pattern,
            } => {
                let document = library::find(name, pattern)?;
                let component = document.component()?;
                let own_version = document.version().map(|v| v.to_string());
                if !self.request.own_library {
                    if pattern.concrete().is_some() {
                        self.export.note(format!(
                            "{name}/{pattern} is a version of amiforge's; Amazon's newest is named instead"
                        ));
                    }
                    let target = ComponentTarget::Amazon(name.clone());
                    return Some((target, Some(component), name.clone()));
                }
                let given = component.resolve_parameters(&reference.parameters);
                for arn in library::needed_by(&component, &given.unwrap_or_default()).keys() {
                    self.export.note(format!(
                        "{name} runs {arn}, which on AWS is Amazon's component"
                    ));
                }
                let key = PathBuf::from(format!("{name}/{pattern}"));
                let version = own_version.unwrap_or_else(|| version.to_owned());
                let place = self.own(&key, name, document.text, &component, &version, found);
                Some((ComponentTarget::Own(place), Some(component), name.clone()))
            }
            ComponentSource::Arn(text) => {
                let library = reference.source.managed();
                let library = library.and_then(|(name, version)| library::find(&name, &version));
                let component = library.and_then(|document| document.component());
                let name = library.map_or_else(String::new, |document| document.name.to_owned());
                Some((ComponentTarget::Arn(text.clone()), component, name))
            }
            ComponentSource::Resource(id) => {
                let component = place
                    .template
                    .and_then(|template| template.resource(id))
                    .and_then(|resource| resource.component.clone());
                let name = component.as_ref().and_then(|c| c.name.clone());
                let name = name.unwrap_or_else(|| id.clone());
                Some((ComponentTarget::Resource(id.clone()), component, name))
            }
        }
    }

    /// A component of the user's own from a file.
    fn file(
        &mut self,
        file: &Path,
        text: &str,
        version: &str,
        found: &mut Diagnostics,
    ) -> Option<(usize, amiforge_recipe::Component, String)> {
        let component = parse_component(text).0?;
        let stem = file
            .file_stem()
            .map_or_else(|| "component".into(), |stem| stem.to_string_lossy());
        let name = component.name.clone().filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| stem.into_owned());
        // Two names of one file are one component.
        let key = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let place = self.own(&key, &name, text, &component, version, found);
        Some((place, component, name))
    }

    /// The component of a document, made once.
    fn own(
        &mut self,
        key: &Path,
        name: &str,
        text: &str,
        component: &amiforge_recipe::Component,
        version: &str,
        found: &mut Diagnostics,
    ) -> usize {
        if let Some(place) = self.own.get(key) {
            return *place;
        }
        let mut uri = None;
        for (at, (of, place)) in self.request.uris.iter().enumerate() {
            if of == name {
                uri = Some(place.clone());
                if let Some(used) = self.used_uris.get_mut(at) {
                    *used = true;
                }
            }
        }
        let own = OwnComponent {
            name: name.to_owned(),
            version: version.to_owned(),
            platform: component_platform(component),
            description: component.description.clone(),
            text: text.to_owned(),
            uri,
        };
        let place = self.export.component(&own, found);
        self.own.insert(key.to_owned(), place);
        place
    }

    /// A component document that is named itself.
    fn document(&mut self, input: &Input) {
        let (component, problems) = parse_component(&input.text);
        let mut found = problems;
        if component.is_some() {
            let text = input.text.clone();
            self.file(&input.path, &text, FIRST_VERSION, &mut found);
        }
        self.report(input, found.into_sorted());
    }

    /// A document that is another resource.
    fn resource(
        &mut self,
        kind: ResourceKind,
        input: Input,
        known: &[(ResourceKind, String)],
    ) -> Result<(), EngineError> {
        let (resource, mut found) = read_resource(kind, &input.text, known);
        if let Some(resource) = resource {
            let references = match kind {
                ResourceKind::ContainerRecipe => components_of(&resource.document),
                _ => Vec::new(),
            };
            let place = Place {
                path: &input.path,
                version: version_of(&resource.document),
                template: None,
                secrets: secrets_of(&resource.document),
                recipe: resource_name_of(&input.text).unwrap_or_default(),
            };
            let mut used = Vec::new();
            let uses = self.uses(&place, &references, &mut used, &mut found);
            missing(&references, &uses, &mut found);
            if kind == ResourceKind::ContainerRecipe {
                self.check(&input, None, used)?;
            }
            self.export
                .resource(kind, None, &resource.document, &uses, &mut found);
        }
        self.report(&input, found.into_sorted());
        Ok(())
    }

    /// The resources of a template, with its parameters replaced by their values.
    fn template(&mut self, input: Input) -> Result<(), EngineError> {
        let given: BTreeMap<String, String> = self.request.parameters.iter().cloned().collect();
        let (template, mut found) = parse_template_for_export(&input.text, &given);
        let Some(template) = template else {
            self.report(&input, found.into_sorted());
            return Ok(());
        };
        for (at, (name, _)) in self.request.parameters.iter().enumerate() {
            if let Some(used) = self.used_parameters.get_mut(at) {
                *used |= template.parameters.contains(name);
                *used |= name.starts_with("AWS::") && input.text.contains(name.as_str());
            }
        }
        let left = left_of_template(&input.text);
        if !left.is_empty() {
            self.export.note(format!(
                "of {} is left out: {}",
                input.path.display(),
                left.join(", ")
            ));
        }
        let number = self.templates;
        self.templates += 1;
        let mut checks = Vec::new();
        for resource in &template.resources {
            match resource.active {
                Some(true) => {}
                Some(false) => {
                    self.export.note(format!(
                        "of {} the resource {} is left out: its condition does not hold",
                        input.path.display(),
                        resource.id
                    ));
                    continue;
                }
                None => {
                    let message = format!(
                        "whether `{}` is made is not known before deployment",
                        resource.id
                    );
                    let help = "give what its condition looks at a value: --param NAME=VALUE, --param AWS::Region=REGION";
                    found.push(
                        Diagnostic::error("unresolved-value", resource.span, message)
                            .with_help(help),
                    );
                    continue;
                }
            }
            check_active(&resource.properties, &template, &mut found);
            let used = self.template_resource(&input, number, &template, resource, &mut found);
            if resource.is_recipe() {
                checks.push((resource.id.clone(), used));
            }
        }
        // What is open was told; the check would tell it again, and assumes where it is deployed.
        if !found.has_errors() {
            for (id, used) in checks {
                self.check(&input, Some(id), used)?;
            }
        }
        self.report(&input, found.into_sorted());
        Ok(())
    }

    /// A resource of a template; the places of the parameters that are for it.
    fn template_resource(
        &mut self,
        input: &Input,
        number: usize,
        template: &Template,
        resource: &TemplateResource,
        found: &mut Diagnostics,
    ) -> Vec<usize> {
        let properties = resource.exported(found);
        let document: &Node = &properties;
        let references = components_of(document);
        let mut secrets = secrets_of(document);
        secrets.extend(template.secrets.keys().cloned());
        let place = Place {
            path: &input.path,
            version: version_of(document),
            template: Some(template),
            secrets,
            recipe: resource.id.clone(),
        };
        let mut used = Vec::new();
        let uses = self.uses(&place, &references, &mut used, found);
        missing(&references, &uses, found);
        let id = TemplateId {
            template: number,
            id: resource.id.clone(),
        };
        let parent = document
            .get("ParentImage")
            .filter(|_| resource.kind == ResourceKind::ImageRecipe);
        match parent
            .filter(|parent| !parent.is_opaque())
            .and_then(Node::as_text)
        {
            Some(text) => {
                let parent =
                    ParentImage::parse(text).unwrap_or_else(|_| ParentImage::Aws(text.to_owned()));
                let parent = self.parent(&parent);
                self.export
                    .recipe(Some(&id), document, &uses, parent, found);
            }
            None => {
                self.export
                    .resource(resource.kind, Some(&id), document, &uses, found);
            }
        }
        let of_template = self.request.parameters.iter().enumerate();
        used.extend(
            of_template
                .filter(|(_, (name, _))| template.parameters.contains(name))
                .map(|(at, _)| at),
        );
        used.sort_unstable();
        used.dedup();
        used
    }
}

/// Reports components that were not found.
fn missing(references: &[ComponentRef], uses: &[ComponentUse], found: &mut Diagnostics) {
    let Some(first) = references.first().filter(|_| uses.len() < references.len()) else {
        return;
    };
    let message = "a component of this list is not there, or has errors";
    let help = "`amiforge validate` tells what is wrong with a document";
    found.push(Diagnostic::error("unknown-component", first.span, message).with_help(help));
}

/// The version of a resource, its `x` as zeros.
fn version_of(document: &Node) -> String {
    let NodeKind::Map(fields) = &document.kind else {
        return FIRST_VERSION.to_owned();
    };
    let version = fields
        .iter()
        .find(|(key, _)| {
            matches!(
                key.text.as_str(),
                "semanticVersion" | "SemanticVersion" | "Version"
            )
        })
        .and_then(|(_, value)| value.as_text())
        .and_then(|text| text.parse::<amiforge_recipe::VersionPattern>().ok());
    version.map_or_else(
        || FIRST_VERSION.to_owned(),
        |version| version.first().to_string(),
    )
}
