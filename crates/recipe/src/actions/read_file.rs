//! `ReadFile`: the text of files.
//! Reference: AWSTOE action modules, ReadFile.

use super::encoding::{Encoding, encoding};
use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};

/// One text file to read. Output: `content`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadFile {
    /// The file; a link is followed.
    pub path: String,
    /// How its bytes are text.
    pub encoding: Encoding,
    /// True: the content is also printed.
    pub print: bool,
}

impl Entry for ReadFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let encoding = fields.optional("encoding", cx, encoding);
        let print = fields.optional("printFileContent", cx, decode::boolean);
        Some(Self {
            path: path?,
            encoding: encoding?.unwrap_or(Encoding::Utf8),
            print: print?.unwrap_or(false),
        })
    }
}
