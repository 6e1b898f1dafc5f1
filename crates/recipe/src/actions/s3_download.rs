//! `S3Download`: objects of S3 into files.
//! Reference: AWSTOE action modules, S3Download.

use super::Entry;
use super::s3_uri::{S3Uri, account_id, s3_uri};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// One object to download, or all below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Download {
    /// What to download.
    pub source: S3Source,
    /// The file to write; for a prefix the folder.
    pub destination: String,
    /// The account that must own the bucket.
    pub expected_bucket_owner: Option<String>,
    /// False: an existing file is an error. True (default): it is replaced.
    pub overwrite: bool,
}

/// What `source` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum S3Source {
    /// One object.
    Object(S3Uri),
    /// All objects whose keys start with this key, which is empty or ends in `/`.
    Prefix(S3Uri),
}

impl Entry for S3Download {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let source_node = fields.node("source", cx);
        let deferred = source_node
            .and_then(Node::as_text)
            .is_some_and(|text| cx.defers(text));
        let source = match source_node {
            Some(node) => source(node, cx),
            None => {
                fields.missing("source", cx);
                None
            }
        };
        let destination_node = fields.node("destination", cx);
        let destination = match destination_node {
            Some(node) => decode::path(node, cx),
            None => {
                fields.missing("destination", cx);
                None
            }
        };
        let owner = fields.optional("expectedBucketOwner", cx, account_id);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        let decoded = Self {
            source: source?,
            destination: destination?,
            expected_bucket_owner: owner?,
            overwrite: overwrite?.unwrap_or(true),
        };
        if let (S3Source::Object(_), Some(node)) = (&decoded.source, destination_node)
            && decoded.destination.ends_with('/')
            && !deferred
            && !cx.defers(&decoded.destination)
        {
            cx.error_help(
                "invalid-path",
                node.span,
                "the destination of one object is a file, not a folder",
                Some("add the name of the file, or end `source` with `/*`".to_owned()),
            );
            return None;
        }
        Some(decoded)
    }
}

fn source(node: &Node, cx: &mut Cx<'_>) -> Option<S3Source> {
    let mut uri = s3_uri(node, cx)?;
    let deferred = node.as_text().is_some_and(|text| cx.defers(text));
    if uri.key == "*" || uri.key.ends_with("/*") {
        uri.key.pop();
        return Some(S3Source::Prefix(uri));
    }
    if uri.key.is_empty() || uri.key.ends_with('/') {
        cx.error_help(
            "invalid-s3-uri",
            node.span,
            "`source` names no object",
            Some("end it with `/*` for all objects below a prefix".to_owned()),
        );
        return None;
    }
    if uri.key.contains('*') && !deferred {
        cx.warning(
            "literal-wildcard",
            node.span,
            "`*` is no wildcard here but a part of the key",
            "only `/*` at the end means all objects below a prefix",
        );
    }
    Some(S3Source::Object(uri))
}
