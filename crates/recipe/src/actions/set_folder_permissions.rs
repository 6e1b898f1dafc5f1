//! `SetFolderPermissions`: change the mode of folders.
//! Reference: AWSTOE action modules, SetFolderPermissions.

use super::{Entry, FileMode, file_mode, one_path};
use crate::decode::{self, Cx, Fields};

/// One folder whose mode to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFolderPermissions {
    /// The folder; a link is followed.
    pub path: String,
    /// Its new mode, and of all below it.
    pub permissions: FileMode,
    /// True (default): with all below it.
    pub recursive: bool,
}

impl Entry for SetFolderPermissions {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let permissions = fields.required("permissions", cx, file_mode);
        let recursive = fields.optional("recursive", cx, decode::boolean);
        Some(Self {
            path: path?,
            permissions: permissions?,
            recursive: recursive?.unwrap_or(true),
        })
    }
}
