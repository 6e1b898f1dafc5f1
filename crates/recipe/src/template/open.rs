//! What is not known before deployment in the document that a resource holds.

use std::borrow::Cow;

use amiforge_types::{Diagnostic, Diagnostics, Span};

use super::TemplateResource;
use super::resolve::Resolver;
use crate::inline::Inline;
use crate::node::{Node, NodeKind};
use crate::reference::has_secret;
use crate::resources;

/// The problems of a build with the document that `raw` is, which is read as `inline`. `resolved` is what is known of it.
pub(super) fn problems(
    inline: Option<&Inline<'_>>,
    resolved: Option<&Node>,
    resolver: &Resolver<'_, '_>,
) -> Vec<Diagnostic> {
    let open = match (inline, resolved) {
        (Some(inline), _) => inline.open(),
        (None, Some(node)) if node.is_opaque() => {
            let shown = node.as_text().unwrap_or_default();
            let name = shown.strip_prefix("${").and_then(|s| s.strip_suffix('}'));
            vec![(name.unwrap_or(shown).to_owned(), node.span)]
        }
        (None, _) => Vec::new(),
    };
    open.into_iter()
        .map(|(name, span)| problem(&name, span, resolver))
        .collect()
}

fn problem(name: &str, span: Span, resolver: &Resolver<'_, '_>) -> Diagnostic {
    let shown = match name.starts_with("resolve:") {
        true => format!("{{{{{name}}}}}"),
        false => format!("${{{name}}}"),
    };
    let message = format!("`{shown}` has no value before deployment");
    Diagnostic::error("unresolved-value", span, message).with_help(resolver.help_of_open(name))
}

impl TemplateResource {
    /// The properties to export. What is open in the document that stands in them is told where it stands, and is not in
    /// them.
    #[must_use]
    pub fn exported(&self, diags: &mut Diagnostics) -> Cow<'_, Node> {
        let known = resources::inline_of(self.kind, &self.properties)
            .filter(|node| !node.as_text().is_some_and(has_secret));
        let (Some(inline), false) = (known, self.open.is_empty()) else {
            return Cow::Borrowed(&self.properties);
        };
        for problem in &self.open {
            diags.push(problem.clone());
        }
        let mut properties = self.properties.clone();
        if let NodeKind::Map(fields) = &mut properties.kind {
            for (_, value) in fields.iter_mut().filter(|(_, value)| value == inline) {
                *value = Node::text(inline.span, "open");
            }
        }
        Cow::Owned(properties)
    }
}
