//! References of a component document, checked before anything runs.
//!
//! Works on the tree and not on the decoded component, so that a mistake elsewhere in the document
//! does not hide one here.

use std::collections::BTreeMap;

use amiforge_types::{Diagnostics, Severity, Span};

use crate::actions::ActionKind;
use crate::decode::{Cx, shown};
use crate::node::{Node, NodeKind};
use crate::reference::{CONTEXT_KEYS, Chain, Piece, Reference, Side, may_refer, pieces};
use crate::suggest;

mod meant;

/// How many problems with references are reported; more say nothing new.
const MOST_PROBLEMS: usize = 50;

/// How many problems may still be reported. Warnings never keep an error from being told.
struct Left {
    errors: usize,
    warnings: usize,
}

impl Left {
    /// Takes one of its kind, when there is one.
    fn take(&mut self, severity: Severity) -> bool {
        let left = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        let any = *left > 0;
        *left = left.saturating_sub(1);
        any
    }
}

/// A step as far as references to it need it.
struct StepInfo<'n> {
    /// Order of running.
    order: usize,
    action: Option<ActionKind>,
    inputs: Option<&'n Node>,
}

type Steps<'n> = BTreeMap<&'n str, BTreeMap<&'n str, StepInfo<'n>>>;

/// Reports every reference that cannot have a value; `variables` are the declared names.
pub(super) fn references(document: &Node, variables: &BTreeMap<String, Span>, cx: &mut Cx<'_>) {
    let phases = items(document.get("phases"));
    let mut known: Steps<'_> = BTreeMap::new();
    let steps = phases
        .iter()
        .flat_map(|p| items(p.get("steps")).iter().map(move |s| (p, s)));
    for (order, (phase, step)) in steps.enumerate() {
        if let (Some(phase), Some(name)) = (text(phase, "name"), text(step, "name")) {
            let info = StepInfo {
                order,
                action: text(step, "action").and_then(ActionKind::from_name),
                inputs: step.get("inputs"),
            };
            known.entry(phase).or_default().entry(name).or_insert(info);
        }
    }
    let mut left = Left {
        errors: MOST_PROBLEMS,
        warnings: MOST_PROBLEMS,
    };
    for (list, field) in [("parameters", "default"), ("constants", "value")] {
        for item in items(document.get(list)) {
            let NodeKind::Map(fields) = &item.kind else {
                continue;
            };
            for value in fields.iter().filter_map(|(_, fields)| fields.get(field)) {
                literal(value, field, &mut left, cx);
            }
        }
    }
    let steps = phases
        .iter()
        .flat_map(|p| items(p.get("steps")).iter().map(move |s| (p, s)));
    for (order, (phase, step)) in steps.enumerate() {
        let repeat = step.get("loop");
        let outside = Site {
            steps: &known,
            variables,
            phase: text(phase, "name").unwrap_or_default(),
            order,
            loops: None,
        };
        let inside = Site {
            loops: repeat.map(|r| text(r, "name")),
            ..outside
        };
        let each = repeat.and_then(|r| r.get("forEach"));
        for (node, site) in [
            (step.get("if"), &outside),
            (each, &outside),
            (step.get("inputs"), &inside),
        ] {
            let Some(node) = node else { continue };
            each_scalar(node, &mut |node, text| {
                site.check(node, text, &mut left, cx);
            });
        }
    }
}

/// References in a value that is put in as it is.
fn literal(node: &Node, field: &str, left: &mut Left, cx: &mut Cx<'_>) {
    let Some(text) = node.as_text().filter(|text| may_refer(text)) else {
        return;
    };
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for piece in pieces(text) {
        let Piece::Reference(source, reference) = piece else {
            continue;
        };
        if matches!(reference, Reference::Secret(_)) {
            continue;
        }
        if !left.take(Severity::Warning) {
            return;
        }
        let count = seen.entry(source).or_default();
        let number = *count;
        *count += 1;
        let span = node.span.of_part(cx.source, source, number);
        let message = format!(
            "{} in a `{field}` is not replaced and stays as it is",
            shown(source)
        );
        let help = "references are replaced in `inputs`, `if` and `forEach` of steps, and not again in what they put there: write the parts side by side in the step";
        cx.warning("literal-reference", span, message, help);
    }
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|n| &n.kind) {
        Some(NodeKind::Seq(items)) => items,
        _ => &[],
    }
}

fn text<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.get(key).and_then(Node::as_text)
}

pub(super) fn each_scalar<'n>(node: &'n Node, visit: &mut impl FnMut(&'n Node, &'n str)) {
    match &node.kind {
        NodeKind::Scalar(scalar) => visit(node, &scalar.text),
        NodeKind::Seq(items) => items.iter().for_each(|n| each_scalar(n, visit)),
        NodeKind::Map(fields) => fields.iter().for_each(|(_, n)| each_scalar(n, visit)),
    }
}

/// Where in a step references are looked at.
#[derive(Clone, Copy)]
struct Site<'s, 'n> {
    steps: &'s Steps<'n>,
    variables: &'s BTreeMap<String, Span>,
    phase: &'s str,
    order: usize,
    /// The loop around it, with its own name.
    loops: Option<Option<&'n str>>,
}

impl<'n> Site<'_, 'n> {
    fn check(&self, node: &'n Node, text: &'n str, left: &mut Left, cx: &mut Cx<'_>) {
        if !may_refer(text) {
            return;
        }
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for piece in pieces(text) {
            if left.errors == 0 {
                return;
            }
            let (Piece::Foreign(source) | Piece::Reference(source, _)) = piece else {
                continue;
            };
            let count = seen.entry(source).or_default();
            let number = *count;
            *count += 1;
            let (mut found, span) = (Diagnostics::new(), node.span);
            let problems = &mut Cx::new(&mut found);
            match piece {
                Piece::Literal(_) => {}
                // To look for what was meant takes time too.
                Piece::Foreign(_) if left.warnings == 0 => {}
                Piece::Foreign(source) => {
                    let message =
                        format!("{} is not a reference and stays as it is", shown(source));
                    let help = match self.meant(source) {
                        Some(meant) => format!("did you mean `{{{{ {meant} }}}}`?"),
                        None => "a reference is `{{ Name }}` or `{{ phase.step.outputs.stdout }}`"
                            .to_owned(),
                    };
                    problems.warning("foreign-reference", span, message, &help);
                }
                Piece::Reference(_, Reference::Variable(name)) => {
                    if !self.variables.contains_key(&name) {
                        self.undeclared(&name, span, problems);
                    }
                }
                Piece::Reference(_, Reference::Chain(chain)) => self.chain(&chain, span, problems),
                Piece::Reference(
                    source,
                    Reference::LoopIndex(owner) | Reference::LoopValue(owner),
                ) => self.iteration(source, owner.as_deref(), span, problems),
                Piece::Reference(_, Reference::Context(key)) => {
                    if !CONTEXT_KEYS.contains(&key.as_str()) {
                        let help = suggest::did_you_mean(&key, CONTEXT_KEYS.iter().copied())
                            .unwrap_or_else(|| format!("there are {}", CONTEXT_KEYS.join(", ")));
                        let message = format!("there is no {} of a run", shown(&key));
                        problems.error_help("unknown-context", span, message, Some(help));
                    }
                }
                Piece::Reference(_, Reference::SsmOf(name)) => {
                    if !self.variables.contains_key(&name) {
                        self.undeclared(&name, span, problems);
                    }
                }
                Piece::Reference(_, Reference::Aws(name)) => {
                    refused_metadata(&name, span, problems)
                }
                // Known when the step runs.
                Piece::Reference(_, Reference::Environment(_) | Reference::Secret(_)) => {}
            }
            // To find the place takes time, so only where something is told.
            for problem in found.iter() {
                if !left.take(problem.severity) {
                    continue;
                }
                let mut problem = problem.clone();
                problem.span = Some(node.span.of_part(cx.source, source, number));
                cx.diags.push(problem);
            }
        }
    }

    fn iteration(&self, source: &str, owner: Option<&str>, span: Span, cx: &mut Cx<'_>) {
        let message = match self.loops {
            Some(name) if owner.is_none() || owner == name => return,
            Some(_) => format!(
                "{} is not this step's loop and stays as it is",
                shown(source)
            ),
            None => format!("{} stands outside a loop and stays as it is", shown(source)),
        };
        let help = "only the inputs of the step with the loop can use it";
        cx.warning("foreign-reference", span, message, help);
    }

    fn undeclared(&self, name: &str, span: Span, cx: &mut Cx<'_>) {
        let help = suggest::did_you_mean(name, self.variables.keys().map(String::as_str))
            .or_else(|| Some("declare it under `parameters` or `constants`".to_owned()));
        let message = format!("`{name}` is neither a parameter nor a constant of this document");
        cx.error_help("undeclared-name", span, message, help);
    }

    fn chain(&self, chain: &Chain, span: Span, cx: &mut Cx<'_>) {
        let Some(phase) = self.steps.get(chain.phase.as_str()) else {
            let help = suggest::did_you_mean(&chain.phase, self.steps.keys().copied());
            let message = format!(
                "`{chain}` names the phase `{}`, which does not exist",
                chain.phase
            );
            return cx.error_help("missing-step", span, message, help);
        };
        let Some(step) = phase.get(chain.step.as_str()) else {
            let help = suggest::did_you_mean(&chain.step, phase.keys().copied());
            let message = format!(
                "`{chain}` names the step `{}`, which phase `{}` has not",
                chain.step, chain.phase
            );
            return cx.error_help("missing-step", span, message, help);
        };
        if step.order >= self.order {
            let message = format!("`{chain}` names a step that has not run by then");
            let help = Some("a step can use what earlier steps left".to_owned());
            return cx.error_help("chain-to-later-step", span, message, help);
        }
        if self.phase == "test" && chain.phase != "test" {
            let message =
                format!("`{chain}` crosses from the build into the test of a fresh instance");
            let help = "in a build it has no value there: write it to a file of the image, and read that in the test";
            return cx.warning("chain-across-stages", span, message, help);
        }
        match chain.side {
            Side::Outputs => outputs(chain, step, span, cx),
            Side::Inputs => inputs(chain, step.inputs, span, cx),
        }
    }
}

/// Whether a reference is to a path of the instance metadata that holds credentials.
pub(crate) fn names_credentials(reference: &str) -> bool {
    let Some(path) = reference.strip_prefix("aws:imds:") else {
        return false;
    };
    let path = path.trim_start_matches('/');
    let path = path.strip_prefix("latest/").unwrap_or(path);
    let path = path.strip_prefix("meta-data/").unwrap_or(path);
    let first = path.split('/').next().unwrap_or_default();
    matches!(first, "iam" | "identity-credentials")
}

fn refused_metadata(reference: &str, span: Span, cx: &mut Cx<'_>) {
    if names_credentials(reference) {
        let message = format!("`{reference}` names credentials, which no reference can");
        cx.error("refused-reference", span, message);
    }
}

fn outputs(chain: &Chain, step: &StepInfo<'_>, span: Span, cx: &mut Cx<'_>) {
    let Some(action) = step.action else { return };
    let known = action.outputs();
    if !known.contains(&chain.key.as_str()) {
        let help = if known.is_empty() {
            format!("{} has no outputs", action.name())
        } else {
            format!("outputs of {}: {}", action.name(), known.join(", "))
        };
        let message = format!("`{chain}` names an output that there is not");
        return cx.error_help("missing-output", span, message, Some(help));
    }
    let entries = match step.inputs.map(|node| &node.kind) {
        // Its downloads have one output together.
        _ if action == ActionKind::WebDownload => 1,
        Some(NodeKind::Seq(items)) => items.len(),
        Some(NodeKind::Map(_)) => 1,
        // Wrong, or known only at deployment.
        None | Some(NodeKind::Scalar(_)) => return,
    };
    if chain.index.is_some_and(|index| index >= entries) {
        let message = format!("`{chain}` names an entry that there is not");
        let help = match entries {
            1 => format!(
                "the step has one entry of outputs: `outputs[0].{0}`, or `outputs.{0}`",
                chain.key
            ),
            _ => format!("the step has {entries} entries, counted from 0"),
        };
        cx.error_help("missing-output", span, message, Some(help));
    }
}

fn inputs(chain: &Chain, inputs: Option<&Node>, span: Span, cx: &mut Cx<'_>) {
    let index = chain.index.unwrap_or(0);
    let entry = match inputs.map(|n| (n, &n.kind)) {
        Some((node, _)) if node.is_opaque() => return,
        Some((_, NodeKind::Seq(items))) => items.get(index),
        Some((node, NodeKind::Map(_))) if index == 0 => Some(node),
        _ => None,
    };
    let message = format!("`{chain}` names an input that the step has not");
    let help = match entry.map(|entry| &entry.kind) {
        Some(NodeKind::Map(fields)) => {
            if fields.iter().any(|(key, _)| key.text == chain.key) {
                return;
            }
            let keys = || fields.iter().map(|(key, _)| key.text.as_str());
            suggest::did_you_mean(&chain.key, keys())
        }
        Some(_) if entry.is_some_and(Node::is_opaque) => return,
        Some(_) => None,
        None => match inputs.map(|node| &node.kind) {
            Some(NodeKind::Seq(items)) => Some(format!(
                "its list has {} entries, counted from 0",
                items.len()
            )),
            _ => None,
        },
    };
    cx.error_help("missing-input", span, message, help);
}
