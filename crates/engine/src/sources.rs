//! What stands here for what only AWS has: the user's configuration, `config.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use amiforge_exec::External;
use amiforge_recipe::{
    Component, ComponentSource, ParentImage, ReferenceValue, SecretSource, UserConfig,
    is_secret_key, parse_config,
};
use amiforge_types::Span;

use crate::error::{Contextual, EngineError, ErrorKind};
use crate::load::{config, folder_of, read};
use crate::settings::variable;

/// The user's configuration and where it is.
pub(crate) struct Sources {
    path: Option<PathBuf>,
    config: UserConfig,
}

/// Values by reference, and references without one with their place.
type Values = (BTreeMap<String, External>, BTreeMap<String, Span>);

impl Sources {
    /// An empty configuration in the place of what a file has.
    pub(crate) fn empty(path: Option<&Path>) -> Self {
        Self {
            path: path.map(Path::to_owned),
            config: UserConfig::default(),
        }
    }

    /// Reads the configuration; without a file it is empty.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, EngineError> {
        let mut sources = Self::empty(path);
        let Some(path) = path.filter(|path| path.exists()) else {
            return Ok(sources);
        };
        let text = match read(path)? {
            Ok(text) => text,
            Err(report) => return Err(EngineError::Documents(vec![report])),
        };
        match parse_config(&text).0 {
            Some(read) => {
                sources.config = read;
                Ok(sources)
            }
            None => Err(EngineError::Documents(vec![config::report(path, text)])),
        }
    }

    /// Whether the configuration was read from this file.
    pub(crate) fn is_of(&self, path: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).ok();
        let own = self.path.as_deref();
        own.is_some_and(|own| own.file_name() == path.file_name() && real(own) == real(path))
    }

    /// Folder that relative paths of the configuration start from.
    pub(crate) fn folder(&self) -> &Path {
        self.path.as_deref().map_or(Path::new("."), folder_of)
    }

    /// What stands for a parent of AWS.
    pub(crate) fn parent(&self, text: &str) -> Option<&ParentImage> {
        self.config.parent(text)
    }

    /// The names on AWS that a parent stands for, in the order of the configuration.
    pub(crate) fn names_of_parent(&self, parent: &ParentImage) -> Vec<&str> {
        self.config.names_of_parent(parent)
    }

    /// What stands for a component of AWS, and the folder that a relative path starts from.
    pub(crate) fn component(&self, text: &str) -> Option<(&ComponentSource, &Path)> {
        Some((self.config.component(text)?, self.folder()))
    }

    /// The values of the references to AWS that some of a component's phases have, and those that have none, with the place of the
    /// text that holds them. `variables` are the component's own, `secrets` those of parameters by their keys.
    ///
    /// # Errors
    /// When a variable of the environment or a file that should have a value has none.
    pub(crate) fn external(
        &self,
        component: &Component,
        variables: &BTreeMap<String, String>,
        secrets: &BTreeMap<String, String>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Values, EngineError> {
        let (mut found, mut missing) = (BTreeMap::new(), BTreeMap::new());
        for (name, span) in component.external(variables, wanted) {
            if let Some(value) = secrets.get(&name) {
                let value = value.clone();
                found.insert(
                    name,
                    External {
                        value,
                        secret: true,
                    },
                );
                continue;
            }
            let Some(value) = self.config.reference(&name) else {
                missing.insert(name, span);
                continue;
            };
            let context = || format!("{{{{ {name} }}}} has no value");
            let secret = !matches!(value, ReferenceValue::Text(_)) || is_secret_key(&name);
            let value = match value {
                ReferenceValue::Text(text) => text.clone(),
                ReferenceValue::Environment(name) => variable(name).ok_or_else(|| {
                    let message = format!("{}: {name} is not set", context());
                    EngineError::new(ErrorKind::Invalid, message)
                })?,
                ReferenceValue::File(path) => {
                    let text = read(&self.folder().join(path))
                        .or_fail(ErrorKind::Invalid, context)?
                        .map_err(|report| EngineError::Documents(vec![report]))?;
                    text.strip_suffix('\n').unwrap_or(&text).to_owned()
                }
            };
            found.insert(name, External { value, secret });
        }
        Ok((found, missing))
    }

    /// Public keys of those whose layers in shared caches are used.
    pub(crate) fn cache_trust(&self) -> &[String] {
        self.config.cache_trust()
    }

    /// Whether a value is configured for a reference.
    pub(crate) fn has_value(&self, name: &str) -> bool {
        self.config.reference(name).is_some()
    }

    /// Where the value of a secret of a recipe is.
    pub(crate) fn secret(&self, name: &str) -> Option<&SecretSource> {
        self.config.secret(name)
    }

    /// The lines that say what stands for `text`, and where they belong.
    pub(crate) fn lines_to_add(&self, section: &str, text: &str, example: &str) -> String {
        let file = match &self.path {
            Some(path) => path.display().to_string(),
            None => "config.yaml below AMIFORGE_HOME".to_owned(),
        };
        // What YAML would take for something else is put into quotes.
        let plain = !text.contains(": ") && !text.contains(" #") && !text.ends_with(':');
        let key = if plain {
            text.to_owned()
        } else {
            format!("{text:?}")
        };
        format!("say what stands for it in {file}:\n{section}:\n  {key}: {example}")
    }
}
