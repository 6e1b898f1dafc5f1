//! `!GetAtt`: what a resource says of itself once it is there.

use std::collections::BTreeMap;

use amiforge_types::Span;

use super::{Call, Resolver, Site, text_of};
use crate::decode::shown;
use crate::node::NodeKind;
use crate::suggest;
use crate::template::value::{Part, Value};

/// Attributes of our resources, as `!GetAtt` names them.
const ATTRIBUTES: &[&str] = &[
    "Arn",
    "Name",
    "Type",
    "Encrypted",
    "Version",
    "LatestVersion",
    "LatestVersion.Arn",
    "LatestVersion.Major",
    "LatestVersion.Minor",
    "LatestVersion.Patch",
    "ImageId",
    "ImageUri",
    "DeploymentId",
];

/// The one attribute that is known before deployment: a resource is called as its property says.
const NAME: &str = "Name";

/// How deep names of resources may be made from each other.
const MOST_NESTED: usize = 8;

/// Names of resources, which may be made from names of others.
#[derive(Default)]
pub(super) struct Names<'t> {
    /// By logical id; `None` where it is not known before deployment.
    found: BTreeMap<&'t str, Option<Name>>,
    /// Resources whose names are being looked for, one for the sake of the other.
    open: Vec<&'t str>,
    /// Whether one of them was asked for again.
    circle: bool,
}

#[derive(Clone)]
struct Name {
    text: String,
    /// True when the default of a parameter is in it.
    from_default: bool,
}

impl<'t> Resolver<'t, '_> {
    /// `!GetAtt Resource.Attribute`, or the two in a list.
    pub(super) fn attribute(&mut self, call: &Call<'t>, span: Span) -> Value<'t> {
        let parts = match &call.arg.kind {
            NodeKind::Scalar(scalar) => scalar.text.split_once('.'),
            NodeKind::Seq(items) => match items.as_slice() {
                [id, attribute] => match (text_of(id), text_of(attribute)) {
                    (Some(id), Some(attribute)) => Some((id, attribute)),
                    // The attribute may be a reference.
                    (Some(_), None) => return Value::unknown("${Fn::GetAtt}"),
                    _ => None,
                },
                _ => None,
            },
            NodeKind::Map(_) => None,
        };
        match parts {
            Some((id, attribute)) => self.attribute_of(id, attribute, Site::of(span)),
            None => self.malformed("Fn::GetAtt", "a resource and an attribute", span),
        }
    }

    /// `${id.attribute}`.
    pub(super) fn attribute_of(
        &mut self,
        id: &'t str,
        attribute: &'t str,
        site: Site<'t>,
    ) -> Value<'t> {
        let Some((id, resource)) = self.resources.get_key_value(id) else {
            return self.nowhere(id, &format!("{id}.{attribute}"), site);
        };
        let id = *id;
        let unknown = Value::unknown(format!("${{{id}.{attribute}}}"));
        let Some(kind) = resource.kind else {
            return unknown;
        };
        if !ATTRIBUTES.contains(&attribute) {
            let help = suggest::did_you_mean(attribute, ATTRIBUTES.iter().copied());
            let article = kind.with_article();
            let message = format!("{article} has no attribute {}", shown(attribute));
            let span = self.place(site);
            self.error("unknown-reference", span, message, help);
            return unknown;
        }
        if attribute == "Arn" || attribute.starts_with("LatestVersion.") {
            return Value::resource(kind, id);
        }
        if attribute == NAME
            && let Some(name) = self.name_of(id, site)
        {
            let mut part = Part::known(name.text);
            part.from_default = name.from_default;
            return Value::text(vec![part]);
        }
        unknown
    }

    /// What the property `Name` of a resource says, where that is known before deployment.
    fn name_of(&mut self, id: &'t str, site: Site<'_>) -> Option<Name> {
        if let Some(name) = self.names.found.get(id) {
            return name.clone();
        }
        self.names.circle |= self.names.open.contains(&id);
        if self.names.circle || self.names.open.len() >= MOST_NESTED {
            return None;
        }
        let property = self.resources.get(id)?.properties?.get(NAME)?;
        self.names.open.push(id);
        // What is wrong with the references in it is told where it stands.
        let before = (std::mem::take(self.diags), self.problems);
        let value = self.value(property);
        (*self.diags, self.problems) = before;
        self.names.open.pop();
        let name = value.into_parts().and_then(|parts| {
            parts.iter().all(|part| part.piece.known).then(|| Name {
                from_default: parts.iter().any(|part| part.from_default),
                text: parts.into_iter().map(|part| part.piece.text).collect(),
            })
        });
        if self.names.circle {
            // Only the outermost is sure that it is part of the circle, or leads to one.
            if self.names.open.is_empty() {
                self.names.circle = false;
                let message = format!("the name of `{id}` depends on itself");
                let span = self.place(site);
                self.error("circular-reference", span, message, None);
                self.names.found.insert(id, None);
            }
            return None;
        }
        self.names.found.insert(id, name.clone());
        name
    }
}
