//! Keys: their records by the rules, their material in the key store.

use amiforge_ami::ec2::{AccountId, Key, KeyId};
use serde::Serialize;

use super::desk::Place;
use crate::error::{EngineError, ErrorKind};
use crate::settings::Engine;

/// What is done with a key.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// New material.
    Rotate,
    /// Another account may use it.
    Grant(String),
    /// It may no more.
    Revoke(String),
    /// It cannot be used.
    Disable,
    /// It can again.
    Enable,
    /// It goes after so many days.
    Delete(u16),
    /// It does not go.
    CancelDeletion,
}

/// A key, as it is listed: first what `ListKeys` says of it, then the record.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyReport {
    /// Its id.
    #[serde(rename = "KeyId")]
    pub id: KeyId,
    /// Its ARN.
    #[serde(rename = "KeyArn")]
    pub arn: String,
    /// The record.
    #[serde(flatten)]
    pub key: Key,
    /// False when its material is not in the key store: nothing that it encrypts can be read.
    pub material: bool,
    /// What is wrong with its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Engine {
    /// Every key of the account in the region, and those of others that it may use.
    pub fn keys(&self, place: &Place) -> Result<Vec<KeyReport>, EngineError> {
        let desk = self.desk(place)?;
        let state = desk.read()?;
        let caller = &desk.caller;
        let seen = state.keys.values().filter(|key| {
            key.region == caller.region
                && (key.owner == caller.account
                    || key.grants.iter().any(|g| g.grantee == caller.account))
        });
        seen.map(|key| {
            let (versions, problem) = match desk.ec2.keys().versions(&key.key_id) {
                Ok(versions) => (versions, None),
                Err(error) => (None, Some(crate::error::chain(&error))),
            };
            Ok(KeyReport {
                id: key.key_id.clone(),
                arn: format!(
                    "arn:aws:kms:{}:{}:key/{}",
                    key.region, key.owner, key.key_id
                ),
                material: versions.is_some_and(|n| n >= key.version),
                key: key.clone(),
                problem,
            })
        })
        .collect()
    }

    /// Makes a customer managed key.
    pub fn create_key(
        &self,
        place: &Place,
        alias: Option<&str>,
        description: &str,
    ) -> Result<KeyId, EngineError> {
        let desk = self.desk(place)?;
        let aliases: Vec<String> = alias
            .map(|a| {
                if a.starts_with("alias/") {
                    a.to_owned()
                } else {
                    format!("alias/{a}")
                }
            })
            .into_iter()
            .collect();
        desk.transact(|state, fx| Ok(state.create_key(&desk.caller, description, &aliases, fx)?))
    }

    /// Changes a key; gives its id.
    pub fn change_key(
        &self,
        place: &Place,
        key: &str,
        change: &KeyChange,
    ) -> Result<KeyId, EngineError> {
        let desk = self.desk(place)?;
        let account = |text: &str| -> Result<AccountId, EngineError> {
            text.parse()
                .map_err(|e| EngineError::new(ErrorKind::Invalid, format!("{e}")))
        };
        let caller = &desk.caller;
        let other = match change {
            KeyChange::Grant(text) | KeyChange::Revoke(text) => Some(account(text)?),
            _ => None,
        };
        desk.transact(|state, fx| {
            let id = state.resolve_key(caller, key)?;
            match (change, &other) {
                (KeyChange::Rotate, _) => {
                    state.rotate_key(caller, key)?;
                }
                (KeyChange::Grant(_), Some(other)) => state.grant_key(caller, key, other)?,
                (KeyChange::Revoke(_), Some(other)) => state.revoke_key(caller, key, other)?,
                (KeyChange::Disable, _) => state.set_key_enabled(caller, key, false)?,
                (KeyChange::Enable, _) => state.set_key_enabled(caller, key, true)?,
                (KeyChange::Delete(days), _) => {
                    state.schedule_key_deletion(caller, key, Some(*days), fx)?;
                }
                (KeyChange::CancelDeletion, _) => state.cancel_key_deletion(caller, key)?,
                (KeyChange::Grant(_) | KeyChange::Revoke(_), None) => {}
            }
            Ok(id)
        })
    }
}
