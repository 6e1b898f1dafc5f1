//! Values of a component's parameters.

use std::collections::BTreeMap;

use amiforge_recipe::{
    Component, ComponentRef, ParameterError, did_you_mean, has_secret, secret_key, secret_mark,
};
use amiforge_types::Diagnostic;

use super::{LoadedComponent, Loader};
use crate::library;

impl Loader<'_> {
    /// Gives the parameters their values.
    pub(super) fn finish(
        &mut self,
        name: String,
        shown: String,
        text: String,
        component: Component,
        reference: &ComponentRef,
    ) -> Option<LoadedComponent> {
        for unknown in component.undeclared(&reference.parameters) {
            let place = reference.places.get(unknown).map(|place| place.name);
            let names = component.parameters.iter().map(|p| p.name.as_str());
            let message =
                format!("the component {name} has no parameter {unknown}; the value is ignored");
            let mut problem = Diagnostic::warning(
                "undeclared-parameter",
                place.unwrap_or(reference.span),
                message,
            );
            problem.help = did_you_mean(unknown, names);
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
        if !reference.is_whole {
            // What is wrong with them is told already.
            return None;
        }
        let Ok(mut parameters) = component.resolve_parameters(&given) else {
            for mut error in component.parameter_problems(&given) {
                if let ParameterError::NotAllowed { name, value, .. } = &mut error
                    && secret.contains(name)
                {
                    "(not shown)".clone_into(value);
                }
                let problem = parameter_problem(reference, &name, &given, &error);
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
            text,
            library: library::needed_by(&component, &parameters),
            component,
            parameters,
            external,
        })
    }
}

/// One at the value that the recipe gives, when it is that one; else at the component.
fn parameter_problem(
    reference: &ComponentRef,
    component: &str,
    given: &BTreeMap<String, String>,
    error: &ParameterError,
) -> Diagnostic {
    let name = error.name();
    let own = reference.parameters.get(name);
    let place = reference
        .places
        .get(name)
        .filter(|_| own == given.get(name));
    let span = match (place, error) {
        (None, _) => reference.span,
        (Some(place), ParameterError::IsConstant { .. }) => place.name,
        (Some(place), _) => place.value,
    };
    let message = format!("component {component}: {error}");
    Diagnostic::error("invalid-parameter", span, message)
        .with_help("give the value in the recipe's `parameters`, or with --param")
}
