//! `DeleteFolder`: remove folders.
//! Reference: AWSTOE action modules, DeleteFolder.

use super::{Entry, one_path};
use crate::decode::{self, Cx, Fields};
use crate::node::Node;

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
        let path = fields.required("path", cx, folder);
        let force = fields.optional("force", cx, decode::boolean);
        Some(Self {
            path: path?,
            force: force?.unwrap_or(false),
        })
    }
}

fn folder(node: &Node, cx: &mut Cx<'_>) -> Option<String> {
    let path = one_path(node, cx)?;
    if !cx.defers(&path) && is_root(&path) {
        let message = "this names the root folder, which no step deletes";
        let help = Some("name a folder below `/`".to_owned());
        cx.error_help("invalid-path", node.span, message, help);
        return None;
    }
    Some(path)
}

/// Whether a path leads to `/` whatever folders and links there are.
fn is_root(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_known_by_all_its_names() {
        for root in ["/", "//", "/.", "/..", "/./../"] {
            assert!(is_root(root), "{root}");
        }
        for other in [".", "..", "/srv", "/link/..", "C:/", ""] {
            assert!(!is_root(other), "{other}");
        }
    }
}
