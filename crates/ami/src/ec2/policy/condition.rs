//! The condition block: operators and how they compare.
//!
//! Source: IAM user guide, `reference_policies_elements_condition_operators`,
//! `reference_policies_condition-logic-multiple-context-keys-or-values`.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use amiforge_types::Timestamp;
use base64::Engine as _;

use super::context::Context;
use super::pattern::{Colons, Pattern, Syntax, Token, matches, matches_arn};

/// What an operator compares, without its `Not`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    StringIgnoreCase,
    StringLike,
    Numeric(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Arn,
    Null,
}

/// Which order of value to operand a comparison wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterEqual => ordering.is_ge(),
        }
    }
}

/// The operators: name, what it compares, whether it is negated.
const OPERATORS: &[(&str, Kind, bool)] = &[
    ("StringEquals", Kind::String, false),
    ("StringNotEquals", Kind::String, true),
    ("StringEqualsIgnoreCase", Kind::StringIgnoreCase, false),
    ("StringNotEqualsIgnoreCase", Kind::StringIgnoreCase, true),
    ("StringLike", Kind::StringLike, false),
    ("StringNotLike", Kind::StringLike, true),
    ("NumericEquals", Kind::Numeric(Order::Equal), false),
    ("NumericNotEquals", Kind::Numeric(Order::Equal), true),
    ("NumericLessThan", Kind::Numeric(Order::Less), false),
    (
        "NumericLessThanEquals",
        Kind::Numeric(Order::LessEqual),
        false,
    ),
    ("NumericGreaterThan", Kind::Numeric(Order::Greater), false),
    (
        "NumericGreaterThanEquals",
        Kind::Numeric(Order::GreaterEqual),
        false,
    ),
    ("DateEquals", Kind::Date(Order::Equal), false),
    ("DateNotEquals", Kind::Date(Order::Equal), true),
    ("DateLessThan", Kind::Date(Order::Less), false),
    ("DateLessThanEquals", Kind::Date(Order::LessEqual), false),
    ("DateGreaterThan", Kind::Date(Order::Greater), false),
    (
        "DateGreaterThanEquals",
        Kind::Date(Order::GreaterEqual),
        false,
    ),
    ("Bool", Kind::Bool, false),
    ("BinaryEquals", Kind::Binary, false),
    ("IpAddress", Kind::Ip, false),
    ("NotIpAddress", Kind::Ip, true),
    ("ArnEquals", Kind::Arn, false),
    ("ArnNotEquals", Kind::Arn, true),
    ("ArnLike", Kind::Arn, false),
    ("ArnNotLike", Kind::Arn, true),
    ("Null", Kind::Null, false),
];

/// `ForAnyValue` and `ForAllValues`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantifier {
    Any,
    All,
}

/// A condition operator with its prefix and suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operator {
    name: &'static str,
    kind: Kind,
    negated: bool,
    quantifier: Option<Quantifier>,
    if_exists: bool,
}

impl Operator {
    /// Reads a name; the case of its letters does not count.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (quantifier, rest) = match text.split_once(':') {
            None => (None, text),
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("ForAnyValue") => {
                (Some(Quantifier::Any), rest)
            }
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("ForAllValues") => {
                (Some(Quantifier::All), rest)
            }
            Some((prefix, _)) => {
                return Err(format!(
                    "{prefix:?} is neither `ForAnyValue` nor `ForAllValues`"
                ));
            }
        };
        let (base, if_exists) = match rest.len().checked_sub("IfExists".len()) {
            Some(at)
                if rest
                    .get(at..)
                    .is_some_and(|end| end.eq_ignore_ascii_case("IfExists")) =>
            {
                (&rest[..at], true)
            }
            _ => (rest, false),
        };
        let (name, kind, negated) = OPERATORS
            .iter()
            .find(|(name, ..)| name.eq_ignore_ascii_case(base))
            .ok_or_else(|| format!("there is no condition operator {base:?}"))?;
        if *kind == Kind::Null && (if_exists || quantifier.is_some()) {
            return Err(
                "`Null` asks whether a key is there, and takes neither prefix nor suffix".into(),
            );
        }
        Ok(Self {
            name,
            kind: *kind,
            negated: *negated,
            quantifier,
            if_exists,
        })
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.quantifier {
            None => "",
            Some(Quantifier::Any) => "ForAnyValue:",
            Some(Quantifier::All) => "ForAllValues:",
        })?;
        f.write_str(self.name)?;
        f.write_str(if self.if_exists { "IfExists" } else { "" })
    }
}

/// A value of a policy, read as its operator needs it.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Pattern(Pattern),
    Number(Decimal),
    Date(i64, u32),
    Flag(bool),
    Bytes(Vec<u8>),
    Network(IpAddr, u8),
}

impl Operand {
    /// Reads a value.
    ///
    /// # Errors
    /// What it should be.
    pub(super) fn parse(operator: Operator, text: &str, variables: bool) -> Result<Self, String> {
        let bad = |what: &str| format!("{operator} compares with {what}, which {text:?} is not");
        match operator.kind {
            Kind::String | Kind::StringIgnoreCase | Kind::StringLike | Kind::Arn => {
                let wildcards = matches!(operator.kind, Kind::StringLike | Kind::Arn);
                Pattern::parse(
                    text,
                    Syntax {
                        wildcards,
                        variables,
                    },
                )
                .map(Self::Pattern)
            }
            Kind::Numeric(_) => Decimal::parse(text)
                .map(Self::Number)
                .ok_or_else(|| bad("an integer or a decimal")),
            Kind::Date(_) => date(text)
                .map(|(secs, nanos)| Self::Date(secs, nanos))
                .ok_or_else(|| bad("a date such as 2026-11-28T00:00:00Z, or seconds since 1970")),
            Kind::Bool | Kind::Null => flag(text)
                .map(Self::Flag)
                .ok_or_else(|| bad("`true` or `false`")),
            Kind::Binary => bytes(text).map(Self::Bytes).ok_or_else(|| bad("base64")),
            Kind::Ip => network(text)
                .map(|(address, bits)| Self::Network(address, bits))
                .ok_or_else(|| bad("an address or a network such as 203.0.113.0/24")),
        }
    }
}

/// One key below one operator.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) operator: Operator,
    /// As written.
    pub(super) key: String,
    pub(super) operands: Vec<Operand>,
}

/// What a condition comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Met,
    /// And why.
    NotMet(String),
    /// It cannot be told: an `Allow` does not apply then, and a `Deny` does.
    Unclear(String),
    /// A policy variable has no value: an `Allow` does not apply; in a `Deny` the value stands for nothing, which may meet it.
    Unresolved {
        key: String,
        met: bool,
    },
}

impl Condition {
    /// Compares with the keys of a request.
    pub(super) fn check(&self, context: &Context) -> Outcome {
        let Self { operator, key, .. } = self;
        let values = context.get(key);
        if operator.kind == Kind::Null {
            let absent = self
                .operands
                .iter()
                .any(|o| matches!(o, Operand::Flag(flag) if *flag == values.is_none()));
            let state = if values.is_some() {
                "present"
            } else {
                "absent"
            };
            return outcome(absent, || format!("Null: {key} is {state}"));
        }
        let Some(values) = values else {
            let met = operator.if_exists
                || match operator.quantifier {
                    Some(Quantifier::Any) => false,
                    Some(Quantifier::All) => true,
                    None => operator.negated,
                };
            return outcome(met, || format!("{operator}: {key} is absent"));
        };
        let mut missing = None;
        let mut operands = Vec::with_capacity(self.operands.len());
        for operand in &self.operands {
            match Ready::of(operand, context) {
                Ok(ready) => operands.push(ready),
                Err(variable) => missing = Some(variable),
            }
        }
        let one = |value: &String| {
            operands.iter().any(|o| o.matches(operator.kind, value)) != operator.negated
        };
        let met = match (operator.quantifier, values) {
            (Some(Quantifier::Any), values) => values.iter().any(one),
            (Some(Quantifier::All), values) => values.iter().all(one),
            (None, [value]) => one(value),
            (None, _) => {
                return Outcome::Unclear(format!(
                    "{operator}: {key} has several values, which ForAnyValue or ForAllValues compare"
                ));
            }
        };
        if let Some(key) = missing {
            return Outcome::Unresolved { key, met };
        }
        outcome(met, || {
            format!("{operator}: {key} is {}", shorten(&values.join(", ")))
        })
    }
}

fn outcome(met: bool, why: impl FnOnce() -> String) -> Outcome {
    if met {
        Outcome::Met
    } else {
        Outcome::NotMet(why())
    }
}

/// At most 100 characters of a value, for messages.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(100) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}…", &text[..at]),
    }
}

/// An operand whose variables have their values.
enum Ready<'a> {
    Tokens(Vec<Token>),
    Other(&'a Operand),
}

impl<'a> Ready<'a> {
    fn of(operand: &'a Operand, context: &Context) -> Result<Self, String> {
        match operand {
            Operand::Pattern(pattern) => pattern.resolve(context).map(Self::Tokens),
            other => Ok(Self::Other(other)),
        }
    }

    /// Whether a value of the request is what the operand says. One that is not of the operator's kind never is.
    fn matches(&self, kind: Kind, value: &str) -> bool {
        match (self, kind) {
            (Self::Tokens(tokens), Kind::StringIgnoreCase) => {
                literal(tokens).to_lowercase() == value.to_lowercase()
            }
            (Self::Tokens(tokens), Kind::Arn) => matches_arn(tokens, value),
            (Self::Tokens(tokens), _) => matches(tokens, value, Colons::Plain),
            (Self::Other(Operand::Number(number)), Kind::Numeric(order)) => {
                Decimal::parse(value).is_some_and(|v| order.holds(v.cmp(number)))
            }
            (Self::Other(Operand::Date(secs, nanos)), Kind::Date(order)) => {
                date(value).is_some_and(|v| order.holds(v.cmp(&(*secs, *nanos))))
            }
            (Self::Other(Operand::Flag(wanted)), Kind::Bool) => flag(value) == Some(*wanted),
            (Self::Other(Operand::Bytes(wanted)), Kind::Binary) => {
                bytes(value).as_ref() == Some(wanted)
            }
            (Self::Other(Operand::Network(address, bits)), Kind::Ip) => value
                .parse()
                .is_ok_and(|value: IpAddr| within(value, *address, *bits)),
            _ => false,
        }
    }
}

fn literal(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::Char(c) => *c,
            Token::One => '?',
            Token::Many => '*',
        })
        .collect()
}

fn flag(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        None => (text, None),
        Some((address, bits)) if bits.bytes().all(|b| b.is_ascii_digit()) => {
            (address, Some(bits.parse::<u8>().ok()?))
        }
        Some(_) => return None,
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(all);
    (bits <= all).then_some((address, bits))
}

fn within(value: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (value, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let differ = u32::from(a) ^ u32::from(b);
            differ.checked_shr(32 - u32::from(bits)).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let differ = u128::from(a) ^ u128::from(b);
            differ.checked_shr(128 - u32::from(bits)).unwrap_or(0) == 0
        }
        _ => false,
    }
}

/// A date as IAM reads it: ISO 8601 as the W3C has it (year; month; day; with minutes, seconds or fractions and a zone), or
/// seconds since 1970. Four digits are a year.
fn date(text: &str) -> Option<(i64, u32)> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && text.len() != 4 {
        return Some((text.parse().ok()?, 0));
    }
    let full = match text.len() {
        4 => format!("{text}-01-01T00:00:00Z"),
        7 => format!("{text}-01T00:00:00Z"),
        10 => format!("{text}T00:00:00Z"),
        // `2026-11-28T12:00Z`, `…+01:00`: without seconds.
        _ => match (text.get(..16), text.get(16..)) {
            (Some(minutes), Some(zone)) if zone.starts_with(['Z', '+', '-']) => {
                format!("{minutes}:00{zone}")
            }
            _ => text.to_owned(),
        },
    };
    let time: Timestamp = full.parse().ok()?;
    Some((time.secs, time.nanos))
}

/// A decimal number, exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without leading zeros.
    whole: String,
    /// Without trailing zeros.
    fraction: String,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let good = |t: &str| (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit());
        if !good(whole) || !good(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        let zero = whole.is_empty() && fraction.is_empty();
        Some(Self {
            negative: negative && !zero,
            whole,
            fraction,
        })
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let size = |a: &Self, b: &Self| {
            (a.whole.len(), &a.whole, &a.fraction).cmp(&(b.whole.len(), &b.whole, &b.fraction))
        };
        match (self.negative, other.negative) {
            (false, false) => size(self, other),
            (true, true) => size(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
