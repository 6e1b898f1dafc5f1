//! Order of Debian versions (deb-version(7)): `[epoch:]upstream[-revision]`.

use std::cmp::Ordering;

/// Compares two versions as dpkg does.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (ea, ua, ra) = split(a);
    let (eb, ub, rb) = split(b);
    ea.cmp(&eb)
        .then_with(|| part(ua, ub))
        .then_with(|| part(ra, rb))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Sort weight of a character outside digits: `~` before the end, the end before letters, letters
/// before all else.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(b) if b.is_ascii_digit() => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(b),
        Some(b) => i32::from(b) + 256,
    }
}

fn part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        loop {
            let (x, y) = (a.first().copied(), b.first().copied());
            let digit = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_digit());
            if digit(x) && digit(y) {
                break;
            }
            match weight(x).cmp(&weight(y)) {
                Ordering::Equal => {
                    a = a.get(1..).unwrap_or_default();
                    b = b.get(1..).unwrap_or_default();
                }
                other => return other,
            }
        }
        let (x, y) = (number(&mut a), number(&mut b));
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the digits at the front, without leading zeros; of any length.
fn number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits
        .iter()
        .position(|b| *b != b'0')
        .unwrap_or(digits.len());
    &digits[zeros..]
}

/// True when the text can be a version: what dpkg demands of one.
pub(crate) fn is_valid(version: &str) -> bool {
    let rest = match version.split_once(':') {
        Some((epoch, rest)) if epoch.parse::<u32>().is_ok() => rest,
        Some(_) => return false,
        None => version,
    };
    !rest.is_empty()
        && rest.len() <= 256
        && rest
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-' | b'~' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each is older than the next.
    const ASCENDING: &[&str] = &[
        "0~~",
        "0~",
        "0",
        "0.1~rc1",
        "0.1",
        "0.1-1",
        "0.1-1+b1",
        "0.1-1.1",
        "0.1-2",
        "0.1a-1",
        "0.1+x",
        "0.2",
        "0.10",
        "1.0~beta1~svn1245",
        "1.0~beta1",
        "1.0",
        "1.0-0.1",
        "1.0-1",
        "1.0.",
        "1:0.1",
        "2:0",
        "10:0",
    ];

    #[test]
    fn order_of_versions() {
        for (i, a) in ASCENDING.iter().enumerate() {
            for (j, b) in ASCENDING.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} {b}");
            }
        }
        assert_eq!(compare("1.0-0", "1.0"), Ordering::Equal);
        assert_eq!(compare("1.001", "1.1"), Ordering::Equal);
        assert_eq!(compare("0:1", "1"), Ordering::Equal);
        assert_eq!(
            compare("99999999999999999999999999", "100000000000000000000000000"),
            Ordering::Less
        );
    }

    #[test]
    fn agrees_with_dpkg() {
        for pair in ASCENDING.windows(2) {
            let status = std::process::Command::new("dpkg")
                .args(["--compare-versions", pair[0], "lt", pair[1]])
                .status()
                .expect("dpkg runs");
            assert!(status.success(), "{pair:?}");
        }
    }
}
