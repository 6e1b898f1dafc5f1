//! `AppendFile`: add text to the end of files.
//! Reference: AWSTOE action modules, AppendFile.

use super::encoding::{Encoding, content};
use super::{Entry, one_path};
use crate::decode::{Cx, Fields};

/// Text for the end of one file, which must exist; no line break is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendFile {
    /// The file.
    pub path: String,
    /// The text; empty when absent.
    pub content: String,
    /// How the text becomes bytes.
    pub encoding: Encoding,
}

impl Entry for AppendFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let (content, encoding) = content(fields, cx)?;
        Some(Self {
            path: path?,
            content,
            encoding,
        })
    }
}
