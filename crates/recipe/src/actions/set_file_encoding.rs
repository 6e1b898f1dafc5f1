//! `SetFileEncoding`: convert text files from UTF-8.
//! Reference: AWSTOE action modules, SetFileEncoding.

use super::encoding::{Encoding, encoding};
use super::{Entry, one_path};
use crate::decode::{Cx, Fields};

/// One UTF-8 file to convert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFileEncoding {
    /// The file; a link is followed.
    pub path: String,
    /// What it becomes; UTF-8 when absent, which only checks it.
    pub encoding: Encoding,
}

impl Entry for SetFileEncoding {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let encoding = fields.optional("encoding", cx, encoding);
        Some(Self {
            path: path?,
            encoding: encoding?.unwrap_or(Encoding::Utf8),
        })
    }
}
