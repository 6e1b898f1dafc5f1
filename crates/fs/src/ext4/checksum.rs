//! CRC-32C as ext4 uses it: without the final inversion, so that a checksum seeds the next one.
//! A file system without `metadata_csum` has zeros in their places.

use amiforge_types::Uuid;

/// A CRC register. What has gone in so far (file system, inode, ...) seeds what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc(Option<u32>);

impl Crc {
    /// The register that starts the superblock's checksum.
    pub(super) const START: Self = Self(Some(u32::MAX));
    /// Where there are no checksums: stays what it is, and its value is 0.
    pub(super) const OFF: Self = Self(None);

    /// The register for everything else in a file system.
    pub(super) fn of_file_system(uuid: &Uuid) -> Self {
        Self::START.with(uuid.as_bytes())
    }

    /// The register that a file system with `metadata_csum_seed` keeps.
    pub(super) const fn seeded(register: u32) -> Self {
        Self(Some(register))
    }

    /// The register for the blocks of an inode; generations are always 0.
    pub(super) fn of_inode(self, number: u32) -> Self {
        self.with(&number.to_le_bytes()).with(&[0; 4])
    }

    /// The register after `bytes`.
    pub(super) fn with(self, bytes: &[u8]) -> Self {
        Self(self.0.map(|crc| !crc32c::crc32c_append(!crc, bytes)))
    }

    /// The checksum.
    pub(super) fn value(self) -> u32 {
        self.0.unwrap_or(0)
    }

    /// True where there are checksums.
    pub(super) fn is_on(self) -> bool {
        self.0.is_some()
    }

    /// The low half, where only that is stored.
    pub(super) fn low(self) -> u16 {
        let [a, b, ..] = self.value().to_le_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The high half.
    pub(super) fn high(self) -> u16 {
        let [.., c, d] = self.value().to_le_bytes();
        u16::from_le_bytes([c, d])
    }
}
