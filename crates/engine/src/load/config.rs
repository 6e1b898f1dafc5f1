//! What is wrong with a configuration, which other documents refer to.

use std::path::Path;

use amiforge_recipe::{ComponentSource, DocumentKind, UserConfig, parse_config};
use amiforge_types::{Diagnostic, Diagnostics};

use super::{folder_of, unknown_component};
use crate::error::DocumentReport;
use crate::library;

/// The problems of a configuration, with what it names.
pub(crate) fn report(path: &Path, text: String) -> DocumentReport {
    let (config, mut diagnostics) = parse_config(&text);
    if let Some(config) = &config {
        named_components(config, folder_of(path), &mut diagnostics);
    }
    DocumentReport {
        path: path.to_owned(),
        kind: Some(DocumentKind::Configuration),
        text,
        diagnostics: diagnostics.into_sorted(),
    }
}

fn named_components(config: &UserConfig, folder: &Path, diags: &mut Diagnostics) {
    for (source, span) in config.components() {
        match source {
            ComponentSource::Path(relative) if !folder.join(relative).is_file() => {
                let message = format!("there is no file {}", folder.join(relative).display());
                let help = "relative paths start in the folder of the configuration";
                diags.push(Diagnostic::error("unknown-component", span, message).with_help(help));
            }
            ComponentSource::Named { name, version } if library::find(name, version).is_none() => {
                diags.push(unknown_component(span, name, &version.to_string()));
            }
            _ => {}
        }
    }
}
