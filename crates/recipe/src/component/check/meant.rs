//! What was meant by braces that hold nearly a reference.

use super::Site;
use crate::actions::ActionKind;
use crate::reference::{CONTEXT_KEYS, is_name};
use crate::suggest;

/// Words for a field of a loop that people know from elsewhere.
const LOOP_WORDS: &[(&str, &str)] = &[
    ("counter", "index"),
    ("i", "index"),
    ("idx", "index"),
    ("index0", "index"),
    ("iteration", "index"),
    ("number", "index"),
    ("current", "value"),
    ("element", "value"),
    ("item", "value"),
    ("key", "value"),
    ("values", "value"),
];

impl Site<'_, '_> {
    /// The reference that what is between these braces should be, without braces.
    pub(super) fn meant(&self, source: &str) -> Option<String> {
        let inner = source.trim_matches(['{', '}']).trim();
        // Nothing that long is a slip, and names are at most 128 characters.
        if inner.len() > 400 {
            return None;
        }
        let parts: Vec<&str> = inner.split('.').map(str::trim).collect();
        match parts.as_slice() {
            // `.Name` of another language's templates, `$Name` of a shell.
            ["", name] => self.variable(name),
            [name] => name
                .strip_prefix('$')
                .and_then(|name| self.variable(name))
                .or_else(|| store(name)),
            ["env", name] if is_name(name) => Some(format!("env:{name}")),
            ["context", key] => CONTEXT_KEYS.contains(key).then(|| format!("context:{key}")),
            [owner, name] if is_of_variables(owner) => self.variable(name),
            [owner, field] => self.of_loop(owner, field),
            [step, side, key] if side_of(side).is_some() => {
                let (side, index) = side_of(side)?;
                let phase = self.phase_with(step)?;
                is_name(key).then(|| format!("{phase}.{step}.{side}{index}.{key}"))
            }
            [phase, step, key] => self.without_side(phase, step, key),
            [phase, step, side, key] => {
                let (side, index) = side_of(side)?;
                // The number stands behind the key at times.
                let (key, index) = match key.find('[') {
                    Some(at) if index.is_empty() => key.split_at(at),
                    _ => (*key, index),
                };
                let all_names = [*phase, *step, key].iter().all(|part| is_name(part));
                let number = index.is_empty() || is_number(index);
                (all_names && number).then(|| format!("{phase}.{step}.{side}{index}.{key}"))
            }
            _ => None,
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.contains_key(name).then(|| name.to_owned())
    }

    fn of_loop(&self, owner: &str, field: &str) -> Option<String> {
        let ours = owner == "loop" || self.loops.flatten() == Some(owner);
        if !ours {
            return None;
        }
        let lower = field.to_ascii_lowercase();
        let known = LOOP_WORDS.iter().find(|(word, _)| *word == lower);
        let field = match known {
            Some((_, field)) => field,
            None => suggest::nearest(&lower, ["index", "value"])?,
        };
        Some(format!("{owner}.{field}"))
    }

    /// The first phase, in the order of their names, that has a step of this name.
    fn phase_with(&self, step: &str) -> Option<&str> {
        if self
            .steps
            .get(self.phase)
            .is_some_and(|steps| steps.contains_key(step))
        {
            return Some(self.phase);
        }
        let mut phases = self.steps.iter();
        phases
            .find(|(_, steps)| steps.contains_key(step))
            .map(|(phase, _)| *phase)
    }

    /// `phase.step.key` without the side.
    fn without_side(&self, phase: &str, step: &str, key: &str) -> Option<String> {
        let info = self.steps.get(phase)?.get(step)?;
        let outputs = info.action.map_or(&[][..], ActionKind::outputs);
        if let Some((side, number)) = side_of(key) {
            // Of the whole side, its first key.
            let key = if side == "outputs" {
                outputs.first()
            } else {
                None
            };
            return key.map(|key| format!("{phase}.{step}.{side}{number}.{key}"));
        }
        let input = info.inputs.is_some_and(|inputs| inputs.get(key).is_some());
        let side = match outputs.contains(&key) {
            true => "outputs",
            false if input => "inputs",
            false => return None,
        };
        Some(format!("{phase}.{step}.{side}.{key}"))
    }
}

/// Words that other tools write before the name of a parameter.
fn is_of_variables(owner: &str) -> bool {
    const WORDS: [&str; 9] = [
        "constant",
        "global",
        "input",
        "inputs",
        "param",
        "parameter",
        "params",
        "var",
        "variable",
    ];
    let lower = owner.to_ascii_lowercase();
    WORDS.contains(&lower.as_str()) || WORDS.contains(&lower.trim_end_matches('s'))
}

/// The side that a word nearly is, and the number behind it with its brackets.
fn side_of(word: &str) -> Option<(&'static str, &str)> {
    let (name, index) = word.split_at(word.find('[').unwrap_or(word.len()));
    let lower = name.to_ascii_lowercase();
    let side = match lower.as_str() {
        "out" | "result" | "results" => "outputs",
        "in" => "inputs",
        _ => ["inputs", "outputs"]
            .into_iter()
            .find(|side| suggest::nearest(&lower, [*side]).is_some())?,
    };
    (index.is_empty() || is_number(index)).then_some((side, index))
}

/// `[3]`
fn is_number(index: &str) -> bool {
    let digits = index
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    digits.is_some_and(|digits| {
        (1..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The store and the metadata, without `aws:` before them.
fn store(name: &str) -> Option<String> {
    let known = ["ssm:", "imds:"].into_iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty())
    });
    known.then(|| format!("aws:{name}"))
}
