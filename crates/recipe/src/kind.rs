//! Telling the kinds of document apart.

use amiforge_types::{Diagnostic, Diagnostics};

use crate::component::{self, Component};
use crate::image_recipe::{self, ImageRecipe};
use crate::node::{Node, NodeKind};
use crate::yaml;

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// An AWSTOE component document.
    Component,
    /// An Image Builder image recipe.
    ImageRecipe,
}

impl DocumentKind {
    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Component => "component document",
            Self::ImageRecipe => "image recipe",
        }
    }
}

/// A document of any kind, without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// An AWSTOE component document.
    Component(Component),
    /// An Image Builder image recipe.
    ImageRecipe(Box<ImageRecipe>),
}

/// The kind a document means to be, by the fields that only one kind has.
#[must_use]
pub fn detect_kind(node: &Node) -> Option<DocumentKind> {
    const COMPONENT: &[&str] = &["phases", "schemaVersion", "constants"];
    const RECIPE: &[&str] = &[
        "parentImage",
        "semanticVersion",
        "components",
        "blockDeviceMappings",
        "amiforge",
    ];
    let NodeKind::Map(fields) = &node.kind else {
        return None;
    };
    let count = |names: &[&str]| {
        fields
            .iter()
            .filter(|(key, _)| {
                names
                    .iter()
                    .any(|name| name.eq_ignore_ascii_case(&key.text))
            })
            .count()
    };
    let (component, recipe) = (count(COMPONENT), count(RECIPE));
    match component.cmp(&recipe) {
        std::cmp::Ordering::Greater => Some(DocumentKind::Component),
        std::cmp::Ordering::Less => Some(DocumentKind::ImageRecipe),
        std::cmp::Ordering::Equal => None,
    }
}

/// Reads a document of whichever kind it is. The document is there exactly when no problem is an
/// error; the kind is there when it could be told.
#[must_use]
pub fn parse_document(text: &str) -> (Option<DocumentKind>, Option<Document>, Diagnostics) {
    let mut diags = Diagnostics::new();
    let Some(node) = yaml::parse_node(text, &mut diags) else {
        return (None, None, diags);
    };
    let kind = detect_kind(&node);
    let document = match kind {
        Some(DocumentKind::Component) => {
            component::component(node, text, &mut diags).map(Document::Component)
        }
        Some(DocumentKind::ImageRecipe) => {
            image_recipe::recipe(node, &mut diags).map(|r| Document::ImageRecipe(Box::new(r)))
        }
        None => {
            let message = "this is neither a component document nor an image recipe";
            let help = "a component has `schemaVersion` and `phases`; a recipe has `parentImage` and `semanticVersion`";
            diags.push(Diagnostic::error("unknown-document", node.span, message).with_help(help));
            None
        }
    };
    (kind, document.filter(|_| !diags.has_errors()), diags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_own_fields() {
        let kind = |text: &str| parse_document(text).0;
        assert_eq!(
            kind("schemaVersion: 1.0\nphases: []\n"),
            Some(DocumentKind::Component)
        );
        assert_eq!(kind("ParentImage: x\n"), Some(DocumentKind::ImageRecipe));
        assert_eq!(kind("name: x\n"), None);
        assert_eq!(kind("- a\n"), None);
        assert!(parse_document("name: x").2.has_errors());
    }
}
