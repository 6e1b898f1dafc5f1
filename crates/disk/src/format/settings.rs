//! What can be chosen about a file besides its compression: the subformat.

use std::fmt;
use std::str::FromStr;

/// A kind of file within a format that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Subformat {
    /// The format's usual one.
    #[default]
    Default,
    /// Grows with the data in it.
    Dynamic,
    /// As long as the disk.
    Fixed,
    /// Written front to back, compressed.
    StreamOptimized,
}

/// A text that names no subformat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no subformat; known are dynamic and fixed (vhd), streamOptimized (vmdk)")]
pub struct SubformatError(pub String);

impl FromStr for Subformat {
    type Err = SubformatError;

    fn from_str(text: &str) -> Result<Self, SubformatError> {
        match text.to_ascii_lowercase().as_str() {
            "dynamic" => Ok(Self::Dynamic),
            "fixed" => Ok(Self::Fixed),
            "streamoptimized" => Ok(Self::StreamOptimized),
            _ => Err(SubformatError(text.to_owned())),
        }
    }
}

impl fmt::Display for Subformat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Dynamic => "dynamic",
            Self::Fixed => "fixed",
            Self::StreamOptimized => "streamOptimized",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subformats_are_named_in_any_case() {
        assert_eq!("FIXED".parse(), Ok(Subformat::Fixed));
        assert_eq!("streamOptimized".parse(), Ok(Subformat::StreamOptimized));
        assert!("flat".parse::<Subformat>().is_err());
    }
}
