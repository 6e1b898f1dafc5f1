//! Keys: the part of the key management service that EBS needs. The material lies in the key store of the host; here is
//! who owns a key, what it is called, who may use it, and which version is current.
//!
//! Source: KMS API reference, `CreateKey`, `CreateAlias`, `ScheduleKeyDeletion`, `CreateGrant`; EBS user guide, encryption.

use amiforge_types::{Digest, Hasher};

use super::check::{Api, bad_value, date, refuse};
use super::{
    AccountId, Caller, Effects, Encryption, ErrorCode, Grant, Key, KeyId, KeyManager, KeyState,
    Region, State, Tags,
};
use crate::CreationDate;

/// The alias of the default key.
pub const DEFAULT_KEY_ALIAS: &str = "alias/aws/ebs";

/// Days that a key waits for its deletion when none are given.
const DELETION_DAYS: u16 = 30;

fn key_id(bits: u128) -> KeyId {
    let bytes = bits.to_be_bytes();
    // Version 4, the variant of RFC 9562.
    let hex: String = bytes
        .iter()
        .enumerate()
        .map(|(i, b)| {
            let b = match i {
                6 => (b & 0x0f) | 0x40,
                8 => (b & 0x3f) | 0x80,
                _ => *b,
            };
            format!("{b:02x}")
        })
        .collect();
    let text = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    );
    text.parse().unwrap_or_else(|_| unreachable!("a UUID"))
}

/// `alias/` and 1 to 250 characters; `alias/aws/` is for the keys of AWS.
fn check_alias(alias: &str) -> Api<()> {
    let name = alias.strip_prefix("alias/").unwrap_or_default();
    let good = (1..=250).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-'));
    if !good || name.starts_with("aws/") {
        return refuse(
            ErrorCode::KmsInvalidAlias,
            format!(
                "Alias {alias:?} must be alias/ and letters, digits, / _ -, and must not begin with alias/aws/"
            ),
        );
    }
    Ok(())
}

impl State {
    /// `CreateKey`: a customer managed key, enabled, version 1, with the given aliases (each with `alias/`).
    pub fn create_key(
        &mut self,
        caller: &Caller,
        description: &str,
        aliases: &[String],
        fx: &mut dyn Effects,
    ) -> Api<KeyId> {
        if description.chars().count() > 8192 {
            return Err(bad_value("Description", "longer than 8192 characters"));
        }
        for (i, alias) in aliases.iter().enumerate() {
            check_alias(alias)?;
            self.free_alias(caller, alias)?;
            if aliases[..i].contains(alias) {
                return refuse(
                    ErrorCode::KmsAlreadyExists,
                    format!("An alias with the name {alias} is given twice"),
                );
            }
        }
        let id = self.insert_key(&caller.account, &caller.region, KeyManager::Customer, fx);
        if let Some(key) = self.keys.get_mut(&id) {
            key.description = description.to_owned();
            key.aliases.extend(aliases.iter().cloned());
        }
        Ok(id)
    }

    fn insert_key(
        &mut self,
        account: &AccountId,
        region: &Region,
        manager: KeyManager,
        fx: &mut dyn Effects,
    ) -> KeyId {
        let id = loop {
            let id = key_id(fx.random());
            if !self.keys.contains_key(&id) {
                break id;
            }
        };
        self.keys.insert(
            id.clone(),
            Key {
                key_id: id.clone(),
                owner: account.clone(),
                region: region.clone(),
                manager,
                state: KeyState::Enabled,
                aliases: std::collections::BTreeSet::new(),
                description: String::new(),
                creation_date: date(fx),
                deletion_date: None,
                version: 1,
                grants: std::collections::BTreeSet::new(),
            },
        );
        id
    }

    /// The key that new encrypted volumes and copies of the caller get when they name none: the one of the settings,
    /// else `aws/ebs`, which is made when it is first asked for.
    pub fn default_key(&mut self, caller: &Caller, fx: &mut dyn Effects) -> KeyId {
        if let Some(key) = self.settings_of(caller).default_key {
            return key;
        }
        if let Some(key) = self.keys.values().find(|k| {
            k.manager == KeyManager::Aws && k.owner == caller.account && k.region == caller.region
        }) {
            return key.key_id.clone();
        }
        let id = self.insert_key(&caller.account, &caller.region, KeyManager::Aws, fx);
        if let Some(key) = self.keys.get_mut(&id) {
            key.aliases.insert(DEFAULT_KEY_ALIAS.to_owned());
            key.description =
                "Default key that protects my EBS volumes when no other key is defined".to_owned();
        }
        id
    }

    /// The key that a text names: an id or `alias/…` of the caller's account and region, or an ARN of either in any
    /// account. A key of another region cannot be named: `NotFoundException`.
    ///
    /// `alias/aws/ebs` of the caller is found only once it was made; see [`State::default_key`].
    pub fn resolve_key(&self, caller: &Caller, text: &str) -> Api<KeyId> {
        let (account, name) = match text.strip_prefix("arn:") {
            None => (caller.account.clone(), text),
            Some(arn) => {
                let parts: Vec<&str> = arn.splitn(5, ':').collect();
                match parts[..] {
                    [_, "kms", region, account, name] if region == caller.region.as_str() => {
                        let account = account.parse().map_err(|_| no_key(text))?;
                        (account, name.strip_prefix("key/").unwrap_or(name))
                    }
                    _ => return Err(no_key(text)),
                }
            }
        };
        self.keys
            .values()
            .find(|key| {
                key.owner == account
                    && key.region == caller.region
                    && (key.key_id.as_str() == name || key.aliases.contains(name))
            })
            .map(|key| key.key_id.clone())
            .ok_or_else(|| no_key(text))
    }

    /// The key, when it is the caller's and a customer managed one.
    fn own_key(&mut self, caller: &Caller, text: &str) -> Api<&mut Key> {
        let id = self.resolve_key(caller, text)?;
        let key = self.keys.get_mut(&id).ok_or_else(|| no_key(text))?;
        if key.owner != caller.account || key.manager == KeyManager::Aws {
            return refuse(
                ErrorCode::KmsAccessDenied,
                format!(
                    "Key {id} is not a customer managed key of account {}",
                    caller.account
                ),
            );
        }
        Ok(key)
    }

    fn free_alias(&self, caller: &Caller, alias: &str) -> Api<()> {
        let taken = self.keys.values().any(|k| {
            k.owner == caller.account && k.region == caller.region && k.aliases.contains(alias)
        });
        if taken {
            return refuse(
                ErrorCode::KmsAlreadyExists,
                format!("An alias with the name {alias} already exists"),
            );
        }
        Ok(())
    }

    /// `CreateAlias`.
    pub fn create_alias(&mut self, caller: &Caller, alias: &str, key: &str) -> Api<()> {
        check_alias(alias)?;
        self.free_alias(caller, alias)?;
        let key = self.own_key(caller, key)?;
        if key.state == KeyState::PendingDeletion {
            return refuse(
                ErrorCode::KmsInvalidState,
                format!("Key {} is pending deletion.", key.key_id),
            );
        }
        key.aliases.insert(alias.to_owned());
        Ok(())
    }

    /// `DeleteAlias`.
    pub fn delete_alias(&mut self, caller: &Caller, alias: &str) -> Api<()> {
        check_alias(alias)?;
        self.own_key(caller, alias)?.aliases.remove(alias);
        Ok(())
    }

    /// `EnableKey` and `DisableKey`.
    pub fn set_key_enabled(&mut self, caller: &Caller, key: &str, enabled: bool) -> Api<()> {
        let key = self.own_key(caller, key)?;
        if key.state == KeyState::PendingDeletion {
            return refuse(
                ErrorCode::KmsInvalidState,
                format!("Key {} is pending deletion.", key.key_id),
            );
        }
        key.state = if enabled {
            KeyState::Enabled
        } else {
            KeyState::Disabled
        };
        Ok(())
    }

    /// `RotateKeyOnDemand`: the next version of the material, whose number it gives. Older versions still unwrap.
    pub fn rotate_key(&mut self, caller: &Caller, key: &str) -> Api<u32> {
        let key = self.own_key(caller, key)?;
        match key.state {
            KeyState::Enabled => {}
            KeyState::Disabled => {
                return refuse(
                    ErrorCode::KmsDisabled,
                    format!("Key {} is disabled.", key.key_id),
                );
            }
            KeyState::PendingDeletion => {
                return refuse(
                    ErrorCode::KmsInvalidState,
                    format!("Key {} is pending deletion.", key.key_id),
                );
            }
        }
        key.version = key.version.saturating_add(1);
        Ok(key.version)
    }

    /// Lets another account use the key for EBS: the key policy or grant that sharing of encrypted images needs.
    /// Granting twice is no error. A key of AWS cannot be granted: `AccessDeniedException`.
    pub fn grant_key(&mut self, caller: &Caller, key: &str, grantee: &AccountId) -> Api<()> {
        let key = self.own_key(caller, key)?;
        if *grantee != key.owner {
            key.grants.insert(Grant {
                grantee: grantee.clone(),
            });
        }
        Ok(())
    }

    /// Takes a grant back; no error when there is none.
    pub fn revoke_key(&mut self, caller: &Caller, key: &str, grantee: &AccountId) -> Api<()> {
        let key = self.own_key(caller, key)?;
        key.grants.retain(|g| g.grantee != *grantee);
        Ok(())
    }

    /// `ScheduleKeyDeletion`: the key cannot be used any more and goes in 7 to 30 days (30 when none are given), by
    /// [`State::expire`]. What is encrypted under it cannot be read from then on.
    pub fn schedule_key_deletion(
        &mut self,
        caller: &Caller,
        key: &str,
        days: Option<u16>,
        fx: &dyn Effects,
    ) -> Api<CreationDate> {
        let days = days.unwrap_or(DELETION_DAYS);
        let key = self.own_key(caller, key)?;
        if !(7..=30).contains(&days) {
            return refuse(
                ErrorCode::KmsValidation,
                format!("PendingWindowInDays must be 7 to 30, not {days}"),
            );
        }
        if key.state == KeyState::PendingDeletion {
            return refuse(
                ErrorCode::KmsInvalidState,
                format!("Key {} is pending deletion.", key.key_id),
            );
        }
        let at = after_days(date(fx), days);
        key.state = KeyState::PendingDeletion;
        key.deletion_date = Some(at);
        Ok(at)
    }

    /// `CancelKeyDeletion`: the key is disabled afterwards, as KMS has it.
    pub fn cancel_key_deletion(&mut self, caller: &Caller, key: &str) -> Api<()> {
        let key = self.own_key(caller, key)?;
        if key.state != KeyState::PendingDeletion {
            return refuse(
                ErrorCode::KmsInvalidState,
                format!("Key {} is not pending deletion.", key.key_id),
            );
        }
        key.state = KeyState::Disabled;
        key.deletion_date = None;
        Ok(())
    }

    /// `ModifyEbsDefaultKmsKeyId`: the key of new encrypted volumes and copies; `None` brings back `aws/ebs`.
    pub fn set_default_key(&mut self, caller: &Caller, key: Option<&str>) -> Api<()> {
        let key = match key {
            None => None,
            Some(text) => {
                let id = self.resolve_key(caller, text)?;
                self.key_usable(&caller.account, &id)?;
                Some(id)
            }
        };
        self.settings
            .entry((caller.account.clone(), caller.region.clone()))
            .or_default()
            .default_key = key;
        Ok(())
    }

    /// The key that a request names, or the default one; `alias/aws/ebs` makes the default key.
    pub(crate) fn wanted_key(
        &mut self,
        caller: &Caller,
        text: Option<&str>,
        fx: &mut dyn Effects,
    ) -> Api<KeyId> {
        let own_default = |t: &str| {
            t == DEFAULT_KEY_ALIAS
                || t == format!(
                    "arn:aws:kms:{}:{}:{DEFAULT_KEY_ALIAS}",
                    caller.region, caller.account
                )
        };
        match text {
            Some(text) if own_default(text) => {
                let id = self.resolve_key(caller, text);
                Ok(id.unwrap_or_else(|_| {
                    let id = self.insert_key(&caller.account, &caller.region, KeyManager::Aws, fx);
                    if let Some(key) = self.keys.get_mut(&id) {
                        key.aliases.insert(DEFAULT_KEY_ALIAS.to_owned());
                    }
                    id
                }))
            }
            Some(text) => self.resolve_key(caller, text),
            None => Ok(self.default_key(caller, fx)),
        }
    }
}

/// Encryption under a data key that does not exist yet: its id is drawn here, the engine makes the key under it.
pub(crate) fn new_encryption(key_id: KeyId, fx: &mut dyn Effects) -> Encryption {
    Encryption {
        key_id,
        data_key_id: data_key_id(fx),
    }
}

fn data_key_id(fx: &mut dyn Effects) -> Digest {
    let mut hasher = Hasher::new();
    hasher.field(b"amiforge-data-key-id-v1");
    hasher.field(&fx.random().to_be_bytes());
    hasher.finish()
}

pub(crate) fn after_days(from: CreationDate, days: u16) -> CreationDate {
    let secs = from.timestamp().secs;
    CreationDate::new(amiforge_types::Timestamp::from_secs(
        secs.saturating_add(i64::from(days) * 86_400),
    ))
}

fn no_key(text: &str) -> super::ApiError {
    let shown: String = text.chars().take(100).collect();
    super::ApiError::new(
        ErrorCode::KmsNotFound,
        format!("Key or alias '{shown}' is not found in this account and region"),
    )
}

/// No tags.
pub(crate) fn no_tags() -> &'static Tags {
    static NONE: Tags = Tags::new();
    &NONE
}
