//! Conditions: what `Assert` asserts.
//! Reference: AWSTOE user guide, comparison operators and logical operators.
//!
//! The operand of an operator is what is compared with, `value` is what is looked at: `{numberLessThan: 2,
//! value: 1}` is true. Texts are compared without regard to letter case.

use std::cmp::Ordering;
use std::fmt;

use crate::decode::{self, Cx, Fields, shown};
use crate::node::Node;
use crate::trace::Asked;

/// Levels of `and`, `or` and `not`.
const MOST_LEVELS: usize = 4;

/// Something that is true or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// All are true; looked at up to the first that is not.
    And(Vec<Condition>),
    /// One is true; looked at up to the first that is.
    Or(Vec<Condition>),
    /// It is not.
    Not(Box<Condition>),
    /// `stringIsEmpty`
    Empty(String),
    /// `stringIsWhitespace`: also not empty.
    Whitespace(String),
    /// `stringEquals` and its relatives.
    Text(Comparison),
    /// `numberEquals` and its relatives.
    Number(Comparison),
    /// `patternMatches`
    Pattern {
        /// The regular expression, which may match anywhere.
        pattern: String,
        /// What it is looked for in.
        value: String,
    },
    /// `binaryExists`
    Binary(String),
    /// `fileExists`
    File(String),
    /// `folderExists`
    Folder(String),
    /// `fileMD5Equals` and its relatives.
    FileDigest {
        /// How the digest is made.
        algorithm: Algorithm,
        /// The digest as hexadecimal digits.
        digest: String,
        /// The file.
        path: String,
    },
}

/// Two values and how they should stand to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The operator.
    pub name: &'static str,
    /// How the value should stand to the baseline.
    pub orders: &'static [Ordering],
    /// The operand of the operator.
    pub baseline: String,
    /// What is compared with it.
    pub value: String,
}

/// A digest of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 32 hexadecimal digits.
    Md5,
    /// 40 of them.
    Sha1,
    /// 64 of them.
    Sha256,
    /// 128 of them.
    Sha512,
}

impl Algorithm {
    const fn digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    const fn operator(self) -> &'static str {
        match self {
            Self::Md5 => "fileMD5Equals",
            Self::Sha1 => "fileSHA1Equals",
            Self::Sha256 => "fileSHA256Equals",
            Self::Sha512 => "fileSHA512Equals",
        }
    }
}

/// What conditions ask the machine.
pub trait Facts {
    /// Why something cannot be found out.
    type Error;

    /// Whether there is a program of this name or path.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn binary_exists(&mut self, name: &str) -> Result<bool, Self::Error>;

    /// Whether there is a file.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn file_exists(&mut self, path: &str) -> Result<bool, Self::Error>;

    /// Whether there is a folder.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn folder_exists(&mut self, path: &str) -> Result<bool, Self::Error>;

    /// The digest of a file; `None` without one.
    ///
    /// # Errors
    /// When it cannot be read.
    fn digest(&mut self, algorithm: Algorithm, path: &str) -> Result<Option<Vec<u8>>, Self::Error>;
}

impl Condition {
    /// Whether it is true.
    ///
    /// # Errors
    /// Those of the facts.
    pub fn holds<F: Facts>(&self, facts: &mut F) -> Result<bool, F::Error> {
        Ok(match self {
            Self::And(all) => {
                for condition in all {
                    if !condition.holds(facts)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Or(any) => {
                for condition in any {
                    if condition.holds(facts)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Not(condition) => !condition.holds(facts)?,
            Self::Empty(text) => text.is_empty(),
            Self::Whitespace(text) => !text.is_empty() && text.chars().all(char::is_whitespace),
            Self::Text(c) => {
                let order = c.value.to_lowercase().cmp(&c.baseline.to_lowercase());
                c.orders.contains(&order)
            }
            Self::Number(c) => match (Decimal::of(&c.value), Decimal::of(&c.baseline)) {
                (Some(value), Some(baseline)) => c.orders.contains(&value.cmp(&baseline)),
                _ => false,
            },
            Self::Pattern { pattern, value } => {
                regex(pattern).is_ok_and(|pattern| pattern.is_match(value))
            }
            Self::Binary(name) => facts.binary_exists(name)?,
            Self::File(path) => facts.file_exists(path)?,
            Self::Folder(path) => facts.folder_exists(path)?,
            Self::FileDigest {
                algorithm,
                digest,
                path,
            } => facts.digest(*algorithm, path)?.is_some_and(|found| {
                let found: String = found.iter().map(|b| format!("{b:02x}")).collect();
                found.eq_ignore_ascii_case(digest)
            }),
        })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, name: &str, list: &[Condition]| {
            write!(f, "{name} [")?;
            for (index, condition) in list.iter().enumerate() {
                let comma = if index > 0 { ", " } else { "" };
                write!(f, "{comma}{condition}")?;
            }
            write!(f, "]")
        };
        match self {
            Self::And(all) => list(f, "and", all),
            Self::Or(any) => list(f, "or", any),
            Self::Not(condition) => write!(f, "not {condition}"),
            Self::Empty(text) => write!(f, "stringIsEmpty {}", shown(text)),
            Self::Whitespace(text) => write!(f, "stringIsWhitespace {}", shown(text)),
            Self::Text(c) | Self::Number(c) => {
                let (baseline, value) = (shown(&c.baseline), shown(&c.value));
                write!(f, "{} {baseline} of value {value}", c.name)
            }
            Self::Pattern { pattern, value } => {
                let (pattern, value) = (shown(pattern), shown(value));
                write!(f, "patternMatches {pattern} of value {value}")
            }
            Self::Binary(name) => write!(f, "binaryExists {}", shown(name)),
            Self::File(path) => write!(f, "fileExists {}", shown(path)),
            Self::Folder(path) => write!(f, "folderExists {}", shown(path)),
            Self::FileDigest {
                algorithm,
                digest,
                path,
            } => {
                let (name, path) = (algorithm.operator(), shown(path));
                write!(f, "{name} {digest} of path {path}")
            }
        }
    }
}

fn regex(pattern: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .case_insensitive(true)
        .build()
}

/// A decimal number of any length.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without leading zeros.
    whole: String,
    /// Without zeros at the end.
    fraction: String,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        if let Some(number) = Self::plain(text) {
            return Some(number);
        }
        // What YAML also writes as a number: `1e3`, `.5`. Words such as `inf` have other letters.
        let exponent = text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
        let number: f64 = text
            .parse()
            .ok()
            .filter(|n: &f64| exponent && n.is_finite())?;
        Self::plain(&number.to_string())
    }

    /// `[-+]?([0-9]+[.])?[0-9]+`
    fn plain(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, fraction) = match digits.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (digits, ""),
        };
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !number(whole) || !number(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        // Zero has no sign.
        let negative = text.starts_with('-') && !(whole.is_empty() && fraction.is_empty());
        Some(Self {
            negative,
            whole,
            fraction,
        })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let size = |a: &Self, b: &Self| {
            let whole = a
                .whole
                .len()
                .cmp(&b.whole.len())
                .then(a.whole.cmp(&b.whole));
            // The shorter of two that begin alike is the smaller one, as in texts.
            whole.then(a.fraction.cmp(&b.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

pub(crate) const LOGICAL: &[&str] = &["and", "or", "not"];

const EQUAL: &[Ordering] = &[Ordering::Equal];
const LESS: &[Ordering] = &[Ordering::Less];
const LESS_OR_EQUAL: &[Ordering] = &[Ordering::Less, Ordering::Equal];
const GREATER: &[Ordering] = &[Ordering::Greater];
const GREATER_OR_EQUAL: &[Ordering] = &[Ordering::Greater, Ordering::Equal];

/// Operators that compare texts, and then numbers.
const TEXTS: &[(&str, &[Ordering])] = &[
    ("stringEquals", EQUAL),
    ("stringLessThan", LESS),
    ("stringLessThanEquals", LESS_OR_EQUAL),
    ("stringGreaterThan", GREATER),
    ("stringGreaterThanEquals", GREATER_OR_EQUAL),
];
const NUMBERS: &[(&str, &[Ordering])] = &[
    ("numberEquals", EQUAL),
    ("numberLessThan", LESS),
    ("numberLessThanEquals", LESS_OR_EQUAL),
    ("numberGreaterThan", GREATER),
    ("numberGreaterThanEquals", GREATER_OR_EQUAL),
];

/// Operators without a second field.
type Single = (&'static str, fn(String) -> Condition);
const TEXT_ALONE: &[Single] = &[
    ("stringIsEmpty", Condition::Empty),
    ("stringIsWhitespace", Condition::Whitespace),
];
const PATH_ALONE: &[Single] = &[
    ("binaryExists", Condition::Binary),
    ("fileExists", Condition::File),
    ("folderExists", Condition::Folder),
];

const ALGORITHMS: &[Algorithm] = &[
    Algorithm::Md5,
    Algorithm::Sha1,
    Algorithm::Sha256,
    Algorithm::Sha512,
];

/// The names of all operators.
pub(crate) fn operators() -> impl Iterator<Item = &'static str> {
    LOGICAL
        .iter()
        .copied()
        .chain(TEXTS.iter().chain(NUMBERS).map(|(name, _)| *name))
        .chain(TEXT_ALONE.iter().chain(PATH_ALONE).map(|(name, _)| *name))
        .chain(ALGORITHMS.iter().map(|algorithm| algorithm.operator()))
        .chain(["patternMatches"])
}

/// A mapping with one operator.
pub(crate) fn condition(node: &Node, cx: &mut Cx<'_>) -> Option<Condition> {
    at_level(node, 1, cx)
}

fn at_level(node: &Node, level: usize, cx: &mut Cx<'_>) -> Option<Condition> {
    let mut fields = Fields::of(node, "a condition", cx)?;
    let mut given: Vec<(&'static str, &Node)> = operators()
        .filter_map(|name| Some((name, fields.node(name, cx)?)))
        .collect();
    given.sort_by_key(|(name, _)| fields.place(name));
    let found = given.first().copied();
    for (name, _) in given.iter().skip(1) {
        let first = given[0].0;
        let message =
            format!("a condition has one operator, and this one has `{first}` and `{name}`");
        let help = Some("join conditions in a list below `and` or `or`".to_owned());
        cx.error_help("several-operators", fields.place(name), message, help);
    }
    let sound = given.len() <= 1;
    let Some((name, operand)) = found else {
        // A misspelt one says more.
        let before = cx.diags.len();
        fields.deny_unknown(cx);
        if cx.diags.len() == before {
            cx.error("missing-field", node.span, "a condition needs an operator");
        }
        return None;
    };
    let decoded = operation(name, operand, level, &mut fields, cx);
    fields.deny_unknown(cx);
    decoded.filter(|_| sound)
}

fn operation(
    name: &'static str,
    operand: &Node,
    level: usize,
    fields: &mut Fields<'_>,
    cx: &mut Cx<'_>,
) -> Option<Condition> {
    if LOGICAL.contains(&name) {
        if level > MOST_LEVELS {
            let message = format!("conditions are nested in more than {MOST_LEVELS} levels");
            cx.error("nested-too-deep", operand.span, message);
            return None;
        }
        return logical(name, operand, level, cx);
    }
    if let Some((_, make)) = TEXT_ALONE.iter().find(|(n, _)| *n == name) {
        return decode::text(operand, cx).map(make);
    }
    if let Some((_, make)) = PATH_ALONE.iter().find(|(n, _)| *n == name) {
        return decode::path(operand, cx).map(make);
    }
    if let Some(algorithm) = ALGORITHMS.iter().find(|a| a.operator() == name) {
        let digest = digest(operand, *algorithm, cx);
        let path = fields.required("path", cx, decode::path);
        return Some(Condition::FileDigest {
            algorithm: *algorithm,
            digest: digest?,
            path: path?,
        });
    }
    let numbers = NUMBERS.iter().find(|(n, _)| *n == name);
    let baseline = if name == "patternMatches" {
        pattern(operand, cx)
    } else if numbers.is_some() {
        number(operand, cx)
    } else {
        decode::text(operand, cx)
    };
    let value = fields.required("value", cx, decode::text);
    let (baseline, value) = (baseline?, value?);
    let orders = numbers
        .or_else(|| TEXTS.iter().find(|(n, _)| *n == name))
        .map(|(_, orders)| *orders);
    Some(match orders {
        None => Condition::Pattern {
            pattern: baseline,
            value,
        },
        Some(orders) => {
            let comparison = Comparison {
                name,
                orders,
                baseline,
                value,
            };
            if numbers.is_some() {
                Condition::Number(comparison)
            } else {
                Condition::Text(comparison)
            }
        }
    })
}

fn logical(name: &str, operand: &Node, level: usize, cx: &mut Cx<'_>) -> Option<Condition> {
    let nested = |node: &Node, cx: &mut Cx<'_>| at_level(node, level + 1, cx);
    // The guides write what is below `not` as a mapping, and as a list of one.
    if name == "not" && !matches!(operand.kind, crate::node::NodeKind::Seq(_)) {
        return nested(operand, cx).map(|c| Condition::Not(Box::new(c)));
    }
    let mut list = decode::list(operand, cx, nested)?;
    match name {
        _ if list.is_empty() => {
            cx.error(
                "empty-value",
                operand.span,
                format!("`{name}` has no condition"),
            );
            None
        }
        "and" => Some(Condition::And(list)),
        "or" => Some(Condition::Or(list)),
        _ if list.len() > 1 => {
            let help = Some("join them in a list below `and` or `or`".to_owned());
            cx.error_help(
                "several-conditions",
                operand.span,
                "`not` takes one condition",
                help,
            );
            None
        }
        _ => list.pop().map(|c| Condition::Not(Box::new(c))),
    }
}

fn number(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::text(node, cx)?;
    cx.asks(node.span, || Asked::Number);
    if !cx.defers(&text) && Decimal::of(&text).is_none() {
        let message = format!("{} is not a number", shown(&text));
        cx.error("wrong-type", node.span, message);
        return None;
    }
    Some(text)
}

/// A regular expression. With the document only its grammar is read, which takes time in proportion
/// to its length; it is made ready when the step runs, where a hostile one can hold up nobody else.
fn pattern(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::text(node, cx)?;
    if cx.defers(&text) {
        return Some(text);
    }
    let grammar = regex_syntax::ast::parse::Parser::new().parse(&text);
    let problem = match grammar {
        Err(problem) => problem.kind().to_string(),
        Ok(_) if cx.unresolved => return Some(text),
        Ok(_) => match regex(&text) {
            Ok(_) => return Some(text),
            // The last line, below a drawing, says what is wrong.
            Err(problem) => {
                let problem = problem.to_string();
                let last = problem.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        },
    };
    let message = format!("{} is not a regular expression: {problem}", shown(&text));
    cx.error("invalid-pattern", node.span, message);
    None
}

fn digest(node: &Node, algorithm: Algorithm, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::text(node, cx)?;
    let digits = algorithm.digits();
    let hex = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex && !cx.defers(&text) {
        let message = format!(
            "{} is not a digest of {digits} hexadecimal digits",
            shown(&text)
        );
        cx.error("invalid-digest", node.span, message);
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests;
