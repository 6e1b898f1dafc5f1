//! The name of an AMI.

/// A name `RegisterImage` refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Too short or too long.
    #[error("an AMI name has 3 to 128 characters, {name:?} has {len}")]
    Length {
        /// The name.
        name: String,
        /// Its characters.
        len: usize,
    },
    /// A character outside the set.
    #[error("an AMI name cannot contain {character:?}: {name:?}")]
    Character {
        /// The name.
        name: String,
        /// The first bad character.
        character: char,
    },
}

/// Checks a name against `RegisterImage`: 3 to 128 characters out of letters, digits, space and
/// `( ) [ ] . / - ' @ _`.
pub fn check_ami_name(name: &str) -> Result<(), NameError> {
    let len = name.chars().count();
    if !(3..=128).contains(&len) {
        return Err(NameError::Length {
            name: name.chars().take(160).collect(),
            len,
        });
    }
    match name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || " ()[]./-'@_".contains(*c)))
    {
        Some(character) => Err(NameError::Character {
            name: name.to_owned(),
            character,
        }),
        None => Ok(()),
    }
}
