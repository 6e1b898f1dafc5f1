//! What is wrong with the values that a recipe gives the parameters of a component.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostic, Span};

use super::ComponentRef;
use crate::component::{Component, ParameterError};
use crate::suggest;

impl ComponentRef {
    /// Warns of values for parameters that the component has not.
    #[must_use]
    pub fn undeclared(&self, name: &str, component: &Component) -> Vec<Diagnostic> {
        let unknown = component.undeclared(&self.parameters);
        unknown
            .map(|unknown| {
                let place = self.places.get(unknown).map(|place| place.name);
                let names = component.parameters.iter().map(|p| p.name.as_str());
                let message = format!(
                    "the component {name} has no parameter {unknown}; the value is ignored"
                );
                Diagnostic {
                    help: suggest::did_you_mean(unknown, names),
                    ..Diagnostic::warning(
                        "undeclared-parameter",
                        place.unwrap_or(self.span),
                        message,
                    )
                }
            })
            .collect()
    }

    /// Tells why a component refuses the values of `given`: at the value, when it is the recipe that gives it; else at
    /// the component.
    #[must_use]
    pub fn refused(
        &self,
        component: &str,
        given: &BTreeMap<String, String>,
        error: &ParameterError,
    ) -> Diagnostic {
        let name = error.name();
        let own = self.parameters.get(name);
        let place = self.places.get(name).filter(|_| own == given.get(name));
        let span: Span = match (place, error) {
            (None, _) => self.span,
            (Some(place), ParameterError::IsConstant { .. }) => place.name,
            (Some(place), _) => place.value,
        };
        let message = format!("component {component}: {error}");
        Diagnostic::error("invalid-parameter", span, message)
            .with_help("give the value in the recipe's `parameters`, or with --param")
    }

    /// Warns of a component of another platform than the image's, which is Linux.
    #[must_use]
    pub fn elsewhere(&self, component: &str, platform: &str) -> Diagnostic {
        let message = format!("the component {component} is for {platform}, the image is of Linux");
        let help = "AWS refuses such a recipe; here its steps fail when they are reached";
        Diagnostic::warning("wrong-platform", self.span, message).with_help(help)
    }

    /// What is wrong with the values of the recipe alone. What is not known before deployment fits.
    pub(crate) fn given_problems(&self, name: &str, component: &Component) -> Vec<Diagnostic> {
        let mut found = self.undeclared(name, component);
        let is_open = |name: &str| self.places.get(name).is_some_and(|place| place.is_open);
        let problems = component.parameter_problems(&self.parameters);
        let problems = problems.iter().filter(|problem| match problem {
            ParameterError::NotAllowed { name, .. } => !is_open(name),
            // It may be the one that could not be read.
            ParameterError::NoValue { .. } => self.is_whole,
            ParameterError::IsConstant { .. } => true,
        });
        found.extend(problems.map(|problem| self.refused(name, &self.parameters, problem)));
        found
    }
}
