//! `SetFilePermissions`: change the mode of files.
//! Reference: AWSTOE action modules, SetFilePermissions.

use super::{Entry, FileMode, file_mode};
use crate::decode::{self, Cx, Fields};

/// One file whose mode to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFilePermissions {
    /// The file.
    pub path: String,
    /// Its new mode.
    pub permissions: FileMode,
}

impl Entry for SetFilePermissions {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, decode::path);
        let permissions = fields.required("permissions", cx, file_mode);
        Some(Self {
            path: path?,
            permissions: permissions?,
        })
    }
}
