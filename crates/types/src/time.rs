//! Points in time, as the core holds them: seconds and nanoseconds since 1970, no zone, no clock.

use std::fmt;

/// A point in time. `nanos` is below 1,000,000,000 and counts forward also before 1970.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub secs: i64,
    /// Nanoseconds after `secs`.
    pub nanos: u32,
}

impl Timestamp {
    /// A whole second.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}

/// RFC 3339 in UTC with whole seconds, for example `2026-11-20T22:38:00Z`; years outside 0-9999
/// are printed as `@<seconds>`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.secs) {
            Ok(t) if self.secs >= -62_167_219_200 => write!(f, "{t}"),
            _ => write!(f, "@{}", self.secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(Timestamp::from_secs(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(
            Timestamp::from_secs(1795215480).to_string(),
            "2026-11-20T22:58:00Z"
        );
    }
}
