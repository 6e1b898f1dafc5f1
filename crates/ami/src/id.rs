//! Identifiers: a prefix and 17 lower-case hex digits, here derived from content.

use std::fmt;
use std::str::FromStr;

use amiforge_types::Digest;

/// The text is not an identifier of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of the form {prefix} + 17 (or 8) hex digits")]
pub struct IdParseError {
    /// The wanted prefix, with its dash.
    pub prefix: &'static str,
    /// The text, shortened.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The prefix with its dash.
            pub const PREFIX: &'static str = $prefix;

            /// The id whose digits are the first 17 of `digest`.
            #[must_use]
            pub fn from_digest(digest: &Digest) -> Self {
                Self(format!("{}{}", $prefix, &digest.hex()[..17]))
            }

            /// The id with these digits: random ones, given by who owns the source of chance.
            #[must_use]
            pub fn random(bits: u128) -> Self {
                Self(format!("{}{:017x}", $prefix, bits & ((1 << 68) - 1)))
            }

            /// The whole text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The digits alone.
            #[must_use]
            pub fn digits(&self) -> &str {
                &self.0[$prefix.len()..]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdParseError;

            /// Accepts the 17-digit form and the 8-digit form of old resources.
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let good = s.strip_prefix($prefix).is_some_and(|digits| {
                    matches!(digits.len(), 8 | 17)
                        && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                });
                if good {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(IdParseError { prefix: $prefix, text: s.chars().take(40).collect() })
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// An AMI id, `ami-0123456789abcdef0`.
    ImageId, "ami-"
}

id! {
    /// A snapshot id, `snap-0123456789abcdef0`. Locally its digits are the first 17 of the volume's
    /// content digest, so equal content has an equal id.
    SnapshotId, "snap-"
}

id! {
    /// A volume id, `vol-0123456789abcdef0`.
    VolumeId, "vol-"
}

id! {
    /// An instance id, `i-0123456789abcdef0`.
    InstanceId, "i-"
}

id! {
    /// A reservation id, `r-0123456789abcdef0`: one request to run instances.
    ReservationId, "r-"
}
