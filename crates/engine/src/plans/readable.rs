//! What changed between two plans in words: a step's digest says that it differs, and its documents say in what.

use std::collections::{BTreeMap, BTreeSet};

use amiforge_plan::{InputChange, LayerKind, LayerWhy, Plan, Reason, Why};
use amiforge_recipe::{Component, Node, NodeKind, parse_component, secret_mark};
use amiforge_types::{Digest, LayerId};

use super::documents::{Asked, Documents};
use crate::load::LoadedRecipe;
use crate::shown::shown;

/// Differences that are told of one step, and of all steps of a component.
const MOST: usize = 4;
const MOST_OF_ALL: usize = 24;

/// Names that are told of a list.
const MOST_NAMES: usize = 8;

/// Characters of a value inside a step, and of a value that is an input itself.
const WIDTH: usize = 60;
const INPUT_WIDTH: usize = 160;

/// Characters that are shown before the place where two long texts begin to differ.
const LEAD: usize = 16;

/// What stands where a value is nobody's to see.
const MASK: &str = "********";

/// Shorter secrets would turn any text into stars.
const SHORTEST_SECRET: usize = 3;

/// Two plans, and what is known of their documents.
pub(super) struct Plans<'a> {
    pub(super) old: &'a Plan,
    pub(super) documents: Option<&'a Documents>,
    pub(super) new: &'a Plan,
    pub(super) recipe: &'a LoadedRecipe,
}

impl Plans<'_> {
    /// Why a layer differs, a line for each difference.
    pub(super) fn lines(&self, layer: &LayerWhy) -> Vec<String> {
        let (inputs, parent) = match &layer.reason {
            Reason::Unchanged => return vec!["unchanged since the last build".to_owned()],
            Reason::New => return vec!["new since the last build".to_owned()],
            Reason::Changed { inputs, parent } => (inputs, *parent),
        };
        let secrets = Secrets::of(self.recipe);
        let steps = layer
            .old
            .and_then(|old| self.steps(old, layer.id, inputs, &secrets));
        let others = inputs
            .iter()
            .filter(|change| steps.is_none() || !is_of_steps(change));
        let mut lines: Vec<String> = others
            .map(|change| match change.input.as_str() {
                "configureScript" => self.configured(),
                _ => input_line(change, &secrets),
            })
            .collect();
        lines.extend(steps.into_iter().flatten());
        if parent {
            lines.push("a layer below it changed".to_owned());
        }
        lines
    }

    /// Why a plan differs where no layer of it tells: what is gone, another order, what only the image is made of.
    pub(super) fn others(&self, why: &Why) -> Vec<String> {
        let secrets = Secrets::of(self.recipe);
        let gone = why.removed.iter();
        let mut lines: Vec<String> = gone
            .map(|title| format!("{} is gone", cut(title, WIDTH)))
            .collect();
        let has = |plan: &Plan, name: &String| plan.components.iter().any(|c| c.name == *name);
        lines.extend(why.layerless.iter().map(|name| {
            let what = match (has(self.old, name), has(self.new, name)) {
                (true, false) => "is gone",
                (false, true) => "is new",
                _ => "changed",
            };
            format!("{}, which has no layer, {what}", cut(name, WIDTH))
        }));
        if let Some(order) = &why.order {
            lines.push(format!(
                "the order of the components changed: {} -> {}",
                cut(&order.old.join(", "), INPUT_WIDTH),
                cut(&order.new.join(", "), INPUT_WIDTH)
            ));
        }
        let image = why.image.iter();
        lines.extend(image.map(|change| format!("of the image, {}", input_line(change, &secrets))));
        lines
    }

    /// What differs in the steps of a component; `None` where what they said is not known.
    fn steps(
        &self,
        old: LayerId,
        new: LayerId,
        inputs: &[InputChange],
        secrets: &Secrets,
    ) -> Option<Vec<String>> {
        let at = |plan: &Plan, id| plan.components.iter().position(|c| c.layer == Some(id));
        let text = self.documents?.text(at(self.old, old)?)?;
        let before = parse_component(text).0?;
        let planned = self.old.layers.iter().find(|layer| layer.id == old)?;
        // Only what is the very document that the plan was made of explains it.
        let known = before.build_inputs();
        let fits =
            |change: &InputChange| planned.inputs.get(&change.input) == known.get(&change.input);
        if !inputs.iter().filter(|c| is_of_steps(c)).all(fits) {
            return None;
        }
        let after = &self.recipe.components.get(at(self.new, new)?)?.component;
        Some(step_lines(&before, after, secrets))
    }

    /// What differs of what configures the packages of the parent.
    fn configured(&self) -> String {
        let mut parts = Vec::new();
        let asked = Asked::of(self.recipe);
        if let Some(before) = self.documents.map(|documents| &documents.asked) {
            if before.variant != asked.variant {
                parts.push(format!(
                    "amiforge.apt.variant: {} -> {}",
                    cut(&before.variant, WIDTH),
                    asked.variant
                ));
            }
            for (setting, before, after) in [
                ("include", &before.include, &asked.include),
                ("packages", &before.packages, &asked.packages),
            ] {
                let changed = of_lists(before, after);
                parts.extend(
                    (!changed.is_empty()).then(|| format!("amiforge.apt.{setting}: {changed}")),
                );
            }
        }
        let changed = of_lists(&packages(self.old), &packages(self.new));
        if !changed.is_empty() {
            parts.push(format!("packages: {changed}"));
        }
        if parts.is_empty() {
            return "configureScript changed: the order in which the packages are configured, or amiforge's own \
                    commands for it"
                .to_owned();
        }
        format!("what configures the packages changed: {}", parts.join("; "))
    }
}

fn is_of_steps(change: &InputChange) -> bool {
    change.input == "steps" || change.input.starts_with("step.")
}

/// The names of the packages that a plan's parent is made of.
fn packages(plan: &Plan) -> Vec<String> {
    let unpacked = plan
        .layers
        .iter()
        .filter(|layer| layer.kind == LayerKind::ParentUnpacked);
    let names = unpacked.flat_map(|layer| layer.inputs.keys());
    names
        .filter_map(|name| Some(name.strip_prefix("package.")?.to_owned()))
        .collect()
}

/// `a, b are new, c is gone`; empty where both lists have the same entries.
fn of_lists(before: &[String], after: &[String]) -> String {
    let told = |these: &[String], others: &[String], what: &str| {
        let mut seen = BTreeSet::new();
        let names: Vec<&String> = these
            .iter()
            .filter(|name| !others.contains(name) && seen.insert(*name))
            .collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        (!names.is_empty()).then(|| format!("{} {verb} {what}", list(&names)))
    };
    let parts = [told(after, before, "new"), told(before, after, "gone")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn list(names: &[&String]) -> String {
    let mut text: Vec<String> = names
        .iter()
        .take(MOST_NAMES)
        .map(|name| cut(name, WIDTH))
        .collect();
    if names.len() > MOST_NAMES {
        text.push(format!("{} more", names.len() - MOST_NAMES));
    }
    text.join(", ")
}

/// An input by its values.
fn input_line(change: &InputChange, secrets: &Secrets) -> String {
    let value = |text: &String| cut(&secrets.masked(text), INPUT_WIDTH);
    let input = cut(&change.input, INPUT_WIDTH);
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{input} changed: {} -> {}", value(old), value(new)),
        (None, Some(new)) => format!("{input} is new: {}", value(new)),
        (Some(old), None) => format!("{input} is gone: {}", value(old)),
        (None, None) => input,
    }
}

/// What differs in the build steps of two documents.
fn step_lines(before: &Component, after: &Component, secrets: &Secrets) -> Vec<String> {
    let (old, new) = (before.steps_of("build"), after.steps_of("build"));
    let find = |steps: &[(&str, &Node)], name: &str| steps.iter().any(|(known, _)| *known == name);
    let mut gone: Vec<_> = old.iter().filter(|(name, _)| !find(&new, name)).collect();
    let mut renamed: BTreeMap<&str, &str> = BTreeMap::new();
    let mut lines = Vec::new();
    for (name, node) in &new {
        let Some((_, earlier)) = old.iter().find(|(known, _)| known == name) else {
            let body = unnamed(node);
            // Where everything else in it is the same, it is the same step.
            if let Some(at) = gone.iter().position(|(_, node)| unnamed(node) == body) {
                let (known, _) = gone.remove(at);
                renamed.insert(known, name);
                lines.push(format!(
                    "step {} is now called {}",
                    cut(known, WIDTH),
                    cut(name, WIDTH)
                ));
            } else {
                lines.push(format!("step {} is new", cut(name, WIDTH)));
            }
            continue;
        };
        let quiet = is_quiet(before, name) || is_quiet(after, name);
        let mut found = Differences {
            secrets: (!quiet).then_some(secrets),
            lines: Vec::new(),
            more: 0,
        };
        found.compare(earlier, node, "");
        let step = format!("step {}", cut(name, WIDTH));
        lines.extend(found.lines.iter().map(|line| format!("{step}: {line}")));
        if found.more > 0 {
            lines.push(format!("{step}: and {} more", found.more));
        }
    }
    let gone_lines = gone
        .iter()
        .map(|(name, _)| format!("step {} is gone", cut(name, WIDTH)));
    lines.extend(gone_lines);
    // What stayed is told only where it stands in another order.
    let stayed = old
        .iter()
        .map(|(name, _)| *renamed.get(name).unwrap_or(name))
        .filter(|name| find(&new, name));
    let stayed: Vec<&str> = stayed.collect();
    let now = new.iter().map(|(name, _)| *name);
    let now: Vec<&str> = now.filter(|name| stayed.contains(name)).collect();
    if now != stayed {
        lines.push(format!(
            "the order of the steps changed: {} -> {}",
            cut(&stayed.join(", "), INPUT_WIDTH),
            cut(&now.join(", "), INPUT_WIDTH)
        ));
    }
    if lines.len() > MOST_OF_ALL {
        let more = lines.len() - MOST_OF_ALL;
        lines.truncate(MOST_OF_ALL);
        lines.push(format!("and {more} more differences in its steps"));
    }
    lines
}

/// Whether what a step does is kept out of logs.
fn is_quiet(component: &Component, step: &str) -> bool {
    let steps = component.phase("build").map(|phase| phase.steps.as_slice());
    let mut steps = steps.unwrap_or_default().iter();
    steps.any(|found| found.name == step && found.disable_logging)
}

/// What a step is but for its name.
fn unnamed(step: &Node) -> Digest {
    let mut step = step.clone();
    if let NodeKind::Map(fields) = &mut step.kind {
        fields.retain(|(key, _)| key.text != "name");
    }
    step.digest()
}

/// The differences inside one step.
struct Differences<'s> {
    /// `None` where no value is to be shown.
    secrets: Option<&'s Secrets>,
    lines: Vec<String>,
    /// Those that were one too many.
    more: usize,
}

impl Differences<'_> {
    fn compare(&mut self, old: &Node, new: &Node, path: &str) {
        if old.canonical() == new.canonical() {
            return;
        }
        match (&old.kind, &new.kind) {
            (NodeKind::Map(before), NodeKind::Map(after)) => {
                for (key, node) in after {
                    let path = below(path, &key.text);
                    match old.get(&key.text) {
                        Some(earlier) => self.compare(earlier, node, &path),
                        None => self.one(&path, "is new", node),
                    }
                }
                for (key, node) in before
                    .iter()
                    .filter(|(key, _)| new.get(&key.text).is_none())
                {
                    self.one(&below(path, &key.text), "is gone", node);
                }
            }
            (NodeKind::Seq(before), NodeKind::Seq(after)) => self.lists(before, after, path),
            (NodeKind::Scalar(before), NodeKind::Scalar(after))
                if !before.is_null() && !after.is_null() =>
            {
                self.texts(&before.text, &after.text, path);
            }
            _ => {
                let (old, new) = (self.value(old), self.value(new));
                self.pair(path, &old, &new);
            }
        }
    }

    /// Entries at either end that are the same are the same, however many came between them.
    fn lists(&mut self, before: &[Node], after: &[Node], path: &str) {
        let same = |(a, b): &(&Node, &Node)| a.canonical() == b.canonical();
        let head = before.iter().zip(after).take_while(same).count();
        let (before, after) = (&before[head..], &after[head..]);
        let tail = before.iter().rev().zip(after.iter().rev());
        let tail = tail.take_while(same).count();
        let before = &before[..before.len() - tail];
        let after = &after[..after.len() - tail];
        for at in 0..before.len().max(after.len()) {
            let path = format!("{path}[{}]", head + at);
            match (before.get(at), after.get(at)) {
                (Some(old), Some(new)) => self.compare(old, new, &path),
                (None, Some(new)) => self.one(&path, "is new", new),
                (Some(old), None) => self.one(&path, "is gone", old),
                (None, None) => {}
            }
        }
    }

    /// Two texts, from shortly before where they begin to differ.
    fn texts(&mut self, before: &str, after: &str, path: &str) {
        let Some(secrets) = self.secrets else {
            return self.pair(path, MASK, MASK);
        };
        let (before, after) = (secrets.masked(before), secrets.masked(after));
        let same = before.chars().zip(after.chars());
        let same = same.take_while(|(a, b)| a == b).count();
        let lines = before.chars().take(same).filter(|c| *c == '\n').count();
        let many = before.trim_end().contains('\n') || after.trim_end().contains('\n');
        let path = match many {
            true => format!("{path} line {}", lines + 1),
            false => path.to_owned(),
        };
        let longest = before.chars().count().max(after.chars().count());
        let from = match longest > WIDTH {
            true => same.saturating_sub(LEAD),
            false => 0,
        };
        let (old, new) = (quoted(&before, from), quoted(&after, from));
        // Secrets that differ look the same.
        self.pair(&path, &old, &new);
    }

    fn pair(&mut self, path: &str, old: &str, new: &str) {
        self.push(|| match old == new {
            true => format!("{path} differs"),
            false => format!("{path}: {old} -> {new}"),
        });
    }

    fn one(&mut self, path: &str, what: &str, node: &Node) {
        let value = self.value(node);
        self.push(|| format!("{path} {what}: {value}"));
    }

    fn push(&mut self, line: impl FnOnce() -> String) {
        match self.lines.len() < MOST {
            true => self.lines.push(line()),
            false => self.more += 1,
        }
    }

    /// A whole value, cut.
    fn value(&self, node: &Node) -> String {
        let Some(secrets) = self.secrets else {
            return MASK.to_owned();
        };
        match &node.kind {
            NodeKind::Scalar(scalar) if scalar.is_null() => "null".to_owned(),
            NodeKind::Scalar(scalar) => quoted(&secrets.masked(&scalar.text), 0),
            // JSON escapes what it has of backslashes and line ends by itself.
            _ => cut(&secrets.masked(&node.to_json().to_string()), WIDTH).replace("\\\\", "\\"),
        }
    }
}

fn below(path: &str, key: &str) -> String {
    let key = cut(key, WIDTH);
    match path.is_empty() {
        true => key,
        false => format!("{path}.{key}"),
    }
}

/// A text from a character on, cut, between quotes unless it is a plain word or number.
fn quoted(text: &str, from: usize) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if from == 0 && !text.is_empty() && text.len() <= WIDTH && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let lead = if from > 0 { "…" } else { "" };
    let rest: String = text.chars().skip(from).collect();
    let lines: Vec<String> = cut_raw(&rest, WIDTH)
        .split('\n')
        .map(|line| shown(line.as_bytes()).replace('"', "\\\""))
        .collect();
    format!("\"{lead}{}\"", lines.join("\\n"))
}

/// A text that can do nothing to a terminal, up to a width.
fn cut(text: &str, width: usize) -> String {
    shown(cut_raw(text, width).as_bytes())
}

fn cut_raw(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What must not show, the longest first.
struct Secrets(Vec<String>);

impl Secrets {
    fn of(recipe: &LoadedRecipe) -> Self {
        let external = recipe.components.iter().flat_map(|c| c.external.values());
        let external = external.filter(|value| value.secret).map(|v| &v.value);
        let own = recipe.secrets.values();
        let lent = recipe.step_secrets.known();
        let lent = lent.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        let all = external.chain(own).cloned().chain(lent);
        let mut all: Vec<String> = all
            .flat_map(|value| {
                let lines = value.lines().chain([value.as_str()]);
                lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
            })
            .filter(|value| value.len() >= SHORTEST_SECRET)
            // As JSON has it, too.
            .flat_map(|value| [value.escape_debug().to_string(), value])
            .collect();
        // A mark names its parameter, and is no secret, but nobody wrote it.
        let names = recipe.secrets.keys().filter_map(|key| key.split_once(':'));
        all.extend(names.map(|(_, name)| secret_mark(name)));
        all.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        all.dedup();
        Self(all)
    }

    fn masked(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MASK);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests;
