//! `CreateFile`: write text files.
//! Reference: AWSTOE action modules, CreateFile.

use super::encoding::{Encoding, content};
use super::{Entry, FileMode, file_mode};
use crate::decode::{self, Cx, Fields};

/// One file to write; parent folders are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFile {
    /// The file.
    pub path: String,
    /// Its text; empty when absent.
    pub content: String,
    /// How the text becomes bytes.
    pub encoding: Encoding,
    /// User name or number.
    pub owner: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// Mode; `0666` less the umask when absent.
    pub permissions: Option<FileMode>,
    /// False: an existing file is an error. True (default): it is truncated and written.
    pub overwrite: bool,
}

impl Entry for CreateFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, decode::path);
        let text = content(fields, cx);
        let owner = fields.optional("owner", cx, decode::filled);
        let group = fields.optional("group", cx, decode::filled);
        let permissions = fields.optional("permissions", cx, file_mode);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        let (content, encoding) = text?;
        Some(Self {
            path: path?,
            content,
            encoding,
            owner: owner?,
            group: group?,
            permissions: permissions?,
            overwrite: overwrite?.unwrap_or(true),
        })
    }
}
