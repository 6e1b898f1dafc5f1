//! Keys, in the shapes of KMS.

use super::super::check::key_arn;
use super::super::{Caller, Key, KeyManager, KeyState, State};
use super::{shape, time};

shape! {
    /// `KeyMetadata`.
    pub struct KeyDescription {
        /// The owner.
        #[serde(rename = "AWSAccountId")]
        pub aws_account_id: String,
        /// Its id.
        pub key_id: String,
        /// Its ARN.
        pub arn: String,
        /// When it was made.
        pub creation_date: String,
        /// Whether it can be used.
        pub enabled: bool,
        /// What it is for.
        pub description: String,
        /// Always `ENCRYPT_DECRYPT`.
        pub key_usage: String,
        /// The state.
        pub key_state: String,
        /// When it goes.
        pub deletion_date: String,
        /// Always `AWS_KMS`.
        pub origin: String,
        /// `AWS` or `CUSTOMER`.
        pub key_manager: String,
        /// Always `SYMMETRIC_DEFAULT`.
        pub key_spec: String,
        /// Always false.
        pub multi_region: bool,
        /// The version of its material, counted from 1.
        pub current_key_material_id: String,
    }
}

shape! {
    /// `AliasListEntry`.
    pub struct AliasDescription {
        /// The name, with `alias/`.
        pub alias_name: String,
        /// Its ARN.
        pub alias_arn: String,
        /// The key.
        pub target_key_id: String,
    }
}

shape! {
    /// `GrantListEntry`.
    pub struct GrantDescription {
        /// The key.
        pub key_id: String,
        /// The account.
        pub grantee_principal: String,
        /// The owner.
        pub issuing_account: String,
        /// What it may be used for.
        pub operations: Vec<String>,
    }
}

shape! {
    /// What KMS answers in several requests: the keys, their aliases, and to whom they were granted.
    pub struct DescribeKeysResult {
        /// By id.
        pub keys: Vec<KeyDescription>,
        /// By key, then name. Of the caller's keys.
        pub aliases: Vec<AliasDescription>,
        /// By key, then account. Of the caller's keys.
        pub grants: Vec<GrantDescription>,
    }
}

impl KeyState {
    /// The name that KMS gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
        }
    }
}

impl Key {
    /// Its ARN.
    #[must_use]
    pub fn arn(&self) -> String {
        key_arn(&self.owner, &self.region, &self.key_id)
    }
}

impl State {
    /// The caller's keys, and those of others that it was granted, in the caller's region.
    #[must_use]
    pub fn describe_keys(&self, caller: &Caller) -> DescribeKeysResult {
        let own = |key: &&Key| key.owner == caller.account;
        let keys: Vec<&Key> = self
            .keys
            .values()
            .filter(|key| key.region == caller.region)
            .filter(|key| own(key) || key.grants.iter().any(|g| g.grantee == caller.account))
            .collect();
        let mut result = DescribeKeysResult {
            keys: Some(keys.iter().map(|key| describe(key)).collect()),
            aliases: Some(Vec::new()),
            grants: Some(Vec::new()),
        };
        for key in keys.iter().filter(|key| own(key)) {
            for alias in &key.aliases {
                result
                    .aliases
                    .get_or_insert_default()
                    .push(AliasDescription {
                        alias_name: Some(alias.clone()),
                        alias_arn: Some(format!(
                            "arn:aws:kms:{}:{}:{alias}",
                            key.region, key.owner
                        )),
                        target_key_id: Some(key.key_id.to_string()),
                    });
            }
            for grant in &key.grants {
                result
                    .grants
                    .get_or_insert_default()
                    .push(GrantDescription {
                        key_id: Some(key.arn()),
                        grantee_principal: Some(format!("arn:aws:iam::{}:root", grant.grantee)),
                        issuing_account: Some(format!("arn:aws:iam::{}:root", key.owner)),
                        operations: Some(
                            [
                                "Decrypt",
                                "GenerateDataKeyWithoutPlaintext",
                                "ReEncryptFrom",
                                "ReEncryptTo",
                                "CreateGrant",
                                "DescribeKey",
                            ]
                            .map(str::to_owned)
                            .to_vec(),
                        ),
                    });
            }
        }
        result
    }
}

fn describe(key: &Key) -> KeyDescription {
    KeyDescription {
        aws_account_id: Some(key.owner.to_string()),
        key_id: Some(key.key_id.to_string()),
        arn: Some(key.arn()),
        creation_date: Some(time(key.creation_date)),
        enabled: Some(key.state == KeyState::Enabled),
        description: Some(key.description.clone()),
        key_usage: Some("ENCRYPT_DECRYPT".to_owned()),
        key_state: Some(key.state.as_str().to_owned()),
        deletion_date: key.deletion_date.map(time),
        origin: Some("AWS_KMS".to_owned()),
        key_manager: Some(
            match key.manager {
                KeyManager::Aws => "AWS",
                KeyManager::Customer => "CUSTOMER",
            }
            .to_owned(),
        ),
        key_spec: Some("SYMMETRIC_DEFAULT".to_owned()),
        multi_region: Some(false),
        current_key_material_id: Some(key.version.to_string()),
    }
}
