//! `CreateSymlink`: make symbolic links.
//! Reference: AWSTOE action modules, CreateSymlink.

use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};

/// One link to make; parent folders are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSymlink {
    /// The link.
    pub path: String,
    /// What it leads to, which must exist; relative ones start in the link's folder.
    pub target: String,
    /// True: an existing link is replaced. False (default): it is an error.
    pub force: bool,
}

impl Entry for CreateSymlink {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let target = fields.required("target", cx, one_path);
        let force = fields.optional("force", cx, decode::boolean);
        Some(Self {
            path: path?,
            target: target?,
            force: force?.unwrap_or(false),
        })
    }
}
