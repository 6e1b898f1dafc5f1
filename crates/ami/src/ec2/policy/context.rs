//! What a request brings with it: who asks, for which action on which resource, and the condition keys.
//!
//! Source: IAM user guide, `reference_policies_condition-keys`; Service Authorization Reference, Amazon EC2.

use std::collections::BTreeMap;

use amiforge_types::Timestamp;
use serde::Serialize;

use crate::ec2::{AccountId, Tags};

/// Condition keys and their values. Names of keys are compared without their case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Context {
    keys: BTreeMap<String, Vec<String>>,
}

impl Context {
    /// Sets the values of a key, and forgets those it had. A key without values is absent.
    pub fn set<V: Into<String>>(&mut self, key: &str, values: impl IntoIterator<Item = V>) {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if values.is_empty() {
            self.keys.remove(&key.to_lowercase());
        } else {
            self.keys.insert(key.to_lowercase(), values);
        }
    }

    /// Adds a value to those of a key.
    pub fn add(&mut self, key: &str, value: impl Into<String>) {
        self.keys
            .entry(key.to_lowercase())
            .or_default()
            .push(value.into());
    }

    /// The values of a key; `None` when it is absent.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[String]> {
        self.keys
            .get(&key.to_lowercase())
            .map(Vec::as_slice)
            .filter(|values| !values.is_empty())
    }

    /// All keys in lower case, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.keys.iter().map(|(k, v)| (k.as_str(), v.as_slice()))
    }

    /// Sets `aws:CurrentTime` and `aws:EpochTime`.
    pub fn set_time(&mut self, now: Timestamp) {
        self.set("aws:CurrentTime", [now.to_string()]);
        self.set("aws:EpochTime", [now.secs.to_string()]);
    }

    /// Sets one key `<prefix>/<tag key>` for each tag. Two tags whose keys differ in case alone are one key with two values.
    pub fn add_tags(&mut self, prefix: &str, tags: &Tags) {
        for (key, value) in tags {
            self.add(&format!("{prefix}/{key}"), value.as_str());
        }
    }
}

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// The account.
    pub account: AccountId,
    /// The ARN, for example `arn:aws:iam::123456789012:user/ann`.
    pub arn: String,
    /// Further ARNs under which policies name it: the role of a session.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The name of the user; absent for roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// The service, for example `ec2.amazonaws.com`, when one asks for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Tags of the user or role.
    #[serde(skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
}

impl Principal {
    /// A user of an account.
    #[must_use]
    pub fn user(account: &AccountId, name: &str) -> Self {
        Self {
            account: account.clone(),
            arn: format!("arn:aws:iam::{account}:user/{name}"),
            also: Vec::new(),
            user_name: Some(name.rsplit('/').next().unwrap_or_default().to_owned()),
            service: None,
            tags: Tags::new(),
        }
    }

    /// A session of a role.
    #[must_use]
    pub fn session(account: &AccountId, role: &str, session: &str) -> Self {
        let name = role.rsplit('/').next().unwrap_or_default();
        Self {
            account: account.clone(),
            arn: format!("arn:aws:sts::{account}:assumed-role/{name}/{session}"),
            also: vec![format!("arn:aws:iam::{account}:role/{role}")],
            user_name: None,
            service: None,
            tags: Tags::new(),
        }
    }

    /// The root user of an account.
    #[must_use]
    pub fn root(account: &AccountId) -> Self {
        Self {
            account: account.clone(),
            arn: format!("arn:aws:iam::{account}:root"),
            also: Vec::new(),
            user_name: None,
            service: None,
            tags: Tags::new(),
        }
    }

    /// Sets the keys that tell of the principal: `aws:PrincipalArn`, `aws:PrincipalAccount`, `aws:PrincipalType`,
    /// `aws:username`, `aws:PrincipalTag/…`, and `aws:PrincipalIsAWSService`. The ARN of a session is that of its role, as IAM has it.
    pub fn describe(&self, context: &mut Context) {
        let arn = self.also.first().unwrap_or(&self.arn);
        context.set("aws:PrincipalArn", [arn.as_str()]);
        context.set("aws:PrincipalAccount", [self.account.as_str()]);
        let kind = match self {
            Self {
                user_name: Some(_), ..
            } => "User",
            Self { arn, .. } if arn.ends_with(":root") => "Account",
            _ => "AssumedRole",
        };
        context.set("aws:PrincipalType", [kind]);
        context.set(
            "aws:PrincipalIsAWSService",
            [self.service.is_some().to_string()],
        );
        context.set("aws:username", self.user_name.as_deref());
        context.add_tags("aws:PrincipalTag", &self.tags);
    }
}

/// One question: may this principal do this to this resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Who asks.
    pub principal: Principal,
    /// The action, for example `ec2:RunInstances`.
    pub action: String,
    /// ARN of the resource, or `*` for actions on none.
    pub resource: String,
    /// The account whose policies the resource has. `None` for resources that have no policies, as all of EC2's: then
    /// another account's resource needs no permission of that account here (launch permissions are not IAM's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_account: Option<AccountId>,
    /// The condition keys.
    pub context: Context,
}

impl Request {
    /// A request with the keys of its principal and no others.
    #[must_use]
    pub fn new(principal: &Principal, action: &str, resource: impl Into<String>) -> Self {
        let mut context = Context::default();
        principal.describe(&mut context);
        Self {
            principal: principal.clone(),
            action: action.to_owned(),
            resource: resource.into(),
            resource_account: None,
            context,
        }
    }
}
