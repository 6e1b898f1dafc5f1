//! `SetFileOwner`: give files to a user and a group.
//! Reference: AWSTOE action modules, SetFileOwner.

use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};

/// One file to give away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFileOwner {
    /// The file; a link is followed.
    pub path: String,
    /// User name or number.
    pub owner: String,
    /// Group name or number; the user's own group when absent.
    pub group: Option<String>,
}

impl Entry for SetFileOwner {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let owner = fields.required("owner", cx, decode::filled);
        let group = fields.optional("group", cx, decode::filled);
        Some(Self {
            path: path?,
            owner: owner?,
            group: group?,
        })
    }
}
