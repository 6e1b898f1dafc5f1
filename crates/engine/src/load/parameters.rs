//! Values of a component's parameters.

use amiforge_recipe::{
    Component, ComponentRef, ParameterError, component_platform, has_secret, secret_key,
    secret_mark,
};

use super::{LoadedComponent, Loader};
use crate::library;

/// Problems that are told of one recipe's parameters, about.
const MOST_PROBLEMS: usize = 1000;

impl Loader<'_> {
    /// Gives the parameters their values.
    pub(super) fn finish(
        &mut self,
        name: String,
        shown: String,
        text: String,
        component: Component,
        reference: &ComponentRef,
        platform: Option<&str>,
    ) -> Option<LoadedComponent> {
        // Very many references to a component with very many parameters: what is told already is enough.
        if self.diagnostics.len() > MOST_PROBLEMS {
            return None;
        }
        let undeclared = reference.undeclared(&name, &component).into_iter();
        let undeclared = undeclared.take(MOST_PROBLEMS);
        undeclared.for_each(|problem| self.diagnostics.push(problem));
        let platform = platform.unwrap_or_else(|| component_platform(&component));
        if self.is_linux && platform != "Linux" {
            let problem = reference.elsewhere(&name, platform);
            self.diagnostics.push(problem);
        }
        let mut given = reference.parameters.clone();
        for (at, (key, value)) in self.request.parameters.iter().enumerate() {
            let own = key
                .strip_prefix(&name)
                .and_then(|rest| rest.strip_prefix('.'))
                .unwrap_or(key);
            if component.parameters.iter().any(|p| p.name == own) {
                // A secret of a template is named like the parameter that it is given to, more often than not; the template
                // says what that gets.
                let taken = own == key && self.secrets.contains_key(&secret_key(key));
                if !taken {
                    given.insert(own.to_owned(), value.clone());
                    self.used[at] = true;
                }
            }
        }
        let secret = self.secret_parameters(&name, &component, reference, &mut given);
        let resolved = component.resolve_parameters(&given);
        let Some(mut parameters) = resolved.ok().filter(|_| reference.is_whole) else {
            let problems = component.parameter_problems(&given).into_iter();
            for mut error in problems.take(MOST_PROBLEMS) {
                if !reference.is_whole && matches!(error, ParameterError::NoValue { .. }) {
                    // It may be the one that could not be read.
                    continue;
                }
                if let ParameterError::NotAllowed { name, value, .. } = &mut error
                    && secret.contains(name)
                {
                    "(not shown)".clone_into(value);
                }
                let problem = reference.refused(&name, &given, &error);
                self.diagnostics.push(problem);
            }
            return None;
        };
        for parameter in &secret {
            let own = format!("{name}.{parameter}");
            // What is configured has its mark already, and so has a secret of a template.
            if let Some(value) = parameters.get_mut(parameter)
                && !has_secret(value)
            {
                let value = std::mem::replace(value, secret_mark(&own));
                self.secrets.insert(secret_key(&own), value);
            }
        }
        let external = self.external(&name, &component, &parameters, reference)?;
        Some(LoadedComponent {
            name,
            version: None,
            shown,
            is_file: false,
            text,
            library: library::needed_by(&component, &parameters),
            component,
            parameters,
            external,
        })
    }
}
