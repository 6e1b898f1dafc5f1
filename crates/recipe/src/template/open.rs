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

/// What to do about a name that has no value before deployment. `is_parameter` says whether the template declares it.
pub(crate) fn help(name: &str, exporting: bool, is_parameter: Option<bool>) -> String {
    let parameter = match is_parameter {
        Some(true) => return format!("give the parameter a value: --param {name}=VALUE"),
        Some(false) => "",
        None => "give parameters of the template a value: --param NAME=VALUE; ",
    };
    if name == "Fn::If" {
        let place = if exporting {
            ", --param AWS::Region=REGION"
        } else {
            ""
        };
        return format!("give what its condition looks at a value: --param NAME=VALUE{place}");
    }
    if exporting && name.starts_with("AWS::") {
        return format!(
            "an export says nothing of the place where it is deployed; say it here: --param {name}=VALUE"
        );
    }
    if name.starts_with("resolve:") || name.starts_with("ssm:") {
        return "amiforge asks neither Systems Manager nor Secrets Manager; write the value, or declare a parameter for it"
            .to_owned();
    }
    format!("{parameter}for what only AWS knows, write the value, or declare a parameter for it")
}

fn problem(name: &str, span: Span, resolver: &Resolver<'_, '_>) -> Diagnostic {
    let shown = if name.starts_with("resolve:") {
        format!("{{{{{name}}}}}")
    } else if name.starts_with("ssm:") {
        format!("{{{{resolve:{name}}}}}")
    } else {
        format!("${{{name}}}")
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
