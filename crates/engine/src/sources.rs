//! What stands here for what only AWS has: the user's configuration, `config.yaml`.

use std::path::{Path, PathBuf};

use amiforge_recipe::{ComponentSource, ParentImage, UserConfig, parse_config};

use crate::error::{DocumentReport, EngineError};
use crate::load::{folder_of, read};

/// The user's configuration and where it is.
pub(crate) struct Sources {
    path: Option<PathBuf>,
    config: UserConfig,
}

impl Sources {
    /// Reads the configuration; without a file it is empty.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, EngineError> {
        let mut sources = Self {
            path: path.map(Path::to_owned),
            config: UserConfig::default(),
        };
        let Some(path) = path.filter(|path| path.exists()) else {
            return Ok(sources);
        };
        let text = match read(path)? {
            Ok(text) => text,
            Err(report) => return Err(EngineError::Documents(vec![report])),
        };
        let (config, diagnostics) = parse_config(&text);
        match config {
            Some(config) => {
                sources.config = config;
                Ok(sources)
            }
            None => Err(EngineError::Documents(vec![DocumentReport {
                path: path.to_owned(),
                kind: None,
                text,
                diagnostics: diagnostics.into_sorted(),
            }])),
        }
    }

    /// What stands for a parent of AWS.
    pub(crate) fn parent(&self, text: &str) -> Option<&ParentImage> {
        self.config.parent(text)
    }

    /// What stands for a component of AWS, and the folder that a relative path starts from.
    pub(crate) fn component(&self, text: &str) -> Option<(&ComponentSource, &Path)> {
        let folder = self.path.as_deref().map_or(Path::new("."), folder_of);
        Some((self.config.component(text)?, folder))
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
