//! `ListFiles`: the files of folders.
//! Reference: AWSTOE action modules, ListFiles.

use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

/// One folder to list. Output: `files`, the paths joined with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListFiles {
    /// The folder.
    pub path: String,
    /// What names must match; `*` stands for any text. All when absent.
    pub pattern: Option<String>,
    /// True: also the files of the folders in it.
    pub recursive: bool,
}

impl Entry for ListFiles {
    fn decode_entry(fields: &mut Fields<'_>, cx: &mut Cx<'_>) -> Option<Self> {
        let path = fields.required("path", cx, one_path);
        let pattern = fields.optional("fileNamePattern", cx, pattern);
        let recursive = fields.optional("recursive", cx, decode::boolean);
        Some(Self {
            path: path?,
            pattern: pattern?,
            recursive: recursive?.unwrap_or(false),
        })
    }
}

fn pattern(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let text = decode::path(node, cx)?;
    if !cx.defers(&text) && text.contains('/') {
        cx.error_help(
            "invalid-wildcard",
            node.span,
            "the pattern is of names, which hold no `/`",
            Some("give the folder in `path`".to_owned()),
        );
        return None;
    }
    Some(text)
}
