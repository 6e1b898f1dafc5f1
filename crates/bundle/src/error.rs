//! What can go wrong, with the part or element that it is of.

use std::io;

/// A key or certificate that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// More than any key has.
    #[error("the {what} has {bytes} bytes, more than a key or certificate")]
    TooLarge {
        /// What it should be.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// A key under a pass phrase.
    #[error("the private key is encrypted: take the pass phrase off first, as `openssl pkey` does")]
    Encrypted,
    /// Neither PEM nor DER of it.
    #[error("the {what} is neither PEM nor DER of an RSA key: {problem}")]
    Unreadable {
        /// What it should be.
        what: &'static str,
        /// What the reader says.
        problem: String,
    },
    /// Too short for RSA to mean something, or longer than is read.
    #[error("the {what} has {bits} bits; RSA keys have 1024 to 4096")]
    Bits {
        /// What it is.
        what: &'static str,
        /// Its bits.
        bits: usize,
    },
    /// Of two different pairs.
    #[error("the private key is not that of the user's certificate")]
    Mismatch,
    /// A file of a pair that holds parts of two.
    #[error("the private key is not that of the certificate beside it")]
    OtherPair,
}

/// A manifest that cannot be used; `InvalidManifest` at EC2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More text than a manifest has.
    #[error("a manifest has at most 4 MiB, this one {0} bytes")]
    TooLarge(usize),
    /// Not XML, or more of XML than manifests have.
    #[error("the manifest is no XML of a bundle, at byte {at}: {problem}")]
    Xml {
        /// Where.
        at: u64,
        /// What.
        problem: String,
    },
    /// An element that is needed.
    #[error("the manifest has no {0}")]
    Missing(String),
    /// An element whose text is not what it should be.
    #[error("{element} of the manifest is {text:?}, not {expected}")]
    Value {
        /// The path of the element.
        element: String,
        /// Its text, shortened.
        text: String,
        /// What it should be.
        expected: String,
    },
    /// Of a version that is not known.
    #[error("the manifest has version {0:?}; known is 2007-10-10")]
    Version(String),
    /// Changed after it was signed, or signed by another.
    #[error(
        "the signature of the manifest does not verify: it was changed, or another key signed it"
    )]
    Signature,
}

/// A bundle that cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A key or certificate.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A wish that a bundle cannot have.
    #[error("{what}: {problem}")]
    Option {
        /// Which.
        what: &'static str,
        /// Why not.
        problem: String,
    },
    /// The image could not be read.
    #[error("the image cannot be read")]
    Image(#[source] io::Error),
    /// It has not the length that was said.
    #[error("the image ends after {got} of {length} bytes")]
    ImageShort {
        /// What was said.
        length: u64,
        /// What came.
        got: u64,
    },
    /// It has more than was said.
    #[error("the image has more than the {0} bytes that were said")]
    ImageLong(u64),
    /// The image could not be written.
    #[error("the image cannot be written")]
    Output(#[source] io::Error),
    /// A part could not be written.
    #[error("part {index} ({name}) cannot be written")]
    PartWrite {
        /// Its number, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part could not be read.
    #[error("part {index} ({name}) cannot be read")]
    PartRead {
        /// Its number, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A part has another digest.
    #[error("part {index} ({name}) is damaged: its SHA-1 is {found}, not {expected}")]
    PartDigest {
        /// Its number, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// What the manifest says, in hex.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The parts have more bytes, or fewer, than the manifest says.
    #[error(
        "part {index} ({name}): the parts up to it have {found} bytes, and the manifest says {expected} of all"
    )]
    PartSize {
        /// Its number, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// What the manifest says of all.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// A part is larger than is held in memory.
    #[error("part {index} ({name}) has more than {} bytes", crate::MAX_PART_BYTES)]
    PartTooLarge {
        /// Its number, from 0.
        index: usize,
        /// Its name.
        name: String,
    },
    /// The key does not open the manifest's.
    #[error("the private key opens neither the user's nor EC2's key in the manifest")]
    WrongKey,
    /// What was decrypted is not what was encrypted.
    #[error("the parts do not decrypt: {0}")]
    Cipher(&'static str),
    /// Not gzip.
    #[error("what the parts hold is no gzip stream")]
    Gzip(#[source] io::Error),
    /// Something after its end.
    #[error("something follows the gzip stream in the parts")]
    GzipTrailer,
    /// Not a tar archive of one file.
    #[error("the archive in the bundle, at byte {at}: {problem}")]
    Tar {
        /// Where, in the archive.
        at: u64,
        /// What.
        problem: String,
    },
    /// More than the manifest's size can need.
    #[error("the archive in the bundle has more than {0} bytes, which its image cannot need")]
    TooLarge(u64),
    /// The whole has another digest.
    #[error("the archive in the bundle is damaged: its SHA-1 is {found}, not {expected}")]
    ImageDigest {
        /// What the manifest says, in hex.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// Carries an error through the streams of libraries.
pub(crate) fn carried(error: BundleError) -> io::Error {
    io::Error::other(error)
}

/// The error that a stream carries, or its own made into one.
pub(crate) fn taken(error: io::Error, own: impl FnOnce(io::Error) -> BundleError) -> BundleError {
    match error.downcast::<BundleError>() {
        Ok(carried) => carried,
        Err(error) => own(error),
    }
}

/// At most 60 characters of a text.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The bytes of hex digits of either case.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok())
        .collect()
}
