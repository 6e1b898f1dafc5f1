//! `WebDownload`: files from the web.
//! Reference: AWSTOE action modules, WebDownload.

use super::Entry;
use super::web_url::{WebUrl, WebUrlError};
use crate::decode::{self, Cx, Fields, shown};
use crate::node::Node;
use crate::trace::Asked;

/// One file to download. Output: `destination`, the path it was written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebDownload {
    /// Where it is.
    pub source: WebUrl,
    /// The file to write. One that ends in `/` is a folder, and the name comes from `source`.
    pub destination: String,
    /// False: an existing file is an error. True (default): it is replaced, unless it has the
    /// checksum already.
    pub overwrite: bool,
    /// What the content must have.
    pub checksum: Option<Checksum>,
    /// True: the server may be anybody.
    pub ignore_certificate_errors: bool,
}

/// A digest that a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub algorithm: ChecksumAlgorithm,
    /// Hexadecimal digits in lower case, as many as the algorithm gives.
    pub digits: String,
}

/// How a checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// RFC 1321.
    Md5,
    /// FIPS 180.
    Sha1,
    /// FIPS 180.
    Sha256,
    /// FIPS 180.
    Sha512,
}

impl ChecksumAlgorithm {
    const ALL: [Self; 4] = [Self::Md5, Self::Sha1, Self::Sha256, Self::Sha512];

    /// The name in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
            Self::Sha512 => "SHA512",
        }
    }

    /// Hexadecimal digits of a checksum.
    #[must_use]
    pub const fn digits(self) -> usize {
        match self {
            Self::Md5 => 32,
            Self::Sha1 => 40,
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl Entry for WebDownload {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let source_node = fields.node("source", cx);
        let source = match source_node {
            Some(node) => url(node, cx),
            None => {
                fields.missing("source", cx);
                None
            }
        };
        let destination = fields.required("destination", cx, decode::path);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        let checksum_node = fields.node("checksum", cx);
        let algorithm_node = fields.node("algorithm", cx);
        let checksum = checksum(checksum_node, algorithm_node, cx);
        let ignore = fields.optional("ignoreCertificateErrors", cx, decode::boolean);
        let named = match (source_node, &source, &destination) {
            (Some(node), Some(source), Some(destination)) => {
                names_a_file(node, source, destination, cx)
            }
            _ => true,
        };
        let decoded = Self {
            source: source?,
            destination: destination?,
            overwrite: overwrite?.unwrap_or(true),
            checksum: checksum?,
            ignore_certificate_errors: ignore?.unwrap_or(false),
        };
        named.then_some(decoded)
    }
}

fn url(node: &Node, cx: &mut Cx<'_>) -> Option<WebUrl> {
    let text = decode::filled(node, cx)?;
    if cx.defers(&text) {
        return WebUrl::parse("http://unresolved.invalid/file").ok();
    }
    match WebUrl::parse(&text) {
        Ok(url) => Some(url),
        Err(why) => {
            let help = (why == WebUrlError::Scheme && text.starts_with("s3://"))
                .then(|| "the action `S3Download` reads from S3".to_owned());
            let message = format!("{} is not a URL to download from: {why}", shown(&text));
            cx.error_help("invalid-url", node.span, message, help);
            None
        }
    }
}

/// A folder needs a name from the URL.
fn names_a_file(node: &Node, source: &WebUrl, destination: &str, cx: &mut Cx<'_>) -> bool {
    let unknown = node.as_text().is_some_and(|text| cx.defers(text)) || cx.defers(destination);
    if unknown || !destination.ends_with('/') || source.file_name().is_some() {
        return true;
    }
    cx.error_help(
        "invalid-url",
        node.span,
        "the URL ends in no name that the file in the folder could have",
        Some("write the name of the file into `destination`".to_owned()),
    );
    false
}

/// `Some(None)` without a checksum, `None` for a wrong one.
#[allow(
    clippy::option_option,
    reason = "absent and wrong differ: `?` must pass the first"
)]
fn checksum(
    checksum: Option<&Node>,
    algorithm: Option<&Node>,
    cx: &mut Cx<'_>,
) -> Option<Option<Checksum>> {
    let name = algorithm.map(|node| self::algorithm(node, cx));
    let digits = checksum.map(|node| hexadecimal(node, cx));
    let (node, name, digits) = match (checksum, algorithm) {
        (Some(node), Some(_)) => (node, name??, digits??),
        (Some(node), None) => {
            let help = "add `algorithm: SHA256` or whichever it is";
            cx.warning(
                "unused-checksum",
                node.span,
                "without `algorithm` the checksum is not looked at",
                help,
            );
            digits??;
            return Some(None);
        }
        (None, Some(node)) => {
            cx.warning(
                "unused-checksum",
                node.span,
                "without `checksum` nothing is verified",
                "add `checksum`",
            );
            name??;
            return Some(None);
        }
        (None, None) => return Some(None),
    };
    let deferred = [checksum, algorithm]
        .into_iter()
        .flatten()
        .filter_map(Node::as_text)
        .any(|text| cx.defers(text));
    if !deferred && digits.len() != name.digits() {
        let (has, needs) = (digits.len(), name.digits());
        let named = ChecksumAlgorithm::ALL
            .into_iter()
            .find(|a| a.digits() == has);
        cx.error_help(
            "invalid-checksum",
            node.span,
            format!(
                "a checksum of {} has {needs} hexadecimal digits, this one has {has}",
                name.name()
            ),
            named.map(|a| format!("one of {} has as many", a.name())),
        );
        return None;
    }
    Some(Some(Checksum {
        algorithm: name,
        digits,
    }))
}

fn algorithm(node: &Node, cx: &mut Cx<'_>) -> Option<ChecksumAlgorithm> {
    let text = decode::filled(node, cx)?;
    cx.asks(node.span, || {
        Asked::Usual(ChecksumAlgorithm::ALL.map(|a| a.name().to_owned()).to_vec())
    });
    if cx.defers(&text) {
        return Some(ChecksumAlgorithm::Sha256);
    }
    // `SHA-256` is how others write it.
    let plain = text.replacen('-', "", 1);
    let found = ChecksumAlgorithm::ALL
        .into_iter()
        .find(|a| a.name().eq_ignore_ascii_case(&plain));
    if found.is_none() {
        cx.error_help(
            "invalid-choice",
            node.span,
            format!("{} is not a known checksum algorithm", shown(&text)),
            Some("use MD5, SHA1, SHA256 or SHA512".to_owned()),
        );
    }
    found
}

fn hexadecimal(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    if !cx.defers(&text) && !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        let message = format!("{} is not written in hexadecimal digits", shown(&text));
        cx.error("invalid-checksum", node.span, message);
        return None;
    }
    Some(text.to_ascii_lowercase())
}
