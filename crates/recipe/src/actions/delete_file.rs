//! `DeleteFile`: remove files.
//! Reference: AWSTOE action modules, DeleteFile.

use super::Entry;
use super::transfer::files;
use crate::decode::{Cx, Fields};

/// One file to remove, or several by wildcard in the last part of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteFile {
    /// The file; of a link, the link.
    pub path: String,
}

impl Entry for DeleteFile {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, files);
        // A document of AWS has it; the reference has not.
        if let Some(force) = fields.node("force", cx) {
            let help = "a file that is named must be there; one that a wildcard means need not";
            let message = "`force` has no meaning for a file";
            cx.warning("ignored-field", force.span, message, help);
        }
        Some(Self { path: path? })
    }
}
