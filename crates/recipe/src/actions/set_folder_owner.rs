//! `SetFolderOwner`: give folders to a user and a group.
//! Reference: AWSTOE action modules, SetFolderOwner.

use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};

/// One folder to give away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFolderOwner {
    /// The folder; a link is followed.
    pub path: String,
    /// User name or number.
    pub owner: String,
    /// Group name or number; the user's own group when absent.
    pub group: Option<String>,
    /// True (default): with all below it.
    pub recursive: bool,
}

impl Entry for SetFolderOwner {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let owner = fields.required("owner", cx, decode::filled);
        let group = fields.optional("group", cx, decode::filled);
        let recursive = fields.optional("recursive", cx, decode::boolean);
        Some(Self {
            path: path?,
            owner: owner?,
            group: group?,
            recursive: recursive?.unwrap_or(true),
        })
    }
}
