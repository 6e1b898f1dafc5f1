//! References `{{ ... }}` inside the text of a document.
//!
//! Forms (AWSTOE: input and output chaining, user-defined variables, loops):
//! `Name` · `phase.step.inputs[n].key` · `phase.step.outputs[n].key` (index optional) ·
//! `loop.index`, `loop.value`, `<loop name>.index`, `<loop name>.value` · `env:NAME` ·
//! `context:key` · `aws:ssm:...` · `aws:imds:...`. White space inside the braces does not count.
//! Everything else between braces, and an opening that is never closed, is literal text.
//!
//! One form is our own: a *mark* stands where a secret parameter had its value, so that the value is in no
//! document, id or plan. It has no braces, which a plain scalar of YAML could not start with.

use std::fmt;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'t> {
    /// Text that stays as it is.
    Literal(&'t str),
    /// A reference, with its source text including the braces.
    Reference(&'t str, Reference),
    /// Braces around something that is no reference; stays as it is.
    Foreign(&'t str),
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A parameter or constant.
    Variable(String),
    /// An input or output of a step of this document.
    Chain(Chain),
    /// `loop.index` (first field `None`) or `<name>.index`: the iteration, from 0.
    LoopIndex(Option<String>),
    /// `loop.value` or `<name>.value`.
    LoopValue(Option<String>),
    /// `env:NAME`: a variable of the build's environment.
    Environment(String),
    /// `context:key`: a fact about this run; see [`CONTEXT_KEYS`].
    Context(String),
    /// `aws:ssm:/name` and `aws:imds:path`, whole.
    Aws(String),
    /// `aws:ssm:resolve(Name)`: the parameter of the store that a variable names.
    SsmOf(String),
    /// A mark of [`secret_mark`]: a secret parameter.
    Secret(String),
}

/// What a mark begins and ends with.
const MARK: (&str, &str) = ("__amiforge_secret_", "_secret_amiforge__");

/// What stands in texts for the value of the secret parameter `name`.
#[must_use]
pub fn secret_mark(name: &str) -> String {
    format!("{}{name}{}", MARK.0, MARK.1)
}

/// The name under which a run is given the value of a secret parameter, beside those of `aws:ssm:`.
#[must_use]
pub fn secret_key(name: &str) -> String {
    format!("{SECRET}{name}")
}

/// Whether a name is one of [`secret_key`].
#[must_use]
pub fn is_secret_key(name: &str) -> bool {
    name.starts_with(SECRET)
}

/// Begins the names of [`secret_key`].
pub(crate) const SECRET: &str = "secret:";

/// What follows `context:` (AWSTOE: define and reference variables).
pub const CONTEXT_KEYS: &[&str] = &[
    "accountId",
    "date",
    "dateTime",
    "executionId",
    "hostname",
    "osName",
    "osPlatform",
    "osVersion",
    "phase",
    "region",
    "step",
    "uuid",
];

/// `phase.step.inputs.key` and its kin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The phase's name.
    pub phase: String,
    /// The step's name.
    pub step: String,
    /// Inputs or outputs.
    pub side: Side,
    /// The entry of a list, from 0; the first when absent.
    pub index: Option<usize>,
    /// The key of the input or output.
    pub key: String,
}

/// Which data of a step a [`Chain`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the step was given.
    Inputs,
    /// What the step produced.
    Outputs,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.side == Side::Inputs {
            "inputs"
        } else {
            "outputs"
        };
        write!(f, "{}.{}.{side}", self.phase, self.step)?;
        if let Some(index) = self.index {
            write!(f, "[{index}]")?;
        }
        write!(f, ".{}", self.key)
    }
}

/// Splits a text into literal parts and references, without looking at what is declared.
/// The pieces put together are the text.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut literal = 0; // where the current literal began
    let mut at = 0;
    while let Some(open) = text[at..].find("{{").map(|i| at + i) {
        let Some(close) = text[open + 2..].find("}}").map(|i| open + 2 + i) else {
            break;
        };
        // `{{ a {{ Name }}`: the last opening before the closing is the one that counts.
        let open = text[open + 2..close]
            .rfind("{{")
            .map_or(open, |i| open + 2 + i);
        let (source, inner) = (&text[open..close + 2], &text[open + 2..close]);
        marked(&text[literal..open], &mut out);
        match Reference::parse(inner) {
            Some(reference) => out.push(Piece::Reference(source, reference)),
            // Braces of somebody else's templates may have a secret in them.
            None if has_secret(source) => marked(source, &mut out),
            None => out.push(Piece::Foreign(source)),
        }
        literal = close + 2;
        at = literal;
    }
    marked(&text[literal..], &mut out);
    out
}

/// Splits a text without braces at the marks of secrets.
pub(crate) fn marked<'t>(text: &'t str, out: &mut Vec<Piece<'t>>) {
    let mut rest = text;
    while let Some(open) = rest.find(MARK.0) {
        let name = &rest[open + MARK.0.len()..];
        let Some(len) = name.find(MARK.1) else { break };
        let end = open + MARK.0.len() + len + MARK.1.len();
        if open > 0 {
            out.push(Piece::Literal(&rest[..open]));
        }
        let secret = Reference::Secret(name[..len].to_owned());
        out.push(Piece::Reference(&rest[open..end], secret));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        out.push(Piece::Literal(rest));
    }
}

/// Whether a text has a [`secret_mark`].
#[must_use]
pub fn has_secret(text: &str) -> bool {
    text.contains(MARK.0)
}

/// False for a text that holds no reference, without a closer look.
pub(crate) fn may_refer(text: &str) -> bool {
    text.contains("{{") || has_secret(text)
}

/// True when the text holds at least one reference.
pub(crate) fn has_reference(text: &str) -> bool {
    may_refer(text)
        && pieces(text)
            .iter()
            .any(|p| matches!(p, Piece::Reference(..)))
}

/// Letters, digits, `_` and `-`: what names of variables, phases and steps are made of.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The shortest and longest name of a parameter or constant.
pub(crate) const VARIABLE_NAME_CHARS: std::ops::RangeInclusive<usize> = 3..=128;

impl Reference {
    /// Reads what stands between the braces; `None` when it is none of the forms.
    fn parse(inner: &str) -> Option<Self> {
        let inner = inner.trim();
        let rest_of = |prefix: &str| inner.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        if let Some(name) = rest_of("env:") {
            return Some(Self::Environment(name.to_owned()));
        }
        if let Some(key) = rest_of("context:") {
            return Some(Self::Context(key.to_owned()));
        }
        if let Some(name) = rest_of("aws:ssm:resolve(").and_then(|rest| rest.strip_suffix(')')) {
            // What is in the parentheses may itself be a reference to the store.
            let name = name.trim();
            return Some(if name.starts_with("aws:ssm:") {
                Self::Aws(name.to_owned())
            } else {
                Self::SsmOf(name.to_owned())
            });
        }
        if rest_of("aws:ssm:").is_some() || rest_of("aws:imds:").is_some() {
            return Some(Self::Aws(inner.to_owned()));
        }
        let parts: Vec<&str> = inner.split('.').collect();
        match parts.as_slice() {
            [name] if is_name(name) && VARIABLE_NAME_CHARS.contains(&name.len()) => {
                Some(Self::Variable((*name).to_owned()))
            }
            [owner, field @ ("index" | "value")] if is_name(owner) => {
                let owner = Some(*owner).filter(|o| *o != "loop").map(str::to_owned);
                Some(if *field == "index" {
                    Self::LoopIndex(owner)
                } else {
                    Self::LoopValue(owner)
                })
            }
            [phase, step, side, key] if [phase, step, key].iter().all(|p| is_name(p)) => {
                let (side, index) = chain_side(side)?;
                let [phase, step, key] = [phase, step, key].map(|p| (*p).to_owned());
                Some(Self::Chain(Chain {
                    phase,
                    step,
                    side,
                    index,
                    key,
                }))
            }
            _ => None,
        }
    }
}

/// `outputs`, `outputs[3]`, `inputs`, `inputs[0]`.
fn chain_side(text: &str) -> Option<(Side, Option<usize>)> {
    let (name, index) = match text.split_once('[') {
        None => (text, None),
        Some((name, rest)) => {
            let digits = rest.strip_suffix(']')?;
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (name, Some(digits.parse().ok()?))
        }
    };
    match name {
        "inputs" => Some((Side::Inputs, index)),
        "outputs" => Some((Side::Outputs, index)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
