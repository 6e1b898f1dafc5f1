//! `CopyFile`: copy files within the image.
//! Reference: AWSTOE action modules, CopyFile.

use super::Entry;
use super::transfer::files;
use crate::decode::{self, Cx, Fields};

/// One copy. `*` is a wildcard after the last `/` of `source` only; a `destination` that ends in
/// `/` is a folder and keeps the source's name, and several matches need one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFile {
    /// The file, or files by wildcard.
    pub source: String,
    /// The file or folder to copy to; its folder is created.
    pub destination: String,
    /// False: an existing target is an error. True (default): it is replaced.
    pub overwrite: bool,
}

impl Entry for CopyFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let source = fields.required("source", cx, files);
        let destination = fields.required("destination", cx, decode::path);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        Some(Self {
            source: source?,
            destination: destination?,
            overwrite: overwrite?.unwrap_or(true),
        })
    }
}
