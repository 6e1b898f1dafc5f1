//! Parameters whose values nobody may see.

use std::collections::BTreeMap;

use amiforge_recipe::{Component, ComponentRef, ImageRecipe, has_secret, secret_key, secret_mark};
use amiforge_types::Diagnostic;

use super::Loader;
use crate::error::DocumentReport;

impl Loader<'_> {
    /// Takes note of the parameters that a recipe calls secret.
    pub(super) fn mark(&mut self, recipe: Option<&ImageRecipe>) {
        let secret = recipe.map(|recipe| recipe.amiforge.secret_parameters.clone());
        let secret = secret.unwrap_or_default().into_iter();
        self.marked = secret.map(|parameter| (parameter, false)).collect();
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
