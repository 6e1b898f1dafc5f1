//! Component documents: AWSTOE, schema version 1.0.

mod check;
mod conditional;
mod decode;
mod repeat;

use std::collections::BTreeMap;

use amiforge_types::{Diagnostics, Digest, Span};

use crate::actions::{ActionInputs, ActionKind};
use crate::node::{Node, NodeKind};
use crate::reference::{self, Piece, Reference, has_secret, secret_key};
use crate::scope::ssm_key;

pub(crate) use check::names_credentials;
pub use conditional::{Branch, If};
pub use decode::parse_component;
pub(crate) use decode::{component, decode_document};
pub use repeat::{DELIMITERS, Loop, LoopOver, LoopValues, MAX_ITERATIONS};

/// A component document without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Free text; unrelated to the name a recipe calls the component by.
    pub name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// In the order of the document; names are unique across parameters and constants.
    pub parameters: Vec<ParameterSpec>,
    /// In the order of the document.
    pub constants: Vec<Constant>,
    /// In the order of the document, which is the order they run in; names are unique.
    pub phases: Vec<Phase>,
    /// The whole document as it was read.
    pub document: Node,
}

/// A declared parameter; its type is always `string`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// 3 to 128 letters, digits, `_` and `-`.
    pub name: String,
    /// The value when none is given.
    pub default: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// When given, the only values that are accepted.
    pub allowed_values: Option<Vec<String>>,
    /// Where the parameter is declared.
    pub span: Span,
}

/// A declared constant; its type is always `string`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    /// 3 to 128 letters, digits, `_` and `-`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where the constant is declared.
    pub span: Span,
}

/// A list of steps with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Unique in the document; the service runs `build`, `validate` and `test`.
    pub name: String,
    /// In running order.
    pub steps: Vec<Step>,
    /// Where the name stands.
    pub span: Span,
}

/// One action with its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Unique in its phase.
    pub name: String,
    /// What to do.
    pub action: ActionKind,
    /// The inputs as written, references included; `None` when absent.
    pub inputs: Option<Node>,
    /// Seconds one attempt may take (default 7,200); `None` is without limit.
    pub timeout_seconds: Option<u32>,
    /// Tries in all, at least 1.
    pub max_attempts: u32,
    /// What follows the last failed attempt.
    pub on_failure: OnFailure,
    /// True keeps the step's output out of the logs.
    pub disable_logging: bool,
    /// Whether the step runs at all; `None` always does.
    pub condition: Option<If>,
    /// How often the step runs; `None` is once.
    pub repeat: Option<Loop>,
    /// Where the step's name stands.
    pub span: Span,
    /// Where its action stands.
    pub action_span: Span,
}

/// What follows a step whose last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnFailure {
    /// Nothing more runs; the document failed.
    Abort,
    /// The remaining steps run; the document failed.
    Continue,
    /// The remaining steps run; the document succeeds with an ignored failure.
    Ignore,
}

impl OnFailure {
    /// The spelling of documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abort => "Abort",
            Self::Continue => "Continue",
            Self::Ignore => "Ignore",
        }
    }
}

/// Given values do not fit the declared parameters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A parameter has no default and no value was given.
    #[error("parameter `{name}` has no default, and no value was given")]
    NoValue {
        /// The parameter.
        name: String,
    },
    /// The value is not among `allowedValues`.
    #[error("{value:?} is not allowed for parameter `{name}`; allowed are {allowed:?}")]
    NotAllowed {
        /// The parameter.
        name: String,
        /// What was given.
        value: String,
        /// What may be given.
        allowed: Vec<String>,
    },
    /// The name is a constant's.
    #[error("`{name}` is a constant of the component and cannot be set")]
    IsConstant {
        /// The constant.
        name: String,
    },
}

impl ParameterError {
    /// The parameter, or what was taken for one.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::NoValue { name } | Self::NotAllowed { name, .. } | Self::IsConstant { name } => {
                name
            }
        }
    }
}

impl Component {
    /// The value of every parameter: what is given, else the default. Given names that the
    /// document does not declare are ignored, as the service does (see
    /// [`Component::undeclared`] for a warning).
    ///
    /// # Errors
    /// The first constant that is given, or else parameter, in document order, that has no value or one that is not
    /// allowed.
    pub fn resolve_parameters(
        &self,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, ParameterError> {
        if let Some(first) = self.parameter_problems(given).into_iter().next() {
            return Err(first);
        }
        let value = |spec: &ParameterSpec| given.get(&spec.name).or(spec.default.as_ref()).cloned();
        let resolved = self.parameters.iter();
        Ok(resolved
            .filter_map(|spec| Some((spec.name.clone(), value(spec)?)))
            .collect())
    }

    /// Everything for which [`Component::resolve_parameters`] refuses values.
    #[must_use]
    pub fn parameter_problems(&self, given: &BTreeMap<String, String>) -> Vec<ParameterError> {
        let constants = self.constants.iter().map(|constant| constant.name.clone());
        let constants = constants
            .filter(|name| given.contains_key(name))
            .map(|name| ParameterError::IsConstant { name });
        let parameters = self.parameters.iter().filter_map(|spec| {
            let name = spec.name.clone();
            let Some(value) = given.get(&name).or(spec.default.as_ref()) else {
                return Some(ParameterError::NoValue { name });
            };
            // A secret was looked at when its mark was put in its place.
            let allowed = spec.allowed_values.as_ref();
            let allowed = allowed.filter(|a| !has_secret(value) && !a.contains(value))?;
            Some(ParameterError::NotAllowed {
                name,
                value: value.clone(),
                allowed: allowed.clone(),
            })
        });
        constants.chain(parameters).collect()
    }

    /// Names among `given` that this document does not declare, neither as parameter nor as constant.
    pub fn undeclared<'g>(
        &'g self,
        given: &'g BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'g str> {
        let declared = |name: &str| {
            self.parameters.iter().any(|p| p.name == name)
                || self.constants.iter().any(|c| c.name == name)
        };
        given
            .keys()
            .map(String::as_str)
            .filter(move |name| !declared(name))
    }

    /// Constants and resolved parameters together: what [`Scope`](crate::Scope) starts from.
    #[must_use]
    pub fn variables(&self, parameters: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let constants = self
            .constants
            .iter()
            .map(|c| (c.name.clone(), c.value.clone()));
        parameters.clone().into_iter().chain(constants).collect()
    }

    /// The references of some phases to the parameter store, the instance metadata and secret parameters, each
    /// once, with the place of the first text that holds it. `variables` are those of [`Component::variables`].
    #[must_use]
    pub fn external(
        &self,
        variables: &BTreeMap<String, String>,
        wanted: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Span> {
        let mut found = BTreeMap::new();
        let mut visit = |node: &Node, text: &str| {
            for piece in reference::pieces(text) {
                let Piece::Reference(_, names) = piece else {
                    continue;
                };
                let names = match names {
                    Reference::Aws(name) => vec![name],
                    Reference::Secret(name) => vec![secret_key(&name)],
                    Reference::SsmOf(name) => {
                        let parameter = variables.get(&name);
                        parameter.map(|p| ssm_key(p)).into_iter().collect()
                    }
                    Reference::Variable(name) => {
                        let value = variables.get(&name).map_or("", String::as_str);
                        let mut parts = Vec::new();
                        reference::marked(value, &mut parts);
                        let secret = |part| match part {
                            Piece::Reference(_, Reference::Secret(name)) => Some(secret_key(&name)),
                            _ => None,
                        };
                        parts.into_iter().filter_map(secret).collect()
                    }
                    _ => Vec::new(),
                };
                for name in names {
                    found.entry(name).or_insert(node.span);
                }
            }
        };
        for step in self
            .phases
            .iter()
            .filter(|p| wanted(&p.name))
            .flat_map(|p| &p.steps)
        {
            let condition = step.condition.as_ref().map(|when| &when.condition);
            let repeat = step.repeat.as_ref().map(|repeat| &repeat.node);
            for node in [condition, repeat, step.inputs.as_ref()]
                .into_iter()
                .flatten()
            {
                check::each_scalar(node, &mut visit);
            }
        }
        found
    }

    /// The phase called `name`.
    #[must_use]
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases.iter().find(|p| p.name == name)
    }

    /// What of the document decides what its build phase does, by name: `schemaVersion`, `constant.<name>`, the names of
    /// the steps in their order as `steps`, and the digest of each as `step.<name>`. Parameters are no part of it, since
    /// their values are what counts; nor are names, descriptions and other phases.
    #[must_use]
    pub fn build_inputs(&self) -> BTreeMap<String, String> {
        if self.phase_nodes().is_none() {
            return BTreeMap::new();
        }
        let steps = self.steps_of("build");
        let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
        let version = self.document.get("schemaVersion").and_then(Node::as_text);
        let constants = self.constants.iter();
        let constants = constants.map(|c| (format!("constant.{}", c.name), c.value.clone()));
        let digests = steps.iter().map(|(name, step)| {
            let digest = format!("sha256:{}", step.digest());
            (format!("step.{name}"), digest)
        });
        constants
            .chain(digests)
            .chain([
                (
                    "schemaVersion".to_owned(),
                    version.unwrap_or_default().to_owned(),
                ),
                ("steps".to_owned(), names.join(", ")),
            ])
            .collect()
    }

    /// The steps of a phase by their names, as the document has them; none where it has no such phase.
    #[must_use]
    pub fn steps_of(&self, phase: &str) -> Vec<(&str, &Node)> {
        let mut phases = self.phase_nodes().into_iter().flatten();
        let found = phases.find(|node| text_of(node, "name") == phase);
        let steps = found.and_then(|phase| phase.get("steps"));
        match steps.map(|steps| &steps.kind) {
            Some(NodeKind::Seq(steps)) => steps
                .iter()
                .map(|step| (text_of(step, "name"), step))
                .collect(),
            _ => Vec::new(),
        }
    }

    fn phase_nodes(&self) -> Option<&[Node]> {
        match self.document.get("phases").map(|phases| &phases.kind) {
            Some(NodeKind::Seq(phases)) => Some(phases),
            _ => None,
        }
    }

    /// Stable bytes of the document; see [`Node::canonical`].
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        self.document.canonical()
    }

    /// The digest of [`Component::canonical`].
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.canonical())
    }
}

/// The text of a field; empty where there is none.
fn text_of<'n>(node: &'n Node, field: &str) -> &'n str {
    node.get(field).and_then(Node::as_text).unwrap_or_default()
}

impl Step {
    /// Decodes inputs that [`Scope::resolve`](crate::Scope::resolve) has resolved.
    /// `None` comes with at least one error.
    #[must_use]
    pub fn decode_inputs(&self, resolved: Option<&Node>) -> (Option<ActionInputs>, Diagnostics) {
        self.action.decode(resolved, self.span)
    }
}

#[cfg(test)]
mod tests;
