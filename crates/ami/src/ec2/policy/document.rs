//! Policy documents, read and checked.
//!
//! Source: IAM user guide, `reference_policies_grammar`, `reference_policies_elements`.

use std::collections::BTreeSet;

use amiforge_types::{Diagnostic, Diagnostics, Span};
use serde::{Deserialize, Serialize};

use super::condition::{Condition, Operand, Operator};
use super::json::{self, Member, Node, Value};
use super::pattern::{Pattern, Syntax};

/// What a policy is attached to, which says how it takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// To the user or role that asks.
    Identity,
    /// To the resource that is asked for; its statements name principals.
    Resource,
    /// As the permissions boundary of who asks.
    Boundary,
    /// To the session of who asks.
    Session,
    /// A service control policy of a level of the organization: 0 is its root, then each unit, then the account.
    ServiceControl(u8),
    /// A resource control policy of such a level.
    ResourceControl(u8),
}

impl PolicyKind {
    /// The words that AWS has for it in messages.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Identity => "identity-based policy",
            Self::Resource => "resource-based policy",
            Self::Boundary => "permissions boundary",
            Self::Session => "session policy",
            Self::ServiceControl(_) => "service control policy",
            Self::ResourceControl(_) => "resource control policy",
        }
    }
}

/// `Effect` of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies, whatever else allows.
    Deny,
}

/// A policy that can be evaluated.
#[derive(Clone, Debug)]
pub struct Policy {
    name: String,
    kind: PolicyKind,
    pub(super) statements: Vec<Statement>,
}

impl Policy {
    /// Reads a document of at most 64 KiB. The name is what decisions call it: a file, or the name of the policy.
    ///
    /// # Errors
    /// All problems, each with its place.
    pub fn parse(name: &str, kind: PolicyKind, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let root = json::parse(text).map_err(|problem| vec![problem])?;
        let mut reader = Reader {
            problems: Diagnostics::new(),
            kind,
            variables: false,
        };
        let statements = reader.document(&root);
        match statements {
            Some(statements) if !reader.problems.has_errors() => Ok(Self {
                name: name.to_owned(),
                kind,
                statements,
            }),
            _ => Err(reader.problems.into_sorted()),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is attached to.
    #[must_use]
    pub const fn kind(&self) -> PolicyKind {
        self.kind
    }
}

/// A list of patterns, or all else.
#[derive(Clone, Debug)]
pub(super) struct Listed<T> {
    /// `Not…`
    pub(super) negated: bool,
    pub(super) items: Vec<T>,
}

/// A principal of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Everybody,
    Account(String),
    Arn(String),
    Service(String),
    /// Federated and canonical users, which nobody here is.
    Other,
}

#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sid: Option<String>,
    pub(super) effect: Effect,
    pub(super) principal: Option<Listed<Named>>,
    pub(super) action: Listed<String>,
    /// `None`: all that the policy is attached to.
    pub(super) resource: Option<Listed<Pattern>>,
    pub(super) conditions: Vec<Condition>,
    pub(super) span: Span,
}

struct Reader {
    problems: Diagnostics,
    kind: PolicyKind,
    /// Whether the version has policy variables.
    variables: bool,
}

impl Reader {
    fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>) {
        self.problems.push(Diagnostic::error(code, span, message));
    }

    fn wrong(&mut self, node: &Node, wanted: &str) {
        let what = node.value.what();
        self.error(
            "policy-type",
            node.span,
            format!("expected {wanted}, found {what}"),
        );
    }

    fn text<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<&'n str> {
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        self.wrong(node, wanted);
        None
    }

    /// A string or a list of strings.
    fn texts<'n>(&mut self, node: &'n Node, wanted: &str) -> Vec<(&'n str, Span)> {
        let Value::List(items) = &node.value else {
            return self
                .text(node, wanted)
                .map(|t| (t, node.span))
                .into_iter()
                .collect();
        };
        if items.is_empty() {
            self.error(
                "policy-empty",
                node.span,
                format!("expected {wanted}, found an empty list"),
            );
        }
        items
            .iter()
            .filter_map(|item| self.text(item, wanted).map(|t| (t, item.span)))
            .collect()
    }

    fn document(&mut self, root: &Node) -> Option<Vec<Statement>> {
        let Value::Map(members) = &root.value else {
            self.wrong(
                root,
                "a policy document: an object with `Version` and `Statement`",
            );
            return None;
        };
        let mut statements = None;
        for Member { key, node, .. } in members {
            if key == "Version" {
                match self.text(node, "a version")? {
                    "2012-10-17" => self.variables = true,
                    "2008-10-17" => {}
                    other => {
                        let message = format!("there is no policy version {other:?}");
                        self.problems.push(
                            Diagnostic::error("policy-version", node.span, message)
                                .with_help("it is 2012-10-17, or the older 2008-10-17 that has no policy variables"),
                        );
                    }
                }
            }
        }
        for Member {
            key,
            key_span,
            node,
        } in members
        {
            match key.as_str() {
                "Version" => {}
                "Id" => {
                    self.text(node, "a string");
                }
                "Statement" => statements = Some(self.statements(node)),
                other => self.unknown(other, *key_span, &["Version", "Id", "Statement"]),
            }
        }
        if statements.is_none() {
            self.error(
                "policy-missing",
                root.span,
                "the document has no `Statement`",
            );
        }
        statements
    }

    fn unknown(&mut self, found: &str, span: Span, known: &[&str]) {
        let problem = Diagnostic::error(
            "policy-unknown-element",
            span,
            format!("a policy has no element {found:?} here"),
        );
        let like = known.iter().find(|k| k.eq_ignore_ascii_case(found));
        self.problems.push(match like {
            Some(like) => problem.with_help(format!("it is written `{like}`")),
            None => problem.with_help(format!("there are {}", known.join(", "))),
        });
    }

    fn statements(&mut self, node: &Node) -> Vec<Statement> {
        let nodes = match &node.value {
            Value::List(nodes) if nodes.is_empty() => {
                self.error(
                    "policy-empty",
                    node.span,
                    "a policy has at least one statement",
                );
                return Vec::new();
            }
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut sids = BTreeSet::new();
        let mut statements = Vec::with_capacity(nodes.len());
        for node in nodes {
            let Some(statement) = self.statement(node) else {
                continue;
            };
            if let Some(sid) = &statement.sid
                && !sids.insert(sid.clone())
            {
                self.error(
                    "policy-duplicate-sid",
                    node.span,
                    format!("two statements have the Sid {sid:?}"),
                );
            }
            statements.push(statement);
        }
        statements
    }

    fn statement(&mut self, node: &Node) -> Option<Statement> {
        const KNOWN: &[&str] = &[
            "Sid",
            "Effect",
            "Principal",
            "NotPrincipal",
            "Action",
            "NotAction",
            "Resource",
            "NotResource",
            "Condition",
        ];
        let Value::Map(members) = &node.value else {
            self.wrong(node, "a statement, an object");
            return None;
        };
        let (mut sid, mut effect) = (None, None);
        let (mut principal, mut action, mut resource) = (None, None, None);
        let mut conditions = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for Member {
            key,
            key_span,
            node,
        } in members
        {
            let base = key.strip_prefix("Not").unwrap_or(key);
            let negated = base.len() != key.len();
            if ["Principal", "Action", "Resource"].contains(&base) && seen.contains(&base) {
                self.error(
                    "policy-both",
                    *key_span,
                    format!("a statement has `{base}` or `Not{base}`, not both"),
                );
            }
            seen.push(base);
            match key.as_str() {
                "Sid" => sid = self.text(node, "a string").map(str::to_owned),
                "Effect" => {
                    effect = match self.text(node, "`Allow` or `Deny`") {
                        Some("Allow") => Some(Effect::Allow),
                        Some("Deny") => Some(Effect::Deny),
                        Some(other) => {
                            let message = format!("an effect is `Allow` or `Deny`, not {other:?}");
                            self.error("policy-effect", node.span, message);
                            Some(Effect::Deny)
                        }
                        None => Some(Effect::Deny),
                    }
                }
                "Principal" | "NotPrincipal" => {
                    if !matches!(
                        self.kind,
                        PolicyKind::Resource | PolicyKind::ResourceControl(_)
                    ) {
                        let words = self.kind.words();
                        self.error(
                            "policy-principal",
                            *key_span,
                            format!(
                                "a {words} names no principal: it is that of who it is attached to"
                            ),
                        );
                    }
                    let items = self.principals(node);
                    principal = Some(Listed { negated, items });
                }
                "Action" | "NotAction" => {
                    let items = self.actions(node);
                    action = Some(Listed { negated, items });
                }
                "Resource" | "NotResource" => {
                    let items = self.resources(node);
                    resource = Some(Listed { negated, items });
                }
                "Condition" => conditions = self.conditions(node),
                other => self.unknown(other, *key_span, KNOWN),
            }
        }
        if effect.is_none() {
            self.error("policy-missing", node.span, "the statement has no `Effect`");
        }
        if action.is_none() {
            self.error(
                "policy-missing",
                node.span,
                "the statement has neither `Action` nor `NotAction`",
            );
        }
        if resource.is_none() && self.kind != PolicyKind::Resource {
            self.error(
                "policy-missing",
                node.span,
                "the statement has neither `Resource` nor `NotResource`",
            );
        }
        if principal.is_none() && self.kind == PolicyKind::Resource {
            self.error(
                "policy-missing",
                node.span,
                "a statement of a resource-based policy has a `Principal`",
            );
        }
        Some(Statement {
            sid,
            effect: effect?,
            principal,
            action: action?,
            resource,
            conditions,
            span: node.span,
        })
    }

    fn principals(&mut self, node: &Node) -> Vec<Named> {
        let members = match &node.value {
            Value::Text(text) if text == "*" => return vec![Named::Everybody],
            Value::Map(members) => members,
            _ => {
                self.wrong(node, "`*` or an object such as {\"AWS\": \"123456789012\"}");
                return Vec::new();
            }
        };
        let mut found = Vec::new();
        for Member {
            key,
            key_span,
            node,
        } in members
        {
            for (text, span) in self.texts(node, "a principal") {
                found.push(match key.as_str() {
                    "AWS" => match aws_principal(text) {
                        Some(named) => named,
                        None => {
                            let message = format!(
                                "{text:?} is neither `*`, an account nor an ARN of a principal"
                            );
                            self.error("policy-principal", span, message);
                            Named::Other
                        }
                    },
                    "Service" => Named::Service(text.to_owned()),
                    _ => Named::Other,
                });
            }
            if !["AWS", "Service", "Federated", "CanonicalUser"].contains(&key.as_str()) {
                self.unknown(
                    key,
                    *key_span,
                    &["AWS", "Service", "Federated", "CanonicalUser"],
                );
            }
        }
        found
    }

    fn actions(&mut self, node: &Node) -> Vec<String> {
        let mut found = Vec::new();
        for (text, span) in self.texts(node, "an action such as `ec2:RunInstances`") {
            match text.split_once(':') {
                _ if text == "*" || text == "*:*" => {}
                None => self.error(
                    "policy-action",
                    span,
                    format!("{text:?} is no action: one is `*` or `<service>:<operation>`"),
                ),
                Some((service, operation)) if service.contains(['*', '?']) || service.is_empty() || operation.is_empty() => self.error(
                    "policy-action",
                    span,
                    format!("{text:?} is no action: wildcards stand after the colon, and both sides are there"),
                ),
                Some(_) => {}
            }
            found.push(text.to_lowercase());
        }
        found
    }

    fn resources(&mut self, node: &Node) -> Vec<Pattern> {
        let mut found = Vec::new();
        for (text, span) in self.texts(node, "the ARN of a resource, or `*`") {
            if let Some(message) = arn_problem(text) {
                self.error("policy-resource", span, message);
            }
            let syntax = Syntax {
                wildcards: true,
                variables: self.variables,
            };
            match Pattern::parse(text, syntax) {
                Ok(pattern) => found.push(pattern),
                Err(message) => self.error("policy-variable", span, message),
            }
        }
        found
    }

    fn conditions(&mut self, node: &Node) -> Vec<Condition> {
        let Value::Map(operators) = &node.value else {
            self.wrong(node, "an object of operators");
            return Vec::new();
        };
        let mut found = Vec::new();
        for Member {
            key: name,
            key_span,
            node,
        } in operators
        {
            let operator = match Operator::parse(name) {
                Ok(operator) => operator,
                Err(message) => {
                    self.error("policy-operator", *key_span, message);
                    continue;
                }
            };
            let Value::Map(keys) = &node.value else {
                self.wrong(node, "an object of condition keys");
                continue;
            };
            for Member {
                key,
                key_span,
                node,
            } in keys
            {
                if !key.contains(':') {
                    self.error(
                        "policy-key",
                        *key_span,
                        format!("{key:?} is no condition key: one has a prefix, as `aws:RequestTag/team`"),
                    );
                }
                let operands = self.operands(operator, node);
                found.push(Condition {
                    operator,
                    key: key.clone(),
                    operands,
                });
            }
        }
        found
    }

    fn operands(&mut self, operator: Operator, node: &Node) -> Vec<Operand> {
        let nodes = match &node.value {
            Value::List(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut found = Vec::with_capacity(nodes.len());
        for node in nodes {
            let text = match &node.value {
                Value::Text(text) | Value::Number(text) => text.as_str(),
                Value::Bool(true) => "true",
                Value::Bool(false) => "false",
                _ => {
                    self.wrong(node, "a string, a number or a boolean");
                    continue;
                }
            };
            match Operand::parse(operator, text, self.variables) {
                Ok(operand) => found.push(operand),
                Err(message) => self.error("policy-value", node.span, message),
            }
        }
        found
    }
}

/// A value of `"AWS"`.
fn aws_principal(text: &str) -> Option<Named> {
    if text == "*" {
        return Some(Named::Everybody);
    }
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Named::Account(text.to_owned()));
    }
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    match parts[..] {
        ["arn", _, "iam", "", account, "root"] => Some(Named::Account(account.to_owned())),
        ["arn", _, "iam" | "sts", "", _, name] if !name.contains(['*', '?']) => {
            Some(Named::Arn(text.to_owned()))
        }
        _ => None,
    }
}

/// What is wrong with an ARN of a `Resource`.
fn arn_problem(text: &str) -> Option<String> {
    if text == "*" {
        return None;
    }
    let mut parts = text.split(':');
    if parts.next() != Some("arn") {
        return Some(format!("{text:?} is neither an ARN nor `*`"));
    }
    let service = parts.nth(1).unwrap_or_default();
    if service.is_empty() || service.contains(['*', '?']) {
        return Some(format!(
            "the ARN {text:?} names no service: there is no wildcard in that segment"
        ));
    }
    (text.matches(':').count() < 5 && !text.ends_with('*'))
        .then(|| format!("the ARN {text:?} has not six segments, and does not end in `*`"))
}
