//! Resolving references against what is known while a document runs.

use std::collections::BTreeMap;

use amiforge_types::Span;

use crate::node::{Node, NodeKind, Scalar};
use crate::reference::{Chain, Piece, Reference, Side, marked, may_refer, pieces, secret_key};

/// How many bytes the texts of one step may have once references are resolved.
const MAX_RESOLVED_BYTES: usize = 64 << 20;

/// What references of one document can name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Parameters and constants by name; see [`Component::variables`](crate::Component::variables).
    pub variables: BTreeMap<String, String>,
    /// Phase name → step name → what went in and came out.
    pub steps: BTreeMap<String, BTreeMap<String, StepRecord>>,
    /// `env:` by name: the environment of the commands.
    pub environment: BTreeMap<String, String>,
    /// `context:` by key.
    pub context: BTreeMap<String, String>,
    /// `aws:ssm:` and `aws:imds:`, by the reference as [`Reference::Aws`] has it, and secret parameters by
    /// [`secret_key`](crate::secret_key).
    pub external: BTreeMap<String, String>,
    /// The iteration of the loop, in a step that has one.
    pub iteration: Option<Iteration>,
}

/// One round of a loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iteration {
    /// The loop's own name.
    pub name: Option<String>,
    /// From 0.
    pub index: u64,
    /// `loop.value`
    pub value: String,
}

/// What is known of one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StepRecord {
    /// The resolved inputs as a list; a mapping is a list of one.
    pub inputs: Vec<serde_json::Value>,
    /// The outputs as a list of key and value; most actions give at most one entry.
    pub outputs: Vec<BTreeMap<String, String>>,
    /// True for a step that did nothing: every input and output reads as the empty text.
    #[serde(default)]
    pub skipped: bool,
}

impl StepRecord {
    /// A record of the given resolved inputs, with no outputs yet.
    #[must_use]
    pub fn of_inputs(inputs: Option<&Node>) -> Self {
        let inputs = match inputs.map(Node::to_json) {
            None | Some(serde_json::Value::Null) => Vec::new(),
            Some(serde_json::Value::Array(items)) => items,
            Some(other) => vec![other],
        };
        Self {
            inputs,
            outputs: Vec::new(),
            skipped: false,
        }
    }
}

/// A reference that has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No such parameter or constant.
    #[error("`{name}` is neither a parameter nor a constant")]
    Undeclared {
        /// The name as written.
        name: String,
        /// The text that holds it.
        span: Span,
    },
    /// The step has not run, or never will in this run.
    #[error("`{chain}` has no value: the step has not run")]
    NotRun {
        /// The reference.
        chain: String,
        /// The text that holds it.
        span: Span,
    },
    /// The step ran and has no such input or output.
    #[error("`{chain}` has no value: the step gave {given}")]
    NoSuchKey {
        /// The reference.
        chain: String,
        /// What there is instead.
        given: String,
        /// The text that holds it.
        span: Span,
    },
    /// The values make more text than any step can use.
    #[error("with its references resolved, the text has more than {MAX_RESOLVED_BYTES} bytes")]
    TooMuch {
        /// The text that went over the limit.
        span: Span,
    },
    /// No such variable in the environment of the commands.
    #[error("`env:{name}` has no value: the environment has no such variable")]
    NoVariable {
        /// The name as written.
        name: String,
        /// The text that holds it.
        span: Span,
    },
    /// What a run does not know.
    #[error("`{reference}` has no value in this run")]
    Unknown {
        /// The reference without its braces.
        reference: String,
        /// The text that holds it.
        span: Span,
    },
    /// A loop has no end that one would wait for.
    #[error("the list has more than {} items", crate::MAX_ITERATIONS)]
    TooMany {
        /// The list.
        span: Span,
    },
}

impl Scope {
    /// A scope with variables only.
    #[must_use]
    pub fn new(variables: BTreeMap<String, String>) -> Self {
        Self {
            variables,
            ..Self::default()
        }
    }

    /// Adds what is known of a step, in place of what was known.
    pub fn record(&mut self, phase: &str, step: &str, record: StepRecord) {
        self.steps
            .entry(phase.to_owned())
            .or_default()
            .insert(step.to_owned(), record);
    }

    /// The tree with every reference in its scalars replaced. One pass: what a value brings in is
    /// not looked at again. Keys are not touched. A resolved scalar counts as quoted.
    ///
    /// # Errors
    /// The first reference without a value, or too much text.
    pub fn resolve(&self, node: &Node) -> Result<Node, ResolveError> {
        self.resolve_within(node, &mut { MAX_RESOLVED_BYTES })
    }

    /// `left` is how many bytes resolved texts may still have.
    fn resolve_within(&self, node: &Node, left: &mut usize) -> Result<Node, ResolveError> {
        let kind = match &node.kind {
            NodeKind::Scalar(scalar) if !may_refer(&scalar.text) => {
                NodeKind::Scalar(scalar.clone())
            }
            NodeKind::Scalar(scalar) => NodeKind::Scalar(Scalar {
                text: self.text_within(&scalar.text, node.span, left)?,
                style: crate::Style::Quoted,
            }),
            NodeKind::Seq(items) => NodeKind::Seq(
                items
                    .iter()
                    .map(|n| self.resolve_within(n, left))
                    .collect::<Result<_, _>>()?,
            ),
            NodeKind::Map(fields) => NodeKind::Map(
                fields
                    .iter()
                    .map(|(k, v)| Ok((k.clone(), self.resolve_within(v, left)?)))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Node {
            span: node.span,
            kind,
            tag: node.tag.clone(),
        })
    }

    /// The text with every reference replaced; `span` is where it stands, for errors.
    ///
    /// # Errors
    /// The first reference without a value, or too much text.
    pub fn resolve_text(&self, text: &str, span: Span) -> Result<String, ResolveError> {
        self.text_within(text, span, &mut { MAX_RESOLVED_BYTES })
    }

    fn text_within(
        &self,
        text: &str,
        span: Span,
        left: &mut usize,
    ) -> Result<String, ResolveError> {
        let mut out = String::with_capacity(text.len());
        for piece in pieces(text) {
            let before = out.len();
            match piece {
                Piece::Literal(text) | Piece::Foreign(text) => out.push_str(text),
                Piece::Reference(source, reference) => {
                    self.append(source, &reference, span, &mut out)?;
                }
            }
            *left = left
                .checked_sub(out.len() - before)
                .ok_or(ResolveError::TooMuch { span })?;
        }
        Ok(out)
    }

    fn append(
        &self,
        source: &str,
        reference: &Reference,
        span: Span,
        out: &mut String,
    ) -> Result<(), ResolveError> {
        match reference {
            Reference::Variable(name) => {
                let value = self.variables.get(name);
                let value = value.ok_or_else(|| ResolveError::Undeclared {
                    name: name.clone(),
                    span,
                })?;
                // The one thing that is looked for in a value: a secret that was given as a part of it.
                let mut parts = Vec::new();
                marked(value, &mut parts);
                for part in parts {
                    match part {
                        Piece::Reference(source, secret) => {
                            self.append(source, &secret, span, out)?;
                        }
                        Piece::Literal(text) | Piece::Foreign(text) => out.push_str(text),
                    }
                }
            }
            Reference::Secret(name) => {
                let key = secret_key(name);
                out.push_str(known(&self.external, &key, || key.clone(), span)?);
            }
            Reference::Chain(chain) => out.push_str(&self.chained(chain, span)?),
            Reference::LoopIndex(owner) => match self.iteration_of(owner.as_deref()) {
                Some(iteration) => out.push_str(&iteration.index.to_string()),
                // Outside its loop it is text (AWSTOE: looping constructs).
                None => out.push_str(source),
            },
            Reference::LoopValue(owner) => match self.iteration_of(owner.as_deref()) {
                Some(iteration) => out.push_str(&iteration.value),
                None => out.push_str(source),
            },
            Reference::Environment(name) => {
                let value = self.environment.get(name);
                out.push_str(value.ok_or_else(|| ResolveError::NoVariable {
                    name: name.clone(),
                    span,
                })?);
            }
            Reference::Context(key) => {
                out.push_str(known(
                    &self.context,
                    key,
                    || format!("context:{key}"),
                    span,
                )?);
            }
            Reference::Aws(name) => {
                out.push_str(known(&self.external, name, || name.clone(), span)?)
            }
            Reference::SsmOf(name) => {
                let parameter = self.variables.get(name);
                let parameter = parameter.ok_or_else(|| ResolveError::Undeclared {
                    name: name.clone(),
                    span,
                })?;
                let key = ssm_key(parameter);
                out.push_str(known(&self.external, &key, || key.clone(), span)?);
            }
        }
        Ok(())
    }

    fn iteration_of(&self, owner: Option<&str>) -> Option<&Iteration> {
        let iteration = self.iteration.as_ref()?;
        let named = owner.is_none_or(|owner| iteration.name.as_deref() == Some(owner));
        named.then_some(iteration)
    }

    fn chained(&self, chain: &Chain, span: Span) -> Result<String, ResolveError> {
        let not_run = || ResolveError::NotRun {
            chain: chain.to_string(),
            span,
        };
        let record = self
            .steps
            .get(&chain.phase)
            .and_then(|p| p.get(&chain.step))
            .ok_or_else(not_run)?;
        let index = chain.index.unwrap_or(0);
        let missing = |given: Vec<&str>| {
            let given = if given.is_empty() {
                "nothing there".to_owned()
            } else {
                given.join(", ")
            };
            ResolveError::NoSuchKey {
                chain: chain.to_string(),
                given,
                span,
            }
        };
        match chain.side {
            _ if record.skipped => Ok(String::new()),
            Side::Outputs => {
                let entry = record
                    .outputs
                    .get(index)
                    .ok_or_else(|| missing(Vec::new()))?;
                let value = entry.get(&chain.key);
                value
                    .cloned()
                    .ok_or_else(|| missing(entry.keys().map(String::as_str).collect()))
            }
            Side::Inputs => {
                let entry = record
                    .inputs
                    .get(index)
                    .ok_or_else(|| missing(Vec::new()))?;
                let keys = || {
                    entry
                        .as_object()
                        .map(|o| o.keys().map(String::as_str).collect())
                        .unwrap_or_default()
                };
                match entry.get(&chain.key) {
                    Some(serde_json::Value::String(text)) => Ok(text.clone()),
                    Some(serde_json::Value::Null) => Ok(String::new()),
                    Some(other) => Ok(other.to_string()),
                    None => Err(missing(keys())),
                }
            }
        }
    }
}

/// A reference to the parameter store, of the name that a document's parameter holds.
pub(crate) fn ssm_key(parameter: &str) -> String {
    let name = parameter.strip_prefix("aws:ssm:").unwrap_or(parameter);
    format!("aws:ssm:{name}")
}

fn known<'m>(
    values: &'m BTreeMap<String, String>,
    key: &str,
    reference: impl FnOnce() -> String,
    span: Span,
) -> Result<&'m String, ResolveError> {
    values.get(key).ok_or_else(|| ResolveError::Unknown {
        reference: reference(),
        span,
    })
}

impl ResolveError {
    /// The place of the text that holds the reference.
    #[must_use]
    pub fn span(&self) -> Span {
        match self {
            Self::Undeclared { span, .. }
            | Self::NotRun { span, .. }
            | Self::NoSuchKey { span, .. }
            | Self::TooMuch { span }
            | Self::TooMany { span }
            | Self::NoVariable { span, .. }
            | Self::Unknown { span, .. } => *span,
        }
    }
}

#[cfg(test)]
mod tests;
