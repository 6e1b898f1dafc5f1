//! The creation date of an image.

use std::fmt;

use amiforge_types::Timestamp;

/// A date as `DescribeImages` writes it: UTC, `2026-11-20T22:38:00.000Z`. Read back from any
/// RFC 3339 text; fractions of a second are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreationDate(i64);

impl CreationDate {
    /// From the build clock; dates outside the years 0 to 9999 are moved to the nearest inside.
    #[must_use]
    pub fn new(clock: Timestamp) -> Self {
        Self(clock.secs.clamp(-62_167_219_200, 253_402_207_200))
    }

    /// The point in time.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        Timestamp::from_secs(self.0)
    }
}

impl fmt::Display for CreationDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.timestamp().to_string();
        write!(f, "{}.000Z", text.trim_end_matches('Z'))
    }
}

impl serde::Serialize for CreationDate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CreationDate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let date: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self::new(Timestamp::from_secs(date.as_second())))
    }
}
