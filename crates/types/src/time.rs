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

/// A text that is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time as in 2026-11-20T22:38:00Z")]
pub struct TimestampError;

/// RFC 3339, of any zone and with any fraction of a second.
impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimestampError)?;
        let (secs, nanos) = (time.as_second(), time.subsec_nanosecond());
        // Of a time before 1970 both are negative there.
        let (secs, nanos) = match nanos < 0 {
            true => (secs - 1, nanos + 1_000_000_000),
            false => (secs, nanos),
        };
        let nanos = u32::try_from(nanos).map_err(|_| TimestampError)?;
        Ok(Self { secs, nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339() {
        for (text, secs, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-20T22:58:00.5+00:00", 1_795_215_480, 500_000_000),
            ("2026-11-20T23:58:00+01:00", 1_795_215_480, 0),
            ("1969-12-31T23:59:59.25Z", -1, 250_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Timestamp { secs, nanos }), "{text}");
        }
        for text in ["", "now", "2026-11-20", "2026-13-20T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(TimestampError), "{text}");
        }
    }

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(Timestamp::from_secs(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(
            Timestamp::from_secs(1795215480).to_string(),
            "2026-11-20T22:58:00Z"
        );
    }
}
