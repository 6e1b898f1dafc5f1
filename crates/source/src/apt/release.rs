//! Release files: what an archive's suite contains, with digests (Debian repository format).

use std::collections::BTreeMap;

use amiforge_types::{Digest, Timestamp};

use super::deb822::{Paragraphs, value_lines};
use crate::SourceError;

/// The fields of a Release file that matter here.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Release {
    pub(crate) origin: String,
    pub(crate) suite: String,
    pub(crate) codename: String,
    pub(crate) date: Timestamp,
    pub(crate) valid_until: Option<Timestamp>,
    pub(crate) by_hash: bool,
    /// `NotAutomatic`: apt takes packages from it only when told to.
    pub(crate) not_automatic: bool,
    /// `Snapshots`: address pattern with `@SNAPSHOTID@`.
    pub(crate) snapshots: Option<String>,
    /// Size and SHA-256 by path. Not in the record of a verification.
    #[serde(skip)]
    pub(crate) files: BTreeMap<String, (u64, Digest)>,
}

impl Release {
    /// Reads the signed text. `uri` names it in errors.
    pub(crate) fn parse(text: &str, uri: &str) -> Result<Self, SourceError> {
        let bad = |reason: String| SourceError::malformed(uri, reason);
        let paragraph = Paragraphs::new(text)
            .with_limit(64 << 20)
            .next()
            .ok_or_else(|| bad("empty".to_owned()))?
            .map_err(|e| bad(e.to_string()))?;
        let field = |name: &str| paragraph.get(name).unwrap_or_default().to_owned();
        let time = |name: &str| {
            paragraph
                .get(name)
                .map(|v| parse_date(v).ok_or_else(|| bad(format!("{name} is not a date: {v:?}"))))
                .transpose()
        };
        let mut files = BTreeMap::new();
        for line in value_lines(
            paragraph
                .get("SHA256")
                .ok_or_else(|| bad("no SHA256 list".to_owned()))?,
        ) {
            let mut parts = line.split_ascii_whitespace();
            let (Some(digest), Some(size), Some(path), None) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return Err(bad(format!("bad line in the SHA256 list: {line:?}")));
            };
            let digest = digest.parse().map_err(|e| bad(format!("{path}: {e}")))?;
            let size = size
                .parse()
                .map_err(|_| bad(format!("{path}: bad size {size:?}")))?;
            if path.starts_with('/') || path.split('/').any(|p| p == "..") {
                return Err(bad(format!("bad path {path:?}")));
            }
            files.insert(path.to_owned(), (size, digest));
        }
        Ok(Self {
            origin: field("Origin"),
            suite: field("Suite"),
            codename: field("Codename"),
            date: time("Date")?.ok_or_else(|| bad("no Date".to_owned()))?,
            valid_until: time("Valid-Until")?,
            by_hash: paragraph.get("Acquire-By-Hash") == Some("yes"),
            not_automatic: paragraph.get("NotAutomatic") == Some("yes"),
            snapshots: paragraph.get("Snapshots").map(str::to_owned),
            files,
        })
    }

    /// True when the file is of the suite an address names.
    pub(crate) fn is_suite(&self, wanted: &str) -> bool {
        let wanted = wanted.trim_end_matches('/');
        let last = |s: &str| s.rsplit('/').next().unwrap_or_default().to_owned();
        // Debian's security archive served `bookworm-security` as `bookworm/updates` once.
        let same = |have: &str| {
            !have.is_empty()
                && (have == wanted || last(have) == wanted || have.replace('/', "-") == wanted)
        };
        same(&self.suite) || same(&self.codename)
    }
}

/// An RFC 5322 date in UTC, as Release files have it: `Sat, 17 May 2025 08:49:34 UTC`.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest).trim();
    let mut parts = rest.split_ascii_whitespace();
    let (day, month, year, clock) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if !matches!(parts.next(), None | Some("UTC" | "GMT" | "Z" | "+0000")) {
        return None;
    }
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = i64::try_from(MONTHS.iter().position(|m| *m == month)?).ok()? + 1;
    let number = |s: &str, max: i64| s.parse::<i64>().ok().filter(|n| (0..=max).contains(n));
    let (day, year) = (
        number(day, 31).filter(|d| *d > 0)?,
        number(year, 9999).filter(|y| *y >= 1970)?,
    );
    let mut clock = clock.split(':');
    let (hour, minute, second) = (
        number(clock.next()?, 23)?,
        number(clock.next()?, 59)?,
        number(clock.next().unwrap_or("0"), 60)?,
    );
    // Days since 1970 by the civil calendar, years beginning in March.
    let y = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 719_468;
    Some(Timestamp::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (text, secs) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", 0),
            ("Sat, 17 May 2025 08:49:34 UTC", 1_747_471_774),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_199),
        ] {
            assert_eq!(parse_date(text), Some(Timestamp::from_secs(secs)), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "Sat, 17 Foo 2025 08:49:34 UTC",
            "Sat, 17 May 2025 08:49:34 CEST",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
