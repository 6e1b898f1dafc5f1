//! `CreateFolder`: make folders.
//! Reference: AWSTOE action modules, CreateFolder.

use super::{Entry, FileMode, file_mode};
use crate::decode::{self, Cx, Fields};

/// One folder to make; parent folders are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateFolder {
    /// The folder.
    pub path: String,
    /// User name or number.
    pub owner: Option<String>,
    /// Group name or number.
    pub group: Option<String>,
    /// Mode; `0777` less the umask when absent.
    pub permissions: Option<FileMode>,
    /// False: an existing folder is an error. True (default): it is kept with its content.
    pub overwrite: bool,
}

impl Entry for CreateFolder {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, decode::path);
        let owner = fields.optional("owner", cx, decode::filled);
        let group = fields.optional("group", cx, decode::filled);
        let permissions = fields.optional("permissions", cx, file_mode);
        let overwrite = fields.optional("overwrite", cx, decode::boolean);
        Some(Self {
            path: path?,
            owner: owner?,
            group: group?,
            permissions: permissions?,
            overwrite: overwrite?.unwrap_or(true),
        })
    }
}
