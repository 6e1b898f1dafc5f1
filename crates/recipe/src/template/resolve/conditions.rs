//! Conditions: which resources and values are there.

use amiforge_types::Span;

use super::{LOGICAL, MOST_NESTED, Resolver, call, text_of};
use crate::decode::shown;
use crate::node::{Node, NodeKind};
use crate::suggest;

impl<'t> Resolver<'t, '_> {
    /// Looks at every condition, for the sake of what is wrong with it.
    pub(in crate::template) fn check_conditions(&mut self) {
        if let Some(NodeKind::Map(fields)) = self.conditions.map(|node| &node.kind) {
            for (key, node) in fields {
                self.condition(&key.text, node.span);
            }
        }
    }

    /// Whether the condition that a node names holds.
    pub(in crate::template) fn named_condition(&mut self, node: &'t Node) -> Option<bool> {
        match text_of(node) {
            Some(name) => self.condition(name, node.span),
            None => self.verdict(node),
        }
    }

    fn condition(&mut self, name: &'t str, span: Span) -> Option<bool> {
        if let Some(verdict) = self.verdicts.get(name) {
            return *verdict;
        }
        let Some(NodeKind::Map(fields)) = self.conditions.map(|node| &node.kind) else {
            self.no_condition(name, span);
            return None;
        };
        let Some((key, node)) = fields.iter().find(|(key, _)| key.text == name) else {
            self.no_condition(name, span);
            return None;
        };
        if !self.open.insert(&key.text) {
            let message = format!("the condition {} depends on itself", shown(name));
            self.error("circular-reference", span, message, None);
            return None;
        }
        if self.open.len() > MOST_NESTED {
            let message = format!("conditions name each other deeper than {MOST_NESTED} levels");
            self.error("nested-too-deep", span, message, None);
            self.open.remove(key.text.as_str());
            return None;
        }
        let verdict = self.verdict(node);
        self.open.remove(key.text.as_str());
        self.verdicts.insert(&key.text, verdict);
        verdict
    }

    fn no_condition(&mut self, name: &str, span: Span) {
        let names: Vec<&str> = match self.conditions.map(|node| &node.kind) {
            Some(NodeKind::Map(fields)) => {
                fields.iter().map(|(key, _)| key.text.as_str()).collect()
            }
            _ => Vec::new(),
        };
        let help = self.guess(name, names);
        let message = format!("the template has no condition {}", shown(name));
        self.error("unknown-reference", span, message, help);
    }

    fn verdict(&mut self, node: &'t Node) -> Option<bool> {
        let Some(call) = call(node) else {
            self.malformed("a condition", "a function such as `Fn::Equals`", node.span);
            return None;
        };
        let span = node.span;
        match call.name {
            "Condition" => match text_of(call.arg) {
                Some(name) => self.condition(name, span),
                None => {
                    self.malformed("Condition", "a name", span);
                    None
                }
            },
            "Equals" => {
                let [a, b] = self.arguments(&call, 2..=2, "two values", span)? else {
                    return None;
                };
                self.comparing = true;
                let (a, b) = (self.value(a).into_plain(), self.value(b).into_plain());
                self.comparing = false;
                Some(a? == b?)
            }
            "Not" => {
                let [one] = self.arguments(&call, 1..=1, "a list of one condition", span)? else {
                    return None;
                };
                self.verdict(one).map(|holds| !holds)
            }
            "And" | "Or" => {
                let items = self.arguments(&call, 2..=10, "2 to 10 conditions", span)?;
                let verdicts: Vec<Option<bool>> =
                    items.iter().map(|item| self.verdict(item)).collect();
                let decisive = call.name == "Or";
                if verdicts.contains(&Some(decisive)) {
                    Some(decisive)
                } else if verdicts.contains(&None) {
                    None
                } else {
                    Some(!decisive)
                }
            }
            // Rules have more functions; conditions have not.
            name => {
                let help = suggest::did_you_mean(name, LOGICAL.iter().copied());
                let message = format!("{} is not a function of conditions", shown(name));
                self.error("unsupported-intrinsic", span, message, help);
                None
            }
        }
    }
}
