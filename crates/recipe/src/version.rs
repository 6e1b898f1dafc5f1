//! Semantic versions of Image Builder resources: `major.minor.patch`, with `x` as a wildcard.
//! Source: Image Builder user guide, semantic versioning.

use std::fmt;
use std::str::FromStr;

/// The largest number of a version part: 2^30 - 1.
const MOST: u32 = (1 << 30) - 1;

/// A concrete version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First part.
    pub major: u32,
    /// Second part.
    pub minor: u32,
    /// Third part.
    pub patch: u32,
}

/// A version whose trailing parts may be `x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionPattern {
    /// `None` is `x`; once a part is `x`, all after it are.
    parts: [Option<u32>; 3],
}

/// The text is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VersionParseError {
    /// Not three parts.
    #[error("a version has three parts, as in `1.0.0`")]
    PartCount,
    /// A part is neither a number nor `x`.
    #[error("{part:?} is neither a number from 0 to 1073741823 nor `x`")]
    Part {
        /// The part.
        part: String,
    },
    /// A number follows an `x`.
    #[error("after an `x` every part must be `x`, as in `1.x.x`")]
    NumberAfterWildcard,
    /// A wildcard where a concrete version is needed.
    #[error("a wildcard `x` cannot stand here; write three numbers")]
    Wildcard,
}

impl VersionPattern {
    /// True when `version` is one of those meant.
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        let parts = [version.major, version.minor, version.patch];
        self.parts
            .iter()
            .zip(parts)
            .all(|(wanted, is)| wanted.is_none_or(|w| w == is))
    }

    /// True when every version that this pattern means is meant by `wider` too.
    #[must_use]
    pub fn is_within(&self, wider: &Self) -> bool {
        self.parts
            .iter()
            .zip(wider.parts)
            .all(|(own, wanted)| wanted.is_none_or(|wanted| *own == Some(wanted)))
    }

    /// The version, when no part is a wildcard.
    #[must_use]
    pub fn concrete(&self) -> Option<Version> {
        let [major, minor, patch] = self.parts;
        Some(Version {
            major: major?,
            minor: minor?,
            patch: patch?,
        })
    }

    /// The newest of `versions` that matches.
    pub fn latest(&self, versions: impl IntoIterator<Item = Version>) -> Option<Version> {
        versions.into_iter().filter(|v| self.matches(v)).max()
    }

    /// Where a wildcard stands, 0. So `1.0.x` becomes `1.0.0`: the version of a first build.
    #[must_use]
    pub fn first(&self) -> Version {
        let [major, minor, patch] = self.parts.map(|p| p.unwrap_or(0));
        Version {
            major,
            minor,
            patch,
        }
    }
}

impl FromStr for VersionPattern {
    type Err = VersionParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = [None; 3];
        let mut count = 0;
        for part in text.split('.') {
            let slot = parts.get_mut(count).ok_or(VersionParseError::PartCount)?;
            count += 1;
            *slot = match part {
                "x" => None,
                _ => Some(number(part)?),
            };
        }
        if count != 3 {
            return Err(VersionParseError::PartCount);
        }
        if parts.windows(2).any(|w| w[0].is_none() && w[1].is_some()) {
            return Err(VersionParseError::NumberAfterWildcard);
        }
        Ok(Self { parts })
    }
}

fn number(part: &str) -> Result<u32, VersionParseError> {
    let bad = || VersionParseError::Part {
        part: part.chars().take(40).collect(),
    };
    if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    // Leading zeros are no fault: AWS's own examples write dates, such as 2019.12.02.
    let digits = part.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    digits.parse().ok().filter(|n| *n <= MOST).ok_or_else(bad)
}

impl FromStr for Version {
    type Err = VersionParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<VersionPattern>()?
            .concrete()
            .ok_or(VersionParseError::Wildcard)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for VersionPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            match part {
                Some(n) => write!(f, "{n}")?,
                None => f.write_str("x")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_pick_the_latest() {
        let have: Vec<Version> = ["2.2.4", "1.7.8", "1.6.8"]
            .iter()
            .map(|v| v.parse().unwrap())
            .collect();
        let pick = |p: &str| {
            p.parse::<VersionPattern>()
                .unwrap()
                .latest(have.clone())
                .map(|v| v.to_string())
        };
        assert_eq!(pick("x.x.x").as_deref(), Some("2.2.4"));
        assert_eq!(pick("1.x.x").as_deref(), Some("1.7.8"));
        assert_eq!(pick("1.6.x").as_deref(), Some("1.6.8"));
        assert_eq!(pick("3.x.x"), None);
    }

    #[test]
    fn refuses_what_is_no_version() {
        use VersionParseError as E;
        let parse = |t: &str| t.parse::<VersionPattern>();
        assert_eq!(parse("x.2.x"), Err(E::NumberAfterWildcard));
        assert_eq!(parse("1.x.8"), Err(E::NumberAfterWildcard));
        assert_eq!(parse("1.0"), Err(E::PartCount));
        assert_eq!(parse("1.0.0.0"), Err(E::PartCount));
        assert_eq!(
            parse(""),
            Err(E::Part {
                part: String::new()
            })
        );
        for bad in [
            "v1.0.0",
            "1.+2.3",
            "1.0.1073741824",
            "1.0.99999999999999999999",
            "1. 0.0",
            "X.x.x",
        ] {
            assert!(matches!(parse(bad), Err(E::Part { .. })), "{bad}");
        }
        assert_eq!("1.x.x".parse::<Version>(), Err(E::Wildcard));
        assert_eq!(
            "1.0.1073741823".parse::<Version>().unwrap().to_string(),
            "1.0.1073741823"
        );
        assert_eq!(parse("2019.012.00").unwrap().to_string(), "2019.12.0");
        assert_eq!(parse("1.0.x").unwrap().first().to_string(), "1.0.0");
    }
}
