//! Who sees, launches and reads what.
//!
//! Source: EC2 user guide, `sharingamis-intro`, `share-amis-with-organizations-and-OUs`, `ec2-allowed-amis`.

use amiforge_types::Timestamp;

use super::check::{Api, refuse};
use super::settings::AllowedImagesState;
use super::{
    AccountId, Caller, Encryption, ErrorCode, Image, KeyId, KeyManager, KeyState, LaunchPermission,
    Region, Snapshot, SnapshotPermission, SnapshotState, State, Tags,
};
use crate::{CreationDate, SnapshotId};

impl Image {
    /// Whether everybody may launch it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.launch_permissions.contains(&LaunchPermission::All)
    }

    /// The tags that `account` sees: its own ones.
    #[must_use]
    pub fn tags_seen_by(&self, account: &AccountId) -> Option<&Tags> {
        if *account == self.owner {
            return Some(&self.tags);
        }
        self.other_tags.get(account)
    }
}

impl Snapshot {
    /// A record with nothing in it: pending, of no size, begun in 1970.
    #[must_use]
    pub fn new(snapshot_id: SnapshotId, owner: AccountId, region: Region) -> Self {
        Self {
            snapshot_id,
            owner,
            region,
            volume_id: None,
            description: None,
            state: SnapshotState::Pending,
            state_message: None,
            start_time: CreationDate::new(Timestamp::from_secs(0)),
            completion_time: None,
            volume_size: 0,
            encryption: None,
            map: None,
            blocks: 0,
            changed_blocks: 0,
            parent: None,
            product_codes: Vec::new(),
            tags: Tags::new(),
            other_tags: std::collections::BTreeMap::new(),
            permissions: std::collections::BTreeSet::new(),
            bin: None,
        }
    }

    /// Whether `account` may make volumes and copies of it, as far as its permissions say; an encrypted one needs the
    /// use of its key, too.
    #[must_use]
    pub fn readable_by(&self, account: &AccountId) -> bool {
        *account == self.owner
            || self.permissions.contains(&SnapshotPermission::All)
            || self
                .permissions
                .contains(&SnapshotPermission::UserId(account.clone()))
    }

    /// The tags that `account` sees: its own ones.
    #[must_use]
    pub fn tags_seen_by(&self, account: &AccountId) -> Option<&Tags> {
        if *account == self.owner {
            return Some(&self.tags);
        }
        self.other_tags.get(account)
    }
}

impl State {
    /// Whether the caller owns the image, or it was shared with the caller's account, organization, organizational unit
    /// or everybody, and is not hidden by the caller's allowed images. Also true of deregistered images.
    #[must_use]
    pub fn may_launch(&self, caller: &Caller, image: &Image, now: Timestamp) -> bool {
        if image.region != caller.region {
            return false;
        }
        image.owner == caller.account
            || (image
                .launch_permissions
                .iter()
                .any(|permission| self.covers(permission, &caller.account))
                && (self.allowed_state(caller) != AllowedImagesState::Enabled
                    || self.image_allowed(caller, image, now)))
    }

    /// Whether a permission is for `account`.
    #[must_use]
    pub fn covers(&self, permission: &LaunchPermission, account: &AccountId) -> bool {
        // An account is in one organization, in whichever region that was set down.
        let mut memberships = self
            .settings
            .iter()
            .filter(|((a, _), _)| a == account)
            .map(|(_, settings)| settings);
        match permission {
            LaunchPermission::All => true,
            LaunchPermission::UserId(id) => id == account,
            LaunchPermission::OrganizationArn(arn) => {
                memberships.any(|s| s.organization.as_ref() == Some(arn))
            }
            LaunchPermission::OrganizationalUnitArn(arn) => {
                memberships.any(|s| s.organizational_units.contains(arn))
            }
        }
    }

    pub(crate) fn allowed_state(&self, caller: &Caller) -> AllowedImagesState {
        self.settings
            .get(&(caller.account.clone(), caller.region.clone()))
            .map(|s| s.allowed_images.state)
            .unwrap_or_default()
    }

    /// `ImageAllowed`: whether the caller's allowed images have it; its own ones are always allowed.
    #[must_use]
    pub fn image_allowed(&self, caller: &Caller, image: &Image, now: Timestamp) -> bool {
        image.owner == caller.account
            || match self
                .settings
                .get(&(caller.account.clone(), caller.region.clone()))
            {
                None => true,
                Some(settings) => {
                    settings.allowed_images.state == AllowedImagesState::Disabled
                        || settings.allowed_images.fits(image, now)
                }
            }
    }

    /// The snapshots of an image that are there, by its mappings.
    pub fn snapshots_of<'a>(&'a self, image: &'a Image) -> impl Iterator<Item = &'a Snapshot> {
        image
            .block_device_mappings
            .iter()
            .filter_map(|m| m.as_ebs()?.snapshot_id.as_ref())
            .filter_map(|id| self.snapshots.get(id))
    }

    /// Whether `account` may use the key: it is the owner's or granted, and enabled.
    ///
    /// `NotFoundException`, `AccessDeniedException`, `DisabledException`, `KMSInvalidStateException` (waits for its
    /// deletion).
    pub fn key_usable(&self, account: &AccountId, id: &KeyId) -> Api<()> {
        let Some(key) = self.keys.get(id) else {
            return refuse(ErrorCode::KmsNotFound, format!("Key '{id}' does not exist"));
        };
        let granted = key.grants.iter().any(|g| g.grantee == *account);
        if key.owner != *account && (key.manager == KeyManager::Aws || !granted) {
            return refuse(
                ErrorCode::KmsAccessDenied,
                format!(
                    "Account {account} is not authorized to use key {id}: its owner has not granted it"
                ),
            );
        }
        match key.state {
            KeyState::Enabled => Ok(()),
            KeyState::Disabled => refuse(ErrorCode::KmsDisabled, format!("Key {id} is disabled.")),
            KeyState::PendingDeletion => refuse(
                ErrorCode::KmsInvalidState,
                format!("Key {id} is pending deletion."),
            ),
        }
    }

    /// Whether what is encrypted so is under the default key of an account, which cannot be shared.
    #[must_use]
    pub fn under_default_key(&self, encryption: &Encryption) -> bool {
        self.keys
            .get(&encryption.key_id)
            .is_some_and(|k| k.manager == KeyManager::Aws)
    }
}
