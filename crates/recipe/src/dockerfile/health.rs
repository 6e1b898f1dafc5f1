//! `HEALTHCHECK`. Times are Go's: `1m30s`, `500ms`, `1.5h`.

use super::HealthCheck;
use super::words::{Form, Problem, form};

/// The shortest time that Docker takes.
const LEAST: u64 = 1_000_000;

/// Reads what follows the word. `base` is where it begins.
pub(super) fn healthcheck(text: &str, base: usize) -> Result<HealthCheck, Problem> {
    let mut check = HealthCheck::default();
    let mut rest = text;
    let mut at = base;
    while let Some(flag) = rest.strip_prefix("--") {
        let len = flag.find(char::is_whitespace).unwrap_or(flag.len());
        let (flag, tail) = flag.split_at(len);
        let (name, value) = flag.split_once('=').unwrap_or((flag, ""));
        let time = || {
            duration(value)
                .filter(|ns| *ns == 0 || *ns >= LEAST)
                .ok_or_else(|| {
                    Problem::new(
                        at,
                        format!("{value:?} is not a time of at least 1ms, such as 30s or 1m30s"),
                    )
                })
        };
        match name {
            "interval" => check.interval = Some(time()?),
            "timeout" => check.timeout = Some(time()?),
            "start-period" => check.start_period = Some(time()?),
            "start-interval" => check.start_interval = Some(time()?),
            "retries" => {
                let retries = value.parse().map_err(|_| {
                    Problem::new(at, format!("{value:?} is not a number of retries"))
                })?;
                check.retries = Some(retries);
            }
            _ => {
                return Err(Problem::new(
                    at,
                    format!(
                        "HEALTHCHECK has no option --{name}; it has --interval, --timeout, --start-period, --start-interval and --retries"
                    ),
                ));
            }
        }
        let next = tail.trim_start();
        at = base + (text.len() - next.len());
        rest = next;
    }
    let len = rest.find(char::is_whitespace).unwrap_or(rest.len());
    let (word, command) = rest.split_at(len);
    let command = command.trim_start();
    match word.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => check.test = vec!["NONE".to_owned()],
        "CMD" if !command.is_empty() => {
            check.test = match form(command, base + (text.len() - command.len()))? {
                Form::Exec(list) => std::iter::once("CMD".to_owned()).chain(list).collect(),
                Form::Shell(text) => vec!["CMD-SHELL".to_owned(), text],
            };
        }
        "CMD" => return Err(Problem::new(at, "HEALTHCHECK CMD needs a command")),
        "NONE" => return Err(Problem::new(at, "HEALTHCHECK NONE takes nothing more")),
        _ => {
            return Err(Problem::new(
                at,
                "write HEALTHCHECK NONE, or HEALTHCHECK CMD and a command",
            ));
        }
    }
    Ok(check)
}

/// Nanoseconds.
fn duration(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(len);
        let len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(len);
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = match whole {
            "" if fraction.is_empty() => return None,
            "" => 0,
            whole => whole.parse().ok()?,
        };
        if fraction.len() > 9 || fraction.contains('.') {
            return None;
        }
        let mut part = 0_u64;
        let mut scale = 1_u64;
        if !fraction.is_empty() {
            part = fraction.parse().ok()?;
            scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
        }
        total = total
            .checked_add(whole.checked_mul(unit)?)?
            .checked_add(part.checked_mul(unit)? / scale)?;
        rest = tail;
    }
    (!text.is_empty() && total <= u64::MAX / 2).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn times_are_those_of_go() {
        for (text, ns) in [
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("500ms", 500_000_000),
            (".5s", 500_000_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(ns), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1.2.3s", "99999999999h", "1d", "."] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
