//! `s3://bucket/key`: where the S3 actions read and write.
//! Reference: AWSTOE action modules, S3Download and S3Upload; Amazon S3 user guide, bucket naming
//! rules and object key names.

use std::fmt;

use crate::decode::{self, Cx, shown};
use crate::node::Node;

/// A bucket and a key in it. An empty key is the bucket itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct S3Uri {
    /// The bucket: letters, digits, `-`, `.` and `_`.
    pub bucket: String,
    /// The key, at most 1024 bytes.
    pub key: String,
}

/// Bytes of the longest key.
const LONGEST_KEY: usize = 1024;

impl fmt::Display for S3Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.key)
    }
}

/// Why a text is no such address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum S3UriError {
    /// Another scheme, or none.
    #[error("it does not start with `s3://`")]
    Scheme,
    /// No bucket has such a name.
    #[error("{0:?} is not the name of a bucket")]
    Bucket(String),
    /// No object has such a key.
    #[error("a key has at most {LONGEST_KEY} bytes and no NUL character")]
    Key,
}

impl S3Uri {
    /// Reads `s3://bucket/key`; the key may be missing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, S3UriError> {
        let rest = text
            .get(..5)
            .filter(|scheme| scheme.eq_ignore_ascii_case("s3://"))
            .and(text.get(5..))
            .ok_or(S3UriError::Scheme)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        // Old buckets may have up to 255 characters, capital letters and underscores.
        let valid = (3..=255).contains(&bucket.len())
            && bucket
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
            && !bucket.contains("..");
        if !valid {
            return Err(S3UriError::Bucket(bucket.to_owned()));
        }
        if key.len() > LONGEST_KEY || key.contains('\0') {
            return Err(S3UriError::Key);
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
        })
    }
}

/// Decodes an address; one that is not resolved yet is the placeholder `s3://unresolved/key`.
pub(super) fn s3_uri(node: &Node, cx: &mut Cx<'_>) -> Option<S3Uri> {
    let text = decode::filled(node, cx)?;
    let parsed = if cx.defers(&text) {
        S3Uri::parse("s3://unresolved/key")
    } else {
        S3Uri::parse(&text)
    };
    match parsed {
        Ok(uri) => Some(uri),
        Err(why) => {
            let help = match why {
                S3UriError::Scheme if text.starts_with("http") => Some(
                    "write `s3://bucket/key`; `WebDownload` reads addresses of the web".to_owned(),
                ),
                S3UriError::Scheme => Some("write `s3://bucket/key`".to_owned()),
                _ => None,
            };
            let message = format!("{} is not an address in S3: {why}", shown(&text));
            cx.error_help("invalid-s3-uri", node.span, message, help);
            None
        }
    }
}

/// The id of an AWS account: 12 digits.
pub(super) fn account_id(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::filled(node, cx)?;
    if cx.defers(&text) || (text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())) {
        return Some(text);
    }
    let message = format!(
        "{} is not the id of an account, which has 12 digits",
        shown(&text)
    );
    cx.error("invalid-account", node.span, message);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_a_bucket_and_a_key() {
        let both = |text: &str| S3Uri::parse(text).map(|uri| (uri.bucket, uri.key));
        let ok = |bucket: &str, key: &str| Ok((bucket.to_owned(), key.to_owned()));
        assert_eq!(both("s3://my-bucket/a/b c"), ok("my-bucket", "a/b c"));
        assert_eq!(both("S3://my.bucket"), ok("my.bucket", ""));
        assert_eq!(both("s3://Old_Bucket//x"), ok("Old_Bucket", "/x"));
        assert_eq!(both("https://x"), Err(S3UriError::Scheme));
        assert_eq!(both("s3:/x/y"), Err(S3UriError::Scheme));
        for bucket in ["", "ab", "a..b", "ü-bucket", "host:80", "a@b", "a%b"] {
            let text = format!("s3://{bucket}/x");
            assert_eq!(both(&text), Err(S3UriError::Bucket(bucket.to_owned())));
        }
        assert_eq!(both("s3://bucket/a\0b"), Err(S3UriError::Key));
        let long = format!("s3://bucket/{}", "k".repeat(1025));
        assert_eq!(both(&long), Err(S3UriError::Key));
    }
}
