//! Documents of the user, decoded from their spanned tree: what is wrong has its place in the text, whether that is JSON or YAML.
//!
//! Scalars are texts here, as the author wrote them; a member that wants a number or a boolean reads it from the text.

use std::fmt;

use amiforge_recipe::{Key, Node, NodeKind};
use amiforge_types::{Diagnostic, Span};
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

/// Decodes a value. A problem has the place of the innermost value that it is of.
pub(super) fn decode<T: DeserializeOwned>(
    node: &Node,
    code: &'static str,
) -> Result<T, Diagnostic> {
    T::deserialize(Value(node)).map_err(|problem| {
        let span = problem.span.unwrap_or(node.span);
        Diagnostic::error(code, span, problem.message)
    })
}

/// The place of a member such as `policyDetails[0].action`, as far as it is written; CloudFormation's capital letters are the same.
pub(super) fn place_of(root: &Node, path: &str) -> Span {
    let mut node = root;
    for part in path.split(['.', '[']) {
        let next = match (part.strip_suffix(']'), &node.kind) {
            (Some(index), NodeKind::Seq(items)) => {
                index.parse().ok().and_then(|i: usize| items.get(i))
            }
            (None, NodeKind::Map(members)) => members
                .iter()
                .find(|(key, _)| key.text.eq_ignore_ascii_case(part))
                .map(|(_, value)| value),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    node.span
}

#[derive(Debug)]
struct Problem {
    span: Option<Span>,
    message: String,
}

impl Problem {
    /// Gives the place to what has none yet.
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl serde::de::Error for Problem {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            span: None,
            message: message.to_string(),
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(match found {
            Unexpected::Unit => format!("expected {expected}, found nothing"),
            Unexpected::Str(text) => format!("expected {expected}, found {text:?}"),
            Unexpected::Seq => format!("expected {expected}, found a list"),
            Unexpected::Map => format!("expected {expected}, found a mapping"),
            other => format!("expected {expected}, found {other}"),
        })
    }
}

struct Value<'a>(&'a Node);

impl<'de> Deserializer<'de> for Value<'_> {
    type Error = Problem;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        let node = self.0;
        if let Some(tag) = &node.tag {
            return Err(Problem::custom(format!("the tag {tag} means nothing here")).at(node.span));
        }
        let done = match &node.kind {
            NodeKind::Scalar(scalar) if scalar.is_null() => visitor.visit_unit(),
            NodeKind::Scalar(scalar) => visitor.visit_str(&scalar.text),
            NodeKind::Seq(items) => visitor.visit_seq(Items(items.iter())),
            NodeKind::Map(members) => visitor.visit_map(Members {
                rest: members.iter(),
                value: None,
            }),
        };
        done.map_err(|problem| problem.at(node.span))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Problem> {
        if self.0.is_null() {
            return visitor.visit_none();
        }
        let span = self.0.span;
        visitor.visit_some(self).map_err(|problem| problem.at(span))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let span = self.0.span;
        visitor
            .visit_newtype_struct(self)
            .map_err(|problem| problem.at(span))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        // Without this a list would be its members in their order.
        if !matches!(self.0.kind, NodeKind::Map(_)) {
            let found = self.0.describe();
            let message = format!("expected a mapping, found {found}");
            return Err(Problem::custom(message).at(self.0.span));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Problem> {
        let span = self.0.span;
        let Some(text) = self.0.as_text() else {
            let found = self.0.describe();
            return Err(Problem::custom(format!("expected a word, found {found}")).at(span));
        };
        let word: StrDeserializer<'_, Problem> = text.into_deserializer();
        visitor.visit_enum(word).map_err(|problem| problem.at(span))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Problem;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Problem> {
        let Some(node) = self.0.next() else {
            return Ok(None);
        };
        let item = seed.deserialize(Value(node));
        item.map(Some).map_err(|problem| problem.at(node.span))
    }
}

struct Members<'a> {
    rest: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a Node>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Problem;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Problem> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let text: StrDeserializer<'_, Problem> = key.text.as_str().into_deserializer();
        let read = seed.deserialize(text);
        read.map(Some).map_err(|problem| problem.at(key.span))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Problem> {
        let Some(node) = self.value.take() else {
            return Err(Problem::custom("a value before its key"));
        };
        seed.deserialize(Value(node))
            .map_err(|problem| problem.at(node.span))
    }
}

#[cfg(test)]
mod tests {
    use amiforge_ami::ec2::lifecycle::LifecyclePolicy;
    use amiforge_recipe::parse_node;
    use amiforge_types::Diagnostics;

    use super::*;

    const POLICY: &str = "name: old
resourceType: AMI_IMAGE
policyDetails:
  - action: {type: DISABLE}
    filter:
      type: AGE
      value: 6
      unit: MONTHS
    exclusionRules:
      amis:
        isPublic: true
resourceSelection:
  tagMap: {approved: yes}
";

    fn node(text: &str) -> Node {
        let mut problems = Diagnostics::new();
        let node = parse_node(text, &mut problems);
        assert!(!problems.has_errors(), "{problems:?}");
        node.unwrap()
    }

    #[test]
    fn a_document_is_the_same_as_yaml_and_as_json() {
        let read: LifecyclePolicy = decode(&node(POLICY), "x").unwrap();
        let json = r#"{"name": "old", "resourceType": "AMI_IMAGE", "policyDetails": [{"action": {"type": "DISABLE"},
            "filter": {"type": "AGE", "value": 6, "unit": "MONTHS"}, "exclusionRules": {"amis": {"isPublic": true}}}],
            "resourceSelection": {"tagMap": {"approved": "yes"}}}"#;
        assert_eq!(read, LifecyclePolicy::from_json(json).unwrap());
        assert_eq!(read, decode(&node(json), "x").unwrap());
        read.check().unwrap();
    }

    #[test]
    fn problems_are_where_they_stand() {
        for (from, to, place, message) in [
            ("DISABLE", "BURN", (4, 20), "BURN"),
            ("value: 6", "value: six", (7, 14), "invalid digit"),
            ("value: 6", "value: 6000", (6, 7), "1 to 1000"),
            ("value: 6", "valeu: 6", (7, 7), "valeu"),
            ("isPublic: true", "isPublic: maybe", (11, 19), "true"),
            ("unit: MONTHS", "unit: [MONTHS]", (8, 13), "found a list"),
            ("name: old", "name: [old]", (1, 7), "found a list"),
            ("name: old", "name:", (1, 5), "found nothing"),
            ("name: old", "name: !Ref old", (1, 7), "tag"),
            (
                "  tagMap: {approved: yes}",
                "  []",
                (13, 3),
                "expected a mapping",
            ),
            ("name: old\n", "", (1, 1), "name"),
        ] {
            let text = POLICY.replacen(from, to, 1);
            let problem = decode::<LifecyclePolicy>(&node(&text), "x").unwrap_err();
            let start = problem.span.unwrap().start;
            assert_eq!((start.line, start.column), place, "{to}: {problem}");
            assert!(problem.message.contains(message), "{to}: {problem}");
        }
    }

    #[test]
    fn members_are_found_by_their_path() {
        let node = node(&POLICY.replace("policyDetails", "PolicyDetails"));
        for (path, line) in [
            ("resourceType", 2),
            ("policyDetails[0].filter", 6),
            ("policyDetails[0].exclusionRules.amis.lastLaunched", 11),
            ("policyDetails[7]", 4),
            ("status", 1),
        ] {
            assert_eq!(place_of(&node, path).start.line, line, "{path}");
        }
    }
}
