//! `DeleteFolder`: remove folders.
//! Reference: AWSTOE action modules, DeleteFolder.

use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};

/// One folder to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteFolder {
    /// The folder; of a link, the link.
    pub path: String,
    /// True: with all that is in it. False (default): only when it is empty.
    pub force: bool,
}

impl Entry for DeleteFolder {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let force = fields.optional("force", cx, decode::boolean);
        Some(Self {
            path: path?,
            force: force?.unwrap_or(false),
        })
    }
}
