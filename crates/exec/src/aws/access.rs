//! What a request to AWS needs to know, as it crosses to the executor.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose requests, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwsAccess {
    /// Without any, requests are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Why there are none, when somebody meant to have some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The region; `None` is `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// URL of an S3 that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// A key pair, perhaps for a while.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Names the key.
    pub access_key_id: String,
    /// The secret itself.
    pub secret_access_key: String,
    /// Belongs to a key of a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// Where they are from, for messages.
    pub source: String,
}

/// Nothing of the secret, nor of the id.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(of {})", self.source)
    }
}

impl Credentials {
    /// The text without any of it: a server may send back what it got.
    pub(crate) fn hidden(&self, text: &str) -> String {
        let token = self.session_token.as_deref().unwrap_or_default();
        [self.access_key_id.as_str(), &self.secret_access_key, token]
            .into_iter()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| {
                text.replace(secret, "[hidden]")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_and_messages_show_nothing() {
        let credentials = Credentials {
            access_key_id: "AKIDCANARY".into(),
            secret_access_key: "canary/secret".into(),
            session_token: Some("canary-token".into()),
            source: "the environment".into(),
        };
        let access = AwsAccess {
            credentials: Some(credentials.clone()),
            ..AwsAccess::default()
        };
        let shown = format!(
            "{access:?} {:?}",
            crate::Outside {
                aws: Some(access.clone()),
                ..crate::Outside::default()
            }
        );
        assert!(!shown.to_lowercase().contains("canary"), "{shown}");
        let echo = "you are AKIDCANARY with canary-token";
        assert_eq!(credentials.hidden(echo), "you are [hidden] with [hidden]");
    }
}
