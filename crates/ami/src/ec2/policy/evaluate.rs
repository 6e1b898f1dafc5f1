//! The decision.
//!
//! Source: IAM user guide, `reference_policies_evaluation-logic`.

use serde::Serialize;

use super::condition::Outcome;
use super::context::{Principal, Request};
use super::document::{Effect, Listed, Named, Policy, PolicyKind, Statement};
use super::pattern::{Colons, Pattern, Token, matches};
use crate::ec2::{ApiError, ErrorCode};

/// What is decided. Serialized as `EvalDecision` of IAM's simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Allowed.
    #[serde(rename = "allowed")]
    Allow,
    /// A statement denies it.
    #[serde(rename = "explicitDeny")]
    ExplicitDeny,
    /// Nothing allows it.
    #[serde(rename = "implicitDeny")]
    ImplicitDeny,
}

/// A statement and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementRef {
    /// Number of the policy in the list handed in, from 0.
    pub policy: usize,
    /// Its name.
    pub policy_name: String,
    /// What it is attached to.
    pub policy_kind: PolicyKind,
    /// Number of the statement in its policy, from 1.
    pub statement: usize,
    /// Its `Sid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// The line it begins on.
    pub line: u32,
    /// The column it begins at.
    pub column: u32,
}

/// `readers.json:3:5, statement 2 "NoDeletes"`.
impl std::fmt::Display for StatementRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            policy_name,
            line,
            column,
            statement,
            ..
        } = self;
        write!(f, "{policy_name}:{line}:{column}, statement {statement}")?;
        match &self.sid {
            Some(sid) => write!(f, " {sid:?}"),
            None => Ok(()),
        }
    }
}

/// A statement that allows the action, yet does not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Miss {
    /// The statement.
    pub statement: StatementRef,
    /// Why it does not apply.
    pub why: String,
}

/// What was decided, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// The statements that decided: all that deny, or all that allow. None of an implicit deny.
    pub deciding: Vec<StatementRef>,
    /// Of an implicit deny: which policies it lacks an `Allow` of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lacking: Option<PolicyKind>,
    /// Of an implicit deny: statements that allow the action, but not for this resource or these conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub misses: Vec<Miss>,
}

impl Decision {
    /// Whether it is allowed.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.verdict == Verdict::Allow
    }
}

/// Decides one request.
///
/// A `Deny` that applies ends it. Else every level of service and resource control policies that is given, the boundary and the
/// session policy must allow, and an identity-based *or* a resource-based policy must; *both* where the resource is of another
/// account that has policies for it, and for `kms:` actions never without the policy of the key. A statement of a resource-based
/// policy whose principal is a whole account only passes the decision on to that account's identity-based policies.
#[must_use]
pub fn evaluate(policies: &[Policy], request: &Request) -> Decision {
    let mut denies = Vec::new();
    let mut allows: Vec<(StatementRef, Named)> = Vec::new();
    let mut misses = Vec::new();
    for (index, policy) in policies.iter().enumerate() {
        for (number, statement) in policy.statements.iter().enumerate() {
            let place = || StatementRef {
                policy: index,
                policy_name: policy.name().to_owned(),
                policy_kind: policy.kind(),
                statement: number + 1,
                sid: statement.sid.clone(),
                line: statement.span.start.line,
                column: statement.span.start.column,
            };
            match (applies(statement, request), statement.effect) {
                (Applies::Yes(_), Effect::Deny) => denies.push(place()),
                (Applies::Yes(named), Effect::Allow) => allows.push((place(), named)),
                (Applies::No(why), Effect::Allow) => misses.push(Miss {
                    statement: place(),
                    why,
                }),
                _ => {}
            }
        }
    }
    if !denies.is_empty() {
        return Decision {
            verdict: Verdict::ExplicitDeny,
            deciding: denies,
            lacking: None,
            misses: Vec::new(),
        };
    }
    match lacking(policies, &allows, request) {
        Some(kind) => Decision {
            verdict: Verdict::ImplicitDeny,
            deciding: Vec::new(),
            lacking: Some(kind),
            misses: misses
                .into_iter()
                .filter(|m| m.statement.policy_kind == kind)
                .collect(),
        },
        None => Decision {
            verdict: Verdict::Allow,
            deciding: allows.into_iter().map(|(place, _)| place).collect(),
            lacking: None,
            misses: Vec::new(),
        },
    }
}

/// The kind of policy whose `Allow` is lacking; `None` when all are there.
fn lacking(
    policies: &[Policy],
    allows: &[(StatementRef, Named)],
    request: &Request,
) -> Option<PolicyKind> {
    let allowed = |kind: PolicyKind| allows.iter().any(|(place, _)| place.policy_kind == kind);
    let mut filters: Vec<PolicyKind> = policies
        .iter()
        .map(Policy::kind)
        .filter(|k| {
            matches!(
                k,
                PolicyKind::ServiceControl(_) | PolicyKind::ResourceControl(_)
            )
        })
        .collect();
    filters.sort_unstable();
    filters.dedup();
    if let Some(missing) = filters.into_iter().find(|kind| !allowed(*kind)) {
        return Some(missing);
    }
    // What limits the policies of who asks.
    let limit = [PolicyKind::Boundary, PolicyKind::Session]
        .into_iter()
        .find(|kind| policies.iter().any(|p| p.kind() == *kind) && !allowed(*kind));
    let identity = if allowed(PolicyKind::Identity) {
        limit
    } else {
        Some(PolicyKind::Identity)
    };
    let from_resource = |delegated: bool| {
        allows.iter().any(|(place, named)| {
            place.policy_kind == PolicyKind::Resource
                && matches!(named, Named::Account(_)) == delegated
        })
    };
    let (direct, delegated) = (from_resource(false), from_resource(true));
    let other_account = request
        .resource_account
        .as_ref()
        .is_some_and(|owner| *owner != request.principal.account);
    let key = request
        .action
        .get(..4)
        .is_some_and(|s| s.eq_ignore_ascii_case("kms:"));
    if other_account {
        return if direct || delegated {
            identity
        } else {
            Some(PolicyKind::Resource)
        };
    }
    if direct {
        return None;
    }
    if key && !delegated {
        return Some(PolicyKind::Resource);
    }
    identity
}

/// Whether a statement applies to a request.
enum Applies {
    /// It does, through this principal.
    Yes(Named),
    /// It is of this action, but not of this resource, principal or these conditions.
    No(String),
    /// It is not of this action.
    Otherwise,
}

fn applies(statement: &Statement, request: &Request) -> Applies {
    let action = request.action.to_lowercase();
    let listed = statement.action.items.iter().any(|a| glob(a, &action));
    if listed == statement.action.negated {
        return Applies::Otherwise;
    }
    let allow = statement.effect == Effect::Allow;
    if let Some(resource) = &statement.resource {
        let (listed, unresolved) = of_resource(resource, request);
        if let Some(key) = unresolved.filter(|_| allow) {
            return Applies::No(format!("the variable ${{{key}}} has no value"));
        }
        if listed == resource.negated {
            let element = if resource.negated {
                "NotResource"
            } else {
                "Resource"
            };
            let patterns: Vec<&str> = resource.items.iter().take(3).map(Pattern::text).collect();
            let more = if resource.items.len() > 3 {
                ", …"
            } else {
                ""
            };
            return Applies::No(format!("{element} is {}{more}", patterns.join(", ")));
        }
    }
    let named = match &statement.principal {
        None => Named::Everybody,
        Some(principal) => match of_principal(principal, &request.principal) {
            Some(named) => named,
            None => return Applies::No("the principal is another".to_owned()),
        },
    };
    for condition in &statement.conditions {
        match condition.check(&request.context) {
            Outcome::Met => {}
            Outcome::NotMet(why) => return Applies::No(why),
            Outcome::Unclear(_) if !allow => {}
            Outcome::Unclear(why) => return Applies::No(why),
            Outcome::Unresolved { met: true, .. } if !allow => {}
            Outcome::Unresolved { key, .. } => {
                return Applies::No(format!("the variable ${{{key}}} has no value"));
            }
        }
    }
    Applies::Yes(named)
}

/// Whether one of the patterns stands for the resource, and the variable without a value, if there is one.
fn of_resource(resource: &Listed<Pattern>, request: &Request) -> (bool, Option<String>) {
    let mut unresolved = None;
    let mut listed = false;
    for pattern in &resource.items {
        match pattern.resolve(&request.context) {
            Ok(tokens) => {
                let all = tokens == [Token::Many];
                listed |= all || matches(&tokens, &request.resource, Colons::Segments);
            }
            Err(key) => unresolved = Some(key),
        }
    }
    (listed, unresolved)
}

/// Through which item a principal is named: itself rather than its account. Of `NotPrincipal`, everybody, unless it is named.
fn of_principal(listed: &Listed<Named>, principal: &Principal) -> Option<Named> {
    let arns = || std::iter::once(&principal.arn).chain(&principal.also);
    let root = principal.arn.ends_with(":root");
    let mut found = None;
    for item in &listed.items {
        let direct = match item {
            Named::Everybody => true,
            Named::Account(account) if account == principal.account.as_str() => {
                if !root {
                    found = Some(item.clone());
                }
                root
            }
            Named::Arn(arn) => arns().any(|a| a == arn),
            Named::Service(service) => principal.service.as_ref() == Some(service),
            Named::Account(_) | Named::Other => false,
        };
        if direct {
            found = Some(Named::Everybody);
            break;
        }
    }
    if listed.negated {
        return found.is_none().then_some(Named::Everybody);
    }
    found
}

/// `*` and `?` over any characters.
fn glob(pattern: &str, text: &str) -> bool {
    let tokens: Vec<Token> = pattern
        .chars()
        .map(|c| match c {
            '*' => Token::Many,
            '?' => Token::One,
            c => Token::Char(c),
        })
        .collect();
    matches(&tokens, text, Colons::Plain)
}

/// Decides all requests of one call, and refuses the call with the first that is denied.
///
/// # Errors
/// `UnauthorizedOperation`, with who, what, on which resource, and the statements that decided or would nearly have allowed.
pub fn authorize(policies: &[Policy], requests: &[Request]) -> Result<(), ApiError> {
    for request in requests {
        let decision = evaluate(policies, request);
        if !decision.allowed() {
            let message = refusal(request, &decision);
            return Err(ApiError::new(ErrorCode::UnauthorizedOperation, message));
        }
    }
    Ok(())
}

fn refusal(request: &Request, decision: &Decision) -> String {
    let Request {
        principal,
        action,
        resource,
        ..
    } = request;
    let because = match (
        decision.verdict,
        decision.deciding.first(),
        decision.lacking,
    ) {
        (Verdict::ExplicitDeny, Some(first), _) => {
            let words = first.policy_kind.words();
            let article = if words.starts_with('i') { "an" } else { "a" };
            let places: Vec<String> = decision.deciding.iter().map(ToString::to_string).collect();
            format!(
                "with an explicit deny in {article} {words} ({})",
                places.join("; ")
            )
        }
        (_, _, kind) => {
            let words = kind.unwrap_or(PolicyKind::Identity).words();
            let mut because = format!("because no {words} allows the {action} action");
            if let Some(miss) = decision.misses.first() {
                because.push_str(&format!(" ({}: {})", miss.statement, miss.why));
            }
            because
        }
    };
    format!(
        "You are not authorized to perform this operation. User: {} is not authorized to perform: {action} on resource: {resource} {because}",
        principal.arn
    )
}
