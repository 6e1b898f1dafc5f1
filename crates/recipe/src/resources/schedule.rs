//! Schedule expressions of pipelines: `cron(…)` and `rate(…)`.
//! Source: Image Builder user guide, cron expressions.

use crate::decode::{self, Cx, shown};
use crate::node::Node;

/// A field of a cron expression.
struct Field {
    name: &'static str,
    least: u32,
    most: u32,
    /// Names for numbers, the first of them for `least`.
    names: &'static [&'static str],
    /// Which of `?`, `L`, `W` and `#` may stand in it.
    special: &'static str,
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const FIELDS: [Field; 6] = [
    Field {
        name: "minute",
        least: 0,
        most: 59,
        names: &[],
        special: "",
    },
    Field {
        name: "hour",
        least: 0,
        most: 23,
        names: &[],
        special: "",
    },
    Field {
        name: "day of month",
        least: 1,
        most: 31,
        names: &[],
        special: "?LW",
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        names: MONTHS,
        special: "",
    },
    Field {
        name: "day of week",
        least: 1,
        most: 7,
        names: DAYS,
        special: "?L#",
    },
    Field {
        name: "year",
        least: 1970,
        most: 2199,
        names: &[],
        special: "",
    },
];

const HELP: &str = "write cron(<minute> <hour> <day of month> <month> <day of week> <year>), for example cron(0 9 ? * mon *), or rate(7 days)";

/// Checks `scheduleExpression`.
pub(crate) fn expression(node: &Node, cx: &mut Cx<'_>) {
    let Some(text) = decode::limited(node, cx, 1024) else {
        return;
    };
    if node.is_opaque() {
        return;
    }
    let text = text.trim();
    let fault = |cx: &mut Cx<'_>, why: String| {
        let message = format!("{} is not a schedule: {why}", shown(text));
        cx.error_help(
            "invalid-schedule",
            node.span,
            message,
            Some(HELP.to_owned()),
        );
    };
    if let Some(inner) = inside(text, "rate") {
        if let Err(why) = rate(inner) {
            fault(cx, why);
        }
        return;
    }
    let bare = inside(text, "cron").is_none();
    let fields: Vec<&str> = inside(text, "cron")
        .unwrap_or(text)
        .split_whitespace()
        .collect();
    // The console takes the fields alone, and AWS's own examples leave the year out.
    if (bare && text.contains(['(', ')'])) || !matches!(fields.len(), 5 | 6) {
        let why = if bare && fields.len() < 5 {
            "it is neither cron(…) nor rate(…)".to_owned()
        } else {
            format!(
                "a cron expression has six fields, this has {}",
                fields.len()
            )
        };
        fault(cx, why);
        return;
    }
    let mut ok = true;
    for (text, field) in fields.iter().zip(&FIELDS) {
        if let Err(why) = field.check(text) {
            fault(cx, format!("the {} {}: {why}", field.name, shown(text)));
            ok = false;
        }
    }
    if ok {
        days(fields[2], fields[4], node, cx, fault);
    }
}

/// One of the two day fields must leave the choice to the other.
fn days(
    month: &str,
    week: &str,
    node: &Node,
    cx: &mut Cx<'_>,
    fault: impl Fn(&mut Cx<'_>, String),
) {
    match (month, week) {
        ("?", "?") => fault(cx, "both day fields are `?`".to_owned()),
        ("?", _) | (_, "?") => {}
        ("*", _) | (_, "*") => cx.warning(
            "unusual-schedule",
            node.span,
            "neither of the two day fields is `?`",
            "write `?` into the day field that does not matter",
        ),
        _ => fault(
            cx,
            "day of month and day of week cannot both be set; one must be `?`".to_owned(),
        ),
    }
}

fn inside<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    text.strip_prefix(word)?
        .strip_prefix('(')?
        .strip_suffix(')')
}

/// `<number> <unit>`, singular exactly for 1.
fn rate(inner: &str) -> Result<(), String> {
    let parts: Vec<&str> = inner.split_whitespace().collect();
    let [number, unit] = parts.as_slice() else {
        return Err("write a number and a unit, as in rate(7 days)".to_owned());
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number
        .parse()
        .ok()
        .filter(|n| digits && *n > 0)
        .ok_or_else(|| format!("{} is not a positive number", shown(number)))?;
    let singular = unit.strip_suffix('s').unwrap_or(unit);
    if !matches!(singular, "minute" | "hour" | "day") {
        return Err(format!("{} is not minutes, hours or days", shown(unit)));
    }
    if (number == 1) != (singular == *unit) {
        return Err(if number == 1 {
            format!("1 takes the singular `{singular}`")
        } else {
            format!("{number} takes the plural `{singular}s`")
        });
    }
    Ok(())
}

impl Field {
    fn check(&self, text: &str) -> Result<(), String> {
        if text == "?" {
            return self.allows('?');
        }
        text.split(',').try_for_each(|item| self.item(item))
    }

    fn allows(&self, special: char) -> Result<(), String> {
        if self.special.contains(special) {
            Ok(())
        } else {
            Err(format!("`{special}` cannot stand there"))
        }
    }

    /// One entry between commas.
    fn item(&self, item: &str) -> Result<(), String> {
        if let Some((range, step)) = item.split_once('/') {
            let number: Option<u32> = step.parse().ok();
            let plain = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
            if !plain || !number.is_some_and(|n| (1..=self.most).contains(&n)) {
                return Err(format!(
                    "the step {} is not a number within the field",
                    shown(step)
                ));
            }
            return self.range(range);
        }
        let upper = item.to_ascii_uppercase();
        if let Some((day, nth)) = item.split_once('#') {
            self.allows('#')?;
            self.value(day)?;
            return match nth {
                "1" | "2" | "3" | "4" | "5" => Ok(()),
                _ => Err("after `#` stands a number from 1 to 5".to_owned()),
            };
        }
        if upper == "L" {
            return self.allows('L');
        }
        if upper == "LW" && self.special.contains('W') {
            return Ok(());
        }
        // Of the month: so many days before the last. Of the week: the last of its kind.
        if let Some(before) = upper
            .strip_prefix("L-")
            .filter(|_| self.special.contains('W'))
        {
            return self.value(before);
        }
        if let Some(day) = upper
            .strip_suffix('L')
            .filter(|_| self.special.contains('#'))
        {
            return self.value(day);
        }
        if let Some(day) = upper.strip_suffix('W').filter(|_| self.names.is_empty()) {
            self.allows('W')?;
            return self.value(day);
        }
        self.range(item)
    }

    /// `*`, a value, or two with `-` between them.
    fn range(&self, range: &str) -> Result<(), String> {
        if range == "*" {
            return Ok(());
        }
        match range.split_once('-') {
            Some((from, to)) => {
                self.value(from)?;
                self.value(to)
            }
            None => self.value(range),
        }
    }

    fn value(&self, text: &str) -> Result<(), String> {
        let named = self
            .names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(text));
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number: Option<u32> = text.parse().ok().filter(|_| digits);
        if named || number.is_some_and(|n| (self.least..=self.most).contains(&n)) {
            return Ok(());
        }
        let names = match (self.names.first(), self.names.last()) {
            (Some(first), Some(last)) => format!(" or {first} to {last}"),
            _ => String::new(),
        };
        Err(format!(
            "{} is not {} to {}{names}",
            shown(text),
            self.least,
            self.most
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use amiforge_types::{Diagnostics, Severity, Span};

    /// What a schedule is answered with: nothing, a warning or an error.
    fn verdict(text: &str) -> Option<Severity> {
        let mut diags = Diagnostics::new();
        expression(&Node::text(Span::default(), text), &mut Cx::new(&mut diags));
        diags.iter().map(|d| d.severity).max()
    }

    #[test]
    fn schedules_of_the_guide_pass() {
        for text in [
            "cron(0 0 ? * SUN *)",
            "cron(0 9 ? * mon *)",
            "cron(0 1 ? * * *)",
            "cron(0 1 L * ? *)",
            "cron(0 10 3W * ? *)",
            "cron(0 10 LW * ? 2026-2030)",
            "cron(30 8,20 ? jan-mar,dec tue#2 *)",
            "cron(0/15 */2 1-7/2 1/3 ? 1970)",
            "cron(0 0 ? * 6L *)",
            "0 0 ? * FRI *",
            "cron(0 0 ? * SUN)",
            "rate(1 day)",
            "rate(12 hours)",
        ] {
            assert_eq!(verdict(text), None, "{text}");
        }
    }

    #[test]
    fn two_open_day_fields_are_only_unusual() {
        for text in [
            "cron(0 0 * * SUN *)",
            "cron(0 0 * * * *)",
            "cron(0 0 * * SUN)",
        ] {
            assert_eq!(verdict(text), Some(Severity::Warning), "{text}");
        }
    }

    #[test]
    fn wrong_schedules_are_refused() {
        for text in [
            "daily",
            "cron(0 0 ? * *)x",
            "cron(0 0 ? *)",
            "cron(0 0 ? * * * *)",
            "cron(60 0 ? * * *)",
            "cron(0 24 ? * * *)",
            "cron(0 0 0 * ? *)",
            "cron(0 0 32 * ? *)",
            "cron(0 0 1 13 ? *)",
            "cron(0 0 ? * 0 *)",
            "cron(0 0 ? * 8 *)",
            "cron(0 0 ? * foo *)",
            "cron(0 0 ? * mon#6 *)",
            "cron(0 0 mon#1 * ? *)",
            "cron(0 0 ? * 3W *)",
            "cron(L 0 ? * * *)",
            "cron(? 0 1 * ? *)",
            "cron(0 0 1 * mon *)",
            "cron(0 0 ? * ? *)",
            "cron(0 0 ? * * 1969)",
            "cron(0 0 ? * * 2200)",
            "cron(*/0 0 ? * * *)",
            "cron(+5 0 ? * * *)",
            "rate(0 days)",
            "rate(1 days)",
            "rate(2 day)",
            "rate(2 weeks)",
            "rate(5)",
            "rate(-1 days)",
        ] {
            assert_eq!(verdict(text), Some(Severity::Error), "{text}");
        }
    }
}
