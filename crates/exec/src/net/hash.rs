//! The checksums of AWSTOE, piece by piece.

use amiforge_recipe::actions::ChecksumAlgorithm;
use sha2::Digest as _;

/// A checksum under way. Two generations of one family of crates: the traits differ, the methods do
/// not.
pub(crate) enum Hash {
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hash {
    pub(crate) fn new(algorithm: ChecksumAlgorithm) -> Self {
        match algorithm {
            ChecksumAlgorithm::Md5 => Self::Md5(<md5::Md5 as md5::Digest>::new()),
            ChecksumAlgorithm::Sha1 => Self::Sha1(<sha1::Sha1 as sha1::Digest>::new()),
            ChecksumAlgorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            ChecksumAlgorithm::Sha512 => Self::Sha512(Box::new(sha2::Sha512::new())),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hash) => md5::Digest::update(hash, bytes),
            Self::Sha1(hash) => sha1::Digest::update(hash, bytes),
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Hexadecimal digits in lower case.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Md5(hash) => hex(&md5::Digest::finalize(hash)),
            Self::Sha1(hash) => hex(&sha1::Digest::finalize(hash)),
            Self::Sha256(hash) => hex(&hash.finalize()),
            Self::Sha512(hash) => hex(&hash.finalize()),
        }
    }
}

/// Hexadecimal digits in lower case.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _never_fails = write!(out, "{byte:02x}");
        out
    })
}
