//! Deterministic "randomness": every UUID, salt and hash seed of a build comes from one seed.

use crate::{Digest, Hasher, Uuid};

/// The source of every value that other tools would draw at random.
///
/// A value is drawn under a label (`"gpt.disk-guid"`), so adding a new one never shifts the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(Digest);

impl Seed {
    /// A seed from a digest, usually the plan's id.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// A child seed for a sub-system.
    #[must_use]
    pub fn child(&self, label: &str) -> Self {
        Self(self.draw(label))
    }

    /// 32 bytes for `label`.
    #[must_use]
    pub fn bytes(&self, label: &str) -> [u8; 32] {
        *self.draw(label).as_bytes()
    }

    /// A UUID for `label`, with version 4 and variant bits set.
    #[must_use]
    pub fn uuid(&self, label: &str) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.bytes(label)[..16]);
        Uuid::with_version_4_bits(bytes)
    }

    /// A number for `label`.
    #[must_use]
    pub fn u32(&self, label: &str) -> u32 {
        let b = self.bytes(label);
        u32::from_le_bytes([b[0], b[1], b[2], b[3]])
    }

    fn draw(&self, label: &str) -> Digest {
        let mut hasher = Hasher::new();
        hasher.field(b"amiforge-seed-v1");
        hasher.field(self.0.as_bytes());
        hasher.field(label.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_independent_and_stable() {
        let seed = Seed::new(Digest::of(b"x"));
        assert_eq!(seed.uuid("a"), seed.uuid("a"));
        assert_ne!(seed.uuid("a"), seed.uuid("b"));
        assert_ne!(seed.child("a").uuid("b"), seed.uuid("b"));
    }
}
