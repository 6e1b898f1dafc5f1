//! Parameters whose values nobody may see, and secrets that steps find in files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use amiforge_recipe::{
    Component, ComponentRef, ImageRecipe, SecretSource, has_secret, secret_key, secret_mark,
};
use amiforge_types::Diagnostic;

use super::Loader;
use crate::error::{Contextual, DocumentReport, EngineError, ErrorKind};
use crate::files::read_file;
use crate::settings::variable;

/// Bytes of one secret.
const MAX_SECRET: u64 = 512 << 10;
/// A shorter one could not be told from any text where it is masked.
const SHORTEST: usize = 4;
/// Lines of what a command that fails wrote to standard error.
const TOLD: usize = 10;

/// The secrets that steps find in files, and where their values are. They are looked up once a step runs.
#[derive(Default)]
pub(crate) struct StepSecrets {
    entries: Vec<Entry>,
    values: OnceLock<BTreeMap<String, Vec<u8>>>,
}

struct Entry {
    name: String,
    /// File, line and column of the recipe.
    place: String,
    source: SecretSource,
    /// Where a relative path starts, and commands run.
    folder: PathBuf,
}

impl StepSecrets {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The values that a step of this build has been lent, by name.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let values = self.values.get().into_iter().flatten();
        values.map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The values by name. Commands are run the first time.
    ///
    /// # Errors
    /// When a source has none, without anything that may be a part of it.
    pub(crate) fn values(&self) -> Result<&BTreeMap<String, Vec<u8>>, EngineError> {
        if let Some(values) = self.values.get() {
            return Ok(values);
        }
        let mut values = BTreeMap::new();
        for entry in &self.entries {
            values.insert(entry.name.clone(), entry.value()?);
        }
        Ok(self.values.get_or_init(|| values))
    }
}

impl Entry {
    fn value(&self) -> Result<Vec<u8>, EngineError> {
        let what = || format!("{}: the secret {} has no value", self.place, self.name);
        let fail = |why: String| EngineError::new(ErrorKind::Invalid, format!("{}: {why}", what()));
        let value = match &self.source {
            SecretSource::Env(name) => variable(name)
                .ok_or_else(|| fail(format!("{name} is not set")))?
                .into_bytes(),
            SecretSource::File(path) => {
                let path = self.folder.join(path);
                read_file(&path, MAX_SECRET).or_fail(ErrorKind::Invalid, what)?
            }
            SecretSource::Command(text) => self.printed(text)?,
        };
        if value.len() < SHORTEST {
            return Err(fail(format!(
                "it has {} bytes, and one of fewer than {SHORTEST} cannot be kept out of logs",
                value.len()
            )));
        }
        if value.len() as u64 > MAX_SECRET {
            return Err(fail(format!("it has more than {MAX_SECRET} bytes")));
        }
        Ok(value)
    }

    /// What a command prints. Of one that fails, what it says on standard error is told, and nothing that it printed.
    fn printed(&self, text: &str) -> Result<Vec<u8>, EngineError> {
        let what = || {
            format!(
                "{}: the command for the secret {} failed",
                self.place, self.name
            )
        };
        let done = Command::new("/bin/sh")
            .args(["-c", text])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .or_fail(ErrorKind::Failed, what)?;
        if !done.status.success() {
            let mut message = format!("{}: {}", what(), done.status);
            let errors = String::from_utf8_lossy(&done.stderr).into_owned();
            let lines: Vec<&str> = errors.lines().collect();
            for line in lines.iter().skip(lines.len().saturating_sub(TOLD)) {
                message.push_str(&format!("\n  | {line}"));
            }
            return Err(EngineError::new(ErrorKind::Failed, message));
        }
        let mut value = done.stdout;
        if value.ends_with(b"\n") {
            value.pop();
        }
        Ok(value)
    }
}

impl Loader<'_> {
    /// Takes note of the parameters that a recipe calls secret.
    pub(super) fn mark(&mut self, recipe: Option<&ImageRecipe>) {
        let secret = recipe.map(|recipe| recipe.amiforge.secret_parameters.clone());
        let secret = secret.unwrap_or_default().into_iter();
        self.marked = secret.map(|parameter| (parameter, false)).collect();
    }

    /// Where the secrets of a recipe are; one that is nowhere is a problem of the recipe.
    pub(super) fn step_secrets(
        &mut self,
        recipe: Option<&ImageRecipe>,
        path: &Path,
    ) -> Result<StepSecrets, EngineError> {
        let named = recipe.map(|recipe| recipe.amiforge.secrets.clone());
        let named = named.unwrap_or_default();
        for (name, _) in &self.request.secrets {
            if recipe.is_some() && !named.iter().any(|secret| secret.name == *name) {
                let message = format!("--secret {name}: the recipe names no such secret");
                return Err(EngineError::new(ErrorKind::Invalid, message)
                    .with_hint(format!("amiforge: {{secrets: [{name}]}}")));
            }
        }
        let mut found = StepSecrets::default();
        for secret in named {
            let mut given = self.request.secrets.iter().rev();
            let given = given.find(|(name, _)| *name == secret.name);
            let (source, folder) = match given {
                Some((_, source)) => (Some(source), Path::new(".")),
                None => (self.sources.secret(&secret.name), self.sources.folder()),
            };
            let (source, folder) = (source.cloned(), folder.to_owned());
            let why = match &source {
                None => "has no source".to_owned(),
                Some(SecretSource::Env(name)) if variable(name).is_none() => {
                    format!("comes from the variable {name}, which is not set")
                }
                Some(SecretSource::File(file)) if !folder.join(file).is_file() => {
                    format!("comes from the file {file}, which is not there")
                }
                Some(_) => String::new(),
            };
            if !why.is_empty() {
                let message = format!("the secret {} {why}", secret.name);
                let help = self
                    .sources
                    .lines_to_add("secrets", &secret.name, "{env: NAME}");
                let help = format!("give --secret {}=env:NAME, or {help}", secret.name);
                let problem = Diagnostic::error("unresolved-secret", secret.span, message);
                self.missing(problem, help);
            }
            let start = secret.span.start;
            found.entries.extend(source.map(|source| Entry {
                place: format!("{}:{}:{}", path.display(), start.line, start.column),
                name: secret.name,
                source,
                folder,
            }));
        }
        Ok(found)
    }

    /// Warns of secret parameters that no component has: their values are somewhere else, in the open.
    pub(super) fn unused_marks(&mut self) {
        // A component with errors has no parameters yet.
        if self.reports.iter().any(DocumentReport::has_errors) || self.diagnostics.has_errors() {
            return;
        }
        for (parameter, used) in std::mem::take(&mut self.marked) {
            if !used {
                let message = format!("no component has the parameter {}", parameter.name);
                self.diagnostics.push(Diagnostic::warning(
                    "undeclared-parameter",
                    parameter.span,
                    message,
                ));
            }
        }
    }

    /// The secret parameters of a component. One that nobody gave a value gets the mark of what the configuration has.
    pub(super) fn secret_parameters(
        &mut self,
        name: &str,
        component: &Component,
        reference: &ComponentRef,
        given: &mut BTreeMap<String, String>,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for (marked, used) in &mut self.marked {
            if !component.parameters.iter().any(|p| p.name == marked.name) {
                continue;
            }
            *used = true;
            found.push(marked.name.clone());
            let own = format!("{name}.{}", marked.name);
            let key = secret_key(&own);
            // In a template it may be the mark of a parameter with `NoEcho`.
            let open = reference.parameters.get(&marked.name);
            if open.is_some_and(|text| !has_secret(text)) {
                let message = format!(
                    "the recipe shows the value of the secret parameter {}",
                    marked.name
                );
                let help = self.sources.lines_to_add("references", &key, "{env: NAME}");
                let help = format!("give it with --param {own}=VALUE, or {help}");
                let place = reference.places.get(&marked.name);
                let span = place.map_or(reference.span, |place| place.value);
                let problem = Diagnostic::error("conflicting-fields", span, message);
                self.diagnostics.push(problem.with_help(help));
            }
            if !given.contains_key(&marked.name) && self.sources.has_value(&key) {
                given.insert(marked.name.clone(), secret_mark(&own));
            }
        }
        found
    }
}
