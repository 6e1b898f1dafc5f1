//! Order of Debian version strings, as far as kernel versions need it.

use std::cmp::Ordering;

/// Compares two versions without an epoch by Debian's rules (policy 5.6.12): what is before the last
/// hyphen counts first.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |version: &'_ str| match version.rfind('-') {
        Some(at) => (at, at + 1),
        None => (version.len(), version.len()),
    };
    let ((end_a, revision_a), (end_b, revision_b)) = (parts(a), parts(b));
    compare_parts(&a[..end_a], &b[..end_b])
        .then_with(|| compare_parts(&a[revision_a..], &b[revision_b..]))
}

/// Alternately a stretch without digits, where `~` sorts before the end and letters before everything
/// else, and a number.
fn compare_parts(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (text_a, rest_a) = split(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split(b, |c| !c.is_ascii_digit());
        let longest = text_a.len().max(text_b.len());
        for i in 0..longest {
            match weight(text_a.get(i)).cmp(&weight(text_b.get(i))) {
                Ordering::Equal => {}
                other => return other,
            }
        }
        let (number_a, next_a) = split(rest_a, u8::is_ascii_digit);
        let (number_b, next_b) = split(rest_b, u8::is_ascii_digit);
        let (number_a, number_b) = (significant(number_a), significant(number_b));
        match number_a
            .len()
            .cmp(&number_b.len())
            .then_with(|| number_a.cmp(number_b))
        {
            Ordering::Equal if next_a.is_empty() && next_b.is_empty() => return Ordering::Equal,
            Ordering::Equal => (a, b) = (next_a, next_b),
            other => return other,
        }
    }
}

fn split(text: &[u8], while_: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|c| !while_(c)).unwrap_or(text.len()))
}

/// A number without leading zeros: the longer one is the greater.
fn significant(digits: &[u8]) -> &[u8] {
    split(digits, |c| *c == b'0').1
}

fn weight(c: Option<&u8>) -> i32 {
    match c {
        None => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_greatest() {
        let ascending = [
            "5.10.0-9-amd64",
            "6.1~rc1-amd64",
            "6.1-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-21-cloud-amd64",
            "6.1.0-21.1-cloud-amd64",
            "6.12.0+bpo-cloud-amd64",
            "6.12.9-amd64",
        ];
        let mut sorted = ascending;
        sorted.reverse();
        sorted.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(sorted, ascending);
        assert_eq!(compare_versions("1.0", "1.00"), Ordering::Equal);
        assert_eq!(compare_versions("", "~"), Ordering::Greater);
    }

    #[test]
    #[allow(clippy::disallowed_types, reason = "a test asks dpkg")]
    fn dpkg_agrees() {
        let versions = [
            "1",
            "1.0",
            "1.0~",
            "1.0a",
            "1.0+b1",
            "1.0-1",
            "1.0-~1",
            "01.0",
            "1.10",
            "1.9",
            "6.1.0-21-cloud-amd64",
            "6.1.0-3-cloud-amd64",
        ];
        for a in versions {
            for b in versions {
                let mut dpkg = std::process::Command::new("dpkg");
                let less = dpkg
                    .args(["--compare-versions", a, "lt", b])
                    .status()
                    .unwrap();
                assert_eq!(
                    less.success(),
                    compare_versions(a, b) == Ordering::Less,
                    "{a} < {b}"
                );
            }
        }
    }
}
