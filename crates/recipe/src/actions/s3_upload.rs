//! `S3Upload`: files into objects of S3.
//! Reference: AWSTOE action modules, S3Upload.

use super::Entry;
use super::s3_uri::{S3Uri, account_id, s3_uri};
use super::transfer::files;
use crate::decode::{self, Cx, Fields};

/// One file to upload, or several by wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Upload {
    /// The file, or files by `*` in the last part.
    pub source: String,
    /// The object. A key that is empty or ends in `/` is a prefix, and the names of the files are added; that
    /// of several files always is one.
    pub destination: S3Uri,
    /// True: also the files of the folders that match.
    pub recurse: bool,
    /// The account that must own the bucket.
    pub expected_bucket_owner: Option<String>,
}

impl Entry for S3Upload {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let source = fields.required("source", cx, files);
        let destination = fields.required("destination", cx, s3_uri);
        let recurse = fields.optional("recurse", cx, decode::boolean);
        let owner = fields.optional("expectedBucketOwner", cx, account_id);
        Some(Self {
            source: source?,
            destination: destination?,
            recurse: recurse?.unwrap_or(false),
            expected_bucket_owner: owner?,
        })
    }
}
